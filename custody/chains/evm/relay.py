# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls that the relayer pays for: built here, signed by the relayer's own seat, sent and followed to a receipt."""

from collections.abc import Sequence
from typing import Final, Protocol

from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import check_deployed
from custody.chains.evm.safes import deposit_parameters
from custody.chains.evm.transactions import wait
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.refusals import raise_if
from custody.rules.relaying import RelayCall, deploy_call_data, deposit_call_data
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
    raw = relayer.sign_call(relay_call(client, relayer, safe.factory, deploy_call_data(signed.message)), signed)
    sent = client.call("eth_sendRawTransaction", "0x" + raw.hex())
    if not wait(client, wire.data(sent, "transaction hash", 32)).succeeded and not client.code(safe.address):
        raise Unavailable(f"Safe {safe.address}", "its deployment was mined and reverted")
    raise_if(check_deployed(client, safe))


def deploy_deposits(
    client: EvmClient, relayer: RelaySigner, signed: Signed[WalletCertificate], indices: Sequence[int]
) -> None:
    """Deploy deposit Safes of a certified Safe, all sent before any is waited for; those that stand already are left alone.

    Outside any batch, because anybody may deploy one first (TRUST.md). Raises Unavailable; safe to repeat.
    """
    deposits = {index: deposit_parameters(signed.message, index) for index in dict.fromkeys(indices)}
    codes = client.batch([("eth_getCode", (deposit.address, "latest")) for deposit in deposits.values()])
    sent: list[bytes] = []
    for (index, deposit), code in zip(deposits.items(), codes, strict=True):
        if not wire.data(code, "code"):
            call = relay_call(client, relayer, deposit.factory, deposit_call_data(signed.message, index))
            raw = relayer.sign_call(call, signed)
            sent.append(wire.data(client.call("eth_sendRawTransaction", "0x" + raw.hex()), "transaction hash", 32))
    for transaction in sent:  # one that reverts because somebody else was first leaves the right code behind
        wait(client, transaction)
    for deposit in deposits.values():
        raise_if(check_deployed(client, deposit))


def relay_call(client: EvmClient, relayer: RelaySigner, to: str, data: bytes, gas: int | None = None) -> RelayCall:
    """A zero-value call by the relayer, with its next nonce and the price of now.

    The gas limit is estimated where none is given; a call that would revert then raises NodeRefused.
    """
    sender = "0x" + relayer.identity().public.hex()
    fields = {"from": sender, "to": to, "data": "0x" + data.hex()}
    nonce, price = client.batch([("eth_getTransactionCount", [sender, "pending"]), ("eth_gasPrice", [])])
    if gas is None:
        gas = wire.quantity(client.call("eth_estimateGas", fields), "gas") * 12 // 10
    return RelayCall(
        chain=client.chain.name,
        nonce=wire.quantity(nonce, "nonce"),
        to=to,
        value=0,
        data=data,
        gas=gas,
        max_fee_per_gas=wire.quantity(price, "gas price") * 2 + _TIP,
        max_priority_fee_per_gas=_TIP,
    )


def outbid_call(client: EvmClient, last: bytes, to: str, data: bytes, *, sparing: bool) -> RelayCall | None:
    """The relayer's call again at the nonce of its last signed transaction, for more; None where that one pays what blocks ask.

    Nodes replace a waiting transaction where both prices are a tenth higher; an eighth is offered at the least. `sparing` offers
    no more than that and the price of now, for a relayer whose cap bars room for the next blocks.
    """
    fields = TypedTransaction.from_bytes(HexBytes(last)).as_dict()
    old = {name: _number(fields[name]) for name in ("nonce", "gas", "maxFeePerGas", "maxPriorityFeePerGas")}
    asked, tipped = client.batch([("eth_gasPrice", []), ("eth_maxPriorityFeePerGas", [])])
    price, tip = wire.quantity(asked, "gas price"), wire.quantity(tipped, "priority fee")
    if old["maxFeePerGas"] >= price and old["maxPriorityFeePerGas"] >= tip:
        return None
    least, least_tip = (-(-old[name] * 9 // 8) for name in ("maxFeePerGas", "maxPriorityFeePerGas"))
    more_tip = max(least_tip, tip)
    return RelayCall(
        chain=client.chain.name,
        nonce=old["nonce"],
        to=to,
        value=0,
        data=data,
        gas=old["gas"],
        max_fee_per_gas=max(least, more_tip, price if sparing else price * 2 + _TIP),
        max_priority_fee_per_gas=more_tip,
    )


def _number(field: object) -> int:
    return int.from_bytes(field) if isinstance(field, bytes) else int(str(field))
