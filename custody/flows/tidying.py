# SPDX-License-Identifier: AGPL-3.0-or-later
"""Deposit addresses are emptied into their own Safe by schedule, so that a large payment finds its coins in one place.

Nobody approves it, and nothing can be taken by it: seats sign a payload without an intent only where every coin stays in the wallet
(rules/seat, Kind.SWEEP). The relayer pays the gas, out of the company's own coins. A sweep has a nonce like any payout: it is pinned,
recorded before a seat is asked, sent from stored bytes, followed to finality, booked, and voided by people where it must die.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from custody.flows import payout_records as records
from custody.flows import signing, sweep_records
from custody.flows.inventory import Wallet
from custody.flows.payouts import ENVELOPES_MOST, Post, book_without_intents
from custody.flows.ports import FeeBumper, UnitOfWork
from custody.flows.signing import Ceremony, Waiting
from custody.flows.sweep_records import SweepRun
from custody.flows.sweeping import SWEEPS_MOST, DepositSweeper
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.intents import Void
from custody.rules.origins import Executed
from custody.rules.payments import (
    Envelope,
    Mined,
    Outcome,
    Pending,
    Replaced,
    SignedPayout,
    Sweep,
    UnsignedPayout,
)
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.wallets import Tier

EVERY: Final = 900
"""Seconds between the beginnings of two sweeps of one wallet: with the batch's bound, what a day of them can cost the relayer."""
STUCK: Final = 180
"""Seconds after which a sweep that no block takes is offered for more: fifteen slots of 12."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """Where the sweep of a wallet stands. `nonce` is taken and in no block yet, so that nothing behind it may begin.

    `fault` says that time alone will not do: a seat, the relayer or people have to.
    """

    nonce: str = ""
    why: str = ""
    fault: bool = False


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
    return None if run is None else _advance(ceremony, post, wallet, run)


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


# going on


@dataclass(frozen=True)
class _Sweep:
    """A sweep under way, with what going on with it needs. `certificate` is the one whose keys sign what is recorded."""

    ceremony: Ceremony
    post: Post
    wallet: Wallet
    run: SweepRun
    certificate: Signed[WalletCertificate]

    def kept(self) -> Sequence[Envelope]:
        """Its stored bytes, oldest first."""
        return self.ceremony.store.read(lambda work: work.transfers.kept(self.run.anchor))

    def taken(self, why: str, *, fault: bool = False) -> Tidied:
        """Its nonce is in no block yet."""
        return Tidied(self.run.anchor.reference, why, fault or why.startswith("people: "))


def _advance(ceremony: Ceremony, post: Post, wallet: Wallet, run: SweepRun) -> Tidied:
    """Signed, sent, followed, booked: as far as it goes now. Where people want it dead, its void goes the same way."""
    void, known = ceremony.store.read(
        lambda work: (records.void_of(work, run.anchor), records.variants(work, run.anchor))
    )
    sweep = _Sweep(ceremony, post, wallet, run, records.certificate_of(wallet, known[-1] if known else None))
    why = _signed(sweep, void)
    if not (kept := sweep.kept()):
        return sweep.taken(why, fault=True)
    found = ceremony.chain.follow(sweep.certificate.message, kept)
    match found:
        case Mined(outcome=Outcome.REVERTED) if found.transaction == kept[-1].transaction:
            return _seal_again(sweep, kept)
        case Mined(outcome=Outcome.REVERTED):
            return _send(sweep, kept)
        case Mined():
            why = book_without_intents(post, run.permit, wallet, found, partial(_end, run))
            return Tidied("", why, why.startswith("people: "))
        case Replaced():
            by = f"0x{found.by.hex()}" if found.by else "another transaction"
            told = f"people: {by} consumed nonce {run.anchor.reference} and is no sweep that is known here"
            return Tidied("", told, fault=True)
        case Pending() if void is None or found.transaction == kept[-1].transaction:
            return _outbid(sweep, kept)
    return _send(sweep, kept)


def _signed(sweep: _Sweep, void: Signed[Void] | None) -> str:
    """Have the sweep, or its void, signed and sealed where it is not; why that waits. A void too late hinders no booking."""
    ceremony, permit, wallet = sweep.ceremony, sweep.run.permit, sweep.wallet
    try:
        if void is not None:
            return _why(signing.sign_void(ceremony, permit, void, wallet))
        return _why(signing.sign_sweep(ceremony, permit, wallet))
    except Refused as error:
        return str(error)


def _why(made: Envelope | Waiting) -> str:
    return made.why if isinstance(made, Waiting) else ""


def _end(run: SweepRun, work: UnitOfWork, done: Executed, booked: bool) -> None:  # noqa: FBT001  # handed on by position
    sweep_records.end(work, run, done, booked=booked)


def _send(sweep: _Sweep, kept: Sequence[Envelope]) -> Tidied:
    """The newest stored bytes; the same again are harmless."""
    told = f"0x{kept[-1].transaction.hex()}"
    try:
        sweep.ceremony.chain.broadcast(kept[-1])
    except Unavailable as error:
        return sweep.taken(f"whether the node took {told}: {error.why}")
    except Refused as error:
        rules = {refusal.rule for refusal in error.refusals}
        if rules == {Rule.ENVELOPE_STALE}:
            return _seal_again(sweep, kept)
        return sweep.taken(f"what consumed its nonce: {error}" if rules == {Rule.ANCHOR_SPENT} else f"people: {error}")
    return sweep.taken(f"{told} to be in a block")


def _seal_again(sweep: _Sweep, kept: Sequence[Envelope]) -> Tidied:
    """A new envelope around what the quorum signed: the last one reverted, or the relayer's nonce went to another call."""
    if sum(envelope.id == kept[-1].id for envelope in kept) >= ENVELOPES_MOST:
        return sweep.taken(f"people: {ENVELOPES_MOST} envelopes came to nothing; a void")
    fresh = _put_around(sweep, kept[-1], sweep.ceremony.chain.seal)
    return sweep.taken("its nonce to be free") if fresh is None else _send(sweep, [*kept, fresh])


def _outbid(sweep: _Sweep, kept: Sequence[Envelope]) -> Tidied:
    """The same call for more, where blocks ask for more by now; nothing else of it changes."""
    chain, told = sweep.ceremony.chain, f"0x{kept[-1].transaction.hex()} to be in a block"
    early = sweep.ceremony.now - sweep.run.at < STUCK
    if early or len(kept) >= ENVELOPES_MOST or not isinstance(chain, FeeBumper):
        return sweep.taken(told)
    try:
        fresh = _put_around(sweep, kept[-1], partial(_reseal, chain, kept[-1]))
    except Refused as error:
        return sweep.taken(f"people: it asks for more than the relayer may pay: {error}")
    return sweep.taken(told) if fresh is None else _send(sweep, [*kept, fresh])


def _reseal(
    chain: FeeBumper, last: Envelope, certificate: Signed[WalletCertificate], signed: SignedPayout
) -> Envelope | None:
    return chain.reseal(certificate, signed, last)


def _put_around(
    sweep: _Sweep,
    last: Envelope,
    seal: Callable[[Signed[WalletCertificate], SignedPayout], Envelope | None],
) -> Envelope | None:
    """An envelope around the signed payout, stored before it goes out."""
    store, anchor = sweep.ceremony.store, sweep.run.anchor
    signed = store.read(lambda work: records.signed_of(work, anchor, last.id))
    fresh = None if signed is None else seal(sweep.certificate, signed)
    if fresh is not None:
        store.run(lambda work: work.transfers.keep(fresh, sweep.ceremony.now))
    return fresh
