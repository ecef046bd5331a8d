# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue: what waits for me, for others, for time, and what is on its way.

Rows of the store, to choose from; the page of a transfer works everything out again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.console.desk import At, Desk
from api.console.registry import Page
from api.console.transfer_view import fills
from custody.flows.ports import Damaged, UnitOfWork
from custody.flows.proposals import requirement_of
from custody.rules.transfers import Status, SubStatus, Transfer

router = APIRouter()
PAGE = Page("queue", "/queue", "Queue", router, 10)
_PAGE: Final = 25
"""Rows of one part that are shown at once: a phone lays them out within a frame."""
_MOST: Final = 2000
_UNCHANGED: Final = 204
PARTS: Final[Mapping[str, str]] = {
    "me": "Waits for you",
    "others": "Waits for others",
    "time": "Waits for time",
    "stopped": "Stopped",
    "way": "On its way",
}


@dataclass(frozen=True)
class Row:
    """One transfer under way, and by whose yes it might go on."""

    transfer: Transfer
    approvers: tuple[str, ...]
    part: str


@dataclass(frozen=True)
class Part:
    """One part of the queue: its rows as far as they are shown, and how many there are."""

    name: str
    title: str
    rows: Sequence[Row]
    total: int
    shown: int


@router.get("/queue")
def get_queue(desk: At, most: Annotated[int, Query(ge=1, le=_MOST)] = _PAGE) -> Response:
    """Everything under way, by whom or what it waits for."""
    return desk.show("queue.html", **_context(desk, most))


@router.get("/queue/rows")
def get_rows(desk: At, seen: str = "", most: Annotated[int, Query(ge=1, le=_MOST)] = _PAGE) -> Response:
    """The rows alone, for a page that asks again; nothing where they are as it has them."""
    context = _context(desk, most)
    if context["version"] == seen:
        return Response(status_code=_UNCHANGED)
    return desk.show("queue_rows.html", **context)


def _context(desk: Desk, most: int) -> dict[str, Any]:
    rows, damaged = _read(desk)
    parts = [_part(name, [row for row in rows if row.part == name], most) for name in PARTS]
    told = [
        (row.transfer.digest, row.transfer.status.value, row.transfer.moved_at, row.part, row.approvers) for row in rows
    ]
    version = sha256(repr((told, len(damaged), most)).encode()).hexdigest()[:32]
    return {"parts": parts, "damaged": damaged, "version": version, "most": most, "more": most * 4}


def _part(name: str, rows: Sequence[Row], most: int) -> Part:
    return Part(name, PARTS[name], rows[:most], len(rows), min(most, len(rows)))


def _read(desk: Desk) -> tuple[list[Row], list[Damaged]]:
    def read(work: UnitOfWork) -> tuple[list[Row], list[Damaged]]:
        found = [*_under_way(work)]
        rows = [_row(desk, work, transfer) for transfer in found if isinstance(transfer, Transfer)]
        return rows, [row for row in found if isinstance(row, Damaged)]

    return desk.store.read(read)


def _under_way(work: UnitOfWork) -> Iterator[Transfer | Damaged]:
    statuses, after, count = [status for status in Status if not status.is_final], 0, 0
    while count < _MOST and (page := work.transfers.examine(after, 500, statuses=statuses)):
        yield from (found for _, found in page)
        after, count = page[-1][0], count + len(page)


def _row(desk: Desk, work: UnitOfWork, transfer: Transfer) -> Row:
    approvers: tuple[str, ...] = ()
    if transfer.status is Status.PENDING_AUTHORIZATION:
        approvers = _approvers(transfer, lambda: [a.person for a in work.transfers.approvals(transfer.digest)])
    return Row(transfer, approvers, _part_of(desk, transfer, approvers))


_known: dict[tuple[bytes, int, str], tuple[str, ...]] = {}
_REMEMBERED: Final = 10_000


def _approvers(transfer: Transfer, read: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    """Who approved it so far: each yes moves a waiting transfer, so that one look serves until it moves again."""
    key = transfer.digest, transfer.moved_at, transfer.waiting_for
    if key not in _known:
        if len(_known) > _REMEMBERED:
            _known.clear()
        _known[key] = tuple(read())
    return _known[key]


def _part_of(desk: Desk, transfer: Transfer, approvers: Sequence[str]) -> str:
    if transfer.status is Status.BLOCKED:
        return "stopped"
    if transfer.sub_status is SubStatus.PENDING_TIME_LOCK:
        return "time"
    if transfer.status is not Status.PENDING_AUTHORIZATION:
        return "way"
    asked = requirement_of(transfer.decision)
    mine = asked is not None and fills(desk.person, asked, approvers, transfer.intent.initiator, desk.roster)
    return "me" if mine else "others"
