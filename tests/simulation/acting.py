# SPDX-License-Identifier: AGPL-3.0-or-later
"""How anything is done in a run: by a process, as a task that may be interleaved with others, maybe into a fault."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from custody.flows.ports import Branch
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from custody.rules.transfers import Status
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.seat import BITCOIN
from tests.simulation import birth
from tests.simulation.baton import Task
from tests.simulation.blocks import Chainlike
from tests.simulation.evm import Relayed
from tests.simulation.gates import Fault, Plan
from tests.simulation.processes import Judging, Process
from tests.simulation.scene import Scene

DEEPEST: Final = 200
"""The farthest call of a task at which a fault strikes, where it is chosen by its number."""
STORM: Final = 0.15
"""How often more than one fault is to come."""


class Acting:
    """What everybody's deeds are made of."""

    def __init__(self, scene: Scene, faulty: float = 0.35) -> None:
        self.scene, self.world, self.rng = scene, scene.world, scene.world.rng
        self.faulty = faulty
        """How often a process meets a fault while it does something."""
        self.tally: Counter[str] = Counter()
        self.count = 0
        self._together: list[Task] | None = None

    # tasks

    def act(self, process: Process, do: Callable[[], object], done: str = "") -> str:
        """Do it, perhaps into a fault; who died begins anew from store and vaults. Gathered tasks run later, together."""
        task = self.world.baton.begin(process.life, lambda: self.attempt(do, done))
        if self._together is not None:
            self._together.append(task)
            return f"{process.name} begins"
        self.arm(process.life.role)
        self.world.baton.run()
        return self.after([task])

    def interleave(self, begin: Callable[[], str]) -> str:
        """Everything that `begin` lets processes do, at once: who runs is decided at every call."""
        self._together = []
        try:
            told = begin()
        finally:
            tasks, self._together = self._together, None
        for role in dict.fromkeys(task.life.role for task in tasks):
            self.arm(role)
        self.world.baton.run()
        return f"{told} => {self.after(tasks)}"

    def after(self, tasks: list[Task]) -> str:
        """What came of tasks; the dead begin anew, sleepers go on later."""
        gate = self.world.gate
        gate.plans.clear()
        self.tally["faults"] += len(gate.struck)
        struck = gate.told()
        self.bury()
        told = "; ".join(self._outcome(task) for task in tasks)
        return f"{told} [{struck}]" if struck else told

    def bury(self) -> None:
        """Start anew who died."""
        self.tally["deaths of servers"], found = self.world.deaths, 0
        for process in self.world.everybody:
            if process.life.dead:
                found += 1
                self.world.kill(process)
        self.tally["crashes"] += found

    def wake(self) -> str:
        """Whoever was paused and whose time has come goes on."""
        ended = self.world.baton.run()
        return self.after(ended) if ended or self.world.gate.struck else ""

    @staticmethod
    def _outcome(task: Task) -> str:
        if task.crash is not None:
            return f"{task.life.name} DIED at {task.crash}"
        return task.told if task.done else f"{task.life.name} is paused"

    def attempt(self, do: Callable[[], object], done: str = "") -> str:
        """What came of it, a no included."""
        try:
            found = do()
        except (Refused, InvalidInput, Unavailable) as error:
            return f"no: {str(error)[:160]}"
        return done or str(found)

    # faults

    def arm(self, role: str) -> None:
        """Maybe faults: at the so-many-th call, or at one of the kinds that were on this role's way before, the rarest first."""
        if self.rng.random() >= self.faulty:
            return
        gate, rng = self.world.gate, self.rng
        storm = self.faulty >= 1 or rng.random() < STORM
        kinds = [*gate.seen.get(role, {})]
        for _ in range(rng.choice([2, 3, 4]) if storm else 1):
            if kinds and rng.random() < 0.8:
                least = min(map(self._struck, kinds))
                kind = rng.choice([kind for kind in kinds if self._struck(kind) == least])
                fault = min(rng.sample([*Fault], 3), key=lambda each, k=kind: gate.points[f"{k}, {each.value}"])  # type: ignore[misc]
                gate.plans.append(Plan(rng.choice([1, 1, 1, 2, 3]), fault, kind))
            else:
                gate.plans.append(
                    Plan(rng.randrange(1, rng.choice([6, DEEPEST // 3, DEEPEST]) + 2), rng.choice([*Fault]))
                )

    def _struck(self, kind: str) -> tuple[int, int]:
        """How often a fault struck this call, whoever made it; and how often it was this role's."""
        points, method = self.world.gate.points, kind.partition("/")[2]
        by_anyone = sum(times for at, times in points.items() if at.partition("/")[2].startswith(f"{method},"))
        return by_anyone, sum(points[f"{kind}, {each.value}"] for each in Fault)

    # small things

    def api(self) -> Judging:
        """One of the web processes."""
        return self.rng.choice(self.world.apis)

    def nodes(self) -> tuple[Chainlike[Any, Any], Chainlike[Any, Any]]:
        """Both chains."""
        return self.world.evm, self.world.bitcoin

    def node_of(self, chain: Chain) -> Chainlike[Any, Any]:
        """One of them."""
        return self.world.evm if chain.is_evm else self.world.bitcoin

    def next(self) -> int:
        """A number that nothing else of the run has."""
        self.count += 1
        return self.count * 1_000

    def pay(self, symbol: str, to: str, units: int) -> None:
        """Somebody pays."""
        if symbol == "BTC":
            self.world.bitcoin.pay(Address(BITCOIN, to), max(units, 600), self.next())
        else:
            self.world.evm.pay(symbol, to, units, self.next())

    def main(self, tier: Tier, chain: Chain) -> str:
        """Where coins for a wallet itself arrive."""
        certificate = self.world.born.certificate(tier, chain)
        if chain.is_evm:
            return certificate.safe[0].address
        return birth.DERIVE.derive(certificate, Branch.CHANGE, 3).text

    def told(self, report: Any) -> str:
        """A worker's report."""
        self.tally["paid"] += sum(line.status is Status.COMPLETED for line in report.moved)
        self.tally["voided"] += sum(line.status is Status.CANCELLED for line in report.moved)
        moved = [f"{line.transfer[-6:]} {line.status}" for line in report.moved]
        return f"{', '.join(moved) or 'nothing moved'}; faults: {[fault[:150] for fault in report.faults]}"

    def is_ours(self, transaction: Any) -> bool:
        """Whether a transaction is a payout of ours."""
        return isinstance(transaction, Relayed) or not getattr(transaction, "outside", True)
