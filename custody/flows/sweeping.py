# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which deposit Safes a payout empties on its way: the omnibus pays only with what it holds itself (TRUST.md, certified leaves)."""

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import ChainView, PayoutChain
from custody.rules.certificates import WalletCertificate
from custody.rules.payments import Payment, Sweep
from custody.rules.signatures import Signed

SWEEPS_MOST: Final = 50
"""Deposit Safes that one payout empties at the most; each costs gas."""


@runtime_checkable
class DepositSweeper(Protocol):
    """What only a chain with deposit Safes can do."""

    def sweepable(self, certificate: WalletCertificate, indices: Sequence[int]) -> tuple[Sweep, ...]:
        """What deposit Safes of these indices finally hold of each registered asset, dust left out."""
        ...

    def deploy_deposits(self, certificate: Signed[WalletCertificate], indices: Sequence[int]) -> None:
        """Deploy the deposit Safes that a sweep needs; safe to repeat."""
        ...


def plan(
    kernel: Kernel, chain: PayoutChain, view: ChainView, wallet: Wallet, payments: Sequence[Payment]
) -> tuple[Sweep, ...]:
    """The fewest sweeps, largest first, that let the omnibus pay these; their deposit Safes are deployed where they were not.

    Nothing where the omnibus has enough, or on a chain without deposit Safes. Raises Unavailable.
    """
    main = kernel.derive.main(wallet.certificate)
    if main is None or not wallet.bound or not isinstance(chain, DepositSweeper):
        return ()
    head, found = view.head(), list[Sweep]()
    short = {}
    for symbol in sorted({payment.asset for payment in payments}):
        wanted = sum(payment.units for payment in payments if payment.asset == symbol)
        has = view.balance(kernel.assets.get(symbol), {main}, head)
        if wanted > has:
            short[symbol] = wanted - has
    if not short:
        return ()
    offered = chain.sweepable(wallet.certificate, [binding.index for binding in wallet.bound])
    for sweep in sorted(offered, key=lambda sweep: (-sweep.units, sweep.index)):
        if short.get(sweep.asset, 0) > 0 and len(found) < SWEEPS_MOST:
            found.append(sweep)
            short[sweep.asset] -= sweep.units
    if found:
        chain.deploy_deposits(wallet.certificates[-1], sorted({sweep.index for sweep in found}))
    return tuple(found)
