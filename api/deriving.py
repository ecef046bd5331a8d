# SPDX-License-Identifier: AGPL-3.0-or-later
"""Addresses from certificates, by asking the deriver's process: this one may reach no chain, not even its arithmetic (DESIGN.md).

The deriver holds no key, no node and no row. A lie of its would have to agree with the attestor, which derives by itself before it
signs a binding; and no seat believes either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from custody.flows.inventory import Wallet
from custody.flows.ports import Branch
from custody.rules.amounts import Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.payments import UnsignedPayout
from custody.rules.wallets import Address, Chain
from custody.wire import Client

_REMEMBERED: Final = 1 << 16
_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Draft:
    """What an unsigned payload does, as it was decoded: leaves of (kind, asset, base units, destination), or why it cannot be read.

    `inputs` are (outpoint, satoshi), nothing on EVM; `fee` is the network's, in base units of `native`.
    """

    anchor: str = ""
    native: str = ""
    fee: int = 0
    leaves: tuple[tuple[str, str, int, str], ...] = ()
    inputs: tuple[tuple[str, int], ...] = ()
    digests: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()


def draft_from(answer: object) -> Draft:
    """The deriver's answer. Raises Unavailable for another shape."""
    try:
        match answer:
            case {"refusals": list(told)}:
                return Draft(refusals=tuple(str(each) for each in told))
            case {
                "anchor": str(anchor),
                "native": str(native),
                "fee": str(fee),
                "leaves": list(leaves),
                "inputs": list(inputs),
                "digests": list(digests),
            }:
                read = tuple((str(kind), str(asset), int(units), str(to)) for kind, asset, units, to in leaves)
                spent = tuple((str(outpoint), int(units)) for outpoint, units in inputs)
                return Draft(anchor, native, int(fee), read, spent, tuple(str(each) for each in digests))
    except (TypeError, ValueError) as error:
        raise Unavailable("deriver", "answered in another shape") from error
    raise Unavailable("deriver", "answered in another shape")


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

    def decode(self, unsigned: UnsignedPayout, wallet: Wallet, others: Sequence[Wallet], assets: Assets) -> Draft:
        """What an unsigned payload does, to be shown as a draft. Raises Unavailable where the deriver does not answer."""
        line = [*reversed(wallet.certificates), *(signed for other in others for signed in other.certificates)]
        signing = [signed for signed in line if signed.message.struct_hash == unsigned.certificate]
        ordered = [*signing, *(signed for signed in line if signed not in signing)]
        rows = [[a.symbol, a.chain.name, a.kind.value, str(a.decimals), a.contract and a.contract.text] for a in assets]
        body = {
            "unsigned": unsigned.to_json(),
            "wallet": wallet.name.hex(),
            "certificates": [signed.message.to_json() for signed in ordered],
            "assets": rows,
        }
        return draft_from(self._client.call("decode", body))

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
