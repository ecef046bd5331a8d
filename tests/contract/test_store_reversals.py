# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reversed entries in every store: what may be recorded again and what may not, and the migration that allows it."""

from typing import Final

import alembic.command
import pytest
import sqlalchemy
from alembic.config import Config

from custody.flows.ports import Store
from custody.rules.amounts import Amount
from custody.rules.intents import Anchor
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, Posting, Side, credit_deposit, reverse
from custody.rules.origins import ChainProof, Executed, Reversal
from custody.rules.refusals import Refused, Rule
from custody.store import migrations
from tests.fakes.ledger import ANA_ETH, ETH, EVM, HOT, NOW, available, block_hash, credit, native

WALLET = bytes.fromhex("ab" * 32)


def payout(height: int, nonce: int = 7, fork: str = "", transaction: int = 1) -> Entry:
    """A payout of 100 wei of ana's, as an entry."""
    at = Anchor(EVM.name, WALLET, str(nonce))
    done = Executed(
        EVM.name,
        height,
        block_hash(height, fork),
        transaction.to_bytes(32),
        at,
        (nonce.to_bytes(32),),
        (),
        0,
        void=False,
    )
    amount = Amount(ETH, 100)
    return Entry(done, (Posting(available("ana"), Side.DEBIT, amount), Posting(HOT, Side.CREDIT, amount)))


def put(store: Store, entry: Entry) -> JournalEntry:
    """Record it."""
    return store.run(lambda work: work.journal.append(entry, NOW))


def undo(store: Store, recorded: JournalEntry) -> JournalEntry:
    """Reverse it."""
    was = recorded.entry.origin
    assert isinstance(was, ChainProof | Executed)
    origin = Reversal(recorded.position, was.chain, was.height, was.block, b"\7" * 32)
    return store.run(
        lambda work: work.journal.append(
            reverse(recorded, origin, {key: work.journal.balance(*key) for key in recorded.entry.changes()}), NOW
        )
    )


def refused(store: Store, entry: Entry) -> set[Rule]:
    """Why it is not recorded."""
    with pytest.raises(Refused) as caught:
        put(store, entry)
    return {refusal.rule for refusal in caught.value.refusals}


def test_a_payout_again_only_after_its_reversal(store: Store) -> None:
    """One anchor, one intent, one transaction of a block: each once, until a reorg takes the entry back; then once more."""
    put(store, credit(native(1, 1000)))
    first = put(store, payout(10))
    for again in (payout(10), payout(11), payout(12, transaction=2)):
        assert refused(store, again) == {Rule.ALREADY_RECORDED}
    undo(store, first)
    assert store.read(lambda work: work.journal.balance(available("ana"), ETH)) == 1000
    second = put(store, payout(10, fork="other"))
    assert refused(store, payout(10)) == {Rule.ALREADY_RECORDED}
    undo(store, second)
    put(store, payout(10))  # the first block came back
    assert store.read(lambda work: work.journal.balance(available("ana"), ETH)) == 900


def test_a_second_reversal_is_refused(store: Store) -> None:
    """Exact once; twice would be a gift."""
    put(store, credit(native(1, 1000)))
    first = put(store, payout(10))
    entry = undo(store, first).entry
    assert refused(store, entry) == {Rule.ALREADY_RECORDED}


def test_payouts_by_their_blocks(store: Store) -> None:
    """Those in a range of heights that stand; heights are numbers, and other chains are not asked about."""
    put(store, credit(native(1, 1000)))
    recorded = {height: put(store, payout(height, nonce=height)) for height in (9, 10, 101)}
    undo(store, recorded[10])

    def found(first: int, last: int | None = None) -> list[int]:
        entries = store.read(lambda work: work.journal.executed(EVM, first, last))
        return [e.position for e in entries]

    assert found(0) == [recorded[9].position, recorded[101].position]
    assert found(10) == found(11, 101) == [recorded[101].position]
    assert found(0, 9) == found(9, 100) == [recorded[9].position]
    assert found(102) == []


def test_reversals_of_an_account(store: Store) -> None:
    """What was taken from ana, though she had spent all of it; and what came in for her since."""
    ana, bo = available("ana"), available("bo")
    gone = put(store, credit(native(1, 700)))
    put(store, credit(native(2, 1000)))
    reversal = undo(store, gone)
    later = put(store, credit_deposit(native(3, 50, ANA_ETH), HOT, ana, Amount(ETH, 50)))
    assert [e.position for e in store.read(lambda work: work.journal.reversals(ana))] == [reversal.position]
    assert store.read(lambda work: work.journal.reversals(bo)) == []
    assert [e.position for e in store.read(lambda work: work.journal.reversals())] == [reversal.position]
    assert store.read(lambda work: work.journal.credited_since(ana, ETH, reversal.position)) == 50
    assert store.read(lambda work: work.journal.credited_since(ana, ETH, 0)) == 1050
    undo(store, later)
    assert store.read(lambda work: work.journal.credited_since(ana, ETH, reversal.position)) == 0


def test_a_whole_kind_is_its_total(store: Store) -> None:
    """Suspense stands apart for each event; without one it is asked for as a whole."""
    suspense = Account(AccountKind.SUSPENSE)
    for height in (1, 2):
        put(store, credit_deposit(native(height, 40), HOT, suspense, Amount(ETH, 40)))
    assert store.read(lambda work: work.journal.balance(suspense, ETH)) == 80


def _at(path: str, revision: str) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrations._FOLDER))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, revision)
    engine.dispose()


def _sql(path: str, *statements: str) -> list[object]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    found: list[object] = []
    with engine.begin() as connection:
        for statement in statements:
            result = connection.exec_driver_sql(statement)
            found = list(result.all()) if result.returns_rows else found
    engine.dispose()
    return found


_SUSPENDED: Final = f"INSERT INTO postings VALUES (1, 0, 'suspense', 'ETH', 'credit', '{1:078}')"  # noqa: S608  # as _ENTRY
_ENTRY: Final = f"INSERT INTO journal VALUES (1, 1, x'{'00' * 32}', x'{'01' * 32}', '{{}}')"  # noqa: S608  # a literal of this test


def test_migration_keeps_rows_and_guards(tmp_path: pytest.TempPathFactory) -> None:
    """SQLite's table is made anew: what stood in it stands, nothing of it can be changed, and a payout's identity may be freed."""
    path = f"{tmp_path}/old.db"
    _at(path, "0003")
    _sql(path, _ENTRY, "INSERT INTO identities VALUES ('chain_event', 'x', 0, 1)")
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        _sql(path, "INSERT INTO identities VALUES ('payout', 'y', 5, 1)")
    _at(path, "0004")
    assert _sql(path, "SELECT * FROM identities") == [("chain_event", "x", 0, 1)]
    _sql(path, "INSERT INTO identities VALUES ('payout', 'y', 5, 1)")
    for forbidden in (
        "UPDATE identities SET identity = 'z'",
        "DELETE FROM identities",
        "INSERT OR REPLACE INTO identities VALUES ('payout', 'y', 5, 1)",
        "INSERT INTO identities VALUES ('settlement', 's', 5, 1)",
    ):
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            _sql(path, forbidden)


@pytest.mark.parametrize(
    "older",
    [
        pytest.param("INSERT INTO identities VALUES ('anchor', 'x', 0, 1)", id="a payout"),
        pytest.param(_SUSPENDED, id="suspense"),
    ],
)
def test_migration_refuses_what_cannot_be_told(tmp_path: pytest.TempPathFactory, older: str) -> None:
    """An older journal does not say which events its payouts took; it is left as it was."""
    path = f"{tmp_path}/old.db"
    _at(path, "0003")
    _sql(path, _ENTRY, older)
    with pytest.raises(RuntimeError, match="does not say"):
        _at(path, "0004")
    assert _sql(path, "SELECT version_num FROM alembic_version") == [("0003",)]
