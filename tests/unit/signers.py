# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keys that sign in tests, made from a word each, and a small deployment that everybody named has signed."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_keys.datatypes import PrivateKey

from custody.rules.certificates import SafeParameters, SeatKey, WalletCertificate, WalletKey
from custody.rules.roster import ApiClient, Person, PriceFeeder, Relayer, Roster, RosterSeat, RosterVersion, Thresholds
from custody.rules.signatures import DISPLAYING, Key, N, Scheme, Signature, Signed
from custody.rules.typed import ZERO32, Domain, Struct

NOW: Final = 1_767_225_600
LATER: Final = NOW + 10**7
ETH: Final = "eip155:31338"
BTC: Final = "bip122:0f9188f13cb7b2c71f2a335e3a4fc328"


@dataclass(frozen=True)
class Signer:
    """A key by its owner's word: Ed25519, or secp256k1 where the word starts with `device:`."""

    word: str

    @cached_property
    def _seed(self) -> bytes:
        return hashlib.sha256(self.word.encode()).digest()

    @property
    def key(self) -> Key:
        """The public key as the roster names it."""
        if self.word.startswith("device:"):
            return Key(Scheme.EIP712_SECP256K1, PrivateKey(self._seed).public_key.to_canonical_address())
        private = Ed25519PrivateKey.from_private_bytes(self._seed)
        return Key(Scheme.ED25519, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def over(self, digest: bytes) -> Signature:
        """A signature over 32 bytes."""
        if self.word.startswith("device:"):
            return Signature(self.key, PrivateKey(self._seed).sign_msg_hash(digest).to_bytes())
        return Signature(self.key, Ed25519PrivateKey.from_private_bytes(self._seed).sign(digest))

    def sign(self, message: Struct, genesis: bytes) -> Signature:
        """A signature over a message in one deployment."""
        return self.over(Domain(genesis).digest(message))


def signed(message: N, genesis: bytes, words: Iterable[str]) -> Signed[N]:
    """A message with the signatures of these words' keys."""
    digest = Domain(genesis).digest(message)
    return Signed(message, tuple(Signer(word).over(digest) for word in words))


def person(name: str, *more: str, groups: tuple[str, ...] = ("treasury",)) -> Person:
    """A person with a hardware key, and further keys by their words."""
    keys = (Signer(f"device:{name}").key, *(Signer(word).key for word in more))
    return Person(name, name.title(), groups, keys, tuple(key.scheme in DISPLAYING for key in keys), LATER)


def seat(name: str, organisation: str) -> RosterSeat:
    """A seat with its identity key; cold if its name says so."""
    return RosterSeat(name, f"operator of {name}", organisation, Signer(name).key, name.startswith("cold"))


VERSION_1: Final = RosterVersion(
    version=1,
    previous=ZERO32,
    chains=(ETH, BTC),
    clock="wall",
    people=(person("ana", "ana's laptop"), person("bo"), person("cy"), person("dee")),
    clients=(
        ApiClient("backend", Signer("backend").key, ("read", "propose"), "customer", LATER),
        ApiClient("settler", Signer("settler").key, ("settle",), "system", LATER),
    ),
    address_authorities=("dee",),
    policy_owners=("ana", "bo", "cy"),
    feeders=(PriceFeeder("feeder", Signer("feeder").key),),
    attestor=Signer("attestor").key,
    seats=(
        *(seat(f"hot-{n}", f"org {n}") for n in (1, 2, 3, 4)),
        *(seat(f"cold-{n}", f"org {n}") for n in (1, 2, 3, 4)),
    ),
    relayers=(Relayer(ETH, "0x" + Signer("device:relayer").key.public.hex(), 10**18),),
    thresholds=Thresholds(roster=2, certificate=2, policy=2, manual_entry=2, void=2, unfreeze=2),
    delay=86_400,
    not_before=NOW,
)
MACHINES: Final = (
    "backend", "settler", "feeder", "attestor", "device:relayer",
    *(s.id for s in VERSION_1.seats),
)  # fmt: skip
EVERYBODY: Final = (*MACHINES, "device:ana", "device:bo", "device:cy", "device:dee")


def genesis_of(version: RosterVersion, words: Iterable[str] = EVERYBODY) -> Signed[RosterVersion]:
    """Version 1 signed under its own hash as salt."""
    return signed(version, version.struct_hash, words)


ROSTER: Final = Roster(genesis_of(VERSION_1), VERSION_1.struct_hash)
GENESIS: Final = VERSION_1.struct_hash


def wallet_key(name: str, label: str, chain: str = ETH, genesis: bytes = GENESIS) -> SeatKey:
    """A seat's key for a wallet, signed by the seat's identity."""
    material = hashlib.sha256(f"{name}/{label}".encode()).digest()
    key = WalletKey(
        name, label, chain, *((b"\x02" + material, "") if chain == ETH else (b"", f"[00/0h]tpub{material.hex()}"))
    )
    return SeatKey(key, Signer(name).sign(key, genesis))


SAFE: Final = SafeParameters(
    *("0x" + "11" * 20, ZERO32) * 4, proxy_creation_code=ZERO32, initializer=b"", salt=1, address="0x" + "22" * 20
)


def certificate(**changes: object) -> WalletCertificate:
    """A 3-of-4 hot wallet on EVM, with these fields changed."""
    label = f"customer_hot/{ETH}"
    whole = WalletCertificate(
        previous=ZERO32,
        label=label,
        tier="customer_hot",
        chain=ETH,
        m=3,
        n=4,
        seats=tuple(wallet_key(f"hot-{n}", label) for n in (1, 2, 3, 4)),
        safe=(SAFE,),
        script=(),
        birth=1,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]
