# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coverage: for each asset what is held, owed and left by the attestor's newest statement; and every wallet in its tier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from api.console.desk import At, Desk
from api.console.registry import Page
from custody.flows.inventory import Wallet
from custody.flows.ports import UnitOfWork
from custody.rules.coverage import liabilities, surplus
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.statements import AssetCoverage, Statement
from custody.rules.wallets import Tier

router = APIRouter()
PAGE = Page("coverage", "/coverage", "Coverage", router, 40)
TIERS: Final = (Tier.CUSTOMER_COLD, Tier.CUSTOMER_HOT, Tier.OPERATIONAL)


@dataclass(frozen=True)
class AssetRow:
    """Law 2's arithmetic for one asset, in base units."""

    row: AssetCoverage
    owed: int
    left: int


@dataclass(frozen=True)
class WalletRow:
    """One wallet as its certificates have it, with the ledger's balances by symbol."""

    wallet: Wallet
    seats: Sequence[str]
    held: Sequence[tuple[str, int]]


@router.get("/coverage")
def get_coverage(desk: At) -> Response:
    """What the attestor last said of every asset, and the inventory by tier."""
    told, why = _statement(desk)
    message = None if told is None else told.message
    rows = [] if message is None else [AssetRow(row, liabilities(row), surplus(row)) for row in message.coverage]
    tiers = [(tier.value, [row for row in _wallets(desk) if row.wallet.tier is tier]) for tier in TIERS]
    return desk.show("coverage.html", statement=message, why=why, rows=rows, tiers=tiers)


def _statement(desk: Desk) -> tuple[Signed[Statement] | None, str]:
    """The newest statement as it was verified again; else why there is none, which is unknown and not zero."""
    try:
        return desk.parts.api.statements.latest(), ""
    except (Unavailable, Refused) as error:
        return None, str(error)


def _wallets(desk: Desk) -> Sequence[WalletRow]:
    kernel = desk.kernel
    wallets = sorted(kernel.inventory, key=lambda wallet: (wallet.chain, wallet.name))

    def read(work: UnitOfWork) -> Sequence[WalletRow]:
        return [
            WalletRow(
                wallet,
                [key.key.seat for key in wallet.certificate.seats],
                [
                    (asset.symbol, work.journal.balance(wallet.account, asset))
                    for asset in kernel.assets
                    if asset.chain == wallet.chain
                ],
            )
            for wallet in wallets
        ]

    return desk.store.read(read)
