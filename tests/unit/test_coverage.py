# SPDX-License-Identifier: AGPL-3.0-or-later
"""Law 2, to the base unit: what is held covers what is owed, and unknown means no."""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.coverage import Outflow, check, check_fresh, liabilities, surplus
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.statements import AssetCoverage, Statement
from tests.vectors.examples import EXAMPLES

ETH: Final = AssetCoverage(
    asset="ETH", reserves=100, on_chain=100, in_ledger=100, available=80, held=10, suspense=5, in_flight=5,
    accrued_fees=0, matured_fees=0,
)  # fmt: skip
"""Exactly covered: 100 − 5 in flight = 80 + 10 + 5 owed."""
BTC: Final = replace(ETH, asset="BTC", reserves=110)


def test_what_is_owed() -> None:
    """Available, held, and suspense, which belongs to somebody unknown; accrued fees are the company's."""
    assert liabilities(ETH) == 95
    assert liabilities(replace(ETH, accrued_fees=50, matured_fees=50)) == 95


@pytest.mark.parametrize(
    ("row", "over"),
    [
        pytest.param(ETH, 0, id="exactly covered"),
        pytest.param(replace(ETH, reserves=101), 1, id="one unit over"),
        pytest.param(replace(ETH, reserves=99), -1, id="one unit short"),
        pytest.param(replace(ETH, in_flight=6), -1, id="one more in flight"),
        pytest.param(replace(ETH, suspense=6), -1, id="one more in suspense"),
        pytest.param(replace(ETH, held=11), -1, id="one more held"),
        pytest.param(replace(ETH, reserves=0, in_flight=0), -95, id="nothing held at all"),
        pytest.param(replace(ETH, on_chain=10**9), 0, id="an uncredited deposit is no surplus"),
        pytest.param(replace(ETH, reserves=2**256 - 1), 2**256 - 101, id="no rounding at 2^256"),
    ],
)
def test_surplus(row: AssetCoverage, over: int) -> None:
    """Reserves less in flight less owed; below zero is a shortfall."""
    assert surplus(row) == over
    assert [r.rule for r in check([row], ["ETH"])] == ([Rule.COVERAGE] if over < 0 else [])


@pytest.mark.parametrize(
    ("outflows", "covered"),
    [
        pytest.param([], True, id="nothing leaves"),
        pytest.param([Outflow("ETH", 10, 10)], True, id="a withdrawal pays what it takes"),
        pytest.param([Outflow("ETH", 11, 10)], False, id="a fee of one unit that nobody is debited for"),
        pytest.param([Outflow("ETH", 1, 0)], False, id="one unit to the company"),
        pytest.param([Outflow("ETH", 10, 10), Outflow("ETH", 1, 0)], False, id="the second of two"),
        pytest.param([Outflow("ETH", 0, 0)], True, id="zero"),
        pytest.param([Outflow("BTC", 10, 0)], True, id="within another asset's surplus"),
        pytest.param([Outflow("BTC", 11, 0)], False, id="one unit beyond another asset's surplus"),
        pytest.param([Outflow("DOGE", 1, 1)], False, id="an asset nobody attested"),
    ],
)
def test_after_outflows(outflows: list[Outflow], covered: bool) -> None:
    """The check counts what remains after the outflows, their maximum fees included."""
    assert (not list(check([ETH, BTC], ["ETH", "BTC"], outflows))) is covered


def test_one_assets_surplus_never_covers_another() -> None:
    """No prices are involved: each asset stands by itself."""
    rich = replace(BTC, reserves=10**30)
    found = list(check([replace(ETH, reserves=99), rich], ["ETH", "BTC"]))
    assert [(r.rule, r.operands["asset"], r.operands["surplus"]) for r in found] == [(Rule.COVERAGE, "ETH", -1)]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="no statement at all"),
        pytest.param([BTC], id="a row left out"),
        pytest.param([ETH, ETH, BTC], id="one asset told twice"),
        pytest.param([ETH, replace(ETH, reserves=10**9), BTC], id="two stories of one asset"),
    ],
)
def test_unknown_means_no(rows: list[AssetCoverage]) -> None:
    """An asset without exactly one row is unknown, and unknown is refused."""
    assert Rule.COVERAGE_UNKNOWN in {r.rule for r in check(rows, ["ETH", "BTC"])}


@pytest.mark.parametrize(("units", "reduces"), [(1, 2), (0, 1), (5, -1), (-1, -1), (-1, 0)])
def test_an_outflow_cannot_pay_for_another(units: int, reduces: int) -> None:
    """What settles a customer's balance is part of what leaves, never more."""
    with pytest.raises(InvalidInput) as caught:
        Outflow("ETH", units, reduces)
    assert (caught.value.field, caught.value.rule) == ("outflow", Rule.MALFORMED)
    assert caught.value.got == f"{reduces} of {units}"


units = st.integers(0, 2**256 - 1)
outflows = st.tuples(units, units).map(lambda pair: Outflow("ETH", max(pair), min(pair)))


@given(units, units, units, units, units, st.lists(outflows, max_size=4))
def test_the_check_is_the_inequality_of_law_2(
    reserves: int, available: int, held: int, suspense: int, in_flight: int, leaving: list[Outflow]
) -> None:
    """Balance − outflows ≥ what is owed after them, in integers of any size."""
    row = AssetCoverage("ETH", reserves, reserves, reserves, available, held, suspense, in_flight, 0, 0)
    left = reserves - in_flight - sum(o.units for o in leaving)
    owed = available + held + suspense - sum(o.reduces_liability for o in leaving)
    assert (not list(check([row], ["ETH"], leaving))) is (left >= owed)


@given(st.lists(outflows, min_size=1, max_size=4))
def test_more_outflows_never_help(leaving: list[Outflow]) -> None:
    """A shortfall stays one, whatever else leaves."""
    short = replace(ETH, reserves=99)
    assert list(check([short], ["ETH"], leaving))


STATEMENT: Final = EXAMPLES["Statement"]


@pytest.mark.parametrize(
    ("age", "last", "rules"),
    [
        pytest.param(0, 8, [], id="now, next in sequence"),
        pytest.param(60, 8, [], id="as old as may be"),
        pytest.param(61, 8, [Rule.STALE], id="a second too old"),
        pytest.param(-1, 8, [Rule.STALE], id="from the future"),
        pytest.param(0, 9, [Rule.SEQUENCE], id="the same again"),
        pytest.param(0, 10, [Rule.SEQUENCE], id="an older one"),
        pytest.param(0, 0, [], id="sequence numbers may be left out"),
        pytest.param(999, 9, [Rule.STALE, Rule.SEQUENCE], id="both reasons at once"),
    ],
)
def test_a_statement_is_used_once_while_fresh(age: int, last: int, rules: list[Rule]) -> None:
    """Fresh means 0 to 60 seconds here; a sequence number is accepted once."""
    assert isinstance(STATEMENT, Statement)
    assert [r.rule for r in check_fresh(STATEMENT, STATEMENT.time + age, 60, last)] == rules
