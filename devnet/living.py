# SPDX-License-Identifier: AGPL-3.0-or-later
"""What makes a devnet look like a day at work: customers who deposit and withdraw, and things that wait for somebody at every stage.

Everything goes the way it goes anywhere: the backend proposes over the API with signed requests, people sign with their own keys,
worker and watcher do the rest. What waits here waits for whoever sits at the console; nobody here signs for ana.
"""

import random
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

from eth_account import Account

from api.client import ApiClient, Json
from custody.bootstrap import Deployment, open_deployment
from custody.chains.addresses import ChainDeriver
from custody.flows import gathering
from custody.flows.customers import add_customer, issue_address
from custody.flows.kernel import Kernel
from custody.flows.mirror import BUNDLE
from custody.flows.ports import UnitOfWork
from custody.keyfiles import open_pem
from custody.parts import attestor
from custody.rules.amounts import Amount
from custody.rules.errors import CustodyError
from custody.rules.facts import Purpose
from custody.rules.governance import PolicyActivation
from custody.rules.intents import Proposal
from custody.rules.json_text import read_json
from custody.rules.ledger import Account as LedgerAccount
from custody.rules.ledger import AccountKind
from custody.rules.settlements import ManualEntry, ManualPosting
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain, Tier
from custody.working import KernelReader
from devnet import hands
from devnet.birth import BITCOIN, EVM
from devnet.home import bulkhead_program
from devnet.network import Devnet
from devnet.people import PASSWORD, Cast, gather
from devnet.treasury import DAY, Treasury
from policies.bundle import load

CUSTOMERS: Final = ("ada", "ben", "cyd", "dee", "eli")
SMALL: Final = ("ada", "cyd")
"""Whose day stays below what people are asked about."""
LARGE: Final = ("ben", "dee")
DEPOSITS: Final = (("ETH", "60"), ("BTC", "1.5"), ("USDX", "200000"))
BLOCK: Final = 8.0
"""Seconds between two blocks on each chain."""
WAITING: Final = 5
"""Withdrawals that are kept waiting for people."""
PATIENCE: Final = 180.0
"""Seconds that a scene is waited for at the most."""
Say = Callable[[str], object]


@dataclass
class Life(Treasury):
    """Customers, backend and people of one living devnet. `url` is the API's."""

    net: Devnet
    url: str
    say: Say
    stop: threading.Event = field(default_factory=threading.Event)
    dice: random.Random = field(default_factory=random.Random)

    @classmethod
    def over(cls, net: Devnet, url: str, say: Say) -> Self:
        """Of a born devnet whose services run."""
        return cls(net, url, say)

    @cached_property
    def deployment(self) -> Deployment:
        """The devnet's."""
        return open_deployment(self.net.home)

    @cached_property
    def cast(self) -> Cast:
        """Everybody's keys."""
        return gather(self.net.home / "people")

    @cached_property
    def _reader(self) -> KernelReader:
        return KernelReader(self.deployment)

    def kernel(self) -> Kernel:
        """As every part reads it."""
        return self._reader()

    def clock(self) -> int:
        """The statement's time."""
        return self._reader.clock()

    @cached_property
    def _backend(self) -> ApiClient:
        private = open_pem(self.net.home / "people" / "backend.pem", PASSWORD)
        return ApiClient(self.url, "backend", private, self.deployment.roster.domain)

    # scenes, each done once

    def furnish(self) -> None:
        """Every scene in turn, with what it is about; a scene that was played in an earlier life is left out."""
        for name, scene in (
            ("customers with deposits on both chains", self.customers),
            ("coins into cold, and a refill that waits for its ceremony", self.cold),
            ("withdrawals that wait for one more yes, for an hour, for nobody", self.withdrawals),
            ("coins that are nobody's, and an entry about them", self.suspense),
            ("a stricter bundle that two owners signed", self.bundle),
        ):
            mark = self.net.folder / f"played-{scene.__name__}"
            if mark.exists() or self.stop.is_set():
                continue
            began = time.monotonic()
            try:
                scene()
            except (
                CustodyError,
                LookupError,
                TimeoutError,
                subprocess.SubprocessError,
            ) as error:  # the next one may do better
                self.say(f"{name}: {error}")
                continue
            mark.touch()
            self.say(f"{name}: {time.monotonic() - began:.0f} s")

    def customers(self) -> None:
        """Five, each with addresses, deposits of three assets, and a place of their own to withdraw to that is a day old."""
        known = self.deployment.store.read(lambda work: work.customers.ids())
        for customer in CUSTOMERS:
            if customer not in known:
                add_customer(self.deployment.store, customer)
            for asset, amount in DEPOSITS:
                self.deposit(customer, asset, amount)
            for chain in (EVM, BITCOIN):
                self.enrol(customer, chain, self._place_of(customer, chain))
        self._until("deposits are final", lambda: all(self._has(c, a) for c in CUSTOMERS for a, _ in DEPOSITS))
        hands.advance(self.net, DAY + 3600)

    def cold(self) -> None:
        """Bo moves coins into cold, with the others' leave; a refill is approved, waits its hour, and then for cold seats."""
        into = self._move("to-cold", Tier.CUSTOMER_COLD, "20", ("ana", "dan"))
        self._until("cold has coins", lambda: self.now(into).status.is_final)
        self._move("refill", Tier.CUSTOMER_HOT, "15", ("ana", "cleo", "dan"))
        hands.advance(self.net, 3700)

    def withdrawals(self) -> None:
        """Of every kind that the queue has a place for."""
        self.withdraw("ada", "0.4", "ETH")
        self.withdraw("ada", "0.02", "BTC")
        self._approved(self.withdraw("ada", "9", "ETH"), "cleo")
        self._approved(self.withdraw("ben", "10", "ETH"), "bo")
        self.withdraw("cyd", "0.5", "BTC")
        locked = self.withdraw("ben", "120000", "USDX")
        self._backend.statement()  # its time-lock runs from the attestor's first sight, and somebody may be about to move the clock
        self._approved(locked, "bo", "cleo", "dan")
        self.withdraw("dee", "22", "ETH")
        odd = self.withdraw("dee", "8.5", "ETH")
        self.reject(odd, "cleo", "the customer says that they did not ask for it")
        self.freeze("customer:eli", "hana", "their mail account was taken over; asked for by the customer")
        self.withdraw("eli", "0.3", "ETH")

    def suspense(self) -> None:
        """Somebody pays the hot wallet itself; Gil drafts that it was Cyd, signs, and waits for a second one."""
        place = self.deployment.hot_wallet(EVM).place
        hands.pay(self.net, place, "0.7", "ETH")

        def events(work: UnitOfWork) -> list[str]:
            rows = work.listing.balances(AccountKind.SUSPENSE, 50)
            return [str(account) for account, asset, units in rows if asset.symbol == "ETH" and units >= 7 * 10**17]

        self._until("coins stand in suspense", lambda: bool(self.deployment.store.read(events)))
        event, units = self.deployment.store.read(events)[0], 7 * 10**17
        postings = (
            ManualPosting(event, "ETH", "debit", units),
            ManualPosting("customer_available:cyd", "ETH", "credit", units),
        )
        message = ManualEntry("suspense-cyd-1", "Cyd paid the wrong address, and signed from its sender", postings)
        self._gathered(message, "gil", ("gil",))

    def bundle(self) -> None:
        """Less ether goes out by itself. Written by Gil, reported on, signed by two owners."""
        folder = self.net.folder / "coming"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.net.home / "policy", folder / "policy")
        limits = folder / "policy" / "limits.yaml"
        limits.write_text(limits.read_text(encoding="ascii").replace("ETH: 5 ETH", "ETH: 4 ETH", 1), encoding="ascii")
        target = folder / "activation.json"
        words = (
            "policy",
            "draft",
            str(target),
            str(folder / "policy"),
            "--author",
            "gil",
            "--home",
            str(self.net.home),
        )
        subprocess.run([str(bulkhead_program()), *words], check=True, capture_output=True, timeout=PATIENCE)  # noqa: S603  # our own command
        coming = load(folder / "policy")
        message = Signed.from_json(PolicyActivation, read_json(target.read_text(), target.name)).message
        self.deployment.store.run(lambda work: work.documents.put(BUNDLE, coming.hash.hex(), coming.to_json()))
        self._gathered(message, "gil", ("cleo", "dan"))

    # what goes on

    def go_on(self) -> None:
        """Blocks, deposits, small withdrawals that nobody is asked about, and larger ones for people to decide about, until stopped."""
        while not self.stop.wait(BLOCK):
            try:
                hands.mine(self.net, 1)
                self._backend.statement()  # asked for as people would, so that coverage has a past
                self.renew()
                self.happen(self.dice.randrange(5))
                if len(self._waiting()) < WAITING:
                    self.larger()
            except CustodyError as error:  # as worker and watcher: said, and tried again
                self.say(f"not now: {error}")

    def happen(self, what: int) -> None:
        """One of a few things; most of the time none."""
        customer = self.dice.choice(SMALL)
        if what == 0:
            self.deposit(customer, *self.dice.choice((("ETH", "0.35"), ("BTC", "0.02"), ("USDX", "750"))))
        elif what == 1:
            self.withdraw(customer, *self.dice.choice((("0.25", "ETH"), ("0.01", "BTC"), ("400", "USDX"))))

    def renew(self) -> None:
        """What waits under an earlier roster is asked for again under the newest: a newcomer's key decides about nothing older than it."""
        newest = str(self.kernel().roster.version.version)
        for old in self._waiting():
            if old["intent"]["roster"] != newest:
                self._backend.cancel(old["id"], "asked for again under the new roster", self.cast.programs["backend"])
                customer = str(old["account"]).partition(":")[2]
                self._first_yes(self.withdraw(customer, str(old["amount"]), str(old["asset"])))

    def larger(self) -> None:
        """A withdrawal that people are asked about; one of risk or of operations has said yes."""
        self._first_yes(self.withdraw(self.dice.choice(LARGE), str(self.dice.randrange(6, 12)), "ETH"))

    def _first_yes(self, made: Transfer) -> None:
        if made.status is Status.PENDING_AUTHORIZATION:
            self._approved(made, self.dice.choice(("cleo", "cleo", "bo")))

    def deposit(self, customer: str, asset: str, amount: str) -> None:
        """Somebody who is nobody to us pays the customer's address."""
        chain = self.deployment.bundle.assets.get(asset).chain
        hands.pay(self.net, self._deposit_address(customer, chain), amount, asset)

    def withdraw(self, customer: str, amount: str, asset: str) -> Transfer:
        """The customer asks for some of theirs; the backend proposes it over the API."""
        moved = Amount.parse(self.deployment.bundle.assets.get(asset), amount)
        chain, reference = moved.asset.chain, f"{customer}-{secrets.token_hex(4)}"
        place, until = self._place_of(customer, chain), self.clock() + 7 * DAY
        message = Proposal(
            reference, f"customer:{customer}", chain.name, asset, moved.units, place, "withdrawal", until
        )
        told = self._backend.propose(message, moved, self.cast.programs["backend"], reference)
        found = self.deployment.store.read(lambda work: work.transfers.get(bytes.fromhex(told["digest"][2:])))
        if found is None:
            raise LookupError(told["id"])
        return found

    # the steps inside

    def _waiting(self) -> list[Json]:
        """Customers' withdrawals that wait for people."""
        found = self._backend.transfers(status=Status.PENDING_AUTHORIZATION.value)
        return [each for each in found if each["purpose"] == Purpose.WITHDRAWAL.value]

    def _approved(self, transfer: Transfer, *people: str) -> None:
        for person in people:
            refused = self.approve(transfer, person)
            if refused:
                self.say(f"{person} may not approve {transfer.intent.id}: {', '.join(refused)}")

    def _move(self, reference: str, to: Tier, ether: str, people: tuple[str, ...]) -> Transfer:
        wallet = next(w for w in self.deployment.inventory().on(EVM) if w.tier is to)
        units = Amount.parse(self.deployment.bundle.assets.get("ETH"), ether).units
        made = self.ask(
            f"{reference}-{secrets.token_hex(4)}", "company", "ETH", units, wallet.place, "bo", Purpose.REBALANCE
        )
        self._approved(made, *people)
        return made

    def _gathered(self, message: PolicyActivation | ManualEntry, by: str, people: tuple[str, ...]) -> None:
        store, roster, now = self.deployment.store, self.deployment.roster, self.clock()
        digest = gathering.draft(store, roster, message, by, now)
        for person in people:
            signature = self.cast.people[person].sign(digest)
            gathering.add(store, roster, type(message), digest, signature, now)

    def _deposit_address(self, customer: str, chain: Chain) -> str:
        d = self.deployment
        word, wallet = attestor(d.settings), d.hot_wallet(chain)
        return issue_address(d.store, word, d.roster, wallet, customer, ChainDeriver()).message.address

    def _place_of(self, customer: str, chain: Chain) -> str:
        """Where they withdraw to: what is enrolled, or a new address of nobody's here."""
        known = self._backend.enrolments(f"customer:{customer}")
        mine = [str(each["address"]) for each in known if each["chain"] == chain.name]
        if mine:
            return mine[0]
        if chain.is_evm:
            return str(Account.create().address)
        return str(self.net.bitcoind.rpc("getnewaddress", wallet="miner"))

    def _has(self, customer: str, symbol: str) -> bool:
        account, asset = (
            LedgerAccount(AccountKind.CUSTOMER_AVAILABLE, customer),
            self.deployment.bundle.assets.get(symbol),
        )
        return self.deployment.store.read(lambda work: work.journal.balance(account, asset)) > 0

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        """Make blocks until something holds. Raises TimeoutError, also where it is stopped."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
            hands.mine(self.net, 1)
            if self.stop.wait(2):
                raise TimeoutError(f"{what}: stopped before")
