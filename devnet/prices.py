# SPDX-License-Identifier: AGPL-3.0-or-later
"""Prices of the devnet: two feeders that never quite agree, each signing with its own key."""

from collections.abc import Iterator, Mapping
from typing import Final

from custody.flows.ports import Store
from custody.flows.prices import record_price
from custody.rules.prices import Price
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from devnet.people import FEEDERS, Cast

MICRO: Final = 1_000_000
USD: Final[Mapping[str, tuple[int, int]]] = {
    "ETH": (3_000 * MICRO, 3_012 * MICRO),
    "BTC": (60_000 * MICRO, 59_950 * MICRO),
    "USDX": (MICRO, 999_800),
    "USDN": (999_900, MICRO),
}
"""Micro-USD of one whole unit, as each feeder says it; the higher one counts."""


def sign_prices(
    cast: Cast, roster: Roster, now: int, told: Mapping[str, tuple[int, int]] = USD
) -> Iterator[Signed[Price]]:
    """Every feeder's price of every asset at a time, which is the statement clock's where genesis declares one."""
    for asset, values in told.items():
        for feeder, value in zip(FEEDERS, values, strict=True):
            yield cast.sign(roster.domain, Signed(Price(feeder, asset, value, now), ()), [feeder])


def put_prices(
    store: Store, cast: Cast, roster: Roster, now: int, told: Mapping[str, tuple[int, int]] = USD
) -> list[Signed[Price]]:
    """Sign prices and mirror them; they serve for an hour. Raises Refused where one is not a feeder's of this roster."""
    signed = list(sign_prices(cast, roster, now, told))
    for price in signed:
        record_price(store, roster, price, now)
    return signed
