# SPDX-License-Identifier: AGPL-3.0-or-later
"""A price is the highest of what at least two feeders signed lately, and otherwise it is unknown."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from custody.flows.mirror import put_signed
from custody.flows.ports import Prices
from custody.flows.prices import SLOT, MirrorPrices, record_price, slot_kind
from custody.rules.amounts import Amount
from custody.rules.errors import Unavailable
from custody.rules.prices import AHEAD_MOST, MICRO_MOST, PRICE_OLDEST, Price, check_price, highest, worth
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.typed import Domain
from tests.fakes.house import House, deployment, roster
from tests.fakes.ledger import COIN, ETH, USD
from tests.fakes.seat import NOW, ed25519, rules_of

OLDEST = 60


def price(feeder: str = "feed-1", micro_usd: int = 3_000_000_000, age: int = 0, asset: str = "ETH") -> Price:
    """One feeder's word."""
    return Price(feeder, asset, micro_usd, NOW - age)


def signed(message: Price, by: str = "", domain: Domain | None = None) -> Signed[Price]:
    """A price with a true signature of the feeder, or of somebody else, in this deployment or another."""
    return Signed(message, (ed25519(by or message.feeder).sign((domain or deployment().domain).digest(message)),))


LOW, HIGH = price(), price("feed-2", 3_100_000_000)


class TestWorth:
    """The arithmetic."""

    @pytest.mark.parametrize(
        ("prices", "usd"),
        [
            pytest.param([LOW, HIGH], 3_100_000_000, id="two feeders, the higher counts"),
            pytest.param([HIGH, LOW], 3_100_000_000, id="in any order"),
            pytest.param([LOW, replace(HIGH, time=NOW - OLDEST)], 3_100_000_000, id="as old as may be"),
            pytest.param([LOW, replace(HIGH, time=NOW + AHEAD_MOST)], 3_100_000_000, id="a clock a little ahead"),
            pytest.param(
                [LOW, price(micro_usd=4_000_000_000, age=9), HIGH], 4_000_000_000, id="an earlier one still fresh"
            ),
            pytest.param([LOW, price("feed-2")], 3_000_000_000, id="both say the same"),
        ],
    )
    def test_highest(self, prices: Sequence[Price], usd: int) -> None:
        """The maximum of all fresh prices."""
        assert worth(Amount(ETH, 10**18), prices, NOW, OLDEST) == usd

    @pytest.mark.parametrize(
        "prices",
        [
            pytest.param([], id="nobody"),
            pytest.param([LOW], id="one feeder"),
            pytest.param([LOW, price(micro_usd=5, age=3)], id="one feeder twice"),
            pytest.param([LOW, replace(HIGH, time=NOW - OLDEST - 1)], id="the other a second too old"),
            pytest.param([LOW, replace(HIGH, time=NOW + AHEAD_MOST + 1)], id="the other from the future"),
            pytest.param([LOW, replace(HIGH, asset="BTC")], id="the other of another asset"),
            pytest.param([LOW, replace(HIGH, micro_usd=0)], id="the other says nothing"),
        ],
    )
    def test_unknown(self, prices: Sequence[Price]) -> None:
        """Unknown is never a value."""
        with pytest.raises(Unavailable):
            worth(Amount(ETH, 1), prices, NOW, OLDEST)
        assert "ETH" not in highest(prices, NOW, OLDEST)

    @pytest.mark.parametrize(
        ("amount", "usd"),
        [
            pytest.param(Amount(ETH, 1), 1, id="one wei is a micro-dollar, not nothing"),
            pytest.param(Amount(ETH, 0), 0, id="nothing is nothing"),
            pytest.param(Amount(ETH, 10**18 + 1), 3_100_000_001, id="a wei more"),
            pytest.param(Amount(USD, 10**6), 1_000_000, id="six places"),
            pytest.param(Amount(COIN, 1), 601, id="a satoshi"),
        ],
    )
    def test_rounded_up(self, amount: Amount, usd: int) -> None:
        """Many small transfers are not cheaper than a large one; ports value as the rule does."""
        told = {"ETH": 3_100_000_000, "USD": 1_000_000, "BTC": 60_000_000_001}
        prices = [Price(feeder, asset, value, NOW) for asset, value in told.items() for feeder in ("feed-1", "feed-2")]
        assert worth(amount, prices, NOW, OLDEST) == usd
        assert Prices(highest(prices, NOW, OLDEST)).value(amount.asset, amount.units) == usd


class TestSigned:
    """Whose word it is."""

    @pytest.mark.parametrize(
        ("told", "rules"),
        [
            pytest.param(signed(LOW), set(), id="the feeder's"),
            pytest.param(signed(LOW, "feed-2"), {Rule.SIGNATURE_INVALID}, id="by another feeder"),
            pytest.param(signed(price("mallory")), {Rule.SIGNER_UNKNOWN}, id="by a stranger"),
            pytest.param(Signed(LOW, ()), {Rule.SIGNATURE_INVALID}, id="by nobody"),
            pytest.param(Signed(HIGH, signed(LOW, "feed-2").signatures), {Rule.SIGNATURE_INVALID}, id="number changed"),
            pytest.param(signed(LOW, domain=Domain(bytes(32))), {Rule.SIGNATURE_INVALID}, id="another deployment's"),
            pytest.param(signed(price(micro_usd=0)), {Rule.MALFORMED}, id="zero"),
            pytest.param(signed(price(micro_usd=MICRO_MOST + 1)), {Rule.MALFORMED}, id="nonsense"),
        ],
    )
    def test_check(self, told: Signed[Price], rules: set[Rule]) -> None:
        """Exactly the feeder that it names, in this deployment."""
        assert {refusal.rule for refusal in check_price(told, roster())} == rules
        house = House()
        if rules:
            with pytest.raises(Refused) as refused:
                record_price(house.store, roster(), told, NOW)
            assert rules_of(refused.value) == rules
        else:
            record_price(house.store, roster(), told, NOW)
            record_price(house.store, roster(), told, NOW)  # carried twice

    @pytest.mark.parametrize("age", [PRICE_OLDEST + 1, -AHEAD_MOST - 1])
    def test_stale_is_not_recorded(self, age: int) -> None:
        """Neither old ones nor those of tomorrow."""
        with pytest.raises(Refused) as refused:
            record_price(House().store, roster(), signed(price(age=age)), NOW)
        assert rules_of(refused.value) == {Rule.STALE}


class TestMirror:
    """The store is a mirror: verified on read."""

    def test_reads_across_slots(self) -> None:
        """Feeders do not speak at the same second."""
        house = House()
        record_price(house.store, roster(), signed(price(age=3 * SLOT)), NOW)
        record_price(house.store, roster(), signed(HIGH), NOW)
        prices = MirrorPrices(house.store, roster)
        assert prices.fresh(NOW).micro_usd == {"ETH": 3_100_000_000}
        assert prices.fresh(NOW + PRICE_OLDEST).micro_usd == {}

    @pytest.mark.parametrize(
        "forged",
        [
            pytest.param(Signed(HIGH, ()), id="inserted without a signature"),
            pytest.param(signed(HIGH, "feed-1"), id="one feeder speaks for two"),
            pytest.param(Signed(HIGH, signed(price("feed-2", 1)).signatures), id="number changed in the database"),
            pytest.param(signed(price("mallory", 10**9)), id="a stranger's"),
        ],
    )
    def test_forged_row_is_no_voice(self, forged: Signed[Price]) -> None:
        """What stands in a row is worth its signature."""
        house = House()
        record_price(house.store, roster(), signed(LOW), NOW)
        house.store.run(lambda work: put_signed(work.documents, slot_kind(forged.message.time), forged))
        house.store.run(lambda work: work.documents.put(slot_kind(NOW), "junk", {"type": "Price"}))
        assert MirrorPrices(house.store, roster).fresh(NOW).micro_usd == {}

    def test_old_row_in_a_new_slot(self) -> None:
        """A row moved to another slot is as old as its feeder said."""
        house = House()
        record_price(house.store, roster(), signed(LOW), NOW)
        old = signed(price("feed-2", age=PRICE_OLDEST + 1))
        house.store.run(lambda work: put_signed(work.documents, slot_kind(NOW), old))
        assert MirrorPrices(house.store, roster).fresh(NOW).micro_usd == {}

    def test_one_answer_serves_a_moment(self) -> None:
        """Asked again within seconds nothing is read, and a new price counts after them."""
        house = House()
        prices = MirrorPrices(house.store, roster)
        assert prices.fresh(NOW).micro_usd == {}
        for told in (LOW, HIGH):
            record_price(house.store, roster(), signed(told), NOW)
        assert prices.fresh(NOW + 1).micro_usd == {}
        assert prices.fresh(NOW + 5).micro_usd == {"ETH": 3_100_000_000}
