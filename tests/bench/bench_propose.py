# SPDX-License-Identifier: AGPL-3.0-or-later
"""A withdrawal proposed, by the real kernel under the shipped bundle, against a bare commit on the same database.

`propose` is whole: the initiator's signature, the route and its enrolment, policy over the store's windows, the customer's balance,
the hold in the journal, the transfer and its first moves, in one durable transaction.
"""

import itertools
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from custody.flows import proposals
from custody.rules.amounts import Asset
from custody.rules.intents import Proposal
from custody.rules.seat_request import BundleInForce, Policies
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.store import SqlStore, migrate, open_store
from devnet.postgres import postgres
from tests.bench.bench_store import Bare
from tests.bench.harness import RAW, Comparison, compare
from tests.fakes.seat import BITCOIN, NOW, ed25519, signed_by
from tests.fakes.treasury import AVAILABLE, Treasury, deposit, kernel, proposal
from tests.fakes.trust import PAYEE, world
from tests.unit.shipped import open_shipped

READY: Final = 1500
"""Proposals signed at a time, outside the clock."""
UNITS: Final = 1000
"""Satoshi of one withdrawal: so little that thousands of them stay within every window of the shipped bundle."""
FUNDS: Final = 10**12


@dataclass
class House:
    """A furnished treasury under the shipped bundle, with coins for a long run."""

    store: SqlStore
    treasury: Treasury

    @classmethod
    @contextmanager
    def open(cls, url: str) -> Iterator["House"]:
        """Over an empty database."""
        with tempfile.TemporaryDirectory() as folder:
            shipped = open_shipped(Path(folder))
        migrate(url)
        store = open_store(url, shipped.assets)
        policies = Policies(BundleInForce(shipped.policy, shipped.assets, shipped.fees), {})
        house = cls(store, Treasury(store, kernel(policies=policies)))
        btc: Asset = shipped.assets.get("BTC")
        store.run(lambda work: work.journal.append(deposit(btc, FUNDS, AVAILABLE, height=99), NOW))
        yield house
        store.close()


@dataclass
class Proposals:
    """Withdrawals that nobody asked for before, signed ahead of time and forgotten by every cache."""

    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    ready: list[Signed[Proposal]] = field(default_factory=list)

    def next(self) -> Signed[Proposal]:
        """One that no process has hashed."""
        if not self.ready:
            self.prepare(READY)
        return self.ready.pop()

    def prepare(self, count: int) -> None:
        """Sign so many."""
        signer = ed25519("backend")
        made = (signed_by(_said(n), world().domain, [signer]) for n in itertools.islice(self.numbers, count))
        self.ready += [Signed.from_json(Proposal, signed.to_json()) for signed in made]


def _said(number: int) -> Proposal:
    return proposal(number, chain=BITCOIN.name, asset="BTC", amount=UNITS, destination=PAYEE[BITCOIN.name])


class Flow:
    """`flows.proposals.propose`, one durable transaction each."""

    def __init__(self, house: House) -> None:
        self._house, self._proposals = house, Proposals()
        self._proposals.prepare(2 * READY)

    def one(self) -> int:
        """One proposal, queued."""
        signed = self._proposals.next()
        made = self._propose(signed)
        if made.status is not Status.QUEUED:
            raise TypeError(f"{made.status}: {made.waiting_for}")
        return 1

    def _propose(self, signed: Signed[Proposal]) -> Transfer:
        house, key = self._house, signed.message.reference
        return proposals.propose(house.store, house.treasury.kernel, signed, key, NOW, secrets.token_bytes(10))


class BareRow:
    """One row of a journal row's size, committed by PostgreSQL, through the driver itself."""

    def __init__(self, url: str, body: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)
        self._connection.execute("CREATE TABLE bare (position BIGSERIAL PRIMARY KEY, body TEXT NOT NULL)")
        self._body = body

    def commit(self) -> int:
        """One row."""
        self._connection.execute("INSERT INTO bare (body) VALUES (%s)", (self._body,))
        return 1

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def benches() -> Iterator[Comparison]:
    """One comparison for each database; a ratio below 1 is slower than a bare commit of one row."""
    RAW.mkdir(parents=True, exist_ok=True)
    name = "propose: policy, balance, hold, journal, transfer, over a bare commit"
    with tempfile.TemporaryDirectory(prefix="propose-", dir=RAW) as folder:  # on the repository's disk, not in memory
        bare = Bare(Path(folder))
        with House.open(f"sqlite:///{folder}/ledger.db") as house:
            yield compare(f"{name} (SQLite)", Flow(house).one, bare.commit)
        body = bare.body
        bare.close()
    with postgres(durable=True) as url, House.open(url) as house:
        row = BareRow(url, body)
        yield compare(f"{name} (PostgreSQL)", Flow(house).one, row.commit)
        row.close()
