# SPDX-License-Identifier: AGPL-3.0-or-later
"""A run as the invariants see it after a step, and what they remember of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from embit.psbt import PSBT  # type: ignore[import-untyped]

from custody.rules.governance import Freeze
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.ledger import JournalEntry
from custody.rules.payouts import Payload, SafeTx
from custody.rules.seat_request import Request
from custody.rules.transfers import Transfer
from tests.simulation.books import Books, Paid, Payment, payments
from tests.simulation.processes import Witnessed
from tests.simulation.world import World


@dataclass(frozen=True)
class Checks:
    """Every invariant, by when it is asked."""

    always: Sequence["Check"]
    on_signature: Sequence["SignatureCheck"]
    on_send: Sequence["SendCheck"]
    at_rest: Sequence["Check"]


@dataclass(frozen=True)
class Broken:
    """An invariant that does not hold, and how."""

    invariant: str
    told: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.told}"


@dataclass
class Scene:
    """A run as the invariants see it after a step."""

    world: World
    checks: Checks
    books: Books = field(default_factory=Books)
    fresh: list[JournalEntry] = field(default_factory=list)
    """Entries since the last look."""
    signed: dict[bytes, Anchor] = field(default_factory=dict)
    """Intents that a seat ever gave a signature for, and on which anchor."""
    signers: dict[bytes, set[str]] = field(default_factory=dict)
    """Which seats signed for an intent."""
    told: dict[bytes, int] = field(default_factory=dict)
    """How much of each transfer's history was looked at."""
    rolled_back: set[str] = field(default_factory=set)
    """Seats that ever forgot."""
    intents: dict[bytes, TransferIntent] = field(default_factory=dict)
    """What they say."""
    meanings: dict[Anchor, set[tuple[bool, str]]] = field(default_factory=dict)
    """What was ever signed for an anchor: whether a void, and what the payload does but for its fee."""
    unlooked: list[JournalEntry] = field(default_factory=list)
    """Entries that a signature's checks have read already, and that the next look has still to judge."""
    alone: list[tuple[str, int, TransferIntent]] = field(default_factory=list)
    """What went without people, by seat and time."""
    answered: set[tuple[str, bytes]] = field(default_factory=set)
    transfers: Sequence[Transfer] = ()
    paid: list[Payment] = field(default_factory=list)
    """Canonical payments."""
    by_paid: dict[Paid, Transfer] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    acknowledged: set[bytes] = field(default_factory=set)
    """Transfers that somebody was told are recorded."""
    lied: set[bytes] = field(default_factory=set)
    """Blocks that one part was told of and that never were."""
    early: set[bytes] = field(default_factory=set)
    """Blocks that it was told are final, and that were not."""
    frozen: dict[str, dict[bytes, Freeze]] = field(default_factory=dict)
    """What each seat said that it froze."""
    drained: bool = False
    """A thief was here: what is owed is no longer there."""

    def __post_init__(self) -> None:
        self.world.on_signature.append(self._signed)
        self.world.on_send.append(self._sent)

    def look(self) -> list[Broken]:
        """Everything that does not hold now."""
        self.fresh, self.unlooked = [*self.unlooked, *self.books.update(self.world)], []
        self.transfers = self.world.transfers()
        self.paid = list(payments(self.world))
        self.by_paid = {paid_of(transfer.intent): transfer for transfer in self.transfers}
        found = [Broken(check.__name__, told) for check in self.checks.always for told in check(self)]
        found, self.broken = [*self.broken, *found], []
        return found

    def rest(self) -> list[Broken]:
        """As `look`, with what holds only at rest."""
        return [*self.look(), *(Broken(check.__name__, told) for check in self.checks.at_rest for told in check(self))]

    def _signed(self, witnessed: Witnessed) -> None:
        key = (witnessed.seat, witnessed.request.hash)
        if key in self.answered:  # an identical request gets the identical signature, and no new judgement
            return
        self.answered.add(key)
        self.unlooked += self.books.update(self.world)
        for check in self.checks.on_signature:
            self.broken += [Broken(check.__name__, told) for told in check(self, witnessed)]
        anchor = anchor_of(witnessed.request)
        digest = self.world.born.domain.digest
        self.signed |= {digest(each.intent): anchor for each in witnessed.request.transfers}
        self.intents |= {digest(each.intent): each.intent for each in witnessed.request.transfers}
        for each in witnessed.request.transfers:
            self.signers.setdefault(digest(each.intent), set()).add(witnessed.seat)
        void = witnessed.request.void is not None
        self.meanings.setdefault(anchor, set()).add((void, self._meaning(witnessed.request.payload)))

    def _meaning(self, payload: Payload) -> str:
        """What a payload consumes and pays to others; what comes back and what the miner gets is left out."""
        if isinstance(payload, SafeTx):
            return repr(payload)
        tx, places = PSBT.parse(payload.psbt).tx, self.world.bitcoin.places
        spends = sorted(f"{each.txid.hex()}:{each.vout}" for each in tx.vin)
        ours = {self.world.bitcoin.place_of_coin(spent) for spent in spends}
        pays = []
        for out in tx.vout:
            place = places.get(out.script_pubkey.data.hex())
            if place is None or place[0] not in ours or len(tx.vout) == 1:
                pays.append((int(out.value) if len(tx.vout) > 1 else 0, out.script_pubkey.data.hex()))
        return repr((spends, sorted(pays)))

    def _sent(self, chain: str, raw: bytes) -> None:
        self.broken += [
            Broken(check.__name__, told) for check in self.checks.on_send for told in check(self, chain, raw)
        ]


def anchor_of(request: Request) -> Anchor:
    """What a request's payload consumes, as the attestor named it."""
    return request.statement.message.anchor[0]


def paid_of(intent: TransferIntent) -> Paid:
    """What names an intent's payment on the chain."""
    return intent.asset, intent.destination, intent.amount


Check = Callable[[Scene], Iterator[str]]
SignatureCheck = Callable[[Scene, Witnessed], Iterator[str]]
SendCheck = Callable[[Scene, str, bytes], Iterator[str]]
