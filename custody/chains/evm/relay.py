# SPDX-License-Identifier: AGPL-3.0-or-later
"""Calls that the relayer pays for: built here, signed by the relayer's own seat, sent and followed to a receipt."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, Protocol

from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import check_deployed
from custody.chains.evm.safes import deposit_parameters
from custody.chains.evm.transactions import wait
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule, raise_if
from custody.rules.relaying import RelayCall, deploy_call_data, deposit_call_data
from custody.rules.signatures import Key, Signed

DEPLOYED_SECONDS: Final = 20.0
"""How long the deployments of deposit Safes are waited for in one go: a turn at the chain is longer than that."""
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
    client: EvmClient,
    relayer: RelaySigner,
    signed: Signed[WalletCertificate],
    indices: Sequence[int],
    sent: MutableMapping[str, bytes],
    seconds: float = DEPLOYED_SECONDS,
) -> None:
    """Deploy deposit Safes of a certified Safe, all sent before any is waited for; those that stand already are left alone.

    Outside any batch, because anybody may deploy one first (TRUST.md). `sent` keeps the bytes of each that is on its way, by address:
    one that no block takes is offered for more at its own nonce, which everything of the relayer's waits behind; another one at the
    next nonce would wait there too. Raises Unavailable, also while one is not in a block; safe to repeat.
    """
    deposits = {index: deposit_parameters(signed.message, index) for index in dict.fromkeys(indices)}
    codes = client.batch([("eth_getCode", (deposit.address, "latest")) for deposit in deposits.values()])
    stands = {each.address: bool(wire.data(code, "code")) for each, code in zip(deposits.values(), codes, strict=True)}
    on_way = {address for address, raw in sent.items() if _is_waiting(client, raw)}
    missing = [(i, each) for i, each in deposits.items() if not stands[each.address] or each.address in on_way]
    for address in sent.keys() - on_way:
        del sent[address]
    for index, deposit in missing:
        to, data, last = deposit.factory, deposit_call_data(signed.message, index), sent.get(deposit.address)
        if last is None:
            raw = relayer.sign_call(relay_call(client, relayer, to, data), signed)
        else:
            raw = outbid(client, relayer, signed, last, to, data) or last
        if raw != last:
            client.call("eth_sendRawTransaction", "0x" + raw.hex())
            sent[deposit.address] = raw
    for _, deposit in missing:  # one that reverts because somebody else was first leaves the right code behind
        wait(client, keccak(sent[deposit.address]), seconds)
        del sent[deposit.address]
    for deposit in deposits.values():
        raise_if(check_deployed(client, deposit))


def _is_waiting(client: EvmClient, raw: bytes) -> bool:
    """Whether the node has a transaction that is in no block."""
    found = client.call("eth_getTransactionByHash", "0x" + keccak(raw).hex())
    return isinstance(found, Mapping) and found.get("blockHash") is None


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


def outbid(
    client: EvmClient, relayer: RelaySigner, signed: Signed[WalletCertificate], last: bytes, to: str, data: bytes
) -> bytes | None:
    """The relayer's transaction that takes the place of its last one, within its cap; None where that one pays what blocks ask.

    Raises Refused(relayer_above_cap).
    """
    for sparing in (False, True):
        call = outbid_call(client, last, to, data, sparing=sparing)
        if call is None:
            return None
        try:
            return relayer.sign_call(call, signed)
        except Refused as error:
            if sparing or {refusal.rule for refusal in error.refusals} != {Rule.RELAYER_CAP}:
                raise
    return None


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
