# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.simulation --seed N --steps M` replays one run; `--minutes M` goes from seed to seed until the time is over."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.invariants import ALWAYS, AT_REST, ON_SEND, ON_SIGNATURE
from tests.simulation.runs import Run, run

STEPS = 150


def main(arguments: list[str] | None = None) -> int:
    """Run, tell, and answer 1 where an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the run, or the first one of many")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each run")
    parser.add_argument("--runs", type=int, default=1, help="so many seeds, one after the other")
    parser.add_argument("--minutes", type=float, default=0.0, help="instead: seeds until this time is over")
    parser.add_argument("--quiet", action="store_true", help="no trace of a run that holds")
    asked = parser.parse_args(arguments)
    until = time.monotonic() + 60 * asked.minutes
    runs: list[Run] = []
    seed = asked.seed
    while len(runs) < asked.runs or time.monotonic() < until:
        runs.append(done := run(seed, asked.steps))
        seed += 1
        if done.broken:
            print(done, flush=True)
        elif asked.runs == 1 and not asked.minutes and not asked.quiet:
            print("\n".join(done.trace))
    print(summary(runs))
    return 1 if any(done.broken for done in runs) else 0


def summary(runs: list[Run]) -> str:
    """What these runs came to."""
    tally: Counter[str] = sum((done.tally for done in runs), Counter())
    points: Counter[str] = sum((done.points for done in runs), Counter())
    calls: Counter[str] = sum((done.calls for done in runs), Counter())
    found = [done for done in runs if done.broken]
    checks = len(ALWAYS) + len(ON_SIGNATURE) + len(ON_SEND) + len(AT_REST)
    told = {
        "seeds": f"{len(runs)} ({runs[0].seed} to {runs[-1].seed})",
        "steps": tally["steps"],
        "invariants": f"{checks}, {len(ALWAYS)} of them after each step",
        "crashes": tally["crashes"],
        "lost answers": tally["lost answers"],
        "calls where a fault struck": f"{len({p.partition(',')[0] for p in points} & calls.keys())} of {len(calls)} kinds",
        "reorgs": f"{tally['reorgs']}, {tally['reorgs beyond finality']} of them beyond finality",
        "deposits credited": f"{tally['credited']}, reversed {tally['reversed']}",
        "proposed": tally["proposed"],
        "paid": tally["paid"],
        "voids": f"{tally['voids asked']} asked, {tally['voided']} transfers voided",
        "findings": len(found),
    }
    lines = [f"{name:28}{value}" for name, value in told.items()]
    return "\n".join([*lines, *(f"  {each}\n    {done.replay}" for done in found for each in done.broken)])


if __name__ == "__main__":
    sys.exit(main())
