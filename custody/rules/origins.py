# SPDX-License-Identifier: AGPL-3.0-or-later
"""Provenance: what made a journal entry true (TRUST.md). Stored in its row; `ledger verify` and the attestor check it again."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.settlements import ManualEntry, Settlement
from custody.rules.signatures import Signed
from custody.rules.typed import Bytes32, EvmHex, Struct, Uint64, Uint256


@dataclass(frozen=True, slots=True)
class TokenProof(Struct):
    """An ERC-20 Transfer at a block, with the share of the measured balance change that this log is credited with."""

    chain: str
    height: Uint64
    block: Bytes32
    transaction: Bytes32
    log_index: Uint64
    contract: EvmHex
    address: EvmHex
    logged: Uint256
    measured: Uint256


@dataclass(frozen=True, slots=True)
class NativeProof(Struct):
    """A native EVM deposit, internal calls too: balance after − balance before the block + own outflows in it. Wei."""

    chain: str
    height: Uint64
    block: Bytes32
    address: EvmHex
    before: Uint256
    after: Uint256
    outflows: Uint256


@dataclass(frozen=True, slots=True)
class BitcoinProof(Struct):
    """An output paying one of our scripts, in a block. Satoshi."""

    chain: str
    height: Uint64
    block: Bytes32
    txid: Bytes32
    vout: Uint64
    address: str
    value: Uint256


ChainProof = TokenProof | NativeProof | BitcoinProof


@dataclass(frozen=True, slots=True)
class Reversal(Struct):
    """A reorg took back the block under an earlier entry: `canonical` is what stands at that height now."""

    entry: Uint64
    chain: str
    height: Uint64
    orphaned: Bytes32
    canonical: Bytes32


Origin = TokenProof | NativeProof | BitcoinProof | Reversal | Signed[Settlement] | Signed[ManualEntry]

_PLAIN: Final[dict[str, type[Struct]]] = {c.__name__: c for c in (TokenProof, NativeProof, BitcoinProof, Reversal)}


def origin_to_json(origin: Origin) -> dict[str, Any]:
    """`{"type", …}`: the tagged JSON form that stands in a journal row."""
    if isinstance(origin, Signed):
        return origin.to_json()
    return {"type": type(origin).__name__, "message": origin.to_json()}


def origin_from_json(data: dict[str, Any]) -> Origin:
    """Read the tagged form back; raises InvalidInput for a kind that does not exist."""
    kind = data.get("type")
    if kind == "Settlement":
        return Signed.from_json(Settlement, data)
    if kind == "ManualEntry":
        return Signed.from_json(ManualEntry, data)
    if kind not in _PLAIN:
        raise InvalidInput("origin.type", Rule.MALFORMED, repr(kind), "a known kind of origin")
    return _PLAIN[str(kind)].from_json(data.get("message"))  # type: ignore[return-value]  # the table holds only origins


def identity_of(proof: ChainProof) -> str:
    """The chain event's identity, unique in the journal: each event credits at most once."""
    match proof:
        case TokenProof():
            return f"{proof.chain}/{proof.block.hex()}/{proof.transaction.hex()}/{proof.log_index}"
        case NativeProof():
            return f"{proof.chain}/{proof.block.hex()}/{proof.address.lower()}"
        case BitcoinProof():
            return f"{proof.chain}/{proof.block.hex()}/{proof.txid.hex()}:{proof.vout}"


def measured(proof: ChainProof) -> int:
    """Base units that a proof shows arriving; zero or less shows nothing."""
    match proof:
        case TokenProof():
            return proof.measured
        case NativeProof():
            return proof.after - proof.before + proof.outflows
        case BitcoinProof():
            return proof.value


class Once(StrEnum):
    """What a journal records once at most."""

    CHAIN_EVENT = "chain_event"
    REVERSAL = "reversal"
    SETTLEMENT = "settlement"
    TRADE = "trade"
    MANUAL = "manual"


def recorded_once(origin: Origin) -> tuple[tuple[Once, str], ...]:
    """What no other entry may rest on: its chain event, the position it reverses, or its id and the ids of its trades.

    A trade settles once ever, whichever batch or client it comes with. A chain event may be credited again only after its credit
    was reversed, because a block that a reorg took can come back.
    """
    if isinstance(origin, Signed):
        if isinstance(origin.message, ManualEntry):
            return ((Once.MANUAL, origin.message.id),)
        trades = ((Once.TRADE, trade.id) for trade in origin.message.trades)
        return ((Once.SETTLEMENT, origin.message.id), *trades)
    if isinstance(origin, Reversal):
        return ((Once.REVERSAL, str(origin.entry)),)
    return ((Once.CHAIN_EVENT, identity_of(origin)),)
