# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.crash`: every failpoint of a deposit and a withdrawal alone, each against the twin that nobody killed.

`--only TEXT` takes the points with TEXT in their names, `--minutes M` as many as there is time for; `--pass N` kills not at the first
pass of a point but at the N-th, where there is one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.crash.journeys import JOURNEYS, SWEPT
from tests.crash.runs import Crashed, Field, Twin, living, table

_TRIES: Final = 3
"""Runs in which a point may be reached: some are passed only where one part is quicker than another."""


def main(arguments: list[str] | None = None) -> int:
    """Run, tell, and answer 1 where a run differed from its twin; a point that was not reached is uncovered, and said."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--only", default="", help="points with this text in their names")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after this time; 0 for no end")
    parser.add_argument("--pass", type=int, default=1, dest="nth", help="kill at the N-th pass of each point")
    asked = parser.parse_args(arguments)
    until = time.monotonic() + 60 * asked.minutes if asked.minutes else float("inf")
    runs: dict[str, Crashed] = {}
    known: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crash-") as home, living(Path(home), print) as field:
        for journey in (SWEPT, *JOURNEYS):
            twin = field.twin([journey], [journey] * 5)
            print(f"twin of {journey.name}: {len(twin.points)} points", flush=True)
            new = [point for point in twin.points if point not in known]
            known += new
            if twin.outcome.faults or twin.unwatched:
                print("the twin itself:", *twin.outcome.faults, *twin.unwatched, sep="\n  ")
                return 1
            for point, run in alone(field, twin, [point for point in new if asked.only in point], asked.nth, until):
                runs[point] = run
                print(line_of(point, run), flush=True)
    print(*summary(known, runs), sep="\n")
    return 0 if runs and all(run.held for run in runs.values()) else 1


def alone(field: Field, twin: Twin, points: list[str], nth: int, until: float) -> Iterator[tuple[str, Crashed]]:
    """One run for each point; a journey that does not end at all ends this, since nothing after it could be compared."""
    ahead = list(twin.journeys) * 20
    for point in points:
        if time.monotonic() > until:
            return
        for _ in range(_TRIES - 1):
            run = field.crash(twin, {point: nth}, ahead)
            if run.fired or not run.held:
                break
        else:
            run = field.crash(twin, {point: nth}, ahead)
        yield point, run
        if run.stuck:
            return


def line_of(point: str, run: Crashed) -> str:
    """One line about one run, with its first difference."""
    how = "not reached" if not run.fired else "as the twin" if run.held else f"DIFFERS: {run.differences[0]}"
    return f"{run.seconds:6.1f} s  {point}: {how}"


def summary(known: list[str], runs: dict[str, Crashed]) -> Iterator[str]:
    """Covered and total by part, and what came to something else."""
    fired = [point for point, run in runs.items() if run.fired]
    found = [point for point, run in runs.items() if not run.held]
    yield from table(known, fired)
    yield f"as the twin {sum(run.held and bool(run.fired) for run in runs.values())} of {len(runs)} runs"
    yield from (f"  {line_of(point, runs[point])}" for point in found)
    yield from (f"  not reached: {point}" for point, run in runs.items() if not run.fired)


if __name__ == "__main__":
    sys.exit(main())
