# SPDX-License-Identifier: AGPL-3.0-or-later
"""A chain in memory that implements `ChainView`: mine deposits and spends, reorganise, go offline. Hashes come from a seed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from custody.rules.amounts import Amount, Asset, AssetKind
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.origins import BitcoinProof, ChainProof, NativeProof, TokenProof, identity_of
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Address, Chain

Payment = tuple[Asset, Address, int]
"""Base units of an asset that arrive at an address, or leave it."""

_Holdings = dict[tuple[Asset, Address], int]
_SECONDS = 12


@dataclass(frozen=True, slots=True)
class FakeBlock:
    """One block: what arrived in it and what everybody holds after it."""

    ref: BlockRef
    arrivals: tuple[Sighting, ...]
    holdings: _Holdings


class FakeChain:
    """One chain from its genesis block at height 0. Two chains made with the same calls are equal, hash for hash.

    `offline` makes every call of the port raise Unavailable; `calls_left` lets that many more calls answer first.
    """

    def __init__(self, chain: Chain, confirmations: int = 3, *, seed: str = "", start: int = 1_700_000_000) -> None:
        if confirmations < 1:
            raise ValueError(f"confirmations must be at least 1, not {confirmations}")
        self.offline = False
        self.calls_left: int | None = None
        self._chain, self._confirmations, self._seed, self._start = chain, confirmations, seed, start
        self._made = 0
        self._blocks: list[FakeBlock] = []
        self._known: set[bytes] = set()
        self.mine()

    # what a test does to the chain

    def mine(self, *payments: Payment, spends: Sequence[Payment] = ()) -> BlockRef:
        """One block on top, in which payments arrive and spends leave. All of a Bitcoin block is one transaction."""
        parent = self._blocks[-1] if self._blocks else None
        before: _Holdings = parent.holdings if parent else {}
        height = parent.ref.height + 1 if parent else 0
        self._made += 1  # a block mined again at a height is another block
        ref = BlockRef(
            chain=self._chain,
            height=height,
            hash=self._hash("block", self._made),
            parent=parent.ref.hash if parent else bytes(32),
            time=self._start + self._made * _SECONDS,
        )
        after = dict(before)
        for sign, moves in ((1, payments), (-1, spends)):
            for asset, address, units in moves:
                self._check(asset, address, units)
                after[asset, address] = after.get((asset, address), 0) + sign * units
        if any(units < 0 for units in after.values()):
            raise ValueError("spends more than an address holds")
        arrivals = tuple(self._arrivals(ref, payments, spends, before, after))
        self._blocks.append(FakeBlock(ref, arrivals, after))
        self._known.add(ref.hash)
        return ref

    def mine_many(self, count: int) -> BlockRef:
        """So many empty blocks; the newest is returned."""
        for _ in range(count):
            self.mine()
        return self._blocks[-1].ref

    def rollback(self, depth: int) -> tuple[FakeBlock, ...]:
        """Take the newest blocks away, so that the head is lower, and hand them back for `adopt`."""
        if not 1 <= depth < len(self._blocks):
            raise ValueError(f"depth {depth} of {len(self._blocks)} blocks; genesis stays")
        dropped = tuple(self._blocks[-depth:])
        del self._blocks[-depth:]
        return dropped

    def adopt(self, blocks: Sequence[FakeBlock]) -> None:
        """Put blocks that were rolled back on top again, with the hashes they had (a reorg of a reorg)."""
        if blocks[0].ref.parent != self._blocks[-1].ref.hash:
            raise ValueError("the first of these blocks does not follow the head")
        self._blocks.extend(blocks)

    def reorg(self, depth: int, *payments_per_block: Sequence[Payment]) -> tuple[FakeBlock, ...]:
        """Replace the newest `depth` blocks by others: one for each element, and empty ones until the height is kept.

        Returns the dropped blocks. Nothing of them comes back by itself.
        """
        dropped = self.rollback(depth)
        for payments in payments_per_block:
            self.mine(*payments)
        self.mine_many(max(0, depth - len(payments_per_block)))
        return dropped

    # ChainView

    @property
    def chain(self) -> Chain:
        """The chain it was made for."""
        return self._chain

    def head(self) -> BlockRef:
        """The newest block."""
        self._answer()
        return self._blocks[-1].ref

    def final(self) -> BlockRef:
        """The block that is `confirmations` deep, or genesis while there are fewer."""
        self._answer()
        return self._blocks[max(0, len(self._blocks) - self._confirmations)].ref

    def block(self, height: int) -> BlockRef | None:
        """The canonical block at a height, or None above the head."""
        self._answer()
        if height < 0:
            raise InvalidInput("height", Rule.NEGATIVE, str(height), "zero or more")
        return self._blocks[height].ref if height < len(self._blocks) else None

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Arrivals at watched addresses in blocks first..last; raises Unavailable where a block is not there."""
        self._answer()
        if last >= len(self._blocks):
            raise Unavailable(f"block {last} of {self._chain}", f"the head is {len(self._blocks) - 1}")
        ours = set(watched)
        return [s for block in self._blocks[max(first, 0) : last + 1] for s in block.arrivals if s.address in ours]

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """The same proof stands in the canonical block; a block above the head that was never seen is unknown."""
        self._answer()
        if proof.chain != self._chain.name:
            return Refusal(Rule.ORIGIN, field="chain", got=proof.chain, want=self._chain.name)
        if proof.height >= len(self._blocks) and proof.block not in self._known:
            raise Unavailable(f"block {proof.height} of {self._chain}", f"the head is {len(self._blocks) - 1}")
        block = self._blocks[proof.height] if proof.height < len(self._blocks) else None
        if block is None or block.ref.hash != proof.block:
            canonical = block.ref.hash.hex() if block else "none"
            return Refusal(Rule.ORIGIN, field="block", got=proof.block.hex(), want=canonical)
        found = {s.identity: s.proof for s in block.arrivals}.get(identity_of(proof))
        if found != proof:
            return Refusal(Rule.ORIGIN, field="event", got=proof, want=found)
        return None

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Base units held after a canonical block; raises Unavailable for a block that is not canonical."""
        self._answer()
        if asset.chain != self._chain:
            raise InvalidInput("asset", Rule.WRONG_NETWORK, str(asset.chain), str(self._chain))
        if at.height >= len(self._blocks) or self._blocks[at.height].ref.hash != at.hash:
            raise Unavailable(f"block {at.height} of {self._chain}", f"{at.hash.hex()} is not canonical")
        holdings = self._blocks[at.height].holdings
        return sum(holdings.get((asset, address), 0) for address in set(addresses))

    # inside

    def _answer(self) -> None:
        if self.calls_left is not None:
            if self.calls_left == 0:
                self.offline = True
            else:
                self.calls_left -= 1
        if self.offline:
            raise Unavailable(f"node of {self._chain}", "offline")

    def _hash(self, *parts: object) -> bytes:
        return sha256("/".join([self._seed, self._chain.name, *map(str, parts)]).encode()).digest()

    def _check(self, asset: Asset, address: Address, units: int) -> None:
        if asset.chain != self._chain or address.chain != self._chain:
            raise ValueError(f"{asset} to {address} is not on {self._chain}")
        if type(units) is not int or units < 0:
            raise ValueError(f"units must be a natural number, not {units!r}")

    def _arrivals(
        self, ref: BlockRef, payments: Sequence[Payment], spends: Sequence[Payment], before: _Holdings, after: _Holdings
    ) -> Iterator[Sighting]:
        transaction = self._hash("transaction", self._made)
        seen: set[tuple[Asset, Address]] = set()
        for index, (asset, address, units) in enumerate(payments):
            proof: ChainProof
            where = (self._chain.name, ref.height, ref.hash)
            credited = units
            if not self._chain.is_evm:
                proof = BitcoinProof(*where, transaction, index, address.text, units)
            elif asset.kind is AssetKind.ERC20 and asset.contract is not None:
                proof = TokenProof(*where, transaction, index, asset.contract.text, address.text, units, units)
            elif (asset, address) in seen:  # one native proof covers all of a block at an address
                continue
            else:
                gone = sum(u for a, w, u in spends if (a, w) == (asset, address))
                held = (before.get((asset, address), 0), after[asset, address])
                proof = NativeProof(*where, address.text, *held, gone)
                credited = held[1] - held[0] + gone
            seen.add((asset, address))
            yield Sighting(Amount(asset, credited), address, proof)
