# SPDX-License-Identifier: AGPL-3.0-or-later
"""Scripts of both kinds of chain: what a certificate must derive to, and building one from seats' keys."""

import hashlib
from collections.abc import Callable, Iterator, Sequence

from custody.chains.bitcoin.scripts import check_script as check_bitcoin
from custody.chains.bitcoin.scripts import wallet_descriptor
from custody.chains.evm.safes import SafeContracts, check_safe, owner_address, wallet_safe
from custody.rules.certificates import BitcoinScript, Script, SeatKey, WalletCertificate
from custody.rules.refusals import Refusal


def check_script(certificate: WalletCertificate) -> Iterator[Refusal]:
    """Derive the Safe or the descriptor again from the seats' keys alone and compare; needs no node."""
    yield from check_safe(certificate) if certificate.chain.startswith("eip155:") else check_bitcoin(certificate)


def safe_builder(contracts: SafeContracts, label: str) -> Callable[[int, Sequence[SeatKey]], Script]:
    """Builds a Safe over the seats' keys; the label makes the salt, so that a repeated draft gives the same address."""
    salt = int.from_bytes(hashlib.sha256(label.encode()).digest())

    def build(m: int, keys: Sequence[SeatKey]) -> Script:
        return (wallet_safe(contracts, [owner_address(k.key.public) for k in keys], m, salt),), ()

    return build


def descriptor_builder() -> Callable[[int, Sequence[SeatKey]], Script]:
    """Builds a ranged P2WSH descriptor over the seats' extended keys."""

    def build(m: int, keys: Sequence[SeatKey]) -> Script:
        return (), (BitcoinScript(wallet_descriptor(m, [k.key.xpub for k in keys])),)

    return build
