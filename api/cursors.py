# SPDX-License-Identifier: AGPL-3.0-or-later
"""Opaque keyset cursors: where a page ended. They name a row, never an offset, so that what is added meanwhile shifts nothing."""

import base64
import binascii
from typing import Annotated, Final

from fastapi import Query

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

PAGE: Final = 50
PAGE_MOST: Final = 200
_LONGEST: Final = 400

Limit = Annotated[int, Query(ge=1, le=PAGE_MOST, description="Rows of a page at the most.")]
Cursor = Annotated[str | None, Query(max_length=_LONGEST, description="`next_cursor` of the page before.")]


def make(list_name: str, last: str) -> str:
    """A cursor after a row of a list."""
    return base64.urlsafe_b64encode(f"{list_name}:{last}".encode()).decode().rstrip("=")


def read(list_name: str, cursor: str | None) -> str | None:
    """The row that a page begins after; None for the first page. Raises InvalidInput for another list's, or none of ours."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("cursor", Rule.MALFORMED, repr(cursor[:80]), "`next_cursor` of the page before") from error
    name, found, last = raw.partition(":")
    if not found or name != list_name or make(list_name, last) != cursor:
        raise InvalidInput("cursor", Rule.MALFORMED, repr(cursor[:80]), "`next_cursor` of the page before")
    return last


def read_number(list_name: str, cursor: str | None) -> int:
    """As `read`, for lists by number; 0 for the first page."""
    last = read(list_name, cursor)
    if last is None:
        return 0
    if not (last.isascii() and last.isdigit() and len(last) <= 18):
        raise InvalidInput("cursor", Rule.MALFORMED, repr(last[:80]), "`next_cursor` of the page before")
    return int(last)
