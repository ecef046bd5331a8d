# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker put together: store, payout chains, seats, attestor, and what transfers are judged by, of one deployment.

It holds no key. Seats, attestor and relayer are other processes that it can ask; each refuses what it cannot verify by itself.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from custody.attestor import RemoteAttestor
from custody.bootstrap import Deployment, read_genesis, wall_clock
from custody.chains.addresses import ChainDeriver
from custody.chains.payloads import decode
from custody.chains.payouts import open_payouts
from custody.chains.views import open_view
from custody.flows.inventory import InventoryReader
from custody.flows.kernel import Kernel
from custody.flows.mirror import ROSTER, rosters_from
from custody.flows.ports import ChainView, Clock, PayoutChain, UnitOfWork
from custody.flows.prices import MirrorPrices
from custody.flows.worker import Line, Pace, Parts, StepReport, step
from custody.parts import attestor, relayer, seats
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from custody.rules.roster import Roster
from custody.rules.seat_request import Policies
from custody.rules.wallets import Address, Chain
from custody.seating import in_force

log: Final = logging.getLogger("custody.working")

BITCOIN_MAXIMUM_FEE: Final = 50_000
"""Satoshi that one intent may cost its wallet; what counts is the number in each intent, which people approved."""
POLL: Final = 1.0
_LONGEST: Final = 30.0
_STEPS: Final = 20
"""Steps of `--once`: enough for a transfer to come from the queue to where only blocks or people move it."""


class NobodyListed:
    """Implements `Screening` while there is no signed registry of related parties and sanctions; the attestor does the same."""

    def is_related(self, account: str, address: Address) -> bool:  # noqa: ARG002  # the port's
        """See `Screening`."""
        return False

    def is_sanctioned(self, address: Address) -> bool:  # noqa: ARG002  # the port's
        """See `Screening`."""
        return False


class KernelReader:
    """What transfers are judged by, read afresh and verified from the home's genesis on; the same object while nothing changed."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment, self._store = deployment, deployment.store
        self._genesis = read_genesis(deployment.settings.home)
        self._reader = InventoryReader(ChainDeriver())
        self._prices = MirrorPrices(self._store, lambda: self.rosters()[-1])
        self._documents: object = None
        self._rosters: tuple[Roster, ...] = ()

    def rosters(self) -> tuple[Roster, ...]:
        """Every roster that is or was in force, oldest first."""
        documents = self._store.read(lambda work: work.documents.all(ROSTER))
        if documents != self._documents or len(self._rosters) != len(documents):  # or one is still to come into force
            self._rosters = rosters_from(documents, self._genesis, wall_clock())
            self._documents = documents
        return self._rosters

    def clock(self) -> int:
        """Seconds since 1970: the statement's time where genesis declares that for a devnet (TRUST.md), else this machine's."""
        if self.rosters()[-1].version.clock != "statement":
            return wall_clock()
        told = attestor_time(self._deployment)
        return max(told, wall_clock())

    def __call__(self) -> Kernel:
        """The kernel as of now. Raises Refused where the bundle on disk is not the one in force."""
        rosters, bundle = self.rosters(), self._deployment.bundle
        _ = self._deployment.activated

        def read(work: UnitOfWork) -> Kernel:
            inventory = self._reader.read(work, rosters[-1])
            maximum = {chain: 0 if chain.is_evm else BITCOIN_MAXIMUM_FEE for chain in bundle.assets.chains}
            policies = Policies(in_force(bundle), {})
            return Kernel(rosters, inventory, policies, ChainDeriver(), self._prices, NobodyListed(), maximum)

        return self._store.read(read)


def attestor_time(deployment: Deployment) -> int:
    """The attestor's time. Raises Unavailable."""
    told = str(RemoteAttestor(Path(deployment.settings.attestor.socket)).status().get("time"))
    if not told.isdecimal():
        raise Unavailable("attestor", "it tells no time")
    return int(told)


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
    return Parts(deployment.store, kernel, chains, views, reached, attestor(settings), decode, clock)


def work_once(parts: Parts) -> Iterator[str]:
    """Steps until one moves nothing, and then what everything waits for; one line each."""
    pace, report = Pace(retry=0), StepReport((), (), ())
    for _ in range(_STEPS):
        report = step(parts, pace)
        yield from (line_of("moved", line) for line in report.moved)
        if not report.moved:
            break
    yield from (line_of("waiting", line) for line in report.waiting)
    yield from (json.dumps({"event": "fault", "why": fault}) for fault in report.faults)


def work_forever(
    parts: Parts, stop: threading.Event, *, poll: float = POLL, say: Callable[[str], object] = log.info
) -> None:
    """Step after step until `stop` is set. What this code base raises is said and tried again, ever more slowly."""
    pace, failures = Pace(), 0
    faults: tuple[str, ...] = ()
    while not stop.is_set():
        try:
            report = step(parts, pace)
        except (Unavailable, Refused, InvalidInput) as error:
            failures += 1
            say(json.dumps({"event": "failed", "error": type(error).__name__, "why": str(error)}))
            stop.wait(min(_LONGEST, poll * 2.0 ** min(failures, 10)))
            continue
        failures = 0
        for line in report.moved:
            say(line_of("moved", line))
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
