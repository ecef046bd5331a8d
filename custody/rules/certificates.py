# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wallets are born with a certificate; addresses outside are enrolled; deposit addresses are bound (TRUST.md).

`WalletCertificate` holds everything that determines a script or a Safe, so that whoever reads one can derive the address with
no server. The first certificate's struct hash names the wallet for ever.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from custody.rules.refusals import Refusal, Rule
from custody.rules.signatures import Signature
from custody.rules.typed import Bytes, Bytes32, EvmHex, Struct, Uint16, Uint64, Uint256
from custody.rules.wallets import Tier

KEY_EVM: Final = 33
"""Bytes of a compressed secp256k1 public key, the wallet key of a seat on EVM."""


@dataclass(frozen=True, slots=True)
class WalletKey(Struct):
    """A seat's own statement that it made this key for this wallet and no other; signed by the seat's identity key.

    `label` names the wallet before it has a certificate (such as `customer_hot/eip155:1`). `public` is a 33-byte compressed
    key on EVM; `xpub` a BIP-32 extended public key with origin (`[fingerprint/path]xpub…`) on Bitcoin; the other is empty.
    """

    seat: str
    label: str
    chain: str
    public: Bytes
    xpub: str

    @property
    def material(self) -> str:
        """The key itself, whatever origin stands before it: what may be in one place only."""
        return self.public.hex() or self.xpub.rpartition("]")[2]


@dataclass(frozen=True, slots=True)
class SeatKey(Struct):
    """A wallet key together with the seat's identity signature over it."""

    key: WalletKey
    signature: Signature


@dataclass(frozen=True, slots=True)
class SafeParameters(Struct):
    """Everything that determines a Safe's address (CREATE2) and its behaviour, each piece of code by its keccak256."""

    singleton: EvmHex
    singleton_code: Bytes32
    factory: EvmHex
    factory_code: Bytes32
    handler: EvmHex
    handler_code: Bytes32
    multisend: EvmHex
    multisend_code: Bytes32
    proxy_creation_code: Bytes32
    initializer: Bytes
    salt: Uint256
    address: EvmHex


@dataclass(frozen=True, slots=True)
class BitcoinScript(Struct):
    """A ranged output descriptor with both branches: `wsh(sortedmulti(M,…/<0;1>/*))` with its checksum."""

    descriptor: str


Script = tuple[tuple[SafeParameters, ...], tuple[BitcoinScript, ...]]
"""What determines an address: one Safe and no script on EVM, no Safe and one script on Bitcoin."""


@dataclass(frozen=True, slots=True)
class WalletCertificate(Struct):
    """A wallet's birth, or its next key set: signed by a roster quorum, accepted by each seat once.

    `previous` is zero at birth, else the predecessor's struct hash; a successor keeps tier and chain. Exactly one of `safe`
    (EVM) and `script` (Bitcoin) has one element. `birth` is the block height before which the wallet cannot hold coins.
    """

    previous: Bytes32
    label: str
    tier: str
    chain: str
    m: Uint16
    n: Uint16
    seats: tuple[SeatKey, ...]
    safe: tuple[SafeParameters, ...]
    script: tuple[BitcoinScript, ...]
    birth: Uint64

    @property
    def wallet(self) -> bytes:
        """The name of the wallet that this certificate bears: its own hash. A successor's wallet is looked up by `previous`."""
        return self.struct_hash


@dataclass(frozen=True, slots=True)
class Rotation(Struct):
    """Moves a wallet from one certificate to the next."""

    old: Bytes32
    new: Bytes32


@dataclass(frozen=True, slots=True)
class Enrolment(Struct):
    """An outside address that coins may go to, signed by an address authority, which never proposes.

    `owner` is the account (`customer:ID` or `company`) that may be debited towards it; `kind` is customer_withdrawal or
    allow_listed.
    """

    chain: str
    address: str
    owner: str
    kind: str
    evidence: Bytes32
    expiry: Uint64


@dataclass(frozen=True, slots=True)
class DepositAddress(Struct):
    """The attestor's word that this index of this wallet belongs to this customer for ever."""

    wallet: Bytes32
    chain: str
    customer: str
    index: Uint64
    address: str


@dataclass(frozen=True, slots=True)
class SeatHead(Struct):
    """A seat's newest journal head, signed by its identity key: behind it the seat signs nothing but a rotation."""

    seat: str
    position: Uint64
    head: Bytes32
    roster: Uint64
    time: Uint64


def check_shape(m: int, n: int) -> Iterator[Refusal]:
    """M and N of one wallet: 1 ≤ M ≤ N, and 2M−N ≥ 2 so that any two quorums share two seats (TRUST.md)."""
    if not 1 <= m <= n:
        yield Refusal(Rule.THRESHOLD_OUT_OF_RANGE, m=m, n=n, want="1 <= M <= N")
    elif 2 * m - n < 2:
        yield Refusal(Rule.QUORUMS_TOO_DISJOINT, m=m, n=n, two_m_minus_n=2 * m - n, want="at least 2, such as 3-of-4")


def check_certificate(
    certificate: WalletCertificate, organisations: dict[str, str], cold_seats: frozenset[str]
) -> Iterator[Refusal]:
    """What a certificate says by itself, against the roster's seats: shape, distinct seats and keys, organisations, tier.

    `organisations` maps each roster seat to its organisation; `cold_seats` names the ones that are offline.
    """
    yield from check_shape(certificate.m, certificate.n)
    names = [s.key.seat for s in certificate.seats]
    if len(names) != certificate.n:
        yield Refusal(Rule.THRESHOLD_OUT_OF_RANGE, n=certificate.n, seats=len(names), want="N seats")
    for name, count in Counter(names).items():
        if count > 1:
            yield Refusal(Rule.SIGNER_TWICE, seat=name, times=count)
        if name not in organisations:
            yield Refusal(Rule.SEAT_UNKNOWN, seat=name)
        elif (name in cold_seats) != (certificate.tier == Tier.CUSTOMER_COLD):
            yield Refusal(Rule.SEAT_TIER, seat=name, tier=certificate.tier, want="cold seats for cold wallets only")
    for organisation, count in Counter(organisations[n] for n in names if n in organisations).items():
        if count >= certificate.m:
            yield Refusal(Rule.ORGANISATION_HOLDS_QUORUM, organisation=organisation, seats=count, m=certificate.m)
    yield from _check_keys(certificate)
    if certificate.tier not in set(Tier):
        yield Refusal(Rule.MALFORMED, field="tier", got=certificate.tier, want=", ".join(Tier))
    if (len(certificate.safe), len(certificate.script)) != ((1, 0) if _is_evm(certificate) else (0, 1)):
        yield Refusal(Rule.SCRIPT_MISMATCH, chain=certificate.chain, want="one Safe on EVM, one script on Bitcoin")


def _is_evm(certificate: WalletCertificate) -> bool:
    return certificate.chain.startswith("eip155:")


def _check_keys(certificate: WalletCertificate) -> Iterator[Refusal]:
    """Each key of the chain's own kind, made for this wallet, and once: under another origin or note it is the same key."""
    for material, count in Counter(s.key.material for s in certificate.seats).items():
        if count > 1:
            yield Refusal(Rule.KEY_REUSED, key=material, times=count)
    for key in (s.key for s in certificate.seats):
        if (len(key.public), bool(key.xpub)) != ((KEY_EVM, False) if _is_evm(certificate) else (0, True)):
            yield Refusal(
                Rule.SCRIPT_MISMATCH, seat=key.seat, want=f"{KEY_EVM} bytes on EVM, an xpub on Bitcoin, not both"
            )
        if (key.label, key.chain) != (certificate.label, certificate.chain):
            yield Refusal(Rule.KEY_REUSED, seat=key.seat, made_for=key.label, offered_for=certificate.label)


def check_succession(old: WalletCertificate, new: WalletCertificate) -> Iterator[Refusal]:
    """A successor names its predecessor and keeps tier and chain."""
    if new.previous != old.struct_hash:
        yield Refusal(Rule.NOT_SUCCESSOR, previous=new.previous.hex(), want=old.struct_hash.hex())
    if (new.tier, new.chain) != (old.tier, old.chain):
        yield Refusal(Rule.TIER_CHANGED, was=f"{old.tier} on {old.chain}", would_be=f"{new.tier} on {new.chain}")
