# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shipped rules, one by one: what each lets through, and one base unit, second or word further what it does not."""

from collections import Counter
from typing import Any, Final

import pytest
from hypothesis import given

from custody.rules.approvals import Approver, satisfied
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.requirement import Decision, Outcome, displaying_floor
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.rules_model import Kind
from tests.unit.shipped import BTC, DAY, ROUTES, USD, facts, open_shipped
from tests.unit.test_policy_evaluate import transfers

PEOPLE: Final = {
    "ana": {"operations", "treasury"}, "bo": {"operations", "treasury"}, "cleo": {"risk"}, "dan": {"risk", "treasury"},
    "eve": {"executive"}, "fay": {"board"}, "gil": {"finance"}, "hana": {"compliance"},
}  # fmt: skip
"""The devnet's roster; `devnet.people` is the other room's."""

AUTO, REQUIRE, DENY = Outcome.AUTOMATIC, Outcome.REQUIRE, Outcome.DENY
K: Final = 1_000 * USD
CUSTOMER: Final[dict[str, Any]] = {}
OPERATOR: Final = {"role": Role.OPERATOR}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped one."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def decide(bundle: Bundle, route: str, **change: Any) -> Decision:
    """The decision about one transfer along a route."""
    return bundle.policy.evaluate(facts(**{**ROUTES[route], **change}))


def asks(decision: Decision) -> str | None:
    """What it asks for, in words."""
    return None if decision.requirement is None else str(decision.requirement)


SHOWN: Final = ", 1 by a key that displays"
DESKS: Final = f"1 of operations, 1 of risk, 1 of treasury{SHOWN}, after 1h"
EXECUTIVE: Final = f"1 of executive, 1 of operations, 1 of risk, 1 of treasury{SHOWN}, after 1d"
LARGE: Final = {"amount": 100 * BTC}


@pytest.mark.parametrize(
    ("change", "outcome", "asked"),
    [
        pytest.param({}, AUTO, "1 of operations, 1 of risk", id="small and own"),
        # automatic caps, each at its bound and one unit beyond
        pytest.param({"amount": BTC // 4}, AUTO, "1 of operations, 1 of risk", id="native cap"),
        pytest.param({"amount": BTC // 4 + 1}, REQUIRE, "1 of operations, 1 of risk", id="native cap and a satoshi"),
        pytest.param({"usd": 25 * K}, AUTO, "1 of operations, 1 of risk", id="USD cap"),
        pytest.param({"usd": 25 * K + 1}, REQUIRE, "1 of operations, 1 of risk", id="USD cap and a micro-USD"),
        pytest.param({"customer_24h": 50 * K}, AUTO, "1 of operations, 1 of risk", id="customer's day"),
        pytest.param(
            {"customer_24h": 50 * K + 1}, REQUIRE, "1 of operations, 1 of risk", id="customer's day and a micro-USD"
        ),
        pytest.param({"wallet_1h": 500 * K}, AUTO, "1 of operations, 1 of risk", id="wallet's hour"),
        pytest.param(
            {"wallet_1h": 500 * K + 1}, REQUIRE, "1 of operations, 1 of risk", id="wallet's hour and a micro-USD"
        ),
        pytest.param({"settled_24h": 250 * K}, AUTO, "1 of operations, 1 of risk", id="fresh inflow"),
        pytest.param(
            {"settled_24h": 250 * K + 1}, REQUIRE, "1 of operations, 1 of risk", id="fresh inflow and a micro-USD"
        ),
        pytest.param(
            {"initiator_24h": 2**256 - 1}, AUTO, "1 of operations, 1 of risk", id="the backend asks for many customers"
        ),
        pytest.param(
            OPERATOR, REQUIRE, "1 of compliance, 1 of operations, 1 of risk", id="R06, staff asks for a customer"
        ),
        # other assets carry their own native caps
        pytest.param({"asset": "ETH", "amount": 5 * 10**18}, AUTO, "1 of operations, 1 of risk", id="ETH cap"),
        pytest.param(
            {"asset": "ETH", "amount": 5 * 10**18 + 1}, REQUIRE, "1 of operations, 1 of risk", id="ETH cap and a wei"
        ),
        # bands
        pytest.param({"usd": 50 * K}, REQUIRE, "1 of operations, 1 of risk", id="R07, exactly 50k"),
        pytest.param({"usd": 50 * K + 1}, REQUIRE, "1 of operations, 1 of risk" + SHOWN, id="R07 above 50k"),
        pytest.param({"amount": BTC}, REQUIRE, "1 of operations, 1 of risk", id="R08, exactly a bitcoin"),
        pytest.param({"amount": BTC + 1}, REQUIRE, "1 of operations, 1 of risk" + SHOWN, id="R08, and a satoshi"),
        pytest.param({"usd": 100 * K - 1}, REQUIRE, "1 of operations, 1 of risk" + SHOWN, id="R01, a micro-USD below"),
        pytest.param({"usd": 100 * K}, REQUIRE, DESKS, id="R01 from 100k"),
        pytest.param({"customer_24h": 250 * K - 1}, REQUIRE, "1 of operations, 1 of risk", id="R03, a micro-USD below"),
        pytest.param({"customer_24h": 250 * K}, REQUIRE, DESKS, id="R03, a day's splitting"),
        pytest.param({"usd": 1000 * K - 1}, REQUIRE, DESKS, id="R02, a micro-USD below"),
        pytest.param({"usd": 1000 * K}, REQUIRE, EXECUTIVE, id="R02 from 1M"),
        pytest.param(
            {**OPERATOR, "initiator_24h": 500 * K},
            REQUIRE,
            f"1 of compliance, 1 of executive, 1 of operations, 1 of risk, 1 of treasury{SHOWN}, after 1h",
            id="R05, one member of staff",
        ),
        pytest.param(
            {**OPERATOR, "initiator_24h": 500 * K - 1},
            REQUIRE,
            "1 of compliance, 1 of operations, 1 of risk",
            id="R05, a micro-USD below",
        ),
        pytest.param(
            {"related_entity": True},
            REQUIRE,
            f"1 of board, 1 of compliance, 1 of executive, 1 of operations, 1 of risk{SHOWN}, after 1d",
            id="R04, affiliate",
        ),
        pytest.param({"usd": 5_000 * K}, REQUIRE, EXECUTIVE, id="P01's end"),
        pytest.param({"usd": 5_000 * K + 1}, DENY, None, id="P01's end and a micro-USD"),
        pytest.param(LARGE, REQUIRE, "1 of operations, 1 of risk" + SHOWN, id="largest withdrawal"),
        pytest.param({"amount": 100 * BTC + 1}, DENY, None, id="largest withdrawal and a satoshi"),
        pytest.param({"amount": 2**256 - 1, "usd": 1}, DENY, None, id="everything, at a price that lies"),
        pytest.param({"usd": 2**256 - 1}, DENY, None, id="beyond any value"),
    ],
)
def test_withdrawals(bundle: Bundle, change: dict[str, Any], outcome: Outcome, asked: str | None) -> None:
    """P01 with every cap and band at its bound."""
    decision = decide(bundle, "withdrawal", **change)
    assert (decision.outcome, asks(decision)) == (outcome, asked)


@pytest.mark.parametrize(
    ("route", "change", "outcome", "asked"),
    [
        pytest.param("rebalance into cold", {}, REQUIRE, "1 of operations, 1 of treasury", id="P02"),
        pytest.param(
            "rebalance into cold",
            {"role": Role.SYSTEM},
            REQUIRE,
            "1 of operations, 1 of treasury",
            id="P02, never automatic",
        ),
        pytest.param("rebalance into cold", {"usd": 100 * K}, REQUIRE, DESKS, id="P02 from 100k"),
        pytest.param("refill from cold", {}, REQUIRE, DESKS, id="P03"),
        pytest.param("refill from cold", {"role": Role.SYSTEM}, DENY, None, id="P03, a program asks"),
        pytest.param("refill from cold", {"amount": 25 * BTC}, REQUIRE, DESKS, id="P03, largest refill"),
        pytest.param("refill from cold", {"amount": 25 * BTC + 1}, DENY, None, id="P03, largest refill and a satoshi"),
        pytest.param(
            "refill from cold", {"amount": 1, "usd": 1}, REQUIRE, DESKS, id="P03, one satoshi is not automatic"
        ),
        pytest.param("refill from cold", {"usd": 1000 * K}, REQUIRE, EXECUTIVE, id="P03 from 1M"),
        pytest.param("cold sweep", {}, AUTO, "1 of operations, 1 of treasury", id="P04"),
        pytest.param("cold sweep", {"amount": BTC // 2}, AUTO, "1 of operations, 1 of treasury", id="P04, native cap"),
        pytest.param(
            "cold sweep", {"amount": BTC // 2 + 1}, REQUIRE, "1 of operations, 1 of treasury", id="P04, and a satoshi"
        ),
        pytest.param("cold sweep", {"usd": 50 * K}, AUTO, "1 of operations, 1 of treasury", id="P04, USD cap"),
        pytest.param(
            "cold sweep",
            {"usd": 50 * K + 1},
            REQUIRE,
            "1 of operations, 1 of treasury" + SHOWN,
            id="P04, and a micro-USD",
        ),
        pytest.param(
            "cold sweep", OPERATOR, REQUIRE, "1 of operations, 1 of treasury", id="P04, asked for by a person"
        ),
        pytest.param(
            "cold sweep", {"wallet_1h": 500 * K + 1}, REQUIRE, "1 of operations, 1 of treasury", id="P04, wallet's hour"
        ),
        pytest.param("cold sweep", {"role": Role.FINANCE_STAFF}, DENY, None, id="P04, finance asks"),
        pytest.param("fee sweep", {}, REQUIRE, "1 of risk, 1 of treasury", id="P05"),
        pytest.param("fee sweep", {"within_accrued_fees": False}, DENY, None, id="P05, beyond accrued fees"),
        pytest.param("fee sweep", {"from_tier": Tier.CUSTOMER_COLD}, DENY, None, id="P05, out of cold"),
        pytest.param("fee sweep", OPERATOR, DENY, None, id="P05, operations ask"),
        pytest.param("vendor payment", {}, REQUIRE, "1 of compliance, 1 of treasury", id="P06"),
        pytest.param("vendor payment", {"from_tier": Tier.CUSTOMER_HOT}, DENY, None, id="P06, with customer coins"),
        pytest.param("vendor payment", {"purpose": Purpose.FEE_SWEEP}, DENY, None, id="P06, under another name"),
        pytest.param("make whole", {}, REQUIRE, "1 of risk, 1 of treasury", id="P07"),
        pytest.param(
            "make whole", {"to_tier": Tier.CUSTOMER_COLD}, REQUIRE, "1 of risk, 1 of treasury", id="P07 into cold"
        ),
        pytest.param("make whole", {"role": Role.SYSTEM}, DENY, None, id="P07, a program asks"),
    ],
)
def test_the_company_and_the_wallets(
    bundle: Bundle, route: str, change: dict[str, Any], outcome: Outcome, asked: str | None
) -> None:
    """P02 to P07."""
    decision = decide(bundle, route, **change)
    assert (decision.outcome, asks(decision)) == (outcome, asked)


UNENROLLED: Final = {"enrolled": False, "owner": Owner.NOBODY, "dest_age": 0}
FLOAT: Final = {**ROUTES["fee sweep"], "within_accrued_fees": False}
CAP: Final = 100 * BTC


@pytest.mark.parametrize(
    ("rule", "route", "change", "beside"),
    [
        pytest.param("D01-sanctioned", "withdrawal", {"sanctioned": True}, {}, id="D01"),
        pytest.param("D01-sanctioned", "vendor payment", {"sanctioned": True}, {}, id="D01, vendor"),
        pytest.param(
            "D02-company-beyond-accrued-fees",
            "fee sweep",
            {"within_accrued_fees": False},
            {"within_accrued_fees": True},
            id="D02",
        ),
        pytest.param(
            "D02-company-beyond-accrued-fees",
            "vendor payment",
            {"from_tier": Tier.CUSTOMER_HOT},
            {},
            id="D02, customers pay a vendor",
        ),
        pytest.param("D03-cold-never-pays-the-company", "fee sweep", {"from_tier": Tier.CUSTOMER_COLD}, {}, id="D03"),
        pytest.param(
            "D04-hot-wallet-cap",
            "refill from cold",
            {"dest_balance_after": CAP + 1},
            {"dest_balance_after": CAP},
            id="D04",
        ),
        pytest.param(
            "D04-hot-wallet-cap",
            "make whole",
            {"dest_balance_after": CAP + 1},
            {"dest_balance_after": CAP},
            id="D04, make whole",
        ),
        pytest.param("D05-unenrolled", "withdrawal", UNENROLLED, {}, id="D05"),
        pytest.param("D05-unenrolled", "vendor payment", UNENROLLED, {}, id="D05, vendor"),
        pytest.param("D06-cooling-off", "withdrawal", {"dest_age": DAY - 1}, {"dest_age": DAY}, id="D06"),
        pytest.param("D06-cooling-off", "vendor payment", {"dest_age": DAY - 1}, {"dest_age": DAY}, id="D06, vendor"),
        pytest.param("D07-another-customer", "withdrawal", {"owner": Owner.ANOTHER_CUSTOMER}, {}, id="D07"),
        pytest.param("D08-cold-pays-nobody-outside", "withdrawal", {"from_tier": Tier.CUSTOMER_COLD}, {}, id="D08"),
        pytest.param(
            "D08-cold-pays-nobody-outside", "vendor payment", {"from_tier": Tier.CUSTOMER_COLD}, {}, id="D08, vendor"
        ),
        pytest.param("D09-company-pays-no-withdrawals", "withdrawal", {"from_tier": Tier.OPERATIONAL}, {}, id="D09"),
        pytest.param("D10-who-may-withdraw", "withdrawal", {"role": Role.FINANCE_STAFF}, OPERATOR, id="D10"),
        pytest.param("D10-who-may-withdraw", "withdrawal", {"role": Role.SYSTEM}, {}, id="D10, a program"),
        *(
            pytest.param("D11-customers-move-no-treasury", route, {"role": Role.CUSTOMER}, {}, id=f"D11, {route}")
            for route in ROUTES
            if route != "withdrawal"
        ),
    ],
)
def test_each_deny(bundle: Bundle, rule: str, route: str, change: dict[str, Any], beside: dict[str, Any]) -> None:
    """Denied by this rule; the transfer beside it is not."""
    denied = decide(bundle, route, **change)
    assert denied.outcome is DENY
    assert rule in denied.denied_by
    let_through = decide(bundle, route, **beside)
    assert let_through.outcome is not DENY
    assert rule not in let_through.matched


def test_every_rule_is_shown_to_matter(bundle: Bundle) -> None:
    """Each rule of the bundle matches somewhere in these tables' neighbourhood: none is dead."""
    matched: Counter[str] = Counter()
    changes: tuple[dict[str, Any], ...] = (
        {}, {"usd": 1000 * K}, {"amount": 2 * BTC}, {"customer_24h": 250 * K}, {"related_entity": True}, {"sanctioned": True}, UNENROLLED,
        OPERATOR, {**OPERATOR, "initiator_24h": 500 * K}, {"dest_age": 0}, {"dest_balance_after": CAP + 1}, FLOAT,
        {"owner": Owner.ANOTHER_CUSTOMER}, {"role": Role.CUSTOMER}, {"role": Role.SYSTEM}, *({"from_tier": t} for t in Tier),
    )  # fmt: skip
    for route in ROUTES:
        for change in changes:
            matched.update(decide(bundle, route, **change).matched)
    assert set(matched) == {rule.id for rule in bundle.rules}


CUSTOMER_TIERS: Final = (Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD)


@given(transfer=transfers())
def test_the_walls(bundle: Bundle, transfer: Facts) -> None:
    """What the claims of the next issue will prove, here on generated transfers."""
    decision = bundle.policy.evaluate(transfer)
    if decision.requirement is None:
        return
    if transfer.from_tier in CUSTOMER_TIERS:
        assert transfer.owner in (Owner.CUSTOMERS, Owner.THE_CUSTOMER) or transfer.within_accrued_fees
    if transfer.from_tier is Tier.CUSTOMER_COLD:
        assert (transfer.to, transfer.owner) == (Destination.INTERNAL_WALLET, Owner.CUSTOMERS)
        assert decision.outcome is REQUIRE
    assert not transfer.sanctioned
    assert transfer.usd is not None
    groups, people, delay = len(decision.requirement.approvals), decision.requirement.people, decision.requirement.delay
    for at_least, wanted in ((100 * K, (2, 3, 3600)), (1000 * K, (3, 4, 86_400))):
        if transfer.usd >= at_least or (transfer.related_entity and at_least > 100 * K):
            assert decision.outcome is REQUIRE
            assert (groups >= wanted[0], people >= wanted[1], delay >= wanted[2]) == (True, True, True)
    if transfer.related_entity:
        assert "board" in dict(decision.requirement.approvals)
    if transfer.related_entity or transfer.usd > 50 * K or transfer.from_tier is Tier.CUSTOMER_COLD:
        assert decision.requirement.displaying >= 1


def test_generated_transfers_are_not_all_refused(bundle: Bundle) -> None:
    """The properties above say something: along the routes all three outcomes are met, each permit among them."""
    plain = {route: decide(bundle, route) for route in ROUTES}
    assert {decision.outcome for decision in plain.values()} == {AUTO, REQUIRE}
    permits = {rule.id for rule in bundle.rules if rule.kind is Kind.PERMIT}
    assert {name for decision in plain.values() for name in decision.matched} == permits | {"R09-display-out-of-cold"}


WHO_ASKS: Final = {
    Role.CUSTOMER: ["backend"],
    Role.SYSTEM: ["matching"],
    Role.OPERATOR: [name for name, groups in PEOPLE.items() if "operations" in groups],
    Role.FINANCE_STAFF: [name for name, groups in PEOPLE.items() if "finance" in groups],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("usd", [1, 100 * K, 1000 * K])
@pytest.mark.parametrize("related", [False, True])
def test_somebody_can_approve(bundle: Bundle, route: str, role: Role, usd: int, related: bool) -> None:
    """The devnet's roster without the initiator fills every quorum that these rules ask for, the seats' floors included."""
    transfer = facts(
        **{**ROUTES[route], "role": role, "usd": usd, "related_entity": related, "initiator_24h": max(usd, 500 * K)}
    )
    decision = bundle.policy.evaluate(transfer)
    if decision.requirement is None:
        return
    assert transfer.from_tier
    least = bundle.floors.people_for(transfer.from_tier, "BTC", BTC * 3)
    requirement = decision.with_people(least, displaying_floor(transfer.from_tier)).requirement
    assert requirement
    everybody = frozenset(Approver(name, frozenset(groups), displays=True) for name, groups in PEOPLE.items())
    for initiator in WHO_ASKS[role]:
        assert not list(satisfied(requirement, everybody, initiator))
