# SPDX-License-Identifier: AGPL-3.0-or-later
"""A bundle in Cedar: one policy for each rule, axiom and `automatic_when`, and an entity for each asset, which holds its limits.

The purpose is the action, the asset the resource, the role the principal; everything else stands in the context. One request answers
everything: requires and automatic parts are permits that open nothing by themselves, which `told` reads. Cedar's numbers
have 64 bits: a limit beyond them is cut to the largest, which is the same to every amount that can be asked about, and an amount
beyond them cannot be asked about at all.
"""

import json
from collections.abc import Iterator
from typing import Final

import cedarpy

from custody.rules.facts import Facts
from custody.rules.requirement import Outcome
from policies.bundle import Bundle
from policies.rules_model import Comparator, Compared, Condition, Kind, LimitName, OneOf, Says
from policies.vocabulary import ATTRIBUTE, AXIOMS, Among, Axiom, Is, NotBelow
from tests.bench.engines import AXIOM, BY_ITSELF, SIGNS, WORD_MOST, Form, Told, asked_by, fits, plain

_NAMED: Final = {"purpose": ("action", "Action"), "asset": ("resource", "Asset"), "role": ("principal", "Role")}


def _words(fact: str, words: tuple[str | None, ...]) -> str:
    variable, kind = _NAMED.get(fact, (f"context.{ATTRIBUTE[fact]}", ""))
    said = [f'{kind}::"{word}"' if kind else f'"{word or "none"}"' for word in words]
    return f"{variable} == {said[0]}" if len(said) == 1 else f"[{', '.join(said)}].contains({variable})"


def _condition(condition: Condition) -> str:
    match condition:
        case OneOf(fact, words):
            return _words(fact, words)
        case Says(fact, value):
            return f"{'' if value else '!'}context.{ATTRIBUTE[fact]}"
        case Compared(fact, comparator, LimitName(name), _):
            if comparator not in (Comparator.AT_MOST, Comparator.MORE_THAN):
                raise ValueError(f"{condition}: a limit that was cut to {WORD_MOST} would mean something else")
            return f"context.{ATTRIBUTE[fact]} {SIGNS[comparator]} resource.{name}"
        case Compared(fact, comparator, int() as bound, _):
            if bound > WORD_MOST:
                return str(comparator.from_above).lower()
            return f"context.{ATTRIBUTE[fact]} {SIGNS[comparator]} {bound}"
    raise TypeError(condition)


def _clause(clause: Among | Is | NotBelow) -> str:
    match clause:
        case Among(fact, words):
            return _words(fact, words)
        case Is(fact, value):
            return f"{'' if value else '!'}context.{ATTRIBUTE[fact]}"
        case NotBelow(fact, least):
            return f"context.{ATTRIBUTE[fact]} >= {least if isinstance(least, int) else f'context.{ATTRIBUTE[least]}'}"


def _policies(bundle: Bundle) -> Iterator[str]:
    def policy(effect: str, name: str, conditions: tuple[Condition, ...]) -> str:
        purposes = [c.words for c in conditions if isinstance(c, OneOf) and c.fact == "purpose"]
        actions = ", ".join(f'Action::"{word}"' for words in purposes[:1] for word in words)
        scope = f"action in [{actions}]" if actions else "action"
        said = [_condition(c) for c in conditions if not (isinstance(c, OneOf) and c.fact == "purpose")]
        when = f" when {{ {' && '.join(said)} }}" if said else ""
        return f'@id("{name}")\n{effect} (principal, {scope}, resource){when};'

    for number, axiom in enumerate(AXIOMS):
        yield f'@id("{AXIOM}{number}")\nforbid (principal, action, resource) unless {{ {_axiom(axiom)} }};'
    for rule in bundle.rules:
        yield policy("forbid" if rule.kind is Kind.DENY else "permit", rule.id, rule.when)
        if rule.automatic_when:
            yield policy("permit", BY_ITSELF + rule.id, (*rule.when, *rule.automatic_when))


def _axiom(axiom: Axiom) -> str:
    then = _clause(axiom.then)
    return then if axiom.given is None else f"!({_clause(axiom.given)}) || {then}"


class Cedar:
    """A bundle as a parsed `PolicySet` and parsed entities, both reused for every request, as the binding advises."""

    def __init__(self, bundle: Bundle) -> None:
        self.text = "\n".join(_policies(bundle))
        self._rules = {rule.id: rule for rule in bundle.rules}
        self._policies = cedarpy.PolicySet.from_str(self.text)
        limits = {
            asset.symbol: {name: min(units[asset.symbol], WORD_MOST) for name, units in bundle.limits.items()}
            for asset in bundle.assets
        }
        rows = [{"uid": {"type": "Asset", "id": name}, "attrs": attrs, "parents": []} for name, attrs in limits.items()]
        self._entities = cedarpy.Entities.from_json_str(json.dumps(rows))

    def form(self, facts: Facts) -> Form | None:
        """See `Engine`."""
        row = plain(facts)
        if not fits(row):
            return None
        names = {variable: f'{kind}::"{row.pop(fact)}"' for fact, (variable, kind) in _NAMED.items()}
        return {**names, "context": row}

    def ask(self, form: Form) -> list[str]:
        """Ids of the policies that decided: permits, requires and automatic parts, or denies and axioms. See `Engine`."""
        answer = cedarpy.is_authorized(form, self._policies, self._entities)
        if answer.diagnostics.errors:  # Cedar would leave out the very forbid that failed, and allow
            raise RuntimeError(answer.diagnostics.errors)
        return [*answer.diagnostics.id_annotations_by_reason.values()]

    def told(self, answer: list[str]) -> Told:
        """Semantics 2 and 3 of the language, which Cedar has no words for; not counted against it."""
        found = [self._rules[name] for name in answer if name in self._rules]
        impossible = any(name.startswith(AXIOM) for name in answer)
        denies = frozenset(rule.id for rule in found if rule.kind is Kind.DENY)
        permits = [rule.id for rule in found if rule.kind is Kind.PERMIT]
        if impossible or denies or not permits:
            return Told(Outcome.DENY, impossible, frozenset() if impossible else denies)
        asked = any(rule.kind is Kind.REQUIRE for rule in found)
        automatic = not asked and all(BY_ITSELF + name in answer for name in permits)
        outcome = Outcome.AUTOMATIC if automatic else Outcome.REQUIRE
        return Told(outcome, False, frozenset(rule.id for rule in found), *asked_by(found))
