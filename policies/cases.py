# SPDX-License-Identifier: AGPL-3.0-or-later
"""Cases beside the rules (`cases.yaml`): a transfer, and what the rules must answer. Not part of the bundle: nobody signs examples.

like:
  withdrawal: {from: customer_hot, to: customer_withdrawal, …}
cases:
  - case: a small withdrawal goes by itself
    like: withdrawal
    facts: {amount: 0.1 BTC, usd: "6,000 USD"}
    then: automatic                       # or denied, or {approvals: [1 of operations], displaying: 1 approval, delay: 1h}
    by: [P01]                             # rules that must have matched, by the beginning of their id; optional
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from custody.rules.errors import InvalidInput
from custody.rules.facts import Facts
from custody.rules.refusals import Rule
from custody.rules.requirement import Decision, Outcome, Requirement
from policies.bundle import Bundle
from policies.fact_files import read_facts
from policies.quantities import duration, text
from policies.rules_model import PolicyRule
from policies.rules_reader import read_approvals, read_displaying
from policies.shapes import below, mapping, rows
from policies.strict_yaml import Node
from policies.vocabulary import nearest

FILE: Final = "cases.yaml"
_ANSWERS: Final = {"automatic": Outcome.AUTOMATIC, "denied": Outcome.DENY}


@dataclass(frozen=True, slots=True)
class Case:
    """One transfer and the answer that is wanted: an outcome, and for `REQUIRE` exactly whom and how long."""

    name: str
    facts: Facts
    outcome: Outcome
    requirement: Requirement | None
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """A case and what came of it; `wrong` is empty where it is as wanted."""

    case: Case
    decision: Decision
    wrong: str


def read_cases(node: Node, bundle: Bundle, file: str = f"{FILE}:") -> tuple[Case, ...]:
    """Every case of a file. Raises InvalidInput for the first that is wrong."""
    fields = mapping(node, file, ("cases",), ("like",))
    likes = fields.get("like", {})
    if not isinstance(likes, dict):
        raise InvalidInput(below(file, "like"), Rule.MALFORMED, type(likes).__name__, "a mapping of transfers by name")
    found: dict[str, Case] = {}
    for position, row in enumerate(rows(fields["cases"], below(file, "cases"))):
        where = f"{below(file, 'cases')}[{position}]"
        case = _case(row, likes, bundle, where)
        if case.name in found:
            raise InvalidInput(f"{where}.case", Rule.NAME_REUSED, repr(case.name), "each case once")
        found[case.name] = case
    return tuple(found.values())


def _case(row: Node, likes: Mapping[str, Node], bundle: Bundle, where: str) -> Case:
    fields = mapping(row, where, ("case", "facts", "then"), ("like", "by"))
    like: Mapping[str, Node] = {}
    if "like" in fields:
        name = text(fields["like"], f"{where}.like")
        told = likes.get(name)
        if not isinstance(told, dict):
            raise InvalidInput(f"{where}.like", Rule.MALFORMED, repr(name), nearest(name, likes))
        like = told
    facts = read_facts(fields["facts"], bundle.assets, f"{where}.facts", like)
    by = tuple(text(rule, f"{where}.by") for rule in rows(fields["by"], f"{where}.by")) if "by" in fields else ()
    for named in by:
        if not any(rule.id.startswith(named) for rule in bundle.rules):
            raise InvalidInput(f"{where}.by", Rule.MALFORMED, repr(named), "the beginning of a rule's id")
    outcome, requirement = _answer(fields["then"], f"{where}.then")
    return Case(text(fields["case"], f"{where}.case"), facts, outcome, requirement, by)


def _answer(node: Node, where: str) -> tuple[Outcome, Requirement | None]:
    if isinstance(node, str):
        if node not in _ANSWERS:
            raise InvalidInput(where, Rule.MALFORMED, repr(node), "automatic, denied, or approvals with a delay")
        return _ANSWERS[node], None
    fields = mapping(node, where, ("approvals",), ("displaying", "delay"))
    delay = duration(fields["delay"], f"{where}.delay") if "delay" in fields else 0
    shown = read_displaying(fields["displaying"], f"{where}.displaying") if "displaying" in fields else 0
    approvals = read_approvals(fields["approvals"], f"{where}.approvals")
    return Outcome.REQUIRE, Requirement(approvals, delay, displaying=shown)


def run(cases: Iterable[Case], bundle: Bundle) -> tuple[Result, ...]:
    """Put every case to the evaluator."""
    return tuple(
        Result(case, told, _wrong(case, told)) for case in cases for told in [bundle.policy.evaluate(case.facts)]
    )


def _wrong(case: Case, told: Decision) -> str:
    wanted = f"{case.outcome}" if case.requirement is None else f"{case.outcome}: {case.requirement}"
    given = f"{told.outcome}" if told.requirement is None else f"{told.outcome}: {told.requirement}"
    if told.faults:
        return f"impossible facts: {'; '.join(told.faults)}"
    if told.outcome is not case.outcome or (case.requirement is not None and told.requirement != case.requirement):
        return f"wanted {wanted}, got {given}"
    missing = [name for name in case.by if not any(rule.startswith(name) for rule in told.matched)]
    return f"did not match: {', '.join(missing)}" if missing else ""


@dataclass(frozen=True, slots=True)
class Covered:
    """What cases show of one rule: that it matches, that it does not, and which of its conditions was never the one that failed."""

    rule: PolicyRule
    matched: bool
    unshown: tuple[str, ...]


def coverage(results: Iterable[Result], bundle: Bundle) -> tuple[Covered, ...]:
    """For each rule, what the cases leave unseen. A condition was seen where some case failed at it first."""
    found = list(results)
    matched = {name for result in found for name in result.decision.matched}
    failed = {(unmet.rule, unmet.part, unmet.condition) for result in found for unmet in result.decision.unmet}
    return tuple(
        Covered(
            rule,
            rule.id in matched,
            tuple(
                f"{part}: {condition}" if part != "when" else str(condition)
                for part, conditions in (("when", rule.when), ("automatic_when", rule.automatic_when))
                for condition in conditions
                if (rule.id, part, str(condition)) not in failed
            ),
        )
        for rule in bundle.rules
    )
