# SPDX-License-Identifier: AGPL-3.0-or-later
"""Visits: who has the console open in which browser."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.types import WholeNumber

revision: Final = "0006"
down_revision: Final = "0005"


def upgrade() -> None:
    """Create the table. Nothing guards it: its rows authorise nothing, and end."""
    op.create_table(
        "visits",
        sa.Column("name", sa.LargeBinary, nullable=False),
        sa.Column("person", sa.Text, nullable=False),
        sa.Column("login", sa.Text, nullable=False),
        sa.Column("begun", WholeNumber, nullable=False, autoincrement=False),
        sa.Column("seen", WholeNumber, nullable=False, autoincrement=False),
        sa.Column("until", WholeNumber, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("name"),
        sa.CheckConstraint("length(name) = 32", name="visits_name"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("visits_person", "visits", ["person", "begun"])
    op.create_index("visits_until", "visits", ["until"])
