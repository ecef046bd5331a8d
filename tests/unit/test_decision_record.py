# SPDX-License-Identifier: AGPL-3.0-or-later
"""Decisions and their records are quick because they remember; what is remembered is never another answer, nor another hash."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from custody.rules import decisions
from custody.rules.decisions import DecisionRecord, What, decided, hash_of, is_whole
from custody.rules.facts import Facts, Role
from custody.rules.requirement import Decision, Outcome, stricter
from policies import evaluate
from policies.bundle import Bundle
from policies.evaluate import Policy
from tests.bench.bench_policy import transfers
from tests.unit.shipped import ROUTES, USD, facts, open_shipped, with_rules

AT = 1_767_225_600
MANY = 1_500


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def some(bundle: Bundle) -> list[Facts]:
    """Transfers at bounds, possible and impossible ones, and those of every day."""
    return [*transfers(bundle, MANY), *(facts(**changes) for changes in ROUTES.values())]


def _new(bundle: Bundle) -> Policy:
    return Policy(bundle.rules, bundle.limits, bundle.floors, bundle.assets, bundle.hash)


def _by_hand(policies: list[Policy], transfer: Facts) -> Decision:
    """`decided` with nothing remembered, said in another way."""
    decision = policies[0].evaluate(transfer)
    for policy in policies[1:]:
        decision = stricter(decision, policy.evaluate(transfer))
    tier, asset, amount = transfer.from_tier, transfer.asset, transfer.amount
    assert tier is not None
    assert asset is not None
    assert amount is not None
    people = max(policy.floors.people_for(tier, asset, amount) for policy in policies)
    by_itself = tier == "customer_hot" and all(amount <= p.floors.automatic_most[asset] for p in policies)
    return (decision if by_itself else decision.by_people()).with_people(people)


def test_what_is_remembered_is_what_is_worked_out(bundle: Bundle, some: list[Facts]) -> None:
    """A policy that has seen thousands of transfers answers as one that has seen none, and so do two together."""
    rules: Any = bundle.documents["rules"]
    warm, other = _new(bundle), _new(with_rules(bundle, rules["rules"][1:]))
    for transfer in some:
        warm.evaluate(transfer)
    for transfer in Random(7).sample(some, 300):
        assert warm.evaluate(transfer) == _new(bundle).evaluate(transfer)
        assert decided([warm], transfer) == _by_hand([_new(bundle)], transfer)
        assert decided([warm, other], transfer) == _by_hand([warm, other], transfer)
        assert decided([warm, other], transfer) is decided([warm, other], transfer)


def test_forgetting_changes_nothing(bundle: Bundle, some: list[Facts], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memories that overflow at every turn."""
    expected = [DecisionRecord(decided([bundle.policy], t), t, AT, What.PROPOSED).to_json() for t in some]
    monkeypatch.setattr(evaluate, "_REMEMBERED", 2)
    monkeypatch.setattr(decisions, "_REMEMBERED", 2)
    policy = _new(bundle)
    assert [DecisionRecord(decided([policy], t), t, AT, What.PROPOSED).to_json() for t in some] == expected


def test_the_hash_is_of_the_canonical_json(bundle: Bundle, some: list[Facts]) -> None:
    """What was put together out of parts is what whoever checks a record hashes as a whole."""
    for number, transfer in enumerate(some):
        previous = bytes([number % 256]) * 32
        record = DecisionRecord(decided([bundle.policy], transfer), transfer, AT + number, What.AUTHORIZED, previous)
        body = record.to_json()
        assert is_whole(body)
        assert body["facts"] == transfer.to_json()
        assert {name: body[name] for name in record.decision.to_json()} == record.decision.to_json()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"amount": None}, id="a quantity is not known"),
        pytest.param({"usd": True}, id="a truth value for a quantity"),
        pytest.param({"usd": "6"}, id="text for a quantity"),
        pytest.param({"sanctioned": 0}, id="a number for a flag"),
        pytest.param({"sanctioned": None}, id="a flag is not known"),
        pytest.param({"role": "customer"}, id="text for a word"),
        pytest.param({"role": ["customer"]}, id="what cannot be looked up"),
        pytest.param({"asset": "\x00"}, id="the very text that keeps a place"),
        pytest.param({"asset": '%s"\\\u20ac'}, id="text that has to be escaped"),
    ],
)
def test_facts_that_are_none(bundle: Bundle, changes: dict[str, Any]) -> None:
    """They are denied, told as they are and hashed as a whole, whatever is remembered of facts that Python calls equal to them."""
    bundle.policy.evaluate(facts())
    transfer = facts(**changes)
    decision = bundle.policy.evaluate(transfer)
    assert decision.outcome is Outcome.DENY
    assert decision.faults
    assert bundle.policy.evaluate(facts()).outcome is Outcome.AUTOMATIC
    body = DecisionRecord(decision, transfer, AT, What.PROPOSED).to_json()
    assert body["facts"] == transfer.to_json()
    assert body["record"] == "0x" + hash_of(body).hex()


def test_a_decision_that_holds_a_kept_place_is_hashed_as_a_whole(bundle: Bundle) -> None:
    """Whatever text a decision has."""
    decision = replace(bundle.policy.evaluate(facts(role=Role.SYSTEM)), matched=("\x00", "%s"))
    assert is_whole(DecisionRecord(decision, facts(usd=USD), AT, What.PROPOSED).to_json())
