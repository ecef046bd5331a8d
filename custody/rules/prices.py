# SPDX-License-Identifier: AGPL-3.0-or-later
"""Prices in USD, signed by the roster's feeders: the maximum of what at least two of them said lately.

One feeder alone could call a fortune small change, which is how a cap is emptied; so the highest counts, and one voice is none.
Prices only tighten: law 2 knows none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from custody.rules.amounts import Amount
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.typed import Struct, Uint64, Uint256

FEEDERS_LEAST: Final = 2
"""Distinct feeders that have to speak of an asset; fewer are none."""
PRICE_OLDEST: Final = 3600
"""Seconds that a price may be old."""
AHEAD_MOST: Final = 30
"""Seconds that a feeder's clock may be ahead; a price dated later would never grow old."""
MICRO_MOST: Final = 10**18
"""Micro-USD of one whole unit above which a price is nonsense."""


@dataclass(frozen=True, slots=True)
class Price(Struct):
    """What one feeder says one whole unit of an asset was worth at a time: micro-USD, seconds since 1970."""

    feeder: str
    asset: str
    micro_usd: Uint256
    time: Uint64


def check_price(signed: Signed[Price], roster: Roster) -> Iterator[Refusal]:
    """Signed in this deployment by exactly the feeder that it names, and a number that a price can be."""
    price = signed.message
    feeder = next((f for f in roster.version.feeders if f.id == price.feeder), None)
    if feeder is None:
        named = [f.id for f in roster.version.feeders]
        yield Refusal(Rule.SIGNER_UNKNOWN, field="price.feeder", got=price.feeder, want=", ".join(named) or "nobody")
    elif feeder.key not in signed.signers(roster.domain):
        yield Refusal(Rule.SIGNATURE_INVALID, document="Price", signer=price.feeder)
    if not 0 < price.micro_usd <= MICRO_MOST:
        want = f"1 to {MICRO_MOST} micro-USD"
        yield Refusal(Rule.MALFORMED, field="price.micro_usd", got=price.micro_usd, want=want)


def is_fresh(price: Price, now: int, oldest: int) -> bool:
    """Whether a price is at most `oldest` seconds old, and not from the future."""
    return -AHEAD_MOST <= now - price.time <= oldest


def highest(prices: Iterable[Price], now: int, oldest: int) -> dict[str, int]:
    """Micro-USD of one whole unit by asset: the highest of all fresh prices. An asset with too few feeders is left out.

    `prices` are verified (`check_price`). All that is fresh counts, not each feeder's newest, so that a row taken away lowers
    nothing that a newer row would not have lowered too.
    """
    most: dict[str, int] = {}
    feeders: dict[str, set[str]] = {}
    for price in prices:
        if price.micro_usd > 0 and is_fresh(price, now, oldest):
            most[price.asset] = max(price.micro_usd, most.get(price.asset, 0))
            feeders.setdefault(price.asset, set()).add(price.feeder)
    return {asset: value for asset, value in most.items() if len(feeders[asset]) >= FEEDERS_LEAST}


def worth(amount: Amount, prices: Iterable[Price], now: int, oldest: int) -> int:
    """Micro-USD of an amount at the highest fresh price, rounded up. Raises Unavailable where fewer than two feeders spoke."""
    price = highest(prices, now, oldest).get(amount.asset.symbol)
    if price is None:
        raise Unavailable(f"price of {amount.asset}", f"fewer than {FEEDERS_LEAST} feeders within {oldest} seconds")
    return -(-amount.units * price // int(10**amount.asset.decimals))
