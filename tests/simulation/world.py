# SPDX-License-Identifier: AGPL-3.0-or-later
"""One run's world: chains, clock, vaults and a database that outlive everybody, and processes that can be killed and begun again."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final, TypeVar

from custody.flows.inventory import Inventory
from custody.flows.ports import ChainView, Damaged, UnitOfWork
from custody.flows.prices import record_price
from custody.rules.prices import Price
from custody.rules.roster import Roster
from custody.rules.transfers import Transfer
from custody.rules.wallets import Chain, Tier
from custody.store.unit_of_work import SqlStore
from custody.vault.attestor_memory import VaultMemory
from tests.fakes.seat import BITCOIN, COLD, EVM, HOT, ed25519, signed_by
from tests.simulation import birth
from tests.simulation.baton import Baton, Life
from tests.simulation.bitcoin import BitcoinNode, node_view
from tests.simulation.evm import EvmChain
from tests.simulation.evm_node import EvmNodeView
from tests.simulation.gates import Gate
from tests.simulation.processes import (
    AttestorProcess,
    Balancer,
    Judging,
    Process,
    Relay,
    Seat,
    Watcher,
    Witnessed,
    Worker,
)

T = TypeVar("T")

PRICE_EVERY: Final = 1_500
"""Seconds after which feeders speak again."""


@dataclass
class Clock:
    """The one clock of a run; a process may have it wrong."""

    now: int = birth.START

    def __call__(self) -> int:
        """Seconds since 1970."""
        return self.now

    def jump(self, seconds: int) -> None:
        """Time goes by, and nobody does anything meanwhile."""
        self.now += seconds


@dataclass
class World:
    """Everything of one run. `rng` is the only source of chance."""

    seed: int
    folder: Path
    rng: Random = field(init=False)
    clock: Clock = field(default_factory=Clock)
    witnessed: list[Witnessed] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    """The chain's name and the bytes, of everything that went out."""
    on_send: list[Callable[[str, bytes], None]] = field(default_factory=list)
    on_signature: list[Callable[[Witnessed], None]] = field(default_factory=list)
    quoted: int = 0
    vouched: int = 0
    """The newest position of the journal that any statement spoke for."""
    deaths: int = 0
    """Of processes that answer others."""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.born = birth.born()
        self.baton = Baton(Random(f"{self.seed}/baton"), self.clock)
        self.gate = Gate(self.baton, self.clock.jump)
        self.turns = self.gate.turns
        self.sees_deaths = bool(self.seed % 2)
        """Whether workers run on one machine and see each other's death; elsewhere a lease has to lapse."""
        wallets = [signed.message for signed in self.born.certificates.values()]
        on_evm = [each for each in wallets if each.chain == EVM.name]
        self.evm = EvmChain.made(EVM, str(self.seed), self.clock, self.born.assets, on_evm)
        self.bitcoin = BitcoinNode.made(BITCOIN, str(self.seed), self.clock, self.born.assets, wallets)
        self.rosters = [self.born.roster]
        """Every version that people ever agreed on, the newest last."""
        self.store: SqlStore = birth.open_copy(self.born, self.folder / "ledger.db")
        for chain in (self.evm, self.bitcoin):
            chain.mine()
            chain.on_send = partial(self._send, chain.chain.name)
        self._begin()
        self._see_enrolments()
        self.quote()

    def _begin(self) -> None:
        vaults = {name: birth.vault_of(name, self.born.vaults[name]) for name in (*HOT, *COLD)}
        self.seats = [Seat(self, name, vault) for name, vault in vaults.items()]
        attestor_vault = birth.vault_of("attestor", {})
        VaultMemory(attestor_vault).pin(self.born.genesis)
        self.attestor = AttestorProcess(self, attestor_vault)
        self.relay = Relay(self, "relayer", "relayer")
        self.workers = [Worker(self, f"worker-{number}", "worker") for number in (1, 2)]
        self.apis = [Judging(self, f"api-{number}", "api") for number in (1, 2)]
        self.watchers = {
            EVM: [Watcher(self, f"watcher-evm-{number}", EVM) for number in (1, 2)],
            BITCOIN: [Watcher(self, f"watcher-bitcoin-{number}", BITCOIN) for number in (1, 2)],
        }
        self.balancer = Balancer(self, "rebalancer", "rebalancer")

    def _see_enrolments(self) -> None:
        """The attestor saw the enrolments a day before the run begins: policy lets a fresh address cool that long."""
        now, self.clock.now = self.clock.now, self.clock.now - birth.DAY - 600
        self.attestor.statement()
        self.clock.now = now

    def note(self, witnessed: Witnessed) -> None:
        """A seat signed."""
        self.witnessed.append(witnessed)
        for told in self.on_signature:
            told(witnessed)

    def _send(self, chain: str, raw: bytes) -> None:
        self.sent.append((chain, raw))
        for told in self.on_send:
            told(chain, raw)

    # processes

    @property
    def mortals(self) -> list[Process]:
        """Everybody who acts by himself."""
        return [*self.workers, *self.apis, *self.watchers[EVM], *self.watchers[BITCOIN], self.balancer]

    @property
    def everybody(self) -> list[Process]:
        """Every process."""
        return [*self.mortals, self.attestor, *self.seats]

    def is_gone(self, holder: str) -> bool:
        """Whether a holder of a lease is known to be dead."""
        return all(process.life.holder != holder for process in self.workers)

    def kill(self, *processes: Process) -> None:
        """They die at once, wherever they were, and are started again."""
        lives: set[Life] = set()
        for process in processes:
            process.life.dead = True
            lives.add(process.life)
        self.baton.end(lambda life: life in lives)
        for process in processes:
            process.begin_again()

    def close(self) -> None:
        """The end of the run for everybody."""
        for process in self.everybody:
            process.life.dead = True
        self.baton.end(lambda life: life.dead)
        self.store.close()

    # the database

    def keep_copy(self, name: str) -> Path:
        """A copy of the database as it stands."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        with sqlite3.connect(self.folder / "ledger.db") as live, sqlite3.connect(path) as kept:
            live.backup(kept)
        live.close()
        kept.close()
        return path

    def put_back(self, path: Path) -> None:
        """Everybody is killed, and the database is what a copy says."""
        self.kill(*self.mortals)
        self.store.close()
        for each in self.folder.glob("ledger.db*"):
            each.unlink()
        shutil.copy(path, self.folder / "ledger.db")
        self.store = birth.open_copy(self.born, self.folder / "ledger.db")
        self.turns.forget()
        for process in self.everybody:
            process.begin_again()

    # people's documents

    @property
    def roster(self) -> Roster:
        """The newest version in force."""
        return [each for each in self.rosters if each.version.not_before <= self.clock()][-1]

    @cached_property
    def inventory(self) -> Inventory:
        """The wallets and addresses of the deployment, which no run adds to."""
        return self.store.read(lambda work: birth.reader().read(work, self.born.roster))

    def quote(self) -> None:
        """The feeders' prices of now."""
        for symbol, usd in birth.USD.items():
            for feeder in birth.FEEDERS:
                price = Price(feeder, symbol, usd * 10**6, self.clock())
                signed = signed_by(price, self.born.domain, [ed25519(feeder)])
                record_price(self.store, self.born.roster, signed, self.clock())
        self.quoted = self.clock()

    def pass_time(self, seconds: int) -> None:
        """Time goes by; feeders go on speaking."""
        self.clock.now += seconds
        if self.clock.now - self.quoted > PRICE_EVERY:
            self.quote()

    # what a run looks at

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Of the store, past every gate."""
        return self.store.read(work)

    def transfers(self) -> list[Transfer]:
        """Every transfer that can be read, oldest first."""
        return [found for _, found in self._examined() if isinstance(found, Transfer)]

    def damaged(self) -> list[Damaged]:
        """Every transfer that cannot."""
        return [found for _, found in self._examined() if isinstance(found, Damaged)]

    def _examined(self) -> list[tuple[int, Transfer | Damaged]]:
        return self.read(lambda work: [*work.transfers.examine(0, 10_000)])

    def views(self) -> dict[Chain, ChainView]:
        """Both chains as they are."""
        return {EVM: EvmNodeView(self.evm), BITCOIN: node_view(self.bitcoin)}

    def wallet(self, tier: Tier, chain: Chain) -> bytes:
        """A wallet's name."""
        return self.born.certificate(tier, chain).struct_hash

    def number(self) -> int:
        """A fresh number of the run's."""
        return self.rng.getrandbits(60)

    def entropy(self) -> bytes:
        """Ten bytes for an id."""
        return sha256(f"{self.seed}/{self.number()}".encode()).digest()[:10]
