# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers inside one transaction: where each stands, who said yes or no, and what they take up together."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, insert, or_, update
from sqlalchemy import select as select_of
from sqlalchemy.engine import CursorResult
from sqlmodel import Session, col, select

from custody.flows.ports import Damaged, Moved
from custody.rules.approvals import Approval
from custody.rules.errors import InvalidInput
from custody.rules.facts import Purpose
from custody.rules.intents import Anchor, Rejection
from custody.rules.payments import Envelope
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Reserved, Status, Transfer
from custody.store import permits
from custody.store import transfers_mapping as mapping
from custody.store.statements import Cursor
from custody.store.tables import ApprovalRow, RejectionRow, TransferMoveRow, TransferRow, table_of

DAY: Final = 86_400
HOUR: Final = 3_600

PENDING: Final = tuple(status.value for status in Status if not status.is_final)
_UNASKED: Final = tuple(status.value for status in Status if not status.is_final and not status.is_asked)
_ASKED: Final = tuple(status.value for status in Status if status.is_asked)
_DONE: Final = Status.COMPLETED.value
_WORDS: Final = ", ".join(f"'{status}'" for status in PENDING)


def _sums(column: str) -> str:
    """Two sums, so that each is answered from an index: what is pending, and what was completed since."""
    mine = f"SELECT coalesce(sum(usd), 0) FROM transfers WHERE {column} = ? AND live = 1 AND digest <> ?"  # noqa: S608
    return f"({mine} AND status IN ({_WORDS})), ({mine} AND status = '{_DONE}' AND moved_at > ?)"


_table, _moves = table_of(TransferRow), table_of(TransferMoveRow)
_STATE: Final = ("status", "sub_status", "waiting_for", "decision", "moved_at")

# What every proposal asks and writes. Written once and used without the unit of work of the ORM: making a statement for each call,
# and a mapped object for each row, takes several times as long as the database does.
_ALL: Final = select_of(_table)
_BY_KEY: Final = _ALL.where(_table.c.scope == bindparam("of_scope"), _table.c.key == bindparam("of_key"))
_BY_DIGEST: Final = _ALL.where(_table.c.digest == bindparam("of"))
_BY_ID: Final = _ALL.where(_table.c.id == bindparam("of"))
_BY_PROPOSAL: Final = _ALL.where(_table.c.proposal == bindparam("of"))
_ADD: Final = insert(_table).inline()
_NOTE: Final = insert(_moves).inline()
_MOVE: Final = (
    update(_table)
    .where(
        _table.c.digest == bindparam("was_digest"),
        _table.c.status == bindparam("was_status"),
        _table.c.moved_at == bindparam("was_moved_at"),
    )
    .values({name: bindparam(f"to_{name}") for name in _STATE})
)

_RESERVED: Final = f"SELECT {', '.join(_sums(column) for column in ('account', 'wallet', 'initiator'))}"
_TAKEN: Final = (
    "SELECT scope, key, proposal, digest, id FROM transfers"
    " WHERE scope = ? AND key = ? OR proposal = ? OR digest = ? OR id = ?"
)


def _wanted(
    after: int, account: str | None, wallet: bytes | None, statuses: Collection[Status]
) -> Iterator[ColumnElement[bool]]:
    """What a page holds."""
    yield _table.c.number > after
    if account is not None:
        yield _table.c.account == account
    if wallet is not None:
        yield _table.c.wallet == wallet
    if statuses:
        yield _table.c.status.in_([status.value for status in statuses])


class SqlTransfers:
    """Transfers inside one transaction."""

    def __init__(self, session: Session, connection: Connection) -> None:
        self._session, self._connection, self._cursor = session, connection, Cursor(connection)

    def add(self, transfer: Transfer, scope: str, key: str, body: bytes) -> None:
        """Record a new one. Raises Refused with every reason."""
        raise_if(self._refusals(transfer, scope, key))
        self._connection.execute(_ADD, mapping.transfer_values(transfer, scope, key, body))
        self._note(transfer, transfer.waiting_for)

    def asked(self, scope: str, key: str) -> tuple[bytes, Transfer] | None:
        """What was asked under a key."""
        row = self._connection.execute(_BY_KEY, {"of_scope": scope, "of_key": key}).first()
        return None if row is None else (row.asked, mapping.transfer(row))

    def get(self, digest: bytes) -> Transfer | None:
        """By digest."""
        return self._one(_BY_DIGEST, digest)

    def find(self, transfer: str) -> Transfer | None:
        """By id."""
        return self._one(_BY_ID, transfer)

    def of_proposal(self, proposal: bytes) -> Transfer | None:
        """What a proposal became."""
        return self._one(_BY_PROPOSAL, proposal)

    def page(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer]]:
        """Numbers and transfers, ascending."""
        wanted = select(TransferRow).where(*_wanted(after, account, wallet, statuses))
        rows = self._session.exec(wanted.order_by(col(TransferRow.number)).limit(limit))
        return [(row.number or 0, mapping.transfer(row)) for row in rows]

    def examine(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer | Damaged]]:
        """As `page`; only where that finds damage each row is read by itself."""
        try:
            return self.page(after, limit, account=account, wallet=wallet, statuses=statuses)
        except InvalidInput:
            wanted = select_of(_table.c.number, _table.c.digest).where(*_wanted(after, account, wallet, statuses))
            rows = self._connection.execute(wanted.order_by(_table.c.number).limit(limit)).all()
            return [(number, self._examined(number, bytes(digest))) for number, digest in rows]

    def _examined(self, number: int, digest: bytes) -> Transfer | Damaged:
        try:
            return mapping.transfer(self._connection.execute(_ALL.where(_table.c.number == number)).one())
        except InvalidInput as error:
            told = {"table": "transfers", "digest": digest.hex(), "why": str(error)}
            return Damaged(digest.hex(), Refusal(Rule.ROW_DAMAGED, **told))

    def update(self, transfer: Transfer, was: Transfer, why: str = "") -> None:
        """Record a move of the transfer that stands as it was."""
        standing = {"was_digest": was.digest, "was_status": was.status.value, "was_moved_at": was.moved_at}
        after = {f"to_{name}": value for name, value in mapping.state(transfer).items()}
        changed: CursorResult[Any] = self._connection.execute(_MOVE, {**standing, **after})
        if changed.rowcount != 1:
            told = {"intent": was.digest.hex(), "was": was.status.value, "would_be": transfer.status.value}
            raise Refused([Refusal(Rule.ILLEGAL_MOVE, **told, why="it stands otherwise by now")])
        self._session.expire_all()
        self._note(transfer, why or transfer.waiting_for)

    def history(self, digest: bytes) -> Sequence[Moved]:
        """Every step, oldest first."""
        wanted = select(TransferMoveRow).where(TransferMoveRow.transfer == digest)
        return [mapping.moved(row) for row in self._session.exec(wanted.order_by(col(TransferMoveRow.number)))]

    def expiring(self, now: int, limit: int = 100) -> Sequence[bytes]:
        """Past their expiry, and no signature asked for."""
        wanted = select(TransferRow.digest).where(col(TransferRow.status).in_(_UNASKED), TransferRow.expiry <= now)
        return [bytes(digest) for digest in self._session.exec(wanted.order_by(col(TransferRow.number)).limit(limit))]

    def approve(self, approval: Approval, at: int) -> None:
        """Append one person's yes."""
        mine = select(ApprovalRow).where(ApprovalRow.transfer == approval.intent, ApprovalRow.person == approval.person)
        body, row = mapping.text(approval.to_json()), self._session.exec(mine).first()
        if row is not None and row.body != body:
            raise Refused([Refusal(Rule.SIGNER_TWICE, intent=approval.intent.hex(), person=approval.person)])
        if row is None:
            self._session.add(ApprovalRow(transfer=approval.intent, person=approval.person, at=at, body=body))
            self._session.flush()

    def approvals(self, digest: bytes) -> Sequence[Approval]:
        """Every yes, in the order they came."""
        wanted = select(ApprovalRow).where(ApprovalRow.transfer == digest).order_by(col(ApprovalRow.number))
        return [mapping.approval(row) for row in self._session.exec(wanted)]

    def reject(self, person: str, rejection: Signed[Rejection], at: int) -> None:
        """Append one person's no."""
        digest = rejection.message.intent
        mine = select(RejectionRow).where(RejectionRow.transfer == digest, RejectionRow.person == person)
        body, row = mapping.text(rejection.to_json()), self._session.exec(mine).first()
        if row is not None and row.body != body:
            raise Refused([Refusal(Rule.SIGNER_TWICE, intent=digest.hex(), person=person)])
        if row is None:
            self._session.add(RejectionRow(transfer=digest, person=person, at=at, body=body))
            self._session.flush()

    def rejections(self, digest: bytes) -> Sequence[Signed[Rejection]]:
        """Every no."""
        wanted = select(RejectionRow).where(RejectionRow.transfer == digest).order_by(col(RejectionRow.number))
        return [mapping.rejection(row) for row in self._session.exec(wanted)]

    def reserved(self, account: str, wallet: bytes, initiator: str, now: int, besides: bytes = b"") -> Reserved:
        """What others take up; exact sums, which the database refuses rather than rounds."""
        values: list[object] = []
        for whose, since in ((account, now - DAY), (wallet, now - HOUR), (initiator, now - DAY)):
            values += [whose, besides, whose, besides, since]
        (row,) = self._cursor.rows(_RESERVED, *values)
        return Reserved(*(int(sum(pair)) for pair in (row[0:2], row[2:4], row[4:6])))

    def swept(self, asset: str, now: int, besides: bytes = b"") -> int:
        """Fee sweeps of a day, in base units."""
        counts = or_(
            col(TransferRow.status).in_(PENDING),
            (col(TransferRow.status) == _DONE) & (col(TransferRow.moved_at) > now - DAY),
        )
        fees = (TransferRow.purpose == Purpose.FEE_SWEEP.value, TransferRow.asset == asset, TransferRow.live == 1)
        return sum(self._session.exec(select(TransferRow.units).where(counts, *fees, TransferRow.digest != besides)))

    def heading_to(self, destinations: Collection[str], asset: str, besides: bytes = b"") -> int:
        """Base units on their way to addresses of ours."""
        wanted = select(TransferRow.destination, TransferRow.units).where(
            col(TransferRow.status).in_(PENDING),
            TransferRow.live == 1,
            TransferRow.asset == asset,
            TransferRow.digest != besides,
            col(TransferRow.purpose) != Purpose.WITHDRAWAL.value,
        )
        return sum(units for destination, units in self._session.exec(wanted) if destination in destinations)

    def leaving(self, wallet: bytes, asset: str, besides: Collection[bytes] = ()) -> int:
        """Base units that permitted transfers will take out of a wallet."""
        wanted = select(TransferRow.digest, TransferRow.units).where(
            TransferRow.wallet == wallet, TransferRow.asset == asset, col(TransferRow.status).in_(_ASKED)
        )
        return sum(units for digest, units in self._session.exec(wanted) if bytes(digest) not in besides)

    def permit(self, permit: Permit) -> None:
        """Record a permit, or refuse with every reason."""
        permits.add(self._session, permit)

    def permit_of(self, digest: bytes) -> Permit | None:
        """The permit that carries an intent."""
        return permits.of_intent(self._session, digest)

    def permitted(self) -> Sequence[Permit]:
        """Unfinished ones, oldest first."""
        return permits.unfinished(self._session, PENDING)

    def examine_permitted(self) -> Sequence[Permit | Damaged]:
        """The same, with those that are damaged."""
        return permits.examine(self._session, PENDING)

    def taken(self, chain: str, wallet: bytes) -> frozenset[str]:
        """What unfinished permits of a wallet pin."""
        return permits.taken(self._session, chain, wallet, PENDING)

    def keep(self, envelope: Envelope, at: int) -> None:
        """Append signed bytes."""
        permits.keep(self._session, envelope, at)

    def kept(self, anchor: Anchor) -> Sequence[Envelope]:
        """Signed bytes of an anchor, oldest first."""
        return permits.kept(self._session, anchor)

    def _one(self, wanted: Select[Any], of: bytes | str) -> Transfer | None:
        row = self._connection.execute(wanted, {"of": of}).first()
        return None if row is None else mapping.transfer(row)

    def _note(self, transfer: Transfer, why: str) -> None:
        step = {
            "transfer": transfer.digest,
            "at": max(transfer.moved_at, transfer.created_at),
            "status": transfer.status.value,
            "sub_status": "" if transfer.sub_status is None else transfer.sub_status.value,
            "why": why,
        }
        self._connection.execute(_NOTE, step)

    def _refusals(self, new: Transfer, scope: str, key: str) -> Iterator[Refusal]:
        proposal = new.intent.proposal
        values = (scope, key, proposal, new.digest, new.intent.id)
        for of_scope, of_key, of_proposal, digest, transfer in self._cursor.rows(_TAKEN, *values):
            if (of_scope, of_key) == (scope, key):
                yield Refusal(Rule.IDEMPOTENCY_MISMATCH, key=key, transfer=transfer)
            if bytes(of_proposal) == proposal:
                yield Refusal(Rule.PROPOSAL_BOUND, proposal=proposal.hex(), transfer=transfer)
            if bytes(digest) == new.digest or transfer == new.intent.id:
                yield Refusal(Rule.ALREADY_RECORDED, kind="transfer", id=transfer)
