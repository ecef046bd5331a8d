# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real nodes for the tests: few, long-lived, each started once a run and only when a test asks for it.

A node that cannot be had fails the test: a custody service whose chain tests quietly did not run is untested.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from devnet.anvil import Anvil
from devnet.bitcoind import Bitcoind
from devnet.grants import Kind
from devnet.openbao import OpenBao
from devnet.postgres import postgres
from tests.fakes.engine import drawers_server

# A shared machine makes single examples slow, so there is no deadline. `make test` tries the same examples on every machine, so that it
# says of a commit what it said of it before; `make soak` tries new ones each time, and `make mutants` a few.
settings.register_profile("default", deadline=None, derandomize=True, database=None)
settings.register_profile("soak", deadline=None, max_examples=5000, stateful_step_count=200)
settings.register_profile("mutants", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

LONGEST_FIRST: Final = (
    "devnet/test_world.py",
    "crash/test_walk.py",
    "contract/test_seat_sign.py",
    "simulation/test_simulation.py",
    "simulation/test_plants.py",
)
"""Files that one worker is busy with for a minute or more. `make test` hands out whole files, so that a module's nodes run once: a
long one that came last would be waited for by an idle worker."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker of `make test`: the longest files first, then real chains, contracts, and the short unit tests to fill the end.

    Every worker has to find the same order. A plain run of pytest keeps its own.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _turn(item.path))


def _turn(path: Path) -> tuple[int, int]:
    """A file's place: among the longest, then by its room."""
    name = f"{path.parent.name}/{path.name}"
    rooms = ("devnet", "console", "contract", "unit")
    long = LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)
    return long, rooms.index(path.parent.name) if path.parent.name in rooms else len(rooms)


@pytest.fixture(scope="session")
def nodes_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of this run only; the programs still come from the shared cache."""
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="session")
def anvil(nodes_home: Path) -> Iterator[Anvil]:
    """One Anvil with chain id 31338, mining a block for each transaction."""
    node = Anvil(nodes_home / "anvil")
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def anvil_snapshot(anvil: Anvil) -> Iterator[Anvil]:
    """The shared Anvil, put back afterwards to how the test found it."""
    before = anvil.snapshot()
    yield anvil
    anvil.revert(before)


@pytest.fixture(scope="session")
def bitcoind(nodes_home: Path) -> Iterator[Bitcoind]:
    """One bitcoind on regtest with a mature coin in the miner's wallet."""
    node = Bitcoind(nodes_home / "bitcoind")
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="session")
def openbao_seat(nodes_home: Path) -> Iterator[OpenBao]:
    """One OpenBao, unsealed and provisioned for a seat."""
    server = OpenBao("hot-1", nodes_home / "hot-1")
    try:
        server.open(Kind.SEAT)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def engine_drawers(nodes_home: Path) -> Iterator[OpenBao]:
    """One OpenBao that has loaded the engine with a seat in each drawer (tests/fakes/engine.py)."""
    with drawers_server(nodes_home / "engine") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The SQLAlchemy address of an empty PostgreSQL of this run only."""
    with postgres() as url:
        yield url


# Worlds of their own, many minutes each: `make crash`, `make faults` and `make drills` ask for them, and nothing else collects them.
collect_ignore = [] if os.environ.get("BULKHEAD_LONG") else ["crash/test_walk.py", "faults", "devnet/test_drills.py"]
