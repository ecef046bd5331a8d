# SPDX-License-Identifier: AGPL-3.0-or-later
"""Runs: a twin that never crashes, and one in which somebody is killed at each of some points."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from devnet.birth import raise_world
from devnet.network import Devnet, Hosting
from devnet.processes import Lifetime
from devnet.scenes.stage import Stage
from tests.crash.journeys import Carrier, Journey, NotCarried, Traveller
from tests.crash.launch import PARTS
from tests.crash.outcome import Auditor, Outcome
from tests.crash.parts import KillableServices
from tests.crash.points import UNWATCHED, Desk
from tests.crash.wrapping import is_read

_CHANGE: Final = ("commit", "memory", "rpc")
"""Kinds of points at which a part changes something itself, and does not ask another to."""
_QUOTED: Final = 1_200.0
"""Seconds after which feeders say their prices again: they serve for an hour."""


@dataclass(frozen=True)
class Twin:
    """A run in which nobody was killed, and every point that it passed, in order, each once."""

    journeys: tuple[Journey, ...]
    outcome: Outcome
    points: tuple[str, ...]
    unwatched: tuple[str, ...]


@dataclass(frozen=True)
class Crashed:
    """A run in which somebody was killed at each of `fired`, and what it came to otherwise than its twin."""

    armed: frozenset[str]
    fired: frozenset[str]
    differences: tuple[str, ...]
    seconds: float
    stuck: bool
    """Whether it did not end at all."""

    @property
    def held(self) -> bool:
        """Whether the world came to the same."""
        return not self.differences


@dataclass
class Field:
    """One living world, for run after run."""

    stage: Stage
    services: KillableServices
    carrier: Carrier = field(init=False)
    auditor: Auditor = field(init=False)
    _waiting: list[Traveller] = field(default_factory=list)
    _quoted: float = 0.0

    def __post_init__(self) -> None:
        self.carrier, self.auditor = Carrier(self.stage), Auditor(self.stage)

    @property
    def desk(self) -> Desk:
        """Where points are armed."""
        return self.services.desk

    def travellers(self, journeys: Sequence[Journey], ahead: Sequence[Journey] = ()) -> list[Traveller]:
        """A customer for each of these journeys; those of `ahead` are made with them, to be had later."""
        found = [self._take(journey) for journey in journeys]
        if None in found:
            self._waiting += [one for one in found if one is not None]
            self._waiting += self.carrier.prepare((*journeys, *ahead))
            self._quoted = time.monotonic()
            found = [self._take(journey) for journey in journeys]
        if time.monotonic() - self._quoted > _QUOTED:
            self.carrier.quote()
            self._quoted = time.monotonic()
        return [one for one in found if one is not None]

    def twin(self, journeys: Sequence[Journey], ahead: Sequence[Journey] = ()) -> Twin:
        """These journeys, side by side, with nobody killed and every point noted."""
        travellers = self.travellers(journeys, ahead)
        mark = self.auditor.mark()
        self.desk.record(on=True)
        self.carrier.carry(travellers)
        self.desk.record(on=False)
        names = dict.fromkeys(passed.name for passed in self.desk.passed())
        unwatched = tuple(name for name in names if f".{UNWATCHED}:" in name)
        points = tuple(name for name in names if name not in unwatched)
        return Twin(tuple(journeys), self.auditor.outcome(mark, travellers, self.carrier), points, unwatched)

    def crash(self, twin: Twin, armed: Mapping[str, int] | Collection[str], ahead: Sequence[Journey] = ()) -> Crashed:
        """The twin's journeys again, with these points armed: each kills whoever comes there first, once."""
        travellers, begun = self.travellers(twin.journeys, ahead), time.monotonic()
        mark = self.auditor.mark()
        self.desk.forget()
        self.desk.arm(armed)
        stuck: list[str] = []
        try:
            self.carrier.carry(travellers)
        except (NotCarried, AssertionError) as error:
            stuck = [str(error)]
        finally:
            self.desk.arm({})
        self._all_alive()
        fired = frozenset(self.desk.fired())
        differences = stuck or self.auditor.outcome(mark, travellers, self.carrier).differences(twin.outcome)
        return Crashed(frozenset(armed), fired, tuple(differences), time.monotonic() - begun, bool(stuck))

    def _take(self, journey: Journey) -> Traveller | None:
        for traveller in self._waiting:
            if traveller.journey is journey:
                self._waiting.remove(traveller)
                return traveller
        return None

    def _all_alive(self) -> None:
        """Whoever was killed last is up again before somebody looks."""
        deadline = time.monotonic() + 60
        while not all(
            service.pid and service.owns(service.pid) and service.ready() for service in self.services.killable
        ):
            if time.monotonic() > deadline:
                raise NotCarried(f"only {sorted(self.services.lives())} came back")
            time.sleep(0.05)


@contextmanager
def living(home: Path, say: Callable[[str], None]) -> Iterator[Field]:
    """A world of its own whose parts can be killed; it dies with the block, and with this process."""
    net = Devnet(home, lifetime=Lifetime.PARENT, progress=say, hosting=Hosting.PROCESS)
    services = KillableServices(
        net
    )  # before the nodes: they and the parts' imports wait for each other's disk, not for each other
    try:
        with net.running():
            try:
                world = raise_world(net, services, say)
                services.start([services.watcher, services.worker])
                yield Field(Stage(world, world.deployment), services)
            finally:
                services.stop()
    finally:
        services.close()


def changing(points: Collection[str]) -> list[str]:
    """Those behind or before which something is another thing than before; the rest only read."""
    return [
        name for name in points if name.split(".")[1] not in ("rpc", "memory") or not is_read(name.partition(":")[2])
    ]


def sample(points: Collection[str]) -> list[str]:
    """About a sixth of them, for a walk of a minute: where a part changes something itself, before and after it in turn.

    Of the API only its commits: whenever it starts it takes no request for three seconds.
    """
    found: list[str] = []
    for name in sorted(changing(points)):
        part, kind, _ = name.split(".", 2)
        after = name.replace(f"{kind}.before:", f"{kind}.after:")
        if ".before:" in name and after in points and kind in (("commit",) if part == "api" else _CHANGE):
            found.append(name if len(found) % 2 else after)
    return found


def table(points: Collection[str], fired: Collection[str]) -> list[str]:
    """Covered and total, by part and all together."""
    total, covered = (Counter(name.partition(".")[0] for name in names) for names in (points, set(points) & set(fired)))
    rows = [f"  {part:10}{covered[part]:4} of {total[part]:4}" for part in PARTS]
    return [*rows, f"covered {len(set(points) & set(fired))} of {len(set(points))} points"]
