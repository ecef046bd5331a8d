# SPDX-License-Identifier: AGPL-3.0-or-later
"""Small coins join a payout of the company's while fees are low, and come back as its change (docs/decisions/0010).

A payment that people approved carries them: same anchor, same permit, same seats, within the fee that was approved. There is no
transaction of its own for it, which nobody would have approved and a worker that lies could turn coins into fees with.
"""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import Anchors
from custody.rules.certificates import WalletCertificate
from custody.rules.holds import native_of
from custody.rules.housekeeping import Consolidation
from custody.rules.intents import TransferIntent
from custody.rules.payments import Credited, Payment, Reservation
from custody.rules.walls import COMPANY


@runtime_checkable
class Consolidator(Protocol):
    """What only a chain of coins can do."""

    def consolidate(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited,
        bound: Consolidation,
    ) -> Reservation:
        """The same reservation with small coins behind its own, where the network's fees are within the bound; else as it was."""
        ...


def with_small_coins(
    kernel: Kernel,
    anchors: Anchors,
    wallet: Wallet,
    intents: Sequence[TransferIntent],
    payments: Sequence[Payment],
    reservation: Reservation,
    taken: Collection[str],
    credited: Credited,
) -> Reservation:
    """What a permit pins, with small coins where the bundle in force says when and every fee of it is the company's to pay.

    A customer's withdrawal never carries them: its share of the fee is the customer's. Raises Unavailable.
    """
    bound = kernel.policies.newest.consolidation.get(native_of(wallet.chain.name, kernel.assets).symbol)
    if bound is None or not isinstance(anchors, Consolidator) or any(intent.account != COMPANY for intent in intents):
        return reservation
    return anchors.consolidate(wallet.certificate, reservation, payments, taken, credited, bound)
