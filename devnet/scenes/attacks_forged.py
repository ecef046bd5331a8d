# SPDX-License-Identifier: AGPL-3.0-or-later
"""A forged automatic payout: small enough that nobody would be asked, made up by whoever owns worker and database.

The attacker has a fresh word of the attestor on the next nonce, the enrolment of a real customer, and, in the last cases, the
backend's own key; what is missing each time is one thing that only somebody else could have made.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import cycle

from eth_account import Account

from custody.chains.evm.leaves import Call, payment_call, safe_tx
from custody.flows import payout_records as records
from custody.flows.customers import add_customer
from custody.flows.proposals import propose
from custody.rules import holds
from custody.rules.certificates import Enrolment
from custody.rules.intents import Anchor, Proposal, TransferIntent
from custody.rules.origins import Hold
from custody.rules.payments import Payment
from custody.rules.payouts import SafeTx
from custody.rules.refusals import Rule
from custody.rules.seat_request import Request, Transfer
from custody.rules.signatures import Signed
from custody.rules.statements import IntentFacts, Statement
from custody.rules.transfers import Permit, uuid7
from custody.rules.wallets import Address
from devnet.birth import EVM
from devnet.scenes.attacks import Attacker, refused
from devnet.scenes.attacks_people import PAID
from devnet.scenes.desk import Desk, find
from devnet.scenes.handed import next_anchor
from devnet.scenes.stage import Stage
from devnet.story import Story

UNITS = 10**16


def forged(stage: Stage, story: Story) -> None:
    """Each forgery to a seat's own process; and what proposals, the ledger and the attestor say to an empty account."""
    story.chapter("Refused: automatic payouts that nobody asked for")
    desk = Desk(stage)
    attacker = Attacker(desk)
    add_customer(stage.deployment.store, "erin")
    empty = Account.create().address
    desk.enrol("erin", EVM, empty)
    desk.pass_a_day()
    forge = _Forge(stage, attacker)
    before = attacker.positions()
    for (what, rule, request), (name, seat) in zip(_forgeries(forge), cycle(attacker.seats.items()), strict=False):
        refused(story, f"seat {name}", what, rule, lambda seat=seat, request=request: seat.sign(request))  # type: ignore[misc]
    signer, again = forge.who_signed(), forge.request(forge.transfer(forge.paid.proposal))
    seat, what = attacker.seats[signer], "alice's paid proposal once more"
    refused(story, f"seat {signer}, which signed it then", what, Rule.PROPOSAL_BOUND, lambda: seat.sign(again))
    _empty_account(story, forge, empty)
    story.claim("nothing was signed: no seat's journal moved", attacker.positions() == before)


@dataclass
class _Forge:
    """What an attacker puts together: true parts where there are any, made-up ones where not."""

    stage: Stage
    attacker: Attacker

    @cached_property
    def permit(self) -> Permit:
        """The permit of what was paid."""
        return self.attacker.permit(find(self.stage, PAID))

    @cached_property
    def paid(self) -> Transfer:
        """The documents of what was paid."""
        request = self.attacker.asked(self.permit.reservation.anchor)
        return next(t for t in request.transfers if t.proposal.message.reference == PAID)

    @cached_property
    def anchor(self) -> Anchor:
        """The hot Safe's next nonce."""
        return next_anchor(self.attacker.desk, find(self.stage, PAID)).anchor

    @cached_property
    def statement(self) -> Signed[Statement]:
        """The attestor's fresh word on this nonce; it speaks for no intent, since there is none. Unused, it serves again."""
        return self.stage.attestor.attest(self.anchor, ())

    def proposal(self, signer: str, **changes: object) -> Signed[Proposal]:
        """A proposal as alice's, signed with this program's key."""
        until = self.attacker.desk.clock() + 86_400
        said: dict[str, object] = {"reference": os.urandom(4).hex(), "amount": UNITS, "expiry": until, **changes}
        message = replace(self.paid.proposal.message, **said)  # type: ignore[arg-type]
        digest = self.stage.deployment.roster.domain.digest(message)
        return Signed(message, (self.stage.world.cast.programs[signer].sign(digest),))

    def transfer(
        self, proposal: Signed[Proposal], enrolment: Signed[Enrolment] | None = None, **changes: object
    ) -> Transfer:
        """The intent that such a proposal would have become."""
        now, message, enrolled = self.attacker.desk.clock(), proposal.message, enrolment or self.paid.enrolment
        said: dict[str, object] = {
            "id": uuid7(now * 1000, os.urandom(10)),
            "proposal": message.struct_hash,
            "account": message.account,
            "amount": message.amount,
            "destination": message.destination,
            "enrolment": enrolled.message.struct_hash if enrolled is not None else bytes(32),
            "not_before": now,
            "expiry": message.expiry,
        }
        intent = replace(self.paid.intent, **{**said, **changes})  # type: ignore[arg-type]
        return Transfer(proposal, intent, (), enrolled)

    def request(self, *transfers: Transfer, statement: Signed[Statement] | None = None) -> Request:
        """A payload that pays exactly these, and nothing wrong in it."""
        assets = self.stage.deployment.bundle.assets
        calls = [payment_call(self._payment(transfer.intent), assets, EVM) for transfer in transfers]
        return self._asked(calls, statement or self.statement, transfers)

    def unasked(self) -> Request:
        """A payment with no transfer behind it at all."""
        return self._asked([Call("", Account.create().address, UNITS, b"")], self.statement, ())

    def self_attested(self) -> Request:
        """Everything as it should be, but that the attacker's own key says so."""
        transfer, now = self.transfer(self.proposal("backend")), self.attacker.desk.clock()
        told = {"usd": 1, "customer_24h": 1, "wallet_1h": 1, "initiator_24h": 1, "settled_24h": 0, "swept_24h": 0}
        digest = self.stage.deployment.roster.domain.digest(transfer.intent)
        facts = IntentFacts(
            intent=digest,
            hold_stands=True,
            balance_covers=True,
            destination_after=UNITS,
            first_seen=now,
            destination_first_seen=1,
            **told,
        )
        message = replace(self.statement.message, intents=(facts,))
        signature = self.stage.world.cast.programs["backend"].sign(self.stage.deployment.roster.domain.digest(message))
        return self.request(transfer, statement=Signed(message, (signature,)))

    def who_signed(self) -> str:
        """A seat whose signature is on the paid payout."""
        store, names = self.stage.deployment.store, list(self.attacker.seats)
        (variant,) = store.read(lambda work: records.variants(work, self.permit.reservation.anchor))
        return min(store.read(lambda work: records.signatures(work, variant.unsigned, names)))

    def _asked(self, calls: list[Call], statement: Signed[Statement], transfers: tuple[Transfer, ...]) -> Request:
        wallet = self.stage.deployment.hot_wallet(EVM)
        payload: SafeTx = safe_tx(wallet.certificate, int(self.anchor.reference), calls)
        return Request(payload, wallet.name, statement, transfers)

    def _payment(self, intent: TransferIntent) -> Payment:
        digest = self.stage.deployment.roster.domain.digest(intent)
        return Payment(digest, intent.asset, intent.amount, Address(EVM, intent.destination))


def _forgeries(forge: _Forge) -> Iterator[tuple[str, Rule, Request]]:
    alices, bobs = forge.proposal("backend"), forge.proposal("backend", account="customer:bob")
    unsigned = replace(alices, signatures=())
    yield "no proposal", Rule.PAYLOAD_MISMATCH, forge.unasked()
    yield "a proposal that nobody signed", Rule.SIGNER_UNKNOWN, forge.request(forge.transfer(unsigned))
    settling = forge.proposal("matching")
    yield "a proposal by the settling key", Rule.SIGNER_UNKNOWN, forge.request(forge.transfer(settling))
    yield (
        "alice's proposal, bob debited",
        Rule.PROPOSAL_MISMATCH,
        forge.request(forge.transfer(alices, account="customer:bob")),
    )
    yield "bob's coins to alice's address", Rule.OWNER_MISMATCH, forge.request(forge.transfer(bobs))
    yield (
        "alice's proposal, ten times its amount",
        Rule.PROPOSAL_MISMATCH,
        forge.request(forge.transfer(alices, amount=10 * UNITS)),
    )
    stranger, enrolled = Account.create().address, forge.paid.enrolment
    if enrolled is not None:
        message = replace(enrolled.message, address=stranger)
        by_bo = forge.stage.world.cast.sign(forge.stage.deployment.roster.domain, Signed(message, ()), ["bo"])
        asked = forge.transfer(forge.proposal("backend", destination=stranger), by_bo)
        yield "an address enrolled by somebody who may not", Rule.SIGNATURE_INVALID, forge.request(asked)
    yield "a hold that nobody made", Rule.HOLD, forge.request(forge.transfer(alices))
    yield "a statement by another key", Rule.SIGNATURE_INVALID, forge.self_attested()


def _empty_account(story: Story, forge: _Forge, address: str) -> None:
    """Dora has no coin. The backend's own key asks for some all the same, in every way there is."""
    desk, deployment = forge.attacker.desk, forge.stage.deployment
    enrolment = deployment.store.read(lambda work: work.enrolments.at(EVM.name, address))[0].enrolment
    asked = forge.proposal("backend", account="customer:erin", destination=address)
    transfer = forge.transfer(asked, enrolment)
    digest = deployment.roster.domain.digest(transfer.intent)
    entry = holds.hold(Hold(asked.message, asked.signatures, transfer.intent), deployment.bundle.assets)
    if entry is None:
        raise LookupError("a withdrawal holds something")
    what, kernel = "an empty account debited", desk.worker.kernel()
    for who, rule, attempt in (
        (
            "proposals.propose",
            Rule.INSUFFICIENT_BALANCE,
            lambda: propose(deployment.store, kernel, asked, "erin-1", desk.clock(), os.urandom(10)),
        ),
        (
            "the ledger",
            Rule.INSUFFICIENT_BALANCE,
            lambda: deployment.store.run(lambda work: work.journal.append(entry, desk.clock())),
        ),
        ("the attestor", Rule.HOLD, lambda: forge.stage.attestor.attest(forge.anchor, [digest])),
        ("seat hot-1", Rule.INSUFFICIENT_BALANCE, lambda: forge.attacker.seats["hot-1"].sign(forge.request(transfer))),
    ):
        refused(story, who, what, rule, attempt)
