# SPDX-License-Identifier: AGPL-3.0-or-later
"""One request as a seat sees it: what it claims, beside what the seat itself knows of the same things.

Every look-up answers from the seat's journal, its newest roster or a signature that it verified; what cannot be had is None, and
each check refuses a None.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from custody.rules.approvals import Counted, count
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role, business_hours
from custody.rules.intents import TransferIntent
from custody.rules.payouts import DecodedPayload, Place
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Decision, Outcome, stricter
from custody.rules.roster import ApiClient, Person, Roster
from custody.rules.seat_journal import SeatJournal, counted
from custody.rules.seat_request import BundleInForce, Kind, Policies, Request, Transfer
from custody.rules.statements import AssetCoverage, IntentFacts, SafeState, Statement
from custody.rules.wallets import Tier
from custody.rules.walls import COMPANY


@dataclass(frozen=True)
class Item:
    """One transfer of a request with what was found out about it. `digest` is what people approved."""

    transfer: Transfer
    digest: bytes
    proposal: bytes
    facts: IntentFacts | None
    place: Place | None
    internal: WalletCertificate | None
    """The verified certificate of the wallet that it pays, where it pays one of ours."""
    bundles: tuple[BundleInForce, ...]
    """The one that the intent pins and the newest one; empty where the pinned one was never in force here."""

    @property
    def intent(self) -> TransferIntent:
        """What people approved."""
        return self.transfer.intent

    @property
    def most(self) -> int:
        """Base units that it may take out of its wallet, its share of a Bitcoin fee with it: fees are coins that leave, too."""
        return self.intent.amount + self.intent.maximum_fee

    @cached_property
    def to_tier(self) -> Tier | None:
        """Tier of the wallet of ours that it pays; None for every other destination."""
        return None if self.internal is None else Tier(self.internal.tier)

    @cached_property
    def purpose(self) -> Purpose | None:
        """Why coins move, where it is a purpose that exists."""
        return Purpose(self.intent.purpose) if self.intent.purpose in set(Purpose) else None


@dataclass(frozen=True)
class Case:
    """A request, the payload as decoded, and everything this seat knows; made once for each decision."""

    request: Request
    decoded: DecodedPayload
    journal: SeatJournal
    policies: Policies
    now: int
    roster: Roster

    @cached_property
    def kind(self) -> Kind | None:
        """What is asked for."""
        return self.request.kind

    @cached_property
    def time(self) -> int:
        """This seat's time, which never runs back. Seconds since 1970."""
        return max(self.now, self.journal.state.time)

    @property
    def statement(self) -> Statement:
        """What the attestor said."""
        return self.request.statement.message

    @cached_property
    def line(self) -> tuple[WalletCertificate, ...]:
        """The wallet's certificates that this seat accepted, the newest last."""
        return self.journal.state.wallets.get(self.decoded.wallet, ())

    @cached_property
    def certificate(self) -> WalletCertificate | None:
        """The accepted certificate whose keys would sign."""
        return next((c for c in self.line if c.struct_hash == self.decoded.certificate), None)

    @cached_property
    def tier(self) -> Tier | None:
        """The tier that coins would leave."""
        return Tier(self.line[-1].tier) if self.line else None

    @cached_property
    def safe(self) -> SafeState | None:
        """The statement's word on the wallet's Safe; None where it says nothing, or two things."""
        found = [state for state in self.statement.safes if state.wallet == self.decoded.wallet]
        return found[0] if len(found) == 1 else None

    @cached_property
    def rosters(self) -> dict[int, Roster]:
        """The newest roster and every older version that its hash chain reaches, by version."""
        offered = {signed.message.struct_hash: signed for signed in self.request.rosters}
        found = {self.roster.version.version: self.roster}
        at = self.roster.version.previous
        while (signed := offered.pop(at, None)) is not None:
            found[signed.message.version] = Roster(signed, self.roster.domain.genesis)
            at = signed.message.previous
        return found

    @cached_property
    def certificates(self) -> dict[bytes, WalletCertificate]:
        """Certificates that hold: those this seat accepted, and those offered that a quorum of the newest roster signed."""
        offered = [
            signed for signed in self.request.certificates if not [*self.roster.check_certificate(signed, self.time)]
        ]
        return {signed.message.struct_hash: signed.message for signed in (*offered, *self.journal.state.certificates)}

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The transfers, each with what belongs to it."""
        told: dict[bytes, list[IntentFacts]] = {}
        for facts in self.statement.intents:
            told.setdefault(facts.intent, []).append(facts)
        places = {leaf.destination: leaf.place for leaf in self.decoded.payments if leaf.place is not None}
        return tuple(self._item(transfer, told, places) for transfer in self.request.transfers)

    def _item(self, transfer: Transfer, told: dict[bytes, list[IntentFacts]], places: dict[str, Place]) -> Item:
        intent = transfer.intent
        digest = self.roster.domain.digest(intent)
        facts, place = told.get(digest, []), places.get(intent.destination)
        pinned = self.policies.of(intent.policy) if intent.policy in self.journal.policies else None
        return Item(
            transfer,
            digest,
            transfer.proposal.message.struct_hash,
            facts[0] if len(facts) == 1 else None,
            place,
            self.certificates.get(place.certificate) if place is not None else None,
            (pinned, self.policies.newest) if pinned is not None else (),
        )

    @cached_property
    def initiators(self) -> dict[bytes, Person | ApiClient | None]:
        """Who signed each proposal, by the intent's digest: an unexpired entry of the newest roster that may propose."""
        return {item.digest: self._initiator(item.transfer) for item in self.items}

    def _initiator(self, transfer: Transfer) -> Person | ApiClient | None:
        for key in sorted(transfer.proposal.signers(self.roster.domain), key=str):
            client, person = self.roster.clients_by_key.get(key), self.roster.people_by_key.get(key)
            if client is not None and client.expires > self.time and "propose" in client.scopes:
                return client
            if person is not None and person.expires > self.time:
                return person
        return None

    def row(self, asset: str) -> AssetCoverage | None:
        """The statement's one row for an asset; None where there is none, or more than one."""
        rows = [row for row in self.statement.coverage if row.asset == asset]
        return rows[0] if len(rows) == 1 else None

    @cached_property
    def decisions(self) -> dict[bytes, Decision]:
        """Policy's answer to each transfer, the stricter of pinned and newest; none where the pinned bundle is not known."""
        found = {}
        for item in self.items:
            if item.bundles:
                facts = self._facts(item)
                pinned, newest = (bundle.rules for bundle in item.bundles)
                first = pinned.evaluate(facts)
                found[item.digest] = first if newest is pinned else stricter(first, newest.evaluate(facts))
        return found

    def is_new(self, item: Item) -> bool:
        """Whether this seat never signed for the intent: a variant of a payout counts towards no cap again."""
        return item.digest not in self.journal.intents

    @cached_property
    def automatic_asked(self) -> dict[str, int]:
        """Base units by asset that policy would let go by themselves, all of this request together: many small are one large."""
        found: dict[str, int] = {}
        for item in self.items:
            decision = self.decisions.get(item.digest)
            if decision is not None and decision.outcome is Outcome.AUTOMATIC and self.is_new(item):
                found[item.intent.asset] = found.get(item.intent.asset, 0) + item.most
        return found

    @cached_property
    def approvers(self) -> dict[bytes, Counted]:
        """Who approved each intent, verified afresh; nobody where the pinned roster version is not reached."""
        found = {}
        for item in self.items:
            pinned = self.rosters.get(item.intent.roster)
            nobody = Counted(frozenset(), (Refusal(Rule.ROSTER_OLDER, pinned=item.intent.roster),))
            found[item.digest] = (
                nobody
                if pinned is None
                else count(item.transfer.approvals, item.intent, item.digest, pinned, self.roster, self.time)
            )
        return found

    def _facts(self, item: Item) -> Facts:
        """What policy may know. From certificates, enrolment, roster and bundles by this seat; the rest from the statement (TRUST.md)."""
        told, intent = item.facts, item.intent
        kind = intent.destination_kind
        return Facts(
            from_tier=self.tier,
            to=Destination(kind) if kind in set(Destination) else None,
            to_tier=item.to_tier,
            owner=self._owner(item),
            purpose=item.purpose,
            role=role_of(self.initiators[item.digest]),
            asset=intent.asset,
            amount=intent.amount,
            usd=None if told is None else told.usd,
            customer_24h=None if told is None else told.customer_24h,
            wallet_1h=None if told is None else told.wallet_1h,
            initiator_24h=None if told is None else told.initiator_24h,
            settled_24h=None if told is None else told.settled_24h,
            dest_age=None if told is None else _age(self.statement.time, told.destination_first_seen),
            dest_balance_after=None if told is None else told.destination_after,
            enrolled=item.internal is not None or item.transfer.enrolment is not None,
            related_entity=any(b.parties.is_related(intent.account, intent.destination) for b in item.bundles),
            sanctioned=any(b.parties.is_sanctioned(intent.destination) for b in item.bundles),
            within_accrued_fees=item.purpose is Purpose.FEE_SWEEP and not [*self.fee_faults(item)],
            business_hours=business_hours(self.time),
        )

    def _owner(self, item: Item) -> Owner:
        enrolment = item.transfer.enrolment
        if item.to_tier is not None:
            return Owner.CUSTOMERS if item.to_tier.is_customer else Owner.COMPANY
        if enrolment is None:
            return Owner.NOBODY
        if enrolment.message.owner == COMPANY:
            return Owner.COMPANY
        return Owner.THE_CUSTOMER if enrolment.message.owner == item.intent.account else Owner.ANOTHER_CUSTOMER

    def fee_faults(self, item: Item) -> Iterator[Refusal]:
        """Why a fee sweep is more than fees: above what matured, or above the schedule's cap for a day (DESIGN.md, law 1).

        The statement's `matured_fees` is what may still be swept, all that is pending taken off but this payout's own intents.
        """
        asset = item.intent.asset
        sweeps = [i for i in self.items if i.intent.asset == asset and i.purpose is Purpose.FEE_SWEEP]
        units = sum(i.intent.amount for i in sweeps)
        row = self.row(asset)
        matured = row.matured_fees if row is not None else 0
        if units > matured:
            yield Refusal(Rule.WALL, asset=asset, units=units, matured=matured)
        most = min((bundle.fees.daily_cap.get(asset, 0) for bundle in item.bundles), default=0)
        told = item.facts.swept_24h if item.facts is not None else None
        own = counted(self.journal.swept, asset, self.time) + sum(i.intent.amount for i in sweeps if self.is_new(i))
        if told is None or max(told, own) > most:
            yield Refusal(Rule.WALL, asset=asset, swept_24h=told, by_this_seat=own, daily_cap=most)

    def floor(self, item: Item) -> int | None:
        """Distinct people that this seat asks for at the least, whatever anybody says; None where no floor is known."""
        if self.tier is None or not item.bundles:
            return None
        try:
            return max(
                b.rules.floors.people_for(self.tier, item.intent.asset, item.intent.amount) for b in item.bundles
            )
        except (InvalidInput, KeyError):
            return None


def role_of(initiator: Person | ApiClient | None) -> Role | None:
    """The role that a roster entry gives: a client's own, or the one role that is among a person's groups; None is unknown."""
    names = [] if initiator is None else [initiator.role] if isinstance(initiator, ApiClient) else initiator.groups
    roles = {Role(name) for name in names if name in set(Role)}
    return roles.pop() if len(roles) == 1 else None


def _age(now: int, since: int) -> int:
    return max(0, now - since) if since else 0
