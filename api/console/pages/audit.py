# SPDX-License-Identifier: AGPL-3.0-or-later
"""The trail: every move of a transfer, every yes and no as it was signed, enrolments, and each signed document that was mirrored.

The ledger has a page of its own. A row here is what the database says; the signature inside it is what an auditor goes by.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.console.desk import At, Desk
from api.console.registry import Page
from api.console.sheets import attachment, cells
from custody.flows.ports import NEWEST, Event, EventKind

router = APIRouter()
PAGE = Page("audit", "/audit", "Audit", router, 70)
ROWS: Final = 50
_CHUNK: Final = 500
WORDS: Final[Mapping[EventKind, str]] = {
    EventKind.MOVED: "moves of transfers",
    EventKind.APPROVED: "approvals",
    EventKind.REJECTED: "rejections",
    EventKind.ENROLLED: "enrolled addresses",
    EventKind.DOCUMENT: "signed documents",
}
COLUMNS: Final = ("number", "at", "kind", "about", "person", "text", "body")
_Text = Annotated[str, Query(max_length=200)]
_Number = Annotated[int, Query(ge=1, le=NEWEST)]


@router.get("/audit")
def get_audit(desk: At, before: _Number = NEWEST, kind: str = "", about: _Text = "", person: _Text = "") -> Response:
    """A page of one kind of event, the newest first."""
    chosen = _kind(kind)
    events = _read(desk, chosen, before, ROWS, about.strip(), person.strip())
    return desk.show(
        "audit.html",
        events=events,
        older=events[-1].number if len(events) == ROWS else 0,
        first=before == NEWEST,
        kinds=list(WORDS.items()),
        kind=chosen,
        about=about.strip(),
        by=person.strip(),
        people=[each.id for each in desk.roster.version.people],
    )


@router.get("/audit/export.{form}")
def get_export(desk: At, form: str, kind: str = "", about: _Text = "", person: _Text = "") -> Response:
    """The same without an end, as JSON lines or as CSV, read page by page as it is sent."""
    chosen, lines = _kind(kind), form != "csv"

    def rows() -> Iterator[str]:
        before = NEWEST
        if not lines:
            yield cells(*COLUMNS)
        while page := _read(desk, chosen, before, _CHUNK, about.strip(), person.strip()):
            for each in page:
                told = {name: getattr(each, name) for name in COLUMNS}
                yield json.dumps(told) + "\n" if lines else cells(*told.values())
            before = page[-1].number

    return attachment(rows(), f"audit-{chosen.value}.{'jsonl' if lines else 'csv'}")


def _kind(text: str) -> EventKind:
    return EventKind(text) if text in set(EventKind) else EventKind.MOVED


def _read(desk: Desk, kind: EventKind, before: int, limit: int, about: str, person: str) -> list[Event]:
    return list(desk.store.read(lambda work: work.listing.events(kind, before, limit, about=about, person=person)))
