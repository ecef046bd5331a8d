# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ground: the journal with its running balances, deposits, customers, documents."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.migrations.guards import create_guards
from custody.store.types import Units, WholeNumber, units_checks

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Create everything; what a row may be stands in CHECKs, what may happen to it in triggers."""
    _ledger()
    _deposits()
    _mirror()
    create_guards(op.execute, op.get_bind().dialect.name)


def _whole(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, WholeNumber, nullable=null, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _units() -> sa.Column[int]:
    return sa.Column("units", Units, nullable=False)


def _number() -> sa.Column[int]:
    return sa.Column("number", WholeNumber, primary_key=True)


def _ledger() -> None:
    in_journal = ("position", "journal.position")
    op.create_table(
        "journal",
        _whole("position"),
        _whole("recorded_at"),
        _bytes("previous"),
        _bytes("hash"),
        _text("body"),
        sa.PrimaryKeyConstraint("position"),
        sa.CheckConstraint("length(previous) = 32 AND length(hash) = 32", name="journal_hashes"),
        sqlite_strict=True,
    )
    op.create_table(
        "postings",
        _whole("position"),
        _whole("line"),
        _text("account"),
        _text("asset"),
        _text("side"),
        _units(),
        sa.PrimaryKeyConstraint("position", "line"),
        sa.ForeignKeyConstraint(in_journal[:1], in_journal[1:]),
        sa.CheckConstraint("side IN ('debit', 'credit')", name="postings_side"),
        *units_checks("postings", least=1),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("postings_account", "postings", ["account", "asset", "position"])
    op.create_table(
        "identities",
        _text("kind"),
        _text("identity"),
        _whole("freed_by"),
        _whole("position"),
        sa.PrimaryKeyConstraint("kind", "identity", "freed_by"),
        sa.ForeignKeyConstraint(in_journal[:1], in_journal[1:]),
        sa.CheckConstraint("freed_by = 0 OR kind = 'chain_event'", name="identities_freed_by"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("identities_position", "identities", ["position"])
    for table, key in (("balances", "account"), ("totals", "kind")):
        op.create_table(
            table,
            _text(key),
            _text("asset"),
            _units(),
            sa.PrimaryKeyConstraint(key, "asset"),
            *units_checks(table),
            sqlite_strict=True,
            sqlite_with_rowid=False,
        )
    op.create_table(
        "accruals",
        _text("asset"),
        _whole("position"),
        _whole("ripens"),
        _units(),
        sa.PrimaryKeyConstraint("asset", "position"),
        sa.ForeignKeyConstraint(in_journal[:1], in_journal[1:]),
        *units_checks("accruals", least=1),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("accruals_ripens", "accruals", ["asset", "ripens", "position"])
    op.create_table("writer", _whole("number"), sa.PrimaryKeyConstraint("number"), sqlite_strict=True)


def _deposits() -> None:
    op.create_table(
        "followed",
        _text("chain"),
        _whole("height"),
        _bytes("hash"),
        sa.PrimaryKeyConstraint("chain", "height"),
        sa.CheckConstraint("length(hash) = 32", name="followed_hash"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "deposits",
        _number(),
        _text("identity"),
        _text("chain"),
        _whole("height"),
        _text("address"),
        _text("asset"),
        _units(),
        _text("proof"),
        _text("status"),
        _whole("position", null=True),
        sa.UniqueConstraint("identity"),
        sa.ForeignKeyConstraint(["position"], ["journal.position"]),
        sa.CheckConstraint("status IN ('SEEN', 'DUST', 'CREDITED', 'ORPHANED', 'REVERSED')", name="deposits_status"),
        sa.CheckConstraint("(status IN ('CREDITED', 'REVERSED')) = (position IS NOT NULL)", name="deposits_credit"),
        *units_checks("deposits"),
        sqlite_strict=True,
    )
    op.create_index("deposits_height", "deposits", ["chain", "height", "number"])
    op.create_index("deposits_waiting", "deposits", ["chain", "status", "height"])


def _mirror() -> None:
    op.create_table(
        "customers",
        _number(),
        _text("id"),
        sa.UniqueConstraint("id"),
        sa.CheckConstraint("length(id) BETWEEN 1 AND 200", name="customers_id"),
        sqlite_strict=True,
    )
    op.create_table(
        "deposit_addresses",
        _bytes("wallet"),
        _whole("number"),
        _text("customer"),
        _text("chain"),
        _text("address"),
        _text("body"),
        sa.PrimaryKeyConstraint("wallet", "number"),
        sa.ForeignKeyConstraint(["customer"], ["customers.id"]),
        sa.UniqueConstraint("chain", "address", name="deposit_addresses_address"),
        sa.UniqueConstraint("wallet", "customer", name="deposit_addresses_customer"),
        sa.CheckConstraint("length(wallet) = 32 AND number >= 0", name="deposit_addresses_index"),
        sqlite_strict=True,
    )
    op.create_table(
        "documents",
        _number(),
        _text("kind"),
        _text("key"),
        _text("body"),
        sa.UniqueConstraint("kind", "key", name="documents_key"),
        sqlite_strict=True,
    )
