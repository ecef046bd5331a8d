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
"""Tables whose UNIQUE is enough in PostgreSQL, which has no INSERT OR REPLACE."""

TRANSFER_TABLES: Final = (
    "enrolments",
    "transfer_moves",
    "approvals",
    "rejections",
    "permits",
    "permit_intents",
    "permit_references",
    "signed_bytes",
)
"""Of revision 0002: rows that are never changed."""
FIXED: Final = (
    *("number", "digest", "id", "proposal", "scope", "key", "asked", "account", "wallet", "initiator", "purpose"),
    *("destination", "asset", "units", "usd", "expiry", "created_at", "live", "hold", "body"),
)
"""What a transfer is, as opposed to where it stands."""

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
    "enrolments": "EXISTS (SELECT 1 FROM enrolments WHERE digest = NEW.digest OR number = NEW.number)",
    "transfers": "EXISTS (SELECT 1 FROM transfers WHERE digest = NEW.digest OR number = NEW.number OR id = NEW.id"
    " OR proposal = NEW.proposal OR scope = NEW.scope AND key = NEW.key OR hold = NEW.hold)",
    "transfer_moves": "EXISTS (SELECT 1 FROM transfer_moves WHERE number = NEW.number)",
    "approvals": "EXISTS (SELECT 1 FROM approvals"
    " WHERE transfer = NEW.transfer AND person = NEW.person OR number = NEW.number)",
    "rejections": "EXISTS (SELECT 1 FROM rejections"
    " WHERE transfer = NEW.transfer AND person = NEW.person OR number = NEW.number)",
    "permits": "EXISTS (SELECT 1 FROM permits WHERE number = NEW.number"
    " OR chain = NEW.chain AND wallet = NEW.wallet AND reference = NEW.reference)",
    "permit_intents": "EXISTS (SELECT 1 FROM permit_intents WHERE transfer = NEW.transfer)",
    "permit_references": "EXISTS (SELECT 1 FROM permit_references WHERE chain = NEW.chain AND reference = NEW.reference"
    " AND (wallet = NEW.wallet OR reference LIKE '%:%'))",
    "signed_bytes": "EXISTS (SELECT 1 FROM signed_bytes"
    " WHERE permit = NEW.permit AND digest = NEW.digest OR number = NEW.number)",
}
"""For each table, when a new row is refused."""


def create_guards(execute: Callable[[str], None], dialect: str) -> None:
    """Create every trigger in one dialect, `sqlite` or `postgresql`."""
    create = {"sqlite": _sqlite, "postgresql": _postgresql}[dialect]
    for table in (*APPEND_ONLY, *KEPT):
        changes = ("DELETE",) if table in ("balances", "totals") else ("UPDATE", "DELETE")
        for statement in create(table, changes):
            execute(statement)


def guard_again(execute: Callable[[str], None], table: str) -> None:
    """The triggers of an append-only table of revision 0001 that had to be made anew, which only SQLite asks for."""
    for statement in _sqlite(table, ("UPDATE", "DELETE")):
        execute(statement)


def guard_addresses(execute: Callable[[str], None]) -> None:
    """As `guard_again`, for deposit addresses of revision 0007: a customer has one under each key set of a wallet."""
    taken = (
        "EXISTS (SELECT 1 FROM deposit_addresses WHERE wallet = NEW.wallet"
        " AND (number = NEW.number OR customer = NEW.customer AND keys = NEW.keys)"
        " OR chain = NEW.chain AND address = NEW.address)"
    )
    for statement in _sqlite("deposit_addresses", ("UPDATE", "DELETE"), taken):
        execute(statement)


def guard_transfers(execute: Callable[[str], None], dialect: str) -> None:
    """The triggers of revision 0002: documents and pins only grow, and a transfer changes nothing but where it stands."""
    create = {"sqlite": _sqlite, "postgresql": _postgresql}[dialect]
    for table in TRANSFER_TABLES:
        for statement in create(table, ("UPDATE", "DELETE")):
            execute(statement)
    for statement in create("transfers", ("DELETE",)):
        execute(statement)
    columns = ", ".join(FIXED)
    if dialect == "sqlite":
        stop = "BEGIN SELECT RAISE(ABORT, 'transfers: what a transfer is never changes'); END"
        execute(f"CREATE TRIGGER transfers_fixed BEFORE UPDATE OF {columns} ON transfers {stop}")
    else:
        stop = "FOR EACH STATEMENT EXECUTE FUNCTION transfers_refuse('what a transfer is never changes')"
        execute(f"CREATE TRIGGER transfers_fixed BEFORE UPDATE OF {columns} ON transfers {stop}")


def guard_leases(execute: Callable[[str], None], dialect: str) -> None:
    """The triggers of revision 0003: a token that came back would let a worker that was paused through two turns write again."""
    lower = (
        "NEW.name <> OLD.name OR NEW.token < OLD.token OR NEW.token = OLD.token AND NEW.holder NOT IN (OLD.holder, '')"
    )
    if dialect == "sqlite":
        stop = "BEGIN SELECT RAISE(ABORT, 'leases: a token never comes back'); END"
        known = "EXISTS (SELECT 1 FROM leases WHERE name = NEW.name)"  # INSERT OR REPLACE
        execute(f"CREATE TRIGGER leases_no_delete BEFORE DELETE ON leases {stop}")
        execute(f"CREATE TRIGGER leases_forward BEFORE UPDATE ON leases WHEN {lower} {stop}")
        execute(f"CREATE TRIGGER leases_next BEFORE INSERT ON leases WHEN {known} {stop}")
        return
    told = "RAISE EXCEPTION 'leases: a token never comes back' USING ERRCODE = 'restrict_violation'"
    execute(f"CREATE FUNCTION leases_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {told}; END $$")
    refuse = "EXECUTE FUNCTION leases_refuse()"
    execute(f"CREATE TRIGGER leases_no_delete BEFORE DELETE OR TRUNCATE ON leases FOR EACH STATEMENT {refuse}")
    execute(f"CREATE TRIGGER leases_forward BEFORE UPDATE ON leases FOR EACH ROW WHEN ({lower}) {refuse}")


def _sqlite(table: str, changes: tuple[str, ...], taken: str = "") -> list[str]:
    made = [
        f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table}: rows are never changed'); END"
        for change in changes
    ]
    if table in _REFUSED:
        refused = (taken or _REFUSED[table]).format(zero="zeroblob(32)").replace("IS DISTINCT FROM", "IS NOT")
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
    if table in _REFUSED and table in APPEND_ONLY:  # there is no INSERT OR REPLACE here; UNIQUE is enough
        refused = _REFUSED[table].format(zero=r"decode(repeat('00', 32), 'hex')")
        made += [
            (
                f"CREATE FUNCTION {table}_next() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {refused} THEN "
                f"RAISE EXCEPTION '{table}: not the next row' USING ERRCODE = 'restrict_violation'; END IF; RETURN NEW; END $$"
            ),
            f"CREATE TRIGGER {table}_next BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_next()",
        ]
    return made
