# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one connection of a process that writes: each transaction begins and commits on the driver itself.

SQLAlchemy's work around a transaction costs half as much as the disk does. It joins as soon as a work asks it something; what a
proposal asks and writes goes past it (`statements`).
"""

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from custody.rules.errors import Unavailable
from custody.store.engines import BEGUN
from custody.store.statements import Cursor

T = TypeVar("T")

_TRY_AGAIN: Final = ("40001", "40P01", "23505")
"""SQLSTATE of serialization failure, deadlock, and the unique violation that a race can show instead."""
_BUSY: Final = (5, 6)
"""SQLITE_BUSY and SQLITE_LOCKED: another process was writing for longer than the busy handler waits."""
_AWAY: Final = ("08", "57P", "53300", "25P03")
"""SQLSTATE of a connection that broke, a server that stops or starts, too many connections, and a session that was idle for too long."""


class OutcomeUnknown(Unavailable):
    """Whether the work is recorded, whole, or not at all, only the database knows: the connection broke during COMMIT.

    Never tried again by the store, because a work that is not idempotent would be done twice.
    """


class Writer:
    """A connection for one transaction after another, kept while it is sound. Used by one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._embedded = engine.dialect.name == "sqlite"
        self._kept: Connection | None = None

    def once(self, work: Callable[[Connection], T]) -> T:
        """Run work in one transaction and commit; on any exception nothing of it remains.

        Raises DBAPIError as the database does, and OutcomeUnknown where it went away during COMMIT.
        """
        connection = self._kept or self._engine.connect()
        self._kept = None
        try:
            self._begin(connection)
            result = work(connection)
            self._commit(connection)
        except BaseException:
            self._undo(connection)
            raise
        self._kept = connection
        return result

    def close(self) -> None:
        """Give the connection back."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _begin(self, connection: Connection) -> None:
        cursor = Cursor(connection)
        if self._embedded:
            cursor.write("BEGIN IMMEDIATE", ())
            connection.info[BEGUN] = True
        else:  # queue before the snapshot is taken, or every writer but one would have to start again
            cursor.write("LOCK TABLE writer IN EXCLUSIVE MODE", ())

    def _commit(self, connection: Connection) -> None:
        try:
            if connection.in_transaction():  # SQLAlchemy joined
                connection.commit()
            else:
                _driver(connection, "commit")
        except DBAPIError as error:
            if is_away(error):
                raise OutcomeUnknown("store", "the connection broke during COMMIT; ask what stands") from error
            raise
        connection.info.pop(BEGUN, None)

    def _undo(self, connection: Connection) -> None:
        """Roll back; a connection that cannot is given up, and the database rolls back what it had begun."""
        try:
            connection.rollback()  # always: after a COMMIT that failed SQLAlchemy tells of no transaction, and still has one
            _driver(connection, "rollback")
            connection.info.pop(BEGUN, None)
        except SQLAlchemyError:
            connection.invalidate()
            connection.close()
        else:
            self._kept = connection


def _driver(connection: Connection, end: str) -> None:
    error: type[Exception] = connection.dialect.loaded_dbapi.Error
    try:
        getattr(connection.connection.dbapi_connection, end)()
    except error as cause:
        raise DBAPIError(end.upper(), None, cause) from cause


def is_race(error: DBAPIError) -> bool:
    """Another transaction was in the way; this one left nothing."""
    return getattr(error.orig, "sqlstate", None) in _TRY_AGAIN


def is_busy(error: DBAPIError) -> bool:
    """Another process held SQLite's file for longer than the busy handler waits."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _BUSY


def is_away(error: DBAPIError) -> bool:
    """There is no server, or not this connection to it any more. libpq's own failures have no SQLSTATE."""
    known = getattr(error.orig, "sqlstate", "")
    if known is None:
        return type(error.orig).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")
    return str(known).startswith(_AWAY)


def ends_all(error: DBAPIError) -> bool:
    """A failure of the transaction as a whole, whoever's work met it: it is run again, or told to everybody in it."""
    return is_race(error) or is_busy(error) or is_away(error)
