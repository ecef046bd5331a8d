# SPDX-License-Identifier: AGPL-3.0-or-later
"""Money is an asset and an integer of its base units (wei, satoshi); never a float."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from custody.rules.errors import AssetMismatch, InvalidInput
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Chain

UINT256_MAX: Final = 2**256 - 1
_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?")


class AssetKind(StrEnum):
    """How an asset lives on its chain."""

    NATIVE = "native"
    ERC20 = "erc20"


@dataclass(frozen=True, slots=True, order=True)
class Asset:
    """One asset on one chain. `decimals` is pinned by the registry, never read from a contract.

    `dust` is the smallest amount, in base units, that is credited or paid.
    """

    symbol: str
    chain: Chain
    kind: AssetKind
    decimals: int
    contract: Address | None = None
    dust: int = 1

    def __post_init__(self) -> None:
        if re.fullmatch(r"[A-Z][A-Z0-9.]{1,15}", self.symbol) is None:
            raise InvalidInput("asset.symbol", Rule.MALFORMED, repr(self.symbol), "2 to 16 of A-Z, 0-9 and dot")
        if not 0 <= self.decimals <= 36:
            raise InvalidInput("asset.decimals", Rule.MALFORMED, str(self.decimals), "0 to 36")
        if (self.contract is None) != (self.kind is AssetKind.NATIVE):
            want = "a contract for a token and for nothing else"
            raise InvalidInput("asset.contract", Rule.MALFORMED, str(self.contract), want)

    def __str__(self) -> str:
        return self.symbol


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity of one asset in its base units. A difference may be negative; a balance or a posting never is."""

    asset: Asset
    units: int

    def __post_init__(self) -> None:
        if type(self.units) is not int:  # refuses float and bool alike
            raise TypeError(f"units must be int, not {self.units!r}")
        if abs(self.units) > UINT256_MAX:
            raise InvalidInput("amount", Rule.TOO_LARGE, str(self.units), "at most 2^256 - 1 base units")

    @classmethod
    def parse(cls, asset: Asset, text: str, field: str = "amount") -> Self:
        """Read a decimal string in the asset's own unit, such as "0.25"; must be positive and at least dust.

        Raises InvalidInput: malformed, too_many_decimal_places, amount_not_positive, dust, amount_exceeds_uint256.
        """
        if text.startswith("-"):
            raise InvalidInput(field, Rule.NEGATIVE, repr(text), "a positive amount")
        match = _DECIMAL.fullmatch(text)
        if match is None:
            raise InvalidInput(field, Rule.MALFORMED, repr(text[:100]), 'a decimal string such as "0.25"')
        whole, fraction = match[1], match[2] or ""
        if len(fraction) > asset.decimals:
            raise InvalidInput(
                field, Rule.TOO_MANY_PLACES, repr(text[:100]), f"at most {asset.decimals} places for {asset}"
            )
        if len(whole) > 78:
            raise InvalidInput(field, Rule.TOO_LARGE, f"{len(whole)} digits", "at most 2^256 - 1 base units")
        units = int(whole + fraction.ljust(asset.decimals, "0"))
        if units > UINT256_MAX:
            raise InvalidInput(field, Rule.TOO_LARGE, repr(text), "at most 2^256 - 1 base units")
        if units == 0:
            raise InvalidInput(field, Rule.NOT_POSITIVE, repr(text), "more than zero")
        if units < asset.dust:
            raise InvalidInput(field, Rule.DUST, repr(text), f"at least {cls(asset, asset.dust)}")
        return cls(asset, units)

    def __add__(self, other: "Amount") -> "Amount":
        self._same(other)
        return Amount(self.asset, self.units + other.units)

    def __sub__(self, other: "Amount") -> "Amount":
        self._same(other)
        return Amount(self.asset, self.units - other.units)

    def _same(self, other: "Amount") -> None:
        if self.asset != other.asset:
            raise AssetMismatch(str(self.asset), str(other.asset))

    @property
    def decimal(self) -> str:
        """The amount in the asset's own unit, every digit kept, without an exponent."""
        sign, digits = ("-" if self.units < 0 else ""), str(abs(self.units)).rjust(self.asset.decimals + 1, "0")
        if self.asset.decimals == 0:
            return sign + digits
        whole, fraction = digits[: -self.asset.decimals], digits[-self.asset.decimals :].rstrip("0")
        return f"{sign}{whole}.{fraction}" if fraction else sign + whole

    def __str__(self) -> str:
        return f"{self.decimal} {self.asset}"


class Assets:
    """The asset registry: every asset that exists for this deployment, and each chain's finality."""

    def __init__(self, assets: tuple[Asset, ...], confirmations: dict[Chain, int]) -> None:
        if not assets:
            raise InvalidInput("assets", Rule.MALFORMED, "none", "at least one asset")
        self._by_symbol = {asset.symbol: asset for asset in assets}
        if len(self._by_symbol) != len(assets):
            raise InvalidInput("assets", Rule.NAME_REUSED, "a symbol twice", "each symbol once")
        missing = {str(asset.chain) for asset in assets} - {str(chain) for chain in confirmations}
        if missing:
            raise InvalidInput(
                "assets.confirmations", Rule.MALFORMED, f"none for {sorted(missing)}", "a finality for each chain"
            )
        self.confirmations = dict(confirmations)

    def __iter__(self) -> Iterator[Asset]:
        return iter(self._by_symbol.values())

    def on(self, chain: Chain) -> tuple[Asset, ...]:
        """The assets of one chain."""
        return tuple(asset for asset in self if asset.chain == chain)

    @property
    def chains(self) -> tuple[Chain, ...]:
        """Every chain that carries an asset, in the registry's order."""
        return tuple(dict.fromkeys(asset.chain for asset in self))

    def get(self, symbol: str, field: str = "asset") -> Asset:
        """The asset of this symbol; raises InvalidInput(unknown_asset) naming the ones there are."""
        try:
            return self._by_symbol[symbol]
        except KeyError as error:
            raise InvalidInput(
                field, Rule.UNKNOWN_ASSET, repr(symbol), "one of " + ", ".join(self._by_symbol)
            ) from error
