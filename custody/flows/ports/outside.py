# SPDX-License-Identifier: AGPL-3.0-or-later
"""What comes from outside: prices. They only ever tighten."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from custody.rules.amounts import Asset
from custody.rules.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Prices:
    """Micro-USD of one whole unit of each asset, by symbol: the maximum of fresh sources, as they stood at one moment."""

    micro_usd: Mapping[str, int]

    def value(self, asset: Asset, units: int) -> int:
        """Micro-USD of so many base units, rounded up. Raises Unavailable where there is no price, or none above zero."""
        price = self.micro_usd.get(asset.symbol, 0)
        if price < 1:
            raise Unavailable(f"price of {asset}", "too few fresh sources")
        return -(-units * price // int(10**asset.decimals))


class PriceSource(Protocol):
    """Prices in USD. They only ever tighten: no price gates coverage."""

    def fresh(self, now: int) -> Prices:
        """What at least two signed, fresh sources agree to give, the maximum of each; an asset with fewer is left out."""
        ...
