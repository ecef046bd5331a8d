# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where the followed blocks leave the chain, and what has to be taken back because of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from custody.flows.inventory import Inventory
from custody.flows.ports import ChainView, Clock, Deposit, Store, UnitOfWork
from custody.rules.deposits import BlockRef, DepositStatus
from custody.rules.errors import Unavailable
from custody.rules.ledger import JournalEntry, reverse
from custody.rules.origins import ChainProof, Executed, Reversal
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import REOPENS, reopen
from custody.rules.wallets import Chain

WATCHED: Final = "watched"
"""Kind of document that says from which height a wallet is being watched."""
UNBOOKED: Final = "unbooked"
"""Kind of document, by chain, of final payouts that moved no account: a void on EVM of intents that held nothing."""
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
    """What a reorg took back: seen deposits, credited ones and settled payouts. The latter two cost a reversal each."""

    orphaned: int = 0
    reversed: int = 0
    reopened: int = 0

    def __add__(self, other: "Taken") -> "Taken":
        mine, theirs = (self.orphaned, self.reversed, self.reopened), (other.orphaned, other.reversed, other.reopened)
        return Taken(*(a + b for a, b in zip(mine, theirs, strict=True)))


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
        """Unfollow what is above a block, and take back deposits and payouts whose blocks are canonical no longer."""
        above = -1 if to is None else to.height
        affected = self._store.read(lambda work: standing(work, self._chain, above + 1))
        canonical = {h: self._view.block(h) for h in affected.heights}

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


@dataclass(frozen=True, slots=True)
class Resting:
    """What rests on some blocks: deposits and payouts' entries that nothing took back, and payouts that moved no account."""

    deposits: tuple[Deposit, ...]
    entries: tuple[JournalEntry, ...]
    unbooked: tuple[Executed, ...]

    @property
    def heights(self) -> set[int]:
        """Every height that something here rests on."""
        found = {deposit.sighting.proof.height for deposit in self.deposits}
        found |= {origin.height for entry in self.entries if isinstance(origin := entry.entry.origin, Executed)}
        return found | {done.height for done in self.unbooked}


def standing(work: UnitOfWork, chain: Chain, first: int, last: int | None = None) -> Resting:
    """What rests on blocks first..last and is not taken back already."""
    found = [d for d in work.deposits.at_or_above(chain, first) if d.status in STANDING]
    deposits = tuple(d for d in found if last is None or d.sighting.proof.height <= last)
    unbooked = (Executed.from_json(row) for row in work.documents.all(f"{UNBOOKED}/{chain}"))
    within = (done for done in unbooked if first <= done.height and (last is None or done.height <= last))
    return Resting(deposits, tuple(work.journal.executed(chain, first, last)), tuple(within))


def mark_watched(work: UnitOfWork, inventory: Inventory, chain: Chain, first: int) -> None:
    """Note the wallets born at `first` or later: everything from their birth on is followed with them in view."""
    for name, birth in _unwatched(work, inventory, chain):
        if birth >= first:
            work.documents.put(WATCHED, name, {"from": str(birth)})


def _unwatched(work: UnitOfWork, inventory: Inventory, chain: Chain) -> Iterator[tuple[str, int]]:
    for wallet in inventory.on(chain):
        if work.documents.get(WATCHED, wallet.name.hex()) is None:
            yield wallet.name.hex(), wallet.birth


def take_back(work: UnitOfWork, resting: Resting, canonical: Mapping[int, BlockRef | None], now: int) -> Taken:
    """Orphan what was seen and reverse what was booked in blocks that are not the canonical ones given.

    The newest entry first: a payout's entry gives back the change that it took before the deposit of that change is reversed.
    """
    taken, booked = Taken(), list[tuple[int, Deposit | JournalEntry]]()
    for deposit in resting.deposits:
        if _is_canonical(deposit.sighting.proof, canonical):
            continue
        if deposit.status is DepositStatus.CREDITED:
            booked.append((_position(deposit), deposit))
        else:
            work.deposits.move(deposit.sighting.identity, DepositStatus.ORPHANED)
            taken += Taken(orphaned=1)
    for entry in resting.entries:
        if isinstance(origin := entry.entry.origin, Executed) and not _is_canonical(origin, canonical):
            booked.append((entry.position, entry))
    for _, found in sorted(booked, key=lambda each: each[0], reverse=True):
        if isinstance(found, Deposit):
            _reverse(work, _credit_of(work, found), canonical, now)
            work.deposits.move(found.sighting.identity, DepositStatus.REVERSED)
            taken += Taken(reversed=1)
        else:
            _reverse(work, found, canonical, now)
            taken += _reopen(work, found.entry.origin, now)
    for done in resting.unbooked:
        if not _is_canonical(done, canonical):
            taken += _reopen(work, done, now)
    return taken


def _is_canonical(proof: ChainProof | Executed, canonical: Mapping[int, BlockRef | None]) -> bool:
    theirs = canonical[proof.height]
    return theirs is not None and theirs.hash == proof.block


def _position(deposit: Deposit) -> int:
    return 0 if deposit.position is None else deposit.position


def _credit_of(work: UnitOfWork, deposit: Deposit) -> JournalEntry:
    credited = work.journal.get(deposit.position) if deposit.position is not None else None
    if credited is None:
        raise Refused([Refusal(Rule.HISTORY_CHANGED, position=deposit.position, deposit=deposit.sighting.identity)])
    return credited


def _reverse(work: UnitOfWork, recorded: JournalEntry, canonical: Mapping[int, BlockRef | None], now: int) -> None:
    """The exact opposite of a credit or of a payout; what was spent in between goes to `reorg_loss` (TRUST.md)."""
    was = recorded.entry.origin
    if not isinstance(was, ChainProof | Executed):
        raise Refused([Refusal(Rule.HISTORY_CHANGED, position=recorded.position, want="a credit or a payout")])
    theirs = canonical[was.height]
    if theirs is None:  # a reversal names what stands there now; a chain that much shorter has yet to grow
        raise Unavailable(f"chain {was.chain}", f"no block {was.height} yet in place of {was.block.hex()}")
    origin = Reversal(recorded.position, was.chain, was.height, was.block, theirs.hash)
    balances = {key: work.journal.balance(*key) for key in recorded.entry.changes()}
    work.journal.append(reverse(recorded, origin, balances), now)


def _reopen(work: UnitOfWork, origin: object, now: int) -> Taken:
    """The transfers of a payout that is final no longer go on from their stored bytes; their holds stand again."""
    if not isinstance(origin, Executed):
        return Taken()
    found = (work.transfers.get(digest) for digest in origin.intents)
    ended = [transfer for transfer in found if transfer is not None and transfer.status in REOPENS]
    for transfer in ended:
        why = f"the node to take its bytes again: a reorg took block {origin.height}"
        work.transfers.update(reopen(transfer, now, why), transfer)
    return Taken(reopened=bool(ended))
