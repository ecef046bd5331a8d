# SPDX-License-Identifier: AGPL-3.0-or-later
"""What both simulated chains share: blocks of transactions, a mempool that forgets, reorgs, finality, and nothing random."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Generic, TypeVar

from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.wallets import Chain

S = TypeVar("S")
"""The state after a block; never changed once the block is made."""
X = TypeVar("X")
"""A transaction."""


@dataclass(frozen=True)
class Block(Generic[S, X]):
    """One block with its transactions, by their ids, and the state after it."""

    ref: BlockRef
    transactions: dict[bytes, X]
    state: S


@dataclass
class Chainlike(Generic[S, X]):
    """One chain. Hashes follow from the run's seed and the order of blocks; time is the run's clock."""

    chain: Chain
    seed: str
    clock: Callable[[], int]
    genesis: S
    confirmations: int
    slow: int = 0
    """Blocks by which finality lags behind what is usual."""
    blocks: list[Block[S, X]] = field(default_factory=list)
    pool: dict[bytes, X] = field(default_factory=dict)
    known: dict[bytes, BlockRef] = field(default_factory=dict)
    """Every block that ever was."""
    mined: int = 0
    reorgs: int = 0
    lossy: str = ""
    """`before`: the next thing sent does not arrive; `after`: it does, and nobody says so."""
    on_send: Callable[[bytes], None] = lambda _: None
    """Told of everything that is sent to the node, before it takes it."""
    _final: int = 0

    def __post_init__(self) -> None:
        self.mine()

    # what a subclass knows

    def fits(self, state: S, name: bytes, transaction: X) -> bool:
        """Whether a transaction can be in a block on this state."""
        raise NotImplementedError

    def dead(self, state: S, name: bytes, transaction: X) -> bool:
        """Whether it can never be again on this branch."""
        raise NotImplementedError

    def applied(self, state: S, transactions: dict[bytes, X], ref: BlockRef) -> S:
        """The state after these."""
        raise NotImplementedError

    # what a run does

    @property
    def state(self) -> S:
        """At the head."""
        return self.blocks[-1].state if self.blocks else self.genesis

    @property
    def height(self) -> int:
        """Of the head."""
        return len(self.blocks) - 1

    @property
    def final_height(self) -> int:
        """The height of the final block. It never falls: a node that finalised a block keeps it, whatever lags."""
        found = len(self.blocks) - self.confirmations - self.slow
        self._final = min(max(self._final, found, 0), len(self.blocks) - 1)
        return self._final

    def mine(self, besides: frozenset[bytes] = frozenset()) -> BlockRef:
        """One block with everything that waits, but for `besides`, as the state lets it in."""
        parent = self.blocks[-1].ref if self.blocks else None
        self.mined += 1
        digest = sha256(f"{self.seed}/{self.chain.name}/block/{self.mined}".encode()).digest()
        ref = BlockRef(self.chain, len(self.blocks), digest, parent.hash if parent else bytes(32), self.clock())
        taken: dict[bytes, X] = {}
        state = self.state
        for name, transaction in [*self.pool.items()]:
            if name not in besides and self.fits(state, name, transaction):
                taken[name] = self.pool.pop(name)
                state = self.applied(state, {name: transaction}, ref)
        self.blocks.append(Block(ref, taken, state))
        self.known[ref.hash] = ref
        self._forget_dead()
        _ = self.final_height
        return ref

    def rollback(self, depth: int) -> dict[bytes, X]:
        """Take the newest blocks away; their transactions, in order."""
        dropped = self.blocks[-depth:]
        del self.blocks[-depth:]
        return {name: tx for block in dropped for name, tx in block.transactions.items()}

    def reorg(self, depth: int, lost: frozenset[bytes], late: frozenset[bytes], more: int = 1) -> None:
        """Replace the newest `depth` blocks by `depth + more` others, without `lost`; `late` wait in the mempool again."""
        floor = self.final_height
        waiting = self.rollback(depth)
        self.reorgs += 1
        self.pool = {name: tx for name, tx in (waiting | self.pool).items() if name not in lost}
        for _ in range(depth + more):
            self.mine(late)
        self._final = max(min(floor, self.height), self._final)

    def sent(self, raw: bytes, take: Callable[[], None]) -> None:
        """Something is sent to the node. Raises Unavailable where the line is lossy, once."""
        self.on_send(raw)
        lossy, self.lossy = self.lossy, ""
        if lossy != "before":
            take()
        if lossy:
            raise Unavailable(f"the node of {self.chain}", "the connection broke")

    def forget(self, name: bytes) -> None:
        """The mempool drops one."""
        self.pool.pop(name, None)

    def canonical(self) -> Iterator[tuple[BlockRef, bytes, X]]:
        """Every transaction of the chain as it stands."""
        for block in self.blocks:
            for name, transaction in block.transactions.items():
                yield block.ref, name, transaction

    def place_of(self, name: bytes) -> BlockRef | None:
        """The canonical block of a transaction."""
        return next((ref for ref, found, _ in self.canonical() if found == name), None)

    def at(self, ref: BlockRef) -> S | None:
        """The state after a block, where it is canonical."""
        if ref.height >= len(self.blocks) or self.blocks[ref.height].ref.hash != ref.hash:
            return None
        return self.blocks[ref.height].state

    def _forget_dead(self) -> None:
        for name in [name for name, tx in self.pool.items() if self.dead(self.state, name, tx)]:
            del self.pool[name]
