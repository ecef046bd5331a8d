# SPDX-License-Identifier: AGPL-3.0-or-later
"""Eyes on a chain: what can be read of it, and which addresses are ours."""

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

from custody.rules.amounts import Asset
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.intents import TransferIntent
from custody.rules.origins import ChainProof, Executed
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal
from custody.rules.statements import SafeState
from custody.rules.wallets import Address, Chain


class ChainView(Protocol):
    """Read-only eyes on one chain through one node."""

    @property
    def chain(self) -> Chain:
        """The chain that the node was asked about and confirmed to be on."""
        ...

    def head(self) -> BlockRef:
        """The newest block."""
        ...

    def final(self) -> BlockRef:
        """The newest final block (EVM: `finalized`; Bitcoin: the registry's confirmations deep)."""
        ...

    def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height, or None above the head."""
        ...

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Every arrival at watched addresses in canonical blocks first..last, both included, ordered by height.

        Each proof names its block's hash; a caller that follows the chain compares them with the blocks it read.
        """
        ...

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Check a proof again at its source: block canonical, event there, balance change as stated. None if it holds."""
        ...

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Base units of one asset that these addresses hold at a block, together."""
        ...


class Branch(Enum):
    """The two branches of a wallet's addresses: paid by others, and paid to itself (Bitcoin change)."""

    RECEIVE = 0
    CHANGE = 1


class AddressDeriver(Protocol):
    """Addresses from a certificate alone: no row, no server."""

    def derive(self, certificate: WalletCertificate, branch: Branch, index: int) -> Address:
        """The address at an index: a deposit Safe on EVM, a script's address on Bitcoin. Raises InvalidInput: no such branch."""
        ...

    def main(self, certificate: WalletCertificate) -> Address | None:
        """The Safe on EVM; None on Bitcoin, where a wallet has no one address."""
        ...


@runtime_checkable
class SafeReader(Protocol):
    """What only an EVM chain can tell: the state of a certified Safe."""

    def safe_state(self, wallet: bytes, certificate: WalletCertificate, at: BlockRef) -> SafeState:
        """Owners, threshold, modules, guard, handler, singleton and nonce at a block."""
        ...


@runtime_checkable
class PayoutReader(Protocol):
    """What a view can tell about payouts, for an audit; a view that cannot leaves their entries unproven."""

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """Check at the source that this canonical transaction consumed the anchor. None if it holds.

        It paid exactly these intents, brought our wallets what is told and cost this fee; a void paid nobody. `holding_of` says
        whose an address is, from certificates: without it, a void in a stranger's Safe would free holds of ours.
        """
        ...


@runtime_checkable
class OutpointReader(Protocol):
    """What only a Bitcoin chain can tell: whether an output was spent."""

    def is_spent(self, outpoint: str, addresses: Collection[Address], at: BlockRef) -> bool | None:
        """Whether a canonical block up to this one spends `txid:vout`; None where none of them pays it to these addresses."""
        ...
