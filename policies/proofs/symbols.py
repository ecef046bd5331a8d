# SPDX-License-Identifier: AGPL-3.0-or-later
"""A transfer and a bundle's answer to it as formulas of linear integer arithmetic, from the evaluator's own lists.

Vocabulary, axioms, limits and rules are read from the places that `evaluate` reads; nothing about the language is said twice.
Choices are small integers (the place in the list of words), quantities whole numbers from 0 to 2^256 - 1, flags truth values.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import z3  # type: ignore[import-untyped]

from custody.rules.amounts import UINT256_MAX
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.rules_model import Comparator, Compared, Condition, Kind, LimitName, Limits, OneOf, PolicyRule, Says
from policies.vocabulary import AXIOMS, VOCABULARY, Among, Choice, Flag, Is, NotBelow

_NO_TIER: Final = None
_ALWAYS: Final = z3.And()
_NEVER: Final = z3.Or()
ROUTE: Final = ("from", "to", "to_tier", "owner", "purpose", "role")
"""The choices that say where coins go, for whom and who asks; what examples and reports are sorted by."""


class Transfer:
    """One transfer whose facts are all unknown, over these assets."""

    def __init__(self, symbols: Collection[str], name: str = "t") -> None:
        self.words = words_of(symbols)
        self.choices: dict[str, z3.ArithRef] = {}
        self.quantities: dict[str, z3.ArithRef] = {}
        self.flags: dict[str, z3.BoolRef] = {}
        bounds: list[z3.BoolRef] = []
        for fact in VOCABULARY.values():
            label = f"{name}.{fact.name}"
            if isinstance(fact, Choice):
                self.choices[fact.name] = code = z3.Int(label)
                bounds += [code >= 0, code < len(self.words[fact.name])]
            elif isinstance(fact, Flag):
                self.flags[fact.name] = z3.Bool(label)
            else:
                self.quantities[fact.name] = units = z3.Int(label)
                bounds += [units >= 0, units <= UINT256_MAX]
        self._bounds = z3.And(*bounds)

    @property
    def possible(self) -> z3.BoolRef:
        """Where no type and no axiom of the vocabulary is broken."""
        return z3.And(self._bounds, *(self._axiom(axiom.given, axiom.then) for axiom in AXIOMS))

    def but(self, *facts: str) -> "Transfer":
        """Another transfer that shares every fact with this one but these."""
        other, free = Transfer([symbol or "" for symbol in self.words["asset"]], "u"), set(facts)
        other.choices |= {name: code for name, code in self.choices.items() if name not in free}
        other.quantities |= {name: units for name, units in self.quantities.items() if name not in free}
        other.flags |= {name: flag for name, flag in self.flags.items() if name not in free}
        return other

    def among(self, fact: str, words: tuple[str | None, ...]) -> z3.BoolRef:
        """The fact is one of these words."""
        code, known = self.choices[fact], self.words[fact]
        return z3.Or(*(code == known.index(word) for word in words if word in known))

    def holds(self, condition: Condition, limits: Limits) -> z3.BoolRef:
        """One condition of a rule."""
        match condition:
            case OneOf(fact, words):
                return self.among(fact, words)
            case Says(fact, value):
                return self.flags[fact] if value else z3.Not(self.flags[fact])
            case Compared(fact, comparator, LimitName(name), _):
                by_asset = limits[name]
                return z3.And(
                    *(
                        z3.Implies(self.choices["asset"] == place, _compare(self.quantities[fact], comparator, units))
                        for place, symbol in enumerate(self.words["asset"])
                        if (units := by_asset.get(symbol or "")) is not None
                    )
                )
            case Compared(fact, comparator, int() as bound, _):
                return _compare(self.quantities[fact], comparator, bound)
        raise TypeError(f"no condition: {condition!r}")

    def all_hold(self, conditions: tuple[Condition, ...], limits: Limits) -> z3.BoolRef:
        """Every one of these conditions."""
        return z3.And(*(self.holds(condition, limits) for condition in conditions))

    def _axiom(self, given: Among | Is | None, then: Among | Is | NotBelow) -> z3.BoolRef:
        return self._clause(then) if given is None else z3.Implies(self._clause(given), self._clause(then))

    def _clause(self, clause: Among | Is | NotBelow) -> z3.BoolRef:
        if isinstance(clause, Among):
            return self.among(clause.fact, clause.words)
        if isinstance(clause, Is):
            return self.flags[clause.fact] == clause.value
        least = clause.least if isinstance(clause.least, int) else self.quantities[clause.least]
        return self.quantities[clause.fact] >= least


def words_of(symbols: Collection[str]) -> Mapping[str, tuple[str | None, ...]]:
    """Every choice with its words in a fixed order; `to_tier` may be none, `asset` takes these symbols."""
    found: dict[str, tuple[str | None, ...]] = {}
    for fact in VOCABULARY.values():
        if isinstance(fact, Choice):
            words: tuple[str | None, ...] = fact.words or tuple(sorted(symbols))
            found[fact.name] = (*words, _NO_TIER) if fact.name == "to_tier" else words
    return found


def _compare(units: z3.ArithRef, comparator: Comparator, bound: int) -> z3.BoolRef:
    match comparator:
        case Comparator.AT_MOST:
            return units <= bound
        case Comparator.LESS_THAN:
            return units < bound
        case Comparator.AT_LEAST:
            return units >= bound
        case Comparator.MORE_THAN:
            return units > bound


@dataclass(frozen=True)
class Answer:
    """What a bundle's rules answer to one symbolic transfer (semantics 1 to 4, as `Policy.evaluate`), and its seats' floors."""

    bundle: Bundle
    transfer: Transfer

    @cached_property
    def matches(self) -> Mapping[str, z3.BoolRef]:
        """Rule to whether it matches."""
        limits = self.bundle.limits
        return {rule.id: self.transfer.all_hold(rule.when, limits) for rule in self.bundle.rules}

    def _any(self, rules: list[PolicyRule]) -> z3.BoolRef:
        return z3.Or(*(self.matches[rule.id] for rule in rules))

    def _of(self, kind: Kind) -> list[PolicyRule]:
        return [rule for rule in self.bundle.rules if rule.kind is kind]

    @cached_property
    def denied(self) -> z3.BoolRef:
        """A deny matches, or no permit does."""
        return z3.Or(self._any(self._of(Kind.DENY)), z3.Not(self._any(self._of(Kind.PERMIT))))

    @cached_property
    def automatic(self) -> z3.BoolRef:
        """Not denied, no require matches, and every permit that matches lets it go by itself."""
        free = [
            z3.Implies(
                self.matches[rule.id],
                self.transfer.all_hold(rule.automatic_when, self.bundle.limits) if rule.automatic_when else _NEVER,
            )
            for rule in self._of(Kind.PERMIT)
        ]
        return z3.And(z3.Not(self.denied), z3.Not(self._any(self._of(Kind.REQUIRE))), *free)

    @cached_property
    def _asking(self) -> list[PolicyRule]:
        return [rule for rule in self.bundle.rules if rule.kind is not Kind.DENY]

    @cached_property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """Every group that some rule asks, and how many, ascending."""
        found: dict[str, set[int]] = {}
        for rule in self._asking:
            for group, needed in rule.approvals:
                found.setdefault(group, set()).add(needed)
        return {group: tuple(sorted(needed)) for group, needed in sorted(found.items())}

    def asks(self, group: str, needed: int) -> z3.BoolRef:
        """At least so many of a group are asked for."""
        return self._any([rule for rule in self._asking if dict(rule.approvals).get(group, 0) >= needed])

    @cached_property
    def delays(self) -> tuple[int, ...]:
        """Every delay of some rule in seconds, ascending."""
        return tuple(sorted({rule.delay for rule in self._asking if rule.delay}))

    def waits(self, seconds: int) -> z3.BoolRef:
        """At least so long a delay is asked for."""
        if seconds <= 0:
            return _ALWAYS
        return self._any([rule for rule in self._asking if rule.delay >= seconds])

    @cached_property
    def displayings(self) -> tuple[int, ...]:
        """Every number of keys that display which some rule asks for, ascending."""
        return tuple(sorted({rule.displaying for rule in self._asking if rule.displaying}))

    def shows(self, needed: int) -> z3.BoolRef:
        """At least so many approvals by keys that display are asked for."""
        if needed <= 0:
            return _ALWAYS
        return self._any([rule for rule in self._asking if rule.displaying >= needed])

    @cached_property
    def slots(self) -> z3.ArithRef:
        """People that the groups' thresholds ask for together; one person fills one slot."""
        return z3.Sum([z3.IntVal(0), *(self.count(group) for group in self.groups)])

    @cached_property
    def groups_asked(self) -> z3.ArithRef:
        """How many groups are asked."""
        return z3.Sum([z3.IntVal(0), *(z3.If(self.asks(group, 1), 1, 0) for group in self.groups)])

    def count(self, group: str) -> z3.ArithRef:
        """How many of a group are asked for."""
        count = z3.IntVal(0)
        for needed in self.groups[group]:
            count = z3.If(self.asks(group, needed), needed, count)
        return count

    @cached_property
    def floor(self) -> z3.ArithRef:
        """Distinct people that every seat asks for by tier and native amount, whatever rules say."""
        transfer, people = self.transfer, z3.IntVal(0)
        for tier in Tier:
            for symbol, bands in self.bundle.floors.people[tier].items():
                if symbol not in transfer.words["asset"]:
                    continue
                here = z3.And(transfer.among("from", (tier,)), transfer.among("asset", (symbol,)))
                for above, needed in bands:
                    people = z3.If(z3.And(here, transfer.quantities["amount"] > above), needed, people)
        return people
