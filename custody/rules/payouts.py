# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a payload does once it is decoded: one shape for both kinds of chain, and its match with what people approved.

A payout is one chain transaction and its variants; it owns one anchor, which every variant spends (TRUST.md, "One anchor per
payout"). Decoders (`chains/*/decode.py`) make a `DecodedPayload` or refuse; nothing here reads bytes of a chain.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from custody.rules.amounts import Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.intents import Anchor, TransferIntent
from custody.rules.ledger import canonical
from custody.rules.refusals import Refusal, Rule
from custody.rules.typed import Bytes, EvmHex, Struct, Uint16, Uint64, Uint256

BPS: Final = 10_000

CHANGE_WINDOW: Final = 20
"""Change indices of each Bitcoin certificate, 0 to 19, and no other: one number for all who have to agree.

Watchers and attestor watch exactly these, the builder pays change to these, and again once all were used, seats sign no output to a
change index beyond them, and a move inside may name no other as its destination. Change that left the window would be on chain, in
no reserve, and at an address that nobody watches. Twenty, since each index is derived and watched by every process for every
wallet (2 ms each); to use one again costs privacy, never coins.
"""
VOID_CHANGE: Final = 0
"""The change index that every Bitcoin void pays: an address that no customer can be bound to."""


@dataclass(frozen=True, slots=True)
class SafeTx(Struct):
    """The fields of a Safe 1.4.1 transaction as they are handed to a seat; `chain` and `safe` are those of its domain."""

    chain: str
    safe: EvmHex
    to: EvmHex
    value: Uint256
    data: Bytes
    operation: Uint16
    safe_tx_gas: Uint256
    base_gas: Uint256
    gas_price: Uint256
    gas_token: EvmHex
    refund_receiver: EvmHex
    nonce: Uint64


@dataclass(frozen=True, slots=True)
class PsbtPayload(Struct):
    """An unsigned PSBT (BIP-174, version 0) in binary, with every input's whole previous transaction."""

    chain: str
    psbt: Bytes


Payload = SafeTx | PsbtPayload


class LeafKind(StrEnum):
    """Everything that a payload may do; what is none of these is refused by the decoder."""

    NATIVE = "native"
    TOKEN = "token"  # noqa: S105
    SWEEP = "sweep"
    """From a certified deposit Safe into its own omnibus."""
    CHANGE = "change"
    """Back to the same wallet: at its own certificate's script, or, once rotated, at its successor's."""
    VOID = "void"
    """Nothing, but it consumes the anchor."""
    OWNER_CHANGE = "owner_change"


PAYMENTS: Final = frozenset({LeafKind.NATIVE, LeafKind.TOKEN})
"""The leaves that need an intent each."""


@dataclass(frozen=True, slots=True)
class Place:
    """An address that a certificate derives: by branch and index, or the Safe itself where `index` is None."""

    certificate: bytes
    branch: int = 0
    index: int | None = None


@dataclass(frozen=True, slots=True)
class OwnerCall:
    """One of Safe's owner calls. Addresses in EIP-55; None where the call has no such argument."""

    added: str | None
    removed: str | None
    threshold: int | None


@dataclass(frozen=True, slots=True)
class Leaf:
    """One thing a payload does. `units` in base units of `asset` (a registry symbol; empty where nothing is paid).

    `place` says which certificate derives the destination, where one of those handed to the decoder does.
    """

    kind: LeafKind
    asset: str = ""
    units: int = 0
    destination: str = ""
    place: Place | None = None
    source: Place | None = None
    owners: OwnerCall | None = None


@dataclass(frozen=True, slots=True)
class SpentInput:
    """A Bitcoin input: `txid:vout`, satoshi by its previous transaction, and where the wallet derives its script."""

    outpoint: str
    units: int
    place: Place


@dataclass(frozen=True, slots=True)
class ToSign:
    """A 32-byte digest for the wallet key of a place: the SafeTx hash, or one input's BIP-143 sighash."""

    digest: bytes
    place: Place


@dataclass(frozen=True, slots=True)
class DecodedPayload:
    """What one unsigned transaction does, whole. `certificate` is the hash of the one whose keys would sign.

    `fee` is what the network would take from the wallet, in base units of `native`; zero on EVM, where the relayer pays.
    """

    chain: str
    wallet: bytes
    certificate: bytes
    anchor: Anchor
    native: str
    leaves: tuple[Leaf, ...]
    inputs: tuple[SpentInput, ...]
    fee: int
    to_sign: tuple[ToSign, ...]

    @property
    def payments(self) -> tuple[Leaf, ...]:
        """The leaves that need an intent each."""
        return tuple(leaf for leaf in self.leaves if leaf.kind in PAYMENTS)

    @property
    def is_void(self) -> bool:
        """Whether this is the anchor's one canonical no-op (fee apart)."""
        return [leaf.kind for leaf in self.leaves] == [LeafKind.VOID]

    @property
    def changes_owners(self) -> bool:
        """Whether any leaf touches the Safe's owners."""
        return any(leaf.kind is LeafKind.OWNER_CHANGE for leaf in self.leaves)

    @property
    def meaning(self) -> bytes:
        """SHA-256 of everything but the fee: equal for the variants of one payout, which differ in fee (and so in change) only."""
        body = {
            "anchor": self.anchor.to_json(),
            "certificate": self.certificate.hex(),
            "inputs": [[spent.outpoint, str(spent.units)] for spent in self.inputs],
            "leaves": [_meaning(leaf) for leaf in self.leaves],
        }
        return sha256(b"bulkhead payout v1\x00" + canonical(body)).digest()

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The digests to sign, in order."""
        return tuple(each.digest for each in self.to_sign)


def _meaning(leaf: Leaf) -> list[object]:
    units = 0 if leaf.kind in {LeafKind.CHANGE, LeafKind.VOID} else leaf.units  # what the fee leaves over
    owners = leaf.owners and [leaf.owners.added, leaf.owners.removed, str(leaf.owners.threshold)]
    source = leaf.source and str(leaf.source.index)
    return [leaf.kind.value, leaf.asset, str(units), leaf.destination, source, owners]


Decoded = DecodedPayload | tuple[Refusal, ...]
"""What a decoder answers: the whole payload, or at least one refusal."""


@dataclass(frozen=True, slots=True)
class IndexWindow:
    """How far indices are looked for: the highest receive and change index, both included.

    Coins at a change index beyond what nodes watch are lost to sight, so a seat bounds it. A receive index is bounded only
    because a table is searched on EVM; an input is proved ours by deriving its script.
    """

    receive: int = 999
    change: int = CHANGE_WINDOW - 1


@dataclass(frozen=True, slots=True)
class FeeBounds:
    """A network fee is at most the least of three (facts: fee blow-ups).

    `absolute` in satoshi, `share_bps` in basis points of what is paid, `rate` in satoshi per virtual byte.
    """

    absolute: int = 2_000_000
    share_bps: int = 500
    rate: int = 1_000

    def most(self, paid: int, vbytes: int) -> int:
        """The highest fee for so many satoshi paid (or moved, where nothing is paid) by so many virtual bytes."""
        return min(self.absolute, paid * self.share_bps // BPS, vbytes * self.rate)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a decoder compares bytes with. `certificate` is the one whose keys would sign for `wallet`.

    `others` are certificates whose addresses are recognised: the wallet's own successors, and wallets that coins may move to.
    That they are properly signed is checked by `seat.decide`, which looks at those that a leaf names.
    """

    wallet: bytes
    certificate: WalletCertificate
    assets: Assets
    others: tuple[WalletCertificate, ...] = ()
    window: IndexWindow = IndexWindow()
    fees: FeeBounds = FeeBounds()


def one_to_one(leaves: Iterable[Leaf], intents: Iterable[TransferIntent]) -> Iterator[Refusal]:
    """Every payment is exactly one intent's and every intent is paid exactly once: same asset, destination and units.

    Both directions, as multisets: an extra leaf is a theft, a missing one a customer debited for nothing.
    """
    paid = Counter((leaf.asset, leaf.destination, leaf.units) for leaf in leaves if leaf.kind in PAYMENTS)
    approved = Counter((intent.asset, intent.destination, intent.amount) for intent in intents)
    for found, missing, what in ((paid, approved, "leaf without intent"), (approved, paid, "intent without leaf")):
        for (asset, destination, units), times in sorted((found - missing).items()):
            told = {"asset": asset, "destination": destination, "units": units, "times": times}
            yield Refusal(Rule.PAYLOAD_MISMATCH, what=what, **told)


def check_void(decoded: DecodedPayload) -> Iterator[Refusal]:
    """The one canonical void of an anchor: a no-op SafeTx at that nonce, or that one outpoint back to the wallet's own change."""
    if not decoded.is_void:
        kinds = [leaf.kind.value for leaf in decoded.leaves]
        yield Refusal(Rule.NOT_VOID, anchor=decoded.anchor.reference, leaves=kinds, want="one leaf that does nothing")


def void_safe_tx(chain: str, safe: str, nonce: int) -> SafeTx:
    """The canonical void of (Safe, nonce): the Safe calls itself with nothing."""
    zero = "0x" + "00" * 20
    return SafeTx(chain, safe, safe, 0, b"", 0, 0, 0, 0, zero, zero, nonce)


def apply_owner_calls(
    owners: Iterable[str], threshold: int, calls: Iterable[OwnerCall]
) -> tuple[frozenset[str], int] | Refusal:
    """Owners and threshold after these calls, one after the other; a call that could not succeed is refused.

    The order of Safe's linked list is not known here: a wrong `prevOwner` reverts on chain and changes nothing.
    """
    now = {owner.lower() for owner in owners}
    for call in calls:
        if call.removed is not None and call.removed.lower() not in now:
            return Refusal(Rule.NOT_ROTATION, removes=call.removed, want="an owner")
        if call.removed is not None:
            now.remove(call.removed.lower())
        if call.added is not None and call.added.lower() in now:
            return Refusal(Rule.NOT_ROTATION, adds=call.added, want="somebody who is no owner yet")
        if call.added is not None:
            now.add(call.added.lower())
        threshold = threshold if call.threshold is None else call.threshold
        if not 1 <= threshold <= len(now):
            return Refusal(Rule.NOT_ROTATION, threshold=threshold, owners=len(now))
    return frozenset(now), threshold
