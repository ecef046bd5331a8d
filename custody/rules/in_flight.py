# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was attested and has not ended, and what moved lately: the attestor's own memory of payouts, and its reading of the journal.

An attested intent is in flight until its anchor is finally consumed. Neither a row nor a release ends that before: whoever owns
the database could otherwise free a hold whose signatures are out, and spend the same balance again (TRUST.md, "One anchor per
payout").
"""

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from custody.rules.amounts import Asset
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.ledger import Account, AccountKind, JournalEntry, Side
from custody.rules.origins import Executed, Hold, Release
from custody.rules.settlements import Settlement
from custody.rules.signatures import Signed
from custody.rules.typed import Bytes32, Struct, Uint64
from custody.rules.walls import CUSTOMER

DAY: Final = 86_400
HOUR: Final = 3_600
_KEPT: Final = 2 * DAY


@dataclass(frozen=True, slots=True)
class Attested(Struct):
    """One intent as it was bound to its one anchor. `digest` is the intent's in this deployment; `at` the statement's time."""

    digest: Bytes32
    anchor: Anchor
    intent: TransferIntent
    at: Uint64


@dataclass(frozen=True, slots=True)
class Flight:
    """An attested intent, and when its anchor was seen finally consumed: zero while it is in flight."""

    attested: Attested
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """A transfer as windows count it; `ended` is zero while it is pending."""

    intent: TransferIntent
    ended: int = 0

    def counts(self, now: int, seconds: int) -> bool:
        """Pending ones count whatever their age, completed ones within the window."""
        return not self.ended or self.ended > now - seconds


@dataclass(slots=True)
class Moves:
    """Transfers and settlements of the journal, recomputed from audited entries.

    `floor` is a time before which nothing that is noted from now on can have happened: what is new since the last statement did
    not happen before it, whatever its row says, so a backdated entry slips out of no window.
    """

    floor: int = 0
    of: dict[bytes, Move] = field(default_factory=dict)
    dead: set[bytes] = field(default_factory=set)
    """Intents that a release or a void ended: nothing of them moved."""
    settled: dict[Account, deque[tuple[int, Asset, int]]] = field(default_factory=lambda: defaultdict(deque))
    _ended: deque[tuple[int, bytes]] = field(default_factory=deque)

    def note(self, recorded: JournalEntry, digest_of: Callable[[TransferIntent], bytes]) -> None:
        """Take one audited entry in."""
        origin = recorded.entry.origin
        self.floor = at = max(self.floor, recorded.recorded_at)
        if isinstance(origin, Hold):
            self.of[digest_of(origin.intent)] = Move(origin.intent)
        elif isinstance(origin, Release):
            self._die(origin.intent)
        elif isinstance(origin, Executed):
            for digest in origin.intents:
                if origin.void:
                    self._die(digest)
                elif digest in self.of:
                    self.of[digest] = Move(self.of[digest].intent, at)
                    self._ended.append((at, digest))
            self._forget()
        elif isinstance(origin, Signed) and isinstance(origin.message, Settlement):
            for posting in recorded.entry.postings:
                if posting.account.kind is AccountKind.CUSTOMER_AVAILABLE and posting.side is Side.CREDIT:
                    lately = self.settled[posting.account]
                    lately.append((at, posting.amount.asset, posting.amount.units))
                    while lately[0][0] < at - _KEPT:
                        lately.popleft()

    def undo(self, digest: bytes, intent: TransferIntent) -> None:
        """A reorg took back the block that ended it: it is pending again."""
        self.dead.discard(digest)
        self.of[digest] = Move(intent)

    def _forget(self) -> None:
        while self._ended and self._ended[0][0] < self.floor - _KEPT:
            at, digest = self._ended.popleft()
            if digest in self.of and self.of[digest].ended == at:  # not one that a reorg made pending again
                del self.of[digest]

    def _die(self, digest: bytes) -> None:
        self.of.pop(digest, None)
        self.dead.add(digest)

    def together(self, flights: Iterable[Flight]) -> dict[bytes, Move]:
        """The journal's moves and those attested, by the intent's digest: one that is in flight is pending, whatever rows say."""
        found = dict(self.of)
        for flight in flights:
            digest = flight.attested.digest
            if not flight.ended:
                found[digest] = Move(flight.attested.intent)
            elif digest not in found and digest not in self.dead:
                found[digest] = Move(flight.attested.intent, flight.ended)
        return found

    def settled_since(self, account: Account, since: int) -> dict[Asset, int]:
        """As `Journal.settled_since`, recomputed."""
        found: dict[Asset, int] = defaultdict(int)
        for at, asset, units in self.settled.get(account, ()):
            if at > since:
                found[asset] += units
        return dict(found)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """By asset, in base units: what attested payouts will still take out of customer tiers, and how much of that is in `held`."""

    units: Mapping[str, int]
    held: Mapping[str, int]


def outgoing(
    flights: Iterable[Flight],
    leaves: Callable[[TransferIntent], bool],
    native_of: Callable[[str], str],
    standing: Collection[bytes],
    besides: Anchor | None,
) -> Outgoing:
    """What is in flight but for the payout at one anchor, which its own statement leaves to the seat to count.

    `flights` are those out of customer tiers; `leaves` says whether an intent takes its coins out of them: a move between
    their wallets takes only its fee. Only a hold
    that stands is owed less once it is paid: of one that was released meanwhile the customer can spend the balance again, and
    both count. On EVM the relayer pays the fee.
    """
    units: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    for flight in flights:
        attested = flight.attested
        if flight.ended or attested.anchor == besides:
            continue
        intent = attested.intent
        owed = intent.account.startswith(CUSTOMER) and attested.digest in standing
        parts = [(intent.asset, intent.amount)] if leaves(intent) else []
        if not intent.chain.startswith("eip155:"):
            parts.append((native_of(intent.chain), intent.maximum_fee))
        for asset, amount in parts:
            units[asset] += amount
            held[asset] += amount if owed else 0
    return Outgoing(dict(units), dict(held))
