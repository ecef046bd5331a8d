# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules that do nothing: a reviewer who reads one believes in a control that is not there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import z3  # type: ignore[import-untyped]

from policies.bundle import Bundle
from policies.limits import PLANNED
from policies.proofs.examples import Questions, Space
from policies.proofs.losses import losses
from policies.proofs.symbols import Answer, Transfer
from policies.rules_model import Compared, Kind, LimitName, PolicyRule
from policies.strict_yaml import Node


class Idleness(StrEnum):
    """Why something in a bundle does nothing."""

    DEAD = "dead"
    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    UNUSED = "unused"
    GUARD = "guard"
    """A deny that denies nothing which some permit opens today. It stands against a permit to come, and is no fault."""


@dataclass(frozen=True, slots=True)
class Idle:
    """One rule, part of a rule, or limit that does nothing, and why."""

    what: str
    idleness: Idleness
    why: str


def idle(bundle: Bundle) -> Iterator[Idle]:
    """Every rule that never matches, matches only what another one settles, or changes no answer; every limit that nobody names.

    Raises Unavailable where the solver does not know.
    """
    transfer = Transfer([asset.symbol for asset in bundle.assets])
    questions, answer = Questions(Space((bundle,), transfer)), Answer(bundle, transfer)
    for rule in bundle.rules:
        found = _rule(rule, bundle, answer, questions)
        if found is not None:
            yield found
        elif rule.automatic_when and not questions.is_possible(answer.automatic, answer.matches[rule.id]):
            yield Idle(f"{rule.id}.automatic_when", Idleness.DEAD, "nothing that matches it ever goes by itself")
    used = {name for rule in bundle.rules for name in _limits(rule)} | PLANNED
    for name in sorted(bundle.limits.keys() - used):
        yield Idle(f"limit {name}", Idleness.UNUSED, "no rule names it")


def _limits(rule: PolicyRule) -> Iterator[str]:
    for condition in (*rule.when, *rule.automatic_when):
        if isinstance(condition, Compared) and isinstance(condition.bound, LimitName):
            yield condition.bound.name


def _rule(rule: PolicyRule, bundle: Bundle, answer: Answer, questions: Questions) -> Idle | None:
    matches = answer.matches[rule.id]
    if not questions.is_possible(matches):
        return Idle(rule.id, Idleness.DEAD, "no transfer that is possible matches it")
    others = [other for other in bundle.rules if other.id != rule.id]
    if rule.kind is not Kind.DENY and not questions.is_possible(matches, z3.Not(answer.denied)):
        by = [
            other.id
            for other in others
            if other.kind is Kind.DENY and not questions.is_possible(matches, z3.Not(answer.matches[other.id]))
        ]
        return Idle(rule.id, Idleness.DEAD, f"everything that matches it is denied{': ' + ', '.join(by) if by else ''}")
    shade = next((other for other in others if _covers(other, rule, answer, questions)), None)
    if shade is not None:
        return Idle(rule.id, Idleness.SHADOWED, f"{shade.id} matches whenever it does, and asks at least as much")
    without = Answer(replace(bundle, documents=_but(bundle, rule)), answer.transfer)
    lost = (*losses(answer, without).values(), *losses(without, answer).values())
    if not questions.is_possible(z3.Or(*lost)):
        if rule.kind is Kind.DENY:
            return Idle(rule.id, Idleness.GUARD, "no permit opens what it denies; it stands against one to come")
        return Idle(rule.id, Idleness.REDUNDANT, "no answer is another one without it")
    return None


def _covers(other: PolicyRule, rule: PolicyRule, answer: Answer, questions: Questions) -> bool:
    """Whether one rule alone makes another of its kind needless: it matches wherever that one does, and asks no less."""
    if other.kind is not rule.kind or rule.kind is Kind.PERMIT:
        return False
    asks = dict(other.approvals)
    if (
        other.delay < rule.delay
        or other.displaying < rule.displaying
        or any(asks.get(group, 0) < needed for group, needed in rule.approvals)
    ):
        return False
    alike = not questions.is_possible(answer.matches[other.id], z3.Not(answer.matches[rule.id]))
    covered = not questions.is_possible(answer.matches[rule.id], z3.Not(answer.matches[other.id]))
    same = (other.approvals, other.displaying, other.delay) == (rule.approvals, rule.displaying, rule.delay)
    # of two that say the same, the later one is told
    return covered and not (alike and same and rule.id < other.id)


def _but(bundle: Bundle, rule: PolicyRule) -> dict[str, Node]:
    rules = bundle.documents["rules"]
    rows = rules["rules"] if isinstance(rules, dict) else []
    left: list[Node] = [row for row in rows if isinstance(row, dict) and row.get("id") != rule.id]
    return {**bundle.documents, "rules": {"vocabulary": "1", "rules": left}}
