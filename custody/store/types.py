# SPDX-License-Identifier: AGPL-3.0-or-later
"""Exact base units in a column: SQLite's numbers and most drivers round silently at this size (DESIGN.md, "Money")."""

from decimal import Decimal
from typing import Any, Final

from sqlalchemy import BigInteger, CheckConstraint, Dialect, Integer, Numeric, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from custody.rules.amounts import UINT256_MAX
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

DIGITS: Final = 78
"""Digits of 2^256 − 1."""

WholeNumber: Final = BigInteger().with_variant(Integer(), "sqlite")
"""A position, height, index or time. SQLite's INTEGER holds 64 bits, and STRICT tables know no BIGINT."""


class Units(TypeDecorator[int]):
    """0 to 2^256 − 1 base units: 78 zero-padded digits of TEXT in SQLite, NUMERIC(78,0) in PostgreSQL.

    Zero-padded, because the order of the text is then the order of the numbers. Raises TypeError for anything whose type is
    not exactly int, and OverflowError outside the range.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """The column's own type in this database."""
        kind: TypeEngine[Any] = Numeric(DIGITS, 0) if dialect.name == "postgresql" else Text()
        return dialect.type_descriptor(kind)

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | Decimal | None:
        """An int on its way into the database."""
        if value is None:
            return None
        return Decimal(digits(value)) if dialect.name == "postgresql" else digits(value)

    def process_result_value(self, value: str | Decimal | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """An int on its way out; InvalidInput where somebody wrote something else behind our back."""
        if value is None:
            return None
        text = str(value) if isinstance(value, Decimal) else value
        if not isinstance(text, str) or not text.isascii() or not text.isdigit():
            raise InvalidInput("units", Rule.MALFORMED, repr(value)[:100], f"{DIGITS} digits")
        return int(text)


def digits(units: int) -> str:
    """The 78 digits of a number of base units."""
    if type(units) is not int:  # refuses float and bool alike
        raise TypeError(f"units must be int, not {units!r}")
    if not 0 <= units <= UINT256_MAX:
        raise OverflowError(f"units must be 0 to 2^256 - 1, not {units}")
    return f"{units:0{DIGITS}d}"


def units_checks(table: str, least: int = 0) -> tuple[CheckConstraint, CheckConstraint]:
    """What each database itself refuses in a `units` column: below `least`, above 2^256 − 1, and anything but whole digits.

    PostgreSQL's NaN is greater than every number, so the upper bound is what keeps it out.
    """
    text = f"length(units) = {DIGITS} AND units NOT GLOB '*[^0-9]*' AND units BETWEEN '{digits(least)}' AND '{UINT256_MAX}'"
    number = f"units BETWEEN {least} AND {UINT256_MAX}"
    return (
        CheckConstraint(text, name=f"{table}_units").ddl_if(dialect="sqlite"),
        CheckConstraint(number, name=f"{table}_units").ddl_if(dialect="postgresql"),
    )
