# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several nodes of one chain as one view: whatever they do not agree on is unknown, and unknown is never a value."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from custody.flows.ports import ChainView, OutpointReader, PayoutReader, SafeReader
from custody.rules.amounts import Asset
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import Unavailable
from custody.rules.intents import TransferIntent
from custody.rules.origins import ChainProof, Executed
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal
from custody.rules.statements import SafeState
from custody.rules.wallets import DEVNET_CHAINS, Address, Chain

T = TypeVar("T")


@runtime_checkable
class Remembering(Protocol):
    """A view that keeps what its node once told it of blocks."""

    def read_again(self) -> None:
        """Forget that, and ask the node anew."""
        ...


class Panel:
    """`ChainView` and `SafeReader` over all of a chain's nodes; raises Unavailable where they differ or are too few.

    Outside the devnet there have to be two: one node alone could lie about coins that are not there.
    """

    def __init__(self, chain: Chain, views: Sequence[ChainView]) -> None:
        self._chain, self._views = chain, tuple(views)
        needed = 1 if chain.name in DEVNET_CHAINS else 2
        if len(self._views) < needed:
            raise Unavailable(f"nodes of {chain}", f"{len(self._views)} configured, {needed} needed")
        if {view.chain for view in self._views} != {chain}:
            raise Unavailable(f"nodes of {chain}", "one of them is on another chain")

    @property
    def chain(self) -> Chain:
        """The chain."""
        return self._chain

    def head(self) -> BlockRef:
        """The lowest of their newest blocks, which all of them have."""
        return self._lowest([view.head() for view in self._views])

    def final(self) -> BlockRef:
        """The lowest of their final blocks, which all of them have."""
        return self._lowest([view.final() for view in self._views])

    def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height."""
        return self._agreed(f"block {height}", lambda view: view.block(height))

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Arrivals, as all of them tell it."""
        return self._agreed(f"arrivals in {first}..{last}", lambda view: tuple(view.sightings(first, last, watched)))

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """None if the proof holds at every node; the first refusal otherwise."""
        answers = [view.confirm(proof) for view in self._views]
        return next((refusal for refusal in answers if refusal is not None), None)

    def confirm_executed(
        self, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
    ) -> Refusal | None:
        """None if a payout's entry holds at every node; the first refusal otherwise. Raises Unavailable where one cannot tell."""
        readers = [view for view in self._views if isinstance(view, PayoutReader)]
        if len(readers) != len(self._views):
            raise Unavailable(f"nodes of {self._chain}", "one of them cannot be asked about payouts")
        answers = [reader.confirm_executed(executed, intents, holding_of) for reader in readers]
        return next((refusal for refusal in answers if refusal is not None), None)

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Base units held at a block."""
        return self._counted(f"balance of {asset} at {at.height}", lambda view: view.balance(asset, addresses, at))

    def safe_state(self, wallet: bytes, certificate: WalletCertificate, at: BlockRef) -> SafeState:
        """A certified Safe at a block. Raises Unavailable where a node cannot read Safes."""

        def read(view: ChainView) -> SafeState:
            if not isinstance(view, SafeReader):
                raise Unavailable(f"nodes of {self._chain}", "one of them cannot read Safes")
            return view.safe_state(wallet, certificate, at)

        return self._agreed(f"Safe {certificate.safe[0].address}", read)

    def is_spent(self, outpoint: str, addresses: Collection[Address], at: BlockRef) -> bool | None:
        """See `OutpointReader`. Raises Unavailable where a node cannot be asked about outputs."""

        def read(view: ChainView) -> bool | None:
            if not isinstance(view, OutpointReader):
                raise Unavailable(f"nodes of {self._chain}", "one of them cannot be asked about outputs")
            return view.is_spent(outpoint, addresses, at)

        return self._counted(f"output {outpoint}", read)

    def _lowest(self, blocks: Sequence[BlockRef]) -> BlockRef:
        lowest = min(blocks, key=lambda block: block.height)
        if self.block(lowest.height) != lowest:
            raise Unavailable(f"nodes of {self._chain}", f"they disagree about block {lowest.height}")
        return lowest

    def _counted(self, what: str, ask: Callable[[ChainView], T]) -> T:
        """As `_agreed`. A node may have lied once about a block that its view counted then: it would be silence for ever."""
        answers = [ask(view) for view in self._views]
        if any(answer != answers[0] for answer in answers):
            for view in self._views:
                if isinstance(view, Remembering):
                    view.read_again()
            raise Unavailable(f"nodes of {self._chain}", f"they disagree about {what}")
        return answers[0]

    def _agreed(self, what: str, ask: Callable[[ChainView], T]) -> T:
        first, *others = [ask(view) for view in self._views]
        if any(other != first for other in others):
            raise Unavailable(f"nodes of {self._chain}", f"they disagree about {what}")
        return first


class VouchedPanel(Panel):
    """A panel that does not ask again about events whose proofs held when their entries were attested.

    A node without archive state cannot answer for them; that the entries are those very ones, the attested head says.
    """

    def __init__(self, chain: Chain, views: Sequence[ChainView], is_vouched: Callable[[ChainProof], bool]) -> None:
        super().__init__(chain, views)
        self._is_vouched = is_vouched

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """As `Panel`, for what nobody has vouched for yet."""
        return None if self._is_vouched(proof) else super().confirm(proof)
