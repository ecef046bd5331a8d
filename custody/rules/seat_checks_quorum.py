# SPDX-License-Identifier: AGPL-3.0-or-later
"""Law 3 as a seat holds it: policy pinned and newest, the stricter of both; people counted afresh; its own floors and caps.

The automatic path is the one way without people: only where policy says so, only out of the hot tier, and only inside caps that
this seat counts in its own journal.
"""

from collections.abc import Iterator
from typing import Final

from eth_keys.datatypes import PublicKey

from custody.rules.approvals import satisfied
from custody.rules.certificates import WalletCertificate, check_succession
from custody.rules.payouts import LeafKind, apply_owner_calls, check_void
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Outcome, displaying_floor
from custody.rules.seat_case import Case, Item
from custody.rules.seat_journal import anchor_key, counted
from custody.rules.seat_request import BundleInForce
from custody.rules.wallets import Tier

CLOCKS_AGREE: Final = 120
"""Seconds that this seat's clock and a statement's time may differ while anything goes by itself."""


def check_policy(case: Case) -> Iterator[Refusal]:
    """Policy denies, or does not know a fact, or the bundle that the intent pins was never in force here."""
    for item in case.items:
        decision = case.decisions.get(item.digest)
        if decision is None:
            yield Refusal(Rule.POLICY_OLDER, intent=item.digest.hex(), pinned=item.intent.policy.hex())
        else:
            yield from decision.refusals()


def check_approvals(case: Case) -> Iterator[Refusal]:
    """Who policy asks for: distinct people in their groups, the initiator out, unless it goes by itself."""
    for item in case.items:
        decision = case.decisions.get(item.digest)
        if decision is not None and decision.outcome is Outcome.REQUIRE:
            yield from _people(case, item)


def check_automatic(case: Case) -> Iterator[Refusal]:
    """What policy lets go by itself goes only inside this seat's own caps; beyond them the people it names have to approve."""
    for item in case.items:
        decision = case.decisions.get(item.digest)
        if decision is None or decision.outcome is not Outcome.AUTOMATIC:
            continue
        faults = [*automatic_faults(case, item)]
        if faults and (missing := [*_people(case, item)]):
            yield from (*faults, *missing)


def check_floors(case: Case) -> Iterator[Refusal]:
    """This seat's own minimum of people by tier and native amount, and of keys that display out of cold, whatever anybody says."""
    for item in case.items:
        decision, floor, shown = case.decisions.get(item.digest), case.floor(item), displaying_floor(case.tier)
        if floor is None:
            yield Refusal(Rule.UNKNOWN_ASSET, asset=item.intent.asset, want="an asset with floors")
        elif (floor or shown) and decision is not None and decision.requirement is not None:
            counted_people = case.approvers[item.digest].approvers
            asked = decision.requirement.of_people(floor, shown)
            yield from satisfied(asked, counted_people, item.intent.initiator)


def check_delay(case: Case) -> Iterator[Refusal]:
    """The delay that policy asks for has passed since the attestor first saw the intent, by its clock and by this seat's."""
    for item in case.items:
        decision = case.decisions.get(item.digest)
        if decision is None or decision.requirement is None or decision.outcome is not Outcome.REQUIRE:
            continue
        since = item.facts.first_seen if item.facts is not None else 0
        waited = min(case.time, case.statement.time) - since if since else 0
        if waited < decision.requirement.delay:
            yield Refusal(Rule.DELAY, intent=item.digest.hex(), waited=waited, needed=decision.requirement.delay)


def _people(case: Case, item: Item) -> Iterator[Refusal]:
    decision = case.decisions[item.digest]
    if decision.requirement is None:
        return
    found = case.approvers[item.digest]
    missing = [*satisfied(decision.requirement, found.approvers, item.intent.initiator)]
    if missing:
        yield from (*missing, *found.ignored)


def goes_by_itself(case: Case, item: Item) -> bool:
    """Whether nobody's approval is needed: such a transfer counts towards this seat's caps."""
    decision = case.decisions.get(item.digest)
    if decision is None or decision.outcome is not Outcome.AUTOMATIC or case.floor(item) != 0:
        return False
    return not [*automatic_faults(case, item)]


def automatic_faults(case: Case, item: Item) -> Iterator[Refusal]:
    """Why a transfer that policy would let go by itself needs people at this seat."""
    if case.tier is not Tier.CUSTOMER_HOT:
        yield Refusal(Rule.AUTOMATIC_CAP, tier=case.tier, want=Tier.CUSTOMER_HOT.value)
    apart = abs(case.now - case.statement.time)
    if apart > CLOCKS_AGREE or case.journal.state.time - case.now > CLOCKS_AGREE:
        yield Refusal(Rule.AUTOMATIC_CAP, clocks_apart=apart, most=CLOCKS_AGREE)
    asset = item.intent.asset
    most = min((b.rules.floors.automatic_most.get(asset, 0) for b in item.bundles), default=0)
    if item.intent.amount > most:
        yield Refusal(Rule.AUTOMATIC_CAP, asset=asset, units=item.intent.amount, most=most)
    cap = daily_cap(case, item.bundles, asset)
    used = counted(case.journal.automatic, asset, case.time) + case.automatic_asked.get(asset, 0)
    if used > cap:
        yield Refusal(Rule.AUTOMATIC_CAP, asset=asset, would_be=used, daily_cap=cap)


def daily_cap(case: Case, bundles: tuple[BundleInForce, ...], asset: str) -> int:
    """This seat's share of the daily cap, (M−1)/(N−1): rotating quorums and a hostile seat would multiply it otherwise."""
    most = min((b.rules.floors.automatic_day.get(asset, 0) for b in bundles), default=0)
    newest = case.line[-1] if case.line else None
    return 0 if newest is None or newest.n < 2 else most * (newest.m - 1) // (newest.n - 1)


def check_sweep_fee(case: Case) -> Iterator[Refusal]:
    """Nobody approves a sweep, so what it burns in fees counts towards the automatic cap."""
    if not case.decoded.fee:
        return
    cap = daily_cap(case, (case.policies.newest,), case.decoded.native)
    used = counted(case.journal.automatic, case.decoded.native, case.time) + case.decoded.fee
    if used > cap:
        yield Refusal(Rule.AUTOMATIC_CAP, asset=case.decoded.native, would_be=used, daily_cap=cap)


def check_void_quorum(case: Case) -> Iterator[Refusal]:
    """A quorum of people signed the void of this very anchor."""
    void = case.request.void
    if void is None:
        return
    if void.message.anchor != case.decoded.anchor:
        got, want = void.message.anchor.reference, case.decoded.anchor.reference
        yield Refusal(Rule.STATEMENT_MISMATCH, field="void.anchor", got=got, want=want)
    yield from case.roster.check_quorum(void, case.roster.version.thresholds.void, None, case.time)


def check_void_payload(case: Case) -> Iterator[Refusal]:
    """The payload is the anchor's canonical void and nothing else."""
    yield from check_void(case.decoded)


def check_void_intents(case: Case) -> Iterator[Refusal]:
    """The void names every intent that this seat bound to the anchor, so that no hold is forgotten with it."""
    bound = case.journal.anchors.get(anchor_key(case.decoded.anchor))
    named = case.request.void.message.intents if case.request.void is not None else ()
    if bound is not None and (missing := sorted(set(bound.intents) - set(named))):
        yield Refusal(Rule.ANCHOR_BOUND, missing=[intent.hex() for intent in missing], want="a void that names them")


def check_rotation_quorum(case: Case) -> Iterator[Refusal]:
    """A quorum signed the rotation from this wallet's newest certificate to one that holds and follows it."""
    rotation = case.request.rotation
    if rotation is None:
        return
    yield from case.roster.check_quorum(rotation, case.roster.version.thresholds.certificate, None, case.time)
    yield from case.roster.check_displaying(rotation, None, case.time)
    old, new = case.certificate, case.certificates.get(rotation.message.new)
    if old is None or old != case.line[-1] or rotation.message.old != old.struct_hash:
        yield Refusal(Rule.CERTIFICATE_OLDER, got=rotation.message.old.hex(), want="the wallet's newest certificate")
    elif new is None:
        yield Refusal(Rule.NOT_SUCCESSOR, got=rotation.message.new.hex(), want="a certificate that a quorum signed")
    else:
        yield from check_succession(old, new)


def check_rotation_payload(case: Case) -> Iterator[Refusal]:
    """The owner calls, and nothing but owner calls, turn the old certificate's owners and threshold into the new one's."""
    rotation, old = case.request.rotation, case.certificate
    new = case.certificates.get(rotation.message.new) if rotation is not None else None
    if new is None or old is None or not old.safe or new.safe != old.safe:
        yield Refusal(Rule.NOT_ROTATION, want="two certificates of one Safe")
        return
    if any(leaf.kind is not LeafKind.OWNER_CHANGE for leaf in case.decoded.leaves):
        yield Refusal(
            Rule.NOT_ROTATION, leaves=[leaf.kind.value for leaf in case.decoded.leaves], want="owner calls alone"
        )
        return
    calls = [leaf.owners for leaf in case.decoded.leaves if leaf.owners is not None]
    after = apply_owner_calls(_owners(old), old.m, calls)
    if isinstance(after, Refusal):
        yield after
    elif after != (_owners(new), new.m):
        yield Refusal(
            Rule.NOT_ROTATION, owners=sorted(after[0]), threshold=after[1], want=sorted(_owners(new)), m=new.m
        )


def _owners(certificate: WalletCertificate) -> frozenset[str]:
    return frozenset(
        PublicKey.from_compressed_bytes(seat.key.public).to_address().lower() for seat in certificate.seats
    )
