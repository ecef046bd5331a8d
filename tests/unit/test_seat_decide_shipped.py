# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat under the shipped bundle: the facts that it builds by itself are ones that the real evaluator answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from custody.rules.parties import Parties
from custody.rules.refusals import Rule
from custody.rules.seat import decide
from custody.rules.seat_request import Plan, Policies
from custody.rules.wallets import Tier
from custody.seating import in_force
from tests.fakes.seat import BITCOIN
from tests.fakes.trust import PAYEE, Ask, build
from tests.unit.shipped import open_shipped, with_rules

BTC: Final = 10**8
PAID: Final = frozenset({PAYEE[BITCOIN.name].lower()})
COLD: Final[dict[str, Any]] = {"tier": Tier.CUSTOMER_COLD, "to_tier": Tier.CUSTOMER_HOT, "proposer": "desk"}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        pytest.param({"approvers": ()}, None, id="a small withdrawal goes by itself"),
        pytest.param({"both": {"amount": BTC}}, None, id="a large one with operations and risk"),
        pytest.param(
            {"both": {"amount": BTC}, "approvers": ()}, Rule.QUORUM_NOT_REACHED, id="a large one without people"
        ),
        pytest.param({"approvers": (), "parties": Parties(sanctioned=PAID)}, Rule.POLICY_DENIES, id="sanctioned"),
        pytest.param(
            {"approvers": (), "parties": Parties(addresses=PAID)},
            Rule.QUORUM_NOT_REACHED,
            id="an affiliate needs people",
        ),
        pytest.param(
            {"approvers": (), "parties": Parties(accounts=frozenset({"customer:ada"}))},
            Rule.QUORUM_NOT_REACHED,
            id="an affiliate's account needs people",
        ),
        pytest.param(
            {"approvers": (), "parties": Parties(accounts=frozenset({"customer:bo"}))},
            None,
            id="somebody else is listed",
        ),
        pytest.param(
            {"approvers": (), "facts": {"destination_first_seen": 0}}, Rule.POLICY_DENIES, id="a destination never seen"
        ),
        pytest.param({"approvers": (), "facts": {"usd": 0}}, Rule.FACT_UNKNOWN, id="a value of nothing"),
        pytest.param(
            {"approvers": (), "facts": {"destination_after": 1}},
            Rule.FACT_UNKNOWN,
            id="a destination that holds less than it got",
        ),
        pytest.param({"proposer": "finance"}, Rule.POLICY_DENIES, id="finance proposes a withdrawal"),
        pytest.param(
            {**COLD, "approvers": ("ana", "bo")}, Rule.QUORUM_NOT_REACHED, id="a refill with two people of three"
        ),
        pytest.param({**COLD, "approvers": ("ana", "bo", "cy")}, Rule.DELAY, id="a refill before its hour is over"),
    ],
)
def test_the_shipped_rules_decide(tmp_path: Path, fields: dict[str, Any], rule: Rule | None) -> None:
    """Bitcoin, so that no token's made-up contract matters."""
    shipped = open_shipped(tmp_path)
    bundle = replace(in_force(shipped), parties=fields.get("parties", Parties()))
    changes = {name: value for name, value in fields.items() if name != "parties"}
    ask = Ask(
        **{
            "chain": BITCOIN,
            "intent": {"policy": shipped.hash},
            "statement": {"policy": shipped.hash},
            "journal": lambda journal: replace(journal, policies=(shipped.hash,)),
            **changes,
        }
    )
    b = build(ask)
    answer = decide(b.request, b.decoded, b.journal, Policies(bundle, {}), b.now)
    if rule is None:
        assert isinstance(answer, Plan), [str(refusal) for refusal in answer]
    else:
        assert isinstance(answer, tuple)
        assert rule in {refusal.rule for refusal in answer}, [str(refusal) for refusal in answer]


def test_who_left_the_list_meanwhile(tmp_path: Path) -> None:
    """What was proposed while its payee was listed asks for what the list asked: the stricter of pinned and newest."""
    shipped = open_shipped(tmp_path)
    listed = replace(in_force(shipped), parties=Parties(addresses=PAID))
    rules = json.loads(json.dumps(shipped.documents["rules"]))["rules"]
    rules[0]["why"] += " Said otherwise."
    newest = replace(in_force(with_rules(shipped, rules)), parties=Parties())
    ask = Ask(
        chain=BITCOIN,
        approvers=(),
        intent={"policy": shipped.hash},
        statement={"policy": newest.hash},
        journal=lambda journal: replace(journal, policies=(shipped.hash, newest.hash)),
    )
    b = build(ask)
    answer = decide(b.request, b.decoded, b.journal, Policies(newest, {shipped.hash: listed}), b.now)
    assert isinstance(answer, tuple)
    assert Rule.QUORUM_NOT_REACHED in {refusal.rule for refusal in answer}
