# SPDX-License-Identifier: AGPL-3.0-or-later
"""Law 1 as a table: for each purpose, which tier pays, whose account is debited, and which tiers it may pay (DESIGN.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from custody.rules.facts import Purpose
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Tier

COMPANY: Final = "company"
CUSTOMER: Final = "customer:"


@dataclass(frozen=True, slots=True)
class Way:
    """One way that coins move. `to` holds None for an enrolled address outside."""

    source: Tier
    customers: bool
    """Whether a customer's account is debited; the company's otherwise."""
    to: frozenset[Tier | None]


_HOT, _COLD, _OWN = Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD, Tier.OPERATIONAL
_OUTSIDE: Final[frozenset[Tier | None]] = frozenset({None})

WAYS: Final[dict[Purpose, tuple[Way, ...]]] = {
    Purpose.WITHDRAWAL: (Way(_HOT, customers=True, to=_OUTSIDE),),
    Purpose.REBALANCE: (
        Way(_HOT, customers=False, to=frozenset({_COLD})),
        Way(_COLD, customers=False, to=frozenset({_HOT})),
    ),
    Purpose.COLD_SWEEP: (Way(_HOT, customers=False, to=frozenset({_COLD})),),
    Purpose.FEE_SWEEP: (Way(_HOT, customers=False, to=frozenset({_OWN})),),
    Purpose.VENDOR_PAYMENT: (Way(_OWN, customers=False, to=_OUTSIDE),),
    Purpose.MAKE_WHOLE: (Way(_OWN, customers=False, to=frozenset({_HOT, _COLD})),),
}
"""There is no way from a customer tier to operational but fees, and no way from operational to a customer's withdrawal."""


def way_of(purpose: Purpose, to: Tier | None) -> Way | None:
    """The one way for a purpose towards a tier of ours (None: outside); None where there is no such way."""
    return next((way for way in WAYS[purpose] if to in way.to), None)


def check_walls(source: Tier, to: Tier | None, account: str, purpose: str) -> Iterator[Refusal]:
    """Whether these coins may go this way at all, whatever anybody approves."""
    known = WAYS[Purpose(purpose)] if purpose in set(Purpose) else ()
    customers = account.startswith(CUSTOMER) and account != CUSTOMER
    if not (customers or account == COMPANY) or not any(
        (way.source, way.customers) == (source, customers) and to in way.to for way in known
    ):
        yield Refusal(Rule.WALL, from_tier=source, to_tier=to, account=account, purpose=purpose)
