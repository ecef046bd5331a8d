# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real nodes for the tests: few, long-lived, each started once a run and only when a test asks for it.

A node that cannot be had fails the test: a custody service whose chain tests quietly did not run is untested.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from devnet.anvil import Anvil
from devnet.bitcoind import Bitcoind
from devnet.grants import Kind
from devnet.openbao import OpenBao
from devnet.postgres import postgres

# A shared machine makes single examples slow, so there is no deadline; `make soak` and `make mutants` choose another profile.
settings.register_profile("default", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=5000, stateful_step_count=200)
settings.register_profile("mutants", deadline=None, max_examples=25, derandomize=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


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
def postgres_url() -> Iterator[str]:
    """The SQLAlchemy address of an empty PostgreSQL of this run only."""
    with postgres() as url:
        yield url
