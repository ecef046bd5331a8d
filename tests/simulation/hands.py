# SPDX-License-Identifier: AGPL-3.0-or-later
"""What may happen in a run: customers, people, processes, chains, accidents, and hostile hands. One method each, chosen by the seed.

A method returns what it did, for the trace. What the code under test refuses or cannot reach is part of the trace too.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from custody.flows import payouts, proposals
from custody.flows.bookkeeping import record_manual, record_settlement
from custody.rules.amounts import Asset
from custody.rules.approvals import Approval
from custody.rules.governance import Freeze
from custody.rules.intents import Proposal, Rejection, Void
from custody.rules.ledger import Account, AccountKind
from custody.rules.payouts import SafeTx
from custody.rules.settlements import FeeLeg, Leg, ManualEntry, ManualPosting, Settlement, Trade
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain, Tier
from tests.fakes.seat import BITCOIN, EVM, HOT, ed25519, secp256k1, signed_by
from tests.simulation import birth
from tests.simulation.acting import Acting
from tests.simulation.blocks import Chainlike
from tests.simulation.evm import Relayed
from tests.simulation.invariants import UNIT
from tests.simulation.processes import Judging
from tests.simulation.scene import Scene

CHAIN: Final = {"ETH": EVM, "USDX": EVM, "BTC": BITCOIN}
SMALL: Final = {"ETH": 10**17, "USDX": 10**8, "BTC": 10**6}
MOODS: Final = ("silent", "silent", "refuses", "lies", "poses")


class Hands(Acting):
    """Everybody of one run."""

    def __init__(self, scene: Scene, faulty: float = 0.35) -> None:
        super().__init__(scene, faulty)
        self.proposed: list[tuple[Signed[Proposal], str]] = []
        self.then: list[Callable[[Hands], str]] = []
        """What follows whatever the seed says, as long as there is something."""
        self.hostile = self.world.seats[self.rng.randrange(len(HOT))]
        self.later = False
        """Whether a seat's clock was ahead: it then waits for the others."""
        self.copy: Path | None = None
        """An older database, and the position of its journal."""
        self.copied = 0
        self.vault_copy: dict[str, list[str]] | None = None
        self.frozen: list[Signed[Freeze]] = []

    # beginning

    def fund(self) -> str:
        """Customers, the company and the cold wallets have coins from the beginning."""
        for customer in birth.CUSTOMERS:
            self.pay("ETH", self.world.born.address(customer, EVM).text, 30 * UNIT["ETH"])
            self.pay("USDX", self.world.born.address(customer, EVM).text, 200_000 * UNIT["USDX"])
            self.pay("BTC", self.world.born.address(customer, BITCOIN).text, 3 * UNIT["BTC"])
        for tier in (Tier.OPERATIONAL, Tier.CUSTOMER_COLD):
            self.pay("ETH", self.main(tier, EVM), 40 * UNIT["ETH"])
            self.pay("BTC", self.main(tier, BITCOIN), UNIT["BTC"])
        for _ in range(6):
            self.world.pass_time(60)
            for node in self.nodes():
                node.mine()
        for chain in (EVM, BITCOIN):
            self.world.watchers[chain][0].step()
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
            to = self.main(Tier.OPERATIONAL if who == "company" else Tier.CUSTOMER_HOT, chain)
        units = self.rng.choice([SMALL[symbol], UNIT[symbol], 5 * UNIT[symbol], 100])
        self.pay(symbol, to, units)
        return f"{who} pays in {units} {symbol}"

    def withdraw(self) -> str:
        """A customer asks: mostly little, which goes by itself; sometimes what people have to see, or more than there is."""
        symbol = self.rng.choice([*CHAIN])
        customer = self.rng.choice(birth.CUSTOMERS)
        units = self.rng.choice([1, 2, 3, 5, 10, 60, 300]) * SMALL[symbol]
        return self.propose(f"customer:{customer}", symbol, units, "withdrawal", "backend")

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
        number, units = self.next(), self.rng.randrange(1, 9) * SMALL["ETH"]
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
        api, roster = self.api(), self.world.roster
        told = self.act(
            api, lambda: record_settlement(api.store, roster, signed, born.bundle.fees, born.assets, now), "settled"
        )
        return f"{one} sells {units} wei to {other}: {told}"

    # the house's own transfers

    def rebalance(self) -> str:
        """Hot to cold, by the system in small parts or by an operator; fees to the company; bills; a shortfall filled."""
        symbol = self.rng.choice(["ETH", "BTC"])
        kind = self.rng.choice(["cold_sweep", "cold_sweep", "rebalance", "fee_sweep", "vendor_payment", "make_whole"])
        by = {"cold_sweep": "sweeper", "rebalance": "eli"}.get(kind, "finance")
        units = self.rng.choice([1, 4, 9]) * SMALL[symbol] // (500 if kind == "fee_sweep" else 1)
        return self.propose("company", symbol, units, kind, by)

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
        api = self.api()
        told = self.act(api, lambda: say(api.store, api.kernel(), signed, api.clock()).status.value)
        return f"{by} refuses {transfer.intent.id[-6:]} ({transfer.status}): {told}"

    def void(self) -> str:
        """People kill an anchor that does not come through."""
        stuck = [t for t in self.world.transfers() if t.status.is_asked]
        if not stuck:
            return "nothing to void"
        transfer = self.rng.choice(stuck)
        return self._void(transfer, self.rng.choice([("ana", "bo"), ("ana", "bo"), ("ana",)]))

    def void_stuck(self) -> list[str]:
        """People void whatever was asked to be signed and comes to no end."""
        stuck = [t for t in self.world.transfers() if t.status.is_asked]
        return [self._void(transfer, ("ana", "bo")) for transfer in stuck if transfer.status is not Status.CANCELLING]

    def _void(self, transfer: Transfer, people: tuple[str, ...]) -> str:
        permit = self.world.read(lambda work: work.transfers.permit_of(transfer.digest))
        if permit is None:
            return "nothing to void"
        signed = self.world_signed(Void(permit.reservation.anchor, permit.intents), people)
        api = self.api()

        def ask() -> str:
            payouts.void(api.store, api.kernel(), signed, api.clock())
            self.tally["voids asked"] += 1
            return "taken"

        told = self.act(api, ask)
        return f"void of {permit.reservation.anchor.reference[:12]} ({transfer.status}): {told}"

    def find_owner(self) -> str:
        """Two people book what an event brought for nobody who is known to a customer: whatever it was, and whatever flies."""
        found = self._standing(AccountKind.SUSPENSE)
        if not found:
            return "nothing in suspense"
        event, asset, there = self.rng.choice(found)
        units = min(there, SMALL[asset.symbol])
        to = f"customer_available:{self.rng.choice(birth.CUSTOMERS)}"
        lines = (
            ManualPosting(str(event), asset.symbol, "debit", units),
            ManualPosting(to, asset.symbol, "credit", units),
        )
        return f"{units} {asset} from {event} to {to}: {self._manual(lines)}"

    def make_good(self) -> str:
        """Two people fill a reorg's loss: with what the company set aside, or with what came back and belongs to nobody."""
        for lost, asset, units in self._standing(AccountKind.REORG_LOSS):
            sources = [each for each in self._standing(AccountKind.SUSPENSE) if each[1] == asset]
            sources += [each for each in self._standing(AccountKind.COMPANY_SURPLUS) if each[1] == asset]
            if sources:
                source, _, has = self.rng.choice(sources)
                lines = (
                    ManualPosting(str(source), asset.symbol, "debit", min(units, has)),
                    ManualPosting(str(lost), asset.symbol, "credit", min(units, has)),
                )
                return f"{min(units, has)} {asset} of {lost} made good out of {source}: {self._manual(lines)}"
        return "no loss to make good"

    def _standing(self, kind: AccountKind) -> list[tuple[Account, Asset, int]]:
        balances = self.world.read(lambda work: list(work.journal.balances()))
        return sorted(
            (each for each in balances if each[0].kind is kind), key=lambda each: (str(each[0]), each[1].symbol)
        )

    # processes

    def work(self) -> str:
        """A step of a worker, maybe its last."""
        idle = [each for each in self.world.workers if not self.world.baton.sleeps(each.name)]
        if not idle:
            return "every worker is paused"
        worker = self.rng.choice(idle)
        return f"{worker.name}: " + self.act(worker, lambda: self.told(worker.step()))

    def watch(self) -> str:
        """A step of a watcher, maybe its last."""
        return self.follow(self.rng.choice([EVM, BITCOIN]))

    def follow(self, chain: Chain) -> str:
        """The same on one chain."""
        idle = [each for each in self.world.watchers[chain] if not self.world.baton.sleeps(each.name)]
        if not idle:
            return "every watcher is paused"
        watcher = self.rng.choice(idle)

        def step() -> str:
            found = watcher.step()
            self.tally["credited"] += found.credited
            self.tally["reversed"] += found.reversed
            self.tally["reopened"] += found.reopened
            told = f"reversed {found.reversed}, payouts {found.reopened}"
            return f"head {found.head}, final {found.final}, credited {found.credited}, {told}"

        return f"{watcher.name}: " + self.act(watcher, step)

    def balance(self) -> str:
        """A cycle of the rebalancer."""
        balancer = self.world.balancer
        if self.world.baton.sleeps(balancer.name):
            return "the rebalancer is paused"
        return "rebalancer: " + self.act(
            balancer, lambda: "; ".join(f"{line.what}: {line.why[:80]}" for line in balancer.step())
        )

    def side_by_side(self) -> str:
        """Two to four processes at once, interleaved at their calls."""
        deeds = [Hands.work, Hands.work, Hands.watch, Hands.withdraw, Hands.ask_again, Hands.approve_all, Hands.refuse]
        deeds += [Hands.void, Hands.balance, Hands.trade, Hands.watch]
        chosen = [Hands.work, *self.rng.sample(deeds, self.rng.choice([1, 2, 3]))]
        self.tally["interleaved"] += 1
        return "at once: " + self.interleave(lambda: "; ".join(deed(self) for deed in chosen))

    def restart(self) -> str:
        """Somebody is killed and started again, or everybody."""
        processes = self.world.everybody
        chosen = processes if self.rng.random() < 0.3 else [self.rng.choice(processes)]
        self.world.kill(*chosen)
        self.tally["crashes"] += len(chosen)
        return f"{'everybody' if len(chosen) > 1 else chosen[0].name} killed and started again"

    # time and chains

    def mine(self) -> str:
        """Blocks on one chain, maybe without something that waits."""
        node = self.rng.choice(self.nodes())
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
        node = self.rng.choice(self.nodes())
        depth = self.rng.randrange(1, node.height - node.final_height + 3)
        if depth >= node.height - 8:
            return "no reorg"
        dropped = {name: tx for block in node.blocks[-depth:] for name, tx in block.transactions.items()}
        outside = [name for name, tx in dropped.items() if not self.is_ours(tx)]
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
        node = self.rng.choice(self.nodes())
        if not node.pool:
            return "nothing to forget"
        name = self.rng.choice([*node.pool])
        node.forget(name)
        self.tally["dropped from mempools"] += 1
        return f"{node.chain} forgets {name.hex()[:12]}"

    def lose_answers(self) -> str:
        """The line to a node breaks at the next broadcast: before it arrived, or after."""
        node = self.rng.choice(self.nodes())
        node.lossy = self.rng.choice(["before", "after", "after"])
        return f"{node.chain} will lose a broadcast {node.lossy} it arrives"

    def slow_finality(self) -> str:
        """Finality of the EVM chain lags, or catches up; what blocks ask for changes on both chains."""
        self.world.evm.slow = self.rng.choice([0, 0, 5])
        self.world.evm.price = self.rng.choice([1, 1, 2, 5, 30])
        self.world.bitcoin.rate = self.rng.choice([2, 2, 5, 20])
        return f"finality lags {self.world.evm.slow}, {self.world.bitcoin.rate} sat a vbyte, gas {self.world.evm.price}"

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
                self.attempt(lambda: self.world.bitcoin.accept(raw).hex())
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
        return f"{seat.name} is asked {how}: " + self.attempt(lambda: seat.sign(asked).seat and "signed")

    def double_spend(self) -> str:
        """Somebody pays in and is credited; what follows is to take it out at once, and to reorganise the deposit away."""
        symbol = self.rng.choice(["ETH", "USDX", "BTC"])
        chain, customer = CHAIN[symbol], self.rng.choice(birth.CUSTOMERS)
        node = self.nodes()[chain == BITCOIN]
        self.pay(symbol, self.world.born.address(customer, chain).text, self.rng.choice([2, 9]) * SMALL[symbol])
        paid = [*node.pool][-1]
        node.mine()
        place = node.place_of(paid)
        while place is not None and node.final_height < place.height:
            self.world.pass_time(30)
            node.mine()
        told = self.follow(chain)

        def withdraw(hands: Hands) -> str:
            return hands.propose(f"customer:{customer}", symbol, SMALL[symbol], "withdrawal", "backend")

        self.then = [
            withdraw,
            Hands.work,
            lambda hands: hands._take_back(node, paid),
            lambda hands: hands.follow(chain),
        ]
        return f"{customer} pays in {symbol}: {told}"

    def _take_back(self, node: Chainlike[Any, Any], paid: bytes) -> str:
        """A reorg beyond finality without one deposit (ETC, 51 %)."""
        place = node.place_of(paid)
        if place is None:
            return "no reorg"
        depth = node.height - place.height + 1
        node.reorg(depth, frozenset({paid}), frozenset())
        self.tally["reorgs"] += 1
        self.tally["reorgs beyond finality"] += 1
        return f"{depth} blocks of {node.chain} replaced without the deposit"

    def drain(self) -> str:
        """A thief empties a wallet behind everybody's back."""
        if self.scene.drained or self.rng.random() < 0.9:
            return "no thief today"
        self.scene.drained = True
        number, hot = self.next(), self.world.born.certificate(Tier.CUSTOMER_HOT, BITCOIN)
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

    def propose(self, account: str, symbol: str, units: int, purpose: str, by: str, lasts: int = 0) -> str:
        """Somebody asks for a payment out of an account, for so many seconds, or as long as chance says."""
        number, chain = self.next(), CHAIN[symbol]
        if purpose in {"withdrawal", "vendor_payment"}:
            to = self.world.born.payee(account, chain)
        else:
            tiers = {"fee_sweep": Tier.OPERATIONAL, "make_whole": Tier.CUSTOMER_HOT}
            to = self.main(tiers.get(purpose, Tier.CUSTOMER_COLD), chain)
        expiry = self.world.clock() + (lasts or self.rng.choice([600, 7_200, 100_000]))
        message = Proposal(f"order {number}", account, chain.name, symbol, units + self.count, to, purpose, expiry)
        key = secp256k1(by) if by in birth.PEOPLE else ed25519(by)
        signed = signed_by(message, self.world.born.domain, [key])
        self.proposed.append((signed, f"k{number}"))
        return f"{by} asks for {message.amount} {symbol} of {account} ({purpose}): " + self._submit(
            signed, f"k{number}"
        )

    def _submit(self, signed: Signed[Proposal], key: str) -> str:
        entropy, api = self.world.entropy(), self.api()

        def ask() -> str:
            made = proposals.propose(api.store, api.kernel(), signed, key, api.clock(), entropy)
            self.tally["proposed"] += 1
            self.scene.acknowledged.add(made.digest)
            return f"{made.intent.id[-6:]} {made.status}"

        return self.act(api, ask)

    def _approve(self, transfer: Transfer, person: str) -> str:
        yes = Approval(transfer.digest, person, secp256k1(person).sign(transfer.digest))
        told = self.approve_as(self.api(), yes)
        return f"{person} approves {transfer.intent.id[-6:]}: {told}"

    def approve_as(self, api: Judging, yes: Approval) -> str:
        """Bring an approval to a web process."""
        return self.act(api, lambda: proposals.approve(api.store, api.kernel(), yes, api.clock()).status.value)

    def world_signed(self, message: Any, people: tuple[str, ...]) -> Any:
        """Signed by people."""
        return signed_by(message, self.world.born.domain, [secp256k1(name) for name in people])

    def _manual(self, lines: tuple[ManualPosting, ...]) -> str:
        message = ManualEntry(f"m{self.next()}", "found out whose it is", lines)
        signed = self.world_signed(message, ("ana", "bo"))
        api, roster, assets, now = self.api(), self.world.roster, self.world.born.assets, self.world.clock()
        return self.act(api, lambda: record_manual(api.store, roster, signed, assets, now), "booked")


Action = Callable[[Hands], str]
