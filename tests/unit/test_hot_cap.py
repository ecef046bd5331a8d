# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shipped bundle's levels of hot wallets: read strictly, and a cap that nobody's approval lifts, at authorize and at a seat."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from custody.flows.authorization import SigningPermit, Withheld
from custody.rules.errors import InvalidInput
from custody.rules.hot_bands import HotBand
from custody.rules.refusals import Rule
from custody.rules.seat import decide
from custody.rules.seat_request import Plan, Policies
from custody.rules.transfers import Status, SubStatus
from custody.rules.wallets import Tier
from custody.seating import in_force
from policies.bundle import Bundle, from_json
from policies.rules_model import Comparator, Compared, Kind, LimitName
from tests.fakes.seat import BITCOIN, NOW
from tests.fakes.treasury import AVAILABLE, Treasury, deposit, inside, kernel
from tests.fakes.trust import ASSETS, BTC, Ask, build
from tests.unit.shipped import open_shipped

COIN: Final = 10**8
CAP: Final = 100 * COIN
EVERYBODY: Final = ("ana", "bo", "cy")
"""Treasury, risk and operations: all that a refill asks for, and every person who may approve one."""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped one."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def test_the_levels_are_read(shipped: Bundle) -> None:
    """Exact to the base unit, for every asset, and handed to whoever judges."""
    assert shipped.hot["BTC"] == HotBand(5 * COIN, 25 * COIN, CAP, 25 * COIN)
    assert set(shipped.hot) == {asset.symbol for asset in shipped.assets}
    assert in_force(shipped).hot == shipped.hot


def _changed(shipped: Bundle, change: Callable[[dict[str, Any]], object]) -> Bundle:
    documents = json.loads(json.dumps(shipped.to_json()))
    change(documents["limits"])
    return from_json(documents)


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        pytest.param("hot_wallet_floor", None, "limits.yaml:", id="no floor"),
        pytest.param("hot_wallet_target", None, "limits.yaml:", id="no target"),
        pytest.param("hot_wallet_floor", "0 BTC", "limits.yaml:hot_wallet_target.BTC", id="a floor of nothing"),
        pytest.param("hot_wallet_floor", "25 BTC", "limits.yaml:hot_wallet_target.BTC", id="floor at the target"),
        pytest.param("hot_wallet_target", "100 BTC", "limits.yaml:hot_wallet_target.BTC", id="target at the cap"),
        pytest.param("hot_wallet_cap", "20 BTC", "limits.yaml:hot_wallet_target.BTC", id="cap below the target"),
        pytest.param("hot_wallet_target", "99.99999999 BTC", "limits.yaml:hot_wallet_target.BTC", id="a step of dust"),
        pytest.param("hot_wallet_target", "25", "limits.yaml:hot_wallet_target.BTC", id="no unit"),
        pytest.param("hot_wallet_target", "25 ETH", "limits.yaml:hot_wallet_target.BTC", id="another's unit"),
        pytest.param("largest_refill", "0 BTC", "limits.yaml:largest_refill.BTC", id="a refill of nothing"),
    ],
)
def test_levels_that_would_not_work_are_refused(shipped: Bundle, name: str, value: str | None, field: str) -> None:
    """With their place; a bundle with such levels does not exist."""
    with pytest.raises(InvalidInput) as caught:
        _changed(shipped, lambda x: x.pop(name) if value is None else x[name].__setitem__("BTC", value))
    assert caught.value.field == field


def test_a_bundle_may_have_no_levels(shipped: Bundle) -> None:
    """One written before there were any still reads; rebalancing refuses it."""
    without = _changed(shipped, lambda x: (x.pop("hot_wallet_floor"), x.pop("hot_wallet_target")))
    assert without.hot == {}


def test_levels_are_part_of_what_owners_sign(shipped: Bundle) -> None:
    """Another target is another bundle."""
    other = _changed(shipped, lambda x: x["hot_wallet_target"].__setitem__("BTC", "24 BTC"))
    assert other.hash != shipped.hash
    assert other.hot["BTC"].target == 24 * COIN


def test_a_rule_denies_above_the_very_cap_that_rebalancing_reads(shipped: Bundle) -> None:
    """One number, two readers: a deny that nothing but the destination's tier narrows."""
    bound = Compared("dest_balance_after", Comparator.MORE_THAN, LimitName("hot_wallet_cap"), "limit hot_wallet_cap")
    (rule,) = (rule for rule in shipped.rules if rule.kind is Kind.DENY and bound in rule.when)
    assert {condition.fact for condition in rule.when} == {"to_tier", "dest_balance_after"}


# at a seat

REFILL: Final[dict[str, Any]] = {"tier": Tier.CUSTOMER_COLD, "to_tier": Tier.CUSTOMER_HOT, "proposer": "desk"}
OVERFLOW: Final[dict[str, Any]] = {
    "tier": Tier.CUSTOMER_HOT, "to_tier": Tier.CUSTOMER_COLD, "proposer": "desk",
}  # fmt: skip
LONG_AGO: Final = NOW - 90_000


@pytest.mark.parametrize(
    ("fields", "after", "denied"),
    [
        pytest.param(REFILL, CAP, False, id="a refill up to the cap"),
        pytest.param(REFILL, CAP + 1, True, id="a refill one satoshi above it, everybody approved"),
        pytest.param(REFILL, 2**200, True, id="far above it"),
        pytest.param(OVERFLOW, 50 * CAP, False, id="an overflow fills cold, which has no cap"),
    ],
)
def test_a_seat_holds_to_the_cap(shipped: Bundle, fields: dict[str, Any], after: int, denied: bool) -> None:
    """The attestor says what hot would hold; the seat evaluates the rules by itself, whoever approved."""
    b = build(
        Ask(
            chain=BITCOIN,
            intent={"policy": shipped.hash},
            statement={"policy": shipped.hash},
            journal=lambda journal: replace(journal, policies=(shipped.hash,)),
            approvers=EVERYBODY,
            facts={"destination_after": after, "first_seen": LONG_AGO},
            rows={"available": 0},
            **fields,
        )
    )
    answer = decide(b.request, b.decoded, b.journal, Policies(in_force(shipped), {}), b.now)
    if not denied:
        assert isinstance(answer, Plan), [str(refusal) for refusal in answer]
        return
    assert isinstance(answer, tuple)
    assert Rule.POLICY_DENIES in {refusal.rule for refusal in answer}
    assert any("D04-hot-wallet-cap" in str(refusal) for refusal in answer)


# at authorize


def _treasury(shipped: Bundle) -> Treasury:
    """The shipped rules in force over the tests' assets; hot has 10 bitcoin, cold 200."""
    t = Treasury(kernel=kernel(policies=Policies(replace(in_force(shipped), assets=ASSETS), {})))
    t.store.run(lambda work: work.journal.append(deposit(BTC, 200 * COIN, AVAILABLE, Tier.CUSTOMER_COLD, 60), NOW))
    return t


def test_a_refill_above_the_cap_is_denied_when_it_is_proposed(shipped: Bundle) -> None:
    """Nothing is held, nobody is asked."""
    t = _treasury(shipped)
    t.store.run(lambda work: work.journal.append(deposit(BTC, 89 * COIN, AVAILABLE, height=61), NOW))
    denied = t.propose(inside(Tier.CUSTOMER_HOT, BITCOIN, amount=COIN + 1), "desk")
    assert (denied.status, denied.sub_status) == (Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY)
    assert "D04-hot-wallet-cap" in denied.waiting_for
    fits = t.propose(inside(Tier.CUSTOMER_HOT, BITCOIN, amount=COIN), "desk", "k2", 2)
    assert fits.status is Status.PENDING_AUTHORIZATION
    second = t.propose(inside(Tier.CUSTOMER_HOT, BITCOIN, amount=10**5, reference="s"), "desk", "k3", 3)
    assert second.sub_status is SubStatus.BLOCKED_BY_POLICY  # what is on its way counts


def test_a_refill_that_everybody_approved_is_withheld_above_the_cap(shipped: Bundle) -> None:
    """Coincheck's wallet: hot grew meanwhile, and no number of approvals lifts the cap. Below it, the same goes out."""
    t = _treasury(shipped)
    made = t.approve(t.propose(inside(Tier.CUSTOMER_HOT, BITCOIN, amount=COIN), "desk"), *EVERYBODY)
    t.now += 3_700
    grown = _treasury(shipped)
    same = grown.approve(grown.propose(inside(Tier.CUSTOMER_HOT, BITCOIN, amount=COIN), "desk"), *EVERYBODY)
    grown.now += 3_700
    grown.store.run(lambda work: work.journal.append(deposit(BTC, 95 * COIN, AVAILABLE, height=61), NOW))
    assert isinstance(t.authorize(made), SigningPermit)
    withheld = grown.authorize(same)
    assert isinstance(withheld, Withheld)
    told = [str(refusal) for refusals in withheld.refusals.values() for refusal in refusals]
    assert any("D04-hot-wallet-cap" in line for line in told), told


def test_an_overflow_is_never_refused_for_a_cap(shipped: Bundle) -> None:
    """Hot far above its cap is what an overflow is for."""
    t = _treasury(shipped)
    t.store.run(lambda work: work.journal.append(deposit(BTC, 500 * COIN, AVAILABLE, height=61), NOW))
    sweep = inside(Tier.CUSTOMER_COLD, BITCOIN, amount=COIN, purpose="cold_sweep")
    made = t.approve(t.propose(sweep, "desk"), *EVERYBODY)
    assert isinstance(t.authorize(made), SigningPermit)
