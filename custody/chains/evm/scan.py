# SPDX-License-Identifier: AGPL-3.0-or-later
"""One consistent reading of a range of blocks: state by block hash, logs of those blocks, and no reorg meanwhile."""

from collections.abc import Iterable, Sequence
from typing import Final

from eth_utils.crypto import keccak

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.rules.amounts import Asset
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable

_BALANCE_OF: Final = "0x" + keccak(text="balanceOf(address)")[:4].hex()
TOPICS: Final = 500
"""Addresses in one log filter; nodes bound the length of a request."""


def native_balances(client: EvmClient, wanted: Sequence[tuple[str, bytes]]) -> list[int]:
    """Wei of each (address, block hash). Raises Unavailable where a block is not canonical or its state is gone."""
    answers = client.batch([("eth_getBalance", (address, wire.at_hash(block))) for address, block in wanted])
    return [wire.quantity(answer, "balance") for answer in answers]


def token_balances(client: EvmClient, wanted: Sequence[tuple[str, str, bytes]]) -> list[int]:
    """Base units of each (contract, address, block hash); zero before the contract had any code."""
    answers = client.batch(
        [
            ("eth_call", ({"to": contract, "data": _BALANCE_OF + wire.address_word(address)[2:]}, wire.at_hash(block)))
            for contract, address, block in wanted
        ]
    )
    balances = []
    for (contract, _, block), answer in zip(wanted, answers, strict=True):
        if answer == "0x" and not client.code(contract, wire.at_hash(block)):
            balances.append(0)
        else:
            (units,) = wire.abi(["uint256"], answer, f"balanceOf {contract}")
            balances.append(int(str(units)))
    return balances


def balances(client: EvmClient, asset: Asset, addresses: Sequence[str], block: bytes) -> list[int]:
    """Base units of one asset at each address in a block."""
    if asset.contract is None:
        return native_balances(client, [(address, block) for address in addresses])
    contract = asset.contract.text
    return token_balances(client, [(contract, address, block) for address in addresses])


class Scan:
    """Blocks first..last, both included, read as of one chain. `settle` says whether that chain still stands."""

    def __init__(self, client: EvmClient, first: int, last: int) -> None:
        self.client, self.first, self.last = client, first, last
        self._blocks: dict[int, BlockRef] = {}
        self.fetch([first, last])

    def fetch(self, heights: Iterable[int]) -> None:
        """Read these headers in one batch, where they are not known yet."""
        missing = sorted({height for height in heights if height >= 0} - self._blocks.keys())
        answers = self.client.batch([("eth_getBlockByNumber", (hex(height), False)) for height in missing])
        for height, answer in zip(missing, answers, strict=True):
            block = wire.block_ref(self.client.chain, answer)
            if block is None or block.height != height:
                raise Unavailable(f"block {height} of {self.client.chain}", "the node has no such block")
            self._blocks[height] = block

    def hash(self, height: int) -> bytes:
        """The hash of the canonical block at a height, also of the one before the first."""
        if height + 1 == self.first:
            return self._blocks[self.first].parent
        if height not in self._blocks:
            self.fetch([height])
        return self._blocks[height].hash

    def logs(self, topics: Sequence[object], addresses: Sequence[str]) -> list[wire.Log]:
        """Logs of these contracts in the range, in chain order, each in a block that this scan knows."""
        query = {"fromBlock": hex(self.first), "toBlock": hex(self.last), "address": list(addresses), "topics": topics}
        found = wire.logs(self.client.call("eth_getLogs", query))
        self.fetch(log.height for log in found)
        for log in found:
            if not self.first <= log.height <= self.last or self.hash(log.height) != log.block:
                raise self._moved()
        return sorted(found, key=lambda log: (log.height, log.index))

    def settle(self) -> None:
        """Raise Unavailable if the last block is another one by now: what was read may mix two branches. Try again."""
        found = self.client.header(hex(self.last))
        if found is None or found.hash != self._blocks[self.last].hash:
            raise self._moved()

    def _moved(self) -> Unavailable:
        return Unavailable(
            f"blocks {self.first}..{self.last} of {self.client.chain}", "reorganised while they were read"
        )


def chunks(addresses: Sequence[str]) -> list[Sequence[str]]:
    """Addresses in portions that one filter can carry."""
    return [addresses[start : start + TOPICS] for start in range(0, len(addresses), TOPICS)]
