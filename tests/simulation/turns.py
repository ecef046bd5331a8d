# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whose turn it is, as seen from outside: a worker that writes in a turn that somebody else has taken since is told."""

from dataclasses import dataclass, field
from typing import Final

from custody.flows.ports import Lease
from tests.simulation.baton import Life

WRITES: Final = frozenset(
    {"Documents.put", "Transfers.update", "Transfers.permit", "Transfers.keep", "Transfers.add", "Journal.append"}
)


@dataclass
class Turns:
    """Told of every call that came through a gate; what a transaction did counts once it is committed."""

    newest: dict[str, int] = field(default_factory=dict)
    """By the name of a turn its newest token."""
    mine: dict[Life, tuple[str, int]] = field(default_factory=dict)
    late: list[str] = field(default_factory=list)
    """Who wrote in a turn that was over."""
    _taken: list[Lease] = field(default_factory=list)
    _writes: list[str] = field(default_factory=list)
    _given_back: bool = False

    def forget(self) -> None:
        """The database is another one, and its tokens begin where they stood there."""
        self.newest.clear()
        self.mine.clear()

    def begin(self) -> None:
        """A write transaction begins."""
        self._taken, self._writes, self._given_back = [], [], False

    def call(self, kind: str, result: object) -> None:
        """A call inside it."""
        method = kind.partition("/")[2]
        if method in WRITES:
            self._writes.append(method)
        elif method == "Leases.acquire" and isinstance(result, Lease):
            self._taken.append(result)
        elif method == "Leases.release":
            self._given_back = True

    def commit(self, life: Life) -> None:
        """It is committed."""
        for lease in self._taken:
            self.newest[lease.name] = max(lease.token, self.newest.get(lease.name, 0))
            if lease.holder == life.holder:
                self.mine[life] = lease.name, lease.token
        if self._given_back:
            self.mine.pop(life, None)
        name, token = self.mine.get(life, ("", 0))
        if self._writes and token < self.newest.get(name, 0):
            told = f"{life.holder} wrote {', '.join(self._writes)} in turn {token} at {name}; turn {self.newest[name]} was taken"
            self.late.append(told)
