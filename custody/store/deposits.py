# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sightings as they stand, and the blocks that each watcher has followed."""

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from custody.flows.ports import Deposit
from custody.rules.amounts import Assets
from custody.rules.deposits import DEPOSIT_MOVES, BlockRef, DepositStatus, Sighting
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.wallets import Chain
from custody.store.mapping import deposit, deposit_row
from custody.store.tables import DepositRow, FollowedRow

_ASKED: Final = 500
"""Outpoints in one query: fewer than the parameters that either database takes."""


class SqlDeposits:
    """Deposits inside one transaction."""

    def __init__(self, session: Session, assets: Assets) -> None:
        self._session, self._assets = session, assets

    def followed(self, chain: Chain, height: int) -> bytes | None:
        """Hash of the block that was followed at a height."""
        row = self._session.get(FollowedRow, (chain.name, height))
        return None if row is None else bytes(row.hash)

    def newest(self, chain: Chain) -> int | None:
        """The newest followed height."""
        return self._session.exec(select(func.max(FollowedRow.height)).where(FollowedRow.chain == chain.name)).one()

    def follow(self, blocks: Sequence[BlockRef], keep: int) -> None:
        """Record blocks as followed; another block at a followed height raises Refused(already_exists): unfollow it first."""
        newest: dict[str, int] = {}
        for block in blocks:
            known = self.followed(block.chain, block.height)
            if known is None:
                self._session.add(FollowedRow(chain=block.chain.name, height=block.height, hash=block.hash))
            elif known != block.hash:
                raise Refused(
                    [Refusal(Rule.ALREADY_EXISTS, chain=block.chain.name, height=block.height, followed=known.hex())]
                )
            newest[block.chain.name] = max(block.height, newest.get(block.chain.name, 0))
        self._session.flush()
        for chain, height in newest.items():
            old = delete(FollowedRow).where(col(FollowedRow.chain) == chain, col(FollowedRow.height) < height - keep)
            self._session.exec(old)

    def unfollow(self, chain: Chain, above: int) -> None:
        """Forget followed blocks above a height."""
        self._session.exec(
            delete(FollowedRow).where(col(FollowedRow.chain) == chain.name, col(FollowedRow.height) > above)
        )

    def record(self, sighting: Sighting) -> None:
        """Record as SEEN; what was ORPHANED or REVERSED is SEEN again. The newest measurement of what is SEEN counts; else it stays."""
        row, fresh = self._row(sighting.identity), deposit_row(sighting)
        if row is None:
            row = fresh
        elif row.status == DepositStatus.SEEN or DepositStatus.SEEN in DEPOSIT_MOVES[DepositStatus(row.status)]:
            row.status, row.position = DepositStatus.SEEN, None
            row.units, row.proof = fresh.units, fresh.proof
        self._session.add(row)
        self._session.flush()

    def find(self, identity: str) -> Deposit | None:
        """By the event's identity."""
        row = self._row(identity)
        return None if row is None else deposit(row, self._assets)

    def at_or_above(self, chain: Chain, height: int) -> Sequence[Deposit]:
        """Deposits in blocks at or above a height, ascending."""
        wanted = select(DepositRow).where(DepositRow.chain == chain.name, DepositRow.height >= height)
        rows = self._session.exec(wanted.order_by(col(DepositRow.height), col(DepositRow.number)))
        return [deposit(row, self._assets) for row in rows]

    def waiting(self, chain: Chain, up_to: int) -> Sequence[Deposit]:
        """SEEN deposits in blocks up to a height, ascending."""
        wanted = select(DepositRow).where(
            DepositRow.chain == chain.name, DepositRow.height <= up_to, DepositRow.status == DepositStatus.SEEN.value
        )
        rows = self._session.exec(wanted.order_by(col(DepositRow.height), col(DepositRow.number)))
        return [deposit(row, self._assets) for row in rows]

    def move(self, identity: str, to: DepositStatus, position: int | None = None) -> None:
        """Apply one legal move. CREDITED needs the position of its entry; REVERSED keeps it."""
        row = self._row(identity)
        if row is None:
            raise Refused([Refusal(Rule.MOVE_NOT_ALLOWED, deposit=identity, was="unknown", would_be=to.value)])
        if to not in DEPOSIT_MOVES[DepositStatus(row.status)]:
            raise Refused([Refusal(Rule.MOVE_NOT_ALLOWED, deposit=identity, was=row.status, would_be=to.value)])
        if to is not DepositStatus.REVERSED:
            if (to is DepositStatus.CREDITED) != (position is not None):
                raise Refused([Refusal(Rule.MALFORMED, deposit=identity, would_be=to.value, position=position)])
            row.position = position
        row.status = to.value
        self._session.add(row)
        self._session.flush()

    def credited(self, chain: Chain, outpoints: Collection[str]) -> frozenset[str]:
        """Of these outpoints, those whose deposit is CREDITED now. The identity is `chain/block/txid:vout` (`identity_of`)."""
        outpoint = func.substr(DepositRow.identity, len(f"{chain.name}/") + 64 + len("/") + 1)
        standing = select(outpoint).where(
            DepositRow.chain == chain.name, DepositRow.status == DepositStatus.CREDITED.value
        )
        found = set[str]()
        asked = sorted(outpoints)
        for first in range(0, len(asked), _ASKED):
            found.update(self._session.exec(standing.where(outpoint.in_(asked[first : first + _ASKED]))))
        return frozenset(found)

    def all(self) -> Sequence[Deposit]:
        """Every deposit, ascending by chain and height."""
        order = (col(DepositRow.chain), col(DepositRow.height), col(DepositRow.number))
        return [deposit(row, self._assets) for row in self._session.exec(select(DepositRow).order_by(*order))]

    def _row(self, identity: str) -> DepositRow | None:
        return self._session.exec(select(DepositRow).where(DepositRow.identity == identity)).first()
