# SPDX-License-Identifier: AGPL-3.0-or-later
"""Puts the web process together from a home folder: store, roster, bundle, prices, deriver and attestor, and nothing that can sign.

`custody.bootstrap` composes the other processes and reaches chains and vault; here only what this process may reach is named. Genesis
comes from a file of the home, never from the database; everything mirrored is verified from there, again whenever it changed.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from api.attesting import SocketAttestor, StatementClock, Statements
from api.deriving import RemoteDeriver
from api.parts import ApiParts
from custody.flows.inventory import InventoryReader
from custody.flows.kernel import Kernel
from custody.flows.mirror import ACTIVATION, ROSTER, rosters_from
from custody.flows.ports import Clock, Store, UnitOfWork
from custody.flows.prices import MirrorPrices
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.seat_request import BundleInForce, Policies
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Address
from custody.settings import Settings
from custody.store import open_store
from policies import activation
from policies.bundle import Bundle, load

T = TypeVar("T")
_LOG: Final = logging.getLogger("bulkhead.api")
_KEPT: Final = 1.0
"""Seconds for which what was read and verified serves: how late a revoked key is refused at the most."""


BITCOIN_MAXIMUM_FEE: Final = 50_000
"""Satoshi that one intent may cost its wallet; it stands in the intent, where people approve it and seats hold to it."""


class Fresh(Generic[T]):
    """A value that is read again once it is older than a second. Whatever is wrong with the mirror is Unavailable: fail closed."""

    def __init__(self, what: str, read: Callable[[], T]) -> None:
        self._what, self._read = what, read
        self._turn = threading.Lock()
        self._value: tuple[float, T] | None = None

    def __call__(self) -> T:
        """The value."""
        with self._turn:
            if self._value is None or time.monotonic() - self._value[0] >= _KEPT:
                try:
                    self._value = time.monotonic(), self._read()
                except (
                    Refused,
                    InvalidInput,
                ) as error:  # not the caller's fault, and nothing to tell a stranger in full
                    raise Unavailable(self._what, str(error)[:300]) from error
            return self._value[1]


@dataclass(frozen=True)
class _Mirror:
    """Reads the mirror, verified from this home's genesis on."""

    store: Store
    genesis: bytes
    bundle: Bundle
    clock: Callable[[Roster], Clock]

    def rosters(self) -> Sequence[Roster]:
        """Every roster that is or was in force, oldest first."""
        versions = self.store.read(lambda work: work.documents.all(ROSTER))
        wall = int(time.time())
        first = rosters_from(versions, self.genesis, wall)
        return rosters_from(versions, self.genesis, max(wall, self.clock(first[-1])()))

    def policies(self, work: UnitOfWork, roster: Roster, now: int) -> Policies:
        """The bundle on disk, where its owners put exactly this one in force."""
        document = work.documents.get(ACTIVATION, self.bundle.hash.hex())
        if document is None:
            raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="PolicyActivation", bundle=self.bundle.hash.hex())])
        signed = Signed.from_json(PolicyActivation, dict(document))
        raise_if(activation.check(signed, self.bundle, ZERO32, roster, now))
        return Policies(BundleInForce(self.bundle.policy, self.bundle.assets, self.bundle.fees), {})


class NoLists:
    """Implements `Screening` while there is no signed registry of related parties and sanctions: nobody is listed.

    The attestor does the same where it is given none; a list in this process alone would bind nobody else.
    """

    def is_related(self, account: str, address: Address) -> bool:  # noqa: ARG002  # the port's
        """See `Screening`."""
        return False

    def is_sanctioned(self, address: Address) -> bool:  # noqa: ARG002  # the port's
        """See `Screening`."""
        return False


def open_parts(home: Path) -> ApiParts:
    """The parts of a born deployment. Raises InvalidInput before birth; what is not verified yet raises when it is asked for."""
    settings = Settings.load(home)
    bundle = load(Path(settings.bundle))
    store = open_store(settings.database, bundle.assets)
    attestor = SocketAttestor(Path(settings.attestor.socket))
    derive = RemoteDeriver(Path(settings.deriver_socket))
    statement_clock = StatementClock(attestor, wall_clock)

    def clock_of(roster: Roster) -> Clock:
        return statement_clock if roster.version.clock == "statement" else wall_clock

    mirror = _Mirror(store, read_genesis(home), bundle, clock_of)
    rosters = Fresh("the roster", mirror.rosters)
    reader = InventoryReader(derive)

    def roster() -> Roster:
        return rosters()[-1]

    def clock() -> int:
        return clock_of(roster())()

    prices = MirrorPrices(store, roster)
    maximum_fee = {chain: 0 if chain.is_evm else BITCOIN_MAXIMUM_FEE for chain in bundle.assets.chains}

    def read_kernel() -> Kernel:
        known, now = rosters(), clock()

        def read(work: UnitOfWork) -> Kernel:
            policies = mirror.policies(work, known[-1], now)
            inventory = reader.read(work, known[-1])
            return Kernel(known, inventory, policies, derive, prices, NoLists(), maximum_fee)

        return store.read(read)

    statements = Statements(store, attestor, roster, wall_clock)
    kernel = Fresh("what transfers are judged by", read_kernel)
    begun = wall_clock()
    return ApiParts(store, roster, kernel, attestor, statements, wall_clock, clock, secrets.token_bytes, begun)


def wall_clock() -> int:
    """Seconds since 1970 by this machine."""
    return int(time.time())


def read_genesis(home: Path) -> bytes:
    """The 32 bytes that this home was born with; raises InvalidInput before birth."""
    try:
        raw = bytes.fromhex((home / "genesis").read_text(encoding="ascii").strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise InvalidInput("genesis", Rule.WRONG_GENESIS, "no genesis in the home", "run `bulkhead init`") from error
    if len(raw) != 32:
        raise InvalidInput("genesis", Rule.WRONG_GENESIS, f"{len(raw)} bytes", "32 bytes in hex")
    return raw
