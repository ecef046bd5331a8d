# SPDX-License-Identifier: AGPL-3.0-or-later
"""The statements of one append, and the smallest questions of a proposal, sent straight to the driver.

An append is a dozen small statements, and SQLAlchemy's work around each costs more than the database's. These are written once
for both databases and run on the transaction's own cursor; everything else goes through SQLAlchemy.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.store.types import DIGITS, digits

HEAD: Final = "SELECT position, hash FROM journal ORDER BY position DESC LIMIT 1"
REVERSIBLE_AT: Final = "SELECT 1 FROM identities WHERE position = ? AND kind IN (?, ?)"
EXECUTED: Final = """SELECT i.position, i.identity FROM identities i WHERE i.kind = 'payout' AND i.identity >= ? AND i.identity < ?
    AND NOT EXISTS (SELECT 1 FROM identities r WHERE r.kind = 'reversal' AND r.identity = CAST(i.position AS TEXT))
    ORDER BY i.position"""
# Reversals are few, an account's lines may be many: CROSS JOIN lets SQLite begin with the few.
REVERSED: Final = """SELECT DISTINCT p.position FROM identities i CROSS JOIN postings p
    WHERE p.position = i.position AND i.kind = 'reversal' AND p.account IN (?, ?) ORDER BY p.position"""
REVERSALS: Final = "SELECT position FROM identities WHERE kind = 'reversal' ORDER BY position"
CREDITED: Final = """SELECT p.units FROM postings p WHERE p.account IN (?, ?) AND p.asset = ? AND p.position > ? AND p.side = 'credit'
    AND EXISTS (SELECT 1 FROM identities i WHERE i.position = p.position AND i.kind = 'chain_event')
    AND NOT EXISTS (SELECT 1 FROM identities r WHERE r.kind = 'reversal' AND r.identity = CAST(p.position AS TEXT))"""
RIPE: Final = (
    "SELECT units, ripens FROM accruals WHERE asset = ? AND ripens <= ? ORDER BY ripens DESC, position DESC LIMIT 1"
)
BALANCE: Final = "SELECT units FROM balances WHERE account = ? AND asset = ?"
TOTAL: Final = "SELECT units FROM totals WHERE kind = ? AND asset = ?"
BALANCES: Final = "SELECT account, asset, units FROM balances WHERE account IN"
TOTALS: Final = "SELECT kind, asset, units FROM totals WHERE kind IN"
CLAIMED: Final = "SELECT identity, position FROM identities WHERE kind = ? AND identity IN"

CUSTOMER: Final = "SELECT 1 FROM customers WHERE id = ?"

SETTLED: Final = "SELECT asset, units FROM settled WHERE account = ? AND at > ?"

ADD_ENTRY: Final = "INSERT INTO journal (position, recorded_at, previous, hash, body) VALUES (?, ?, ?, ?, ?)"
ADD_LINE: Final = "INSERT INTO postings (position, line, account, asset, side, units) VALUES (?, ?, ?, ?, ?, ?)"
ADD_IDENTITY: Final = "INSERT INTO identities (kind, identity, freed_by, position) VALUES (?, ?, ?, ?)"
ADD_ACCRUAL: Final = "INSERT INTO accruals (asset, position, ripens, units) VALUES (?, ?, ?, ?)"
SET_BALANCE: Final = """INSERT INTO balances (account, asset, units) VALUES (?, ?, ?)
    ON CONFLICT (account, asset) DO UPDATE SET units = excluded.units"""
SET_TOTAL: Final = """INSERT INTO totals (kind, asset, units) VALUES (?, ?, ?)
    ON CONFLICT (kind, asset) DO UPDATE SET units = excluded.units"""

LEASE: Final = "SELECT holder, token, until FROM leases WHERE name = ?"
ADD_LEASE: Final = "INSERT INTO leases (name, holder, token, until) VALUES (?, ?, ?, ?)"
SET_LEASE: Final = "UPDATE leases SET holder = ?, token = ?, until = ? WHERE name = ?"

Row = Sequence[Any]
"""One row as the driver gives it; whoever reads it turns each value into its own type at once."""


class Cursor:
    """A transaction's cursor: `?` for parameters in either database, and errors wrapped as SQLAlchemy wraps its own."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.connection.cursor()
        self._pipeline: Callable[[], AbstractContextManager[object]] = getattr(
            connection.connection.dbapi_connection, "pipeline", nullcontext
        )
        self._is_postgres = connection.dialect.name == "postgresql"
        self._error: type[Exception] = connection.dialect.loaded_dbapi.Error
        self.units: Callable[[int], str | Decimal] = _numeric if self._is_postgres else digits

    def rows(self, sql: str, *values: object) -> list[Row]:
        """Every row of a query."""
        try:
            self._cursor.execute(self._spelled(sql), values)
            return list(self._cursor.fetchall())
        except self._error as error:
            raise DBAPIError(sql, None, error) from error

    def rows_in(self, sql: str, *values: object, keys: Sequence[str]) -> list[Row]:
        """Every row of a query that ends with `IN`, for a few hundred keys at most."""
        return self.rows(f"{sql} ({', '.join('?' * len(keys))})", *values, *keys)

    def change(self, sql: str, *values: object) -> int:
        """How many rows a statement changed."""
        self.write(sql, values)
        return int(self._cursor.rowcount)

    def write_all(self, *statements: tuple[str, Sequence[Sequence[object]]]) -> None:
        """Several statements, each once for each row of parameters: on PostgreSQL they go out together."""
        if self._is_postgres:
            try:
                with self._pipeline():
                    for sql, rows in statements:
                        for row in rows:
                            self._cursor.execute(self._spelled(sql), tuple(row))
            except self._error as error:
                raise DBAPIError(statements[0][0], None, error) from error
            return
        for sql, rows in statements:
            self.write(sql, *rows)

    def write(self, sql: str, *rows: Sequence[object]) -> None:
        """Run a statement once for each row of parameters."""
        try:
            if len(rows) == 1:
                self._cursor.execute(self._spelled(sql), tuple(rows[0]))
            elif rows:
                self._cursor.executemany(self._spelled(sql), rows)
        except self._error as error:
            raise DBAPIError(sql, None, error) from error

    def _spelled(self, sql: str) -> str:
        return _for_postgres(sql) if self._is_postgres else sql


@lru_cache(maxsize=512)
def _for_postgres(sql: str) -> str:
    return sql.replace("?", "%s")


def number(value: object) -> int:
    """Units as either driver gives them. Raises InvalidInput where somebody wrote something else behind our back."""
    if isinstance(value, str) and len(value) == DIGITS and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    raise InvalidInput("units", Rule.MALFORMED, repr(value)[:100], f"{DIGITS} digits")


def _numeric(units: int) -> Decimal:
    return Decimal(digits(units))
