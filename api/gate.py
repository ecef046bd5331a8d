# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one way in: nothing behind it, not even a 404, is told to a request that is not signed. Only `/v1/health` stands before it."""

from typing import Final
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from api.bodies import Left, check_json, receive_body
from api.identity import Caller, identify
from api.parts import ApiParts
from api.problems import Busy, problem
from api.replays import Window
from api.signing import HeaderLines, Message
from custody.rules.errors import CustodyError, InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule

HEALTH: Final = "/v1/health"
CALLER: Final = "bulkhead.caller"
"""Where the gate leaves the caller in the ASGI scope."""
WRITES_MOST: Final = 256
"""Writes of one process that wait or are done at a time: a second or two of work. Whoever comes then is told to come again."""
_READS: Final = ("GET", "HEAD")
_GONE: Final[AsgiMessage] = {"type": "http.disconnect"}


class Gate:
    """ASGI around the app: bounds the body, authenticates, refuses what is no strict JSON, and only then lets in."""

    def __init__(self, app: ASGIApp, parts: ApiParts, window: Window, most: int = WRITES_MOST) -> None:
        self._app, self._parts, self._window = app, parts, window
        self._most, self._writes = most, 0  # counted on the event loop's one thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and _is_health(scope)):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            self._check_room(
                scope
            )  # before anything is spent on it, and before its nonce is: the same request may come again
            message = _message(scope)
            lengths = message.headers.all("content-length")
            body = await receive_body(receive, lengths[0] if lengths else None)
            scope[CALLER] = await run_in_threadpool(self._admit, message, body)
            self._check_room(scope)  # others may have come in meanwhile; a stranger who drips his body holds no place
        except Left:
            return
        except CustodyError as error:
            await problem(error)(scope, receive, send)
            return
        counted = scope["method"] not in _READS
        self._writes += counted
        try:
            await self._app(scope, _replayed(body), send)
        finally:
            self._writes -= counted

    def _check_room(self, scope: Scope) -> None:
        if scope["method"] not in _READS and self._writes >= self._most:
            raise Busy([Refusal(Rule.BUSY, waiting=self._writes, most=self._most)])

    def _admit(self, message: Message, body: bytes) -> Caller:
        caller = identify(self._parts, self._window, message, body)
        _check_target(message.url)
        if body:
            _check_media(message.headers)
            check_json(body)
        return caller


def _is_health(scope: Scope) -> bool:
    return scope["path"] == HEALTH and scope["method"] in ("GET", "HEAD")


def _message(scope: Scope) -> Message:
    """The request as its client signed it: the path as it was sent, before anything decoded it. Raises InvalidInput."""
    try:
        lines = [(name.decode("ascii"), value.decode("latin-1")) for name, value in scope["headers"]]
        target = scope["raw_path"].decode("ascii")
        query = scope["query_string"].decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidInput("request", Rule.MALFORMED, "bytes that are no ASCII", "an encoded target") from error
    headers = HeaderLines(lines)
    hosts = headers.all("host")
    if len(hosts) != 1:
        raise InvalidInput("host", Rule.MALFORMED, f"{len(hosts)} of it", "one Host header")
    return Message(scope["method"], f"{scope['scheme']}://{hosts[0]}{target}" + (f"?{query}" if query else ""), headers)


def _check_target(url: str) -> None:
    """Nothing in a path or a query is invisible: no database takes a NUL, and no log shows what a line break hides."""
    try:
        plain = unquote_to_bytes(url).decode("utf-8").isprintable()
    except UnicodeDecodeError:
        plain = False
    if not plain:
        raise InvalidInput("target", Rule.MALFORMED, "bytes that are no printable text", "printable UTF-8, encoded")


def _check_media(headers: HeaderLines) -> None:
    kinds = [value.partition(";")[0].strip().lower() for value in headers.all("content-type")]
    if kinds != ["application/json"] or headers.all("content-encoding"):
        raise Refused([Refusal(Rule.MEDIA_TYPE, got=kinds, want="application/json, not compressed")])


def _replayed(body: bytes) -> Receive:
    """The body once more, for the app behind."""
    left: list[AsgiMessage] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> AsgiMessage:
        return left.pop() if left else _GONE

    return receive
