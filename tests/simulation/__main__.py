# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.simulation --seed N --steps M` replays one run; `--minutes M` goes from seed to seed until the time is over."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.simulation import birth
from tests.simulation.runs import Run, run
from tests.simulation.summary import summary

STEPS = 150


def main(arguments: list[str] | None = None) -> int:
    """Run, tell, and answer 1 where an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the run, or the first one of many")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each run")
    parser.add_argument("--runs", type=int, default=1, help="so many seeds, one after the other")
    parser.add_argument("--minutes", type=float, default=0.0, help="instead: seeds until this time is over")
    parser.add_argument("--jobs", type=int, default=1, help="so many processes at once; 0: as many as cores are idle")
    parser.add_argument("--quiet", action="store_true", help="no trace of a run that holds")
    asked = parser.parse_args(arguments)
    runs: list[Run] = []
    for done in _runs(asked):
        runs.append(done)
        if asked.minutes:
            print(f"seed {done.seed}: {done.tally['steps']} steps", file=sys.stderr, flush=True)
        if done.broken:
            print(done, flush=True)
        elif asked.runs == 1 and not asked.minutes and not asked.quiet:
            print("\n".join(done.trace))
    print(summary(sorted(runs, key=lambda each: each.seed)))
    return 1 if any(done.broken for done in runs) else 0


def _runs(asked: argparse.Namespace) -> Iterator[Run]:
    """Seed after seed; none is begun once the time is over."""
    until = time.monotonic() + 60 * asked.minutes
    last = asked.seed + asked.runs

    def goes_on(seed: int) -> bool:
        return bool(time.monotonic() < until if asked.minutes else seed < last)

    seed, jobs = asked.seed, asked.jobs or _idle()
    if jobs == 1:
        while goes_on(seed):
            yield run(seed, asked.steps)
            seed += 1
        return
    birth.born()  # once, for all of them
    going: set[Future[Run]] = set()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        while going or goes_on(seed):
            while len(going) < jobs and goes_on(seed):
                going.add(pool.submit(run, seed, asked.steps))
                seed += 1
            ended, going = wait(going, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in ended)


def _idle() -> int:
    """Cores that nobody uses, by the load of the last minute; one at the least."""
    return max(1, (os.cpu_count() or 1) - round(os.getloadavg()[0]))


if __name__ == "__main__":
    sys.exit(main())
