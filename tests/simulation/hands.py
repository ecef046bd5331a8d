# SPDX-License-Identifier: AGPL-3.0-or-later
"""What may happen in a run: customers, people, processes, chains, accidents, and hostile hands. One method each, chosen by the seed.

A method returns what it did, for the trace. What the code under test refuses or cannot reach is part of the trace too.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from custody.flows import payouts, proposals
from custody.flows.bookkeeping import record_manual, record_settlement
from custody.flows.ports import Branch
from custody.rules.approvals import Approval
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import Proposal, Rejection, Void
from custody.rules.ledger import Account, AccountKind
from custody.rules.payouts import SafeTx
from custody.rules.refusals import Refused
from custody.rules.settlements import FeeLeg, Leg, ManualEntry, ManualPosting, Settlement, Trade
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.seat import BITCOIN, EVM, HOT, ed25519, secp256k1, signed_by
from tests.simulation import birth
from tests.simulation.blocks import Chainlike
from tests.simulation.evm import Relayed
from tests.simulation.gates import Crash, Fault
from tests.simulation.invariants import UNFUNDED, UNIT, Scene

CHAIN: Final = {"ETH": EVM, "USDX": EVM, "BTC": BITCOIN}
SMALL: Final = {"ETH": 10**17, "USDX": 10**8, "BTC": 10**6}
MOODS: Final = ("silent", "silent", "refuses", "lies", "poses")
DEEPEST: Final = 200
"""The farthest call of a process at which a fault strikes."""


@dataclass
class Hands:
    """Everybody of one run."""

    scene: Scene
    faulty: float = 0.35
    """How often a process meets a fault while it does something."""
    tally: Counter[str] = field(default_factory=Counter)
    proposed: list[tuple[Signed[Proposal], str]] = field(default_factory=list)
    count: int = 0
    then: list[Callable[["Hands"], str]] = field(default_factory=list)
    """What follows whatever the seed says, as long as there is something."""

    def __post_init__(self) -> None:
        self.world = self.scene.world
        self.rng = self.world.rng
        self.hostile = self.world.seats[self.rng.randrange(len(HOT))]

    # beginning

    def fund(self) -> str:
        """Customers, the company and the cold wallets have coins from the beginning."""
        for customer in birth.CUSTOMERS:
            self._pay("ETH", self.world.born.address(customer, EVM).text, 30 * UNIT["ETH"])
            self._pay("USDX", self.world.born.address(customer, EVM).text, 200_000 * UNIT["USDX"])
            self._pay("BTC", self.world.born.address(customer, BITCOIN).text, 3 * UNIT["BTC"])
        for tier in (Tier.OPERATIONAL, Tier.CUSTOMER_COLD):
            self._pay("ETH", self._main(tier, EVM), 40 * UNIT["ETH"])
            self._pay("BTC", self._main(tier, BITCOIN), UNIT["BTC"])
        for _ in range(6):
            self.world.pass_time(60)
            for node in self._nodes():
                node.mine()
        for chain in (EVM, BITCOIN):
            self.world.watch(chain)
        return "funded"

    # customers

    def deposit(self) -> str:
        """Coins arrive: a customer's, the company's, a stranger's at the omnibus, or dust."""
        symbol = self.rng.choice(["ETH", "USDX", "BTC", "BTC"])
        chain = CHAIN[symbol]
        who = self.rng.choice([*birth.CUSTOMERS, *birth.CUSTOMERS, "company", "stranger"])
        if who in birth.CUSTOMERS:
            to = self.world.born.address(who, chain).text
        else:
            to = self._main(Tier.OPERATIONAL if who == "company" else Tier.CUSTOMER_HOT, chain)
        units = self.rng.choice([SMALL[symbol], UNIT[symbol], 5 * UNIT[symbol], 100])
        self._pay(symbol, to, units)
        return f"{who} pays in {units} {symbol}"

    def withdraw(self) -> str:
        """A customer asks: mostly little, which goes by itself; sometimes what people have to see, or more than there is."""
        symbol = self.rng.choice([*CHAIN])
        customer = self.rng.choice(birth.CUSTOMERS)
        units = self.rng.choice([1, 2, 3, 5, 10, 60, 300]) * SMALL[symbol]
        return self._propose(f"customer:{customer}", symbol, units, "withdrawal", "backend")

    def ask_again(self) -> str:
        """A client repeats itself: the same request under the same key, or the same proposal under another."""
        if not self.proposed:
            return "nothing to repeat"
        signed, key = self.rng.choice(self.proposed)
        key = key if self.rng.random() < 0.5 else f"{key} again"
        return "asks again: " + self._submit(signed, key)

    def trade(self) -> str:
        """The backend settles a trade with its fees."""
        one, other = self.rng.sample(birth.CUSTOMERS, 2)
        number, units = self._next(), self.rng.randrange(1, 9) * SMALL["ETH"]
        legs = (
            Leg(one, "ETH", -units),
            Leg(other, "ETH", units),
            Leg(other, "USDX", -units // 10**9 * 2),
            Leg(one, "USDX", units // 10**9 * 2),
        )
        fees = (FeeLeg(one, "ETH", units // 1_000), FeeLeg(other, "USDX", units // 10**9 * 2 // 2_000))
        now, born = self.world.clock(), self.world.born
        message = Settlement(f"s{number}", "settler", born.bundle.hash, now, (Trade(f"t{number}", legs, fees),))
        signed = signed_by(message, born.domain, [ed25519("settler")])
        desk = self.world.desk()
        told = self._try(
            lambda: record_settlement(desk, born.roster, signed, born.bundle.fees, born.assets, now), "settled"
        )
        return f"{one} sells {units} wei to {other}: {told}"

    # the house's own transfers

    def rebalance(self) -> str:
        """Hot to cold, by the system in small parts or by an operator; fees to the company; bills; a shortfall filled."""
        symbol = self.rng.choice(["ETH", "BTC"])
        kind = self.rng.choice(["cold_sweep", "cold_sweep", "rebalance", "fee_sweep", "vendor_payment", "make_whole"])
        by = {"cold_sweep": "sweeper", "rebalance": "eli"}.get(kind, "finance")
        units = self.rng.choice([1, 4, 9]) * SMALL[symbol] // (500 if kind == "fee_sweep" else 1)
        return self._propose("company", symbol, units, kind, by)

    # people

    def approve(self) -> str:
        """Somebody looks at a transfer that waits for people, and says yes; sometimes the wrong one, or twice."""
        waiting = [t for t in self.world.transfers() if not t.status.is_final and t.live]
        waiting = [
            t for t in waiting if t.status in {Status.PENDING_AUTHORIZATION, Status.PENDING_SIGNATURE}
        ] or waiting
        if not waiting:
            return "nobody to approve for"
        transfer, person = self.rng.choice(waiting), self.rng.choice([*birth.PEOPLE])
        return self._approve(transfer, person)

    def approve_all(self) -> str:
        """Everybody who is asked for looks at one transfer."""
        waiting = [t for t in self.world.transfers() if t.status is Status.PENDING_AUTHORIZATION]
        if not waiting:
            return "nobody to approve for"
        transfer = self.rng.choice(waiting)
        return "; ".join(self._approve(transfer, person) for person in birth.PEOPLE if person != "authority")

    def refuse(self) -> str:
        """A person says no, or the initiator cancels: maybe too late."""
        going = [t for t in self.world.transfers() if not t.status.is_final]
        if not going:
            return "nothing to refuse"
        transfer = self.rng.choice(going)
        own = self.rng.random() < 0.5
        by = transfer.intent.initiator if own else self.rng.choice(["ana", "bo", "cy"])
        key = secp256k1(by) if by in birth.PEOPLE else ed25519(by)
        signed = signed_by(Rejection(transfer.digest, "not this one"), self.world.born.domain, [key])
        say = proposals.cancel if own else proposals.reject
        told = self._try(lambda: say(self.world.desk(), self.world.kernel(), signed, self.world.clock()).status.value)
        return f"{by} refuses {transfer.intent.id[-6:]} ({transfer.status}): {told}"

    def void(self) -> str:
        """People kill an anchor that does not come through."""
        stuck = [t for t in self.world.transfers() if t.status.is_asked]
        if not stuck:
            return "nothing to void"
        transfer = self.rng.choice(stuck)
        return self._void(transfer, self.rng.choice([("ana", "bo"), ("ana", "bo"), ("ana",)]))

    def void_stuck(self) -> list[str]:
        """People void whatever was asked to be signed and comes to no end, but for what waits for coins of the company."""
        stuck = [t for t in self.world.transfers() if t.status.is_asked and UNFUNDED not in t.waiting_for]
        return [self._void(transfer, ("ana", "bo")) for transfer in stuck if transfer.status is not Status.CANCELLING]

    def _void(self, transfer: Transfer, people: tuple[str, ...]) -> str:
        permit = self.world.read(lambda work: work.transfers.permit_of(transfer.digest))
        if permit is None:
            return "nothing to void"
        signed = self.world_signed(Void(permit.reservation.anchor, permit.intents), people)
        told = self._try(
            lambda: payouts.void(self.world.desk(), self.world.kernel(), signed, self.world.clock()), "taken"
        )
        self.tally["voids asked"] += told == "taken"
        return f"void of {permit.reservation.anchor.reference[:12]} ({transfer.status}): {told}"

    def find_owner(self) -> str:
        """Two people book what lies in suspense to a customer; never while a payout's own coins may lie there on their way back."""
        if any(transfer.status.is_asked for transfer in self.world.transfers()):
            return "people wait: payouts are on their way"
        asset = self.world.born.assets.get(self.rng.choice([*CHAIN]))
        there = self.world.read(lambda work: work.journal.balance(Account(AccountKind.SUSPENSE), asset))
        units = min(there, SMALL[asset.symbol])
        if not units:
            return "nothing in suspense"
        to = f"customer_available:{self.rng.choice(birth.CUSTOMERS)}"
        lines = (
            ManualPosting("suspense", asset.symbol, "debit", units),
            ManualPosting(to, asset.symbol, "credit", units),
        )
        return f"{units} {asset} from suspense to {to}: {self._manual(lines)}"

    def make_good(self) -> str:
        """Two people pay a reorg's loss out of what the company set aside."""
        for asset in self.world.born.assets:
            accounts = Account(AccountKind.REORG_LOSS), Account(AccountKind.COMPANY_SURPLUS)
            lost, has = (self.world.read(lambda w, a=a, s=asset: w.journal.balance(a, s)) for a in accounts)  # type: ignore[misc]
            if units := min(lost, has):
                lines = (
                    ManualPosting("company_surplus", asset.symbol, "debit", units),
                    ManualPosting("reorg_loss", asset.symbol, "credit", units),
                )
                return f"{units} {asset} of a loss made good: {self._manual(lines)}"
        return "no loss to make good"

    # processes

    def work(self) -> str:
        """A step of the worker, maybe its last."""
        return "worker: " + self._faulty(lambda: self._told(self.world.work()), DEEPEST)

    def watch(self) -> str:
        """A step of a watcher, maybe its last."""
        chain = self.rng.choice([EVM, BITCOIN])

        def step() -> str:
            found = self.world.watch(chain)
            self.tally["credited"] += found.credited
            self.tally["reversed"] += found.reversed
            return f"head {found.head}, final {found.final}, credited {found.credited}, reversed {found.reversed}"

        return f"watcher of {'evm' if chain.is_evm else 'bitcoin'}: " + self._faulty(step, 40)

    def restart(self) -> str:
        """Everything is started again, or one seat is."""
        if self.rng.random() < 0.5:
            self.world.restart()
            self.world.attestor.restart()
            return "everything restarted"
        seat = self.rng.choice(self.world.seats)
        seat.restart()
        return f"seat {seat.name} restarted"

    # time and chains

    def mine(self) -> str:
        """Blocks on one chain, maybe without something that waits."""
        node = self.rng.choice(self._nodes())
        waiting = [*node.pool]
        besides = frozenset(self.rng.sample(waiting, 1)) if waiting and self.rng.random() < 0.3 else frozenset[bytes]()
        blocks = self.rng.choice([1, 1, 2, 4])
        for _ in range(blocks):
            self.world.pass_time(30)
            node.mine(besides)
        return f"{blocks} blocks on {node.chain}, {len(node.pool)} wait"

    def pass_time(self) -> str:
        """A minute, an hour, or so long that things expire."""
        seconds = self.rng.choice([10, 60, 60, 600, 3_700, 40_000])
        self.world.pass_time(seconds)
        return f"{seconds} seconds"

    def reorg(self) -> str:
        """Up to finality and one block beyond it: some of what was in the blocks never comes back, some comes later."""
        node = self.rng.choice(self._nodes())
        depth = self.rng.randrange(1, node.height - node.final_height + 3)
        if depth >= node.height - 8 or not self._may_drop(node, depth):
            return "no reorg"
        dropped = {name: tx for block in node.blocks[-depth:] for name, tx in block.transactions.items()}
        outside = [name for name, tx in dropped.items() if not self._is_ours(tx)]
        lost = frozenset(name for name in outside if self.rng.random() < 0.4)
        late = frozenset(name for name in dropped if self.rng.random() < 0.4)
        deep = depth > node.height - node.final_height
        late = frozenset() if deep else late
        node.reorg(depth, lost, late)
        self.tally["reorgs"] += 1
        self.tally["reorgs beyond finality"] += deep
        return f"{depth} blocks of {node.chain} replaced, {len(lost)} of {len(dropped)} transactions lost, {len(late)} late"

    def forget(self) -> str:
        """A mempool drops what waits there."""
        node = self.rng.choice(self._nodes())
        if not node.pool:
            return "nothing to forget"
        name = self.rng.choice([*node.pool])
        node.forget(name)
        self.tally["dropped from mempools"] += 1
        return f"{node.chain} forgets {name.hex()[:12]}"

    def lose_answers(self) -> str:
        """The line to a node breaks at the next broadcast: before it arrived, or after."""
        node = self.rng.choice(self._nodes())
        node.lossy = self.rng.choice(["before", "after", "after"])
        return f"{node.chain} will lose a broadcast {node.lossy} it arrives"

    def slow_finality(self) -> str:
        """Finality of the EVM chain lags, or catches up; the fee rate of Bitcoin changes."""
        self.world.evm.slow = self.rng.choice([0, 0, 5])
        self.world.bitcoin.rate = self.rng.choice([2, 2, 5, 20])
        return f"finality lags {self.world.evm.slow}, {self.world.bitcoin.rate} sat a vbyte"

    def refuse_coins(self) -> str:
        """A payee turns into a contract that takes nothing, or back."""
        place = self.world.born.payee(f"customer:{self.rng.choice(birth.CUSTOMERS)}", EVM)
        self.world.evm.refusing ^= {place}
        return f"{place} {'takes nothing' if place in self.world.evm.refusing else 'takes coins again'}"

    # hostile hands

    def seat_turns(self) -> str:
        """One seat of the four is hostile; now and then another one is only silent."""
        self.hostile.mood = self.rng.choice([*MOODS, "", ""])
        other = self.rng.choice(self.world.seats[: len(HOT)])
        if other is not self.hostile:
            other.mood = self.rng.choice(["silent", "", "", ""])
        return f"{self.hostile.name} is {self.hostile.mood or 'honest'}, {other.name} {other.mood or 'honest'}"

    def replay(self) -> str:
        """Somebody who saw a request or bytes sends them again, as they were or changed, to a seat or a node."""
        if self.rng.random() < 0.4 and self.world.sent:
            chain, raw = self.rng.choice(self.world.sent)
            if chain == EVM.name:
                made = Relayed.read(raw)
                self.world.evm.pool.setdefault(made.name, made)
            else:
                self._try(lambda: self.world.bitcoin.accept(raw).hex())
            return f"{len(raw)} bytes sent to {chain} again"
        if not self.world.witnessed:
            return "nothing to replay"
        asked = self.rng.choice(self.world.witnessed).request
        seat = self.rng.choice(self.world.seats[: len(HOT)])
        how = self.rng.choice(["as it was", "without approvals", "for another's address", "at another nonce"])
        if how == "without approvals":
            asked = replace(asked, transfers=tuple(replace(each, approvals=()) for each in asked.transfers))
        elif how == "for another's address" and asked.transfers:
            first = asked.transfers[0]
            thief = self.world.born.payee("customer:dan.c", Chain(first.intent.chain))
            asked = replace(asked, transfers=(replace(first, intent=replace(first.intent, destination=thief)),))
        elif how == "at another nonce" and isinstance(asked.payload, SafeTx):
            asked = replace(asked, payload=replace(asked.payload, nonce=asked.payload.nonce + 1))
        return f"{seat.name} is asked {how}: " + self._try(lambda: seat.sign(asked).seat and "signed")

    def double_spend(self) -> str:
        """Somebody pays in and is credited; what follows is to take it out at once, and to reorganise the deposit away."""
        symbol = self.rng.choice(["ETH", "USDX", "BTC"])
        chain, customer = CHAIN[symbol], self.rng.choice(birth.CUSTOMERS)
        node = self._nodes()[chain == BITCOIN]
        self._pay(symbol, self.world.born.address(customer, chain).text, self.rng.choice([2, 9]) * SMALL[symbol])
        paid = [*node.pool][-1]
        node.mine()
        place = node.place_of(paid)
        while place is not None and node.final_height < place.height:
            self.world.pass_time(30)
            node.mine()
        told = self._try(lambda: f"credited {self.world.watch(chain).credited}")

        def withdraw(hands: Hands) -> str:
            return hands._propose(f"customer:{customer}", symbol, SMALL[symbol], "withdrawal", "backend")

        self.then = [
            withdraw,
            Hands.work,
            lambda hands: hands._take_back(node, paid),
            lambda hands: hands._follow(chain),
        ]
        return f"{customer} pays in {symbol}: {told}"

    def _take_back(self, node: Chainlike[Any, Any], paid: bytes) -> str:
        """A reorg beyond finality without one deposit (ETC, 51 %)."""
        place = node.place_of(paid)
        if place is None or not self._may_drop(node, depth := node.height - place.height + 1):
            return "no reorg"
        node.reorg(depth, frozenset({paid}), frozenset())
        self.tally["reorgs"] += 1
        self.tally["reorgs beyond finality"] += 1
        return f"{depth} blocks of {node.chain} replaced without the deposit"

    def _follow(self, chain: Chain) -> str:
        found = self.world.watch(chain)
        self.tally["credited"] += found.credited
        self.tally["reversed"] += found.reversed
        return f"followed: credited {found.credited}, reversed {found.reversed}"

    def drain(self) -> str:
        """A thief empties a wallet behind everybody's back."""
        if self.scene.drained or self.rng.random() < 0.9:
            return "no thief today"
        self.scene.drained = True
        number, hot = self._next(), self.world.born.certificate(Tier.CUSTOMER_HOT, BITCOIN)
        coins = self.world.bitcoin.coins_of(hot)
        if self.rng.random() < 0.5 and coins:
            for at, outpoint in enumerate(coins):
                self.world.bitcoin.steal(outpoint, number + at)
            units = sum(coin.units for coin in coins.values())
            return f"a thief takes {units} satoshi"
        address = self.world.born.address(self.rng.choice(birth.CUSTOMERS), EVM).text
        units = self.world.evm.state.holds("ETH", address)
        self.world.evm.pay("ETH", self.world.born.payee("customer:dan.c", EVM)[:-4] + "dEaD", units, number, address)
        return f"a thief takes {units} wei"

    # small things

    def _nodes(self) -> tuple[Chainlike[Any, Any], Chainlike[Any, Any]]:
        return self.world.evm, self.world.bitcoin

    def _next(self) -> int:
        self.count += 1
        return self.count * 1_000

    def _pay(self, symbol: str, to: str, units: int) -> None:
        if symbol == "BTC":
            self.world.bitcoin.pay(Address(BITCOIN, to), max(units, 600), self._next())
        else:
            self.world.evm.pay(symbol, to, units, self._next())

    def _main(self, tier: Tier, chain: Chain) -> str:
        certificate = self.world.born.certificate(tier, chain)
        if chain.is_evm:
            return certificate.safe[0].address
        return birth.DERIVE.derive(certificate, Branch.CHANGE, 3).text

    def _propose(self, account: str, symbol: str, units: int, purpose: str, by: str) -> str:
        number, chain = self._next(), CHAIN[symbol]
        if purpose in {"withdrawal", "vendor_payment"}:
            to = self.world.born.payee(account, chain)
        else:
            tiers = {"fee_sweep": Tier.OPERATIONAL, "make_whole": Tier.CUSTOMER_HOT}
            to = self._main(tiers.get(purpose, Tier.CUSTOMER_COLD), chain)
        expiry = self.world.clock() + self.rng.choice([600, 7_200, 100_000])
        message = Proposal(f"order {number}", account, chain.name, symbol, units + self.count, to, purpose, expiry)
        key = secp256k1(by) if by in birth.PEOPLE else ed25519(by)
        signed = signed_by(message, self.world.born.domain, [key])
        self.proposed.append((signed, f"k{number}"))
        return f"{by} asks for {message.amount} {symbol} of {account} ({purpose}): " + self._submit(
            signed, f"k{number}"
        )

    def _submit(self, signed: Signed[Proposal], key: str) -> str:
        entropy = self.world.entropy()

        def ask() -> str:
            made = proposals.propose(self.world.desk(), self.world.kernel(), signed, key, self.world.clock(), entropy)
            self.tally["proposed"] += 1
            return f"{made.intent.id[-6:]} {made.status}"

        return self._faulty(ask, 12)

    def _approve(self, transfer: Transfer, person: str) -> str:
        yes = Approval(transfer.digest, person, secp256k1(person).sign(transfer.digest))
        told = self._faulty(
            lambda: proposals.approve(self.world.desk(), self.world.kernel(), yes, self.world.clock()).status.value, 12
        )
        return f"{person} approves {transfer.intent.id[-6:]}: {told}"

    def world_signed(self, message: Any, people: tuple[str, ...]) -> Any:
        """Signed by people."""
        return signed_by(message, self.world.born.domain, [secp256k1(name) for name in people])

    def _manual(self, lines: tuple[ManualPosting, ...]) -> str:
        message = ManualEntry(f"m{self._next()}", "found out whose it is", lines)
        signed = self.world_signed(message, ("ana", "bo"))
        born, desk, now = self.world.born, self.world.desk(), self.world.clock()
        return self._try(lambda: record_manual(desk, born.roster, signed, born.assets, now), "booked")

    def _may_drop(self, node: Chainlike[Any, Any], depth: int) -> bool:
        """Beyond finality only blocks without payouts of ours: the ledger has no way to take back a settlement that was final."""
        final = node.blocks[len(node.blocks) - depth : node.final_height + 1]
        return not any(self._is_ours(tx) for block in final for tx in block.transactions.values())

    def _is_ours(self, transaction: Any) -> bool:
        return isinstance(transaction, Relayed) or not getattr(transaction, "outside", True)

    def _told(self, report: Any) -> str:
        self.tally["paid"] += sum(line.status is Status.COMPLETED for line in report.moved)
        self.tally["voided"] += sum(line.status is Status.CANCELLED for line in report.moved)
        moved = [f"{line.transfer[-6:]} {line.status}" for line in report.moved]
        return f"{', '.join(moved) or 'nothing moved'}; faults: {[fault[:150] for fault in report.faults]}"

    def _faulty(self, do: Callable[[], str], deepest: int) -> str:
        """Do it, perhaps into a fault; who died begins anew from store and vaults."""
        gate = self.world.gate
        if self.rng.random() < self.faulty:
            gate.arm(self.rng.randrange(1, self.rng.choice([6, deepest // 3, deepest]) + 2), self.rng.choice([*Fault]))
        try:
            told = self._try(do)
        except Crash as crash:
            self.tally["crashes"] += 1
            self.world.restart()
            return f"DIED at {crash}"
        finally:
            gate.disarm()
        self.tally["lost answers"] += bool(gate.struck)
        struck, gate.struck = gate.struck, ""
        return f"{told} [{struck}]" if struck else told

    def _try(self, do: Callable[[], object], done: str = "") -> str:
        try:
            found = do()
        except (Refused, InvalidInput, Unavailable) as error:
            return f"no: {str(error)[:160]}"
        return done or str(found)


Action = Callable[[Hands], str]

ACTIONS: Final[tuple[tuple[int, Action], ...]] = (
    (8, Hands.deposit),
    (12, Hands.withdraw),
    (3, Hands.ask_again),
    (4, Hands.trade),
    (4, Hands.rebalance),
    (4, Hands.approve),
    (6, Hands.approve_all),
    (3, Hands.refuse),
    (3, Hands.void),
    (2, Hands.find_owner),
    (1, Hands.make_good),
    (26, Hands.work),
    (22, Hands.watch),
    (2, Hands.restart),
    (20, Hands.mine),
    (4, Hands.pass_time),
    (4, Hands.reorg),
    (3, Hands.forget),
    (4, Hands.lose_answers),
    (1, Hands.slow_finality),
    (1, Hands.refuse_coins),
    (3, Hands.seat_turns),
    (4, Hands.replay),
    (2, Hands.double_spend),
    (1, Hands.drain),
)
"""How often each happens, against the others."""
