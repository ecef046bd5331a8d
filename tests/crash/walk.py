# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole walk: groups of points, each group killed at in one run; what differs is asked again, each of its points alone.

A group's points lie as far apart in the journey as they can, so that whoever was killed at one is back before the next. A run that comes
to what its twin came to covers each point at which somebody was killed in it: for a harm to hide there, a second kill would have to
undo it to the base unit. `--each` leaves that to no chance.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.crash.journeys import Journey
from tests.crash.runs import Crashed, Field, Twin, living, table

TRIES: Final = 3
"""Runs in which a point may be reached: some are passed only where one part is quicker than another."""
_AHEAD: Final = 20
"""Customers made at once: an address has to be a day old, and each day costs seconds."""


def groups(points: Sequence[str], size: int) -> list[list[str]]:
    """All of them, in groups of `size` at most, neighbours in different groups."""
    count = -(-len(points) // size)
    return [list(points[first::count]) for first in range(count)]


class Worlds:
    """One living world at a time; a new one where nothing ends in the old one any more."""

    def __init__(self, home: Path, say: Callable[[str], None] = print) -> None:
        self._home, self._say, self._stack, self._made = home, say, ExitStack(), 0
        self._field: Field | None = None

    @property
    def field(self) -> Field:
        """The world there is, raised where there is none."""
        if self._field is None:
            self._made += 1
            self._field = self._stack.enter_context(living(self._home / str(self._made), self._say))
        return self._field

    def leave(self) -> None:
        """End it."""
        self._field = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


@dataclass
class Walk:
    """What was walked so far. `nth` pass of each point, until a moment of `time.monotonic`."""

    worlds: Worlds
    together: int
    nth: int = 1
    until: float = float("inf")
    say: Callable[[str], None] = print
    known: list[str] = field(default_factory=list)
    runs: list[Crashed] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    found: dict[str, str] = field(default_factory=dict)
    """What differs, by its point or points."""
    tries: dict[str, int] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    @property
    def held(self) -> bool:
        """Whether something was walked, and everything came to what its twin came to."""
        return bool(self.runs) and not self.found

    def journey(self, journey: Journey, only: str = "") -> None:
        """Every point that it passes and no journey before it did."""
        if time.monotonic() > self.until:
            return
        begun = time.monotonic()
        twin = self.worlds.field.twin([journey], [journey] * _AHEAD)
        new = [point for point in twin.points if point not in self.known]
        self.known += new
        told = f"twin of {journey.name}: {len(twin.points)} points, {len(new)} of them new"
        self.say(f"{time.monotonic() - begun:6.1f} s  {told}")
        if twin.outcome.faults or twin.unwatched:
            self.found[f"the twin of {journey.name}"] = "; ".join((*twin.outcome.faults, *twin.unwatched))
            return
        ahead = [point for point in new if only in point]
        for _ in range(TRIES):
            for group in groups(ahead, self.together) if ahead else []:
                self._group(twin, group)
            ahead = [point for point in ahead if point not in self.covered and not self._is_found(point)]

    def _group(self, twin: Twin, group: list[str]) -> None:
        """One run for all of them; where it differs one for each."""
        run = self._run(twin, group)
        if run is None:
            return
        if run.held:
            self.covered |= run.fired
            return
        if len(group) == 1:
            self.found[group[0]] = run.differences[0]
            return
        alone = [(point, self._run(twin, [point])) for point in group if point in run.fired]
        for point, single in alone:
            if single is not None and not single.held:
                self.found[point] = single.differences[0]
            elif single is not None:
                self.covered |= single.fired
        if not any(self._is_found(point) for point in group):
            self.found[" and ".join(sorted(run.fired))] = f"{run.differences[0]} (together only)"

    def _run(self, twin: Twin, points: Collection[str]) -> Crashed | None:
        """None where there is no time for it. A world that came to something else is left: the next run would be told of that too."""
        if time.monotonic() > self.until:
            return None
        for point in points:
            self.tries[point] = self.tries.get(point, 0) + 1
        run = self.worlds.field.crash(twin, dict.fromkeys(points, self.nth), list(twin.journeys) * _AHEAD)
        self.runs.append(run)
        self.say(line_of(run))
        if not run.held:
            self.worlds.leave()
        return run

    def _is_found(self, point: str) -> bool:
        return any(point in names.split(" and ") for names in self.found)

    def summary(self) -> Iterator[str]:
        """What differs, what was not covered and why, and covered and total by part."""
        yield from (f"  DIFFERS: {point}: {difference}" for point, difference in self.found.items())
        for point in self.known:
            if point not in self.covered and not self._is_found(point):
                tries = self.tries.get(point, 0)
                yield f"  not covered: {point}: {f'not reached in {tries} runs' if tries else 'not walked'}"
        kills = sum(len(run.fired) for run in self.runs)
        minutes = (time.monotonic() - self.begun) / 60
        held = sum(run.held for run in self.runs)
        yield f"as the twin {held} of {len(self.runs)} runs, {kills} kills, {minutes:.0f} minutes"
        yield from table(self.known, self.covered)


def line_of(run: Crashed) -> str:
    """One line about one run, with its first difference."""
    how = "as the twin" if run.held else f"DIFFERS: {run.differences[0]}"
    missed = f", not reached {', '.join(sorted(run.armed - run.fired))}" if run.armed - run.fired else ""
    return f"{run.seconds:6.1f} s  {how}: killed at {', '.join(sorted(run.fired)) or 'none'}{missed}"
