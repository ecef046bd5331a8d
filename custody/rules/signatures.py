# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signatures over typed messages: a tagged union of schemes, so that a new one opens no seat code (TRUST.md)."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from coincurve import PublicKey
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from eth_utils.crypto import keccak

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.typed import Bytes, Domain, Struct
from custody.rules.webauthn import PUBLIC_BYTES, check_point, is_assertion

_SECP256K1_HALF: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Scheme(StrEnum):
    """How a key signs a digest."""

    EIP712_SECP256K1 = "eip712-secp256k1"
    ED25519 = "ed25519"
    WEBAUTHN_ES256 = "webauthn-es256"


DISPLAYING: Final = frozenset({Scheme.EIP712_SECP256K1})
"""Schemes whose keys can show what they sign: an EIP-712 signer is handed the fields, every other one 32 bytes that tell nothing."""
KEY_BYTES: Final = {Scheme.EIP712_SECP256K1: 20, Scheme.ED25519: 32, Scheme.WEBAUTHN_ES256: PUBLIC_BYTES}
"""Length of a key's public form: the 20-byte address for secp256k1 (recoverable), the public key for Ed25519, the hash of its page's
origin and its point for a passkey."""


@dataclass(frozen=True, slots=True)
class Key(Struct):
    """A public key as the roster names it: 20-byte address for secp256k1, 32-byte public key for Ed25519, page and point for a passkey."""

    scheme: str
    public: Bytes

    def __post_init__(self) -> None:
        Struct.__post_init__(self)
        if self.scheme not in set(Scheme):
            raise InvalidInput("key.scheme", Rule.MALFORMED, repr(self.scheme), "one of " + ", ".join(Scheme))
        if len(self.public) != KEY_BYTES[Scheme(self.scheme)]:
            raise InvalidInput(
                "key.public", Rule.MALFORMED, f"{len(self.public)} bytes", f"{KEY_BYTES[Scheme(self.scheme)]}"
            )
        if self.scheme == Scheme.WEBAUTHN_ES256:
            check_point(self.public)

    @property
    def material(self) -> bytes:
        """What its holder holds, whatever it is named for: one passkey named for two pages is still one key."""
        return self.public[32:] if self.scheme == Scheme.WEBAUTHN_ES256 else self.public

    def __str__(self) -> str:
        return f"{self.scheme}:0x{self.public.hex()}"


@dataclass(frozen=True, slots=True)
class Signature(Struct):
    """One signature over a typed message's digest, with the key it claims to be of."""

    key: Key
    value: Bytes

    def is_over(self, digest: bytes) -> bool:
        """Whether this is the key's signature over these 32 bytes. High-s secp256k1 signatures are not (EIP-2)."""
        return _HOLDS[Scheme(self.key.scheme)](self.key.public, self.value, digest)


def _ed25519(public: bytes, value: bytes, digest: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(value, digest)
    except (InvalidSignature, ValueError):
        return False
    return True


def _secp256k1(address: bytes, value: bytes, digest: bytes) -> bool:
    if len(value) != 65 or value[64] not in (0, 1, 27, 28) or int.from_bytes(value[32:64]) > _SECP256K1_HALF:
        return False
    try:
        # libsecp256k1 refuses r or s of zero, or not below the group's order (SEC 1, 4.1.6), and a digest of other than 32 bytes.
        key = PublicKey.from_signature_and_message(value[:64] + bytes([value[64] % 27]), digest, hasher=None)
    except ValueError:
        return False
    return keccak(key.format(compressed=False)[1:])[12:] == address


_HOLDS: Final[Mapping[Scheme, Callable[[bytes, bytes, bytes], bool]]] = {
    Scheme.EIP712_SECP256K1: _secp256k1,
    Scheme.ED25519: _ed25519,
    Scheme.WEBAUTHN_ES256: is_assertion,
}
"""By scheme: whether a value is a signature of this public form over these 32 bytes. None of them raises."""

M = TypeVar("M", bound=Struct, covariant=True)
N = TypeVar("N", bound=Struct)


@dataclass(frozen=True, slots=True)
class Signed(Generic[M]):
    """A message with the signatures gathered so far; says nothing yet about who may sign."""

    message: M
    signatures: tuple[Signature, ...]

    def signers(self, domain: Domain) -> frozenset[Key]:
        """The distinct keys whose signature over this exact message is valid in this deployment."""
        digest = domain.digest(self.message)
        return frozenset(s.key for s in self.signatures if s.is_over(digest))

    def joined(self, more: Iterable[Signature]) -> "Signed[M]":
        """The same message with more signatures, each distinct one once, in key order."""
        distinct = {
            *self.signatures,
            *more,
        }  # never one instead of another of its key: a false one must not push out a true one
        return Signed(self.message, tuple(sorted(distinct, key=lambda s: (s.key.scheme, s.key.public, s.value))))

    def to_json(self) -> dict[str, Any]:
        """`{"type", "message", "signatures"}`."""
        return {
            "type": type(self.message).__name__,
            "message": self.message.to_json(),
            "signatures": [s.to_json() for s in self.signatures],
        }

    @classmethod
    def from_json(cls, kind: type[N], data: object) -> "Signed[N]":
        """Read a signed message of a known kind; raises InvalidInput where it is another or malformed."""
        if not isinstance(data, dict) or set(data) != {"type", "message", "signatures"}:
            raise InvalidInput(kind.__name__, Rule.MALFORMED, "another shape", "an object of type, message, signatures")
        if data["type"] != kind.__name__:
            raise InvalidInput("type", Rule.MALFORMED, repr(data["type"]), kind.__name__)
        if not isinstance(data["signatures"], list):
            raise InvalidInput("signatures", Rule.MALFORMED, type(data["signatures"]).__name__, "a list")
        signatures = tuple(Signature.from_json(s, f"signatures[{i}]") for i, s in enumerate(data["signatures"]))
        return Signed(kind.from_json(data["message"]), signatures)
