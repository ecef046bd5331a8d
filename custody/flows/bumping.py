# SPDX-License-Identifier: AGPL-3.0-or-later
"""A payout that no block takes: a variant of it for a higher fee, or the relayer's call again at the same nonce for more.

Never another payment: a variant spends the same anchor, seats sign it only where it differs in fee alone and within what people
approved, and the SafeTx of an EVM payout is not touched at all. As with the first one, what is to be signed is recorded before a
seat is asked and the bytes before they go out; from then on every variant is followed, and the one in a block settles.
"""

from collections.abc import Sequence
from typing import Final

from custody.flows import payout_records as records
from custody.flows.inventory import Wallet
from custody.flows.payout_records import Variant
from custody.flows.payouts import ENVELOPES_MOST, Post, settle
from custody.flows.ports import FeeBumper, UnitOfWork
from custody.flows.signing import Ceremony, Waiting, sign_variant
from custody.rules.payments import Envelope, Pending, SignedPayout, Unknown, UnsignedPayout
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Permit, Status, SubStatus, Transfer
from custody.rules.wallets import Chain

STUCK_BITCOIN: Final = 3600
"""Seconds without a block that takes it: six blocks, which is what the fee was estimated for."""
STUCK_EVM: Final = 180
"""Seconds on EVM: fifteen slots of 12."""
SENT: Final = frozenset({Status.BROADCASTING, Status.BROADCAST_UNKNOWN, Status.CONFIRMING})
"""Where a payout's bytes may have gone out and nobody wants it dead."""
_TOO_HIGH: Final = frozenset({Rule.MAXIMUM_FEE, Rule.FEE_TOO_HIGH, Rule.INSUFFICIENT_BALANCE, Rule.RELAYER_CAP})
"""What stands against a higher fee for good: then only patience, or a void by people."""


def is_stuck(permit: Permit, carried: Sequence[Transfer], now: int) -> bool:
    """Whether a payout has stood as it stands, sent and in no block, for longer than it should. `now` in seconds since 1970."""
    return bool(carried) and carried[0].status in SENT and has_waited(permit, carried, now)


def has_waited(permit: Permit, carried: Sequence[Transfer], now: int) -> bool:
    """Whether nothing moved a payout's transfers for longer than a block should take; `now` in seconds since 1970."""
    patience = STUCK_EVM if Chain(permit.reservation.anchor.chain).is_evm else STUCK_BITCOIN
    return now - max(transfer.moved_at for transfer in carried) >= patience


def bump(ceremony: Ceremony, post: Post, permit: Permit, wallet: Wallet) -> None:
    """Send a stuck payout again for more, where the node asks for more by now; else say with its transfers why not.

    Safe to repeat after a crash anywhere. Raises Unavailable where node, seat, attestor or relayer does not answer.
    """
    anchor, chain = permit.reservation.anchor, ceremony.chain
    carried, kept, known = ceremony.store.read(
        lambda work: (records.carried(work, permit), work.transfers.kept(anchor), records.variants(work, anchor))
    )
    variants = [variant for variant in known if not variant.void]
    if not carried or carried[0].status not in SENT or not kept or not variants or not isinstance(chain, FeeBumper):
        return
    begun = all(envelope.id != variants[-1].unsigned.id for envelope in kept)
    # half signed, by a crash or for want of a seat: gone on with at once
    if not begun and not is_stuck(permit, carried, ceremony.now):
        return
    certificate = records.certificate_of(wallet, variants[-1])
    if not isinstance(chain.follow(certificate.message, kept), Pending | Unknown):
        return
    fresh: Envelope | Waiting | None
    try:
        if begun:
            fresh = _signed(ceremony, permit, wallet, variants[-1].unsigned)
        else:
            fresh = _fresh(ceremony, permit, wallet, carried, kept, variants[-1])
    except Refused as error:
        fresh = _waiting(error.refusals)
    if isinstance(fresh, Waiting):
        _say(ceremony, permit, carried[0].status, fresh)
    elif fresh is not None:
        ceremony.store.run(lambda work: _keep(work, permit, fresh, ceremony.now))
        settle(post, permit)


def _fresh(
    ceremony: Ceremony,
    permit: Permit,
    wallet: Wallet,
    carried: Sequence[Transfer],
    kept: Sequence[Envelope],
    newest: Variant,
) -> Envelope | Waiting | None:
    """New bytes to send, why there are none yet, or None where what was sent pays enough. Raises Refused and Unavailable."""
    chain, last = ceremony.chain, kept[-1]
    if not isinstance(chain, FeeBumper):
        return None
    if len(kept) >= ENVELOPES_MOST:
        return Waiting(f"people: {ENVELOPES_MOST} envelopes came to nothing; patience, or a void")
    maxima = {transfer.digest: transfer.intent.maximum_fee for transfer in carried}
    certificate = records.certificate_of(wallet, newest)
    made = chain.outbid(certificate.message, permit.reservation, newest.unsigned, maxima)
    if made is None:
        signed = ceremony.store.read(lambda work: records.signed_of(work, last.anchor, last.id))
        return None if signed is None else chain.reseal(certificate, signed, last)
    ceremony.store.run(lambda work: records.put_variant(work, made, void=False))
    return _signed(ceremony, permit, wallet, made)


def _signed(ceremony: Ceremony, permit: Permit, wallet: Wallet, unsigned: UnsignedPayout) -> Envelope | Waiting:
    if unsigned.certificate != wallet.certificate.struct_hash:
        return _waiting([Refusal(Rule.CERTIFICATE_OLDER, got=unsigned.certificate.hex(), want="the newest")])
    made: SignedPayout | Waiting = sign_variant(ceremony, permit, wallet, unsigned)
    if isinstance(made, Waiting):
        return Waiting(f"a higher fee: {made.why}")
    ceremony.store.run(lambda work: records.put_signed(work, made))
    return ceremony.chain.seal(wallet.certificates[-1], made)


def _keep(work: UnitOfWork, permit: Permit, envelope: Envelope, now: int) -> None:
    """Store the bytes, and say so at once: it is sent from this state, after a crash too."""
    carried = records.carried(work, permit)
    if not carried or carried[0].status not in SENT:  # people void it meanwhile: the newest bytes have to be the void's
        return
    work.transfers.keep(envelope, now)
    told = f"the node to take 0x{envelope.transaction.hex()}, for a higher fee"
    records.mark(work, permit, Status.BROADCASTING, now, None, told)


def _waiting(refusals: Sequence[Refusal]) -> Waiting:
    why = "; ".join(str(refusal) for refusal in refusals)
    if {refusal.rule for refusal in refusals} <= _TOO_HIGH:
        told = f"people: no block takes it but for a higher fee than people approved; patience, or a void: {why}"
        return Waiting(told, SubStatus.ACTUAL_FEE_TOO_HIGH, tuple(refusals))
    return Waiting(f"a higher fee: {why}", None, tuple(refusals))


def _say(ceremony: Ceremony, permit: Permit, status: Status, waiting: Waiting) -> None:
    """What it waits for; a payout that is being voided meanwhile keeps what it says."""

    def work(work: UnitOfWork) -> None:
        now = records.carried(work, permit)
        if now and now[0].status is status:
            records.mark(work, permit, status, ceremony.now, waiting.sub_status, waiting.why)

    ceremony.store.run(work)
