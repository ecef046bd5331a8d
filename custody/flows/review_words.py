# SPDX-License-Identifier: AGPL-3.0-or-later
"""A reviewed transfer as a person reads it before saying yes: nothing shortened, nothing that a terminal would act on.

What moves, who asks, who has to agree, what coverage is before and after, every field that is signed, and what a yes means.
"""

from collections.abc import Iterator
from typing import Final

from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.reviewing import Review
from custody.rules import holds, words
from custody.rules.amounts import Amount
from custody.rules.approvals import Counted, count, satisfied
from custody.rules.coverage import liabilities, surplus
from custody.rules.hold_origins import proposer_of
from custody.rules.requirement import Decision, Outcome
from custody.rules.roster import ApiClient, Roster
from custody.rules.statements import AssetCoverage
from custody.rules.waiting import people_missing
from custody.rules.walls import CUSTOMER

_CENT: Final = 10_000
"""Micro-USD."""


def tell(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    """Every line, in the order in which a person decides."""
    transfer = seen.transfer
    sub = f" ({transfer.sub_status.value})" if transfer.sub_status is not None else ""
    yield f"TRANSFER {words.clean(transfer.intent.id)}"
    yield _line("status", f"{transfer.status.value}{sub}, since {words.at(transfer.moved_at)}")
    if transfer.waiting_for:
        yield _line("waits for", transfer.waiting_for)
    yield from _section("WHAT MOVES", _moves(kernel, seen, now))
    yield from _section("WHO ASKS", _asks(kernel, seen, now))
    if not transfer.status.is_final:
        yield from _section("WHO HAS TO AGREE", _people(kernel, seen, now))
        yield from _section("COVERAGE OF CUSTOMERS (law 2)", _coverage(kernel, seen, now))
    yield from _section("WHAT IS SIGNED", _signed(seen))
    if seen.against:
        yield from _section("WARNING: this must not be approved", (f"  {words.clean(str(r))}" for r in seen.against))


def history(seen: Review) -> Iterator[str]:
    """Every status it had, with its time and reason."""
    yield ""
    yield "HISTORY"
    for moved in seen.history:
        sub = f" ({moved.sub_status.value})" if moved.sub_status is not None else ""
        yield f"  {words.at(moved.at)}  {moved.status.value}{sub}  {words.clean(moved.why)}".rstrip()


def meaning(kernel: Kernel, seen: Review) -> Iterator[str]:
    """What exactly a yes means, and what it does not."""
    intent = seen.transfer.intent
    fee = f", and at most {_units(kernel, *_fee(kernel, seen))} to the network" if intent.maximum_fee else ""
    yield ""
    yield "A YES MEANS"
    yield "  Your key signs the digest above and nothing else. It is one person's leave to pay, once and only until"
    yield f"  {words.at(intent.expiry)}, exactly {_units(kernel, intent.asset, intent.amount)} to {words.clean(intent.destination)}{fee}."
    yield "  It fills one slot at the most, and every seat counts it again by itself. Another amount, address, wallet or fee"
    yield "  is another digest, for which your yes is worth nothing. It cannot be taken back; until a first seat is asked"
    yield "  to sign, `bulkhead reject` of any one person ends the transfer."


def _section(title: str, body: Iterator[str]) -> Iterator[str]:
    yield ""
    yield title
    yield from body


def _line(name: str, text: str) -> str:
    return f"  {name:<13}{words.clean(text)}"


def _units(kernel: Kernel, symbol: str, units: int) -> str:
    asset = next((known for known in kernel.assets if known.symbol == symbol), None)
    if asset is None or not 0 <= units < 2**256:
        return f"{units} base units of {words.clean(symbol)}, WHICH THE REGISTRY DOES NOT KNOW"
    return f"{Amount(asset, units).decimal} {symbol}"


def _usd(micro: int) -> str:
    """Rounded up to the cent, as values are everywhere."""
    cents = -(-micro // _CENT)
    return f"{cents // 100:,}.{cents % 100:02d} USD"


def _fee(kernel: Kernel, seen: Review) -> tuple[str, int]:
    """(native asset, maximum fee)."""
    intent = seen.transfer.intent
    return holds.native_of(intent.chain, kernel.assets).symbol, intent.maximum_fee


def _moves(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    intent, facts = seen.transfer.intent, seen.facts
    yield _line("amount", f"{_units(kernel, intent.asset, intent.amount)}   ({intent.amount} base units)")
    proposed = f"{_usd(seen.transfer.usd)} when it was proposed"
    if seen.transfer.status.is_final:  # nobody decides about it any more, so it is not priced again
        yield _line("worth", proposed)
    elif facts is None or facts.usd is None:
        why = "" if seen.against else ": fewer than two fresh prices"
        yield _line("worth", f"UNKNOWN{why} ({proposed})")
    else:
        yield _line("worth", f"{_usd(facts.usd)} at the highest fresh price ({proposed})")
    yield from _from(seen, kernel.inventory.wallets.get(intent.wallet))
    yield from _to(seen, now)
    yield _line("debits", f"{intent.account}   (purpose: {intent.purpose})")
    if intent.maximum_fee:
        native, most = _fee(kernel, seen)
        yield _line("network fee", f"at most {_units(kernel, native, most)}   ({most} base units), paid by the wallet")
    else:
        yield _line("network fee", "none out of the wallet: the relayer pays the gas")


def _from(seen: Review, source: Wallet | None) -> Iterator[str]:
    intent = seen.transfer.intent
    if source is None:
        yield _line("from", f"A WALLET THAT NO CERTIFICATE KNOWS, 0x{intent.wallet.hex()}")
        return
    label = source.certificate.label
    yield _line("from", f"tier {source.tier.value}: our wallet {label!r} on {intent.chain}")
    if source.chain.is_evm:
        yield _line("", source.place)
    else:  # a descriptor has no one address; its name is its first certificate's hash
        yield _line("", f"wallet 0x{source.name.hex()}, descriptor #{source.place.rpartition('#')[2]}")
    yield _line("", f"{source.certificate.m} of its {source.certificate.n} seats sign")


def _to(seen: Review, now: int) -> Iterator[str]:
    intent, route = seen.transfer.intent, seen.route
    if route is not None and route.to is not None:
        yield _line("to", f"tier {route.to.tier.value}: our wallet {route.to.certificate.label!r}")
    elif route is not None and route.enrolled is not None:
        message, since = route.enrolled.enrolment.message, route.enrolled.seen_at
        yield _line("to", f"OUTSIDE: {message.kind} address of {message.owner}")
        yield _line(
            "", f"enrolled since {words.at(since)} ({words.span(now - since)}), until {words.at(message.expiry)}"
        )
    elif seen.transfer.status.is_final:
        yield _line("to", intent.destination_kind)
    else:
        yield _line("to", "NOT A WAY THAT IS KNOWN")
    yield _line("", intent.destination)


def _asks(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    transfer, proposal, intent = seen.transfer, seen.transfer.proposal.message, seen.transfer.intent
    found = proposer_of(transfer.proposal, kernel.roster, now)
    if found is None:
        yield _line("proposed by", f"NOBODY WHO MAY (the intent names {intent.initiator})")
    elif isinstance(found, ApiClient):
        yield _line("proposed by", f"{found.id}, a program with the role {found.role}")
    else:
        yield _line("proposed by", f"{found.id} ({found.name}), of {', '.join(found.groups) or 'no group'}")
    yield _line("", "the initiator's own approval never counts")
    yield _line("reference", proposal.reference)
    yield _line("proposed at", f"{words.at(transfer.created_at)} ({words.span(now - transfer.created_at)} ago)")
    left = f"{words.span(intent.expiry - now)} left" if now < intent.expiry else "EXPIRED"
    yield _line("valid", f"from {words.at(intent.not_before)} until {words.at(intent.expiry)} ({left})")


def _people(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    decision, intent = seen.decision, seen.transfer.intent
    if (freeze := kernel.freeze_of(intent, now)) is not None:
        who = kernel.frozen_by.get(freeze.struct_hash)
        by = f" by {who}" if who is not None else ""
        yield _line("FROZEN", f"{freeze.scope}{by}, until {words.at(freeze.lapses)}: {freeze.reason}")
        yield _line("", "a yes is kept; nothing is signed before the freeze lapses or is lifted")
    if decision is None:
        yield _line("policy", "CANNOT BE EVALUATED NOW; nothing is signed until it can")
        return
    yield from _policy(decision)
    for rule in decision.matched:
        yield from _rule(kernel, rule, intent.policy)
    yield from _windows(seen)
    pinned = kernel.roster_of(intent.roster)
    if decision.requirement is None or pinned is None:
        return
    if decision.outcome is Outcome.REQUIRE and (delay := decision.requirement.delay):
        over = seen.transfer.created_at + delay
        state = f"{words.span(over - now)} left" if over > now else "over"
        yield _line("time-lock", f"{words.span(delay)} from the proposal on, until {words.at(over)} ({state})")
    counted = count(seen.approvals, intent, seen.digest, pinned, kernel.roster, now)
    yield from _counted(seen, decision, counted, pinned)


def _policy(decision: Decision) -> Iterator[str]:
    if decision.requirement is None:
        yield _line("policy", f"DENIES: {', '.join(decision.denied_by) or 'no rule permits it'}")
    elif decision.outcome is Outcome.AUTOMATIC:
        yield _line("policy", "lets it go by itself, inside the caps that each seat counts for itself;")
        yield _line("", f"beyond them it asks for {decision.requirement}")
    else:
        yield _line("policy", f"asks for {decision.requirement}, each a different person")


def _rule(kernel: Kernel, rule: str, pinned: bytes) -> Iterator[str]:
    """Of the newest bundle, else of the pinned one."""
    told = [found for bundle in reversed(kernel.bundles(pinned)) if (found := bundle.rules.words_of(rule)) is not None]
    if not told:
        yield _line("  by rule", rule)
        return
    yield _line("  by rule", f"{rule}{': ' + told[0].asks if told[0].asks else ''}")
    yield _line("", f'"{told[0].why}"')


def _windows(seen: Review) -> Iterator[str]:
    """What policy counts beside the amount, everything pending and this transfer included."""
    facts = seen.facts
    if facts is None or facts.customer_24h is None or facts.wallet_1h is None or facts.initiator_24h is None:
        return
    yield _line("with pending", f"{_usd(facts.customer_24h)} of {seen.transfer.intent.account} in 24 h")
    yield _line("", f"{_usd(facts.wallet_1h)} out of this wallet in 1 h")
    yield _line("", f"{_usd(facts.initiator_24h)} asked for by {seen.transfer.intent.initiator} in 24 h")


def _counted(seen: Review, decision: Decision, counted: Counted, pinned: Roster) -> Iterator[str]:
    groups = {person.id: ", ".join(person.groups) for person in pinned.version.people}
    shown = {True: "", False: "; by a key that shows nothing"}
    found = sorted(counted.approvers, key=lambda approver: approver.person)
    told = ", ".join(f"{a.person} ({groups.get(a.person, '')}{shown[a.displays]})" for a in found)
    yield _line("approved by", told or "nobody yet")
    for refusal in counted.ignored:
        yield _line("", f"not counted: {refusal}")
    if decision.requirement is None:
        return
    missing = people_missing(satisfied(decision.requirement, counted.approvers, seen.transfer.intent.initiator))
    needed = "nobody, as long as the seats' caps allow it" if decision.outcome is Outcome.AUTOMATIC else missing
    yield _line("still needed", needed or "nobody")


def _coverage(kernel: Kernel, seen: Review, now: int) -> Iterator[str]:
    """Each asset that it touches before and after, by the attestor's newest statement; what customers own goes with a withdrawal."""
    if seen.statement is None:
        yield _line("UNKNOWN", "the attestor is silent; nothing is signed until it speaks")
        return
    said = seen.statement.message
    yield _line("statement", f"{said.sequence} of {words.at(said.time)} ({words.span(now - said.time)} ago)")
    out, owed = effect(kernel, seen)
    if not out:
        yield _line("", "company coins to the outside: nothing of customers' changes")
    under_way = seen.transfer.status.is_asked
    for symbol in sorted(out):
        rows = [row for row in said.coverage if row.asset == symbol]
        if len(rows) != 1:
            yield _line(symbol, "UNKNOWN: the statement has no one row for it")
            continue
        yield from _row(kernel, rows[0], *((0, 0) if under_way else (out[symbol], owed[symbol])))
    if under_way:
        yield _line("", "it is under way, so what it takes may stand in flight already")


def _row(kernel: Kernel, row: AssetCoverage, out: int, owed: int) -> Iterator[str]:
    def told(units: int) -> str:
        return f"{'-' if units < 0 else ''}{_units(kernel, row.asset, abs(units))}"

    before, after = surplus(row), surplus(row) - out + owed
    short = "   SHORTFALL: payments out of customer tiers stop" if after < 0 else ""
    yield _line(row.asset, f"surplus  {told(before)} before, {told(after)} after{short}")
    yield _line(
        "", f"reserves {told(row.reserves)} before, {told(row.reserves - out)} after; in flight {told(row.in_flight)}"
    )
    yield _line("", f"owed     {told(liabilities(row))} before, {told(liabilities(row) - owed)} after")


def effect(kernel: Kernel, seen: Review) -> tuple[dict[str, int], dict[str, int]]:
    """What it takes out of customer tiers at the most, and what it settles of what is owed, both in base units by asset.

    A move inside costs its fee only; company coins that make customers whole come in, which is below zero here.
    """
    intent, route = seen.transfer.intent, seen.route
    source = kernel.inventory.wallets.get(intent.wallet)
    inward = route is not None and route.to is not None and route.to.tier.is_customer
    from_customers = source is None or source.tier.is_customer  # unknown counts as theirs
    out: dict[str, int] = {}
    if from_customers:
        out[intent.asset] = 0 if inward else intent.amount
        native, fee = _fee(kernel, seen)
        out[native] = out.get(native, 0) + fee
    elif inward:
        out[intent.asset] = -intent.amount
    own = intent.account.startswith(CUSTOMER)
    return out, {symbol: units if own else 0 for symbol, units in out.items()}


def _signed(seen: Review) -> Iterator[str]:
    """The message field by field, and its digest, computed from these fields here."""
    for line in words.lines(seen.transfer.intent):
        yield f"  {line}"
    yield f"  digest       0x{seen.digest.hex()}"
    yield "               computed here from the fields above and this deployment's genesis"
