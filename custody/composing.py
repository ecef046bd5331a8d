# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every process is composed of that judges transfers: genesis, rosters, the bundle in force, freezes; one `Kernel`.

Web process and worker compose it alike from here, which reaches no chain and no vault: who derives addresses and who tells the
time is handed in. Genesis comes from a file of the home folder, never from the database; everything mirrored is verified from it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from custody.flows.freezes import FreezeReader
from custody.flows.inventory import InventoryReader
from custody.flows.kernel import Kernel
from custody.flows.mirror import ROSTER, rosters_from
from custody.flows.ports import AddressDeriver, Clock, Store, UnitOfWork
from custody.flows.prices import MirrorPrices
from custody.governing import BundleReader, check_registry, policies_of
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import Roster
from custody.rules.wallets import Chain
from policies.succession import Lineage

GENESIS: Final = "genesis"
BITCOIN_MAXIMUM_FEE: Final = 50_000
"""Satoshi that one intent may cost its wallet; it stands in the intent, where people approve it and seats hold to it."""


def wall_clock() -> int:
    """Seconds since 1970 by this machine."""
    return int(time.time())


def read_genesis(home: Path) -> bytes:
    """The 32 bytes that this home was born with; raises InvalidInput before birth."""
    try:
        raw = bytes.fromhex((home / GENESIS).read_text(encoding="ascii").strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        got, want = "no genesis in the home folder", "run `bulkhead init`"
        raise InvalidInput("genesis", Rule.WRONG_GENESIS, got, want) from error
    if len(raw) != 32:
        raise InvalidInput("genesis", Rule.WRONG_GENESIS, f"{len(raw)} bytes", "32 bytes in hex")
    return raw


def maximum_fees(assets: Assets) -> dict[Chain, int]:
    """What one intent may cost its wallet on each chain, in base units; nothing on EVM, where the relayer pays."""
    return {chain: 0 if chain.is_evm else BITCOIN_MAXIMUM_FEE for chain in assets.chains}


def assets_in_force(store: Store, genesis: bytes, first: Assets, told: Clock, wall: Clock = wall_clock) -> Assets:
    """The registry that a process opens its books by, out of a store that was opened by the first bundle's.

    `told` is the attestor's time. Where the mirror does not hold, or no bundle is in force, it is the first one's: what is composed
    on it says why as soon as it is asked, and `check_registry` stops it where another one is in force.
    """
    reader = BundleReader()

    def read(work: UnitOfWork) -> Assets:
        rosters = rosters_from(work.documents.all(ROSTER), genesis, wall())
        now = max(told(), wall()) if rosters[-1].version.clock == "statement" else wall()
        return reader.read(work, rosters, now).newest.bundle.assets

    try:
        return store.read(read)
    except (Refused, InvalidInput, Unavailable):
        return first


class MirrorKernel:
    """Reads a mirror into a `Kernel`: each call afresh, verified from genesis on. `told` is the attestor's time.

    `opened` is the asset registry by which the store reads its books. Raises Refused and InvalidInput where the mirror does not
    hold, and Unavailable where somebody who is asked is silent.
    """

    def __init__(
        self,
        store: Store,
        genesis: bytes,
        opened: Assets,
        derive: AddressDeriver,
        told: Clock,
        wall: Clock = wall_clock,
    ) -> None:
        self._store, self._genesis, self._opened, self._derive = store, genesis, opened, derive
        self._told, self._wall = told, wall
        self._inventories, self._freezes, self._bundles = InventoryReader(derive), FreezeReader(), BundleReader()
        self._prices = MirrorPrices(store, lambda: self.rosters()[-1])
        self._known: tuple[Sequence[object], tuple[Roster, ...]] = (), ()

    def rosters(self) -> tuple[Roster, ...]:
        """Every roster that is or was in force, oldest first."""
        documents = self._store.read(lambda work: work.documents.all(ROSTER))
        known, rosters = self._known
        if documents != known or len(rosters) != len(documents):  # or one is still to come into force
            rosters = rosters_from(documents, self._genesis, self._wall())
            if len(rosters) != len(documents) and rosters[-1].version.clock == "statement":
                rosters = rosters_from(documents, self._genesis, self.time_of(rosters[-1]))
            self._known = documents, rosters
        return rosters

    def clock(self) -> int:
        """Seconds since 1970: the statement's time where genesis declares that for a devnet (TRUST.md), else this machine's."""
        return self.time_of(self.rosters()[-1])

    def lineage(self) -> Lineage:
        """Every bundle that is or was in force as of now, and what waits."""
        rosters = self.rosters()
        now = self.time_of(rosters[-1])
        return self._store.read(lambda work: self._bundles.read(work, rosters, now))

    def __call__(self) -> Kernel:
        """The kernel as of now. Raises Refused where owners put no bundle in force, Unavailable where its assets are others."""
        rosters = self.rosters()
        newest, now = rosters[-1], self.time_of(rosters[-1])

        def read(work: UnitOfWork) -> Kernel:
            lineage = self._bundles.read(work, rosters, now)
            check_registry(lineage.newest.bundle, self._opened)
            return Kernel(
                rosters=rosters,
                inventory=self._inventories.read(work, newest),
                policies=policies_of(lineage),
                derive=self._derive,
                prices=self._prices,
                maximum_fee=maximum_fees(lineage.newest.bundle.assets),
                freezes=self._freezes.read(work, newest, now),
                frozen_by=self._freezes.people,
            )

        return self._store.read(read)

    def time_of(self, roster: Roster) -> int:
        """As `clock`, by a roster at hand."""
        wall = self._wall()
        return max(self._told(), wall) if roster.version.clock == "statement" else wall
