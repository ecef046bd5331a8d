# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ORM's session of one unit of work, made when something first asks for it: a proposal never does."""

from sqlalchemy import Connection
from sqlmodel import Session


class Sessions:
    """Makes at most one session over a transaction that others begin and end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._made: Session | None = None

    def __call__(self) -> Session:
        """The session; it never begins or commits anything by itself."""
        if self._made is None:
            if not self._connection.in_transaction():
                self._connection.begin()  # else the session would begin, and end, one of its own
            self._made = Session(self._connection, join_transaction_mode="rollback_only", autoflush=False)
        return self._made

    def forget(self) -> None:
        """Rows were changed behind the session: it reads them again."""
        if self._made is not None:
            self._made.expire_all()
