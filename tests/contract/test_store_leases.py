# SPDX-License-Identifier: AGPL-3.0-or-later
"""Leases on the fake, SQLite and PostgreSQL: turns, fencing tokens that never come back, and triggers that see to it."""

import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from custody.flows.ports import Lease, Store
from custody.rules.errors import InvalidInput, Unavailable
from custody.store import open_store
from tests.fakes.ledger import ASSETS, NOW


def take(store: Store, holder: str, now: int = NOW, seconds: int = 30, name: str = "wallet") -> Lease:
    """One attempt at a turn."""
    return store.run(lambda work: work.leases.acquire(name, holder, now, seconds))


def holds(store: Store, lease: Lease) -> bool:
    """Whether writes of a turn still count."""
    try:
        store.run(lambda work: work.leases.check(lease))
    except Unavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("holder", "now", "told"),
    [
        pytest.param("b", NOW + 29, ("a", 1), id="another one within its time"),
        pytest.param("b", NOW + 30, ("b", 2), id="another one once it lapsed"),
        pytest.param("a", NOW + 1, ("a", 2), id="its own again, which ends its former turn"),
        pytest.param("b", NOW - 10_000, ("a", 1), id="another one whose clock is behind"),
    ],
)
def test_a_second_turn(store: Store, holder: str, now: int, told: tuple[str, int]) -> None:
    """Time says who may begin; the token says whose turn it is."""
    first = take(store, "a")
    second = take(store, holder, now)
    assert (first.token, (second.holder, second.token)) == (1, told)
    assert holds(store, first) is (told == ("a", 1))


def test_a_lapsed_turn_that_nobody_took_still_holds(store: Store) -> None:
    """Fencing asks who came after, never what time it is: clocks of two machines differ."""
    lease = take(store, "a")
    assert holds(store, lease)
    longer = store.run(lambda work: work.leases.renew(lease, NOW + 100, 30))
    assert (longer.token, longer.until) == (1, NOW + 130)
    assert take(store, "b", NOW + 129) == longer


def test_given_back(store: Store) -> None:
    """Nobody waits for it, its token does not come back, and giving back what was lost takes it from nobody."""
    first = take(store, "a")
    store.run(lambda work: work.leases.release(first))
    assert not holds(store, first)
    second = take(store, "b")
    assert second.token == 2
    store.run(lambda work: work.leases.release(first))
    assert holds(store, second)


def test_names_are_apart(store: Store) -> None:
    """One wallet's turn says nothing about another's."""
    assert take(store, "a").holder == "a"
    assert take(store, "b", name="another").holder == "b"


def test_lost_writes_nothing(store: Store) -> None:
    """The check and the work stand in one transaction."""
    lost = take(store, "a")
    take(store, "b", NOW + 60)

    def work(work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        work.customers.add("ana")
        work.leases.check(lost)

    with pytest.raises(Unavailable, match="lease lost"):
        store.run(work)
    assert store.read(lambda unit: unit.customers.ids()) == frozenset()
    with pytest.raises(Unavailable, match="lease lost"):
        store.run(lambda unit: unit.leases.renew(lost, NOW + 61, 30))


@pytest.mark.parametrize(
    ("name", "holder", "seconds"),
    [
        pytest.param("", "a", 30, id="no name"),
        pytest.param("w", "", 30, id="no holder"),
        pytest.param("w", "a", 0, id="no time"),
    ],
)
def test_bad_input(store: Store, name: str, holder: str, seconds: int) -> None:
    """A lease of nobody, or for no time, would let everybody in."""
    with pytest.raises(InvalidInput):
        take(store, holder, NOW, seconds, name)


def test_a_snapshot_takes_no_turn(store: Store) -> None:
    """A read cannot write."""
    with pytest.raises(Unavailable):
        store.read(lambda work: work.leases.acquire("w", "a", NOW, 30))


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("UPDATE leases SET token = 1", id="a token that comes back"),
        pytest.param("UPDATE leases SET holder = 'mallory'", id="another holder in the same turn"),
        pytest.param("UPDATE leases SET name = 'another'", id="another name"),
        pytest.param("DELETE FROM leases", id="gone, to begin with 1 again"),
        pytest.param("INSERT INTO leases VALUES ('fresh', 'a', 0, 1)", id="a token of nothing"),
    ],
)
def test_the_database_refuses(url: str, statement: str) -> None:
    """A program that forgets the rule cannot break it."""
    store = open_store(url, ASSETS)
    take(store, "a")
    assert take(store, "a").token == 2
    store.close()
    engine = sqlalchemy.create_engine(url)
    with pytest.raises(DBAPIError), engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
