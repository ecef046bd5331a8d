# SPDX-License-Identifier: AGPL-3.0-or-later
"""What people propose, approve and reject: one typed message per verb (TRUST.md).

The verb is inside what is signed: a rejection or a login can never be read as an approval. Amounts are base units; times are
seconds since 1970; `policy` and `roster` pin the versions that were in force.
"""

from dataclasses import dataclass
from typing import Final

from custody.rules.typed import Bytes32, EvmHex, Struct, Uint16, Uint64, Uint256


@dataclass(frozen=True, slots=True)
class Proposal(Struct):
    """What an initiator asks for, signed by the initiator's roster key; the key's entry fixes the role."""

    reference: str
    account: str
    chain: str
    asset: str
    amount: Uint256
    destination: str
    purpose: str
    expiry: Uint64


EXPIRY_MOST: Final = 30 * 86_400
"""Seconds that a proposal may live: one that never expires could be held back for years and used against its signer."""
NONCES_AHEAD: Final = 16
"""How far beyond a Safe's next nonce, as of a final block, an anchor may lie.

The worker has one unsent payout for each EVM wallet; the others between the final and the newest block are on their way: sixteen
batches within the quarter of an hour that finality takes. What is signed further ahead can be neither paid nor voided until every
nonce before it is used, and waits, signed, for long after its intents expired.
"""


@dataclass(frozen=True, slots=True)
class TransferIntent(Struct):
    """The one thing people approve. Immutable: a change is a new intent, and the old one is burned."""

    id: str
    proposal: Bytes32
    chain: str
    wallet: Bytes32
    certificate: Bytes32
    asset: str
    token: EvmHex
    decimals: Uint16
    amount: Uint256
    account: str
    destination: str
    destination_kind: str
    enrolment: Bytes32
    purpose: str
    maximum_fee: Uint256
    initiator: str
    policy: Bytes32
    roster: Uint64
    not_before: Uint64
    expiry: Uint64


@dataclass(frozen=True, slots=True)
class Rejection(Struct):
    """One person's no to one intent, with the reason; it can never be read as a yes."""

    intent: Bytes32
    reason: str


@dataclass(frozen=True, slots=True)
class Anchor(Struct):
    """What exactly one transaction can consume: (Safe, nonce) or one outpoint.

    `reference` is the nonce in decimal, or `txid:vout`.
    """

    chain: str
    wallet: Bytes32
    reference: str


@dataclass(frozen=True, slots=True)
class Void(Struct):
    """Kills an anchor by its one canonical no-op, under quorum; names the intents it was to carry."""

    anchor: Anchor
    intents: tuple[Bytes32, ...]
