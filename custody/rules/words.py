# SPDX-License-Identifier: AGPL-3.0-or-later
"""A typed message in words: every field in full, nothing shortened, so that what a person reads is what is signed."""

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final

from custody.rules.typed import Struct

_LAST: Final = 253_402_300_799
"""The last second of the year 9999, which is as far as a calendar date is written."""


def clean(text: str) -> str:
    """Text that shows as itself: what a terminal would act on, or a reader could not see, is spelled out.

    Whoever owns the database writes what a person reads: an escape sequence would paint over a warning, and U+202E would turn an
    address around.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def at(time: int) -> str:
    """A time (seconds since 1970) as a date in UTC, such as `2026-11-22 18:30:00 UTC`; a number where no calendar goes so far."""
    if not 0 <= time <= _LAST:
        return f"second {time}"
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def span(seconds: int) -> str:
    """A length of time in its two largest units, rounded down: `1 d 3 h`, `59 min`, `12 s`."""
    left, told = max(0, seconds), []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if left >= size:
            told.append(f"{left // size} {unit}")
            left %= size
    return " ".join(told[:2]) or "0 s"


def lines(message: Struct) -> Iterator[str]:
    """The message's type and each field on a line of its own, structs and lists indented; bytes in full hex."""
    yield type(message).__name__
    yield from _struct(message, "  ")


def _struct(message: Struct, indent: str) -> Iterator[str]:
    for field in fields(message):
        yield from _value(field.name.replace("_", " "), getattr(message, field.name), indent)


def _value(name: str, value: object, indent: str) -> Iterator[str]:
    if isinstance(value, Struct):
        yield f"{indent}{name}:"
        yield from _struct(value, indent + "  ")
    elif isinstance(value, tuple):
        yield f"{indent}{name}:" if value else f"{indent}{name}: none"
        for position, item in enumerate(value, 1):
            yield from _value(f"{position}.", item, indent + "  ")
    elif isinstance(value, bytes):
        yield f"{indent}{name}: 0x{value.hex()}"
    else:
        yield f"{indent}{name}: {clean(str(value))}"
