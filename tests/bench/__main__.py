# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.bench [NAME …]`: run `bench_*.py` beside this file, or the named ones, and print their ratios.

A bench module has one function `benches()`, which yields what `harness` measured, one line each. Progress goes to stderr.
"""

import importlib
import sys
import time
from pathlib import Path

from tests.bench.harness import RAW


def main(names: list[str]) -> int:
    """Exit code 1 only where a named bench does not exist; no time is ever a failure."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 1
    wanted, began = names or known, time.monotonic()
    for number, name in enumerate(wanted, 1):
        print(f"bench {number} of {len(wanted)}: {name} ({time.monotonic() - began:.0f} s so far)", file=sys.stderr)
        module = importlib.import_module(f"tests.bench.bench_{name}")
        for measured in module.benches():
            print(measured, flush=True)
    print(f"raw rounds: {RAW.relative_to(RAW.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
