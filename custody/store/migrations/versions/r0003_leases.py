# SPDX-License-Identifier: AGPL-3.0-or-later
"""Leases: whose turn something is among several workers."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.migrations.guards import guard_leases
from custody.store.types import WholeNumber

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Create the table and what guards its tokens."""
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("token", WholeNumber, nullable=False, autoincrement=False),
        sa.Column("until", WholeNumber, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("name"),
        sa.CheckConstraint("token > 0", name="leases_token"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    guard_leases(op.execute, op.get_bind().dialect.name)
