# SPDX-License-Identifier: AGPL-3.0-or-later
"""Money is an asset and an integer: what is read, what is refused, and that no digit is ever lost."""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.amounts import UINT256_MAX, Amount, Asset, AssetKind, Assets
from custody.rules.errors import AssetMismatch, InvalidInput
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Chain

EVM: Final = Chain("eip155:31338")
BITCOIN: Final = Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328")
TOKEN: Final = Address(EVM, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")

ETH: Final = Asset("ETH", EVM, AssetKind.NATIVE, 18)
BTC: Final = Asset("BTC", BITCOIN, AssetKind.NATIVE, 8, dust=546)
USDX: Final = Asset("USDX", EVM, AssetKind.ERC20, 6, TOKEN)
WHOLE: Final = Asset("WHOLE", EVM, AssetKind.ERC20, 0, TOKEN)
FINEST: Final = Asset("FINEST", EVM, AssetKind.ERC20, 36, TOKEN)
ALL: Final = (ETH, BTC, USDX, WHOLE, FINEST)


@pytest.mark.parametrize(
    ("asset", "text", "units"),
    [
        pytest.param(BTC, "0.25", 25_000_000, id="quarter of a bitcoin"),
        pytest.param(BTC, "0.00000546", 546, id="exactly dust"),
        pytest.param(BTC, "21000000", 21 * 10**14, id="every bitcoin"),
        pytest.param(ETH, "0.000000000000000001", 1, id="one wei"),
        pytest.param(ETH, "10.000000000000000001", 10**19 + 1, id="more than 64 bits, last digit kept"),
        pytest.param(ETH, "1.50", 15 * 10**17, id="trailing zero"),
        pytest.param(USDX, "0.000001", 1, id="six places"),
        pytest.param(WHOLE, "7", 7, id="no places"),
        pytest.param(WHOLE, str(UINT256_MAX), UINT256_MAX, id="2^256 - 1"),
        pytest.param(FINEST, "0." + "0" * 35 + "1", 1, id="36 places"),
    ],
)
def test_parse_accepts(asset: Asset, text: str, units: int) -> None:
    """A decimal string in the asset's own unit becomes exactly so many base units."""
    assert Amount.parse(asset, text) == Amount(asset, units)


@pytest.mark.parametrize(
    ("asset", "text", "rule"),
    [
        pytest.param(BTC, "0.123456789", Rule.TOO_MANY_PLACES, id="nine places of bitcoin"),
        pytest.param(BTC, "0.100000000", Rule.TOO_MANY_PLACES, id="nine places, the last a zero"),
        pytest.param(WHOLE, "7.0", Rule.TOO_MANY_PLACES, id="a point where there are no places"),
        pytest.param(ETH, "0." + "0" * 18 + "1", Rule.TOO_MANY_PLACES, id="a tenth of a wei"),
        pytest.param(ETH, "0", Rule.NOT_POSITIVE, id="zero"),
        pytest.param(ETH, "0.000", Rule.NOT_POSITIVE, id="zero with places"),
        pytest.param(ETH, "-1", Rule.NEGATIVE, id="negative"),
        pytest.param(ETH, "-0", Rule.NEGATIVE, id="minus zero"),
        pytest.param(BTC, "0.00000545", Rule.DUST, id="one satoshi below dust"),
        pytest.param(WHOLE, str(2**256), Rule.TOO_LARGE, id="2^256"),
        pytest.param(ETH, str(2**256 // 10**18 + 1), Rule.TOO_LARGE, id="2^256 wei, in ether"),
        pytest.param(ETH, "9" * 79, Rule.TOO_LARGE, id="79 digits"),
        pytest.param(ETH, "9" * 100_000, Rule.TOO_LARGE, id="a hundred thousand digits"),
        pytest.param(ETH, "1e18", Rule.MALFORMED, id="exponent"),
        pytest.param(ETH, "1E2", Rule.MALFORMED, id="capital exponent"),
        pytest.param(ETH, "0x10", Rule.MALFORMED, id="hex"),
        pytest.param(ETH, "١", Rule.MALFORMED, id="Arabic digit"),
        pytest.param(ETH, "１", Rule.MALFORMED, id="full-width digit"),
        pytest.param(ETH, "1²", Rule.MALFORMED, id="superscript digit"),
        pytest.param(ETH, "01", Rule.MALFORMED, id="leading zero"),
        pytest.param(ETH, "00.1", Rule.MALFORMED, id="two leading zeroes"),
        pytest.param(ETH, "+1", Rule.MALFORMED, id="plus sign"),
        pytest.param(ETH, "", Rule.MALFORMED, id="empty"),
        pytest.param(ETH, " 1", Rule.MALFORMED, id="space before"),
        pytest.param(ETH, "1 ", Rule.MALFORMED, id="space after"),
        pytest.param(ETH, "1\n", Rule.MALFORMED, id="newline after"),
        pytest.param(ETH, ".5", Rule.MALFORMED, id="no whole part"),
        pytest.param(ETH, "5.", Rule.MALFORMED, id="no fraction after the point"),
        pytest.param(ETH, "1,5", Rule.MALFORMED, id="comma"),
        pytest.param(ETH, "1.000.000", Rule.MALFORMED, id="two points"),
        pytest.param(ETH, "1_000", Rule.MALFORMED, id="underscore"),
        pytest.param(ETH, "NaN", Rule.MALFORMED, id="not a number"),
        pytest.param(ETH, "Infinity", Rule.MALFORMED, id="infinity"),
        pytest.param(ETH, "\u22121", Rule.MALFORMED, id="typographic minus"),
    ],
)
def test_parse_refuses(asset: Asset, text: str, rule: Rule) -> None:
    """Everything else names the field and the rule."""
    with pytest.raises(InvalidInput) as caught:
        Amount.parse(asset, text, "body.amount")
    assert (caught.value.field, caught.value.rule) == ("body.amount", rule)
    assert caught.value.want


@pytest.mark.parametrize("units", [1.0, True, "1", None, 10**18 + 0.0], ids=repr)
def test_units_are_exactly_an_integer(units: object) -> None:
    """A float, a bool and a string are not amounts, whatever they equal."""
    with pytest.raises(TypeError):
        Amount(ETH, units)  # type: ignore[arg-type]


@pytest.mark.parametrize("units", [2**256, -(2**256)])
def test_units_fit_uint256(units: int) -> None:
    """Nothing that a chain could not hold."""
    with pytest.raises(InvalidInput) as caught:
        Amount(ETH, units)
    assert caught.value.rule == Rule.TOO_LARGE


def test_a_sum_too_large_is_refused_not_wrapped() -> None:
    """Addition past 2^256 - 1 raises instead of turning round."""
    with pytest.raises(InvalidInput):
        Amount(ETH, UINT256_MAX) + Amount(ETH, 1)


def test_two_assets_do_not_add() -> None:
    """One ether and one bitcoin are not two of anything."""
    with pytest.raises(AssetMismatch) as caught:
        Amount(ETH, 1) + Amount(BTC, 1)
    assert (caught.value.left, caught.value.right) == ("ETH", "BTC")
    with pytest.raises(AssetMismatch):
        Amount(ETH, 1) - Amount(BTC, 1)


def test_one_symbol_with_other_decimals_is_another_asset() -> None:
    """A token that says it has other decimals now does not add to what it was."""
    with pytest.raises(AssetMismatch):
        Amount(USDX, 1) + Amount(replace(USDX, decimals=18), 1)


@pytest.mark.parametrize(
    ("amount", "decimal"),
    [
        pytest.param(Amount(BTC, 25_000_000), "0.25", id="trailing zeroes go"),
        pytest.param(Amount(BTC, 10**8), "1", id="a whole one has no point"),
        pytest.param(Amount(BTC, 0), "0", id="zero"),
        pytest.param(Amount(BTC, -1), "-0.00000001", id="a shortfall of one satoshi"),
        pytest.param(Amount(ETH, 10**19 + 1), "10.000000000000000001", id="every digit kept"),
        pytest.param(Amount(WHOLE, 70), "70", id="no places: zeroes stay"),
        pytest.param(Amount(ETH, UINT256_MAX), f"{UINT256_MAX // 10**18}.{UINT256_MAX % 10**18:018d}", id="largest"),
    ],
)
def test_decimal(amount: Amount, decimal: str) -> None:
    """The decimal form, without an exponent."""
    assert amount.decimal == decimal
    assert str(amount) == f"{decimal} {amount.asset.symbol}"


amounts = st.builds(Amount, st.sampled_from(ALL), st.integers(1, UINT256_MAX))


@given(amounts)
def test_decimal_reads_back(amount: Amount) -> None:
    """What is written is read back to the same integer, for every size and every number of places."""
    asset = replace(amount.asset, dust=1)
    assert Amount.parse(asset, amount.decimal).units == amount.units


@given(st.text(alphabet="0123456789.-+eE \n_,x١１", max_size=90), st.sampled_from(ALL))
def test_parse_never_surprises(text: str, asset: Asset) -> None:
    """Any text is either an amount that fits or InvalidInput; nothing else comes out."""
    try:
        amount = Amount.parse(asset, text)
    except InvalidInput:
        return
    assert asset.dust <= amount.units <= UINT256_MAX


@given(st.sampled_from(ALL), st.integers(0, 2**255), st.integers(0, 2**255 - 1))
def test_sum_and_difference_are_exact(asset: Asset, one: int, other: int) -> None:
    """Addition and subtraction are those of integers, far beyond what a float holds."""
    total = Amount(asset, one) + Amount(asset, other)
    assert total.units == one + other
    assert total - Amount(asset, other) == Amount(asset, one)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"symbol": "eth"}, "asset.symbol", id="lower case"),
        pytest.param({"symbol": "E"}, "asset.symbol", id="one letter"),
        pytest.param({"symbol": "ЕTH"}, "asset.symbol", id="Cyrillic letter"),
        pytest.param({"symbol": "A" * 17}, "asset.symbol", id="17 letters"),
        pytest.param({"decimals": -1}, "asset.decimals", id="negative decimals"),
        pytest.param({"decimals": 37}, "asset.decimals", id="37 decimals"),
        pytest.param({"contract": TOKEN}, "asset.contract", id="native coin with a contract"),
        pytest.param({"kind": AssetKind.ERC20}, "asset.contract", id="token without a contract"),
    ],
)
def test_an_asset_is_well_formed(change: dict[str, object], field: str) -> None:
    """An asset of the wrong shape cannot be made."""
    with pytest.raises(InvalidInput) as caught:
        replace(ETH, **change)  # type: ignore[arg-type]
    assert caught.value.field == field


FINALITY: Final = {EVM: 0, BITCOIN: 3}


def test_registry() -> None:
    """The registry knows its assets, their chains and each chain's finality."""
    registry = Assets((ETH, BTC, USDX), FINALITY)
    assert registry.get("USDX") is USDX
    assert registry.on(EVM) == (ETH, USDX)
    assert registry.chains == (EVM, BITCOIN)
    assert registry.confirmations[BITCOIN] == 3


@pytest.mark.parametrize("symbol", ["DOGE", "eth", "", "ETH ", "ＥTH"])
def test_unknown_asset(symbol: str) -> None:
    """A symbol that is not registered is refused and the known ones are named."""
    with pytest.raises(InvalidInput) as caught:
        Assets((ETH, BTC), FINALITY).get(symbol, "body.asset")
    assert (caught.value.field, caught.value.rule) == ("body.asset", Rule.UNKNOWN_ASSET)
    assert caught.value.want == "one of ETH, BTC"


@pytest.mark.parametrize(
    ("assets", "confirmations", "rule"),
    [
        pytest.param((), FINALITY, Rule.MALFORMED, id="no assets"),
        pytest.param((ETH, replace(USDX, symbol="ETH")), FINALITY, Rule.NAME_REUSED, id="one symbol twice"),
        pytest.param((ETH, BTC), {EVM: 0}, Rule.MALFORMED, id="a chain without finality"),
    ],
)
def test_registry_refuses(assets: tuple[Asset, ...], confirmations: dict[Chain, int], rule: Rule) -> None:
    """An empty or ambiguous registry cannot be made."""
    with pytest.raises(InvalidInput) as caught:
        Assets(assets, confirmations)
    assert caught.value.rule == rule
