# SPDX-License-Identifier: AGPL-3.0-or-later
"""Semantics of evaluation: facts first, deny beats permit, the most restrictive wins, no order, exact to 2^256."""

from dataclasses import fields, replace
from itertools import product
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.amounts import UINT256_MAX
from custody.rules.errors import InvalidInput
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role, business_hours
from custody.rules.refusals import Rule
from custody.rules.requirement import MOST_APPROVALS, Decision, Outcome, Requirement, Unmet, stricter
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.evaluate import Policy
from policies.vocabulary import AXIOMS
from tests.unit.shipped import ROUTES, USD, facts, open_shipped, with_rules

WHY: Final = "A sentence that says why."
ROUTE: Final = {"from": ["customer_hot"], "to": ["customer_withdrawal"], "purpose": ["withdrawal"]}
CAPS: Final = {
    "amount": "at most limit auto_withdrawal",
    "usd": "at most 10,000 USD",
    "wallet_1h": "at most 20,000 USD",
}


def permit(name: str, approvals: list[str], automatic: dict[str, Any] | None = None, **when: Any) -> dict[str, Any]:
    """A permit for withdrawals."""
    rule = {"id": name, "kind": "permit", "why": WHY, "when": {**ROUTE, **when}, "approvals": approvals}
    return rule if automatic is None else {**rule, "automatic_when": automatic}


def require(name: str, approvals: list[str], delay: str = "1h", **when: Any) -> dict[str, Any]:
    """A require."""
    return {"id": name, "kind": "require", "why": WHY, "when": when, "approvals": approvals, "delay": delay}


def deny(name: str, **when: Any) -> dict[str, Any]:
    """A deny."""
    return {"id": name, "kind": "deny", "why": WHY, "when": when}


PERMIT: Final = permit("P01-one", ["1 of operations"], CAPS)
SECOND: Final = permit("P02-two", ["2 of risk"])
FREE: Final = permit("P03-three", ["1 of board"], CAPS)
MORE: Final = require("R01-more", ["2 of operations", "1 of risk"], usd="at least 5,000 USD")
TALL: Final = require("R00-tall", ["3 of risk"], "2d", usd="at least 6,000 USD")
LONG: Final = require("R02-long", ["1 of risk"], "24h", usd="at least 7,000 USD")
NEVER: Final = deny("D01-never", sanctioned="true")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped one."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize(
    ("rules", "change", "outcome", "asked"),
    [
        pytest.param([PERMIT], {}, Outcome.AUTOMATIC, "1 of operations", id="inside every cap"),
        pytest.param([PERMIT], {"usd": 10_001 * USD}, Outcome.REQUIRE, "1 of operations", id="beyond the USD cap"),
        pytest.param(
            [PERMIT], {"wallet_1h": 20_001 * USD}, Outcome.REQUIRE, "1 of operations", id="beyond the window's cap"
        ),
        pytest.param([PERMIT], {"amount": 25_000_001}, Outcome.REQUIRE, "1 of operations", id="beyond the native cap"),
        pytest.param([SECOND], {}, Outcome.REQUIRE, "2 of risk", id="no automatic_when"),
        pytest.param(
            [PERMIT, SECOND], {}, Outcome.REQUIRE, "1 of operations, 2 of risk", id="one permit is not automatic"
        ),
        pytest.param(
            [PERMIT, FREE], {}, Outcome.AUTOMATIC, "1 of board, 1 of operations", id="both permits are automatic"
        ),
        pytest.param(
            [PERMIT, MORE], {"usd": 4_999 * USD}, Outcome.AUTOMATIC, "1 of operations", id="require does not match"
        ),
        pytest.param(
            [PERMIT, MORE],
            {"usd": 5_000 * USD},
            Outcome.REQUIRE,
            "2 of operations, 1 of risk, after 1h",
            id="require ends automatic",
        ),
        pytest.param(
            [PERMIT, MORE, LONG],
            {"usd": 7_000 * USD},
            Outcome.REQUIRE,
            "2 of operations, 1 of risk, after 1d",
            id="maximum of each",
        ),
        pytest.param(
            [PERMIT, TALL, MORE, LONG],
            {"usd": 7_000 * USD},
            Outcome.REQUIRE,
            "2 of operations, 3 of risk, after 2d",
            id="maximum of each, whichever comes first",
        ),
        pytest.param([PERMIT, NEVER], {"sanctioned": True}, Outcome.DENY, None, id="deny beats permit"),
        pytest.param([PERMIT, MORE, NEVER], {"sanctioned": True}, Outcome.DENY, None, id="deny beats everything"),
        pytest.param([PERMIT], {"purpose": Purpose.VENDOR_PAYMENT}, Outcome.DENY, None, id="no permit"),
        pytest.param([MORE], {}, Outcome.DENY, None, id="a require permits nothing"),
        pytest.param([NEVER], {}, Outcome.DENY, None, id="a deny that does not match permits nothing"),
    ],
)
def test_the_most_restrictive_wins(
    bundle: Bundle, rules: list[dict[str, Any]], change: dict[str, Any], outcome: Outcome, asked: str | None
) -> None:
    """Semantics 2 and 3."""
    decision = with_rules(bundle, rules).policy.evaluate(facts(**change))
    assert decision.outcome is outcome
    assert (decision.requirement and str(decision.requirement)) == asked


def test_reasons_are_in_the_policys_own_words(bundle: Bundle) -> None:
    """Every matched rule, and for each other one its first unmet condition, the route first."""
    decision = with_rules(bundle, [PERMIT, SECOND, MORE, NEVER]).policy.evaluate(facts(usd=11_000 * USD))
    assert decision.matched == ("P01-one", "P02-two", "R01-more")
    assert decision.unmet == (
        Unmet("D01-never", "when", "sanctioned: true"),
        Unmet("P01-one", "automatic_when", "usd: at most 10,000 USD"),
    )
    assert str(decision.unmet[1]) == "P01-one (automatic_when): usd: at most 10,000 USD"


def test_why_it_was_denied(bundle: Bundle) -> None:
    """A deny names its rule, a missing permit the words that were not met, a missing fact the fact."""
    policy = with_rules(bundle, [PERMIT, NEVER, deny("D02-no", related_entity="true")]).policy
    denied = list(policy.evaluate(facts(sanctioned=True, related_entity=True)).refusals())
    assert [(r.rule, r.operands["policy_rule"]) for r in denied] == [
        (Rule.POLICY_DENIES, "D01-never"),
        (Rule.POLICY_DENIES, "D02-no"),
    ]
    (nothing,) = policy.evaluate(facts(purpose=Purpose.MAKE_WHOLE)).refusals()
    assert nothing.rule is Rule.NOTHING_PERMITS
    assert "P01-one: purpose: [withdrawal]" in str(nothing)
    (unknown,) = policy.evaluate(facts(sanctioned=None)).refusals()
    assert (unknown.rule, unknown.operands["fact"]) == (Rule.FACT_UNKNOWN, "sanctioned is not known")
    assert list(policy.evaluate(facts()).refusals()) == []


@pytest.mark.parametrize("name", [f.name for f in fields(Facts) if f.name != "to_tier"])
def test_a_missing_fact_denies(bundle: Bundle, name: str) -> None:
    """Each one, even where no rule would have looked at it."""
    decision = bundle.policy.evaluate(replace(facts(), **{name: None}))
    assert (decision.outcome, decision.matched, decision.unmet) == (Outcome.DENY, (), ())
    assert decision.faults == ({"from_tier": "from"}.get(name, name) + " is not known",)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"usd": 6000.0}, id="a float"),
        pytest.param({"usd": "6000"}, id="text for a number"),
        pytest.param({"amount": True}, id="a boolean for a number"),
        pytest.param({"amount": 2**256, "dest_balance_after": 2**256}, id="beyond 2^256"),
        pytest.param({"dest_age": -1}, id="an age below zero"),
        pytest.param({"settled_24h": -1}, id="a window below zero"),
        pytest.param({"sanctioned": 0}, id="a number for a flag"),
        pytest.param({"sanctioned": "false"}, id="text for a flag"),
        pytest.param({"from_tier": "customer_hot"}, id="text for a tier"),
        pytest.param({"purpose": Tier.CUSTOMER_HOT}, id="a tier for a purpose"),
        pytest.param({"asset": "DOGE"}, id="an asset that is not in the registry"),
        pytest.param({"asset": "btc"}, id="an asset in lower case"),
    ],
)
def test_a_fact_of_another_type_denies(bundle: Bundle, change: dict[str, Any]) -> None:
    """Types are exact, and nothing raises."""
    decision = bundle.policy.evaluate(facts(**change))
    assert decision.outcome is Outcome.DENY
    assert decision.faults


INTERNAL: Final = {"to": Destination.INTERNAL_WALLET, "purpose": Purpose.REBALANCE}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        pytest.param(
            {**INTERNAL, "owner": Owner.CUSTOMERS}, "an internal wallet has a tier", id="internal without tier"
        ),
        pytest.param({"to_tier": Tier.OPERATIONAL}, "only an internal wallet has a tier", id="outside with a tier"),
        pytest.param(
            {**INTERNAL, "to_tier": Tier.CUSTOMER_HOT, "owner": Owner.COMPANY},
            "a wallet of a customer tier is the customers'",
            id="hot as the company's",
        ),
        pytest.param(
            {**INTERNAL, "to_tier": Tier.OPERATIONAL, "owner": Owner.CUSTOMERS},
            "an operational wallet is the company's",
            id="operational as the customers'",
        ),
        pytest.param(
            {"owner": Owner.COMPANY},
            "a withdrawal address is a customer's or nobody's",
            id="company's withdrawal address",
        ),
        pytest.param(
            {"to": Destination.ALLOW_LISTED},
            "an allow-listed address is the company's or nobody's",
            id="customer on the allow-list",
        ),
        pytest.param({"enrolled": False}, "what nobody enrolled is nobody's", id="unenrolled with an owner"),
        pytest.param({"owner": Owner.NOBODY}, "what is nobody's is not enrolled", id="enrolled without an owner"),
        pytest.param(
            {"within_accrued_fees": True}, "only a fee sweep is within accrued fees", id="withdrawal within fees"
        ),
        pytest.param({"amount": 0, "dest_balance_after": 0}, "a transfer moves something", id="nothing moved"),
        pytest.param({"usd": 0}, "a value is rounded up, so it is never zero", id="a price of zero"),
        pytest.param(
            {"customer_24h": 5_999 * USD}, "a window includes this transfer (customer)", id="customer's window"
        ),
        pytest.param({"wallet_1h": 5_999 * USD}, "a window includes this transfer (wallet)", id="wallet's window"),
        pytest.param(
            {"initiator_24h": 5_999 * USD}, "a window includes this transfer (initiator)", id="initiator's window"
        ),
        pytest.param({"dest_balance_after": 1}, "a destination holds what it was paid", id="destination's balance"),
    ],
)
def test_facts_that_cannot_be_together_deny(bundle: Bundle, change: dict[str, Any], why: str) -> None:
    """Axioms: the evaluator checks what a prover assumes."""
    decision = bundle.policy.evaluate(facts(**change))
    assert decision.outcome is Outcome.DENY
    assert why in decision.faults
    assert why in {axiom.why for axiom in AXIOMS}


def test_exact_to_2_to_the_256(bundle: Bundle) -> None:
    """One base unit decides at the very end of the range; doubles and 64-bit integers would not see it."""
    last = {
        "rules": [
            permit(
                "P01-one",
                ["1 of risk"],
                asset=["BTC"],
                amount=f"at most {(2**256 - 2) // 10**8}.{(2**256 - 2) % 10**8:08d} BTC",
            )
        ]
    }
    policy = with_rules(bundle, last["rules"]).policy
    huge = {"usd": UINT256_MAX, "dest_balance_after": UINT256_MAX}
    assert policy.evaluate(facts(amount=2**256 - 2, **huge)).outcome is Outcome.REQUIRE
    assert policy.evaluate(facts(amount=2**256 - 1, **huge)).outcome is Outcome.DENY


@pytest.mark.parametrize(
    ("comparator", "below", "at", "above"),
    [
        pytest.param("at most", True, True, False, id="at most"),
        pytest.param("less than", True, False, False, id="less than"),
        pytest.param("at least", False, True, True, id="at least"),
        pytest.param("more than", False, False, True, id="more than"),
    ],
)
def test_each_comparison_at_its_bound(bundle: Bundle, comparator: str, below: bool, at: bool, above: bool) -> None:
    """A micro-USD on either side."""
    bound: dict[str, Any] = {"usd": f"{comparator} 6,000 USD"}
    capped = comparator in ("at most", "less than")
    rules = [permit("P01-one", ["1 of risk"], **bound)] if capped else [PERMIT, deny("D01-no", **bound)]
    matches = [
        rules[-1]["id"] in with_rules(bundle, rules).policy.evaluate(facts(usd=6_000 * USD + step)).matched
        for step in (-1, 0, 1)
    ]
    assert matches == [below, at, above]


AMOUNTS: Final = st.sampled_from(
    [1, 24_999_999, 25_000_000, 25_000_001, 10**10, 10**10 + 1, UINT256_MAX - 1, UINT256_MAX]
)
VALUES: Final = st.sampled_from(
    [b * USD + step for b in (1, 25_000, 50_000, 100_000, 250_000, 500_000, 10**6, 5 * 10**6) for step in (-1, 0, 1)]
    + [UINT256_MAX]
)

SMALL: Final = st.just(1_000 * USD)
RARELY: Final = st.sampled_from([False, False, False, True])


@st.composite
def transfers(draw: st.DrawFn) -> Facts:
    """Transfers along every route and across them, biased to the bounds; some are impossible."""
    route = draw(st.sampled_from(sorted(ROUTES)))
    usd, amount = draw(SMALL | VALUES), draw(st.just(1) | AMOUNTS)
    change: dict[str, Any] = {
        **ROUTES[route],
        "usd": usd,
        "amount": amount,
        "customer_24h": max(usd, draw(SMALL | VALUES)),
        "wallet_1h": max(usd, draw(SMALL | VALUES)),
        "initiator_24h": max(usd, draw(SMALL | VALUES)),
        "settled_24h": draw(SMALL | VALUES),
        "dest_balance_after": max(amount, draw(AMOUNTS)),
        "dest_age": draw(st.sampled_from([86_399, 86_400, 86_401, 10**7])),
        "related_entity": draw(RARELY),
        "sanctioned": draw(RARELY),
    }
    for name, kind in (("role", Role), ("purpose", Purpose), ("from_tier", Tier)):
        if draw(st.integers(0, 3)) == 0:
            change[name] = draw(st.sampled_from(list(kind)))
    return facts(**change)


@given(transfer=transfers(), seed=st.integers())
def test_the_order_of_rules_means_nothing(bundle: Bundle, transfer: Facts, seed: int) -> None:
    """Any shuffle of the shipped rules gives the same decision, its reasons included."""
    shuffled = list(bundle.rules)
    Random(seed).shuffle(shuffled)
    policy = Policy(tuple(shuffled), bundle.limits, bundle.floors, bundle.assets, bundle.hash)
    assert policy.evaluate(transfer) == bundle.policy.evaluate(transfer)


SEVERITY: Final = [Outcome.AUTOMATIC, Outcome.REQUIRE, Outcome.DENY]


def no_looser(one: Decision, other: Decision) -> bool:
    """Whether `other` asks for at least everything that `one` asks for."""
    if SEVERITY.index(other.outcome) < SEVERITY.index(one.outcome):
        return False
    if one.requirement is None or other.requirement is None:
        return other.requirement is None
    return one.requirement.joined(other.requirement) == other.requirement


@given(
    transfer=transfers(), name=st.sampled_from(["usd", "amount", "customer_24h", "wallet_1h", "initiator_24h", "settled_24h"]),
    value=VALUES | AMOUNTS,
)  # fmt: skip
def test_more_never_helps(bundle: Bundle, transfer: Facts, name: str, value: int) -> None:
    """The shipped rules are monotone in every quantity, windows raised along with what they include."""
    more = max(getattr(transfer, name), value)
    raised: dict[str, Any] = {name: more}
    if name == "usd":
        raised |= {w: max(more, getattr(transfer, w)) for w in ("customer_24h", "wallet_1h", "initiator_24h")}
    if name == "amount":
        raised["dest_balance_after"] = max(more, transfer.dest_balance_after or 0)
    assert no_looser(bundle.policy.evaluate(transfer), bundle.policy.evaluate(replace(transfer, **raised)))


@given(transfer=transfers(), name=st.sampled_from(["sanctioned", "related_entity"]))
def test_setting_a_flag_never_helps(bundle: Bundle, transfer: Facts, name: str) -> None:
    """A transfer that is found suspicious gets no easier."""
    clear, suspicious = (
        bundle.policy.evaluate(replace(transfer, **{name: value}))  # type: ignore[arg-type]
        for value in (False, True)
    )
    assert no_looser(clear, suspicious)


@given(transfer=transfers())
def test_nothing_out_of_cold_is_automatic(bundle: Bundle, transfer: Facts) -> None:
    """DESIGN.md, law 3."""
    cold = bundle.policy.evaluate(replace(transfer, from_tier=Tier.CUSTOMER_COLD))
    assert cold.outcome is not Outcome.AUTOMATIC


# The stricter of two


def decision(
    outcome: Outcome, groups: dict[str, int] | None = None, delay: int = 0, people: int = 0, name: bytes = b"a"
) -> Decision:
    """A decision by a made-up bundle."""
    requirement = None if groups is None else Requirement(tuple(groups.items()), delay, people)
    return Decision(outcome, requirement, ("P01-x",), (), (), (), (name * 32,))


def shown(needed: int) -> Decision:
    """As many of risk, each with a key that displays."""
    return replace(
        decision(Outcome.REQUIRE, {"risk": needed}), requirement=Requirement((("risk", needed),), displaying=needed)
    )


@pytest.mark.parametrize(
    ("one", "other", "outcome", "requirement"),
    [
        pytest.param(
            decision(Outcome.AUTOMATIC, {"risk": 1}), decision(Outcome.AUTOMATIC, {"risk": 1}), Outcome.AUTOMATIC,
            Requirement((("risk", 1),)), id="both automatic",
        ),
        pytest.param(
            decision(Outcome.AUTOMATIC, {"risk": 2}), decision(Outcome.REQUIRE, {"risk": 1, "board": 1}, 60), Outcome.REQUIRE,
            Requirement((("risk", 2), ("board", 1)), 60), id="one asks for people",
        ),
        pytest.param(
            decision(Outcome.REQUIRE, {"risk": 2}, 3600), decision(Outcome.REQUIRE, {"board": 1}, 60), Outcome.REQUIRE,
            Requirement((("risk", 2), ("board", 1)), 3600), id="groups of both, longer delay",
        ),
        pytest.param(
            decision(Outcome.REQUIRE, {"risk": 1}, 0, 4), decision(Outcome.REQUIRE, {"risk": 2}), Outcome.REQUIRE,
            Requirement((("risk", 2),), 0, 4), id="more people in all",
        ),
        pytest.param(
            shown(1), shown(2), Outcome.REQUIRE, Requirement((("risk", 2),), displaying=2), id="more keys that display",
        ),
        pytest.param(
            shown(1), decision(Outcome.REQUIRE, {"risk": 1}), Outcome.REQUIRE, Requirement((("risk", 1),), displaying=1),
            id="one asks for a key that displays",
        ),
        pytest.param(decision(Outcome.AUTOMATIC, {"risk": 1}), decision(Outcome.DENY), Outcome.DENY, None, id="one denies"),
    ],
)  # fmt: skip
def test_the_stricter_of_two(one: Decision, other: Decision, outcome: Outcome, requirement: Requirement | None) -> None:
    """The join of pinned and newest policy, either way around."""
    for joined in (stricter(one, other), stricter(other, one)):
        assert (joined.outcome, joined.requirement) == (outcome, requirement)
        assert no_looser(one, joined)
        assert no_looser(other, joined)


@given(a=transfers(), b=transfers(), c=transfers())
def test_stricter_is_a_join(bundle: Bundle, a: Facts, b: Facts, c: Facts) -> None:
    """Idempotent, commutative, associative, and never looser than either."""
    one, two, three = (bundle.policy.evaluate(transfer) for transfer in (a, b, c))
    assert stricter(one, one) == replace(one, unmet=tuple(sorted(one.unmet)))
    assert stricter(one, two) == stricter(two, one)
    assert stricter(stricter(one, two), three) == stricter(one, stricter(two, three))
    assert no_looser(one, stricter(one, two))


def test_both_bundles_are_told() -> None:
    """A record says by which hashes it was decided."""
    joined = stricter(decision(Outcome.REQUIRE, {"risk": 1}), decision(Outcome.REQUIRE, {"risk": 1}, name=b"b"))
    assert joined.bundles == (b"a" * 32, b"b" * 32)
    assert joined.to_json()["requirement"] == {"approvals": {"risk": 1}, "delay": 0, "people": 1}


def test_keys_that_display_in_a_record() -> None:
    """Said where some are asked for; left out where none, so that records of before read the same."""
    asked = Requirement((("risk", 2),), 60, displaying=1)
    assert str(asked) == "2 of risk, 1 by a key that displays, after 1min"
    assert asked.to_json() == {"approvals": {"risk": 2}, "delay": 60, "people": 2, "displaying": 1}
    assert "displaying" not in replace(asked, displaying=0).to_json()
    for requirement in (asked, replace(asked, displaying=0), Requirement((("risk", 1),), displaying=3)):
        assert Requirement.from_json(requirement.to_json()) == requirement
    assert Requirement((("risk", 1),), displaying=3).people == 3


@pytest.mark.parametrize(
    "displaying", [-1, True, MOST_APPROVALS + 1, 1.0], ids=["below zero", "true", "too many", "1.0"]
)
def test_displaying_is_a_small_number(displaying: Any) -> None:
    """Of approvals."""
    with pytest.raises(InvalidInput) as caught:
        Requirement((("risk", 1),), displaying=displaying)
    assert caught.value.rule == Rule.THRESHOLD_OUT_OF_RANGE


def test_automatic_falls_back_to_people() -> None:
    """A full counter, or a floor that asks for somebody, leaves the permit's own approvals."""
    automatic = decision(Outcome.AUTOMATIC, {"risk": 1, "operations": 1})
    assert automatic.by_people() == replace(automatic, outcome=Outcome.REQUIRE)
    assert automatic.with_people(0) is automatic
    assert automatic.with_people(3).outcome is Outcome.REQUIRE
    assert automatic.with_people(0, 1).outcome is Outcome.REQUIRE
    assert automatic.with_people(0, 1).requirement == Requirement((("risk", 1), ("operations", 1)), displaying=1)
    assert automatic.with_people(3).requirement == Requirement((("risk", 1), ("operations", 1)), people=3)
    assert decision(Outcome.DENY).with_people(3) == decision(Outcome.DENY)


@pytest.mark.parametrize(
    ("outcome", "groups"),
    [pytest.param(Outcome.REQUIRE, None, id="require"), pytest.param(Outcome.DENY, {"a": 1}, id="deny")],
)
def test_a_decision_cannot_contradict_itself(outcome: Outcome, groups: dict[str, int] | None) -> None:
    """A requirement stands exactly where something may happen."""
    with pytest.raises(InvalidInput):
        decision(outcome, groups)


@pytest.mark.parametrize(
    ("day", "time", "open_"),
    [
        pytest.param(5, 8 * 3600, True, id="Monday 08:00"),
        pytest.param(4, 8 * 3600, False, id="Sunday 08:00"),
        pytest.param(3, 12 * 3600, False, id="Saturday noon"),
        pytest.param(2, 18 * 3600 - 1, True, id="Friday 17:59:59"),
        pytest.param(2, 18 * 3600, False, id="Friday 18:00"),
        pytest.param(7, 8 * 3600 - 1, False, id="Wednesday 07:59:59"),
    ],
)
def test_business_hours(day: int, time: int, open_: bool) -> None:
    """Days after Thursday, 2026-01-01, seconds into the day, UTC; the week turns everywhere the same."""
    for week in product((0, 1, 500)):
        assert business_hours(1_767_225_600 + (day - 1) * 86_400 + week[0] * 604_800 + time) is open_
