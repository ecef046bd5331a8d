# SPDX-License-Identifier: AGPL-3.0-or-later
"""The console as an application: `create_console(parts)`. Its own process, beside the API's (docs/decisions)."""

import logging
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.console import enrolment, login
from api.console.assets import assets
from api.console.desk import Desk, LoggedOut, guard, seated, signed_out_context
from api.console.parts import ConsoleParts
from api.console.registry import all_pages
from api.console.rendering import environment
from api.console.security import Shell
from api.console.sessions import STRANGERS_MOST, Doorbell
from api.problems import Busy, status_of
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule

_LOG: Final = logging.getLogger("bulkhead.console")
_KEPT: Final = "public, max-age=31536000, immutable"
_SEE_OTHER: Final = 303


def create_console(parts: ConsoleParts, strangers: int = STRANGERS_MOST) -> FastAPI:
    """The pages over parts that are handed in; so many `strangers` a second are asked for a login."""
    app = FastAPI(title="Bulkhead console", docs_url=None, redoc_url=None, openapi_url=None)
    app.router.redirect_slashes = False
    app.state.parts, app.state.doorbell = parts, Doorbell(strangers)
    for kind in (CustodyError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refused)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        """One file that the manifest names."""
        asset = assets().get(name)
        if asset is None:
            raise HTTPException(404)
        return Response(asset.body, media_type=asset.kind, headers={"cache-control": _KEPT})

    app.include_router(login.router)
    app.include_router(enrolment.router)
    for page in all_pages():
        app.include_router(page.router, dependencies=[guard(page)])
    app.add_middleware(Shell, parts=parts)
    return app


def _refused(request: Request, error: Exception) -> Response:
    """Whatever went wrong, as a page that says what it was and what to do next; a fault of ours without a word of it."""
    parts: ConsoleParts = request.app.state.parts
    if isinstance(error, LoggedOut):
        return _to_login(request)
    status, refusals, next_step = _told(error)
    context = {**signed_out_context(parts), "status": status, "refusals": refusals, "next_step": next_step}
    desk = _desk_of(request)
    body = (
        desk.words("refused.html", **{key: context[key] for key in ("status", "refusals", "next_step")})
        if desk is not None
        else environment().get_template("refused.html").render(**context)
    )
    return HTMLResponse(body, status)


def _desk_of(request: Request) -> Desk | None:
    """Whoever is logged in keeps the navigation; where even that fails, nothing stands around the reason."""
    desk = getattr(request.state, "desk", None)
    if isinstance(desk, Desk):
        return desk
    try:
        return seated(all_pages()[0], request)
    except (CustodyError, IndexError):
        return None


def _to_login(request: Request) -> Response:
    """To the login, and back to where one was going; a part of a page that is asked for again loads the whole."""
    target = login.address(request.url.path if request.method == "GET" else "")
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"hx-redirect": target})
    return RedirectResponse(target, _SEE_OTHER)


def _told(error: Exception) -> tuple[int, tuple[Refusal, ...], str]:
    """(status, reasons, what to do next)."""
    match error:
        case Busy():
            return 429, tuple(error.refusals), "Too many ask at once. Try again in a second."
        case Refused():
            return int(status_of(error.refusals)), tuple(error.refusals), "Nothing was changed by this request."
        case InvalidInput():
            return (
                400,
                (refusal_of(error),),
                "Nothing was changed. Go back, set right what is named, and send it again.",
            )
        case Unavailable():
            reason = Refusal(Rule.UNAVAILABLE, what=error.what, why=error.why)
            return 503, (reason,), "Unknown is no answer, so nothing was done. Try again in a few seconds."
        case RequestValidationError():
            fields = ", ".join(sorted({str(found["loc"][-1]) for found in error.errors()}))
            return 400, (Refusal(Rule.MALFORMED, field=fields),), "The form was not whole. Open the page again."
        case HTTPException(__cause__=Refused() as cause):  # the framework's own wrapping of what reading a form raised
            return _told(cause)
        case HTTPException():
            rule = Rule.METHOD if error.status_code == 405 else Rule.NO_ROUTE
            return error.status_code, (Refusal(rule),), "There is no such page. The navigation shows those there are."
        case _:
            _LOG.error("unexpected %s", type(error).__name__)
            return (
                500,
                (Refusal(Rule.INTERNAL),),
                "A fault of ours; it stands in the console's log. Nothing was signed by it.",
            )
