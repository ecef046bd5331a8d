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
from policies.vocabulary import ATTRIBUTE, AXIOMS, VOCABULARY, Among, Axiom, Choice, Flag, Is, NotBelow, Quantity

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


_WORDS: Final = attrgetter(*(ATTRIBUTE[name] for name, fact in VOCABULARY.items() if not isinstance(fact, Quantity)))
_NUMBERS: Final = attrgetter(*(ATTRIBUTE[name] for name, fact in VOCABULARY.items() if isinstance(fact, Quantity)))
_FRAMES: Final = 4096
_DECISIONS: Final = 1024
"""How many frames a policy remembers, and how many decisions each of them; beyond it all are forgotten and worked out again."""
_HOLDS: Final = -1


@dataclass(frozen=True, slots=True)
class _Open:
    """What is left of one part of a rule once words and flags are known: tests of quantities, and what fails after them, if it does.

    Each test stands beside the place of its `Unmet`, which is what is answered where it is the first that does not hold.
    """

    tests: tuple[tuple[Test, int], ...]
    end: int

    def first_unmet(self, facts: Facts) -> int:
        """The place of the first condition that does not hold, in the order of the rule; `_HOLDS` where all do."""
        for test, place in self.tests:
            if not test(facts):
                return place
        return self.end


@dataclass(frozen=True, slots=True)
class _Frame:
    """Everything about a transfer that its words and flags settle; the same for every amount, value and age.

    `parts` are all rules' parts in order, `left` those of them that quantities still decide. A decision depends on nothing but what
    these answer, so it is remembered by that.
    """

    possible: bool
    parts: tuple[_Open, ...]
    left: tuple[_Open, ...]
    decisions: dict[tuple[int, ...], Decision]


class Policy:
    """One bundle's rules in force. Immutable; safe to share; the same facts give the same decision for ever.

    What it remembers between transfers is a function of the bundle alone: it makes an answer quicker and never another one.
    """

    def __init__(
        self, rules: tuple[PolicyRule, ...], limits: Limits, floors: Floors, assets: Assets, bundle: bytes
    ) -> None:
        self.rules = rules
        self.floors = floors
        self.hash = bundle
        self._limits = limits
        self._types = tuple(_type_test(name, frozenset(asset.symbol for asset in assets)) for name in VOCABULARY)
        self._axioms = tuple((_axiom_test(axiom), axiom.why) for axiom in AXIOMS)
        self._of_numbers = tuple(_axiom_test(axiom) for axiom in AXIOMS if isinstance(axiom.then, NotBelow))
        self._of_words = tuple(_axiom_test(axiom) for axiom in AXIOMS if not isinstance(axiom.then, NotBelow))
        self._ordered = tuple(sorted(rules, key=lambda rule: rule.id))
        self._unmet: list[Unmet] = []
        self._parts = tuple(
            tuple(self._compiled(rule, name, condition) for condition in getattr(rule, name))
            for rule in self._ordered
            for name in ("when", "automatic_when")
        )
        self._frames: dict[object, _Frame] = {}

    def words_of(self, rule: str) -> RuleWords | None:
        """See `PolicyInForce`."""
        found = next((known for known in self.rules if known.id == rule), None)
        if found is None:
            return None
        asks = str(Requirement(found.approvals, found.delay)) if found.approvals else ""
        return RuleWords(found.why, asks or (f"a delay of {span(found.delay)}" if found.delay else ""))

    def evaluate(self, facts: Facts) -> Decision:
        """Decide one transfer. Semantics 1 to 4 of the language; never raises for a fact, which denies instead."""
        for value in _NUMBERS(facts):
            if type(value) is not int or not 0 <= value <= UINT256_MAX:
                return self._impossible(facts)
        frame = self._frame(facts)
        if frame is None or not frame.possible:
            return self._impossible(facts)
        for holds in self._of_numbers:
            if not holds(facts):
                return self._impossible(facts)
        found = tuple([part.first_unmet(facts) for part in frame.left])
        decision = frame.decisions.get(found)
        if decision is None:
            if len(frame.decisions) >= _DECISIONS:
                frame.decisions.clear()
            frame.decisions[found] = decision = self._conclude([part.first_unmet(facts) for part in frame.parts])
        return decision

    def _impossible(self, facts: Facts) -> Decision:
        """Facts that are missing, of another type, or impossible beside each other. Axioms are asked of well-typed facts only."""
        wrong = tuple(fault for fault in (test(facts) for test in self._types) if fault)
        faults = wrong or tuple(why for holds, why in self._axioms if not holds(facts))
        return self._decide(Outcome.DENY, None, faults=faults)

    def _frame(self, facts: Facts) -> _Frame | None:
        """What words and flags settle; None where one of them is of another type, or no word."""
        words = _WORDS(facts)
        key = (
            words,
            tuple(map(type, words)),
        )  # types too: 1 is no flag and "usd" no purpose, though Python calls them equal
        try:
            frame = self._frames.get(key)
        except TypeError:  # what cannot even be looked up is no word
            return None
        if frame is not None:
            return frame
        if any(test(facts) for test in self._types):
            return None
        parts = tuple(self._open(part, facts) for part in self._parts)
        frame = _Frame(
            all(holds(facts) for holds in self._of_words), parts, tuple(part for part in parts if part.tests), {}
        )
        if len(self._frames) >= _FRAMES:
            self._frames.clear()
        self._frames[key] = frame
        return frame

    def _open(self, part: tuple[tuple[Condition, Test, int], ...], facts: Facts) -> _Open:
        tests: list[tuple[Test, int]] = []
        for condition, test, place in part:
            if isinstance(condition, Compared):
                tests.append((test, place))
            elif not test(facts):
                return _Open(tuple(tests), place)
        return _Open(tuple(tests), _HOLDS)

    def _conclude(self, found: list[int]) -> Decision:
        """The decision by each part's first unmet condition, which is all that it depends on; two parts a rule, in order."""
        matched: list[PolicyRule] = []
        unmet: list[Unmet] = []
        automatic = True
        for rule, when, by_itself in zip(self._ordered, found[::2], found[1::2], strict=True):
            if when != _HOLDS:
                unmet.append(self._unmet[when])
                continue
            matched.append(rule)
            if rule.kind is Kind.REQUIRE:
                automatic = False  # whatever asks for more asks for people
            elif rule.kind is Kind.PERMIT and rule.automatic_when:
                if by_itself != _HOLDS:
                    automatic = False
                    unmet.append(self._unmet[by_itself])
            elif rule.kind is Kind.PERMIT:
                automatic = False
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

    def _compiled(self, rule: PolicyRule, part: str, condition: Condition) -> tuple[Condition, Test, int]:
        self._unmet.append(Unmet(rule.id, part, str(condition)))
        return condition, self._test(condition), len(self._unmet) - 1

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
