# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payouts that a reorg takes back: what their entries recorded once may be recorded again, as a chain event's credit may.

Since then suspense stands apart for each chain event, and a payout's entry names the events that it takes. Which those were cannot be
told of an older journal (TRUST.md: the origin of an old row cannot be reconstructed), so one that has such entries is refused.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.migrations.guards import guard_again
from custody.store.types import WholeNumber

revision: Final = "0004"
down_revision: Final = "0003"

_FREED_BY: Final = "freed_by = 0 OR kind IN ('chain_event', 'anchor', 'freed', 'payout')"
_OLDER: Final = (
    "SELECT 1 FROM identities WHERE kind = 'anchor' UNION ALL"
    " SELECT 1 FROM postings WHERE account IN ('suspense', 'reorg_loss') LIMIT 1"
)


def upgrade() -> None:
    """Widen the CHECK. SQLite has no way to, so its table is made anew, with its rows, its index and its triggers."""
    bind = op.get_bind()
    if bind.execute(sa.text(_OLDER)).first() is not None:
        raise RuntimeError("this journal does not say which chain events its payouts and manual entries took")
    if bind.dialect.name == "postgresql":
        op.drop_constraint("identities_freed_by", "identities", type_="check")
        op.create_check_constraint("identities_freed_by", "identities", _FREED_BY)
        return
    op.create_table(
        "identities_anew",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("identity", sa.Text, nullable=False),
        sa.Column("freed_by", WholeNumber, nullable=False, autoincrement=False),
        sa.Column("position", WholeNumber, nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("kind", "identity", "freed_by"),
        sa.ForeignKeyConstraint(["position"], ["journal.position"]),
        sa.CheckConstraint(_FREED_BY, name="identities_freed_by"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO identities_anew SELECT kind, identity, freed_by, position FROM identities")
    op.drop_table("identities")
    op.rename_table("identities_anew", "identities")
    op.create_index("identities_position", "identities", ["position"])
    guard_again(op.execute, "identities")
