# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small deployment for ledger tests: assets, wallets, a signed roster with a settling client, and entries ready to record."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from custody.rules.amounts import Amount, Asset, AssetKind, Assets
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, credit_deposit, reverse, suspense_of
from custody.rules.origins import BitcoinProof, ChainProof, NativeProof, Reversal, TokenProof, identity_of, measured
from custody.rules.provenance import Authorities, Holding
from custody.rules.roster import ApiClient, Person, Roster, RosterVersion, Thresholds
from custody.rules.settlements import FeeLeg, FeeSchedule, Leg, ManualEntry, ManualPosting, Settlement, Trade
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.typed import ZERO32, Struct
from custody.rules.wallets import Address, Chain

EVM: Final = Chain("eip155:31338")
BTC: Final = Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328")
USD_CONTRACT: Final = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
LOOK_ALIKE: Final = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
ETH: Final = Asset("ETH", EVM, AssetKind.NATIVE, 18, dust=10)
USD: Final = Asset("USD", EVM, AssetKind.ERC20, 6, Address(EVM, USD_CONTRACT))
COIN: Final = Asset("BTC", BTC, AssetKind.NATIVE, 8, dust=546)
ASSETS: Final = Assets((ETH, USD, COIN), {EVM: 1, BTC: 3})

HOT: Final = Account(AccountKind.WALLET, "ab" * 32)
OPERATIONAL: Final = Account(AccountKind.WALLET, "cd" * 32)
SUSPENSE: Final = Account(AccountKind.SUSPENSE)
FEES: Final = Account(AccountKind.ACCRUED_FEES)
EQUITY: Final = Account(AccountKind.COMPANY_EQUITY)
SURPLUS: Final = Account(AccountKind.COMPANY_SURPLUS)

ANA_ETH: Final = Address(EVM, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
BO_ETH: Final = Address(EVM, "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC")
HOT_ETH: Final = Address(EVM, "0x90F79bf6EB2c4f870365E785982E1f101E93b906")
COMPANY_ETH: Final = Address(EVM, "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65")
STRANGER_ETH: Final = Address(EVM, "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc")
ANA_BTC: Final = Address(BTC, "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry")

NOW: Final = 1_800_000_000


def available(customer: str) -> Account:
    """A customer's account."""
    return Account(AccountKind.CUSTOMER_AVAILABLE, customer)


OWNERS: Final = {
    ANA_ETH: Holding(HOT, available("ana")),
    BO_ETH: Holding(HOT, available("bo")),
    ANA_BTC: Holding(HOT, available("ana")),
    HOT_ETH: Holding(HOT, SUSPENSE),
    COMPANY_ETH: Holding(OPERATIONAL, EQUITY),
}


def block_hash(height: int, fork: str = "") -> bytes:
    """A block's hash."""
    return sha256(f"block/{fork}/{height}".encode()).digest()


def native(height: int, units: int = 10**18, address: Address = ANA_ETH, fork: str = "") -> NativeProof:
    """Wei that arrived at an address in a block."""
    return NativeProof(EVM.name, height, block_hash(height, fork), address.text, 5, 5 + units, 0)


def token(height: int, units: int = 10**6, address: Address = ANA_ETH, contract: str = USD_CONTRACT) -> TokenProof:
    """Token units that arrived at an address in a block."""
    return TokenProof(EVM.name, height, block_hash(height), bytes(32), 0, contract, address.text, units, units)


def coins(height: int, units: int = 10**8, vout: int = 0) -> BitcoinProof:
    """Satoshi that arrived at an address in a block."""
    return BitcoinProof(
        BTC.name, height, block_hash(height), sha256(b"tx%d" % height).digest(), vout, ANA_BTC.text, units
    )


def credit(proof: ChainProof) -> Entry:
    """The entry that books a proof as it should be."""
    asset = {NativeProof: ETH, TokenProof: USD, BitcoinProof: COIN}[type(proof)]
    holding = OWNERS[Address(asset.chain, proof.address)]
    return credit_deposit(proof, holding.wallet, holding.owner, Amount(asset, measured(proof)))


class Signer:
    """An Ed25519 key made from a name."""

    def __init__(self, name: str) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())
        self.key = Key("ed25519", self._private.public_key().public_bytes_raw())

    def sign(self, roster: Roster, message: Struct) -> Signature:
        """A signature over a message in this deployment."""
        return Signature(self.key, self._private.sign(roster.domain.digest(message)))


SETTLER, PROPOSER, STRANGER = Signer("settler"), Signer("proposer"), Signer("stranger")
LATE: Final = Signer("late")
PEOPLE: Final = {name: Signer(f"person {name}") for name in ("ana.t", "bo.t", "cy.t")}


def make_roster(**changes: object) -> Roster:
    """A roster with three people, a settling client, a proposing one and one whose term is over."""
    version = RosterVersion(
        version=1,
        previous=ZERO32,
        chains=(EVM.name, BTC.name),
        clock="wall",
        people=tuple(Person(n, n, ("treasury",), (s.key,), (True,), NOW + 10**6) for n, s in PEOPLE.items()),
        clients=(
            ApiClient("trading", SETTLER.key, ("read", "settle"), "system", NOW + 10**6),
            ApiClient("backend", PROPOSER.key, ("read", "propose"), "customer", NOW + 10**6),
            ApiClient("retired", LATE.key, ("settle",), "system", NOW - 1),
        ),
        address_authorities=(),
        policy_owners=("ana.t", "bo.t"),
        feeders=(),
        attestor=Signer("attestor").key,
        seats=(),
        relayers=(),
        thresholds=Thresholds(2, 2, 1, 2, 2, 2),
        delay=0,
        not_before=NOW - 10**6,
    )
    changed = replace(version, **changes)  # type: ignore[arg-type]  # a test names the fields it changes
    return Roster(Signed(changed, ()), version.struct_hash)


ROSTER: Final = make_roster()
SCHEDULE: Final = FeeSchedule(sha256(b"bundle").digest(), {"ETH": 20, "USD": 20}, 3600, {"ETH": 10**18, "USD": 10**9})


def authorities(owners: dict[Address, Holding] | None = None) -> Authorities:
    """Against whom these entries are checked."""
    return Authorities(ASSETS, (ROSTER,), {SCHEDULE.bundle: SCHEDULE}, (OWNERS if owners is None else owners).get)


def trade(
    name: str = "t1",
    units: int = 10**17,
    usd: int = 10**5,
    fees: Sequence[FeeLeg] = (),
    buyer: str = "bo",
    seller: str = "ana",
) -> Trade:
    """A seller gives ETH to a buyer for USD."""
    legs = (Leg(seller, "ETH", -units), Leg(buyer, "ETH", units), Leg(buyer, "USD", -usd), Leg(seller, "USD", usd))
    return Trade(name, legs, tuple(fees))


def settlement(
    *trades: Trade, name: str = "s1", client: str = "trading", schedule: bytes = SCHEDULE.bundle
) -> Settlement:
    """A batch of trades."""
    return Settlement(name, client, schedule, NOW, trades or (trade(),))


def settled(message: Settlement, signer: Signer = SETTLER) -> Signed[Settlement]:
    """A batch with its client's signature."""
    return Signed(message, (signer.sign(ROSTER, message),))


def stray(height: int, address: Address = HOT_ETH) -> Account:
    """Where wei that arrived at the omnibus in the block of a height wait for an owner."""
    return suspense_of(identity_of(native(height, 1, address)))


STRAY: Final = stray(3)


def reverse_deposit(credited: JournalEntry, origin: Reversal, available: int) -> Entry:
    """The reversal of a credit whose owner has so much left."""
    owner = credited.entry.postings[-1]
    return reverse(credited, origin, {(owner.account, owner.amount.asset): available})


def move(
    units: int = 1000,
    debit: str = str(STRAY),
    credit_to: str = "customer_available:ana",
    name: str = "m1",
    asset: str = "ETH",
) -> ManualEntry:
    """A manual entry from one account to another."""
    lines = (ManualPosting(debit, asset, "debit", units), ManualPosting(credit_to, asset, "credit", units))
    return ManualEntry(name, "found the sender", lines)


def agreed(message: ManualEntry, *signers: str) -> Signed[ManualEntry]:
    """A manual entry with people's signatures."""
    return Signed(message, tuple(PEOPLE[name].sign(ROSTER, message) for name in signers or ("ana.t", "bo.t")))
