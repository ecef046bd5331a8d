# SPDX-License-Identifier: AGPL-3.0-or-later
"""Leases: one row per name, whose token only grows. Both databases have one writer at a time, so what is read here stands."""

from dataclasses import replace

from sqlalchemy import Connection

from custody.flows.ports import Lease
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.store.statements import ADD_LEASE, LEASE, SET_LEASE, Cursor


class SqlLeases:
    """Leases inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = Cursor(connection)

    def acquire(self, name: str, holder: str, now: int, seconds: int) -> Lease:
        """A turn with a new token, or the lease of whoever has it. Raises InvalidInput."""
        if not name or not holder or seconds < 1:
            raise InvalidInput(
                "lease", Rule.MALFORMED, f"{name!r}, {holder!r}, {seconds}", "a name, a holder, some time"
            )
        known = self._get(name)
        if known is not None and known.holder not in ("", holder) and known.until > now:
            return known
        if known is None:
            mine = Lease(name, holder, 1, now + seconds)
            self._cursor.write(ADD_LEASE, (name, holder, mine.token, mine.until))
        else:
            mine = Lease(name, holder, known.token + 1, now + seconds)
            self._set(mine)
        return mine

    def check(self, lease: Lease) -> None:
        """Raises Unavailable where this turn is over."""
        self._standing(lease)

    def renew(self, lease: Lease, now: int, seconds: int) -> Lease:
        """The same turn for longer. Raises Unavailable."""
        known = self._standing(lease)
        longer = replace(known, until=max(known.until, now + seconds))
        self._set(longer)
        return longer

    def release(self, lease: Lease) -> None:
        """Nobody's turn; the token stays, for the next one to be above it."""
        known = self._get(lease.name)
        if known is not None and (known.holder, known.token) == (lease.holder, lease.token):
            self._set(replace(known, holder="", until=0))

    def _standing(self, lease: Lease) -> Lease:
        known = self._get(lease.name)
        if known is None or (known.holder, known.token) != (lease.holder, lease.token):
            raise Unavailable(f"lease {lease.name}", f"lease lost: turn {lease.token} is over")
        return known

    def _get(self, name: str) -> Lease | None:
        rows = self._cursor.rows(LEASE, name)
        return Lease(name, str(rows[0][0]), int(rows[0][1]), int(rows[0][2])) if rows else None

    def _set(self, lease: Lease) -> None:
        self._cursor.write(SET_LEASE, (lease.holder, lease.token, lease.until, lease.name))
