# SPDX-License-Identifier: AGPL-3.0-or-later
"""Seats' keys, a certified Safe, and a hand that signs SafeTxs: what a test needs to use a Safe as its owners would."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from eth_abi.abi import encode
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keys.datatypes import PrivateKey
from eth_utils.crypto import keccak

from custody.chains.evm import pins, wire
from custody.chains.evm.client import EvmClient
from custody.chains.evm.safes import SafeContracts, owner_address, wallet_safe
from custody.chains.evm.transactions import Receipt, send, submit, wait
from custody.rules.certificates import SeatKey, WalletCertificate, WalletKey
from custody.rules.signatures import Key, Scheme, Signature
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.rules.wallets import Chain, Tier

CHAIN: Final = Chain("eip155:31338")
LABEL: Final = "customer_hot/eip155:31338"
SEATS: Final = ("hot-1", "hot-2", "hot-3", "hot-4")
NOWHERE: Final = SafeContracts(  # pinned code at addresses that no chain was asked about
    singleton="0x" + "a1" * 20,
    singleton_code=pins.SINGLETON_CODE,
    factory="0x" + "a2" * 20,
    factory_code=pins.FACTORY_CODE,
    handler="0x" + "a3" * 20,
    handler_code=pins.HANDLER_CODE,
    multisend="0x" + "a4" * 20,
    multisend_code=pins.MULTISEND_CODE,
)
_OFF: Final = False
_ON: Final = True
_EXEC: Final = "address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,"


def private_key(name: str) -> PrivateKey:
    """The planted key of whoever has this name."""
    return PrivateKey(keccak(text=f"bulkhead test key of {name}"))


def account(name: str) -> LocalAccount:
    """A plain account with the planted key."""
    found: LocalAccount = Account.from_key(private_key(name).to_bytes())
    return found


def seat_key(name: str, label: str = LABEL, chain: str = CHAIN.name) -> SeatKey:
    """A seat's wallet key; its identity signature is not what these tests are about."""
    public = private_key(name).public_key.to_compressed_bytes()
    return SeatKey(WalletKey(name, label, chain, public, ""), Signature(Key(Scheme.ED25519, bytes(32)), bytes(64)))


def evm_certificate(
    contracts: SafeContracts = NOWHERE, seats: Sequence[str] = SEATS, m: int = 3, salt: int = 0
) -> WalletCertificate:
    """A hot wallet of these seats."""
    keys = tuple(seat_key(name) for name in seats)
    safe = wallet_safe(contracts, [owner_address(key.key.public) for key in keys], m, salt)
    return WalletCertificate(
        previous=ZERO32,
        label=LABEL,
        tier=Tier.CUSTOMER_HOT,
        chain=CHAIN.name,
        m=m,
        n=len(keys),
        seats=keys,
        safe=(safe,),
        script=(),
        birth=0,
    )


def altered(certificate: WalletCertificate, **changes: object) -> WalletCertificate:
    """The same certificate with another Safe in it."""
    return replace(certificate, safe=(replace(certificate.safe[0], **changes),))  # type: ignore[arg-type]


def exec_call(
    to: str,
    value: int,
    data: bytes,
    signatures: bytes,
    *,
    delegate: bool = False,
    safe_tx_gas: int = 0,
    gas_price: int = 0,
) -> bytes:
    """`execTransaction`; with a gas price, the Safe refunds the sender in wei (which no seat signs)."""
    fields = [to, value, data, int(delegate), safe_tx_gas, 0, gas_price, ZERO_ADDRESS, ZERO_ADDRESS, signatures]
    return keccak(text=f"execTransaction({_EXEC}bytes)")[:4] + encode((_EXEC + "bytes").split(","), fields)


def owned_call(owner: str, to: str, value: int, data: bytes = b"") -> bytes:
    """`execTransaction` of a Safe by its only owner, another Safe: the pre-validated signature (r = owner, v = 1)."""
    return exec_call(to, value, data, encode(["address", "uint256"], [owner, 0]) + b"\x01")


def batch_call(leaves: Sequence[tuple[str, int, bytes]]) -> bytes:
    """`multiSend` of plain calls, packed by hand so that the decoder under test shares nothing with it."""
    packed = b"".join(
        b"\x00" + bytes.fromhex(to[2:]) + value.to_bytes(32) + len(data).to_bytes(32) + data
        for to, value, data in leaves
    )
    return keccak(text="multiSend(bytes)")[:4] + encode(["bytes"], [packed])


def signed_call(
    client: EvmClient,
    safe: str,
    signers: Sequence[str],
    to: str,
    value: int = 0,
    data: bytes = b"",
    *,
    delegate: bool = False,
    safe_tx_gas: int = 0,
    gas_price: int = 0,
) -> bytes:
    """`execTransaction` under the contract's own hash, signed by the named seats in ascending order of address."""
    nonce = wire.quantity(client.read(safe, "nonce()"))
    fields = [to, value, data, int(delegate), safe_tx_gas, 0, gas_price, ZERO_ADDRESS, ZERO_ADDRESS, nonce]
    question = keccak(text=f"getTransactionHash({_EXEC}uint256)")[:4] + encode((_EXEC + "uint256").split(","), fields)
    digest = wire.data(client.call("eth_call", {"to": safe, "data": "0x" + question.hex()}, "latest"), size=32)
    keys = sorted((private_key(name) for name in signers), key=lambda key: key.public_key.to_canonical_address())
    signatures = b"".join(
        s.r.to_bytes(32) + s.s.to_bytes(32) + bytes([s.v + 27]) for s in (key.sign_msg_hash(digest) for key in keys)
    )
    return exec_call(to, value, data, signatures, delegate=delegate, safe_tx_gas=safe_tx_gas, gas_price=gas_price)


def in_one_block(client: EvmClient, sent: Sequence[tuple[LocalAccount, str | None, bytes, int]]) -> list[Receipt]:
    """Mine several transactions, each (sender, to, data, wei), together in one block."""
    client.call("evm_setAutomine", _OFF)
    try:
        hashes = [submit(client, sender, to, data, value=wei, gas=1_500_000) for sender, to, data, wei in sent]
        client.call("evm_mine")
    finally:
        client.call("evm_setAutomine", _ON)
    receipts = [wait(client, transaction) for transaction in hashes]
    assert len({receipt.block for receipt in receipts}) == 1
    return receipts


def execute(client: EvmClient, sender: LocalAccount, safe: str, call: bytes) -> Receipt:
    """Carry a signed call to a Safe; it must succeed."""
    receipt = send(client, sender, safe, call)
    assert receipt.succeeded
    return receipt
