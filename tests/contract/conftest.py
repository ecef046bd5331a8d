# SPDX-License-Identifier: AGPL-3.0-or-later
"""Stores for the contract suite: the fake, SQLite and PostgreSQL, each empty for each test.

Where PostgreSQL cannot be had these tests fail; a suite that left it out would say nothing about it.
"""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy

from custody.flows.ports import Store
from custody.store import migrate, open_store
from custody.store.tables import metadata
from tests.fakes.ledger import ASSETS
from tests.fakes.store import FakeStore

_NUMBERS: Final = itertools.count(1)
ENGINES: Final = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file."""
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_server(postgres_url: str) -> Iterator[sqlalchemy.Engine]:
    """A connection that may create databases, beside a migrated, empty database named `template_ledger`."""
    engine = sqlalchemy.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE template_ledger")
    migrate(_of(postgres_url, "template_ledger"))
    yield engine
    engine.dispose()


def _of(url: str, database: str) -> str:
    return sqlalchemy.make_url(url).set(database=database).render_as_string(hide_password=False)


@pytest.fixture
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes the address of a migrated, empty database of an engine."""
    made: list[str] = []

    def make(engine: str) -> str:
        name = f"ledger_{next(_NUMBERS)}"
        if engine == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / f"{name}.db")
            return f"sqlite:///{tmp_path / name}.db"
        server = request.getfixturevalue("postgres_server")
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE template_ledger")
        made.append(name)
        return _of(server.url.render_as_string(hide_password=False), name)

    yield make
    for name in made:
        with request.getfixturevalue("postgres_server").connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: sqlalchemy.Engine) -> Iterator[sqlalchemy.Engine]:
    """One migrated database, which each test finds empty: making a new one takes longer than most tests."""
    with postgres_server.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE shared_ledger TEMPLATE template_ledger")
    url = _of(postgres_server.url.render_as_string(hide_password=False), "shared_ledger")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def _emptied(engine: sqlalchemy.Engine) -> str:
    """Only a superuser can empty it, with every trigger off: for anybody else TRUNCATE is refused, which a test tries."""
    tables = ", ".join(t.name for t in metadata.sorted_tables)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        connection.exec_driver_sql("SET session_replication_role = origin")
    return engine.url.render_as_string(hide_password=False)


def _url(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> str:
    if request.param == "postgresql":
        return _emptied(request.getfixturevalue("shared_postgres"))
    return make_url(str(request.param))


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> str:
    """A migrated, empty database: SQLite, then PostgreSQL. Whoever changes its schema asks `make_url` for one of its own."""
    return _url(request, make_url)


@pytest.fixture(params=("fake", *ENGINES))
def store(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[Store]:
    """An empty store: the fake, SQLite, PostgreSQL."""
    if request.param == "fake":
        yield FakeStore()
        return
    opened = open_store(_url(request, make_url), ASSETS)
    yield opened
    opened.close()
