# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pages, the newest first, on the fake, SQLite and PostgreSQL: each begins where the last ended, nothing is told twice or lost."""

from collections.abc import Iterator

import pytest

from custody.flows.ports import NEWEST, EventKind, Store
from custody.rules.amounts import Amount
from custody.rules.approvals import Approval
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.ledger import AccountKind
from custody.rules.transfers import Status
from custody.store import open_store
from tests.contract.test_store_transfers import DONE, add, moved, transfer
from tests.fakes.ledger import ANA_ETH, ASSETS, BO_ETH, ETH, NOW, PEOPLE, ROSTER, available, credit, native


@pytest.fixture
def real(url: str) -> Iterator[Store]:
    """SQLite, then PostgreSQL."""
    opened = open_store(url, ASSETS)
    yield opened
    opened.close()


def fill(store: Store, count: int) -> None:
    """Deposits of ana's and bo's by turns, each credited."""
    for height in range(1, count + 1):
        address = ANA_ETH if height % 2 else BO_ETH
        proof = native(height, address=address)
        sighting = Sighting(Amount(ETH, 10**18), address, proof)
        store.run(lambda work, sighting=sighting: work.deposits.record(sighting))  # type: ignore[misc]
        entry = store.run(lambda work, proof=proof: work.journal.append(credit(proof), NOW))  # type: ignore[misc]
        if height > 2:
            store.run(
                lambda work, sighting=sighting, entry=entry: work.deposits.move(  # type: ignore[misc]
                    sighting.identity, DepositStatus.CREDITED, entry.position
                )
            )


def test_entries_by_pages(store: Store) -> None:
    """All of them, and one customer's; the next page begins below the last position."""
    fill(store, 7)
    first = store.read(lambda work: work.listing.entries(NEWEST, 3))
    assert [entry.position for entry in first] == [7, 6, 5]
    assert [e.position for e in store.read(lambda work: work.listing.entries(3, 9))] == [2, 1]
    mine = store.read(lambda work: work.listing.entries(NEWEST, 2, [available("ana")]))
    assert [entry.position for entry in mine] == [7, 5]
    both = store.read(lambda work: work.listing.entries(6, 9, [available("ana"), available("bo")]))
    assert [entry.position for entry in both] == [5, 4, 3, 2, 1]
    assert store.read(lambda work: work.listing.entries(1, 9)) == []
    assert store.read(lambda work: work.listing.entries(NEWEST, 9, [available("nobody")])) == []


def test_balances_of_a_kind(store: Store) -> None:
    """What is not zero, by name, and of no other kind."""
    fill(store, 3)
    found = store.read(lambda work: work.listing.balances(AccountKind.CUSTOMER_AVAILABLE, 9))
    assert [(str(account), asset.symbol) for account, asset, _ in found] == [
        ("customer_available:ana", "ETH"),
        ("customer_available:bo", "ETH"),
    ]
    assert [units for *_, units in found] == [2 * 10**18, 10**18]
    assert len(store.read(lambda work: work.listing.balances(AccountKind.CUSTOMER_AVAILABLE, 1))) == 1
    assert store.read(lambda work: work.listing.balances(AccountKind.SUSPENSE, 9)) == []


def test_documents_spread_over_time(store: Store) -> None:
    """The first, the last, and evenly between; of one kind alone."""
    for number in range(1, 12):
        store.run(lambda work, n=number: work.documents.put("word", f"{n}", {"n": str(n)}))  # type: ignore[misc]
        store.run(lambda work, n=number: work.documents.put("other", f"{n}", {}))  # type: ignore[misc]
    chosen = store.read(lambda work: work.listing.numbers("word", 3))
    found = store.read(lambda work: [work.listing.document("word", each) for each in chosen])
    assert found == [{"n": "1"}, {"n": "6"}, {"n": "11"}]
    assert len(store.read(lambda work: work.listing.numbers("word", 99))) == 11
    assert store.read(lambda work: work.listing.numbers("none", 9)) == []
    assert store.read(lambda work: work.listing.document("other", chosen[0])) is None


def test_deposits_by_pages(store: Store) -> None:
    """By status and address."""
    fill(store, 5)
    newest = store.read(lambda work: work.listing.deposits(NEWEST, 2))
    assert [each.sighting.proof.height for _, each in newest] == [5, 4]
    rest = store.read(lambda work: work.listing.deposits(newest[-1][0], 9))
    assert [each.sighting.proof.height for _, each in rest] == [3, 2, 1]
    seen = store.read(lambda work: work.listing.deposits(NEWEST, 9, DepositStatus.SEEN))
    assert [each.sighting.proof.height for _, each in seen] == [2, 1]
    mine = store.read(lambda work: work.listing.deposits(NEWEST, 9, None, [ANA_ETH.text]))
    assert [each.sighting.proof.height for _, each in mine] == [5, 3, 1]


def test_events_by_pages(real: Store) -> None:
    """Moves of transfers by name; a yes by person with what was signed; documents by kind."""
    one, two = add(real, transfer(1)), add(real, transfer(2))
    moved(real, one, *DONE)
    yes = Approval(two.digest, "p1", PEOPLE["bo.t"].sign(ROSTER, two.intent))
    real.run(lambda work: work.transfers.approve(yes, NOW + 5))
    real.run(lambda work: work.documents.put("freeze", "ab", {"reason": "x"}))
    page = real.read(lambda work: work.listing.events(EventKind.MOVED, NEWEST, 3))
    assert [(each.about, each.text.split()[0]) for each in page] == [
        (one.intent.id, status.value) for status in (Status.COMPLETED, Status.CONFIRMING, Status.BROADCASTING)
    ]
    older = real.read(lambda work: work.listing.events(EventKind.MOVED, page[-1].number, 9))
    assert len(older) == 3
    assert not {each.number for each in older} & {each.number for each in page}
    own = real.read(lambda work: work.listing.events(EventKind.MOVED, NEWEST, 9, about=two.intent.id))
    assert [each.about for each in own] == [two.intent.id]
    (said,) = real.read(lambda work: work.listing.events(EventKind.APPROVED, NEWEST, 9, person="p1"))
    assert (said.at, said.about, said.person, two.digest.hex() in said.body) == (NOW + 5, two.intent.id, "p1", True)
    assert real.read(lambda work: work.listing.events(EventKind.APPROVED, NEWEST, 9, person="p2")) == []
    assert real.read(lambda work: work.listing.events(EventKind.MOVED, NEWEST, 9, person="p1")) == []
    (kept,) = real.read(lambda work: work.listing.events(EventKind.DOCUMENT, NEWEST, 9))
    assert (kept.about, kept.text, kept.body) == ("ab", "freeze", '{"reason":"x"}')
