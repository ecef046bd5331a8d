# SPDX-License-Identifier: AGPL-3.0-or-later
"""Provenance: what made a journal entry true (TRUST.md). Stored in its row; `ledger verify` and the attestor check it again."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor, Proposal, Rejection, TransferIntent
from custody.rules.refusals import Rule
from custody.rules.settlements import ManualEntry, Settlement
from custody.rules.signatures import Signature, Signed
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
    """A reorg took back the block under an earlier entry, a credit's or a payout's: `canonical` is what stands at that height now."""

    entry: Uint64
    chain: str
    height: Uint64
    orphaned: Bytes32
    canonical: Bytes32


@dataclass(frozen=True, slots=True)
class Hold(Struct):
    """An accepted proposal with its initiator's signatures, and the one intent that it became: what it moves waits."""

    proposal: Proposal
    signatures: tuple[Signature, ...]
    intent: TransferIntent


@dataclass(frozen=True, slots=True)
class Release(Struct):
    """A hold ends before any signature was asked for. `hold` is its entry, `intent` its digest in this deployment.

    Somebody's signed no (the initiator's own is a cancellation), or none where the intent has expired.
    """

    hold: Uint64
    intent: Bytes32
    rejection: tuple[Rejection, ...]
    signatures: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Arrived(Struct):
    """What a payout paid to a wallet of ours and its watcher has booked as an arrival: change, a sweep, an internal move.

    `event` is the identity of the chain event whose suspense it is taken from; empty where it went to the company's own account.
    """

    wallet: Bytes32
    asset: str
    units: Uint256
    event: str = ""


@dataclass(frozen=True, slots=True)
class Executed(Struct):
    """A final transaction consumed an anchor. A void paid nobody and frees every hold.

    `intents` are the digests that the anchor was bound to; `fee` is what the wallet paid in base units of the chain's own coin
    (nothing on EVM).
    """

    chain: str
    height: Uint64
    block: Bytes32
    transaction: Bytes32
    anchor: Anchor
    intents: tuple[Bytes32, ...]
    arrived: tuple[Arrived, ...]
    fee: Uint256
    void: bool


Origin = (
    TokenProof
    | NativeProof
    | BitcoinProof
    | Reversal
    | Hold
    | Release
    | Executed
    | Signed[Settlement]
    | Signed[ManualEntry]
)

_PLAIN: Final[dict[str, type[Struct]]] = {
    c.__name__: c for c in (TokenProof, NativeProof, BitcoinProof, Reversal, Hold, Release, Executed)
}


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


def payout_identity(executed: Executed) -> str:
    """A payout's block, transaction and anchor: whoever relays may put two signed calls into one transaction on EVM.

    Heights have ten digits, so that identities of a chain are in the order of its blocks.
    """
    at = executed.anchor
    block = f"{executed.chain}/{executed.height:010d}/{executed.block.hex()}"
    return f"{block}/{executed.transaction.hex()}/{at.wallet.hex()}/{at.reference}"


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
    HOLD = "hold"
    PROPOSAL = "proposal"
    FREED = "freed"
    ANCHOR = "anchor"
    PAYOUT = "payout"


REVERSIBLE: Final = frozenset({Once.CHAIN_EVENT, Once.FREED, Once.ANCHOR, Once.PAYOUT})
"""What may be recorded again once the entry that recorded it was reversed, because a block that a reorg took can come back."""


def recorded_once(origin: Origin) -> tuple[tuple[Once, str], ...]:
    """What no other entry may rest on: its chain event, the position it reverses, or its id and the ids of its trades.

    A trade settles once ever, whichever batch or client it comes with. A proposal is held for once, and a hold is freed once, by a
    release or by the final end of its anchor. Of these, what a block shows may be recorded again only after its entry was reversed
    (`REVERSIBLE`).
    """
    if isinstance(origin, Signed):
        if isinstance(origin.message, ManualEntry):
            return ((Once.MANUAL, origin.message.id),)
        trades = ((Once.TRADE, trade.id) for trade in origin.message.trades)
        return ((Once.SETTLEMENT, origin.message.id), *trades)
    if isinstance(origin, Reversal):
        return ((Once.REVERSAL, str(origin.entry)),)
    if isinstance(origin, Hold):
        return ((Once.HOLD, origin.intent.id), (Once.PROPOSAL, origin.intent.proposal.hex()))
    if isinstance(origin, Release):
        return ((Once.FREED, origin.intent.hex()),)
    if isinstance(origin, Executed):
        at = origin.anchor
        freed = ((Once.FREED, intent.hex()) for intent in origin.intents)
        anchor = (Once.ANCHOR, f"{at.chain}/{at.wallet.hex()}/{at.reference}")
        return (anchor, *freed, (Once.PAYOUT, payout_identity(origin)))
    return ((Once.CHAIN_EVENT, identity_of(origin)),)
