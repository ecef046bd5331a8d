# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several processes on SQLite and on PostgreSQL at once: nothing twice, nothing lost, and nobody told what is not so."""

import itertools
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import sqlalchemy

from custody.flows import worker
from custody.flows.ports import UnitOfWork
from custody.rules.errors import Unavailable
from custody.rules.transfers import Status, Transfer
from custody.store import OutcomeUnknown, SqlStore, engines, migrate, open_store, unit_of_work
from devnet.postgres import Postgres
from tests.fakes import crowd, ledger
from tests.fakes.payouts import Workshop
from tests.fakes.treasury import AVAILABLE, HELD, Treasury
from tests.fakes.trust import ASSETS

T = TypeVar("T")
_NUMBERS: Final = itertools.count(1)


@pytest.fixture(params=("sqlite", "postgresql"))
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fresh.db'}"
        return
    server: sqlalchemy.Engine = request.getfixturevalue("postgres_server")
    name = f"fresh_{next(_NUMBERS)}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_processes_that_start_at_once(fresh_url: str) -> None:
    """Four open a new database in the same moment: each finds the newest schema, none fails."""
    starting = crowd.Crowd(*[partial(crowd.create, fresh_url)] * 4)
    starting.begin()
    assert starting.answers() == ["done"] * 4
    store = open_store(fresh_url, ASSETS)
    store.run(lambda work: work.customers.add("ana"))
    store.close()


def test_a_thousand_withdrawals_of_one_balance(url: str) -> None:
    """Four processes ask for 1,000 of 500 units: exactly 500 are held, 500 are told why not, and nobody is below zero."""
    store = open_store(url, ASSETS)
    shop = Treasury(store)
    assert shop.balance(AVAILABLE) == 500 * crowd.UNITS
    store.close()
    takers = crowd.Crowd(*(partial(crowd.withdraw, url, f"p{n}", 250) for n in range(4)))
    takers.begin()
    told: dict[str, int] = {}
    for answer in takers.answers():
        for what, count in answer.items():
            told[what] = told.get(what, 0) + count
    assert told == {"taken": 500, "insufficient_balance": 500}
    assert (shop.balance(AVAILABLE), shop.balance(HELD)) == (0, 500 * crowd.UNITS)
    found = store.read(lambda work: [t for _, t in work.transfers.examine(0, 2000)])
    assert len(found) == 500
    assert sum(t.intent.amount for t in found if t.intent.asset == "ETH") == 500 * crowd.UNITS
    holds = [transfer.hold for transfer in found]
    assert len(set(holds)) == 500
    entries = store.read(lambda work: work.journal.read(0, 2000))
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert {entry.position for entry in entries} >= set(holds)
    store.close()


# workers


class _Locked:
    """A part in memory that is one at a time for everybody, as a process of its own is."""

    def __init__(self, target: Any, turn: "threading.RLock") -> None:
        self._target, self._turn = target, turn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def locked(*args: Any, **kwargs: Any) -> Any:
            with self._turn:
                return found(*args, **kwargs)

        return locked


def _work(
    shop: Workshop, parts: worker.Parts, chain: Any, transfers: list[Transfer], failures: list[BaseException]
) -> None:
    pace, until = worker.Pace(retry=0), time.monotonic() + 30
    try:
        while time.monotonic() < until:
            worker.step(parts, pace)
            chain.mine()
            if all(shop.get(transfer).status.is_final for transfer in transfers):
                return
    except Exception as error:  # noqa: BLE001  # the test's own thread tells it
        failures.append(error)


def test_two_workers_at_once(url: str) -> None:
    """Two workers with stores of their own: every transfer is paid once, no anchor has two payloads, nothing stays held."""
    ours = open_store(url, ASSETS)
    shop = Workshop(store=ours)
    transfers = [shop.queued(number, amount=10**15 + number) for number in range(1, 9)]
    turn = threading.RLock()
    chain: Any = _Locked(shop.payouts, turn)
    seats: Any = [_Locked(seat, turn) for seat in shop.seats]
    stores = [open_store(url, ASSETS) for _ in range(2)]
    failures: list[BaseException] = []
    threads = []
    for name, store in zip("ab", stores, strict=True):
        attestor: Any = _Locked(shop.attestor, turn)
        parts = replace(
            shop.parts(),
            store=store,
            chains={shop.chain: chain},
            seats=seats,
            attestor=attestor,
            holder=name,
            wall=lambda: int(time.time()),
        )
        threads.append(threading.Thread(target=_work, args=(shop, parts, chain, transfers, failures)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert {shop.get(transfer).status for transfer in transfers} == {Status.COMPLETED}
    assert sorted(paid.intent for paid in shop.payouts.paid()) == sorted(transfer.digest for transfer in transfers)
    bound = [anchors.digests for seat in shop.seats for anchors in seat.journal.anchors.values()]
    assert all(len(set(digests)) == 1 for digests in bound)
    assert shop.treasury.balance(HELD) == 0
    for opened in (*stores, ours):
        opened.close()


# a database that is busy, or goes away


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SqlStore, sqlite3.Connection]]:
    """A store that waits a tenth of a second for SQLite's file, and somebody else who is writing to it."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate(url)
    monkeypatch.setattr(engines, "BUSY_MILLISECONDS", 100)
    monkeypatch.setattr(unit_of_work, "RETURNS_WITHIN", 1.0)
    store = open_store(url, ASSETS)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield store, other
    other.close()
    store.close()


def test_a_file_that_stays_busy(locked: tuple[SqlStore, sqlite3.Connection]) -> None:
    """Nobody sees `database is locked` as a crash: it is Unavailable, and the same again works once the other one is done."""
    store, other = locked
    with pytest.raises(Unavailable, match="locked"):
        store.run(lambda work: work.customers.add("ana"))
    other.execute("ROLLBACK")
    store.run(lambda work: work.customers.add("ana"))
    assert store.read(lambda work: work.customers.ids()) == {"ana"}


def test_a_file_that_is_busy_for_a_while(locked: tuple[SqlStore, sqlite3.Connection]) -> None:
    """Longer than the busy handler waits, shorter than the store does: it costs a retry, and nobody is told."""
    store, other = locked
    timer = threading.Timer(0.4, lambda: other.execute("ROLLBACK"))
    timer.start()
    store.run(lambda work: work.customers.add("ana"))
    timer.join()
    assert store.read(lambda work: work.customers.ids()) == {"ana"}


def test_a_new_file_that_somebody_writes_to(tmp_path: Path) -> None:
    """SQLite asks no busy handler when a file is turned to WAL: `database is locked` at once, where another process is first."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO theirs VALUES (1)")
    timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    timer.start()
    migrate(f"sqlite:///{tmp_path / 'new.db'}")
    timer.join()
    other.close()
    open_store(f"sqlite:///{tmp_path / 'new.db'}", ASSETS).close()


def _break(work: UnitOfWork) -> None:
    """End this very connection, as a server that stops does."""
    connection = work._connection  # type: ignore[attr-defined]
    pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    engine = sqlalchemy.create_engine(connection.engine.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as other:
        other.exec_driver_sql(f"SELECT pg_terminate_backend({pid}, 2000)")
    engine.dispose()


def test_a_connection_that_breaks(make_url: Callable[[str], str]) -> None:
    """Before COMMIT it is run again, and stands once; during COMMIT nobody knows, so it is said and never run again by itself."""
    store = open_store(make_url("postgresql"), ledger.ASSETS)
    runs: list[int] = []

    def work(late: bool, height: int, work: UnitOfWork) -> None:
        runs.append(height)
        if not late and runs.count(height) == 1:
            _break(work)
        work.journal.append(ledger.credit(ledger.native(height)), ledger.NOW)
        if late and runs.count(height) == 1:
            _break(work)

    store.run(partial(work, False, 1))
    assert runs == [1, 1]
    with pytest.raises(OutcomeUnknown):
        store.run(partial(work, True, 2))
    assert runs == [1, 1, 2]
    assert [e.entry.origin.height for e in store.read(lambda work: work.journal.read())] == [1]  # type: ignore[union-attr]
    store.close()


@pytest.fixture
def server() -> Iterator[Postgres]:
    """A PostgreSQL of this test only, which may be stopped."""
    folder = Path(tempfile.mkdtemp(prefix="bulkhead-pg-"))
    folder.chmod(0o711)
    node = Postgres(folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_postgresql_restarts_in_the_middle(server: Postgres) -> None:
    """Three processes write while the server stops and starts: it costs retries; every deposit stands, and each of them once."""
    migrate(server.url)
    writers = crowd.Crowd(*(partial(crowd.append, server.url, 1 + 1000 * n, 120) for n in range(3)))
    writers.begin()
    store = open_store(server.url, ledger.ASSETS)
    until = time.monotonic() + 30
    while store.read(lambda work: work.journal.head().position) < 30 and time.monotonic() < until:
        time.sleep(0.02)
    before = store.read(lambda work: work.journal.head().position)
    assert 30 <= before < 360
    store.close()
    server.stop()
    server.start()
    told = writers.answers()
    assert all(answer["done"] + answer["known"] == 120 for answer in told)
    store = open_store(server.url, ledger.ASSETS)
    entries = store.read(lambda work: work.journal.read(0, 2000))
    assert [entry.position for entry in entries] == list(range(1, 361))
    assert len({entry.entry.origin.height for entry in entries}) == 360  # type: ignore[union-attr]
    assert store.read(lambda work: work.journal.balance(ledger.available("ana"), ledger.ETH)) == 360
    assert all(not row.damage for row in store.read(lambda work: work.journal.examine(0, 2000)))
    store.close()
