# SPDX-License-Identifier: AGPL-3.0-or-later
"""`governance.yaml`: who has to sign the bundle after this one, and how long it waits. A bundle is changed by its own rules."""

import re
from dataclasses import dataclass
from typing import Final

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.requirement import MOST_APPROVALS
from policies.quantities import duration, text, whole
from policies.shapes import below, mapping
from policies.strict_yaml import Node

_GROUP: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Path:
    """So many policy owners, the author not among them, and so many seconds in which anybody can object."""

    owners: int
    delay: int


@dataclass(frozen=True, slots=True)
class Governance:
    """How a bundle's successor comes in force. `claims_people` of `claims_group` sign besides where claims or this file change."""

    stricter: Path
    weaker: Path
    claims_group: str
    claims_people: int


def read_governance(node: Node, file: str = "governance.yaml:") -> Governance:
    """The paths. Raises InvalidInput: loosening that is not harder than tightening in both, people and time."""
    fields = mapping(node, file, ("stricter", "weaker", "claims"))
    stricter, weaker = (_path(fields[name], below(file, name)) for name in ("stricter", "weaker"))
    if weaker.owners <= stricter.owners or weaker.delay <= stricter.delay:
        got = f"{weaker.owners} owners after {weaker.delay} s, tightening {stricter.owners} after {stricter.delay} s"
        raise InvalidInput(below(file, "weaker"), Rule.THRESHOLD_OUT_OF_RANGE, got, "more owners and a longer delay")
    where = below(file, "claims")
    claims = mapping(fields["claims"], where, ("group", "people"))
    group = text(claims["group"], f"{where}.group")
    if _GROUP.fullmatch(group) is None:
        raise InvalidInput(f"{where}.group", Rule.MALFORMED, repr(group), "a group of the roster, such as board")
    return Governance(stricter, weaker, group, _people(claims["people"], f"{where}.people"))


def _path(node: Node, where: str) -> Path:
    fields = mapping(node, where, ("owners", "delay"))
    return Path(_people(fields["owners"], f"{where}.owners"), duration(fields["delay"], f"{where}.delay"))


def _people(node: Node, where: str) -> int:
    people = whole(node, where, MOST_APPROVALS)
    if people < 1:
        raise InvalidInput(where, Rule.THRESHOLD_OUT_OF_RANGE, str(people), "1 or more")
    return people
