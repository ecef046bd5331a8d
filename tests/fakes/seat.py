# SPDX-License-Identifier: AGPL-3.0-or-later
"""A vault in memory that can die at any write, and a small deployment: people, seats, roster, certificates, all signed truly."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from custody.chains.evm import pins
from custody.chains.evm.safes import SafeContracts
from custody.chains.scripts import check_script, descriptor_builder, safe_builder
from custody.flows.birth import draft_wallet
from custody.flows.ports import SeatPort
from custody.keyfiles import Ed25519Signer, Secp256k1Signer, Signer
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import Person, Roster, RosterSeat, RosterVersion, Thresholds
from custody.rules.signatures import Key, Signed
from custody.rules.typed import ZERO32, Domain, Struct
from custody.rules.wallets import Chain, Tier
from custody.seating import read_bundle, terms
from custody.vault.seat import SeatHost
from custody.vault.storage import CasConflict, Vault

M = TypeVar("M", bound=Struct)

NOW: Final = 1_800_000_000
YEAR: Final = 31_536_000
EVM: Final = Chain("eip155:31338")
BITCOIN: Final = Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328")
HOT: Final = ("hot-1", "hot-2", "hot-3", "hot-4")
COLD: Final = ("cold-1", "cold-2", "cold-3", "cold-4")
CONTRACTS: Final = SafeContracts(
    singleton="0x" + "51" * 20,
    singleton_code=pins.SINGLETON_CODE,
    factory="0x" + "52" * 20,
    factory_code=pins.FACTORY_CODE,
    handler="0x" + "53" * 20,
    handler_code=pins.HANDLER_CODE,
    multisend="0x" + "54" * 20,
    multisend_code=pins.MULTISEND_CODE,
)


class FakeVault:
    """A `Vault` in memory. Write number `die_before` is lost; of write number `die_after` only the answer is."""

    def __init__(self) -> None:
        self.documents: dict[str, list[str]] = {}
        self.deleted: set[str] = set()
        self.writes = 0
        self.die_before = 0
        self.die_after = 0
        self._identity = Ed25519PrivateKey.generate()
        self.turn = threading.Lock()

    def identity_public(self) -> bytes:
        """See `Vault`."""
        return self._identity.public_key().public_bytes_raw()

    def identity_sign(self, message: bytes) -> bytes:
        """See `Vault`."""
        return self._identity.sign(message)

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """See `Vault`."""
        if path in self.deleted:
            raise Unavailable("fake vault", f"{path} was deleted")
        versions = self.documents.get(path, [])
        return (json.loads(versions[-1]), len(versions)) if versions else (None, 0)

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """See `Vault`."""
        with self.turn:  # check and set are one step, as in a real vault
            if len(self.documents.get(path, [])) != cas:
                raise CasConflict(path, cas)
            self.writes += 1
            if self.writes == self.die_before:
                raise Unavailable("fake vault", "died before a write")
            self.documents.setdefault(path, []).append(json.dumps(data))
            if self.writes == self.die_after:
                raise Unavailable("fake vault", "died after a write")

    def list(self, path: str) -> Sequence[str]:
        """See `Vault`."""
        below = (name.removeprefix(f"{path}/") for name in self.documents if name.startswith(f"{path}/"))
        return sorted({head + ("/" if rest else "") for head, _, rest in (name.partition("/") for name in below)})


class Drawer:
    """A part of a vault that begins empty: many tests share one real server, and its one identity."""

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault, self._name = vault, name

    def identity_public(self) -> bytes:
        """See `Vault`."""
        return self._vault.identity_public()

    def identity_sign(self, message: bytes) -> bytes:
        """See `Vault`."""
        return self._vault.identity_sign(message)

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """See `Vault`."""
        return self._vault.read(f"{self._name}/{path}")

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """See `Vault`."""
        self._vault.write(f"{self._name}/{path}", data, cas)

    def list(self, path: str) -> Sequence[str]:
        """See `Vault`."""
        return self._vault.list(f"{self._name}/{path}")


def secp256k1(name: str) -> Secp256k1Signer:
    """A person's key, the same in every run."""
    return Secp256k1Signer(sha256(name.encode()).digest())


def ed25519(name: str) -> Ed25519Signer:
    """A machine's key, the same in every run."""
    return Ed25519Signer(Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest()))


def signed_by(message: M, domain: Domain, signers: Iterable[Signer]) -> Signed[M]:
    """A message with true signatures."""
    return Signed(message, ()).joined(signer.sign(domain.digest(message)) for signer in signers)


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: int = NOW

    def __call__(self) -> int:
        """Seconds since 1970."""
        return self.now


PEOPLE: Final = ("ana", "bo", "cy")


def version_one(identities: Mapping[str, Key]) -> RosterVersion:
    """Three people, an attestor, and these seats, two in each organisation; certificates need two people."""
    people = tuple(
        Person(
            id=name,
            name=name.title(),
            groups=("treasury",),
            keys=(secp256k1(name).key,),
            displays=(True,),
            expires=NOW + YEAR,
        )
        for name in PEOPLE
    )
    seats = tuple(
        RosterSeat(id=name, operator=name, organisation=f"org-{i // 2}", identity=key, cold=name.startswith("cold"))
        for i, (name, key) in enumerate(identities.items())
    )
    return RosterVersion(
        version=1,
        previous=ZERO32,
        chains=(EVM.name, BITCOIN.name),
        clock="wall",
        people=people,
        clients=(),
        address_authorities=("cy",),
        policy_owners=("ana", "bo"),
        feeders=(),
        attestor=ed25519("attestor").key,
        seats=seats,
        relayers=(),
        thresholds=Thresholds(roster=2, certificate=2, policy=1, manual_entry=2, void=2, unfreeze=2),
        delay=0,
        not_before=NOW,
    )


@dataclass
class Deployment:
    """Seats over vaults, and everybody who has to sign. `seats[0]` is the one under test; the others are always in memory."""

    seats: Sequence[SeatPort]
    version: RosterVersion = field(init=False)

    def __post_init__(self) -> None:
        self.version = version_one({seat.name: seat.identity() for seat in self.seats})

    @property
    def domain(self) -> Domain:
        """What everything after version 1 is signed under."""
        return Domain(self.version.struct_hash)

    def genesis(self, version: RosterVersion | None = None, without: str = "") -> Signed[RosterVersion]:
        """Version 1 signed by everybody it names, or by everybody but one."""
        message = version or self.version
        domain = Domain(message.struct_hash)
        signers: list[Signer] = [*(secp256k1(name) for name in PEOPLE if name != without)]
        signers += [ed25519("attestor")] * (without != "attestor")
        machines = [seat.sign_roster(message) for seat in self.seats if seat.name != without]
        return signed_by(message, domain, signers).joined(machines)

    def roster(self) -> Roster:
        """Version 1, as whoever verified it has it."""
        return Roster(self.genesis(), self.domain.genesis)

    def pinned(self) -> "Deployment":
        """Born: every seat has pinned genesis."""
        signed = self.genesis()
        for seat in self.seats:
            seat.pin(signed)
        return self

    def draft(self, label: str, tier: Tier = Tier.CUSTOMER_HOT, chain: Chain = EVM, m: int = 3) -> WalletCertificate:
        """A certificate over the seats' own keys, derived with the real chain code."""
        build = safe_builder(CONTRACTS, label) if chain.is_evm else descriptor_builder()
        cold = tier == Tier.CUSTOMER_COLD
        seats = [seat for seat in self.seats if seat.name.startswith("cold") == cold]
        return draft_wallet(seats, label, tier, chain, m, 1, build)

    def people_sign(self, message: M, names: Iterable[str] = ("ana", "bo")) -> Signed[M]:
        """A message signed by people."""
        return signed_by(message, self.domain, [secp256k1(name) for name in names])

    def successor(self, **changes: object) -> RosterVersion:
        """Version 2, with some fields changed."""
        following = {"version": 2, "previous": self.version.struct_hash, **changes}
        return replace(self.version, **following)  # type: ignore[arg-type]


def seat_in_memory(name: str, vault: Vault | None = None, clock: Callable[[], int] = Clock()) -> SeatHost:  # noqa: B008
    """A seat over a vault in memory, with the real chain code."""
    return SeatHost(name, vault or FakeVault(), check_script, clock, read_bundle=read_bundle, terms=terms)


def rules_of(refused: Refused) -> set[Rule]:
    """The rules that refused."""
    return {refusal.rule for refusal in refused.refusals}
