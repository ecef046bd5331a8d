# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coins go out: policy decides, people approve with their own keys, every seat decides for itself, the ledger settles."""

from eth_account import Account

from custody.composing import wall_clock
from custody.flows.bookkeeping import record_settlement
from custody.flows.customers import add_customer
from custody.flows.proposals import reject
from custody.rules.facts import Purpose
from custody.rules.intents import Rejection
from custody.rules.refusals import Rule
from custody.rules.settlements import Leg, Settlement, Trade
from custody.rules.signatures import Signed
from custody.rules.transfers import Status
from custody.rules.wallets import Tier
from devnet.birth import BITCOIN, EVM
from devnet.scenes.desk import Desk, outcome
from devnet.scenes.stage import Stage
from devnet.story import Story


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


def affiliate(stage: Stage, story: Story) -> None:
    """The founders' trading company asks for a hundred dollars: what goes by itself for alice takes four desks and a day here."""
    story.chapter("An affiliate asks for as little as anybody: four desks, and a day")
    desk, deployment, cast = Desk(stage), stage.deployment, stage.world.cast
    name, units, address = "trading-desk", 5 * 10**16, Account.create().address
    add_customer(deployment.store, name)
    legs = (Leg("alice", "ETH", -units), Leg(name, "ETH", units))
    trade = Settlement("settlement-4", "matching", deployment.bundle.hash, wall_clock(), (Trade("t-4", legs, ()),))
    signed = cast.sign(deployment.roster.domain, Signed(trade, ()), ["matching"])
    record_settlement(
        deployment.store, deployment.roster, signed, deployment.bundle.fees, deployment.bundle.assets, wall_clock()
    )
    desk.enrol(name, EVM, address)
    desk.pass_a_day()
    asked = desk.propose("affiliate-eth", name, "ETH", units, address)
    groups = {"risk", "compliance", "executive", "board"}
    waits = asked.status is Status.PENDING_AUTHORIZATION and all(group in asked.waiting_for for group in groups)
    story.claim(
        "parties.yaml lists it, so it waits for risk, compliance, an executive and the board", waits, asked.waiting_for
    )
    no = cast.sign(deployment.roster.domain, Signed(Rejection(asked.digest, "not before the audit"), ()), ["cleo"])
    ended = reject(deployment.store, desk.worker.kernel(), no, desk.clock())
    story.claim("one person's no ends it", ended.status is Status.REJECTED, ended.status)


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
    more = outcome(lambda: desk.ask("fees-more", "company", "USDX", accrued + 1, own, "gil", Purpose.FEE_SWEEP))
    story.claim("one unit more than what accrued: refused", bool(more), ", ".join(sorted(more)))
    theirs = outcome(lambda: desk.ask("theirs", "customer:bob", "USDX", 10**6, own, "gil", Purpose.FEE_SWEEP))
    story.claim("a customer's coins to the company: refused", bool(theirs), ", ".join(sorted(theirs)))
    sweep = desk.ask("fees", "company", "USDX", accrued, own, "gil", Purpose.FEE_SWEEP)
    early = desk.now(sweep).waiting_for
    refused = {person: desk.approve(sweep, person) for person in ("ana", "cleo")}
    story.claim("treasury and risk approve", refused == {"ana": set(), "cleo": set()}, early)
    desk.work(story, sweep)
    story.claim("the fees are swept", desk.now(sweep).status is Status.COMPLETED, desk.now(sweep).waiting_for)


def refusals(stage: Stage, story: Story) -> None:
    """What is not even recorded as waiting, each by its rule; the other refusals stand in the scenes of attacks."""
    story.chapter("Refused: by proposals, before anything is held")
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
        rules = outcome(attempt)
        story.claim(f"{what}: refused", bool(rules) and (rule is None or str(rule) in rules), ", ".join(sorted(rules)))
