# SPDX-License-Identifier: AGPL-3.0-or-later
"""The databases refuse by themselves what no program may do: raw SQL against both engines, past every line of Python."""

# ruff: noqa: S608  # raw SQL by hand is what these tests are

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from custody.commands.ledger import app as ledger_app
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import UINT256_MAX, Amount
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.ledger import AccountKind, credit_deposit, manual, settle
from custody.rules.origins import Reversal
from custody.rules.refusals import Rule
from custody.rules.settlements import FeeLeg
from custody.settings import PartSettings, Settings
from custody.store import grant_reader, migrate, open_store
from custody.store.tables import metadata
from tests.fakes.ledger import (
    ASSETS,
    ETH,
    EVM,
    HOT,
    HOT_ETH,
    NOW,
    SUSPENSE,
    USD,
    agreed,
    available,
    block_hash,
    credit,
    move,
    native,
    reverse_deposit,
    settled,
    settlement,
    token,
    trade,
)

LEDGER_COLUMNS = {
    "journal": {"position", "recorded_at", "previous", "hash", "body"},
    "postings": {"position", "line", "account", "asset", "side", "units"},
    "identities": {"kind", "identity", "freed_by", "position"},
    "balances": {"account", "asset", "units"},
    "totals": {"kind", "asset", "units"},
    "accruals": {"asset", "position", "ripens", "units"},
}


@pytest.fixture
def raw(url: str) -> Iterator[sqlalchemy.Engine]:
    """A plain connection to a database that holds one of everything."""
    store = open_store(url, ASSETS)
    store.run(_fill)
    store.close()
    engine = sqlalchemy.create_engine(url)
    yield engine
    engine.dispose()


def _fill(work: UnitOfWork) -> None:
    """Six entries: four credits (one of them to suspense, one reversed), a settlement with a fee, a manual entry."""
    journal = work.journal
    work.customers.add("ana")
    work.documents.put("roster", "1", {"a": "1"})
    journal.append(credit(native(1)), NOW)
    journal.append(credit_deposit(token(2, 10**9), HOT, available("bo"), Amount(USD, 10**9)), NOW)
    journal.append(credit_deposit(native(3, 9000, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 9000)), NOW)
    credited = journal.append(credit(native(4, 77)), NOW)
    origin = Reversal(credited.position, EVM.name, 4, block_hash(4), block_hash(4, "other"))
    journal.append(reverse_deposit(credited, origin, journal.balance(available("ana"), ETH)), NOW)
    journal.append(settle(settled(settlement(trade(fees=[FeeLeg("ana", "ETH", 10)]))), ASSETS), NOW)
    journal.append(manual(agreed(move()), ASSETS), NOW)


def value(engine: sqlalchemy.Engine, units: str) -> str:
    """A number of units as raw SQL of an engine: a literal exactly as somebody would write it."""
    return f"'{units}'" if engine.dialect.name == "sqlite" else units


def refused(engine: sqlalchemy.Engine, *statements: str) -> str:
    """Run raw SQL that must fail and change nothing; what the database said."""
    with pytest.raises(DBAPIError) as caught, engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    return str(caught.value.orig)


NEXT = "(SELECT max(position) + 1 FROM journal)"
HEAD = "(SELECT hash FROM journal ORDER BY position DESC LIMIT 1)"
LAST = "(SELECT max(position) FROM journal)"


class TestUnits:
    """Nobody below zero, and nothing that is no number."""

    @pytest.mark.parametrize("units", ["-1", "-" + "0" * 76 + "1", "-" + "1" * 77], ids=["-1", "-1 padded", "long"])
    @pytest.mark.parametrize("table", ["balances", "totals"])
    def test_negative(self, raw: sqlalchemy.Engine, table: str, units: str) -> None:
        """A negative balance cannot be written, by any spelling."""
        assert table in refused(raw, f"UPDATE {table} SET units = {value(raw, units)}")

    @pytest.mark.parametrize(
        "units",
        [
            pytest.param(str(UINT256_MAX + 1), id="2^256"),
            pytest.param("'NaN'", id="NaN"),
            pytest.param("'Infinity'", id="infinity"),
            pytest.param("NULL", id="null"),
            pytest.param("''", id="empty"),
        ],
    )
    def test_no_number(self, raw: sqlalchemy.Engine, units: str) -> None:
        """What is no number of base units cannot stand in a balance."""
        refused(raw, f"UPDATE balances SET units = {units}")

    @pytest.mark.parametrize("units", ["5", "'5'", "5.0", "'1e3'", f"'{'5'.rjust(78)}'", f"x'{'30' * 78}'"])
    def test_only_padded_digits(self, make_url: Callable[[str], str], units: str) -> None:
        """In SQLite a number is 78 digits of TEXT and nothing that merely looks like one: the order of text has to hold."""
        engine = sqlalchemy.create_engine(make_url("sqlite"))
        refused(engine, f"INSERT INTO balances VALUES ('suspense', 'ETH', {units})")
        engine.dispose()

    @pytest.mark.parametrize("units", ["0", "-5"])
    def test_postings_are_positive(self, raw: sqlalchemy.Engine, units: str) -> None:
        """A line has a side and more than zero."""
        padded = units.rjust(78, "0") if raw.dialect.name == "sqlite" else units
        line = f"(SELECT max(line) + 1 FROM postings WHERE position = {LAST})"
        said = refused(
            raw, f"INSERT INTO postings SELECT {LAST}, {line}, 'suspense', 'ETH', 'debit', {value(raw, padded)}"
        )
        assert "postings_units" in said

    def test_side(self, raw: sqlalchemy.Engine) -> None:
        """There are two sides."""
        line = f"(SELECT max(line) + 1 FROM postings WHERE position = {LAST})"
        one = value(raw, "1".rjust(78, "0"))
        assert "postings_side" in refused(
            raw, f"INSERT INTO postings SELECT {LAST}, {line}, 'suspense', 'ETH', 'both', {one}"
        )

    def test_exact_in_the_column(self, url: str, raw: sqlalchemy.Engine) -> None:
        """The column itself holds every digit: TEXT of 78, or NUMERIC(78,0)."""
        store = open_store(url, ASSETS)
        store.run(lambda work: work.journal.append(credit(token(8, UINT256_MAX - 10**12)), NOW))
        store.close()
        with raw.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT units FROM balances WHERE account = 'customer_available:ana' AND asset = 'USD'"
            ).scalar_one()
        expected = UINT256_MAX - 10**12 + 10**5
        assert found == (f"{expected:078d}" if raw.dialect.name == "sqlite" else Decimal(expected))


class TestNoExemption:
    """There is no way to say that an account is special."""

    def test_columns(self, raw: sqlalchemy.Engine) -> None:
        """The ledger's tables have these columns and no other: no flag, no limit, no kind of exemption."""
        inspector = sqlalchemy.inspect(raw)
        found = {table: {c["name"] for c in inspector.get_columns(table)} for table in LEDGER_COLUMNS}
        assert found == LEDGER_COLUMNS

    def test_nothing_is_nullable(self, raw: sqlalchemy.Engine) -> None:
        """No column of the ledger may be left out."""
        inspector = sqlalchemy.inspect(raw)
        nullable = {(t, c["name"]) for t in LEDGER_COLUMNS for c in inspector.get_columns(t) if c["nullable"]}
        assert nullable == set()

    def test_no_account_may_be_negative(self, raw: sqlalchemy.Engine) -> None:
        """Every kind of account is refused below zero alike, the company's own too."""
        for kind in AccountKind:
            assert "balances" in refused(raw, f"INSERT INTO balances VALUES ('{kind}', 'ETH', {value(raw, '-1')})")

    def test_the_code_knows_the_schema(self, raw: sqlalchemy.Engine) -> None:
        """The migrations make exactly the tables that the code reads."""
        with raw.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []


class TestAppendOnly:
    """The journal only grows."""

    @pytest.mark.parametrize("table", ["journal", "postings", "identities", "accruals"])
    @pytest.mark.parametrize(
        "statement", ["UPDATE {0} SET position = position", "DELETE FROM {0}"], ids=["update", "delete"]
    )
    def test_rows_are_never_changed(self, raw: sqlalchemy.Engine, table: str, statement: str) -> None:
        """UPDATE and DELETE are refused by a trigger."""
        assert f"{table}: rows are never changed" in refused(raw, statement.format(table))

    @pytest.mark.parametrize("table", ["balances", "totals"])
    def test_balances_are_never_deleted(self, raw: sqlalchemy.Engine, table: str) -> None:
        """A balance changes, it does not go away."""
        assert f"{table}: rows are never changed" in refused(raw, f"DELETE FROM {table}")

    @pytest.mark.parametrize("table", ["journal", "postings", "balances", "documents"])
    def test_truncate(self, raw: sqlalchemy.Engine, table: str) -> None:
        """Nor are they emptied in one go."""
        if raw.dialect.name == "sqlite":
            assert "syntax error" in refused(raw, f"TRUNCATE {table}")
        else:
            assert "rows are never changed" in refused(raw, f"TRUNCATE {table} CASCADE")

    @pytest.mark.parametrize(
        ("position", "previous"),
        [
            pytest.param(LAST, HEAD, id="a second row at a position"),
            pytest.param("(SELECT max(position) + 2 FROM journal)", HEAD, id="a gap"),
            pytest.param("0", HEAD, id="before the first"),
            pytest.param(NEXT, "(SELECT previous FROM journal WHERE position = 1)", id="on another hash"),
            pytest.param(NEXT, "(SELECT hash FROM journal WHERE position = 2)", id="a branch"),
        ],
    )
    @pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE"])
    def test_only_the_next_row(self, raw: sqlalchemy.Engine, verb: str, position: str, previous: str) -> None:
        """A row joins at the next position and on the head's hash, or not at all."""
        row = f"{verb} INTO journal SELECT {position}, 0, {previous}, hash, '{{}}' FROM journal WHERE position = 1"
        said = refused(raw, row)
        assert ("syntax error" if verb != "INSERT" and raw.dialect.name == "postgresql" else "not the next row") in said

    @pytest.mark.parametrize("table", ["postings", "identities", "accruals"])
    def test_nothing_joins_an_older_entry(self, raw: sqlalchemy.Engine, table: str) -> None:
        """What stands beside an entry was written with it."""
        rows = {
            "postings": f"1, 2, 'suspense', 'ETH', 'debit', {value(raw, '1'.rjust(78, '0'))}",
            "identities": "'manual', 'late', 0, 1",
            "accruals": f"'ETH', 1, 0, {value(raw, '1'.rjust(78, '0'))}",
        }
        assert f"{table}: not the next row" in refused(raw, f"INSERT INTO {table} VALUES ({rows[table]})")

    def test_replacing_a_line(self, raw: sqlalchemy.Engine) -> None:
        """SQLite's INSERT OR REPLACE, which fires no DELETE trigger, does not get at a line of the newest entry either."""
        if raw.dialect.name == "postgresql":
            return  # it has no such statement: the next test is its counterpart
        row = f"INSERT OR REPLACE INTO postings SELECT {LAST}, 0, 'suspense', 'ETH', 'debit', '{1:078d}'"
        assert "postings: not the next row" in refused(raw, row)

    def test_upsert(self, raw: sqlalchemy.Engine) -> None:
        """ON CONFLICT DO UPDATE is an update."""
        line = f"{LAST}, 0, 'suspense', 'ETH', 'debit', {value(raw, '1'.rjust(78, '0'))}"
        said = refused(
            raw,
            f"INSERT INTO postings SELECT {line} WHERE true ON CONFLICT (position, line) DO UPDATE SET side = 'credit'",
        )
        assert "postings:" in said


class TestOnce:
    """UNIQUE, in the database."""

    @pytest.mark.parametrize("kind", ["chain_event", "settlement", "trade", "manual", "reversal"])
    @pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE"])
    def test_identities(self, raw: sqlalchemy.Engine, kind: str, verb: str) -> None:
        """A chain event, settlement, trade, manual entry or reversal a second time: refused, even with an entry of its own."""
        if raw.dialect.name == "postgresql":
            verb = "INSERT"
        entry = f"INSERT INTO journal SELECT {NEXT}, 0, {HEAD}, {HEAD}, '{{}}'"
        again = f"{verb} INTO identities SELECT kind, identity, freed_by, {LAST} FROM identities WHERE kind = '{kind}'"
        assert "identities" in refused(raw, entry, again)
        with raw.connect() as connection:
            assert connection.exec_driver_sql(f"SELECT {LAST}").scalar_one() == 7

    def test_only_events_come_back(self, raw: sqlalchemy.Engine) -> None:
        """A trade cannot be recorded as if a reversal had freed it."""
        entry = f"INSERT INTO journal SELECT {NEXT}, 0, {HEAD}, {HEAD}, '{{}}'"
        again = f"INSERT INTO identities SELECT kind, identity, 5, {LAST} FROM identities WHERE kind = 'trade'"
        assert "identities_freed_by" in refused(raw, entry, again)

    @pytest.mark.parametrize(
        "row",
        [
            pytest.param(("00", 0, "bo", "0xb"), id="index of a wallet"),
            pytest.param(("00", 1, "bo", "0xa"), id="address on a chain"),
            pytest.param(("00", 1, "ana", "0xb"), id="customer at a wallet"),
            pytest.param(("01", 0, "nobody", "0xb"), id="unknown customer"),
        ],
    )
    def test_deposit_addresses(self, raw: sqlalchemy.Engine, row: tuple[str, int, str, str]) -> None:
        """An index, an address, a customer: each bound once."""
        with raw.begin() as connection:
            if raw.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            connection.exec_driver_sql("INSERT INTO customers (id) VALUES ('bo')")
            connection.exec_driver_sql(_address(raw, "00", 0, "ana", "0xa"))
        statements = ["PRAGMA foreign_keys=ON"] if raw.dialect.name == "sqlite" else []
        refused(raw, *statements, _address(raw, *row))
        if raw.dialect.name == "sqlite" and row[2] != "nobody":
            refused(raw, _address(raw, *row).replace("INSERT", "INSERT OR REPLACE"))

    def test_mirror_is_bound(self, raw: sqlalchemy.Engine) -> None:
        """Bindings, customers and documents are not changed after the fact."""
        for table, column in (("customers", "id"), ("documents", "body")):
            assert f"{table}: rows are never changed" in refused(raw, f"UPDATE {table} SET {column} = 'x'")
            assert f"{table}: rows are never changed" in refused(raw, f"DELETE FROM {table}")


def _address(engine: sqlalchemy.Engine, wallet: str, index: int, customer: str, address: str, keys: int = 0) -> str:
    name = wallet * 32
    blob = f"x'{name}'" if engine.dialect.name == "sqlite" else f"decode('{name}', 'hex')"
    return (
        f"INSERT INTO deposit_addresses VALUES ({blob}, {index}, '{customer}', 'eip155:1', '{address}', '{{}}', {keys})"
    )


class TestDurability:
    """How the connections are set up."""

    def test_sqlite(self, make_url: Callable[[str], str]) -> None:
        """WAL, synchronous=FULL, foreign keys: on the connection that writes."""
        store = open_store(make_url("sqlite"), ASSETS)
        assert store._engine is not None
        with store._engine.connect() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {p}").scalar()
                for p in ("journal_mode", "synchronous", "foreign_keys")
            ]
        assert found == ["wal", 2, 1]
        store.close()

    def test_postgresql(self, make_url: Callable[[str], str]) -> None:
        """SERIALIZABLE for work, REPEATABLE READ READ ONLY for a snapshot."""
        store = open_store(make_url("postgresql"), ASSETS)
        shown = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
        assert store._engine is not None
        with store._engine.begin() as writing, store._reader.begin() as reading:
            assert tuple(writing.exec_driver_sql(shown).one()) == ("serializable", "off")
            assert tuple(reading.exec_driver_sql(shown).one()) == ("repeatable read", "on")
        store.close()

    def test_serialisation_failure_is_tried_again(self, make_url: Callable[[str], str]) -> None:
        """Work that lost a race runs again from the start, and only its last run remains."""
        url = make_url("postgresql")
        store = open_store(url, ASSETS)
        other = sqlalchemy.create_engine(url, isolation_level="SERIALIZABLE")
        runs: list[int] = []

        def work(work: UnitOfWork) -> int:
            runs.append(len(work.documents.all("k")))
            if len(runs) == 1:
                with other.begin() as connection:  # as if by a writer that does not queue
                    connection.exec_driver_sql("INSERT INTO documents (kind, key, body) VALUES ('k', 'other', '{}')")
            work.documents.put("k", "other", {})
            work.documents.put("k", "mine", {})
            return len(runs)

        assert store.run(work) == 2
        assert runs == [0, 1]
        assert store.read(lambda w: len(w.documents.all("k"))) == 2
        other.dispose()
        store.close()

    def test_gives_up(self, make_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
        """After so many races the caller hears of it, and nothing was done."""
        monkeypatch.setattr("custody.store.unit_of_work.ATTEMPTS", 3)
        url = make_url("postgresql")
        store = open_store(url, ASSETS)
        runs: list[int] = []

        def work(work: UnitOfWork) -> None:
            runs.append(1)
            work.documents.put("k", "mine", {})
            work.journal._connection.exec_driver_sql(  # type: ignore[attr-defined]  # what a lost race looks like
                "DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = 'serialization_failure'; END $$"
            )

        with pytest.raises(Unavailable):
            store.run(work)
        assert len(runs) == 3
        assert store.read(lambda w: w.documents.all("k")) == []
        store.close()

    def test_run_inside_run(self, url: str) -> None:
        """Work that opens a second transaction would wait for itself; it is told so."""
        store = open_store(url, ASSETS)
        with pytest.raises(RuntimeError, match="inside run"):
            store.run(lambda _: store.run(lambda work: work.customers.add("ana")))
        store.run(lambda work: work.customers.add("ana"))
        store.close()


class TestOpening:
    """What cannot be opened is refused before anything is read."""

    @pytest.mark.parametrize(
        "url",
        ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory", "mysql://host/db", "no address"],
        ids=["nowhere", "memory", "query", "another engine", "nonsense"],
    )
    def test_bad_address(self, url: str) -> None:
        """Malformed, and naming the field."""
        with pytest.raises(InvalidInput) as caught:
            open_store(url, ASSETS)
        assert (caught.value.field, caught.value.rule) == ("store.url", Rule.MALFORMED)

    def test_not_migrated(self, tmp_path: Path) -> None:
        """A file without the schema is unavailable, not empty."""
        with pytest.raises(Unavailable, match="migrate"):
            open_store(f"sqlite:///{tmp_path}/new.db", ASSETS)

    def test_no_server(self) -> None:
        """A server that does not answer is unavailable."""
        with pytest.raises(Unavailable):
            open_store("postgresql://nobody@/none?host=/nowhere", ASSETS)

    def test_migrating_twice(self, url: str) -> None:
        """Nothing happens the second time."""
        migrate(url)
        open_store(url, ASSETS).close()

    def test_read_only(self, url: str) -> None:
        """A store opened read-only has no connection that can write, and still reads."""
        writing = open_store(url, ASSETS)
        writing.run(lambda work: work.journal.append(credit(native(1)), NOW))
        store = open_store(url, ASSETS, read_only=True)
        assert store.read(lambda work: work.journal.head().position) == 1
        with pytest.raises(Unavailable, match="read-only"):
            store.run(lambda work: work.customers.add("ana"))
        with pytest.raises(DBAPIError), store._reader.begin() as connection:
            connection.exec_driver_sql("INSERT INTO customers (id) VALUES ('x')")
        store.close()
        writing.close()


class TestReaderRole:
    """The attestor's role in PostgreSQL."""

    def test_reads_and_nothing_else(self, make_url: Callable[[str], str]) -> None:
        """It reads the ledger; every statement that writes is refused, and so is leaving read-only transactions."""
        url = make_url("postgresql")
        store = open_store(url, ASSETS)
        store.run(_fill)
        for _ in range(2):
            grant_reader(url, "attestor")
        its = sqlalchemy.make_url(url).set(username="attestor").render_as_string(hide_password=False)
        reading = open_store(its, ASSETS, read_only=True)
        assert reading.read(lambda work: [e.damage for e in work.journal.examine()]) == [()] * 7
        engine = sqlalchemy.create_engine(its)
        for statement in (
            "INSERT INTO customers (id) VALUES ('x')",
            "UPDATE balances SET units = 0",
            "DELETE FROM journal",
            "TRUNCATE writer",
            "CREATE TABLE mine (a int)",
            "ALTER TABLE balances DROP CONSTRAINT balances_units",
            "ALTER TABLE journal DISABLE TRIGGER ALL",
            "SET session_replication_role = replica",
        ):
            said = refused(
                engine, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "COMMIT", "BEGIN", statement
            )
            assert "permission denied" in said or "must be owner" in said
        engine.dispose()
        reading.close()
        store.close()

    @pytest.mark.parametrize("role", ["", "a b", 'x"; DROP TABLE journal; --', "Attestor"])
    def test_odd_names(self, make_url: Callable[[str], str], role: str) -> None:
        """A name is a name."""
        with pytest.raises(InvalidInput):
            grant_reader(make_url("postgresql"), role)

    def test_not_for_sqlite(self, make_url: Callable[[str], str]) -> None:
        """SQLite has no roles."""
        with pytest.raises(InvalidInput):
            grant_reader(make_url("sqlite"), "attestor")

    @pytest.mark.parametrize(
        ("engine", "role", "wrong"),
        [
            pytest.param("postgresql", "attestor", "", id="granted"),
            pytest.param("postgresql", "Attestor", "role", id="an odd name"),
            pytest.param("sqlite", "attestor", "SQLite has no roles", id="SQLite"),
        ],
    )
    def test_command(self, make_url: Callable[[str], str], tmp_path: Path, engine: str, role: str, wrong: str) -> None:
        """`bulkhead ledger grant-reader` does it to the ledger of the settings, or says why not."""
        url, nobody = make_url(engine), PartSettings("", "")
        Settings(tmp_path, url, "", {}, {}, {}, nobody, nobody).save()
        done = CliRunner().invoke(ledger_app, ["grant-reader", role, "--home", str(tmp_path)])
        if wrong:
            assert isinstance(done.exception, InvalidInput)
            assert wrong in str(done.exception)
            return
        assert done.exit_code == 0, done.output
        assert "may read the ledger and change nothing" in done.output
        its = sqlalchemy.make_url(url).set(username=role).render_as_string(hide_password=False)
        engine_of_role = sqlalchemy.create_engine(its)
        assert "permission denied" in refused(
            engine_of_role,
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "COMMIT",
            "BEGIN",
            "DELETE FROM journal",
        )
        with engine_of_role.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM journal").scalar_one() == 0
        engine_of_role.dispose()


def _take(number: int, work: UnitOfWork) -> int:
    return work.journal.append(manual(agreed(move(100, name=f"m{number}")), ASSETS), NOW).position


def _add(customer: str, work: UnitOfWork) -> None:
    work.customers.add(customer)
