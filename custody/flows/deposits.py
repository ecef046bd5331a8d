# SPDX-License-Identifier: AGPL-3.0-or-later
"""See coins arrive, wait for finality, credit them once; take back what a reorg takes back (reorgs.py).

Every transaction begins by checking that the store still stands where the step found it, so that a second watcher, a crash
between any two commits, or a node that changes its mind costs a retry and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from custody.flows.inventory import Inventory
from custody.flows.ports import ChainView, Clock, Deposit, Store, UnitOfWork
from custody.flows.reorgs import Return, Tail, Taken, canonical_block, mark_watched, standing, take_back
from custody.rules.amounts import Assets
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.errors import Unavailable
from custody.rules.ledger import credit_deposit, credited_to, loss_of
from custody.rules.origins import TokenProof, measured
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.wallets import Chain

MAX_BLOCKS: Final = 200
AGAIN: Final = 16
"""Blocks around a sighting that finality does not confirm, which are read once more."""
AGAIN_KIND: Final = "deposits read again"
KEEP: Final = 1024
"""Followed blocks that are kept per chain: deeper than any finality in the registry."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did on one chain. `behind` counts blocks still to be followed; what was `refused` is not credited.

    `reversed` counts credits that a reorg took back, `reopened` payouts.
    """

    chain: Chain
    head: int
    final: int
    newest: int | None
    behind: int
    followed: int = 0
    seen: int = 0
    credited: int = 0
    dust: int = 0
    orphaned: int = 0
    reversed: int = 0
    refused: tuple[Refusal, ...] = ()
    reopened: int = 0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing happened that a person would want to read about."""
        taken = self.orphaned or self.reversed or self.reopened
        return not (self.seen or self.credited or self.dust or taken or self.refused)


def step(
    store: Store,
    view: ChainView,
    inventory: Inventory,
    assets: Assets,
    clock: Clock,
    *,
    max_blocks: int = MAX_BLOCKS,
    keep: int = KEEP,
) -> StepReport:
    """Compare what was followed with the chain, follow at most `max_blocks` more, credit what is final.

    Starts at the earliest birth of a wallet of the chain. Raises Unavailable where the node does not answer, lags, or the
    chain moved during the step: nothing of the part at hand is recorded, and the next step starts from there.
    """
    head = view.head()
    taken = Return(store, view, inventory, clock, keep).run(head)
    followed, seen, more = _Follower(store, view, inventory, assets, clock, keep).run(head, max_blocks)
    taken += more
    credited, dust, refused, final = _Crediting(store, view, inventory, clock, keep).run()
    newest = store.read(lambda work: work.deposits.newest(view.chain))
    behind = head.height - (_start(inventory, view.chain) - 1 if newest is None else newest)
    return StepReport(
        view.chain,
        head.height,
        final,
        newest,
        max(0, behind),
        followed,
        seen,
        credited,
        dust,
        taken.orphaned,
        taken.reversed,
        refused,
        taken.reopened,
    )


def _start(inventory: Inventory, chain: Chain) -> int:
    return min((wallet.birth for wallet in inventory.on(chain)), default=0)


class _Follower:
    """Reads blocks and what arrived in them, and records both at once."""

    def __init__(
        self, store: Store, view: ChainView, inventory: Inventory, assets: Assets, clock: Clock, keep: int
    ) -> None:
        self._store, self._view, self._inventory, self._assets = store, view, inventory, assets
        self._clock, self._keep, self._chain = clock, keep, view.chain

    def run(self, head: BlockRef, max_blocks: int) -> tuple[int, int, Taken]:
        """Follow up to the head; (blocks, sightings, deposits that turned out to stand in other blocks)."""
        tail = self._store.read(lambda work: Tail.read(work, self._chain))
        first = _start(self._inventory, self._chain) if tail.height is None else tail.height + 1
        last = min(head.height, first + max_blocks - 1)
        if last < first:
            return 0, 0, Taken()
        blocks = [canonical_block(self._view, height) for height in range(first, last + 1)]
        self._check_linked(tail, blocks)
        by_height: dict[int, BlockRef | None] = {block.height: block for block in blocks}
        sightings = self._view.sightings(first, last, self._inventory.watched(self._chain))
        for sighting in sightings:
            self._check_sighting(sighting, by_height)
        if canonical_block(self._view, last) != blocks[-1]:
            raise Unavailable(f"chain {self._chain}", f"block {last} was replaced while it was read")

        def work(work: UnitOfWork) -> Taken:
            if not self._inventory.is_current(work):
                raise Unavailable("inventory", "a wallet or an address was added meanwhile")
            tail.require(work, self._chain)
            taken = take_back(work, standing(work, self._chain, first, last), by_height, self._clock())
            for sighting in sightings:
                work.deposits.record(sighting)
            work.deposits.follow(blocks, self._keep)
            mark_watched(work, self._inventory, self._chain, first)
            return taken

        return len(blocks), len(sightings), self._store.run(work)

    def _check_linked(self, tail: Tail, blocks: Sequence[BlockRef]) -> None:
        previous = tail.hash
        for block in blocks:
            if previous is not None and block.parent != previous:
                raise Unavailable(f"chain {self._chain}", f"block {block.height} does not follow the one before it")
            previous = block.hash

    def _check_sighting(self, sighting: Sighting, blocks: Mapping[int, BlockRef | None]) -> None:
        """About a block that was just read, an address of ours, a registered asset, and exactly what the proof shows."""
        proof, asset = sighting.proof, sighting.amount.asset
        block, contract = blocks.get(proof.height), proof.contract if isinstance(proof, TokenProof) else ""
        told: dict[str, tuple[object, object]] = {
            "block": (proof.block, block.hash if block else None),
            "chain": (proof.chain, self._chain.name),
            "asset": (asset in self._assets.on(self._chain), True),
            "contract": (contract, asset.contract.text if asset.contract else ""),
            "units": (sighting.amount.units, max(1, measured(proof))),
            "address": (proof.address, sighting.address.text),
            "watched": (self._inventory.wallet_of(sighting.address) is not None, True),
        }
        for what, (got, want) in told.items():
            if got != want:
                raise Unavailable(
                    f"node of {self._chain}", f"sighting {sighting.identity}: {what} is {got!r}, not {want!r}"
                )


class _Crediting:
    """Credits what is final, each after asking its source again."""

    def __init__(self, store: Store, view: ChainView, inventory: Inventory, clock: Clock, keep: int) -> None:
        self._store, self._view, self._inventory, self._clock, self._keep = store, view, inventory, clock, keep

    def run(self) -> tuple[int, int, tuple[Refusal, ...], int]:
        """Every waiting deposit at or below the final height; (credited, dust, refusals, final height)."""
        chain, final = self._view.chain, self._view.final()
        mine = self._store.read(lambda work: work.deposits.followed(chain, final.height))
        if mine is not None and mine != final.hash:
            raise Unavailable(f"chain {chain}", f"final block {final.height} is not the one that was followed")
        credited = dust = 0
        refused: list[Refusal] = []
        for deposit in self._store.read(lambda work: work.deposits.waiting(chain, final.height)):
            amount = deposit.sighting.amount
            if amount.units < amount.asset.dust:
                self._store.run(partial(_set_dust, deposit))
                dust += 1
            elif (refusal := self._view.confirm(deposit.sighting.proof)) is not None:
                refused.append(refusal)
                self._read_again(deposit)
            else:
                self._store.run(partial(self._credit, deposit))
                credited += 1
        return credited, dust, tuple(refused), final.height

    def _read_again(self, deposit: Deposit) -> None:
        """Once for each sighting that its own, standing block does not confirm: what came beside it was measured wrongly as well.

        A node at its head may tell a balance of the block after, or of the one before. Then coins seem to have come where none did,
        and where they did come, nothing was seen. The sighting stays, uncredited and told, so that no node can make one vanish.
        """
        proof, chain = deposit.sighting.proof, self._view.chain
        to = max(_start(self._inventory, chain), proof.height - AGAIN) - 1
        block = self._view.block(to) if to >= 0 else None

        def work(work: UnitOfWork) -> None:
            key = deposit.sighting.identity
            if (
                work.deposits.followed(chain, proof.height) != proof.block
                or work.documents.get(AGAIN_KIND, key) is not None
            ):
                return
            work.documents.put(AGAIN_KIND, key, {"height": str(proof.height)})
            work.deposits.unfollow(chain, to)
            if block is not None and work.deposits.followed(chain, to) is None:
                work.deposits.follow([block], self._keep)

        self._store.run(work)

    def _credit(self, deposit: Deposit, work: UnitOfWork) -> None:
        """Entry and status in one transaction: whatever crashes, both are there or neither."""
        sighting, proof = deposit.sighting, deposit.sighting.proof
        followed = work.deposits.followed(self._view.chain, proof.height)
        if followed is not None and followed != proof.block:
            raise Unavailable(f"watcher of {self._view.chain}", "another watcher left this block meanwhile")
        wallet, holding = self._inventory.wallet_of(sighting.address), self._inventory.holding_of(sighting.address)
        if wallet is None or holding is None:
            raise Refused([Refusal(Rule.UNKNOWN_WALLET, address=str(sighting.address))])
        if not self._inventory.is_bound_as(work, wallet):
            raise Unavailable("inventory", f"an address of wallet {wallet.name.hex()} was bound meanwhile")
        lost = work.journal.balance(loss_of(credited_to(proof, holding.owner)), sighting.amount.asset)
        entry = credit_deposit(proof, holding.wallet, holding.owner, sighting.amount, lost)
        recorded = work.journal.append(entry, self._clock())
        work.deposits.move(sighting.identity, DepositStatus.CREDITED, recorded.position)


def _set_dust(deposit: Deposit, work: UnitOfWork) -> None:
    work.deposits.move(deposit.sighting.identity, DepositStatus.DUST)
