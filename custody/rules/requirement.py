# SPDX-License-Identifier: AGPL-3.0-or-later
"""What policy answers: denied, or so many of these groups after so long, or automatic. Plain data, no policy in it.

The stricter of two answers is a join: whoever evaluates two bundles (pinned and newest, TRUST.md) acts on both at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from custody.rules.errors import InvalidInput
from custody.rules.facts import Facts
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Tier

MOST_APPROVALS: Final = 50
"""No group is asked for more; a threshold from outside is never used to size anything before it was compared with this."""


class Outcome(StrEnum):
    """The three answers there are."""

    AUTOMATIC = "AUTOMATIC"
    REQUIRE = "REQUIRE"
    DENY = "DENY"


@dataclass(frozen=True, slots=True)
class Requirement:
    """Who has to approve: how many of each group, after how many seconds, and how many distinct people at the least.

    `displaying` is how many of these people have to approve with a key that shows what it signs (EIP-712): a passkey shows nothing, so
    a page that lies about the transfer could gather any number of them.

    Empty approvals, a threshold below one or a group named twice cannot be constructed: an empty quorum is one that anybody
    reaches. One person fills one slot, so `people` is never below the sum of the thresholds; the constructor raises it.
    """

    approvals: tuple[tuple[str, int], ...]
    delay: int = 0
    people: int = 0
    displaying: int = 0

    def __post_init__(self) -> None:
        named = dict(self.approvals)
        if not named or len(named) != len(self.approvals):
            raise InvalidInput(
                "approvals", Rule.THRESHOLD_OUT_OF_RANGE, repr(self.approvals), "at least one group, each once"
            )
        for group, needed in self.approvals:
            if type(needed) is not int or not 1 <= needed <= MOST_APPROVALS:
                raise InvalidInput(
                    "approvals", Rule.THRESHOLD_OUT_OF_RANGE, f"{needed!r} of {group}", f"1 to {MOST_APPROVALS}"
                )
        for name, value in (("delay", self.delay), ("people", self.people), ("displaying", self.displaying)):
            if type(value) is not int or value < 0:
                raise InvalidInput(name, Rule.THRESHOLD_OUT_OF_RANGE, repr(value), "0 or more")
        object.__setattr__(self, "approvals", tuple(sorted(self.approvals)))
        if self.displaying > MOST_APPROVALS:
            raise InvalidInput(
                "displaying", Rule.THRESHOLD_OUT_OF_RANGE, repr(self.displaying), f"0 to {MOST_APPROVALS}"
            )
        object.__setattr__(self, "people", max(self.people, sum(named.values()), self.displaying))

    def joined(self, other: "Requirement") -> "Requirement":
        """The stricter of both: per group the larger threshold, the longer delay, the more people and keys that display."""
        groups = dict(self.approvals)
        for group, needed in other.approvals:
            groups[group] = max(needed, groups.get(group, 0))
        return Requirement(
            tuple(groups.items()),
            max(self.delay, other.delay),
            max(self.people, other.people),
            max(self.displaying, other.displaying),
        )

    def of_people(self, least: int, displaying: int = 0) -> "Requirement":
        """The same with at least so many distinct people, and keys that display among theirs: how a seat's own floor joins in."""
        return replace(self, people=max(self.people, least), displaying=max(self.displaying, displaying))

    def __str__(self) -> str:
        asked = ", ".join(f"{needed} of {group}" for group, needed in self.approvals)
        more = f", {self.people} people in all" if self.people > sum(n for _, n in self.approvals) else ""
        shown = f", {self.displaying} by a key that displays" if self.displaying else ""
        return f"{asked}{more}{shown}" + (f", after {exact_span(self.delay)}" if self.delay else "")

    def to_json(self) -> dict[str, Any]:
        """`{"approvals": {group: n}, "delay": seconds, "people": n}`, for a decision record, and `"displaying": n` where any are.

        Left out at zero, so that an answer of before there was such a clause is still the same record.
        """
        shown = {"displaying": self.displaying} if self.displaying else {}
        return {"approvals": dict(self.approvals), "delay": self.delay, "people": self.people, **shown}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Requirement":
        """As `to_json` wrote it; raises KeyError, TypeError, ValueError or InvalidInput for anything else."""
        approvals = tuple((str(group), int(needed)) for group, needed in data["approvals"].items())
        return cls(approvals, data["delay"], data["people"], data.get("displaying", 0))


COLD_DISPLAYING: Final = 1
"""Keys that display among those who approve anything out of cold, whatever a bundle says (docs/decisions/0014)."""


def displaying_floor(tier: Tier | None) -> int:
    """How many keys that display every approval out of a tier needs, whatever a bundle says. An unknown tier is the strictest."""
    return 0 if tier in (Tier.CUSTOMER_HOT, Tier.OPERATIONAL) else COLD_DISPLAYING


def exact_span(seconds: int) -> str:
    """A length of time in the largest unit that says it exactly, as policies are written: `24h`, `90min`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@dataclass(frozen=True, slots=True, order=True)
class Unmet:
    """A rule that did not match, and its first condition that does not hold, in the policy's own words.

    `part` is `when`, or `automatic_when` for a permit that matched but does not let the transfer go by itself.
    """

    rule: str
    part: str
    condition: str

    def __str__(self) -> str:
        return (
            f"{self.rule}: {self.condition}" if self.part == "when" else f"{self.rule} ({self.part}): {self.condition}"
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Policy's answer with its reasons; only `decided` and `denied` make one, and `stricter` joins two.

    `requirement` is None exactly where the outcome is DENY. Where it is AUTOMATIC it says who has to approve once a seat's
    counter is full or its clock is in doubt: see `by_people`. `bundles` are the hashes of the bundles that decided.
    """

    outcome: Outcome
    requirement: Requirement | None
    matched: tuple[str, ...]
    denied_by: tuple[str, ...]
    unmet: tuple[Unmet, ...]
    faults: tuple[str, ...]
    """Facts that are missing or impossible together; any one denies."""
    bundles: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.DENY) != (self.requirement is None):
            raise InvalidInput("decision", Rule.MALFORMED, str(self.outcome), "a requirement for everything but DENY")

    def by_people(self) -> Self:
        """The same without automatic: for a full counter, a clock in doubt, a price that is not known well enough."""
        return self if self.outcome is not Outcome.AUTOMATIC else replace(self, outcome=Outcome.REQUIRE)

    def with_people(self, least: int, displaying: int = 0) -> Self:
        """The same with at least so many distinct people and keys that display; one or more takes automatic away. How floors join in."""
        if self.requirement is None or (least < 1 and displaying < 1):
            return self
        return replace(self.by_people(), requirement=self.requirement.of_people(least, displaying))

    def refusals(self) -> Iterator[Refusal]:
        """Why it was denied: facts first, then each deny, else that nothing permits it. Nothing for any other outcome."""
        for fault in self.faults:
            yield Refusal(Rule.FACT_UNKNOWN, fact=fault)
        for rule in self.denied_by:
            yield Refusal(Rule.POLICY_DENIES, policy_rule=rule)
        if self.outcome is Outcome.DENY and not self.faults and not self.denied_by:
            yield Refusal(Rule.NOTHING_PERMITS, unmet="; ".join(str(unmet) for unmet in self.unmet))

    def to_json(self) -> dict[str, Any]:
        """Everything decided, for a decision record: lists sorted, hashes as 0x hex."""
        return {
            "outcome": str(self.outcome),
            "requirement": self.requirement.to_json() if self.requirement else None,
            "matched": list(self.matched),
            "denied_by": list(self.denied_by),
            "unmet": [[unmet.rule, unmet.part, unmet.condition] for unmet in self.unmet],
            "faults": list(self.faults),
            "bundles": ["0x" + bundle.hex() for bundle in self.bundles],
        }


_SEVERITY: Final = {Outcome.AUTOMATIC: 0, Outcome.REQUIRE: 1, Outcome.DENY: 2}


def stricter(one: Decision, other: Decision) -> Decision:
    """The join of two decisions about one transfer: the severer outcome, both requirements at once, every reason of both.

    Commutative, associative and idempotent; neither bundle can loosen what the other asks (facts: semantics, 8).
    """
    outcome = max(one.outcome, other.outcome, key=_SEVERITY.__getitem__)
    requirement = None
    if one.requirement and other.requirement:
        requirement = one.requirement.joined(other.requirement)
    return Decision(
        outcome,
        requirement,
        matched=_both(one.matched, other.matched),
        denied_by=_both(one.denied_by, other.denied_by),
        unmet=tuple(sorted({*one.unmet, *other.unmet})),
        faults=_both(one.faults, other.faults),
        bundles=tuple(sorted({*one.bundles, *other.bundles})),
    )


def _both(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


@dataclass(frozen=True, slots=True)
class RuleWords:
    """What a rule says to people: its own reason, and whom it asks, such as `1 of risk, after 1h`; empty where it asks nobody."""

    why: str
    asks: str


class PolicyInForce(Protocol):
    """A compiled bundle as custody receives it: an argument, never an import (DESIGN.md, arrows)."""

    @property
    def hash(self) -> bytes:
        """The bundle's 32 bytes, as intents pin them."""
        ...

    @property
    def floors(self) -> "Floors":
        """What a seat asks whatever the statement says."""
        ...

    def words_of(self, rule: str) -> RuleWords | None:
        """What a rule of this id says to people; None where the bundle has none."""
        ...

    def evaluate(self, facts: Facts) -> Decision:
        """Decide one transfer. Pure; never raises for a fact that is missing or wrong, which denies."""
        ...


@dataclass(frozen=True, slots=True)
class Floors:
    """A seat's own minima by tier and native amount: they need no price and no statement (TRUST.md, "A seat decides").

    `people`: by tier, by asset symbol, bands of (base units, people) ascending; more than the units needs the people.
    `automatic_most` and `automatic_day`: base units by symbol that may leave customer_hot automatically, in one transfer and in
    any 24 hours; a seat counts for itself and scales the second by (M−1)/(N−1).
    """

    people: Mapping[Tier, Mapping[str, tuple[tuple[int, int], ...]]]
    automatic_most: Mapping[str, int]
    automatic_day: Mapping[str, int]

    def people_for(self, tier: Tier, asset: str, units: int) -> int:
        """Distinct people that a transfer of so many base units out of a tier needs at the least; 0 only out of customer_hot.

        Raises InvalidInput for an asset without floors: unknown is never zero.
        """
        bands = self.people[tier].get(asset)
        if bands is None:
            raise InvalidInput("asset", Rule.UNKNOWN_ASSET, repr(asset), "an asset with floors")
        most = 0
        for above, people in bands:
            if units > above and people > most:
                most = people
        return most
