# SPDX-License-Identifier: AGPL-3.0-or-later
"""Evaluator and solver answer alike: thousands of transfers, most of them at or next to a bound, up to 2^256 - 1.

Each transfer is put to the evaluator, and to the very formulas that proofs are made of. `make soak` asks twenty times as many.
"""

import os
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import pytest
import z3  # type: ignore[import-untyped]

from custody.rules.amounts import UINT256_MAX
from custody.rules.facts import Facts
from custody.rules.requirement import Decision, Outcome
from policies.bundle import Bundle
from policies.proofs.examples import Space, facts_of
from policies.proofs.symbols import Answer, Transfer
from policies.vocabulary import ATTRIBUTE, VOCABULARY, Choice, Flag
from tests.unit.shipped import ROUTES, facts, open_shipped

MANY: Final = 100_000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 5_000
SOLVED: Final = 100
"""Every so many-th transfer is put to the solver's own simplifier too, which is slower by far."""
Values = dict[str, Any]
_OPERATIONS: Final[Mapping[int, Callable[[list[Any]], Any]]] = {
    z3.Z3_OP_TRUE: lambda _: True,
    z3.Z3_OP_FALSE: lambda _: False,
    z3.Z3_OP_AND: all,
    z3.Z3_OP_OR: any,
    z3.Z3_OP_NOT: lambda parts: not parts[0],
    z3.Z3_OP_IMPLIES: lambda parts: not parts[0] or parts[1],
    z3.Z3_OP_EQ: lambda parts: parts[0] == parts[1],
    z3.Z3_OP_LE: lambda parts: parts[0] <= parts[1],
    z3.Z3_OP_LT: lambda parts: parts[0] < parts[1],
    z3.Z3_OP_GE: lambda parts: parts[0] >= parts[1],
    z3.Z3_OP_GT: lambda parts: parts[0] > parts[1],
    z3.Z3_OP_ADD: sum,
    z3.Z3_OP_ITE: lambda parts: parts[1] if parts[0] else parts[2],
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def compiled(formula: z3.ExprRef) -> Callable[[Values], Any]:
    """A formula as a function of its variables, part by part; a kind of part that is not known fails."""
    if z3.is_int_value(formula):
        number = formula.as_long()
        return lambda _: number
    if z3.is_const(formula) and formula.decl().kind() == z3.Z3_OP_UNINTERPRETED:
        name = str(formula)
        return lambda values: values[name]
    operation, parts = _OPERATIONS[formula.decl().kind()], [compiled(part) for part in formula.children()]
    return lambda values: operation([part(values) for part in parts])


class Formulas:
    """A bundle's answer as formulas, compiled, and as the solver has them."""

    def __init__(self, bundle: Bundle) -> None:
        self.transfer = Transfer([asset.symbol for asset in bundle.assets])
        self.space = Space((bundle,), self.transfer)
        answer = Answer(bundle, self.transfer)
        self.formulas = {
            "possible": self.transfer.possible,
            "denied": answer.denied,
            "automatic": answer.automatic,
            "slots": answer.slots,
            **{f"of {group}": answer.count(group) for group in answer.groups},
            **{f"waits {seconds}": answer.waits(seconds) for seconds in answer.delays},
            **{f"shows {needed}": answer.shows(needed) for needed in answer.displayings},
        }
        self.functions = {name: compiled(formula) for name, formula in self.formulas.items()}
        self.delays, self.groups, self.displayings = answer.delays, tuple(answer.groups), answer.displayings

    def codes(self, values: Values) -> Values:
        """The variables' values: words by their place."""
        places = {name: self.transfer.words[name].index(values[name]) for name in self.transfer.choices}
        return {f"t.{name}": value for name, value in {**values, **places}.items()}

    def answers(self, values: Values) -> dict[str, Any]:
        """What the formulas say to a transfer."""
        codes = self.codes(values)
        return {name: function(codes) for name, function in self.functions.items()}

    def solved(self, values: Values) -> dict[str, Any]:
        """The same by the solver's simplifier."""
        codes = self.codes(values)
        pairs = [
            (symbol, z3.BoolVal(codes[str(symbol)]) if z3.is_bool(symbol) else z3.IntVal(codes[str(symbol)]))
            for part in (self.transfer.choices, self.transfer.quantities, self.transfer.flags)
            for symbol in part.values()
        ]
        told = {name: z3.simplify(z3.substitute(formula, *pairs)) for name, formula in self.formulas.items()}
        return {name: value.as_long() if z3.is_int(value) else z3.is_true(value) for name, value in told.items()}


def some_transfer(random: Random, formulas: Formulas) -> Values:
    """Facts of a transfer, mostly possible ones: words at random, numbers at a bound, next to one, huge or small."""
    values: Values = {}
    for name, fact in VOCABULARY.items():
        if isinstance(fact, Choice):
            values[name] = random.choice(formulas.transfer.words[name])
        elif isinstance(fact, Flag):
            values[name] = random.random() < (0.1 if fact.tightens else 0.9)
        else:
            kind = random.random()
            if kind < 0.75:
                values[name] = random.choice(formulas.space.edges[name])
            else:
                values[name] = random.choice(
                    (0, 1, UINT256_MAX, random.randrange(10**13), random.randrange(UINT256_MAX))
                )
    if random.random() < 0.6:  # a transfer of every day, with some of its facts changed: else hardly any were permitted
        usual = facts(**random.choice([*ROUTES.values()]))
        for name in VOCABULARY:
            if random.random() < 0.8:
                values[name] = getattr(usual, ATTRIBUTE[name])
    if random.random() < 0.9:  # what axioms tie together, or hardly a transfer would be possible
        internal = values["to"] == "internal_wallet"
        values["to_tier"] = random.choice(formulas.transfer.words["to_tier"][:-1]) if internal else None
        if internal:
            values["owner"], values["enrolled"] = (
                ("company" if values["to_tier"] == "operational" else "customers"),
                True,
            )
        elif values["owner"] == "customers":
            values["owner"] = "the_customer" if values["to"] == "customer_withdrawal" else "company"
        values["enrolled"] = values["enrolled"] and values["owner"] != "nobody"
        values["within_accrued_fees"] = values["within_accrued_fees"] and values["purpose"] == "fee_sweep"
        for window in ("customer_24h", "wallet_1h", "initiator_24h"):
            values[window] = max(values[window], values["usd"])
        values["dest_balance_after"] = max(values["dest_balance_after"], values["amount"])
    return values


def expected(decision: Decision, formulas: Formulas) -> dict[str, Any]:
    """What the formulas have to say, by the evaluator."""
    if decision.faults:
        return {"possible": False}
    if decision.requirement is None:
        return {"possible": True, "denied": True, "automatic": False}
    asked = decision.requirement
    return {
        "possible": True,
        "denied": False,
        "automatic": decision.outcome is Outcome.AUTOMATIC,
        "slots": sum(needed for _, needed in asked.approvals),
        **{f"of {group}": dict(asked.approvals).get(group, 0) for group in formulas.groups},
        **{f"waits {seconds}": asked.delay >= seconds for seconds in formulas.delays},
        **{f"shows {needed}": asked.displaying >= needed for needed in formulas.displayings},
    }


def test_they_agree(bundle: Bundle) -> None:
    """On every part of the answer, of every transfer; enough of each outcome that it means something."""
    formulas, random = Formulas(bundle), Random(20_260_101)
    seen = dict.fromkeys(("impossible", *Outcome), 0)
    for number in range(MANY):
        values = some_transfer(random, formulas)
        transfer: Facts = facts_of(values)
        decision = bundle.policy.evaluate(transfer)
        wanted, told = expected(decision, formulas), formulas.answers(values)
        assert {name: told[name] for name in wanted} == wanted, transfer
        if number % SOLVED == 0:
            solved = formulas.solved(values)
            assert {name: solved[name] for name in wanted} == wanted, transfer
        seen["impossible" if decision.faults else decision.outcome] += 1
    assert min(seen.values()) >= MANY // 500, seen
