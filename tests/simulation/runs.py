# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs: so many steps from a seed, every invariant after each, then quiet until everything ended or says why not."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from tests.fakes.seat import BITCOIN, EVM
from tests.simulation.hands import ACTIONS, Action, Hands
from tests.simulation.invariants import Broken, Scene
from tests.simulation.world import World

QUIET: Final = 40
"""Rounds at the most until a run is at rest."""
STILL: Final = 6
"""Rounds without a change that count as rest: more than finality takes."""


@dataclass
class Run:
    """One run: what it did, and the first step after which something did not hold."""

    seed: int
    steps: int
    trace: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def replay(self) -> str:
        """The command that does it again."""
        return f"python -m tests.simulation --seed {self.seed} --steps {self.steps}"

    def __str__(self) -> str:
        found = "\n".join(f"  BROKEN {each}" for each in self.broken)
        return "\n".join([f"seed {self.seed}, {self.steps} steps", *self.trace[-40:], found, f"replay: {self.replay}"])


@contextmanager
def world_of(seed: int) -> Iterator[World]:
    """A world in a folder of its own, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix=f"simulation-{seed}-", dir=memory if memory.is_dir() else None))
    try:
        world = World(seed, folder)
        yield world
        world.store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(
    seed: int,
    steps: int,
    *,
    faulty: float = 0.35,
    focus: Mapping[Action, int] = MappingProxyType({}),
    rest: bool = True,
) -> Run:
    """A run; it ends at the first thing that does not hold. `focus` has some actions happen more often, by so much weight.

    Without `rest` it ends with the last step, and nobody looks whether everything comes to an end.
    """
    done = Run(seed, steps)
    with world_of(seed) as world:
        scene = Scene(world)
        hands = Hands(scene, faulty)
        done.tally = hands.tally
        done.trace.append(hands.fund())
        done.broken = scene.look()
        weights = [weight + focus.get(action, 0) for weight, action in ACTIONS]
        for number in range(1, steps + 1):
            if done.broken:
                break
            ((_, chosen),) = world.rng.choices(ACTIONS, weights)
            action = hands.then.pop(0) if hands.then else chosen
            told = action(hands)
            hands.tally["steps"] += 1
            done.trace.append(f"{number:4} {told}")
            done.broken = scene.look()
        if rest and not done.broken:
            done.trace.append(quieten(hands))
            done.broken = scene.rest()
            open_ones = [t for t in scene.transfers if not t.status.is_final]
            done.trace += [f"     {t.intent.id[-6:]} {t.status}: {t.waiting_for}" for t in open_ones]
        done.points, done.calls = world.gate.points, world.gate.calls
    return done


def quieten(hands: Hands) -> str:
    """No faults any more: everybody honest, every block mined, everything followed, until nothing changes.

    What is stuck then people void, once, since nobody else may; and again until nothing changes.
    """
    world = hands.world
    for seat in world.seats:
        seat.mood = ""
    world.evm.slow, world.evm.refusing = 0, set()
    world.evm.lossy = world.bitcoin.lossy = ""
    world.restart()
    world.attestor.restart()
    rounds = _until_still(hands, 0)
    voided = hands.void_stuck()
    if voided:
        rounds = _until_still(hands, rounds)
    return f"quiet after {rounds} rounds; people voided {voided or 'nothing'}"


def _until_still(hands: Hands, rounds: int) -> int:
    world = hands.world
    before: object = None
    same = 0
    for _ in range(QUIET):
        rounds += 1
        world.pass_time(60)
        for node in (world.evm, world.bitcoin):
            node.mine()
        try:
            for chain in (EVM, BITCOIN):
                while world.watch(chain).behind:
                    pass
            hands._told(world.work())
        except (Unavailable, Refused, InvalidInput) as error:
            after: object = str(error)
        else:
            after = [(t.status, t.waiting_for) for t in world.transfers()]
        same = same + 1 if after == before else 0
        if same >= STILL:
            break
        before = after
    return rounds
