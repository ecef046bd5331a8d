# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small coins are joined in the company's own payouts while fees are low: by the bundle, within what was approved, and never else."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.chains.bitcoin.coins import JOINED_MOST, Coin, Selection, Shape, join, settle
from custody.flows.authorization import SigningPermit
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.housekeeping import Consolidation
from custody.rules.payments import Credited, Payment, Reservation
from custody.rules.refusals import Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.seat_request import Policies
from custody.rules.transfers import Transfer
from custody.rules.wallets import Tier
from custody.seating import in_force
from policies.bundle import Bundle, from_json
from tests.fakes.seat import BITCOIN
from tests.fakes.treasury import FakeAnchors, Treasury, inside, kernel, proposal
from tests.fakes.trust import PAYEE, answers, bundle
from tests.unit.shipped import open_shipped
from tests.unit.test_bitcoin_change import HOT, NodeInMemory, every, payment, payouts_of, read

SHAPE = Shape(3, 4, (34,))
COIN = 10**8
LARGE = Coin("f" * 64 + ":0", COIN, 0, 0)


def small(*units: int) -> list[Coin]:
    """Coins of these amounts, in order of their outpoints."""
    return [Coin(f"{i:064x}:0", amount, 0, i) for i, amount in enumerate(units)]


@pytest.mark.parametrize(
    ("have", "rate", "most", "want"),
    [
        pytest.param([5_000, 9_000, 7_000], 1, 10**6, [5_000, 7_000, 9_000], id="all of them, the smallest first"),
        pytest.param([100, 131, 5_000], 1, 10**6, [5_000], id="none that costs more than it holds"),
        pytest.param([5_000] * 99, 1, 10**6, [5_000] * JOINED_MOST, id="no more than seats have to read"),
        pytest.param(
            [5_000] * 9, 1, 2 * SHAPE.vbytes(4, change=True), [5_000] * 3, id="within half of what it may cost"
        ),
        pytest.param([5_000] * 9, 1, 2 * SHAPE.vbytes(2, change=True) - 1, [], id="no room at all"),
        pytest.param([], 1, 10**6, [], id="none there"),
    ],
)
def test_which_coins_join(have: list[int], rate: int, most: int, want: list[int]) -> None:
    """Behind the coins that pay, into their change."""
    assert [coin.units for coin in join((LARGE,), small(*have), 10**6, SHAPE, rate, lambda _: most)] == want


def test_nothing_joins_where_no_change_comes_of_it() -> None:
    """Coins that would end in the fee are not joined but burnt."""
    pays = Coin("e" * 64 + ":0", 10**6, 0, 0)
    assert join((pays,), small(700, 800), 10**6, SHAPE, 1, lambda _: 10**6) == ()


@given(
    have=st.lists(st.integers(1, 10**6), max_size=80),
    paid=st.integers(546, COIN - 100_000),
    rate=st.integers(1, 60),
    most=st.integers(0, 10**6),
)
def test_whatever_joins_comes_back(have: Sequence[int], paid: int, rate: int, most: int) -> None:
    """Nobody gets less, the change gets more than it would, the fee stays within half the bound; and it repeats."""
    offered = small(*have)
    joined = join((LARGE,), offered, paid, SHAPE, rate, lambda _: most)
    assert joined == join((LARGE,), offered[::-1], paid, SHAPE, rate, lambda _: most)
    assert len(set(joined)) == len(joined) <= JOINED_MOST
    if not joined:
        return
    before, after = settle((LARGE,), paid, SHAPE, rate), settle((LARGE, *joined), paid, SHAPE, rate)
    assert isinstance(after, Selection)
    assert sum(coin.units for coin in after.coins) == paid + after.change + after.fee
    assert after.change > (before.change if isinstance(before, Selection) else 0)
    assert after.fee == after.vbytes * rate
    assert 2 * after.fee <= most


# what the bundle says


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped one."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


def _changed(shipped: Bundle, change: Callable[[dict[str, Any]], object]) -> Bundle:
    documents = json.loads(json.dumps(shipped.to_json()))
    change(documents["limits"])
    return from_json(documents)


def test_the_bounds_are_read(shipped: Bundle) -> None:
    """Exact to the base unit, only for what has coins or deposit addresses, and handed to whoever judges."""
    assert shipped.consolidation == {"BTC": Consolidation(5_000, 5 * 10**6)}
    assert set(shipped.deposit_sweeps) == {asset.symbol for asset in shipped.assets if asset.chain.is_evm}
    assert shipped.deposit_sweeps["ETH"] == 5 * 10**16
    told = in_force(shipped)
    assert (told.consolidation, told.deposit_sweeps) == (shipped.consolidation, shipped.deposit_sweeps)


@pytest.mark.parametrize(
    ("name", "asset", "value", "field"),
    [
        pytest.param("consolidation_rate", "", None, "limits.yaml:", id="no rate"),
        pytest.param("consolidation_coin", "", None, "limits.yaml:", id="no coin"),
        pytest.param("consolidation_rate", "BTC", "0 BTC", "limits.yaml:consolidation_rate.BTC", id="coins at no rate"),
        pytest.param(
            "consolidation_coin", "BTC", "0 BTC", "limits.yaml:consolidation_coin.BTC", id="a rate for no coin"
        ),
        pytest.param("consolidation_coin", "BTC", "0.00000545 BTC", "limits.yaml:consolidation_coin.BTC", id="dust"),
        pytest.param(
            "consolidation_rate", "ETH", "1 ETH", "limits.yaml:consolidation_coin.ETH", id="an asset without coins"
        ),
        pytest.param(
            "consolidation_rate", "BTC", "5 satoshi", "limits.yaml:consolidation_rate.BTC", id="another's unit"
        ),
        pytest.param(
            "deposit_sweep", "BTC", "1 BTC", "limits.yaml:deposit_sweep.BTC", id="swept where coins are spent"
        ),
        pytest.param(
            "deposit_sweep", "ETH", "0.000000000000000001 ETH", "limits.yaml:deposit_sweep.ETH", id="dust swept"
        ),
    ],
)
def test_bounds_that_would_not_work_are_refused(
    shipped: Bundle, name: str, asset: str, value: str | None, field: str
) -> None:
    """With their place; a bundle with such bounds does not exist."""
    with pytest.raises(InvalidInput) as caught:
        _changed(shipped, lambda x: x.pop(name) if value is None else x[name].__setitem__(asset, value))
    assert caught.value.field == field


def test_a_bundle_may_say_nothing(shipped: Bundle) -> None:
    """One written before there were such bounds still reads, and nothing is tidied by it; zero turns one asset off."""
    bare = _changed(
        shipped, lambda x: [x.pop(n) for n in ("consolidation_rate", "consolidation_coin", "deposit_sweep")]
    )
    assert (bare.consolidation, bare.deposit_sweeps) == ({}, {})
    off = _changed(shipped, lambda x: x["deposit_sweep"].__setitem__("ETH", "0 ETH"))
    assert "ETH" not in off.deposit_sweeps
    assert off.hash != shipped.hash


@pytest.mark.parametrize(("rate", "coin"), [(0, 1), (1, 0), (-1, 1)])
def test_half_a_bound_does_not_exist(rate: int, coin: int) -> None:
    """Both are above zero."""
    with pytest.raises(InvalidInput):
        Consolidation(rate, coin)


# what is pinned


@pytest.mark.parametrize(
    ("bound", "free", "joins"),
    [
        pytest.param(Consolidation(2_000, 10**6), every, True, id="fees are low"),
        pytest.param(Consolidation(1_999, 10**6), every, False, id="fees are above the bound"),
        pytest.param(Consolidation(2_000, 9_999), every, False, id="no coin is small"),
        pytest.param(Consolidation(2_000, 10**6), lambda _: (), False, id="none of them is in the books"),
    ],
)
def test_what_is_pinned_and_built(
    bound: Consolidation, free: Callable[[Collection[str]], Collection[str]], joins: bool
) -> None:
    """The anchor stays the first; a seat reads one change that is ours, and nothing but the fee is lost."""
    node = NodeInMemory(HOT)
    node.deposit(COIN)
    for index in range(3):
        node.deposit(10_000, index=index)
    payouts, pays = payouts_of(node), [payment(1)]
    alone = payouts.next_anchor(HOT.wallet, HOT, pays, (), every)
    pinned = payouts.consolidate(HOT, alone, pays, (), free, bound)
    assert pinned.anchor == alone.anchor
    assert pinned.references[:1] == alone.references
    assert len(pinned.references) == (4 if joins else 1)
    if not joins:
        return
    unsigned = payouts.build(HOT, pinned, pays)
    found = read(unsigned.payload)
    assert [spent.outpoint for spent in found.inputs] == list(pinned.references)
    paid, change = (sum(leaf.units for leaf in leaves) for leaves in (found.payments, found.leaves[1:]))
    assert (paid, change + found.fee) == (10**6, COIN + 30_000 - 10**6)
    assert len(found.leaves) == 2
    taken = payouts.consolidate(HOT, alone, pays, pinned.references[1:3], every, bound)
    assert len(taken.references) == 2  # what another permit pins stays there


class JoiningAnchors(FakeAnchors):
    """Offers one small coin, whoever asks."""

    def consolidate(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited,
        bound: Consolidation,
    ) -> Reservation:
        """See `Consolidator`."""
        assert bound.coin == 7
        return replace(reservation, references=(*reservation.references, "ab" * 32 + ":1"))


def _permit(t: Treasury, *transfers: Transfer) -> tuple[str, ...]:
    found = t.authorize(*transfers)
    assert isinstance(found, SigningPermit), found
    return found.permit.reservation.references


def _treasury(anchors: FakeAnchors, *, says: bool = True) -> Treasury:
    newest = bundle(answers(Outcome.REQUIRE))
    newest = replace(newest, consolidation={"BTC": Consolidation(1, 7)} if says else {})
    return Treasury(anchors=anchors, kernel=kernel(policies=Policies(newest, {})))


def _withdrawal(t: Treasury, number: int) -> Transfer:
    said = replace(proposal(number), chain=BITCOIN.name, asset="BTC", amount=10**6, destination=PAYEE[BITCOIN.name])
    return t.approve(t.propose(said, "backend", f"w{number}", number), "ana", "bo")


def _move(t: Treasury, number: int) -> Transfer:
    said = inside(Tier.CUSTOMER_COLD, BITCOIN, amount=10**6, reference=f"move {number}")
    return t.approve(t.propose(said, "desk", f"m{number}", number), "ana", "bo")


@pytest.mark.parametrize(
    ("make", "anchors", "says", "coins"),
    [
        pytest.param((_move,), JoiningAnchors(), True, 2, id="a move of the company's"),
        pytest.param((_withdrawal,), JoiningAnchors(), True, 1, id="a customer's withdrawal never carries them"),
        pytest.param((_move, _withdrawal), JoiningAnchors(), True, 1, id="nor a batch with one in it"),
        pytest.param((_move,), JoiningAnchors(), False, 1, id="a bundle that says nothing"),
        pytest.param((_move,), FakeAnchors(), True, 1, id="a chain without coins to join"),
    ],
)
def test_who_carries_small_coins(
    make: Sequence[Callable[[Treasury, int], Transfer]], anchors: FakeAnchors, says: bool, coins: int
) -> None:
    """Only payouts whose whole fee is the company's, only by the bundle in force; they are pinned with the rest."""
    t = _treasury(anchors, says=says)
    assert len(_permit(t, *(each(t, number) for number, each in enumerate(make, 1)))) == coins


def test_a_coin_of_another_permit_is_refused() -> None:
    """UNIQUE on outpoints is the guarantee for joined coins too; nothing of the second permit remains."""
    t = _treasury(JoiningAnchors())
    _permit(t, _move(t, 1))
    with pytest.raises(Refused) as caught:
        _permit(t, _move(t, 2))
    assert {refusal.rule for refusal in caught.value.refusals} == {Rule.OUTPOINT_BOUND}
