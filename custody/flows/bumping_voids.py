# SPDX-License-Identifier: AGPL-3.0-or-later
"""A void that no block takes: the same void for a higher fee, or over the very call that it has to come before.

On Bitcoin another variant of the one canonical void, which seats sign under the quorum that people gave the first; on EVM the void's
call again, at the relayer's nonce of whatever of this anchor waits first: behind a payout that is stuck there it could only be late.
"""

from collections.abc import Sequence

from custody.flows import payout_records as records
from custody.flows import signing
from custody.flows.bumping import has_waited
from custody.flows.inventory import Wallet
from custody.flows.payout_records import Variant
from custody.flows.payouts import ENVELOPES_MOST, Post, settle
from custody.flows.ports import FeeBumper, UnitOfWork
from custody.flows.signing import Ceremony, Waiting
from custody.rules.intents import Void
from custody.rules.payments import Envelope, Pending, Unknown
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Status, SubStatus


def bump_void(ceremony: Ceremony, post: Post, permit: Permit, wallet: Wallet) -> None:
    """Send a void that is stuck again for more, where blocks ask for more by now; else say with its transfers why not.

    Safe to repeat after a crash anywhere. Raises Unavailable where node, seat, attestor or relayer does not answer.
    """
    anchor, chain = permit.reservation.anchor, ceremony.chain
    carried, kept, known, void = ceremony.store.read(
        lambda work: (
            records.carried(work, permit),
            work.transfers.kept(anchor),
            records.variants(work, anchor),
            records.void_of(work, anchor),
        )
    )
    voids = [variant for variant in known if variant.void]
    if not carried or carried[0].status is not Status.CANCELLING or void is None or not voids:
        return
    sealed = [envelope for envelope in kept if envelope.id == voids[-1].unsigned.id]
    if (not sealed and len(voids) == 1) or (sealed and not has_waited(permit, carried, ceremony.now)):
        return  # the first one is still to be signed, or has its time
    certificate = records.certificate_of(wallet, voids[-1])
    if not isinstance(chain.follow(certificate.message, kept), Pending | Unknown):
        return
    try:
        if len(sealed) >= ENVELOPES_MOST or len(voids) >= ENVELOPES_MOST:
            fresh: Envelope | Waiting | None = Waiting(f"people: {ENVELOPES_MOST} voids came to nothing; patience")
        elif wallet.chain.is_evm:
            fresh = _over_what_waits(ceremony, wallet, voids[-1], kept)
        else:
            fresh = _for_more(ceremony, permit, wallet, void, voids[-1], sealed=bool(sealed))
    except Refused as error:
        fresh = Waiting("; ".join(str(refusal) for refusal in error.refusals), None, error.refusals)
    if isinstance(fresh, Waiting):
        _say(
            ceremony,
            permit,
            fresh.why if fresh.why.startswith("people: ") else f"a higher fee of its void: {fresh.why}",
        )
    elif fresh is not None:
        made = fresh
        ceremony.store.run(lambda work: _keep(work, permit, made, ceremony.now))
        settle(post, permit)


def _over_what_waits(ceremony: Ceremony, wallet: Wallet, void: Variant, kept: Sequence[Envelope]) -> Envelope | None:
    """The void's signed call at the relayer's nonce of the first envelope that waits, for more than that one pays."""
    chain, anchor = ceremony.chain, void.unsigned.anchor
    signed = ceremony.store.read(lambda work: records.signed_of(work, anchor, void.unsigned.id))
    certificate = records.certificate_of(wallet, void)
    if signed is None or not isinstance(chain, FeeBumper):
        return None
    waits = (envelope for envelope in kept if isinstance(chain.follow(certificate.message, [envelope]), Pending))
    return chain.reseal(certificate, signed, next(waits, kept[-1]))


def _for_more(
    ceremony: Ceremony, permit: Permit, wallet: Wallet, void: Signed[Void], newest: Variant, *, sealed: bool
) -> Envelope | Waiting | None:
    """Another variant of the void, above the last one's fee by what a node asks for; one that is half signed is gone on with."""
    chain, anchor = ceremony.chain, permit.reservation.anchor
    certificate = records.certificate_of(wallet, newest).message
    if sealed:
        if chain.void(certificate, anchor).fee <= newest.unsigned.fee:
            return None
        made = chain.void(certificate, anchor, newest.unsigned.fee)
        ceremony.store.run(lambda work: records.put_variant(work, made, void=True))
    signed = signing.sign_void_variant(ceremony, permit, void, wallet)
    if isinstance(signed, Waiting):
        return signed
    ceremony.store.run(lambda work: records.put_signed(work, signed))
    return chain.seal(wallet.certificates[-1], signed)


def _keep(work: UnitOfWork, permit: Permit, envelope: Envelope, now: int) -> None:
    """Store the bytes before they go out."""
    work.transfers.keep(envelope, now)
    told = f"the node to take its void 0x{envelope.transaction.hex()}, for a higher fee"
    _mark(work, permit, told, now)


def _say(ceremony: Ceremony, permit: Permit, why: str) -> None:
    ceremony.store.run(lambda work: _mark(work, permit, why, ceremony.now))


def _mark(work: UnitOfWork, permit: Permit, why: str, now: int) -> None:
    carried = records.carried(work, permit)
    if carried and carried[0].status is Status.CANCELLING:
        records.mark(work, permit, Status.CANCELLING, now, SubStatus.CANCELLED_BY_USER, why)
