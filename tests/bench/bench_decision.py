# SPDX-License-Identifier: AGPL-3.0-or-later
"""Durable decisions: alone, from 32 threads at once, and on one hot account against many.

What is counted as a decision is `flows.proposals.record`, the write transaction of a proposal and everything in it: the question
whether its idempotency key was used; policy's windows, settled inflow and reversals read again and compared; the hold's entry in the
hash-chained journal with its lines, its two identities, balances and totals; the transfer with its key, and two steps of its history;
one COMMIT with its fsync. The signature, the route, hashing and policy's first answer were made before (`prepare`) and are not counted
here: `bench_propose` counts all of it. The other side is one row of a journal row's size, committed with the same pragmas.
"""

import itertools
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Final

import psycopg
from eth_utils.address import to_checksum_address

from custody.flows import proposals
from custody.flows.ports import UnitOfWork
from custody.flows.proposals import Prepared
from custody.rules.ledger import Account, AccountKind
from custody.store import SqlStore
from devnet.postgres import postgres
from tests.bench.bench_propose import House
from tests.bench.bench_store import Bare
from tests.bench.harness import RAW, ROUND_SECONDS, ROUNDS, Comparison, Side, compare
from tests.fakes.seat import EVM, NOW, ed25519, signed_by
from tests.fakes.treasury import DAY, deposit, enrolment, proposal
from tests.fakes.trust import ETH, world

CLIENTS: Final = 32
UNITS: Final = 10**14
"""Wei of one withdrawal: so little that thousands of them stay within every window of the shipped bundle."""
_WARM: Final = 4
_SPARE: Final = 1.5


class Decisions:
    """Withdrawals of these customers, prepared ahead of time; each is recorded once."""

    _numbers: Iterator[int] = itertools.count(1)

    def __init__(self, house: House, customers: Sequence[str], threads: int = 1) -> None:
        self._house, self._customers, self._threads = house, customers, threads
        self._pool, self._ready = ThreadPoolExecutor(threads), list[Prepared]()

    def prepare(self, count: int) -> None:
        """Everything of so many proposals that comes before their transaction."""
        house = self._house
        for number, customer in zip(itertools.islice(Decisions._numbers, count), itertools.cycle(self._customers)):
            said = proposal(number, account=f"customer:{customer}", amount=UNITS, destination=address_of(customer))
            signed = signed_by(said, world().domain, [ed25519("backend")])
            made = proposals.prepare(
                house.store, house.treasury.kernel, signed, str(number), NOW, secrets.token_bytes(10)
            )
            if not isinstance(made, Prepared):
                raise TypeError(made)
            self._ready.append(made)

    def enough(self) -> None:
        """As many as a comparison takes: it runs this side alone for its control, and half of the time afterwards."""
        self.prepare(_WARM * self._threads)
        began = time.perf_counter()
        done = sum(self.slice() for _ in range(_WARM))
        self.prepare(int(_SPARE * _SPARE * ROUNDS * ROUND_SECONDS * done / (time.perf_counter() - began)))

    def slice(self) -> int:
        """One for each thread, all at once; each is answered once it is durable."""
        if len(self._ready) < self._threads:
            self.prepare(self._threads)
        mine, self._ready = self._ready[: self._threads], self._ready[self._threads :]
        if self._threads == 1:
            self._record(mine[0])
        else:
            list(self._pool.map(self._record, mine))
        return len(mine)

    def _record(self, prepared: Prepared) -> None:
        proposals.record(self._house.store, self._house.treasury.kernel, prepared, NOW)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()


def address_of(customer: str) -> str:
    """Where a customer's withdrawals go."""
    return str(to_checksum_address(sha256(customer.encode()).digest()[:20]))


def furnish(store: SqlStore, customers: Sequence[str]) -> None:
    """Customers with ether and an enrolled address each."""

    def work(work: UnitOfWork) -> None:
        for height, customer in enumerate(customers, 1000):
            work.customers.add(customer)
            owner = Account(AccountKind.CUSTOMER_AVAILABLE, customer)
            work.journal.append(deposit(ETH, 10**22, owner, height=height), NOW - 2 * DAY)
            said = enrolment(EVM, owner=f"customer:{customer}", address=address_of(customer))
            work.enrolments.add(said, NOW - 2 * DAY)

    store.run(work)


class BareClients:
    """So many connections, each inserting and committing a row of a journal row's size at once with the others."""

    def __init__(self, url: str, body: str) -> None:
        plain = url.replace("+psycopg", "", 1)
        self._connections = [psycopg.connect(plain, autocommit=True) for _ in range(CLIENTS)]
        self._connections[0].execute("CREATE TABLE bare (position BIGSERIAL PRIMARY KEY, body TEXT NOT NULL)")
        self._pool, self._body = ThreadPoolExecutor(CLIENTS), body

    def slice(self) -> int:
        """One row for each client."""
        return sum(self._pool.map(self._insert, self._connections))

    def _insert(self, connection: "psycopg.Connection[tuple[object, ...]]") -> int:
        connection.execute("INSERT INTO bare (body) VALUES (%s)", (self._body,))
        return 1

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()


def benches() -> Iterator[Comparison]:
    """SQLite first: one decision, then 32 threads; then PostgreSQL's 32 clients."""
    RAW.mkdir(parents=True, exist_ok=True)
    crowd = [f"c{number}" for number in range(CLIENTS)]
    with tempfile.TemporaryDirectory(prefix="decision-", dir=RAW) as folder:  # on the repository's disk, not in memory
        bare = Bare(Path(folder))
        with House.open(f"sqlite:///{folder}/ledger.db") as house:
            furnish(house.store, crowd)
            yield _compared("a durable decision, over a bare commit (SQLite)", house, crowd, 1, bare.commit)
            name = f"decisions of {CLIENTS} threads, over bare commits (SQLite)"
            yield _compared(name, house, crowd, CLIENTS, bare.commit)
        body = bare.body
        bare.close()
    with postgres(durable=True) as url, House.open(url) as house:
        furnish(house.store, crowd)
        spread = Decisions(house, crowd, CLIENTS)
        spread.enough()
        name = f"decisions on one hot account, over {CLIENTS} accounts, {CLIENTS} clients (PostgreSQL)"
        yield _compared(name, house, crowd[:1], CLIENTS, spread.slice)
        spread.close()
        rows = BareClients(url, body)
        name = f"decisions on one hot account, over bare inserts, {CLIENTS} clients (PostgreSQL)"
        yield _compared(name, house, crowd[:1], CLIENTS, rows.slice)
        rows.close()


def _compared(name: str, house: House, customers: Sequence[str], threads: int, other: Side) -> Comparison:
    decisions = Decisions(house, customers, threads)
    decisions.enough()
    compared = compare(name, decisions.slice, other)
    decisions.close()
    return compared
