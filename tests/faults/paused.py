# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two workers and two APIs over one ledger, of which one is stopped by its machine past its lease, and goes on as if nothing had been."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from api.client import ApiClient
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused
from devnet.network import HOT_SEATS
from devnet.services import Service
from tests.faults import proxy
from tests.faults.proxy import Answer, Asked, Forward
from tests.faults.world import Hall, Payment


class Held:
    """Holds the first request of a kind until it is let go, and lets every other one through."""

    def __init__(self, applies: Callable[[Asked], bool]) -> None:
        self.arrived, self.go = threading.Event(), threading.Event()
        self._applies, self._turn = applies, threading.Lock()

    def __call__(self, asked: Asked, forward: Forward) -> Answer:
        """As a trick."""
        with self._turn:
            mine = self._applies(asked) and not self.arrived.is_set()
            if mine:
                self.arrived.set()
        if mine:
            self.go.wait(120)
        return forward(asked)


@contextmanager
def second(hall: Hall) -> Iterator[Service]:
    """Another worker beside the first."""
    hall.services.start([hall.services.worker2])
    try:
        yield hall.services.worker2
    finally:
        hall.services.worker2.stop()


def while_seats_are_asked(hall: Hall) -> None:
    """Stopped while it waits for a seat: the other worker takes its turn after the lease and pays; the first one, awake, writes nothing."""
    held = Held(lambda asked: asked.method in ("POST", "PUT") and "/data/" in asked.path)
    for name in HOT_SEATS:
        hall.vaults[name].trick = held
    payment = hall.ask(hall.ether)
    _take_over(hall, held, payment, hall.vaults.values(), before=True)


def while_it_sends(hall: Hall) -> None:
    """Stopped while the node has its bytes and has not answered: the other one sends the same bytes; they arrive twice, and pay once."""
    held = Held(proxy.calls("eth_sendRawTransaction"))
    hall.nodes["worker-evm"].trick = held
    payment = hall.ask(hall.ether)
    _take_over(hall, held, payment, [hall.nodes["worker-evm"]], before=False)
    assert len(hall.kept(payment)) == 1


def _take_over(hall: Hall, held: Held, payment: Payment, proxies: object, *, before: bool) -> None:
    """Stop the first worker where it is held, let the second one finish, and let the first go on."""
    hall.until(held.arrived.is_set, "held", mine=False)
    with hall.paused(hall.services.worker), second(hall):
        if before:
            held.go.set()
        hall.finish(payment)
        held.go.set()
    for one in proxies:  # type: ignore[attr-defined]  # proxies, whatever holds them
        one.trick = proxy.honest
    hall.finish(hall.ask(hall.ether), hall.ask(hall.bitcoin))


def at_any_moment(hall: Hall) -> None:
    """Twelve withdrawals on both chains while one worker or the other is stopped for up to twice its lease, again and again."""
    chance = random.Random(5)  # a test's
    with second(hall):
        payments = []
        for number in range(12):
            payments.append(hall.ask(hall.ether if number % 2 else hall.bitcoin))
            with hall.paused(chance.choice([hall.services.worker, hall.services.worker2])):
                _mine_for(hall, chance.uniform(0.5, 8))
            _mine_for(hall, chance.uniform(0, 1))
        hall.finish(*payments)


def two_apis(hall: Hall) -> None:
    """The same withdrawal sent to both APIs at once, and to one while the other is stopped in the middle of it: one each time."""
    hall.services.start([hall.services.web2])
    try:
        office = hall.carrier.office
        domain = hall.stage.deployment.roster.domain
        both = [
            ApiClient(url, "backend", office.key("backend"), domain)
            for url in (hall.services.web.url, hall.services.web2.url)
        ]
        made = [_to_both(hall, both, number) for number in range(6)]
        reference = f"stopped-{time.monotonic_ns()}"
        proposal = hall.proposal(hall.ether, 10**15, reference)
        asked = office.amount(proposal), office.signer("backend")
        with ThreadPoolExecutor(1) as pool, hall.paused(hall.services.web):
            first = pool.submit(both[0].propose, proposal, *asked, reference)
            later = both[1].propose(proposal, *asked, reference)
            time.sleep(1)
        assert first.result(60)["id"] == later["id"]
        hall.finish(*made, Payment(str(later["id"]), hall.ether, proposal.amount))
    finally:
        hall.services.web2.stop()


def _to_both(hall: Hall, both: list[ApiClient], number: int) -> Payment:
    office, reference = hall.carrier.office, f"both-{number}-{time.monotonic_ns()}"
    proposal = hall.proposal(hall.ether, 10**15 + number, reference)
    asked = office.amount(proposal), office.signer("backend")

    def once(client: ApiClient) -> str:
        while True:
            try:
                return str(client.propose(proposal, *asked, reference)["id"])
            except (Unavailable, Refused) as error:
                if isinstance(error, Refused) and {str(r.rule) for r in error.refusals} != {"request_in_flight"}:
                    raise
                time.sleep(0.1)

    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(once, both))
    assert ids[0] == ids[1]
    return Payment(ids[0], hall.ether, proposal.amount)


def _mine_for(hall: Hall, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        hall.stage.mine(1)
        time.sleep(0.4)
