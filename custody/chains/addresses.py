# SPDX-License-Identifier: AGPL-3.0-or-later
"""Addresses of both kinds of chain from a certificate alone: what makes an address "internal" (TRUST.md)."""

from functools import lru_cache
from typing import Final

from custody.chains.bitcoin.scripts import change_address, receive_address
from custody.chains.evm.safes import deposit_safe
from custody.flows.ports import Branch
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Chain

_REMEMBERED: Final = 1 << 16


class ChainDeriver:
    """Implements `AddressDeriver` over the derivations of each kind of chain; pure, so answers are remembered."""

    def __init__(self) -> None:
        self._derived = lru_cache(maxsize=_REMEMBERED)(_derive)

    def derive(self, certificate: WalletCertificate, branch: Branch, index: int) -> Address:
        """A deposit Safe on EVM, where there is no change branch; an address of the descriptor's branch on Bitcoin."""
        return self._derived(certificate, branch, index)

    def main(self, certificate: WalletCertificate) -> Address | None:
        """The Safe on EVM; None on Bitcoin."""
        chain = Chain(certificate.chain)
        return Address.parse(chain, certificate.safe[0].address, "safe.address") if chain.is_evm else None


def _derive(certificate: WalletCertificate, branch: Branch, index: int) -> Address:
    if not Chain(certificate.chain).is_evm:
        return (receive_address if branch is Branch.RECEIVE else change_address)(certificate, index)
    if branch is not Branch.RECEIVE:
        raise InvalidInput("branch", Rule.MALFORMED, branch.name, "a receive index: a Safe has no change")
    return deposit_safe(certificate, index)
