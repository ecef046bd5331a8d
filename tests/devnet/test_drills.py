# SPDX-License-Identifier: AGPL-3.0-or-later
"""Drill 1: key-holders vanish, payouts go on, and the hot wallets of both chains move to a new seat set through their own quorum.

A born devnet of its own with two spare seats, on real nodes and real vaults; `make drills` asks for it.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from eth_account import Account

from custody.bootstrap import open_deployment
from custody.flows import rotation_orders
from custody.flows.inventory import Wallet
from custody.rules.facts import Purpose
from custody.rules.ledger import AccountKind
from custody.rules.refusals import Refused, Rule
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain, Tier
from devnet.birth import BITCOIN, EVM, Services, World, raise_world
from devnet.network import Devnet
from devnet.processes import Lifetime
from devnet.scenes import deposits
from devnet.scenes.ceremony import _surplus
from devnet.scenes.desk import Desk
from devnet.scenes.stage import Stage
from devnet.story import Story

pytestmark = pytest.mark.timeout(900)
BULKHEAD = str(Path(sys.executable).parent / "bulkhead")
SPARE = ("hot-5", "hot-6")
GONE = "hot-1"
NEXT = ("hot-3", "hot-4", "hot-5", "hot-6")
"""Two that stay, with new keys, and two that never had one. hot-2 is retired, and still answers."""
CERTIFIERS = ("ana", "cleo", "eve")


@dataclass
class Drill:
    """One world, its desk, and what was found on the way."""

    desk: Desk
    story: Story
    folder: Path
    seen: dict[str, object] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        """The stage."""
        return self.desk.stage

    def run(self, *words: str, code: int = 0) -> str:
        """A command as a person types it."""
        environment = {**os.environ, "BULKHEAD_HOME": str(self.stage.world.net.home)}
        done = subprocess.run(
            [BULKHEAD, *words], capture_output=True, text=True, env=environment, check=False, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sign(self, file: Path, *names: str) -> None:
        """People sign what lies in a file."""
        people = self.stage.world.net.home / "people"
        for name in names:
            key = ("--key", str(people / f"{name}.json"), "--password-file", str(people / "password"), "--yes")
            self.run("sign", str(file), *key)

    def wallet(self, chain: Chain) -> Wallet:
        """The hot wallet of a chain as of now."""
        return open_deployment(self.stage.world.net.home).hot_wallet(chain)

    def rounds(self, most: int = 8) -> None:
        """Worker, blocks and watcher until no order of a hot wallet is under way and nothing moves."""
        for _ in range(most):
            self.desk.turn(self.story)
            self.stage.mine(4)
            self.stage.watch()

    def withdraw(self, reference: str, customer: str, asset: str, units: int, to: str) -> Transfer:
        """A withdrawal that people approve, worked until it ends or nothing moves."""
        made = self.desk.propose(reference, customer, asset, units, to)
        for person in ("ana", "cleo", "dan"):
            self.desk.approve(made, person)
        self.desk.work(self.story, made)
        return self.desk.now(made)

    def draft(self, chain: Chain) -> tuple[Path, ...]:
        """The next certificate of the hot wallet, and on EVM the rotation, as the command writes them."""
        file, rotation = self.folder / f"{chain.name[:6]}.json", self.folder / f"{chain.name[:6]}-rotation.json"
        named = ("--label", "customer_hot", "--chain", chain.name)
        named += tuple(word for name in NEXT for word in ("--seat", name))
        files = (file, rotation) if chain.is_evm else (file,)
        self.run("wallet", "rotate", "draft", str(file), *named, *(("--rotation", str(rotation)) * chain.is_evm))
        return files

    def begin(self, files: tuple[Path, ...], code: int = 0) -> str:
        """Order it."""
        more = ("--rotation", str(files[1])) if len(files) > 1 else ()
        return self.run("wallet", "rotate", "begin", str(files[0]), *more, code=code)

    def audit(self) -> None:
        """The ledger holds to its origins, everything is covered, and nothing is in suspense."""
        assert json.loads(self.run("ledger", "verify", "--json"))["findings"] == []
        self.run("coverage", "--check")
        for asset in self.stage.deployment.bundle.assets:
            total = self.stage.deployment.store.read(
                lambda work, asset=asset: work.journal.total(AccountKind.SUSPENSE, asset)
            )
            assert total == 0, (asset, total)


def open_drill(world: World, folder: Path) -> Drill:
    """The desk over a world, with customers and their coins in it."""
    stage = Stage(world, world.deployment)
    return Drill(Desk(stage), Story(out=io.StringIO()), folder)


def fill(drill: Drill) -> None:
    """Customers, their deposits, the company's bitcoin for fees, enrolled destinations that are a day old."""
    stage, desk = drill.stage, drill.desk
    deposits.customers(stage, drill.story)
    deposits.arrivals(stage, drill.story)
    ether, coin = Account.create().address, stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner")
    drill.seen |= {"ether": ether, "coin": str(coin)}
    desk.enrol("bob", EVM, ether)
    desk.enrol("alice", BITCOIN, str(coin))
    desk.pass_a_day()
    _surplus(desk, drill.story)


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """A born devnet with two spare seats and customers' coins; one for the whole module, whose tests follow each other."""
    home = tmp_path_factory.mktemp("d")
    net = Devnet(home, lifetime=Lifetime.PARENT, spare=SPARE)
    with net.running():
        services = Services(net)
        try:
            drill = open_drill(raise_world(net, services, lambda _: None), tmp_path_factory.mktemp("papers"))
            fill(drill)
            yield drill
        finally:
            services.stop()
