# SPDX-License-Identifier: AGPL-3.0-or-later
"""A born deployment in memory: truly signed roster and certificates, real derivation, a store, chains, and an attestor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from custody.chains.addresses import ChainDeriver
from custody.flows.attestation import Attestor, InForce, Standing
from custody.flows.deposits import StepReport, step
from custody.flows.inventory import Inventory, InventoryReader, Wallet
from custody.flows.mirror import CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import Branch, ChainView, Store, UnitOfWork
from custody.rules.certificates import DepositAddress, WalletCertificate
from custody.rules.deposits import BlockRef
from custody.rules.ledger import Account, AccountKind
from custody.rules.roster import ApiClient, PriceFeeder, Roster, RosterVersion
from custody.rules.signatures import Signed
from custody.rules.statements import SafeState
from custody.rules.typed import ZERO_ADDRESS, Domain
from custody.rules.wallets import Address, Chain, Tier
from custody.vault.attestor_memory import VaultMemory
from tests.fakes.chain import FakeChain
from tests.fakes.ledger import ASSETS, BTC, EVM, SCHEDULE
from tests.fakes.seat import COLD, HOT, NOW, YEAR, Clock, Deployment, FakeVault, ed25519, seat_in_memory
from tests.fakes.store import FakeStore

T = TypeVar("T")

DERIVE: Final = ChainDeriver()
READER: Final = InventoryReader(DERIVE)
"""Shared by every house: what it verified once, it does not verify again."""
CONFIRMATIONS: Final = 3
FEEDERS: Final = ("feed-1", "feed-2")


class Born(Deployment):
    """A deployment on the statement clock, with API clients that settle trades and propose, and two price feeders."""

    def __post_init__(self) -> None:
        super().__post_init__()
        clients = (
            ApiClient("trading", ed25519("settler").key, ("read", "settle"), "system", NOW + YEAR),
            ApiClient("backend", ed25519("backend").key, ("read", "propose"), "customer", NOW + YEAR),
        )
        feeders = tuple(PriceFeeder(name, ed25519(name).key) for name in FEEDERS)
        self.version = replace(self.version, clients=clients, feeders=feeders, clock="statement")

    def genesis(self, version: RosterVersion | None = None, without: str = "") -> Signed[RosterVersion]:
        """As `Deployment`, and signed by clients and feeders."""
        signed = super().genesis(version, without)
        digest = Domain(signed.message.struct_hash).digest(signed.message)
        return signed.joined(ed25519(name).sign(digest) for name in ("settler", "backend", *FEEDERS))


@cache
def deployment() -> Deployment:
    """Eight seats, pinned; made once a run, because nothing of it changes."""
    return Born([seat_in_memory(name) for name in (*HOT, *COLD)]).pinned()


@cache
def certificates() -> tuple[Signed[WalletCertificate], ...]:
    """A hot wallet on each chain, a cold one on Bitcoin, the company's own on EVM; two people signed each."""
    wanted = (
        (Tier.CUSTOMER_HOT, EVM),
        (Tier.CUSTOMER_HOT, BTC),
        (Tier.CUSTOMER_COLD, BTC),
        (Tier.OPERATIONAL, EVM),
    )
    drafts = (deployment().draft(f"{tier}/{chain}", tier, chain) for tier, chain in wanted)
    return tuple(deployment().people_sign(draft) for draft in drafts)


def certificate(tier: Tier, chain: Chain) -> WalletCertificate:
    """One of them."""
    return next(c.message for c in certificates() if (c.message.tier, c.message.chain) == (tier, chain.name))


@cache
def roster() -> Roster:
    """Version 1."""
    return deployment().roster()


@cache
def binding(customer: str, chain: Chain, index: int) -> Signed[DepositAddress]:
    """The attestor's word that an index of a chain's hot wallet is a customer's."""
    hot = certificate(Tier.CUSTOMER_HOT, chain)
    message = DepositAddress(hot.wallet, chain.name, customer, index, DERIVE.derive(hot, Branch.RECEIVE, index).text)
    return Signed(message, (ed25519("attestor").sign(deployment().domain.digest(message)),))


def attestor_vault() -> FakeVault:
    """A vault whose identity is the attestor's of the roster."""
    vault = FakeVault()
    vault._identity = Ed25519PrivateKey.from_private_bytes(sha256(b"attestor").digest())
    return vault


class SafeChain(FakeChain):
    """A `FakeChain` whose certified Safes can be deployed and tampered with."""

    drift: dict[str, object]

    def safe_state(self, wallet: bytes, certificate: WalletCertificate, at: BlockRef) -> SafeState:
        """See `SafeReader`."""
        self._answer()
        safe = certificate.safe[0]
        nobody = SafeState(
            wallet,
            certificate.chain,
            safe.address,
            deployed=False,
            nonce=0,
            owners=(),
            threshold=0,
            singleton=ZERO_ADDRESS,
            handler=ZERO_ADDRESS,
            guard=ZERO_ADDRESS,
            modules=(),
        )
        return replace(nobody, **getattr(self, "drift", {}))


class DyingStore:
    """Passes work on to a store until the n-th commit, which either is lost or loses only its answer."""

    class Died(Exception):
        """The process is gone."""

    def __init__(self, store: Store, commits: int, *, after: bool) -> None:
        self._store, self.left, self._after = store, commits, after

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """See `Store`."""
        self.left -= 1
        if self.left == 0 and not self._after:
            raise DyingStore.Died
        result = self._store.run(work)
        if self.left == 0:
            raise DyingStore.Died
        return result

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """See `Store`."""
        return self._store.read(work)


@dataclass
class House:
    """A store with its documents, two customers with an address on each chain, and both chains at their first blocks."""

    store: Any = field(default_factory=FakeStore)  # the fake, whose insides tests change; or a real one
    evm: SafeChain = field(default_factory=lambda: SafeChain(EVM, CONFIRMATIONS, start=NOW))
    btc: FakeChain = field(default_factory=lambda: FakeChain(BTC, CONFIRMATIONS, start=NOW))
    clock: Clock = field(default_factory=Clock)
    vault: FakeVault = field(default_factory=attestor_vault)
    customers: Sequence[str] = ("ana", "bo")

    def __post_init__(self) -> None:
        self.store.run(self._furnish)
        self.memory = VaultMemory(self.vault)
        self.memory.pin(deployment().genesis())

    def _furnish(self, work: UnitOfWork) -> None:
        put_signed(work.documents, ROSTER, deployment().genesis())
        for signed in certificates():
            put_signed(work.documents, CERTIFICATE, signed)
        for index, customer in enumerate(self.customers):
            work.customers.add(customer)
            for chain in (EVM, BTC):
                work.customers.add_address(binding(customer, chain, index))

    def inventory(self) -> Inventory:
        """As the store has it now."""
        found: Inventory = self.store.read(lambda work: READER.read(work, roster()))
        return found

    def wallet(self, tier: Tier, chain: Chain) -> Wallet:
        """One wallet."""
        return next(w for w in self.inventory().on(chain) if w.tier is tier)

    def attestor(self, evm: Sequence[FakeChain] = (), **changes: object) -> Attestor:
        """A fresh attestor process over the same vault, as after a restart."""
        oldest = {EVM: 10**6, BTC: 10**6}
        in_force = InForce(ASSETS, oldest, lambda *_: Standing(SCHEDULE.bundle, {SCHEDULE.bundle: SCHEDULE}))
        nodes: dict[Chain, list[ChainView]] = {EVM: list(evm) or [self.evm], BTC: [self.btc]}
        attestor = Attestor(
            self.store,
            nodes,
            VaultMemory(self.vault),
            DERIVE,
            self.clock,
            replace(in_force, **changes),  # type: ignore[arg-type]  # a test names what it changes
        )
        attestor._reader = READER  # only saves time: what differs from what it verified is verified again
        return attestor

    def step(self, chain: FakeChain, store: Store | None = None, **options: int) -> StepReport:
        """One step of the watcher."""
        return step(store or self.store, chain, self.inventory(), ASSETS, self.clock, **options)

    def settle(self, chain: FakeChain) -> None:
        """Steps until everything is followed."""
        while self.step(chain).behind:
            pass

    def balance(self, account: Account | str, symbol: str) -> int:
        """One balance; a customer's available one by its id."""
        named = account if isinstance(account, Account) else Account(AccountKind.CUSTOMER_AVAILABLE, account)
        units: int = self.store.read(lambda work: work.journal.balance(named, ASSETS.get(symbol)))
        return units


def address_of(customer: str, chain: Chain, index: int) -> Address:
    """Where a customer's coins arrive."""
    return Address(chain, binding(customer, chain, index).message.address)
