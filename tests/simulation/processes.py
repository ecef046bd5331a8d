# SPDX-License-Identifier: AGPL-3.0-or-later
"""The processes of a deployment as others reach them: killed, paused, begun again, with clocks and nodes of their own.

Nothing of a process survives its death but what the store and its vault have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from custody.chains.evm.relay import RelaySigner
from custody.chains.payloads import decode
from custody.composing import MirrorKernel
from custody.flows import worker
from custody.flows.attestation import Attestor, InForce
from custody.flows.deposits import StepReport, step
from custody.flows.kernel import Kernel
from custody.flows.leases import nobody_gone
from custody.flows.ports import (
    AttestorMemory,
    AttestorPort,
    ChainView,
    FeeBumper,
    OutpointReader,
    PayoutChain,
    PayoutReader,
    PriceSource,
    SafeReader,
    SeatPort,
    Store,
)
from custody.flows.rebalancing_cycle import Line, Rebalancer, cycle
from custody.governing import standing_in
from custody.rules.certificates import SeatHead
from custody.rules.errors import Unavailable
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.intents import Anchor
from custody.rules.payments import SeatSignatures
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.wallets import Chain
from custody.vault.attestor_memory import VaultMemory
from custody.vault.seat import SeatHost
from custody.vault.storage import Vault
from tests.fakes.seat import BITCOIN, EVM, HOT, FakeVault, ed25519
from tests.simulation import birth
from tests.simulation.baton import Crash, Life
from tests.simulation.bitcoin import BitcoinNode, node_payouts, node_view
from tests.simulation.evm import EvmChain, Relayed
from tests.simulation.evm_node import EvmNodePayouts, EvmNodeView
from tests.simulation.eyes import Eyes, as_node
from tests.simulation.gates import GatedStore, gated

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")

OLDEST: Final = 30 * birth.DAY
VIEW: Final = (ChainView, SafeReader, PayoutReader, OutpointReader)
PAYS: Final = (PayoutChain, FeeBumper)


class Process:
    """One process: its life, how far its clock is off, its node of each chain."""

    def __init__(self, world: "World", name: str, role: str) -> None:
        self.world, self.name = world, name
        self.life = Life(name, role)
        self.skew = 0
        """Seconds by which its clock is ahead."""
        self.evm: Eyes[EvmChain] = Eyes(world.evm)
        self.bitcoin: Eyes[BitcoinNode] = Eyes(world.bitcoin)
        self.open()

    def clock(self) -> int:
        """Seconds since 1970, as this process has it."""
        return self.world.clock() + self.skew

    def begin_again(self) -> None:
        """Killed, and started by whoever watches over it: everything that it had in memory is gone."""
        self.life.dead = True
        self.life = Life(self.life.name, self.life.role, self.life.number + 1)
        self.open()

    def open(self) -> None:
        """Everything that it is composed of."""
        self.store: Store = GatedStore(self.world.store, self.world.gate, self.life)

    def view(self, chain: Chain) -> ChainView:
        """Its node's answers about a chain."""
        target = EvmNodeView(as_node(self.evm)) if chain.is_evm else node_view(as_node(self.bitcoin))
        return gated(target, self.world.gate, self.life, *VIEW)

    def eyes(self, chain: Chain) -> "Eyes[EvmChain] | Eyes[BitcoinNode]":
        """Its node of a chain."""
        return self.evm if chain.is_evm else self.bitcoin


class Judging(Process):
    """A process that judges transfers: the web process, and those that have more besides."""

    def open(self) -> None:
        """See `Process`."""
        super().open()
        made = self.world.born
        genesis = made.genesis.message.struct_hash
        self._reader = MirrorKernel(self.store, genesis, made.assets, birth.DERIVE, self.clock, self.clock)
        self._reader._inventories = birth.reader()  # only saves time

    def kernel(self) -> Kernel:
        """What transfers are judged by."""
        made, gate, life = self._reader(), self.world.gate, self.life
        prices = gated(made.prices, gate, life, PriceSource)
        return replace(made, prices=prices)


class Worker(Judging):
    """A worker among several."""

    def open(self) -> None:
        """See `Process`."""
        super().open()
        world, gate, life = self.world, self.world.gate, self.life
        payer = gated(world.relay, gate, life, RelaySigner)  # the port's one call that matters
        chains: dict[Chain, PayoutChain] = {
            EVM: gated(EvmNodePayouts(as_node(self.evm), payer), gate, life, *PAYS),
            BITCOIN: gated(node_payouts(as_node(self.bitcoin)), gate, life, *PAYS),
        }
        self.pace = worker.Pace(retry=0)
        self.parts = worker.Parts(
            store=self.store,
            kernel=self.kernel,
            chains=chains,
            views={chain: self.view(chain) for chain in (EVM, BITCOIN)},
            seats=[gated(seat, gate, life, SeatPort) for seat in world.seats],  # type: ignore[misc]  # what is asked of one
            attestor=gated(world.attestor, gate, life, AttestorPort),  # type: ignore[arg-type]  # and of it
            decode=decode,
            clock=self.clock,
            holder=life.holder,
            gone=world.is_gone if world.sees_deaths else nobody_gone,
        )

    def step(self) -> worker.StepReport:
        """One step."""
        return worker.step(self.parts, self.pace)


class Watcher(Process):
    """The watcher of one chain."""

    def __init__(self, world: "World", name: str, chain: Chain) -> None:
        self.chain = chain
        super().__init__(world, name, "watcher")

    def open(self) -> None:
        """See `Process`."""
        super().open()
        self._reader = birth.reader()

    def step(self) -> StepReport:
        """One step."""
        inventory = self.world.store.read(lambda work: self._reader.read(work, self.world.roster))
        return step(self.store, self.view(self.chain), inventory, self.world.born.assets, self.clock)


class Balancer(Judging):
    """What looks at the hot wallets and proposes."""

    def step(self) -> tuple[Line, ...]:
        """One cycle, by the key of the system's client."""
        signer = ed25519("sweeper")
        views = {chain: self.view(chain) for chain in (EVM, BITCOIN)}
        return cycle(Rebalancer(self.store, self.kernel, views, signer.key, signer.sign, self.clock))


class Server(Process):
    """A process that answers others, one call at a time; what they see of its death is no answer, and later a new process."""

    def answer(self, do: Callable[[], T]) -> T:
        """Raises Unavailable where it dies or is busy for long."""
        life = self.life
        try:
            with self.world.baton.alone(self.name):
                return do()
        except Crash as crash:
            if crash.life is not life:
                raise
            self.begin_again()
            self.world.deaths += 1
            raise Unavailable(self.name, "its process died") from None


class Relay(Server):
    """The relayer's process. It signs calls up to its cap, and moves no value."""

    MOST = 64
    """Its cap for one call, in the unit of the simulation's gas price."""

    def sign_call(self, call: Relayed) -> bytes:
        """See `RelaySigner`."""
        if call.price > self.MOST:
            raise Refused([Refusal(Rule.RELAYER_CAP, at_most=call.price, cap=self.MOST)])
        return self.answer(lambda: call.raw)


@dataclass(frozen=True)
class Witnessed:
    """A signature that a seat gave: for what, when, also by its own clock, and where its journal and roster stood."""

    seat: str
    request: Request
    at: int
    told: int
    position: int
    roster: int


class Seat(Server):
    """A seat's process. Hostile ones refuse, fall silent, or give signatures that are none."""

    def __init__(self, world: "World", name: str, vault: FakeVault) -> None:
        self.vault = vault
        self.mood = ""
        """`silent`, `refuses`, `lies` or `poses` as another; honest where empty."""
        super().__init__(world, name, "seat")

    def open(self) -> None:
        """See `Process`."""
        vault = gated(self.vault, self.world.gate, self.life, Vault)
        self.host = birth.seat_of(self.name, vault, self.clock)
        self.quiet: SeatHost = birth.seat_of(self.name, self.vault, self.clock)
        """The same past every gate, for who looks at the run."""

    def sign(self, request: Request) -> SeatSignatures:
        """See `SeatPort`; the request travels as JSON."""
        if self.mood == "silent":
            raise Unavailable(self.name, "no answer")
        if self.mood == "refuses":
            raise Refused([Refusal(Rule.FROZEN, scope="all", reason="hostile")])
        return self.answer(lambda: self._sign(request))

    def _sign(self, request: Request) -> SeatSignatures:
        position, roster = self.position, self.roster
        made = self.host.sign(Request.from_json(request.to_json()))
        self.world.note(Witnessed(self.name, request, self.world.clock(), self.clock(), position, roster))
        if self.mood == "lies":
            return SeatSignatures(made.seat, made.certificate, tuple(bytes(len(s)) for s in made.signatures))
        return SeatSignatures(HOT[0], made.certificate, made.signatures) if self.mood == "poses" else made

    def head(self) -> Signed[SeatHead]:
        """See `SeatPort`."""
        if self.mood == "silent":
            raise Unavailable(self.name, "no answer")
        return self.answer(self.host.head)

    def freeze(self, signed: Signed[Freeze]) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self.answer(lambda: self.host.freeze(signed))

    def unfreeze(self, signed: Signed[Unfreeze]) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self.answer(lambda: self.host.unfreeze(signed))

    def admit_roster(self, signed: Signed[RosterVersion]) -> None:
        """See `SeatHost`."""
        self.answer(lambda: self.host.admit_roster(signed))

    def admit_policy(
        self,
        signed: Signed[PolicyActivation],
        documents: Mapping[str, object],
        statement: Signed[Statement] | None = None,
    ) -> Signed[SeatHead]:
        """See `SeatPort`."""
        return self.answer(lambda: self.host.admit_policy(signed, documents, statement))

    @property
    def roster(self) -> int:
        """The newest version that it took."""
        roster = self.quiet._memory.load().journal.roster
        return 0 if roster is None else roster.version.version

    @property
    def position(self) -> int:
        """Where its journal stands."""
        return self.quiet._memory.load().state.position


class AttestorProcess(Server):
    """The real attestor, over two nodes of each chain."""

    def __init__(self, world: "World", vault: FakeVault) -> None:
        self.vault = vault
        self.second_evm: Eyes[EvmChain] = Eyes(world.evm)
        self.second_bitcoin: Eyes[BitcoinNode] = Eyes(world.bitcoin)
        super().__init__(world, "attestor", "attestor")

    def open(self) -> None:
        """A new process over the same vault; the first statement reads the whole journal again."""
        super().open()
        world, made, gate, life = self.world, birth.born(), self.world.gate, self.life
        in_force = InForce(made.assets, dict.fromkeys(made.assets.chains, OLDEST), standing_in(made.assets))
        second: dict[Chain, ChainView] = {
            EVM: EvmNodeView(as_node(self.second_evm)),
            BITCOIN: node_view(as_node(self.second_bitcoin)),
        }
        nodes: dict[Chain, Sequence[ChainView]] = {
            chain: [self.view(chain), gated(second[chain], gate, life, *VIEW)] for chain in (EVM, BITCOIN)
        }
        vault = gated(self.vault, gate, life, Vault)
        memory = gated(VaultMemory(vault), gate, life, AttestorMemory)
        self.asked = [gated(seat, gate, life, SeatPort) for seat in world.seats]
        self.attestor = Attestor(
            self.store, nodes, memory, birth.DERIVE, self.clock, in_force, seat_heads=self.seat_heads
        )
        self.attestor._reader = birth.reader()  # only saves time

    def seat_heads(self) -> Sequence[Signed[SeatHead]]:
        """The heads of the seats that answer."""
        heads = []
        for seat in self.asked:
            try:
                heads.append(seat.head())
            except (Unavailable, Refused):
                continue
        return heads

    def statement(self) -> Signed[Statement]:
        """See `AttestorPort`."""
        return self._vouched(self.answer(self.attestor.statement))

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """See `AttestorPort`."""
        return self._vouched(self.answer(lambda: self.attestor.attest(anchor, intents)))

    def _vouched(self, signed: Signed[Statement]) -> Signed[Statement]:
        self.world.vouched = max(self.world.vouched, signed.message.ledger_position)
        return signed
