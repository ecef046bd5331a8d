# SPDX-License-Identifier: AGPL-3.0-or-later
"""One living world in which everything can be made to fail, and in which every withdrawal is paid once in spite of it.

Real servers, nodes and parts; a proxy in front of each node and of each vault that is asked while it signs; small disks under the
ledger, one seat's vault and the attestor's.
"""

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from unittest import mock

from custody import parts
from custody.flows.ports import Damaged, UnitOfWork
from custody.rules.errors import CustodyError
from custody.rules.facts import Purpose
from custody.rules.intents import Proposal
from custody.rules.ledger import AccountKind
from custody.rules.payments import Envelope
from custody.rules.statements import Statement
from custody.rules.transfers import Status, Transfer
from custody.settings import NodeSettings, PartSettings, Settings
from devnet import birth
from devnet.birth import BITCOIN, EVM, Services, raise_world
from devnet.grants import Kind, write_private
from devnet.network import HOT_SEATS, Devnet, Hosting
from devnet.openbao import OpenBao
from devnet.postgres import postgres
from devnet.prices import told_time
from devnet.processes import Command, Lifetime, Process
from devnet.scenes.stage import Stage
from devnet.services import Loop, Service, Web
from tests.crash import parts as forked
from tests.crash.journeys import COIN, ETHER, Carrier, Traveller
from tests.crash.parts import ForkedLoop, ForkedServer, ForkedWeb, children
from tests.faults.disk import Disk
from tests.faults.launch import CLOCK
from tests.faults.proxy import Proxy, honest

T = TypeVar("T")

FULL_DISK_SEAT: Final = "hot-4"
"""The seat whose vault lies on a small disk."""
PATIENCE: Final = 240.0
"""Seconds for one leg on a machine that others load."""
COINS: Final = 10
COIN_UNITS: Final = 20_000_000
ETHER_UNITS: Final = 10**16
BITCOIN_UNITS: Final = 100_000
_DAY: Final = 86_400
_ROOT: Final = Path(__file__).resolve().parents[2]


class Nursery(forked.Nursery):
    """Forks parts whose clock can jump (launch.py)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = folder / "n"
        self.socket.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "tests.faults.launch", str(self.socket)]
        command = Command(argv, {"PYTHONPATH": str(_ROOT), "HOME": str(folder)})
        self._process = Process("nursery", command, folder / "nursery.txt", Lifetime.PARENT)


class Parts(Services):
    """Every part forked from the nursery; seats ask their vaults through proxies, as approle files of their own tell them."""

    def __init__(self, net: Devnet, nursery: Nursery) -> None:
        super().__init__(net)
        self._nursery = nursery
        self.hot = {
            name: self._forked(ForkedServer, seat, approle=proxied(net.hot[name])) for name, seat in self.hot.items()
        }
        self.cold = {name: self._forked(ForkedServer, seat) for name, seat in self.cold.items()}
        self.attestor = self._forked(ForkedServer, self.attestor)
        self.relayer = self._forked(ForkedServer, self.relayer)
        self.deriver = self._forked(ForkedServer, self.deriver)
        self.watcher = self._forked(ForkedLoop, self.watcher)
        self.worker = self._forked(ForkedLoop, self.worker)
        self.web = self._forked(ForkedWeb, self.web)
        again = Loop("worker-2", net.folder / "worker-2.d", net.home, ("worker",), self.worker.lifetime)
        self.worker2 = self._forked(ForkedLoop, again)
        another = Web("api-2", net.folder / "api-2.d", net.home, ("api", "serve"), self.web.lifetime)
        self.web2 = self._forked(ForkedWeb, another)

    def _forked(self, cls: type[forked.S], bare: Service, approle: Path | None = None) -> forked.S:
        words = list(bare.arguments)
        if approle is not None:
            words[words.index("--approle") + 1] = str(approle)
        made = cls(bare.name, bare.folder, bare.home, words, bare.lifetime)
        made.socket = bare.socket
        made.points, made.part, made.nursery = bare.folder, bare.name, self._nursery
        return made


def proxied(server: OpenBao) -> Path:
    """The approle file by which a part reaches its vault through a proxy."""
    return server.folder.parent / f"{server.name}.proxied.json"


@dataclass(frozen=True, slots=True)
class Payment:
    """One withdrawal that was asked for."""

    id: str
    traveller: Traveller
    units: int


@dataclass
class Hall:
    """The world, and what tests do in it."""

    stage: Stage
    services: Parts
    nodes: Mapping[str, Proxy]
    """`worker-evm`, `worker-bitcoin`, and each of the attestor's two: `attestor-evm`, `attestor-evm-2`, …"""
    vaults: Mapping[str, Proxy]
    disks: Mapping[str, Disk]
    carrier: Carrier = field(init=False)
    ether: Traveller = field(init=False)
    bitcoin: Traveller = field(init=False)
    made: int = 0
    _paid: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.carrier = Carrier(self.stage)

    # money

    def open(self) -> None:
        """A customer on each chain with coins to withdraw and an address of theirs that was enrolled a day ago."""
        self.ether, self.bitcoin = self.carrier.prepare([ETHER, COIN])
        backend = self.carrier.office.client("backend")
        ether = self.carrier.insist(partial(backend.issue_address, self.ether.customer, EVM.name))
        coin = self.carrier.insist(partial(backend.issue_address, self.bitcoin.customer, BITCOIN.name))
        self.carrier._pay(self.ether, ether.message.address)
        for _ in range(COINS):
            self.stage.world.net.bitcoind.pay(coin.message.address, COIN_UNITS)
        self.stage.world.net.bitcoind.mine(1)
        whole = COINS * COIN_UNITS
        self.until(lambda: self.stage.available(self.ether.customer, "ETH") >= ETHER.deposit, "the ether is credited")
        self.until(lambda: self.stage.available(self.bitcoin.customer, "BTC") >= whole, "the bitcoin is credited")

    def proposal(self, traveller: Traveller, units: int, reference: str, days: int = 7) -> Proposal:
        """A withdrawal to the customer's own address."""
        owner, until = f"customer:{traveller.customer}", told_time(self.carrier.attestor) + days * _DAY
        chain, asset = traveller.journey.chain.name, traveller.journey.asset
        return Proposal(reference, owner, chain, asset, units, traveller.destination, Purpose.WITHDRAWAL.value, until)

    def ask(self, traveller: Traveller, units: int = 0) -> Payment:
        """Ask for a withdrawal over the API; small ones go by themselves."""
        self.made += 1
        units = units or (ETHER_UNITS if traveller is self.ether else BITCOIN_UNITS) + self.made
        reference = f"fault-{self.made}"
        proposal = self.proposal(traveller, units, reference)
        office = self.carrier.office
        told = office.client("backend").propose(proposal, office.amount(proposal), office.signer("backend"), reference)
        return Payment(str(told["id"]), traveller, units)

    def sweep(self) -> None:
        """The first withdrawal of ether deploys the deposit address and empties it, which takes transactions of its own."""
        if not self.completed(self.ether):
            self.finish(self.ask(self.ether))

    def now(self, payment: Payment) -> Transfer:
        """The withdrawal as it stands."""
        for transfer in self.transfers(payment.traveller):
            if transfer.intent.id == payment.id:
                return transfer
        raise LookupError(payment.id)

    def transfers(self, traveller: Traveller | None = None) -> list[Transfer]:
        """Every withdrawal, of everybody unless one is named."""
        account = None if traveller is None else f"customer:{traveller.customer}"
        found: list[Transfer] = []
        after, store = 0, self.stage.deployment.store
        while page := store.read(partial(_page, account, after)):
            after = page[-1][0]
            found += [transfer for _, transfer in page if isinstance(transfer, Transfer)]
        return found

    def kept(self, payment: Payment) -> Sequence[Envelope]:
        """The bytes that were stored for its anchor."""
        digest, store = self.now(payment).digest, self.stage.deployment.store
        permit = store.read(lambda work: work.transfers.permit_of(digest))
        return () if permit is None else store.read(lambda work: work.transfers.kept(permit.reservation.anchor))

    def received(self, traveller: Traveller) -> int:
        """What is at the customer's own address, in base units, pending payments included."""
        net = self.stage.world.net
        if traveller.journey.chain == EVM:
            return int(str(net.anvil.rpc("eth_getBalance", traveller.destination, "latest")), 16)
        return int(net.bitcoind.rpc("getreceivedbyaddress", traveller.destination, 0, wallet="miner") * 10**8)  # type: ignore[operator]  # a Decimal

    def completed(self, traveller: Traveller) -> int:
        """What the books say was paid there."""
        return sum(t.intent.amount for t in self.transfers(traveller) if t.status is Status.COMPLETED)

    # time

    def until(self, done: Callable[[], T], what: str, *, mine: bool = True, seconds: float = PATIENCE) -> T:
        """Look until it is so, with blocks between. Raises AssertionError."""
        deadline, mined = time.monotonic() + seconds, 0.0
        while not (found := done()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {what}; {self.standing()}")
            if mine and time.monotonic() - mined > 0.5:
                self.stage.mine(2)
                mined = time.monotonic()
            time.sleep(0.05)
        return found

    def finish(self, *payments: Payment) -> None:
        """Until all of them are paid, and final."""

        def done() -> bool:
            transfers = [self.now(payment) for payment in payments]
            ended = [t for t in transfers if t.status.is_final]
            assert all(t.status is Status.COMPLETED for t in ended), ended
            return len(ended) == len(payments)

        self.until(done, "completed")

    def waits(self, payment: Payment, *words: str, seconds: float = PATIENCE) -> str:
        """Until it says that it waits for all of these; what it says."""

        def told() -> str:
            transfer = self.now(payment)
            assert not transfer.status.is_final, transfer
            return transfer.waiting_for if all(word in transfer.waiting_for for word in words) else ""

        return self.until(told, f"waits for {words}", mine=False, seconds=seconds)

    def said(self, text: str, since: int = 0) -> bool:
        """Whether the worker said so, in its log from some character on."""
        return text in self.services.worker.log.read_text(errors="replace")[since:]

    def standing(self) -> str:
        """Every unfinished withdrawal and the worker's last words."""
        lines = [f"{t.proposal.message.reference} {t.status} {t.waiting_for}" for t in self._open()]
        return "; ".join(lines) + " | " + self.services.worker.log.read_text(errors="replace")[-600:]

    # seats

    def positions(self, names: Sequence[str] = HOT_SEATS) -> dict[str, int]:
        """How long the journals of seats are: a seat that signed something new has a longer one."""
        found = parts.seats(self.stage.deployment.settings)
        return {name: int(str(found[name].status()["position"])) for name in names}  # type: ignore[attr-defined]  # RemoteSeat

    @contextmanager
    def sealed(self, *servers: OpenBao) -> Iterator[None]:
        """These vaults sealed: restarted, and nobody comes with shares before the block ends."""
        try:
            for server in servers:
                server.stop()
                server.start()
                assert server.sealed
            yield
        finally:
            for server in servers:
                server.unseal()

    @contextmanager
    def ledger_full(self) -> Iterator[None]:
        """Not one more block for the ledger. What its write-ahead log had already is emptied first, or it would be written over."""
        ledger = sqlite3.connect(self.disks["ledger"].folder / "ledger.db", isolation_level=None, timeout=10)
        try:
            emptied = partial(ledger.execute, "PRAGMA wal_checkpoint(TRUNCATE)")
            self.until(lambda: emptied().fetchone()[0] == 0, "the log is empty", mine=False)
        finally:
            ledger.close()
        with self.disks["ledger"].full():
            yield

    # clocks

    @contextmanager
    def clock(self, seconds: int, *services: Service) -> Iterator[None]:
        """The machines of these parts are wrong by so many seconds."""
        files = [service.folder / CLOCK for service in services]
        for file in files:
            file.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            for file in files:
                _put(file, f"{seconds}")
            yield
        finally:
            for file in files:
                file.unlink()

    def life(self, service: Service) -> int:
        """The pid of a part's newest life."""
        return self.until(lambda: next(iter(children(service.pid or 0)), 0), f"{service.name} lives", mine=False)

    @contextmanager
    def paused(self, service: Service) -> Iterator[None]:
        """A part that is stopped by its machine, and goes on afterwards as if nothing had been."""
        pid = self.life(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # health

    def mend(self) -> None:
        """Whatever a test left behind, so that one that fails does not fail the next."""
        for proxy in (*self.nodes.values(), *self.vaults.values()):
            proxy.trick = honest
            proxy.heard.clear()
        for server in (*_vaults(self.stage.world.net).values(), self.stage.world.net.relayer):
            if server.pid is None:
                server.start()
            server.unseal()

    def check(self) -> None:
        """Everything works, nothing is open or held, and what arrived is what the books say was paid: once each."""
        self.until(lambda: not self._open(), "nothing is open")
        assert all(row.reserves >= row.available + row.held for row in self.speaks().coverage)
        totals = self.stage.deployment.store.read(lambda work: list(work.journal.totals()))
        assert not [row for row in totals if row[0] is AccountKind.CUSTOMER_HELD and row[2]], totals
        for traveller in (self.ether, self.bitcoin):
            assert self.received(traveller) == self.completed(traveller)
        assert not self.stage.deployment.store.read(lambda work: work.transfers.examine_permitted())

    def _open(self) -> list[Transfer]:
        return [transfer for transfer in self.transfers() if not transfer.status.is_final]

    def speaks(self, seconds: float = PATIENCE) -> Statement:
        """What the attestor says, as soon as it says something. Raises AssertionError with why it does not."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.carrier.attestor.statement().message
            except CustodyError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the attestor does not speak: {error}") from error
            time.sleep(0.2)


def _page(account: str | None, after: int, work: UnitOfWork) -> Sequence[tuple[int, Transfer | Damaged]]:
    return work.transfers.examine(after, 500, account=account)


def _put(file: Path, text: str) -> None:
    fresh = file.with_suffix(".fresh")
    fresh.write_text(text, encoding="ascii")
    fresh.replace(file)


def silent(ask: Callable[[], object]) -> str:
    """What somebody who cannot answer says. Raises AssertionError where there is an answer."""
    try:
        answer = ask()
    except CustodyError as error:
        return str(error)
    raise AssertionError(f"answered: {answer}")


@contextmanager
def on_postgres() -> Iterator[None]:
    """Worlds that rise within the block have their ledger in a PostgreSQL of its own."""
    settings = vars(birth)["_settings"]
    with postgres() as url:

        def there(net: Devnet, *rest: object) -> None:
            settings(net, *rest)
            replace(Settings.load(net.home), database=url).save()

        with mock.patch.object(birth, "_settings", there):
            yield


@contextmanager
def living(home: Path, say: Callable[[str], None]) -> Iterator[Hall]:
    """A world of its own; it dies with the block, and with this process."""
    net = Devnet(home, lifetime=Lifetime.PARENT, progress=say, hosting=Hosting.PROCESS)
    with ExitStack() as stack:
        disks = _disks(net)
        for disk in disks.values():
            disk.attach()
            stack.callback(disk.detach)
        (home / "ledger.db").symlink_to(disks["ledger"].folder / "ledger.db")
        nursery = Nursery(home / "nursery")
        stack.callback(nursery.stop)
        stack.enter_context(net.running())
        vaults = {name: _proxy(stack, partial(_port, server)) for name, server in _vaults(net).items()}
        for name, server in _vaults(net).items():
            write_private(proxied(server), json.loads(server.approle_file.read_text()) | {"url": vaults[name].url})
        services = Parts(net, nursery)
        stack.callback(services.stop)
        world = raise_world(net, services, say)
        nodes = _rewire(stack, net)
        services.attestor.stop()
        services.start([services.attestor, services.watcher, services.worker])
        disks["ledger"].writers = lambda: [p for s in (services.worker, services.web) for p in children(s.pid or 0)]
        hall = Hall(Stage(world, world.deployment), services, nodes, vaults, disks)
        hall.open()
        yield hall


def _vaults(net: Devnet) -> dict[str, OpenBao]:
    return {**net.hot, "attestor": net.attestor}


def _disks(net: Devnet) -> dict[str, Disk]:
    def writer(server: OpenBao) -> Callable[[], list[int]]:
        return lambda: [] if server.pid is None else [server.pid]

    seat, attestor = net.hot[FULL_DISK_SEAT], net.attestor
    return {
        "ledger": Disk(net.home / "disk", 48),
        "seat": Disk(seat.folder, 64, writer(seat)),
        "attestor": Disk(attestor.folder, 64, writer(attestor)),
    }


def _port(node: OpenBao) -> int:
    return node.port


def _proxy(stack: ExitStack, upstream: Callable[[], int]) -> Proxy:
    proxy = Proxy(upstream).start()
    stack.callback(proxy.stop)
    return proxy


def _rewire(stack: ExitStack, net: Devnet) -> dict[str, Proxy]:
    """Proxies in front of every node, and settings that lead there: one for worker and watcher, two for the attestor."""
    ports: dict[str, Callable[[], int]] = {"evm": lambda: net.anvil.port, "bitcoin": lambda: net.bitcoind.port}
    made = {
        f"{who}-{chain}{number}": _proxy(stack, port)
        for chain, port in ports.items()
        for who, number in (("worker", ""), ("attestor", ""), ("attestor", "-2"))
    }
    cookie = str(net.bitcoind.cookie_file)

    def node(name: str) -> NodeSettings:
        return NodeSettings(made[name].url, cookie if "bitcoin" in name else "")

    settings = Settings.load(net.home)
    replace(
        settings,
        nodes={EVM.name: node("worker-evm"), BITCOIN.name: node("worker-bitcoin")},
        attestor_nodes={
            EVM.name: (node("attestor-evm"), node("attestor-evm-2")),
            BITCOIN.name: (node("attestor-bitcoin"), node("attestor-bitcoin-2")),
        },
        attestor=PartSettings(settings.attestor.socket, str(proxied(net.attestor))),
    ).save()
    return made


__all__ = ["Hall", "Kind", "Payment", "living", "silent"]
