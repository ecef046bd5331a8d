# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluates a bundle's rules over the facts of one transfer: order-free, most restrictive wins, deny by default.

Compiled once into closures and plain integers: no clock, no I/O, no parsing, exact to 2^256. A fact that is missing, of another
type or impossible beside the others denies before any rule is read, so no rule ever meets a half-known transfer.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Final, TypeVar

from custody.rules.amounts import UINT256_MAX, Assets
from custody.rules.facts import Facts
from custody.rules.requirement import Decision, Floors, Outcome, Requirement, RuleWords, Unmet, stricter
from custody.rules.words import span
from policies.fact_tests import Test, axiom_test, condition_test, type_test
from policies.rules_model import Comparator, Compared, Condition, Kind, LimitName, Limits, PolicyRule
from policies.vocabulary import ATTRIBUTE, AXIOMS, VOCABULARY, NotBelow, Quantity

__all__ = ["Policy", "stricter"]

_K = TypeVar("_K")
_V = TypeVar("_V")

_QUANTITIES: Final = tuple(name for name, fact in VOCABULARY.items() if isinstance(fact, Quantity))
_SETTLED: Final = tuple(ATTRIBUTE[name] for name in VOCABULARY if name not in _QUANTITIES)
_WORDS: Final = attrgetter(*_SETTLED)
_NUMBERS: Final = attrgetter(*(ATTRIBUTE[name] for name in _QUANTITIES))
_ORDERED: Final = tuple((number, axiom.then) for number, axiom in enumerate(AXIOMS) if isinstance(axiom.then, NotBelow))
if any(AXIOMS[number].given is not None for number, _ in _ORDERED):  # it would be asked of words alone, and remembered
    raise TypeError("an axiom that orders quantities holds always")
_AT_LEAST: Final = tuple(
    (number, _QUANTITIES.index(then.fact), then.least) for number, then in _ORDERED if isinstance(then.least, int)
)
_NOT_BELOW: Final = tuple(
    (number, _QUANTITIES.index(then.fact), _QUANTITIES.index(then.least))
    for number, then in _ORDERED
    if isinstance(then.least, str)
)
_FRAMES: Final = 4096
"""How many frames a policy remembers; beyond it the one that was asked for longest ago is worked out again."""
_REMEMBERED: Final = 1024
"""How many decisions, of all frames and of each, and sets of faults; beyond it all of these are forgotten."""
_HOLDS: Final = -1


@dataclass(frozen=True, slots=True)
class _Cut:
    """A comparison of a quantity, by its place among quantities: it holds where "less than this" is `below`."""

    quantity: int
    at: int
    below: bool
    place: int
    """Of the `Unmet` that is told where it does not hold."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What is left of one part of a rule once words and flags are known: comparisons, and what fails after them, if it does."""

    cuts: tuple[_Cut, ...]
    end: int

    def first_unmet(self, numbers: tuple[int, ...]) -> int:
        """The place of the first condition that does not hold, in the order of the rule; `_HOLDS` where all do."""
        for cut in self.cuts:
            if (numbers[cut.quantity] < cut.at) is not cut.below:
                return cut.place
        return self.end


@dataclass(frozen=True, slots=True)
class _Frame:
    """Everything about a transfer that its words and flags settle; the same for every amount, value and age.

    `broken` are the axioms that they break, `parts` all rules' parts in order. `cuts` are the numbers at which some comparison that is
    left changes, by quantity, ascending: a decision depends on nothing but which of them are passed, so it is remembered by that.
    """

    broken: tuple[int, ...]
    parts: tuple[_Open, ...]
    cuts: tuple[tuple[int, tuple[int, ...]], ...]
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
        self._symbols = frozenset(asset.symbol for asset in assets)
        self._types = tuple(type_test(name, self._symbols) for name in VOCABULARY)
        self._of_words = tuple(
            (number, axiom_test(axiom)) for number, axiom in enumerate(AXIOMS) if not isinstance(axiom.then, NotBelow)
        )
        self._ordered = tuple(sorted(rules, key=lambda rule: rule.id))
        self._unmet: list[Unmet] = []
        self._parts = tuple(
            tuple(self._compiled(rule, name, condition) for condition in getattr(rule, name))
            for rule in self._ordered
            for name in ("when", "automatic_when")
        )
        # typed: 1 is no flag and "usd" no purpose, though Python calls them equal
        self._frame = lru_cache(maxsize=_FRAMES, typed=True)(self._settle)
        self._decisions: dict[tuple[int, ...], Decision] = {}
        self._faulty: dict[tuple[int, ...], Decision] = {}

    def words_of(self, rule: str) -> RuleWords | None:
        """See `PolicyInForce`."""
        found = next((known for known in self.rules if known.id == rule), None)
        if found is None:
            return None
        if found.approvals:
            return RuleWords(found.why, str(Requirement(found.approvals, found.delay, displaying=found.displaying)))
        shown = [f"{found.displaying} by a key that displays"] if found.displaying else []
        waits = [f"a delay of {span(found.delay)}"] if found.delay else []
        return RuleWords(found.why, ", ".join(shown + waits))

    def evaluate(self, facts: Facts) -> Decision:
        """Decide one transfer. Semantics 1 to 4 of the language; never raises for a fact, which denies instead."""
        numbers = _NUMBERS(facts)
        for value in numbers:
            if type(value) is not int or not 0 <= value <= UINT256_MAX:
                return self._impossible(facts)
        try:
            frame = self._frame(*_WORDS(facts))
        except TypeError:  # what cannot even be looked up is no word
            frame = None
        if frame is None:
            return self._impossible(facts)
        broken = frame.broken
        for axiom, place, least in _AT_LEAST:
            if numbers[place] < least:
                broken += (axiom,)
        for axiom, place, other in _NOT_BELOW:
            if numbers[place] < numbers[other]:
                broken += (axiom,)
        if broken:
            return self._broken(broken)
        passed = tuple([bisect_right(cuts, numbers[place]) for place, cuts in frame.cuts])
        decision = frame.decisions.get(passed)
        return self._decided(frame, passed, numbers) if decision is None else decision

    def _decided(self, frame: _Frame, passed: tuple[int, ...], numbers: tuple[int, ...]) -> Decision:
        """A decision that this frame has not met; other frames may have, and then it is the very same one."""
        found = tuple([part.first_unmet(numbers) for part in frame.parts])
        decision = self._decisions.get(found)
        if decision is None:
            decision = self._conclude(found)
            _remember(self._decisions, found, decision)
        _remember(frame.decisions, passed, decision)
        return decision

    def _impossible(self, facts: Facts) -> Decision:
        """Facts that are missing or of another type."""
        faults = tuple(fault for fault in (test(facts) for test in self._types) if fault)
        return self._decide(Outcome.DENY, None, faults=faults)

    def _broken(self, axioms: tuple[int, ...]) -> Decision:
        """Facts that are impossible beside each other, by the axioms that they break."""
        decision = self._faulty.get(axioms)
        if decision is None:
            faults = tuple(AXIOMS[number].why for number in sorted(axioms))
            decision = self._decide(Outcome.DENY, None, faults=faults)
            _remember(self._faulty, axioms, decision)
        return decision

    def _settle(self, *words: object) -> _Frame | None:
        """What words and flags settle; None where one of them is of another type, or no word."""
        facts = Facts(**dict(zip(_SETTLED, words, strict=True)), **dict.fromkeys(_QUANTITIES, 0))  # type: ignore[arg-type]
        if any(test(facts) for test in self._types):
            return None
        broken = tuple(number for number, holds in self._of_words if not holds(facts))
        parts = tuple(self._open(part, facts) for part in self._parts)
        at: dict[int, set[int]] = {}
        for part in parts:
            for cut in part.cuts:
                at.setdefault(cut.quantity, set()).add(cut.at)
        cuts = tuple((quantity, tuple(sorted(numbers))) for quantity, numbers in sorted(at.items()))
        return _Frame(broken, parts, cuts, {})

    def _open(self, part: tuple[tuple[Test | dict[str, _Cut], int], ...], facts: Facts) -> _Open:
        cuts: list[_Cut] = []
        for test, place in part:
            if isinstance(test, dict):
                cuts.append(test[facts.asset or ""])
            elif not test(facts):
                return _Open(tuple(cuts), place)
        return _Open(tuple(cuts), _HOLDS)

    def _conclude(self, found: tuple[int, ...]) -> Decision:
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
        delay = displaying = 0
        for rule in matched:
            delay, displaying = max(delay, rule.delay), max(displaying, rule.displaying)
            for group, needed in rule.approvals:
                groups[group] = max(needed, groups.get(group, 0))
        outcome = Outcome.AUTOMATIC if automatic else Outcome.REQUIRE
        requirement = Requirement(tuple(groups.items()), delay, displaying=displaying)
        return self._decide(outcome, requirement, matched=ids, unmet=tuple(unmet))

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

    def _compiled(self, rule: PolicyRule, part: str, condition: Condition) -> tuple[Test | dict[str, _Cut], int]:
        """A test of a word or a flag, or each asset's comparison; with the place of what is told where it does not hold."""
        place = len(self._unmet)
        self._unmet.append(Unmet(rule.id, part, str(condition)))
        return (self._cuts(condition, place) if isinstance(condition, Compared) else condition_test(condition)), place

    def _cuts(self, condition: Compared, place: int) -> dict[str, _Cut]:
        bound, quantity = condition.bound, _QUANTITIES.index(condition.fact)
        units = self._limits[bound.name] if isinstance(bound, LimitName) else dict.fromkeys(self._symbols, bound)
        below = condition.comparator.from_above
        above = condition.comparator in (Comparator.AT_MOST, Comparator.MORE_THAN)  # the bound itself is still below
        return {symbol: _Cut(quantity, units[symbol] + above, below, place) for symbol in self._symbols}


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
