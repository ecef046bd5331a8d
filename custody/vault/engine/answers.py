# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat's verbs as OpenBao's paths: a request's text in parts, an answer's text in one, and refusals as coded errors.

OpenBao counts the strings of a request and bounds each, so that the verb's body travels as JSON text cut into parts. What refuses
is the error's message, which stands in the clear in OpenBao's audit log: rules and operands, never a secret.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from custody.answers import MESSAGE_BYTES, Handler, answer_of, decode, encode, find_handler
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.vault.engine.storage import EngineVault

BODY: Final = "body"
ANSWER: Final = "answer"
PART_CHARACTERS: Final = 256 << 10
CODES: Final[Mapping[str, int]] = {"refused": 403, "invalid": 400, "unavailable": 503}
"""The HTTP status for each kind of answer that is not ok."""


def parts_of(body: Mapping[str, object]) -> list[str]:
    """A verb's body as it travels. Raises InvalidInput where it is too long."""
    text = encode(dict(body)).decode()
    if len(text) > MESSAGE_BYTES:
        raise InvalidInput("request", Rule.MALFORMED, f"{len(text)} bytes", f"at most {MESSAGE_BYTES}")
    return [text[at : at + PART_CHARACTERS] for at in range(0, len(text), PART_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class Told:
    """What goes back: a status, and the answer's text. 200 has data, everything else is an error with the text as its message."""

    code: int
    text: str


def carry_out(handlers: Mapping[str, Handler], vault: EngineVault, path: str, data: str) -> Told:
    """Answer one request, with everything that it wrote on disk before the answer exists."""

    def ask() -> object:
        body = _body(data)
        handler = find_handler(handlers, path)
        try:
            return handler(body)
        finally:
            vault.finish()  # also where it refuses: a roster that is too early was noted

    vault.forget()
    try:
        answer = answer_of(ask)
    finally:
        vault.forget()
    text = encode(answer)
    if len(text) > MESSAGE_BYTES:
        answer = {"unavailable": {"what": "answer", "why": f"longer than {MESSAGE_BYTES} bytes"}}
        text = encode(answer)
    return Told(CODES.get(next(iter(answer)), 200), text.decode())


def _body(data: str) -> object:
    try:
        fields = json.loads(data or "{}")
    except ValueError as error:
        raise InvalidInput("data", Rule.MALFORMED, type(error).__name__, "JSON") from error
    parts = fields.get(BODY, ["{}"]) if isinstance(fields, dict) and set(fields) <= {BODY} else None
    if isinstance(parts, str):
        parts = [parts]
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise InvalidInput(
            "data", Rule.MALFORMED, "another shape", f"{BODY}: the request's JSON text, whole or in parts"
        )
    return decode("".join(parts).encode(), BODY)
