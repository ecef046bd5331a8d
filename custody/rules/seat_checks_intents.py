# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat asks of each transfer by itself: who proposed it, that the intent says the same, and where the coins go.

Each check refuses one kind of lie, and is listed once in `seat.CHECKS`; the tests take each away in turn and see an attack pass.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Final

from custody.rules import walls
from custody.rules.facts import Destination
from custody.rules.intents import EXPIRY_MOST, Proposal
from custody.rules.payouts import one_to_one
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.seat_case import Case, Item
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.rules.wallets import Tier

_CHANGE_BRANCH: Final = 1
_CLOCKS_APART: Final = 86_400
"""Seconds by which a seat's time may be behind that of whoever took the proposal."""


def check_proposals(case: Case) -> Iterator[Refusal]:
    """Each proposal is signed by an entry of the roster that may propose, and it is the initiator that the intent names."""
    for item in case.items:
        initiator = case.initiators[item.digest]
        if initiator is None:
            yield Refusal(
                Rule.SIGNER_UNKNOWN, document="Proposal", intent=item.digest.hex(), want="somebody who may propose"
            )
        elif initiator.id != item.intent.initiator:
            yield Refusal(Rule.PROPOSAL_MISMATCH, field="initiator", got=item.intent.initiator, want=initiator.id)


def check_initiator_then(case: Case) -> Iterator[Refusal]:
    """The initiator stood in the roster version that the intent pins, too: a key added since proposes nothing backdated."""
    for item in case.items:
        pinned, initiator = case.rosters.get(item.intent.roster), case.initiators[item.digest]
        if pinned is None:
            yield Refusal(Rule.ROSTER_OLDER, pinned=item.intent.roster, known=sorted(case.rosters))
        elif initiator is not None and not _may_propose(pinned, initiator.id, item):
            yield Refusal(Rule.SIGNER_UNKNOWN, document="Proposal", signer=initiator.id, roster=item.intent.roster)


def _may_propose(roster: Roster, name: str, item: Item) -> bool:
    for key in {signature.key for signature in item.transfer.proposal.signatures}:
        client, person = roster.clients_by_key.get(key), roster.people_by_key.get(key)
        if client is not None and client.id == name and "propose" in client.scopes:
            return True
        if person is not None and person.id == name:
            return True
    return False


def check_binding(case: Case) -> Iterator[Refusal]:
    """The intent is that proposal's, value by value. Every field of a proposal but its reference stands in the intent too."""
    for item in case.items:
        intent, proposal = item.intent, item.transfer.proposal.message
        if intent.proposal != item.proposal:
            yield Refusal(Rule.PROPOSAL_MISMATCH, field="proposal", got=intent.proposal.hex(), want=item.proposal.hex())
        for name in (field.name for field in fields(Proposal) if field.name not in {"reference", "expiry"}):
            if getattr(intent, name) != getattr(proposal, name):
                yield Refusal(
                    Rule.PROPOSAL_MISMATCH, field=name, got=getattr(intent, name), want=getattr(proposal, name)
                )
        if intent.expiry > proposal.expiry:
            yield Refusal(Rule.PROPOSAL_MISMATCH, field="expiry", got=intent.expiry, want=proposal.expiry)


def check_once(case: Case) -> Iterator[Refusal]:
    """No intent and no proposal stands twice in one request."""
    for times, rule in (
        (Counter(item.digest for item in case.items), Rule.INTENT_BOUND),
        (Counter(item.proposal for item in case.items), Rule.PROPOSAL_BOUND),
    ):
        for digest, count in times.items():
            if count > 1:
                yield Refusal(rule, digest=digest.hex(), times=count)


def check_lifetime(case: Case) -> Iterator[Refusal]:
    """An intent is signed from its not-before on and until it expires, by this seat's time; no proposal lives for ever."""
    latest = case.time + EXPIRY_MOST + _CLOCKS_APART
    for item in case.items:
        if (until := item.transfer.proposal.message.expiry) > latest:
            yield Refusal(Rule.EXPIRY_TOO_FAR, document="Proposal", expires=until, now=case.time, latest=latest)
        if case.time < item.intent.not_before:
            yield Refusal(Rule.TOO_EARLY, intent=item.digest.hex(), not_before=item.intent.not_before, now=case.time)
        if case.time >= item.intent.expiry:
            yield Refusal(Rule.EXPIRED, intent=item.digest.hex(), expired=item.intent.expiry, now=case.time)


def check_wallet(case: Case) -> Iterator[Refusal]:
    """The intent names the wallet that pays, by one of its certificates; the newest one's keys sign (`check_newest`).

    What people approved before a rotation is paid after it by the new keys (docs/decisions/0016).
    """
    for item in case.items:
        intent = item.intent
        if (intent.chain, intent.wallet) != (case.decoded.chain, case.decoded.wallet):
            yield Refusal(
                Rule.WRONG_WALLET, got=intent.wallet.hex(), want=case.decoded.wallet.hex(), chain=intent.chain
            )
        if intent.certificate not in {certificate.struct_hash for certificate in case.line}:
            yield Refusal(
                Rule.CERTIFICATE_OLDER, got=intent.certificate.hex(), known=[c.struct_hash.hex() for c in case.line]
            )


def check_asset(case: Case) -> Iterator[Refusal]:
    """Token contract and decimals are the registry's, in every bundle that counts, and the amount is above dust."""
    for item in case.items:
        intent = item.intent
        for bundle in item.bundles:
            asset = next((a for a in bundle.assets if (a.symbol, a.chain.name) == (intent.asset, intent.chain)), None)
            if asset is None:
                yield Refusal(Rule.UNKNOWN_ASSET, asset=intent.asset, chain=intent.chain)
                continue
            token = asset.contract.text if asset.contract is not None else ZERO_ADDRESS
            if (intent.token.lower(), intent.decimals) != (token.lower(), asset.decimals):
                got, want = f"{intent.token}, {intent.decimals}", f"{token}, {asset.decimals}"
                yield Refusal(Rule.TOKEN_MISMATCH, asset=intent.asset, got=got, want=want)
            if intent.amount < asset.dust:
                yield Refusal(Rule.DUST, asset=intent.asset, units=intent.amount, least=asset.dust)


def check_destination(case: Case) -> Iterator[Refusal]:
    """Coins go to a certified wallet of ours, or to an enrolled address of the kind that the intent names."""
    for item in case.items:
        intent, enrolment = item.intent, item.transfer.enrolment
        internal = intent.destination_kind == Destination.INTERNAL_WALLET
        if internal and (item.internal is None or enrolment is not None or intent.enrolment != ZERO32):
            yield Refusal(Rule.ENROLMENT, to=intent.destination, want="an address that a signed certificate derives")
        if internal:
            continue
        if enrolment is None:
            yield Refusal(Rule.ENROLMENT, to=intent.destination, want="the enrolment that the intent names")
            continue
        said = enrolment.message
        told = (said.struct_hash, said.chain, said.address, said.kind)
        if told != (intent.enrolment, intent.chain, intent.destination, intent.destination_kind):
            yield Refusal(
                Rule.ENROLMENT, to=intent.destination, enrolled=f"{said.address} on {said.chain} as {said.kind}"
            )


def check_own_address(case: Case) -> Iterator[Refusal]:
    """Nothing is paid to the wallet itself, to a deposit address, or to a place of another wallet that may be a customer's.

    A receive index belongs to whom the attestor bound it to: coins of the omnibus that arrive there would be credited again.
    """
    for item in case.items:
        if item.place is None:
            continue
        own = item.place.certificate in {c.struct_hash for c in case.line}
        customers = item.place.index is not None and item.place.branch != _CHANGE_BRANCH
        if own or customers:
            yield Refusal(
                Rule.OWN_ADDRESS, to=item.intent.destination, branch=item.place.branch, index=item.place.index
            )


def check_enrolment_signature(case: Case) -> Iterator[Refusal]:
    """An address authority of the newest roster signed the enrolment, unexpired; it is in force; it never proposes."""
    authorities = frozenset(case.roster.version.address_authorities)
    for item in case.items:
        enrolment = item.transfer.enrolment
        if enrolment is None:
            continue
        signed = case.roster.people_who_signed(enrolment, case.time) & authorities
        if not signed:
            yield Refusal(
                Rule.SIGNATURE_INVALID, document="Enrolment", to=enrolment.message.address, want=sorted(authorities)
            )
        if item.intent.initiator in authorities:
            yield Refusal(Rule.AUTHORITY_PROPOSES, person=item.intent.initiator)


def check_enrolment_age(case: Case) -> Iterator[Refusal]:
    """An enrolment that has lapsed opens nothing."""
    for item in case.items:
        enrolment = item.transfer.enrolment
        if enrolment is not None and enrolment.message.expiry <= case.time:
            yield Refusal(Rule.EXPIRED, document="Enrolment", expired=enrolment.message.expiry, now=case.time)


def check_owner(case: Case) -> Iterator[Refusal]:
    """The enrolment's owner is the account debited: nobody's coins go to somebody else's address."""
    for item in case.items:
        enrolment = item.transfer.enrolment
        if enrolment is not None and enrolment.message.owner != item.intent.account:
            yield Refusal(Rule.OWNER_MISMATCH, owner=enrolment.message.owner, account=item.intent.account)


def check_walls(case: Case) -> Iterator[Refusal]:
    """Law 1: each purpose has its ways from tier to tier, each with the account that it debits; there is no other way."""
    for item in case.items:
        if case.tier is not None:
            yield from walls.check_walls(case.tier, item.to_tier, item.intent.account, item.intent.purpose)


def check_fee_sweeps(case: Case) -> Iterator[Refusal]:
    """What leaves as fees was accrued, has matured, and stays within the schedule's daily cap, whatever policy says."""
    for item in case.items:
        if case.tier is not Tier.OPERATIONAL and item.to_tier is Tier.OPERATIONAL:
            yield from case.fee_faults(item)


def check_one_to_one(case: Case) -> Iterator[Refusal]:
    """Every payment of the payload is an intent's, and every intent is paid (TRUST.md)."""
    yield from one_to_one(case.decoded.leaves, (item.intent for item in case.items))


def check_maximum_fee(case: Case) -> Iterator[Refusal]:
    """The network's fee stays within what the intents allow together."""
    most = sum(item.intent.maximum_fee for item in case.items)
    if case.decoded.fee > most:
        yield Refusal(Rule.MAXIMUM_FEE, fee=case.decoded.fee, most=most)
