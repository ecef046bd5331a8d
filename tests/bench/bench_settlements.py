# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payments a second from the queue to the chain, in batches of 100: real nodes, three of four seats, attestor and relayer.

Every seat is a process of its own over an OpenBao of its own, so is the attestor, so is the relayer; the worker's steps run in this
process. The clock runs from the first step that finds the batch in the queue until each payment's transaction was taken by its
node (Anvil mines it at once; bitcoind has it in its mempool): authorized, attested, signed by M seats, stored, broadcast. Payments
are proposed before, and followed to finality and booked after. The nodes run on the same machine and take their share of it.
"""

import os
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from eth_account import Account

from custody.chains.addresses import ChainDeriver
from custody.flows.customers import add_customer, issue_address
from custody.flows.worker import Pace, step
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Chain
from devnet.birth import BITCOIN, EVM, Services, raise_world
from devnet.network import Devnet
from devnet.processes import Lifetime
from devnet.scenes.desk import Desk
from devnet.scenes.stage import CHAINS, Stage
from devnet.story import Story
from tests.bench.harness import RAW, _write

BATCH: Final = 100
ROUNDS: Final = 3
_SYMBOLS: Final[dict[Chain, tuple[str, int]]] = {EVM: ("ETH", 2 * 10**14), BITCOIN: ("BTC", 50_000)}
"""What one payment moves on each chain, in base units: so little that hundreds stay within every window and cap."""
_WARM: Final = 3
_BLOCKS: Final = 8
_LONGEST: Final = 300.0
_OUT: Final = (Status.CONFIRMING, Status.COMPLETED)


@dataclass(frozen=True, slots=True)
class Settled:
    """How long so many payments took, in seconds, for each round."""

    name: str
    payments: int
    seconds: tuple[float, ...]
    processor: tuple[float, ...]
    """Seconds of processor time of everything in it: worker, seats, their servers, attestor, relayer, nodes."""

    def __str__(self) -> str:
        rates = sorted(self.payments / took for took in self.seconds)
        each = 1000 * statistics.median(self.processor) / self.payments
        return (
            f"{self.name}: {rates[len(rates) // 2]:.1f} payments a second (median of {len(rates)},"
            f" {rates[0]:.1f} to {rates[-1]:.1f}), batches of {BATCH}; {each:.0f} ms of processor time each, all processes together"
        )


class Street:
    """A born deployment with one customer who has coins on both chains and somewhere to send them."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.desk, self._number = stage, Desk(stage), 0
        self._to = {BITCOIN: str(stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner"))}
        self._to[EVM] = Account.create().address

    def furnish(self) -> None:
        """Coins, an enrolled address on each chain, prices, and a day in which all of it was seen."""
        stage, deployment = self.stage, self.stage.deployment
        add_customer(deployment.store, "alice")
        for chain in CHAINS:
            wallet = deployment.hot_wallet(chain)
            issued = issue_address(
                deployment.store, stage.attestor, deployment.roster, wallet, "alice", ChainDeriver()
            ).message.address
            if chain.is_evm:
                stage.world.net.anvil.set_balance(issued, 100 * 10**18)
            else:
                stage.world.net.bitcoind.pay(issued, 200_000_000)
            self.desk.enrol("alice", chain, self._to[chain])
        stage.mine(4)
        stage.watch()
        self.desk.quote()
        self.desk.pass_a_day()

    def propose(self, chain: Chain, count: int) -> list[Transfer]:
        """So many withdrawals, which go out by themselves."""
        symbol, units = _SYMBOLS[chain]
        made = []
        for _ in range(count):
            self._number += 1
            made.append(self.desk.propose(f"bench-{self._number}", "alice", symbol, units, self._to[chain]))
        waits = {(transfer.status, transfer.waiting_for) for transfer in made if transfer.status is not Status.QUEUED}
        if waits:
            raise RuntimeError(f"not queued: {waits}")
        return made

    def bring_out(self, transfers: Sequence[Transfer]) -> float:
        """Seconds until every one of them is on its chain."""
        self.desk.attestor().statement()  # the attestor has seen them, as it has in a deployment that runs
        pace, began = Pace(retry=0), time.monotonic()
        while True:
            report = step(self.desk.worker, pace)
            took = time.monotonic() - began
            if all(self.desk.now(transfer).status in _OUT for transfer in transfers):
                return took
            if took > _LONGEST:
                raise RuntimeError(f"not out: {report.faults} {[line.waiting_for for line in report.waiting][:3]}")

    def finish(self, transfers: Sequence[Transfer]) -> None:
        """Blocks, watcher and worker until they are booked."""
        for _ in range(_BLOCKS):
            self.desk.turn(Story(), quiet=True)
            if all(self.desk.now(transfer).status.is_final for transfer in transfers):
                return
            self.stage.mine(4)
            self.stage.watch()
        raise RuntimeError("not booked")


def benches() -> Iterator[Settled]:
    """Each chain by itself, then both at once."""
    home = RAW / "w"  # short: a unix socket's path has about 107 bytes
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    net = Devnet(home, lifetime=Lifetime.PARENT, progress=_say)
    with net.running():
        services = Services(net)
        try:
            world = raise_world(net, services, _say)
            street = Street(Stage(world, world.deployment))
            street.furnish()
            for chain in CHAINS:  # the first payout of a wallet also empties deposit addresses
                warm = street.propose(chain, _WARM)
                street.bring_out(warm)
                street.finish(warm)
            for name, chains in (("EVM", (EVM,)), ("Bitcoin", (BITCOIN,)), ("both chains", CHAINS)):
                yield _measured(street, name, chains)
        finally:
            services.stop()
    shutil.rmtree(home, ignore_errors=True)


def _measured(street: Street, name: str, chains: Sequence[Chain]) -> Settled:
    seconds, processor = [], []
    for _ in range(ROUNDS):
        transfers = [transfer for chain in chains for transfer in street.propose(chain, BATCH)]
        before = _processor(street.stage.world.net.home)
        seconds.append(street.bring_out(transfers))
        processor.append(_processor(street.stage.world.net.home) - before)
        street.finish(transfers)
        _say(f"{name}: {len(transfers)} payments out in {seconds[-1]:.2f} s, {processor[-1]:.2f} s of processor time")
    settled = Settled(f"settlements, {name}", BATCH * len(chains), tuple(seconds), tuple(processor))
    _write(settled.name, asdict(settled))
    return settled


def _processor(home: Path) -> float:
    """Seconds of processor time that this process and every one that names this home has had."""
    mine, ticks = str(os.getpid()), 0
    for process in Path("/proc").iterdir():
        try:
            known = process.name == mine or (
                process.name.isdecimal()
                and os.fsencode(home) in (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            )
            if known:
                told = (process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
                ticks += int(told[11]) + int(told[12])
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
