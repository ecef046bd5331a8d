# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the flows need from the world. Small ports; adapters translate errors with operands (STYLE.md, rule 10).

Every port raises `Unavailable` where the outside does not answer; unknown is never a value.
"""

from collections.abc import Callable

from custody.flows.ports.books import Customers, Deposit, Deposits, Examined, Journal
from custody.flows.ports.listing import NEWEST, Event, EventKind, Listing, spread
from custody.flows.ports.mirror import Documents, Enrolled, Enrolments
from custody.flows.ports.moving import Damaged, Lease, Leases, Moved, Transfers
from custody.flows.ports.outside import Prices, PriceSource
from custody.flows.ports.paying import Anchors, FeeBumper, PayoutChain
from custody.flows.ports.reading import AddressDeriver, Branch, ChainView, OutpointReader, PayoutReader, SafeReader
from custody.flows.ports.signers import AddressBinder, AttestorMemory, AttestorPort, SeatPort
from custody.flows.ports.storing import Store, UnitOfWork
from custody.flows.ports.visiting import Visit, Visits

Clock = Callable[[], int]
"""Seconds since 1970."""

__all__ = [
    "NEWEST",
    "AddressBinder",
    "AddressDeriver",
    "Anchors",
    "AttestorMemory",
    "AttestorPort",
    "Branch",
    "ChainView",
    "Clock",
    "Customers",
    "Damaged",
    "Deposit",
    "Deposits",
    "Documents",
    "Enrolled",
    "Enrolments",
    "Event",
    "EventKind",
    "Examined",
    "FeeBumper",
    "Journal",
    "Lease",
    "Leases",
    "Listing",
    "Moved",
    "OutpointReader",
    "PayoutChain",
    "PayoutReader",
    "PriceSource",
    "Prices",
    "SafeReader",
    "SeatPort",
    "Store",
    "Transfers",
    "UnitOfWork",
    "Visit",
    "Visits",
    "spread",
]
