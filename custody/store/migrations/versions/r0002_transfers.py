# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers: enrolments, proposals as intents, approvals, rejections, permits with what they pin, signed bytes."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.migrations.guards import guard_transfers
from custody.store.types import Units, WholeNumber, units_checks

revision: Final = "0002"
down_revision: Final = "0001"

_FINAL: Final = "'COMPLETED', 'CANCELLED', 'REJECTED', 'FAILED', 'EXPIRED'"
_STATUSES: Final = (
    "'SUBMITTED', 'PENDING_SCREENING', 'PENDING_AUTHORIZATION', 'QUEUED', 'PENDING_SIGNATURE', 'BROADCASTING', "
    "'BROADCAST_UNKNOWN', 'CONFIRMING', 'COMPLETED', 'CANCELLING', 'CANCELLED', 'BLOCKED', 'REJECTED', 'FAILED', 'EXPIRED'"
)


def upgrade() -> None:
    """Create everything."""
    _enrolments()
    _transfers()
    _people()
    _permits()
    guard_transfers(op.execute, op.get_bind().dialect.name)


def _whole(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, WholeNumber, nullable=null, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _number() -> sa.Column[int]:
    return sa.Column("number", WholeNumber, primary_key=True)


def _enrolments() -> None:
    op.create_table(
        "enrolments",
        _number(),
        _bytes("digest"),
        _text("chain"),
        _text("address"),
        _text("owner"),
        _whole("seen_at"),
        _text("body"),
        sa.UniqueConstraint("digest"),
        sa.CheckConstraint("length(digest) = 32", name="enrolments_digest"),
        sqlite_strict=True,
    )
    op.create_index("enrolments_address", "enrolments", ["chain", "address", "number"])
    op.create_index("enrolments_owner", "enrolments", ["owner", "number"])


def _transfers() -> None:
    op.create_table(
        "transfers",
        _number(),
        _bytes("digest"),
        _text("id"),
        _bytes("proposal"),
        _text("scope"),
        _text("key"),
        _bytes("asked"),
        _text("account"),
        _bytes("wallet"),
        _text("initiator"),
        _text("purpose"),
        _text("destination"),
        _text("asset"),
        sa.Column("units", Units, nullable=False),
        _whole("usd"),
        _whole("expiry"),
        _whole("created_at"),
        _whole("live"),
        _whole("hold", null=True),
        _text("body"),
        _text("status"),
        _text("sub_status"),
        _text("waiting_for"),
        _text("decision"),
        _whole("moved_at"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("proposal"),
        sa.UniqueConstraint("hold"),
        sa.UniqueConstraint("scope", "key", name="transfers_key"),
        sa.ForeignKeyConstraint(["hold"], ["journal.position"]),
        sa.CheckConstraint(
            "length(digest) = 32 AND length(proposal) = 32 AND length(asked) = 32", name="transfers_hashes"
        ),
        sa.CheckConstraint(f"usd BETWEEN 0 AND {2**62 - 1}", name="transfers_usd"),
        sa.CheckConstraint("live IN (0, 1)", name="transfers_live"),
        sa.CheckConstraint(f"status IN ({_STATUSES})", name="transfers_status"),
        sa.CheckConstraint(f"(status IN ({_FINAL})) = (waiting_for = '')", name="transfers_waiting"),
        *units_checks("transfers", least=1),
        sqlite_strict=True,
    )
    for column in ("account", "wallet", "initiator"):
        op.create_index(f"transfers_{column}", "transfers", [column, "status", "moved_at"])
    op.create_index("transfers_expiry", "transfers", ["status", "expiry"])
    op.create_table(
        "transfer_moves",
        _number(),
        _bytes("transfer"),
        _whole("at"),
        _text("status"),
        _text("sub_status"),
        _text("why"),
        sa.ForeignKeyConstraint(["transfer"], ["transfers.digest"]),
        sa.CheckConstraint(f"status IN ({_STATUSES})", name="transfer_moves_status"),
        sqlite_strict=True,
    )
    op.create_index("transfer_moves_of", "transfer_moves", ["transfer"])


def _people() -> None:
    for table in ("approvals", "rejections"):
        op.create_table(
            table,
            _number(),
            _bytes("transfer"),
            _text("person"),
            _whole("at"),
            _text("body"),
            sa.ForeignKeyConstraint(["transfer"], ["transfers.digest"]),
            sa.UniqueConstraint("transfer", "person", name=f"{table}_person"),
            sqlite_strict=True,
        )


def _permits() -> None:
    op.create_table(
        "permits",
        _number(),
        _text("chain"),
        _bytes("wallet"),
        _text("reference"),
        _whole("statement"),
        _whole("at"),
        _text("body"),
        sa.UniqueConstraint("chain", "wallet", "reference", name="permits_anchor"),
        sqlite_strict=True,
    )
    op.create_table(
        "permit_intents",
        _bytes("transfer"),
        _whole("permit"),
        _whole("line"),
        sa.PrimaryKeyConstraint("transfer"),
        sa.ForeignKeyConstraint(["transfer"], ["transfers.digest"]),
        sa.ForeignKeyConstraint(["permit"], ["permits.number"]),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("permit_intents_permit", "permit_intents", ["permit", "line"])
    op.create_table(
        "permit_references",
        _text("chain"),
        _bytes("wallet"),
        _text("reference"),
        _whole("permit"),
        _whole("line"),
        sa.PrimaryKeyConstraint("chain", "wallet", "reference"),
        sa.ForeignKeyConstraint(["permit"], ["permits.number"]),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    outpoint = sa.text("reference LIKE '%:%'")
    op.create_index(
        "permit_references_outpoint",
        "permit_references",
        ["chain", "reference"],
        unique=True,
        sqlite_where=outpoint,
        postgresql_where=outpoint,
    )
    op.create_index("permit_references_permit", "permit_references", ["permit", "line"])
    op.create_table(
        "signed_bytes",
        _number(),
        _whole("permit"),
        _bytes("digest"),
        _bytes("payout"),
        _bytes("raw"),
        _whole("at"),
        sa.ForeignKeyConstraint(["permit"], ["permits.number"]),
        sa.UniqueConstraint("permit", "digest", name="signed_bytes_digest"),
        sa.CheckConstraint("length(digest) = 32 AND length(payout) = 32", name="signed_bytes_hashes"),
        sqlite_strict=True,
    )
