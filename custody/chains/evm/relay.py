# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls that the relayer pays for: built here, signed by the relayer's own seat, sent and followed to a receipt."""

from typing import Final, Protocol

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import check_deployed
from custody.chains.evm.transactions import wait
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.refusals import raise_if
from custody.rules.relaying import RelayCall, deploy_call_data
from custody.rules.signatures import Key, Signed

_TIP: Final = 10**9


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
        raise_if(check_deployed(client, safe))
        return
    raw = relayer.sign_call(_call(client, relayer, safe.factory, deploy_call_data(signed.message)), signed)
    sent = client.call("eth_sendRawTransaction", "0x" + raw.hex())
    if not wait(client, wire.data(sent, "transaction hash", 32)).succeeded and not client.code(safe.address):
        raise Unavailable(f"Safe {safe.address}", "its deployment was mined and reverted")
    raise_if(check_deployed(client, safe))


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
