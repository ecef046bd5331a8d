# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which coins are spent and who bears the fee: tables of what is chosen, and properties over any coins."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.chains.bitcoin.coins import (
    CHANGE_LEAST,
    WEIGHT_MOST,
    Coin,
    Selection,
    Shape,
    select,
    settle,
    split_fee,
)
from custody.rules.refusals import Refusal, Rule

SHAPE = Shape(3, 4, (34,))
P2WSH = 34


def coins(*units: int) -> list[Coin]:
    """Coins of these amounts, in order of their outpoints."""
    return [Coin(f"{i:064x}:0", amount, 0, i) for i, amount in enumerate(units)]


def plenty(vbytes: int) -> int:
    """A bound that bounds nothing."""
    return vbytes * 10**6


def chosen(found: Selection | Refusal) -> list[int]:
    """Amounts of the coins, in order of spending."""
    assert isinstance(found, Selection)
    return [coin.units for coin in found.coins]


EXACT = 100_000 + SHAPE.vbytes(1, change=False) + 1
"""Each coin's share of a virtual byte is rounded up, so that a match is a satoshi or two above what it has to be."""
PAIR = 100_000 + SHAPE.vbytes(2, change=False) + 2


@pytest.mark.parametrize(
    ("have", "amount", "want", "change"),
    [
        pytest.param([1_000_000, EXACT, 500_000], 100_000, [EXACT], False, id="one coin meets it exactly"),
        pytest.param([900_000, 60_000, PAIR - 60_000], 100_000, [60_000, PAIR - 60_000], False, id="two coins do"),
        pytest.param([900_000, EXACT + 900], 100_000, [EXACT + 900], False, id="a little over is cheaper than change"),
        pytest.param([900_000, 300_000, 200_000], 100_000, [900_000], True, id="else the largest first, with change"),
        pytest.param([300_000, 300_000, 300_000], 700_000, [300_000] * 3, True, id="as many as it takes"),
        pytest.param([100_000, 20, 30, 10, EXACT], 100_000, [EXACT], False, id="dust left out, though it would fit"),
    ],
)
def test_which_coins(have: list[int], amount: int, want: list[int], change: bool) -> None:
    """Branch and bound first, then the largest; the first coin is the anchor."""
    found = select(coins(*have), [amount], SHAPE, 1, plenty)
    assert chosen(found) == want
    assert isinstance(found, Selection)
    assert bool(found.change) is change


@pytest.mark.parametrize(
    ("rate", "want"),
    [
        pytest.param(1, [60_000, PAIR - 60_000], id="worth spending at 1 satoshi per virtual byte"),
        pytest.param(600, [900_000], id="at 600 a coin of 40,000 costs more than it holds"),
    ],
)
def test_a_coin_is_left_out_by_the_rate_of_now(rate: int, want: list[int]) -> None:
    """What is dust today was none yesterday: each selection asks what spending it costs at the rate of now."""
    assert SHAPE.input_weight * 600 // 4 > 60_000 > PAIR - 60_000
    assert chosen(select(coins(900_000, 60_000, PAIR - 60_000), [100_000], SHAPE, rate, plenty)) == want


@pytest.mark.parametrize(
    ("have", "amount", "rule"),
    [
        pytest.param([], 1_000, Rule.INSUFFICIENT_BALANCE, id="no coins"),
        pytest.param([50_000] * 3, 200_000, Rule.INSUFFICIENT_BALANCE, id="too few"),
        pytest.param([100_000], 100_000, Rule.INSUFFICIENT_BALANCE, id="enough but for the fee"),
        pytest.param([50] * 10_000, 400, Rule.INSUFFICIENT_BALANCE, id="nothing but dust"),
        pytest.param([1_000] * 2_000, 1_500_000, Rule.TRANSACTION_TOO_LARGE, id="more inputs than nodes relay"),
    ],
)
def test_refusals(have: list[int], amount: int, rule: Rule) -> None:
    """Each with its numbers."""
    found = select(coins(*have), [amount], SHAPE, 1, plenty)
    assert isinstance(found, Refusal)
    assert found.rule is rule


def test_left_out_dust_is_told() -> None:
    """A person sees that coins were left out and why the rest does not do."""
    found = select(coins(10_000, 5, 6), [50_000], SHAPE, 1, plenty)
    assert isinstance(found, Refusal)
    assert (found.operands["left_out"], found.operands["coins"], found.operands["confirmed"]) == (2, 1, 10_000)


def test_change_is_made_where_none_would_cost_too_much() -> None:
    """An exact match whose excess would break the bound on the fee gives way to change."""
    have = coins(EXACT + 900, 900_000)
    least = SHAPE.vbytes(1, change=True)
    found = select(have, [100_000], SHAPE, 1, lambda _: least)
    assert isinstance(found, Selection)
    assert (chosen(found), found.fee, found.change) == ([900_000], least, 800_000 - least)


def test_small_change_goes_to_the_fee() -> None:
    """Change that would cost its worth to spend is not made."""
    size, more = SHAPE.vbytes(1, change=False), CHANGE_LEAST // 2
    found = settle(tuple(coins(100_000 + size + more)), 100_000, SHAPE, 1)
    assert isinstance(found, Selection)
    assert (found.change, found.fee, found.vbytes) == (0, size + more, size)


@given(
    have=st.lists(st.integers(1, 10**7), max_size=40),
    amounts=st.lists(st.integers(546, 10**7), min_size=1, max_size=5),
    rate=st.integers(1, 300),
)
def test_whatever_is_chosen_adds_up(have: Sequence[int], amounts: Sequence[int], rate: int) -> None:
    """Nothing appears or vanishes, no coin twice, none at a loss, the rate is met, change is worth having; and it repeats."""
    shape = Shape(3, 4, (P2WSH,) * len(amounts))
    offered = coins(*have)
    found = select(offered, list(amounts), shape, rate, plenty)
    assert found == select(offered[::-1], list(amounts), shape, rate, plenty)
    if isinstance(found, Refusal):
        worth = [units for units in have if units * 4 > shape.input_weight * rate]
        assert found.rule is Rule.INSUFFICIENT_BALANCE
        assert sum(worth) < sum(amounts) + shape.vbytes(len(worth), change=False) * rate + rate * (len(worth) + 1)
        return
    assert len({coin.outpoint for coin in found.coins}) == len(found.coins)
    assert sum(coin.units for coin in found.coins) == sum(amounts) + found.change + found.fee
    assert all(coin.units * 4 > shape.input_weight * rate for coin in found.coins)
    assert found.vbytes == shape.vbytes(len(found.coins), change=bool(found.change))
    assert found.fee >= found.vbytes * rate
    assert found.change == 0 or found.change > CHANGE_LEAST
    assert found.fee == found.vbytes * rate or found.change == 0
    assert shape.weight(len(found.coins), change=True) <= WEIGHT_MOST


def test_many_coins_are_searched_in_bounded_time() -> None:
    """Amounts chosen so that the search finds nothing: it gives up after its tries and takes the largest."""
    have = coins(*(10**6 + 2 * i for i in range(400)))
    assert isinstance(select(have, [3 * 10**6 + 77_777], SHAPE, 1, plenty), Selection)


@pytest.mark.parametrize(
    ("fee", "most", "want"),
    [
        pytest.param(900, [1000, 1000, 1000], (300, 300, 300), id="equal"),
        pytest.param(901, [1000, 1000, 1000], (301, 300, 300), id="odd satoshi to the first"),
        pytest.param(900, [100, 1000, 1000], (100, 400, 400), id="one at its maximum"),
        pytest.param(900, [100, 300, 1000], (100, 300, 500), id="two at theirs"),
        pytest.param(900, [0, 900], (0, 900), id="one pays nothing"),
        pytest.param(0, [5, 5], (0, 0), id="no fee"),
        pytest.param(0, [], (), id="nobody and nothing"),
        pytest.param(900, [300, 300, 299], Rule.MAXIMUM_FEE, id="more than all allow"),
        pytest.param(1, [], Rule.MAXIMUM_FEE, id="nobody to bear it"),
    ],
)
def test_fee_shares(fee: int, most: list[int], want: tuple[int, ...] | Rule) -> None:
    """Shares add up to the fee and none is above its maximum."""
    found = split_fee(fee, most)
    assert (found.rule if isinstance(found, Refusal) else found) == want


@given(fee=st.integers(0, 10**6), most=st.lists(st.integers(0, 10**5), max_size=120))
def test_fee_shares_always_add_up(fee: int, most: list[int]) -> None:
    """For any maxima."""
    found = split_fee(fee, most)
    if isinstance(found, Refusal):
        assert fee > sum(most)
        return
    assert sum(found) == fee
    assert all(0 <= share <= limit for share, limit in zip(found, most, strict=True))
