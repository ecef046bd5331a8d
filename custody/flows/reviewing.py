# SPDX-License-Identifier: AGPL-3.0-or-later
"""A transfer in plain words, for the person who approves it: everything is worked out again from the signed fields (law 4).

Nothing that a row says beside the documents is shown as true: the digest, the tiers, who proposed it and what policy asks are
recomputed by whoever runs this, from a roster, certificates and a bundle that it verified itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from custody.flows.facts import decide, gather
from custody.flows.kernel import Kernel, ask_outside
from custody.flows.ports import Store, UnitOfWork
from custody.flows.routes import Route, find_route
from custody.rules import holds
from custody.rules.amounts import Amount
from custody.rules.approvals import Approval, count, satisfied
from custody.rules.attested import verify_signature
from custody.rules.coverage import surplus
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.hold_origins import check_binding, proposer_of
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Decision, Outcome
from custody.rules.roster import ApiClient
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Transfer
from custody.rules.wallets import Address, Chain
from custody.rules.walls import CUSTOMER


@dataclass(frozen=True)
class Review:
    """One transfer as worked out again. `against` is every reason not to approve it that a person cannot see by reading."""

    transfer: Transfer
    digest: bytes
    route: Route | None
    decision: Decision | None
    approvals: tuple[Approval, ...]
    statement: Signed[Statement] | None
    against: tuple[Refusal, ...]


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
    against = [*check_binding(transfer.intent, transfer.proposal.message)]
    if digest != transfer.digest:
        against.append(Refusal(Rule.WRONG_DIGEST, got=transfer.digest.hex(), want=digest.hex()))
    initiator = proposer_of(transfer.proposal, kernel.roster, now)
    if initiator is None or initiator.id != transfer.intent.initiator:
        against.append(Refusal(Rule.SIGNER_UNKNOWN, document="Proposal", want=transfer.intent.initiator))
    if statement is not None and (faults := verify_signature(statement, kernel.roster)):
        against += faults
        statement = None

    def read(work: UnitOfWork) -> Review:
        route, decision, more = _judged(work, kernel, transfer, now)
        found = tuple(work.transfers.approvals(transfer.digest))
        return Review(transfer, digest, route, decision, found, statement, (*against, *more))

    return store.read(read)


def _judged(
    work: UnitOfWork, kernel: Kernel, transfer: Transfer, now: int
) -> tuple[Route | None, Decision | None, tuple[Refusal, ...]]:
    intent = transfer.intent
    try:
        route = find_route(work, kernel, transfer.proposal.message, now, intent.enrolment)
    except Refused as error:
        return None, None, error.refusals
    if intent.wallet != route.source.name:
        return route, None, (Refusal(Rule.WRONG_WALLET, got=intent.wallet.hex(), want=route.source.name.hex()),)
    initiator = proposer_of(transfer.proposal, kernel.roster, now)
    if initiator is None:
        return route, None, ()
    try:
        outside = ask_outside(kernel, intent.account, Address(Chain(intent.chain), intent.destination), now)
        facts = gather(work, kernel, route, intent, initiator, outside, now, transfer.digest)
        decision = decide(kernel, route, intent, facts)
    except Unavailable:
        return route, None, ()  # said as unknown; whoever signs decides again
    except (Refused, InvalidInput) as error:
        return route, None, error.refusals if isinstance(error, Refused) else (refusal_of(error),)
    return route, decision, tuple(decision.refusals())


def words(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    """What a person reads before approving: what moves, from which tier to which, who asked, who has to agree, coverage."""
    intent, transfer = seen.transfer.intent, seen.transfer
    yield f"transfer      {intent.id}   {transfer.status.value}"
    yield f"moves         {_amount(kernel, intent.asset, intent.amount)}"
    yield from _places(kernel, seen)
    yield f"debits        {intent.account}"
    yield f"purpose       {intent.purpose}"
    native = holds.native_of(intent.chain, kernel.assets).symbol
    yield (
        f"network fee   at most {_amount(kernel, native, intent.maximum_fee)}"
        if intent.maximum_fee
        else ("network fee   paid by the relayer")
    )
    yield from _initiator(kernel, seen, now)
    yield f"valid         from {intent.not_before} until {intent.expiry}; now {now}"
    yield from _asked(kernel, seen, now)
    yield from _coverage(kernel, seen)
    for refusal in seen.against:
        yield f"WARNING       {refusal}"
    yield f"digest        0x{seen.digest.hex()}   (recomputed from the fields above)"


def _amount(kernel: Kernel, symbol: str, units: int) -> str:
    asset = kernel.assets.get(symbol)
    return f"{Amount(asset, units).decimal} {symbol}   ({units} base units)"


def _places(kernel: Kernel, seen: Review) -> Iterator[str]:
    intent, route = seen.transfer.intent, seen.route
    source = kernel.inventory.wallets.get(intent.wallet)
    yield f"from          {source.tier.value if source else 'AN UNKNOWN WALLET'} on {intent.chain}   {source.place if source else ''}"
    if route is not None and route.to is not None:
        yield f"to            {route.to.tier.value}, a wallet of ours   {intent.destination}"
    elif route is not None and route.enrolled is not None:
        message = route.enrolled.enrolment.message
        yield f"to            outside: {message.kind} of {message.owner}, enrolled at {route.enrolled.seen_at}   {intent.destination}"
    else:
        yield f"to            NOT A WAY THAT IS KNOWN   {intent.destination}"


def _initiator(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    found, proposal = proposer_of(seen.transfer.proposal, kernel.roster, now), seen.transfer.proposal.message
    if found is None:
        yield "proposed by   NOBODY WHO MAY"
        return
    role = found.role if isinstance(found, ApiClient) else ", ".join(found.groups)
    yield f"proposed by   {found.id} ({role}), reference {proposal.reference!r}; the initiator's approval never counts"


def _asked(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    decision, transfer = seen.decision, seen.transfer
    if decision is None:
        yield "policy        cannot be evaluated now"
        return
    rules = ", ".join(decision.matched) or "no rule"
    if decision.requirement is None:
        yield f"policy        DENIES: {', '.join(decision.denied_by) or 'nothing permits it'}"
        return
    if decision.outcome is Outcome.AUTOMATIC:
        yield f"policy        lets it go by itself ({rules}), inside each seat's own caps; beyond them: {decision.requirement}"
    else:
        yield f"policy        asks for {decision.requirement}   ({rules})"
    pinned = kernel.roster_of(transfer.intent.roster)
    if pinned is None:
        return
    counted = count(seen.approvals, transfer.intent, seen.digest, pinned, kernel.roster, now)
    yield f"approved by   {', '.join(sorted(a.person for a in counted.approvers)) or 'nobody yet'}"
    for refusal in counted.ignored:
        yield f"  not counted {refusal}"
    for refusal in satisfied(decision.requirement, counted.approvers, transfer.intent.initiator):
        yield f"  missing     {refusal.operands.get('missing') or refusal}"


def _coverage(kernel: Kernel, seen: Review) -> Iterator[str]:
    """Surplus of each asset that it touches before and after, by the attestor's newest statement (law 2)."""
    intent, route = seen.transfer.intent, seen.route
    if seen.statement is None:
        yield "coverage      UNKNOWN: the attestor is silent; nothing will be signed until it speaks"
        return
    leaves = route is not None and route.source.tier.is_customer and (route.to is None or not route.to.tier.is_customer)
    own = intent.account.startswith(CUSTOMER)
    out = {intent.asset: intent.amount} if leaves else {}
    native = holds.native_of(intent.chain, kernel.assets).symbol
    out[native] = out.get(native, 0) + (intent.maximum_fee if leaves else 0)
    for symbol in sorted({intent.asset, native}):
        rows = [row for row in seen.statement.message.coverage if row.asset == symbol]
        if len(rows) != 1:
            yield f"coverage      UNKNOWN for {symbol}"
            continue
        before, asset = surplus(rows[0]), kernel.assets.get(symbol)
        after = before - (0 if own else out.get(symbol, 0))
        told = [f"{'-' if units < 0 else ''}{Amount(asset, abs(units)).decimal}" for units in (before, after)]
        reserves = rows[0].reserves
        yield (
            f"coverage      {symbol}: surplus {told[0]} before, {told[1]} after; reserves "
            f"{Amount(asset, reserves).decimal} before, {Amount(asset, max(0, reserves - out.get(symbol, 0))).decimal} after"
            f"   (statement {seen.statement.message.sequence})"
        )
