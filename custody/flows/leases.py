# SPDX-License-Identifier: AGPL-3.0-or-later
"""Turns of several workers: who may begin, and whose writes still count (fencing).

A lease alone does not help: a worker that was paused past it wakes in the middle of a step and goes on. So every transaction of a
turn compares the turn's token with the newest in that same transaction, and leaves nothing where another worker had a turn since.
What such a worker does to the outside is harmless by itself: seats give one anchor one payload, and only stored bytes are sent.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from custody.flows.ports import Clock, Lease, Store, UnitOfWork
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


def turn_of(chain: Chain, wallet: bytes) -> str:
    """The name of the turn at a wallet: on EVM its whole chain's, whose wallets share one relayer and so one nonce after another.

    Two workers sealing with the same nonce would cost gas and time, never coins, since the anchor lets one envelope do something.
    """
    return f"chain {chain.name}" if chain.is_evm else f"wallet {chain.name}/{wallet.hex()}"
