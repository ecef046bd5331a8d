# SPDX-License-Identifier: AGPL-3.0-or-later
"""Visits to the console: small rows that come and go, beside everything that only ever grows."""

from collections.abc import Sequence

from sqlmodel import Session, col, delete, select

from custody.flows.ports import Visit
from custody.rules.refusals import Refusal, Refused, Rule
from custody.store.tables import VisitRow


class SqlVisits:
    """Visits inside one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, visit: Visit) -> None:
        """Raises Refused(already_exists)."""
        if self._row(visit.name) is not None:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, kind="visit", key=visit.name.hex())])
        self._session.add(
            VisitRow(
                name=visit.name,
                person=visit.person,
                login=visit.login,
                begun=visit.begun,
                seen=visit.seen,
                until=visit.until,
            )
        )
        self._session.flush()

    def get(self, name: bytes) -> Visit | None:
        """The visit of this name."""
        row = self._row(name)
        return None if row is None else _visit(row)

    def see(self, name: bytes, at: int) -> None:
        """Seen again."""
        row = self._row(name)
        if row is not None and row.seen < at:
            row.seen = at
            self._session.add(row)
            self._session.flush()

    def end(self, name: bytes) -> bool:
        """Whether it was there, and is not any more."""
        row = self._row(name)
        if row is None:
            return False
        self._session.delete(row)
        self._session.flush()
        return True

    def of(self, person: str) -> Sequence[Visit]:
        """Sessions of one person, the newest first."""
        asked = select(VisitRow).where(VisitRow.person == person).order_by(col(VisitRow.begun).desc())
        return [_visit(row) for row in self._session.exec(asked)]

    def forget(self, before: int) -> None:
        """Those that ended."""
        self._session.exec(delete(VisitRow).where(col(VisitRow.until) < before))

    def _row(self, name: bytes) -> VisitRow | None:
        return self._session.exec(select(VisitRow).where(VisitRow.name == name)).first()


def _visit(row: VisitRow) -> Visit:
    return Visit(bytes(row.name), row.person, row.login, row.begun, row.seen, row.until)
