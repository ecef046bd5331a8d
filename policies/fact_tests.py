# SPDX-License-Identifier: AGPL-3.0-or-later
"""What can be asked of a transfer's words and flags alone, as functions of its facts: types, axioms and conditions of rules."""

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from custody.rules.amounts import UINT256_MAX
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.wallets import Tier
from policies.rules_model import OneOf, Says
from policies.vocabulary import ATTRIBUTE, VOCABULARY, Among, Axiom, Choice, Flag, Is, NotBelow

Test = Callable[[Facts], bool]

_TYPES: Final = {
    "from": Tier,
    "to": Destination,
    "to_tier": Tier,
    "owner": Owner,
    "purpose": Purpose,
    "role": Role,
    "asset": str,
}


def condition_test(condition: OneOf | Says) -> Test:
    """Whether a condition holds of a word or a flag."""
    if isinstance(condition, OneOf):
        return _among(condition.fact, condition.words)
    get, value = attrgetter(ATTRIBUTE[condition.fact]), condition.value
    return lambda facts: get(facts) is value


def _among(fact: str, words: tuple[str | None, ...]) -> Test:
    get = attrgetter(ATTRIBUTE[fact])
    kind = _TYPES[fact]
    # Members of the enum itself: a tuple finds an identical one without hashing or comparing text.
    members = tuple(None if word is None else kind(word) for word in words)
    return lambda facts: get(facts) in members


def type_test(name: str, symbols: frozenset[str]) -> Callable[[Facts], str | None]:
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


def axiom_test(axiom: Axiom) -> Test:
    """Whether an axiom of words and flags holds. Raises TypeError for one that orders quantities."""
    then = _clause(axiom.then)
    if axiom.given is None:
        return then
    given = _clause(axiom.given)
    return lambda facts: not given(facts) or then(facts)


def _clause(clause: Among | Is | NotBelow) -> Test:
    if isinstance(clause, Among):
        return _among(clause.fact, clause.words)
    if isinstance(clause, NotBelow):
        raise TypeError(clause)
    get, value = attrgetter(ATTRIBUTE[clause.fact]), clause.value
    return lambda facts: get(facts) is value
