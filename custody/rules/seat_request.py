# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat is asked, and what it may answer. There is no requirement in a request: the seat works that out by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as made
from enum import Enum, auto
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, Self

from custody.rules.amounts import Assets
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment, Rotation, WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.hot_bands import HotBand
from custody.rules.housekeeping import Consolidation
from custody.rules.intents import Proposal, TransferIntent, Void
from custody.rules.ledger import canonical
from custody.rules.parties import Parties
from custody.rules.payouts import Payload, PsbtPayload, SafeTx, ToSign
from custody.rules.refusals import Rule
from custody.rules.requirement import PolicyInForce
from custody.rules.roster import RosterVersion
from custody.rules.seat_journal import SigningRecord
from custody.rules.settlements import FeeSchedule
from custody.rules.signatures import Signed
from custody.rules.statements import Statement

INTENTS_MOST: Final = 500
"""More in one payout is refused before anything is hashed."""


class Kind(Enum):
    """What a request is, by what it carries and nothing else."""

    PAYOUT = auto()
    SWEEP = auto()
    """No intent: coins stay in the wallet."""
    VOID = auto()
    ROTATION = auto()


@dataclass(frozen=True, slots=True)
class Transfer:
    """One intent with everything that stands behind it. `enrolment` is None where the destination is a wallet of ours."""

    proposal: Signed[Proposal]
    intent: TransferIntent
    approvals: tuple[Approval, ...]
    enrolment: Signed[Enrolment] | None

    def to_json(self) -> dict[str, Any]:
        """The one JSON form."""
        return {
            "proposal": self.proposal.to_json(),
            "intent": self.intent.to_json(),
            "approvals": [approval.to_json() for approval in self.approvals],
            "enrolment": None if self.enrolment is None else self.enrolment.to_json(),
        }

    @classmethod
    def from_json(cls, data: object, field: str) -> Self:
        """Read the JSON form; raises InvalidInput."""
        body = _object(data, field, {"proposal", "intent", "approvals", "enrolment"})
        return cls(
            Signed.from_json(Proposal, body["proposal"]),
            TransferIntent.from_json(body["intent"]),
            tuple(Approval.from_json(item) for item in _list(body["approvals"], f"{field}.approvals")),
            None if body["enrolment"] is None else Signed.from_json(Enrolment, body["enrolment"]),
        )


@dataclass(frozen=True)
class Request:
    """Everything a worker hands to a seat. None of it is believed.

    `certificates` are those of other wallets that coins move to, or the next one of a rotation; `rosters` the older versions
    that intents pin, of which the newest one's hash chain is the proof.
    """

    payload: Payload
    wallet: bytes
    statement: Signed[Statement]
    transfers: tuple[Transfer, ...] = ()
    certificates: tuple[Signed[WalletCertificate], ...] = ()
    rosters: tuple[Signed[RosterVersion], ...] = ()
    void: Signed[Void] | None = None
    rotation: Signed[Rotation] | None = None

    @property
    def kind(self) -> Kind | None:
        """What it asks for; None where it asks for two things at once."""
        asked = [Kind.VOID] * (self.void is not None) + [Kind.ROTATION] * (self.rotation is not None)
        asked += [Kind.PAYOUT] * bool(self.transfers)
        return (asked or [Kind.SWEEP])[0] if len(asked) <= 1 else None

    def in_order(self, line: Sequence[WalletCertificate]) -> tuple[WalletCertificate, ...]:
        """A wallet's certificates in the order in which the payload is to be read by them: the newest first, the oldest last.

        What is signed under a rotation is the old one's: a Safe has one address under each of its certificates.
        """
        old = None if self.rotation is None else self.rotation.message.old
        newest_first = tuple(reversed(line))
        return tuple(sorted(newest_first, key=lambda certificate: certificate.struct_hash != old))

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical JSON: an identical request has the same, and gets the same answer."""
        return sha256(b"bulkhead seat request v1\x00" + canonical(self.to_json())).digest()

    def to_json(self) -> dict[str, Any]:
        """The one JSON form, in which it travels and is carried to cold seats."""
        return {
            "payload": {"type": type(self.payload).__name__, "fields": self.payload.to_json()},
            "wallet": "0x" + self.wallet.hex(),
            "statement": self.statement.to_json(),
            "transfers": [transfer.to_json() for transfer in self.transfers],
            "certificates": [signed.to_json() for signed in self.certificates],
            "rosters": [signed.to_json() for signed in self.rosters],
            "void": None if self.void is None else self.void.to_json(),
            "rotation": None if self.rotation is None else self.rotation.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the JSON form; raises InvalidInput naming the field that is wrong."""
        names = {"payload", "wallet", "statement", "transfers", "certificates", "rosters", "void", "rotation"}
        body = _object(data, "request", names)
        transfers = _list(body["transfers"], "transfers")
        if len(transfers) > INTENTS_MOST:
            raise InvalidInput("transfers", Rule.MALFORMED, str(len(transfers)), f"at most {INTENTS_MOST}")
        return cls(
            payload=_payload(body["payload"]),
            wallet=_bytes32(body["wallet"], "wallet"),
            statement=Signed.from_json(Statement, body["statement"]),
            transfers=tuple(Transfer.from_json(item, f"transfers[{i}]") for i, item in enumerate(transfers)),
            certificates=tuple(
                Signed.from_json(WalletCertificate, item) for item in _list(body["certificates"], "certificates")
            ),
            rosters=tuple(Signed.from_json(RosterVersion, item) for item in _list(body["rosters"], "rosters")),
            void=None if body["void"] is None else Signed.from_json(Void, body["void"]),
            rotation=None if body["rotation"] is None else Signed.from_json(Rotation, body["rotation"]),
        )


@dataclass(frozen=True, slots=True)
class BundleInForce:
    """A policy bundle as a seat uses it: its rules, its asset registry and its fee schedule, all under one hash.

    `hot` are the levels that rebalancing aims at, `consolidation` when small coins are joined, `deposit_sweeps` from how many base
    units on a deposit address is swept, each by asset. A seat asks for none of them: its rules refuse above the cap, and what a payout
    may cost was approved. `parties` are whom rules treat as related or sanctioned.
    """

    rules: PolicyInForce
    assets: Assets
    fees: FeeSchedule
    hot: Mapping[str, HotBand] = made(default_factory=dict)
    consolidation: Mapping[str, Consolidation] = made(default_factory=dict)
    deposit_sweeps: Mapping[str, int] = made(default_factory=dict)
    parties: Parties = made(default_factory=Parties)

    @property
    def hash(self) -> bytes:
        """The bundle's hash, as intents pin it."""
        return self.rules.hash


@dataclass(frozen=True, slots=True)
class Policies:
    """The bundles that the host read and hashed: the newest, and those that intents pin, by hash. `decide` checks which they are."""

    newest: BundleInForce
    pinned: Mapping[bytes, BundleInForce]

    def of(self, digest: bytes) -> BundleInForce | None:
        """The bundle of this hash, where it was handed in and is what it is filed under."""
        found = self.newest if digest == self.newest.hash else self.pinned.get(digest)
        return found if found is not None and found.hash == digest else None


@dataclass(frozen=True, slots=True)
class Plan:
    """A yes. The host applies and stores each record first, and then signs each digest with the wallet key of its place.

    No record where this very request was answered before: the answer is the same, and nothing new is bound.
    """

    records: tuple[SigningRecord, ...]
    to_sign: tuple[ToSign, ...]


def _payload(data: object) -> Payload:
    body = _object(data, "payload", {"type", "fields"})
    kinds: dict[object, type[SafeTx | PsbtPayload]] = {"SafeTx": SafeTx, "PsbtPayload": PsbtPayload}
    kind = kinds.get(body["type"]) if isinstance(body["type"], str) else None
    if kind is None:
        raise InvalidInput("payload.type", Rule.MALFORMED, repr(body["type"]), "SafeTx or PsbtPayload")
    return kind.from_json(body["fields"])


def _object(data: object, field: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(data, dict) or set(data) != names:
        got = ", ".join(sorted(map(str, data))) if isinstance(data, dict) else type(data).__name__
        raise InvalidInput(field, Rule.MALFORMED, got, "an object of " + ", ".join(sorted(names)))
    return data


def _list(data: object, field: str) -> list[Any]:
    if not isinstance(data, list):
        raise InvalidInput(field, Rule.MALFORMED, type(data).__name__, "a list")
    return data


def _bytes32(data: object, field: str) -> bytes:
    try:
        value = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else b""
    except ValueError:
        value = b""
    if len(value) != 32:
        raise InvalidInput(field, Rule.MALFORMED, repr(data), "0x and 64 hex digits")
    return value
