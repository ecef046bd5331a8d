# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coins go out: policy decides, people approve with their own keys, every seat decides for itself, the ledger settles."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from eth_account import Account

from custody import parts
from custody.attestor import RemoteAttestor
from custody.flows.ports import Clock, UnitOfWork
from custody.flows.proposals import approve, enrol, propose
from custody.flows.signing import to_carry
from custody.flows.worker import Parts
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.errors import CustodyError
from custody.rules.facts import Purpose
from custody.rules.intents import Proposal
from custody.rules.payouts import SafeTx
from custody.rules.refusals import Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain, Tier
from custody.working import open_worker, work_once
from devnet.birth import BITCOIN, EVM
from devnet.prices import put_prices
from devnet.scenes.stage import Stage
from devnet.story import Story

DAY: Final = 86_400
_ROUNDS: Final = 6


@dataclass
class Desk:
    """The backend's and the treasury's side of one stage, over the same flows that API and worker run."""

    stage: Stage

    @cached_property
    def worker(self) -> Parts:
        """The worker's parts, on real seats, attestor, relayer and nodes."""
        return open_worker(self.stage.deployment)

    @property
    def clock(self) -> Clock:
        """The statement's time."""
        return self.worker.clock

    def attestor(self) -> RemoteAttestor:
        """The attestor with its clock."""
        told = parts.attestor(self.stage.deployment.settings)
        if not isinstance(told, RemoteAttestor):
            raise TypeError(type(told).__name__)
        return told

    def pass_a_day(self) -> None:
        """What was enrolled has been seen; the statement clock moves on, and feeders quote again."""
        self.attestor().statement()
        self.attestor().advance(DAY + 3_600)
        self.quote()

    def quote(self) -> None:
        """Two feeders sign prices of now."""
        deployment = self.stage.deployment
        put_prices(deployment.store, self.stage.world.cast, deployment.roster, self.clock())

    def enrol(self, customer: str, chain: Chain, address: str) -> None:
        """An address authority signs that this address is the customer's."""
        deployment = self.stage.deployment
        message = Enrolment(
            chain.name, address, f"customer:{customer}", "customer_withdrawal", bytes(32), self.clock() + 900 * DAY
        )
        signed = self.stage.world.cast.sign(deployment.roster.domain, Signed(message, ()), ["hana"])
        enrol(deployment.store, self.worker.kernel(), signed, self.clock())

    def propose(
        self, reference: str, customer: str, asset: str, units: int, destination: str, signer: str = "backend"
    ) -> Transfer:
        """A signed proposal of a customer's withdrawal."""
        return self.ask(reference, f"customer:{customer}", asset, units, destination, signer, Purpose.WITHDRAWAL)

    def ask(
        self, reference: str, account: str, asset: str, units: int, destination: str, signer: str, purpose: Purpose
    ) -> Transfer:
        """A signed proposal of any purpose."""
        deployment = self.stage.deployment
        chain = deployment.bundle.assets.get(asset).chain
        until = self.clock() + 7 * DAY
        message = Proposal(reference, account, chain.name, asset, units, destination, purpose.value, until)
        signed = self.stage.world.cast.sign(deployment.roster.domain, Signed(message, ()), [signer])
        return propose(deployment.store, self.worker.kernel(), signed, reference, self.clock(), os.urandom(10))

    def approve(self, transfer: Transfer, person: str) -> set[str]:
        """A person's own signature over the intent's digest; the rules that refuse it, where they do."""
        deployment, cast = self.stage.deployment, self.stage.world.cast
        digest = deployment.roster.domain.digest(transfer.intent)
        try:
            signature = cast.people[person].sign(digest)
            approve(deployment.store, self.worker.kernel(), Approval(digest, person, signature), self.clock())
        except Refused as refused:
            return {str(refusal.rule) for refusal in refused.refusals}
        return set()

    def now(self, transfer: Transfer) -> Transfer:
        """The transfer as it stands."""
        found = self.stage.deployment.store.read(lambda work: work.transfers.get(transfer.digest))
        if found is None:
            raise LookupError(transfer.intent.id)
        return found

    def work(self, story: Story, *transfers: Transfer) -> None:
        """Worker and watcher, with blocks between, until these transfers end or nothing moves."""
        for _ in range(_ROUNDS):
            try:
                told = list(work_once(self.worker))
            except CustodyError as error:
                told = [f"worker: {error}"]
            for line in told:
                _tell(story, line)
            if all(self.now(transfer).status.is_final for transfer in transfers):
                return
            self.stage.mine(4)
            self.stage.watch()


def _tell(story: Story, line: str) -> None:
    """What the worker moved, in a line a person reads; what waits is told by the claims."""
    if not line.startswith("{"):
        story.tell(line)
        return
    told = json.loads(line)
    if told["event"] == "moved":
        story.tell(f"{told['transfer']}: {told['status']} {told.get('waiting_for', '')}".rstrip())
    elif told["event"] == "fault":
        story.tell(f"worker: {told['why']}")


def automatic(stage: Stage, story: Story) -> None:
    """A small withdrawal on each chain goes out by itself, inside the caps that each seat counts."""
    story.chapter("A small withdrawal goes out by itself, inside the caps")
    desk = Desk(stage)
    bitcoin = str(stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner"))
    ether = Account.create().address
    desk.quote()
    desk.enrol("alice", BITCOIN, bitcoin)
    desk.enrol("alice", EVM, ether)
    desk.pass_a_day()
    sent = [
        desk.propose("small-btc", "alice", "BTC", 10_000_000, bitcoin),
        desk.propose("small-eth", "alice", "ETH", 3 * 10**17, ether),
    ]
    for transfer in sent:
        story.tell(f"{transfer.proposal.message.reference}: {transfer.status}, waits for {transfer.waiting_for}")
    desk.work(story, *sent)
    ended = [desk.now(transfer) for transfer in sent]
    for transfer in ended:
        reference = transfer.proposal.message.reference
        held = transfer.status is Status.COMPLETED
        story.claim(f"{reference}: completed without a person", held, f"{transfer.status} {transfer.waiting_for}")
    paid = int(str(stage.world.net.anvil.rpc("eth_getBalance", ether, "latest")), 16)
    story.claim("the chain says that the ether arrived, to the wei", paid == 3 * 10**17, paid)


def by_people(stage: Stage, story: Story) -> None:
    """A larger one waits for named groups, and goes out once they have signed exactly this intent."""
    story.chapter("A larger withdrawal waits for people, each with a key of their own")
    desk = Desk(stage)
    address = str(stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner"))
    desk.enrol("bob", BITCOIN, address)
    desk.pass_a_day()
    large = desk.propose("large-btc", "bob", "BTC", 60_000_000, address)
    story.claim("it waits for approvals", large.status is Status.PENDING_AUTHORIZATION, large.waiting_for)
    desk.work(story, large)
    story.claim(
        "nobody signs it before", desk.now(large).status is Status.PENDING_AUTHORIZATION, desk.now(large).waiting_for
    )
    refused = {person: desk.approve(large, person) for person in ("ana", "cleo")}
    story.claim("ana of operations and cleo of risk approve", refused == {"ana": set(), "cleo": set()}, "")
    desk.work(story, large)
    story.claim("then it is paid", desk.now(large).status is Status.COMPLETED, desk.now(large).waiting_for)


def batches(stage: Stage, story: Story) -> None:
    """Several customers' withdrawals go out together: one payout, one anchor, on each chain."""
    story.chapter("Several withdrawals at once: one payout on each chain")
    desk, sent = Desk(stage), []
    miner = stage.world.net.bitcoind
    for customer, units in (("alice", 4_000_000), ("bob", 5_000_000), ("carol", 6_000_000)):
        bitcoin, ether = str(miner.rpc("getnewaddress", wallet="miner")), Account.create().address
        desk.enrol(customer, BITCOIN, bitcoin)
        desk.enrol(customer, EVM, ether)
        sent += [(customer, "BTC", units, bitcoin), (customer, "ETH", units * 10**10, ether)]
    desk.pass_a_day()
    transfers = [
        desk.propose(f"batch-{customer}-{asset}", customer, asset, units, to) for customer, asset, units, to in sent
    ]
    desk.work(story, *transfers)
    ended = [desk.now(transfer) for transfer in transfers]
    done = [transfer for transfer in ended if transfer.status is Status.COMPLETED]
    story.claim("all of them are paid", len(done) == len(ended), f"{len(done)} of {len(ended)}")
    permits = stage.deployment.store.read(lambda work: [work.transfers.permit_of(t.digest) for t in transfers])
    anchors = {permit.reservation.anchor for permit in permits if permit is not None}
    story.claim("by one transaction on each chain", len(anchors) == 2, f"{len(anchors)} anchors")


def fees(stage: Stage, story: Story) -> None:
    """What trades accrued goes to the company once it matured; not a unit more, whoever asks."""
    story.chapter("Fees matured: the company takes what accrued, and no more")
    desk = Desk(stage)
    own = next(w for w in stage.deployment.inventory().on(EVM) if w.tier is Tier.OPERATIONAL).place
    accrued = 30_000_000
    desk.pass_a_day()
    more = _outcome(lambda: desk.ask("fees-more", "company", "USDX", accrued + 1, own, "gil", Purpose.FEE_SWEEP))
    story.claim("one unit more than what accrued: refused", bool(more), ", ".join(sorted(more)))
    theirs = _outcome(lambda: desk.ask("theirs", "customer:bob", "USDX", 10**6, own, "gil", Purpose.FEE_SWEEP))
    story.claim("a customer's coins to the company: refused", bool(theirs), ", ".join(sorted(theirs)))
    sweep = desk.ask("fees", "company", "USDX", accrued, own, "gil", Purpose.FEE_SWEEP)
    early = desk.now(sweep).waiting_for
    refused = {person: desk.approve(sweep, person) for person in ("ana", "cleo")}
    story.claim("treasury and risk approve", refused == {"ana": set(), "cleo": set()}, early)
    desk.work(story, sweep)
    story.claim("the fees are swept", desk.now(sweep).status is Status.COMPLETED, desk.now(sweep).waiting_for)


def refusals(stage: Stage, story: Story) -> None:
    """What is refused on the way, each by its rule and by whom."""
    story.chapter("Refused: by proposals, by approvals, and by every seat that is handed something else")
    desk, ether = Desk(stage), Account.create().address
    stranger = Account.create().address
    own = next(w for w in stage.deployment.inventory().on(EVM) if w.tier is Tier.OPERATIONAL).place
    desk.enrol("bob", EVM, ether)
    desk.pass_a_day()
    for what, rule, attempt in (
        ("an address that nobody enrolled", None, lambda: desk.propose("r-1", "bob", "ETH", 10**17, stranger)),
        ("somebody else's enrolled address", None, lambda: desk.propose("r-2", "carol", "ETH", 10**17, ether)),
        ("more than the balance", Rule.INSUFFICIENT_BALANCE, lambda: desk.propose("r-3", "bob", "ETH", 10**20, ether)),
        (
            "a customer's coins to the company's own Safe",
            None,
            lambda: desk.propose("r-6", "bob", "ETH", 10**17, own),
        ),
        (
            "a settling key that proposes",
            Rule.SCOPE_MISSING,
            lambda: desk.propose("r-4", "bob", "ETH", 10**17, ether, "matching"),
        ),
        (
            "an address authority that proposes",
            Rule.AUTHORITY_PROPOSES,
            lambda: desk.propose("r-5", "bob", "ETH", 10**17, ether, "hana"),
        ),
    ):
        rules = _outcome(attempt)
        story.claim(f"{what}: refused", bool(rules) and (rule is None or str(rule) in rules), ", ".join(sorted(rules)))
    mine = desk.propose("by-bo", "bob", "ETH", 6 * 10**18, ether, "bo")
    story.claim(
        "bo, who proposed, does not approve it",
        str(Rule.INITIATOR_APPROVES) in desk.approve(mine, "bo"),
        mine.waiting_for,
    )
    _seats_refuse(desk, story)


def _outcome(attempt: Callable[[], Transfer]) -> set[str]:
    """The rules that refused, or the policy's denial as recorded; empty where it was taken."""
    try:
        transfer = attempt()
    except Refused as refused:
        return {str(refusal.rule) for refusal in refused.refusals}
    return {str(transfer.sub_status)} if transfer.status is Status.BLOCKED else set()


def _seats_refuse(desk: Desk, story: Story) -> None:
    """The request of the payout that went out, with one thing changed, straight to a seat's own process."""
    store, seats = desk.stage.deployment.store, parts.seats(desk.stage.deployment.settings)
    permits = store.read(lambda work: [p for t in _all(work) if (p := work.transfers.permit_of(t.digest))])
    requests = [found for permit in permits if (found := to_carry(store, permit.reservation.anchor))]
    evm = next(request for request in requests if isinstance(request.payload, SafeTx))
    payload = evm.payload
    if not isinstance(payload, SafeTx):
        raise TypeError(type(payload).__name__)
    stranger = Account.create().address
    told: dict[str, Request] = {
        "operation=1 in a payload that was approved as a payment": replace(
            evm, payload=replace(payload, operation=1 - payload.operation)
        ),
        "another destination": replace(evm, payload=replace(payload, to=stranger, data=b"", value=10**17, operation=0)),
        "a payment that nobody proposed": replace(evm, transfers=()),
        "another nonce for the same intents": replace(evm, payload=replace(payload, nonce=payload.nonce + 7)),
    }
    for what, request in told.items():
        try:
            seats["hot-1"].sign(request)
        except Refused as refused:
            rules = sorted({str(refusal.rule) for refusal in refused.refusals})
            story.claim(f"seat hot-1, {what}: refused", bool(rules), ", ".join(rules)[:160])
        else:
            story.claim(f"seat hot-1, {what}: refused", held=False, seen="it signed")


def _all(work: UnitOfWork) -> list[Transfer]:
    return [transfer for _, transfer in work.transfers.page(0, 500)]
