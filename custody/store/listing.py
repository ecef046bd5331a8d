# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pages for people, the newest first: every query ends at an index or at its limit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, literal, or_, select
from sqlmodel import Session, col
from sqlmodel import select as rows_of

from custody.flows.ports import Deposit, Event, EventKind, spread
from custody.rules.amounts import Asset, Assets
from custody.rules.deposits import DepositStatus
from custody.rules.ledger import Account, AccountKind, JournalEntry
from custody.store.journal import SqlJournal
from custody.store.mapping import deposit, document
from custody.store.tables import (
    ApprovalRow,
    BalanceRow,
    DepositRow,
    DocumentRow,
    EnrolmentRow,
    PostingRow,
    RejectionRow,
    TransferMoveRow,
    TransferRow,
    table_of,
)

_postings, _balances, _transfers = table_of(PostingRow), table_of(BalanceRow), table_of(TransferRow)
_moves, _approvals, _rejections = table_of(TransferMoveRow), table_of(ApprovalRow), table_of(RejectionRow)
_documents, _enrolments = table_of(DocumentRow), table_of(EnrolmentRow)


class SqlListing:
    """Pages inside one transaction."""

    def __init__(
        self, connection: Connection, sessions: Callable[[], Session], journal: SqlJournal, assets: Assets
    ) -> None:
        self._connection, self._sessions, self._journal, self._assets = connection, sessions, journal, assets

    def entries(self, before: int, limit: int, accounts: Sequence[Account] = ()) -> Sequence[JournalEntry]:
        """Descending; by the index of each account and asset where accounts are named."""
        if not accounts:
            newest = min(before - 1, self._journal.head().position)
            return self._journal.read(max(0, newest - limit), limit)[: max(0, newest)][::-1]
        found: set[int] = set()
        for account in accounts:
            for asset in self._assets:
                mine = (_postings.c.account == str(account), _postings.c.asset == asset.symbol)
                asked = select(_postings.c.position).where(*mine, _postings.c.position < before)
                asked = asked.order_by(_postings.c.position.desc()).distinct().limit(limit)
                found.update(self._connection.execute(asked).scalars())
        read = (self._journal.get(position) for position in sorted(found, reverse=True)[:limit])
        return [entry for entry in read if entry is not None]

    def balances(self, kind: AccountKind, limit: int) -> Sequence[tuple[Account, Asset, int]]:
        """By name, out of the kept balances."""
        of_kind = or_(
            _balances.c.account == kind.value, _balances.c.account.startswith(f"{kind.value}:", autoescape=True)
        )
        asked = select(_balances.c.account, _balances.c.asset, _balances.c.units).where(of_kind)
        rows = self._connection.execute(asked.order_by(_balances.c.account, _balances.c.asset).limit(limit))
        return [(Account.parse(a), self._assets.get(s), int(units)) for a, s, units in rows if units]

    def deposits(
        self, before: int, limit: int, status: DepositStatus | None = None, addresses: Sequence[str] = ()
    ) -> Sequence[tuple[int, Deposit]]:
        """Descending by the order in which they were first seen."""
        asked = rows_of(DepositRow).where(col(DepositRow.number) < before)
        if status is not None:
            asked = asked.where(DepositRow.status == status.value)
        if addresses:
            asked = asked.where(col(DepositRow.address).in_(list(addresses)))
        rows = self._sessions().exec(asked.order_by(col(DepositRow.number).desc()).limit(limit))
        return [(row.number or 0, deposit(row, self._assets)) for row in rows]

    def numbers(self, kind: str, most: int) -> Sequence[int]:
        """Ascending, spread evenly."""
        asked = select(_documents.c.number).where(_documents.c.kind == kind).order_by(_documents.c.number)
        return spread(self._connection.execute(asked).scalars().all(), most)

    def document(self, kind: str, number: int) -> Mapping[str, object] | None:
        """By its number."""
        named = (_documents.c.kind == kind, _documents.c.number == number)
        row = self._connection.execute(select(_documents.c.key, _documents.c.body).where(*named)).first()
        return None if row is None else document(kind, row.key, row.body)

    def events(self, kind: EventKind, before: int, limit: int, *, about: str = "", person: str = "") -> Sequence[Event]:
        """Descending; none where a kind of event has no person."""
        asked, of_person = _EVENTS[kind]
        if person:
            if of_person is None:
                return []
            asked = asked.where(of_person == person)
        if about:
            asked = asked.where(asked.selected_columns.about == about)
        number = asked.selected_columns.number
        rows = self._connection.execute(asked.where(number < before).order_by(number.desc()).limit(limit))
        return [Event(row.number, row.at, kind, row.about, row.person, row.text, row.body) for row in rows]


def _of_transfer(table: Any, at: Any, person: Any, text: Any, body: Any) -> Select[Any]:  # noqa: ANN401 - columns
    columns = (table.c.number, at.label("at"), _transfers.c.id.label("about"))
    said = (person.label("person"), text.label("text"), body.label("body"))
    return select(*columns, *said).join(_transfers, _transfers.c.digest == table.c.transfer)


_NONE: Final = literal("")
_EVENTS: Final[Mapping[EventKind, tuple[Select[Any], Any]]] = {
    EventKind.MOVED: (
        _of_transfer(
            _moves,
            _moves.c.at,
            _NONE,
            _moves.c.status + literal(" ") + _moves.c.sub_status + literal(" ") + _moves.c.why,
            _NONE,
        ),
        None,
    ),
    EventKind.APPROVED: (
        _of_transfer(_approvals, _approvals.c.at, _approvals.c.person, _NONE, _approvals.c.body),
        _approvals.c.person,
    ),
    EventKind.REJECTED: (
        _of_transfer(_rejections, _rejections.c.at, _rejections.c.person, _NONE, _rejections.c.body),
        _rejections.c.person,
    ),
    EventKind.ENROLLED: (
        select(
            _enrolments.c.number,
            _enrolments.c.seen_at.label("at"),
            _enrolments.c.address.label("about"),
            _NONE.label("person"),
            _enrolments.c.owner.label("text"),
            _enrolments.c.body.label("body"),
        ),
        None,
    ),
    EventKind.DOCUMENT: (
        select(
            _documents.c.number,
            literal(0).label("at"),
            _documents.c.key.label("about"),
            _NONE.label("person"),
            _documents.c.kind.label("text"),
            _documents.c.body.label("body"),
        ),
        None,
    ),
}
