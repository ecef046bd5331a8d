# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole network: everything at once, cold seats only in a ceremony, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from custody.rules.signatures import Key
from custody.vault.engine_client import EngineClient
from custody.vault.keyring import RemoteSeat
from devnet.network import COLD_SEATS, HOT_SEATS, Devnet, NetworkBusy, NetworkRuns, State
from devnet.openbao import OpenBao
from devnet.pids import Identity, Record
from devnet.processes import _die_with

CHECKOUT = Path(__file__).resolve().parents[2]
DIES_WITH_US = partial(_die_with, os.getpid())  # whoever kills a worker of `make test` kills what it started


def alive(home: Path) -> list[Identity]:
    """The living processes that the records of this home name."""
    records = [Record.read(file) for file in home.glob("devnet/*/pid.json")]
    return [record.identity for record in records if record and record.identity.alive()]


def identity(seat: OpenBao) -> Key:
    """A seat's identity key, as the engine in its OpenBao tells it."""
    return RemoteSeat(seat.name, EngineClient(seat.name, seat.approle_file)).identity()


def test_the_network_runs_and_cold_seats_only_in_a_ceremony(tmp_path: Path) -> None:
    """All is up inside `running`, cold seats inside `ceremony`, nothing after; state is kept."""
    lines: list[str] = []
    network = Devnet(tmp_path, progress=lines.append)
    with network.running():
        states = {node.name: node.state for node in network.status()}
        assert {State.COLD} == {states[name] for name in COLD_SEATS}
        assert {State.RUNNING} == {state for name, state in states.items() if name not in COLD_SEATS}
        with network.ceremony(["cold-1"]) as seats:
            cold_key = identity(seats["cold-1"])
            assert [n.name for n in network.status() if n.name in COLD_SEATS and n.pid] == ["cold-1"]
        assert {State.COLD} == {n.state for n in network.status() if n.name in COLD_SEATS}
        with pytest.raises(NetworkBusy):
            Devnet(tmp_path).down()
        described = json.loads(network.network_file.read_text())
        assert set(HOT_SEATS + COLD_SEATS) == set(described["seats"])
        role = json.loads(Path(described["seats"]["hot-1"]["approle"]).read_text())
        assert role["secret_id"] not in network.network_file.read_text()
        hot_key = identity(network.hot["hot-1"])
    assert alive(tmp_path) == []
    assert not network.network_file.exists()
    assert any(line.startswith("anvil: ready") for line in lines)

    again = Devnet(tmp_path)
    again.up()
    try:
        assert hot_key == identity(again.hot["hot-1"])
        pids = [node.pid for node in again.nodes]
        Devnet(tmp_path).up()
        assert pids == [node.pid for node in again.nodes]
        with pytest.raises(NetworkRuns), Devnet(tmp_path).running():
            pass
        with again.ceremony(["cold-1"]) as seats:
            assert cold_key == identity(seats["cold-1"])
    finally:
        Devnet(tmp_path).down()
    assert alive(tmp_path) == []


DEMO = """
import sys
from pathlib import Path
from devnet.network import Devnet
with Devnet(Path(sys.argv[1]), progress=lambda line: print(line, flush=True)).running():
    print("running", flush=True)
    import time
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "until",
    [pytest.param("anvil: ready", id="while it starts"), pytest.param("running", id="while it runs")],
)
def test_an_interrupt_stops_everything(tmp_path: Path, until: str) -> None:
    """Ctrl-C ends the run and every node, whenever it comes."""
    demo = subprocess.Popen(
        [sys.executable, "-c", DEMO, str(tmp_path)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=DIES_WITH_US,  # noqa: PLW1509  # two system calls
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(until):
            break
    started = alive(tmp_path)
    assert started
    os.kill(demo.pid, signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode != 0
    deadline = time.monotonic() + 30
    while any(node.alive() for node in started) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(node.alive() for node in started)
    assert alive(tmp_path) == []
