# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one append-only journal: entries, their lines, what each rests on, and the balances they add up to."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, bindparam, insert, select, text

from custody.flows.ports import Examined
from custody.rules.amounts import UINT256_MAX, Asset, Assets
from custody.rules.errors import InvalidInput
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, JournalHead, check_balances
from custody.rules.origins import Once, Reversal, recorded_once
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.store.examining import examine
from custody.store.mapping import JournalValues, accrued, journal_entry, journal_values, lines
from custody.store.tables import AccrualRow, BalanceRow, IdentityRow, JournalRow, PostingRow, TotalRow, table_of
from custody.store.types import Units

T = TypeVar("T")
Standing = Mapping[tuple[Account, Asset], int]

_CHUNK: Final = 500
"""Values in one IN list: below every database's limit of parameters."""

_journal, _postings, _identities = table_of(JournalRow), table_of(PostingRow), table_of(IdentityRow)
_balances, _totals, _accruals = table_of(BalanceRow), table_of(TotalRow), table_of(AccrualRow)

_HEAD: Final = select(_journal.c.position, _journal.c.hash).order_by(_journal.c.position.desc()).limit(1)
_ENTRIES: Final = select(_journal.c.position, _journal.c.recorded_at, _journal.c.previous, _journal.c.hash, _journal.c.body)
_AFTER: Final = _ENTRIES.where(_journal.c.position > bindparam("after")).order_by(_journal.c.position).limit(bindparam("most"))
_ONE: Final = _ENTRIES.where(_journal.c.position == bindparam("at"))
_BALANCES: Final = select(_balances.c.account, _balances.c.asset, _balances.c.units).where(
    _balances.c.account.in_(bindparam("keys", expanding=True))
)
_TOTALS: Final = select(_totals.c.kind, _totals.c.asset, _totals.c.units).where(
    _totals.c.kind.in_(bindparam("keys", expanding=True))
)
_CLAIMED: Final = select(_identities.c.identity, _identities.c.position).where(
    _identities.c.kind == bindparam("of"), _identities.c.identity.in_(bindparam("keys", expanding=True))
)
_CREDIT: Final = select(_identities.c.identity).where(
    _identities.c.position == bindparam("at"), _identities.c.kind == Once.CHAIN_EVENT.value
)
_BALANCE: Final = select(_balances.c.units).where(
    _balances.c.account == bindparam("account"), _balances.c.asset == bindparam("asset")
)
_TOTAL: Final = select(_totals.c.units).where(_totals.c.kind == bindparam("kind"), _totals.c.asset == bindparam("asset"))
_RIPE: Final = (
    select(_accruals.c.units, _accruals.c.ripens)
    .where(_accruals.c.asset == bindparam("asset"), _accruals.c.ripens <= bindparam("by"))
    .order_by(_accruals.c.ripens.desc(), _accruals.c.position.desc())
    .limit(1)
)
_SET_BALANCE: Final = text(
    "INSERT INTO balances (account, asset, units) VALUES (:account, :asset, :units)"
    " ON CONFLICT (account, asset) DO UPDATE SET units = excluded.units"
).bindparams(bindparam("units", type_=Units()))
_SET_TOTAL: Final = text(
    "INSERT INTO totals (kind, asset, units) VALUES (:kind, :asset, :units)"
    " ON CONFLICT (kind, asset) DO UPDATE SET units = excluded.units"
).bindparams(bindparam("units", type_=Units()))
_FOREVER: Final = 2**63 - 1


class SqlJournal:
    """The journal inside one transaction."""

    def __init__(self, connection: Connection, assets: Assets) -> None:
        self._connection, self._assets = connection, assets

    def head(self) -> JournalHead:
        """The newest position and hash."""
        row = self._connection.execute(_HEAD).first()
        return JournalHead() if row is None else JournalHead(row[0], bytes(row[1]))

    def append(self, entry: Entry, recorded_at: int) -> JournalEntry:
        """Record an entry and move the balances. Raises Refused before anything is written."""
        standing, totals = self._standing(entry), self._standing_totals(entry)
        taken, claims = self._claims(entry)
        raise_if((*taken, *check_balances(entry, standing), *_too_large(entry, standing, totals)))
        recorded = JournalEntry.append(self.head(), entry, recorded_at)
        at = recorded.position
        run = self._connection.execute
        run(insert(_journal), journal_values(recorded))
        run(insert(_postings), lines(recorded))
        run(insert(_identities), [claim | {"position": at} for claim in claims])
        changes = entry.changes().items()
        if changes:
            run(
                _SET_BALANCE,
                [{"account": str(a), "asset": s.symbol, "units": standing.get((a, s), 0) + units} for (a, s), units in changes],
            )
        moved = _by_kind(entry)
        if moved:
            run(
                _SET_TOTAL,
                [{"kind": k.value, "asset": s, "units": totals.get((k, s), 0) + units} for (k, s), units in moved.items()],
            )
        self._accrue(recorded)
        return recorded

    def read(self, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """Entries with position > after, ascending. Raises InvalidInput on a damaged row."""
        rows = self._connection.execute(_AFTER, {"after": after, "most": limit})
        return [journal_entry(_values(row), self._assets) for row in rows]

    def get(self, position: int) -> JournalEntry | None:
        """One entry. Raises InvalidInput on a damaged row."""
        row = self._connection.execute(_ONE, {"at": position}).first()
        return None if row is None else journal_entry(_values(row), self._assets)

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[Examined]:
        """Rows with position > after as an auditor finds them, with what is kept beside them."""
        rows = [_values(row) for row in self._connection.execute(_AFTER, {"after": after, "most": limit})]
        return examine(self._connection, rows, self._assets)

    def balance(self, account: Account, asset: Asset) -> int:
        """Running balance on the account's natural side."""
        found = self._connection.execute(_BALANCE, {"account": str(account), "asset": asset.symbol}).scalar()
        return 0 if found is None else int(found)

    def total(self, kind: AccountKind, asset: Asset) -> int:
        """Kept total over all accounts of a kind."""
        found = self._connection.execute(_TOTAL, {"kind": kind.value, "asset": asset.symbol}).scalar()
        return 0 if found is None else int(found)

    def balances(self) -> Iterator[tuple[Account, Asset, int]]:
        """Every running balance that is not zero. Raises InvalidInput on a damaged row."""
        rows = self._connection.execute(select(_balances.c.account, _balances.c.asset, _balances.c.units))
        yield from ((Account.parse(a), self._assets.get(s), int(units)) for a, s, units in rows if units)

    def totals(self) -> Iterator[tuple[AccountKind, Asset, int]]:
        """Every kept total that is not zero. Raises InvalidInput on a damaged row."""
        rows = self._connection.execute(select(_totals.c.kind, _totals.c.asset, _totals.c.units))
        yield from ((_kind(kind), self._assets.get(s), int(units)) for kind, s, units in rows if units)

    def matured_fees(self, asset: Asset, recorded_by: int) -> int:
        """Everything accrued by then, less everything ever swept, which is what was accrued and no longer stands."""
        ever = self._accrued(asset.symbol, _FOREVER)[0]
        swept = ever - self.balance(Account(AccountKind.ACCRUED_FEES), asset)
        return max(0, self._accrued(asset.symbol, recorded_by)[0] - swept)

    def _standing(self, entry: Entry) -> Standing:
        wanted = {(str(account), asset.symbol): (account, asset) for account, asset in entry.changes()}
        accounts = sorted({account for account, _ in wanted})
        rows = (row for keys in _chunks(accounts) for row in self._connection.execute(_BALANCES, {"keys": keys}))
        return {wanted[a, s]: units for a, s, units in rows if (a, s) in wanted}

    def _standing_totals(self, entry: Entry) -> dict[tuple[AccountKind, str], int]:
        kinds = sorted({account.kind.value for account, _ in entry.changes()})
        return {(_kind(k), s): units for k, s, units in self._connection.execute(_TOTALS, {"keys": kinds})} if kinds else {}

    def _claims(self, entry: Entry) -> tuple[list[Refusal], list[dict[str, object]]]:
        """What is taken already, and the rows of what this entry would take."""
        refusals: list[Refusal] = []
        claims: list[dict[str, object]] = []
        wanted: dict[Once, list[str]] = defaultdict(list)
        for kind, identity in recorded_once(entry.origin):
            wanted[kind].append(identity)
        for kind, identities in wanted.items():
            taken = self._claimed(kind, identities)
            for identity in identities:
                freed_by = 0
                if identity in taken:
                    freed_by = self._reversal_of(taken[identity]) if kind is Once.CHAIN_EVENT else 0
                    if not freed_by:
                        refusals.append(Refusal(Rule.ALREADY_RECORDED, kind=kind.value, id=identity, position=taken[identity]))
                claims.append({"kind": kind.value, "identity": identity, "freed_by": freed_by})
        if isinstance(entry.origin, Reversal) and not self._connection.execute(_CREDIT, {"at": entry.origin.entry}).first():
            refusals.append(Refusal(Rule.ORIGIN, reverses=entry.origin.entry, want="the position of a credited chain event"))
        return refusals, claims

    def _claimed(self, kind: Once, identities: list[str]) -> dict[str, int]:
        """The newest position that rests on each of these, where there is one."""
        newest: dict[str, int] = {}
        for keys in _chunks(identities):
            for identity, position in self._connection.execute(_CLAIMED, {"of": kind.value, "keys": keys}):
                newest[identity] = max(position, newest.get(identity, 0))
        return newest

    def _reversal_of(self, position: int) -> int:
        return self._claimed(Once.REVERSAL, [str(position)]).get(str(position), 0)

    def _accrued(self, asset: str, by: int) -> tuple[int, int]:
        """Everything accrued up to the newest accrual that is ripe by a time, and when that one ripened."""
        row = self._connection.execute(_RIPE, {"asset": asset, "by": by}).first()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def _accrue(self, recorded: JournalEntry) -> None:
        for asset, units in accrued(recorded.entry).items():
            before, ripened = self._accrued(asset, _FOREVER)
            ripens = max(ripened, recorded.recorded_at)
            values = {"asset": asset, "position": recorded.position, "ripens": ripens, "units": before + units}
            self._connection.execute(insert(_accruals), values)


def _values(row: Sequence[Any]) -> JournalValues:
    position, recorded_at, previous, digest, body = row
    return {
        "position": int(position),
        "recorded_at": int(recorded_at),
        "previous": bytes(previous),
        "hash": bytes(digest),
        "body": str(body),
    }


def _kind(text: str) -> AccountKind:
    if text not in set(AccountKind):
        raise InvalidInput("totals.kind", Rule.MALFORMED, repr(text), "one of " + ", ".join(AccountKind))
    return AccountKind(text)


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK))


def _by_kind(entry: Entry) -> dict[tuple[AccountKind, str], int]:
    moved: dict[tuple[AccountKind, str], int] = defaultdict(int)
    for (account, asset), units in entry.changes().items():
        moved[account.kind, asset.symbol] += units
    return {key: units for key, units in moved.items() if units}


def _too_large(entry: Entry, standing: Standing, totals: Mapping[tuple[AccountKind, str], int]) -> Iterable[Refusal]:
    """No balance and no total above 2^256 − 1: the chains cannot hold it, so it is no deposit."""
    for (account, asset), units in entry.changes().items():
        if standing.get((account, asset), 0) + units > UINT256_MAX:
            yield Refusal(Rule.TOO_LARGE, account=str(account), asset=asset.symbol, change=units)
    for (kind, symbol), units in _by_kind(entry).items():
        if totals.get((kind, symbol), 0) + units > UINT256_MAX:
            yield Refusal(Rule.TOO_LARGE, total=kind.value, asset=symbol, change=units)
