# SPDX-License-Identifier: AGPL-3.0-or-later
"""A request's body before anything believes it: bounded while it arrives, and strict JSON (RFC 8259 read narrowly).

Two parsers that disagree about one text are an attack: a name twice, a number with a fraction, NaN, a lone surrogate and endless
nesting are refused here, before FastAPI parses the same bytes again.
"""

import asyncio
import json
from typing import Final, NoReturn

from starlette.types import Receive

from custody.rules.errors import InvalidInput
from custody.rules.json_text import check_depth
from custody.rules.refusals import Refusal, Refused, Rule

BODY_BYTES: Final = 256 * 1024
"""The longest body; a settlement of a thousand trades fits."""
BODY_SECONDS: Final = 10
"""Whoever drips a body, byte by byte, holds a connection no longer."""
_DIGITS: Final = 20
"""Of a bare JSON integer: enough for a uint64. Amounts are strings."""


class Left(Exception):
    """The client went away before its body was whole: there is nobody to answer."""


async def receive_body(receive: Receive, announced: str | None) -> bytes:
    """The whole body, in bounded room and time. Raises Refused(body_too_large), InvalidInput (too slow), Left (the client is gone)."""
    if announced is not None and announced.isdecimal() and (len(announced) > _DIGITS or int(announced) > BODY_BYTES):
        raise _too_large(announced[:_DIGITS])
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _receive(receive)
    except TimeoutError as error:
        raise InvalidInput("body", Rule.MALFORMED, f"not whole after {BODY_SECONDS} s", "a body") from error


async def _receive(receive: Receive) -> bytes:
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Left
        found += message.get("body", b"")
        if len(found) > BODY_BYTES:
            raise _too_large(f"more than {BODY_BYTES}")
        if not message.get("more_body", False):
            return bytes(found)


def check_json(body: bytes) -> None:
    """Raises InvalidInput(malformed) for what is no strict JSON object."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput("body", Rule.MALFORMED, "bytes that are no UTF-8", "JSON") from error
    check_depth(text, "body")
    try:
        value = json.loads(
            text, object_pairs_hook=_once, parse_float=_fraction, parse_constant=_fraction, parse_int=_integer
        )
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise InvalidInput("body", Rule.MALFORMED, str(error)[:200], "one strict JSON object") from error
    if not isinstance(value, dict):
        raise InvalidInput("body", Rule.MALFORMED, type(value).__name__, "one strict JSON object")


def _too_large(got: str) -> Refused:
    return Refused([Refusal(Rule.BODY_TOO_LARGE, got=got, most=BODY_BYTES)])


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a name twice in one object")
    return body


def _fraction(text: str) -> NoReturn:
    raise ValueError(f"not an integer: {text[:40]}; amounts are decimal strings")


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
