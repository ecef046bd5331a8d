# SPDX-License-Identifier: AGPL-3.0-or-later
"""What stands around every page: headers that leave a browser no other way, one host, bounded bodies, and no request of another site.

A session cookie travels with whatever a browser sends. So whatever changes something is asked for from this very origin, by a form
that holds what only this session knows (sessions.py), and is looked at here before any page.
"""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from api.console.parts import ConsoleParts
from custody.rules.refusals import Refusal, Refused, Rule

BODY_BYTES: Final = 256 * 1024
"""The longest form: a ceremony's file fits."""
_DIRECTIVES: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types default",  # the one of console.js, which lets no script through
)
POLICY: Final = "; ".join(_DIRECTIVES)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), microphone=()",
    "cache-control": "no-store",
}
_TRANSPORT: Final = "max-age=63072000; includeSubDomains"
_READS: Final = ("GET", "HEAD")


class Shell:
    """ASGI around the console: refuses what no page of ours asks for, bounds bodies, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, parts: ConsoleParts) -> None:
        self._app, self._parts = app, parts
        self._headers = HEADERS | ({"strict-transport-security": _TRANSPORT} if parts.secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def dressed(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        why = self._stranger(scope["method"], Headers(scope=scope))
        if why:
            await PlainTextResponse(f"Refused: {why}.", 403)(scope, receive, dressed)
            return
        await self._app(scope, _bounded(receive), dressed)

    def _stranger(self, method: str, headers: Headers) -> str:
        """Why a request is none of our pages'; empty where it may be."""
        if headers.getlist("host") != [self._parts.host]:  # a name that somebody else's DNS leads here
            return f"this console is {self._parts.origin} and nothing else"
        if method in _READS:
            return ""
        # Under no-referrer a browser writes the origin of a form as null; then only Sec-Fetch-Site tells, which no page can set.
        site, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
        named = origins == [self._parts.origin] and site in ([], ["same-origin"])
        if named or (origins == ["null"] and site == ["same-origin"]):
            return ""
        return "what changes something comes from a page of this console"


def _bounded(receive: Receive) -> Receive:
    """A body that is refused where it grows longer than any form of ours."""
    read = 0

    async def bounded() -> AsgiMessage:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > BODY_BYTES:
            raise Refused([Refusal(Rule.BODY_TOO_LARGE, most=BODY_BYTES)])
        return message

    return bounded
