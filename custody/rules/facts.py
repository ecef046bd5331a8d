# SPDX-License-Identifier: AGPL-3.0-or-later
"""What policy may know about one transfer: plain data that the kernel builds and `policies` evaluates.

There is no customer, wallet, person or address in it, so no rule can single one out. `None` is unknown, and unknown denies; only
in `to_tier` does None say something, that the destination is no wallet of ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.wallets import Tier

_DAY = 86_400
_OPENS, _CLOSES = 8 * 3600, 18 * 3600
_THURSDAY = 3  # 1970-01-01, with Monday as 0
_SATURDAY = 5


class Destination(StrEnum):
    """What kind of place a transfer pays (TERMS.md, destination kinds)."""

    INTERNAL_WALLET = "internal_wallet"
    CUSTOMER_WITHDRAWAL = "customer_withdrawal"
    ALLOW_LISTED = "allow_listed"


class Purpose(StrEnum):
    """Why coins move (TERMS.md)."""

    WITHDRAWAL = "withdrawal"
    REBALANCE = "rebalance"
    COLD_SWEEP = "cold_sweep"
    FEE_SWEEP = "fee_sweep"
    VENDOR_PAYMENT = "vendor_payment"
    MAKE_WHOLE = "make_whole"


class Role(StrEnum):
    """What the initiator's roster entry says the initiator is (TERMS.md)."""

    CUSTOMER = "customer"
    OPERATOR = "operator"
    FINANCE_STAFF = "finance_staff"
    SYSTEM = "system"


class Owner(StrEnum):
    """Whose the destination is. `the_customer` is the one whose balance is debited, and nobody else."""

    THE_CUSTOMER = "the_customer"
    ANOTHER_CUSTOMER = "another_customer"
    CUSTOMERS = "customers"
    """All of them together: a wallet of a customer tier."""
    COMPANY = "company"
    """An operational wallet, and everybody the company pays: the enrolment names it as the account debited."""
    NOBODY = "nobody"
    """No enrolment in force says whose it is."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One transfer as policy sees it. Amounts in base units of `asset`, values in micro-USD rounded up, ages in seconds.

    The windows count this transfer and everything pending, so that splitting gains nothing. `dest_balance_after` counts what is
    already on its way there. A seat's flags come from certificates, enrolments and the attestor's statement (TRUST.md).
    """

    from_tier: Tier | None
    to: Destination | None
    to_tier: Tier | None
    """Tier of an internal wallet; None for every other destination."""
    owner: Owner | None
    purpose: Purpose | None
    role: Role | None
    asset: str | None
    """Symbol, as the asset registry has it."""
    amount: int | None
    usd: int | None
    customer_24h: int | None
    """Micro-USD debited from the same account, customer or company, in any 24 hours."""
    wallet_1h: int | None
    """Micro-USD out of the same wallet in any hour."""
    initiator_24h: int | None
    """Micro-USD asked for by the same initiator in any 24 hours."""
    settled_24h: int | None
    """Micro-USD credited to the debited account by settlements in the last 24 hours: fresh inflow."""
    dest_age: int | None
    """Seconds since the destination was first seen, enrolled or certified; 0 where it is neither."""
    dest_balance_after: int | None
    """Base units that the destination holds afterwards; at least `amount`, which is all we know of a stranger's."""
    enrolled: bool | None
    """An address authority's enrolment is in force; for our own wallets, a certificate is."""
    related_entity: bool | None
    sanctioned: bool | None
    within_accrued_fees: bool | None
    """A fee sweep that, with all pending ones, stays within matured fees and the schedule's daily cap. False for all else."""
    business_hours: bool | None

    def to_json(self) -> dict[str, str]:
        """Every fact by its attribute's name, as text: numbers of 256 bits do not survive every reader of JSON."""
        return {name: _text(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, row: Mapping[str, object]) -> Self:
        """Back from `to_json`. Raises InvalidInput for a fact too few or too many, and for what is none."""
        if set(row) != set(cls.__dataclass_fields__):
            raise InvalidInput("facts", Rule.MALFORMED, ", ".join(sorted(row)), "exactly the facts of a transfer")
        return cls(**{name: _value(name, value) for name, value in row.items()})


_NONE: Final = "none"
_WORDS: Final = {
    "from_tier": Tier,
    "to": Destination,
    "to_tier": Tier,
    "owner": Owner,
    "purpose": Purpose,
    "role": Role,
    "asset": str,
}
_FLAGS: Final = frozenset(("enrolled", "related_entity", "sanctioned", "within_accrued_fees", "business_hours"))
SETTLED: Final = tuple(name for name in Facts.__dataclass_fields__ if name in _WORDS or name in _FLAGS)
"""Words and flags, which are few; in the order of `Facts`."""
QUANTITIES: Final = tuple(name for name in Facts.__dataclass_fields__ if name not in SETTLED)
"""All other facts: whole numbers."""


def _text(value: object) -> str:
    if value is None:
        return _NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(name: str, written: object) -> Any:  # noqa: ANN401  # each field's own type, checked here
    if written == _NONE:
        return None
    try:
        if name in _FLAGS:
            return {"true": True, "false": False}[str(written)]
        if name in _WORDS:
            return _WORDS[name](str(written))
        if str(written).isdecimal():
            return int(str(written))
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"facts.{name}", Rule.MALFORMED, repr(written), "a word of this fact") from error
    raise InvalidInput(f"facts.{name}", Rule.MALFORMED, repr(written), "a whole number")


def business_hours(time: int) -> bool:
    """Whether a time (seconds since 1970) is Monday to Friday, 08:00 to 18:00 UTC, the end not included."""
    weekday = (time // _DAY + _THURSDAY) % 7
    return weekday < _SATURDAY and _OPENS <= time % _DAY < _CLOSES
