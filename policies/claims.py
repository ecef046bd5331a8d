# SPDX-License-Identifier: AGPL-3.0-or-later
"""`claims.yaml`: what has to hold whatever the rules say, in the words of the rules, kept by other people than the rules.

Its limits stand in the file itself: a number out of limits.yaml could be raised by those whom a claim is meant to hold.
"""

import re
from dataclasses import dataclass
from typing import Final

from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.requirement import MOST_APPROVALS
from policies.limits import read_limits
from policies.quantities import duration, text, whole
from policies.rules_model import Condition, Kind, Limits
from policies.rules_reader import read_conditions, read_displaying, read_why
from policies.shapes import below, mapping, rows
from policies.strict_yaml import Node
from policies.vocabulary import VERSION

_ID: Final = re.compile(r"C[0-9]{2,3}-[a-z0-9]+(?:-[a-z0-9]+)*")
_DENIED: Final = "denied"


@dataclass(frozen=True, slots=True)
class Claim:
    """Wherever `when` holds, a transfer is denied, or at least so many people of so many groups are asked after so many seconds.

    `displaying` is how many of them are asked to approve with a key that shows what it signs.
    """

    id: str
    why: str
    when: tuple[Condition, ...]
    denied: bool
    people: int = 0
    groups: int = 0
    delay: int = 0
    displaying: int = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """Every claim of a bundle, sorted by id, and the limits that they name, total over its assets."""

    each: tuple[Claim, ...]
    limits: Limits


def read_claims(node: Node, assets: Assets, file: str = "claims.yaml:") -> Claims:
    """Every claim and its limits. Raises InvalidInput for the first that is wrong.

    A condition may only begin on the dangerous side, as a require's or a deny's: a claim that ended there would claim nothing.
    """
    fields = mapping(node, file, ("vocabulary", "limits", "claims"))
    limits = read_limits(fields["limits"], assets, below(file, "limits"))
    if fields["vocabulary"] != VERSION:
        raise InvalidInput(below(file, "vocabulary"), Rule.MALFORMED, repr(fields["vocabulary"]), f"version {VERSION}")
    found: dict[str, Claim] = {}
    for position, row in enumerate(rows(fields["claims"], below(file, "claims"))):
        where = f"{below(file, 'claims')}[{position}]"
        claim = _claim(row, assets, limits, where)
        if claim.id in found:
            raise InvalidInput(f"{where}.id", Rule.NAME_REUSED, repr(claim.id), "each id once")
        found[claim.id] = claim
    return Claims(tuple(found[name] for name in sorted(found)), limits)


def _claim(row: Node, assets: Assets, limits: Limits, where: str) -> Claim:
    fields = mapping(row, where, ("id", "why", "when", "then"))
    name = text(fields["id"], f"{where}.id")
    if _ID.fullmatch(name) is None:
        raise InvalidInput(
            f"{where}.id", Rule.MALFORMED, repr(name), "C, a number and words, such as C01-cold-needs-people"
        )
    why, then = read_why(fields["why"], f"{where}.why"), fields["then"]
    denied = then == _DENIED
    kind = Kind.DENY if denied else Kind.REQUIRE
    when = read_conditions(fields["when"], assets, limits, f"{where}.when", kind)
    if denied:
        return Claim(name, why, when, denied=True)
    if not isinstance(then, dict):
        raise InvalidInput(
            f"{where}.then", Rule.MALFORMED, repr(then), "denied, or a mapping of people, groups and delay"
        )
    asked = mapping(then, f"{where}.then", ("people",), ("groups", "displaying", "delay"))
    people = whole(asked["people"], f"{where}.then.people", MOST_APPROVALS)
    groups = whole(asked["groups"], f"{where}.then.groups", MOST_APPROVALS) if "groups" in asked else 1
    delay = duration(asked["delay"], f"{where}.then.delay") if "delay" in asked else 0
    displaying = read_displaying(asked["displaying"], f"{where}.then.displaying") if "displaying" in asked else 0
    if not 1 <= groups <= people:
        raise InvalidInput(
            f"{where}.then",
            Rule.THRESHOLD_OUT_OF_RANGE,
            f"{people} people of {groups} groups",
            "1 group or more, 1 person each",
        )
    return Claim(name, why, when, denied=False, people=people, groups=groups, delay=delay, displaying=displaying)
