# SPDX-License-Identifier: AGPL-3.0-or-later
"""After a rotation on Bitcoin a customer gets another address: one under each key set of a wallet, no longer one for ever."""

from typing import Final

import sqlalchemy as sa
from alembic import op

from custody.store.migrations.guards import guard_addresses
from custody.store.types import WholeNumber

revision: Final = "0007"
down_revision: Final = "0006"

_INDEX: Final = "length(wallet) = 32 AND number >= 0 AND keys >= 0"
_UNIQUE: Final = ("wallet", "customer", "keys")


def upgrade() -> None:
    """Add the column and widen the UNIQUE. SQLite has no way to, so its table is made anew, with its rows and its triggers."""
    if op.get_bind().dialect.name == "postgresql":
        op.add_column("deposit_addresses", sa.Column("keys", WholeNumber, nullable=False, server_default="0"))
        op.drop_constraint("deposit_addresses_customer", "deposit_addresses", type_="unique")
        op.create_unique_constraint("deposit_addresses_customer", "deposit_addresses", list(_UNIQUE))
        op.drop_constraint("deposit_addresses_index", "deposit_addresses", type_="check")
        op.create_check_constraint("deposit_addresses_index", "deposit_addresses", _INDEX)
        return
    op.create_table(
        "deposit_addresses_anew",
        sa.Column("wallet", sa.LargeBinary, nullable=False),
        sa.Column("number", WholeNumber, nullable=False, autoincrement=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("customer", "chain", "address", "body")),
        sa.Column("keys", WholeNumber, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("wallet", "number"),
        sa.ForeignKeyConstraint(["customer"], ["customers.id"]),
        sa.UniqueConstraint("chain", "address", name="deposit_addresses_address"),
        sa.UniqueConstraint(*_UNIQUE, name="deposit_addresses_customer"),
        sa.CheckConstraint(_INDEX, name="deposit_addresses_index"),
        sqlite_strict=True,
    )
    columns = "wallet, number, customer, chain, address, body"
    op.execute(f"INSERT INTO deposit_addresses_anew ({columns}) SELECT {columns} FROM deposit_addresses")  # noqa: S608
    op.drop_table("deposit_addresses")
    op.rename_table("deposit_addresses_anew", "deposit_addresses")
    guard_addresses(op.execute)
