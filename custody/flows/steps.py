# SPDX-License-Identifier: AGPL-3.0-or-later
"""What one step of the worker is made of: the parts it was given, what it remembers, what it read once, and what went wrong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from custody.flows import payout_records as records
from custody.flows.kernel import Kernel
from custody.flows.leases import LEASE, Turns, nobody_gone
from custody.flows.payouts import Decode, Post
from custody.flows.ports import AttestorPort, ChainView, Clock, Damaged, PayoutChain, SeatPort, Store, UnitOfWork
from custody.flows.signing import Ceremony
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.intents import Anchor
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Status, SubStatus, Transfer, move
from custody.rules.wallets import Chain

T = TypeVar("T")

RETRY: Final = 10
"""Seconds after which what was refused or blocked is tried again."""


@dataclass(frozen=True)
class Parts:
    """What a worker is composed of. `kernel` is asked once a step, since documents change; `clock` is the documents' time."""

    store: Store
    kernel: Callable[[], Kernel]
    chains: Mapping[Chain, PayoutChain]
    views: Mapping[Chain, ChainView]
    seats: Sequence[SeatPort]
    attestor: AttestorPort
    decode: Decode
    clock: Clock
    holder: str = "worker"
    """This worker among several: two of one name would take each other's turns away, which costs time and nothing else."""
    wall: Clock | None = None
    """The machine's time, by which leases lapse; `clock` where there is none."""
    lease: int = LEASE
    """Seconds of a turn at a wallet."""
    gone: Callable[[str], bool] = nobody_gone
    """Whether a holder is known to be dead, so that nobody waits for its leases."""
    sweeps: bool = False
    """Whether deposit addresses are swept by schedule."""


@dataclass
class Pace:
    """What a running worker remembers between steps; nothing is lost with it but patience."""

    retry: int = RETRY
    again: dict[str, int] = field(default_factory=dict)
    """When something is tried again, by transfer or anchor."""
    shown: int = 0
    """The number of the newest transfer that the attestor was shown: delays count from its first sight."""

    def is_due(self, what: str, now: int) -> bool:
        """Whether its time to wait is over."""
        return self.again.get(what, 0) <= now

    def wait(self, what: str, now: int) -> None:
        """Try it again later."""
        self.again[what] = now + self.retry


class Step:
    """One step. Every payout and every wallet is a case of its own: what fails in one is noted, and the next one begins.

    `store` is fenced while a turn lasts; `unsent` are EVM wallets with a payout that is not out yet, and its nonce; `rotating` are
    wallets whose keys are being changed, and what that waits for.
    """

    def __init__(self, parts: Parts, pace: Pace) -> None:
        self.parts, self.pace, self.store = parts, pace, parts.store
        self.now, self.kernel = parts.clock(), parts.kernel()
        self.turns = Turns(parts.store, parts.holder, parts.wall or parts.clock, parts.lease, parts.gone)
        self.unsent: dict[bytes, str] = {}
        self.rotating: dict[bytes, str] = {}
        self.faults: list[str] = []
        self._statement: Signed[Statement] | None = None

    def case(self, what: str, do: Callable[[], object]) -> CustodyError | None:
        """Do it; what the outside or a rule has against it is noted and given back."""
        try:
            do()
        except (Unavailable, Refused, InvalidInput) as error:
            self.faults.append(f"{what}: {error}")
            return error
        return None

    def said(self) -> Signed[Statement]:
        """One statement serves a whole step: what is permitted meanwhile is counted beside it."""
        if self._statement is None:
            self._statement = self.parts.attestor.statement()
        return self._statement

    def chain(self, name: str) -> PayoutChain:
        """The payouts of a chain. Raises Unavailable where no node of it is configured."""
        return _configured(self.parts.chains, name)

    def view(self, name: str) -> ChainView:
        """The eyes on a chain. Raises Unavailable where no node of it is configured."""
        return _configured(self.parts.views, name)

    def ceremony(self, anchor: Anchor) -> Ceremony:
        """What signing at an anchor needs."""
        parts = self.parts
        return Ceremony(self.store, self.kernel, self.chain(anchor.chain), parts.seats, parts.attestor, self.now)

    def post(self, anchor: Anchor) -> Post:
        """What sending, following and booking at an anchor need."""
        chain, view = self.chain(anchor.chain), self.view(anchor.chain)
        return Post(self.store, self.kernel, chain, view, self.parts.decode, self.now)

    def say(self, transfers: Sequence[Transfer], status: Status, sub_status: SubStatus | None, why: str) -> None:
        """Say what transfers wait for that were not asked about yet; one that moved on meanwhile is left alone."""
        told = why[: records.TOLD]

        def work(work: UnitOfWork) -> None:
            for known in transfers:
                transfer = work.transfers.get(known.digest)
                if transfer is None or transfer.status.is_final or transfer.status.is_asked:
                    continue
                if (transfer.status, transfer.sub_status, transfer.waiting_for) != (status, sub_status, told):
                    work.transfers.update(move(transfer, status, self.now, sub_status, told), transfer)

        self.store.run(work)
        if status is Status.BLOCKED:
            for known in transfers:
                self.pace.wait(known.intent.id, self.now)


def _configured(known: Mapping[Chain, T], name: str) -> T:
    found = known.get(Chain(name))
    if found is None:
        raise Unavailable(f"chain {name}", "no node of it is configured")
    return found


def transfers_of(
    work: UnitOfWork, statuses: Sequence[Status], after: int = 0, wallet: bytes | None = None
) -> Iterator[Transfer | Damaged]:
    """Every transfer of some statuses, or of one wallet's, ascending; a damaged row is told."""
    while page := work.transfers.examine(after, 500, wallet=wallet, statuses=statuses):
        yield from (transfer for _, transfer in page)
        after = page[-1][0]
