# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who signs: seats, and the attestor with its memory."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from custody.rules.certificates import DepositAddress, SeatHead, SeatKey, WalletCertificate
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.in_flight import Attested, Flight
from custody.rules.intents import Anchor
from custody.rules.ledger import JournalHead
from custody.rules.payments import SeatSignatures
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request
from custody.rules.signatures import Key, Signature, Signed
from custody.rules.statements import SeatPosition, Statement
from custody.rules.wallets import Chain


class SeatPort(Protocol):
    """One seat, wherever it is hosted: a mount of its own OpenBao, or a process. Keys stay behind it."""

    @property
    def name(self) -> str:
        """The seat's id in the roster."""
        ...

    def identity(self) -> Key:
        """The seat's Ed25519 identity key, made once, inside its own OpenBao."""
        ...

    def sign_roster(self, version: RosterVersion) -> Signature:
        """Sign a version that names this seat's identity key; before pinning only version 1, after it only a successor."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once, after checking that everybody named signed it."""
        ...

    def admit_roster(self, signed: Signed[RosterVersion], statement: Signed[Statement] | None = None) -> None:
        """Take the roster's next version; a devnet's `statement` tells the time. Raises Refused, too_early where it only notes it."""
        ...

    def make_wallet_key(self, label: str, chain: Chain) -> SeatKey:
        """Make the one key for a label and chain, or give the same again; never a key for two labels."""
        ...

    def accept(self, signed: Signed[WalletCertificate]) -> Signed[SeatHead]:
        """Accept a certificate once: quorum of its pinned roster, its own key in it, the script or Safe re-derived."""
        ...

    def head(self) -> Signed[SeatHead]:
        """The newest head of the seat's own journal, signed."""
        ...

    def admit_policy(
        self,
        signed: Signed[PolicyActivation],
        documents: Mapping[str, object],
        statement: Signed[Statement] | None = None,
    ) -> Signed[SeatHead]:
        """Put a bundle in force: its owners' activation, and its documents, which the seat reads and hashes by itself.

        Raises Refused: a successor is noted the first time, and too_early names from when it counts. `statement` tells the time
        where genesis declares that clock.
        """
        ...

    def sign(self, request: Request) -> SeatSignatures:
        """Decode, decide, record, sign; an identical request gets identical signatures. Raises Refused with every reason."""
        ...

    def freeze(self, signed: Signed[Freeze]) -> Signed[SeatHead]:
        """Stop a scope for hours by one person's signature; anyone may carry it."""
        ...

    def unfreeze(self, signed: Signed[Unfreeze]) -> Signed[SeatHead]:
        """End a freeze early, by quorum and after its delay."""
        ...


class AddressBinder(Protocol):
    """The one thing of the attestor that issuing addresses needs."""

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """Bind an index to a customer for ever, after deriving the address from the certificate by itself."""
        ...


class AttestorPort(Protocol):
    """The attestor: own process, own nodes, own key, read-only ledger."""

    def identity(self) -> Key:
        """Its Ed25519 key."""
        ...

    def sign_roster(self, version: RosterVersion) -> Signature:
        """As for a seat."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """As for a seat."""
        ...

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """Bind an index to a customer for ever, after deriving the address from the certificate by itself."""
        ...

    def statement(self) -> Signed[Statement]:
        """Read ledger and chains at one final height each, check history and origins, sign what was found."""
        ...

    def attest(self, anchor: Anchor, intents: Sequence[bytes]) -> Signed[Statement]:
        """A statement that speaks for one payout: its anchor, and facts about exactly these intents, by their digests.

        Each intent is bound to this anchor for ever and in flight from now on. Without intents it names the anchor only, for a
        void or a rotation. Raises Refused with every reason, and Unavailable; then nothing is bound.
        """
        ...


class AttestorMemory(Protocol):
    """The attestor's own vault: its key, and every promise that must outlive it. Each is durable before it returns."""

    def identity(self) -> Key:
        """The attestor's Ed25519 key."""
        ...

    def sign(self, digest: bytes) -> Signature:
        """Sign a typed message's 32-byte digest."""
        ...

    def pinned(self) -> Signed[RosterVersion] | None:
        """Genesis as it was pinned, or None before."""
        ...

    def pin(self, signed: Signed[RosterVersion]) -> None:
        """Pin genesis, once. Raises Refused(WRONG_GENESIS) where another is pinned."""
        ...

    def see_roster(self, version: int, digest: bytes) -> None:
        """Note the newest roster version seen. Raises Refused(ROSTER_OLDER) for an older one, or another of the same number."""
        ...

    def bind(self, wallet: bytes, index: int, customer: str, address: str, keys: int = 0) -> None:
        """Bind an index to one customer for ever, and the customer to it under the wallet's keys of that number.

        The same again is fine. Raises Refused: INDEX_BOUND, ADDRESS_MISMATCH.
        """
        ...

    def next_sequence(self, at_least: int) -> int:
        """A number above every one given before."""
        ...

    def attested(self) -> JournalHead | None:
        """The newest ledger head that was vouched for, or None before the first."""
        ...

    def extend(self, old: JournalHead, new: JournalHead) -> None:
        """Vouch for a longer history. Raises Refused(HISTORY_CHANGED) where `old` is not what was vouched for."""
        ...

    def see_heads(self, heads: Collection[SeatPosition]) -> Sequence[SeatPosition]:
        """Note the newest head of each seat, never a lower one than was seen; gives every one known, by the seats' names."""
        ...

    def attest(self, payout: Sequence[Attested]) -> None:
        """Bind each intent to its one anchor for ever and count it in flight. The same again is fine.

        Raises Refused(INTENT_BOUND) with every intent that has another anchor; then nothing is bound.
        """
        ...

    def bound_to(self, digests: Collection[bytes]) -> Mapping[bytes, Anchor]:
        """Of these intents, those that were ever attested, each with its one anchor."""
        ...

    def flights(self) -> Sequence[Flight]:
        """Every attested intent that is in flight, and those that ended lately."""
        ...

    def land(self, intents: Collection[bytes], at: int) -> None:
        """Note that the anchor of these was finally consumed; those that ended more than a day before are no longer listed."""
        ...

    def unseen(self, digests: Collection[bytes]) -> Sequence[bytes]:
        """Those of them that were never seen."""
        ...

    def first_sight(self, digest: bytes, now: int) -> int:
        """When this was first seen; now, for ever, where it never was."""
        ...

    def offset(self) -> int:
        """Seconds that the statement clock was moved forward by; zero where it never was."""
        ...

    def advance(self, seconds: int) -> int:
        """Move the statement clock forward by a positive number of seconds; gives the new offset."""
        ...
