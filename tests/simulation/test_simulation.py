# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs from a few seeds hold every invariant, the same seed is the same run in another process, and faults reach what they should."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import __main__ as simulation
from tests.simulation import actions, incidents, mischief
from tests.simulation.__main__ import main
from tests.simulation.baton import Baton, Life
from tests.simulation.gates import Fault, every_method, every_port, methods_of
from tests.simulation.invariants import CHECKS
from tests.simulation.plants import PLANTS
from tests.simulation.plants_of_faults import PLANTS_OF_FAULTS
from tests.simulation.runs import Run, run
from tests.simulation.scene import Broken
from tests.simulation.summary import covered

STEPS = 45
SEEDS = (1, 5, 11)
"""Runs with crashes, reorgs, payments, wrong clocks and stale nodes; `make soak` goes to many more."""
STORMS = (2, 3, 4, 6, 7)
"""Runs in which every deed meets faults."""
LONG = 60
REACHED = 30
"""Port methods at the least that faults strike in these few runs (39 of 137 when this was written); `make soak` reaches more."""


@pytest.fixture(scope="module")
def storms() -> list[Run]:
    """Runs in which every deed meets a fault."""
    return [run(seed, LONG, faulty=1.0, rest=False) for seed in STORMS]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_invariant_holds(seed: int) -> None:
    """After each step and at rest; a failure prints the seed, the steps, and the command that replays them."""
    done = run(seed, STEPS)
    assert not done.broken, str(done)


def test_every_invariant_holds_in_a_storm(storms: list[Run]) -> None:
    """Every deed meets a fault, and none of them breaks anything."""
    assert not [str(done) for done in storms if done.broken]


def test_faults_reach_the_calls(storms: list[Run]) -> None:
    """So many of all the methods of all ports were struck: were a gate lost, or chance became unkind, this would tell."""
    area = covered(storms)
    assert len(area.methods) >= REACHED, f"{len(area.methods)} of {len(area.every)}: {sorted(area.methods)}"
    assert area.called <= area.every
    assert {point.rpartition(", ")[2] for done in storms for point in done.points} == {fault.value for fault in Fault}


def test_every_port_is_gated() -> None:
    """Reflection finds the calls: every port's, none by name, and the moment before a commit."""
    names = {port.__name__ for port in every_port()}
    assert {"Store", "Journal", "Leases", "SeatPort", "AttestorMemory", "PayoutChain", "FeeBumper", "Vault"} <= names
    assert "Store.commit" in every_method()
    assert all(methods_of(port) for port in every_port())


def test_each_invariant_has_its_sentence() -> None:
    """Whoever reads a finding reads what it means: every invariant says so in its first line, and no two have one name."""
    checks = [*CHECKS.always, *CHECKS.on_signature, *CHECKS.on_send, *CHECKS.at_rest]
    assert all((check.__doc__ or "").strip().endswith(".") for check in checks)
    assert len({check.__name__ for check in checks}) == len(checks)


@pytest.mark.parametrize("table", ["INVARIANTS", "INCIDENTS", "FAULTS"])
def test_each_incident_is_shown_by_something(table: str) -> None:
    """What the list of incidents names is an invariant, a deed, a planted bug, a fault, or a file of tests: each exists."""
    checks = [*CHECKS.always, *CHECKS.on_signature, *CHECKS.on_send, *CHECKS.at_rest]
    known = {check.__name__ for check in checks} | {action.__name__ for _, action in actions.ACTIONS}
    known |= (
        mischief.FOUND_HERE | {plant.id for plant in (*PLANTS, *PLANTS_OF_FAULTS)} | {fault.value for fault in Fault}
    )
    root = Path(__file__).parents[2]
    named = {name for shows in getattr(incidents, table).values() for name in shows}
    assert not {name for name in named if name not in known and not (root / name).is_file()}


def test_a_seed_is_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Another process, that has run nothing before and hashes its strings otherwise, does the same thing step by step."""
    arguments = ["--seed", "3", "--steps", "12"]
    assert main(arguments) == 0
    here = capsys.readouterr().out
    root, environment = Path(__file__).parents[2], {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [*_lines(done.stdout)] == [*_lines(here)]


def _lines(told: str) -> list[str]:
    """Without what a library says while it is imported."""
    return told[told.index("funded") :].splitlines()


def test_a_storm_replays_call_by_call(storms: list[Run]) -> None:
    """Interleaved, paused and killed at every turn, a run is the same again: each line of it, each fault, each count of calls."""
    first = storms[0]
    again = run(first.seed, first.steps, faulty=1.0, rest=False)
    assert again.trace == first.trace
    assert (again.points, again.calls) == (first.points, first.calls)


def test_the_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """What `make soak` prints at its end, from two processes at once: every count, and how much of the calls faults covered."""
    assert main(["--seed", "2", "--steps", "6", "--runs", "2", "--jobs", "2"]) == 0
    told = capsys.readouterr().out
    names = ("seeds", "steps", "crashes", "faults", "port methods struck", "reorgs", "paid", "voids", "findings")
    for name in names:
        assert f"\n{name}" in f"\n{told}"
    assert "2 (2 to 3)" in told


def test_a_finding_is_told_with_its_replay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever does not hold ends a soak with 1, and with the command that does it again."""

    def found(seed: int, steps: int) -> Run:
        return Run(seed, steps, broken=[Broken("nobody_below_zero", "somebody is")])

    monkeypatch.setattr(simulation, "run", found)
    assert main(["--seed", "7", "--steps", "9"]) == 1
    told = capsys.readouterr().out
    assert "nobody_below_zero: somebody is" in told
    assert "python -m tests.simulation --seed 7 --steps 9" in told


def test_the_baton_interleaves_and_only_one_runs() -> None:
    """Two tasks hand it on in an order that the seed says; what is parked waits for its time, and goes on where it was."""
    now = [0]
    baton, seen = Baton(random.Random(4), lambda: now[0]), list[str]()

    def task(name: str) -> str:
        for number in range(4):
            seen.append(f"{name}{number}")
            baton.point()
        if name == "b":
            baton.park(10)
        seen.append(f"{name}!")
        return name

    for name in "ab":
        baton.begin(Life(name, name), lambda each=name: task(each))  # type: ignore[misc]
    assert [each.told for each in baton.run()] == ["a"]
    assert seen != sorted(seen)
    assert "b!" not in seen
    now[0] = 10
    assert [each.told for each in baton.run()] == ["b"]
