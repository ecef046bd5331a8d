# SPDX-License-Identifier: AGPL-3.0-or-later
"""How points are put in groups, what a run that differs is asked again, and what counts as covered; on runs that are made up."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import pytest

from tests.crash.journeys import SWEPT
from tests.crash.outcome import Outcome
from tests.crash.runs import Crashed, Twin
from tests.crash.walk import TRIES, Walk, Worlds, groups

Ends = Callable[[frozenset[str]], tuple[frozenset[str], tuple[str, ...]]]
"""Of what is armed: where somebody is killed, and what differs then."""
POINTS = tuple(f"worker.commit.before:{letter}" for letter in "abcdefgh")
A, B, C, D, *_ = POINTS


class MadeUp:
    """Worlds and field in one: each run ends as it is told to."""

    def __init__(self, ends: Ends, twin: Twin) -> None:
        self.ends, self._twin = ends, twin
        self.armed: list[frozenset[str]] = []
        self.left = 0

    @property
    def field(self) -> "MadeUp":
        """The world there is."""
        return self

    def leave(self) -> None:
        """Counted."""
        self.left += 1

    def twin(self, _journeys: Sequence[object], _ahead: Sequence[object]) -> Twin:
        """As it was given."""
        return self._twin

    def crash(self, _twin: Twin, armed: Mapping[str, int] | Collection[str], _ahead: Sequence[object]) -> Crashed:
        """As it is told to end."""
        self.armed.append(frozenset(armed))
        fired, differences = self.ends(frozenset(armed))
        return Crashed(frozenset(armed), fired, differences, 1.0, stuck=False)


def walked(ends: Ends, together: int = 4, twin: Twin | None = None, **named: Any) -> tuple[Walk, MadeUp]:
    """A walk of one journey, and what was asked of its world."""
    made = MadeUp(ends, twin or Twin((SWEPT,), Outcome({}, {}), POINTS, ()))
    walk = Walk(cast(Worlds, made), together, say=lambda _: None, **named)
    walk.journey(SWEPT)
    return walk, made


@pytest.mark.parametrize(
    ("count", "size", "found"),
    [
        pytest.param(8, 4, ["aceg", "bdfh"], id="even"),
        pytest.param(7, 3, ["adg", "be", "cf"], id="uneven"),
        pytest.param(3, 6, ["abc"], id="fewer than a group"),
        pytest.param(3, 1, ["a", "b", "c"], id="each alone"),
        pytest.param(0, 6, [], id="none"),
    ],
)
def test_neighbours_are_apart(count: int, size: int, found: list[str]) -> None:
    """Every point is in one group, and the next one in another."""
    assert ["".join(group) for group in groups("abcdefgh"[:count], size)] == found


def test_all_as_the_twin() -> None:
    """Two runs of four cover eight points."""
    walk, made = walked(lambda armed: (armed, ()))
    assert walk.held
    assert len(made.armed) == 2
    assert walk.covered == set(POINTS)
    assert list(walk.summary())[-1] == "covered 8 of 8 points"


def test_what_differs_is_asked_alone() -> None:
    """The one at fault is found and named, the others of its group are covered, and no run follows in a world that is wrong."""
    walk, made = walked(lambda armed: (armed, ("paid twice",) if A in armed else ()))
    assert walk.found == {A: "paid twice"}
    assert not walk.held
    assert walk.covered == set(POINTS) - {A}
    assert made.left == 2  # after the group, and after the point alone
    assert any(f"DIFFERS: {A}: paid twice" in line for line in walk.summary())


def test_what_differs_together_only() -> None:
    """Two kills that do harm only together are told, and cover nothing by that run."""
    walk, _ = walked(lambda armed: (armed, ("held",) if {A, C} <= armed else ()))
    assert [set(names.split(" and ")) for names in walk.found] == [{A, C, *POINTS[4::2]}]
    assert next(iter(walk.found.values())) == "held (together only)"
    assert not walk.held


def test_what_is_not_reached() -> None:
    """Nobody was killed there: it is tried again, then told as not covered, which is no difference."""
    walk, made = walked(lambda armed: (armed - {B}, ()))
    assert walk.held
    assert sum(B in armed for armed in made.armed) == TRIES
    assert sum(D in armed for armed in made.armed) == 1
    assert f"  not covered: {B}: not reached in {TRIES} runs" in walk.summary()
    assert list(walk.summary())[-1] == "covered 7 of 8 points"


def test_a_kill_in_a_run_that_differs_covers_nothing() -> None:
    """What is not asked alone afterwards, for want of a kill, stays uncovered."""
    walk, _ = walked(
        lambda armed: (armed - {C} if len(armed) > 1 else frozenset(), ("held",) if len(armed) > 1 else ())
    )
    assert walk.covered == set()
    assert not walk.held


def test_a_twin_that_is_at_fault() -> None:
    """Nothing is compared with it."""
    walk, made = walked(lambda armed: (armed, ()), twin=Twin((SWEPT,), Outcome({}, {}, ("still held",)), POINTS, ()))
    assert made.armed == []
    assert walk.found == {"the twin of swept": "still held"}
    assert not walk.held


def test_no_time_left() -> None:
    """What was not walked is not held to be right."""
    walk, made = walked(lambda armed: (armed, ()), until=0.0)
    assert made.armed == []
    assert not walk.held


def test_only_some() -> None:
    """What was not asked for is told as not walked."""
    made = MadeUp(lambda armed: (armed, ()), Twin((SWEPT,), Outcome({}, {}), POINTS, ()))
    walk = Walk(cast(Worlds, made), 4, say=lambda _: None)
    walk.journey(SWEPT, only=":a")
    assert made.armed == [frozenset({A})]
    assert f"  not covered: {B}: not walked" in walk.summary()
