# SPDX-License-Identifier: AGPL-3.0-or-later
"""A refusal is a value: it names its rule and carries its numbers."""

from typing import Final

import pytest

from custody.rules.errors import AssetMismatch, CustodyError, InvalidInput, Unavailable, UnbalancedEntry
from custody.rules.refusals import Refusal, Refused, Rule, raise_if

SHORT: Final = Refusal(Rule.COVERAGE, asset="ETH", surplus=-1)
LATE: Final = Refusal(Rule.STALE, age=61, oldest=60)


def test_a_refusal_tells_its_rule_and_its_numbers() -> None:
    """What a person reads."""
    assert str(SHORT) == "coverage(asset=ETH, surplus=-1)"


def test_refusals_compare_by_value() -> None:
    """Two refusals by one rule with the same operands are the same reason."""
    assert Refusal(Rule.COVERAGE, asset="ETH", surplus=-1) == SHORT
    assert Refusal(Rule.COVERAGE, asset="ETH", surplus=-2) != SHORT


def test_operands_are_copied() -> None:
    """What is changed later does not change what was refused."""
    operands = {"age": 61}
    refusal = Refusal(Rule.STALE, **operands)
    operands["age"] = 0
    assert refusal.operands["age"] == 61


def test_nothing_refused_raises_nothing() -> None:
    """Silence is consent here only, where the list of reasons is complete."""
    raise_if([])
    raise_if(iter(()))


def test_everything_refused_is_told_at_once() -> None:
    """All reasons are carried, in order."""
    with pytest.raises(Refused) as caught:
        raise_if(iter([SHORT, LATE]))
    assert caught.value.refusals == (SHORT, LATE)
    assert str(caught.value) == "refused: coverage(asset=ETH, surplus=-1); stale(age=61, oldest=60)"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(
            InvalidInput("amount", Rule.DUST, "'0.1'", "at least 1 BTC"),
            "amount: dust: got '0.1'; wanted at least 1 BTC",
            id="field, rule, got, want",
        ),
        pytest.param(Unavailable("node", "timed out"), "node is unavailable: timed out", id="what and why"),
        pytest.param(AssetMismatch("ETH", "BTC"), "AssetMismatch(left=ETH, right=BTC)", id="both assets"),
        pytest.param(UnbalancedEntry("ETH", 1, 2), "UnbalancedEntry(asset=ETH, debits=1, credits=2)", id="both sums"),
    ],
)
def test_errors_carry_their_operands(error: CustodyError, told: str) -> None:
    """Every deliberate error is a CustodyError and says what was wrong with its numbers."""
    assert isinstance(error, CustodyError)
    assert str(error) == told


def test_rule_names_are_what_programs_see() -> None:
    """Names are stable words: lower case, digits and underscores, each once."""
    assert all(rule.value.replace("_", "").isalnum() and rule.value == rule.value.lower() for rule in Rule)
    assert len({rule.value for rule in Rule}) == len(Rule)
