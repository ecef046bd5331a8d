# SPDX-License-Identifier: AGPL-3.0-or-later
"""Triggers that keep what policy's windows count, so that a proposal reads a few rows however many are pending.

The database keeps them by itself, whoever writes: a row that changes its status takes its part along. Sums over rows would make each
proposal of a hot wallet slower than the one before it.
"""

from collections.abc import Callable, Iterator
from typing import Final

PENDING: Final = (
    "'SUBMITTED', 'PENDING_SCREENING', 'PENDING_AUTHORIZATION', 'QUEUED', 'PENDING_SIGNATURE', 'BROADCASTING', "
    "'BROADCAST_UNKNOWN', 'CONFIRMING', 'CANCELLING', 'BLOCKED'"
)
ROUND: Final = 2**62
"""Totals of what was completed run round at this, which keeps them in 64 bits; a window never holds as much (USD_MOST)."""

_WHOSE: Final = {"account": "NEW.account", "initiator": "NEW.initiator", "wallet": "{hex}"}
_HEX: Final = {"sqlite": "lower(hex({}))", "postgresql": "encode({}, 'hex')"}
_GREATER: Final = {"sqlite": "max", "postgresql": "greatest"}


def guard_windows(execute: Callable[[str], None], dialect: str) -> None:
    """Create the triggers, after what stands already was counted."""
    for statement in (*_backfill(dialect), *{"sqlite": _sqlite, "postgresql": _postgresql}[dialect]()):
        execute(statement)


def _whose(dialect: str) -> dict[str, str]:
    return {what: who.format(hex=_HEX[dialect].format("NEW.wallet")) for what, who in _WHOSE.items()}


def _add(dialect: str) -> str:
    pending = f"CASE WHEN NEW.status IN ({PENDING}) THEN NEW.usd ELSE 0 END"
    rows = ", ".join(f"('{what}', {who}, {pending})" for what, who in _whose(dialect).items())
    kept = "reserved.usd + excluded.usd"
    return f"INSERT INTO reserved (what, who, usd) VALUES {rows} ON CONFLICT (what, who) DO UPDATE SET usd = {kept}"  # noqa: S608


def _change(dialect: str) -> str:
    rows = " OR ".join(f"what = '{what}' AND who = {who}" for what, who in _whose(dialect).items())
    sign = f"CASE WHEN NEW.status IN ({PENDING}) THEN NEW.usd ELSE -NEW.usd END"
    return f"UPDATE reserved SET usd = usd + {sign} WHERE {rows}"  # noqa: S608


def _complete(dialect: str) -> Iterator[str]:
    for what, who in _whose(dialect).items():
        last = f"FROM completed WHERE what = '{what}' AND who = {who} ORDER BY number DESC LIMIT 1"
        at = f"{_GREATER[dialect]}(NEW.moved_at, coalesce((SELECT at {last}), 0))"
        total = f"(NEW.usd + coalesce((SELECT total {last}), 0)) % {ROUND}"
        yield (
            f"INSERT INTO completed (what, who, number, at, total) SELECT '{what}', {who},"
            f" coalesce((SELECT number {last}), 0) + 1, {at}, {total}"
        )


_SETTLED: Final = (
    "INSERT INTO settled (account, at, position, line, asset, units)"
    " SELECT p.account, j.recorded_at, p.position, p.line, p.asset, p.units FROM postings p"
    " JOIN journal j ON j.position = p.position WHERE p.side = 'credit'"
)
_NOW_PENDING: Final = f"(OLD.status IN ({PENDING})) <> (NEW.status IN ({PENDING}))"
_NOW_DONE: Final = "NEW.status = 'COMPLETED' AND OLD.status <> 'COMPLETED'"


def _sqlite() -> Iterator[str]:
    done = "; ".join(_complete("sqlite"))
    yield f"CREATE TRIGGER transfers_reserve AFTER INSERT ON transfers WHEN NEW.live = 1 BEGIN {_add('sqlite')}; END"
    when = f"AFTER UPDATE OF status ON transfers WHEN NEW.live = 1 AND {_NOW_PENDING}"
    yield f"CREATE TRIGGER transfers_pending {when} BEGIN {_change('sqlite')}; END"
    when = f"AFTER UPDATE OF status ON transfers WHEN NEW.live = 1 AND {_NOW_DONE}"
    yield f"CREATE TRIGGER transfers_done {when} BEGIN {done}; END"
    when = "AFTER INSERT ON identities WHEN NEW.kind = 'settlement'"
    yield f"CREATE TRIGGER identities_settled {when} BEGIN {_SETTLED} AND p.position = NEW.position; END"
    for table in ("reserved", "completed", "settled"):
        stop = f"BEGIN SELECT RAISE(ABORT, '{table}: rows are never deleted'); END"
        yield f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {stop}"


def _postgresql() -> Iterator[str]:
    done = "; ".join(_complete("postgresql"))
    bodies = {
        "transfers_reserve": (_add("postgresql"), "AFTER INSERT ON transfers", "NEW.live = 1"),
        "transfers_pending": (
            _change("postgresql"),
            "AFTER UPDATE OF status ON transfers",
            f"NEW.live = 1 AND {_NOW_PENDING}",
        ),
        "transfers_done": (done, "AFTER UPDATE OF status ON transfers", f"NEW.live = 1 AND {_NOW_DONE}"),
        "identities_settled": (
            f"{_SETTLED} AND p.position = NEW.position",
            "AFTER INSERT ON identities",
            "NEW.kind = 'settlement'",
        ),
    }
    for name, (body, event, when) in bodies.items():
        yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$"
        yield f"CREATE TRIGGER {name} {event} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()"
    for table in ("reserved", "completed", "settled"):
        refuse = f"RAISE EXCEPTION '{table}: rows are never deleted' USING ERRCODE = 'restrict_violation'"
        yield f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refuse}; END $$"
        yield (
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE OR TRUNCATE ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
        )


def _backfill(dialect: str) -> Iterator[str]:
    columns = {"account": "account", "initiator": "initiator", "wallet": _HEX[dialect].format("wallet")}
    for what, who in columns.items():
        usd = f"sum(CASE WHEN status IN ({PENDING}) THEN usd ELSE 0 END)"
        yield (
            f"INSERT INTO reserved (what, who, usd) SELECT '{what}', {who}, {usd}"  # noqa: S608
            " FROM transfers WHERE live = 1 GROUP BY 2"
        )
        window = f"PARTITION BY {who} ORDER BY moved_at, number"
        yield (
            "INSERT INTO completed (what, who, number, at, total)"  # noqa: S608
            f" SELECT '{what}', {who}, row_number() OVER ({window}), moved_at, sum(usd) OVER ({window}) % {ROUND}"
            " FROM transfers WHERE live = 1 AND status = 'COMPLETED'"
        )
    known = "SELECT 1 FROM identities i WHERE i.position = p.position AND i.kind = 'settlement'"
    yield f"{_SETTLED} AND EXISTS ({known})"
