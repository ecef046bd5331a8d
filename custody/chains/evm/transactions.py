# SPDX-License-Identifier: AGPL-3.0-or-later
"""A plain account's transactions: the relayer's and a deployer's. Nothing here can spend from a Safe."""

import time
from dataclasses import dataclass
from typing import Final

from eth_account.signers.local import LocalAccount
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from hexbytes import HexBytes

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.rules.errors import Unavailable

_POLL_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 120.0
"""How long `wait` follows a transaction before it says that its outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a mined transaction; `contract` is the address it made, where it made one."""

    transaction: bytes
    block: bytes
    height: int
    succeeded: bool
    contract: str | None
    gas: int


def submit(
    client: EvmClient,
    sender: LocalAccount,
    to: str | None,
    data: bytes = b"",
    *,
    value: int = 0,
    gas: int | None = None,
) -> bytes:
    """Sign and send one transaction, without waiting; returns its hash. `to` None makes a contract; `value` in wei.

    The gas limit is estimated where none is given, and a transaction that would revert then raises NodeRefused unsent.
    """
    bare: dict[str, object] = {"from": sender.address, "data": "0x" + data.hex(), "value": hex(value)}
    if to is not None:
        bare["to"] = to
    count, latest = client.batch(
        [("eth_getTransactionCount", (sender.address, "pending")), ("eth_getBlockByNumber", ("latest", False))]
    )
    if gas is None:
        gas = wire.quantity(client.call("eth_estimateGas", bare), "gas estimate")
        gas += gas // 5  # an estimate is of the head's state, and the next block may have another
    tip = wire.quantity(client.call("eth_maxPriorityFeePerGas"), "priority fee")
    base = wire.quantity(latest.get("baseFeePerGas") if isinstance(latest, dict) else None, "base fee")
    unsigned: TransactionDictType = {
        "chainId": client.chain.evm_id,
        "nonce": wire.quantity(count, "nonce"),
        "gas": gas,
        "maxPriorityFeePerGas": tip,
        "maxFeePerGas": 2 * base + tip,
        "value": value,
        "data": HexBytes(data),
    }
    if to is not None:
        unsigned["to"] = HexStr(to)
    raw = sender.sign_transaction(unsigned).raw_transaction
    return wire.data(client.call("eth_sendRawTransaction", "0x" + bytes(raw).hex()), "transaction hash", 32)


def wait(client: EvmClient, transaction: bytes, seconds: float = WAIT_SECONDS) -> Receipt:
    """Follow a transaction until it is in a block. Raises Unavailable: its outcome is unknown, not failed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = client.call("eth_getTransactionReceipt", "0x" + transaction.hex())
        if isinstance(found, dict):
            made = found.get("contractAddress")
            return Receipt(
                transaction=transaction,
                block=wire.data(found.get("blockHash"), "receipt block", 32),
                height=wire.quantity(found.get("blockNumber"), "receipt height"),
                succeeded=wire.quantity(found.get("status"), "receipt status") == 1,
                contract=None if made is None else wire.word_address(wire.data(made, "contract address", 20)),
                gas=wire.quantity(found.get("gasUsed"), "receipt gas"),
            )
        time.sleep(_POLL_SECONDS)
    raise Unavailable(f"transaction {transaction.hex()}", f"not in a block after {seconds:g} s; its outcome is unknown")


def send(
    client: EvmClient,
    sender: LocalAccount,
    to: str | None,
    data: bytes = b"",
    *,
    value: int = 0,
    gas: int | None = None,
) -> Receipt:
    """Submit one transaction and wait for its block. A revert is `succeeded` False, not an exception."""
    return wait(client, submit(client, sender, to, data, value=value, gas=gas))
