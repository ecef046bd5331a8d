# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bitcoin wallets for tests: seats' keys from fixed seeds, and certificates over them (their signatures mean nothing)."""

from collections.abc import Sequence
from typing import Final

from embit.bip32 import HDKey  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]

from custody.chains.bitcoin.scripts import wallet_descriptor
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.certificates import BitcoinScript, SeatKey, WalletCertificate, WalletKey
from custody.rules.signatures import Key, Scheme, Signature
from custody.rules.typed import ZERO32
from custody.rules.wallets import Chain, Tier

REGTEST: Final = Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328")
MAIN: Final = Chain("bip122:000000000019d6689c085ae165831e93")
BTC: Final = Asset("BTC", REGTEST, AssetKind.NATIVE, 8, dust=546)
CONFIRMATIONS: Final = 3
ASSETS: Final = Assets((BTC,), {REGTEST: CONFIRMATIONS})

_NOBODY: Final = Signature(Key(Scheme.ED25519, bytes(32)), bytes(64))


def seat_root(seed: str, chain: Chain = REGTEST) -> HDKey:
    """The master key that a seat of this name would have."""
    return HDKey.from_seed(seed.encode().ljust(32, b"."), version=NETWORKS[chain.bitcoin_network]["xprv"])


def seat_path(chain: Chain = REGTEST) -> str:
    """BIP-48 account path for P2WSH."""
    return f"48h/{NETWORKS[chain.bitcoin_network]['bip32']}h/0h/2h"


def seat_xpub(seed: str, chain: Chain = REGTEST, *, private: bool = False) -> str:
    """A seat's account key with its origin; the private one only to see that it is refused."""
    root, path = seat_root(seed, chain), seat_path(chain)
    account = root.derive(f"m/{path}")
    shown = account if private else account.to_public()
    version = NETWORKS[chain.bitcoin_network]["xprv" if private else "xpub"]
    return f"[{root.my_fingerprint.hex()}/{path}]{shown.to_base58(version=version)}"


def bitcoin_certificate(
    m: int = 3,
    xpubs: Sequence[str] = (),
    *,
    chain: Chain = REGTEST,
    descriptor: str | None = None,
    name: str = "hot",
    birth: int = 0,
) -> WalletCertificate:
    """A certificate of M of these keys, by default 3 of 4 keys made from `name`; another descriptor can be put in."""
    keys = list(xpubs) or [seat_xpub(f"{name}-{i}", chain) for i in range(4)]
    label = f"{name}/{chain}"
    seats = [SeatKey(WalletKey(f"seat-{i}", label, chain.name, b"", xpub), _NOBODY) for i, xpub in enumerate(keys)]
    return WalletCertificate(
        previous=ZERO32,
        label=label,
        tier=Tier.CUSTOMER_HOT,
        chain=chain.name,
        m=m,
        n=len(keys),
        seats=tuple(seats),
        safe=(),
        script=(BitcoinScript(wallet_descriptor(m, keys) if descriptor is None else descriptor),),
        birth=birth,
    )
