# SPDX-License-Identifier: AGPL-3.0-or-later
"""A score of all mutants from a few of them: drawn by a seed, each as likely as any other, with the interval that this leaves open."""

import random
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final

_Z: Final = 1.959964
"""Standard deviations on both sides that hold 95 % of a normal distribution."""


def draw(mutants: Mapping[str, Sequence[str]], count: int, seed: int) -> dict[str, frozenset[str]]:
    """So many mutants of all modules, by module; the same for the same source and seed. All of them where there are fewer."""
    everyone = [(module, mutant) for module in sorted(mutants) for mutant in sorted(mutants[module])]
    taken = random.Random(seed).sample(everyone, min(count, len(everyone)))
    return {module: frozenset(mutant for of, mutant in taken if of == module) for module in mutants}


def interval(noticed: int, asked: int) -> tuple[float, float]:
    """Between which shares the whole lies with 95 %, by Wilson's score interval (E. B. Wilson, 1927)."""
    if not asked:
        return 0.0, 1.0
    share, root = noticed / asked, _Z * sqrt(noticed * (asked - noticed) / asked + _Z * _Z / 4)
    middle = share * asked + _Z * _Z / 2
    return max(0.0, (middle - root) / (asked + _Z * _Z)), min(1.0, (middle + root) / (asked + _Z * _Z))
