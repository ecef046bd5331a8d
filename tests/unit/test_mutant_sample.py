# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a sample of mutants says about all of them."""

import random

import pytest

from tests.mutant_sample import draw, interval

MODULES = {"a": [f"x{number}" for number in range(30)], "b": [f"y{number}" for number in range(10)], "c": []}


def test_a_seed_draws_the_same_and_another_seed_others() -> None:
    """Whatever the order in which modules came."""
    first = draw(MODULES, 12, 1)
    assert first == draw(dict(reversed(MODULES.items())), 12, 1)
    assert first != draw(MODULES, 12, 2)
    assert sum(map(len, first.values())) == 12
    assert all(first[name] <= set(MODULES[name]) for name in MODULES)


def test_more_than_there_are_is_all_of_them() -> None:
    """No module is missing, and none is asked twice."""
    assert {name: len(each) for name, each in draw(MODULES, 99, 1).items()} == {"a": 30, "b": 10, "c": 0}


@pytest.mark.parametrize(
    ("noticed", "asked", "told"),
    [
        pytest.param(0, 0, (0.0, 1.0), id="nothing asked says nothing"),
        pytest.param(10, 10, (0.7225, 1.0), id="all of ten"),
        pytest.param(81, 263, (0.2553, 0.3662), id="as in Wilson's tables"),
    ],
)
def test_interval(noticed: int, asked: int, told: tuple[float, float]) -> None:
    """Against figures computed elsewhere."""
    assert interval(noticed, asked) == pytest.approx(told, abs=5e-5)


def test_the_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    """Over samples of a known whole."""
    whole, chance = [True] * 9_000 + [False] * 1_000, random.Random(7)
    held = 0
    for _ in range(400):
        low, high = interval(sum(chance.sample(whole, 200)), 200)
        held += low <= 0.9 <= high
    assert held >= 370
