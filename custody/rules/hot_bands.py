# SPDX-License-Identifier: AGPL-3.0-or-later
"""Between what a hot wallet should hold: below the floor it is refilled, above the cap it overflows, and both aim at the target.

Floor and cap stand apart from the target, so that what ends one move never begins the other.
"""

from dataclasses import dataclass

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule


@dataclass(frozen=True, slots=True)
class HotBand:
    """One asset's levels of a hot wallet, in base units: 0 < floor < target < cap; `refill_most` is the largest refill.

    Raises InvalidInput where they do not rise, or where no refill could be of anything.
    """

    floor: int
    target: int
    cap: int
    refill_most: int

    def __post_init__(self) -> None:
        if not 0 < self.floor < self.target < self.cap:
            got = f"floor {self.floor}, target {self.target}, cap {self.cap}"
            raise InvalidInput("hot", Rule.MALFORMED, got, "above zero: floor below target below cap")
        if self.refill_most < 1:
            raise InvalidInput("hot", Rule.MALFORMED, f"a largest refill of {self.refill_most}", "more than zero")
