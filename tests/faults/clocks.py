# SPDX-License-Identifier: AGPL-3.0-or-later
"""Clocks that jump by a day, of worker, API and attestor: no delay is shortened, nothing that expired comes back, nothing is said twice."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from eth_account import Account

from api.client import ApiClient
from custody.rules.certificates import Enrolment
from custody.rules.errors import Unavailable
from custody.rules.facts import Destination
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from devnet.birth import EVM
from devnet.prices import told_time
from tests.faults.paused import second
from tests.faults.world import Hall, Payment

DAY: Final = 86_400
JUMP: Final = DAY + 3_600


def worker_ahead(hall: Hall) -> None:
    """A worker that is a day ahead ends nothing that it is asked for: it is paid once, at the latest when its clock is right."""
    before = hall.received(hall.ether)
    with hall.clock(JUMP, hall.services.worker):
        payment = hall.ask(hall.ether)
        time.sleep(4)
        assert hall.now(payment).status not in {Status.EXPIRED, Status.FAILED, Status.CANCELLED}
        assert hall.received(hall.ether) - before in (0, payment.units)
    hall.finish(payment)


def leases_stolen(hall: Hall) -> None:
    """A second worker that is a day ahead takes every turn away from the first: neither writes in the other's, each is paid once."""
    with hall.clock(JUMP, hall.services.worker2), second(hall):
        payments = [hall.ask(hall.ether if number % 2 else hall.bitcoin) for number in range(4)]
        hall.finish(*payments)


def worker_behind(hall: Hall) -> None:
    """A worker that is a day behind: the attestor's time counts, and the withdrawal is paid as ever."""
    with hall.clock(-JUMP, hall.services.worker):
        hall.finish(hall.ask(hall.ether))


def attestor_behind(hall: Hall) -> None:
    """The attestor's clock falls back a day: the time of its statements does not, and nothing is paid twice."""
    before = hall.speaks().time
    with hall.clock(-JUMP, hall.services.attestor):
        told = [hall.speaks() for _ in range(2)]
        assert [s.time >= before for s in told] == [True, True]
        assert told[0].sequence < told[1].sequence
    hall.finish(hall.ask(hall.ether))


def attestor_ahead(hall: Hall) -> None:
    """The attestor's clock jumps a day ahead: prices of before are stale to it, so nothing is signed.

    A statement's time never runs back while it lives: set right, it has to be started again, and then it goes on.
    """
    before = hall.positions()
    with hall.paused(hall.services.worker):
        payment = hall.ask(hall.ether)
    with hall.clock(JUMP, hall.services.attestor):
        time.sleep(5)
        assert hall.positions() == before
        assert not hall.kept(payment)
    os.kill(hall.life(hall.services.attestor), signal.SIGKILL)
    hall.finish(payment)


def cooling_off(hall: Hall) -> None:
    """An address enrolled a moment ago, while API and worker are a day ahead: whoever accepts it, no seat signs it before its day."""
    young = str(Account.create().address)
    until = told_time(hall.carrier.attestor) + 900 * DAY
    owner, kind = f"customer:{hall.ether.customer}", Destination.CUSTOMER_WITHDRAWAL.value
    stage = hall.stage
    message = Enrolment(EVM.name, young, owner, kind, bytes(32), until)
    signed = stage.world.cast.sign(stage.deployment.roster.domain, Signed(message, ()), ["hana"])
    hall.carrier.insist(partial(hall.carrier.office.client("backend").enrol, signed))
    hall.speaks()
    before = hall.positions()
    traveller = type(hall.ether)(hall.ether.journey, hall.ether.customer, young)
    with hall.clock(JUMP, hall.services.web, hall.services.worker):
        hall.carrier.quote()
        made = _ask_ahead(hall, lambda: hall.proposal(traveller, 10**15, f"young-{time.monotonic_ns()}"))
        time.sleep(4)
        assert hall.positions() == before
    if made:
        hall.until(lambda: _taken_back(hall, made), "cancelled")
    assert int(str(stage.world.net.anvil.rpc("eth_getBalance", young, "latest")), 16) == 0


def expired_stays_expired(hall: Hall) -> None:
    """What a worker whose clock is ahead let expire is over for good: it is never paid, and its key gives the same answer again."""
    reference = f"short-{time.monotonic_ns()}"
    office = hall.carrier.office
    proposal = hall.proposal(hall.ether, 10**15 + 7, reference, days=1)
    asked = office.client("backend"), office.amount(proposal), office.signer("backend")
    # Beyond the expiry, not only days ahead of the wall: the statements' time is days ahead of that too, as a demonstration's.
    ahead = proposal.expiry - int(time.time()) + DAY
    with hall.clock(ahead, hall.services.worker):
        first = asked[0].propose(proposal, asked[1], asked[2], reference)
        payment = Payment(str(first["id"]), hall.ether, proposal.amount)
        hall.until(lambda: hall.now(payment).status is Status.EXPIRED, "expired", mine=False)
    again = asked[0].propose(proposal, asked[1], asked[2], reference)
    assert again["id"] == payment.id
    time.sleep(2)
    assert hall.now(payment).status is Status.EXPIRED
    assert not hall.kept(payment)


def replayed(hall: Hall) -> None:
    """A request that was taken is not taken again, though the API's clock jumped ahead meanwhile and was set back."""
    once = hall.carrier.office.ask("GET", "/v1/customers")
    hall.carrier.insist(once)
    with hall.clock(JUMP, hall.services.web):
        _ahead(hall).customer(hall.ether.customer)  # whatever is older than a minute by this clock is forgotten
    for _ in range(2):
        try:
            once()
        except Refused as error:
            assert {r.rule for r in error.refusals} <= {Rule.REPLAYED, Rule.STALE}, error  # noqa: PT017
        else:
            raise AssertionError("taken twice")
    hall.until(lambda: _answers(hall), "the API takes requests again", mine=False)


def _answers(hall: Hall) -> bool:
    try:
        hall.carrier.office.client("backend").customer(hall.ether.customer)
    except (Refused, Unavailable):
        return False
    return True


def _ahead(hall: Hall) -> ApiClient:
    """The backend, whose clock is as wrong as the API's."""
    office = hall.carrier.office
    domain = hall.stage.deployment.roster.domain
    return ApiClient(office.url, "backend", office.key("backend"), domain, lambda: int(time.time()) + JUMP)


def _ask_ahead(hall: Hall, proposal: Callable[[], object]) -> str:
    """The transfer's id, or nothing where it is refused or nobody can judge it."""
    office, wanted = hall.carrier.office, proposal()
    try:
        told = _ahead(hall).propose(wanted, office.amount(wanted), office.signer("backend"), wanted.reference)  # type: ignore[arg-type, attr-defined]
    except (Refused, Unavailable):
        return ""
    return str(told["id"])


def _taken_back(hall: Hall, made: str) -> bool:
    """Over: by policy, or because its initiator says so."""
    found = hall.now(Payment(made, hall.ether, 0))
    assert isinstance(found, Transfer)
    if not found.status.is_final:
        try:
            hall.carrier.office.client("backend").cancel(made, "too early", hall.carrier.office.signer("backend"))
        except (Refused, Unavailable):
            return False
    return found.status.is_final
