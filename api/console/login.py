# SPDX-License-Identifier: AGPL-3.0-or-later
"""The way in and out: a passkey's signature over a typed `Login`, and nothing that could be read as an approval."""

import json
import re
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match

from api.console.desk import LoggedOut, parts_of, secret_of, signed_out_context
from api.console.parts import ConsoleParts
from api.console.registry import all_pages
from api.console.rendering import environment
from api.console.sessions import (
    WHOLE,
    cookie_name,
    end,
    form_token,
    is_token_of,
    log_in,
    log_in_as,
    session_of,
    step_up,
    waiting,
)
from custody.rules import passkeys
from custody.rules.errors import InvalidInput
from custody.rules.login import LOGIN_MOST
from custody.rules.passkeys import PASSKEY, signature_of
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Key
from custody.rules.webauthn import challenge_of

if TYPE_CHECKING:
    from api.console.oidc import Provider

router = APIRouter()
HOME: Final = "/queue"
_PATH: Final = re.compile(r"/[a-z0-9][a-z0-9/-]{0,120}")
_SEE_OTHER: Final = 303
_ANSWER_MOST: Final = 8192
_Word = Annotated[str, Query(max_length=2048)]


def address(path: str) -> str:
    """The login's own address, remembering a page of ours to go on to."""
    return f"/login?next={path}" if _is_page(path) else "/login"


def _is_page(path: str) -> bool:
    """Whether a path is a page that somebody may look at: nothing else is ever gone on to, so that no link leads elsewhere."""
    if _PATH.fullmatch(path) is None:
        return False
    scope = {"type": "http", "path": path, "method": "GET", "root_path": "", "headers": []}
    routes = (route for page in all_pages() for route in page.router.routes)
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


@router.get("/")
def get_root(request: Request) -> Response:
    """The queue, or the login before it."""
    logged_in = session_of(parts_of(request), secret_of(request)) is not None
    return RedirectResponse(HOME if logged_in else "/login", _SEE_OTHER)


@router.get("/login")
def get_login(request: Request, next: str = "") -> Response:  # noqa: A002  # what stands in the address
    """Ask this browser for a passkey. Whoever is logged in already goes on."""
    parts = parts_of(request)
    onward = next if _is_page(next) else HOME
    secret = secret_of(request)
    if session_of(parts, secret) is not None:
        return RedirectResponse(onward, _SEE_OTHER)
    step = waiting(parts, secret)
    if step is None:
        request.app.state.doorbell.ring()
        step = step_up(parts)
    digest = parts.api.roster().domain.digest(step.login)
    told = {
        "login": step.login,
        "digest": digest,
        "genesis": parts.api.roster().domain.genesis,
        "options": json.dumps(passkeys.request_options(digest, parts.origin)),
        "onward": onward,
        "provider": "" if parts.oidc is None else urlsplit(parts.oidc.issuer).netloc,
        "token": form_token(step.secret),
    }
    body = environment().get_template("login.html").render(**{**signed_out_context(parts), **told})
    response = HTMLResponse(body)
    _give(response, parts, step.secret, LOGIN_MOST)
    return response


@router.post("/login")
def post_login(
    request: Request,
    token: Annotated[str, Form()],
    answer: Annotated[str, Form()],
    next: Annotated[str, Form()] = "",  # noqa: A002
) -> Response:
    """Take one passkey's answer, and give out a new session's secret."""
    parts, secret = parts_of(request), secret_of(request)
    if not secret or not is_token_of(secret, token):
        raise Refused(
            [Refusal(Rule.SIGNATURE_MISSING, document="form", want="the login page of this browser: open it again")]
        )
    given = read_answer(answer)
    found = _key_of(parts, given)
    fresh, _person = log_in(parts, secret, signature_of(found, given))
    response = RedirectResponse(next if _is_page(next) else HOME, _SEE_OTHER)
    _give(response, parts, fresh, WHOLE)
    return response


@router.get("/login/oidc")
def get_oidc(request: Request) -> Response:
    """To the identity provider, for a browser that stands at the login page. What it answers opens a session and approves nothing."""
    parts, secret = parts_of(request), secret_of(request)
    provider = _provider(parts)
    if not secret or waiting(parts, secret) is None:
        return RedirectResponse("/login", _SEE_OTHER)
    return RedirectResponse(provider.leave_for(parts.origin, secret), _SEE_OTHER)


@router.get("/login/oidc/back")
def get_oidc_back(request: Request, state: _Word = "", code: _Word = "") -> Response:
    """From the provider. Its redirect carries no cookie of ours (SameSite=Strict), so that a page of ours goes on by itself."""
    _provider(parts_of(request))
    onward = f"/login/oidc/done?{urlencode({'state': state, 'code': code})}"
    context = {**signed_out_context(parts_of(request)), "onward": onward}
    return HTMLResponse(environment().get_template("onward.html").render(**context))


@router.get("/login/oidc/done")
def get_oidc_done(request: Request, state: _Word = "", code: _Word = "") -> Response:
    """What the provider vouched for, taken for the browser that asked, once."""
    parts, secret = parts_of(request), secret_of(request)
    provider = _provider(parts)
    if not secret or waiting(parts, secret, 0) is None:
        want = "the browser whose login page asked, within minutes: open it again"
        raise Refused([Refusal(Rule.EXPIRED, document="Login", want=want)])
    who = provider.who(parts.origin, secret, state, code, parts.api.wall())
    fresh, _person = log_in_as(parts, secret, who, provider.issuer)
    response = RedirectResponse(HOME, _SEE_OTHER)
    _give(response, parts, fresh, WHOLE)
    return response


def _provider(parts: ConsoleParts) -> "Provider":
    if parts.oidc is None:
        raise Refused([Refusal(Rule.NO_ROUTE, want="the passkey: this console has no identity provider")])
    return parts.oidc


@router.post("/logout")
def post_logout(request: Request, token: Annotated[str, Form()]) -> Response:
    """End this session."""
    parts, secret = parts_of(request), secret_of(request)
    session = session_of(parts, secret)
    if session is None:
        raise LoggedOut
    if not is_token_of(secret, token):
        raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="form", want="a form of this session")])
    end(parts, session, session.name)
    response = RedirectResponse("/login", _SEE_OTHER)
    response.delete_cookie(cookie_name(parts), path="/", secure=parts.secure, httponly=True, samesite="strict")
    return response


def read_answer(text: str) -> dict[str, object]:
    """What a browser's passkey answered, as JSON. Raises InvalidInput; whether it holds is for the rules to say."""
    try:
        answer = json.loads(text) if len(text) <= _ANSWER_MOST else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
        raise InvalidInput("answer", Rule.MALFORMED, text[:80], "what navigator.credentials.get answered, as JSON")
    return answer


def _key_of(parts: ConsoleParts, answer: dict[str, object]) -> Key:
    """The key that the mirror gives for a credential id. A false row leads to a key whose signature does not hold."""
    rows = parts.api.store.read(lambda work: work.documents.all(PASSKEY))
    for held in passkeys.known(rows, parts.api.roster()).values():
        for passkey in held:
            if challenge_of(passkey.credential_id) == answer["id"]:
                return passkey.key
    want = "a passkey that the roster names for this page: enrol it first, and wait until the roster is in force"
    raise Refused([Refusal(Rule.SIGNER_UNKNOWN, document="Login", want=want)])


def _give(response: Response, parts: ConsoleParts, secret: str, seconds: int) -> None:
    """The cookie: no script reads it, no other site sends it, no other host gets it."""
    response.set_cookie(
        cookie_name(parts), secret, max_age=seconds, path="/", secure=parts.secure, httponly=True, samesite="strict"
    )
