# SPDX-License-Identifier: AGPL-3.0-or-later
"""Addresses from certificates, by asking the deriver's process: this one may reach no chain, not even its arithmetic (DESIGN.md).

The deriver holds no key, no node and no row. A lie of its would have to agree with the attestor, which derives by itself before it
signs a binding; and no seat believes either.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

from custody.flows.ports import Branch
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.wallets import Address, Chain
from custody.wire import Client

_REMEMBERED: Final = 1 << 16
_SECONDS: Final = 10.0


class RemoteDeriver:
    """Implements `AddressDeriver` over the deriver's socket. Derivation is pure, so answers are remembered."""

    def __init__(self, socket: Path) -> None:
        self._client = Client(socket, _SECONDS)
        self._derived = lru_cache(maxsize=_REMEMBERED)(self._ask)
        self._mains = lru_cache(maxsize=1024)(self._ask_main)

    def derive(self, certificate: WalletCertificate, branch: Branch, index: int) -> Address:
        """See `AddressDeriver`. Raises Unavailable where the deriver does not answer."""
        return self._derived(certificate, branch, index)

    def main(self, certificate: WalletCertificate) -> Address | None:
        """See `AddressDeriver`."""
        return self._mains(certificate)

    def _ask(self, certificate: WalletCertificate, branch: Branch, index: int) -> Address:
        body = {"certificate": certificate.to_json(), "branch": branch.name, "index": str(index)}
        return _address(Chain(certificate.chain), self._client.call("derive", body))

    def _ask_main(self, certificate: WalletCertificate) -> Address | None:
        answer = self._client.call("main", {"certificate": certificate.to_json()})
        return None if answer is None else _address(Chain(certificate.chain), answer)


def _address(chain: Chain, answer: object) -> Address:
    if not isinstance(answer, str):
        raise Unavailable("deriver", "answered in another shape")
    try:
        return Address.parse(chain, answer)
    except InvalidInput as error:
        raise Unavailable("deriver", f"answered with no address of {chain}") from error
