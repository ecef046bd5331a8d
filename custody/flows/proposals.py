# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps 1 to 3 of a withdrawal: propose, approve, reject, cancel, expire (DESIGN.md). Every one is a signed document.

A proposal is held for and recorded in one transaction, with everything that policy counted; what people add is appended. Once a
permit is recorded nothing here frees a hold any more (TRUST.md, "One anchor per payout").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from custody.flows.enrolments import check_new
from custody.flows.facts import decide, gather, usd_of
from custody.flows.kernel import Kernel, check_frozen
from custody.flows.ports import Prices, Store, UnitOfWork
from custody.flows.reversals import check_reversed
from custody.flows.routes import Route, find_route
from custody.rules import holds, words
from custody.rules.approvals import Approval, check_approval, count, satisfied
from custody.rules.certificates import Enrolment
from custody.rules.decisions import DecisionRecord, What
from custody.rules.errors import InvalidInput
from custody.rules.facts import Facts
from custody.rules.hold_origins import proposer_of, who_rejects
from custody.rules.intents import EXPIRY_MOST, Proposal, Rejection, TransferIntent
from custody.rules.ledger import Entry, check_balances, entry_text
from custody.rules.origins import Hold, Release
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.requirement import Decision, Outcome, Requirement
from custody.rules.roster import ApiClient, Person
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, SubStatus, Transfer, move, uuid7
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.waiting import people_missing, waits_for

KEY_MOST: Final = 200
"""Characters of an idempotency key."""
TEXT_MOST: Final = 400
"""Characters of a reference, or of a reason."""
_SIGNATURES: Final = "signatures"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a proposal would become now: its intent, who asks, what policy answers, who would be below zero, what freeze it waits for.

    `facts` is everything that policy answered by, and `entry` what would be held, where that is something.
    """

    intent: TransferIntent
    route: Route
    initiator: Person | ApiClient
    usd: int
    facts: Facts
    decision: Decision
    entry: Entry | None
    short: tuple[Refusal, ...]
    frozen: tuple[Refusal, ...] = ()


def propose(store: Store, kernel: Kernel, signed: Signed[Proposal], key: str, now: int, entropy: bytes) -> Transfer:
    """Hold what the proposal moves and record its intent, once. `entropy` is 10 random bytes; `key` makes a repetition harmless.

    Denied by policy it is recorded as BLOCKED and holds nothing. Under a freeze it is taken, held for and BLOCKED as FROZEN until that
    ends: a freeze stops what leaves, not what is asked, and what is held meanwhile cannot go another way.

    Raises Refused: everything of `find_route`, of the initiator's
    signature, expired, insufficient_balance, idempotency_key_with_another_body, proposal_bound_to_another_intent; Unavailable.
    """
    found = prepare(store, kernel, signed, key, now, entropy)
    return found if isinstance(found, Transfer) else record(store, kernel, found, now)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A proposal that was verified, routed, judged and hashed outside the transaction that records it. `digest` is its intent's."""

    signed: Signed[Proposal]
    key: str
    prices: Prices
    draft: Draft
    digest: bytes


def prepare(
    store: Store, kernel: Kernel, signed: Signed[Proposal], key: str, now: int, entropy: bytes
) -> Transfer | Prepared:
    """Everything of `propose` that holds up no other writer, from a snapshot; or the transfer that it became before. Raises as it."""
    initiator, asked = _initiator(kernel, signed, now), signed.message.struct_hash
    known = store.read(lambda work: _asked(work, initiator.id, key, asked))
    if known is not None:
        return known
    prices, transfer_id = kernel.prices.fresh(now), uuid7(now * 1000, entropy)

    def look(work: UnitOfWork) -> Transfer | Draft:
        mine = _asked(work, initiator.id, key, asked)
        return _draft(work, kernel, signed, initiator, prices, transfer_id, now) if mine is None else mine

    found = store.read(look)
    if isinstance(found, Transfer):
        return found
    if found.entry is not None:
        entry_text(found.entry)  # so that it is known when it is appended
    return Prepared(signed, key, prices, found, kernel.roster.domain.digest(found.intent))


def record(store: Store, kernel: Kernel, prepared: Prepared, now: int) -> Transfer:
    """Hold and record what was prepared, in one transaction, by everything that counts as it stands there. Raises as `propose`."""

    def work(work: UnitOfWork) -> Transfer:
        asked = prepared.draft.intent.proposal
        if (mine := _asked(work, prepared.draft.initiator.id, prepared.key, asked)) is not None:
            return mine
        return _record(work, prepared, _as_it_stands(work, kernel, prepared, now), now)

    return store.run(work)


def dry_run(store: Store, kernel: Kernel, signed: Signed[Proposal], now: int) -> Draft:
    """What `propose` would do now, with each rule's first unmet condition in its decision; nothing is recorded. Raises as it."""
    initiator = _initiator(kernel, signed, now)
    prices = kernel.prices.fresh(now)
    nobody = uuid7(now * 1000, bytes(10))
    return store.read(lambda work: _draft(work, kernel, signed, initiator, prices, nobody, now))


def _initiator(kernel: Kernel, signed: Signed[Proposal], now: int) -> Person | ApiClient:
    """Whose roster key signed it: its entry fixes the role, and an address authority never proposes (TRUST.md)."""
    if (
        len(signed.signatures) > 1
    ):  # whoever carries it could drop one: the other would be the initiator, and this one approve
        want = "the initiator's one signature"
        raise Refused([Refusal(Rule.MALFORMED, field="signatures", got=len(signed.signatures), want=want)])
    roster = kernel.roster
    found = proposer_of(signed, roster, now)
    if found is not None:
        if found.id in roster.version.address_authorities:
            raise Refused([Refusal(Rule.AUTHORITY_PROPOSES, person=found.id)])
        return found
    keys = [signature.key for signature in signed.signatures]
    named: list[Person | ApiClient] = [roster.clients_by_key[key] for key in keys if key in roster.clients_by_key]
    named += [roster.people_by_key[key] for key in keys if key in roster.people_by_key]
    if not named:
        raise Refused([Refusal(Rule.SIGNER_UNKNOWN, document="Proposal", want="somebody of the newest roster")])
    first = named[0]
    if not signed.signers(roster.domain):
        raise Refused([Refusal(Rule.SIGNATURE_INVALID, document="Proposal", signer=first.id)])
    if first.expires <= now:
        raise Refused([Refusal(Rule.SIGNER_EXPIRED, signer=first.id, expired=first.expires, now=now)])
    raise Refused([Refusal(Rule.SCOPE_MISSING, client=first.id, want="propose")])


def _asked(work: UnitOfWork, scope: str, key: str, asked: bytes) -> Transfer | None:
    if not 1 <= len(key) <= KEY_MOST:
        raise Refused(
            [Refusal(Rule.MALFORMED, field="idempotency key", got=f"{len(key)} characters", want=f"1 to {KEY_MOST}")]
        )
    known = work.transfers.asked(scope, key)
    if known is None:
        return None
    if known[0] != asked:
        raise Refused([Refusal(Rule.IDEMPOTENCY_MISMATCH, key=key, transfer=known[1].intent.id)])
    return known[1]


def _draft(
    work: UnitOfWork,
    kernel: Kernel,
    signed: Signed[Proposal],
    initiator: Person | ApiClient,
    prices: Prices,
    transfer_id: str,
    now: int,
) -> Draft:
    proposal = signed.message
    bound = work.transfers.of_proposal(proposal.struct_hash)
    if bound is not None:
        raise Refused([Refusal(Rule.PROPOSAL_BOUND, proposal=bound.intent.proposal.hex(), transfer=bound.intent.id)])
    if proposal.expiry <= now:
        raise Refused([Refusal(Rule.EXPIRED, document="Proposal", expired=proposal.expiry, now=now)])
    if proposal.expiry > now + EXPIRY_MOST:
        told = {"got": proposal.expiry, "now": now, "want": f"at most {now + EXPIRY_MOST}"}
        raise Refused([Refusal(Rule.EXPIRY_TOO_FAR, field="expiry", **told)])
    _check_text("reference", proposal.reference)
    route = find_route(work, kernel, proposal, now)
    intent = TransferIntent(
        id=transfer_id,
        proposal=proposal.struct_hash,
        chain=proposal.chain,
        wallet=route.source.name,
        certificate=route.source.certificate.struct_hash,
        asset=proposal.asset,
        token=route.asset.contract.text if route.asset.contract is not None else ZERO_ADDRESS,
        decimals=route.asset.decimals,
        amount=proposal.amount,
        account=proposal.account,
        destination=proposal.destination,
        destination_kind=route.kind.value,
        enrolment=route.enrolment,
        purpose=proposal.purpose,
        maximum_fee=0 if route.asset.chain.is_evm else kernel.maximum_fee[route.asset.chain],
        initiator=initiator.id,
        policy=kernel.policies.newest.hash,
        roster=kernel.roster.version.version,
        not_before=now,
        expiry=proposal.expiry,
    )
    facts = gather(work, kernel, route, intent, initiator, prices, now)
    decision = _decided(kernel, intent, facts)
    entry = holds.hold(Hold(proposal, signed.signatures, intent), kernel.assets)
    standing = {} if entry is None else {key: work.journal.balance(*key) for key in entry.changes()}
    short = () if entry is None else tuple(check_balances(entry, standing))
    frozen = _frozen(work, kernel, intent, now)
    return Draft(intent, route, initiator, usd_of(route, intent, prices), facts, decision, entry, short, frozen)


def _frozen(work: UnitOfWork, kernel: Kernel, intent: TransferIntent, now: int) -> tuple[Refusal, ...]:
    return (*check_frozen(kernel, intent, now), *check_reversed(work, kernel, intent, now))


def _as_it_stands(work: UnitOfWork, kernel: Kernel, prepared: Prepared, now: int) -> Draft:
    """A draft that was made from a snapshot, in the transaction that records it: one writer at a time, so that nobody is unseen.

    Everything that policy counts and whatever stops an account is read again: a thousand proposals of one snapshot would each find
    the windows empty. What a route rests on only grows (customers, enrolments) or came with the kernel; balances are checked where
    they move (`append`).
    """
    draft = prepared.draft
    facts = gather(work, kernel, draft.route, draft.intent, draft.initiator, prepared.prices, now)
    frozen = _frozen(work, kernel, draft.intent, now)
    if (facts, frozen) == (draft.facts, draft.frozen):
        return draft
    decision = draft.decision if facts == draft.facts else _decided(kernel, draft.intent, facts)
    return replace(draft, facts=facts, frozen=frozen, decision=decision)


def _check_text(field: str, text: str) -> None:
    """What people will read beside an amount holds nothing that a terminal acts on and no eye can see."""
    if not 1 <= len(text) <= TEXT_MOST or not text.isprintable():
        got = words.clean(text[:80]) if len(text) <= TEXT_MOST else f"{len(text)} characters"
        raise Refused([Refusal(Rule.MALFORMED, field=field, got=got, want=f"1 to {TEXT_MOST} printable characters")])


def _decided(kernel: Kernel, intent: TransferIntent, facts: Facts) -> Decision:
    try:
        return decide(kernel, intent, facts)
    except InvalidInput as error:
        raise Refused([refusal_of(error)]) from error


def _record(work: UnitOfWork, prepared: Prepared, draft: Draft, now: int) -> Transfer:
    live, intent = draft.decision.outcome is not Outcome.DENY, draft.intent
    position: int | None = None
    if live:
        raise_if(draft.short)
        position = None if draft.entry is None else work.journal.append(draft.entry, now).position
    submitted = Transfer(
        prepared.digest, prepared.signed, intent, draft.usd, now, hold=position, live=live, moved_at=now
    )
    placed = _placed(submitted, draft, now)
    work.transfers.add(placed, draft.initiator.id, prepared.key, intent.proposal, submitted)
    return placed


def _placed(transfer: Transfer, draft: Draft, now: int) -> Transfer:
    """Where policy's answer, or a freeze in force, puts a new transfer. People may say yes to a frozen one; `authorize` looks again."""
    decision, record = draft.decision, DecisionRecord(draft.decision, draft.facts, now, What.PROPOSED)
    if decision.requirement is None:
        why = "; ".join(str(refusal) for refusal in decision.refusals())
        return move(transfer, Status.BLOCKED, now, SubStatus.BLOCKED_BY_POLICY, why, record)
    if draft.frozen:
        return move(transfer, Status.BLOCKED, now, SubStatus.FROZEN, waits_for(draft.frozen), record)
    if decision.outcome is Outcome.AUTOMATIC:
        return move(transfer, Status.QUEUED, now, waiting_for=_SIGNATURES, decision=record)
    return move(transfer, Status.PENDING_AUTHORIZATION, now, waiting_for=str(decision.requirement), decision=record)


def enrol(store: Store, kernel: Kernel, signed: Signed[Enrolment], now: int) -> None:
    """Record an enrolment that an address authority signed; its age begins with its first sight. Raises Refused: `check_new`."""

    def work(work: UnitOfWork) -> None:
        raise_if(check_new(work, kernel, signed, now))
        work.enrolments.add(signed, now)

    store.run(work)


def approve(store: Store, kernel: Kernel, approval: Approval, now: int) -> Transfer:
    """Append one person's verified yes, and say who is still missing. The same approval again changes nothing.

    Raises Refused: unknown_transfer, everything of `check_approval`, one_signer_twice, expired, a_signature_was_asked_for,
    status_move_not_allowed (it ended, or policy denied it).
    """

    def work(work: UnitOfWork) -> Transfer:
        transfer = _open(work, approval.intent)
        if approval in work.transfers.approvals(transfer.digest):
            return transfer
        if not transfer.live:  # nobody can approve what policy denied; a new proposal asks it again
            raise Refused([Refusal(Rule.ILLEGAL_MOVE, intent=transfer.digest.hex(), was=transfer.status.value)])
        if (
            transfer.status is not Status.PENDING_SIGNATURE
        ):  # a seat whose automatic counter is full falls back to people
            _check_unasked(transfer, now)
        pinned = kernel.roster_of(transfer.intent.roster)
        if pinned is None:
            raise Refused([Refusal(Rule.ROSTER_OLDER, pinned=transfer.intent.roster)])
        digest = kernel.roster.domain.digest(transfer.intent)  # from the fields, whatever the row says
        refusal = check_approval(approval, transfer.intent, digest, pinned, kernel.roster, now)
        raise_if([] if refusal is None else [refusal])
        work.transfers.approve(approval, now)
        found = count(work.transfers.approvals(digest), transfer.intent, digest, pinned, kernel.roster, now)
        requirement = requirement_of(transfer.decision)
        if transfer.status is not Status.PENDING_AUTHORIZATION or requirement is None:
            return transfer
        missing = [*satisfied(requirement, found.approvers, transfer.intent.initiator)]
        if missing:
            after = move(transfer, Status.PENDING_AUTHORIZATION, now, waiting_for=people_missing(missing))
        elif (until := transfer.created_at + requirement.delay) > now:
            told = f"the time-lock, until {words.at(until)}"
            after = move(transfer, Status.QUEUED, now, SubStatus.PENDING_TIME_LOCK, told)
        else:
            after = move(transfer, Status.QUEUED, now, waiting_for=_SIGNATURES)
        work.transfers.update(after, transfer, f"{approval.person} approved")
        return after

    return store.run(work)


def requirement_of(decision: Mapping[str, Any] | None) -> Requirement | None:
    """The requirement of a decision as it was recorded; for showing and placing a transfer only. None where nobody is asked."""
    asked = None if decision is None else decision.get("requirement")
    if not isinstance(asked, Mapping):
        return None
    return Requirement.from_json(asked)


def reject(store: Store, kernel: Kernel, signed: Signed[Rejection], now: int) -> Transfer:
    """One person's no ends a transfer for which no signature was asked yet, and frees its hold. Raises Refused."""
    return _refuse(store, kernel, signed, now, cancels=False)


def cancel(store: Store, kernel: Kernel, signed: Signed[Rejection], now: int) -> Transfer:
    """The initiator's own no: as `reject`, and no other may say it."""
    return _refuse(store, kernel, signed, now, cancels=True)


def _refuse(store: Store, kernel: Kernel, signed: Signed[Rejection], now: int, *, cancels: bool) -> Transfer:
    to = (Status.CANCELLED, SubStatus.CANCELLED_BY_USER) if cancels else (Status.REJECTED, SubStatus.REJECTED_BY_USER)

    _check_text("reason", signed.message.reason)

    def work(work: UnitOfWork) -> Transfer:
        transfer = _open(work, signed.message.intent)
        digest = kernel.roster.domain.digest(transfer.intent)
        if digest != signed.message.intent:
            raise Refused([Refusal(Rule.WRONG_DIGEST, got=signed.message.intent.hex(), want=digest.hex())])
        who = who_rejects(signed, transfer.intent, kernel.roster, now)
        if who is None:
            raise Refused([Refusal(Rule.SIGNER_UNKNOWN, document="Rejection", want="a person of the newest roster")])
        if (who == transfer.intent.initiator) != cancels:
            want = "the initiator" if cancels else "somebody else; the initiator cancels"
            raise Refused([Refusal(Rule.SIGNER_UNKNOWN, document="Rejection", signer=who, want=want)])
        if transfer.status is to[0] and signed in work.transfers.rejections(digest):
            return transfer
        _check_unasked(transfer, now, expired=True)
        work.transfers.reject(who, signed, now)
        after = move(transfer, to[0], now, to[1])
        _release(work, kernel, transfer, now, signed)
        work.transfers.update(after, transfer, f"{who}: {signed.message.reason}")
        return after

    return store.run(work)


def expire(store: Store, kernel: Kernel, now: int, most: int = 100) -> Sequence[Transfer]:
    """End what is past its expiry and was never asked to be signed, each in a transaction of its own, and free the holds.

    One that cannot be ended (a damaged row, or one that stands as if it had no permit) keeps no other from its end: why is raised
    after all of them.
    """
    ended: list[Transfer] = []
    faults: list[Refused | InvalidInput] = []
    for digest in store.read(lambda work: work.transfers.expiring(now, most)):
        try:
            after = store.run(partial(_expire, kernel=kernel, digest=digest, now=now))
        except (Refused, InvalidInput) as error:
            faults.append(error)
        else:
            ended += [] if after is None else [after]
    if faults:
        raise faults[0]
    return ended


def _expire(work: UnitOfWork, kernel: Kernel, digest: bytes, now: int) -> Transfer | None:
    transfer = work.transfers.get(digest)
    if transfer is None or transfer.status.is_final or transfer.status.is_asked or transfer.intent.expiry > now:
        return None
    after = move(transfer, Status.EXPIRED, now)
    _release(work, kernel, transfer, now, None)
    work.transfers.update(after, transfer, f"expired at {transfer.intent.expiry}")
    return after


def _release(work: UnitOfWork, kernel: Kernel, transfer: Transfer, now: int, no: Signed[Rejection] | None) -> None:
    """Free what it holds; never beside a permit, whatever its row says.

    Whoever writes the database could set the status back, and let the customer cancel what seats are signing: it would be paid, and
    be theirs to withdraw once more.
    """
    if work.transfers.permit_of(transfer.digest) is not None:
        told = {"was": transfer.status.value, "why": "it has its permit"}
        raise Refused([Refusal(Rule.SIGNATURE_ASKED, intent=transfer.digest.hex(), **told)])
    if transfer.hold is None:
        return
    rejection, signatures = ((), ()) if no is None else ((no.message,), no.signatures)
    origin = Release(transfer.hold, transfer.digest, rejection, signatures)
    entry = holds.release(origin, transfer.intent, kernel.assets)
    if entry is not None:
        work.journal.append(entry, now)


def _open(work: UnitOfWork, digest: bytes) -> Transfer:
    transfer = work.transfers.get(digest)
    if transfer is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, intent=digest.hex())])
    return transfer


def _check_unasked(transfer: Transfer, now: int, *, expired: bool = False) -> None:
    """Refuse what comes too late: after the end, after the permit, after the expiry (which alone ends nothing)."""
    if transfer.status.is_final:
        raise Refused([Refusal(Rule.ILLEGAL_MOVE, intent=transfer.digest.hex(), was=transfer.status.value)])
    if transfer.status.is_asked:
        raise Refused([Refusal(Rule.SIGNATURE_ASKED, intent=transfer.digest.hex(), was=transfer.status.value)])
    if not expired and now >= transfer.intent.expiry:
        raise Refused([Refusal(Rule.EXPIRED, document="TransferIntent", expired=transfer.intent.expiry, now=now)])
