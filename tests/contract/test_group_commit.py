# SPDX-License-Identifier: AGPL-3.0-or-later
"""Many works in one commit: each is answered only after it, each has its own fate, and nobody waits for somebody who is stopped.

Works of several threads are made to meet by a first one that holds the transaction open until the others have been handed in.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from psycopg.errors import SerializationFailure
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from custody.flows.ports import UnitOfWork
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule
from custody.store import OutcomeUnknown, SqlStore, group_commit, open_store, unit_of_work
from custody.store.group_commit import GroupCommit, Outcome, Work
from custody.store.writing import Writer
from tests.fakes.ledger import ASSETS, NOW, credit, native

ROOT: Final = Path(__file__).resolve().parents[2]
MANY: Final = 32
_LONG: Final = 30.0


class _Odd(Exception):
    """What a work may raise, and nobody but its caller knows."""


@pytest.fixture
def opened(url: str) -> Iterator[SqlStore]:
    """A store of each database."""
    store = open_store(url, ASSETS)
    yield store
    store.close()


class _Together:
    """Hands in works at once: a first one holds the transaction until all the others wait."""

    def __init__(self, store: SqlStore, most: int = MANY) -> None:
        self._store, self._pool = store, ThreadPoolExecutor(most + 1)
        self._began, self._go = threading.Event(), threading.Event()
        self._first = self._pool.submit(store.run, self._hold)
        assert self._began.wait(_LONG)

    def _hold(self, _: UnitOfWork) -> None:
        self._began.set()
        assert self._go.wait(_LONG)

    def submit(self, work: Callable[[UnitOfWork], Any]) -> "Future[Any]":
        """One more, behind those that wait already."""
        before = waiting(self._store)
        future = self._pool.submit(self._store.run, work)
        eventually(lambda: waiting(self._store) > before)
        return future

    def answers(self, *futures: "Future[Any]") -> list[Any]:
        """What became of each: its result, or what it raised."""
        self._go.set()
        self._first.result(_LONG)
        found = [future.exception(_LONG) or future.result(_LONG) for future in futures]
        self._pool.shutdown()
        return found


def waiting(store: SqlStore) -> int:
    """How many works wait for their turn."""
    return len(store._group._waiting)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what other threads do."""
    until = time.monotonic() + _LONG
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.001)


def _append(height: int, work: UnitOfWork) -> int:
    return work.journal.append(credit(native(height)), NOW).position


def _fail(height: int, error: Exception, work: UnitOfWork) -> None:
    work.customers.add(f"nobody{height}")
    work.journal.append(credit(native(height)), NOW)
    raise error


def _committed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the transactions that are begun from here on."""
    made: list[int] = []
    plain = Writer.once

    def counted(self: Writer, work: Callable[[Connection], Any]) -> Any:
        made.append(1)
        return plain(self, work)

    monkeypatch.setattr(Writer, "once", counted)
    return made


class TestOneCommit:
    """What arrives together is written together, in the order it came."""

    def test_shared_and_in_order(self, opened: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """32 works wait for one writer: one more transaction, and positions in the order in which they were handed in."""
        together = _Together(opened)
        made = _committed(monkeypatch)
        futures = [together.submit(partial(_append, height)) for height in range(1, MANY + 1)]
        assert together.answers(*futures) == list(range(1, MANY + 1))
        assert len(made) == 1
        assert opened.read(lambda work: work.journal.head().position) == MANY

    def test_one_of_them_fails(self, opened: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """What it wrote before it failed is gone; the other 31 stand, and none of them ran twice."""
        together = _Together(opened)
        made = _committed(monkeypatch)
        runs: list[int] = []

        def counted(height: int, work: UnitOfWork) -> int:
            runs.append(height)
            return _append(height, work)

        error = _Odd("mine alone")
        futures = [
            together.submit(partial(_fail, 900, error) if height == 17 else partial(counted, height))
            for height in range(1, MANY + 1)
        ]
        found = together.answers(*futures)
        assert found.pop(16) is error
        assert found == list(range(1, MANY))
        assert (len(made), len(runs), len(set(runs))) == (1, MANY - 1, MANY - 1)
        assert opened.read(lambda work: work.customers.ids()) == frozenset()
        assert [row.damage for row in opened.read(lambda work: work.journal.examine())] == [()] * (MANY - 1)

    @pytest.mark.parametrize(
        ("spoil", "kind"),
        [
            pytest.param(lambda work: _append(1, work), Refused, id="refused: recorded already"),
            pytest.param(lambda _: int("x"), ValueError, id="an exception of Python's own"),
            pytest.param(
                lambda work: work.journal._connection.exec_driver_sql("INSERT INTO leases VALUES ('l', '', 0, 0)"),
                Unavailable,
                id="refused by the database",
            ),
            pytest.param(
                lambda work: work.journal._connection.exec_driver_sql("nonsense"), Unavailable, id="no SQL at all"
            ),
        ],
    )
    def test_a_failure_keeps_its_type(
        self, opened: SqlStore, spoil: Callable[[UnitOfWork], Any], kind: type[Exception]
    ) -> None:
        """It passes through as it is, alone or among others, and what the database refuses takes nobody with it."""
        opened.run(partial(_append, 1))
        with pytest.raises(kind):
            opened.run(spoil)
        together = _Together(opened)
        found = together.answers(*(together.submit(work) for work in (partial(_append, 2), spoil, partial(_append, 3))))
        assert (found[0], type(found[1]), found[2]) == (2, kind, 3)

    def test_each_sees_the_ones_before(self, opened: SqlStore) -> None:
        """Two that want the same thing: the second is refused, as if it had come a day later."""
        together = _Together(opened)
        found = together.answers(*[together.submit(partial(_append, 5)) for _ in range(2)])
        assert found[0] == 1
        assert [refusal.rule for refusal in found[1].refusals] == [Rule.ALREADY_RECORDED]


class TestRetries:
    """What a race undid is run again, all of it."""

    def test_a_serialisation_failure(self, opened: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """The whole transaction runs again, and each work is recorded once and answered once."""
        monkeypatch.setattr(unit_of_work, "_LONGEST_PAUSE", 0.001)
        runs: list[int] = []

        def work(height: int, work: UnitOfWork) -> int:
            runs.append(height)
            position = _append(height, work)
            if height == 2 and runs.count(2) < 3:
                raise DBAPIError("COMMIT", None, SerializationFailure("could not serialize access"))
            return position

        together = _Together(opened)
        assert together.answers(*(together.submit(partial(work, height)) for height in (1, 2, 3))) == [1, 2, 3]
        assert runs == [1, 2, 1, 2, 1, 2, 3]
        assert opened.read(lambda work: work.journal.head().position) == 3

    def test_a_commit_of_which_nobody_knows(self, opened: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each of those who shared it is told so, and no work is run again: what stands would be done twice, or refused."""
        together = _Together(opened)
        plain, runs = Writer.once, list[int]()

        def unheard(self: Writer, work: Callable[[Connection], Any]) -> Any:
            plain(self, work)
            raise OutcomeUnknown("store", "the connection broke during COMMIT")

        def counted(height: int, work: UnitOfWork) -> int:
            runs.append(height)
            return _append(height, work)

        futures = [together.submit(partial(counted, height)) for height in (1, 2)]
        monkeypatch.setattr(Writer, "once", unheard)
        assert [type(answer) for answer in together.answers(*futures)] == [OutcomeUnknown] * 2
        assert runs == [1, 2]
        assert opened.read(lambda work: work.journal.head().position) == 2


class TestThreads:
    """Who waits, who leads, and who is gone."""

    def test_nothing_runs_inside(self, opened: SqlStore) -> None:
        """A work that wants a transaction of its own is told so; one that reads sees what was committed before."""
        opened.run(partial(_append, 1))

        def nested(work: UnitOfWork) -> tuple[int, int]:
            mine = _append(2, work)
            return mine, opened.read(lambda read: read.journal.head().position)

        def inside(_: UnitOfWork) -> None:
            opened.run(lambda _: None)

        together = _Together(opened)
        found = together.answers(together.submit(nested), together.submit(inside), together.submit(partial(_append, 3)))
        assert (found[0], type(found[1]), found[2]) == ((2, 1), RuntimeError, 3)

    def test_one_that_is_paused_holds_up_nobody(self, opened: SqlStore) -> None:
        """A thread that handed in work and is then stopped before it hears: others are written and answered meanwhile."""
        stopped, go = threading.Event(), threading.Event()

        def pausing() -> int:
            position = opened.run(partial(_append, 1))
            stopped.set()
            assert go.wait(_LONG)
            return position

        with ThreadPoolExecutor(1) as pool:
            paused = pool.submit(pausing)
            assert stopped.wait(_LONG)
            assert [opened.run(partial(_append, height)) for height in range(2, 6)] == [2, 3, 4, 5]
            go.set()
            assert paused.result(_LONG) == 1

    def test_closing_answers_everybody(self, opened: SqlStore) -> None:
        """What waits when a store is closed is written and answered; what comes afterwards is told that it was closed."""
        together = _Together(opened)
        futures = [together.submit(partial(_append, height)) for height in (1, 2, 3)]
        closing = threading.Thread(target=opened.close)
        closing.start()
        eventually(lambda: opened._group._closed)
        with pytest.raises(Unavailable, match="closed"):
            opened.run(partial(_append, 4))
        assert together.answers(*futures) == [1, 2, 3]
        closing.join(_LONG)
        assert not closing.is_alive()

    def test_many_threads(self, opened: SqlStore) -> None:
        """A thousand works of 32 threads: every one is answered with a position of its own."""
        with ThreadPoolExecutor(MANY) as pool:
            found = list(pool.map(lambda height: opened.run(partial(_append, height)), range(1, 1001)))
        assert sorted(found) == list(range(1, 1001))


class TestInterrupted:
    """Ctrl-C reaches one thread; the others must hear something true."""

    def test_who_leads(self) -> None:
        """Those it wrote for do not know what stands, and are told so; those behind them are written by the next."""
        entered, go = threading.Event(), threading.Event()
        written: list[int] = []

        def together(works: Sequence[Work]) -> list[Outcome]:
            if not entered.is_set():
                entered.set()
                assert go.wait(_LONG)
                return [Outcome() for _ in works]
            written.append(len(works))
            if len(written) == 1:
                raise KeyboardInterrupt
            return [Outcome(7) for _ in works]

        group = GroupCommit(together, most=2)
        with ThreadPoolExecutor(6) as pool:
            futures = []
            for number in range(5):
                futures.append(pool.submit(group.run, lambda _: None))
                eventually(entered.is_set if number == 0 else partial(_queued, group, number))
            go.set()
            found: list[Any] = [future.exception(_LONG) or future.result(_LONG) for future in futures]
        assert found[0] is None
        assert [type(answer) for answer in found[1:3]] == [KeyboardInterrupt, OutcomeUnknown]
        assert found[3] == found[4] == 7
        group.close()

    def test_who_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its work is taken back before anybody wrote it; and where it was to lead next, whoever is behind it leads."""
        written: list[int] = []

        def together(works: Sequence[Work]) -> list[Outcome]:
            written.append(len(works))
            return [Outcome(7) for _ in works]

        group = GroupCommit(together)
        group._led = True  # somebody writes
        interrupted, go = threading.Event(), threading.Event()

        class Latch:
            """Where Ctrl-C comes while a thread waits."""

            def acquire(self) -> None:
                interrupted.set()
                assert go.wait(_LONG)
                raise KeyboardInterrupt

            def release(self) -> None:
                """Whoever waits here never hears it."""

        latch: Any = Latch()
        with ThreadPoolExecutor(2) as pool:
            with monkeypatch.context() as patch:
                patch.setattr(group_commit, "_Submitted", partial(group_commit._Submitted, latch=latch))
                first = pool.submit(group.run, lambda _: None)
                assert interrupted.wait(_LONG)
            second = pool.submit(group.run, lambda _: None)
            eventually(partial(_queued, group, 2))
            with group._turn:
                group._hand_on()  # the writer is done: the first is to lead
            go.set()
            assert isinstance(first.exception(_LONG), KeyboardInterrupt)
            assert second.result(_LONG) == 7
        assert written == [1]


def _queued(group: GroupCommit, count: int) -> bool:
    return len(group._waiting) == count


DOOMED: Final = """
import os, signal, sys, threading
from custody.store import open_store
from custody.store.writing import Writer
from tests.fakes.ledger import ASSETS, NOW, credit, native

url, when, many = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_store(url, ASSETS)
began, go = threading.Event(), threading.Event()
plain, turns = Writer._commit, []

def commit(self, connection):
    turns.append(1)
    if when == "before" and len(turns) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    plain(self, connection)
    if when == "after" and len(turns) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Writer._commit = commit

def hold(work):
    began.set()
    go.wait(30)

def submit(height):
    position = store.run(lambda work: work.journal.append(credit(native(height)), NOW).position)
    os.write(1, f"{height}:{position}\\n".encode())

threads = [threading.Thread(target=store.run, args=(hold,))]
threads[0].start()
began.wait(30)
for height in range(1, many + 1):
    threads.append(threading.Thread(target=submit, args=(height,)))
    threads[-1].start()
while len(store._group._waiting) < many:
    pass
go.set()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize(("when", "rows"), [("before", 0), ("after", MANY)])
def test_killed_at_the_commit(url: str, when: str, rows: int) -> None:
    """kill -9 right before COMMIT: nobody had an answer, and nothing is there. Right after: everything is there.

    So an answer always means that the rows are there, and a missing one says nothing: ask again under the same key.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    doomed = subprocess.run(
        [sys.executable, "-c", DOOMED, url, when, str(MANY)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert doomed.returncode == -signal.SIGKILL
    assert doomed.stdout == ""
    store = open_store(url, ASSETS)
    assert store.read(lambda work: work.journal.head().position) == rows
    assert all(not row.damage for row in store.read(lambda work: work.journal.examine()))
    again = [_again(store, height) for height in range(1, MANY + 1)]
    assert again == ([Rule.ALREADY_RECORDED] * MANY if rows else list(range(1, MANY + 1)))
    store.close()


def _again(store: SqlStore, height: int) -> int | Rule:
    try:
        return store.run(partial(_append, height))
    except Refused as refused:
        return refused.refusals[0].rule


def test_two_processes_in_groups(url: str) -> None:
    """Each process groups its own threads; together they leave one journal without a gap."""
    program = (
        "import sys\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from custody.store import open_store\n"
        "from tests.fakes.ledger import ASSETS, NOW, credit, native\n"
        "store, first = open_store(sys.argv[1], ASSETS), int(sys.argv[2])\n"
        "one = lambda n: store.run(lambda work: work.journal.append(credit(native(n)), NOW).position)\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(len(list(pool.map(one, range(first, first + 120)))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, str(first)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for first in (1, 1001)
    ]
    assert [int(process.communicate(timeout=120)[0]) for process in started] == [120, 120]
    store = open_store(url, ASSETS)
    assert [entry.position for entry in store.read(lambda work: work.journal.read())] == list(range(1, 241))
    store.close()
