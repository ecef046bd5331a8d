# SPDX-License-Identifier: AGPL-3.0-or-later
"""When coins are tidied up inside a wallet: small ones are joined while fees are low, and deposit addresses are emptied in batches.

Bounds of the signed bundle, beside floor, target and cap of hot wallets: what is worth its fee is for policy owners to say.
"""

from dataclasses import dataclass

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule


@dataclass(frozen=True, slots=True)
class Consolidation:
    """When a Bitcoin wallet's small coins are joined, both above zero.

    `rate` is the most that the network may ask, in satoshi per 1,000 virtual bytes, as bitcoind tells rates; `coin` is the most
    that a coin may hold to count as small, in satoshi. Raises InvalidInput.
    """

    rate: int
    coin: int

    def __post_init__(self) -> None:
        if self.rate < 1 or self.coin < 1:
            got = f"a rate of {self.rate}, coins of {self.coin}"
            raise InvalidInput("consolidation", Rule.MALFORMED, got, "more than zero, both")
