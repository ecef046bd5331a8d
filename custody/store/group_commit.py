# SPDX-License-Identifier: AGPL-3.0-or-later
"""Many works in one commit: durability is paid for once, and each is acknowledged only after it.

There is no thread of its own. Who hands in work while nobody writes leads: it writes everything that waits, in the order it came,
and then hands on to the first of those that came meanwhile. So a work alone costs no switch of threads, and the more come at once,
the more share one fsync. Who waits holds no lock: a thread that is stopped while it waits, or before it asks, holds up nobody.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from custody.flows.ports import UnitOfWork
from custody.rules.errors import Unavailable
from custody.store.writing import OutcomeUnknown

T = TypeVar("T")

MOST: Final = 256
"""Works in one commit, so that the first one's answer does not wait for ever."""


@dataclass(slots=True)
class Outcome:
    """What became of one work: its result, or what it raised."""

    result: Any = None  # each caller gets its own type back from its own call
    error: BaseException | None = None


Work = Callable[[UnitOfWork], Any]
Together = Callable[[Sequence[Work]], Sequence[Outcome]]
"""Runs works in one transaction and commits it, each with its own fate; raises nothing."""


def _latched() -> threading.Lock:
    latch = threading.Lock()
    latch.acquire()
    return latch


@dataclass(slots=True, eq=False)
class _Submitted:
    work: Work
    latch: threading.Lock = field(default_factory=_latched)
    """Released once: there is an outcome, or it is this one's turn to lead."""
    outcome: Outcome | None = None
    leads: bool = False


class GroupCommit:
    """Lets callers in several threads share transactions. `together` is never entered twice at once."""

    def __init__(self, together: Together, most: int = MOST) -> None:
        self._together, self._most = together, most
        self._turn, self._waiting = threading.Lock(), deque[_Submitted]()
        self._idle = threading.Condition(self._turn)
        self._led, self._closed = False, False

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """Returns what the work returned once it is durable, or raises what it raised once nothing of it is left.

        Raises Unavailable after `close`, and OutcomeUnknown where the thread that led was interrupted while it wrote.
        """
        mine = _Submitted(work)
        with self._turn:
            if self._closed:
                raise Unavailable("store", "it was closed")
            self._waiting.append(mine)
            first = not self._led
            self._led = True
        if not first:
            self._wait(mine)
        if mine.outcome is None:
            self._lead()
        outcome = mine.outcome or _unheard()
        if outcome.error is not None:
            raise outcome.error
        result: T = outcome.result
        return result

    def close(self) -> None:
        """Take nothing more, and return once everybody who waits was answered."""
        with self._turn:
            self._closed = True
            while self._led:
                self._idle.wait()

    def _wait(self, mine: _Submitted) -> None:
        try:
            mine.latch.acquire()
        except BaseException:  # Ctrl-C in the thread that waits: its work is taken back, unless it is being written
            with self._turn:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                    if mine.leads:
                        self._hand_on()
            raise

    def _lead(self) -> None:
        """Write one batch, which begins with the leader's own work."""
        with self._turn:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        outcomes: Sequence[Outcome] = ()
        try:
            outcomes = self._together([each.work for each in batch])
        finally:
            with self._turn:
                self._hand_on()
            for number, each in enumerate(batch):
                each.outcome = outcomes[number] if number < len(outcomes) else _unheard()
                each.latch.release()

    def _hand_on(self) -> None:
        """The first that waits leads next; nobody, where nobody waits."""
        if self._waiting:
            following = self._waiting[0]
            following.leads = True
            following.latch.release()
        else:
            self._led = False
            self._idle.notify_all()


def _unheard() -> Outcome:
    return Outcome(error=OutcomeUnknown("store", "whoever wrote for many was interrupted; ask what stands"))
