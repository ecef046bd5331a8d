# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payouts on a chain: pinned, built, put together, sent, followed, outbid. No key of a wallet is here."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

from custody.rules.certificates import WalletCertificate
from custody.rules.intents import Anchor
from custody.rules.payments import (
    Credited,
    Envelope,
    Followed,
    Payment,
    Reservation,
    SeatSignatures,
    SignedPayout,
    Sweep,
    UnsignedPayout,
    none_credited,
)
from custody.rules.refusals import Refusal
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain


class Anchors(Protocol):
    """The part of `PayoutChain` that authorization needs: what to pin before anything is built."""

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """A free anchor and everything else to pin for these payments. `taken` are references pinned by unfinished permits.

        On Bitcoin nothing is spent but what `credited` knows: a coin outside the books wedges them (EVM has no such choice).
        """
        ...


class PayoutChain(Anchors, Protocol):
    """Payouts on one chain: built, put together from signatures, sent and followed. Holds no key of a wallet.

    `wallet` is the wallet's name, `certificate` the one whose keys sign. Every method raises Unavailable where the node does
    not answer, and Refused with the rule where something must not go out.
    """

    @property
    def chain(self) -> Chain:
        """The chain that the node was confirmed to be on."""
        ...

    def preflight(self, wallet: bytes, certificate: WalletCertificate) -> Sequence[Refusal]:
        """What about the wallet on chain differs from its certificate; empty where nothing does."""
        ...

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """The whole transaction, simulated where the chain can; deterministic for one state of the chain."""
        ...

    def void(self, certificate: WalletCertificate, anchor: Anchor, outbid: int = 0) -> UnsignedPayout:
        """The anchor's canonical no-op. `outbid` is the fee of the variant that it has to replace, where one was sent."""
        ...

    def combine(
        self, certificate: WalletCertificate, unsigned: UnsignedPayout, signatures: Sequence[SeatSignatures]
    ) -> SignedPayout:
        """Check every signature against the certificate's keys and put M of them in place."""
        ...

    def seal(self, certificate: Signed[WalletCertificate], signed: SignedPayout) -> Envelope:
        """The bytes to store and then to broadcast; a new envelope is made only where the last one is stale."""
        ...

    def broadcast(self, envelope: Envelope) -> None:
        """Send; the same bytes again are fine. Unavailable means that the outcome is unknown.

        Raises Refused(relayers_nonce_used_by_another_transaction): seal again; Refused(anchor_already_consumed): follow.
        """
        ...

    def follow(self, certificate: WalletCertificate, envelopes: Sequence[Envelope], since: int = 0) -> Followed:
        """What became of a payout, by every envelope of every variant of it. `since` is a height before the first broadcast."""
        ...


@runtime_checkable
class FeeBumper(Protocol):
    """What a chain can do for a payout that no block takes. A chain that cannot leaves it to patience, or to a void."""

    def outbid(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        sent: UnsignedPayout,
        maxima: Mapping[bytes, int],
    ) -> UnsignedPayout | None:
        """Bitcoin: a variant of what was sent that pays what the node asks by now; None where that one does, and on EVM.

        Same coins in the same order, same payments; the fee grows out of the change. `maxima` is what each intent allows. Where the
        node asks for more than people approved it pays all that they did. Raises Refused: fee_above_intents_maximum,
        fee_above_bounds, insufficient_balance (no change to take it from).
        """
        ...

    def reseal(self, certificate: Signed[WalletCertificate], signed: SignedPayout, last: Envelope) -> Envelope | None:
        """EVM: the same signed payout at the relayer's same nonce for a higher price; None where the last one pays enough.

        None on Bitcoin too, where nothing is put around a payout. Raises Refused: relayer_above_cap, anchor_already_consumed.
        """
        ...
