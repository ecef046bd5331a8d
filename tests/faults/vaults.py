# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults of OpenBao: sealed, slow, cut off, killed in the middle; of seats, of the relayer, of the attestor."""

import os
import signal
import threading
from contextlib import ExitStack
from typing import Final

from custody import parts
from custody.rules.birth import check_chain
from devnet.network import HOT_SEATS
from tests.faults import proxy
from tests.faults.proxy import Answer, Asked, Forward
from tests.faults.world import Hall, silent

_WRITES: Final = ("POST", "PUT")


def _is_write(asked: Asked) -> bool:
    return asked.method in _WRITES and "/data/" in asked.path


def one_seat_sealed(hall: Hall) -> None:
    """One seat's vault is sealed: the other three are a quorum, and the withdrawal is paid."""
    with hall.sealed(hall.stage.world.net.hot["hot-1"]):
        hall.finish(hall.ask(hall.ether))


def two_seats_sealed(hall: Hall) -> None:
    """M-1 seats are left: nothing is paid, the withdrawal says for whom it waits, and goes on by itself once they are unsealed."""
    net = hall.stage.world.net
    with hall.sealed(net.hot["hot-1"], net.hot["hot-3"]):
        payment = hall.ask(hall.ether)
        told = hall.waits(payment, "hot-1", "hot-3")
        assert "hot-2" not in told
        assert not hall.kept(payment)
    hall.finish(payment)


def relayer_sealed(hall: Hall) -> None:
    """Nobody pays gas: the quorum's signatures stay where they are, nothing is sent, and it goes on by itself afterwards."""
    with hall.sealed(hall.stage.world.net.relayer):
        payment = hall.ask(hall.ether)
        hall.waits(payment, "relayer")
        assert not hall.kept(payment)
        before = hall.positions()
    hall.finish(payment)
    assert hall.positions() == before  # asked for nothing twice


def attestor_sealed(hall: Hall) -> None:
    """Without the attestor's word nothing is signed: no statement, no seat's journal moves; afterwards it goes on by itself."""
    before, said = hall.positions(), len(hall.services.worker.log.read_text())
    with ExitStack() as stack:
        with hall.paused(hall.services.worker):
            payment = hall.ask(hall.bitcoin)
            stack.enter_context(hall.sealed(hall.stage.world.net.attestor))
        assert "attestor" in silent(hall.carrier.attestor.statement)
        hall.until(lambda: hall.said("attestor", said), "the worker says so", mine=False)
        assert hall.positions() == before
        assert not hall.kept(payment)
    hall.finish(payment)


def answers_too_late(hall: Hall) -> None:
    """Every vault of a seat does what it is asked and answers after the seat gave up: nothing is signed twice or otherwise."""
    slow = proxy.when(_is_write, proxy.slow(4))
    before = hall.positions()
    for name in HOT_SEATS:
        hall.vaults[name].trick = slow
    payment = hall.ask(hall.ether)
    hall.waits(payment, "signatures")
    for name in HOT_SEATS:
        hall.vaults[name].trick = proxy.honest
    hall.finish(payment)
    _one_line_each(hall, before)


def answer_lost(hall: Hall) -> None:
    """Each kind of write takes effect and its answer is lost, in every seat: each journal has one line, the anchor one payload."""
    before = hall.positions()
    for name in HOT_SEATS:
        hall.vaults[name].trick = proxy.when(_is_write, proxy.lost(1, _kind))
    payment = hall.ask(hall.ether)
    hall.finish(payment)
    for name in HOT_SEATS:
        hall.vaults[name].trick = proxy.honest
    _one_line_each(hall, before)
    assert len(hall.kept(payment)) == 1


def half_answers(hall: Hall) -> None:
    """Half of an answer, an answer that is no JSON, a connection that is cut: each is silence, and the quorum signs without them."""
    tricks = {"hot-1": proxy.half, "hot-2": proxy.failing, "hot-3": proxy.refused}
    before = hall.positions(["hot-4"])
    for name, trick in tricks.items():
        hall.vaults[name].trick = trick
    payment = hall.ask(hall.bitcoin)
    hall.waits(payment, *tricks)
    assert not hall.kept(payment)
    assert hall.positions(["hot-4"])["hot-4"] == before["hot-4"] + 1  # who could sign did, and recorded it
    for name in tricks:
        hall.vaults[name].trick = proxy.honest
    hall.finish(payment)


def killed_while_signing(hall: Hall) -> None:
    """Two vaults are killed when their seats record what they sign, and come back sealed: paid once, once they are unsealed."""
    net = hall.stage.world.net
    killed = ("hot-2", "hot-4")
    struck = {name: threading.Event() for name in killed}
    before = hall.positions()
    for name in killed:
        hall.vaults[name].trick = _striking(net.hot[name].pid or 0, struck[name])
    payment = hall.ask(hall.ether)
    for name in killed:
        hall.until(struck[name].is_set, f"{name} was killed", mine=False)
        hall.vaults[name].trick = proxy.honest
    with hall.sealed(*(net.hot[name] for name in killed)):
        hall.waits(payment, *killed)
        assert not hall.kept(payment)
    hall.finish(payment)
    _one_line_each(hall, before)


def _striking(pid: int, struck: threading.Event) -> proxy.Trick:
    """Kill the server as the first write arrives at it."""

    def strike(asked: Asked, forward: Forward) -> Answer:
        if _is_write(asked) and not struck.is_set():
            struck.set()
            os.kill(pid, signal.SIGKILL)
        return forward(asked)

    return strike


def _kind(asked: Asked) -> str:
    """What is written: `state`, `journal`, `anchors`, `proposals`."""
    return asked.path.partition("/data/")[2].partition("/")[0]


def _one_line_each(hall: Hall, before: dict[str, int]) -> None:
    """Each seat's journal grew by one line at the most, and is a chain."""
    after = hall.positions()
    assert all(after[name] - before[name] <= 1 for name in HOT_SEATS), (before, after)
    assert sum(after[name] - before[name] for name in HOT_SEATS) >= 3
    for seat in parts.seats(hall.stage.deployment.settings).values():
        if seat.name in HOT_SEATS:
            found = seat.journal(0, 100)  # type: ignore[attr-defined]  # RemoteSeat
            assert not list(check_chain([line.record for line in found[1]]))
