# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers on their way, what is pinned for signing, and whose turn it is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from custody.rules.approvals import Approval
from custody.rules.intents import Anchor, Rejection
from custody.rules.payments import Envelope
from custody.rules.refusals import Refusal
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Reserved, Status, SubStatus, Transfer


@dataclass(frozen=True, slots=True)
class Moved:
    """One line of a transfer's history. `why` is what it waited for then, or why it ended."""

    at: int
    status: Status
    sub_status: SubStatus | None
    why: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """A row that cannot be read, or that says another thing than the documents in it. It is told, and never moves.

    `name` is the intent's digest of a transfer, the struct hash of an enrolment, the anchor of a permit; `why` says what differs.
    """

    name: str
    why: Refusal
    anchor: Anchor | None = None
    wallet: bytes | None = None
    """The wallet that a transfer's row names; the document in it may name another."""
    assets: frozenset[str] = frozenset()
    """What a transfer may be of: the asset of its row, and that of its document; none where the document cannot be read."""


class Transfers(Protocol):
    """Transfers, the signed documents that people added to them, and what was pinned for signing."""

    def add(self, transfer: Transfer, scope: str, key: str, body: bytes, submitted: Transfer | None = None) -> None:
        """Record a new one under an idempotency key of a scope, with the hash of what was asked.

        `submitted` is how it stood before its first move, where that comes with it: both are in its history.
        Raises Refused: idempotency_key_with_another_body, proposal_bound_to_another_intent, already_recorded (the intent).
        """
        ...

    def asked(self, scope: str, key: str) -> tuple[bytes, Transfer] | None:
        """What was asked under a key, as a hash, and the transfer that it became."""
        ...

    def get(self, digest: bytes) -> Transfer | None:
        """By the intent's digest. Raises InvalidInput where the row differs from the documents in it."""
        ...

    def find(self, transfer: str) -> Transfer | None:
        """By the intent's id."""
        ...

    def of_proposal(self, proposal: bytes) -> Transfer | None:
        """What a proposal became, by its struct hash."""
        ...

    def examine(
        self,
        after: int = 0,
        limit: int = 100,
        *,
        account: str | None = None,
        wallet: bytes | None = None,
        statuses: Collection[Status] = (),
    ) -> Sequence[tuple[int, Transfer | Damaged]]:
        """Transfers with their numbers above `after`, ascending; of every account, wallet and status unless one is named.

        A damaged row is told, under what it says of itself, and everything else is read on.
        """
        ...

    def update(self, transfer: Transfer, was: Transfer, why: str = "") -> None:
        """Record a move; documents, value and creation never change. Raises Refused where `was` is not how it stands."""
        ...

    def history(self, digest: bytes) -> Sequence[Moved]:
        """Every status that a transfer had, oldest first."""
        ...

    def expiring(self, now: int, limit: int = 100, beyond: int = 0) -> Sequence[bytes]:
        """Digests of transfers that are past their expiry and for which no signature may have been asked, oldest first.

        `beyond` leaves out so many of the oldest: those that could not be ended stay in front of all others.
        """
        ...

    def approve(self, approval: Approval, at: int) -> None:
        """Append; the same again is fine. Raises Refused(one_signer_twice) for another by the same person."""
        ...

    def approvals(self, digest: bytes) -> Sequence[Approval]:
        """Every approval of an intent, in the order they came; whoever counts verifies them again."""
        ...

    def reject(self, person: str, rejection: Signed[Rejection], at: int) -> None:
        """Append; one for each intent and person."""
        ...

    def rejections(self, digest: bytes) -> Sequence[Signed[Rejection]]:
        """Every no to an intent."""
        ...

    def reserved(self, account: str, wallet: bytes, initiator: str, now: int, besides: bytes = b"") -> Reserved:
        """What live transfers take up: pending ones whatever their age, completed ones within the window. `besides` not counted."""
        ...

    def swept(self, asset: str, now: int, besides: bytes = b"") -> int:
        """Base units of fee sweeps within 24 hours, pending ones whatever their age."""
        ...

    def heading_to(self, destinations: Collection[str], asset: str, besides: bytes = b"") -> int:
        """Base units of one asset that live, unfinished transfers will bring to these addresses."""
        ...

    def leaving(self, wallet: bytes, asset: str, besides: Collection[bytes] = ()) -> int:
        """Base units of one asset that permitted, unfinished transfers will take out of a wallet, maximum fees not counted."""
        ...

    def permit(self, permit: Permit) -> None:
        """Record a permit; a sweep's carries no intent. Raises Refused where its anchor, an outpoint or an intent is another's."""
        ...

    def permit_of(self, digest: bytes) -> Permit | None:
        """The permit that carries an intent."""
        ...

    def permitted(self) -> Sequence[Permit]:
        """Permits with a transfer that is not at its end, oldest first. Raises InvalidInput on a damaged row."""
        ...

    def examine_permitted(self) -> Sequence[Permit | Damaged]:
        """As `permitted`; a damaged row is told, and everything else is read on."""
        ...

    def taken(self, chain: str, wallet: bytes) -> frozenset[str]:
        """References that unfinished permits of a wallet pin."""
        ...

    def keep(self, envelope: Envelope, at: int) -> None:
        """Append signed bytes of a permit's anchor before they go out; the same again is fine. Raises Refused(no such anchor)."""
        ...

    def kept(self, anchor: Anchor) -> Sequence[Envelope]:
        """Every envelope of an anchor, oldest first."""
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """Whose turn something is. `token` grows with every turn and never comes back; `until` is seconds since 1970."""

    name: str
    holder: str
    token: int
    until: int


class Leases(Protocol):
    """Turns among processes, with fencing: time only says who may begin, the token says whose writes still count."""

    def acquire(self, name: str, holder: str, now: int, seconds: int) -> Lease:
        """The lease as it stands afterwards: the caller's, with a new token, where it was free, lapsed or its own; else the other's.

        Raises InvalidInput for an empty name or holder and for no time at all.
        """
        ...

    def check(self, lease: Lease) -> None:
        """Raises Unavailable where somebody else had a turn since, or it was given back. A lapsed one that nobody took still holds."""
        ...

    def renew(self, lease: Lease, now: int, seconds: int) -> Lease:
        """The same turn for longer, never for less. Raises Unavailable as `check`."""
        ...

    def release(self, lease: Lease) -> None:
        """Give it back, so that nobody has to wait; one that was lost is left alone."""
        ...
