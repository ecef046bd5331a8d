# SPDX-License-Identifier: AGPL-3.0-or-later
"""Oneself: the sessions that are open, the keys that the roster gives one, and what each of them is for."""

from typing import Annotated, Final

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from api.console.asking import passkeys_of
from api.console.desk import At, Posted
from api.console.registry import Page
from api.console.sessions import IDLE, end, sessions_of

router = APIRouter()
PAGE = Page("me", "/me", "", router, 100)
_SEE_OTHER: Final = 303


@router.get("/me")
def get_me(desk: At) -> Response:
    """Who one is here."""
    keys = [(str(key), shows) for key, shows in zip(desk.person.keys, desk.person.displays, strict=True)]
    here = {str(held.key) for held in passkeys_of(desk)}
    return desk.show(
        "me.html",
        keys=keys,
        here=here,
        sessions=sessions_of(desk.parts, desk.person.id),
        idle=IDLE,
        wall=desk.parts.api.wall(),
    )


@router.post("/me/end")
def post_end(desk: Posted, name: Annotated[str, Form(pattern="^[0-9a-f]{64}$")]) -> Response:
    """End one of one's own sessions."""
    end(desk.parts, desk.session, bytes.fromhex(name))
    return RedirectResponse("/me", _SEE_OTHER)
