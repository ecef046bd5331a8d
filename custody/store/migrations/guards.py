# SPDX-License-Identifier: AGPL-3.0-or-later
"""Triggers: what no program may do to these tables, ours included.

The journal only grows, by the next position on the head's hash. Lines, identities and accruals join only the newest entry. A
BEFORE INSERT trigger runs before SQLite's INSERT OR REPLACE takes the old row away, which a UNIQUE alone would allow.
"""

# what is put together here are names of our own tables

from collections.abc import Callable
from typing import Final

APPEND_ONLY: Final = ("journal", "postings", "identities", "accruals")
KEPT: Final = ("balances", "totals", "customers", "deposit_addresses", "documents")
BOUND: Final = ("customers", "deposit_addresses", "documents")

_NEWEST: Final = "NEW.position IS DISTINCT FROM (SELECT max(position) FROM journal)"
_REFUSED: Final = {
    "journal": "NEW.position IS DISTINCT FROM coalesce((SELECT max(position) FROM journal), 0) + 1"
    " OR NEW.previous IS DISTINCT FROM coalesce((SELECT hash FROM journal ORDER BY position DESC LIMIT 1), {zero})",
    "postings": f"{_NEWEST} OR NEW.line IS DISTINCT FROM"
    " coalesce((SELECT max(line) FROM postings WHERE position = NEW.position), -1) + 1",
    "identities": f"{_NEWEST} OR EXISTS (SELECT 1 FROM identities"
    " WHERE kind = NEW.kind AND identity = NEW.identity AND freed_by = NEW.freed_by)",
    "accruals": f"{_NEWEST} OR EXISTS (SELECT 1 FROM accruals WHERE asset = NEW.asset AND position = NEW.position)",
    "customers": "EXISTS (SELECT 1 FROM customers WHERE id = NEW.id OR number = NEW.number)",
    "deposit_addresses": "EXISTS (SELECT 1 FROM deposit_addresses WHERE wallet = NEW.wallet"
    " AND (number = NEW.number OR customer = NEW.customer) OR chain = NEW.chain AND address = NEW.address)",
    "documents": "EXISTS (SELECT 1 FROM documents WHERE kind = NEW.kind AND key = NEW.key OR number = NEW.number)",
}
"""For each table, when a new row is refused."""


def create_guards(execute: Callable[[str], None], dialect: str) -> None:
    """Create every trigger in one dialect, `sqlite` or `postgresql`."""
    create = {"sqlite": _sqlite, "postgresql": _postgresql}[dialect]
    for table in (*APPEND_ONLY, *KEPT):
        changes = ("DELETE",) if table in ("balances", "totals") else ("UPDATE", "DELETE")
        for statement in create(table, changes):
            execute(statement)


def _sqlite(table: str, changes: tuple[str, ...]) -> list[str]:
    made = [
        f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table}: rows are never changed'); END"
        for change in changes
    ]
    if table in _REFUSED:
        refused = _REFUSED[table].format(zero="zeroblob(32)").replace("IS DISTINCT FROM", "IS NOT")
        made.append(
            f"CREATE TRIGGER {table}_next BEFORE INSERT ON {table} WHEN {refused} "
            f"BEGIN SELECT RAISE(ABORT, '{table}: not the next row'); END"
        )
    return made


def _postgresql(table: str, changes: tuple[str, ...]) -> list[str]:
    refuse = f"RAISE EXCEPTION '{table}: %', TG_ARGV[0] USING ERRCODE = 'restrict_violation'"
    made = [
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refuse}; END $$",
        (
            f"CREATE TRIGGER {table}_no_change BEFORE {' OR '.join((*changes, 'TRUNCATE'))} ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse('rows are never changed')"
        ),
    ]
    if table in _REFUSED and table not in BOUND:  # there is no INSERT OR REPLACE here; UNIQUE is enough
        refused = _REFUSED[table].format(zero=r"decode(repeat('00', 32), 'hex')")
        made += [
            (
                f"CREATE FUNCTION {table}_next() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {refused} THEN "
                f"RAISE EXCEPTION '{table}: not the next row' USING ERRCODE = 'restrict_violation'; END IF; RETURN NEW; END $$"
            ),
            f"CREATE TRIGGER {table}_next BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_next()",
        ]
    return made
