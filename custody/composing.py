# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every process is composed of that judges transfers: genesis, rosters, the bundle in force, lists, freezes; one `Kernel`.

Web process and worker compose it alike from here, which reaches no chain and no vault: who derives addresses and who tells the
time is handed in. Genesis comes from a file of the home folder, never from the database; everything mirrored is verified from it.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from custody.flows.freezes import FreezeReader
from custody.flows.inventory import InventoryReader
from custody.flows.kernel import Kernel
from custody.flows.mirror import ACTIVATION, ROSTER, rosters_from
from custody.flows.ports import AddressDeriver, Clock, Store, UnitOfWork
from custody.flows.prices import MirrorPrices
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.seat_request import Policies
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Address, Chain
from custody.seating import in_force
from policies import activation
from policies.bundle import Bundle

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


def check_activation(bundle: Bundle, work: UnitOfWork, roster: Roster, now: int) -> Iterator[Refusal]:
    """Whether policy owners put exactly this bundle in force; the mirror's row is worth what its signatures are."""
    document = work.documents.get(ACTIVATION, bundle.hash.hex())
    if document is None:
        yield Refusal(Rule.SIGNATURE_MISSING, document="PolicyActivation", bundle=bundle.hash.hex())
    else:
        yield from activation.check(Signed.from_json(PolicyActivation, dict(document)), bundle, ZERO32, roster, now)


def maximum_fees(assets: Assets) -> dict[Chain, int]:
    """What one intent may cost its wallet on each chain, in base units; nothing on EVM, where the relayer pays."""
    return {chain: 0 if chain.is_evm else BITCOIN_MAXIMUM_FEE for chain in assets.chains}


class NobodyListed:
    """Implements `Screening` while there is no signed registry of related parties and sanctions.

    The attestor does the same where it is given none; a list in one process alone would bind nobody else.
    """

    def is_related(self, account: str, address: Address) -> bool:  # noqa: ARG002  # the port's
        """See `Screening`."""
        return False

    def is_sanctioned(self, address: Address) -> bool:  # noqa: ARG002  # the port's
        """See `Screening`."""
        return False


class MirrorKernel:
    """Reads a mirror into a `Kernel`: each call afresh, verified from genesis on. `told` is the attestor's time.

    Raises Refused and InvalidInput where the mirror does not hold, and Unavailable where somebody who is asked is silent.
    """

    def __init__(
        self,
        store: Store,
        genesis: bytes,
        bundle: Bundle,
        derive: AddressDeriver,
        told: Clock,
        wall: Clock = wall_clock,
    ) -> None:
        self._store, self._genesis, self._bundle, self._derive = store, genesis, bundle, derive
        self._told, self._wall = told, wall
        self._inventories, self._freezes = InventoryReader(derive), FreezeReader()
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

    def __call__(self) -> Kernel:
        """The kernel as of now. Raises Refused where owners did not put exactly the bundle at hand in force."""
        rosters, bundle = self.rosters(), self._bundle
        newest, now = rosters[-1], self.time_of(rosters[-1])

        def read(work: UnitOfWork) -> Kernel:
            raise_if(check_activation(bundle, work, newest, now))
            return Kernel(
                rosters=rosters,
                inventory=self._inventories.read(work, newest),
                policies=Policies(in_force(bundle), {}),
                derive=self._derive,
                prices=self._prices,
                screening=NobodyListed(),
                maximum_fee=maximum_fees(bundle.assets),
                freezes=self._freezes.read(work, newest, now),
                frozen_by=self._freezes.people,
            )

        return self._store.read(read)

    def time_of(self, roster: Roster) -> int:
        """As `clock`, by a roster at hand."""
        wall = self._wall()
        return max(self._told(), wall) if roster.version.clock == "statement" else wall
