# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a SafeTx does, leaf by leaf, from its bytes alone: no node, no driver, and no code shared with whoever built it.

Everything that is not one of the few known forms is refused (TRUST.md, "A seat decides by itself"). Each form must be the one
canonical ABI encoding of what it means, so that no byte is signed that nobody looked at. The digest is EIP-712's under Safe
1.4.1's domain, by eth-account.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError
from eth_account.messages import encode_typed_data
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from custody.chains.evm.pins import PROXY_CREATION_CODE
from custody.chains.evm.safes import check_safe, deposit_parameters
from custody.rules.amounts import Asset, AssetKind
from custody.rules.certificates import SafeParameters, WalletCertificate
from custody.rules.intents import Anchor
from custody.rules.payouts import (
    Decoded,
    DecodedPayload,
    Leaf,
    LeafKind,
    OwnerCall,
    Place,
    SafeTx,
    Surroundings,
    ToSign,
)
from custody.rules.refusals import Refusal, Rule
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.rules.wallets import Chain

CALL: Final = 0
DELEGATECALL: Final = 1

_TRANSFER: Final = ("address", "uint256")
_MULTI_SEND: Final = ("bytes",)
_EXECUTE: Final = (
    "address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes",
)  # fmt: skip


def _selector(name: str, types: Sequence[str]) -> bytes:
    return bytes(keccak(text=f"{name}({','.join(types)})")[:4])


TRANSFER: Final = _selector("transfer", _TRANSFER)
MULTI_SEND: Final = _selector("multiSend", _MULTI_SEND)
EXECUTE: Final = _selector("execTransaction", _EXECUTE)

_OWNER_CALLS: Final[Mapping[bytes, tuple[tuple[str, ...], Callable[[tuple[Any, ...]], OwnerCall]]]] = {
    _selector("addOwnerWithThreshold", ("address", "uint256")): (
        ("address", "uint256"),
        lambda a: OwnerCall(_spelled(a[0]), None, a[1]),
    ),
    _selector("removeOwner", ("address", "address", "uint256")): (
        ("address", "address", "uint256"),
        lambda a: OwnerCall(None, _spelled(a[1]), a[2]),
    ),
    _selector("swapOwner", ("address", "address", "address")): (
        ("address", "address", "address"),
        lambda a: OwnerCall(_spelled(a[2]), _spelled(a[1]), None),
    ),
    _selector("changeThreshold", ("uint256",)): (("uint256",), lambda a: OwnerCall(None, None, a[0])),
}
_SAFE_TX: Final = {
    "EIP712Domain": [{"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}],
    "SafeTx": [
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "data", "type": "bytes"},
        {"name": "operation", "type": "uint8"},
        {"name": "safeTxGas", "type": "uint256"},
        {"name": "baseGas", "type": "uint256"},
        {"name": "gasPrice", "type": "uint256"},
        {"name": "gasToken", "type": "address"},
        {"name": "refundReceiver", "type": "address"},
        {"name": "nonce", "type": "uint256"},
    ],
}
"""Safe 1.4.1's typed transaction; its domain has a chain and a contract, no name and no version."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call as it would be made by the omnibus Safe, or by a deposit Safe inside it."""

    to: str
    value: int
    data: bytes


def decode(tx: SafeTx, around: Surroundings) -> Decoded:
    """Everything a SafeTx does, or every reason why it cannot be signed. Pure; never raises for what the bytes say."""
    certificate = around.certificate
    if len(certificate.safe) != 1 or not Chain(certificate.chain).is_evm:
        return (Refusal(Rule.WRONG_NETWORK, chain=certificate.chain, want="a certificate with one Safe"),)
    reader = _Reader(around, certificate.safe[0])
    refusals = [*_check_wallet(tx, certificate), *_check_gas(tx)]
    leaves: list[Leaf] = []
    for found in reader.leaves(tx):
        if isinstance(found, Leaf):
            leaves.append(found)
        else:
            refusals.append(found)
    if refusals:
        return tuple(refusals)
    own = Place(reader.certificate)
    return DecodedPayload(
        chain=tx.chain,
        wallet=around.wallet,
        certificate=reader.certificate,
        anchor=Anchor(tx.chain, around.wallet, str(tx.nonce)),
        native=reader.native.symbol if reader.native else "",
        leaves=tuple(leaves),
        inputs=(),
        fee=0,
        to_sign=(ToSign(safe_tx_hash(tx), own),),
    )


def safe_tx_hash(tx: SafeTx) -> bytes:
    """The 32 bytes that owners sign: keccak256(0x19 0x01 domainSeparator hashStruct), as the contract's getTransactionHash."""
    message = {
        "to": _spelled(tx.to),
        "value": tx.value,
        "data": tx.data,
        "operation": tx.operation,
        "safeTxGas": tx.safe_tx_gas,
        "baseGas": tx.base_gas,
        "gasPrice": tx.gas_price,
        "gasToken": _spelled(tx.gas_token),
        "refundReceiver": _spelled(tx.refund_receiver),
        "nonce": tx.nonce,
    }
    domain = {"chainId": Chain(tx.chain).evm_id, "verifyingContract": _spelled(tx.safe)}
    full = {"types": _SAFE_TX, "primaryType": "SafeTx", "domain": domain, "message": message}
    signable = encode_typed_data(full_message=full)
    return bytes(keccak(b"\x19" + signable.version + signable.header + signable.body))


def _check_wallet(tx: SafeTx, certificate: WalletCertificate) -> Iterator[Refusal]:
    if (tx.chain, tx.safe.lower()) != (certificate.chain, certificate.safe[0].address.lower()):
        want = f"{certificate.safe[0].address} on {certificate.chain}"
        yield Refusal(Rule.WRONG_WALLET, got=f"{tx.safe} on {tx.chain}", want=want)


def _check_gas(tx: SafeTx) -> Iterator[Refusal]:
    # A refund pays whoever executes, or a named receiver, out of the Safe: a payment that no leaf shows. safeTxGas above zero
    # lets an inner call fail while the nonce burns.
    idle: dict[str, tuple[object, object]] = {
        "safeTxGas": (tx.safe_tx_gas, 0),
        "baseGas": (tx.base_gas, 0),
        "gasPrice": (tx.gas_price, 0),
        "gasToken": (tx.gas_token, ZERO_ADDRESS),
        "refundReceiver": (tx.refund_receiver, ZERO_ADDRESS),
    }
    for field, (got, zero) in idle.items():
        if got != zero:
            yield Refusal(Rule.GAS_FIELDS, field=field, got=got, want="zero")


class _Reader:
    """Reads calls against one certificate. Yields leaves and refusals side by side, so that every reason shows at once."""

    def __init__(self, around: Surroundings, safe: SafeParameters) -> None:
        self.certificate = around.certificate.struct_hash
        self._around = around
        self._omnibus = safe.address.lower()
        self._multisend = safe.multisend.lower()
        listed = around.assets.on(Chain(around.certificate.chain))
        self.native: Asset | None = next((asset for asset in listed if asset.kind is AssetKind.NATIVE), None)
        self._tokens = {asset.contract.text.lower(): asset for asset in listed if asset.contract is not None}

    def leaves(self, tx: SafeTx) -> Iterator[Leaf | Refusal]:
        """The transaction's one call, or each call of its batch."""
        call = _Call(tx.to.lower(), tx.value, tx.data)
        if tx.operation == CALL:
            yield self._call(call, alone=True)
        elif tx.operation == DELEGATECALL and call.to == self._multisend:
            yield from self._batch(call)
        else:  # Bybit: a delegatecall runs a stranger's code with the Safe's own storage and coins
            yield Refusal(Rule.DELEGATECALL, operation=tx.operation, to=tx.to, want=f"{self._multisend} or operation 0")

    def _batch(self, call: _Call) -> Iterator[Leaf | Refusal]:
        arguments = _arguments(call.data, MULTI_SEND, _MULTI_SEND)
        if arguments is None or call.value:
            yield Refusal(Rule.NOT_CANONICAL, of="multiSend", value=call.value, bytes=len(call.data))
            return
        packed: bytes = arguments[0]
        if not packed:
            yield Refusal(Rule.UNKNOWN_CALL, of="multiSend", got="an empty batch", want="at least one leaf")
        position = 0
        while position < len(packed):
            head = packed[position : position + 85]
            length = int.from_bytes(head[53:85])
            end = position + 85 + length
            if len(head) < 85 or end > len(packed):
                yield Refusal(Rule.NOT_CANONICAL, of="multiSend leaf", at=position, bytes=len(packed))
                return
            if head[0] != CALL:
                yield Refusal(Rule.DELEGATECALL, operation=head[0], to="0x" + head[1:21].hex(), at=position)
            else:
                inner = _Call("0x" + head[1:21].hex(), int.from_bytes(head[21:53]), packed[position + 85 : end])
                yield self._call(inner, alone=False)
            position = end

    def _call(self, call: _Call, *, alone: bool) -> Leaf | Refusal:
        if call.to == self._omnibus:
            return self._own_call(call, alone=alone)
        if call.data[:4] == EXECUTE:
            return self._sweep(call)
        return self._payment(call)

    def _own_call(self, call: _Call, *, alone: bool) -> Leaf | Refusal:
        """The Safe calls itself: nothing at all, or one of the owner calls; a module, guard, handler or anything else never."""
        if call.value:
            return Refusal(Rule.OWN_ADDRESS, to=call.to, value=call.value)
        if not call.data and alone:
            return Leaf(LeafKind.VOID)
        known = _OWNER_CALLS.get(call.data[:4])
        if known is None:
            return Refusal(
                Rule.SAFE_CHANGED, selector=call.data[:4].hex(), want="nothing, or an owner call under a rotation"
            )
        arguments = _arguments(call.data, call.data[:4], known[0])
        if arguments is None:
            return Refusal(Rule.NOT_CANONICAL, of="owner call", bytes=len(call.data))
        return Leaf(LeafKind.OWNER_CHANGE, owners=known[1](arguments))

    def _payment(self, call: _Call) -> Leaf | Refusal:
        if call.to == ZERO_ADDRESS:
            return Refusal(Rule.MALFORMED, field="to", got=call.to, want="an address other than zero")
        if call.data[:4] == TRANSFER:
            return self._transfer(call)
        if call.data:
            return Refusal(Rule.UNKNOWN_CALL, to=call.to, selector=call.data[:4].hex(), bytes=len(call.data))
        if call.value <= 0:
            return Refusal(Rule.NOT_POSITIVE, to=call.to, value=call.value)
        if self.native is None:
            return Refusal(
                Rule.UNKNOWN_ASSET, chain=self._around.certificate.chain, want="a native asset in the registry"
            )
        return self._leaf(LeafKind.NATIVE, self.native, call.value, call.to)

    def _transfer(self, call: _Call) -> Leaf | Refusal:
        token = self._tokens.get(call.to)
        if token is None:
            return Refusal(Rule.UNKNOWN_ASSET, contract=_spelled(call.to), want="a token of the registry")
        arguments = _arguments(call.data, TRANSFER, _TRANSFER)
        if arguments is None or call.value:
            return Refusal(Rule.NOT_CANONICAL, of="transfer", value=call.value, bytes=len(call.data))
        to, units = str(arguments[0]).lower(), int(arguments[1])
        if units <= 0 or to == ZERO_ADDRESS:
            return Refusal(Rule.NOT_POSITIVE, to=to, units=units)
        return self._leaf(LeafKind.TOKEN, token, units, to)

    def _leaf(self, kind: LeafKind, asset: Asset, units: int, to: str) -> Leaf:
        return Leaf(kind, asset.symbol, units, _spelled(to), place=self._places.get(to) or self._deposit(to))

    def _sweep(self, call: _Call) -> Leaf | Refusal:
        """A deposit Safe's execTransaction, sent by its only owner: what it holds goes to the omnibus and nowhere else."""
        source = self._deposit(call.to)
        if source is None:
            return Refusal(
                Rule.UNKNOWN_CALL, to=call.to, selector=EXECUTE.hex(), want="a deposit Safe of this certificate"
            )
        arguments = _arguments(call.data, EXECUTE, _EXECUTE)
        if arguments is None or call.value:
            return Refusal(Rule.NOT_CANONICAL, of="execTransaction", value=call.value, bytes=len(call.data))
        to, value, data, operation, safe_gas, base_gas, gas_price, gas_token, refund, signatures = arguments
        if operation != CALL:
            return Refusal(Rule.DELEGATECALL, operation=operation, of="deposit Safe", to=to)
        gas = (safe_gas, base_gas, gas_price, gas_token, refund)
        if gas != (0, 0, 0, ZERO_ADDRESS, ZERO_ADDRESS):
            return Refusal(Rule.GAS_FIELDS, field="deposit Safe", got=str(gas), want="zero")
        if signatures != bytes.fromhex(self._omnibus[2:]).rjust(32, b"\0") + bytes(32) + b"\x01":
            return Refusal(Rule.NOT_CANONICAL, of="pre-validated signature", got=signatures.hex())
        paid = self._payment(_Call(str(to).lower(), value, data))
        if isinstance(paid, Refusal):
            return paid
        if paid.destination.lower() != self._omnibus:
            return Refusal(Rule.SWEEP_STRANGER, to=paid.destination, want=_spelled(self._omnibus))
        return Leaf(LeafKind.SWEEP, paid.asset, paid.units, paid.destination, Place(self.certificate), source)

    @cached_property
    def _places(self) -> dict[str, Place]:
        """Every certified Safe that was handed in, by its address; a birth is derived again, a successor keeps a birth's Safe."""
        births = [c for c in self._around.others if _is_birth(c)]
        derived = {c.safe for c in births}
        successors = [c for c in self._around.others if c.previous != ZERO32 and c.safe in derived]
        known = (*births, *successors, self._around.certificate)
        return {c.safe[0].address.lower(): Place(c.struct_hash) for c in known}

    def _deposit(self, address: str) -> Place | None:
        index = self._deposits.get(address)
        return None if index is None else Place(self.certificate, index=index)

    @cached_property
    def _deposits(self) -> Mapping[str, int]:
        return _deposit_table(self._around.certificate, self._around.window.receive)


@lru_cache(maxsize=8)
def _deposit_table(certificate: WalletCertificate, last: int) -> Mapping[str, int]:
    """Addresses (lower case) of a certificate's deposit Safes to their index; the same as `safes.deposit_safe`, which tests hold.

    Only the salt changes from index to index, so what stays is hashed once: a window of 1000 in a fortieth of the time.
    """
    first = deposit_parameters(certificate, 0)
    code = keccak(PROXY_CREATION_CODE + abi_encode(["address"], [first.singleton]))
    setup, deployer = keccak(first.initializer), b"\xff" + bytes.fromhex(first.factory[2:])
    table = {}
    for index in range(last + 1):
        salt = keccak(setup + index.to_bytes(32))
        table["0x" + keccak(deployer + salt + code)[12:].hex()] = index
    return table


def _arguments(data: bytes, selector: bytes, types: Sequence[str]) -> tuple[Any, ...] | None:
    """A call's arguments, if these bytes are exactly what they encode to: nothing behind, no dirty bits, no odd offsets."""
    if data[:4] != selector:
        return None
    try:
        arguments = abi_decode(types, data[4:])
    except (DecodingError, OverflowError):
        return None
    return arguments if selector + abi_encode(types, arguments) == data else None


def _spelled(address: str) -> str:
    return str(to_checksum_address(address))


@lru_cache(maxsize=256)
def _is_birth(certificate: WalletCertificate) -> bool:
    """Whether a certificate's Safe follows from its keys; asked of the same few certificates for every payload."""
    return not [*check_safe(certificate)]
