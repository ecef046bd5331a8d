# SPDX-License-Identifier: AGPL-3.0-or-later
"""What people leaf through, the newest first: each page begins below a number, so that a long history costs what a short one does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from custody.flows.ports.books import Deposit
from custody.rules.amounts import Asset
from custody.rules.deposits import DepositStatus
from custody.rules.ledger import Account, AccountKind, JournalEntry

T = TypeVar("T")
NEWEST: Final = 2**62
"""Below this number everything stands: the first page."""


class EventKind(StrEnum):
    """What an audit leafs through. The ledger is a trail of its own, by positions and hashes."""

    MOVED = "moved"
    APPROVED = "approved"
    REJECTED = "rejected"
    ENROLLED = "enrolled"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the trail as it was recorded; `at` is seconds since 1970 by the recorder, 0 where a document tells its own time.

    `about` is a transfer's id, an enrolment's or a document's key; `text` what it waited for, or the kind of document; `body` the signed
    JSON, empty where nobody signed. Whoever relies on a row verifies that body again.
    """

    number: int
    at: int
    kind: EventKind
    about: str
    person: str
    text: str
    body: str


def spread(all_of: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of these, evenly, with the first and the last."""
    if len(all_of) <= most:
        return all_of
    return [all_of[place * (len(all_of) - 1) // (most - 1)] for place in range(most)]


class Listing(Protocol):
    """Pages over what is kept, for reading alone; raises InvalidInput on a damaged row of the ledger or of deposits."""

    def entries(self, before: int, limit: int, accounts: Sequence[Account] = ()) -> Sequence[JournalEntry]:
        """Entries at positions below `before`, descending; of any of these accounts, or of all where none is named."""
        ...

    def balances(self, kind: AccountKind, limit: int) -> Sequence[tuple[Account, Asset, int]]:
        """Running balances that are not zero of all accounts of one kind, by name; at most so many."""
        ...

    def deposits(
        self, before: int, limit: int, status: DepositStatus | None = None, addresses: Sequence[str] = ()
    ) -> Sequence[tuple[int, Deposit]]:
        """Deposits with their numbers below `before`, the last that came first; at any of these addresses, where some are named."""
        ...

    def numbers(self, kind: str, most: int) -> Sequence[int]:
        """Numbers of mirrored documents of a kind, ascending: all, or so many spread evenly, with the first and the last."""
        ...

    def document(self, kind: str, number: int) -> Mapping[str, object] | None:
        """One of them. Raises InvalidInput on a damaged row."""
        ...

    def events(self, kind: EventKind, before: int, limit: int, *, about: str = "", person: str = "") -> Sequence[Event]:
        """Events of a kind with numbers below `before`, descending; about one transfer or document, or by one person."""
        ...
