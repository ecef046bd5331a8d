# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several processes at once, and the same every time: threads that hand one baton on, at port calls, as the seed says.

Only who has the baton runs, so nothing is ever concurrent and everything is interleaved. A task may be parked until a time of the
run's clock: that is a process that was paused, by its machine or by an answer that took too long, and goes on where it was.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

from custody.rules.errors import Unavailable

SWITCH: Final = 0.25
"""How often the baton is handed on at a port call, where somebody else could run."""


class Crash(BaseException):
    """A process is gone: no handler of the code under test may see it, so it is no `Exception`."""

    def __init__(self, life: "Life", at: str) -> None:
        super().__init__(at)
        self.life = life


class Unexpected(Exception):  # it says what was
    """The code under test raised what it must not: no refusal, no bad input, nothing unavailable."""


@dataclass(eq=False)
class Life:
    """One process from its start to its death; a dead one does nothing more, not even what stands in a `finally`."""

    name: str
    role: str
    number: int = 1
    dead: bool = False

    @property
    def holder(self) -> str:
        """This process among all that there ever were."""
        return f"{self.name}#{self.number}"


@dataclass(eq=False)
class Task:
    """Something that a process does: a step of the worker, a request. `told` is what came of it."""

    life: Life
    do: Callable[[], str]
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    until: int = 0
    """Parked until this time of the run's clock."""
    done: bool = False
    told: str = ""
    crash: Crash | None = None
    wrong: BaseException | None = None
    """What the code under test must not raise: it ends the run."""


class Baton:
    """Hands on who may run. Everything is decided by `rng` and by the order in which tasks were begun."""

    def __init__(self, rng: Random, clock: Callable[[], int]) -> None:
        self._rng, self._clock = rng, clock
        self._back = threading.Semaphore(0)
        self._alone: dict[str, Task | None] = {}
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.writing = 0
        """Above zero inside a write transaction: nobody else can run then, since there is one writer at a time."""
        self.switches = 0

    # for who directs

    def begin(self, life: Life, do: Callable[[], str]) -> Task:
        """A task that has not run yet."""
        task = Task(life, do)
        threading.Thread(target=self._body, args=(task,), name=life.name, daemon=True).start()
        self.tasks.append(task)
        return task

    def run(self) -> list[Task]:
        """Until every task has ended or is parked; gives those that ended."""
        while ready := self._ready():
            self._hand(ready[self._rng.randrange(len(ready))] if len(ready) > 1 else ready[0])
        return self._ended()

    def end(self, gone: Callable[[Life], bool]) -> list[Task]:
        """Let the tasks of processes that were just killed run to their death: others finish what they were asked meanwhile."""
        for task in [task for task in self.tasks if gone(task.life)]:
            task.until = 0
            while not task.done:
                self._hand(task)
        return self._ended()

    def sleeps(self, name: str) -> bool:
        """Whether a process of this name has something that it has not finished."""
        return any(task.life.name == name for task in self.tasks)

    # for who runs

    def point(self) -> None:
        """Somebody else may go on here."""
        if self.current is not None and not self.writing and len(self.tasks) > 1:
            others = [task for task in self._ready() if task is not self.current]
            if others and self._rng.random() < SWITCH:
                self._give_up()

    def park(self, seconds: int) -> None:
        """Stop here for so long. Raises nothing: who was killed meanwhile finds out at its next call."""
        if self.current is not None and not self.writing:
            self.current.until = self._clock() + seconds
            self._give_up()

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """One call at a time, as seats and the attestor answer. Raises Unavailable where another one takes too long."""
        mine = self.current
        while (holder := self._alone.get(what)) is not None and holder is not mine:
            if holder.until > self._clock() or mine is None:
                raise Unavailable(what, "it is busy with another call")
            self._give_up()
        again = holder is not None
        self._alone[what] = mine
        try:
            yield
        finally:
            if not again:
                self._alone[what] = None

    # the threads

    def _ready(self) -> list[Task]:
        now = self._clock()
        return [task for task in self.tasks if not task.done and task.until <= now]

    def _ended(self) -> list[Task]:
        ended = [task for task in self.tasks if task.done]
        self.tasks = [task for task in self.tasks if not task.done]
        for task in ended:
            if task.wrong is not None:
                raise Unexpected(task.life.holder) from task.wrong
        return ended

    def _hand(self, task: Task) -> None:
        self.current = task
        self.switches += 1
        task.go.release()
        self._back.acquire()
        self.current = None

    def _give_up(self) -> None:
        task = self.current
        if task is not None:
            self._back.release()
            task.go.acquire()

    def _body(self, task: Task) -> None:
        task.go.acquire()
        try:
            task.told = task.do()
        except Crash as crash:
            task.crash = crash
        except BaseException as error:  # noqa: BLE001  # whatever it is, it belongs to the run, not to this thread
            task.wrong = error
        task.done = True
        self._back.release()
