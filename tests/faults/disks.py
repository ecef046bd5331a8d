# SPDX-License-Identifier: AGPL-3.0-or-later
"""Full disks: under the ledger, under one seat's vault, under the attestor's."""

import time
from contextlib import ExitStack

from custody.rules.errors import Unavailable
from devnet.openbao import OpenBao
from tests.faults.world import FULL_DISK_SEAT, Hall, Payment, silent


def ledger_refuses(hall: Hall) -> None:
    """The API accepts nothing that it cannot store: 503 that says why, no trace of it; the same again is accepted once, later."""
    before = _count(hall)
    office, reference = hall.carrier.office, f"full-{time.monotonic_ns()}"
    proposal = hall.proposal(hall.bitcoin, 70_001, reference)
    asked = office.client("backend"), office.amount(proposal), office.signer("backend")
    with hall.ledger_full():
        for _ in range(3):
            try:
                told = asked[0].propose(proposal, asked[1], asked[2], reference)
            except Unavailable as error:
                assert "disk" in str(error) or "I/O" in str(error), error  # noqa: PT017
            else:
                raise AssertionError(f"accepted on a full disk: {told}")
        assert _count(hall) == before
    first = asked[0].propose(proposal, asked[1], asked[2], reference)
    assert asked[0].propose(proposal, asked[1], asked[2], reference)["id"] == first["id"]
    assert _count(hall) == before + 1
    hall.finish(Payment(str(first["id"]), hall.bitcoin, proposal.amount))


def ledger_full_in_the_middle(hall: Hall) -> None:
    """The worker cannot record what it would do next: no seat is asked, nothing is sent; it goes on once there is space."""
    before, said = hall.positions(), len(hall.services.worker.log.read_text())
    with ExitStack() as stack:
        with hall.paused(hall.services.worker):
            payment = hall.ask(hall.ether)
            stack.enter_context(hall.ledger_full())
        hall.until(lambda: hall.said("disk", said), "the worker says so", mine=False)
        time.sleep(2)
        assert not hall.kept(payment)
        assert hall.positions() == before
    hall.finish(payment)


def seat_full(hall: Hall) -> None:
    """A seat whose vault cannot write signs nothing; the other three do. With space again, or shares, it is as it was."""
    before = hall.positions([FULL_DISK_SEAT])
    with hall.disks["seat"].full():
        first, second = hall.ask(hall.ether), hall.ask(hall.bitcoin)
        hall.finish(first, second)
    vault = hall.stage.world.net.hot[FULL_DISK_SEAT]
    revive(vault)
    assert hall.positions([FULL_DISK_SEAT]) == before
    with hall.sealed(hall.stage.world.net.hot["hot-1"]):
        hall.finish(hall.ask(hall.ether))  # it is one of the three that are left
    assert hall.positions([FULL_DISK_SEAT]) != before


def attestor_full(hall: Hall) -> None:
    """What the attestor cannot remember it does not say: no statement, no signature of anybody, and all of it once there is space."""
    before, said = hall.positions(), len(hall.services.worker.log.read_text())
    with ExitStack() as stack:
        stack.callback(revive, hall.stage.world.net.attestor)
        with hall.paused(hall.services.worker):
            payment = hall.ask(hall.ether)
            stack.enter_context(hall.disks["attestor"].full())
        assert "attestor" in silent(hall.carrier.attestor.statement)
        hall.until(lambda: hall.said("attestor", said), "the worker says so", mine=False)
        time.sleep(2)
        assert hall.positions() == before
        assert not hall.kept(payment)
    hall.finish(payment)


def revive(vault: OpenBao) -> None:
    """Whoever operates it brings it up again where it ended or sealed itself."""
    if vault.pid is None:
        vault.stop()
        vault.start()
    vault.unseal()


def _count(hall: Hall) -> int:
    return len(hall.transfers())
