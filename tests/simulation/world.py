# SPDX-License-Identifier: AGPL-3.0-or-later
"""One run's world: chains, clock, vaults and a database that outlive everybody, and processes that can be killed and begun again.

Nothing of a process survives its death but what the store and its vault have: `restart` makes it anew from those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final, TypeVar

from custody.chains.payloads import decode
from custody.composing import MirrorKernel, check_activation
from custody.flows import worker
from custody.flows.attestation import Attestor, InForce
from custody.flows.deposits import StepReport, step
from custody.flows.inventory import Inventory
from custody.flows.ports import ChainView, PayoutChain, Store, UnitOfWork
from custody.flows.prices import record_price
from custody.rules.certificates import SeatHead
from custody.rules.errors import Unavailable
from custody.rules.intents import Anchor
from custody.rules.payments import SeatSignatures
from custody.rules.prices import Price
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Transfer
from custody.rules.wallets import Chain, Tier
from custody.store.unit_of_work import SqlStore
from custody.vault.attestor_memory import VaultMemory
from custody.vault.seat import SeatHost
from custody.vault.storage import Vault
from tests.fakes.seat import BITCOIN, COLD, EVM, HOT, ed25519, signed_by
from tests.simulation import birth
from tests.simulation.bitcoin import BitcoinNode, node_payouts, node_view
from tests.simulation.evm import EvmChain
from tests.simulation.evm_node import EvmNodePayouts, EvmNodeView
from tests.simulation.gates import Crash, Gate, gated

T = TypeVar("T")

OLDEST: Final = 30 * birth.DAY
PRICE_EVERY: Final = 1_500
"""Seconds after which feeders speak again."""


@dataclass
class Clock:
    """The one clock of a run."""

    now: int = birth.START

    def __call__(self) -> int:
        """Seconds since 1970."""
        return self.now


@dataclass(frozen=True)
class Witnessed:
    """A signature that a seat gave: for what, and what was true then."""

    seat: str
    request: Request
    at: int


@dataclass
class Seat:
    """A seat's process as others reach it. Hostile ones refuse, fall silent, or give signatures that are none."""

    name: str
    vault: Vault
    clock: Clock
    gate: Gate
    note: Callable[[Witnessed], None]
    mood: str = ""
    """`silent`, `refuses`, `lies` or `poses` as another; honest where empty."""
    restarts: int = 0

    def __post_init__(self) -> None:
        self.host = self._open()

    def _open(self) -> SeatHost:
        vault = gated(self.vault, self.gate, f"{self.name}/vault")
        return birth.seat_of(self.name, vault, self.clock)  # type: ignore[arg-type]  # the port that it is

    def restart(self) -> None:
        """A new process over the same vault."""
        self.host = self._open()
        self.restarts += 1

    def sign(self, request: Request) -> SeatSignatures:
        """See `SeatPort`; the request travels as JSON."""
        if self.mood == "silent":
            raise Unavailable(f"seat {self.name}", "no answer")
        if self.mood == "refuses":
            raise Refused([Refusal(Rule.FROZEN, scope="all", reason="hostile")])
        made = self._alive(lambda: self.host.sign(Request.from_json(request.to_json())))
        self.note(Witnessed(self.name, request, self.clock()))
        if self.mood == "lies":
            return SeatSignatures(made.seat, made.certificate, tuple(bytes(len(s)) for s in made.signatures))
        return SeatSignatures(HOT[0], made.certificate, made.signatures) if self.mood == "poses" else made

    def head(self) -> Signed[SeatHead]:
        """See `SeatPort`."""
        if self.mood == "silent":
            raise Unavailable(f"seat {self.name}", "no answer")
        return self._alive(self.host.head)

    def _alive(self, do: Callable[[], T]) -> T:
        """What another process sees of a death: no answer, and later a new process."""
        try:
            return do()
        except Crash as crash:
            if crash.owner != self.name:
                raise
            self.restart()
            raise Unavailable(f"seat {self.name}", "its process died") from None


class AttestorProcess:
    """The real attestor behind its process's border."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.restarts = 0
        self.restart()

    def restart(self) -> None:
        """A new process over the same vault; the first statement reads the whole journal again."""
        world, made = self._world, birth.born()
        gate = world.gate
        in_force = InForce(
            made.bundle.hash,
            made.assets,
            {made.bundle.hash: made.bundle.fees},
            dict.fromkeys(made.assets.chains, OLDEST),
            partial(check_activation, made.bundle),
        )
        nodes: dict[Chain, Sequence[ChainView]] = {
            chain: [gated(view, gate, f"attestor/{'evm' if chain.is_evm else 'bitcoin'}")]
            for chain, view in world.views().items()
        }
        store = gated(world.store, gate, "attestor/store")
        memory = VaultMemory(gated(world.attestor_vault, gate, "attestor/vault"))
        self.attestor = Attestor(store, nodes, memory, birth.DERIVE, world.clock, in_force, seat_heads=world.seat_heads)
        self.attestor._reader = birth.READER  # only saves time
        self.restarts += 1

    def statement(self) -> Signed[Statement]:
        """See `AttestorPort`."""
        return self._alive(lambda: self.attestor.statement())

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """See `AttestorPort`."""
        return self._alive(lambda: self.attestor.attest(anchor, intents))

    def _alive(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except Crash as crash:
            if crash.owner != "attestor":
                raise
            self.restart()
            raise Unavailable("attestor", "its process died") from None


@dataclass
class World:
    """Everything of one run. `rng` is the only source of chance."""

    seed: int
    folder: Path
    rng: Random = field(init=False)
    clock: Clock = field(default_factory=Clock)
    gate: Gate = field(default_factory=Gate)
    witnessed: list[Witnessed] = field(default_factory=list)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    """The chain's name and the bytes, of everything that went out."""
    on_send: list[Callable[[str, bytes], None]] = field(default_factory=list)
    on_signature: list[Callable[[Witnessed], None]] = field(default_factory=list)
    restarts: int = 0
    quoted: int = 0

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.born = birth.born()
        wallets = [signed.message for signed in self.born.certificates.values()]
        on_evm = [each for each in wallets if each.chain == EVM.name]
        self.evm = EvmChain.made(EVM, str(self.seed), self.clock, self.born.assets, on_evm)
        self.bitcoin = BitcoinNode.made(BITCOIN, str(self.seed), self.clock, self.born.assets, wallets)
        vaults = {name: birth.vault_of(name, self.born.vaults[name]) for name in (*HOT, *COLD)}
        self.seats = [Seat(n, v, self.clock, self.gate, self._note) for n, v in vaults.items()]
        self.attestor_vault = birth.vault_of("attestor", {})
        VaultMemory(self.attestor_vault).pin(self.born.genesis)
        self.store: SqlStore = birth.open_copy(self.born, self.folder / "ledger.db")
        for chain in (self.evm, self.bitcoin):
            chain.mine()
            chain.on_send = partial(self._send, chain.chain.name)
        self.attestor = AttestorProcess(self)
        self._see_enrolments()
        self.restart()
        self.quote()

    def _see_enrolments(self) -> None:
        """The attestor saw the enrolments a day before the run begins: policy lets a fresh address cool that long."""
        now, self.clock.now = self.clock.now, self.clock.now - birth.DAY - 600
        self.attestor.statement()
        self.clock.now = now

    def _note(self, witnessed: Witnessed) -> None:
        self.witnessed.append(witnessed)
        for told in self.on_signature:
            told(witnessed)

    def _send(self, chain: str, raw: bytes) -> None:
        self.sent.append((chain, raw))
        for told in self.on_send:
            told(chain, raw)

    # processes

    def views(self) -> dict[Chain, ChainView]:
        """A node's answers about each chain."""
        return {EVM: EvmNodeView(self.evm), BITCOIN: node_view(self.bitcoin)}

    def seat_heads(self) -> Sequence[Signed[SeatHead]]:
        """The heads of the seats that answer."""
        heads = []
        for seat in self.seats:
            try:
                heads.append(seat.head())
            except (Unavailable, Refused):
                continue
        return heads

    def restart(self) -> None:
        """Worker, watcher and web process anew: everything that they had in memory is gone.

        The store's connections stay: a transaction that was not committed is rolled back already, and nothing else is in them.
        """
        self.restarts += 1
        gate, made = self.gate, self.born
        self.kernel = MirrorKernel(
            gated(self.store, gate, "worker/store"),
            made.genesis.message.struct_hash,
            made.bundle,
            birth.DERIVE,
            self.clock,
            self.clock,
        )
        self.kernel._inventories = birth.READER  # only saves time
        self._views = {
            chain: gated(view, gate, f"worker/{'evm' if chain.is_evm else 'bitcoin'} view")
            for chain, view in self.views().items()
        }
        chains: dict[Chain, PayoutChain] = {
            EVM: gated(EvmNodePayouts(self.evm), gate, "worker/evm"),
            BITCOIN: gated(node_payouts(self.bitcoin), gate, "worker/bitcoin"),
        }
        self.pace = worker.Pace(retry=0)
        self.parts = worker.Parts(
            store=gated(self.store, gate, "worker/store"),
            kernel=self.kernel,
            chains=chains,
            views=self._views,
            seats=[gated(seat, gate, "worker/seat") for seat in self.seats],  # type: ignore[misc]
            attestor=gated(self.attestor, gate, "worker/attestor"),  # type: ignore[arg-type]
            decode=decode,
            clock=self.clock,
        )

    # what processes do

    def work(self) -> worker.StepReport:
        """One step of the worker."""
        return worker.step(self.parts, self.pace)

    def watch(self, chain: Chain) -> StepReport:
        """One step of the watcher of a chain."""
        store: Store = gated(self.store, self.gate, "watcher/store")
        inventory = self.store.read(lambda work: birth.READER.read(work, self.born.roster))
        return step(store, self._views[chain], inventory, self.born.assets, self.clock)

    @cached_property
    def inventory(self) -> Inventory:
        """The wallets and addresses of the deployment, which no run adds to."""
        return self.store.read(lambda work: birth.READER.read(work, self.born.roster))

    def desk(self) -> Store:
        """The web process's store."""
        return gated(self.store, self.gate, "api/store")

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
        """Every transfer, oldest first."""
        return [transfer for _, transfer in self.read(lambda work: [*work.transfers.page(0, 10_000)])]

    def wallet(self, tier: Tier, chain: Chain) -> bytes:
        """A wallet's name."""
        return self.born.certificate(tier, chain).struct_hash

    def number(self) -> int:
        """A fresh number of the run's."""
        return self.rng.getrandbits(60)

    def entropy(self) -> bytes:
        """Ten bytes for an id."""
        return sha256(f"{self.seed}/{self.number()}".encode()).digest()[:10]
