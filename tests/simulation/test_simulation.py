# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs from a few seeds hold every invariant, the same seed is the same run in another process, and planted bugs are found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.invariants import ALWAYS, AT_REST, ON_SEND, ON_SIGNATURE
from tests.simulation.plants import PLANTS, Plant
from tests.simulation.runs import run

STEPS = 60
SEEDS = (1, 3, 5, 11)
"""Runs with crashes, reorgs beyond finality, reversals, payments and voids; `make soak` goes to many more."""


@pytest.mark.parametrize("seed", SEEDS)
def test_every_invariant_holds(seed: int) -> None:
    """After each step and at rest; a failure prints the seed, the steps, and the command that replays them."""
    done = run(seed, STEPS)
    assert not done.broken, str(done)


def test_each_invariant_has_its_sentence() -> None:
    """Whoever reads a finding reads what it means: every invariant says so in its first line, and no two have one name."""
    checks = [*ALWAYS, *ON_SIGNATURE, *ON_SEND, *AT_REST]
    assert all((check.__doc__ or "").strip().endswith(".") for check in checks)
    assert len({check.__name__ for check in checks}) == len(checks)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.id)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within so many seeds the simulation names an invariant that the bug breaks."""
    plant.put(monkeypatch)
    for seed in plant.seeds:
        done = run(seed, plant.steps, faulty=plant.faulty, focus=plant.focus, rest=False)
        if named := {each.invariant for each in done.broken} & plant.breaks:
            assert f"--seed {seed} --steps {plant.steps}" in str(done)
            assert named
            return
    pytest.fail(f"{plant.id}: not found with seeds {plant.seeds}")


def test_a_seed_is_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Another process, that has run nothing before and hashes its strings otherwise, does the same thing step by step."""
    arguments = ["--seed", "3", "--steps", "25"]
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


def test_the_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """What `make soak` prints at its end: seeds, steps, crashes, reorgs, payments, voids, findings."""
    assert main(["--seed", "2", "--steps", "8", "--runs", "2"]) == 0
    told = capsys.readouterr().out
    for name in ("seeds", "steps", "crashes", "reorgs", "paid", "voids", "findings"):
        assert f"\n{name}" in f"\n{told}"
    assert "2 (2 to 3)" in told
