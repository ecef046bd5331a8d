# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transactions over everything that is kept."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from custody.flows.ports.books import Customers, Deposits, Journal
from custody.flows.ports.listing import Listing
from custody.flows.ports.mirror import Documents, Enrolments
from custody.flows.ports.moving import Leases, Transfers
from custody.flows.ports.visiting import Visits

T = TypeVar("T")


class UnitOfWork(Protocol):
    """One transaction's worth of the store."""

    @property
    def journal(self) -> Journal:
        """The journal and its balances."""
        ...

    @property
    def deposits(self) -> Deposits:
        """Sightings and followed blocks."""
        ...

    @property
    def customers(self) -> Customers:
        """Customers and their addresses."""
        ...

    @property
    def documents(self) -> Documents:
        """The mirror of signed documents."""
        ...

    @property
    def transfers(self) -> Transfers:
        """Transfers, approvals, permits and signed bytes."""
        ...

    @property
    def enrolments(self) -> Enrolments:
        """The mirror of enrolments."""
        ...

    @property
    def leases(self) -> Leases:
        """Whose turn it is among several workers."""
        ...

    @property
    def visits(self) -> Visits:
        """Who has the console open in which browser."""
        ...

    @property
    def listing(self) -> Listing:
        """Everything that people leaf through, the newest first."""
        ...


class Store(Protocol):
    """Transactions as functions, so that a store may put many into one commit."""

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one serialisable write transaction and commit; on any exception nothing of it remains.

        The work may run more than once (a serialisation failure is tried again), so it touches nothing but its unit of work.
        """
        ...

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """Run work in one consistent snapshot that cannot write."""
        ...
