# SPDX-License-Identifier: AGPL-3.0-or-later
"""The deployment that every run begins with: born once a process with true signatures, the same in every process, then copied.

Eight seats with the real `SeatHost`, six wallets on two chains, the shipped policy in force, customers with addresses on both
chains, enrolments that the attestor saw a day ago. No key comes from the system's randomness.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from embit import bech32  # type: ignore[import-untyped]
from eth_utils.address import to_checksum_address

from custody.chains.addresses import ChainDeriver
from custody.chains.scripts import check_script
from custody.flows.inventory import InventoryReader
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import Branch, UnitOfWork
from custody.keyfiles import Signer
from custody.rules.amounts import Assets
from custody.rules.certificates import DepositAddress, Enrolment, WalletCertificate
from custody.rules.governance import PolicyActivation
from custody.rules.roster import ApiClient, Person, PriceFeeder, Roster, RosterVersion
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32, Domain
from custody.rules.wallets import Address, Chain, Tier
from custody.seating import read_bundle, terms
from custody.store import migrate, open_store
from custody.store.unit_of_work import SqlStore
from custody.vault.seat import SeatHost
from policies.bundle import Bundle
from tests.fakes.seat import (
    BITCOIN,
    COLD,
    EVM,
    HOT,
    NOW,
    YEAR,
    Clock,
    Deployment,
    FakeVault,
    ed25519,
    secp256k1,
    signed_by,
)
from tests.unit.shipped import open_shipped

DAY: Final = 86_400
START: Final = NOW + DAY + 3600
"""When a run begins: enrolments are older than the day that policy lets them cool."""
CUSTOMERS: Final = ("ana.c", "bob.c", "cat.c", "dan.c")
PEOPLE: Final[Mapping[str, tuple[str, ...]]] = {
    "ana": ("operations", "treasury"),
    "bo": ("risk",),
    "cy": ("treasury", "compliance"),
    "dee": ("operations", "executive"),
    "eli": ("risk", "operator"),
    "authority": (),
    "fay": ("operations", "executive"),
}
NEWCOMER: Final = "fay"
"""Stands in the next roster only."""
CLIENTS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "backend": (("read", "propose"), "customer"),
    "sweeper": (("propose",), "system"),
    "finance": (("propose",), "finance_staff"),
    "settler": (("read", "settle"), "system"),
}
FEEDERS: Final = ("feed-1", "feed-2")
USD: Final[Mapping[str, int]] = {"ETH": 2_000, "BTC": 60_000, "USDX": 1, "USDN": 1}
"""Dollars of one whole unit."""
DERIVE: Final = ChainDeriver()
_READER: Final = InventoryReader(DERIVE)
"""What it verified once, no run verifies again."""


class _Named(Deployment):
    """The people, clients and feeders of the simulation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        people = tuple(
            Person(n, n.title(), g, (secp256k1(n).key,), (True,), NOW + YEAR)
            for n, g in PEOPLE.items()
            if n != NEWCOMER
        )
        clients = tuple(ApiClient(n, ed25519(n).key, s, role, NOW + YEAR) for n, (s, role) in CLIENTS.items())
        self.version = replace(
            self.version,
            people=people,
            clients=clients,
            feeders=tuple(PriceFeeder(name, ed25519(name).key) for name in FEEDERS),
            address_authorities=("authority",),
            policy_owners=("ana", "bo", "cy"),
            thresholds=replace(self.version.thresholds, policy=2),
        )

    def genesis(self, version: RosterVersion | None = None, without: str = "") -> Signed[RosterVersion]:
        """Version 1 signed by everybody it names."""
        message = version or self.version
        domain = Domain(message.struct_hash)
        signers: list[Signer] = [*(secp256k1(name) for name in PEOPLE if name != NEWCOMER)]
        signers += [ed25519(name) for name in (*CLIENTS, *FEEDERS, "attestor")]
        return signed_by(message, domain, signers).joined(seat.sign_roster(message) for seat in self.seats)


@dataclass(frozen=True)
class Born:
    """What a birth left: signed documents, and what each vault holds. `payees` are enrolled, by owner and chain."""

    genesis: Signed[RosterVersion]
    certificates: Mapping[tuple[Tier, Chain], Signed[WalletCertificate]]
    bindings: Sequence[Signed[DepositAddress]]
    enrolments: Sequence[Signed[Enrolment]]
    activation: Signed[PolicyActivation]
    bundle: Bundle
    vaults: Mapping[str, Mapping[str, Sequence[str]]]
    template: Path

    @property
    def roster(self) -> Roster:
        """Version 1."""
        return Roster(self.genesis, self.genesis.message.struct_hash)

    @property
    def domain(self) -> Domain:
        """What everything is signed under."""
        return Domain(self.genesis.message.struct_hash)

    @property
    def assets(self) -> Assets:
        """The registry of the shipped bundle."""
        return self.bundle.assets

    def certificate(self, tier: Tier, chain: Chain) -> WalletCertificate:
        """A wallet's one certificate."""
        return self.certificates[tier, chain].message

    def address(self, customer: str, chain: Chain) -> Address:
        """Where a customer's coins arrive."""
        found = next(
            b.message for b in self.bindings if (b.message.customer, b.message.chain) == (customer, chain.name)
        )
        return Address(chain, found.address)

    def payee(self, owner: str, chain: Chain) -> str:
        """An enrolled address of an owner, `customer:ID` or `company`."""
        told = (each.message for each in self.enrolments)
        return next(m.address for m in told if (m.owner, m.chain) == (owner, chain.name))


def vault_of(name: str, documents: Mapping[str, Sequence[str]]) -> FakeVault:
    """A vault as a birth left it."""
    vault = FakeVault()
    vault._identity = Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())
    vault.documents = {path: list(versions) for path, versions in documents.items()}
    return vault


def seat_of(name: str, vault: FakeVault, clock: Callable[[], int]) -> SeatHost:
    """A seat in a new process: only what its vault has. Its entropy is its name's."""
    made = iter(range(1_000))

    def entropy(size: int) -> bytes:
        return sha256(f"{name}/{next(made)}".encode()).digest()[:size]

    return SeatHost(name, vault, check_script, clock, entropy, read_bundle=read_bundle, terms=terms)


def _payee(owner: str, chain: Chain) -> str:
    raw = sha256(f"payee/{owner}".encode()).digest()
    if chain.is_evm:
        return str(to_checksum_address("0x" + raw[:20].hex()))
    return str(bech32.encode("bcrt", 0, list(raw[:20])))


@cache
def born() -> Born:
    """The one deployment of this process."""
    vaults = {name: vault_of(name, {}) for name in (*HOT, *COLD)}
    deployment = _Named([seat_of(name, vault, Clock()) for name, vault in vaults.items()]).pinned()
    genesis = deployment.genesis()
    certificates = {}
    for tier in Tier:
        for chain in (EVM, BITCOIN):
            signed = deployment.people_sign(deployment.draft(f"{tier.value}/{chain}", tier, chain))
            certificates[tier, chain] = signed
            for seat in deployment.seats:
                if (seat.name in COLD) == (tier is Tier.CUSTOMER_COLD):
                    seat.accept(signed)
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "policy").mkdir()
    bundle = open_shipped(folder / "policy")
    activation = deployment.people_sign(PolicyActivation(bundle.hash, ZERO32, ZERO32, "cy", NOW))
    for seat in deployment.seats:
        seat.admit_policy(activation, bundle.to_json())
    bindings = [
        _bind(deployment.domain, certificates[Tier.CUSTOMER_HOT, chain].message, customer, index)
        for index, customer in enumerate(CUSTOMERS)
        for chain in (EVM, BITCOIN)
    ]
    owners = [*(f"customer:{name}" for name in CUSTOMERS), "company"]
    enrolments = [_enrol(deployment.domain, owner, chain) for owner in owners for chain in (EVM, BITCOIN)]
    documents = {name: {path: tuple(rows) for path, rows in vault.documents.items()} for name, vault in vaults.items()}
    made = Born(genesis, certificates, bindings, enrolments, activation, bundle, documents, folder / "template.db")
    _furnish(made)
    return made


def _bind(domain: Domain, hot: WalletCertificate, customer: str, index: int) -> Signed[DepositAddress]:
    address = DERIVE.derive(hot, Branch.RECEIVE, index)
    message = DepositAddress(hot.struct_hash, hot.chain, customer, index, address.text)
    return Signed(message, (ed25519("attestor").sign(domain.digest(message)),))


def _enrol(domain: Domain, owner: str, chain: Chain) -> Signed[Enrolment]:
    kind = "allow_listed" if owner == "company" else "customer_withdrawal"
    message = Enrolment(chain.name, _payee(owner, chain), owner, kind, b"\1" * 32, NOW + YEAR)
    return signed_by(message, domain, [secp256k1("authority")])


def _furnish(made: Born) -> None:
    url = f"sqlite:///{made.template}"
    migrate(url)

    def work(work: UnitOfWork) -> None:
        put_signed(work.documents, ROSTER, made.genesis)
        for certificate in made.certificates.values():
            put_signed(work.documents, CERTIFICATE, certificate)
        work.documents.put(BUNDLE, made.bundle.hash.hex(), made.bundle.to_json())
        work.documents.put(ACTIVATION, made.bundle.hash.hex(), made.activation.to_json())
        for customer in CUSTOMERS:
            work.customers.add(customer)
        for binding in made.bindings:
            work.customers.add_address(binding)
        for enrolment in made.enrolments:
            work.enrolments.add(enrolment, NOW)

    store = open_store(url, made.assets)
    store.run(work)
    store.read(lambda work: _READER.read(work, made.roster))
    store.close()


def reader() -> InventoryReader:
    """A reader that has verified the wallets and addresses of the birth, and nothing else: what one process learns, it learns alone."""
    made = copy(_READER)
    made._verified = set(_READER._verified)
    return made


def open_copy(made: Born, path: Path) -> SqlStore:
    """A database as it was after the birth; what is there already is opened as it stands, as after a restart.

    It lies in memory: a death of the simulated process is no death of the machine, and that is what durability tests are for.
    """
    if not path.exists():
        shutil.copy(made.template, path)
    return open_store(f"sqlite:///{path}", made.assets)
