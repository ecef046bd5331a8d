# SPDX-License-Identifier: AGPL-3.0-or-later
"""Deposits: seen, waiting for finality, credited, reversed; each with its address, whose that is, and the entry that it became."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from api.console.desk import At, Desk
from api.console.registry import Page
from custody.flows.ports import NEWEST, Deposit, UnitOfWork
from custody.rules.deposits import DepositStatus
from custody.rules.wallets import Chain

router = APIRouter()
PAGE = Page("deposits", "/deposits", "Deposits", router, 45)
ROWS: Final = 50
MEANING: Final[Mapping[DepositStatus, str]] = {
    DepositStatus.SEEN: "waits for finality",
    DepositStatus.CREDITED: "credited at finality",
    DepositStatus.DUST: "too small to be credited",
    DepositStatus.ORPHANED: "its block is gone; it comes back if the coins do",
    DepositStatus.REVERSED: "a reorg beyond finality took it back",
}


@dataclass(frozen=True)
class DepositRow:
    """One sighting; `owner` by the attested bindings, empty where the address is nobody's."""

    deposit: Deposit
    owner: str
    above: int
    """Blocks followed at and above its own; 0 where the watcher has not come there."""
    asked: int
    """How many make it final; 0 where the chain itself says what is final."""

    @property
    def meaning(self) -> str:
        """Its status in words."""
        return MEANING[self.deposit.status]


@router.get("/deposits")
def get_deposits(
    desk: At,
    before: Annotated[int, Query(ge=1, le=NEWEST)] = NEWEST,
    status: str = "",
    customer: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """A page of deposits, the newest first."""
    wanted = DepositStatus(status) if status in set(DepositStatus) else None
    addresses = _addresses(desk, customer) if customer else []
    rows = (
        [] if customer and not addresses else desk.store.read(lambda work: _rows(desk, work, before, wanted, addresses))
    )
    return desk.show(
        "deposits.html",
        rows=[row for _, row in rows],
        older=rows[-1][0] if len(rows) == ROWS else 0,
        first=before == NEWEST,
        statuses=list(DepositStatus),
        chosen="" if wanted is None else wanted.value,
        customer=customer,
    )


def _addresses(desk: Desk, customer: str) -> Sequence[str]:
    return [b.address for wallet in desk.kernel.inventory for b in wallet.bound if b.customer == customer]


def _rows(
    desk: Desk, work: UnitOfWork, before: int, status: DepositStatus | None, addresses: Sequence[str]
) -> list[tuple[int, DepositRow]]:
    newest: dict[Chain, int] = {}
    found = []
    for number, deposit in work.listing.deposits(before, ROWS, status, addresses):
        chain, height = deposit.sighting.address.chain, deposit.sighting.proof.height
        if chain not in newest:
            newest[chain] = work.deposits.newest(chain) or 0
        asked = 0 if chain.is_evm else desk.kernel.assets.confirmations.get(chain, 0)
        owner = desk.kernel.inventory.customer_of(deposit.sighting.address) or ""
        found.append((number, DepositRow(deposit, owner, max(0, newest[chain] - height + 1), asked)))
    return found
