# SPDX-License-Identifier: AGPL-3.0-or-later
"""An authenticator in software: real ES256 over what a browser would write, true by default and lying where a test asks it to."""

import hashlib
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, derive_private_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import encode_cbor

from custody.rules.signatures import Key, Scheme, Signature
from custody.rules.typed import Domain, Struct
from custody.rules.webauthn import ORDER, assertion_value, challenge_of, public_form

ORIGIN: Final = "https://treasury.bulkhead.example"
UP, UV, BE, BS, AT, ED = 1, 4, 8, 16, 64, 128


def base64url(raw: bytes) -> str:
    """Without padding, as browsers and WebAuthn's JSON forms write it."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass(frozen=True)
class Lies:
    """What an authenticator or its browser says instead of the truth; None means the truth."""

    origin: str | None = None
    rp_id: str | None = None
    type: str | None = None
    challenge: str | None = None
    flags: int | None = None
    counter: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    """Further keys of clientDataJSON, put before the others' values where the names are the same."""
    trailing: bytes = b""
    """After authenticatorData's 37 bytes, and signed with them."""
    client_data: bytes | None = None
    """The whole of clientDataJSON."""


HONEST: Final = Lies()


@dataclass(frozen=True)
class Assertion:
    """What `navigator.credentials.get` answers, as bytes."""

    authenticator_data: bytes
    client_data: bytes
    signature: bytes

    @property
    def value(self) -> bytes:
        """The one form of these three in a signature; raises InvalidInput where there is none."""
        return assertion_value(self.authenticator_data, self.client_data, self.signature)

    @property
    def unchecked(self) -> bytes:
        """The same bytes put together by somebody who checks nothing: signature as it came."""
        return self.authenticator_data + len(self.client_data).to_bytes(2) + self.client_data + self.signature


@dataclass(frozen=True)
class Authenticator:
    """One passkey by its owner's word, made for one origin."""

    word: str
    origin: str = ORIGIN
    flags: int = UP | UV

    @cached_property
    def _private(self) -> EllipticCurvePrivateKey:
        return derive_private_key(int.from_bytes(hashlib.sha256(self.word.encode()).digest()), SECP256R1())

    @property
    def rp_id(self) -> str:
        """The origin's host."""
        return self.origin.partition("://")[2].partition(":")[0]

    @property
    def point(self) -> tuple[int, int]:
        """x and y of the public key."""
        numbers = self._private.public_key().public_numbers()
        return numbers.x, numbers.y

    @property
    def key(self) -> Key:
        """The public form as the roster names it."""
        return Key(Scheme.WEBAUTHN_ES256, public_form(self.origin, *self.point))

    @property
    def credential_id(self) -> bytes:
        """What a page finds it by; no secret."""
        return hashlib.sha256(b"credential " + self.word.encode()).digest()

    def at(self, origin: str) -> "Authenticator":
        """The same private key used on another page."""
        return replace(self, origin=origin)

    def assertion(self, digest: bytes, lies: Lies = HONEST) -> Assertion:
        """A user verified themself and touched the key: what the browser hands to the page."""
        client = self._client_data(lies, challenge_of(digest), "webauthn.get")
        data = self._authenticator_data(lies, self.flags)
        signature = self._private.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
        return Assertion(data, client, signature)

    def over(self, digest: bytes, lies: Lies = HONEST) -> Signature:
        """A signature over 32 bytes, as `tests.unit.signers.Signer` makes one with other schemes."""
        return Signature(self.key, self.assertion(digest, lies).value)

    def sign(self, message: Struct, genesis: bytes) -> Signature:
        """A signature over a message in one deployment."""
        return self.over(Domain(genesis).digest(message))

    def registration(self, challenge: bytes, lies: Lies = HONEST) -> dict[str, Any]:
        """What `navigator.credentials.create` answers, in its JSON form (`PublicKeyCredential.toJSON`), attestation `none`."""
        x, y = self.point
        cose = encode_cbor({1: 2, 3: -7, -1: 1, -2: x.to_bytes(32), -3: y.to_bytes(32)})
        attested = bytes(16) + len(self.credential_id).to_bytes(2) + self.credential_id + cose
        data = self._authenticator_data(lies, self.flags | AT, attested)
        client = self._client_data(lies, base64url(challenge), "webauthn.create")
        attestation = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
        return {
            "id": base64url(self.credential_id),
            "rawId": base64url(self.credential_id),
            "type": "public-key",
            "response": {
                "clientDataJSON": base64url(client),
                "attestationObject": base64url(attestation),
                "transports": ["internal"],
            },
            "clientExtensionResults": {},
        }

    def _client_data(self, lies: Lies, challenge: str, kind: str) -> bytes:
        if lies.client_data is not None:
            return lies.client_data
        data = {
            "type": lies.type or kind,
            "challenge": challenge if lies.challenge is None else lies.challenge,
            "origin": self.origin if lies.origin is None else lies.origin,
            "crossOrigin": False,
            **lies.extra,
        }
        return json.dumps(data, separators=(",", ":")).encode()

    def _authenticator_data(self, lies: Lies, flags: int, attested: bytes = b"") -> bytes:
        rp_id = self.rp_id if lies.rp_id is None else lies.rp_id
        said = flags if lies.flags is None else lies.flags
        return (
            hashlib.sha256(rp_id.encode()).digest()
            + bytes([said])
            + lies.counter.to_bytes(4)
            + attested
            + lies.trailing
        )


def high_s(signature: bytes) -> bytes:
    """The other signature of the same key over the same bytes, in DER; given either, the one with the higher s."""
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, max(s, ORDER - s))
