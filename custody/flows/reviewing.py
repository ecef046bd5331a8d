# SPDX-License-Identifier: AGPL-3.0-or-later
"""A transfer worked out again for the person who approves it, from the signed fields and nothing beside them (law 4).

Nothing that a row says beside the documents is believed: the digest, the tiers, who proposed it and what policy asks are recomputed
by whoever runs this, from a roster, certificates and a bundle that it verified itself. `review_words` tells it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from custody.flows.facts import decide, gather
from custody.flows.kernel import Kernel, check_fee
from custody.flows.ports import Moved, Store, UnitOfWork
from custody.flows.routes import Route, find_route
from custody.rules.approvals import Approval
from custody.rules.attested import verify_signature
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.facts import Facts
from custody.rules.hold_origins import check_binding, proposer_of
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Decision
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Status, Transfer


@dataclass(frozen=True)
class Review:
    """One transfer as worked out again. `digest` is of its fields; `facts` are what policy was told of it now, None where unknown.

    `against` is every reason not to approve it that a person cannot see by reading; `late` why no approval is taken any more.
    """

    transfer: Transfer
    digest: bytes
    route: Route | None
    facts: Facts | None
    decision: Decision | None
    approvals: tuple[Approval, ...]
    history: tuple[Moved, ...]
    statement: Signed[Statement] | None
    against: tuple[Refusal, ...]
    late: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class _Judged:
    """What policy would say now; `against` where the way itself is none."""

    route: Route | None = None
    facts: Facts | None = None
    decision: Decision | None = None
    against: tuple[Refusal, ...] = ()


def find(store: Store, named: str) -> Transfer:
    """A transfer by its id or by its digest in hex. Raises Refused(unknown_transfer)."""
    text = named.removeprefix("0x")
    digest = bytes.fromhex(text) if len(text) == 64 and not set(text) - set("0123456789abcdef") else b""
    found = store.read(lambda work: work.transfers.get(digest) if digest else work.transfers.find(named))
    if found is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, transfer=named)])
    return found


def review(store: Store, kernel: Kernel, transfer: Transfer, statement: Signed[Statement] | None, now: int) -> Review:
    """Work everything out again. `statement` is the attestor's newest word, None where it is silent."""
    digest = kernel.roster.domain.digest(transfer.intent)
    against = [*check_binding(transfer.intent, transfer.proposal.message), *check_fee(kernel, transfer.intent)]
    if digest != transfer.digest:
        against.append(Refusal(Rule.WRONG_DIGEST, got=transfer.digest.hex(), want=digest.hex()))
    initiator = proposer_of(transfer.proposal, kernel.roster, now)
    if initiator is None or initiator.id != transfer.intent.initiator:
        against.append(Refusal(Rule.SIGNER_UNKNOWN, document="Proposal", want=transfer.intent.initiator))
    if statement is not None and (faults := verify_signature(statement, kernel.roster)):
        against += faults
        statement = None

    def read(work: UnitOfWork) -> Review:
        judged = _Judged() if transfer.status.is_final else _judged(work, kernel, transfer, now)
        return Review(
            transfer,
            digest,
            judged.route,
            judged.facts,
            judged.decision,
            tuple(work.transfers.approvals(transfer.digest)),
            tuple(work.transfers.history(transfer.digest)),
            statement,
            (*against, *judged.against),
            tuple(_late(transfer, now)),
        )

    return store.read(read)


def _late(transfer: Transfer, now: int) -> Iterator[Refusal]:
    """Why it takes no approval: it ended, policy denied it when it was proposed, it expired, or its signatures are made."""
    told = {"intent": transfer.digest.hex(), "was": transfer.status.value}
    if transfer.status.is_final or not transfer.live:
        yield Refusal(Rule.ILLEGAL_MOVE, **told)
    elif transfer.status.is_asked and transfer.status is not Status.PENDING_SIGNATURE:
        yield Refusal(Rule.SIGNATURE_ASKED, **told)
    elif now >= transfer.intent.expiry and transfer.status is not Status.PENDING_SIGNATURE:
        yield Refusal(Rule.EXPIRED, document="TransferIntent", expired=transfer.intent.expiry, now=now)


def _judged(work: UnitOfWork, kernel: Kernel, transfer: Transfer, now: int) -> _Judged:
    intent = transfer.intent
    try:
        route = find_route(work, kernel, transfer.proposal.message, now, intent.enrolment)
    except Refused as error:
        return _Judged(against=error.refusals)
    if intent.wallet != route.source.name:
        refusal = Refusal(Rule.WRONG_WALLET, got=intent.wallet.hex(), want=route.source.name.hex())
        return _Judged(route, against=(refusal,))
    initiator = proposer_of(transfer.proposal, kernel.roster, now)
    if initiator is None:
        return _Judged(route)
    try:
        facts = gather(work, kernel, route, intent, initiator, kernel.prices.fresh(now), now, transfer.digest)
        decision = decide(kernel, intent, facts)
    except Unavailable:
        return _Judged(route)  # said as unknown; whoever signs decides again
    except (Refused, InvalidInput) as error:
        return _Judged(route, against=error.refusals if isinstance(error, Refused) else (refusal_of(error),))
    return _Judged(route, facts, decision, tuple(decision.refusals()))
