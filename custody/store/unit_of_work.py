# SPDX-License-Identifier: AGPL-3.0-or-later
"""The store: work is a function that runs in one transaction and is committed whole, or leaves nothing."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Assets
from custody.rules.errors import CustodyError, Unavailable
from custody.store import migrations
from custody.store.customers import SqlCustomers
from custody.store.deposits import SqlDeposits
from custody.store.documents import SqlDocuments
from custody.store.engines import parse_url, reading_engine, writing_engine
from custody.store.enrolments import SqlEnrolments
from custody.store.group_commit import GroupCommit, Outcome, Work
from custody.store.journal import SqlJournal
from custody.store.leases import SqlLeases
from custody.store.listing import SqlListing
from custody.store.sessions import Sessions
from custody.store.statements import Cursor
from custody.store.transfers import SqlTransfers
from custody.store.visits import SqlVisits
from custody.store.writing import Writer, ends_all, is_away, is_busy, is_race

T = TypeVar("T")

ATTEMPTS: Final = 12
_LONGEST_PAUSE: Final = 0.25
RETURNS_WITHIN: Final = 10.0
"""Seconds for which a database that restarts is waited for; longer is the caller's to say."""


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
        return SqlDeposits(self._sessions(), self._assets)

    @cached_property
    def customers(self) -> SqlCustomers:
        """Customers and their addresses."""
        return SqlCustomers(self._sessions, self._connection)

    @cached_property
    def documents(self) -> SqlDocuments:
        """The mirror of signed documents."""
        return SqlDocuments(self._sessions())

    @cached_property
    def transfers(self) -> SqlTransfers:
        """Transfers, approvals, permits, signed bytes."""
        return SqlTransfers(self._sessions, self._connection)

    @cached_property
    def enrolments(self) -> SqlEnrolments:
        """The mirror of enrolments."""
        return SqlEnrolments(self._sessions, self._connection)

    @cached_property
    def leases(self) -> SqlLeases:
        """Whose turn it is."""
        return SqlLeases(self._connection)

    @cached_property
    def visits(self) -> SqlVisits:
        """Who has the console open."""
        return SqlVisits(self._sessions())

    @cached_property
    def listing(self) -> SqlListing:
        """Pages for people."""
        return SqlListing(self._connection, self._sessions, self.journal, self._assets)

    @cached_property
    def _sessions(self) -> Sessions:
        return Sessions(self._connection)


class SqlStore:
    """A store over SQLite or PostgreSQL; make one with `open_store`. Safe to share between threads.

    Writers of one process share transactions (`GroupCommit`), because either database takes one writer at a time: every entry
    of the journal stands on the one before.
    """

    def __init__(self, reader: Engine, writer: Engine | None, assets: Assets) -> None:
        self._reader, self._engine, self._assets = reader, writer, assets
        self._writer = None if writer is None else Writer(writer)
        self._group, self._here = GroupCommit(self._together), threading.local()

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one serialisable write transaction and commit; tried again on a serialisation failure, ATTEMPTS times.

        Works of several threads may share the transaction, each in a savepoint: one that fails leaves nothing and hurts no other, and
        nobody is answered before the commit. A server that restarts is waited for; what it had not committed is run again. Raises
        Unavailable where the database does not answer or the store was opened read-only or closed, and OutcomeUnknown where it went
        away during COMMIT.
        """
        if self._writer is None:
            raise Unavailable("store", "it was opened read-only")
        if getattr(self._here, "running", False):
            raise RuntimeError("run() inside run(): work touches nothing but its unit of work")
        return self._group.run(work)

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one consistent snapshot that cannot write; a server that restarts is waited for. Raises Unavailable."""

        def once() -> T:
            with self._reader.begin() as connection:
                return work(SqlUnitOfWork(connection, self._assets))

        return self._again(once)

    def close(self) -> None:
        """Take no more works, answer everybody who waits for one, and close every connection."""
        self._group.close()
        if self._writer is not None:
            self._writer.close()
        for engine in (self._reader, self._engine):
            if engine is not None:
                engine.dispose()

    def _together(self, works: Sequence[Work]) -> Sequence[Outcome]:
        """Everything in one transaction; where that failed because of one of them, each in its own."""
        self._here.running = True
        try:
            if len(works) > 1:
                try:
                    return self._committed(lambda connection: [self._attempt(connection, work) for work in works])
                except Unavailable as error:
                    if not isinstance(error.__cause__, DBAPIError) or ends_all(error.__cause__):
                        return [Outcome(error=error) for _ in works]
            return [self._alone(work) for work in works]
        finally:
            self._here.running = False

    def _alone(self, work: Work) -> Outcome:
        try:
            return Outcome(self._committed(lambda connection: work(SqlUnitOfWork(connection, self._assets))))
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to whoever handed in the work
            return Outcome(error=error)

    def _attempt(self, connection: Connection, work: Work) -> Outcome:
        """One work among others. What ends the whole transaction is raised; what is this work's own is its outcome, and undone."""
        cursor = Cursor(connection)
        cursor.write("SAVEPOINT work", ())
        try:
            outcome = Outcome(work(SqlUnitOfWork(connection, self._assets)))
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and ends_all(error):
                raise
            outcome = Outcome(error=_unavailable(error))
        except Exception as error:  # noqa: BLE001  # a refusal or a fault of this work alone
            outcome = Outcome(error=error)
        if (
            outcome.error is not None
        ):  # raises where there is no savepoint any more, and then nothing of anybody's stands
            cursor.write("ROLLBACK TO SAVEPOINT work", ())
        cursor.write("RELEASE SAVEPOINT work", ())
        return outcome

    def _committed(self, work: Callable[[Connection], T]) -> T:
        """One transaction, run until it stands or the database refuses it."""
        writer = self._writer
        if writer is None:
            raise Unavailable("store", "it was opened read-only")
        return self._again(lambda: writer.once(work))

    def _again(self, once: Callable[[], T]) -> T:
        """Run one transaction until the database takes or refuses it: ATTEMPTS races, RETURNS_WITHIN seconds without a server."""
        races, begun = 0, time.monotonic()
        while True:
            try:
                return once()
            except DBAPIError as error:
                races += is_race(error)
                waits = is_away(error) or is_busy(error)
                again = time.monotonic() - begun < RETURNS_WITHIN if waits else is_race(error) and races < ATTEMPTS
                if not again:
                    raise _unavailable(error) from error
            except (SQLAlchemyError, PoolTimeout) as error:
                raise _unavailable(error) from error
            pause = min(_LONGEST_PAUSE, 0.004 * 2 ** max(1, races)) if races else _LONGEST_PAUSE
            time.sleep(random.uniform(0, pause))  # noqa: S311  # spreads retries, no secret


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


def _unavailable(error: SQLAlchemyError) -> CustodyError:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = str(cause).strip().splitlines() or [""]
    told = Unavailable("store", f"{type(cause).__name__}: {said[0]}")
    told.__cause__ = error
    return told
