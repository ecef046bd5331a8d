# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a key-holder needs of its own vault: an identity key that only signs, and documents under check-and-set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from custody.rules.errors import CustodyError, Unavailable
from custody.rules.signatures import Key, Scheme, Signature


@dataclass(eq=False)
class CasConflict(CustodyError):
    """A document is not at the version that the writer had read; nothing was written."""

    path: str
    expected: int


class Vault(Protocol):
    """One vault of one key-holder. Every method raises Unavailable where it does not answer.

    A write that raised Unavailable may have happened; whoever writes has to be able to find out by reading.
    """

    def identity_public(self) -> bytes:
        """The Ed25519 identity's public key, 32 bytes."""
        ...

    def identity_sign(self, message: bytes) -> bytes:
        """64 bytes: the identity's raw Ed25519 signature over exactly these bytes."""
        ...

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """A document and its version; (None, 0) only where there never was one. A deleted one raises Unavailable."""
        ...

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """Write over version `cas`, 0 for a document that must not exist yet. Raises CasConflict."""
        ...

    def list(self, path: str) -> Sequence[str]:
        """Names directly below a folder, folders with a trailing slash; empty where there is none."""
        ...


class Identity:
    """The identity key of a vault's holder."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._key: Key | None = None

    @property
    def key(self) -> Key:
        """The public key; asked for once, so that a key exchanged underneath shows as a bad signature."""
        if self._key is None:
            self._key = Key(Scheme.ED25519, self._vault.identity_public())
        return self._key

    def sign(self, digest: bytes) -> Signature:
        """Sign a typed message's digest and check the signature before anybody sees it."""
        signature = Signature(self.key, self._vault.identity_sign(digest))
        if not signature.is_over(digest):
            raise Unavailable("identity key", "the vault's signature does not verify under the identity it gave before")
        return signature
