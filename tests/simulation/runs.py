# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs: so many steps from a seed, every invariant after each, then quiet until everything ended or says why not."""

import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.simulation.actions import ACTIONS
from tests.simulation.baton import Unexpected
from tests.simulation.hands import Action, Hands
from tests.simulation.invariants import CHECKS
from tests.simulation.quiet import quieten
from tests.simulation.scene import Broken, Scene
from tests.simulation.world import World


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
        try:
            yield world
        finally:
            world.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(
    seed: int,
    steps: int,
    *,
    faulty: float = 0.35,
    focus: Mapping[Action, int] = MappingProxyType({}),
    rest: bool = True,
    opening: Sequence[Action] = (),
) -> Run:
    """A run; it ends at the first thing that does not hold. `focus` has some actions happen more often, by so much weight.

    `opening` happens first, without faults. Without `rest` it ends with the last step, and nobody looks whether everything comes to an end.
    """
    done = Run(seed, steps)
    with world_of(seed) as world:
        scene = Scene(world, CHECKS)
        hands = Hands(scene, faulty)
        done.tally = hands.tally
        done.trace.append(hands.fund())
        done.broken = scene.look()
        weights = [weight + focus.get(action, 0) for weight, action in ACTIONS]
        hands.faulty = 0
        for number in range(1, steps + 1):
            if done.broken:
                break
            if number == len(opening) + 1:
                hands.faulty = faulty
            ((_, chosen),) = world.rng.choices(ACTIONS, weights)
            follows = opening[number - 1] if number <= len(opening) else None
            action = follows or (hands.then.pop(0) if hands.then else chosen)
            hands.tally["steps"] += 1
            done.broken = _step(done, scene, hands, action, number)
        if rest and not done.broken:
            done.trace.append(quieten(hands))
            done.broken = scene.rest()
            open_ones = [t for t in scene.transfers if not t.status.is_final]
            done.trace += [f"     {t.intent.id[-6:]} {t.status}: {t.waiting_for}" for t in open_ones]
        done.points, done.calls = world.gate.points, world.gate.calls
    return done


def _step(done: Run, scene: Scene, hands: Hands, action: Action, number: int) -> list[Broken]:
    try:
        done.trace.append(f"{number:4} {action(hands)}")
        if woken := hands.wake():
            done.trace.append(f"     awake again: {woken}")
    except Unexpected as error:
        told = "".join(traceback.format_exception(error))
        return [Broken("nothing_else_is_raised", told[-3_000:])]
    return scene.look()
