# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shipped bundle as tests use it: two made-up token contracts, one transfer per purpose, and ways to change both."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.wallets import Tier
from policies.bundle import FILES, Bundle, from_json, load
from policies.strict_yaml import Node

SHIPPED: Final = Path(__file__).parents[2] / "policies" / "shipped"
USD: Final = 10**6
BTC: Final = 10**8
DAY: Final = 86_400


def write(folder: Path, **changed: str) -> Path:
    """The shipped files in a folder of one's own; `changed` gives a file's whole text instead."""
    for name in FILES:
        text = changed.get(name, (SHIPPED / f"{name}.yaml").read_text(encoding="ascii"))
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def open_shipped(folder: Path) -> Bundle:
    """The shipped bundle."""
    return load(write(folder))


def with_rules(bundle: Bundle, rules: list[Any]) -> Bundle:
    """The same bundle with other rules."""
    documents: dict[str, Node] = {**bundle.to_json(), "rules": {"vocabulary": "1", "rules": rules}}
    return from_json(documents)


def facts(**changes: object) -> Facts:
    """A customer's own small withdrawal, 0.1 BTC worth 6,000 USD to an address enrolled two days ago, with these facts changed.

    Windows and the destination's balance follow value and amount unless they are given.
    """
    usd, amount = changes.get("usd", 6_000 * USD), changes.get("amount", BTC // 10)
    whole = Facts(
        from_tier=Tier.CUSTOMER_HOT,
        to=Destination.CUSTOMER_WITHDRAWAL,
        to_tier=None,
        owner=Owner.THE_CUSTOMER,
        purpose=Purpose.WITHDRAWAL,
        role=Role.CUSTOMER,
        asset="BTC",
        amount=amount,  # type: ignore[arg-type]
        usd=usd,  # type: ignore[arg-type]
        customer_24h=usd,  # type: ignore[arg-type]
        wallet_1h=usd,  # type: ignore[arg-type]
        initiator_24h=usd,  # type: ignore[arg-type]
        settled_24h=0,
        dest_age=2 * DAY,
        dest_balance_after=amount,  # type: ignore[arg-type]
        enrolled=True,
        related_entity=False,
        sanctioned=False,
        within_accrued_fees=False,
        business_hours=True,
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


_INTERNAL: Final[dict[str, Any]] = {"to": Destination.INTERNAL_WALLET, "role": Role.OPERATOR}
ROUTES: Final[dict[str, dict[str, Any]]] = {
    "withdrawal": {},
    "rebalance into cold": {
        **_INTERNAL, "to_tier": Tier.CUSTOMER_COLD, "owner": Owner.CUSTOMERS, "purpose": Purpose.REBALANCE,
    },
    "refill from cold": {
        **_INTERNAL, "from_tier": Tier.CUSTOMER_COLD, "to_tier": Tier.CUSTOMER_HOT, "owner": Owner.CUSTOMERS,
        "purpose": Purpose.REBALANCE,
    },
    "cold sweep": {
        **_INTERNAL, "to_tier": Tier.CUSTOMER_COLD, "owner": Owner.CUSTOMERS, "purpose": Purpose.COLD_SWEEP, "role": Role.SYSTEM,
    },
    "fee sweep": {
        **_INTERNAL, "to_tier": Tier.OPERATIONAL, "owner": Owner.COMPANY, "purpose": Purpose.FEE_SWEEP,
        "role": Role.FINANCE_STAFF, "within_accrued_fees": True,
    },
    "vendor payment": {
        "from_tier": Tier.OPERATIONAL, "to": Destination.ALLOW_LISTED, "owner": Owner.COMPANY,
        "purpose": Purpose.VENDOR_PAYMENT, "role": Role.FINANCE_STAFF,
    },
    "make whole": {
        **_INTERNAL, "from_tier": Tier.OPERATIONAL, "to_tier": Tier.CUSTOMER_HOT, "owner": Owner.CUSTOMERS,
        "purpose": Purpose.MAKE_WHOLE, "role": Role.FINANCE_STAFF,
    },
}  # fmt: skip
"""One transfer for each purpose, as changes to `facts()`; the refill is the other half of rebalancing."""
