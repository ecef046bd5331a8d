# SPDX-License-Identifier: AGPL-3.0-or-later
"""A payout from the worker's side: what is to be paid, what was built, what was signed, what became of it. Data only.

Nothing here is believed by a seat: it decodes the payload by itself (`rules.payouts`). Every shape that lives longer than one
call has one JSON form, so that a worker which was killed goes on from what it stored (DESIGN.md, law 5).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor
from custody.rules.payouts import Payload, PsbtPayload, SafeTx
from custody.rules.refusals import Rule
from custody.rules.typed import Bytes, Bytes32, Struct, Uint64, Uint256
from custody.rules.wallets import Address


@dataclass(frozen=True, slots=True)
class Derived:
    """A destination that a certificate of ours derives: by branch and index, or its Safe where `index` is None."""

    certificate: WalletCertificate
    branch: int = 0
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """One intent's part of a payout. `units` in base units of the registry's `asset`.

    `maximum_fee` is the intent's, in base units of the chain's native asset; on EVM the relayer pays and it is not used.
    `derived` is given where a wallet of ours is paid: on Bitcoin a seat recognises it by the key paths in the PSBT.
    """

    intent: bytes
    asset: str
    units: int
    destination: Address
    maximum_fee: int = 0
    derived: Derived | None = None


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a deposit Safe sends to its own omnibus within a payout: all or part of one asset that it holds."""

    index: int
    asset: str
    units: int


Credited = Callable[[Collection[str]], Collection[str]]
"""Of these outpoints (`txid:vout`), those whose deposit the ledger has credited and not taken back."""


def none_credited(outpoints: Collection[str]) -> Collection[str]:
    """What somebody knows who was not told of any ledger: no coin of a payout may be one that the books do not have."""
    del outpoints
    return ()


@dataclass(frozen=True, slots=True)
class Reservation(Struct):
    """What a permit pins before anything is built.

    `references` are what must be UNIQUE among permits: the nonce on EVM; every outpoint to be spent on Bitcoin, of which the
    first is the anchor. `change` is the index of Bitcoin's change branch, the same for every variant; 0 on EVM.
    """

    anchor: Anchor
    references: tuple[str, ...]
    change: Uint64


@dataclass(frozen=True, slots=True)
class Paid(Struct):
    """What one intent gets out of a payout, and its share of the network fee in base units of the native asset."""

    intent: Bytes32
    asset: str
    units: Uint256
    destination: str
    fee: Uint256


@dataclass(frozen=True, slots=True)
class UnsignedPayout:
    """A whole transaction that waits for signatures; `payload` is what seats are handed.

    `id` is what its variants are told apart by: the SafeTx hash, or the txid (which a witness does not change). `fee` is what
    leaves the wallet for the network (0 on EVM). `size` is an estimate: gas on EVM, virtual bytes on Bitcoin.
    """

    id: bytes
    anchor: Anchor
    certificate: bytes
    payload: Payload
    paid: tuple[Paid, ...]
    fee: int
    size: int

    def to_json(self) -> dict[str, Any]:
        """The one JSON form; the payload's is that of a seat's request."""
        return {
            "id": "0x" + self.id.hex(),
            "anchor": self.anchor.to_json(),
            "certificate": "0x" + self.certificate.hex(),
            "payload": {"type": type(self.payload).__name__, "fields": self.payload.to_json()},
            "paid": [paid.to_json() for paid in self.paid],
            "fee": str(self.fee),
            "size": str(self.size),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON form; raises InvalidInput."""
        names = {"id", "anchor", "certificate", "payload", "paid", "fee", "size"}
        if not isinstance(data, dict) or set(data) != names or not isinstance(data["paid"], list):
            raise InvalidInput(
                "payout", Rule.MALFORMED, type(data).__name__, "an object of " + ", ".join(sorted(names))
            )
        head = _Head.from_json({name: data[name] for name in ("id", "certificate", "fee", "size")})
        return cls(
            id=head.id,
            anchor=Anchor.from_json(data["anchor"]),
            certificate=head.certificate,
            payload=_payload(data["payload"]),
            paid=tuple(Paid.from_json(item) for item in data["paid"]),
            fee=head.fee,
            size=head.size,
        )


@dataclass(frozen=True, slots=True)
class _Head(Struct):
    """The plain fields of an unsigned payout, for reading them strictly."""

    id: Bytes32
    certificate: Bytes32
    fee: Uint256
    size: Uint256


@dataclass(frozen=True, slots=True)
class SeatSignatures(Struct):
    """One seat's signatures over a payload's digests, in the order of `DecodedPayload.to_sign`.

    On EVM one of 65 bytes, r ‖ s ‖ v with v 27 or 28; on Bitcoin one for each input, DER with the byte of SIGHASH_ALL behind.
    """

    seat: str
    certificate: Bytes32
    signatures: tuple[Bytes, ...]


@dataclass(frozen=True, slots=True)
class SignedPayout(Struct):
    """A payout that its quorum signed: on EVM the call of `execTransaction`, on Bitcoin the transaction itself.

    `size` is still an estimate on EVM; on Bitcoin it is what the bytes have.
    """

    id: Bytes32
    anchor: Anchor
    raw: Bytes
    size: Uint64


@dataclass(frozen=True, slots=True)
class Envelope(Struct):
    """The bytes that go out, to be stored before they do (DESIGN.md, law 5), and the network's own id of them.

    On Bitcoin the signed payout itself; on EVM the relayer's transaction around it, of which one payout may need several.
    """

    id: Bytes32
    transaction: Bytes32
    anchor: Anchor
    raw: Bytes


class Outcome(Enum):
    """How a transaction in a block ended."""

    DONE = "done"
    FAILED = "failed"
    """EVM: the Safe's nonce is burnt and nothing was paid (ExecutionFailure)."""
    REVERTED = "reverted"
    """EVM: the relayer's gas is spent, the anchor is not consumed; another envelope may go out."""


@dataclass(frozen=True, slots=True)
class Mined:
    """In a canonical block; final once that block is. `id` says which variant of the payout it is.

    `fee` in base units of the native asset: what the wallet paid on Bitcoin, what the relayer paid on EVM. `size` is the gas
    used, or virtual bytes.
    """

    id: bytes
    transaction: bytes
    height: int
    block: bytes
    outcome: Outcome
    fee: int
    size: int


@dataclass(frozen=True, slots=True)
class Pending:
    """The node knows a transaction of this payout and no block has it yet."""

    transaction: bytes


@dataclass(frozen=True, slots=True)
class Replaced:
    """The anchor was consumed by something that is none of these variants: for people to look at at once.

    `by` is the transaction that did, where the node can say; empty otherwise.
    """

    by: bytes


@dataclass(frozen=True, slots=True)
class Unknown:
    """The node knows none of it, and the anchor is not consumed: send the same bytes again."""


Followed = Mined | Pending | Replaced | Unknown


@dataclass(frozen=True, slots=True)
class BatchSize(Struct):
    """A measurement: so many payments in one transaction, and its gas or virtual bytes in all."""

    payments: Uint64
    size: Uint64

    @property
    def each(self) -> int:
        """For each payment, rounded up."""
        return -(-self.size // self.payments)


def _payload(data: object) -> Payload:
    kinds: dict[object, type[SafeTx | PsbtPayload]] = {"SafeTx": SafeTx, "PsbtPayload": PsbtPayload}
    named = isinstance(data, dict) and set(data) == {"type", "fields"} and isinstance(data["type"], str)
    kind = kinds.get(data["type"]) if isinstance(data, dict) and named else None
    if kind is None or not isinstance(data, dict):
        raise InvalidInput("payout.payload", Rule.MALFORMED, type(data).__name__, "a SafeTx or a PsbtPayload")
    return kind.from_json(data["fields"])
