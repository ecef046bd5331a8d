# SPDX-License-Identifier: AGPL-3.0-or-later
"""Deposit addresses are emptied into their own Safe by schedule, so that a large payment finds its coins in one place.

Nobody approves it, and nothing can be taken by it: seats sign a payload without an intent only where every coin stays in the wallet
(rules/seat, Kind.SWEEP). The relayer pays the gas, out of the company's own coins. A sweep has a nonce like any payout: it is pinned,
recorded before a seat is asked, sent from stored bytes, followed to finality, booked, and voided by people where it must die.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

from custody.flows import payout_records as records
from custody.flows import signing, sweep_records
from custody.flows.errands import Tidied, advance
from custody.flows.inventory import Wallet
from custody.flows.payouts import Post
from custody.flows.ports import UnitOfWork
from custody.flows.signing import Ceremony
from custody.flows.sweep_records import SweepRun
from custody.flows.sweeping import SWEEPS_MOST, DepositSweeper
from custody.rules.payments import (
    Sweep,
    UnsignedPayout,
)
from custody.rules.refusals import Refused, Rule
from custody.rules.wallets import Tier

EVERY: Final = 900
"""Seconds between the beginnings of two sweeps of one wallet: with the batch's bound, what a day of them can cost the relayer."""


def tidy(ceremony: Ceremony, post: Post, wallet: Wallet, *, idle: bool) -> Tidied | None:
    """Go on with the sweep of a hot wallet, or begin one where it is time and `idle` says that no nonce before it is unsent.

    None where there is nothing to do. Safe to repeat after a crash anywhere. Raises Unavailable, and Refused where the store has
    another payout at its anchor.
    """
    if wallet.tier is not Tier.CUSTOMER_HOT or not isinstance(ceremony.chain, DepositSweeper):
        return None
    run = ceremony.store.read(lambda work: sweep_records.newest(work, wallet.name))
    if run is None or run.ended:
        if not idle or (run is not None and ceremony.now - run.at < EVERY):
            return None
        run = _begin(ceremony, wallet)
    if run is None:
        return None
    return advance(ceremony, post, wallet, run, partial(signing.sign_sweep, ceremony, run.permit, wallet))


# beginning


def choose(offered: Sequence[Sweep], least: dict[str, int]) -> tuple[Sweep, ...]:
    """What is worth its gas, by the bundle: what reaches its asset's bound, the largest first, counted in multiples of that bound."""
    worth = [sweep for sweep in offered if sweep.units >= least.get(sweep.asset, sweep.units + 1)]
    worth.sort(key=lambda sweep: (-(sweep.units // least[sweep.asset]), sweep.index, sweep.asset))
    return tuple(worth[:SWEEPS_MOST])


def _begin(ceremony: Ceremony, wallet: Wallet) -> SweepRun | None:
    """Pin the next nonce to a sweep that goes through in a simulation; None where nothing is worth it, or the wallet is frozen."""
    chain, certificate, kernel = ceremony.chain, wallet.certificate, ceremony.kernel
    least, name = dict(kernel.policies.newest.deposit_sweeps), wallet.name.hex()
    frozen = kernel.frozen({f"chain:{wallet.chain}", f"wallet:{name}", f"wallet:0x{name}"}, ceremony.now)
    if not least or not wallet.bound or frozen is not None or not isinstance(chain, DepositSweeper):
        return None
    left = [*choose(chain.sweepable(certificate, [binding.index for binding in wallet.bound]), least)]
    if not left or chain.preflight(wallet.name, certificate):
        return None
    chain.deploy_deposits(wallet.certificates[-1], sorted({sweep.index for sweep in left}))
    taken = ceremony.store.read(lambda work: work.transfers.taken(wallet.chain.name, wallet.name))
    reservation = chain.next_anchor(wallet.name, certificate, (), taken)
    while left:
        try:
            unsigned = chain.build(certificate, reservation, (), left)
        except Refused as error:
            failing = {r.operands.get("leaf") for r in error.refusals if r.rule is Rule.LEAF_FAILS}
            left = [sweep for at, sweep in enumerate(left) if at not in failing] if failing else []
        else:
            return ceremony.store.run(partial(_record, wallet=wallet, unsigned=unsigned, now=ceremony.now))
    return None


def _record(work: UnitOfWork, wallet: Wallet, unsigned: UnsignedPayout, now: int) -> SweepRun:
    run = sweep_records.begin(work, wallet.name, unsigned, now)
    records.put_variant(work, unsigned, void=False)
    return run
