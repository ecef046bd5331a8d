# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mirror of signed enrolments, each with its first sight: whoever reads one verifies its signatures again."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection
from sqlmodel import col, select

from custody.flows.ports import Damaged, Enrolled
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Signed
from custody.store.sessions import Sessions
from custody.store.statements import Cursor
from custody.store.tables import EnrolmentRow
from custody.store.transfers_mapping import EnrolmentValues, enrolled, text

_AT: Final = "SELECT number, chain, address, owner, seen_at, body FROM enrolments WHERE chain = ? AND address = ? ORDER BY number DESC"
"""Asked for every proposal, straight of the driver."""


class SqlEnrolments:
    """Enrolments inside one transaction."""

    def __init__(self, sessions: Sessions, connection: Connection) -> None:
        self._sessions, self._cursor = sessions, Cursor(connection)

    def add(self, signed: Signed[Enrolment], at: int) -> None:
        """Record once. Raises Refused(already_exists) for the same enrolment with other signatures."""
        message, body = signed.message, text(signed.to_json())
        digest = message.struct_hash
        row = self._row(digest)
        if row is not None and row.body != body:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, address=message.address, enrolment=digest.hex())])
        if row is None:
            self._sessions().add(
                EnrolmentRow(
                    digest=digest,
                    chain=message.chain,
                    address=message.address,
                    owner=message.owner,
                    seen_at=at,
                    body=body,
                )
            )
            self._sessions().flush()

    def get(self, digest: bytes) -> Enrolled | None:
        """By struct hash."""
        row = self._row(digest)
        return None if row is None else enrolled(row)

    def at(self, chain: str, address: str) -> Sequence[Enrolled]:
        """Of one address, the newest first."""
        return [enrolled(EnrolmentValues(*row)) for row in self._cursor.rows(_AT, chain, address)]

    def of(self, owner: str) -> Sequence[Enrolled]:
        """Of one owner, the newest first."""
        wanted = select(EnrolmentRow).where(EnrolmentRow.owner == owner)
        return [enrolled(row) for row in self._sessions().exec(wanted.order_by(col(EnrolmentRow.number).desc()))]

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, Enrolled | Damaged]]:
        """Above a number, ascending."""
        wanted = select(EnrolmentRow).where(col(EnrolmentRow.number) > after).order_by(col(EnrolmentRow.number))
        return [(row.number or 0, _examined(row)) for row in self._sessions().exec(wanted.limit(limit))]

    def _row(self, digest: bytes) -> EnrolmentRow | None:
        return self._sessions().exec(select(EnrolmentRow).where(EnrolmentRow.digest == digest)).first()


def _examined(row: EnrolmentRow) -> Enrolled | Damaged:
    try:
        return enrolled(row)
    except InvalidInput as error:
        told = {"table": "enrolments", "digest": row.digest.hex(), "why": str(error)}
        return Damaged(row.digest.hex(), Refusal(Rule.ROW_DAMAGED, **told))
