# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON that somebody else wrote, read without letting it end the process.

py_ecc and py-evm raise Python's recursion limit for everybody who imports them, so that a file of nothing but `[` overruns the C
stack of `json.loads`: a dead process instead of an error. Depth is bounded here before anything recurses.
"""

import json
import re
from itertools import accumulate
from typing import Final

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

DEEPEST: Final = 64
"""Levels of nesting; our own documents need fewer than ten."""

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS: Final = bytes(set(range(256)) - set(_BRACKETS))


def read_json(text: str, field: str) -> object:
    """What `json.loads` reads; raises InvalidInput(malformed) for what it cannot, and for nesting beyond DEEPEST."""
    check_depth(text, field)
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(field, Rule.MALFORMED, str(error)[:200], "JSON") from error


def check_depth(text: str, field: str) -> None:
    """Raises InvalidInput(malformed) for JSON nested beyond DEEPEST, without parsing it."""
    if _depth(text) > DEEPEST and _depth(_STRING.sub("", text)) > DEEPEST:
        raise InvalidInput(field, Rule.MALFORMED, "nested too deeply", f"JSON of at most {DEEPEST} levels")


def _depth(text: str) -> int:
    """The most brackets open at once, those inside strings counted too."""
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _OTHERS)
    return max(accumulate(map(_BRACKETS.__getitem__, brackets)), default=0)
