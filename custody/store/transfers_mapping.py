# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers, approvals, enrolments and permits: rows to what the rules know and back.

A row that says another thing than the documents in it is InvalidInput naming the row; whose signature counts is for those who
read it.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Row

from custody.flows.ports import Enrolled, Moved
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.intents import Anchor, Proposal, Rejection, TransferIntent
from custody.rules.json_text import read_json
from custody.rules.ledger import canonical
from custody.rules.payments import Envelope
from custody.rules.refusals import Rule
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, SubStatus, Transfer
from custody.store.tables import (
    ApprovalRow,
    EnrolmentRow,
    EnvelopeRow,
    PermitRow,
    RejectionRow,
    TransferMoveRow,
    TransferRow,
)

T = TypeVar("T")

_SAME: Final = {
    **{name: name for name in ("id", "proposal", "account", "wallet", "initiator", "purpose")},
    "destination": "destination",
    "asset": "asset",
    "units": "amount",
    "expiry": "expiry",
}
"""Columns of `transfers` and the fields of the intent that they repeat."""
_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, UnbalancedEntry)
"""What reading what somebody else wrote can raise, besides InvalidInput."""


def text(body: Mapping[str, object]) -> str:
    """Canonical JSON as it is stored."""
    return canonical(dict(body)).decode()


def read_as(where: str, make: Callable[[], T]) -> T:
    """What `make` reads; whatever it cannot read is InvalidInput naming the row."""
    try:
        return make()
    except InvalidInput as error:
        raise InvalidInput(f"{where}.{error.field}", error.rule, error.got, error.want) from error
    except _UNREADABLE as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise InvalidInput(where, Rule.MALFORMED, got, "what was stored") from error


def _object(where: str, body: str) -> dict[str, Any]:
    data = read_json(body, where)
    if not isinstance(data, dict):
        raise InvalidInput(where, Rule.MALFORMED, type(data).__name__, "a JSON object")
    return data


def transfer_values(transfer: Transfer, scope: str, key: str, asked: bytes) -> dict[str, Any]:
    """A new transfer on its way into `transfers`: its columns by name."""
    intent = transfer.intent
    return {
        "digest": transfer.digest,
        "id": intent.id,
        "proposal": intent.proposal,
        "scope": scope,
        "key": key,
        "asked": asked,
        "account": intent.account,
        "wallet": intent.wallet,
        "initiator": intent.initiator,
        "purpose": intent.purpose,
        "destination": intent.destination,
        "asset": intent.asset,
        "units": intent.amount,
        "usd": transfer.usd,
        "expiry": intent.expiry,
        "created_at": transfer.created_at,
        "live": int(transfer.live),
        "hold": transfer.hold,
        "body": text({"proposal": transfer.proposal.to_json(), "intent": intent.to_json()}),
        **state(transfer),
    }


def state(transfer: Transfer) -> dict[str, Any]:
    """The columns that a move changes."""
    return {
        "status": transfer.status.value,
        "sub_status": "" if transfer.sub_status is None else transfer.sub_status.value,
        "waiting_for": transfer.waiting_for,
        "decision": "" if transfer.decision is None else text(transfer.decision),
        "moved_at": transfer.moved_at,
    }


def transfer(row: TransferRow | Row[Any]) -> Transfer:
    """A row of `transfers` as it stands. Raises InvalidInput where a column differs from the documents (a changed amount)."""
    where = f"transfers[{row.id}]"
    found = read_as(where, lambda: _transfer(where, row))
    for column, name in _SAME.items():
        if (got := getattr(row, column)) != (want := getattr(found.intent, name)):
            raise InvalidInput(
                f"{where}.{column}", Rule.ROW_DAMAGED, repr(got)[:200], f"{want!r}, as its intent has it"
            )
    return found


def assets_named(row: Row[Any]) -> frozenset[str]:
    """What a damaged row's transfer may be of: what the row says and what its document says; none where that cannot be read."""
    where = f"transfers[0x{row.digest.hex()}]"
    try:
        intent = read_as(where, lambda: TransferIntent.from_json(_object(where, row.body)["intent"]))
    except InvalidInput:
        return frozenset()
    return frozenset({row.asset, intent.asset})


@lru_cache(maxsize=2048)
def _documents(where: str, body: str) -> tuple[Signed[Proposal], TransferIntent]:
    """The documents of a row, remembered by their whole text: a transfer is read at each of its steps, and by every page and turn."""
    found = _object(where, body)
    return Signed.from_json(Proposal, found["proposal"]), TransferIntent.from_json(found["intent"])


@lru_cache(maxsize=2048)
def _decision(where: str, text_: str) -> Mapping[str, object]:
    """Policy's answer of a row, remembered as its documents are; nobody writes into it."""
    return _object(where, text_)


def _transfer(where: str, row: TransferRow | Row[Any]) -> Transfer:
    proposal, intent = _documents(where, row.body)
    return Transfer(
        digest=row.digest,
        proposal=proposal,
        intent=intent,
        usd=row.usd,
        created_at=row.created_at,
        status=Status(row.status),
        sub_status=SubStatus(row.sub_status) if row.sub_status else None,
        waiting_for=row.waiting_for,
        hold=row.hold,
        live=bool(row.live),
        decision=_decision(where, row.decision) if row.decision else None,
        moved_at=row.moved_at,
    )


def moved(row: TransferMoveRow) -> Moved:
    """A step of a transfer."""
    where = f"transfer_moves[{row.number}]"
    sub = row.sub_status
    return read_as(where, lambda: Moved(row.at, Status(row.status), SubStatus(sub) if sub else None, row.why))


def approval(row: ApprovalRow) -> Approval:
    """An approval as it was signed. Raises InvalidInput where the row names another person or intent than the document."""
    where = f"approvals[{row.number}]"
    found = read_as(where, lambda: Approval.from_json(_object(where, row.body)))
    if (found.intent, found.person) != (row.transfer, row.person):
        raise InvalidInput(where, Rule.ROW_DAMAGED, row.person, found.person)
    return found


def rejection(row: RejectionRow) -> Signed[Rejection]:
    """A no as it was signed."""
    where = f"rejections[{row.number}]"
    found = read_as(where, lambda: Signed.from_json(Rejection, _object(where, row.body)))
    if found.message.intent != row.transfer:
        raise InvalidInput(where, Rule.ROW_DAMAGED, row.transfer.hex(), found.message.intent.hex())
    return found


class EnrolmentValues(NamedTuple):
    """What a row of `enrolments` says."""

    number: int
    chain: str
    address: str
    owner: str
    seen_at: int
    body: str


@lru_cache(maxsize=4096)
def _enrolment(body: str) -> Signed[Enrolment]:
    """Remembered by its text: every withdrawal to an address reads the same one, and nothing in it can change."""
    return Signed.from_json(Enrolment, _object("body", body))


def enrolled(row: EnrolmentRow | EnrolmentValues) -> Enrolled:
    """An enrolment as it was signed. Raises InvalidInput where the row tells another address or owner."""
    where = f"enrolments[{row.number}]"
    found = read_as(where, lambda: _enrolment(row.body))
    message = found.message
    if (message.chain, message.address, message.owner) != (row.chain, row.address, row.owner):
        raise InvalidInput(
            where, Rule.ROW_DAMAGED, f"{row.address} of {row.owner}", f"{message.address} of {message.owner}"
        )
    return Enrolled(found, row.seen_at)


def envelope(row: EnvelopeRow, permit: PermitRow) -> Envelope:
    """Signed bytes as they were stored."""
    anchor = Anchor(permit.chain, permit.wallet, permit.reference)
    return Envelope(row.payout, row.digest, anchor, row.raw)
