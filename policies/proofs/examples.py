# SPDX-License-Identifier: AGPL-3.0-or-later
"""Concrete transfers out of formulas: the same one on every machine, small and round, replayed through the evaluator.

Which example is found depends on the question alone and on no version of the solver: each fact in turn takes its first value that
is possible (words in the vocabulary's order, flags at their harmless value, quantities at a bound of the rules or next to one, else
the least number there is). Two people who ask the same get the same report, byte for byte, and can sign its hash.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import z3  # type: ignore[import-untyped]

from custody.rules.amounts import UINT256_MAX
from custody.rules.errors import Unavailable
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.proofs.symbols import Transfer
from policies.rules_model import Compared, LimitName
from policies.vocabulary import ATTRIBUTE, VOCABULARY, Choice, Flag, Measure, Polarity, Quantity

TIMEOUT: Final = 30_000
"""Milliseconds for one question; more is unknown, and unknown is a failure of what was to be proved."""
_TYPES: Final = {
    "from": Tier,
    "to": Destination,
    "to_tier": Tier,
    "owner": Owner,
    "purpose": Purpose,
    "role": Role,
    "asset": str,
}
_USD: Final = 10**6
"""Micro-USD: a value that is not remarkable is shown as one dollar."""
_FIRST: Final = ("from", "to", "to_tier", "purpose", "owner", "role", "asset")


@dataclass(frozen=True)
class Space:
    """The possible transfers of some bundles: one symbolic transfer, and the numbers at which their rules change."""

    bundles: tuple[Bundle, ...]
    transfer: Transfer

    @cached_property
    def edges(self) -> Mapping[str, tuple[int, ...]]:
        """Quantity to the values worth showing: 1, every bound that a rule names, and those next to it; ascending."""
        found: dict[str, set[int]] = {name: {0, 1} for name, fact in VOCABULARY.items() if isinstance(fact, Quantity)}
        for bundle in self.bundles:
            for rule in bundle.rules:
                for condition in (*rule.when, *rule.automatic_when):
                    if isinstance(condition, Compared):
                        found[condition.fact] |= set(_bounds(bundle, condition))
            for bands in bundle.floors.people.values():
                found["amount"] |= {above for rows in bands.values() for above, _ in rows}
        usd = set().union(*(found[n] for n, f in VOCABULARY.items() if isinstance(f, Quantity) and f.measure == "USD"))
        native = found["amount"] | found["dest_balance_after"]
        shared = {"USD": usd, "the asset's own unit": native}
        return {
            name: tuple(sorted({min(max(0, edge + step), UINT256_MAX) for edge in edges for step in (-1, 0, 1)}))
            for name, own in found.items()
            for edges in [own | shared.get(_measure(name), set())]
        }


def _measure(name: str) -> str:
    fact = VOCABULARY[name]
    return fact.measure if isinstance(fact, Quantity) else ""


def _bounds(bundle: Bundle, condition: Compared) -> Iterable[int]:
    bound = condition.bound
    return bundle.limits[bound.name].values() if isinstance(bound, LimitName) else (bound,)


class Questions:
    """Asks a solver about one space. Raises Unavailable where the solver does not know: nobody may take that for a proof."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._solver = z3.SolverFor("QF_LIA")
        self._solver.set("timeout", TIMEOUT)
        self._solver.add(space.transfer.possible)

    @contextmanager
    def given(self, *formulas: z3.BoolRef) -> Iterator[None]:
        """What is taken for granted meanwhile."""
        self._solver.push()
        self._solver.add(*formulas)
        try:
            yield
        finally:
            self._solver.pop()

    def is_possible(self, *formulas: z3.BoolRef) -> bool:
        """Whether some possible transfer has all of these."""
        answer = self._solver.check(*formulas)
        if answer == z3.unknown:
            raise Unavailable("solver", self._solver.reason_unknown())
        return bool(answer == z3.sat)

    def example(self, *formulas: z3.BoolRef) -> Facts | None:
        """The first transfer that has all of these, in the order told above; None where there is none."""
        found = self.examples(self.space.transfer, *formulas)
        return found[0] if found else None

    def examples(self, other: Transfer, *formulas: z3.BoolRef) -> tuple[Facts, Facts] | None:
        """The first transfer of the space, and with it another one that shares some of its facts; None where there are none."""
        with self.given(*formulas):
            if not self.is_possible():
                return None
            return self._first(self.space.transfer), self._first(other)

    def _first(self, transfer: Transfer) -> Facts:
        found: dict[str, object] = {name: self._word(transfer, name) for name in _FIRST}
        for name, fact in VOCABULARY.items():
            if isinstance(fact, Flag):
                harmless = transfer.flags[name] == (not fact.tightens)
                found[name] = (not fact.tightens) if self._settle(harmless) else fact.tightens
                self._solver.add(transfer.flags[name] == found[name])
        for name, fact in VOCABULARY.items():
            if isinstance(fact, Quantity):
                found[name] = self._units(transfer, fact)
        return facts_of(found)

    def _settle(self, formula: z3.BoolRef) -> bool:
        possible = self.is_possible(formula)
        if possible:
            self._solver.add(formula)
        return possible

    def _word(self, transfer: Transfer, name: str) -> str | None:
        for place, word in enumerate(transfer.words[name]):
            if self._settle(transfer.choices[name] == place):
                return word
        raise Unavailable("solver", f"no word for {name}")  # not reached: one of them was possible together

    def _units(self, transfer: Transfer, fact: Quantity) -> int:
        units, edges = transfer.quantities[fact.name], self.space.edges[fact.name]
        ordered: Sequence[int] = edges if fact.polarity is Polarity.MORE else edges[::-1]
        if fact.measure is Measure.USD and self._settle(units == _USD):
            return _USD
        for edge in ordered:
            if self._settle(units == edge):
                return edge
        least, most = 0, UINT256_MAX
        while least < most:
            middle = (least + most) // 2
            least, most = (least, middle) if self.is_possible(units <= middle) else (middle + 1, most)
        self._solver.add(units == least)
        return least


def facts_of(values: Mapping[str, object]) -> Facts:
    """Facts out of values by the names of the vocabulary; words become members of their enumerations."""
    plain: dict[str, object] = {}
    for name, value in values.items():
        is_word = isinstance(VOCABULARY[name], Choice) and value is not None
        plain[ATTRIBUTE[name]] = _TYPES[name](value) if is_word else value
    return Facts(**plain)  # type: ignore[arg-type]
