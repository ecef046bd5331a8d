# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rows as the database keeps them. They never leave this package (STYLE.md, rule 3).

No column exempts an account from anything: an account is its text, and a balance is an unsigned number. What these tables
refuse by themselves (position gaps, changed rows) stands in the triggers of the migrations.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from custody.rules.transfers import USD_MOST, Status
from custody.store.types import Units, WholeNumber, units_checks

STRICT: Final = {"sqlite_strict": True}
KEYED: Final = {"sqlite_strict": True, "sqlite_with_rowid": False}

STATUS_IN: Final = f"status IN ({', '.join(repr(status.value) for status in Status)})"
FINAL_IN: Final = f"status IN ({', '.join(repr(status.value) for status in Status if status.is_final)})"

metadata: Final = MetaData()


class Row(SQLModel):
    """Base of every row; a registry of its own, so that nobody else's SQLModel tables get into these migrations."""

    metadata = metadata


class JournalRow(Row, table=True):
    """One entry: its canonical JSON, and the hash that covers everything before it."""

    __tablename__ = "journal"
    __table_args__ = (
        CheckConstraint("length(previous) = 32 AND length(hash) = 32", name="journal_hashes"),
        STRICT,
    )

    position: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    recorded_at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    previous: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))


class PostingRow(Row, table=True):
    """One line of an entry, for queries; the entry's JSON is what counts."""

    __tablename__ = "postings"
    __table_args__ = (
        CheckConstraint("side IN ('debit', 'credit')", name="postings_side"),
        *units_checks("postings", least=1),
        Index("postings_account", "account", "asset", "position"),
        KEYED,
    )

    position: int = Field(
        sa_column=Column(WholeNumber, ForeignKey("journal.position"), primary_key=True, autoincrement=False)
    )
    line: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    account: str = Field(sa_column=Column(Text, nullable=False))
    asset: str = Field(sa_column=Column(Text, nullable=False))
    side: str = Field(sa_column=Column(Text, nullable=False))
    units: int = Field(sa_column=Column(Units, nullable=False))


class IdentityRow(Row, table=True):
    """What an entry rests on, once at most. `freed_by` is the reversal after which what a block shows came back, else 0."""

    __tablename__ = "identities"
    __table_args__ = (
        CheckConstraint(
            "freed_by = 0 OR kind IN ('chain_event', 'anchor', 'freed', 'payout')", name="identities_freed_by"
        ),
        Index("identities_position", "position"),
        KEYED,
    )

    kind: str = Field(sa_column=Column(Text, primary_key=True))
    identity: str = Field(sa_column=Column(Text, primary_key=True))
    freed_by: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    position: int = Field(sa_column=Column(WholeNumber, ForeignKey("journal.position"), nullable=False))


class BalanceRow(Row, table=True):
    """The running balance of one account in one asset, on the account's natural side."""

    __tablename__ = "balances"
    __table_args__ = (*units_checks("balances"), KEYED)

    account: str = Field(sa_column=Column(Text, primary_key=True))
    asset: str = Field(sa_column=Column(Text, primary_key=True))
    units: int = Field(sa_column=Column(Units, nullable=False))


class TotalRow(Row, table=True):
    """The kept total over all accounts of one kind."""

    __tablename__ = "totals"
    __table_args__ = (*units_checks("totals"), KEYED)

    kind: str = Field(sa_column=Column(Text, primary_key=True))
    asset: str = Field(sa_column=Column(Text, primary_key=True))
    units: int = Field(sa_column=Column(Units, nullable=False))


class AccrualRow(Row, table=True):
    """Fees accrued by one entry: `units` is everything accrued up to and with it, `ripens` its time, never running back."""

    __tablename__ = "accruals"
    __table_args__ = (
        *units_checks("accruals", least=1),
        Index("accruals_ripens", "asset", "ripens", "position"),
        KEYED,
    )

    asset: str = Field(sa_column=Column(Text, primary_key=True))
    position: int = Field(
        sa_column=Column(WholeNumber, ForeignKey("journal.position"), primary_key=True, autoincrement=False)
    )
    ripens: int = Field(sa_column=Column(WholeNumber, nullable=False))
    units: int = Field(sa_column=Column(Units, nullable=False))


class FollowedRow(Row, table=True):
    """A block that a watcher has followed."""

    __tablename__ = "followed"
    __table_args__ = (CheckConstraint("length(hash) = 32", name="followed_hash"), KEYED)

    chain: str = Field(sa_column=Column(Text, primary_key=True))
    height: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class DepositRow(Row, table=True):
    """A sighting and where it stands."""

    __tablename__ = "deposits"
    __table_args__ = (
        CheckConstraint("status IN ('SEEN', 'DUST', 'CREDITED', 'ORPHANED', 'REVERSED')", name="deposits_status"),
        CheckConstraint("(status IN ('CREDITED', 'REVERSED')) = (position IS NOT NULL)", name="deposits_credit"),
        *units_checks("deposits"),
        Index("deposits_height", "chain", "height", "number"),
        Index("deposits_waiting", "chain", "status", "height"),
        STRICT,
    )

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    identity: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    chain: str = Field(sa_column=Column(Text, nullable=False))
    height: int = Field(sa_column=Column(WholeNumber, nullable=False))
    address: str = Field(sa_column=Column(Text, nullable=False))
    asset: str = Field(sa_column=Column(Text, nullable=False))
    units: int = Field(sa_column=Column(Units, nullable=False))
    proof: str = Field(sa_column=Column(Text, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    position: int | None = Field(default=None, sa_column=Column(WholeNumber, ForeignKey("journal.position")))


class CustomerRow(Row, table=True):
    """One customer; `number` keeps the order in which they came."""

    __tablename__ = "customers"
    __table_args__ = (CheckConstraint("length(id) BETWEEN 1 AND 200", name="customers_id"), STRICT)

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    id: str = Field(sa_column=Column(Text, nullable=False, unique=True))


class DepositAddressRow(Row, table=True):
    """An attested binding: an index of a wallet, and its address, to one customer for ever.

    `keys` counts the rotations of the wallet before it, on Bitcoin: a customer has one address under each of its certificates.
    """

    __tablename__ = "deposit_addresses"
    __table_args__ = (
        UniqueConstraint("chain", "address", name="deposit_addresses_address"),
        UniqueConstraint("wallet", "customer", "keys", name="deposit_addresses_customer"),
        CheckConstraint("length(wallet) = 32 AND number >= 0 AND keys >= 0", name="deposit_addresses_index"),
        STRICT,
    )

    wallet: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    number: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    customer: str = Field(sa_column=Column(Text, ForeignKey("customers.id"), nullable=False))
    chain: str = Field(sa_column=Column(Text, nullable=False))
    address: str = Field(sa_column=Column(Text, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))
    keys: int = Field(default=0, sa_column=Column(WholeNumber, nullable=False, server_default="0"))


class DocumentRow(Row, table=True):
    """The mirror of one signed document."""

    __tablename__ = "documents"
    __table_args__ = (UniqueConstraint("kind", "key", name="documents_key"), STRICT)

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    key: str = Field(sa_column=Column(Text, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))


class EnrolmentRow(Row, table=True):
    """The mirror of one enrolment, and when it was first seen here."""

    __tablename__ = "enrolments"
    __table_args__ = (
        CheckConstraint("length(digest) = 32", name="enrolments_digest"),
        Index("enrolments_address", "chain", "address", "number"),
        Index("enrolments_owner", "owner", "number"),
        STRICT,
    )

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    chain: str = Field(sa_column=Column(Text, nullable=False))
    address: str = Field(sa_column=Column(Text, nullable=False))
    owner: str = Field(sa_column=Column(Text, nullable=False))
    seen_at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))


class TransferRow(Row, table=True):
    """One transfer. What it is never changes; where it stands (status to moved_at) does, and `transfer_moves` keeps each step."""

    __tablename__ = "transfers"
    __table_args__ = (
        UniqueConstraint("scope", "key", name="transfers_key"),
        CheckConstraint(
            "length(digest) = 32 AND length(proposal) = 32 AND length(asked) = 32", name="transfers_hashes"
        ),
        CheckConstraint(f"usd BETWEEN 0 AND {USD_MOST - 1}", name="transfers_usd"),
        CheckConstraint("live IN (0, 1)", name="transfers_live"),
        CheckConstraint(STATUS_IN, name="transfers_status"),
        CheckConstraint(f"({FINAL_IN}) = (waiting_for = '')", name="transfers_waiting"),
        *units_checks("transfers", least=1),
        Index("transfers_account", "account", "status", "moved_at"),
        Index("transfers_wallet", "wallet", "status", "moved_at"),
        Index("transfers_expiry", "status", "expiry"),
        STRICT,
    )

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    id: str = Field(sa_column=Column(Text, nullable=False, unique=True))
    proposal: bytes = Field(sa_column=Column(LargeBinary, nullable=False, unique=True))
    scope: str = Field(sa_column=Column(Text, nullable=False))
    key: str = Field(sa_column=Column(Text, nullable=False))
    asked: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    account: str = Field(sa_column=Column(Text, nullable=False))
    wallet: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    initiator: str = Field(sa_column=Column(Text, nullable=False))
    purpose: str = Field(sa_column=Column(Text, nullable=False))
    destination: str = Field(sa_column=Column(Text, nullable=False))
    asset: str = Field(sa_column=Column(Text, nullable=False))
    units: int = Field(sa_column=Column(Units, nullable=False))
    usd: int = Field(sa_column=Column(WholeNumber, nullable=False))
    expiry: int = Field(sa_column=Column(WholeNumber, nullable=False))
    created_at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    live: int = Field(sa_column=Column(WholeNumber, nullable=False))
    hold: int | None = Field(default=None, sa_column=Column(WholeNumber, ForeignKey("journal.position"), unique=True))
    body: str = Field(sa_column=Column(Text, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    sub_status: str = Field(sa_column=Column(Text, nullable=False))
    waiting_for: str = Field(sa_column=Column(Text, nullable=False))
    decision: str = Field(sa_column=Column(Text, nullable=False))
    moved_at: int = Field(sa_column=Column(WholeNumber, nullable=False))


class TransferMoveRow(Row, table=True):
    """One step of a transfer."""

    __tablename__ = "transfer_moves"
    __table_args__ = (
        CheckConstraint(STATUS_IN, name="transfer_moves_status"),
        Index("transfer_moves_of", "transfer"),
        STRICT,
    )

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    transfer: bytes = Field(sa_column=Column(LargeBinary, ForeignKey("transfers.digest"), nullable=False))
    at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    status: str = Field(sa_column=Column(Text, nullable=False))
    sub_status: str = Field(sa_column=Column(Text, nullable=False))
    why: str = Field(sa_column=Column(Text, nullable=False))


class ApprovalRow(Row, table=True):
    """One person's yes, as signed; a boolean would say nothing."""

    __tablename__ = "approvals"
    __table_args__ = (UniqueConstraint("transfer", "person", name="approvals_person"), STRICT)

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    transfer: bytes = Field(sa_column=Column(LargeBinary, ForeignKey("transfers.digest"), nullable=False))
    person: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))


class RejectionRow(Row, table=True):
    """One person's no, as signed."""

    __tablename__ = "rejections"
    __table_args__ = (UniqueConstraint("transfer", "person", name="rejections_person"), STRICT)

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    transfer: bytes = Field(sa_column=Column(LargeBinary, ForeignKey("transfers.digest"), nullable=False))
    person: str = Field(sa_column=Column(Text, nullable=False))
    at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))


class PermitRow(Row, table=True):
    """What was pinned before a first signature was asked for: one payout, and its one anchor."""

    __tablename__ = "permits"
    __table_args__ = (UniqueConstraint("chain", "wallet", "reference", name="permits_anchor"), STRICT)

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    chain: str = Field(sa_column=Column(Text, nullable=False))
    wallet: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    reference: str = Field(sa_column=Column(Text, nullable=False))
    statement: int = Field(sa_column=Column(WholeNumber, nullable=False))
    at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    body: str = Field(sa_column=Column(Text, nullable=False))


class PermitIntentRow(Row, table=True):
    """An intent is carried by one payout for ever; `line` keeps the order."""

    __tablename__ = "permit_intents"
    __table_args__ = (Index("permit_intents_permit", "permit", "line"), KEYED)

    transfer: bytes = Field(sa_column=Column(LargeBinary, ForeignKey("transfers.digest"), primary_key=True))
    permit: int = Field(sa_column=Column(WholeNumber, ForeignKey("permits.number"), nullable=False))
    line: int = Field(sa_column=Column(WholeNumber, nullable=False))


class PermitReferenceRow(Row, table=True):
    """Everything that a permit pins: its nonce, or each outpoint. An outpoint belongs to one payout on its chain, whoever owns it."""

    __tablename__ = "permit_references"
    __table_args__ = (
        Index(
            "permit_references_outpoint",
            "chain",
            "reference",
            unique=True,
            sqlite_where=text("reference LIKE '%:%'"),
            postgresql_where=text("reference LIKE '%:%'"),
        ),
        Index("permit_references_permit", "permit", "line"),
        KEYED,
    )

    chain: str = Field(sa_column=Column(Text, primary_key=True))
    wallet: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    reference: str = Field(sa_column=Column(Text, primary_key=True))
    permit: int = Field(sa_column=Column(WholeNumber, ForeignKey("permits.number"), nullable=False))
    line: int = Field(sa_column=Column(WholeNumber, nullable=False))


class EnvelopeRow(Row, table=True):
    """Signed bytes, stored before they go out (DESIGN.md, law 5). `digest` is the network's id of them."""

    __tablename__ = "signed_bytes"
    __table_args__ = (
        UniqueConstraint("permit", "digest", name="signed_bytes_digest"),
        CheckConstraint("length(digest) = 32 AND length(payout) = 32", name="signed_bytes_hashes"),
        STRICT,
    )

    number: int | None = Field(default=None, sa_column=Column(WholeNumber, primary_key=True))
    permit: int = Field(sa_column=Column(WholeNumber, ForeignKey("permits.number"), nullable=False))
    digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    payout: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    at: int = Field(sa_column=Column(WholeNumber, nullable=False))


class LeaseRow(Row, table=True):
    """Whose turn it is; a row stays for ever, because its token must never come back. Nobody's turn: no holder."""

    __tablename__ = "leases"
    __table_args__ = (CheckConstraint("token > 0", name="leases_token"), KEYED)

    name: str = Field(sa_column=Column(Text, primary_key=True))
    holder: str = Field(sa_column=Column(Text, nullable=False))
    token: int = Field(sa_column=Column(WholeNumber, nullable=False))
    until: int = Field(sa_column=Column(WholeNumber, nullable=False))


class ReservedRow(Row, table=True):
    """Micro-USD of what is pending of one account, wallet or initiator, kept by triggers (migrations.windows)."""

    __tablename__ = "reserved"
    __table_args__ = (CheckConstraint("usd >= 0", name="reserved_usd"), KEYED)

    what: str = Field(sa_column=Column(Text, primary_key=True))
    who: str = Field(sa_column=Column(Text, primary_key=True))
    usd: int = Field(sa_column=Column(WholeNumber, nullable=False))


class CompletedRow(Row, table=True):
    """One completed transfer of an account, wallet or initiator: `total` is everything up to and with it, `at` never runs back."""

    __tablename__ = "completed"
    __table_args__ = (Index("completed_at", "what", "who", "at", "number"), KEYED)

    what: str = Field(sa_column=Column(Text, primary_key=True))
    who: str = Field(sa_column=Column(Text, primary_key=True))
    number: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    at: int = Field(sa_column=Column(WholeNumber, nullable=False))
    total: int = Field(sa_column=Column(WholeNumber, nullable=False))


class SettledRow(Row, table=True):
    """One line that a settlement credited, by the time it was recorded."""

    __tablename__ = "settled"
    __table_args__ = (*units_checks("settled", least=1), KEYED)

    account: str = Field(sa_column=Column(Text, primary_key=True))
    at: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    position: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    line: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))
    asset: str = Field(sa_column=Column(Text, nullable=False))
    units: int = Field(sa_column=Column(Units, nullable=False))


class VisitRow(Row, table=True):
    """One browser at the console; nothing rests on it."""

    __tablename__ = "visits"
    __table_args__ = (
        CheckConstraint("length(name) = 32", name="visits_name"),
        Index("visits_person", "person", "begun"),
        Index("visits_until", "until"),
        KEYED,
    )

    name: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    person: str = Field(sa_column=Column(Text, nullable=False))
    login: str = Field(sa_column=Column(Text, nullable=False))
    begun: int = Field(sa_column=Column(WholeNumber, nullable=False))
    seen: int = Field(sa_column=Column(WholeNumber, nullable=False))
    until: int = Field(sa_column=Column(WholeNumber, nullable=False))


class WriterRow(Row, table=True):
    """Holds nothing: PostgreSQL's writers queue for a lock on this table before they take their snapshot."""

    __tablename__ = "writer"
    __table_args__ = (STRICT,)

    number: int = Field(sa_column=Column(WholeNumber, primary_key=True, autoincrement=False))


def table_of(row: type[Row]) -> Table:
    """The table of a row class."""
    return metadata.tables[str(row.__tablename__)]
