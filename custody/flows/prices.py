# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signed prices in the mirror: recorded by anybody who carries them, verified by everybody who reads them.

They lie in slots of time, so that a reader touches the last hour's and not a year's.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from custody.flows.ports import Documents, Prices, Store
from custody.rules.errors import InvalidInput
from custody.rules.ledger import canonical
from custody.rules.prices import AHEAD_MOST, PRICE_OLDEST, Price, check_price, highest, is_fresh
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.signatures import Signed

SLOT: Final = 300
"""Seconds of one slot."""
_KEEP: Final = 5
"""Seconds that one answer serves: a proposal in the same breath reads nothing."""
_REMEMBERED: Final = 10_000


def slot_kind(time: int) -> str:
    """The mirror's kind of document for prices of a time."""
    return f"price:{time // SLOT}"


def record_price(store: Store, roster: Roster, signed: Signed[Price], now: int) -> None:
    """Mirror one price. Raises Refused: not a feeder's of the roster, forged, older than a price may be, from the future."""
    price = signed.message
    refusals = [*check_price(signed, roster)]
    if not is_fresh(price, now, PRICE_OLDEST):
        refusals.append(Refusal(Rule.STALE, document="Price", age=now - price.time, oldest=PRICE_OLDEST))
    raise_if(refusals)
    body = signed.to_json()  # signatures are part of the name: a forged row takes no true price's place
    store.run(lambda work: work.documents.put(slot_kind(price.time), sha256(canonical(body)).hexdigest(), body))


class PriceReader:
    """Reads fresh prices out of a mirror and verifies each signature once. A row that does not hold is no voice."""

    def __init__(self, oldest: int = PRICE_OLDEST) -> None:
        self._oldest = oldest
        self._roster: Roster | None = None
        self._verified: set[Signed[Price]] = set()

    def fresh(self, documents: Documents, roster: Roster, now: int) -> Prices:
        """The highest fresh price of each asset of which at least two of this roster's feeders speak."""
        if self._roster is None or self._roster.version != roster.version or len(self._verified) > _REMEMBERED:
            self._roster = roster
            self._verified.clear()
        rows = [row for kind in self._kinds(now) for row in documents.all(kind)]
        return Prices(highest(self._held(rows, roster), now, self._oldest))

    def _kinds(self, now: int) -> Iterator[str]:
        first, last = max(0, now - self._oldest) // SLOT, (now + AHEAD_MOST) // SLOT
        yield from (slot_kind(slot * SLOT) for slot in range(first, last + 1))

    def _held(self, rows: Sequence[object], roster: Roster) -> Iterator[Price]:
        for row in rows:
            try:
                signed = Signed.from_json(Price, row)
            except InvalidInput:
                continue  # somebody's row, not a feeder's word: one voice fewer, which can only refuse
            if signed not in self._verified:
                if any(check_price(signed, roster)):
                    continue
                self._verified.add(signed)
            yield signed.message


class MirrorPrices:
    """Implements `PriceSource` over a store: every answer is verified from the roster on."""

    def __init__(self, store: Store, roster: Callable[[], Roster], oldest: int = PRICE_OLDEST) -> None:
        self._store, self._roster, self._reader = store, roster, PriceReader(oldest)
        self._answer: tuple[int, Prices] | None = None

    def fresh(self, now: int) -> Prices:
        """See `PriceSource`. The same answer serves for a few seconds."""
        if self._answer is None or not 0 <= now - self._answer[0] < _KEEP:
            roster = self._roster()
            self._answer = now, self._store.read(lambda work: self._reader.fresh(work.documents, roster, now))
        return self._answer[1]
