# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.crash`: somebody is killed at every failpoint of a deposit and a withdrawal, against the twin that nobody killed.

Points are walked in groups that lie apart in the journey (tests/crash/walk.py): one run kills once at each of its points. `--each` walks
each alone, which takes four times as long. `--only TEXT` takes the points with TEXT in their names, `--minutes M` as many as there is
time for; `--pass N` kills not at the first pass of a point but at the N-th, where there is one.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

from tests.crash.journeys import JOURNEYS, SWEPT
from tests.crash.walk import Walk, Worlds

_TOGETHER: Final = 6
"""Points of one run. Each costs it the second in which a part comes back; a run without kills takes about thirteen."""


def main(arguments: list[str] | None = None) -> int:
    """Run, tell, and answer 1 where a run differed from its twin; a point that was not reached is uncovered, and said."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--only", default="", help="points with this text in their names")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after this time; 0 for no end")
    parser.add_argument("--pass", type=int, default=1, dest="nth", help="kill at the N-th pass of each point")
    parser.add_argument("--each", action="store_true", help="a run for each point alone")
    asked = parser.parse_args(arguments)
    until = time.monotonic() + 60 * asked.minutes if asked.minutes else float("inf")
    say = partial(print, flush=True)
    with tempfile.TemporaryDirectory(prefix="crash-") as home, Worlds(Path(home), say) as worlds:
        walk = Walk(worlds, 1 if asked.each else _TOGETHER, asked.nth, until, say)
        for journey in (SWEPT, *JOURNEYS):
            walk.journey(journey, asked.only)
    print(*walk.summary(), sep="\n")
    return 0 if walk.held else 1


if __name__ == "__main__":
    sys.exit(main())
