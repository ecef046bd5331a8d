# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bugs that others had, planted one at a time: within so many seeds the simulation names an invariant that the bug breaks."""

import pytest

from tests.simulation.plants import PLANTS, Plant
from tests.simulation.plants_of_faults import PLANTS_OF_FAULTS
from tests.simulation.runs import run


@pytest.mark.parametrize("plant", [*PLANTS, *PLANTS_OF_FAULTS], ids=lambda plant: plant.id)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named is what the bug breaks, and the seed that shows it stands beside it."""
    plant.put(monkeypatch)
    for seed in plant.seeds:
        done = run(seed, plant.steps, faulty=plant.faulty, focus=plant.focus, rest=plant.rest, opening=plant.opening)
        if named := {each.invariant for each in done.broken} & plant.breaks:
            assert f"--seed {seed} --steps {plant.steps}" in str(done)
            assert named
            return
    pytest.fail(f"{plant.id}: not found with seeds {plant.seeds}")
