# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns of several workers: who may begin, and whose writes still count (fencing).

A lease alone does not help: a worker that was paused past it wakes in the middle of a step and goes on. So every transaction of a
turn compares the turn's token with the newest in that same transaction, and leaves nothing where another worker had a turn since.
What such a worker does to the outside is harmless by itself: seats give one anchor one payload, and only stored bytes are sent.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from custody.flows.ports import Clock, FeeBumper, Lease, PayoutChain, Store, UnitOfWork
from custody.flows.sweeping import DepositSweeper
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.intents import Anchor
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Payment,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    UnsignedPayout,
    none_credited,
)
from custody.rules.refusals import Refusal
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain

T = TypeVar("T")

LEASE: Final = 30
"""Seconds of a turn: how long a wallet waits for another worker after its own was killed. A turn that goes on is renewed."""


def nobody_gone(_holder: str) -> bool:
    """Where it cannot be known whether a process lives, its time has to lapse."""
    return False


class Fenced:
    """A `Store` for one turn: each transaction checks the token, and renews a lease that is half over."""

    def __init__(self, store: Store, lease: Lease, clock: Clock, seconds: int = LEASE) -> None:
        self._store, self._lease, self._clock, self._seconds = store, lease, clock, seconds

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """As `Store.run`. Raises Unavailable where the turn is over; then nothing of the work remains."""
        now, lease = self._clock(), self._lease
        late = now > lease.until - self._seconds // 2

        def fenced(unit: UnitOfWork) -> tuple[T, Lease]:
            if late:
                held = unit.leases.renew(lease, now, self._seconds)
            else:
                unit.leases.check(lease)
                held = lease
            return work(unit), held

        result, self._lease = self._store.run(fenced)
        return result

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """As `Store.read`."""
        return self._store.read(work)


@dataclass(frozen=True)
class Turns:
    """How one worker takes turns. `holder` is another one for every process; `clock` is the machine's, in seconds since 1970.

    `gone` says that a holder can be seen to be dead; a mistake about it costs the other one its turn, and nothing else.
    """

    store: Store
    holder: str
    clock: Clock
    seconds: int = LEASE
    gone: Callable[[str], bool] = nobody_gone

    def take(self, name: str) -> Lease | None:
        """A turn, or None while another worker has it. One that is known to be gone is not waited for."""
        now = self.clock()

        def work(work: UnitOfWork) -> Lease:
            lease = work.leases.acquire(name, self.holder, now, self.seconds)
            if lease.holder != self.holder and self.gone(lease.holder):
                work.leases.release(lease)
                lease = work.leases.acquire(name, self.holder, now, self.seconds)
            return lease

        lease = self.store.run(work)
        return lease if lease.holder == self.holder else None

    def give_back(self, lease: Lease) -> None:
        """End a turn before its time."""
        self.store.run(lambda work: work.leases.release(lease))

    @contextmanager
    def turn(self, name: str) -> Iterator[Fenced | None]:
        """The store as it may be written during a turn, or None while another worker has it; given back at the end."""
        lease = self.take(name)
        if lease is None:
            yield None
            return
        try:
            yield Fenced(self.store, lease, self.clock, self.seconds)
        finally:
            self.give_back(lease)


def wallet_turn(chain: str, wallet: bytes) -> str:
    """The name of the turn at one wallet."""
    return f"wallet {chain}/{wallet.hex()}"


def relayer_turn(chain: Chain) -> str:
    """The name of the turn at one chain's relayer, whose nonce all EVM wallets of the chain share."""
    return f"relayer {chain.name}"


class Relayed:
    """A `PayoutChain` on which one worker at a time has the relayer, from the sealing of an envelope until it was sent.

    Two workers at two wallets would otherwise seal with one relayer's nonce, and one of the two envelopes could never be mined.
    That costs gas and time, never coins: the anchor lets one envelope do something, and a stale one is sealed again.
    """

    def __init__(self, chain: PayoutChain, turns: Turns) -> None:
        self._chain, self._turns = chain, turns
        self._lease: Lease | None = None

    @property
    def chain(self) -> Chain:
        """See `PayoutChain`."""
        return self._chain.chain

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """See `PayoutChain`."""
        return self._chain.preflight(wallet, certificate)

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """See `PayoutChain`."""
        return self._chain.next_anchor(wallet, certificate, payments, taken, credited)

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """See `PayoutChain`."""
        return self._chain.build(certificate, reservation, payments, sweeps)

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """See `PayoutChain`."""
        return self._chain.void(certificate, anchor, outbid)

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """See `PayoutChain`."""
        return self._chain.combine(certificate, unsigned, signatures)

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """See `PayoutChain`; the relayer stays with this worker until the envelope was sent. Raises Unavailable: another has it."""
        self.begin()
        return self._chain.seal(certificate, signed)

    def broadcast(self, envelope: Envelope) -> None:
        """See `PayoutChain`."""
        try:
            self._chain.broadcast(envelope)
        finally:
            self.end()

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """See `PayoutChain`."""
        return self._chain.follow(certificate, envelopes, since)

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """See `FeeBumper`; None where the chain is none."""
        chain = self._chain
        return chain.outbid(certificate, reservation, sent, maxima) if isinstance(chain, FeeBumper) else None

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """See `FeeBumper`; the relayer stays with this worker until the envelope was sent."""
        if not isinstance(self._chain, FeeBumper):
            return None
        self.begin()
        fresh = self._chain.reseal(certificate, signed, last)
        if fresh is None:
            self.end()
        return fresh

    def end(self) -> None:
        """Let others have the relayer, whatever happened; nothing where this worker has not."""
        lease, self._lease = self._lease, None
        if lease is not None:
            self._turns.give_back(lease)

    def begin(self) -> None:
        """Have the relayer. Raises Unavailable while another worker has it."""
        if self._lease is None:
            self._lease = self._turns.take(relayer_turn(self.chain))
        if self._lease is None:
            raise Unavailable(f"relayer of {self.chain.name}", "another worker sends with it")


class RelayedSweeper(Relayed):
    """The same for a chain with deposit Safes, whose deployment the relayer pays for."""

    def __init__(self, chain: PayoutChain, sweeper: DepositSweeper, turns: Turns) -> None:
        super().__init__(chain, turns)
        self._sweeper = sweeper

    def sweepable(self, certificate: WalletCertificate, indices: Sequence[int]) -> tuple[Sweep, ...]:
        """See `DepositSweeper`."""
        return self._sweeper.sweepable(certificate, indices)

    def deploy_deposits(self, certificate: Signed[WalletCertificate], indices: Sequence[int]) -> None:
        """See `DepositSweeper`. Raises Unavailable: another worker has the relayer."""
        self.begin()
        try:
            self._sweeper.deploy_deposits(certificate, indices)
        finally:
            self.end()


def relayed(chain: PayoutChain, turns: Turns) -> Relayed:
    """A chain whose relayer is taken in turns, with its deposit Safes where it has some."""
    return RelayedSweeper(chain, chain, turns) if isinstance(chain, DepositSweeper) else Relayed(chain, turns)
