# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat's wallet keys: made from the system's randomness, written once into its own vault, never handed out.

Nothing in this module returns a secret. What leaves is the public part: a compressed secp256k1 key on EVM, an account xpub with
its origin on Bitcoin.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import coincurve
from embit.bip32 import HDKey  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]

from custody.rules.errors import Unavailable
from custody.rules.wallets import Chain
from custody.vault.storage import CasConflict, Vault

Entropy = Callable[[int], bytes]
"""So many bytes that nobody can guess."""

SECRET_BYTES: Final = 32
_PURPOSE: Final = "48h"
_SCRIPT_TYPE: Final = "2h"
"""BIP-48: purpose 48, coin, account 0, script type 2 (P2WSH). Every wallet has a master seed of its own."""


@dataclass(frozen=True, slots=True)
class PublicPart:
    """What a certificate carries of a key: `public` on EVM (33 bytes), `xpub` on Bitcoin; the other is empty."""

    public: bytes
    xpub: str


def key_path(label: str, chain: Chain) -> str:
    """Where the vault keeps the one key of a label and chain."""
    return "keys/" + hashlib.sha256(f"{label}\x00{chain}".encode()).hexdigest()


def account_path(network: str) -> str:
    """The account below a seat's master key on a Bitcoin network (embit's name of it), such as `48h/0h/0h/2h`."""
    return f"{_PURPOSE}/{NETWORKS[network]['bip32']}h/0h/{_SCRIPT_TYPE}"


def make_once(vault: Vault, label: str, chain: Chain, entropy: Entropy) -> PublicPart:
    """The key of a label and chain, made if there is none yet. Raises Unavailable.

    The write is create-only, so that neither a lost answer nor a second process can exchange a key that somebody has seen.
    """
    path = key_path(label, chain)
    stored, _ = vault.read(path)
    if stored is None:
        fresh = {"label": label, "chain": chain.name, "secret": entropy(SECRET_BYTES).hex()}
        with suppress(CasConflict):  # somebody else was first: theirs is the key, and this one is forgotten
            vault.write(path, fresh, cas=0)
        stored, _ = vault.read(path)
    return _public(stored, label, chain)


def _public(stored: Mapping[str, object] | None, label: str, chain: Chain) -> PublicPart:
    secret = stored.get("secret") if stored is not None else None
    if (
        stored is None
        or not isinstance(secret, str)
        or (stored.get("label"), stored.get("chain")) != (label, chain.name)
    ):
        raise Unavailable("wallet key", f"the vault's entry for {label} on {chain} is not what this seat wrote")
    try:
        material = bytes.fromhex(secret)
        return (
            PublicPart(_evm(material), "") if chain.is_evm else PublicPart(b"", _xpub(material, chain.bitcoin_network))
        )
    except ValueError:
        # `from None`: the message of a failed parse may repeat what it parsed
        raise Unavailable("wallet key", f"the vault's entry for {label} on {chain} is damaged") from None


def _evm(secret: bytes) -> bytes:
    return coincurve.PrivateKey(secret).public_key.format(compressed=True)


def _xpub(seed: bytes, network: str) -> str:
    if len(seed) != SECRET_BYTES:
        raise ValueError("seed length")
    versions = NETWORKS[network]
    root = HDKey.from_seed(seed, version=versions["xprv"])
    path = account_path(network)
    account = root.derive(f"m/{path}").to_public()
    return f"[{root.my_fingerprint.hex()}/{path}]{account.to_base58(version=versions['xpub'])}"
