# SPDX-License-Identifier: AGPL-3.0-or-later
"""The facts that policy decides by, from the ledger, the enrolments, the roster, the bundles and prices; windows count what is pending.

They are read in the transaction that reserves them, so that a thousand proposals at once see one another (facts: traps). A seat
gathers its own (`rules/seat_case.py`): what is wrong here moves nothing there.
"""

from typing import Final

from custody.flows.kernel import Kernel
from custody.flows.ports import Prices, UnitOfWork
from custody.flows.routes import Route, tier_of
from custody.rules.decisions import decided
from custody.rules.facts import Destination, Facts, Purpose, business_hours
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account, AccountKind
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Decision
from custody.rules.roster import ApiClient, Person
from custody.rules.seat_case import role_of
from custody.rules.transfers import USD_MOST
from custody.rules.walls import CUSTOMER

DAY: Final = 86_400


def usd_of(route: Route, intent: TransferIntent, prices: Prices) -> int:
    """Micro-USD of a transfer, rounded up. Raises Unavailable without a price, Refused where the number is nonsense."""
    usd = prices.value(route.asset, intent.amount)
    if usd >= USD_MOST:
        raise Refused([Refusal(Rule.TOO_LARGE, field="usd", got=usd, want=f"less than {USD_MOST} micro-USD")])
    return usd


def gather(
    work: UnitOfWork,
    kernel: Kernel,
    route: Route,
    intent: TransferIntent,
    initiator: Person | ApiClient,
    prices: Prices,
    now: int,
    digest: bytes = b"",
) -> Facts:
    """Everything policy may know of one transfer now. Raises Unavailable, Refused(amount too large).

    `digest` is the intent's once it is recorded and held: then its own row and hold are not counted a second time.
    """
    usd = usd_of(route, intent, prices)
    parties = [bundle.parties for bundle in kernel.bundles(intent.policy)]
    others = work.transfers.reserved(intent.account, intent.wallet, intent.initiator, now, digest)
    return Facts(
        from_tier=route.source.tier,
        to=route.kind,
        to_tier=tier_of(route.to),
        owner=route.owner,
        purpose=route.purpose,
        role=role_of(initiator),
        asset=route.asset.symbol,
        amount=intent.amount,
        usd=usd,
        customer_24h=others.account_24h + usd,
        wallet_1h=others.wallet_1h + usd,
        initiator_24h=others.initiator_24h + usd,
        settled_24h=_settled(work, intent.account, prices, now),
        dest_age=max(0, now - route.enrolled.seen_at) if route.enrolled is not None else 0,
        dest_balance_after=_destination_after(work, route, intent, digest),
        enrolled=route.enrolled is not None or route.kind is Destination.INTERNAL_WALLET,
        related_entity=any(p.is_related(intent.account, intent.destination) for p in parties),
        sanctioned=any(p.is_sanctioned(intent.destination) for p in parties),
        within_accrued_fees=_within_accrued(work, kernel, route, intent, now, digest),
        business_hours=business_hours(now),
    )


def _settled(work: UnitOfWork, account: str, prices: Prices, now: int) -> int:
    """Fresh inflow by settlements; the company has none."""
    if not account.startswith(CUSTOMER):
        return 0
    available = Account(AccountKind.CUSTOMER_AVAILABLE, account.removeprefix(CUSTOMER))
    settled = work.journal.settled_since(available, now - DAY)
    return sum(prices.value(asset, units) for asset, units in settled.items() if units)


def _destination_after(work: UnitOfWork, route: Route, intent: TransferIntent, digest: bytes) -> int:
    """Base units at the destination afterwards; of a stranger's we know only what we pay."""
    if route.to is None:
        return intent.amount
    places = {address.text for address in route.to.addresses}
    coming = work.transfers.heading_to(places, route.asset.symbol, digest)
    return work.journal.balance(route.to.account, route.asset) + coming + intent.amount


def _within_accrued(
    work: UnitOfWork, kernel: Kernel, route: Route, intent: TransferIntent, now: int, digest: bytes
) -> bool:
    """A fee sweep of no more than what matured, within a day's cap, by the stricter of the bundles that count (law 1).

    Holding debits the accrued fees at once, so what is pending is off already; an intent that is held was within them then.
    """
    bundles = kernel.bundles(intent.policy)
    if route.purpose is not Purpose.FEE_SWEEP or not bundles:
        return False
    if not digest:
        ripened = now - max(bundle.fees.maturity for bundle in bundles)
        if intent.amount > work.journal.matured_fees(route.asset, ripened):
            return False
    cap = min(bundle.fees.daily_cap.get(route.asset.symbol, 0) for bundle in bundles)
    return work.transfers.swept(route.asset.symbol, now, digest) + intent.amount <= cap


def decide(kernel: Kernel, intent: TransferIntent, facts: Facts) -> Decision:
    """The stricter answer of the bundle that the intent pins and the newest, with the floors that seats will ask for.

    Raises Refused(policy_not_in_force) where the pinned one is not known, InvalidInput for an asset without floors.
    """
    bundles = kernel.bundles(intent.policy)
    if not bundles:
        raise Refused([Refusal(Rule.POLICY_OLDER, pinned=intent.policy.hex())])
    return decided([bundle.rules for bundle in bundles], facts)
