# SPDX-License-Identifier: AGPL-3.0-or-later
"""What policy's windows count is kept, and not summed for each proposal: pending, completed and settled sums."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.migrations.windows import guard_windows
from custody.store.types import Units, WholeNumber, units_checks

revision: Final = "0005"
down_revision: Final = "0004"


def upgrade() -> None:
    """Create the tables, count what stands, and let triggers keep it."""
    op.create_table(
        "reserved",
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        _whole("usd"),
        sa.PrimaryKeyConstraint("what", "who"),
        sa.CheckConstraint("usd >= 0", name="reserved_usd"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "completed",
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        _whole("number"),
        _whole("at"),
        _whole("total"),
        sa.PrimaryKeyConstraint("what", "who", "number"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("completed_at", "completed", ["what", "who", "at", "number"])
    op.create_table(
        "settled",
        sa.Column("account", sa.Text, nullable=False),
        _whole("at"),
        _whole("position"),
        _whole("line"),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("units", Units, nullable=False),
        sa.PrimaryKeyConstraint("account", "at", "position", "line"),
        *units_checks("settled", least=1),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.drop_index("transfers_initiator", "transfers")
    guard_windows(op.execute, op.get_bind().dialect.name)


def _whole(name: str) -> sa.Column[int]:
    return sa.Column(name, WholeNumber, nullable=False, autoincrement=False)
