# SPDX-License-Identifier: AGPL-3.0-or-later
"""Visits to the console on the fake, SQLite and PostgreSQL: each ends once, and time never runs back."""

import pytest

from custody.flows.ports import Store, Visit
from custody.rules.refusals import Refused, Rule
from tests.fakes.ledger import NOW
from tests.fakes.seat import rules_of


def visit(number: int, person: str = "ana", begun: int = NOW, until: int = NOW + 300) -> Visit:
    """One of them."""
    return Visit(bytes([number]) * 32, person, "{}", begun, begun, until)


def add(store: Store, *visits: Visit) -> None:
    """Keep these."""
    for each in visits:
        store.run(lambda work, each=each: work.visits.add(each))  # type: ignore[misc]


def test_a_visit_is_kept_seen_and_ended_once(store: Store) -> None:
    """Whoever ends it first is told so; the second finds nothing: a login is used up by one answer."""
    add(store, visit(1))
    store.run(lambda work: work.visits.see(visit(1).name, NOW + 60))
    store.run(lambda work: work.visits.see(visit(1).name, NOW + 30))
    found = store.read(lambda work: work.visits.get(visit(1).name))
    assert found == Visit(visit(1).name, "ana", "{}", NOW, NOW + 60, NOW + 300)
    ends = [store.run(lambda work: work.visits.end(visit(1).name)) for _ in range(2)]
    assert ends == [True, False]
    assert store.read(lambda work: work.visits.get(visit(1).name)) is None


def test_one_name_is_one_visit(store: Store) -> None:
    """A secret is drawn once; a second visit of its name would be somebody else's session."""
    add(store, visit(1))
    with pytest.raises(Refused) as caught:
        add(store, visit(1, "mallory"))
    assert rules_of(caught.value) == {Rule.ALREADY_EXISTS}
    found = store.read(lambda work: work.visits.get(visit(1).name))
    assert found is not None
    assert found.person == "ana"


def test_a_persons_sessions_and_those_that_ended(store: Store) -> None:
    """The newest first, nobody else's; forgotten once their end lies before a time."""
    add(store, visit(1), visit(2, begun=NOW + 5), visit(3, "bo"), visit(4, "", until=NOW + 10))
    mine = store.read(lambda work: work.visits.of("ana"))
    assert [each.name[0] for each in mine] == [2, 1]
    store.run(lambda work: work.visits.forget(NOW + 11))
    assert store.read(lambda work: work.visits.get(visit(4).name)) is None
    store.run(lambda work: work.visits.forget(NOW + 300))
    assert store.read(lambda work: work.visits.get(visit(3).name)) is not None
    store.run(lambda work: work.visits.forget(NOW + 301))
    assert store.read(lambda work: work.visits.of("ana")) == []
