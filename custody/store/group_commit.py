# SPDX-License-Identifier: AGPL-3.0-or-later
"""Many works in one commit: durability is paid for once, and each is acknowledged only after it.

One thread writes. A work that fails rolls back to its own savepoint and takes nobody with it.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from custody.flows.ports import UnitOfWork
from custody.rules.errors import Unavailable
from custody.store.unit_of_work import OutcomeUnknown, SqlStore, SqlUnitOfWork

T = TypeVar("T")

MOST: Final = 256
"""Works in one commit, so that the first one's answer does not wait for ever."""


@dataclass(slots=True)
class _Submitted:
    work: Callable[[UnitOfWork], Any]  # each caller gets its own type back through its own future
    future: "Future[Any]" = field(default_factory=Future)


@dataclass(slots=True)
class _Outcome:
    result: Any = None
    error: Exception | None = None

    def tell(self, future: "Future[Any]") -> None:
        if self.error is None:
            future.set_result(self.result)
        else:
            future.set_exception(self.error)


class GroupCommit:
    """A `Store` over another one that puts what its callers submit at the same time into one commit."""

    def __init__(self, store: SqlStore, most: int = MOST) -> None:
        self._store, self._most = store, most
        self._waiting: queue.SimpleQueue[_Submitted | None] = queue.SimpleQueue()
        self._closing, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._write, name="group-commit", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[UnitOfWork], T]) -> "Future[T]":
        """Queue work; its future is done once it is durable, or has failed and left nothing. Raises Unavailable when closed."""
        submitted = _Submitted(work)
        with self._closing:
            if self._closed:
                raise Unavailable("store", "it was closed")
            self._waiting.put(submitted)
        return submitted.future

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """As `Store.run`: returns once the work is durable."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("run() inside run(): work touches nothing but its unit of work")
        return self.submit(work).result()

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """As `Store.read`."""
        return self._store.read(work)

    def close(self) -> None:
        """Write what was submitted, then stop. The store below stays open."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._next()
            for submitted, outcome in zip(batch, self._outcomes(batch), strict=True):
                outcome.tell(submitted.future)

    def _next(self) -> tuple[list[_Submitted], bool]:
        """What waits now, at least one; and whether more may come."""
        batch: list[_Submitted] = []
        while len(batch) < self._most:
            try:
                submitted = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if submitted is None:
                return batch, False
            batch.append(submitted)
        return batch, True

    def _outcomes(self, batch: list[_Submitted]) -> list[_Outcome]:
        if len(batch) > 1:
            try:
                return self._store.run_with_savepoints(lambda unit: [_attempt(unit, s.work) for s in batch])
            except (
                OutcomeUnknown
            ) as error:  # run again, what was recorded would be recorded twice or be refused as known
                return [_Outcome(error=error) for _ in batch]
            except Exception:  # noqa: BLE001  # the commit they shared failed; alone, each gets its own answer
                return [self._alone(submitted) for submitted in batch]
        return [self._alone(submitted) for submitted in batch]

    def _alone(self, submitted: _Submitted) -> _Outcome:
        try:
            return _Outcome(self._store.run(submitted.work))
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to whoever submitted the work
            return _Outcome(error=error)


def _attempt(unit: SqlUnitOfWork, work: Callable[[UnitOfWork], T]) -> _Outcome:
    try:
        return _Outcome(unit.nested(work))
    except SQLAlchemyError:  # a serialisation failure ends the whole transaction, savepoints or not
        raise
    except Exception as error:  # noqa: BLE001  # a refusal or a fault of this work alone; its savepoint is rolled back
        return _Outcome(error=error)
