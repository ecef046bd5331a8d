# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one append-only journal: entries, their lines, what each rests on, and the balances they add up to."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, bindparam, select

from custody.flows.ports import Examined
from custody.rules.amounts import UINT256_MAX, Asset, Assets
from custody.rules.errors import InvalidInput
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, JournalHead, check_balances, loss_of
from custody.rules.origins import REVERSIBLE, Once, Reversal, recorded_once
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.wallets import Chain
from custody.store import statements as sql
from custody.store.examining import examine
from custody.store.mapping import JournalValues, accrued, journal_entry, journal_values, lines
from custody.store.statements import Cursor
from custody.store.tables import BalanceRow, JournalRow, TotalRow, table_of

T = TypeVar("T")
Key = tuple[str, str]
"""An account or a kind of account, and an asset's symbol."""
Written = tuple[str, Sequence[Sequence[object]]]
"""A statement, and the rows of parameters that it is run with."""

_CHUNK: Final = 500
"""Values in one IN list: below every database's limit of parameters."""

_journal, _balances, _totals = table_of(JournalRow), table_of(BalanceRow), table_of(TotalRow)

_ENTRIES: Final = select(
    _journal.c.position, _journal.c.recorded_at, _journal.c.previous, _journal.c.hash, _journal.c.body
)
_AFTER: Final = (
    _ENTRIES.where(_journal.c.position > bindparam("after")).order_by(_journal.c.position).limit(bindparam("most"))
)
_ONE: Final = _ENTRIES.where(_journal.c.position == bindparam("at"))
_FOREVER: Final = 2**63 - 1
_HEIGHT_MOST: Final = 10**10 - 1


class SqlJournal:
    """The journal inside one transaction."""

    def __init__(self, connection: Connection, assets: Assets) -> None:
        self._connection, self._assets = connection, assets
        self._cursor = Cursor(connection)

    def head(self) -> JournalHead:
        """The newest position and hash."""
        rows = self._cursor.rows(sql.HEAD)
        return JournalHead(int(rows[0][0]), bytes(rows[0][1])) if rows else JournalHead()

    def append(self, entry: Entry, recorded_at: int) -> JournalEntry:
        """Record an entry and move the balances. Raises Refused before anything is written."""
        changes = {(str(account), asset.symbol): units for (account, asset), units in entry.changes().items()}
        moved = _by_kind(entry)
        standing = self._kept(sql.BALANCES, changes)
        totals = self._kept(sql.TOTALS, moved)
        taken, claims = self._claims(entry)
        after = {key: standing.get(key, 0) + units for key, units in changes.items()}
        sums = {key: totals.get(key, 0) + units for key, units in moved.items()}
        if taken or any(not 0 <= units <= UINT256_MAX for units in (*after.values(), *sums.values())):
            raise_if((*taken, *_short(entry, standing), *_too_large(after, sums)))
        recorded = JournalEntry.append(self.head(), entry, recorded_at)
        units = self._cursor.units
        self._cursor.write_all(
            *self._rows(recorded, claims),
            (sql.SET_BALANCE, [(*key, units(left)) for key, left in after.items()]),
            (sql.SET_TOTAL, [(*key, units(left)) for key, left in sums.items()]),
        )
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
        """Running balance on the account's natural side; of a whole kind, its kept total."""
        if account.is_whole_kind:
            return self.total(account.kind, asset)
        rows = self._cursor.rows(sql.BALANCE, str(account), asset.symbol)
        return sql.number(rows[0][0]) if rows else 0

    def total(self, kind: AccountKind, asset: Asset) -> int:
        """Kept total over all accounts of a kind."""
        rows = self._cursor.rows(sql.TOTAL, kind.value, asset.symbol)
        return sql.number(rows[0][0]) if rows else 0

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

    def executed(self, chain: Chain, first: int, last: int | None = None) -> Sequence[JournalEntry]:
        """Payouts in these blocks that stand; their identities are in the order of blocks (`payout_identity`)."""
        of_chain, upper = f"{chain.name}/", _HEIGHT_MOST if last is None else last + 1
        rows = self._cursor.rows(sql.EXECUTED, f"{of_chain}{max(0, first):010d}/", f"{of_chain}{upper:010d}/")
        return self._at(row for row in rows if str(row[1]).startswith(of_chain))  # collations differ about `:` and `/`

    def reversals(self, account: Account | None = None) -> Sequence[JournalEntry]:
        """Reversals that took from an account, or from what it had spent; or all."""
        if account is None:
            return self._at(self._cursor.rows(sql.REVERSALS))
        return self._at(self._cursor.rows(sql.REVERSED, str(account), str(loss_of(account))))

    def credited_since(self, account: Account, asset: Asset, position: int) -> int:
        """What chain events credited after a position."""
        accounts = str(account), str(loss_of(account))
        rows = self._cursor.rows(sql.CREDITED, *accounts, asset.symbol, position)
        return sum(sql.number(units) for (units,) in rows)

    def _at(self, rows: Iterable[Sequence[Any]]) -> list[JournalEntry]:
        found = (self.get(int(row[0])) for row in rows)
        return [recorded for recorded in found if recorded is not None]

    def settled_since(self, account: Account, since: int) -> dict[Asset, int]:
        """What settlements recorded after a time credited to an account."""
        found: dict[Asset, int] = defaultdict(int)
        for symbol, units in self._cursor.rows(sql.SETTLED, str(account), since):
            found[self._assets.get(symbol)] += sql.number(units)
        return dict(found)

    def _kept(self, query: str, wanted: Mapping[Key, int]) -> dict[Key, int]:
        """Numbers kept in `balances` or `totals` for these keys; what is not there counts as zero."""
        names = sorted({name for name, _ in wanted})
        rows = (row for keys in _chunks(names) for row in self._cursor.rows_in(query, keys=keys))
        return {(name, symbol): sql.number(units) for name, symbol, units in rows if (name, symbol) in wanted}

    def _claims(self, entry: Entry) -> tuple[list[Refusal], list[tuple[str, str, int]]]:
        """What is taken already, and what this entry would take: (kind, identity, freed_by)."""
        refusals: list[Refusal] = []
        claims: list[tuple[str, str, int]] = []
        wanted: dict[Once, list[str]] = defaultdict(list)
        for kind, identity in recorded_once(entry.origin):
            wanted[kind].append(identity)
        for kind, identities in wanted.items():
            taken = self._claimed(kind, identities)
            for identity in identities:
                freed_by = 0
                if identity in taken:
                    freed_by = self._reversal_of(taken[identity]) if kind in REVERSIBLE else 0
                    if not freed_by:
                        refusals.append(
                            Refusal(Rule.ALREADY_RECORDED, kind=kind.value, id=identity, position=taken[identity])
                        )
                claims.append((kind.value, identity, freed_by))
        refusals += self._no_credit(entry)
        return refusals, claims

    def _no_credit(self, entry: Entry) -> Iterator[Refusal]:
        origin = entry.origin
        if not isinstance(origin, Reversal):
            return
        if not self._cursor.rows(sql.REVERSIBLE_AT, origin.entry, Once.CHAIN_EVENT.value, Once.PAYOUT.value):
            yield Refusal(
                Rule.ORIGIN, reverses=origin.entry, want="the position of a credited chain event or of a payout"
            )

    def _claimed(self, kind: Once, identities: list[str]) -> dict[str, int]:
        """The newest position that rests on each of these, where there is one."""
        newest: dict[str, int] = {}
        for keys in _chunks(identities):
            for identity, position in self._cursor.rows_in(sql.CLAIMED, kind.value, keys=keys):
                newest[identity] = max(position, newest.get(identity, 0))
        return newest

    def _reversal_of(self, position: int) -> int:
        return self._claimed(Once.REVERSAL, [str(position)]).get(str(position), 0)

    def _accrued(self, asset: str, by: int) -> tuple[int, int]:
        """Everything accrued up to the newest accrual that is ripe by a time, and when that one ripened."""
        rows = self._cursor.rows(sql.RIPE, asset, by)
        return (sql.number(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    def _rows(self, recorded: JournalEntry, claims: Sequence[tuple[str, str, int]]) -> Iterator[Written]:
        at, units, row = recorded.position, self._cursor.units, journal_values(recorded)
        yield sql.ADD_ENTRY, [(at, row["recorded_at"], row["previous"], row["hash"], row["body"])]
        rows = [(at, n["line"], n["account"], n["asset"], n["side"], units(n["units"])) for n in lines(recorded)]
        yield sql.ADD_LINE, rows
        yield sql.ADD_IDENTITY, [(*claim, at) for claim in claims]
        fees = [
            (asset, at, max(ripened, recorded.recorded_at), units(before + fee))
            for asset, fee in accrued(recorded.entry).items()
            for before, ripened in [self._accrued(asset, _FOREVER)]
        ]
        yield sql.ADD_ACCRUAL, fees


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


def _by_kind(entry: Entry) -> dict[Key, int]:
    moved: dict[Key, int] = defaultdict(int)
    for posting in entry.postings:
        moved[posting.account.kind.value, posting.amount.asset.symbol] += posting.change
    return {key: units for key, units in moved.items() if units}


def _short(entry: Entry, standing: Mapping[Key, int]) -> Iterable[Refusal]:
    """Everybody who would be below zero (`check_balances`)."""
    return check_balances(entry, {key: standing.get((str(key[0]), key[1].symbol), 0) for key in entry.changes()})


def _too_large(balances: Mapping[Key, int], totals: Mapping[Key, int]) -> Iterable[Refusal]:
    """No balance and no total above 2^256 − 1: the chains cannot hold it, so it is no deposit."""
    for what, numbers in (("account", balances), ("total", totals)):
        for (name, symbol), units in numbers.items():
            if units > UINT256_MAX:
                yield Refusal(Rule.TOO_LARGE, **{what: name}, asset=symbol, would_be=units)
