# SPDX-License-Identifier: AGPL-3.0-or-later
"""A typed message in words: every field in full, nothing shortened, so that what a person reads is what is signed."""

from collections.abc import Iterator
from dataclasses import fields

from custody.rules.typed import Struct


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
        yield f"{indent}{name}: {value}"
