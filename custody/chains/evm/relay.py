# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls that the relayer pays for: built here, signed by the relayer's own seat, sent and followed to a receipt."""

import time
from typing import Final, Protocol

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.relaying import RelayCall, deploy_call_data
from custody.rules.signatures import Key, Signed

_TIP: Final = 10**9
_WAIT: Final = 60.0


class RelaySigner(Protocol):
    """Whoever holds the relayer's key."""

    def identity(self) -> Key:
        """The gas-paying key, by address."""
        ...

    def sign_call(self, call: RelayCall, certificate: Signed[WalletCertificate]) -> bytes:
        """The signed transaction; raises Refused."""
        ...


def deploy_certified(client: EvmClient, relayer: RelaySigner, signed: Signed[WalletCertificate]) -> None:
    """Deploy a certified Safe through its factory; one that stands already counts as success (TRUST.md).

    Raises Unavailable where the transaction fails or the Safe does not stand afterwards; safe to repeat.
    """
    safe = signed.message.safe[0]
    if client.code(safe.address):
        return
    raw = relayer.sign_call(_call(client, relayer, safe.factory, deploy_call_data(signed.message)), signed)
    sent = client.call("eth_sendRawTransaction", "0x" + raw.hex())
    _wait(client, str(sent))
    if not client.code(safe.address):
        raise Unavailable(f"Safe {safe.address}", "its deployment was mined and left no code")


def _call(client: EvmClient, relayer: RelaySigner, to: str, data: bytes) -> RelayCall:
    sender = "0x" + relayer.identity().public.hex()
    fields = {"from": sender, "to": to, "data": "0x" + data.hex()}
    nonce, gas, price = client.batch(
        [("eth_getTransactionCount", [sender, "pending"]), ("eth_estimateGas", [fields]), ("eth_gasPrice", [])]
    )
    return RelayCall(
        chain=client.chain.name,
        nonce=wire.quantity(nonce, "nonce"),
        to=to,
        value=0,
        data=data,
        gas=wire.quantity(gas, "gas") * 12 // 10,
        max_fee_per_gas=wire.quantity(price, "gas price") * 2 + _TIP,
        max_priority_fee_per_gas=_TIP,
    )


def _wait(client: EvmClient, transaction: str) -> None:
    deadline = time.monotonic() + _WAIT
    while time.monotonic() < deadline:
        receipt = client.call("eth_getTransactionReceipt", transaction)
        if isinstance(receipt, dict):
            if receipt.get("status") != "0x1":
                raise Unavailable(f"transaction {transaction}", "it was mined and reverted")
            return
        time.sleep(0.1)
    raise Unavailable(f"transaction {transaction}", f"not mined within {_WAIT:.0f} s")
