# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers in every store: the fake, SQLite and PostgreSQL keep the same promises, and the databases hold them past Python."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from custody.flows.ports import Damaged, Store, UnitOfWork
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor, Proposal, Rejection, TransferIntent
from custody.rules.ledger import settle
from custody.rules.payments import Envelope, Reservation
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.transfers import USD_MOST, Permit, Reserved, Status, SubStatus, Transfer, move
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.store import open_store
from custody.store.tables import metadata
from tests.fakes.ledger import (
    ASSETS,
    BO_ETH,
    BTC,
    ETH,
    EVM,
    NOW,
    PEOPLE,
    PROPOSER,
    ROSTER,
    USD,
    available,
    credit,
    native,
    settled,
    settlement,
    token,
)
from tests.fakes.store import FakeStore

WALLET, OTHER = b"\xab" * 32, b"\xcd" * 32
DAY, HOUR = 86_400, 3600


def transfer(number: int = 1, **changes: Any) -> Transfer:
    """A transfer that waits for signatures; `changes` are of its intent, or `usd` and `live`."""
    own = {name: changes.pop(name) for name in ("usd", "live", "created_at") if name in changes}
    proposal = Proposal(f"r{number}", "customer:ana", EVM.name, "ETH", 10 + number, "0xdest", "withdrawal", NOW + DAY)
    intent = TransferIntent(
        id=f"id-{number}",
        proposal=proposal.struct_hash,
        chain=EVM.name,
        wallet=WALLET,
        certificate=ZERO32,
        asset="ETH",
        token=ZERO_ADDRESS,
        decimals=18,
        amount=10 + number,
        account="customer:ana",
        destination="0xdest",
        destination_kind="customer_withdrawal",
        enrolment=ZERO32,
        purpose="withdrawal",
        maximum_fee=0,
        initiator="backend",
        policy=ZERO32,
        roster=1,
        not_before=NOW,
        expiry=NOW + DAY,
    )
    intent = replace(intent, **changes)
    signed = Signed(proposal, (PROPOSER.sign(ROSTER, proposal),))
    new = Transfer(
        ROSTER.domain.digest(intent), signed, intent, **{"usd": 100, "created_at": NOW, "moved_at": NOW, **own}
    )
    return replace(new, status=Status.QUEUED, waiting_for="signatures")


def add(store: Store, new: Transfer, key: str = "") -> Transfer:
    """Record one."""
    store.run(lambda work: work.transfers.add(new, "backend", key or new.intent.id, b"\x01" * 32))
    return new


def moved(store: Store, was: Transfer, *to: Status, at: int = NOW + 1) -> Transfer:
    """Through these statuses."""
    for status in to:
        now = move(was, status, at, waiting_for="" if status.is_final else "something")
        store.run(lambda work, now=now, was=was: work.transfers.update(now, was))
        was = now
    return was


DONE = (Status.PENDING_SIGNATURE, Status.BROADCASTING, Status.CONFIRMING, Status.COMPLETED)


def rules(act: Callable[[], object]) -> set[Rule]:
    """The rules by which something is refused."""
    with pytest.raises(Refused) as caught:
        act()
    return {found.rule for found in caught.value.refusals}


def permit(
    *intents: Transfer,
    anchor: str = "7",
    references: tuple[str, ...] = (),
    chain: str = EVM.name,
    wallet: bytes = WALLET,
) -> Permit:
    """A permit of an anchor."""
    reservation = Reservation(Anchor(chain, wallet, anchor), references or (anchor,), 0)
    return Permit(reservation, tuple(t.digest for t in intents), 5, NOW)


class TestTransfers:
    """What a transfer is, and where it stands."""

    def test_round_trip(self, store: Store) -> None:
        """What was recorded is what is read, by every key."""
        new = add(store, transfer(), "k")
        assert store.read(lambda w: w.transfers.get(new.digest)) == new
        assert store.read(lambda w: w.transfers.find("id-1")) == new
        assert store.read(lambda w: w.transfers.asked("backend", "k")) == (b"\x01" * 32, new)
        assert (
            store.read(lambda w: (w.transfers.get(ZERO32), w.transfers.find("x"), w.transfers.asked("other", "k")))
            == (None,) * 3
        )

    @pytest.mark.parametrize(
        ("second", "key", "found"),
        [
            pytest.param(transfer(2), "k", {Rule.IDEMPOTENCY_MISMATCH}, id="the key again"),
            pytest.param(transfer(1, id="id-9"), "other", {Rule.PROPOSAL_BOUND}, id="the proposal again"),
            pytest.param(transfer(2, id="id-1"), "other", {Rule.ALREADY_RECORDED}, id="the id again"),
            pytest.param(
                transfer(1),
                "k",
                {Rule.IDEMPOTENCY_MISMATCH, Rule.PROPOSAL_BOUND, Rule.ALREADY_RECORDED},
                id="everything again",
            ),
        ],
    )
    def test_once(self, store: Store, second: Transfer, key: str, found: set[Rule]) -> None:
        """Key, proposal and intent are each taken once."""
        add(store, transfer(), "k")
        assert rules(lambda: add(store, second, key)) == found
        assert len(store.read(lambda w: w.transfers.examine())) == 1

    def test_moves_are_kept(self, store: Store) -> None:
        """Each step is a line; a second mover who read an old state is refused."""
        new = add(store, transfer())
        blocked = move(new, Status.BLOCKED, NOW + 5, SubStatus.FROZEN, "a freeze")
        store.run(lambda w: w.transfers.update(blocked, new, "frozen by ana"))
        assert store.read(lambda w: w.transfers.get(new.digest)) == blocked
        assert [
            (m.at, m.status, m.sub_status, m.why) for m in store.read(lambda w: w.transfers.history(new.digest))
        ] == [
            (NOW, Status.QUEUED, None, "signatures"),
            (NOW + 5, Status.BLOCKED, SubStatus.FROZEN, "frozen by ana"),
        ]
        assert rules(lambda: store.run(lambda w: w.transfers.update(blocked, new))) == {Rule.ILLEGAL_MOVE}

    def test_pages(self, store: Store) -> None:
        """By number, account, wallet and status."""
        ours = [add(store, transfer(n, account="customer:bo" if n == 2 else "customer:ana")) for n in (1, 2, 3)]
        moved(store, ours[2], Status.CANCELLED)
        pages = store.read(
            lambda w: [
                [t.intent.id for _, t in w.transfers.examine(**asked)]
                for asked in (
                    {},
                    {"limit": 2},
                    {"account": "customer:bo"},
                    {"statuses": [Status.CANCELLED]},
                    {"wallet": OTHER},
                )
            ]
        )
        assert pages == [["id-1", "id-2", "id-3"], ["id-1", "id-2"], ["id-2"], ["id-3"], []]
        (number, _), *_ = store.read(lambda w: w.transfers.examine())
        assert [t.intent.id for _, t in store.read(lambda w: w.transfers.examine(number))] == ["id-2", "id-3"]

    def test_expiring(self, store: Store) -> None:
        """Only what may not have been asked to be signed."""
        queued, asked, gone = (add(store, transfer(n)) for n in (1, 2, 3))
        moved(store, asked, Status.PENDING_SIGNATURE)
        moved(store, gone, Status.CANCELLED)
        due = store.read(lambda w: [w.transfers.expiring(at) for at in (NOW + DAY - 1, NOW + DAY)])
        assert [list(found) for found in due] == [[], [queued.digest]]
        assert not store.read(lambda w: w.transfers.expiring(NOW + DAY, beyond=1))

    def test_roll_back(self, store: Store) -> None:
        """Nothing of a failed transaction remains."""

        def fail(work: UnitOfWork) -> None:
            work.transfers.add(transfer(), "backend", "k", ZERO32)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.run(fail)
        assert store.read(lambda w: w.transfers.examine()) == []


class TestWindows:
    """What transfers take up together."""

    def test_pending_and_completed(self, store: Store) -> None:
        """Pending counts whatever its age; completed within its window; ended, denied and one's own do not."""
        old = add(store, transfer(1, usd=1, created_at=NOW - 10 * DAY))
        done = moved(store, add(store, transfer(2, usd=10)), *DONE, at=NOW - HOUR)
        moved(store, add(store, transfer(3, usd=100)), Status.CANCELLED)
        denied = transfer(4, usd=1000, live=False)
        add(store, replace(denied, status=Status.BLOCKED))
        add(store, transfer(5, usd=10_000, account="customer:bo", wallet=OTHER, initiator="desk"))

        def reserved(now: int, besides: bytes = b"") -> Reserved:
            return store.read(lambda w: w.transfers.reserved("customer:ana", WALLET, "backend", now, besides))

        at = done.moved_at
        assert reserved(at + HOUR - 1) == Reserved(11, 11, 11)
        assert reserved(at + HOUR) == Reserved(11, 1, 11)
        assert reserved(at + DAY) == Reserved(1, 1, 1)
        assert reserved(at, old.digest) == Reserved(10, 10, 10)

    def test_exact(self, store: Store) -> None:
        """Sums beyond 2^53 lose nothing."""
        add(store, transfer(1, usd=2**53 + 1))
        add(store, transfer(2, usd=2**60 + 1))
        found = store.read(lambda w: w.transfers.reserved("customer:ana", WALLET, "x", NOW))
        assert found == Reserved(2**53 + 2**60 + 2, 2**53 + 2**60 + 2, 0)
        with pytest.raises(InvalidInput):
            transfer(3, usd=USD_MOST)

    def test_base_units(self, store: Store) -> None:
        """Fee sweeps of a day, coins on their way to us, and coins that are permitted to leave."""
        big = 10**30
        sweep = add(store, transfer(1, purpose="fee_sweep", amount=big, destination="0xours", account="company"))
        add(store, transfer(2, purpose="rebalance", amount=big + 1, destination="0xours", account="company"))
        add(store, transfer(3, destination="0xours"))
        found = store.read(
            lambda w: (
                w.transfers.swept("ETH", NOW),
                w.transfers.swept("ETH", NOW, sweep.digest),
                w.transfers.heading_to({"0xours"}, "ETH"),
                w.transfers.heading_to({"0xours"}, "BTC"),
                w.transfers.leaving(WALLET, "ETH"),
            )
        )
        assert found == (big, 0, 2 * big + 1, 0, 0)
        moved(store, sweep, Status.PENDING_SIGNATURE)
        assert store.read(lambda w: w.transfers.leaving(WALLET, "ETH")) == big
        assert store.read(lambda w: w.transfers.leaving(WALLET, "ETH", {sweep.digest})) == 0


class TestDocuments:
    """Approvals, rejections and enrolments: signed, appended, one for each person."""

    def approval(self, of: Transfer, person: str, key: str = "") -> Approval:
        """A yes."""
        return Approval(of.digest, person, PEOPLE[key or person].sign(ROSTER, of.intent))

    def test_approvals(self, store: Store) -> None:
        """In the order they came; the same again is fine, another by the same person is not."""
        new = add(store, transfer())
        first, second = self.approval(new, "bo.t"), self.approval(new, "ana.t")
        for approval in (first, second, first):
            store.run(lambda w, a=approval: w.transfers.approve(a, NOW))
        assert store.read(lambda w: w.transfers.approvals(new.digest)) == [first, second]
        other = self.approval(new, "bo.t", "cy.t")
        assert rules(lambda: store.run(lambda w: w.transfers.approve(other, NOW))) == {Rule.SIGNER_TWICE}

    def test_rejections(self, store: Store) -> None:
        """As approvals."""
        new = add(store, transfer())
        no = Rejection(new.digest, "not mine")
        signed = Signed(no, (PEOPLE["bo.t"].sign(ROSTER, no),))
        store.run(lambda w: w.transfers.reject("bo.t", signed, NOW))
        store.run(lambda w: w.transfers.reject("bo.t", signed, NOW))
        assert store.read(lambda w: w.transfers.rejections(new.digest)) == [signed]
        assert rules(lambda: store.run(lambda w: w.transfers.reject("bo.t", Signed(no, ()), NOW))) == {
            Rule.SIGNER_TWICE
        }

    def test_enrolments(self, store: Store) -> None:
        """The first sight stands; newest first."""
        first, second = (
            Enrolment(EVM.name, "0xdest", f"customer:{o}", "customer_withdrawal", ZERO32, NOW + DAY)
            for o in ("ana", "bo")
        )
        signed = [Signed(message, (PEOPLE["cy.t"].sign(ROSTER, message),)) for message in (first, second)]
        for n, one in enumerate((*signed, signed[0])):
            store.run(lambda w, one=one, n=n: w.enrolments.add(one, NOW + n))
        at = store.read(lambda w: w.enrolments.at(EVM.name, "0xdest"))
        assert [(e.enrolment.message.owner, e.seen_at) for e in at] == [("customer:bo", NOW + 1), ("customer:ana", NOW)]
        assert store.read(lambda w: w.enrolments.get(first.struct_hash)) == at[1]
        assert store.read(lambda w: w.enrolments.of("customer:bo")) == [at[0]]
        assert store.read(lambda w: w.enrolments.at(BTC.name, "0xdest")) == []
        assert rules(lambda: store.run(lambda w: w.enrolments.add(Signed(first, ()), NOW))) == {Rule.ALREADY_EXISTS}


class TestPermits:
    """One anchor, its references and its intents, each bound once."""

    def test_round_trip(self, store: Store) -> None:
        """References and intents in their order; taken while a transfer of it is unfinished."""
        one, two = add(store, transfer(1)), add(store, transfer(2))
        new = permit(two, one, anchor="aa:1", references=("aa:1", "00:0"), chain=BTC.name)
        store.run(lambda w: w.transfers.permit(new))
        assert store.read(lambda w: [w.transfers.permit_of(t.digest) for t in (one, two)]) == [new, new]
        assert store.read(lambda w: (w.transfers.permitted(), w.transfers.taken(BTC.name, WALLET))) == (
            [new],
            {"aa:1", "00:0"},
        )
        for t in (one, two):
            moved(store, t, *DONE)
        assert store.read(lambda w: (w.transfers.permitted(), w.transfers.taken(BTC.name, WALLET))) == ([], frozenset())
        assert store.read(lambda w: w.transfers.permit_of(ZERO32)) is None

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            pytest.param({"anchor": "aa:1"}, {Rule.ANCHOR_BOUND, Rule.OUTPOINT_BOUND}, id="the anchor again"),
            pytest.param(
                {"anchor": "bb:0", "references": ("bb:0", "00:0")}, {Rule.OUTPOINT_BOUND}, id="an outpoint again"
            ),
            pytest.param(
                {"anchor": "00:0", "wallet": OTHER}, {Rule.OUTPOINT_BOUND}, id="an outpoint of another wallet"
            ),
            pytest.param({"anchor": "aa:1", "chain": EVM.name}, set(), id="the same words on another chain"),
            pytest.param(
                {"anchor": "bb:0", "references": ("cc:0",)}, {Rule.MALFORMED}, id="an anchor that it does not pin"
            ),
        ],
    )
    def test_bound_once(self, store: Store, changes: dict[str, Any], found: set[Rule]) -> None:
        """A reference belongs to one payout on its chain."""
        one, two = add(store, transfer(1)), add(store, transfer(2))
        first = permit(one, anchor="aa:1", references=("aa:1", "00:0"), chain=BTC.name)
        store.run(lambda w: w.transfers.permit(first))
        second = permit(two, **{"chain": BTC.name, **changes})
        if found:
            assert rules(lambda: store.run(lambda w: w.transfers.permit(second))) == found
        else:
            store.run(lambda w: w.transfers.permit(second))

    def test_nonces_and_intents(self, store: Store) -> None:
        """The same nonce of two wallets is two anchors; an intent is carried once."""
        one, two = add(store, transfer(1)), add(store, transfer(2))
        store.run(lambda w: w.transfers.permit(permit(one)))
        store.run(lambda w: w.transfers.permit(permit(two, wallet=OTHER)))
        assert rules(lambda: store.run(lambda w: w.transfers.permit(permit(one, anchor="8")))) == {Rule.INTENT_BOUND}

    def test_bytes(self, store: Store) -> None:
        """Kept before they go out, in order, once; only for an anchor that was pinned."""
        one = add(store, transfer(1))
        store.run(lambda w: w.transfers.permit(permit(one)))
        anchor = Anchor(EVM.name, WALLET, "7")
        first, second = (Envelope(sha256(b"p").digest(), sha256(n).digest(), anchor, b"raw" + n) for n in (b"1", b"2"))
        for envelope in (first, second, first):
            store.run(lambda w, e=envelope: w.transfers.keep(e, NOW))
        assert store.read(lambda w: w.transfers.kept(anchor)) == [first, second]
        forged = replace(first, raw=b"other")
        assert rules(lambda: store.run(lambda w: w.transfers.keep(forged, NOW))) == {Rule.ALREADY_EXISTS}
        stray = replace(first, anchor=replace(anchor, reference="8"))
        assert rules(lambda: store.run(lambda w: w.transfers.keep(stray, NOW))) == {Rule.ORIGIN}


class TestJournalWindow:
    """What settlements brought to one account."""

    def test_nothing_but_settlements(self, store: Store) -> None:
        """A deposit is no inflow by settlement."""

        def fill(work: UnitOfWork) -> None:
            work.journal.append(credit(native(1)), NOW)
            work.journal.append(credit(token(2, address=BO_ETH)), NOW)
            work.journal.append(settle(settled(settlement()), ASSETS), NOW + 10)

        store.run(fill)
        ana, bo = available("ana"), available("bo")
        found = store.read(
            lambda w: [w.journal.settled_since(a, t) for a, t in ((ana, NOW), (bo, NOW), (bo, NOW + 10))]
        )
        assert found == [{USD: 10**5}, {ETH: 10**17}, {}]


class TestDatabases:
    """What the databases refuse by themselves, past every line of Python."""

    @pytest.fixture
    def raw(self, url: str) -> Any:
        """A database with one of everything."""
        store = open_store(url, ASSETS)
        new = add(store, transfer())
        message = Enrolment(EVM.name, "0xdest", "customer:ana", "customer_withdrawal", ZERO32, NOW + DAY)
        no = Rejection(new.digest, "no")
        store.run(lambda w: w.enrolments.add(Signed(message, ()), NOW))
        store.run(lambda w: w.transfers.approve(TestDocuments().approval(new, "bo.t"), NOW))
        store.run(lambda w: w.transfers.reject("cy.t", Signed(no, ()), NOW))
        store.run(lambda w: w.transfers.permit(permit(new)))
        store.run(lambda w: w.transfers.keep(Envelope(ZERO32, ZERO32, Anchor(EVM.name, WALLET, "7"), b"raw"), NOW))
        store.close()
        engine = sqlalchemy.create_engine(url)
        yield engine
        engine.dispose()

    def test_schema(self, raw: sqlalchemy.Engine) -> None:
        """The migrations make exactly the tables that the code knows."""
        with raw.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []

    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param("UPDATE transfers SET units = '{big}'", id="amount"),
            pytest.param("UPDATE transfers SET destination = '0xmine'", id="destination"),
            pytest.param("UPDATE transfers SET body = '{{}}'", id="documents"),
            pytest.param("UPDATE transfers SET usd = 0", id="value"),
            pytest.param("UPDATE transfers SET live = 0", id="taken off the windows"),
            pytest.param("UPDATE transfers SET status = 'PAID', waiting_for = 'x'", id="an unknown status"),
            pytest.param("UPDATE transfers SET status = 'COMPLETED'", id="an end that waits for something"),
            pytest.param("DELETE FROM transfers", id="transfer gone"),
            *(
                pytest.param(f"{verb} {table}{change}", id=f"{table}: {verb.split()[0].lower()}")
                for table, column in (
                    ("approvals", "person"),
                    ("rejections", "person"),
                    ("permits", "reference"),
                    ("permit_references", "reference"),
                    ("enrolments", "address"),
                    ("transfer_moves", "why"),
                )
                for verb, change in (("DELETE FROM", ""), ("UPDATE", f" SET {column} = 'x'"))
            ),
            pytest.param("UPDATE enrolments SET seen_at = 0", id="enrolment backdated"),
            pytest.param("DELETE FROM signed_bytes", id="signed bytes gone"),
            pytest.param("DELETE FROM permit_intents", id="intent freed"),
        ],
    )
    def test_refused(self, raw: sqlalchemy.Engine, statement: str) -> None:
        """Nothing that was recorded is changed or taken away."""
        with pytest.raises(DBAPIError), raw.begin() as connection:
            connection.exec_driver_sql(statement.format(big="9" * 78))

    @pytest.mark.parametrize(
        ("statement", "allowed"),
        [
            pytest.param(
                "INSERT INTO approvals (transfer, person, at, body) SELECT transfer, person, 1, 'x' FROM approvals",
                False,
                id="one person twice",
            ),
            pytest.param(
                "INSERT INTO permits (chain, wallet, reference, statement, at, body)"
                " SELECT chain, wallet, reference, 1, 1, body FROM permits",
                False,
                id="the anchor twice",
            ),
            pytest.param(
                "INSERT INTO permit_intents SELECT transfer, permit, 1 FROM permit_intents",
                False,
                id="the intent twice",
            ),
            pytest.param(
                "INSERT INTO permits (chain, wallet, reference, statement, at, body) SELECT chain, wallet, '8', 1, 1, body FROM permits",
                True,
                id="another anchor",
            ),
        ],
    )
    def test_unique(self, raw: sqlalchemy.Engine, statement: str, allowed: bool) -> None:
        """The UNIQUE columns are the guarantee."""
        if allowed:
            with raw.begin() as connection:
                connection.exec_driver_sql(statement)
            return
        with pytest.raises(DBAPIError), raw.begin() as connection:
            connection.exec_driver_sql(statement)

    def test_a_changed_row_is_told(self, url: str) -> None:
        """With every trigger gone, a column that differs from the signed documents is found where it is read."""
        store = open_store(url, ASSETS)
        new = add(store, transfer())
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            if url.startswith("sqlite"):
                connection.exec_driver_sql("DROP TRIGGER transfers_fixed")
            else:
                connection.exec_driver_sql("SET session_replication_role = replica")
            connection.exec_driver_sql("UPDATE transfers SET destination = '0xmine'")
        engine.dispose()
        with pytest.raises(InvalidInput):
            store.read(lambda w: w.transfers.get(new.digest))
        store.close()


Damage = Callable[[Store, Transfer, Permit], None]
Scrawl = Callable[[Store, bytes, bytes], None]


@pytest.fixture(params=("fake", "sqlite", "postgresql"))
def damaged(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[tuple[Store, Damage]]:
    """A store, and somebody who changes the rows of one transfer and of one permit past every trigger."""
    if request.param == "fake":

        def change(store: Store, transfer: Transfer, permit: Permit) -> None:
            found: set[bytes | Anchor] = {transfer.digest, permit.reservation.anchor}
            store.run(lambda work: work.transfers._state.damaged.update(found))  # type: ignore[attr-defined]

        yield FakeStore(), change
        return
    url = make_url(request.param)
    store = open_store(url, ASSETS)

    def rewrite(store: Store, transfer: Transfer, permit: Permit) -> None:
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            if url.startswith("sqlite"):
                triggers = (
                    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('transfers', 'permits')"
                )
                for (name,) in connection.exec_driver_sql(triggers).all():
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
            else:
                connection.exec_driver_sql("SET session_replication_role = replica")
            changed = sqlalchemy.text("UPDATE transfers SET destination = '0xmine' WHERE id = :id")
            connection.execute(changed, {"id": transfer.intent.id})
            emptied = sqlalchemy.text("UPDATE permits SET body = '[]' WHERE reference = :reference")
            connection.execute(emptied, {"reference": permit.reservation.anchor.reference})
        engine.dispose()

    yield store, rewrite
    store.close()


@pytest.fixture(params=("fake", "sqlite", "postgresql"))
def scrawled(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[tuple[Store, Scrawl]]:
    """A store, and somebody who overwrites the documents of one transfer and of one enrolment, by their digests."""
    if request.param == "fake":

        def change(store: Store, transfer: bytes, enrolment: bytes) -> None:
            store.run(lambda work: work.transfers._state.damaged.update({transfer, enrolment}))  # type: ignore[attr-defined]
            store.run(lambda work: work.transfers._state.unreadable.add(transfer))  # type: ignore[attr-defined]

        yield FakeStore(), change
        return
    url = make_url(request.param)
    store = open_store(url, ASSETS)

    def overwrite(store: Store, transfer: bytes, enrolment: bytes) -> None:
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            if url.startswith("sqlite"):
                triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                for (name,) in connection.exec_driver_sql(triggers).all():
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
            else:
                connection.exec_driver_sql("SET session_replication_role = replica")
            for table, digest in (("transfers", transfer), ("enrolments", enrolment)):
                changed = sqlalchemy.text(f"UPDATE {table} SET body = '{{}}' WHERE digest = :digest")  # noqa: S608
                connection.execute(changed, {"digest": digest})
        engine.dispose()

    yield store, overwrite
    store.close()


class TestDamaged:
    """One row that somebody changed is told, and hides no other."""

    def test_documents_overwritten(self, scrawled: tuple[Store, Scrawl]) -> None:
        """A transfer of which nothing is left but its row names its wallet, and no asset; an enrolment names itself."""
        store, change = scrawled
        ours = [add(store, transfer(n)) for n in (1, 2)]
        signed = [
            Signed(Enrolment(EVM.name, place, "customer:ana", "customer_withdrawal", ZERO32, NOW + DAY), ())
            for place in ("0xone", "0xtwo", "0xthree")
        ]
        for one in signed:
            store.run(lambda work, one=one: work.enrolments.add(one, NOW))
        broken = signed[1].message.struct_hash
        change(store, ours[0].digest, broken)
        (_, told), (_, whole) = store.read(lambda work: work.transfers.examine())
        assert isinstance(told, Damaged)
        assert (told.name, told.wallet, told.assets) == (ours[0].digest.hex(), ours[0].intent.wallet, frozenset())
        assert whole == ours[1]
        listed = store.read(lambda work: [*work.enrolments.examine(limit=2), *work.enrolments.examine(2)])
        assert [number for number, _ in listed] == [1, 2, 3]
        assert [e.enrolment for _, e in listed if not isinstance(e, Damaged)] == [signed[0], signed[2]]
        (damaged,) = (e for _, e in listed if isinstance(e, Damaged))
        assert (damaged.name, damaged.why.rule) == (broken.hex(), Rule.ROW_DAMAGED)
        for ask in (
            lambda work: work.enrolments.get(broken),
            lambda work: work.enrolments.at(EVM.name, "0xtwo"),
            lambda work: work.enrolments.of("customer:ana"),
        ):
            with pytest.raises(InvalidInput):
                store.read(ask)

    def test_told(self, damaged: tuple[Store, Damage]) -> None:
        """Pages, permits and what expires go on; whoever asks for that one is refused."""
        store, change = damaged
        ours = [add(store, transfer(n)) for n in (1, 2, 3)]
        pinned = [permit(ours[0], anchor="7"), permit(ours[2], anchor="8")]
        for each in pinned:
            store.run(lambda work, each=each: work.transfers.permit(each))
        change(store, ours[1], pinned[0])
        page = store.read(lambda work: [*work.transfers.examine(limit=2), *work.transfers.examine(2)])
        assert [number for number, _ in page] == [1, 2, 3]
        first, told, last = (found for _, found in page)
        assert (first, last) == (ours[0], ours[2])
        assert isinstance(told, Damaged)
        assert (told.name, told.why.rule) == (ours[1].digest.hex(), Rule.ROW_DAMAGED)
        assert ours[1].digest.hex() in str(told.why)
        assert (told.wallet, told.assets) == (ours[1].intent.wallet, {ours[1].intent.asset})
        permits = store.read(lambda work: work.transfers.examine_permitted())
        assert permits[1:] == [pinned[1]]
        assert isinstance(permits[0], Damaged)
        assert permits[0].anchor == pinned[0].reservation.anchor
        assert store.read(lambda work: work.transfers.expiring(NOW + DAY)) == [t.digest for t in ours]
        for ask in (
            lambda work: work.transfers.get(ours[1].digest),
            lambda work: work.transfers.permitted(),
        ):
            with pytest.raises(InvalidInput):
                store.read(ask)

    def test_filters(self, damaged: tuple[Store, Damage]) -> None:
        """As a page has them."""
        store, change = damaged
        ours = [add(store, transfer(n, account="customer:bo" if n == 2 else "customer:ana")) for n in (1, 2, 3)]
        moved(store, ours[2], Status.CANCELLED)
        pinned = permit(ours[0])
        store.run(lambda work: work.transfers.permit(pinned))
        change(store, ours[0], pinned)
        asked: list[dict[str, Any]] = [{"account": "customer:ana"}, {"statuses": [Status.QUEUED]}, {"wallet": OTHER}]
        found = store.read(lambda work: [work.transfers.examine(**each) for each in asked])
        assert [[number for number, _ in page] for page in found] == [[1, 3], [1, 2], []]
        assert all(isinstance(page[0][1], Damaged) for page in found if page)
