# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluates a bundle's rules over the facts of one transfer: order-free, most restrictive wins, deny by default.

Compiled once into closures over plain integers: no clock, no I/O, no parsing, exact to 2^256. A fact that is missing, of another
type or impossible beside the others denies before any rule is read, so no rule ever meets a half-known transfer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter, ge, gt, le, lt
from typing import Final

from custody.rules.amounts import UINT256_MAX, Assets
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.requirement import Decision, Floors, Outcome, Requirement, RuleWords, Unmet, stricter
from custody.rules.wallets import Tier
from custody.rules.words import span
from policies.rules_model import Comparator, Compared, Condition, Kind, LimitName, Limits, OneOf, PolicyRule
from policies.vocabulary import ATTRIBUTE, AXIOMS, VOCABULARY, Among, Axiom, Choice, Flag, Is, NotBelow

__all__ = ["Policy", "stricter"]

Test = Callable[[Facts], bool]

_ORDER: Final[dict[Comparator, Callable[[int, int], bool]]] = {
    Comparator.AT_MOST: le,
    Comparator.LESS_THAN: lt,
    Comparator.AT_LEAST: ge,
    Comparator.MORE_THAN: gt,
}
_TYPES: Final = {
    "from": Tier,
    "to": Destination,
    "to_tier": Tier,
    "owner": Owner,
    "purpose": Purpose,
    "role": Role,
    "asset": str,
}


@dataclass(frozen=True, slots=True)
class _Compiled:
    """One rule as closures, each beside the answer it gives where it does not hold."""

    rule: PolicyRule
    when: tuple[tuple[Test, Unmet], ...]
    automatic_when: tuple[tuple[Test, Unmet], ...]


class Policy:
    """One bundle's rules in force. Immutable; safe to share; the same facts give the same decision for ever."""

    def __init__(
        self, rules: tuple[PolicyRule, ...], limits: Limits, floors: Floors, assets: Assets, bundle: bytes
    ) -> None:
        self.rules = rules
        self.floors = floors
        self.hash = bundle
        self._limits = limits
        self._types = tuple(_type_test(name, frozenset(asset.symbol for asset in assets)) for name in VOCABULARY)
        self._axioms = tuple((_axiom_test(axiom), axiom.why) for axiom in AXIOMS)
        self._compiled = tuple(self._compile(rule) for rule in sorted(rules, key=lambda rule: rule.id))

    def words_of(self, rule: str) -> RuleWords | None:
        """See `PolicyInForce`."""
        found = next((known for known in self.rules if known.id == rule), None)
        if found is None:
            return None
        asks = str(Requirement(found.approvals, found.delay)) if found.approvals else ""
        return RuleWords(found.why, asks or (f"a delay of {span(found.delay)}" if found.delay else ""))

    def evaluate(self, facts: Facts) -> Decision:
        """Decide one transfer. Semantics 1 to 4 of the language; never raises for a fact, which denies instead."""
        if faults := self._faults(facts):
            return self._decide(Outcome.DENY, None, faults=faults)
        matched: list[PolicyRule] = []
        unmet: list[Unmet] = []
        automatic = True
        for compiled in self._compiled:
            first = _first_unmet(compiled.when, facts)
            if first is not None:
                unmet.append(first)
                continue
            matched.append(compiled.rule)
            if compiled.rule.kind is Kind.REQUIRE:
                automatic = False  # whatever asks for more asks for people
            elif compiled.rule.kind is Kind.PERMIT and compiled.automatic_when:
                first = _first_unmet(compiled.automatic_when, facts)
                if first is not None:
                    automatic = False
                    unmet.append(first)
            elif compiled.rule.kind is Kind.PERMIT:
                automatic = False
        return self._conclude(matched, unmet, automatic=automatic)

    def _conclude(self, matched: list[PolicyRule], unmet: list[Unmet], *, automatic: bool) -> Decision:
        ids = tuple(rule.id for rule in matched)
        denied_by = tuple(rule.id for rule in matched if rule.kind is Kind.DENY)
        permitted = any(rule.kind is Kind.PERMIT for rule in matched)
        if denied_by or not permitted:
            return self._decide(Outcome.DENY, None, matched=ids, denied_by=denied_by, unmet=tuple(unmet))
        groups: dict[str, int] = {}
        delay = 0
        for rule in matched:
            delay = max(delay, rule.delay)
            for group, needed in rule.approvals:
                groups[group] = max(needed, groups.get(group, 0))
        outcome = Outcome.AUTOMATIC if automatic else Outcome.REQUIRE
        return self._decide(outcome, Requirement(tuple(groups.items()), delay), matched=ids, unmet=tuple(unmet))

    def _decide(
        self,
        outcome: Outcome,
        requirement: Requirement | None,
        *,
        matched: tuple[str, ...] = (),
        denied_by: tuple[str, ...] = (),
        unmet: tuple[Unmet, ...] = (),
        faults: tuple[str, ...] = (),
    ) -> Decision:
        return Decision(outcome, requirement, matched, denied_by, unmet, faults, (self.hash,))

    def _faults(self, facts: Facts) -> tuple[str, ...]:
        if wrong := [fault for fault in (test(facts) for test in self._types) if fault]:
            return tuple(wrong)  # axioms are asked of well-typed facts only
        return tuple(why for holds, why in self._axioms if not holds(facts))

    def _compile(self, rule: PolicyRule) -> _Compiled:
        def part(name: str, conditions: tuple[Condition, ...]) -> tuple[tuple[Test, Unmet], ...]:
            return tuple((self._test(condition), Unmet(rule.id, name, str(condition))) for condition in conditions)

        return _Compiled(rule, part("when", rule.when), part("automatic_when", rule.automatic_when))

    def _test(self, condition: Condition) -> Test:
        if isinstance(condition, OneOf):
            return _among(condition.fact, condition.words)
        get = attrgetter(ATTRIBUTE[condition.fact])
        if not isinstance(condition, Compared):
            value = condition.value
            return lambda facts: get(facts) is value
        holds, bound = _ORDER[condition.comparator], condition.bound
        if isinstance(bound, LimitName):
            by_asset = self._limits[bound.name]
            return lambda facts: holds(get(facts), by_asset[facts.asset or ""])
        return lambda facts: holds(get(facts), bound)


def _first_unmet(conditions: tuple[tuple[Test, Unmet], ...], facts: Facts) -> Unmet | None:
    for test, unmet in conditions:
        if not test(facts):
            return unmet
    return None


def _among(fact: str, words: tuple[str | None, ...]) -> Test:
    get = attrgetter(ATTRIBUTE[fact])
    kind = _TYPES[fact]
    # Members of the enum itself: a tuple finds an identical one without hashing or comparing text.
    members = tuple(None if word is None else kind(word) for word in words)
    return lambda facts: get(facts) in members


def _type_test(name: str, symbols: frozenset[str]) -> Callable[[Facts], str | None]:
    """What is wrong with one fact by itself, or None. Types are exact: True is no amount and "usd" is no purpose."""
    get, fact = attrgetter(ATTRIBUTE[name]), VOCABULARY[name]

    def choice(facts: Facts) -> str | None:
        value = get(facts)
        if type(value) is _TYPES[name] and (name != "asset" or value in symbols):
            return None
        if value is None:
            return None if name == "to_tier" else f"{name} is not known"
        return f"{name} is no word of the vocabulary"

    def flag(facts: Facts) -> str | None:
        value = get(facts)
        return (
            None
            if type(value) is bool
            else f"{name} is not known"
            if value is None
            else f"{name} is neither true nor false"
        )

    def quantity(facts: Facts) -> str | None:
        value = get(facts)
        if type(value) is not int:
            return f"{name} is not known" if value is None else f"{name} is no whole number"
        return None if 0 <= value <= UINT256_MAX else f"{name} is not between 0 and 2^256 - 1"

    return choice if isinstance(fact, Choice) else flag if isinstance(fact, Flag) else quantity


def _axiom_test(axiom: Axiom) -> Test:
    then = _clause(axiom.then)
    if axiom.given is None:
        return then
    given = _clause(axiom.given)
    return lambda facts: not given(facts) or then(facts)


def _clause(clause: Among | Is | NotBelow) -> Test:
    get = attrgetter(ATTRIBUTE[clause.fact])
    if isinstance(clause, Among):
        return _among(clause.fact, clause.words)
    if isinstance(clause, Is):
        value = clause.value
        return lambda facts: get(facts) is value
    if isinstance(clause.least, int):
        least = clause.least
        return lambda facts: bool(get(facts) >= least)
    other = attrgetter(ATTRIBUTE[clause.least])
    return lambda facts: bool(get(facts) >= other(facts))
