# SPDX-License-Identifier: AGPL-3.0-or-later
"""Key files of people and programs: Ethereum keystores (secp256k1) and encrypted PEM files (Ed25519).

A key file signs digests of typed messages and nothing else. Who holds it approves with it; no server ever reads one.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account
from eth_keys.datatypes import PrivateKey

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.signatures import Key, Scheme, Signature


class Signer(Protocol):
    """Whoever can sign a 32-byte digest with one key."""

    @property
    def key(self) -> Key:
        """Its public form."""
        ...

    def sign(self, digest: bytes) -> Signature:
        """A signature over a 32-byte digest."""
        ...


class Secp256k1Signer:
    """A person's secp256k1 key, opened from a keystore."""

    def __init__(self, private: bytes) -> None:
        self._private = PrivateKey(private)
        self.key = Key(Scheme.EIP712_SECP256K1, self._private.public_key.to_canonical_address())

    def sign(self, digest: bytes) -> Signature:
        """65 bytes r, s, v over the digest."""
        return Signature(self.key, self._private.sign_msg_hash(digest).to_bytes())


class Ed25519Signer:
    """A program's Ed25519 key, opened from a PEM file."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = Key(Scheme.ED25519, private.public_key().public_bytes_raw())

    def sign(self, digest: bytes) -> Signature:
        """64 bytes over the digest."""
        return Signature(self.key, self._private.sign(digest))


def open_key(path: Path, password: str) -> Signer:
    """Open a keystore or PEM file; raises InvalidInput where the file or its password is wrong."""
    raw = _read(path)
    if not raw.lstrip().startswith(b"{"):
        return Ed25519Signer(open_pem(path, password))
    try:
        return Secp256k1Signer(bytes(Account.decrypt(json.loads(raw), password)))
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput("key", Rule.MALFORMED, f"{path.name}: {error}", _WANT) from error


def open_pem(path: Path, password: str) -> Ed25519PrivateKey:
    """Open a program's PEM file, for a client that signs its requests with it too; raises InvalidInput as `open_key`."""
    try:
        private = serialization.load_pem_private_key(_read(path), password.encode())
    except (ValueError, TypeError) as error:
        raise InvalidInput("key", Rule.MALFORMED, f"{path.name}: {error}", _WANT) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidInput("key", Rule.MALFORMED, type(private).__name__, "an Ed25519 key")
    return private


_WANT: Final = "a keystore or PEM file and its password"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("key", Rule.MALFORMED, f"{path.name}: {error.strerror}", "a readable key file") from error


def make_keystore(path: Path, password: str, iterations: int | None = None) -> Secp256k1Signer:
    """Make a new secp256k1 key and write its keystore, once; `iterations` of scrypt's N, the library's default if None."""
    private = secrets.token_bytes(32)
    signer = Secp256k1Signer(private)
    body = json.dumps(Account.encrypt(private, password, iterations=iterations))
    _write_once(path, body.encode())
    return signer


def make_pem(path: Path, password: str) -> Ed25519Signer:
    """Make a new Ed25519 key and write its encrypted PEM file, once."""
    private = Ed25519PrivateKey.generate()
    encryption = serialization.BestAvailableEncryption(password.encode())
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    _write_once(path, pem)
    return Ed25519Signer(private)


def _write_once(path: Path, body: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput("key", Rule.ALREADY_EXISTS, path.name, "a path where no key is yet") from error
    with os.fdopen(handle, "wb") as file:
        file.write(body)
