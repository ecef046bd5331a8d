# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.bench [NAME …]`: run `bench_*.py` beside this file, or the named ones, and print their ratios.

A bench module has one function `benches() -> Iterator[Comparison]`.
"""

import importlib
import sys
from pathlib import Path

from tests.bench.harness import RAW


def main(names: list[str]) -> int:
    """Exit code 1 only where a named bench does not exist; no time is ever a failure."""
    known = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"no bench {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 1
    for name in names or known:
        module = importlib.import_module(f"tests.bench.bench_{name}")
        for comparison in module.benches():
            print(comparison, flush=True)
    print(f"raw rounds: {RAW.relative_to(RAW.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
