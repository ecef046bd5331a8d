# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mirror of signed enrolments, each with its first sight: whoever reads one verifies its signatures again."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam
from sqlalchemy import select as select_of
from sqlmodel import Session, col, select

from custody.flows.ports import Enrolled
from custody.rules.certificates import Enrolment
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.signatures import Signed
from custody.store.tables import EnrolmentRow, table_of
from custody.store.transfers_mapping import enrolled, text

_table = table_of(EnrolmentRow)
_AT: Final = (
    select_of(_table)
    .where(_table.c.chain == bindparam("of_chain"), _table.c.address == bindparam("of_address"))
    .order_by(_table.c.number.desc())
)
"""Asked for every proposal: written once, and read without a mapped object around each row."""


class SqlEnrolments:
    """Enrolments inside one transaction."""

    def __init__(self, session: Session, connection: Connection) -> None:
        self._session, self._connection = session, connection

    def add(self, signed: Signed[Enrolment], at: int) -> None:
        """Record once. Raises Refused(already_exists) for the same enrolment with other signatures."""
        message, body = signed.message, text(signed.to_json())
        digest = message.struct_hash
        row = self._row(digest)
        if row is not None and row.body != body:
            raise Refused([Refusal(Rule.ALREADY_EXISTS, address=message.address, enrolment=digest.hex())])
        if row is None:
            self._session.add(
                EnrolmentRow(
                    digest=digest,
                    chain=message.chain,
                    address=message.address,
                    owner=message.owner,
                    seen_at=at,
                    body=body,
                )
            )
            self._session.flush()

    def get(self, digest: bytes) -> Enrolled | None:
        """By struct hash."""
        row = self._row(digest)
        return None if row is None else enrolled(row)

    def at(self, chain: str, address: str) -> Sequence[Enrolled]:
        """Of one address, the newest first."""
        return [enrolled(row) for row in self._connection.execute(_AT, {"of_chain": chain, "of_address": address})]

    def of(self, owner: str) -> Sequence[Enrolled]:
        """Of one owner, the newest first."""
        wanted = select(EnrolmentRow).where(EnrolmentRow.owner == owner)
        return [enrolled(row) for row in self._session.exec(wanted.order_by(col(EnrolmentRow.number).desc()))]

    def page(self, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, Enrolled]]:
        """Above a number, ascending."""
        wanted = select(EnrolmentRow).where(col(EnrolmentRow.number) > after).order_by(col(EnrolmentRow.number))
        return [(row.number or 0, enrolled(row)) for row in self._session.exec(wanted.limit(limit))]

    def _row(self, digest: bytes) -> EnrolmentRow | None:
        return self._session.exec(select(EnrolmentRow).where(EnrolmentRow.digest == digest)).first()
