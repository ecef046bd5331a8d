# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mirror of signed documents: whoever reads one verifies its signatures again."""

from collections.abc import Mapping, Sequence

from sqlmodel import Session, col, select

from custody.rules.ledger import canonical
from custody.rules.refusals import Refusal, Refused, Rule
from custody.store.mapping import document
from custody.store.tables import DocumentRow


class SqlDocuments:
    """Documents inside one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def put(self, kind: str, key: str, body: Mapping[str, object]) -> None:
        """Store once; another body under the same key raises Refused(already_exists)."""
        text = canonical(dict(body)).decode()
        row = self._row(kind, key)
        if row is not None and row.body != text:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, kind=kind, key=key)])
        if row is None:
            self._session.add(DocumentRow(kind=kind, key=key, body=text))
            self._session.flush()

    def get(self, kind: str, key: str) -> Mapping[str, object] | None:
        """One document's JSON. Raises InvalidInput on a damaged row."""
        row = self._row(kind, key)
        return None if row is None else document(row.kind, row.key, row.body)

    def all(self, kind: str) -> Sequence[Mapping[str, object]]:
        """Every document of a kind in the order they were stored. Raises InvalidInput on a damaged row."""
        rows = self._session.exec(select(DocumentRow).where(DocumentRow.kind == kind).order_by(col(DocumentRow.number)))
        return [document(row.kind, row.key, row.body) for row in rows]

    def _row(self, kind: str, key: str) -> DocumentRow | None:
        return self._session.exec(select(DocumentRow).where(DocumentRow.kind == kind, DocumentRow.key == key)).first()
