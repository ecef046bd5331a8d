# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payload and intents match one to one, voids are canonical, and owner calls add up."""

from collections import Counter
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.payouts import (
    FeeBounds,
    Leaf,
    LeafKind,
    OwnerCall,
    Place,
    apply_owner_calls,
    check_void,
    one_to_one,
    void_safe_tx,
)
from custody.rules.refusals import Refusal, Rule
from tests.fakes.seat import BITCOIN
from tests.fakes.trust import Ask, build, transfers_of

INTENT: Final = transfers_of(Ask())[0].intent
Paid = tuple[str, str, int]
PAYMENT: Final = st.tuples(st.sampled_from(["ETH", "USDX"]), st.sampled_from(["0xA", "0xB", "0xa"]), st.integers(1, 4))


def leaves_of(paid: list[Paid]) -> list[Leaf]:
    """A leaf for each payment."""
    return [Leaf(LeafKind.TOKEN if a == "USDX" else LeafKind.NATIVE, a, units, to) for a, to, units in paid]


@given(st.lists(PAYMENT, max_size=6), st.lists(PAYMENT, max_size=6))
def test_only_the_same_multiset_matches(paid: list[Paid], approved: list[Paid]) -> None:
    """Nothing but exactly the same payments, as often as they were approved and in any order, passes."""
    intents = [replace(INTENT, asset=a, destination=to, amount=units) for a, to, units in approved]
    refusals = [*one_to_one(leaves_of(paid), intents)]
    assert (not refusals) == (Counter(paid) == Counter(approved))
    differing = sum(((Counter(paid) - Counter(approved)) + (Counter(approved) - Counter(paid))).values())
    assert sum(int(str(r.operands["times"])) for r in refusals) == differing


@given(
    st.lists(PAYMENT, max_size=6),
    st.lists(st.sampled_from([LeafKind.SWEEP, LeafKind.CHANGE]), max_size=3),
    st.randoms(),
)
def test_sweeps_and_change_need_no_intent(paid: list[Paid], others: list[LeafKind], random: object) -> None:
    """What stays in the wallet neither needs an intent nor stands for one, wherever it is in the payload."""
    leaves = [*leaves_of(paid), *(Leaf(kind, "ETH", 1, "0xA") for kind in others)]
    random.shuffle(leaves)  # type: ignore[attr-defined]
    intents = [replace(INTENT, asset=a, destination=to, amount=units) for a, to, units in paid]
    assert [*one_to_one(leaves, intents)] == []
    assert len([*one_to_one(leaves, [*intents, replace(INTENT, amount=77)])]) == 1


def test_the_void_is_canonical() -> None:
    """The Safe calls itself with nothing at that nonce; everything else is no void."""
    decoded = build(Ask(payload=lambda tx: void_safe_tx(tx.chain, tx.safe, tx.nonce))).decoded
    assert not isinstance(decoded, tuple)
    assert decoded.is_void
    assert decoded.payments == ()
    assert [*check_void(decoded)] == []
    twice = replace(decoded, leaves=decoded.leaves * 2)
    assert [r.rule for r in check_void(twice)] == [Rule.NOT_VOID]


def test_meaning_leaves_out_the_fee_and_nothing_else() -> None:
    """Variants of a payout mean the same; another input, leaf, amount or change address means something else."""
    decoded = build(Ask(chain=BITCOIN)).decoded
    assert not isinstance(decoded, tuple)
    payment, change = decoded.leaves
    cheaper = replace(decoded, fee=1, leaves=(payment, replace(change, units=change.units + 1)))
    assert cheaper.meaning == decoded.meaning
    others = [
        replace(decoded, leaves=(replace(payment, units=payment.units + 1), change)),
        replace(decoded, leaves=(replace(payment, destination="elsewhere"), change)),
        replace(decoded, leaves=(payment, replace(change, destination="elsewhere"))),
        replace(decoded, leaves=(payment,)),
        replace(decoded, inputs=decoded.inputs * 2),
        replace(decoded, certificate=bytes(32)),
        replace(decoded, anchor=replace(decoded.anchor, reference="00:1")),
        replace(decoded, leaves=(replace(payment, source=Place(bytes(32), index=1)), change)),
    ]
    assert len({decoded.meaning, *(other.meaning for other in others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("paid", "vbytes", "most"),
    [
        pytest.param(10**12, 10**6, 2_000_000, id="absolutely"),
        pytest.param(100_000, 10**6, 5_000, id="by share"),
        pytest.param(10**12, 200, 200_000, id="by rate"),
    ],
)
def test_the_least_of_three_bounds_counts(paid: int, vbytes: int, most: int) -> None:
    """Absolute, a share of what is paid, a rate: whichever is least."""
    assert FeeBounds().most(paid, vbytes) == most


A, B, C, D, E = (f"0x{n}" for n in "abcde")


@pytest.mark.parametrize(
    ("calls", "after"),
    [
        pytest.param([], ({A, B, C}, 2), id="nothing"),
        pytest.param([OwnerCall(D, A, None)], ({B, C, D}, 2), id="swap"),
        pytest.param([OwnerCall(D, None, 3)], ({A, B, C, D}, 3), id="add"),
        pytest.param([OwnerCall(None, A, 1)], ({B, C}, 1), id="remove"),
        pytest.param([OwnerCall(D, A, None), OwnerCall(E, D, None)], ({B, C, E}, 2), id="swap twice"),
        pytest.param([OwnerCall(None, D, 1)], None, id="removes a stranger"),
        pytest.param(
            [OwnerCall(A.upper().replace("X", "x"), None, 2)], None, id="adds an owner again, spelled otherwise"
        ),
        pytest.param([OwnerCall(None, None, 0)], None, id="a threshold of zero"),
        pytest.param([OwnerCall(None, None, 4)], None, id="a threshold above the owners"),
        pytest.param([OwnerCall(None, A, 2), OwnerCall(None, B, 2)], None, id="fewer owners than the threshold"),
    ],
)
def test_owner_calls_add_up(calls: list[OwnerCall], after: tuple[set[str], int] | None) -> None:
    """Calls are applied one after the other to a set of owners; one that could not succeed is refused."""
    found = apply_owner_calls([A, B, C], 2, calls)
    if after is None:
        assert isinstance(found, Refusal)
        assert found.rule is Rule.NOT_ROTATION
    else:
        assert found == (frozenset(after[0]), after[1])
