# SPDX-License-Identifier: AGPL-3.0-or-later
"""The language of requests and answers between processes, whatever carries it: closed JSON in, one answer out.

An answer is one of `{"ok"}`, `{"refused": [{"rule", "operands"}]}`, `{"invalid": {"field", "rule", "got", "want"}}`,
`{"unavailable": {"what", "why"}}`. Unix sockets carry it (custody/wire.py), and OpenBao does (custody/vault/engine).
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule

Handler = Callable[[object], object]
"""Takes a request's body, gives the answer's; both JSON. Raises Refused, InvalidInput or Unavailable."""

MESSAGE_BYTES: Final = 8 << 20
"""A request to sign 100 payments by three people each, from 100 coins whose previous transactions have 100 outputs each, has
1.04 MB; larger previous transactions are ordinary. Only this account's own processes can send one at all."""
_TOLD: Final = 300
_DEPTH: Final = 64
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[\]{}]")


def read_body(body: object, *names: str) -> tuple[Any, ...]:
    """The values of a body with exactly these names, in their order; raises InvalidInput."""
    if not isinstance(body, dict) or set(body) != set(names):
        got = sorted(body) if isinstance(body, dict) else type(body).__name__
        raise InvalidInput("body", Rule.MALFORMED, str(got), f"an object of {', '.join(names) or 'nothing'}")
    return tuple(body[name] for name in names)


def read_text(value: object, field: str) -> str:
    """A value that has to be text; raises InvalidInput."""
    if not isinstance(value, str):
        raise InvalidInput(field, Rule.MALFORMED, type(value).__name__, "text")
    return value


def read_count(value: object, field: str) -> int:
    """A value that has to be a whole number from 0 on; raises InvalidInput."""
    if type(value) is not int or value < 0:
        raise InvalidInput(field, Rule.MALFORMED, str(value)[:_TOLD], "0 or more")
    return value


def read_object(value: object, field: str) -> dict[str, object]:
    """A value that has to be an object; raises InvalidInput."""
    if not isinstance(value, dict):
        raise InvalidInput(field, Rule.MALFORMED, type(value).__name__, "an object")
    return value


def find_handler(handlers: Mapping[str, Handler], verb: object) -> Handler:
    """The handler of a verb; raises InvalidInput."""
    handler = handlers.get(verb) if isinstance(verb, str) else None
    if handler is None:
        raise InvalidInput("verb", Rule.MALFORMED, repr(verb), "one of " + ", ".join(sorted(handlers)))
    return handler


def answer_of(ask: Callable[[], object]) -> dict[str, object]:
    """What `ask` gives, or why it gives nothing, as an answer."""
    try:
        return {"ok": ask()}
    except Refused as error:
        return {"refused": [{"rule": r.rule.value, "operands": _plain(r.operands)} for r in error.refusals]}
    except InvalidInput as error:
        told_of = {"field": error.field, "rule": error.rule, "got": error.got, "want": error.want}
        return {"invalid": {name: str(value)[:_TOLD] for name, value in told_of.items()}}
    except Unavailable as error:
        return {"unavailable": {"what": error.what, "why": error.why}}
    except OSError as error:  # a disk that is full, say: whoever asked is told, and the process goes on
        return {"unavailable": {"what": "server", "why": f"{type(error).__name__}: {error.strerror}"}}


def read_answer(raw: bytes, what: str, name: str = "") -> object:
    """What an answer gives. Raises Refused or InvalidInput as the other side did; Unavailable where it is no answer.

    `what` is whoever answered; with a `name`, whoever waits is told that, and not only what stands behind it.
    """
    try:
        decoded = decode(raw, "answer")
    except InvalidInput as error:
        raise Unavailable(what, "answered in another language") from error
    return open_answer(decoded, what, name)


def open_answer(answer: object, what: str, name: str = "") -> object:
    """The same for an answer that was one of many in another."""
    try:
        match answer:
            case {"ok": given}:
                return given
            case {"refused": [_, *_] as told}:
                raise Refused([Refusal(Rule(t["rule"]), **t["operands"]) for t in told])
            case {"invalid": told}:
                raise InvalidInput(told["field"], told["rule"], told["got"], told["want"])
            case {"unavailable": told} if name and told["what"] != name:
                raise Unavailable(name, f"{told['what']}: {told['why']}")
            case {"unavailable": told}:
                raise Unavailable(told["what"], told["why"])
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(what, "answered in another language") from error
    raise Unavailable(what, "answered in another language")


def encode(value: object) -> bytes:
    """JSON in ASCII without blanks; raises ValueError for what is no number."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode(raw: bytes, field: str) -> object:
    """Strict JSON: no name twice, no fractions, no lone surrogates, no endless nesting. Raises InvalidInput."""
    try:
        _check_depth(raw)
        value = json.loads(raw, object_pairs_hook=_once, parse_float=_fraction, parse_constant=_fraction)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise InvalidInput(
            field, Rule.MALFORMED, f"{len(raw)} bytes: {type(error).__name__}", "one JSON object"
        ) from error
    return value


def _check_depth(raw: bytes) -> None:
    """Refuse deep nesting before the parser sees it.

    Python's own guard is gone: py_ecc, which eth-account imports, raises the recursion limit to 100000, and 200 KB of `[` then
    overflow the C stack and kill the process, keys, lock and all.
    """
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _DEPTH:
            raise ValueError("nested too deep")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a name twice")
    return body


def _fraction(text: str) -> NoReturn:
    raise ValueError(f"not an integer: {text[:20]}")


def _plain(value: object) -> object:
    """A refusal's operand as JSON: numbers, text, lists and objects stay; anything else is told as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
