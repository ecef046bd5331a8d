# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 4: authorize -> SigningPermit (DESIGN.md). Everything is verified afresh under the store's write transaction.

No row is believed: signatures, digests and postings are recomputed from the documents. Either every reason against is recorded, or
one permit that pins an anchor, and only then may a first signature be asked for (law 5). Seats decide again, by themselves.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from custody.flows.consolidating import with_small_coins
from custody.flows.facts import decide, gather
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel, check_fee, check_frozen
from custody.flows.ports import Anchors, Prices, Store, UnitOfWork
from custody.flows.reversals import check_reversed
from custody.flows.routes import Route, find_route
from custody.rules import holds, seat_request
from custody.rules.approvals import Counted, count, satisfied
from custody.rules.attested import verify_signature
from custody.rules.coverage import Outflow, check, check_fresh
from custody.rules.decisions import DECISION, DecisionRecord, record_after
from custody.rules.errors import InvalidInput
from custody.rules.hold_origins import check_binding, proposer_of
from custody.rules.intents import TransferIntent
from custody.rules.origins import Hold
from custody.rules.payments import Payment
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.requirement import Decision, Outcome
from custody.rules.roster import ApiClient, Person, Roster
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Permit, Status, SubStatus, Transfer, move
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.waiting import waits_for
from custody.rules.wallets import Address, Chain
from custody.rules.walls import CUSTOMER

AHEAD_MOST: Final = 30
"""Seconds that the attestor's clock may be ahead of ours."""
_BATCH: Final = 500
_ASKED: Final = tuple(status for status in Status if status.is_asked)


@dataclass(frozen=True, slots=True)
class SigningPermit:
    """Leave to ask seats for signatures over one payout. Only `authorize` makes one, after it was recorded.

    `material` is what each seat is handed for every intent, `payments` what is to be built; both in the order of the permit.
    """

    permit: Permit
    wallet: Wallet
    transfers: tuple[Transfer, ...]
    material: tuple[seat_request.Transfer, ...]
    payments: tuple[Payment, ...]


@dataclass(frozen=True, slots=True)
class Withheld:
    """No permit: every reason, by the intent's digest. They are recorded with the transfers, which wait for what they name."""

    refusals: Mapping[bytes, tuple[Refusal, ...]]


@dataclass(frozen=True, slots=True)
class _Judged:
    """One transfer under judgement. Where `refusals` is empty, `route` and `payment` are there."""

    transfer: Transfer
    refusals: tuple[Refusal, ...]
    decision: Decision | None = None
    route: Route | None = None
    material: seat_request.Transfer | None = None
    record: DecisionRecord | None = None
    """What `decision` was made from."""


@dataclass(frozen=True)
class _Ground:
    """What one judgement rests on."""

    work: UnitOfWork
    kernel: Kernel
    statement: Signed[Statement]
    prices: Prices
    now: int


def authorize(
    store: Store, kernel: Kernel, digests: Sequence[bytes], statement: Signed[Statement], anchors: Anchors, now: int
) -> SigningPermit | Withheld:
    """One permit for these intents, which one wallet pays together, or every reason why not.

    The same intents again get the permit that was recorded, whatever has changed since: it is the seats' to refuse then. Raises
    Refused (unknown_transfer, intents of two wallets or already carried by two payouts, an anchor that another one took
    meanwhile: try again), Unavailable.
    """
    if not digests or len(set(digests)) != len(digests) or len(digests) > _BATCH:
        raise Refused([Refusal(Rule.MALFORMED, field="intents", got=len(digests), want=f"1 to {_BATCH}, each once")])
    first = store.read(lambda work: _standing(work, kernel, digests, now))
    if isinstance(first, SigningPermit):
        return first
    prices = kernel.prices.fresh(now)

    def judge(work: UnitOfWork) -> tuple[_Judged, ...]:
        return tuple(_judge_all(_Ground(work, kernel, statement, prices, now), digests))

    tried = store.read(judge)
    if any(judged.refusals for judged in tried):
        return store.run(lambda work: _withhold(work, judge(work), now) or _again())
    wallet, payments = _wallet(tried), tuple(_payment(judged) for judged in tried)
    taken = store.read(lambda work: work.transfers.taken(wallet.chain.name, wallet.name))

    def credited(outpoints: Collection[str]) -> Collection[str]:
        return store.read(lambda work: work.deposits.credited(wallet.chain, outpoints))

    reservation = anchors.next_anchor(wallet.name, wallet.certificate, payments, taken, credited)
    intents = [judged.transfer.intent for judged in tried]
    reservation = with_small_coins(kernel, anchors, wallet, intents, payments, reservation, taken, credited)
    permit = Permit(reservation, tuple(digests), statement.message.sequence, now)
    _check_reservation(permit, wallet)

    def record(work: UnitOfWork) -> SigningPermit | Withheld:
        if isinstance(again := _standing(work, kernel, digests, now), SigningPermit):
            return again
        judged = judge(work)
        if (withheld := _withhold(work, judged, now)) is not None:
            return withheld
        work.transfers.permit(permit)
        for each in judged:
            asked = move(
                each.transfer, Status.PENDING_SIGNATURE, now, None, "signatures of the seats", _kept(work, each)
            )
            work.transfers.update(asked, each.transfer, f"permit for {reservation.anchor.reference}")
        return _mint(work, permit, judged)

    return store.run(record)


def _kept(work: UnitOfWork, judged: _Judged) -> DecisionRecord | None:
    """The new answer's record; the one before it, whose place it takes in the transfer's row, is kept beside."""
    before = judged.transfer.decision
    if judged.record is not None and before is not None and "record" in before:
        digest = judged.transfer.digest.hex()  # two transfers may have been answered alike in the same second
        work.documents.put(DECISION, f"{digest}/{before['record']}", {"transfer": digest, "decision": before})
    return judged.record


def _again() -> Withheld:
    """What was refused a moment ago no longer is: nothing was recorded, and the caller asks again."""
    return Withheld({})


def _standing(
    work: UnitOfWork, kernel: Kernel, digests: Sequence[bytes], now: int
) -> SigningPermit | tuple[Transfer, ...]:
    """The permit that carries exactly these intents, or the transfers where none carries any of them. Raises Refused."""
    found = [work.transfers.get(digest) for digest in digests]
    raise_if(
        Refusal(Rule.UNKNOWN_TRANSFER, intent=digest.hex())
        for digest, transfer in zip(digests, found, strict=True)
        if transfer is None
    )
    transfers = tuple(transfer for transfer in found if transfer is not None)
    carried = {digest: permit for digest in digests if (permit := work.transfers.permit_of(digest)) is not None}
    if not carried:
        return transfers
    permit = next(iter(carried.values()))
    if set(permit.intents) != set(digests) or len(carried) != len(digests):
        raise Refused(
            Refusal(Rule.INTENT_BOUND, intent=digest.hex(), bound_to=permit.reservation.anchor.reference)
            for digest, permit in carried.items()
        )
    judged = tuple(_known(work, kernel, transfer, now) for transfer in transfers)
    return _mint(work, permit, tuple(sorted(judged, key=lambda j: permit.intents.index(j.transfer.digest))))


def _known(work: UnitOfWork, kernel: Kernel, transfer: Transfer, now: int) -> _Judged:
    """A transfer that has its permit: read again for the seats, who judge it."""
    route = find_route(work, kernel, transfer.proposal.message, now, transfer.intent.enrolment)
    return _Judged(transfer, (), None, route, _material(work, transfer, route))


def _mint(work: UnitOfWork, permit: Permit, judged: Sequence[_Judged]) -> SigningPermit:
    recorded = work.transfers.permit_of(permit.intents[0])
    if recorded != permit:  # a permit that is not recorded is none (law 5)
        raise Refused([Refusal(Rule.INTENT_BOUND, intent=permit.intents[0].hex(), want="the permit that was recorded")])
    material = tuple(each.material for each in judged if each.material is not None)
    standing = [work.transfers.get(digest) for digest in permit.intents]
    transfers = tuple(transfer for transfer in standing if transfer is not None)
    return SigningPermit(permit, _wallet(judged), transfers, material, tuple(_payment(each) for each in judged))


def _wallet(judged: Sequence[_Judged]) -> Wallet:
    """The one wallet that pays. Raises Refused(wrong_wallet) for two: an anchor belongs to one."""
    wallets = {each.route.source.name: each.route.source for each in judged if each.route is not None}
    if len(wallets) != 1:
        raise Refused([Refusal(Rule.WRONG_WALLET, wallets=[name.hex() for name in wallets], want="one wallet")])
    return next(iter(wallets.values()))


def _payment(judged: _Judged) -> Payment:
    intent, route = judged.transfer.intent, judged.route
    if route is None:
        raise Refused(judged.refusals)
    return Payment(
        judged.transfer.digest, intent.asset, intent.amount, route.destination, intent.maximum_fee, route.derived
    )


def _check_reservation(permit: Permit, wallet: Wallet) -> None:
    anchor = permit.reservation.anchor
    if (anchor.chain, anchor.wallet) != (wallet.chain.name, wallet.name):
        raise Refused([Refusal(Rule.WRONG_WALLET, got=anchor.wallet.hex(), want=wallet.name.hex())])


def _withhold(work: UnitOfWork, judged: Sequence[_Judged], now: int) -> Withheld | None:
    """Record every reason with its transfer; None where there is none."""
    refused = {each.transfer.digest: each.refusals for each in judged if each.refusals}
    for each in judged:
        transfer = each.transfer
        if not each.refusals or not transfer.live or transfer.status.is_final or transfer.status.is_asked:
            continue
        status, sub_status = _place(each.refusals)
        why = waits_for(each.refusals)
        if (status, sub_status, why) != (transfer.status, transfer.sub_status, transfer.waiting_for):
            work.transfers.update(move(transfer, status, now, sub_status, why, _kept(work, each)), transfer)
    return Withheld(refused) if refused else None


_WAITS: Final[Mapping[Rule, tuple[Status, SubStatus | None]]] = {
    Rule.FROZEN: (Status.BLOCKED, SubStatus.FROZEN),
    Rule.DEPOSIT_REVERSED: (Status.BLOCKED, SubStatus.FROZEN),
    Rule.COVERAGE: (Status.BLOCKED, SubStatus.BLOCKED_BY_COVERAGE),
    Rule.COVERAGE_UNKNOWN: (Status.BLOCKED, SubStatus.BLOCKED_BY_COVERAGE),
    Rule.STALE: (Status.BLOCKED, SubStatus.BLOCKED_BY_COVERAGE),
    Rule.SEQUENCE: (Status.BLOCKED, SubStatus.BLOCKED_BY_COVERAGE),
    Rule.QUORUM_NOT_REACHED: (Status.PENDING_AUTHORIZATION, None),
    Rule.DISPLAYING_MISSING: (Status.PENDING_AUTHORIZATION, None),
    Rule.INITIATOR_APPROVES: (Status.PENDING_AUTHORIZATION, None),
    Rule.SIGNER_TWICE: (Status.PENDING_AUTHORIZATION, None),
    Rule.DELAY: (Status.QUEUED, SubStatus.PENDING_TIME_LOCK),
    Rule.INSUFFICIENT_BALANCE: (Status.QUEUED, None),
    Rule.TOO_EARLY: (Status.QUEUED, SubStatus.PENDING_TIME_LOCK),
}
_GRAVEST: Final = (SubStatus.FROZEN, SubStatus.BLOCKED_BY_POLICY, SubStatus.BLOCKED_BY_COVERAGE)


def _place(refusals: Sequence[Refusal]) -> tuple[Status, SubStatus | None]:
    """Where these reasons leave a transfer: blocked by the gravest, else with people, else in the queue."""
    counted = [refusal for refusal in refusals if "person" not in refusal.operands]  # a stray approval hinders nobody
    found = [_WAITS.get(refusal.rule, (Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY)) for refusal in counted]
    for sub_status in _GRAVEST:
        if (Status.BLOCKED, sub_status) in found:
            return Status.BLOCKED, sub_status
    people = [place for place in found if place[0] is Status.PENDING_AUTHORIZATION]
    return (people or sorted(found, key=lambda place: place[1] is None))[0]


# judging


def _judge_all(ground: _Ground, digests: Sequence[bytes]) -> Iterator[_Judged]:
    """Each transfer by itself, and then what they take together."""
    judged = [_judge(ground, digest) for digest in digests]
    shared = {each.transfer.digest: (*each.refusals,) for each in judged}
    for check_together in (_check_coverage, _check_coins):
        for digest, refusals in check_together(ground, judged).items():
            shared[digest] += refusals
    for each in judged:
        yield replace(each, refusals=shared[each.transfer.digest])


def _judge(ground: _Ground, digest: bytes) -> _Judged:
    transfer = ground.work.transfers.get(digest)
    if transfer is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, intent=digest.hex())])
    kernel, intent = ground.kernel, transfer.intent
    computed = kernel.roster.domain.digest(intent)
    found = [*_check_open(transfer, computed, ground.now), *check_binding(intent, transfer.proposal.message)]
    pinned = kernel.roster_of(intent.roster)
    if pinned is None:
        found.append(Refusal(Rule.ROSTER_OLDER, pinned=intent.roster, newest=kernel.roster.version.version))
        return _Judged(transfer, tuple(found))
    initiator = proposer_of(transfer.proposal, kernel.roster, ground.now)
    found += _check_initiator(transfer, pinned, initiator, ground.now)
    found += check_frozen(kernel, intent, ground.now)
    found += check_reversed(ground.work, kernel, intent, ground.now)
    found += check_fee(kernel, intent)
    found += _check_hold(ground, transfer)
    try:
        route = find_route(ground.work, kernel, transfer.proposal.message, ground.now, intent.enrolment)
    except Refused as refused:
        return _Judged(transfer, (*found, *refused.refusals))
    found += _check_route(intent, route)
    if initiator is None:
        return _Judged(transfer, tuple(found), None, route)
    facts = gather(ground.work, kernel, route, intent, initiator, ground.prices, ground.now, digest)
    try:
        decision = decide(kernel, intent, facts)
    except Refused as refused:
        return _Judged(transfer, (*found, *refused.refusals), None, route)
    except InvalidInput as error:
        return _Judged(transfer, (*found, refusal_of(error)), None, route)
    approvals = ground.work.transfers.approvals(digest)
    counted = count(approvals, intent, computed, pinned, kernel.roster, ground.now)
    found += _check_decision(transfer, decision, counted, ground.now)
    record = record_after(transfer.decision, decision, facts, ground.now)
    return _Judged(transfer, tuple(found), decision, route, _material(ground.work, transfer, route), record)


def _material(work: UnitOfWork, transfer: Transfer, route: Route) -> seat_request.Transfer:
    """What a seat is handed for one intent."""
    enrolment = None if route.enrolled is None else route.enrolled.enrolment
    approvals = tuple(work.transfers.approvals(transfer.digest))
    return seat_request.Transfer(transfer.proposal, transfer.intent, approvals, enrolment)


def _check_open(transfer: Transfer, computed: bytes, now: int) -> Iterator[Refusal]:
    """Still to be decided, whole, and within its time."""
    if transfer.digest != computed:
        yield Refusal(Rule.WRONG_DIGEST, got=transfer.digest.hex(), want=computed.hex())
    if transfer.status.is_final or transfer.status.is_asked or not transfer.live:
        yield Refusal(Rule.ILLEGAL_MOVE, was=transfer.status.value, would_be=Status.PENDING_SIGNATURE.value)
    if now < transfer.intent.not_before:
        yield Refusal(Rule.TOO_EARLY, not_before=transfer.intent.not_before, now=now)
    if now >= transfer.intent.expiry:
        yield Refusal(Rule.EXPIRED, document="TransferIntent", expired=transfer.intent.expiry, now=now)


def _check_initiator(
    transfer: Transfer, pinned: Roster, initiator: Person | ApiClient | None, now: int
) -> Iterator[Refusal]:
    """The proposal's signature holds under the newest roster and under the one that the intent pins, and is the initiator's."""
    then = proposer_of(transfer.proposal, pinned, min(now, transfer.created_at))
    for found in (initiator, then):
        if found is None or found.id != transfer.intent.initiator:
            got = "nobody who may propose" if found is None else found.id
            yield Refusal(Rule.SIGNER_UNKNOWN, document="Proposal", got=got, want=transfer.intent.initiator)


def _check_hold(ground: _Ground, transfer: Transfer) -> Iterator[Refusal]:
    """The hold that the row names is the journal's entry for exactly this intent, posting by posting."""
    origin = Hold(transfer.proposal.message, transfer.proposal.signatures, transfer.intent)
    try:
        want = holds.hold(origin, ground.kernel.assets)
        at = 0 if transfer.hold is None else transfer.hold
        recorded = ground.work.journal.get(at) if at else None
    except InvalidInput as error:
        yield refusal_of(error)
        return
    if (want is None) != (transfer.hold is None) or (want is not None and (recorded is None or recorded.entry != want)):
        yield Refusal(Rule.HOLD, intent=transfer.digest.hex(), entry=transfer.hold)


def _check_route(intent: TransferIntent, route: Route) -> Iterator[Refusal]:
    """The intent still says what the wallets, the registry and the enrolment say."""
    if intent.wallet != route.source.name:
        yield Refusal(Rule.WRONG_WALLET, got=intent.wallet.hex(), want=route.source.name.hex())
    newest = route.source.certificate.struct_hash
    if intent.certificate != newest:
        yield Refusal(Rule.CERTIFICATE_OLDER, got=intent.certificate.hex(), want=newest.hex())
    token = ZERO_ADDRESS if route.asset.contract is None else route.asset.contract.text
    if (intent.decimals, intent.token) != (route.asset.decimals, token):
        yield Refusal(Rule.TOKEN_MISMATCH, asset=intent.asset, got=intent.token, want=token)
    if (intent.enrolment, intent.destination_kind) != (route.enrolment, route.kind.value):
        yield Refusal(Rule.ENROLMENT, to=intent.destination, want="the enrolment that the intent names")


def _check_decision(transfer: Transfer, decision: Decision, counted: Counted, now: int) -> Iterator[Refusal]:
    """Policy's answer, floors in it: denied, or its people and the delay since it was proposed, or nobody."""
    asked = decision.requirement
    if asked is None:
        yield from decision.refusals()
    elif decision.outcome is Outcome.REQUIRE:
        missing = [*satisfied(asked, counted.approvers, transfer.intent.initiator)]
        if missing:
            yield from (*missing, *counted.ignored)
        waited = now - transfer.created_at
        if waited < asked.delay:
            yield Refusal(Rule.DELAY, waited=waited, needed=asked.delay, until=transfer.created_at + asked.delay)


Together = Mapping[bytes, tuple[Refusal, ...]]


def _check_coverage(ground: _Ground, judged: Sequence[_Judged]) -> Together:
    """Law 2 by the newest statement: signed, fresh, of the versions in force; these and all permitted outflows together.

    Only what leaves customer tiers is bound by it: voids, rotations, operational coins and moves inside pass in a shortfall. On
    Bitcoin such a move's fee leaves them, at the company's cost: it waits where company funds there do not cover it.
    """
    bound = [each for each in judged if each.route is not None and (_leaves(each.route) or _costs(each))]
    if not bound:
        return {}
    kernel, statement = ground.kernel, ground.statement.message
    found = [*verify_signature(ground.statement, kernel.roster)]
    time = max(ground.now, min(statement.time, ground.now + AHEAD_MOST))
    found += check_fresh(statement, time, kernel.oldest, -1)
    if statement.policy != kernel.policies.newest.hash or statement.roster != kernel.roster.version.version:
        told = {"policy": statement.policy.hex(), "roster": statement.roster}
        found.append(Refusal(Rule.POLICY_OLDER, **told, want=kernel.policies.newest.hash.hex()))
    outflows = [
        outflow
        for each in bound
        if each.route is not None
        for outflow in _outflows(kernel, each.transfer.intent, leaves=_leaves(each.route))
    ]
    outflows += _permitted(ground)
    natives = {holds.native_of(each.transfer.intent.chain, kernel.assets).symbol for each in bound}
    found += check(statement.coverage, natives, outflows)
    return {each.transfer.digest: tuple(found) for each in bound} if found else {}


def _leaves(route: Route) -> bool:
    return route.source.tier.is_customer and (route.to is None or not route.to.tier.is_customer)


def _costs(judged: _Judged) -> bool:
    """Whether a transfer out of a customer tier takes a network fee from it: on Bitcoin, wherever it goes."""
    return judged.route is not None and judged.route.source.tier.is_customer and judged.transfer.intent.maximum_fee > 0


def _outflows(kernel: Kernel, intent: TransferIntent, *, leaves: bool) -> Iterator[Outflow]:
    """What an intent takes out of customer tiers, and how much of it settles its customer's own balance.

    Of a move between customers' wallets (one that does not leave them) only the fee.
    """
    own = intent.account.startswith(CUSTOMER)
    if leaves:
        yield Outflow(intent.asset, intent.amount, intent.amount if own else 0)
    if intent.maximum_fee:
        native = holds.native_of(intent.chain, kernel.assets).symbol
        yield Outflow(native, intent.maximum_fee, intent.maximum_fee if own else 0)


def _permitted(ground: _Ground) -> Iterator[Outflow]:
    """Permits that the statement may not know of yet. One that it does know counts twice, which only tightens.

    One whose row is damaged is not counted here: unattested, it never moves; attested, the statement has it in flight.
    """
    after = 0
    while page := ground.work.transfers.examine(after, statuses=_ASKED):
        for after, transfer in page:  # noqa: B007
            if not isinstance(transfer, Transfer):
                continue
            source = ground.kernel.inventory.wallets.get(transfer.intent.wallet)
            place = Address(Chain(transfer.intent.chain), transfer.intent.destination)
            to = ground.kernel.inventory.wallet_of(place)
            if source is not None and source.tier.is_customer:
                leaves = to is None or not to.tier.is_customer
                yield from _outflows(ground.kernel, transfer.intent, leaves=leaves)


def _check_coins(ground: _Ground, judged: Sequence[_Judged]) -> Together:
    """The wallet has the coins, all that was permitted taken off; otherwise these wait for a refill."""
    wanted: dict[tuple[bytes, str], list[_Judged]] = {}
    for each in judged:
        wanted.setdefault((each.transfer.intent.wallet, each.transfer.intent.asset), []).append(each)
    refused: dict[bytes, tuple[Refusal, ...]] = {}
    for (name, symbol), group in wanted.items():
        wallet = ground.kernel.inventory.wallets.get(name)
        asset = ground.kernel.assets.get(symbol)
        has = 0 if wallet is None else ground.work.journal.balance(wallet.account, asset)
        free = has - ground.work.transfers.leaving(name, symbol, {each.transfer.digest for each in group})
        units = sum(each.transfer.intent.amount for each in group)
        if units > free:
            refusal = Refusal(Rule.INSUFFICIENT_BALANCE, wallet=name.hex(), asset=symbol, balance=free, change=-units)
            refused |= {each.transfer.digest: (refusal,) for each in group}
    return refused


__all__ = ["SigningPermit", "Withheld", "authorize"]
