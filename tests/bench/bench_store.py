# SPDX-License-Identifier: AGPL-3.0-or-later
"""A durable journal entry with its balances against a bare commit, on the same SQLite disk; alone and from 32 threads at once.

The bare commit inserts one row of the size of a journal row into a table of its own: the same pragmas, through sqlite3 itself.
"""

import itertools
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from custody.flows.ports import UnitOfWork
from custody.rules.ledger import Entry, canonical, entry_to_json
from custody.store import SqlStore, migrate, open_store
from tests.bench.harness import RAW, Comparison, compare
from tests.fakes.ledger import ASSETS, NOW, credit, native

GROUP: Final = 32
READY: Final = 12_000
"""Entries made before the clock runs; more are made on the way where a machine needs them."""


class Bare:
    """The least a durable commit can cost here: one row, one fsync, no engine in between."""

    def __init__(self, folder: Path) -> None:
        self._connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE bare (position INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT")
        self.body = canonical(entry_to_json(credit(native(1)))).decode()

    def commit(self) -> int:
        """One row, committed."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO bare (body) VALUES (?)", (self.body,))
        self._connection.execute("COMMIT")
        return 1

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Entries:
    """New credits, each recorded durably before the next."""

    def __init__(self, store: SqlStore) -> None:
        self._store, self._heights = store, itertools.count(1)
        self._ready: list[Entry] = []
        self._pool = ThreadPoolExecutor(GROUP)

    def one(self) -> int:
        """One entry, one commit."""
        (entry,) = self._take(1)
        self._store.run(lambda work: work.journal.append(entry, NOW))
        return 1

    def many(self) -> int:
        """Entries that so many threads hand in at once, each acknowledged only when it is durable."""
        waves = 4
        works = [partial(_append, entry) for entry in self._take(waves * GROUP)]
        return len(list(self._pool.map(self._store.run, works)))

    def prepare(self, count: int) -> None:
        """Make entries beforehand: what is measured is recording them."""
        self._ready += [credit(native(height)) for height in itertools.islice(self._heights, count)]

    def _take(self, count: int) -> list[Entry]:
        if len(self._ready) < count:
            self.prepare(count)
        taken = self._ready[-count:]
        del self._ready[-count:]
        return taken

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()


def _append(entry: Entry, work: UnitOfWork) -> int:
    return work.journal.append(entry, NOW).position


def benches() -> Iterator[Comparison]:
    """Both comparisons; a ratio below 1 is slower than a bare commit, and 32 in one commit should be above."""
    RAW.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="store-", dir=RAW) as name:
        folder = Path(name)  # on the repository's disk: a /tmp in memory would make a commit cost nothing
        url = f"sqlite:///{folder}/ledger.db"
        migrate(url)
        store = open_store(url, ASSETS)
        bare, entries = Bare(folder), Entries(store)
        entries.prepare(READY)
        yield compare("journal entry with balances, over a bare commit (SQLite)", entries.one, bare.commit)
        entries.prepare(READY)
        yield compare("journal entries of 32 threads, over bare commits (SQLite)", entries.many, bare.commit)
        entries.close()
        bare.close()
        store.close()
