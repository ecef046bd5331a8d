# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules as data: permit, require, deny. Conditions keep the words they were written in, because people are told those words."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from policies.vocabulary import Flag, Polarity, Quantity


class Kind(StrEnum):
    """What a rule does: open a route, add approvals or delay, block."""

    PERMIT = "permit"
    REQUIRE = "require"
    DENY = "deny"


PREFIX: Final = {Kind.PERMIT: "P", Kind.REQUIRE: "R", Kind.DENY: "D"}
"""First letter of a rule's id."""


class Comparator(StrEnum):
    """Comparisons are words: a reader mistakes `<` for `<=` and never "at most" for "less than"."""

    AT_MOST = "at most"
    LESS_THAN = "less than"
    AT_LEAST = "at least"
    MORE_THAN = "more than"

    @property
    def from_above(self) -> bool:
        """Whether it bounds from above."""
        return self in (Comparator.AT_MOST, Comparator.LESS_THAN)


@dataclass(frozen=True, slots=True)
class LimitName:
    """A bound that stands in limits.yaml, one value for each asset."""

    name: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """The fact is one of these words."""

    fact: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.fact}: [{', '.join(self.words)}]"


@dataclass(frozen=True, slots=True)
class Compared:
    """The quantity stands so to a bound: base units, micro-USD or seconds, or a limit. `text` is the bound as written."""

    fact: str
    comparator: Comparator
    bound: int | LimitName
    text: str

    def __str__(self) -> str:
        return f"{self.fact}: {self.comparator} {self.text}"


@dataclass(frozen=True, slots=True)
class Says:
    """The flag has this value."""

    fact: str
    value: bool

    def __str__(self) -> str:
        return f"{self.fact}: {'true' if self.value else 'false'}"


Condition = OneOf | Compared | Says
"""Joined by AND only."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One rule as read. `approvals` are (group, how many); `automatic_when` is empty where people are always asked.

    `displaying` is how many of those who approve have to do so with a key that shows what it signs.
    """

    id: str
    kind: Kind
    why: str
    when: tuple[Condition, ...]
    approvals: tuple[tuple[str, int], ...]
    delay: int
    automatic_when: tuple[Condition, ...]
    displaying: int = 0


Limits = Mapping[str, Mapping[str, int]]
"""Limit name to asset symbol to base units; total over the registry."""


def fits_polarity(kind: Kind, fact: Flag | Quantity, condition: Compared | Says) -> bool:
    """Whether more danger can only take a permit away, or only bring a require or a deny on (facts: semantics, 4)."""
    if isinstance(fact, Flag):
        dangerous = isinstance(condition, Says) and condition.value is fact.tightens
    else:
        above = isinstance(condition, Compared) and condition.comparator.from_above
        dangerous = above is (fact.polarity is Polarity.LESS)
    return dangerous is (kind is not Kind.PERMIT)
