# SPDX-License-Identifier: AGPL-3.0-or-later
"""A transfer from its proposal to its end: the statuses of TERMS.md, the one table of legal moves, and what it waits for.

Nothing here authorises anything: a status is a row, and seats believe no row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from custody.rules.decisions import DecisionRecord
from custody.rules.errors import InvalidInput
from custody.rules.intents import Proposal, TransferIntent
from custody.rules.payments import Reservation
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Decision
from custody.rules.signatures import Signed

USD_MOST: Final = 2**62
"""Micro-USD of one transfer, above which a price is nonsense; databases sum such numbers exactly."""


class Status(StrEnum):
    """Where a transfer stands (TERMS.md)."""

    SUBMITTED = "SUBMITTED"
    PENDING_SCREENING = "PENDING_SCREENING"
    PENDING_AUTHORIZATION = "PENDING_AUTHORIZATION"
    QUEUED = "QUEUED"
    PENDING_SIGNATURE = "PENDING_SIGNATURE"
    BROADCASTING = "BROADCASTING"
    BROADCAST_UNKNOWN = "BROADCAST_UNKNOWN"
    CONFIRMING = "CONFIRMING"
    COMPLETED = "COMPLETED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"
    BLOCKED = "BLOCKED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not MOVES[self]

    @property
    def is_asked(self) -> bool:
        """Whether a first signature may have been asked for: only the final end of the anchor frees the hold then (TRUST.md)."""
        return self in _ASKED


class SubStatus(StrEnum):
    """More about where it stands (TERMS.md)."""

    BLOCKED_BY_POLICY = "BLOCKED_BY_POLICY"
    BLOCKED_BY_COVERAGE = "BLOCKED_BY_COVERAGE"
    BLOCKED_BY_CIRCUIT_BREAKER = "BLOCKED_BY_CIRCUIT_BREAKER"
    REJECTED_BY_USER = "REJECTED_BY_USER"
    CANCELLED_BY_USER = "CANCELLED_BY_USER"
    FROZEN = "FROZEN"
    PENDING_TIME_LOCK = "PENDING_TIME_LOCK"
    PENDING_BLOCKCHAIN_CONFIRMATIONS = "PENDING_BLOCKCHAIN_CONFIRMATIONS"
    CONFIRMED = "CONFIRMED"
    REPLACED = "REPLACED"
    REORGED = "REORGED"
    ACTUAL_FEE_TOO_HIGH = "ACTUAL_FEE_TOO_HIGH"
    SIGNER_REFUSED = "SIGNER_REFUSED"


_S, _SUB = Status, SubStatus
_BEFORE: Final = frozenset({_S.PENDING_AUTHORIZATION, _S.QUEUED, _S.BLOCKED})
_ENDS: Final = frozenset({_S.CANCELLED, _S.REJECTED, _S.EXPIRED})
_ASKED: Final = frozenset({_S.PENDING_SIGNATURE, _S.BROADCASTING, _S.BROADCAST_UNKNOWN, _S.CONFIRMING, _S.CANCELLING})

MOVES: Final[Mapping[Status, frozenset[Status]]] = {
    _S.SUBMITTED: _BEFORE | {_S.PENDING_SCREENING},
    _S.PENDING_SCREENING: _BEFORE | _ENDS,
    _S.PENDING_AUTHORIZATION: _BEFORE | _ENDS | {_S.PENDING_SIGNATURE},
    _S.QUEUED: _BEFORE | _ENDS | {_S.PENDING_SIGNATURE},
    _S.BLOCKED: _BEFORE | _ENDS | {_S.PENDING_SIGNATURE},
    # From here on a signature may exist: no way back, and no end but by the anchor's.
    _S.PENDING_SIGNATURE: frozenset({_S.PENDING_SIGNATURE, _S.BROADCASTING, _S.CANCELLING}),
    _S.BROADCASTING: frozenset({_S.BROADCASTING, _S.BROADCAST_UNKNOWN, _S.CONFIRMING, _S.CANCELLING}),
    _S.BROADCAST_UNKNOWN: frozenset({_S.BROADCAST_UNKNOWN, _S.BROADCASTING, _S.CONFIRMING, _S.CANCELLING}),
    _S.CONFIRMING: frozenset(
        {_S.CONFIRMING, _S.BROADCASTING, _S.BROADCAST_UNKNOWN, _S.COMPLETED, _S.FAILED, _S.CANCELLING}
    ),
    _S.CANCELLING: frozenset({_S.CANCELLING, _S.CANCELLED, _S.CONFIRMING, _S.COMPLETED, _S.FAILED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.REJECTED: frozenset(),
    _S.FAILED: frozenset(),
    _S.EXPIRED: frozenset(),
}
"""Every legal move. A status may say something new of itself until it is final."""

REOPENS: Final[Mapping[Status, Status]] = {
    _S.COMPLETED: _S.BROADCASTING,
    _S.FAILED: _S.BROADCASTING,
    _S.CANCELLED: _S.CANCELLING,
}
"""Where a transfer whose anchor was finally consumed stands again once a reorg took that block back: its bytes go out as they were."""

SUB_STATUSES: Final[Mapping[Status, frozenset[SubStatus]]] = {
    _S.QUEUED: frozenset({_SUB.PENDING_TIME_LOCK}),
    _S.PENDING_AUTHORIZATION: frozenset({_SUB.PENDING_TIME_LOCK}),
    _S.BLOCKED: frozenset(
        {_SUB.BLOCKED_BY_POLICY, _SUB.BLOCKED_BY_COVERAGE, _SUB.BLOCKED_BY_CIRCUIT_BREAKER, _SUB.FROZEN}
    ),
    _S.PENDING_SIGNATURE: frozenset({_SUB.SIGNER_REFUSED, _SUB.FROZEN, _SUB.BLOCKED_BY_COVERAGE}),
    _S.BROADCASTING: frozenset({_SUB.REPLACED, _SUB.REORGED, _SUB.ACTUAL_FEE_TOO_HIGH}),
    _S.BROADCAST_UNKNOWN: frozenset({_SUB.ACTUAL_FEE_TOO_HIGH}),
    _S.CONFIRMING: frozenset(
        {_SUB.PENDING_BLOCKCHAIN_CONFIRMATIONS, _SUB.REPLACED, _SUB.REORGED, _SUB.ACTUAL_FEE_TOO_HIGH}
    ),
    _S.COMPLETED: frozenset({_SUB.CONFIRMED}),
    _S.CANCELLED: frozenset({_SUB.CANCELLED_BY_USER}),
    _S.CANCELLING: frozenset({_SUB.CANCELLED_BY_USER, _SUB.REJECTED_BY_USER, _SUB.REORGED}),
    _S.REJECTED: frozenset({_SUB.REJECTED_BY_USER}),
    _S.FAILED: frozenset({_SUB.REPLACED, _SUB.ACTUAL_FEE_TOO_HIGH}),
}
"""Which sub-statuses a status may have; one that is not listed has none."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One intent and where it stands. `digest` is what people approve; `usd` its value when proposed, in micro-USD.

    `waiting_for` says for whom or what, and is empty only at the end. `hold` is the position of the journal entry that holds what
    it moves; None where nothing is held. `live` is False for one that policy denied before anything was held: it reserves nothing,
    and can only end. Times are seconds since 1970; `decision` is the newest answer of policy, as JSON.
    """

    digest: bytes
    proposal: Signed[Proposal]
    intent: TransferIntent
    usd: int
    created_at: int
    status: Status = Status.SUBMITTED
    sub_status: SubStatus | None = None
    waiting_for: str = "policy"
    hold: int | None = None
    live: bool = True
    decision: Mapping[str, object] | None = None
    moved_at: int = 0

    def __post_init__(self) -> None:
        if bool(self.waiting_for) == self.status.is_final:
            raise InvalidInput(
                "transfer.waiting_for", Rule.MALFORMED, repr(self.waiting_for), "for whom or what, until the end"
            )
        if self.sub_status is not None and self.sub_status not in SUB_STATUSES.get(self.status, frozenset()):
            raise InvalidInput(
                "transfer.sub_status", Rule.MALFORMED, self.sub_status, f"one that {self.status} may have"
            )
        if not 0 <= self.usd < USD_MOST:
            raise InvalidInput("transfer.usd", Rule.TOO_LARGE, str(self.usd), f"0 to less than {USD_MOST} micro-USD")


def move(
    transfer: Transfer,
    to: Status,
    at: int,
    sub_status: SubStatus | None = None,
    waiting_for: str = "",
    decision: Decision | DecisionRecord | None = None,
) -> Transfer:
    """The transfer after one legal move; the only way a status changes. Raises Refused(status_move_not_allowed)."""
    if to not in MOVES[transfer.status] or (not transfer.live and to not in _ENDS | {_S.BLOCKED}):
        told = {"was": transfer.status.value, "would_be": to.value, "allowed": sorted(MOVES[transfer.status])}
        raise Refused([Refusal(Rule.ILLEGAL_MOVE, intent=transfer.digest.hex(), **told)])
    return replace(
        transfer,
        status=to,
        sub_status=sub_status,
        waiting_for=waiting_for,
        decision=transfer.decision if decision is None else decision.to_json(),
        moved_at=max(at, transfer.moved_at),
    )


def reopen(transfer: Transfer, at: int, waiting_for: str) -> Transfer:
    """The transfer after a reorg took back the block that ended it. Raises Refused(status_move_not_allowed).

    Whoever calls it has reversed the entry of that end: a transfer that was ended by a no, by expiry or by policy had no block.
    """
    to = REOPENS.get(transfer.status)
    if to is None:
        told = {"was": transfer.status.value, "allowed": sorted(REOPENS)}
        raise Refused([Refusal(Rule.ILLEGAL_MOVE, intent=transfer.digest.hex(), **told)])
    moved_at = max(at, transfer.moved_at)
    return replace(transfer, status=to, sub_status=SubStatus.REORGED, waiting_for=waiting_for, moved_at=moved_at)


@dataclass(frozen=True, slots=True)
class Permit:
    """What was recorded before a first signature is asked for: one anchor, everything it pins, and the intents it will carry.

    `statement` is the sequence of the attestor's statement that coverage was checked by.
    """

    reservation: Reservation
    intents: tuple[bytes, ...]
    statement: int
    at: int


@dataclass(frozen=True, slots=True)
class Reserved:
    """Micro-USD that other transfers take up, pending ones included: by account and initiator in 24 hours, by wallet in one."""

    account_24h: int
    wallet_1h: int
    initiator_24h: int


def uuid7(milliseconds: int, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562) from milliseconds since 1970 and 10 random bytes. Raises InvalidInput for fewer or more."""
    if len(entropy) != 10 or not 0 <= milliseconds < 2**48:
        raise InvalidInput(
            "uuid7", Rule.MALFORMED, f"{len(entropy)} bytes at {milliseconds}", "10 bytes, 48 bits of time"
        )
    noise = int.from_bytes(entropy)
    value = milliseconds << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
