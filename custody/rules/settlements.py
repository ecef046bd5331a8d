# SPDX-License-Identifier: AGPL-3.0-or-later
"""Entries that people or the trading backend sign: settlements of trades and manual entries (TRUST.md, "Provenance")."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from custody.rules.refusals import Refusal, Rule
from custody.rules.typed import Bytes32, Int256, Struct, Uint64, Uint256


@dataclass(frozen=True, slots=True)
class Leg(Struct):
    """One customer's change in one asset by one trade, in base units; negative is what the customer gives."""

    customer: str
    asset: str
    change: Int256


@dataclass(frozen=True, slots=True)
class FeeLeg(Struct):
    """A fee taken from a customer for a trade, in base units."""

    customer: str
    asset: str
    units: Uint256


@dataclass(frozen=True, slots=True)
class Trade(Struct):
    """One trade: its legs sum to zero per asset; fees come on top and name no other trade."""

    id: str
    legs: tuple[Leg, ...]
    fees: tuple[FeeLeg, ...]


@dataclass(frozen=True, slots=True)
class Settlement(Struct):
    """An atomic batch of trades, signed by an API client with the `settle` scope. `schedule` pins the fee schedule's bundle."""

    id: str
    client: str
    schedule: Bytes32
    executed_at: Uint64
    trades: tuple[Trade, ...]


@dataclass(frozen=True, slots=True)
class ManualPosting(Struct):
    """One line of a manual entry: account in text form (`suspense`, `customer_available:ID` …), side `debit` or `credit`."""

    account: str
    asset: str
    side: str
    units: Uint256


@dataclass(frozen=True, slots=True)
class ManualEntry(Struct):
    """What no chain event and no trade explains; two people sign it. Its moves are a closed list (rules/ledger.py)."""

    id: str
    reason: str
    postings: tuple[ManualPosting, ...]


@dataclass(frozen=True, slots=True)
class FeeSchedule:
    """The signed schedule: highest fee per asset in basis points, seconds until a fee may be swept, daily sweep cap (units)."""

    bundle: bytes
    maximum_bps: Mapping[str, int]
    maturity: int
    daily_cap: Mapping[str, int]


BPS: Final = 10_000


def check_settlement(settlement: Settlement, schedule: FeeSchedule, customers: frozenset[str]) -> Iterator[Refusal]:
    """The batch by itself: known customers, each trade zero-sum per asset, fees within the schedule, each trade once."""
    if not settlement.trades:
        yield Refusal(Rule.MALFORMED, field="settlement.trades", got="none", want="at least one trade")
    if not settlement.id:
        yield Refusal(Rule.MALFORMED, field="settlement.id", got="empty", want="an id")
    if settlement.schedule != schedule.bundle:
        yield Refusal(Rule.NOT_SUCCESSOR, field="schedule", got=settlement.schedule.hex(), want=schedule.bundle.hex())
    seen: set[str] = set()
    for trade in settlement.trades:
        if trade.id in seen:
            yield Refusal(Rule.NAME_REUSED, field="trade.id", got=trade.id, want="each trade once")
        seen.add(trade.id)
        yield from _check_trade(trade, schedule, customers)


def _check_trade(trade: Trade, schedule: FeeSchedule, customers: frozenset[str]) -> Iterator[Refusal]:
    if not trade.id or not trade.legs:
        yield Refusal(Rule.MALFORMED, field=f"trade {trade.id!r}", got=f"{len(trade.legs)} legs", want="an id and legs")
    sums: dict[str, int] = defaultdict(int)
    moved: dict[tuple[str, str], int] = defaultdict(int)
    for leg in trade.legs:
        sums[leg.asset] += leg.change
        moved[leg.customer, leg.asset] += leg.change  # net: coins sent to oneself would raise the fee's basis at will
        if leg.change == 0:
            yield Refusal(
                Rule.NOT_POSITIVE, field=f"trade {trade.id}", got="a leg of zero", want="legs that move something"
            )
    for asset, total in sorted(sums.items()):
        if total:
            yield Refusal(Rule.NOT_ZERO_SUM, trade=trade.id, asset=asset, total=total)
    unknown = ({leg.customer for leg in trade.legs} | {fee.customer for fee in trade.fees}) - customers
    for customer in sorted(unknown):
        yield Refusal(Rule.UNKNOWN_CUSTOMER, trade=trade.id, customer=customer)
    charged: dict[tuple[str, str], int] = defaultdict(int)
    for fee in trade.fees:
        charged[fee.customer, fee.asset] += fee.units
        if fee.units == 0:
            yield Refusal(
                Rule.NOT_POSITIVE, field=f"trade {trade.id}", got="a fee of zero", want="fees that charge something"
            )
    for (customer, asset), units in sorted(charged.items()):
        basis = abs(moved.get((customer, asset), 0))
        if basis == 0:
            yield Refusal(Rule.FEE_WITHOUT_TRADE, trade=trade.id, customer=customer, asset=asset, fee=units)
        elif units * BPS > basis * schedule.maximum_bps.get(asset, 0):
            most = basis * schedule.maximum_bps.get(asset, 0) // BPS
            yield Refusal(Rule.FEE_ABOVE_SCHEDULE, trade=trade.id, customer=customer, asset=asset, fee=units, most=most)
