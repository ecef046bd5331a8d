# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers inside one transaction: where each stands, who said yes or no, and what they take up together."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, or_
from sqlalchemy import select as select_of
from sqlmodel import col, select

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
from custody.store.migrations.windows import ROUND
from custody.store.sessions import Sessions
from custody.store.statements import Cursor
from custody.store.tables import ApprovalRow, RejectionRow, TransferMoveRow, TransferRow, table_of

DAY: Final = 86_400
HOUR: Final = 3_600

PENDING: Final = tuple(status.value for status in Status if not status.is_final)
_UNASKED: Final = tuple(status.value for status in Status if not status.is_final and not status.is_asked)
_ASKED: Final = tuple(status.value for status in Status if status.is_asked)
_DONE: Final = Status.COMPLETED.value

# What is kept of one account, wallet or initiator: what is pending, what was ever completed, and what was by a time.
_KEPT: Final = ", ".join(
    f"(SELECT usd FROM reserved WHERE what = '{what}' AND who = ?), "  # noqa: S608
    f"(SELECT total FROM completed WHERE what = '{what}' AND who = ? ORDER BY number DESC LIMIT 1), "
    f"(SELECT total FROM completed WHERE what = '{what}' AND who = ? AND at <= ? ORDER BY at DESC, number DESC LIMIT 1)"
    for what in ("account", "wallet", "initiator")
)
_RESERVED: Final = f"SELECT {_KEPT}"
_OWN: Final = "SELECT account, wallet, initiator, usd, status, moved_at FROM transfers WHERE digest = ? AND live = 1"

_table = table_of(TransferRow)
_STATE: Final = ("status", "sub_status", "waiting_for", "decision", "moved_at")

# What every proposal asks and writes. Written once and used without the unit of work of the ORM: making a statement for each call,
# and a mapped object for each row, takes several times as long as the database does.
_ALL: Final = select_of(_table)
_NAMES: Final[Select[Any]] = select_of(_table.c.digest, _table.c.wallet, _table.c.asset, _table.c.body)
_BY_KEY: Final = _ALL.where(_table.c.scope == bindparam("of_scope"), _table.c.key == bindparam("of_key"))
_BY_DIGEST: Final = _ALL.where(_table.c.digest == bindparam("of"))
_BY_ID: Final = _ALL.where(_table.c.id == bindparam("of"))
_BY_PROPOSAL: Final = _ALL.where(_table.c.proposal == bindparam("of"))
_COLUMNS: Final = tuple(column.name for column in _table.columns if column.name != "number")
_ADD: Final = f"INSERT INTO transfers ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_NOTE: Final = "INSERT INTO transfer_moves (transfer, at, status, sub_status, why) VALUES (?, ?, ?, ?, ?)"
_MOVE: Final = (
    f"UPDATE transfers SET {', '.join(f'{name} = ?' for name in _STATE)}"  # noqa: S608
    " WHERE digest = ? AND status = ? AND moved_at = ?"
)
_KEYED: Final = "SELECT 1 FROM transfers WHERE scope = ? AND key = ?"
_BOUND: Final = "SELECT 1 FROM transfers WHERE proposal = ?"

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

    def __init__(self, sessions: Sessions, connection: Connection) -> None:
        self._sessions, self._connection, self._cursor = sessions, connection, Cursor(connection)

    def add(self, transfer: Transfer, scope: str, key: str, body: bytes, submitted: Transfer | None = None) -> None:
        """Record a new one. Raises Refused with every reason."""
        raise_if(self._refusals(transfer, scope, key))
        values = mapping.transfer_values(transfer, scope, key, body)
        values["units"] = self._cursor.units(transfer.intent.amount)
        steps = [_step(each, each.waiting_for) for each in (submitted, transfer) if each is not None]
        self._cursor.write_all((_ADD, [[values[name] for name in _COLUMNS]]), (_NOTE, steps))

    def asked(self, scope: str, key: str) -> tuple[bytes, Transfer] | None:
        """What was asked under a key."""
        if not self._cursor.rows(_KEYED, scope, key):  # nearly always, and it costs a twentieth of reading a row
            return None
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
        return self._one(_BY_PROPOSAL, proposal) if self._cursor.rows(_BOUND, proposal) else None

    def examine(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer | Damaged]]:
        """Numbers and transfers, ascending; only where that finds damage each row is read by itself."""
        wanted = tuple(_wanted(after, account, wallet, statuses))
        try:
            rows = self._connection.execute(_ALL.where(*wanted).order_by(_table.c.number).limit(limit))
            return [(row.number, mapping.transfer(row)) for row in rows]
        except InvalidInput:
            numbers = select_of(_table.c.number).where(*wanted).order_by(_table.c.number).limit(limit)
            return [(number, self._examined(number)) for number in self._connection.execute(numbers).scalars().all()]

    def _examined(self, number: int) -> Transfer | Damaged:
        try:
            return mapping.transfer(self._connection.execute(_ALL.where(_table.c.number == number)).one())
        except InvalidInput as error:
            row = self._connection.execute(_NAMES.where(_table.c.number == number)).one()
            told = {"table": "transfers", "digest": row.digest.hex(), "why": str(error)}
            why, named = Refusal(Rule.ROW_DAMAGED, **told), mapping.assets_named(row)
            return Damaged(row.digest.hex(), why, wallet=bytes(row.wallet), assets=named)

    def update(self, transfer: Transfer, was: Transfer, why: str = "") -> None:
        """Record a move of the transfer that stands as it was."""
        after = mapping.state(transfer)
        changed = self._cursor.change(
            _MOVE, *(after[name] for name in _STATE), was.digest, was.status.value, was.moved_at
        )
        if changed != 1:
            told = {"intent": was.digest.hex(), "was": was.status.value, "would_be": transfer.status.value}
            raise Refused([Refusal(Rule.ILLEGAL_MOVE, **told, why="it stands otherwise by now")])
        self._sessions.forget()
        self._cursor.write(_NOTE, _step(transfer, why or transfer.waiting_for))

    def history(self, digest: bytes) -> Sequence[Moved]:
        """Every step, oldest first."""
        wanted = select(TransferMoveRow).where(TransferMoveRow.transfer == digest)
        return [mapping.moved(row) for row in self._sessions().exec(wanted.order_by(col(TransferMoveRow.number)))]

    def expiring(self, now: int, limit: int = 100, beyond: int = 0) -> Sequence[bytes]:
        """Past their expiry, and no signature asked for."""
        wanted = select(TransferRow.digest).where(col(TransferRow.status).in_(_UNASKED), TransferRow.expiry <= now)
        page = wanted.order_by(col(TransferRow.number)).offset(beyond).limit(limit)
        return [bytes(digest) for digest in self._sessions().exec(page)]

    def approve(self, approval: Approval, at: int) -> None:
        """Append one person's yes."""
        mine = select(ApprovalRow).where(ApprovalRow.transfer == approval.intent, ApprovalRow.person == approval.person)
        body, row = mapping.text(approval.to_json()), self._sessions().exec(mine).first()
        if row is not None and row.body != body:
            raise Refused([Refusal(Rule.SIGNER_TWICE, intent=approval.intent.hex(), person=approval.person)])
        if row is None:
            self._sessions().add(ApprovalRow(transfer=approval.intent, person=approval.person, at=at, body=body))
            self._sessions().flush()

    def approvals(self, digest: bytes) -> Sequence[Approval]:
        """Every yes, in the order they came."""
        wanted = select(ApprovalRow).where(ApprovalRow.transfer == digest).order_by(col(ApprovalRow.number))
        return [mapping.approval(row) for row in self._sessions().exec(wanted)]

    def reject(self, person: str, rejection: Signed[Rejection], at: int) -> None:
        """Append one person's no."""
        digest = rejection.message.intent
        mine = select(RejectionRow).where(RejectionRow.transfer == digest, RejectionRow.person == person)
        body, row = mapping.text(rejection.to_json()), self._sessions().exec(mine).first()
        if row is not None and row.body != body:
            raise Refused([Refusal(Rule.SIGNER_TWICE, intent=digest.hex(), person=person)])
        if row is None:
            self._sessions().add(RejectionRow(transfer=digest, person=person, at=at, body=body))
            self._sessions().flush()

    def rejections(self, digest: bytes) -> Sequence[Signed[Rejection]]:
        """Every no."""
        wanted = select(RejectionRow).where(RejectionRow.transfer == digest).order_by(col(RejectionRow.number))
        return [mapping.rejection(row) for row in self._sessions().exec(wanted)]

    def reserved(self, account: str, wallet: bytes, initiator: str, now: int, besides: bytes = b"") -> Reserved:
        """What others take up, exactly, from sums that the database keeps (`migrations.windows`)."""
        whose = ((account, now - DAY), (wallet.hex(), now - HOUR), (initiator, now - DAY))
        (row,) = self._cursor.rows(_RESERVED, *(value for who, since in whose for value in (who, who, who, since)))
        own = self._own(besides, (account, wallet, initiator), [since for _, since in whose])
        kept = [[int(value or 0) for value in row[first : first + 3]] for first in (0, 3, 6)]
        return Reserved(
            *(p + (done - before) % ROUND - mine for (p, done, before), mine in zip(kept, own, strict=True))
        )

    def _own(self, digest: bytes, whose: Sequence[object], since: Sequence[int]) -> list[int]:
        """What one transfer itself takes up of each window."""
        rows = self._cursor.rows(_OWN, digest) if digest else ()
        if not rows:
            return [0, 0, 0]
        account, wallet, initiator, usd, status, at = rows[0]
        of = (account, bytes(wallet), initiator)
        return [
            int(usd) if mine == who and (status in PENDING or (status == _DONE and at > after)) else 0
            for mine, who, after in zip(of, whose, since, strict=True)
        ]

    def swept(self, asset: str, now: int, besides: bytes = b"") -> int:
        """Fee sweeps of a day, in base units."""
        counts = or_(
            col(TransferRow.status).in_(PENDING),
            (col(TransferRow.status) == _DONE) & (col(TransferRow.moved_at) > now - DAY),
        )
        fees = (TransferRow.purpose == Purpose.FEE_SWEEP.value, TransferRow.asset == asset, TransferRow.live == 1)
        return sum(self._sessions().exec(select(TransferRow.units).where(counts, *fees, TransferRow.digest != besides)))

    def heading_to(self, destinations: Collection[str], asset: str, besides: bytes = b"") -> int:
        """Base units on their way to addresses of ours."""
        wanted = select(TransferRow.destination, TransferRow.units).where(
            col(TransferRow.status).in_(PENDING),
            TransferRow.live == 1,
            TransferRow.asset == asset,
            TransferRow.digest != besides,
            col(TransferRow.purpose) != Purpose.WITHDRAWAL.value,
        )
        return sum(units for destination, units in self._sessions().exec(wanted) if destination in destinations)

    def leaving(self, wallet: bytes, asset: str, besides: Collection[bytes] = ()) -> int:
        """Base units that permitted transfers will take out of a wallet."""
        wanted = select(TransferRow.digest, TransferRow.units).where(
            TransferRow.wallet == wallet, TransferRow.asset == asset, col(TransferRow.status).in_(_ASKED)
        )
        return sum(units for digest, units in self._sessions().exec(wanted) if bytes(digest) not in besides)

    def permit(self, permit: Permit) -> None:
        """Record a permit, or refuse with every reason."""
        permits.add(self._sessions(), permit)

    def permit_of(self, digest: bytes) -> Permit | None:
        """The permit that carries an intent."""
        return permits.of_intent(self._sessions(), digest)

    def permitted(self) -> Sequence[Permit]:
        """Unfinished ones, oldest first."""
        return permits.unfinished(self._sessions(), PENDING)

    def examine_permitted(self) -> Sequence[Permit | Damaged]:
        """The same, with those that are damaged."""
        return permits.examine(self._sessions(), PENDING)

    def taken(self, chain: str, wallet: bytes) -> frozenset[str]:
        """What unfinished permits of a wallet pin."""
        return permits.taken(self._sessions(), chain, wallet, PENDING)

    def keep(self, envelope: Envelope, at: int) -> None:
        """Append signed bytes."""
        permits.keep(self._sessions(), envelope, at)

    def kept(self, anchor: Anchor) -> Sequence[Envelope]:
        """Signed bytes of an anchor, oldest first."""
        return permits.kept(self._sessions(), anchor)

    def _one(self, wanted: Select[Any], of: bytes | str) -> Transfer | None:
        row = self._connection.execute(wanted, {"of": of}).first()
        return None if row is None else mapping.transfer(row)

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


def _step(transfer: Transfer, why: str) -> tuple[object, ...]:
    """A line of its history."""
    sub_status = "" if transfer.sub_status is None else transfer.sub_status.value
    return (transfer.digest, max(transfer.moved_at, transfer.created_at), transfer.status.value, sub_status, why)
