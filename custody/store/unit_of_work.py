# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store: work is a function that runs in one transaction and is committed whole, or leaves nothing."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session

from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Assets
from custody.rules.errors import CustodyError, Unavailable
from custody.store import migrations
from custody.store.customers import SqlCustomers
from custody.store.deposits import SqlDeposits
from custody.store.documents import SqlDocuments
from custody.store.engines import parse_url, reading_engine, writing_engine
from custody.store.enrolments import SqlEnrolments
from custody.store.journal import SqlJournal
from custody.store.leases import SqlLeases
from custody.store.statements import Cursor
from custody.store.transfers import SqlTransfers

T = TypeVar("T")

ATTEMPTS: Final = 12
_LONGEST_PAUSE: Final = 0.25
RETURNS_WITHIN: Final = 10.0
"""Seconds for which a database that restarts is waited for; longer is the caller's to say."""
_TRY_AGAIN: Final = ("40001", "40P01", "23505")
"""SQLSTATE of serialization failure, deadlock, and the unique violation that a race can show instead."""
_BUSY: Final = (5, 6)
"""SQLITE_BUSY and SQLITE_LOCKED: another process was writing for longer than the busy handler waits."""
_AWAY: Final = ("08", "57P", "53300")
"""SQLSTATE of a connection that broke, a server that stops or starts, and too many connections."""


class OutcomeUnknown(Unavailable):
    """The connection broke during COMMIT: the work is recorded whole or not at all, and only the database knows which.

    Never tried again by the store, because a work that is not idempotent would be done twice.
    """


class SqlUnitOfWork:
    """One transaction's worth of the store."""

    def __init__(self, connection: Connection, assets: Assets) -> None:
        self._connection, self._assets = connection, assets

    @cached_property
    def journal(self) -> SqlJournal:
        """The journal."""
        return SqlJournal(self._connection, self._assets)

    @cached_property
    def deposits(self) -> SqlDeposits:
        """Deposits and followed blocks."""
        return SqlDeposits(self._session, self._assets)

    @cached_property
    def customers(self) -> SqlCustomers:
        """Customers and their addresses."""
        return SqlCustomers(self._session, self._connection)

    @cached_property
    def documents(self) -> SqlDocuments:
        """The mirror of signed documents."""
        return SqlDocuments(self._session)

    @cached_property
    def transfers(self) -> SqlTransfers:
        """Transfers, approvals, permits, signed bytes."""
        return SqlTransfers(self._session, self._connection)

    @cached_property
    def enrolments(self) -> SqlEnrolments:
        """The mirror of enrolments."""
        return SqlEnrolments(self._session, self._connection)

    @cached_property
    def leases(self) -> SqlLeases:
        """Whose turn it is."""
        return SqlLeases(self._connection)

    @cached_property
    def _session(self) -> Session:
        return Session(self._connection, join_transaction_mode="rollback_only", autoflush=False)

    def nested(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in a savepoint of this transaction; on any exception nothing of it remains."""
        cursor = Cursor(self._connection)
        cursor.write("SAVEPOINT work", ())
        try:
            result = work(SqlUnitOfWork(self._connection, self._assets))
        except BaseException:
            cursor.write("ROLLBACK TO SAVEPOINT work", ())
            raise
        finally:
            cursor.write("RELEASE SAVEPOINT work", ())
        return result


class SqlStore:
    """A store over SQLite or PostgreSQL; make one with `open_store`."""

    def __init__(self, reader: Engine, writer: Engine | None, assets: Assets) -> None:
        self._reader, self._writer, self._assets = reader, writer, assets
        self._turn, self._here = threading.Lock(), threading.local()
        self._embedded = reader.dialect.name == "sqlite"

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one serialisable write transaction and commit; tried again on a serialisation failure, ATTEMPTS times.

        A server that restarts is waited for; what it had not committed is run again. Raises Unavailable where the database does
        not answer or the store was opened read-only, and OutcomeUnknown where it went away during COMMIT.
        """
        return self.run_with_savepoints(work)

    def run_with_savepoints(self, work: Callable[[SqlUnitOfWork], T]) -> T:
        """The same for work that wants savepoints of its own (`GroupCommit`)."""
        if self._writer is None:
            raise Unavailable("store", "it was opened read-only")
        writer = self._writer

        def once() -> T:
            with self._alone():
                return self._once(writer, work)

        return self._again(once)

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one consistent snapshot that cannot write; a server that restarts is waited for. Raises Unavailable."""

        def once() -> T:
            with self._reader.begin() as connection:
                return work(SqlUnitOfWork(connection, self._assets))

        return self._again(once)

    def _again(self, once: Callable[[], T]) -> T:
        """Run one transaction until the database takes or refuses it: ATTEMPTS races, RETURNS_WITHIN seconds without a server."""
        races, begun = 0, time.monotonic()
        while True:
            try:
                return once()
            except DBAPIError as error:
                races += _is_race(error)
                waits = _is_away(error) or _is_busy(error)
                again = time.monotonic() - begun < RETURNS_WITHIN if waits else _is_race(error) and races < ATTEMPTS
                if not again:
                    raise _unavailable(error) from error
            except (SQLAlchemyError, PoolTimeout) as error:
                raise _unavailable(error) from error
            pause = min(_LONGEST_PAUSE, 0.004 * 2 ** max(1, races)) if races else _LONGEST_PAUSE
            time.sleep(random.uniform(0, pause))  # noqa: S311  # spreads retries, no secret

    def close(self) -> None:
        """Close every connection."""
        for engine in (self._reader, self._writer):
            if engine is not None:
                engine.dispose()

    def _once(self, engine: Engine, work: Callable[[SqlUnitOfWork], T]) -> T:
        with engine.connect() as connection, connection.begin() as transaction:
            if (
                not self._embedded
            ):  # queue before the snapshot is taken, or every writer but one would have to start again
                connection.execute(text("LOCK TABLE writer IN EXCLUSIVE MODE"))
            result = work(SqlUnitOfWork(connection, self._assets))
            try:
                transaction.commit()
            except DBAPIError as error:
                if _is_away(error):
                    raise OutcomeUnknown("store", "the connection broke during COMMIT; ask what stands") from error
                raise
            return result

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One SQLite writer at a time in this process: waiting on a lock is fair, its busy handler sleeps up to 100 ms."""
        if getattr(self._here, "running", False):
            raise RuntimeError("run() inside run(): work touches nothing but its unit of work")
        self._here.running = True
        try:
            if self._embedded:
                with self._turn:
                    yield
            else:
                yield
        finally:
            self._here.running = False


def open_store(url: str, assets: Assets, *, read_only: bool = False) -> SqlStore:
    """Open a migrated database. `read_only` leaves no connection that can write.

    Raises Unavailable where there is none, or its schema is not the one that this code knows (`migrate`).
    """
    parsed = parse_url(url)
    reader = reading_engine(parsed, read_only=read_only)
    try:
        with reader.begin() as connection:
            found = migrations.current(connection)
    except SQLAlchemyError as error:
        reader.dispose()
        raise _unavailable(error) from error
    if found != (known := migrations.head()):
        reader.dispose()
        raise Unavailable("store", f"its schema is at {found}, this code knows {known}; migrate it first")
    return SqlStore(reader, None if read_only else writing_engine(parsed), assets)


def migrate(url: str) -> None:
    """Create the schema, or bring it to the newest revision. Raises Unavailable."""
    engine = writing_engine(parse_url(url))
    try:
        migrations.upgrade(engine)
    except SQLAlchemyError as error:
        raise _unavailable(error) from error
    finally:
        engine.dispose()


def _is_race(error: DBAPIError) -> bool:
    """Another transaction was in the way; this one left nothing."""
    return getattr(error.orig, "sqlstate", None) in _TRY_AGAIN


def _is_busy(error: DBAPIError) -> bool:
    """Another process held SQLite's file for longer than the busy handler waits."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return isinstance(code, int) and code & 0xFF in _BUSY


def _is_away(error: DBAPIError) -> bool:
    """There is no server, or not this connection to it any more. libpq's own failures have no SQLSTATE."""
    known = getattr(error.orig, "sqlstate", "")
    if known is None:
        return type(error.orig).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")
    return str(known).startswith(_AWAY)


def _unavailable(error: SQLAlchemyError) -> CustodyError:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return Unavailable(
        "store", f"{type(cause).__name__}: {str(cause).strip().splitlines()[0] if str(cause).strip() else ''}"
    )
