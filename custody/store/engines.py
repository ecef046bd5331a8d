# SPDX-License-Identifier: AGPL-3.0-or-later
"""Connections: how each database is told to be durable, serialisable and, where asked, unable to write."""

import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, OperationalError

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.store.statements import Cursor

BUSY_MILLISECONDS: Final = 30_000
"""How long a process waits for another one's SQLite write transaction."""

IDLE_MILLISECONDS: Final = 10_000
"""How long PostgreSQL waits for the next statement of a write transaction before it rolls it back and ends the session."""

BEGUN: Final = "begun"
"""Marks a connection whose transaction was begun on the driver itself, so that SQLAlchemy joins it and begins no other."""

_DRIVERS: Final = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


def parse_url(url: str) -> URL:
    """A database's address: `sqlite:////absolute/path` or `postgresql://…`. Raises InvalidInput for any other."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput(
            "store.url", Rule.MALFORMED, "an address that cannot be read", "sqlite:///… or postgresql://…"
        ) from error
    backend = parsed.get_backend_name()
    if backend not in _DRIVERS:
        raise InvalidInput("store.url", Rule.MALFORMED, repr(backend), "sqlite or postgresql")
    if backend == "sqlite" and (parsed.database in (None, "", ":memory:") or parsed.query):
        raise InvalidInput(
            "store.url", Rule.MALFORMED, parsed.render_as_string(), "a file, which other processes can open too"
        )
    return parsed.set(drivername=_DRIVERS[backend])


def writing_engine(url: URL) -> Engine:
    """An engine whose every transaction can write and is serialisable."""
    if url.get_backend_name() == "postgresql":
        engine = create_engine(url, isolation_level="SERIALIZABLE", pool_size=8, max_overflow=24, pool_pre_ping=True)
        event.listen(engine, "connect", _never_idle)
        return engine
    engine = create_engine(url, pool_size=1, max_overflow=4)
    _on_sqlite(
        engine, "BEGIN IMMEDIATE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA recursive_triggers=ON"
    )
    return engine


def reading_engine(url: URL, *, read_only: bool = False) -> Engine:
    """An engine whose every transaction is one snapshot that cannot write; `read_only` opens SQLite's file itself like that."""
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
            pool_size=8,
            max_overflow=24,
            pool_pre_ping=True,
        )
    if read_only:
        path = Path(str(url.database)).resolve().as_uri()
        url = url.set(database=path, query={"mode": "ro", "uri": "true"})
    engine = create_engine(url, pool_size=4, max_overflow=28)
    _on_sqlite(engine, "BEGIN", "PRAGMA query_only=ON")
    return engine


def _never_idle(connection: DBAPIConnection, _record: object) -> None:
    """A process that its machine stops in the middle of a transaction would hold up every other writer for as long as that lasts."""
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}")
    cursor.close()
    connection.commit()


def _on_sqlite(engine: Engine, begin: str, *pragmas: str) -> None:
    def connected(connection: DBAPIConnection, _record: object) -> None:
        raw: Any = connection  # sqlite3's own attributes, which SQLAlchemy's protocol does not name
        raw.isolation_level = None  # the driver's own BEGIN would be a deferred one
        raw.text_factory = _text
        cursor = connection.cursor()
        for pragma in (f"PRAGMA busy_timeout={BUSY_MILLISECONDS}", "PRAGMA foreign_keys=ON", *pragmas):
            _patiently(cursor, pragma)
        cursor.close()

    def begun(connection: Connection) -> None:
        if BEGUN not in connection.info:
            Cursor(connection).write(begin, ())  # straight to the driver, as what follows it is

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _patiently(cursor: DBAPICursor, pragma: str) -> None:
    """Turning a new file to WAL asks no busy handler: two processes that open it at once would find it locked."""
    until = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            cursor.execute(pragma)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise OperationalError(pragma, None, error) from error
            time.sleep(0.01)
        else:
            return


def _text(raw: bytes) -> str:
    """TEXT that somebody damaged must still reach the audit, which then names the row."""
    return raw.decode("utf-8", "surrogateescape")
