# SPDX-License-Identifier: AGPL-3.0-or-later
"""ERC-20 deposits: a Transfer log says who and when; the measured change of the balance says how much.

A look-alike is never asked: only the registry's contracts are. A log without a balance change credits nothing; a token
that keeps a fee credits what arrived; what a transfer returns is never read (USDT returns nothing). The registry
vouches for one thing: that a contract's logs of coins *leaving* our addresses are true, since they are added back to
the measured change.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from eth_utils.crypto import keccak

from custody.chains.evm import wire
from custody.chains.evm.scan import Scan, chunks, token_balances
from custody.rules.amounts import Amount, Asset
from custody.rules.deposits import Sighting
from custody.rules.origins import TokenProof
from custody.rules.wallets import Address

_TRANSFER: Final = "0x" + keccak(text="Transfer(address,address,uint256)").hex()

Place = tuple[str, str, int]
"""Contract, address, height: where one balance change is measured."""


def token_sightings(scan: Scan, assets: Sequence[Asset], watched: Sequence[str]) -> Iterator[Sighting]:
    """Arrivals of these tokens at watched addresses.

    Per contract, address and block, logs are credited in their order up to the measured change: never more than logged,
    never more than measured, and no sighting of zero.
    """
    by_contract = {asset.contract.text: asset for asset in assets if asset.contract is not None}
    arrivals: defaultdict[Place, list[wire.Log]] = defaultdict(list)
    for log in _transfers(scan, list(by_contract), watched, incoming=True):
        arrivals[log.address, wire.word_address(log.topics[2]), log.height].append(log)
    measured = _measure(scan, list(arrivals))
    for place, found in arrivals.items():
        contract, address, height = place
        left = measured[place]
        for log in found:
            logged = int.from_bytes(log.data)
            share = min(logged, max(left, 0))
            left -= share
            if share == 0:
                continue
            proof = TokenProof(
                chain=str(scan.client.chain),
                height=height,
                block=log.block,
                transaction=log.transaction,
                log_index=log.index,
                contract=contract,
                address=address,
                logged=logged,
                measured=share,
            )
            yield Sighting(Amount(by_contract[contract], share), Address(scan.client.chain, address), proof)


def _measure(scan: Scan, places: Sequence[Place]) -> dict[Place, int]:
    """Balance after − balance before + logged outgoing transfers, for each place."""
    scan.fetch(height - 1 for _, _, height in places if height > scan.first)
    wanted = []
    for contract, address, height in places:
        wanted += [(contract, address, scan.hash(height)), (contract, address, scan.hash(height - 1))]
    read = token_balances(scan.client, wanted)
    change = {place: read[2 * i] - read[2 * i + 1] for i, place in enumerate(places)}
    contracts, addresses = sorted({c for c, _, _ in places}), sorted({a for _, a, _ in places})
    for log in _transfers(scan, contracts, addresses, incoming=False):
        place = (log.address, wire.word_address(log.topics[1]), log.height)
        if place in change:
            change[place] += int.from_bytes(log.data)
    return change


def _transfers(scan: Scan, contracts: Sequence[str], addresses: Sequence[str], *, incoming: bool) -> Iterator[wire.Log]:
    """Transfers to (or from) these addresses; not to oneself, which moves nothing, and not ERC-721's (four topics)."""
    for chunk in chunks(addresses) if contracts else []:
        words = [wire.address_word(address) for address in chunk]
        for log in scan.logs([_TRANSFER, None, words] if incoming else [_TRANSFER, words], contracts):
            if len(log.topics) == 3 and len(log.data) == 32 and log.topics[1] != log.topics[2]:
                yield log
