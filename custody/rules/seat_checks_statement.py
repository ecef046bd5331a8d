# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat asks of the attestor's statement, and law 2's arithmetic, which it does itself (TRUST.md, "Statement")."""

from collections.abc import Iterator
from typing import Final

from custody.rules.attested import check_safe_state, verify_signature
from custody.rules.coverage import Outflow, check
from custody.rules.refusals import Refusal, Rule
from custody.rules.seat_case import Case
from custody.rules.wallets import Tier
from custody.rules.walls import CUSTOMER

ONLINE_OLDEST: Final = 600
"""Seconds that a statement may be old when an online seat signs."""
COLD_OLDEST: Final = 12 * 3600
"""The same for cold seats: a statement is carried to them by hand."""
AHEAD_MOST: Final = 30
"""Seconds that the attestor's clock may be ahead of a seat's."""


def check_signature(case: Case) -> Iterator[Refusal]:
    """The roster's attestor signed exactly this under genesis."""
    yield from verify_signature(case.request.statement, case.roster)


def check_fresh(case: Case) -> Iterator[Refusal]:
    """Fresh by this seat's time: minutes for online seats, hours for cold ones; not from the future."""
    age, oldest = case.time - case.statement.time, COLD_OLDEST if case.tier is Tier.CUSTOMER_COLD else ONLINE_OLDEST
    if not -AHEAD_MOST <= age <= oldest:
        yield Refusal(Rule.STALE, age=age, oldest=oldest)


def check_sequence(case: Case) -> Iterator[Refusal]:
    """A statement is used once: its number is above every one that this seat accepted."""
    if case.statement.sequence <= case.journal.sequence:
        yield Refusal(Rule.SEQUENCE, sequence=case.statement.sequence, last=case.journal.sequence)


def check_versions(case: Case) -> Iterator[Refusal]:
    """Seat and attestor go by the same roster and the same policy, and the host handed in the newest one that this seat verified."""
    statement, newest = case.statement, case.policies.newest.hash
    if statement.roster != case.roster.version.version:
        yield Refusal(Rule.ROSTER_OLDER, statement=statement.roster, seat=case.roster.version.version)
    in_force = case.journal.policies[-1] if case.journal.policies else b""
    if newest != in_force or statement.policy != in_force:
        told = {"handed_in": newest.hex(), "statement": statement.policy.hex()}
        yield Refusal(Rule.POLICY_OLDER, **told, want=in_force.hex() or "a bundle whose activation this seat verified")


def check_anchor_named(case: Case) -> Iterator[Refusal]:
    """The statement speaks for this anchor and no other."""
    if case.statement.anchor != (case.decoded.anchor,):
        got = [anchor.reference for anchor in case.statement.anchor]
        yield Refusal(Rule.STATEMENT_MISMATCH, field="anchor", got=got, want=case.decoded.anchor.reference)


def check_intents_named(case: Case) -> Iterator[Refusal]:
    """It names exactly the intents of this payout, each once."""
    told = sorted(facts.intent for facts in case.statement.intents)
    asked = sorted(item.digest for item in case.items)
    if told != asked:
        got, want = [digest.hex() for digest in told], [digest.hex() for digest in asked]
        yield Refusal(Rule.STATEMENT_MISMATCH, field="intents", got=got, want=want)


def check_holds(case: Case) -> Iterator[Refusal]:
    """The hold of each intent stands, recomputed by the attestor from entries whose origin it checked."""
    for item in case.items:
        if item.facts is None or not item.facts.hold_stands:
            yield Refusal(Rule.HOLD, intent=item.digest.hex())


def check_balances(case: Case) -> Iterator[Refusal]:
    """The balance of the account debited covers each intent."""
    for item in case.items:
        if item.facts is None or not item.facts.balance_covers:
            yield Refusal(Rule.INSUFFICIENT_BALANCE, intent=item.digest.hex(), account=item.intent.account)


def check_coverage(case: Case) -> Iterator[Refusal]:
    """Law 2 for every asset that leaves customer tiers. Of a move between customer wallets only the fee leaves, on Bitcoin.

    That fee is the company's to pay, out of what it has in these wallets: a move that would take it out of customers' coins waits
    for `make_whole`. On EVM the relayer pays, so that such a move passes in a shortfall.

    The statement's `in_flight` holds earlier payouts, not the one that it names.
    """
    if case.tier is Tier.OPERATIONAL:
        return
    outflows: list[Outflow] = []
    relayed = case.decoded.chain.startswith("eip155:")
    for item in case.items:
        intent = item.intent
        own = intent.account.startswith(CUSTOMER)
        if item.to_tier is None or item.to_tier is Tier.OPERATIONAL:
            outflows.append(Outflow(intent.asset, intent.amount, intent.amount if own else 0))
        if intent.maximum_fee and not relayed:  # a withdrawal's hold holds its fee as well
            outflows.append(Outflow(case.decoded.native, intent.maximum_fee, intent.maximum_fee if own else 0))
    if not outflows:
        return
    heights = [height.chain for height in case.statement.heights]
    if heights.count(case.decoded.chain) != 1:
        yield Refusal(Rule.COVERAGE_UNKNOWN, chain=case.decoded.chain, heights=heights)
    yield from check(case.statement.coverage, {case.decoded.native}, outflows)


def check_reserves(case: Case) -> Iterator[Refusal]:
    """Reserves are the lesser of chain and ledger, so that a coin nobody credited yet is no surplus."""
    if case.tier is Tier.OPERATIONAL:
        return
    for row in case.statement.coverage:
        if row.reserves != min(row.on_chain, row.in_ledger):
            want = min(row.on_chain, row.in_ledger)
            yield Refusal(Rule.COVERAGE, asset=row.asset, reserves=row.reserves, want=want)


def check_safe(case: Case) -> Iterator[Refusal]:
    """The Safe on chain is the one that was certified: any drift freezes the wallet. Nothing to ask on Bitcoin."""
    certificate = case.certificate
    if certificate is None or not certificate.safe:
        return
    if case.safe is None:
        yield Refusal(Rule.SAFE_DRIFT, wallet=case.decoded.wallet.hex(), got="no state, or two")
    else:
        yield from check_safe_state(case.safe, certificate)


def check_nonce(case: Case) -> Iterator[Refusal]:
    """The nonce was not consumed at the statement's final height. Who holds a spent outpoint is the chain's to say."""
    if case.safe is not None and case.decoded.chain.startswith("eip155:"):
        nonce = int(case.decoded.anchor.reference)
        if nonce < case.safe.nonce:
            yield Refusal(Rule.ANCHOR_SPENT, nonce=nonce, next=case.safe.nonce)


def check_head(case: Case) -> Iterator[Refusal]:
    """This journal has what the attestor saw of it: a seat restored from an old copy signs nothing but a rotation."""
    told = [position for position in case.statement.seats if position.seat == case.journal.state.seat]
    if len(told) != 1:
        yield Refusal(Rule.BEHIND, seat=case.journal.state.seat, got=f"{len(told)} heads", want="one signed head")
    elif case.journal.head_at(told[0].position) != told[0].head:
        own = case.journal.state.position
        yield Refusal(Rule.BEHIND, seat=told[0].seat, attested=told[0].position, own=own, head=told[0].head.hex())
