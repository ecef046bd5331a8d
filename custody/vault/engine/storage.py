# SPDX-License-Identifier: AGPL-3.0-or-later
"""The seat's `Vault` inside OpenBao: the plugin's own storage, which the server encrypts and replicates.

Writes gather, and go out in one storage transaction before any key is used: whatever a signature rests on is on disk first
(DESIGN.md, law 5), and a crash leaves all of it or nothing. `finish` writes what no key was used for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from custody.rules.errors import Unavailable
from custody.vault.seat_memory import STATE
from custody.vault.storage import CasConflict

WHAT: Final = "engine storage"
TRANSACTION_BYTES: Final = 4 << 20
"""OpenBao's raft takes 8 MiB in a transaction, unless it was told another number."""
_DOCUMENTS: Final = "documents/"
_IDENTITY: Final = "identity"
_KEYS: Final = "keys/"


class Entries(Protocol):
    """The plugin's storage as raw entries; every method raises Unavailable."""

    def get(self, key: str) -> bytes | None:
        """An entry's value; None where there is none."""
        ...

    def put_all(self, expected: Mapping[str, bytes | None], entries: Mapping[str, bytes]) -> bool:
        """Write all of them or none; False, and nothing written, where an entry is not what was `expected`."""
        ...

    def names(self, prefix: str) -> Sequence[str]:
        """Names directly below a prefix."""
        ...


@dataclass
class EngineVault:
    """`Vault` over the plugin's entries. One thread at a time; the plugin is the only writer, and notices where it is not."""

    entries: Entries
    _known: dict[str, bytes | None] = field(default_factory=dict)
    _fresh: dict[str, bytes] = field(default_factory=dict)
    _before: dict[str, bytes | None] = field(default_factory=dict)
    _gathered: int = 0

    def identity_public(self) -> bytes:
        """The identity's public key; made at the first call, from the system's entropy."""
        return self._identity().public_key().public_bytes_raw()

    def identity_sign(self, message: bytes) -> bytes:
        """The identity's signature, once everything before it is on disk."""
        self.finish()
        return self._identity().sign(message)

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """See `Vault`. A wallet key is read only once everything before it is on disk, and never kept."""
        if path.startswith(_KEYS):
            self.finish()
            return _opened(path, self.entries.get(_DOCUMENTS + path))
        return _opened(path, self._raw(_DOCUMENTS + path))

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """See `Vault`. It is on disk when `finish` has come back, which no key is used before."""
        key = _DOCUMENTS + path
        old = self._raw(key)
        _, version = _opened(path, old)
        if version != cas:
            raise CasConflict(path, cas)
        document = json.dumps(dict(data), separators=(",", ":"), sort_keys=True)
        self._before.setdefault(key, old)
        raw = f"{cas + 1}\n{document}".encode()
        self._gathered += len(raw) + len(key) - (len(self._fresh[key]) + len(key) if key in self._fresh else 0)
        self._fresh[key] = raw
        if self._gathered > TRANSACTION_BYTES:
            self.finish()

    def list(self, path: str) -> Sequence[str]:
        """See `Vault`."""
        return self.entries.names(f"{_DOCUMENTS}{path}/")

    def finish(self) -> None:
        """Write what was gathered, at once and wholly. Raises Unavailable; what happened then shows when it is read again."""
        fresh, before, self._gathered = dict(self._fresh), dict(self._before), 0
        self._fresh.clear()
        self._before.clear()
        if not fresh:
            return
        # every step writes the state, so that it alone tells whether another process of this mount wrote meanwhile; where a crash
        # left a step's lines undone, whatever is made for the first time is looked at itself
        state = _DOCUMENTS + STATE
        watched = {k: v for k, v in before.items() if k == state or (v is None and state not in before)}
        try:
            written = self.entries.put_all(watched, fresh)
        except Unavailable:
            self.forget()
            raise
        if not written:
            self.forget()
            raise Unavailable(WHAT, "another process of this mount wrote meanwhile; ask again")
        self._known.update({key: value for key, value in fresh.items() if not key.startswith(_DOCUMENTS + _KEYS)})

    def forget(self) -> None:
        """Know nothing but what is stored: at the start of each request, so that a restored server is never overlooked."""
        self._known.clear()
        self._fresh.clear()
        self._before.clear()
        self._gathered = 0

    def _raw(self, key: str) -> bytes | None:
        if key in self._fresh:
            return self._fresh[key]
        if key not in self._known:
            self._known[key] = self.entries.get(key)
        return self._known[key]

    def _identity(self) -> Ed25519PrivateKey:
        stored = self.entries.get(_IDENTITY)
        if stored is None:
            if self.entries.get(_DOCUMENTS + STATE) is not None:
                # a seat with a past and without its identity: a new one would be somebody else
                raise Unavailable(WHAT, "the identity key is gone, and the seat's journal is not")
            made = Ed25519PrivateKey.generate()
            if not self.entries.put_all({_IDENTITY: None}, {_IDENTITY: made.private_bytes_raw()}):
                raise Unavailable(WHAT, "another process of this mount made the identity; ask again")
            stored = self.entries.get(_IDENTITY)
        if stored is None or len(stored) != 32:
            raise Unavailable(WHAT, "the identity key is not what this engine wrote")
        return Ed25519PrivateKey.from_private_bytes(stored)


def _opened(path: str, raw: bytes | None) -> tuple[Mapping[str, object] | None, int]:
    if raw is None:
        return None, 0
    try:
        version, _, text = raw.partition(b"\n")
        document = json.loads(text)
        number = int(version)
    except ValueError:
        # `from None`: the message of a failed parse may repeat what it parsed
        raise Unavailable(WHAT, f"{path} is not what this engine wrote") from None
    if not isinstance(document, dict) or number < 1:
        raise Unavailable(WHAT, f"{path} is not what this engine wrote")
    return document, number
