# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wallets: the three tiers as rooms with walls between them, what each holds, and the inventory down to certificate, address and seat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from api.console.desk import At, Desk
from api.console.registry import Page
from custody.flows.inventory import Wallet
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Asset
from custody.rules.errors import Unavailable
from custody.rules.hot_bands import HotBand
from custody.rules.ledger import AccountKind
from custody.rules.refusals import Refused
from custody.rules.statements import SeatPosition, Statement
from custody.rules.wallets import Tier

router = APIRouter()
PAGE = Page("wallets", "/wallets", "Wallets", router, 35)
TIERS: Final = (Tier.CUSTOMER_COLD, Tier.CUSTOMER_HOT, Tier.OPERATIONAL)
GAUGE: Final = 300
"""Width of the picture of a hot wallet's levels."""


@dataclass(frozen=True)
class Held:
    """One asset in one tier, by the ledger, in base units; `band` where the policy bundle names levels for it."""

    asset: Asset
    units: int
    leaving: int
    band: HotBand | None

    def at(self, units: int) -> int:
        """Where a level stands in the gauge: its end is the cap, or what is held where that is more."""
        most = max(self.units, 1 if self.band is None else self.band.cap)
        return GAUGE * units // most

    @property
    def words(self) -> str:
        """How it stands to its levels."""
        if self.band is None:
            return ""
        if self.units > self.band.cap:
            return "above its cap: what is too much goes to cold"
        return "below its floor: it waits for a refill" if self.units < self.band.floor else "within its levels"


@dataclass(frozen=True)
class Owed:
    """One asset over all tiers, by the ledger: what customer tiers have, what is owed, and what that leaves."""

    asset: Asset
    held: int
    owed: int

    @property
    def left(self) -> int:
        """Negative is a shortfall."""
        return self.held - self.owed


@dataclass(frozen=True)
class WalletRow:
    """One wallet as its certificates have it, and the heads of its seats that the attestor knows."""

    wallet: Wallet
    held: Sequence[Held]
    seats: Sequence[tuple[str, SeatPosition | None]]


@router.get("/wallets")
def get_wallets(desk: At) -> Response:
    """The picture, and below it every wallet."""
    statement = _statement(desk)
    wallets = sorted(desk.kernel.inventory, key=lambda wallet: (wallet.chain, wallet.name))
    heads = {} if statement is None else {each.seat: each for each in statement.seats}
    rows, owed = desk.store.read(lambda work: (_rows(desk, work, wallets, heads), _owed(desk, work, wallets)))
    rooms = [(tier.value, _together([row for row in rows if row.wallet.tier is tier])) for tier in TIERS]
    inventory = [(tier.value, [row for row in rows if row.wallet.tier is tier]) for tier in TIERS]
    return desk.show("wallets.html", rooms=rooms, inventory=inventory, owed=owed, statement=statement, gauge=GAUGE)


def _statement(desk: Desk) -> Statement | None:
    try:
        return desk.parts.api.statements.latest().message
    except (Unavailable, Refused):  # the page says that seats' heads are unknown
        return None


def _rows(
    desk: Desk, work: UnitOfWork, wallets: Sequence[Wallet], heads: Mapping[str, SeatPosition]
) -> Sequence[WalletRow]:
    bands = desk.kernel.policies.newest.hot
    found = []
    for wallet in wallets:
        held = [
            Held(
                asset,
                work.journal.balance(wallet.account, asset),
                work.transfers.leaving(wallet.name, asset.symbol),
                bands.get(asset.symbol) if wallet.tier is Tier.CUSTOMER_HOT else None,
            )
            for asset in desk.kernel.assets
            if asset.chain == wallet.chain
        ]
        seats = [(key.key.seat, heads.get(key.key.seat)) for key in wallet.certificate.seats]
        found.append(WalletRow(wallet, held, seats))
    return found


def _together(rows: Sequence[WalletRow]) -> Sequence[Held]:
    """One tier's wallets as one room; there is one hot wallet for each chain, so levels stay what they are."""
    found: dict[str, Held] = {}
    for each in (held for row in rows for held in row.held):
        before = found.get(each.asset.symbol, Held(each.asset, 0, 0, each.band))
        found[each.asset.symbol] = Held(each.asset, before.units + each.units, before.leaving + each.leaving, each.band)
    return list(found.values())


def _owed(desk: Desk, work: UnitOfWork, wallets: Sequence[Wallet]) -> Sequence[Owed]:
    customers = [wallet for wallet in wallets if wallet.tier.is_customer]
    kinds = [kind for kind in AccountKind if kind.is_liability]
    return [
        Owed(
            asset,
            sum(work.journal.balance(wallet.account, asset) for wallet in customers if wallet.chain == asset.chain),
            sum(work.journal.total(kind, asset) for kind in kinds),
        )
        for asset in desk.kernel.assets
    ]
