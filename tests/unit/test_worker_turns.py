# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two workers over one store: each transfer is paid once, and one that was paused past its lease records nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from custody import working
from custody.flows import worker
from custody.flows.leases import LEASE, Turns, turn_of
from custody.rules.errors import Unavailable
from custody.rules.transfers import Status
from custody.rules.wallets import Chain
from tests.fakes.payouts import Fuse, Workshop
from tests.fakes.seat import BITCOIN, EVM
from tests.fakes.store import FakeStore
from tests.fakes.treasury import HELD


class Pause(Fuse):
    """At the n-th commit or call the process stands still: somebody else has time, and then it goes on."""

    def __init__(self, at: int, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self.at, self.meanwhile = at, meanwhile

    def __call__(self, do: Callable[[], Any]) -> Any:
        """Do it, after the pause where this is the one."""
        self.burnt += 1
        if self.burnt == self.at:
            self.meanwhile()
        return do()


class Pair:
    """Two workers of one workshop, each with a name; the machine's time is told by hand."""

    def __init__(self) -> None:
        self.shop = Workshop()
        self.wall = 1_000

    def parts(self, holder: str, fuse: Fuse | None = None) -> worker.Parts:
        """One worker."""
        return replace(self.shop.parts(fuse), holder=holder, wall=lambda: self.wall)

    def step(self, holder: str, fuse: Fuse | None = None) -> worker.StepReport:
        """One step of one of them, as after a restart."""
        return worker.step(self.parts(holder, fuse), worker.Pace(retry=0))

    def turn(self) -> Any:
        """The lease of the wallet in use, or None before the first."""
        return self.shop.store._state.leases.get(self.name())

    def name(self) -> str:
        """The name of the wallet's turn."""
        (found,) = {transfer.intent.wallet for transfer in self.shop.store._state.rows.transfers.values()}
        return turn_of(EVM, found)


def recorded(shop: Workshop) -> Any:
    """Everything that stands in the store but leases."""
    state = shop.store._state
    return list(state.entries), dict(state.documents), state.rows.copy()


def points() -> int:
    """How many commits and calls a withdrawal takes from its queue until it was sent, and one look at it after that."""
    pair, fuse = Pair(), Fuse()
    pair.shop.queued()
    pair.step("a", fuse)
    return fuse.burnt


def test_paused_past_its_lease() -> None:
    """Wherever it stands still, if another worker has a turn meanwhile nothing of what it goes on with is recorded; paid once."""
    fenced, told, reached = 0, 0, points()
    assert reached > 10
    for point in range(1, reached + 1):
        pair = Pair()
        transfer = pair.shop.queued()
        seen: list[Any] = []

        def meanwhile(pair: Pair = pair, seen: list[Any] = seen) -> None:
            held = pair.turn()
            pair.wall += LEASE + 1
            pair.step("b")
            if held is not None and held.holder == "a":
                seen.append(recorded(pair.shop))

        report = pair.step("a", Pause(point, meanwhile))
        if seen:
            fenced += 1
            assert recorded(pair.shop) == seen[0], point
            told += any("lease lost" in fault for fault in report.faults)
        for _ in range(6):
            pair.step("b")
            pair.shop.payouts.mine()
        assert pair.shop.get(transfer).status is Status.COMPLETED, (point, pair.shop.get(transfer))
        assert [paid.intent for paid in pair.shop.payouts.paid()] == [transfer.digest]
        assert len({digest for s in pair.shop.seats for b in s.journal.anchors.values() for digest in b.digests}) == 1
        assert pair.shop.treasury.balance(HELD) == 0
    assert fenced > 8
    assert told >= fenced - 2  # the last two only give leases back


def test_a_wallet_that_another_worker_has_is_left_alone() -> None:
    """No fault, nothing asked of anybody; once the lease lapses it goes on."""
    pair = Pair()
    transfer = pair.shop.queued()
    turns = Turns(pair.shop.treasury.store, "b", lambda: pair.wall)
    assert turns.take(pair.name()) is not None
    report = pair.step("a")
    assert (report.moved, report.faults) == ((), ())
    assert pair.shop.get(transfer).status is Status.QUEUED
    assert not any(seat.asked for seat in pair.shop.seats)
    pair.wall += LEASE
    pair.step("a")
    assert pair.shop.get(transfer).status is Status.CONFIRMING


def test_wallets_of_one_evm_chain_share_a_turn() -> None:
    """They share a relayer, so two workers at two of them would seal with one nonce; a Bitcoin wallet has a turn of its own."""
    assert turn_of(EVM, b"\1" * 32) == turn_of(EVM, b"\2" * 32) != turn_of(Chain("eip155:1"), b"\1" * 32)
    assert len({turn_of(BITCOIN, b"\1" * 32), turn_of(BITCOIN, b"\2" * 32), turn_of(EVM, b"\1" * 32)}) == 3


def test_a_long_turn_is_renewed() -> None:
    """A worker that goes on writing keeps its turn; the other one waits however late it is."""
    store = FakeStore()
    wall = [1_000]
    first, second = (Turns(store, name, lambda: wall[0]) for name in ("a", "b"))
    with first.turn("wallet") as fenced:
        assert fenced is not None
        for _ in range(10):
            wall[0] += LEASE - 5
            fenced.run(lambda work: work.leases.acquire("other", "a", wall[0], 1))
            assert second.take("wallet") is None
    assert second.take("wallet") is not None


def test_a_worker_that_was_killed_is_not_waited_for() -> None:
    """Its lease is taken at once where it is seen to be gone, and whoever is only thought to be gone writes nothing any more."""
    store = FakeStore()
    dead = Turns(store, "dead", lambda: 1_000)
    with dead.turn("wallet") as fenced:
        assert fenced is not None
        assert Turns(store, "b", lambda: 1_001).take("wallet") is None
        lease = Turns(store, "b", lambda: 1_001, gone=lambda holder: holder == "dead").take("wallet")
        assert lease is not None
        assert lease.token == 2
        with pytest.raises(Unavailable, match="lease lost"):
            fenced.run(lambda work: work.customers.add("ana"))


def test_who_is_gone() -> None:
    """A process of this machine that ended, or another one under its pid; never one of another machine, or that lives."""
    mine = working.holder_of(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = working.holder_of(child.pid)
    assert not working.is_gone(theirs)
    child.communicate()
    assert working.is_gone(theirs)
    assert not working.is_gone(mine)
    assert working.is_gone(mine.rpartition("/")[0] + "/1")
    assert not working.is_gone("another machine/1/2")
    assert not working.is_gone("worker")
