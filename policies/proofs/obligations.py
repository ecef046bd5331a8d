# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is proved of a bundle: its claims, and what every bundle owes, whatever its claims.

A proof is a question to which no transfer is an answer. Where one is, it is replayed through the evaluator: a counterexample that
the evaluator does not confirm means that proof and evaluation have parted, which is a failure too, and so is "not known".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import z3  # type: ignore[import-untyped]

from custody.rules.errors import Unavailable
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.requirement import Decision, Outcome
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.claims import Claim
from policies.proofs.examples import Questions, Space
from policies.proofs.losses import losses
from policies.proofs.symbols import Answer, Transfer
from policies.rules_model import Limits
from policies.vocabulary import VOCABULARY, Flag, Polarity, Quantity


@dataclass(frozen=True, slots=True)
class Example:
    """A transfer as evidence, and what the evaluator answers to it."""

    facts: Facts
    decision: Decision


@dataclass(frozen=True, slots=True)
class Proof:
    """One obligation and whether it holds; `examples` show why not, `trouble` says what could not be decided."""

    id: str
    says: str
    holds: bool
    examples: tuple[Example, ...] = ()
    trouble: str = ""


class Prover:
    """Proves things about one bundle. Every question is put to the same symbolic transfer."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        symbols = [asset.symbol for asset in bundle.assets]
        self.transfer = Transfer(symbols)
        self.answer = Answer(bundle, self.transfer)
        self.questions = Questions(Space((bundle,), self.transfer))

    def prove(self, before: Bundle | None = None) -> Iterator[Proof]:
        """Everything that is owed: the bundle's claims, those of the bundle before it too, then the built-ins.

        Old claims hold the new rules: who weakens a rule and its claim in one change is caught by the claim as it was.
        """
        own = self.bundle.claims
        for claim in own.each:
            yield from self._claim(claim, own.limits)
        if before is not None and before.documents["claims"] != self.bundle.documents["claims"]:
            for claim in before.claims.each:
                yield from self._claim(claim, before.claims.limits, " (as it was)")
        yield self._closed()
        yield from self._flags()
        yield from self._quantities()
        yield from self._walls()
        yield from self._alive()
        yield self._within_floors()

    # claims

    def _claim(self, claim: Claim, limits: Limits, suffix: str = "") -> Iterator[Proof]:
        when = self.transfer.all_hold(claim.when, limits)
        broken = z3.And(when, z3.Not(self.answer.denied))
        if not claim.denied:
            enough = z3.And(
                z3.Not(self.answer.automatic),
                self._people() >= claim.people,
                self.answer.groups_asked >= claim.groups,
                self.answer.shows(claim.displaying),
                self.answer.waits(claim.delay),
            )
            broken = z3.And(broken, z3.Not(enough))
        yield self._never(
            claim.id + suffix, claim.why, broken, lambda facts, told: _breaks(self.bundle, claim, facts, told)
        )
        yield self._some(f"{claim.id}.vacuity{suffix}", "The claim speaks of a transfer that is possible.", when)

    def _people(self) -> z3.ArithRef:
        return z3.If(self.answer.floor > self.answer.slots, self.answer.floor, self.answer.slots)

    # what every bundle owes

    def _closed(self) -> Proof:
        """Nothing but the vocabulary decides: two transfers with the same facts get the same answer, whoever is behind them."""
        known = {
            str(symbol)
            for part in (self.transfer.choices, self.transfer.quantities, self.transfer.flags)
            for symbol in part.values()
        }
        formulas = (self.answer.denied, self.answer.automatic, self.answer.slots == 0, self.answer.floor == 0)
        strange = sorted(set().union(*(_free(formula) for formula in formulas)) - known)
        return Proof(
            "B01-no-identities",
            "Nobody in particular is treated in another way: only facts of the vocabulary decide, and none of them names anybody.",
            not strange,
            trouble=", ".join(strange),
        )

    def _flags(self) -> Iterator[Proof]:
        for fact in VOCABULARY.values():
            if not isinstance(fact, Flag):
                continue
            other = self.transfer.but(fact.name, *_TIED.get(fact.name, ()))
            here, there = self.transfer.flags[fact.name], other.flags[fact.name]
            pair = z3.And(here == (not fact.tightens), there == fact.tightens)
            says = f"{fact.name}: {'true' if fact.tightens else 'false'} never helps a transfer."
            yield self._stricter(f"B02-flag-{fact.name.replace('_', '-')}", says, other, pair)

    def _quantities(self) -> Iterator[Proof]:
        quantities = [fact for fact in VOCABULARY.values() if isinstance(fact, Quantity)]
        for fact in quantities:
            says = f"{'More' if fact.polarity is Polarity.MORE else 'Less'} {fact.name} never helps a transfer."
            other = self.transfer.but(fact.name)
            yield self._stricter(f"B03-quantity-{fact.name.replace('_', '-')}", says, other, self._riskier(other, fact))
        other = self.transfer.but(*(fact.name for fact in quantities))
        both = z3.And(*(self._riskier(other, fact) for fact in quantities))
        yield self._stricter("B04-quantities-jointly", "No quantity makes up for another one.", other, both)

    def _riskier(self, other: Transfer, fact: Quantity) -> z3.BoolRef:
        here, there = self.transfer.quantities[fact.name], other.quantities[fact.name]
        return there >= here if fact.polarity is Polarity.MORE else there <= here

    def _stricter(self, name: str, says: str, other: Transfer, pair: z3.BoolRef) -> Proof:
        """That the other transfer of each such pair is answered at least as strictly."""
        lost = losses(self.answer, Answer(self.bundle, other))
        question = z3.And(other.possible, pair, z3.Or(*lost.values()))
        try:
            found = self.questions.examples(other, question)
        except Unavailable as error:
            return Proof(name, says, holds=False, trouble=str(error))
        return Proof(name, says, found is None, tuple(self._shown(facts) for facts in found or ()))

    def _walls(self) -> Iterator[Proof]:
        """No move, and no chain of moves, that carries customers' coins to the company beyond what it earned."""
        steps: dict[tuple[str, str], Facts] = {}
        try:
            for source in Tier:
                for target in (*Tier, _PAID):
                    facts = self.questions.example(self._step(source, target))
                    if facts is not None:
                        steps[source, target] = facts
        except Unavailable as error:
            yield Proof(_WALLS, _WALLS_SAYS, holds=False, trouble=str(error))
            return
        path = _path(steps)
        yield Proof(_WALLS, _WALLS_SAYS, not path, tuple(self._shown(steps[step]) for step in path))

    def _step(self, source: str, target: str) -> z3.BoolRef:
        """One move that is not denied, of coins beyond matured fees, into a tier or to an outsider whom the company pays."""
        transfer = self.transfer
        where = (
            transfer.among("owner", (Owner.COMPANY,))
            if target == _PAID
            else z3.And(transfer.among("to", (Destination.INTERNAL_WALLET,)), transfer.among("to_tier", (target,)))
        )
        outside = transfer.among("to_tier", (None,)) if target == _PAID else z3.And()
        earned = transfer.flags["within_accrued_fees"]
        return z3.And(transfer.among("from", (source,)), where, outside, z3.Not(earned), z3.Not(self.answer.denied))

    def _alive(self) -> Iterator[Proof]:
        """A bundle that denies everything keeps every claim. So each asset can still go each way that customers need."""
        for asset in self.bundle.assets:
            for name, words in _WAYS.items():
                way = [self.transfer.among(fact, (word,)) for fact, word in words.items()]
                here = self.transfer.among("asset", (asset.symbol,))
                enough = self.transfer.quantities["amount"] >= asset.dust
                says = f"{asset.symbol} can be {name}."
                question = z3.And(*way, here, enough, z3.Not(self.answer.denied))
                yield self._some(f"B06-{name}-{asset.symbol.lower()}", says, question)

    def _within_floors(self) -> Proof:
        """What goes by itself is within what seats let go by themselves; else each of it would wait for nobody, for ever."""
        most, transfer = self.bundle.floors.automatic_most, self.transfer
        beyond = z3.Or(
            *(
                z3.And(transfer.among("asset", (symbol,)), transfer.quantities["amount"] > units)
                for symbol, units in most.items()
            ),
            self.answer.floor > 0,
        )
        says = "Nothing goes by itself that every seat would refuse without people."
        return self._never(
            "B07-automatic-within-floors",
            says,
            z3.And(self.answer.automatic, beyond),
            lambda _facts, told: told.outcome is Outcome.AUTOMATIC,
        )

    # proofs of one transfer

    def _never(self, name: str, says: str, question: z3.BoolRef, confirms: Callable[[Facts, Decision], bool]) -> Proof:
        try:
            facts = self.questions.example(question)
        except Unavailable as error:
            return Proof(name, says, holds=False, trouble=str(error))
        if facts is None:
            return Proof(name, says, holds=True)
        shown = self._shown(facts)
        parted = "" if confirms(facts, shown.decision) else "the evaluator does not confirm this counterexample"
        return Proof(name, says, holds=False, examples=(shown,), trouble=parted)

    def _some(self, name: str, says: str, question: z3.BoolRef) -> Proof:
        try:
            possible = self.questions.is_possible(question)
        except Unavailable as error:
            return Proof(name, says, holds=False, trouble=str(error))
        return Proof(name, says, possible, trouble="" if possible else "no transfer is like this")

    def _shown(self, facts: Facts) -> Example:
        return Example(facts, self.bundle.policy.evaluate(facts))


_TIED: Final[Mapping[str, tuple[str, ...]]] = {"enrolled": ("owner",)}
"""Facts that an axiom changes together with a flag: what nobody enrolled is nobody's."""
_PAID: Final = "paid out"
_WALLS: Final = "B05-no-chain-to-the-company"
_WALLS_SAYS: Final = "No chain of moves carries customers' coins to the company, but for fees that matured."
_WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "withdrawn": {
        "from": Tier.CUSTOMER_HOT,
        "to": Destination.CUSTOMER_WITHDRAWAL,
        "owner": Owner.THE_CUSTOMER,
        "purpose": Purpose.WITHDRAWAL,
        "role": Role.CUSTOMER,
    },
    "swept": {"from": Tier.CUSTOMER_HOT, "to_tier": Tier.CUSTOMER_COLD},
    "refilled": {"from": Tier.CUSTOMER_COLD, "to_tier": Tier.CUSTOMER_HOT},
    "made-whole": {"from": Tier.OPERATIONAL, "to_tier": Tier.CUSTOMER_HOT, "purpose": Purpose.MAKE_WHOLE},
}


def _free(formula: z3.ExprRef) -> set[str]:
    """Names of every variable in a formula."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [formula]
    while waiting:
        part = waiting.pop()
        if part.get_id() in seen:
            continue
        seen.add(part.get_id())
        if z3.is_const(part) and part.decl().kind() == z3.Z3_OP_UNINTERPRETED:
            found.add(str(part))
        waiting += part.children()
    return found


def _path(steps: Mapping[tuple[str, str], Facts]) -> Sequence[tuple[str, str]]:
    """The shortest chain from a tier of customers to the company: its own tier, or somebody whom it pays."""
    waiting: list[tuple[tuple[str, str], ...]] = [
        (step,) for step in steps if step[0] in (Tier.CUSTOMER_COLD, Tier.CUSTOMER_HOT)
    ]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop(0)
        end = path[-1][1]
        if end in (Tier.OPERATIONAL, _PAID):
            return path
        if end not in seen:
            seen.add(end)
            waiting += [(*path, step) for step in steps if step[0] == end]
    return ()


def _breaks(bundle: Bundle, claim: Claim, facts: Facts, told: Decision) -> bool:
    """Whether the evaluator's own answer breaks a claim."""
    if told.requirement is None:
        return False
    if claim.denied or told.outcome is Outcome.AUTOMATIC:
        return True
    people = max(told.requirement.people, _floor(bundle, facts))
    asked, shown = told.requirement.approvals, told.requirement.displaying
    fewer = people < claim.people or len(asked) < claim.groups or shown < claim.displaying
    return fewer or told.requirement.delay < claim.delay


def _floor(bundle: Bundle, facts: Facts) -> int:
    if facts.from_tier is None or facts.asset is None or facts.amount is None:
        return 0
    return bundle.floors.people_for(facts.from_tier, facts.asset, facts.amount)
