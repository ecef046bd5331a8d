# SPDX-License-Identifier: AGPL-3.0-or-later
"""Double entry: accounts, postings, entries, and the hash chain of the one journal.

Every amount is a positive integer of base units with a side; no account can stand below zero, because a balance is kept on the
account's natural side and that number is unsigned everywhere, in memory and in the database.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from custody.rules.amounts import Amount, Asset, Assets
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.origins import ChainProof, Origin, Reversal, origin_from_json, origin_to_json
from custody.rules.refusals import Refusal, Rule
from custody.rules.settlements import ManualEntry, Settlement
from custody.rules.signatures import Signed


class Side(StrEnum):
    """Debit raises what we have; credit raises what we owe."""

    DEBIT = "debit"
    CREDIT = "credit"

    @property
    def other(self) -> "Side":
        """The opposite side."""
        return Side.CREDIT if self is Side.DEBIT else Side.DEBIT


class AccountKind(StrEnum):
    """Every kind of account there is. There is no kind that may be negative, and no flag on an account."""

    WALLET = "wallet"
    NETWORK_FEES = "network_fees"
    REORG_LOSS = "reorg_loss"
    CUSTOMER_AVAILABLE = "customer_available"
    CUSTOMER_HELD = "customer_held"
    SUSPENSE = "suspense"
    ACCRUED_FEES = "accrued_fees"
    COMPANY_SURPLUS = "company_surplus"
    COMPANY_EQUITY = "company_equity"
    COMPANY_HELD = "company_held"
    """What waits to leave a company account; its owner names that account's kind."""

    @property
    def side(self) -> Side:
        """The natural side, on which the balance stands."""
        ours = (AccountKind.WALLET, AccountKind.NETWORK_FEES, AccountKind.REORG_LOSS)
        return Side.DEBIT if self in ours else Side.CREDIT

    @property
    def is_liability(self) -> bool:
        """Whether it is owed to customers (DESIGN.md, law 2)."""
        return self in (AccountKind.CUSTOMER_AVAILABLE, AccountKind.CUSTOMER_HELD, AccountKind.SUSPENSE)


_OWNED: Final = (
    AccountKind.WALLET,
    AccountKind.CUSTOMER_AVAILABLE,
    AccountKind.CUSTOMER_HELD,
    AccountKind.COMPANY_HELD,
)


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A ledger account: a kind, and an owner for wallets (the wallet's hex name), customers (the id) and what the company holds back."""

    kind: AccountKind
    owner: str = ""

    def __post_init__(self) -> None:
        if (self.kind in _OWNED) != bool(self.owner):
            raise InvalidInput(
                "account.owner", Rule.MALFORMED, repr(self.owner), f"an owner for {', '.join(_OWNED)} only"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form, `kind` or `kind:owner`."""
        kind, _, owner = text.partition(":")
        if kind not in set(AccountKind):
            raise InvalidInput("account", Rule.MALFORMED, repr(text), "one of " + ", ".join(AccountKind))
        return cls(AccountKind(kind), owner)

    def __str__(self) -> str:
        return f"{self.kind}:{self.owner}" if self.owner else str(self.kind)


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of an entry: an account, a side, and a positive amount."""

    account: Account
    side: Side
    amount: Amount

    def __post_init__(self) -> None:
        if self.amount.units <= 0:
            raise InvalidInput("posting.amount", Rule.NOT_POSITIVE, str(self.amount.units), "more than zero base units")

    @property
    def change(self) -> int:
        """What it does to the account's balance on its natural side; base units, signed."""
        return self.amount.units if self.side is self.account.kind.side else -self.amount.units


@dataclass(frozen=True, slots=True)
class Entry:
    """Postings that sum to zero per asset, and what made them true. An unbalanced entry cannot be constructed."""

    origin: Origin
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        if not self.postings:
            raise InvalidInput("entry.postings", Rule.MALFORMED, "none", "at least two postings")
        totals: dict[Asset, dict[Side, int]] = defaultdict(lambda: {Side.DEBIT: 0, Side.CREDIT: 0})
        for posting in self.postings:
            totals[posting.amount.asset][posting.side] += posting.amount.units
        for asset, sides in totals.items():
            if sides[Side.DEBIT] != sides[Side.CREDIT]:
                raise UnbalancedEntry(asset.symbol, sides[Side.DEBIT], sides[Side.CREDIT])

    def changes(self) -> dict[tuple[Account, Asset], int]:
        """Net change per account and asset, on the natural side, zeroes left out."""
        net: dict[tuple[Account, Asset], int] = defaultdict(int)
        for posting in self.postings:
            net[posting.account, posting.amount.asset] += posting.change
        return {key: units for key, units in net.items() if units}


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An entry as recorded: positions run 1, 2, 3 …; `hash` covers everything before it through `previous`."""

    position: int
    recorded_at: int
    previous: bytes
    entry: Entry
    hash: bytes

    @classmethod
    def append(cls, previous: "JournalHead", entry: Entry, recorded_at: int) -> Self:
        """The next entry after a head."""
        position = previous.position + 1
        return cls(position, recorded_at, previous.hash, entry, entry_hash(position, recorded_at, previous.hash, entry))


@dataclass(frozen=True, slots=True)
class JournalHead:
    """The newest position and its hash; position 0 and 32 zero bytes before the first entry."""

    position: int = 0
    hash: bytes = bytes(32)


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """The one JSON form of an entry; base units as strings."""
    return {
        "origin": origin_to_json(entry.origin),
        "postings": [
            {
                "account": str(p.account),
                "asset": p.amount.asset.symbol,
                "side": str(p.side),
                "units": str(p.amount.units),
            }
            for p in entry.postings
        ],
    }


def entry_from_json(data: Mapping[str, Any], assets: Assets) -> Entry:
    """Read it back; raises InvalidInput or UnbalancedEntry where somebody changed it."""
    postings = tuple(
        Posting(Account.parse(p["account"]), Side(p["side"]), Amount(assets.get(p["asset"]), int(p["units"])))
        for p in data["postings"]
    )
    return Entry(origin_from_json(data["origin"]), postings)


def canonical(data: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII. No floats ever occur in it."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def entry_hash(position: int, recorded_at: int, previous: bytes, entry: Entry) -> bytes:
    """SHA-256 over position, time, the previous hash and the entry: the chain that shows an edited row."""
    body = {"position": position, "recorded_at": recorded_at, "previous": previous.hex(), **entry_to_json(entry)}
    return hashlib.sha256(b"bulkhead journal v1\x00" + canonical(body)).digest()


def credit_deposit(proof: ChainProof, wallet: Account, owner: Account, amount: Amount) -> Entry:
    """Coins arrived: the wallet has more, and the owner (a customer, suspense, or the company for its own wallets) is owed it."""
    return Entry(proof, (Posting(wallet, Side.DEBIT, amount), Posting(owner, Side.CREDIT, amount)))


def reverse_deposit(credited: JournalEntry, reversal: Reversal, available: int) -> Entry:
    """A reorg took a credited deposit back: exact, and what the owner has already spent goes to `reorg_loss`.

    `available` is the owner's balance now, in base units. The loss is a shortfall until `make_whole` (TRUST.md).
    """
    wallet, owner = credited.entry.postings
    taken = min(available, owner.amount.units)
    postings = [Posting(wallet.account, Side.CREDIT, wallet.amount)]
    if taken:
        postings.append(Posting(owner.account, Side.DEBIT, Amount(owner.amount.asset, taken)))
    if missing := owner.amount.units - taken:
        loss = Account(AccountKind.REORG_LOSS)
        postings.append(Posting(loss, Side.DEBIT, Amount(owner.amount.asset, missing)))
    return Entry(reversal, tuple(postings))


def settle(signed: Signed[Settlement], assets: Assets) -> Entry:
    """The entry of a settlement: net change per customer and asset, fees to `accrued_fees`."""
    net: dict[tuple[str, str], int] = defaultdict(int)
    fees: dict[str, int] = defaultdict(int)
    for trade in signed.message.trades:
        for leg in trade.legs:
            net[leg.customer, leg.asset] += leg.change
        for fee in trade.fees:
            net[fee.customer, fee.asset] -= fee.units
            fees[fee.asset] += fee.units
    postings = [
        Posting(
            Account(AccountKind.CUSTOMER_AVAILABLE, customer),
            Side.CREDIT if units > 0 else Side.DEBIT,
            Amount(assets.get(asset), abs(units)),
        )
        for (customer, asset), units in sorted(net.items())
        if units
    ]
    accrued = Account(AccountKind.ACCRUED_FEES)
    postings += [
        Posting(accrued, Side.CREDIT, Amount(assets.get(a), units)) for a, units in sorted(fees.items()) if units
    ]
    return Entry(signed, tuple(postings))


MANUAL_MOVES: Final = frozenset(
    {
        (AccountKind.SUSPENSE, AccountKind.CUSTOMER_AVAILABLE),
        (AccountKind.COMPANY_SURPLUS, AccountKind.CUSTOMER_AVAILABLE),
        (AccountKind.COMPANY_SURPLUS, AccountKind.REORG_LOSS),
    }
)
"""The only moves (debited kind, credited kind) two people may sign. None of them leads to the company."""


def check_manual(entry: ManualEntry, customers: frozenset[str]) -> Iterator[Refusal]:
    """Exactly one debit and one credit, between accounts of the closed list; customers must exist."""
    sides = {p.side: Account.parse(p.account) for p in entry.postings if p.side in set(Side)}
    if len(entry.postings) != 2 or len(sides) != 2:
        yield Refusal(Rule.MALFORMED, field="postings", got=len(entry.postings), want="one debit and one credit")
        return
    move = (sides["debit"].kind, sides["credit"].kind)
    if move not in MANUAL_MOVES:
        allowed = ["→".join(m) for m in sorted(MANUAL_MOVES)]
        yield Refusal(Rule.MOVE_NOT_ALLOWED, debit=str(sides["debit"]), credit=str(sides["credit"]), allowed=allowed)
    for account in sides.values():
        if account.kind is AccountKind.CUSTOMER_AVAILABLE and account.owner not in customers:
            yield Refusal(Rule.UNKNOWN_CUSTOMER, customer=account.owner)


def manual(signed: Signed[ManualEntry], assets: Assets) -> Entry:
    """The entry of a manual entry."""
    postings = tuple(
        Posting(Account.parse(p.account), Side(p.side), Amount(assets.get(p.asset), p.units))
        for p in signed.message.postings
    )
    return Entry(signed, postings)


def check_balances(entry: Entry, balances: Mapping[tuple[Account, Asset], int]) -> Iterator[Refusal]:
    """Nobody below zero after this entry; a balance that is not given counts as zero."""
    for (account, asset), change in sorted(entry.changes().items(), key=lambda item: str(item[0][0])):
        standing = balances.get((account, asset), 0)
        if standing + change < 0:
            yield Refusal(
                Rule.INSUFFICIENT_BALANCE, account=str(account), asset=asset.symbol, balance=standing, change=change
            )


def replay(entries: Iterable[JournalEntry]) -> dict[tuple[Account, Asset], int]:
    """Balances recomputed from the journal alone."""
    totals: dict[tuple[Account, Asset], int] = defaultdict(int)
    for recorded in entries:
        for key, units in recorded.entry.changes().items():
            totals[key] += units
    return {key: units for key, units in totals.items() if units}
