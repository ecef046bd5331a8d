# SPDX-License-Identifier: AGPL-3.0-or-later
"""Faults on the real parts, one after another in one world that has to come out of each of them whole.

Each fault is a function whose docstring is the promise. The short ones run in `make test`, all of them with `make faults`.
"""

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.faults import clocks, disks, load, nodes, paused, vaults
from tests.faults.world import Hall, living, on_postgres

Fault = Callable[[Hall], None]

SHORT: Final[tuple[Fault, ...]] = (
    vaults.two_seats_sealed,
    vaults.answer_lost,
    vaults.attestor_sealed,
    nodes.anvil_forgets_its_pool,
    nodes.bitcoind_forgets_its_pool,
    nodes.attestor_lied_to,
    disks.ledger_full_in_the_middle,
    load.customers_at_once,
)
"""About five seconds each on two idle cores."""
LONG: Final[tuple[Fault, ...]] = (
    vaults.one_seat_sealed,
    vaults.relayer_sealed,
    vaults.answers_too_late,
    vaults.half_answers,
    vaults.killed_while_signing,
    nodes.anvil_comes_back_older,
    nodes.worker_behind,
    nodes.bitcoin_worker_behind,
    nodes.attestor_behind,
    nodes.nothing_signed_on_a_lie,
    nodes.attestor_lied_to_about_a_payout,
    nodes.attestor_lied_to_about_a_block,
    nodes.worker_lied_to,
    nodes.foreign_chain,
    nodes.deaf_node,
    nodes.deaf_attestor_node,
    nodes.half_answering_node,
    disks.ledger_refuses,
    disks.seat_full,
    disks.attestor_full,
    clocks.worker_ahead,
    clocks.worker_behind,
    clocks.leases_stolen,
    clocks.attestor_behind,
    clocks.attestor_ahead,
    clocks.cooling_off,
    clocks.expired_stays_expired,
    clocks.replayed,
    paused.while_seats_are_asked,
    paused.while_it_sends,
    load.withdrawals_at_once,
)
SEVERAL: Final[tuple[Fault, ...]] = (
    paused.two_apis,
    paused.while_seats_are_asked,
    paused.while_it_sends,
    paused.at_any_moment,
)
"""What two workers and two APIs over one PostgreSQL go through."""


def _named(fault: Fault) -> str:
    return f"{fault.__module__.rpartition('.')[2]}-{fault.__name__}"


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """The world of all faults but those of `SEVERAL`; its ledger is a SQLite file."""
    with living(tmp_path_factory.mktemp("f"), lambda _: None) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """A world whose ledger is a PostgreSQL."""
    with on_postgres(), living(tmp_path_factory.mktemp("p"), lambda _: None) as made:
        yield made


def _meet(hall: Hall, fault: Fault) -> None:
    hall.mend()
    try:
        fault(hall)
    finally:
        hall.mend()
    hall.check()


@pytest.mark.timeout(900)  # the first one waits for the world, beside another worker's tests
@pytest.mark.parametrize("fault", SHORT, ids=_named)
def test_fault(hall: Hall, fault: Fault) -> None:
    """It says what it promises; afterwards everything asked for was paid, once, and the attestor vouches for all of it."""
    _meet(hall, fault)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", LONG, ids=_named)
def test_long_fault(hall: Hall, fault: Fault) -> None:
    """As `test_fault`."""
    _meet(hall, fault)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", SEVERAL, ids=_named)
def test_several_workers(shared: Hall, fault: Fault) -> None:
    """As `test_fault`."""
    _meet(shared, fault)


def test_every_fault_is_met() -> None:
    """No function that says what it promises stands in one of these modules and is never called."""
    listed = {*SHORT, *LONG, *SEVERAL}
    for module in (clocks, disks, load, nodes, paused, vaults):
        for name, found in vars(module).items():
            notes = getattr(found, "__annotations__", {})
            if getattr(found, "__module__", "") == module.__name__ and notes == {"hall": Hall, "return": None}:
                assert found in listed, f"{module.__name__}.{name}"
