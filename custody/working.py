# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker put together: store, payout chains, seats, attestor, and what transfers are judged by, of one deployment.

It holds no key. Seats, attestor and relayer are other processes that it can ask; each refuses what it cannot verify by itself.
"""

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from custody.bootstrap import Deployment
from custody.chains.addresses import ChainDeriver
from custody.chains.payloads import decode
from custody.chains.payouts import open_payouts
from custody.chains.views import open_view
from custody.composing import MirrorKernel, wall_clock
from custody.flows.freeze_carrying import FreezeCarrier
from custody.flows.ports import ChainView, Clock, PayoutChain
from custody.flows.worker import Line, Pace, Parts, StepReport, step
from custody.parts import attestor, relayer, seats
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from custody.rules.wallets import Chain

log: Final = logging.getLogger("custody.working")

POLL: Final = 1.0
_LONGEST: Final = 30.0
_STEPS: Final = 20
"""Steps of `--once`: enough for a transfer to come from the queue to where only blocks or people move it."""


class KernelReader(MirrorKernel):
    """What transfers are judged by in one deployment: addresses are derived here, and the attestor tells the time."""

    def __init__(self, deployment: Deployment) -> None:
        assets = deployment.bundle.assets
        super().__init__(deployment.store, deployment.genesis, assets, ChainDeriver(), deployment.told)


def open_worker(deployment: Deployment) -> Parts:
    """Every part of the worker; raises InvalidInput or Unavailable where a node is not the chain that it should be."""
    kernel, settings, assets = KernelReader(deployment), deployment.settings, deployment.bundle.assets
    chains: dict[Chain, PayoutChain] = {}
    views: dict[Chain, ChainView] = {}
    for chain in assets.chains:
        node = deployment.node(chain)
        payer = relayer(settings) if chain.is_evm else None
        chains[chain] = open_payouts(chain, node.url, node.cookie, assets, payer)
        views[chain] = open_view(chain, node.url, node.cookie, assets)
    reached = tuple(seats(settings).values())
    clock: Clock = kernel.clock
    return Parts(
        deployment.store,
        kernel,
        chains,
        views,
        reached,
        attestor(settings),
        decode,
        clock,
        holder=holder_of(os.getpid()),
        wall=wall_clock,
        gone=is_gone,
    )


def freeze_carrier(deployment: Deployment, parts: Parts) -> FreezeCarrier:
    """Brings seats the freezes that somebody signed at a page, and what ended them."""
    reached = seats(deployment.settings)
    return FreezeCarrier(deployment.store, lambda: parts.kernel().roster, reached, parts.clock, wall_clock)


def holder_of(pid: int) -> str:
    """A process's name among workers: machine, pid and the moment it started, since a pid comes back."""
    return f"{socket.gethostname()}/{pid}/{_started(pid)}"


def is_gone(holder: str) -> bool:
    """Whether a holder was a process of this machine and is no more: a worker that was killed is not waited for at its restart."""
    machine, _, process = holder.rpartition("/")[0].rpartition("/")
    if machine != socket.gethostname() or not process.isdecimal() or not Path("/proc/self/stat").exists():
        return False
    return holder_of(int(process)) != holder


def _started(pid: int) -> str:
    """Clock ticks from this machine's start to the process's; empty where there is none, or only what its parent has not reaped."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if told[0] in "ZX" else told[19]


def _nothing() -> Iterator[str]:
    return iter(())


def work_once(parts: Parts, carry: Callable[[], Iterator[str]] = _nothing) -> Iterator[str]:
    """Steps until one moves nothing, and then what everything waits for; one line each. `carry` brings seats what is in force."""
    yield from carry()
    pace, report = Pace(retry=0), StepReport((), (), ())
    for _ in range(_STEPS):
        report = step(parts, pace)
        yield from (line_of("moved", line) for line in report.moved)
        if not report.moved:
            break
    yield from (line_of("waiting", line) for line in report.waiting)
    yield from (json.dumps({"event": "fault", "why": fault}) for fault in report.faults)


def work_forever(
    parts: Parts,
    stop: threading.Event,
    *,
    poll: float = POLL,
    say: Callable[[str], object] = log.info,
    carry: Callable[[], Iterator[str]] = _nothing,
) -> None:
    """Step after step until `stop` is set. What this code base raises is said and tried again, ever more slowly."""
    pace, failures = Pace(), 0
    faults: tuple[str, ...] = ()
    while not stop.is_set():
        try:
            for line in carry():
                say(line)
            report = step(parts, pace)
        except (Unavailable, Refused, InvalidInput) as error:
            failures += 1
            say(json.dumps({"event": "failed", "error": type(error).__name__, "why": str(error)}))
            stop.wait(min(_LONGEST, poll * 2.0 ** min(failures, 10)))
            continue
        failures = 0
        for moved in report.moved:
            say(line_of("moved", moved))
        if report.faults != faults:
            for fault in report.faults:
                say(json.dumps({"event": "fault", "why": fault}))
        faults = report.faults
        stop.wait(0.05 if report.moved else poll)


def line_of(event: str, line: Line) -> str:
    """One line of JSON about a transfer."""
    body = {"event": event, "transfer": line.transfer, "status": line.status.value}
    body |= {"sub_status": line.sub_status.value} if line.sub_status is not None else {}
    body |= {"waiting_for": line.waiting_for} if line.waiting_for else {}
    return json.dumps(body)
