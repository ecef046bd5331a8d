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
from functools import lru_cache
from typing import Any, Final, Self

from custody.rules.amounts import Amount, Asset, Assets
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.origins import ChainProof, Origin, Reversal, identity_of, origin_from_json, origin_to_json
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
_EACH: Final = (AccountKind.SUSPENSE, AccountKind.REORG_LOSS)
"""Kinds that are kept apart by what made them: without an owner they name the kind, and no line of an entry can stand there."""


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A ledger account: a kind, and an owner for wallets (the wallet's hex name), customers (the id) and what the company holds back.

    Suspense has an account for each chain event that is owed to nobody yet (its identity), so that whatever is taken is taken of
    coins that came, and never of somebody else's; `reorg_loss` one for each account that had spent what a reorg took back.
    """

    kind: AccountKind
    owner: str = ""

    def __post_init__(self) -> None:
        if (self.kind in _OWNED) != bool(self.owner) and self.kind not in _EACH:
            raise InvalidInput(
                "account.owner", Rule.MALFORMED, repr(self.owner), f"an owner for {', '.join((*_OWNED, *_EACH))} only"
            )

    @property
    def is_whole_kind(self) -> bool:
        """Whether it names a kind of which each account has an owner: all of them together."""
        return self.kind in _EACH and not self.owner

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
        if self.account.is_whole_kind:
            want = f"{self.account.kind}:NAME, the one that is meant"
            raise InvalidInput("posting.account", Rule.MALFORMED, repr(str(self.account)), want)

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


@lru_cache(maxsize=1024)
def _parts(entry: Entry) -> tuple[str, str]:
    return canonical(origin_to_json(entry.origin)).decode(), canonical(entry_to_json(entry)["postings"]).decode()


def entry_text(entry: Entry) -> str:
    """`canonical(entry_to_json(entry))`, remembered: whoever asks before an entry is appended has that done outside the transaction."""
    origin, postings = _parts(entry)
    return f'{{"origin":{origin},"postings":{postings}}}'


def entry_hash(position: int, recorded_at: int, previous: bytes, entry: Entry) -> bytes:
    """SHA-256 over position, time, the previous hash and the entry, as canonical JSON: the chain that shows an edited row."""
    origin, postings = _parts(entry)
    numbered = f'{{"origin":{origin},"position":{position},"postings":{postings}'
    body = f'{numbered},"previous":"{previous.hex()}","recorded_at":{recorded_at}}}'
    return hashlib.sha256(b"bulkhead journal v1\x00" + body.encode()).digest()


def suspense_of(event: str) -> Account:
    """Where the coins of one chain event wait for whom they are owed to; `event` is its identity (`origins.identity_of`)."""
    return Account(AccountKind.SUSPENSE, event)


def loss_of(account: Account) -> Account:
    """Where it stands that an account had spent what a reorg took back."""
    return Account(AccountKind.REORG_LOSS, str(account))


def credited_to(proof: ChainProof, owner: Account) -> Account:
    """The account that a chain event credits: its own suspense where it is owed to nobody yet."""
    return suspense_of(identity_of(proof)) if owner.kind is AccountKind.SUSPENSE else owner


def credit_deposit(proof: ChainProof, wallet: Account, owner: Account, amount: Amount, lost: int = 0) -> Entry:
    """Coins arrived: the wallet has more, and the owner (a customer, suspense, or the company for its own wallets) is owed it.

    `lost` is what the owner had spent of coins that a reorg took back, in base units: what arrives fills that first. The same
    payment in another block would otherwise be owed twice, and the second time for nothing.
    """
    owner = credited_to(proof, owner)
    filled = min(lost, amount.units)
    postings = [Posting(wallet, Side.DEBIT, amount)]
    if filled:
        postings.append(Posting(loss_of(owner), Side.CREDIT, Amount(amount.asset, filled)))
    if filled < amount.units:
        postings.append(Posting(owner, Side.CREDIT, Amount(amount.asset, amount.units - filled)))
    return Entry(proof, tuple(postings))


def reverse(recorded: JournalEntry, reversal: Reversal, balances: Mapping[tuple[Account, Asset], int]) -> Entry:
    """A reorg took back what an entry rests on, a credit or a payout: the exact opposite of its net change.

    `balances` are those now of the accounts that it raised, in base units. What such an account no longer has was spent, and goes
    to its `reorg_loss`: a shortfall that stops payments out of customer tiers until it is filled (TRUST.md). A wallet has no such
    way out: what its coins paid was taken back before them.
    """
    postings: list[Posting] = []
    for (account, asset), change in recorded.entry.changes().items():
        natural, lowered = account.kind.side, change
        if change < 0:
            postings.append(Posting(account, natural, Amount(asset, -change)))
            continue
        if account.kind is not AccountKind.WALLET:
            lowered = min(change, balances.get((account, asset), 0))
        if lowered:
            postings.append(Posting(account, natural.other, Amount(asset, lowered)))
        if missing := change - lowered:
            postings.append(Posting(loss_of(account), Side.DEBIT, Amount(asset, missing)))
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
        (AccountKind.SUSPENSE, AccountKind.REORG_LOSS),
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
