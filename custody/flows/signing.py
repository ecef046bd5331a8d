# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 7: build the payout, get the statement, gather M seats' signatures, store the bytes (DESIGN.md, laws 4 and 5).

Each step is written down before the next: what is to be signed before a seat is asked, what a quorum signed before it is sealed,
the sealed bytes before the status says BROADCASTING. A killed worker asks the same thing again, and seats that answered give the
identical signatures; where the statement went stale meanwhile a fresh one speaks for the same anchor and the same bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Final, Protocol

from custody.flows import payout_records as records
from custody.flows.authorization import SigningPermit
from custody.flows.carrying import to_carry
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.ports import AttestorPort, PayoutChain, SeatPort, Store, UnitOfWork
from custody.rules.attested import verify_signature
from custody.rules.certificates import Rotation, WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import Anchor, Void
from custody.rules.payments import Envelope, SeatSignatures, SignedPayout, Sweep, UnsignedPayout
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request, Transfer
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Permit, Status, SubStatus
from custody.rules.wallets import Tier

REUSE: Final = 90
"""Seconds for which a statement that seats were asked with serves again; beyond 120 nothing goes by itself."""
REUSE_COLD: Final = 6 * 3600
"""The same where the seats are offline and a request is carried to them."""
_FRESHER: Final = frozenset({Rule.STALE, Rule.SEQUENCE, Rule.BEHIND})
"""Refusals that a newer statement may answer."""
_COVERAGE: Final = frozenset({Rule.COVERAGE, Rule.COVERAGE_UNKNOWN})
_FROZEN: Final = frozenset({Rule.FROZEN, Rule.SAFE_DRIFT})


@dataclass(frozen=True)
class Ceremony:
    """Who takes part in signing on one chain. `seats` are all that can be reached; `now` is seconds since 1970."""

    store: Store
    kernel: Kernel
    chain: PayoutChain
    seats: Sequence[SeatPort]
    attestor: AttestorPort
    now: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why there are no bytes to send yet, in words for people, and every refusal; it stands with the transfers."""

    why: str
    sub_status: SubStatus | None = None
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What seats are asked: the recorded variant and the recorded request. `fresh` says that its statement was made just now."""

    unsigned: UnsignedPayout
    request: Request
    fresh: bool


@dataclass(frozen=True, slots=True)
class _Answers:
    """What seats said: signatures by seat, refusals by seat, and who was silent and why."""

    signatures: dict[str, SeatSignatures]
    refused: dict[str, tuple[Refusal, ...]]
    silent: dict[str, str]


def sign(ceremony: Ceremony, permit: SigningPermit, sweeps: Sequence[Sweep] = ()) -> Envelope | Waiting:
    """The stored bytes of a payout, ready to be sent, or what it waits for; either is recorded with its transfers.

    `sweeps` bring in what deposit Safes hold, where the payout is first built. Safe to repeat after a crash anywhere: the bytes
    are the same, and no second transaction for these intents can come of it. Raises Unavailable where attestor, node, relayer
    or store does not answer.
    """
    anchor, wallet = permit.permit.reservation.anchor, permit.wallet
    kept = ceremony.store.read(lambda work: work.transfers.kept(anchor))
    if kept:
        _record(ceremony, permit.permit, kept[-1])
        return kept[-1]
    try:
        drifted = tuple(ceremony.chain.preflight(wallet.name, wallet.certificate))
        if drifted:
            return _wait(ceremony, permit.permit, _told("wallet", drifted))
        made = _complete(ceremony, wallet.certificate, partial(_prepare, ceremony, permit, sweeps))
    except (Refused, InvalidInput) as error:
        made = _told("payout", _refusals(error))
    if isinstance(made, Waiting):
        return _wait(ceremony, permit.permit, _past_expiry(made))
    return _seal(ceremony, permit.permit, wallet, made)


def sign_sweep(ceremony: Ceremony, permit: Permit, wallet: Wallet) -> Envelope | Waiting:
    """The stored bytes of a sweep inside the wallet, whose variant is recorded; as `sign`.

    It carries no intent: coins stay in the wallet, and each seat sees to that by itself (TRUST.md, "A seat decides by itself").
    """
    kept = ceremony.store.read(lambda work: work.transfers.kept(permit.reservation.anchor))
    if kept:
        return kept[-1]
    try:
        certificate = _keys_at(ceremony, permit.reservation.anchor, wallet)
        made = _complete(ceremony, certificate, partial(_prepare_sweep, ceremony, permit, wallet))
    except (Refused, InvalidInput) as error:
        made = _told("sweep", _refusals(error))
    return made if isinstance(made, Waiting) else _seal(ceremony, permit, wallet, made)


def sign_rotation(
    ceremony: Ceremony, permit: Permit, wallet: Wallet, rotation: Signed[Rotation], new: Signed[WalletCertificate]
) -> Envelope | Waiting:
    """The stored bytes of the owner calls that a quorum of people signed for, whose variant is recorded; as `sign`.

    The keys that sign are those of the certificate that is left.
    """
    kept = ceremony.store.read(lambda work: work.transfers.kept(permit.reservation.anchor))
    if kept:
        return kept[-1]
    try:
        prepare = partial(_prepare_sweep, ceremony, permit, wallet, rotation=rotation, new=new)
        made = _complete(ceremony, _keys_of(wallet, rotation.message.old), prepare)
    except (Refused, InvalidInput) as error:
        made = _told("rotation", _refusals(error))
    return made if isinstance(made, Waiting) else _seal(ceremony, permit, wallet, made)


def sign_void(ceremony: Ceremony, permit: Permit, void: Signed[Void], wallet: Wallet) -> Envelope | Waiting:
    """The stored bytes of an anchor's one canonical void, under people's quorum; as `sign`. No policy and no Safe state is asked.

    The transfers stay CANCELLING: only the final consumption of the anchor frees a hold (TRUST.md).
    """
    anchor = permit.reservation.anchor
    voids = {v.unsigned.id for v in ceremony.store.read(lambda work: records.variants(work, anchor)) if v.void}
    kept = ceremony.store.read(lambda work: work.transfers.kept(anchor))
    if sent := [envelope for envelope in kept if envelope.id in voids]:
        return sent[-1]
    try:
        made = _complete(
            ceremony, _keys_at(ceremony, anchor, wallet), partial(_prepare_void, ceremony, permit, void, wallet)
        )
    except (Refused, InvalidInput) as error:
        made = _told("void", _refusals(error))
    if isinstance(made, Waiting):
        why = f"void: {made.why}"
        ceremony.store.run(
            lambda work: records.mark(work, permit, Status.CANCELLING, ceremony.now, SubStatus.CANCELLED_BY_USER, why)
        )
        return made
    ceremony.store.run(lambda work: records.put_signed(work, made))
    envelope = ceremony.chain.seal(wallet.certificates[-1], made)
    ceremony.store.run(lambda work: work.transfers.keep(envelope, ceremony.now))
    return envelope


def sign_void_variant(ceremony: Ceremony, permit: Permit, void: Signed[Void], wallet: Wallet) -> SignedPayout | Waiting:
    """A quorum's signatures over the newest variant of an anchor's void, which is recorded; people's word is the same for each."""
    try:
        certificate = _keys_at(ceremony, permit.reservation.anchor, wallet)
        return _complete(ceremony, certificate, partial(_prepare_void, ceremony, permit, void, wallet))
    except (Refused, InvalidInput) as error:
        return _told("void", _refusals(error))


def sign_variant(
    ceremony: Ceremony, permit: Permit, wallet: Wallet, unsigned: UnsignedPayout
) -> SignedPayout | Waiting:
    """A quorum's signatures over another variant of a payout that was sent: seats decide again by themselves, fee included.

    What people signed is what seats were shown with the variant before; the attestor speaks for the same anchor again. Nothing is
    recorded of why it waits. Raises Unavailable.
    """
    prepare = partial(_prepare_variant, ceremony, permit, wallet, unsigned)
    try:
        return _complete(ceremony, wallet.certificate, prepare)
    except (Refused, InvalidInput) as error:
        return _told("variant", _refusals(error))


# by hand, to seats that are not online


def renew(store: Store, kernel: Kernel, attestor: AttestorPort, anchor: Anchor) -> Request:
    """The same question about the same bytes, with a statement made just now; recorded, so that the worker goes on with it.

    For cold seats that refused the one they were brought (`sequence_not_newer`, stale, behind): left alone it would serve for
    hours. Raises Refused (unknown_transfer, everything of `AttestorPort.attest`) and Unavailable.
    """
    asked = to_carry(store, anchor)
    if asked is None:
        want = "an anchor that seats were asked about"
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, anchor=anchor.reference, want=want)])
    intents = [kernel.roster.domain.digest(transfer.intent) for transfer in asked.transfers]
    request = replace(asked, statement=_attest(kernel, attestor, anchor, intents))
    store.run(lambda work: records.put_request(work, anchor, request))
    return request


# what is asked


def _prepare(ceremony: Ceremony, permit: SigningPermit, sweeps: Sequence[Sweep], *, again: bool) -> _Asked:
    """The recorded payload and a request that may be asked: the recorded one while it serves, unless `again`."""
    anchor = permit.permit.reservation.anchor
    known = [v for v in ceremony.store.read(lambda work: records.variants(work, anchor)) if not v.void]
    if known:
        unsigned = known[-1].unsigned
    else:
        certificate = permit.wallet.certificate
        unsigned = ceremony.chain.build(certificate, permit.permit.reservation, permit.payments, sweeps)
        ceremony.store.run(lambda work: records.put_variant(work, unsigned, void=False))
    asked = ceremony.store.read(lambda work: records.newest_request(work, anchor, void=False))
    refused = any(transfer.sub_status is SubStatus.SIGNER_REFUSED for transfer in permit.transfers)
    serves = (
        _serves(ceremony, permit.wallet, asked, unsigned) and asked is not None and asked.transfers == permit.material
    )
    if asked is not None and serves and not again and not refused:
        return _Asked(unsigned, asked, fresh=False)
    statement = _attest(ceremony.kernel, ceremony.attestor, anchor, permit.permit.intents)
    request = Request(
        payload=unsigned.payload,
        wallet=permit.wallet.name,
        statement=statement,
        transfers=permit.material,
        certificates=_others(ceremony.kernel, permit),
        rosters=_rosters(ceremony.kernel, permit.material),
    )
    ceremony.store.run(lambda work: records.put_request(work, anchor, request))
    return _Asked(unsigned, request, fresh=True)


def _prepare_sweep(
    ceremony: Ceremony,
    permit: Permit,
    wallet: Wallet,
    *,
    again: bool,
    rotation: Signed[Rotation] | None = None,
    new: Signed[WalletCertificate] | None = None,
) -> _Asked:
    anchor = permit.reservation.anchor
    known = [v for v in ceremony.store.read(lambda work: records.variants(work, anchor)) if not v.void]
    if not known:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, anchor=anchor.reference, want="a sweep that was recorded")])
    unsigned = known[-1].unsigned
    asked = ceremony.store.read(lambda work: records.newest_request(work, anchor, void=False))
    if asked is not None and _serves(ceremony, wallet, asked, unsigned) and not again:
        return _Asked(unsigned, asked, fresh=False)
    request = Request(
        unsigned.payload,
        wallet.name,
        _attest(ceremony.kernel, ceremony.attestor, anchor, ()),
        certificates=() if new is None else (new,),
        rotation=rotation,
    )
    ceremony.store.run(lambda work: records.put_request(work, anchor, request))
    return _Asked(unsigned, request, fresh=True)


def _prepare_void(ceremony: Ceremony, permit: Permit, void: Signed[Void], wallet: Wallet, *, again: bool) -> _Asked:
    anchor = permit.reservation.anchor
    known = ceremony.store.read(lambda work: records.variants(work, anchor))
    if voids := [variant for variant in known if variant.void]:
        unsigned = voids[-1].unsigned
    else:
        outbid = max((variant.unsigned.fee for variant in known), default=0)
        unsigned = ceremony.chain.void(_keys_at(ceremony, anchor, wallet), anchor, outbid)
        ceremony.store.run(lambda work: records.put_variant(work, unsigned, void=True))
    asked = ceremony.store.read(lambda work: records.newest_request(work, anchor, void=True))
    if asked is not None and _serves(ceremony, wallet, asked, unsigned) and asked.void == void and not again:
        return _Asked(unsigned, asked, fresh=False)
    request = Request(unsigned.payload, wallet.name, _attest(ceremony.kernel, ceremony.attestor, anchor, ()), void=void)
    ceremony.store.run(lambda work: records.put_request(work, anchor, request))
    return _Asked(unsigned, request, fresh=True)


def _prepare_variant(
    ceremony: Ceremony, permit: Permit, wallet: Wallet, unsigned: UnsignedPayout, *, again: bool
) -> _Asked:
    anchor = permit.reservation.anchor
    asked = ceremony.store.read(lambda work: records.newest_request(work, anchor, void=False))
    if asked is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, anchor=anchor.reference, want="a variant that seats signed")])
    if _serves(ceremony, wallet, asked, unsigned) and not again:
        return _Asked(unsigned, asked, fresh=False)
    statement = _attest(ceremony.kernel, ceremony.attestor, anchor, permit.intents)
    rosters = _rosters(ceremony.kernel, asked.transfers)
    request = replace(asked, payload=unsigned.payload, statement=statement, rosters=rosters)
    ceremony.store.run(lambda work: records.put_request(work, anchor, request))
    return _Asked(unsigned, request, fresh=True)


def _serves(ceremony: Ceremony, wallet: Wallet, asked: Request | None, unsigned: UnsignedPayout) -> bool:
    """Whether a recorded request is about these bytes, and its statement young enough to be asked with again."""
    if asked is None or asked.payload != unsigned.payload:
        return False
    oldest = REUSE_COLD if wallet.tier is Tier.CUSTOMER_COLD else REUSE
    return abs(ceremony.now - asked.statement.message.time) <= oldest


def _attest(kernel: Kernel, attestor: AttestorPort, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
    """The attestor's word on this payout, compared with the question. Raises Refused, and Unavailable for another answer."""
    signed = attestor.attest(anchor, list(intents))
    raise_if(verify_signature(signed, kernel.roster))
    told = sorted(facts.intent for facts in signed.message.intents)
    if signed.message.anchor != (anchor,) or told != sorted(intents):
        raise Unavailable("attestor", "it spoke for another payout than it was asked about")
    return signed


def _others(kernel: Kernel, permit: SigningPermit) -> tuple[Signed[WalletCertificate], ...]:
    """Certificates of the wallets of ours that are paid, each once, so that a seat recognises them."""
    paid = {payment.derived.certificate.struct_hash for payment in permit.payments if payment.derived is not None}
    lines = (wallet.certificates for wallet in kernel.inventory)
    return tuple(  # the whole line: a successor's Safe is recognised by its birth
        signed for line in lines if paid & {each.message.struct_hash for each in line} for signed in line
    )


def _rosters(kernel: Kernel, material: Iterable[Transfer]) -> tuple[Signed[RosterVersion], ...]:
    """The older versions from the oldest that an intent pins on: the newest one's hash chain is their proof."""
    oldest = min((transfer.intent.roster for transfer in material), default=kernel.roster.version.version)
    return tuple(r.signed for r in kernel.rosters[:-1] if r.version.version >= oldest)


# who answers


def in_turn(seats: Sequence[SeatPort], certificate: WalletCertificate, anchor: Anchor) -> tuple[SeatPort, ...]:
    """The certificate's seats that can be reached; another one is first from anchor to anchor, so that their counters spread."""
    by_name = {seat.name: seat for seat in seats}
    mine = [by_name[key.key.seat] for key in certificate.seats if key.key.seat in by_name]
    if not mine:
        return ()
    number = (
        int(anchor.reference)
        if anchor.reference.isdecimal()
        else int.from_bytes(sha256(anchor.reference.encode()).digest())
    )
    first = number % len(mine)
    return (*mine[first:], *mine[:first])


class _Prepare(Protocol):
    """Gives what is to be asked; `again` asks for a fresh statement."""

    def __call__(self, *, again: bool) -> _Asked: ...


def _keys_at(ceremony: Ceremony, anchor: Anchor, wallet: Wallet) -> WalletCertificate:
    """Whose keys sign at an anchor: a Safe's are its newest certificate's, a coin's those of the certificate that holds it."""
    known = () if wallet.chain.is_evm else ceremony.store.read(lambda work: records.variants(work, anchor))
    return records.certificate_of(wallet, known[0] if known else None).message


def _keys_of(wallet: Wallet, certificate: bytes) -> WalletCertificate:
    found = next((c.message for c in wallet.certificates if c.message.struct_hash == certificate), None)
    if found is None:
        raise Refused([Refusal(Rule.UNKNOWN_WALLET, certificate=certificate.hex(), want="one of the wallet's")])
    return found


def _complete(ceremony: Ceremony, certificate: WalletCertificate, prepare: _Prepare) -> SignedPayout | Waiting:
    """Ask until M seats signed the same bytes. Raises Refused and InvalidInput where there is nothing to ask or to combine."""
    asked = prepare(again=False)
    stored = ceremony.store.read(lambda work: records.signatures(work, asked.unsigned, _names(certificate)))
    answers, false, from_store = _Answers(stored, {}, {}), dict[str, tuple[Refusal, ...]](), set(stored)
    while True:
        _gather(ceremony, certificate, asked, answers, false)
        short = len(answers.signatures) < certificate.m
        if short and not asked.fresh and any(_is_fresher(refusals) for refusals in answers.refused.values()):
            asked = prepare(again=True)
            answers.refused.clear()
            continue
        if short:
            return _missing(ceremony, certificate, answers, false)
        given = list(answers.signatures.values())
        try:
            return ceremony.chain.combine(certificate, asked.unsigned, given)
        except Refused as error:
            named = {str(r.operands.get("seat")) for r in error.refusals} & set(answers.signatures)
            if not named:
                raise
            for name in named:  # a seat that lies is left out; one whose stored answer somebody changed is asked again
                del answers.signatures[name]
                if name not in from_store:
                    false[name] = tuple(r for r in error.refusals if r.operands.get("seat") == name)
            from_store -= named


def _gather(
    ceremony: Ceremony,
    certificate: WalletCertificate,
    asked: _Asked,
    answers: _Answers,
    false: dict[str, tuple[Refusal, ...]],
) -> None:
    """Ask one seat after another for what is missing. A silent one is passed over, a refusal noted, and the next one asked."""
    for seat in in_turn(ceremony.seats, certificate, asked.unsigned.anchor):
        if len(answers.signatures) >= certificate.m:
            return
        if seat.name in answers.signatures or seat.name in answers.refused or seat.name in false:
            continue
        try:
            made = seat.sign(asked.request)
        except (Refused, InvalidInput) as error:
            answers.refused[seat.name] = _refusals(error)
        except Unavailable as error:
            answers.silent[seat.name] = error.why
        else:
            if made.seat == seat.name:
                answers.signatures[seat.name] = made
                ceremony.store.run(partial(records.put_signatures, unsigned=asked.unsigned, made=made))
            else:
                answers.silent[seat.name] = f"it answered as {made.seat}"


def _missing(
    ceremony: Ceremony, certificate: WalletCertificate, answers: _Answers, false: dict[str, tuple[Refusal, ...]]
) -> Waiting:
    """Which seats are missing, and which rule or silence stands behind each."""
    reached = {seat.name for seat in ceremony.seats}
    lines = [f"seat {name} refused: {_text(found)}" for name, found in sorted(answers.refused.items())]
    lines += [f"seat {name} gave a false signature: {_text(found)}" for name, found in sorted(false.items())]
    lines += [f"seat {name} is silent: {why}" for name, why in sorted(answers.silent.items())]
    lines += [f"seat {name} is not configured" for name in _names(certificate) if name not in reached]
    refusals = tuple(refusal for found in (*answers.refused.values(), *false.values()) for refusal in found)
    have = f"{len(answers.signatures)} of {certificate.m} signatures"
    return Waiting("; ".join((have, *lines)), SubStatus.SIGNER_REFUSED if refusals else None, refusals)


# what is recorded


def _seal(ceremony: Ceremony, permit: Permit, wallet: Wallet, made: SignedPayout) -> Envelope:
    """Store what the quorum signed, put it into an envelope, store that, and only then say BROADCASTING."""
    ceremony.store.run(lambda work: records.put_signed(work, made))
    envelope = ceremony.chain.seal(wallet.certificates[-1], made)
    _record(ceremony, permit, envelope)
    return envelope


def _record(ceremony: Ceremony, permit: Permit, envelope: Envelope) -> None:
    def work(work: UnitOfWork) -> None:
        work.transfers.keep(envelope, ceremony.now)
        if any(t.status is Status.PENDING_SIGNATURE for t in records.carried(work, permit)):
            records.mark(
                work,
                permit,
                Status.BROADCASTING,
                ceremony.now,
                None,
                f"the node to take 0x{envelope.transaction.hex()}",
            )

    ceremony.store.run(work)


def _wait(ceremony: Ceremony, permit: Permit, waiting: Waiting) -> Waiting:
    ceremony.store.run(
        lambda work: records.mark(work, permit, Status.PENDING_SIGNATURE, ceremony.now, waiting.sub_status, waiting.why)
    )
    return waiting


def _past_expiry(waiting: Waiting) -> Waiting:
    """Where an intent expired before a quorum signed, no time will help: its anchor was asked about, so only a void frees its hold."""
    if all(refusal.rule is not Rule.EXPIRED for refusal in waiting.refusals):
        return waiting
    return replace(waiting, why=f"people: a void, since it expired before a quorum signed: {waiting.why}")


def _told(what: str, refusals: tuple[Refusal, ...]) -> Waiting:
    """Something else than a seat said no."""
    rules = {refusal.rule for refusal in refusals}
    sub_status = SubStatus.FROZEN if rules & _FROZEN else SubStatus.BLOCKED_BY_COVERAGE if rules & _COVERAGE else None
    return Waiting(f"{what}: {_text(refusals)}", sub_status, refusals)


def _text(refusals: Iterable[Refusal]) -> str:
    return "; ".join(str(refusal) for refusal in refusals)


def _refusals(error: Refused | InvalidInput) -> tuple[Refusal, ...]:
    return error.refusals if isinstance(error, Refused) else (refusal_of(error),)


def _is_fresher(refusals: Iterable[Refusal]) -> bool:
    return any(refusal.rule in _FRESHER for refusal in refusals)


def _names(certificate: WalletCertificate) -> Iterator[str]:
    return (key.key.seat for key in certificate.seats)
