# SPDX-License-Identifier: AGPL-3.0-or-later
"""An errand: one payload without intents at an anchor of its own, carried out as far as it goes now.

Sweeps of deposit addresses, the owner calls of a rotation, coins brought home from under an older certificate. Each has its anchor
like any payout: pinned, recorded before a seat is asked, sent from stored bytes, followed to finality, booked, and voided by people
where it must die. What it may do at all, seats see to by themselves (rules/seat).
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
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.intents import Void
from custody.rules.origins import Executed
from custody.rules.payments import Envelope, Mined, Outcome, Pending, Replaced, SignedPayout
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed

STUCK: Final = 180
"""Seconds after which an errand that no block takes is offered for more: fifteen slots of 12."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """Where an errand of a wallet stands. `nonce` is taken and in no block yet, so that nothing behind it may begin.

    `fault` says that time alone will not do: a seat, the relayer or people have to.
    """

    nonce: str = ""
    why: str = ""
    fault: bool = False


Sign = Callable[[], "Envelope | Waiting"]
"""Asks seats for what an errand needs; as `signing.sign_sweep`."""


@dataclass(frozen=True)
class _Errand:
    """An errand under way, with what going on with it needs. `certificate` is the one whose keys sign what is recorded."""

    ceremony: Ceremony
    post: Post
    wallet: Wallet
    run: SweepRun
    certificate: Signed[WalletCertificate]
    sign: Sign

    def kept(self) -> Sequence[Envelope]:
        """Its stored bytes, oldest first."""
        return self.ceremony.store.read(lambda work: work.transfers.kept(self.run.anchor))

    def taken(self, why: str, *, fault: bool = False) -> Tidied:
        """Its nonce is in no block yet."""
        return Tidied(self.run.anchor.reference, why, fault or why.startswith("people: "))


def advance(ceremony: Ceremony, post: Post, wallet: Wallet, run: SweepRun, sign: Sign) -> Tidied:
    """Signed, sent, followed, booked: as far as it goes now. Where people want it dead, its void goes the same way.

    Safe to repeat after a crash anywhere. Raises Unavailable.
    """
    void, known = ceremony.store.read(
        lambda work: (records.void_of(work, run.anchor), records.variants(work, run.anchor))
    )
    certificate = records.certificate_of(wallet, known[-1] if known else None)
    errand = _Errand(ceremony, post, wallet, run, certificate, sign)
    why = _signed(errand, void)
    if not (kept := errand.kept()):
        return errand.taken(why, fault=True)
    found = ceremony.chain.follow(errand.certificate.message, kept)
    match found:
        case Mined(outcome=Outcome.REVERTED) if found.transaction == kept[-1].transaction:
            return _seal_again(errand, kept)
        case Mined(outcome=Outcome.REVERTED):
            return _send(errand, kept)
        case Mined():
            why = book_without_intents(post, run.permit, wallet, found, partial(_end, run))
            return Tidied("", why, why.startswith("people: "))
        case Replaced():
            by = f"0x{found.by.hex()}" if found.by else "another transaction"
            told = f"people: {by} consumed {run.anchor.reference} and is no {run.what} that is known here"
            return Tidied("", told, fault=True)
        case Pending() if void is None or found.transaction == kept[-1].transaction:
            return _outbid(errand, kept)
    return _send(errand, kept)


def _signed(errand: _Errand, void: Signed[Void] | None) -> str:
    """Have the errand, or its void, signed and sealed where it is not; why that waits. A void too late hinders no booking."""
    ceremony, permit, wallet = errand.ceremony, errand.run.permit, errand.wallet
    try:
        if void is not None:
            return _why(signing.sign_void(ceremony, permit, void, wallet))
        return _why(errand.sign())
    except Refused as error:
        return str(error)


def _why(made: Envelope | Waiting) -> str:
    return made.why if isinstance(made, Waiting) else ""


def _end(run: SweepRun, work: UnitOfWork, done: Executed, booked: bool) -> None:  # noqa: FBT001  # handed on by position
    sweep_records.end(work, run, done, booked=booked)


def _send(errand: _Errand, kept: Sequence[Envelope]) -> Tidied:
    """The newest stored bytes; the same again are harmless."""
    told = f"0x{kept[-1].transaction.hex()}"
    try:
        errand.ceremony.chain.broadcast(kept[-1])
    except Unavailable as error:
        return errand.taken(f"whether the node took {told}: {error.why}")
    except Refused as error:
        rules = {refusal.rule for refusal in error.refusals}
        if rules == {Rule.ENVELOPE_STALE}:
            return _seal_again(errand, kept)
        return errand.taken(f"what consumed its nonce: {error}" if rules == {Rule.ANCHOR_SPENT} else f"people: {error}")
    return errand.taken(f"{told} to be in a block")


def _seal_again(errand: _Errand, kept: Sequence[Envelope]) -> Tidied:
    """A new envelope around what the quorum signed: the last one reverted, or the relayer's nonce went to another call."""
    if sum(envelope.id == kept[-1].id for envelope in kept) >= ENVELOPES_MOST:
        return errand.taken(f"people: {ENVELOPES_MOST} envelopes came to nothing; a void")
    fresh = _put_around(errand, kept[-1], errand.ceremony.chain.seal)
    return errand.taken("its nonce to be free") if fresh is None else _send(errand, [*kept, fresh])


def _outbid(errand: _Errand, kept: Sequence[Envelope]) -> Tidied:
    """The same call for more, where blocks ask for more by now; nothing else of it changes."""
    chain, told = errand.ceremony.chain, f"0x{kept[-1].transaction.hex()} to be in a block"
    early = errand.ceremony.now - errand.run.at < STUCK
    if early or len(kept) >= ENVELOPES_MOST or not isinstance(chain, FeeBumper):
        return errand.taken(told)
    try:
        fresh = _put_around(errand, kept[-1], partial(_reseal, chain, kept[-1]))
    except Refused as error:
        return errand.taken(f"people: it asks for more than the relayer may pay: {error}")
    return errand.taken(told) if fresh is None else _send(errand, [*kept, fresh])


def _reseal(
    chain: FeeBumper, last: Envelope, certificate: Signed[WalletCertificate], signed: SignedPayout
) -> Envelope | None:
    return chain.reseal(certificate, signed, last)


def _put_around(
    errand: _Errand,
    last: Envelope,
    seal: Callable[[Signed[WalletCertificate], SignedPayout], Envelope | None],
) -> Envelope | None:
    """An envelope around the signed payout, stored before it goes out."""
    store, anchor = errand.ceremony.store, errand.run.anchor
    signed = store.read(lambda work: records.signed_of(work, anchor, last.id))
    fresh = None if signed is None else seal(errand.certificate, signed)
    if fresh is not None:
        store.run(lambda work: work.transfers.keep(fresh, errand.ceremony.now))
    return fresh
