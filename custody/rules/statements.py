# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the attestor says: reserves and liabilities at one final height per chain, and facts about intents (TRUST.md)."""

from dataclasses import dataclass

from custody.rules.intents import Anchor
from custody.rules.typed import Bytes32, EvmHex, Struct, Uint16, Uint64, Uint256


@dataclass(frozen=True, slots=True)
class ChainHeight(Struct):
    """The one final block per chain that everything in a statement refers to; `time` is the block's own."""

    chain: str
    height: Uint64
    hash: Bytes32
    time: Uint64


@dataclass(frozen=True, slots=True)
class AssetCoverage(Struct):
    """One asset in base units. `reserves` is the lesser of chain and ledger over customer-tier wallets.

    `in_flight` is what attested payouts will still take out of them, their maximum fees on Bitcoin included; what was held for
    these is counted there and no longer in `held`, as law 2 asks: what is owed after those outflows. In a statement that names an
    anchor its own intents are in `held`, in `matured_fees`, and not in `in_flight`: the seat counts them.
    """

    asset: str
    reserves: Uint256
    on_chain: Uint256
    in_ledger: Uint256
    available: Uint256
    held: Uint256
    suspense: Uint256
    in_flight: Uint256
    accrued_fees: Uint256
    matured_fees: Uint256


@dataclass(frozen=True, slots=True)
class SafeState(Struct):
    """A Safe as the chain has it at the statement's height, for the seats, which have no node."""

    wallet: Bytes32
    chain: str
    address: EvmHex
    deployed: bool
    nonce: Uint64
    owners: tuple[EvmHex, ...]
    threshold: Uint16
    singleton: EvmHex
    handler: EvmHex
    guard: EvmHex
    modules: tuple[EvmHex, ...]


@dataclass(frozen=True, slots=True)
class SeatPosition(Struct):
    """A seat's newest signed head as the attestor knows it."""

    seat: str
    position: Uint64
    head: Bytes32


@dataclass(frozen=True, slots=True)
class IntentFacts(Struct):
    """What a seat cannot know by itself about one intent. Values in micro-USD, times in seconds since 1970.

    `intent` is the intent's digest in this deployment. `first_seen` is when the attestor first saw the intent, which delays count
    from, `destination_first_seen` when it first saw the enrolment or certificate of its destination (0: never). `settled_24h`
    is what settlements credited to the debited account, `swept_24h` the base units of the asset that went to the operational
    tier as fees, and `destination_after` the base units that the destination holds afterwards; each of the last three counts
    what is pending, and this intent.
    """

    intent: Bytes32
    hold_stands: bool
    balance_covers: bool
    usd: Uint256
    customer_24h: Uint256
    wallet_1h: Uint256
    initiator_24h: Uint256
    settled_24h: Uint256
    swept_24h: Uint256
    destination_after: Uint256
    first_seen: Uint64
    destination_first_seen: Uint64


@dataclass(frozen=True, slots=True)
class Statement(Struct):
    """The attestor's signed word. `anchor` has one element when it speaks for a payout, none when it only reports."""

    sequence: Uint64
    time: Uint64
    anchor: tuple[Anchor, ...]
    intents: tuple[IntentFacts, ...]
    heights: tuple[ChainHeight, ...]
    coverage: tuple[AssetCoverage, ...]
    safes: tuple[SafeState, ...]
    seats: tuple[SeatPosition, ...]
    ledger_position: Uint64
    ledger_head: Bytes32
    roster: Uint64
    policy: Bytes32
