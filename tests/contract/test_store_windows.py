# SPDX-License-Identifier: AGPL-3.0-or-later
"""What policy's windows count is kept by the database itself, and is always what a sum over the rows would be."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import alembic.command
import pytest
import sqlalchemy
from alembic.config import Config

from custody.flows.ports import Store
from custody.rules.transfers import MOVES, Reserved, Status, Transfer, move
from custody.store import migrate, migrations, open_store
from custody.store.engines import parse_url, writing_engine
from tests.contract.test_store_transfers import DAY, HOUR, OTHER, WALLET, add, transfer
from tests.fakes.ledger import ASSETS, NOW
from tests.fakes.store import FakeStore

ACCOUNTS: Final = ("customer:ana", "customer:bo", "company")
WALLETS: Final = (WALLET, OTHER)
INITIATORS: Final = ("backend", "gil")


def _everything(store: Store, now: int, besides: bytes = b"") -> list[Reserved]:
    def read(work: Any) -> list[Reserved]:
        return [
            work.transfers.reserved(account, wallet, initiator, now, besides)
            for account in ACCOUNTS
            for wallet in WALLETS
            for initiator in INITIATORS
        ]

    return store.read(read)


def _update(store: Store, now: Transfer, was: Transfer) -> None:
    store.run(lambda work: work.transfers.update(now, was))


def _both(real: Store, fake: Store, act: Callable[[Store], object]) -> None:
    for store in (real, fake):
        act(store)


@pytest.mark.parametrize("seed", range(3))
def test_kept_sums_are_the_rows_sums(url: str, seed: int) -> None:
    """Random transfers on random ways through their life: the kept sums agree with the fake, which adds up the rows."""
    chance = random.Random(seed)  # a walk, no secret
    real, fake = open_store(url, ASSETS), FakeStore()
    standing: list[Transfer] = []
    for number in range(1, 41):
        at = NOW + 600 * number
        if number % 3 == 0 or not standing:
            new = transfer(
                number,
                account=chance.choice(ACCOUNTS),
                wallet=chance.choice(WALLETS),
                initiator=chance.choice(INITIATORS),
                usd=chance.randrange(2**50),
                live=chance.random() < 0.9,
                created_at=at,
            )
            new = replace(new, moved_at=at) if new.live else replace(new, status=Status.BLOCKED, moved_at=at)
            _both(real, fake, partial(add, new=new))
            standing.append(new)
        else:
            was = chance.choice(standing)
            legal = sorted(MOVES[was.status] if was.live else MOVES[was.status] & {Status.CANCELLED})
            if legal:
                to = Status.COMPLETED if Status.COMPLETED in legal else chance.choice(legal)
                now = move(was, to, at, waiting_for="" if to.is_final else "something")
                _both(real, fake, partial(_update, now=now, was=was))
                standing[standing.index(was)] = now
        for later in (at, at + HOUR - 1, at + DAY):
            assert _everything(real, later) == _everything(fake, later)
        besides = chance.choice(standing).digest
        assert _everything(real, at, besides) == _everything(fake, at, besides)
    real.close()


def test_nothing_a_program_writes_goes_uncounted(url: str) -> None:
    """A status that somebody sets without asking us is counted all the same, and no kept row can be deleted."""
    store = open_store(url, ASSETS)
    one = add(store, transfer(1, usd=7))
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE transfers SET status = 'CANCELLED', waiting_for = ''")
    assert store.read(lambda w: w.transfers.reserved("customer:ana", WALLET, "backend", NOW)) == Reserved(0, 0, 0)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE transfers SET status = 'QUEUED', waiting_for = 'signatures'")
    assert store.read(lambda w: w.transfers.reserved("customer:ana", WALLET, "backend", NOW)) == Reserved(7, 7, 7)
    assert store.read(lambda w: w.transfers.reserved("customer:ana", WALLET, "backend", NOW, one.digest)) == Reserved(
        0, 0, 0
    )
    for table in ("reserved", "completed", "settled"):
        with engine.begin() as connection, pytest.raises(sqlalchemy.exc.DBAPIError):
            connection.exec_driver_sql("INSERT INTO completed VALUES ('account', 'x', 1, 1, 1)")
            connection.exec_driver_sql("INSERT INTO settled VALUES ('x', 1, 1, 1, 'ETH', '" + "0" * 77 + "1')")
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608
    engine.dispose()
    store.close()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_what_stood_before_is_counted(engine: str, make_url: Callable[[str], str]) -> None:
    """A database from before the windows were kept: its pending and completed transfers are counted as it is migrated."""
    url = make_url(engine)
    store = open_store(url, ASSETS)
    add(store, transfer(1, usd=10))
    done = transfer(2, usd=100, wallet=OTHER)
    add(store, done)
    for status in (Status.PENDING_SIGNATURE, Status.BROADCASTING, Status.CONFIRMING, Status.COMPLETED):
        now = move(done, status, NOW + 5, waiting_for="" if status.is_final else "something")
        _update(store, now, done)
        done = now
    before = _everything(store, NOW + 10)
    store.close()
    _forget(url)
    migrate(url)
    store = open_store(url, ASSETS)
    assert _everything(store, NOW + 10) == before
    assert Reserved(110, 100, 110) in before
    store.close()


def _forget(url: str) -> None:
    """As revision 0004 left it."""
    engine = writing_engine(parse_url(url))
    names = ("transfers_reserve", "transfers_pending", "transfers_done", "identities_settled")
    tables = {"transfers_reserve": "transfers", "transfers_pending": "transfers", "transfers_done": "transfers"}
    with engine.begin() as connection:
        postgres = engine.dialect.name == "postgresql"
        for name in names:
            on = f" ON {tables.get(name, 'identities')}" if postgres else ""
            connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")
            if postgres:
                connection.exec_driver_sql(f"DROP FUNCTION {name}()")
        for table in ("reserved", "completed", "settled"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
            if postgres:
                connection.exec_driver_sql(f"DROP FUNCTION {table}_refuse()")
        connection.exec_driver_sql("DROP TABLE visits")
        if postgres:  # what SQLite's revision makes anew as a whole
            for change in (
                "DROP COLUMN keys CASCADE",
                "ADD CONSTRAINT deposit_addresses_customer UNIQUE (wallet, customer)",
                "ADD CONSTRAINT deposit_addresses_index CHECK (length(wallet) = 32 AND number >= 0)",
            ):
                connection.exec_driver_sql(f"ALTER TABLE deposit_addresses {change}")
        connection.exec_driver_sql("CREATE INDEX transfers_initiator ON transfers (initiator, status, moved_at)")
        config = Config()
        config.set_main_option("script_location", str(migrations._FOLDER))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        alembic.command.stamp(config, "0004")
    engine.dispose()
