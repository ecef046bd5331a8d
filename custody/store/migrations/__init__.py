# SPDX-License-Identifier: AGPL-3.0-or-later
"""The schema's history, run by alembic from inside the package: no file at the repository's root is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

_FOLDER: Final = Path(__file__).parent
_TURN: Final = 0x42554C4B  # "BULK": whichever number, as long as every migration of this database takes the same


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def head() -> str:
    """The newest revision that this code knows."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current(connection: Connection) -> str | None:
    """The revision a database stands at, or None before the first."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine) -> None:
    """Bring a database to the newest revision, in one transaction; processes that start at once come one after another."""
    config = _config()
    with _alone(engine), engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """One migration at a time. SQLite's BEGIN IMMEDIATE sees to it.

    In PostgreSQL the lock is taken before, on a connection of its own: a transaction that waited inside would have a snapshot
    from before the other one's tables.
    """
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as turn:
        turn.execute(text("SELECT pg_advisory_lock(:turn)"), {"turn": _TURN})
        try:
            yield
        finally:
            turn.execute(text("SELECT pg_advisory_unlock(:turn)"), {"turn": _TURN})
