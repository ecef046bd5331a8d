# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether the entries of a transfer say what their origins say: the initiator's signature, the hold, and how it ended.

Pure. That an anchor was consumed on chain is asked of a node elsewhere (`flows/verification.py`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Final

from custody.rules import holds
from custody.rules.amounts import Asset, Assets
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.intents import Proposal, Rejection, TransferIntent
from custody.rules.ledger import Account, Entry, JournalEntry
from custody.rules.origins import Executed, Hold, Release
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import ApiClient, Person, Roster
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain, Tier
from custody.rules.walls import CUSTOMER

_ADDRESS: Final = re.compile("0x[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Standing:
    """A hold as the journal has it: the position of its entry (0 where it held nothing) and its intent."""

    position: int
    intent: TransferIntent


def proposer_of(signed: Signed[Proposal], roster: Roster, now: int) -> Person | ApiClient | None:
    """Whose key of this version signed a proposal: an unexpired person, or an API client with the propose scope; else None."""
    for key in sorted(signed.signers(roster.domain), key=str):
        client, person = roster.clients_by_key.get(key), roster.people_by_key.get(key)
        if client is not None and client.expires > now and "propose" in client.scopes:
            return client
        if person is not None and person.expires > now:
            return person
    return None


def check_binding(intent: TransferIntent, proposal: Proposal) -> Iterator[Refusal]:
    """An intent is its proposal's, value by value; it may expire earlier, never later."""
    if intent.proposal != proposal.struct_hash:
        yield Refusal(
            Rule.PROPOSAL_MISMATCH, field="proposal", got=intent.proposal.hex(), want=proposal.struct_hash.hex()
        )
    for name in (field.name for field in fields(Proposal) if field.name not in {"reference", "expiry"}):
        if getattr(intent, name) != getattr(proposal, name):
            yield Refusal(Rule.PROPOSAL_MISMATCH, field=name, got=getattr(intent, name), want=getattr(proposal, name))
    if intent.expiry > proposal.expiry:
        yield Refusal(Rule.PROPOSAL_MISMATCH, field="expiry", got=intent.expiry, want=proposal.expiry)


def check_hold(recorded: JournalEntry, roster: Roster, assets: Assets, customers: frozenset[str]) -> Iterator[Refusal]:
    """A hold rests on a proposal that somebody who may propose signed, and moves exactly what its intent moves."""
    origin = recorded.entry.origin
    if not isinstance(origin, Hold):
        return
    initiator = proposer_of(Signed(origin.proposal, origin.signatures), roster, recorded.recorded_at)
    if initiator is None:
        yield Refusal(Rule.SIGNER_UNKNOWN, document="Proposal", signer=origin.intent.initiator)
    elif initiator.id != origin.intent.initiator:
        yield Refusal(Rule.PROPOSAL_MISMATCH, field="initiator", got=origin.intent.initiator, want=initiator.id)
    yield from check_binding(origin.intent, origin.proposal)
    owner = origin.intent.account.removeprefix(CUSTOMER)
    if origin.intent.account.startswith(CUSTOMER) and owner not in customers:
        yield Refusal(Rule.UNKNOWN_CUSTOMER, customer=owner)
    if recorded.recorded_at >= origin.intent.expiry:
        yield Refusal(Rule.EXPIRED, expired=origin.intent.expiry, now=recorded.recorded_at)
    yield from _same(recorded.entry, lambda: holds.hold(origin, assets))


def check_release(
    recorded: JournalEntry, standing: Mapping[bytes, Standing], roster: Roster, assets: Assets
) -> Iterator[Refusal]:
    """A release ends a hold that stands, exactly, because it expired or because one person of the roster said no.

    It never proves that nothing was signed: that is the attestor's to know, who counts what it attested until its end is final.
    """
    origin, at = recorded.entry.origin, recorded.recorded_at
    if not isinstance(origin, Release):
        return
    known = standing.get(origin.intent)
    if known is None or known.position != origin.hold:
        yield Refusal(Rule.ORIGIN, field="release.hold", got=origin.hold, want="the position of a hold that stands")
        return
    if origin.rejection:
        yield from check_rejection(origin, known.intent, roster, at)
    elif at < known.intent.expiry:
        yield Refusal(
            Rule.ORIGIN, field="release", got=f"at {at}", want=f"a signed no, or the expiry at {known.intent.expiry}"
        )
    yield from _same(recorded.entry, lambda: holds.release(origin, known.intent, assets))


def check_rejection(origin: Release, intent: TransferIntent, roster: Roster, now: int) -> Iterator[Refusal]:
    """Exactly one no to exactly this intent, by a person of the roster or by the initiator."""
    if len(origin.rejection) != 1 or origin.rejection[0].intent != origin.intent:
        yield Refusal(Rule.WRONG_DIGEST, document="Rejection", want=origin.intent.hex())
        return
    signed = Signed(origin.rejection[0], origin.signatures)
    if not who_rejects(signed, intent, roster, now):
        yield Refusal(Rule.SIGNER_UNKNOWN, document="Rejection", want="a person of the roster, or the initiator")


def who_rejects(signed: Signed[Rejection], intent: TransferIntent, roster: Roster, now: int) -> str | None:
    """Whose no it is: a person of this version, or the API client that proposed; None where it is nobody's who may say it."""
    for key in sorted(signed.signers(roster.domain), key=str):
        person, client = roster.people_by_key.get(key), roster.clients_by_key.get(key)
        if person is not None and person.expires > now:
            return person.id
        if client is not None and client.expires > now and client.id == intent.initiator:
            return client.id
    return None


def check_executed(
    recorded: JournalEntry,
    standing: Mapping[bytes, Standing],
    tier: Tier | None,
    assets: Assets,
    balances: Mapping[tuple[Account, Asset], int] = MappingProxyType({}),
) -> Iterator[Refusal]:
    """A payout's entry frees exactly the holds of its intents and moves what they and the chain say. `tier` is its wallet's.

    What it takes out of suspense are coins that its own transaction brought; `balances` are those before it, recomputed.
    """
    origin = recorded.entry.origin
    if not isinstance(origin, Executed):
        return
    if tier is None:
        yield Refusal(Rule.UNKNOWN_WALLET, wallet=origin.anchor.wallet.hex())
        return
    intents = [standing[digest].intent for digest in origin.intents if digest in standing]
    for intent in intents:
        if (intent.wallet, intent.chain) != (origin.anchor.wallet, origin.chain):
            yield Refusal(Rule.WRONG_WALLET, got=origin.anchor.wallet.hex(), want=intent.wallet.hex())
    for arrived in origin.arrived:
        if arrived.event and not brought_by(origin, arrived.event):
            want = f"an event of 0x{origin.transaction.hex()} in block {origin.height}"
            yield Refusal(Rule.ORIGIN, field="arrived.event", got=arrived.event, want=want)
    yield from _same(recorded.entry, lambda: holds.pay(origin, intents, tier, assets, balances))


def brought_by(done: Executed, event: str) -> bool:
    """Whether a chain event, by its identity, can be what a payout's transaction brought: a log or an output of its own.

    Native coin on EVM is measured for a whole block, so any address's change in the payout's block may hold some of it.
    """
    of_block, transaction = f"{done.chain}/{done.block.hex()}/", done.transaction.hex()
    if not event.startswith(of_block):
        return False
    found = event.removeprefix(of_block)
    native = Chain(done.chain).is_evm and _ADDRESS.fullmatch(found) is not None
    return native or found.startswith((f"{transaction}/", f"{transaction}:"))


def _same(entry: Entry, make: Callable[[], Entry | None]) -> Iterator[Refusal]:
    try:
        want = make()
    except (InvalidInput, UnbalancedEntry) as error:
        yield Refusal(Rule.ORIGIN, field="postings", got="what cannot be booked", want=str(error))
        return
    if want is None or entry.postings != want.postings:
        told = [f"{p.side} {p.account} {p.amount.units} {p.amount.asset}" for p in (want.postings if want else ())]
        got = [f"{p.side} {p.account} {p.amount.units} {p.amount.asset}" for p in entry.postings]
        yield Refusal(Rule.ORIGIN, field="postings", got=got, want=told)
