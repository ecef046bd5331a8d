# SPDX-License-Identifier: AGPL-3.0-or-later
"""The unsigned transaction of a payout, decoded: a draft, because nothing of it is signed before seats decoded it by themselves.

This process may decode no payload of a chain: the deriver does, which holds no key either. What it says is for people to compare;
no signature rests on it.
"""

from dataclasses import dataclass

from api.console.desk import Desk
from api.deriving import Draft
from custody.flows import payout_records as records
from custody.flows.ports import UnitOfWork
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import TransferIntent
from custody.rules.payments import UnsignedPayout
from custody.rules.payouts import PAYMENTS, LeafKind
from custody.rules.transfers import Permit, Transfer

_PAID = frozenset(kind.value for kind in PAYMENTS)


@dataclass(frozen=True)
class DraftView:
    """A payout's newest variant. `draft` is None where nobody decodes it now, and `why` says it; `pays`: whether it pays this intent."""

    permit: Permit
    unsigned: UnsignedPayout
    draft: Draft | None
    why: str
    void: bool
    pays: bool

    @property
    def change(self) -> bool:
        """Whether something of it comes back to the wallet itself."""
        return self.draft is not None and any(leaf[0] == LeafKind.CHANGE.value for leaf in self.draft.leaves)


def draft_of(desk: Desk, transfer: Transfer) -> DraftView | None:
    """What would be signed for a transfer, where something was built; None before."""

    def read(work: UnitOfWork) -> tuple[Permit, records.Variant] | None:
        permit = work.transfers.permit_of(transfer.digest)
        if permit is None:
            return None
        made = records.variants(work, permit.reservation.anchor)
        return (permit, made[-1]) if made else None

    found = desk.store.read(read)
    if found is None:
        return None
    permit, variant = found
    draft, why = decoded(desk, variant.unsigned)
    pays = draft is not None and any(_is_of(leaf, transfer.intent) for leaf in draft.leaves)
    return DraftView(permit, variant.unsigned, draft, why, variant.void, pays)


def decoded(desk: Desk, unsigned: UnsignedPayout) -> tuple[Draft | None, str]:
    """What the deriver reads in a payload, or why it does not."""
    wallet = desk.kernel.inventory.wallets.get(unsigned.anchor.wallet)
    if wallet is None:
        return None, "no certificate knows its wallet"
    others = [other for other in desk.kernel.inventory.on(wallet.chain) if other.name != wallet.name]
    try:
        return desk.parts.decode(unsigned, wallet, others, desk.kernel.assets), ""
    except (Unavailable, InvalidInput) as error:
        return None, str(error)


def _is_of(leaf: tuple[str, str, int, str], intent: TransferIntent) -> bool:
    kind, asset, units, to = leaf
    return kind in _PAID and (asset, units, to) == (intent.asset, intent.amount, intent.destination)
