# SPDX-License-Identifier: AGPL-3.0-or-later
"""The books: the journal with its balances, deposits as they stand, customers and their addresses."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from custody.rules.amounts import Asset
from custody.rules.certificates import DepositAddress
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, JournalHead
from custody.rules.refusals import Refusal
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain


@dataclass(frozen=True, slots=True)
class Examined:
    """One journal row as an auditor finds it: the entry where it can be read, and what is damaged about the row itself.

    Damage is: unreadable or not canonical JSON, lines or identities kept beside it that differ from it.
    """

    position: int
    recorded: JournalEntry | None
    damage: tuple[Refusal, ...]


class Journal(Protocol):
    """The one append-only journal with its running balances."""

    def head(self) -> JournalHead:
        """The newest position and hash."""
        ...

    def append(self, entry: Entry, recorded_at: int) -> JournalEntry:
        """Record an entry and move the balances, in this transaction.

        Raises Refused: insufficient_balance (nobody goes below zero), already_recorded (same chain event, settlement or
        manual entry id, trade, or reversal of the same position).
        """
        ...

    def read(self, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """Entries with position > after, ascending, as stored (hashes not recomputed). Raises InvalidInput on a damaged row."""
        ...

    def get(self, position: int) -> JournalEntry | None:
        """One entry. Raises InvalidInput on a damaged row."""
        ...

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[Examined]:
        """Rows with position > after, ascending, for an audit: a damaged one is told, never raised (hashes not recomputed)."""
        ...

    def balance(self, account: Account, asset: Asset) -> int:
        """Running balance on the account's natural side, never negative; zero if the account is not known.

        `suspense` and `reorg_loss` without an owner mean all of their kind.
        """
        ...

    def total(self, kind: AccountKind, asset: Asset) -> int:
        """Kept total over all accounts of a kind; never summed over customers at read time."""
        ...

    def balances(self) -> Iterator[tuple[Account, Asset, int]]:
        """Every running balance that is not zero."""
        ...

    def totals(self) -> Iterator[tuple[AccountKind, Asset, int]]:
        """Every kept total that is not zero."""
        ...

    def matured_fees(self, asset: Asset, recorded_by: int) -> int:
        """Accrued fees recorded at or before a time, less everything swept since; never below zero.

        A clock that ran back ripens nothing early: an entry counts with the latest time recorded up to it.
        """
        ...

    def executed(self, chain: Chain, first: int, last: int | None = None) -> Sequence[JournalEntry]:
        """Payouts' entries that rest on blocks first..last of a chain and that no reversal took back, oldest first."""
        ...

    def reversals(self, account: Account | None = None) -> Sequence[JournalEntry]:
        """Entries that took something back from an account, though it had spent all of it; of every account unless one is named."""
        ...

    def credited_since(self, account: Account, asset: Asset, position: int) -> int:
        """Base units that chain events credited to an account in entries after a position, and that no reversal took back."""
        ...

    def settled_since(self, account: Account, since: int) -> Mapping[Asset, int]:
        """Base units by asset that settlements recorded after a time credited to an account: fresh inflow."""
        ...


@dataclass(frozen=True, slots=True)
class Deposit:
    """A sighting as it stands. `position` is the journal entry that credited it, where there is one."""

    sighting: Sighting
    status: DepositStatus
    position: int | None


class Deposits(Protocol):
    """Sightings, and the blocks that each watcher has followed."""

    def followed(self, chain: Chain, height: int) -> bytes | None:
        """Hash of the block that was followed at a height; None where it was not, or has been forgotten."""
        ...

    def newest(self, chain: Chain) -> int | None:
        """The newest followed height, or None before the first."""
        ...

    def follow(self, blocks: Sequence[BlockRef], keep: int) -> None:
        """Record blocks as followed, in order; forget those more than `keep` below the newest."""
        ...

    def unfollow(self, chain: Chain, above: int) -> None:
        """Forget followed blocks above a height: a reorg took them back."""
        ...

    def record(self, sighting: Sighting) -> None:
        """Record as SEEN; a sighting known as ORPHANED or REVERSED becomes SEEN again, as it is measured now.

        One that is SEEN is measured anew, too: nothing was booked by it. Any other stays as it is.
        """
        ...

    def find(self, identity: str) -> Deposit | None:
        """The sighting of a chain event, by its identity."""
        ...

    def at_or_above(self, chain: Chain, height: int) -> Sequence[Deposit]:
        """Deposits in blocks at or above a height, ascending."""
        ...

    def waiting(self, chain: Chain, up_to: int) -> Sequence[Deposit]:
        """SEEN deposits in blocks up to a height, ascending."""
        ...

    def move(self, identity: str, to: DepositStatus, position: int | None = None) -> None:
        """Apply one legal move of DEPOSIT_MOVES; raises Refused otherwise."""
        ...

    def credited(self, chain: Chain, outpoints: Collection[str]) -> frozenset[str]:
        """Of these outpoints (`txid:vout`, Bitcoin), those whose deposit is CREDITED now."""
        ...

    def all(self) -> Sequence[Deposit]:
        """Every deposit, ascending by chain and height."""
        ...


class Customers(Protocol):
    """Customers and the addresses that are theirs."""

    def add(self, customer: str) -> None:
        """Raises Refused(already_exists)."""
        ...

    def ids(self) -> frozenset[str]:
        """Every customer."""
        ...

    def is_known(self, customer: str) -> bool:
        """Whether there is one of this id."""
        ...

    def next_index(self, wallet: bytes) -> int:
        """The lowest index of a wallet that no address uses."""
        ...

    def add_address(self, signed: Signed[DepositAddress], keys: int = 0) -> None:
        """Record an attested binding; UNIQUE on (wallet, index), (chain, address), (wallet, customer, keys).

        `keys` counts the rotations that made the address another one: on Bitcoin a customer gets a new one after each.
        """
        ...

    def addresses(self, chain: Chain | None = None) -> Sequence[Signed[DepositAddress]]:
        """Every attested binding, ascending by index."""
        ...

    def address_of(self, customer: str, wallet: bytes) -> Signed[DepositAddress] | None:
        """The binding of one customer at one wallet."""
        ...
