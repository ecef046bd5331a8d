# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rows as an auditor finds them: what is damaged is told, never raised, and the rest is read on."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Text, cast, func, select

from custody.flows.ports import Examined
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput
from custody.rules.ledger import JournalEntry
from custody.rules.origins import recorded_once
from custody.rules.refusals import Refusal, Rule
from custody.store.mapping import JournalValues, accrued, journal_entry, lines
from custody.store.tables import AccrualRow, IdentityRow, PostingRow, table_of
from custody.store.types import digits

Kept = dict[int, list[tuple[str, ...]]]
"""What stands beside the journal, as text, by position."""

_postings, _identities, _accruals = table_of(PostingRow).c, table_of(IdentityRow).c, table_of(AccrualRow).c


def examine(connection: Connection, rows: Sequence[JournalValues], assets: Assets) -> list[Examined]:
    """Consecutive rows of `journal`, each with the lines, identities and accruals kept beside it."""
    if not rows:
        return []
    within = (rows[0]["position"], rows[-1]["position"])
    beside = {"postings": _lines(connection, *within), "identities": _claims(connection, *within)}
    fees = _Accruals(connection, *within)
    found = []
    for row in rows:
        try:
            recorded = journal_entry(row, assets)
        except InvalidInput as error:
            damage = Refusal(Rule.ROW_DAMAGED, table="journal", why=str(error))
            found.append(Examined(row["position"], None, (damage,)))
            continue
        wanted = {"postings": _wanted_lines(recorded, connection.dialect.name), "identities": _wanted_claims(recorded)}
        told = ((table, kept[recorded.position], wanted[table]) for table, kept in beside.items())
        damaged = [
            _damage(*each) for each in (*told, ("accruals", *fees.of(recorded))) if sorted(each[1]) != sorted(each[2])
        ]
        found.append(Examined(recorded.position, recorded, tuple(damaged)))
    return found


def _damage(table: str, kept: Iterable[tuple[str, ...]], wanted: Iterable[tuple[str, ...]]) -> Refusal:
    has, should = set(kept), set(wanted)
    return Refusal(Rule.ROW_DAMAGED, table=table, found=sorted(has - should), missing=sorted(should - has))


def _number(units: int, dialect: str) -> str:
    return digits(units) if dialect == "sqlite" else str(units)


def _wanted_lines(recorded: JournalEntry, dialect: str) -> list[tuple[str, ...]]:
    return [
        (str(n["line"]), n["account"], n["asset"], n["side"], _number(n["units"], dialect)) for n in lines(recorded)
    ]


def _wanted_claims(recorded: JournalEntry) -> list[tuple[str, ...]]:
    return [(kind.value, identity) for kind, identity in recorded_once(recorded.entry.origin)]


def _lines(connection: Connection, first: int, last: int) -> Kept:
    p = _postings
    rows = select(p.position, cast(p.line, Text), p.account, p.asset, p.side, cast(p.units, Text))
    return _by_position(connection.execute(rows.where(p.position.between(first, last))).all())


def _claims(connection: Connection, first: int, last: int) -> Kept:
    i = _identities
    rows = select(i.position, i.kind, i.identity).where(i.position.between(first, last))
    return _by_position(connection.execute(rows).all())


def _by_position(rows: Iterable[Sequence[object]]) -> Kept:
    kept: Kept = defaultdict(list)
    for position, *values in rows:
        kept[int(str(position))].append(tuple(str(value) for value in values))
    return kept


class _Accruals:
    """Accruals of some positions; each one counts on from the one before it, so the first needs what stands before these."""

    def __init__(self, connection: Connection, first: int, last: int) -> None:
        self._dialect = connection.dialect.name
        a = _accruals
        rows = select(a.position, a.asset, cast(a.ripens, Text), cast(a.units, Text))
        self._kept = _by_position(connection.execute(rows.where(a.position.between(first, last))).all())
        newest = select(a.asset, func.max(a.position)).where(a.position < first).group_by(a.asset)
        self._before: dict[str, tuple[int, int]] = {}
        for asset, position in connection.execute(newest):
            row = connection.execute(
                select(a.ripens, cast(a.units, Text)).where(a.asset == asset, a.position == position)
            ).one()
            self._before[asset] = (int(row[0]), _whole(str(row[1])))

    def of(self, recorded: JournalEntry) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """What is kept for an entry, and what should be."""
        wanted: list[tuple[str, ...]] = []
        for asset, units in accrued(recorded.entry).items():
            ripened, before = self._before.get(asset, (0, 0))
            ripens, total = max(ripened, recorded.recorded_at), before + units
            wanted.append((asset, str(ripens), _number(total, self._dialect)))
        kept = self._kept[recorded.position]
        for asset, ripens_text, units_text in kept:
            self._before[asset] = (int(ripens_text), _whole(units_text))
        return kept, wanted


def _whole(text: str) -> int:
    """Units as they stand; something else than a number counts as nothing, and the next row then differs."""
    return int(text) if text.isascii() and text.isdigit() else 0
