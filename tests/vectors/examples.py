# SPDX-License-Identifier: AGPL-3.0-or-later
"""One fully populated example of every typed message: no field at its zero where it can be another, no array empty."""

from dataclasses import replace
from typing import Final

from custody.rules.backups import Backup
from custody.rules.certificates import (
    BitcoinScript,
    DepositAddress,
    Enrolment,
    Rotation,
    SafeParameters,
    SeatHead,
    SeatKey,
    WalletCertificate,
    WalletKey,
)
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.intents import Anchor, Proposal, Rejection, TransferIntent, Void
from custody.rules.login import Login
from custody.rules.prices import Price
from custody.rules.roster import (
    ApiClient,
    Person,
    PriceFeeder,
    Relayer,
    RosterSeat,
    RosterVersion,
    Thresholds,
)
from custody.rules.settlements import FeeLeg, Leg, ManualEntry, ManualPosting, Settlement, Trade
from custody.rules.signatures import Key, Scheme, Signature
from custody.rules.statements import AssetCoverage, ChainHeight, IntentFacts, SafeState, SeatPosition, Statement
from custody.rules.typed import Struct
from custody.rules.webauthn import public_form

GENESIS: Final = bytes.fromhex("b1" * 32)
"""The salt of every digest in the vectors."""

ETH: Final = "eip155:31338"
BTC: Final = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"
GENERATOR: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
T: Final = 1_767_225_600
"""2026-01-01T00:00:00Z."""


def word(number: int) -> bytes:
    """32 recognisable bytes, never zero."""
    return bytes([number]) * 31 + b"\x01"


def address(number: int) -> str:
    """20 recognisable bytes as an EVM address."""
    return "0x" + f"{number:02x}" * 20


def ed25519(number: int) -> Key:
    """A key that nobody holds."""
    return Key(Scheme.ED25519, word(number))


def secp256k1(number: int) -> Key:
    """An address that nobody holds."""
    return Key(Scheme.EIP712_SECP256K1, bytes([number]) * 20)


PASSKEY: Final = Key(Scheme.WEBAUTHN_ES256, public_form("https://treasury.bulkhead.example", *GENERATOR))
"""At one page, with the generator of P-256 for its point (FIPS 186-5): its private key is one, so it is nobody's."""


def seat_key(number: int) -> SeatKey:
    """A seat's wallet key with the identity signature's shape."""
    key = WalletKey(f"hot-{number}", f"customer_hot/{ETH}", ETH, b"\x02" + word(number), "")
    return SeatKey(key, Signature(ed25519(0x40 + number), bytes([number]) * 64))


ANCHOR: Final = Anchor(ETH, word(1), "7")
SAFE: Final = SafeParameters(
    singleton=address(0x11),
    singleton_code=word(0x21),
    factory=address(0x12),
    factory_code=word(0x22),
    handler=address(0x13),
    handler_code=word(0x23),
    multisend=address(0x14),
    multisend_code=word(0x24),
    proxy_creation_code=word(0x25),
    initializer=bytes.fromhex("b63e800d") + bytes(range(64)),
    salt=2**255 + 12345,
    address=address(0x15),
)
CERTIFICATE: Final = WalletCertificate(
    previous=word(0x31),
    label=f"customer_hot/{ETH}",
    tier="customer_hot",
    chain=ETH,
    m=3,
    n=4,
    seats=tuple(seat_key(number) for number in (1, 2, 3, 4)),
    safe=(SAFE,),
    script=(),
    birth=17,
)
XPUB: Final = "[aabbccdd/48h/1h/0h/2h]tpubExampleOnly"
BITCOIN_CERTIFICATE: Final = replace(
    CERTIFICATE,
    label=f"customer_cold/{BTC}",
    tier="customer_cold",
    chain=BTC,
    seats=(
        SeatKey(WalletKey("cold-1", f"customer_cold/{BTC}", BTC, b"", XPUB), Signature(ed25519(0x51), bytes([5]) * 64)),
    ),
    safe=(),
    script=(BitcoinScript(f"wsh(sortedmulti(3,{XPUB}/<0;1>/*))#checksum"),),
)

EXAMPLES: Final[dict[str, Struct]] = {
    "Proposal": Proposal(
        reference="order 4711",
        account="customer:ada",
        chain=ETH,
        asset="ETH",
        amount=10**19 + 1,
        destination="0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        purpose="withdrawal",
        expiry=T + 3600,
    ),
    "TransferIntent": TransferIntent(
        id="019b76da-7c00-7000-8000-000000000001",
        proposal=word(2),
        chain=ETH,
        wallet=word(1),
        certificate=word(3),
        asset="USDX",
        token=address(0x77),
        decimals=6,
        amount=2**256 - 1,
        account="customer:ada",
        destination="0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        destination_kind="customer_withdrawal",
        enrolment=word(4),
        purpose="withdrawal",
        maximum_fee=10**15,
        initiator="backend",
        policy=word(5),
        roster=2,
        not_before=T,
        expiry=T + 3600,
    ),
    "Rejection": Rejection(intent=word(6), reason="amount looks wrong — asked by telephone"),
    "Enrolment": Enrolment(
        chain=BTC,
        address="bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        owner="customer:ada",
        kind="customer_withdrawal",
        evidence=word(7),
        expiry=T + 86_400,
    ),
    "WalletKey": seat_key(1).key,
    "WalletCertificate": CERTIFICATE,
    "WalletCertificate on Bitcoin": BITCOIN_CERTIFICATE,
    "Rotation": Rotation(old=word(8), new=word(9)),
    "RosterVersion": RosterVersion(
        version=2,
        previous=word(0x0A),
        chains=(ETH, BTC),
        clock="statement",
        people=(
            Person("ana", "Ana Ng", ("treasury", "risk"), (secp256k1(1), ed25519(2)), (True, False), T + 10**7),
            Person("bo", "Bo Å", ("treasury",), (secp256k1(3),), (True,), T + 10**7),
        ),
        clients=(ApiClient("backend", ed25519(4), ("read", "propose"), "customer", T + 10**6),),
        address_authorities=("ana",),
        policy_owners=("ana", "bo"),
        feeders=(PriceFeeder("kraken", ed25519(5)),),
        attestor=ed25519(6),
        seats=(
            RosterSeat("hot-1", "Operator One", "Org One", ed25519(7), cold=False),
            RosterSeat("cold-1", "Operator Two", "Org Two", ed25519(8), cold=True),
        ),
        relayers=(Relayer(ETH, address(9), 10**18),),
        thresholds=Thresholds(roster=2, certificate=2, policy=1, manual_entry=2, void=2, unfreeze=2),
        delay=172_800,
        not_before=T,
    ),
    "RosterVersion with a passkey": RosterVersion(
        version=3,
        previous=word(0x0A),
        chains=(ETH,),
        clock="wall",
        people=(
            Person("cy", "Cy", ("risk",), (secp256k1(1), PASSKEY), (True, False), T + 10**7),
            Person("dee", "Dee", ("treasury",), (secp256k1(3),), (True,), T + 10**7),
        ),
        clients=(),
        address_authorities=(),
        policy_owners=("cy", "dee"),
        feeders=(),
        attestor=ed25519(6),
        seats=(RosterSeat("hot-1", "Operator One", "Org One", ed25519(7), cold=False),),
        relayers=(),
        thresholds=Thresholds(roster=2, certificate=2, policy=1, manual_entry=2, void=2, unfreeze=2),
        delay=172_800,
        not_before=T,
    ),
    "Login": Login(origin="https://treasury.bulkhead.example", session=word(0x17), issued=T, expires=T + 300),
    "PolicyActivation": PolicyActivation(
        bundle=word(0x0B), previous=word(0x0C), diff_report=word(0x0D), author="bo", not_before=T + 60
    ),
    "Settlement": Settlement(
        id="batch-1",
        client="settler",
        schedule=word(0x0E),
        executed_at=T,
        trades=(
            Trade(
                "trade-1",
                (
                    Leg("ada", "BTC", -(10**8)),
                    Leg("bob", "BTC", 10**8),
                    Leg("ada", "USDX", 2**255 - 1),
                    Leg("bob", "USDX", -(2**255) + 1),
                ),
                (FeeLeg("ada", "USDX", 25), FeeLeg("bob", "BTC", 3)),
            ),
            Trade("trade-2", (Leg("ada", "ETH", 1), Leg("bob", "ETH", -1)), ()),
        ),
    ),
    "ManualEntry": ManualEntry(
        id="manual-1",
        reason="ticket 12: sender proved the deposit",
        postings=(
            ManualPosting("suspense", "BTC", "debit", 5000),
            ManualPosting("customer_available:ada", "BTC", "credit", 5000),
        ),
    ),
    "Backup": Backup(digest=word(0x31), time=1_795_000_000),
    "Void": Void(anchor=ANCHOR, intents=(word(0x0F), word(0x10))),
    "Freeze": Freeze(scope="customer:ada", reason="phone stolen", from_time=T, lapses=T + 14_400),
    "Unfreeze": Unfreeze(freeze=word(0x11), reason="phone found", not_before=T + 86_400),
    "Statement": Statement(
        sequence=9,
        time=T,
        anchor=(ANCHOR,),
        intents=(
            IntentFacts(
                intent=word(0x12),
                hold_stands=True,
                balance_covers=False,
                usd=1_250_000,
                customer_24h=2_000_000,
                wallet_1h=3_000_000,
                initiator_24h=4_000_000,
                settled_24h=5_000_000,
                swept_24h=6,
                destination_after=7,
                first_seen=T - 3600,
                destination_first_seen=T - 86_400,
            ),
        ),
        heights=(ChainHeight(ETH, 100, word(0x13), T - 12), ChainHeight(BTC, 110, word(0x14), T - 600)),
        coverage=(AssetCoverage("ETH", 100, 101, 100, 60, 10, 5, 7, 4, 3),),
        safes=(
            SafeState(
                wallet=word(1),
                chain=ETH,
                address=address(0x15),
                deployed=True,
                nonce=7,
                owners=(address(0x16), address(0x17)),
                threshold=3,
                singleton=address(0x11),
                handler=address(0x13),
                guard=address(0x18),
                modules=(address(0x19),),
            ),
        ),
        seats=(SeatPosition("hot-1", 12, word(0x15)),),
        ledger_position=345,
        ledger_head=word(0x16),
        roster=2,
        policy=word(5),
    ),
    "DepositAddress": DepositAddress(
        wallet=word(1), chain=ETH, customer="ada", index=3, address="0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    ),
    "SeatHead": SeatHead(seat="hot-1", position=12, head=word(0x15), roster=2, time=T),
    "Price": Price(feeder="kraken", asset="ETH", micro_usd=3_012_000_000, time=T),
}
"""By the message's name; a second example of one name carries what tells them apart after it."""
