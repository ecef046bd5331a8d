# SPDX-License-Identifier: AGPL-3.0-or-later
"""Somebody with the database in hand changes rows behind our back, triggers dropped, hashes recomputed."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from custody.auditing import audit
from custody.bootstrap import open_deployment
from custody.rules.amounts import Assets
from custody.rules.errors import CustodyError
from custody.rules.ledger import canonical, entry_from_json, entry_hash
from custody.rules.refusals import Refused
from devnet.scenes.stage import Stage
from devnet.story import Story

Attack = Callable[[sqlite3.Connection, Assets], None]


def rows(stage: Stage, story: Story) -> None:
    """Each attack on a copy of the truth: found by `ledger verify` and by the attestor; then the truth is put back."""
    story.chapter("Rows changed in the database behind our back")
    home, assets = stage.world.net.home, stage.deployment.bundle.assets
    attacks: dict[str, Attack] = {
        "a customer's balance raised": _raise_balance,
        "a deposit's amount rewritten, every hash after it recomputed": _rewrite_deposit,
        "the newest entry deleted": _delete_newest,
        "customers' total owed lowered": _lower_liability,
    }
    for what, attack in attacks.items():
        with _tampered(home / "ledger.db", attack, assets):
            findings = audit(open_deployment(home, read_only=True))
            story.claim(
                f"{what}: found by ledger verify", bool(findings), findings[0].refusal.rule if findings else "nothing"
            )
            refused = _attestor_says(stage)
            story.claim(f"{what}: the attestor refuses to sign", refused is not None, refused)
    story.claim("with the truth put back, the attestor signs again", _attestor_says(stage) is None)


def _attestor_says(stage: Stage) -> str | None:
    """None where it signs a statement; otherwise the rule by which it does not."""
    try:
        stage.attestor.statement()
    except Refused as refused:
        return ", ".join(sorted({str(r.rule) for r in refused.refusals}))
    except CustodyError as error:
        return type(error).__name__
    return None


class _tampered:  # noqa: N801  # reads as a word where it is used
    """The database with an attack in it for the length of a block; put back byte for byte in meaning afterwards."""

    def __init__(self, path: Path, attack: Attack, assets: Assets) -> None:
        self._path, self._attack, self._assets = path, attack, assets
        self._kept = sqlite3.connect(":memory:")

    def __enter__(self) -> None:
        with closing(sqlite3.connect(self._path)) as database:
            database.backup(self._kept)
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")
            database.execute("PRAGMA ignore_check_constraints=ON")
            self._attack(database, self._assets)
            database.commit()

    def __exit__(self, *_: object) -> None:
        with closing(sqlite3.connect(self._path)) as database:
            self._kept.backup(database)
        self._kept.close()


def _raise_balance(database: sqlite3.Connection, _assets: Assets) -> None:
    changed = database.execute(
        "UPDATE balances SET units = ? WHERE account = 'customer_available:alice' AND asset = 'BTC'",
        (f"{10**12:078d}",),
    )
    if changed.rowcount != 1:
        raise AssertionError("the attack changed nothing")


def _lower_liability(database: sqlite3.Connection, _assets: Assets) -> None:
    changed = database.execute(
        "UPDATE totals SET units = ? WHERE kind = 'customer_available' AND asset = 'BTC'", (f"{1:078d}",)
    )
    if changed.rowcount != 1:
        raise AssertionError("the attack changed nothing")


def _delete_newest(database: sqlite3.Connection, _assets: Assets) -> None:
    (newest,) = database.execute("SELECT max(position) FROM journal").fetchone()
    for table in ("postings", "identities", "accruals", "journal"):
        database.execute(f"DELETE FROM {table} WHERE position = ?", (newest,))  # noqa: S608  # names are ours


def _rewrite_deposit(database: sqlite3.Connection, assets: Assets) -> None:
    """The thorough one: amount in entry, proof, lines and balances, and the hash chain made whole again."""
    previous = b""
    for position, recorded_at, kept, body in database.execute(
        "SELECT position, recorded_at, previous, body FROM journal ORDER BY position"
    ).fetchall():
        data = json.loads(body)
        previous = previous or kept
        if position == 1:
            for posting in data["postings"]:
                posting["units"] = str(int(posting["units"]) + 7)
            for field in ("value", "logged", "measured", "after"):
                if field in data["origin"]["message"]:
                    data["origin"]["message"][field] = str(int(data["origin"]["message"][field]) + 7)
        digest = entry_hash(position, recorded_at, previous, entry_from_json(data, assets))
        database.execute(
            "UPDATE journal SET previous = ?, hash = ?, body = ? WHERE position = ?",
            (previous, digest, canonical(data).decode(), position),
        )
        previous = digest
    for table, keys in (("postings", "position = 1"), ("balances", "1 = 1"), ("totals", "1 = 1")):
        _shift(database, table, keys)


def _shift(database: sqlite3.Connection, table: str, where: str) -> None:
    first = database.execute("SELECT account, asset, side FROM postings WHERE position = 1").fetchall()
    for account, asset, _ in first:
        name, value = ("kind", account.partition(":")[0]) if table == "totals" else ("account", account)
        query = f"SELECT units FROM {table} WHERE {where} AND {name} = ? AND asset = ?"  # noqa: S608  # names are ours
        found = database.execute(query, (value, asset)).fetchone()
        if found:
            update = f"UPDATE {table} SET units = ? WHERE {where} AND {name} = ? AND asset = ?"  # noqa: S608
            database.execute(update, (f"{int(found[0]) + 7:078d}", value, asset))
