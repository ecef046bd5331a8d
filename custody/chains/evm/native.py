# SPDX-License-Identifier: AGPL-3.0-or-later
"""Native deposits, by balances alone: an internal call, a reward or a self-destruction leaves no log to read.

For a Safe, balance plus everything it ever sent never falls. So the two ends of a range tell whether anything arrived,
and bisection finds the blocks. An address whose balance fell by more than we know of (a module, a plain account's own
gas) breaks that order: what arrived there in the same block, or in a range where it cancels out exactly, is left out
here, and reconciliation has to name it. Relayers are plain accounts and are not watched.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from custody.chains.evm.outflows import own_outflows
from custody.chains.evm.scan import Scan, native_balances
from custody.rules.amounts import Amount, Asset
from custody.rules.deposits import Sighting
from custody.rules.origins import NativeProof, measured
from custody.rules.wallets import Address

Span = tuple[str, int, int]
"""An address and two heights between which something arrived."""


class _Readings:
    """Balances and running outflows of one scan, read as they are asked for."""

    def __init__(self, scan: Scan, watched: Sequence[str], known: Mapping[str, int]) -> None:
        self.scan = scan
        self._balances = {(address, scan.first - 1): known[address] for address in watched if address in known}
        self._sent: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for (address, height), wei in sorted(own_outflows(scan, watched).items()):
            self._sent[address].append((height, wei))

    def read(self, places: Sequence[tuple[str, int]]) -> None:
        """Read balances at (address, height), all in one batch. Before block 0 nothing held anything."""
        missing = [place for place in dict.fromkeys(places) if place not in self._balances]
        asked = [(address, height) for address, height in missing if height >= 0]
        self.scan.fetch(height for _, height in asked if height >= self.scan.first)
        read = native_balances(self.scan.client, [(address, self.scan.hash(height)) for address, height in asked])
        self._balances |= dict.fromkeys(missing, 0) | dict(zip(asked, read, strict=True))

    def balance(self, address: str, height: int) -> int:
        return self._balances[address, height]

    def sent(self, address: str, height: int) -> int:
        return sum(wei for at, wei in self._sent.get(address, ()) if at == height)

    def monotone(self, address: str, height: int) -> int:
        """The balance, and all that was sent since the range began."""
        return self.balance(address, height) + sum(wei for at, wei in self._sent.get(address, ()) if at <= height)


def native_sightings(
    scan: Scan, asset: Asset, watched: Sequence[str], known: Mapping[str, int]
) -> tuple[list[Sighting], dict[str, int]]:
    """Arrivals of native coin, one for each address and block, and every balance at the range's last block.

    `known` holds balances at the block before the first, from the scan that ended there; the rest is read.
    """
    readings = _Readings(scan, watched, known)
    ends = [(address, height) for address in watched for height in (scan.first - 1, scan.last)]
    readings.read(ends)
    found = [_sighting(readings, asset, span) for span in _changes(readings, watched)]
    return [s for s in found if s is not None], {address: readings.balance(address, scan.last) for address in watched}


def _changes(readings: _Readings, watched: Sequence[str]) -> Iterator[Span]:
    """Every single block in which an address's monotone sum changed, by bisecting all addresses at once."""
    spans = [(address, readings.scan.first - 1, readings.scan.last) for address in watched]
    while spans:
        spans = [s for s in spans if readings.monotone(s[0], s[1]) != readings.monotone(s[0], s[2])]
        yield from (s for s in spans if s[2] - s[1] == 1)
        wide = [s for s in spans if s[2] - s[1] > 1]
        readings.read([(address, (low + high) // 2) for address, low, high in wide])
        spans = []
        for address, low, high in wide:
            spans += [(address, low, (low + high) // 2), (address, (low + high) // 2, high)]


def _sighting(readings: _Readings, asset: Asset, span: Span) -> Sighting | None:
    address, below, height = span
    chain = readings.scan.client.chain
    proof = NativeProof(
        chain=str(chain),
        height=height,
        block=readings.scan.hash(height),
        address=address,
        before=readings.balance(address, below),
        after=readings.balance(address, height),
        outflows=readings.sent(address, height),
    )
    arrived = measured(proof)
    return Sighting(Amount(asset, arrived), Address(chain, address), proof) if arrived > 0 else None
