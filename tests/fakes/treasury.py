# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers without chains: the true deployment of `trust`, a store with funded accounts, prices, lists, an attestor's key."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import Any, Final

from custody.chains.addresses import ChainDeriver
from custody.flows import authorization, proposals
from custody.flows.inventory import Inventory
from custody.flows.kernel import Kernel
from custody.flows.ports import Prices, Store, UnitOfWork
from custody.rules.amounts import Amount, Asset
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment, WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.intents import Anchor, Proposal, Rejection
from custody.rules.ledger import Account, AccountKind, Entry, Posting, Side, credit_deposit
from custody.rules.origins import BitcoinProof, NativeProof
from custody.rules.payments import Credited, Payment, Reservation, none_credited
from custody.rules.requirement import Outcome
from custody.rules.roster import Roster
from custody.rules.seat_request import BundleInForce, Policies
from custody.rules.signatures import Signed
from custody.rules.statements import AssetCoverage, Statement
from custody.rules.transfers import Transfer
from custody.rules.typed import ZERO32, Struct
from custody.rules.wallets import Chain, Tier
from tests.fakes.authenticator import HONEST, Lies
from tests.fakes.seat import BITCOIN, EVM, NOW, YEAR, ed25519, secp256k1, signed_by
from tests.fakes.store import FakeStore
from tests.fakes.trust import (
    ASSETS,
    BTC,
    ETH,
    GROUPS,
    PAYEE,
    FakePolicy,
    answers,
    bundle,
    internal_address,
    passkey,
    world,
)

DERIVE: Final = ChainDeriver()
DAY: Final = 86_400
UNIT: Final = {"ETH": 10**18, "BTC": 10**8, "USDX": 10**6}
AVAILABLE: Final = Account(AccountKind.CUSTOMER_AVAILABLE, "ada")
HELD: Final = Account(AccountKind.CUSTOMER_HELD, "ada")
FEES: Final = Account(AccountKind.ACCRUED_FEES)
EQUITY: Final = Account(AccountKind.COMPANY_EQUITY)
SURPLUS: Final = Account(AccountKind.COMPANY_SURPLUS)


@dataclass
class FakePrices:
    """`PriceSource`."""

    micro_usd: Mapping[str, int] = field(
        default_factory=lambda: {"ETH": 2_000 * 10**6, "BTC": 60_000 * 10**6, "USDX": 10**6}
    )
    down: bool = False

    def fresh(self, now: int) -> Prices:
        """See `PriceSource`."""
        if self.down:
            raise Unavailable("prices", "no source answers")
        return Prices(self.micro_usd)


@dataclass
class FakeAnchors:
    """The next nonce above what is taken, or one coin of each number."""

    asked: int = 0
    fixed: str = ""

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """See `Anchors`."""
        self.asked += 1
        if certificate.chain == EVM.name:
            free = self.fixed or str(max((int(reference) for reference in taken), default=6) + 1)
            return Reservation(Anchor(certificate.chain, wallet, free), (free,), 0)
        coins = [f"{sha256(bytes([n])).hexdigest()}:0" for n in range(9)]
        free = self.fixed or next(coin for coin in coins if coin not in taken)
        return Reservation(Anchor(certificate.chain, wallet, free), (free,), 3)


@cache
def roster() -> Roster:
    """Version 1."""
    return world().deployment.roster()


@cache
def inventory() -> Inventory:
    """A wallet for each tier and chain."""
    return Inventory(list(world().certificates.values()), [], DERIVE)


def kernel(policy: FakePolicy | None = None, **changes: Any) -> Kernel:
    """What transfers are judged by, with a policy of one answer."""
    newest = bundle(policy or answers(Outcome.REQUIRE))
    whole = Kernel((roster(),), inventory(), Policies(newest, {}), DERIVE, FakePrices(), {BITCOIN: 20_000}, (), 600)
    return replace(whole, **changes)


def with_pinned(newest: BundleInForce, pinned: BundleInForce) -> Policies:
    """A newer bundle beside the one that intents pin."""
    return Policies(newest, {pinned.hash: pinned})


def account_of(tier: Tier, chain: Chain) -> Account:
    """A wallet's account."""
    return next(w.account for w in inventory().on(chain) if w.tier is tier)


def deposit(asset: Asset, units: int, owner: Account, tier: Tier = Tier.CUSTOMER_HOT, height: int = 1) -> Entry:
    """Coins that arrive for somebody (ETH and BTC)."""
    block = sha256(f"{asset}/{height}".encode()).digest()
    address = world().certificate(tier, EVM).safe[0].address
    proof: NativeProof | BitcoinProof = NativeProof(EVM.name, height, block, address, 0, units, 0)
    if asset.chain == BITCOIN:
        proof = BitcoinProof(BITCOIN.name, height, block, block, 0, PAYEE[BITCOIN.name], units)
    return credit_deposit(proof, account_of(tier, asset.chain), owner, Amount(asset, units))


def accrue(units: int, asset: Asset = ETH, account: Account = FEES) -> Entry:
    """Fees out of ada's balance, as a settlement books them; its origin is no matter here."""
    moved = Amount(asset, units)
    origin = NativeProof(
        EVM.name, 999, sha256(f"accrue {units} {account}".encode()).digest(), "0x" + "00" * 20, 0, 1, 0
    )
    return Entry(origin, (Posting(AVAILABLE, Side.DEBIT, moved), Posting(account, Side.CREDIT, moved)))


def enrolment(chain: Chain = EVM, authority: str = "authority", **changes: Any) -> Signed[Enrolment]:
    """ada's address, enrolled."""
    said = Enrolment(chain.name, PAYEE[chain.name], "customer:ada", "customer_withdrawal", ZERO32, NOW + YEAR)
    return signed_by(replace(said, **changes), world().domain, [secp256k1(authority)])


def proposal(number: int = 1, **changes: Any) -> Proposal:
    """ada takes one ETH."""
    said = Proposal(
        reference=f"order {number}",
        account="customer:ada",
        chain=EVM.name,
        asset="ETH",
        amount=10**18,
        destination=PAYEE[EVM.name],
        purpose="withdrawal",
        expiry=NOW + 2 * DAY,
    )
    return replace(said, **changes)


TO_COLD: Final = {"account": "company", "purpose": "rebalance"}


def inside(tier: Tier, chain: Chain = EVM, **changes: Any) -> Proposal:
    """A move to a wallet of ours."""
    asset = "ETH" if chain.is_evm else "BTC"
    said = {"account": "company", "chain": chain.name, "asset": asset, "destination": internal_address(tier, chain)}
    return proposal(**{"purpose": "rebalance", **said, **changes})


def signed(message: Any, by: str = "backend") -> Signed[Any]:
    """Signed by a person's or a client's key."""
    key = secp256k1(by) if by in GROUPS else ed25519(by)
    return signed_by(message, world().domain, [key])


def approval(transfer: Transfer, person: str, key: str = "", over: Struct | None = None) -> Approval:
    """A person's yes; under another's key, or over another message, where told."""
    digest = world().domain.digest(over or transfer.intent)
    return Approval(transfer.digest, person, secp256k1(key or person).sign(digest))


def by_passkey(transfer: Transfer, person: str, lies: Lies = HONEST) -> Approval:
    """A person's yes in a browser."""
    return Approval(transfer.digest, person, passkey(person).over(world().domain.digest(transfer.intent), lies))


def no(transfer: Transfer, by: str, reason: str = "not this one") -> Signed[Any]:
    """Somebody's no."""
    return signed(Rejection(transfer.digest, reason), by)


def statement(
    time: int = NOW, attestor: str = "attestor", policy: bytes = answers(Outcome.REQUIRE).hash, **rows: Any
) -> Signed[Statement]:
    """The attestor's word: everything covered, with these numbers changed for every asset."""
    numbers = {
        "reserves": 10**30,
        "on_chain": 10**30,
        "in_ledger": 10**30,
        "available": 10**20,
        "held": 0,
        "suspense": 0,
    }
    whole = {**numbers, "in_flight": 0, "accrued_fees": 0, "matured_fees": 0, **rows}
    coverage = tuple(AssetCoverage(asset.symbol, **whole) for asset in ASSETS)
    message = Statement(5, time, (), (), (), coverage, (), (), 1, ZERO32, 1, policy)
    return signed_by(message, world().domain, [ed25519(attestor)])


@dataclass
class Treasury:
    """A furnished store: ada has 100 ETH and 10 BTC, the company its own coins, 3 ETH of fees matured and some surplus."""

    store: Store = field(default_factory=FakeStore)
    kernel: Kernel = field(default_factory=kernel)
    now: int = NOW
    anchors: FakeAnchors = field(default_factory=FakeAnchors)

    def __post_init__(self) -> None:
        self.store.run(self._furnish)

    def _furnish(self, work: UnitOfWork) -> None:
        for customer in ("ada", "bo"):
            work.customers.add(customer)
        for height, (asset, units, owner, tier) in enumerate(
            (
                (ETH, 110 * 10**18, AVAILABLE, Tier.CUSTOMER_HOT),
                (BTC, 10 * 10**8, AVAILABLE, Tier.CUSTOMER_HOT),
                (ETH, 50 * 10**18, EQUITY, Tier.OPERATIONAL),
                (BTC, 5 * 10**8, EQUITY, Tier.OPERATIONAL),
                (ETH, 40 * 10**18, AVAILABLE, Tier.CUSTOMER_COLD),
            ),
            1,
        ):
            work.journal.append(deposit(asset, units, owner, tier, height), NOW - 2 * DAY)
        work.journal.append(accrue(3 * 10**18), NOW - DAY)
        work.journal.append(accrue(10**6, BTC, SURPLUS), NOW - DAY)
        for chain in (EVM, BITCOIN):
            work.enrolments.add(enrolment(chain), NOW - 2 * DAY)
        work.enrolments.add(enrolment(owner="company", kind="allow_listed"), NOW - 2 * DAY)

    def propose(
        self, message: Proposal | None = None, by: str = "backend", key: str = "k", number: int = 1
    ) -> Transfer:
        """Propose, with entropy made of a number."""
        said = message or proposal()
        return proposals.propose(self.store, self.kernel, signed(said, by), key, self.now, number.to_bytes(10))

    def approve(self, transfer: Transfer, *people: str) -> Transfer:
        """These people say yes."""
        for person in people:
            transfer = proposals.approve(self.store, self.kernel, approval(transfer, person), self.now)
        return transfer

    def authorize(
        self, *transfers: Transfer, said: Signed[Statement] | None = None
    ) -> authorization.SigningPermit | authorization.Withheld:
        """Ask for a permit."""
        policy = self.kernel.policies.newest.hash
        given = said or statement(self.now, policy=policy)
        digests = [transfer.digest for transfer in transfers]
        return authorization.authorize(self.store, self.kernel, digests, given, self.anchors, self.now)

    def get(self, transfer: Transfer) -> Transfer:
        """As it stands."""
        found = self.store.read(lambda work: work.transfers.get(transfer.digest))
        assert found is not None
        return found

    def balance(self, account: Account, asset: Asset = ETH) -> int:
        """One balance."""
        return self.store.read(lambda work: work.journal.balance(account, asset))
