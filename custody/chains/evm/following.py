# SPDX-License-Identifier: AGPL-3.0-or-later
"""What became of a payout on EVM: by the Safe's own events and by its nonce, not by a receipt's status alone.

A receipt with status 1 may hold an ExecutionFailure (the nonce is burnt, nothing was paid), and a relayer's transaction that
reverts consumes nothing: the anchor decides.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.rules.errors import Unavailable
from custody.rules.payments import Envelope, Followed, Mined, Outcome, Pending, Replaced, Unknown

_SUCCESS: Final = keccak(text="ExecutionSuccess(bytes32,uint256)")
_FAILURE: Final = keccak(text="ExecutionFailure(bytes32,uint256)")
_FIELDS: Final = "address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes,bytes"
_BEGIN: Final = keccak(text=f"SafeMultiSigTransaction({_FIELDS})")


def follow_safe(client: EvmClient, safe: str, nonce: int, envelopes: Sequence[Envelope], since: int) -> Followed:
    """See `PayoutChain.follow`. The nonce is read before the events, so that a nonce that is gone has its event."""
    consumed = safe_nonce(client, safe) > nonce
    mined = _executed(client, safe, {envelope.id for envelope in envelopes}, since)
    if mined is not None:
        return mined
    if consumed:
        return Replaced(_consumer(client, safe, nonce, since))
    reverted: Mined | None = None
    for envelope in envelopes:
        receipt = client.call("eth_getTransactionReceipt", "0x" + envelope.transaction.hex())
        if isinstance(receipt, Mapping):
            reverted = _mined(envelope.id, envelope.transaction, receipt, Outcome.REVERTED)
        elif known(client, envelope.transaction):
            return Pending(envelope.transaction)
    return reverted or Unknown()


def safe_nonce(client: EvmClient, safe: str) -> int:
    """The Safe's nonce at the head. Raises Unavailable where no Safe stands there."""
    (nonce,) = wire.abi(["uint256"], client.read(safe, "nonce()"), f"nonce of {safe}")
    return int(str(nonce))


def known(client: EvmClient, transaction: bytes) -> bool:
    """Whether the node has a transaction, in a block or waiting for one."""
    return client.call("eth_getTransactionByHash", "0x" + transaction.hex()) is not None


def _executed(client: EvmClient, safe: str, ids: set[bytes], since: int) -> Mined | None:
    """The variant that the Safe itself says it executed; the hash is the event's first topic (Safe 1.4.1)."""
    topics = [[_hex(_SUCCESS), _hex(_FAILURE)], [_hex(digest) for digest in sorted(ids)]]
    for log in _logs(client, safe, topics, since):
        outcome = Outcome.DONE if log.topics[0] == _SUCCESS else Outcome.FAILED
        receipt = client.call("eth_getTransactionReceipt", _hex(log.transaction))
        if not isinstance(receipt, Mapping) or wire.data(receipt.get("blockHash"), "receipt block", 32) != log.block:
            raise Unavailable(f"transaction {log.transaction.hex()}", "its event and its receipt are in two places")
        return _mined(log.topics[1], log.transaction, receipt, outcome)
    return None


def _consumer(client: EvmClient, safe: str, nonce: int, since: int) -> bytes:
    """The transaction that used the nonce, by what SafeL2 logs before each execution; empty where no log tells."""
    for log in _logs(client, safe, [[_hex(_BEGIN)]], since):
        try:
            told = decode(_FIELDS.split(","), log.data)[-1]
            (used, _, _) = decode(["uint256", "address", "uint256"], told)
        except (DecodingError, OverflowError) as error:
            raise Unavailable(f"events of {safe}", "they are not those of SafeL2 1.4.1") from error
        if used == nonce:
            return log.transaction
    return b""


def _logs(client: EvmClient, safe: str, topics: Sequence[Sequence[str]], since: int) -> list[wire.Log]:
    where = {"address": safe, "topics": topics, "fromBlock": hex(since), "toBlock": "latest"}
    return wire.logs(client.call("eth_getLogs", where))


def _mined(digest: bytes, transaction: bytes, receipt: Mapping[str, object], outcome: Outcome) -> Mined:
    gas = wire.quantity(receipt.get("gasUsed"), "receipt gas")
    return Mined(
        id=digest,
        transaction=transaction,
        height=wire.quantity(receipt.get("blockNumber"), "receipt height"),
        block=wire.data(receipt.get("blockHash"), "receipt block", 32),
        outcome=outcome,
        fee=gas * wire.quantity(receipt.get("effectiveGasPrice"), "gas price"),
        size=gas,
    )


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
