# SPDX-License-Identifier: AGPL-3.0-or-later
"""A bundle in Rego: a set of what matched for each kind of rule, and out of them the outcome and who is asked, as our language has it.

Compiled once to a bundle with one entry point; limits and what each rule asks are data. Given as text, a number keeps all its digits;
given as a value, the binding wraps it at 2^63 without a word, so that a form with a larger one in it is not for `ask`.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import regopy

from custody.rules.facts import Facts
from custody.rules.requirement import Outcome
from policies.bundle import Bundle
from policies.rules_model import Compared, Condition, LimitName, OneOf, Says
from policies.vocabulary import ATTRIBUTE, AXIOMS, Among, Is, NotBelow
from tests.bench.engines import AXIOM, SIGNS, Form, Told, fits, plain

_ENTRY: Final = "bulkhead/decision"


def _words(fact: str, words: tuple[str | None, ...]) -> str:
    said = [json.dumps(str(word or "none")) for word in words]
    name = f"input.{ATTRIBUTE[fact]}"
    return f"{name} == {said[0]}" if len(said) == 1 else f"{name} in {{{', '.join(said)}}}"


def _condition(condition: Condition) -> str:
    match condition:
        case OneOf(fact, words):
            return _words(fact, words)
        case Says(fact, value):
            return f"input.{ATTRIBUTE[fact]} == {str(value).lower()}"
        case Compared(fact, comparator, LimitName(name), _):
            return f"input.{ATTRIBUTE[fact]} {SIGNS[comparator]} data.limits.{name}[input.asset]"
        case Compared(fact, comparator, int() as bound, _):
            return f"input.{ATTRIBUTE[fact]} {SIGNS[comparator]} {bound}"
    raise TypeError(condition)


def _clause(clause: Among | Is | NotBelow, *, broken: bool = False) -> str:
    match clause:
        case Among(fact, words):
            return ("not " if broken else "") + _words(fact, words)
        case Is(fact, value):
            return f"input.{ATTRIBUTE[fact]} == {str(value is not broken).lower()}"
        case NotBelow(fact, least):
            bound = least if isinstance(least, int) else f"input.{ATTRIBUTE[least]}"
            return f"input.{ATTRIBUTE[fact]} {'<' if broken else '>='} {bound}"


_MEANING: Final = """
denied if count(impossible) > 0
denied if count(deny) > 0
denied if count(permit) == 0
automatic if { not denied; count(require) == 0; count(permit - by_itself) == 0 }
asking := permit | require
outcome := "DENY" if denied
outcome := "AUTOMATIC" if automatic
outcome := "REQUIRE" if { not denied; not automatic }
decision := {"outcome": "DENY", "matched": asking | deny, "denied_by": deny, "impossible": impossible} if denied
decision := {"outcome": outcome, "matched": asking, "approvals": approvals, "delay": delay, "displaying": displaying} if not denied
approvals[group] := most if {
    some group in data.groups
    asks := [needed | some id in asking; needed := data.asks[id][group]]
    count(asks) > 0
    most := max(asks)
}
delay := max([data.delays[id] | some id in asking])
displaying := max([data.displaying[id] | some id in asking])
"""
"""Semantics 2 and 3 of the language."""


def _bodies(bundle: Bundle) -> Iterator[tuple[str, str, list[str]]]:
    """Set, member and conditions."""
    for number, axiom in enumerate(AXIOMS):
        given = [] if axiom.given is None else [_clause(axiom.given)]
        yield "impossible", f"{AXIOM}{number}", [*given, _clause(axiom.then, broken=True)]
    for rule in bundle.rules:
        yield str(rule.kind), rule.id, [_condition(condition) for condition in rule.when]
        if rule.automatic_when:
            yield "by_itself", rule.id, [_condition(condition) for condition in (*rule.when, *rule.automatic_when)]


class Rego:
    """A bundle compiled once; one interpreter, which gets an input for each query."""

    def __init__(self, bundle: Bundle) -> None:
        bodies = [f'{where} contains "{name}" if {{ {"; ".join(said)} }}' for where, name, said in _bodies(bundle)]
        self.text = "\n".join(("package bulkhead", "import rego.v1", *bodies, _MEANING))
        self._interpreter = regopy.Interpreter()
        self._interpreter.add_module("bulkhead.rego", self.text)
        asks = {rule.id: dict(rule.approvals) for rule in bundle.rules}
        data = {
            "limits": {name: dict(units) for name, units in bundle.limits.items()},
            "asks": asks,
            "groups": sorted({group for asked in asks.values() for group in asked}),
            "delays": {rule.id: rule.delay for rule in bundle.rules},
            "displaying": {rule.id: rule.displaying for rule in bundle.rules},
        }
        self._interpreter.add_data(data)
        self._compiled = self._interpreter.build(None, [_ENTRY])
        if not self._compiled.ok():
            raise RuntimeError("the bundle did not compile")

    def form(self, facts: Facts) -> Form | None:
        """See `Engine`."""
        row = plain(facts)
        return row if fits(row) else None

    def ask(self, form: Form) -> Any:
        """See `Engine`."""
        self._interpreter.set_input(regopy.Input(form))
        return self._answer()

    def ask_in_text(self, form: Form) -> Any:
        """The same with the input as text, which holds any number."""
        self._interpreter.set_input_term(json.dumps(form))
        return self._answer()

    def told(self, answer: Any) -> Told:
        """See `Engine`."""
        if answer["outcome"] == Outcome.DENY:
            impossible = bool(answer["impossible"])
            return Told(Outcome.DENY, impossible, frozenset() if impossible else frozenset(answer["denied_by"]))
        asked = frozenset(answer["approvals"].items())
        outcome, matched = Outcome(answer["outcome"]), frozenset(answer["matched"])
        return Told(outcome, False, matched, asked, answer["delay"], answer["displaying"])

    def _answer(self) -> Any:
        output = self._interpreter.query_bundle_entrypoint(self._compiled, _ENTRY)
        if not output.ok():
            raise RuntimeError(str(output))
        return output[0].expressions[0]
