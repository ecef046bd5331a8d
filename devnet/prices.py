# SPDX-License-Identifier: AGPL-3.0-or-later
"""Prices of the devnet: two feeders that never quite agree, each signing with its own key."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from custody.attestor import RemoteAttestor
from custody.composing import read_genesis, wall_clock
from custody.flows.mirror import ROSTER, rosters_from
from custody.flows.ports import Store
from custody.flows.prices import record_price
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.prices import Price
from custody.rules.refusals import Refused
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.settings import Settings
from custody.store import open_store
from devnet.people import FEEDERS, Cast, open_feeders
from policies.bundle import load

MICRO: Final = 1_000_000
USD: Final[Mapping[str, tuple[int, int]]] = {
    "ETH": (3_000 * MICRO, 3_012 * MICRO),
    "BTC": (60_000 * MICRO, 59_950 * MICRO),
    "USDX": (MICRO, 999_800),
    "USDN": (999_900, MICRO),
}
"""Micro-USD of one whole unit, as each feeder says it; the higher one counts."""
LOOK: Final = 5.0
"""Seconds between two looks at the clock."""


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


@dataclass(frozen=True)
class Feed:
    """Both feeders with a home's mirror, outside every other process; no chain and no vault is loaded for that."""

    store: Store
    genesis: bytes
    cast: Cast
    attestor: RemoteAttestor

    @classmethod
    def open(cls, home: Path) -> Self:
        """Of a born devnet, with the feeders' keys alone. Raises InvalidInput."""
        settings = Settings.load(home)
        store = open_store(settings.database, load(Path(settings.bundle)).assets)
        attestor = RemoteAttestor(Path(settings.attestor.socket))
        return cls(store, read_genesis(home), open_feeders(home / "people"), attestor)

    def clock(self) -> int:
        """The statement's time, which a devnet's genesis declares to be everybody's. Raises Unavailable."""
        return max(told_time(self.attestor), wall_clock())

    def quote(self, now: int) -> None:
        """Sign and mirror every price of now."""
        rosters = rosters_from(self.store.read(lambda work: work.documents.all(ROSTER)), self.genesis, now)
        put_prices(self.store, self.cast, rosters[-1], now)


def told_time(attestor: RemoteAttestor) -> int:
    """What the attestor says that it is. Raises Unavailable."""
    told = str(attestor.status().get("time"))
    if not told.isdecimal():
        raise Unavailable("attestor", "it tells no time")
    return int(told)


def quote_forever(feed: Feed, stop: threading.Event, every: int, say: Callable[[str], object]) -> None:
    """Quote now, and again once `every` seconds of the statement's time went by; returns once `stop` is set.

    The clock is looked at every few seconds, since somebody may move it forward by a day: prices of before are stale at once.
    """
    quoted: int | None = None
    while not stop.is_set():
        try:
            now = feed.clock()
            if quoted is None or not 0 <= now - quoted < every:
                feed.quote(now)
                quoted = now
                say(f"quoted {', '.join(USD)} at {now}")
        except (Unavailable, Refused, InvalidInput) as error:  # as worker and watcher: said, and tried again
            say(f"failed to quote: {error}")
        stop.wait(LOOK)
