# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the followed blocks leave the chain, and what has to be taken back because of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from custody.flows.inventory import Inventory
from custody.flows.ports import ChainView, Clock, Deposit, Store, UnitOfWork
from custody.rules.deposits import BlockRef, DepositStatus
from custody.rules.errors import Unavailable
from custody.rules.ledger import reverse_deposit
from custody.rules.origins import Reversal
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.wallets import Chain

WATCHED: Final = "watched"
"""Kind of document that says from which height a wallet is being watched."""
STANDING: Final = (DepositStatus.SEEN, DepositStatus.DUST, DepositStatus.CREDITED)


@dataclass(frozen=True, slots=True)
class Tail:
    """The newest followed block of a chain, or nothing yet."""

    height: int | None
    hash: bytes | None

    @classmethod
    def read(cls, work: UnitOfWork, chain: Chain) -> "Tail":
        """Where the store stands."""
        newest = work.deposits.newest(chain)
        return cls(newest, None if newest is None else work.deposits.followed(chain, newest))

    def require(self, work: UnitOfWork, chain: Chain) -> None:
        """Raise Unavailable if another watcher moved on meanwhile."""
        if Tail.read(work, chain) != self:
            raise Unavailable(f"watcher of {chain}", "another watcher moved it meanwhile")


@dataclass(frozen=True, slots=True)
class Taken:
    """How many deposits a reorg took back: seen ones, and credited ones, which cost a reversal each."""

    orphaned: int = 0
    reversed: int = 0

    def __add__(self, other: "Taken") -> "Taken":
        return Taken(self.orphaned + other.orphaned, self.reversed + other.reversed)


class Return:
    """One comparison of the followed blocks with one chain, and the way back to it."""

    def __init__(self, store: Store, view: ChainView, inventory: Inventory, clock: Clock, keep: int) -> None:
        self._store, self._view, self._inventory, self._clock, self._keep = store, view, inventory, clock, keep
        self._chain = view.chain

    def run(self, head: BlockRef) -> Taken:
        """Compare from the newest block down and go back to the fork, or to the birth of a wallet certified since.

        Raises Unavailable where the node lags, or where the chain is still shorter than a block that a reversal has to name.
        """
        tail = self._store.read(lambda work: Tail.read(work, self._chain))
        if tail.height is None:
            return Taken()
        if not self._is_on_chain(tail.height, head):
            return self._go_back(tail, self._fork(min(head.height, tail.height) - 1))
        births = [birth for _, birth in self._store.read(self._unwatched) if birth <= tail.height]
        if not births:
            return Taken()
        # Coins may have arrived at a new wallet before it was watched, so its blocks are followed again from its birth.
        before = min(births) - 1
        return self._go_back(tail, canonical_block(self._view, before) if before >= 0 else None)

    def _is_on_chain(self, newest: int, head: BlockRef) -> bool:
        top = head if head.height <= newest else canonical_block(self._view, newest)
        mine = self._followed(top.height)
        if mine is not None and mine != top.hash:
            return False
        if mine is None or top.height < newest:
            # A node that lags is no reorg: taking credits back because it has not seen their blocks would rob customers.
            raise Unavailable(f"node of {self._chain}", f"its head {head.height} is behind {newest}, followed before")
        return True

    def _fork(self, height: int) -> BlockRef | None:
        """The newest block both followed and canonical; below what is kept, the newest one that a deposit stands in."""
        while height >= 0 and (mine := self._followed(height)) is not None:
            theirs = canonical_block(self._view, height)
            if theirs.hash == mine:
                return theirs
            height -= 1
        deposits = self._store.read(lambda work: work.deposits.all())
        proofs = {d.sighting.proof.height: d.sighting.proof for d in deposits if d.status in STANDING and self._mine(d)}
        for below in sorted((h for h in proofs if h <= height), reverse=True):
            block = self._view.block(below)
            if block is not None and block.hash == proofs[below].block:
                return block
        return None

    def _go_back(self, tail: Tail, to: BlockRef | None) -> Taken:
        """Unfollow what is above a block, and take back the deposits whose blocks are canonical no longer."""
        above = -1 if to is None else to.height
        affected = self._store.read(lambda work: standing(work, self._chain, above + 1))
        canonical = {h: self._view.block(h) for h in {d.sighting.proof.height for d in affected}}

        def work(work: UnitOfWork) -> Taken:
            tail.require(work, self._chain)
            taken = take_back(work, standing(work, self._chain, above + 1), canonical, self._clock())
            work.deposits.unfollow(self._chain, above)
            if to is not None and work.deposits.followed(self._chain, to.height) is None:
                work.deposits.follow([to], self._keep)
            mark_watched(work, self._inventory, self._chain, above + 1)
            return taken

        return self._store.run(work)

    def _unwatched(self, work: UnitOfWork) -> list[tuple[str, int]]:
        return list(_unwatched(work, self._inventory, self._chain))

    def _followed(self, height: int) -> bytes | None:
        return self._store.read(lambda work: work.deposits.followed(self._chain, height))

    def _mine(self, deposit: Deposit) -> bool:
        return deposit.sighting.proof.chain == self._chain.name


def canonical_block(view: ChainView, height: int) -> BlockRef:
    """The block at a height that the head said was there; raises Unavailable where it went away."""
    block = view.block(height)
    if block is None:
        raise Unavailable(f"chain {view.chain}", f"block {height} went away while it was read")
    return block


def standing(work: UnitOfWork, chain: Chain, first: int, last: int | None = None) -> list[Deposit]:
    """Deposits in blocks first..last that are not taken back already, ascending."""
    found = work.deposits.at_or_above(chain, first)
    return [d for d in found if d.status in STANDING and (last is None or d.sighting.proof.height <= last)]


def mark_watched(work: UnitOfWork, inventory: Inventory, chain: Chain, first: int) -> None:
    """Note the wallets born at `first` or later: everything from their birth on is followed with them in view."""
    for name, birth in _unwatched(work, inventory, chain):
        if birth >= first:
            work.documents.put(WATCHED, name, {"from": str(birth)})


def _unwatched(work: UnitOfWork, inventory: Inventory, chain: Chain) -> Iterator[tuple[str, int]]:
    for wallet in inventory.on(chain):
        if work.documents.get(WATCHED, wallet.name.hex()) is None:
            yield wallet.name.hex(), wallet.birth


def take_back(
    work: UnitOfWork, deposits: Sequence[Deposit], canonical: Mapping[int, BlockRef | None], now: int
) -> Taken:
    """Orphan what was seen and reverse what was credited in blocks that are not the canonical ones given; newest first."""
    taken = Taken()
    for deposit in reversed(deposits):
        proof = deposit.sighting.proof
        theirs = canonical[proof.height]
        if theirs is not None and theirs.hash == proof.block:
            continue
        if deposit.status is not DepositStatus.CREDITED:
            work.deposits.move(deposit.sighting.identity, DepositStatus.ORPHANED)
            taken += Taken(orphaned=1)
            continue
        if theirs is None:  # a reversal names what stands there now; a chain that much shorter has yet to grow
            raise Unavailable(f"chain {proof.chain}", f"no block {proof.height} yet in place of {proof.block.hex()}")
        _reverse(work, deposit, theirs, now)
        taken += Taken(reversed=1)
    return taken


def _reverse(work: UnitOfWork, deposit: Deposit, canonical: BlockRef, now: int) -> None:
    """The exact opposite of the credit; what its owner has already spent goes to `reorg_loss` (TRUST.md)."""
    credited = work.journal.get(deposit.position) if deposit.position is not None else None
    if credited is None:
        raise Refused([Refusal(Rule.HISTORY_CHANGED, position=deposit.position, deposit=deposit.sighting.identity)])
    proof = deposit.sighting.proof
    origin = Reversal(credited.position, proof.chain, proof.height, proof.block, canonical.hash)
    owner = credited.entry.postings[1]
    available = work.journal.balance(owner.account, owner.amount.asset)
    work.journal.append(reverse_deposit(credited, origin, available), now)
    work.deposits.move(deposit.sighting.identity, DepositStatus.REVERSED)
