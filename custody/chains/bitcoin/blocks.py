# SPDX-License-Identifier: AGPL-3.0-or-later
"""Canonical blocks from a node, read in batches and checked to follow each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from custody.chains.bitcoin.rpc import (
    NOT_FOUND,
    OUT_OF_RANGE,
    BitcoinRpc,
    Json,
    RpcError,
    as_hash,
    as_int,
    as_list,
    as_object,
    as_text,
    satoshi,
)
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.wallets import Chain

_BATCH: Final = 50
_BATCH_OUTPUTS: Final = (
    5_000  # what one batch of full blocks should hold, so that an answer stays within tens of megabytes
)

Outpoint = tuple[str, int]
"""Transaction id as displayed, and index of the output."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output of a transaction. `script` is hex, as the node writes it; the value is only read when it is ours."""

    index: int
    script: str
    _value: Json

    @property
    def value(self) -> int:
        """Satoshi, exactly."""
        return satoshi(self._value, "vout.value")


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of a block: its id as displayed, what it spends (nothing, if it is the coinbase), what it creates."""

    txid: str
    coinbase: bool
    spends: tuple[Outpoint, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One canonical block in full."""

    ref: BlockRef
    transactions: tuple[Transaction, ...]


def block_ref(header: dict[str, Json], chain: Chain) -> BlockRef:
    """The reference in a header or a block as the node answers it; genesis has a parent of zeros."""
    parent = header.get("previousblockhash")
    return BlockRef(
        chain=chain,
        height=as_int(header.get("height"), "height"),
        hash=as_hash(header.get("hash"), "hash"),
        parent=bytes(32) if parent is None else as_hash(parent, "previousblockhash"),
        time=as_int(header.get("time"), "time"),
    )


def read_head(rpc: BitcoinRpc) -> BlockRef:
    """The newest block."""
    best = as_text(rpc.call("getbestblockhash"), "getbestblockhash")
    return block_ref(as_object(rpc.call("getblockheader", best), "getblockheader"), rpc.chain)


def read_hash(rpc: BitcoinRpc, height: int) -> bytes | None:
    """The hash of the canonical block at a height, or None above the head."""
    try:
        return as_hash(rpc.call("getblockhash", height), "getblockhash")
    except RpcError as error:
        if error.code == OUT_OF_RANGE:
            return None
        raise


def read_header(rpc: BitcoinRpc, block: bytes) -> tuple[BlockRef, bool] | None:
    """A block that the node knows and whether it is canonical; None for one it has never seen."""
    try:
        header = as_object(rpc.call("getblockheader", block.hex()), "getblockheader")
    except RpcError as error:
        if error.code == NOT_FOUND:
            return None
        raise
    return block_ref(header, rpc.chain), as_int(header.get("confirmations"), "confirmations") >= 0


def read_blocks(rpc: BitcoinRpc, first: int, last: int) -> Iterator[Block]:
    """Canonical blocks first..last in order. Raises Unavailable above the head, and where the chain reorganised meanwhile."""
    size, height = 1, first
    previous: bytes | None = None
    while height <= last:
        heights = range(height, min(height + size, last + 1))
        seen = 0
        for content in _read(rpc, heights):
            block = _parse(content, rpc.chain)
            if block.ref.height != height or previous not in (None, block.ref.parent):
                raise Unavailable(f"block {height} of {rpc.chain}", "the chain reorganised while it was read")
            seen += sum(len(t.outputs) + len(t.spends) for t in block.transactions)
            yield block
            previous, height = block.ref.hash, height + 1
        size = max(1, min(_BATCH, size * 4, _BATCH_OUTPUTS * len(heights) // max(1, seen)))


def _read(rpc: BitcoinRpc, heights: Sequence[int]) -> list[Json]:
    try:
        hashes = rpc.batch("getblockhash", [[height] for height in heights])
        return rpc.batch("getblock", [[block, 2] for block in hashes])
    except RpcError as error:
        if error.code in {OUT_OF_RANGE, NOT_FOUND}:
            raise Unavailable(f"blocks {heights[0]} to {heights[-1]} of {rpc.chain}", error.message) from error
        raise


def _parse(content: Json, chain: Chain) -> Block:
    body = as_object(content, "getblock")
    transactions = (parse_transaction(as_object(t, "tx")) for t in as_list(body.get("tx"), "tx"))
    return Block(block_ref(body, chain), tuple(transactions))


def parse_transaction(body: dict[str, Json]) -> Transaction:
    """A transaction as `getblock … 2` and `getrawtransaction … true` answer it."""
    inputs = [as_object(i, "vin") for i in as_list(body.get("vin"), "vin")]
    return Transaction(
        txid=as_text(body.get("txid"), "txid"),
        coinbase=any("coinbase" in i for i in inputs),
        spends=tuple(
            (as_text(i.get("txid"), "vin"), as_int(i.get("vout"), "vin")) for i in inputs if "coinbase" not in i
        ),
        outputs=tuple(
            _output(index, as_object(o, "vout")) for index, o in enumerate(as_list(body.get("vout"), "vout"))
        ),
    )


def _output(index: int, body: dict[str, Json]) -> Output:
    if as_int(body.get("n"), "vout.n") != index:
        raise Unavailable("bitcoind", "vout is out of order")
    script = as_object(body.get("scriptPubKey"), "scriptPubKey")
    return Output(index, as_text(script.get("hex"), "scriptPubKey.hex"), body.get("value"))
