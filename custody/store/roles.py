# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor's database role: it reads everything and can write nothing (TRUST.md, "Statement"). PostgreSQL only.

SQLite has no roles; there the attestor opens the file itself read-only (`open_store(..., read_only=True)`).
"""

import re
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.store.engines import parse_url, writing_engine

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


def reader_statements(database: str, role: str) -> tuple[str, ...]:
    """The SQL that leaves a role with SELECT and nothing else, on what there is and on what migrations will add."""
    return (
        f"ALTER ROLE {role} NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS NOREPLICATION LOGIN",
        f"ALTER ROLE {role} SET default_transaction_read_only = on",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"REVOKE ALL ON DATABASE {_quoted(database)} FROM PUBLIC",
        f"REVOKE ALL ON DATABASE {_quoted(database)} FROM {role}",
        f"REVOKE ALL ON SCHEMA public FROM {role}",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}",
        f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {role}",
        f"GRANT CONNECT ON DATABASE {_quoted(database)} TO {role}",
        f"GRANT USAGE ON SCHEMA public TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}",
    )


def grant_reader(url: str, role: str) -> None:
    """Make a role, if there is none, and leave it with SELECT on this database. How it logs in is the operator's to say.

    Raises InvalidInput (not PostgreSQL, an odd name), Unavailable.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise InvalidInput("store.url", Rule.MALFORMED, parsed.get_backend_name(), "postgresql: SQLite has no roles")
    if _NAME.fullmatch(role) is None:
        raise InvalidInput("role", Rule.MALFORMED, repr(role[:80]), "1 to 63 of a-z, 0-9, underscore")
    engine = writing_engine(parsed)
    try:
        with engine.begin() as connection:
            known = connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
            database = str(connection.execute(text("SELECT current_database()")).scalar_one())
            for statement in ((), (f"CREATE ROLE {role}",))[known is None] + reader_statements(database, role):
                connection.exec_driver_sql(statement)
    except SQLAlchemyError as error:
        raise Unavailable(
            "store", f"cannot grant to {role}: {type(error).__name__}: {error}".splitlines()[0]
        ) from error
    finally:
        engine.dispose()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
