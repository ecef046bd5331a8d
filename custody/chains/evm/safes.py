# SPDX-License-Identifier: AGPL-3.0-or-later
"""Safes derived from public keys, with no node: parameters, address, and the check of a certificate.

A seat imports this module, so it stays with eth-abi and eth-keys, which the typed messages load anyway: importing
safe-eth-py would pull in web3 (twice the start-up time, 30 MB more in every seat). The tests hold the derivation equal
to safe-eth-py's and to what the factory deploys.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_abi.packed import encode_packed
from eth_keys.datatypes import PublicKey
from eth_keys.exceptions import BadSignature
from eth_utils.address import is_hex_address, is_same_address, to_checksum_address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from custody.chains.evm import pins
from custody.rules.certificates import KEY_EVM, SafeParameters, WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule
from custody.rules.typed import ZERO32, ZERO_ADDRESS, Bytes32, EvmHex, Struct
from custody.rules.wallets import Address, Chain

_SETUP: Final = ("address[]", "uint256", "address", "bytes", "address", "address", "uint256", "address")
_SETUP_SELECTOR: Final = keccak(text=f"setup({','.join(_SETUP)})")[:4]


@dataclass(frozen=True, slots=True)
class SafeContracts(Struct):
    """Where one chain has Safe's contracts, and the keccak256 of the runtime code found there."""

    singleton: EvmHex
    singleton_code: Bytes32
    factory: EvmHex
    factory_code: Bytes32
    handler: EvmHex
    handler_code: Bytes32
    multisend: EvmHex
    multisend_code: Bytes32


@dataclass(frozen=True, slots=True)
class Setup:
    """The arguments of Safe's `setup`, as its initializer has them."""

    owners: tuple[str, ...]
    threshold: int
    to: str
    data: bytes
    handler: str
    payment_token: str
    payment: int
    payment_receiver: str


def owner_address(public: bytes) -> str:
    """The EIP-55 address of a 33-byte compressed secp256k1 public key; raises InvalidInput for anything else."""
    if len(public) != KEY_EVM:
        raise InvalidInput("public", Rule.MALFORMED, f"{len(public)} bytes", f"a compressed key of {KEY_EVM} bytes")
    try:
        return str(PublicKey.from_compressed_bytes(public).to_checksum_address())
    except (ValueError, BadSignature, ValidationError) as error:
        raise InvalidInput("public", Rule.MALFORMED, public.hex(), "a point of secp256k1") from error


def wallet_safe(contracts: SafeContracts, owners: Sequence[str], threshold: int, salt: int) -> SafeParameters:
    """Everything about the Safe of these owners. They are sorted by number, so one set of owners has one address.

    Raises InvalidInput: owners that are no addresses or stand twice, a threshold outside 1..N.
    """
    for owner in owners:
        if not is_hex_address(owner) or int(owner, 16) <= 1:  # Safe itself refuses zero and its sentinel, 1
            raise InvalidInput("owners", Rule.MALFORMED, repr(owner), "addresses that can own a Safe")
    ordered = _ascending(owners)
    if len(set(ordered)) != len(ordered):
        raise InvalidInput("owners", Rule.KEY_REUSED, ", ".join(ordered), "each owner once")
    if not 1 <= threshold <= len(ordered):
        raise InvalidInput("threshold", Rule.THRESHOLD_OUT_OF_RANGE, str(threshold), f"1 to {len(ordered)}")
    initializer = encode_setup(ordered, threshold, contracts.handler)
    return SafeParameters(
        singleton=to_checksum_address(contracts.singleton),
        singleton_code=contracts.singleton_code,
        factory=to_checksum_address(contracts.factory),
        factory_code=contracts.factory_code,
        handler=to_checksum_address(contracts.handler),
        handler_code=contracts.handler_code,
        multisend=to_checksum_address(contracts.multisend),
        multisend_code=contracts.multisend_code,
        proxy_creation_code=keccak(pins.PROXY_CREATION_CODE),
        initializer=initializer,
        salt=salt,
        address=proxy_address(contracts.factory, contracts.singleton, initializer, salt),
    )


def deposit_parameters(certificate: WalletCertificate, index: int) -> SafeParameters:
    """The counterfactual Safe of one index, owned by the certificate's Safe alone: a rotation moves it too (TRUST.md)."""
    safe = _safe_of(certificate)
    return wallet_safe(contracts_of(safe), [safe.address], 1, index)


def deposit_safe(certificate: WalletCertificate, index: int) -> Address:
    """The deposit address of one index of an EVM wallet. Raises InvalidInput where the certificate has no Safe."""
    return Address(Chain(certificate.chain), deposit_parameters(certificate, index).address)


def contracts_of(safe: SafeParameters) -> SafeContracts:
    """The contracts that a Safe rests on."""
    return SafeContracts(
        safe.singleton,
        safe.singleton_code,
        safe.factory,
        safe.factory_code,
        safe.handler,
        safe.handler_code,
        safe.multisend,
        safe.multisend_code,
    )


def encode_setup(owners: Sequence[str], threshold: int, handler: str) -> bytes:
    """The call of Safe's `setup` that does nothing else: no `to`, no data, no payment."""
    arguments = (list(owners), threshold, ZERO_ADDRESS, b"", handler, ZERO_ADDRESS, 0, ZERO_ADDRESS)
    return _SETUP_SELECTOR + encode(_SETUP, arguments)


def decode_setup(initializer: bytes) -> Setup | None:
    """The arguments of a `setup` call; None where the bytes are no such call."""
    if initializer[:4] != _SETUP_SELECTOR:
        return None
    try:
        owners, threshold, to, data, handler, token, payment, receiver = decode(_SETUP, initializer[4:])
    except (DecodingError, OverflowError):
        return None
    spelled = [to_checksum_address(text) for text in (to, handler, token, receiver)]
    named = tuple(str(to_checksum_address(owner)) for owner in owners)
    return Setup(named, threshold, spelled[0], data, spelled[1], spelled[2], payment, spelled[3])


def proxy_address(factory: str, singleton: str, initializer: bytes, salt: int) -> str:
    """Where `createProxyWithNonce` puts a Safe: CREATE2 (EIP-1014), salted with keccak(keccak(initializer) ‖ salt)."""
    init_code = pins.PROXY_CREATION_CODE + encode(["address"], [singleton])
    bound = keccak(encode_packed(["bytes32", "uint256"], [keccak(initializer), salt]))
    preimage = encode_packed(["bytes1", "address", "bytes32", "bytes32"], [b"\xff", factory, bound, keccak(init_code)])
    return str(to_checksum_address(keccak(preimage)[12:]))


def check_safe(certificate: WalletCertificate) -> Iterator[Refusal]:
    """Re-derive the Safe of a birth certificate from its seats' public keys: initializer, pinned code, address.

    Whether the contracts on a chain carry that code is `deploy.verify_contracts`: this reads no node. A successor's
    Safe keeps address and initializer while its keys change, so it is refused here; that is a matter of its `Rotation`.
    """
    if len(certificate.safe) != 1 or not Chain(certificate.chain).is_evm:
        yield Refusal(
            Rule.SCRIPT_MISMATCH, chain=certificate.chain, safes=len(certificate.safe), want="one Safe, on EVM"
        )
        return
    if certificate.previous != ZERO32:
        yield Refusal(Rule.SCRIPT_MISMATCH, previous=certificate.previous.hex(), want="a birth certificate")
    safe = certificate.safe[0]
    yield from check_code(contracts_of(safe))
    if safe.proxy_creation_code != keccak(pins.PROXY_CREATION_CODE):
        yield Refusal(
            Rule.CODE_HASH, of="proxy", got=safe.proxy_creation_code.hex(), want=keccak(pins.PROXY_CREATION_CODE).hex()
        )
    yield from _check_initializer(certificate, safe)
    derived = proxy_address(safe.factory, safe.singleton, safe.initializer, safe.salt)
    if safe.address != derived:  # spelling counts: a certificate has one form
        yield Refusal(Rule.ADDRESS_MISMATCH, got=safe.address, want=derived)


def check_code(contracts: SafeContracts) -> Iterator[Refusal]:
    """The stated code hashes are those of Safe v1.4.1, and no address is zero or stands for two contracts."""
    pinned = {
        "singleton": (contracts.singleton, contracts.singleton_code, pins.SINGLETON_CODE),
        "factory": (contracts.factory, contracts.factory_code, pins.FACTORY_CODE),
        "handler": (contracts.handler, contracts.handler_code, pins.HANDLER_CODE),
        "multisend": (contracts.multisend, contracts.multisend_code, pins.MULTISEND_CODE),
    }
    for name, (_, stated, want) in pinned.items():
        if stated != want:
            yield Refusal(Rule.CODE_HASH, of=name, got=stated.hex(), want=want.hex())
    addresses = [address.lower() for address, _, _ in pinned.values()]
    if len(set(addresses)) != len(addresses) or ZERO_ADDRESS in addresses:
        yield Refusal(
            Rule.CODE_HASH, of="contracts", got=", ".join(addresses), want="four addresses, none of them zero"
        )


def _check_initializer(certificate: WalletCertificate, safe: SafeParameters) -> Iterator[Refusal]:
    setup = decode_setup(safe.initializer)
    if setup is None:
        yield Refusal(Rule.INITIALIZER, field="initializer", got=safe.initializer[:4].hex(), want="a call of setup")
        return
    # The delegatecall to `to` runs with the Safe's own storage, and payment drains it: either takes the wallet at
    # birth.
    idle: dict[str, tuple[object, object]] = {
        "to": (setup.to, ZERO_ADDRESS),
        "data": (setup.data.hex(), ""),
        "paymentToken": (setup.payment_token, ZERO_ADDRESS),
        "payment": (setup.payment, 0),
        "paymentReceiver": (setup.payment_receiver, ZERO_ADDRESS),
    }
    for field, (got, zero) in idle.items():
        if got != zero:
            yield Refusal(Rule.INITIALIZER, field=field, got=got, want="zero")
    if not is_same_address(setup.handler, safe.handler):
        yield Refusal(Rule.INITIALIZER, field="fallbackHandler", got=setup.handler, want=safe.handler)
    if setup.threshold != certificate.m:
        yield Refusal(Rule.SCRIPT_MISMATCH, field="threshold", got=setup.threshold, want=certificate.m)
    try:
        owners = _ascending([owner_address(seat.key.public) for seat in certificate.seats])
    except InvalidInput as error:
        yield Refusal(Rule.SCRIPT_MISMATCH, field="seats", got=error.got, want=error.want)
        return
    if list(setup.owners) != owners:
        yield Refusal(Rule.SCRIPT_MISMATCH, field="owners", got=", ".join(setup.owners), want=", ".join(owners))
    canonical = encode_setup(owners, certificate.m, safe.handler)
    if setup == decode_setup(canonical) and safe.initializer != canonical:
        # Bytes that decode the same and hash differently would give the same keys a second address.
        yield Refusal(Rule.INITIALIZER, field="initializer", got="another encoding", want="the canonical ABI encoding")


def _ascending(owners: Sequence[str]) -> list[str]:
    return sorted((str(to_checksum_address(owner)) for owner in owners), key=lambda owner: int(owner, 16))


def _safe_of(certificate: WalletCertificate) -> SafeParameters:
    if len(certificate.safe) != 1:
        raise InvalidInput("certificate.safe", Rule.SCRIPT_MISMATCH, f"{len(certificate.safe)} Safes", "one Safe")
    return certificate.safe[0]
