# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a chain shows us: blocks, and coins that arrived at our addresses."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from custody.rules.amounts import Amount
from custody.rules.origins import ChainProof, identity_of
from custody.rules.wallets import Address, Chain


@dataclass(frozen=True, slots=True)
class BlockRef:
    """One block: 32-byte hash and parent hash, `time` in seconds since 1970 as the block says."""

    chain: Chain
    height: int
    hash: bytes
    parent: bytes
    time: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """Coins seen arriving at one of our addresses in one block; `amount` is what may be credited, measured, not logged."""

    amount: Amount
    address: Address
    proof: ChainProof

    @property
    def identity(self) -> str:
        """The chain event's identity; each event credits at most once."""
        return identity_of(self.proof)


class DepositStatus(StrEnum):
    """Where a sighting stands. Nothing below finality is more than SEEN."""

    SEEN = "SEEN"
    DUST = "DUST"
    CREDITED = "CREDITED"
    ORPHANED = "ORPHANED"
    REVERSED = "REVERSED"


DEPOSIT_MOVES: Final = {
    DepositStatus.SEEN: {DepositStatus.CREDITED, DepositStatus.ORPHANED, DepositStatus.DUST},
    DepositStatus.DUST: {DepositStatus.ORPHANED},
    DepositStatus.CREDITED: {DepositStatus.REVERSED},
    DepositStatus.ORPHANED: {DepositStatus.SEEN},
    DepositStatus.REVERSED: {DepositStatus.SEEN},
}
"""Legal moves. A block can come back (a reorg of a reorg), so an orphaned sighting can be seen again."""
