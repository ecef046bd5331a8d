# SPDX-License-Identifier: AGPL-3.0-or-later
"""The words a rule may use: every fact with its type and polarity, and the axioms that relate them. Nothing names anybody.

Polarity makes "more dangerous" a word of the language: a permit may only bound a fact on its dangerous side, and a require or a
deny may only begin there, so that no rule reads "from 1,000 USD on, nobody is asked". There is one list of axioms: the evaluator
checks it, a prover may assume it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.wallets import Tier

VERSION: Final = "1"
"""Of the vocabulary; a bundle names the one it was written in."""


class Measure(StrEnum):
    """What a quantity is counted in, and so which unit a bound must carry."""

    NATIVE = "the asset's own unit"
    USD = "USD"
    TIME = "s, min, h or d"


class Polarity(StrEnum):
    """Which direction may only tighten."""

    MORE = "more may only tighten"
    LESS = "less may only tighten"


@dataclass(frozen=True, slots=True)
class Choice:
    """A fact that is one word of a closed list; `asset` takes its words from the bundle's registry instead."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A whole number from 0 to 2^256 − 1."""

    name: str
    measure: Measure
    polarity: Polarity = Polarity.MORE


@dataclass(frozen=True, slots=True)
class Flag:
    """A yes or no; `tightens` is the value that may only tighten."""

    name: str
    tightens: bool


Fact = Choice | Quantity | Flag

_ALL: Final[tuple[Fact, ...]] = (
    Choice("from", tuple(Tier)),
    Choice("to", tuple(Destination)),
    Choice("to_tier", tuple(Tier)),
    Choice("owner", tuple(Owner)),
    Choice("purpose", tuple(Purpose)),
    Choice("role", tuple(Role)),
    Choice("asset", ()),
    Quantity("amount", Measure.NATIVE),
    Quantity("usd", Measure.USD),
    Quantity("customer_24h", Measure.USD),
    Quantity("wallet_1h", Measure.USD),
    Quantity("initiator_24h", Measure.USD),
    Quantity("settled_24h", Measure.USD),
    Quantity("dest_age", Measure.TIME, Polarity.LESS),
    Quantity("dest_balance_after", Measure.NATIVE),
    Flag("enrolled", tightens=False),
    Flag("related_entity", tightens=True),
    Flag("sanctioned", tightens=True),
    Flag("within_accrued_fees", tightens=False),
    Flag("business_hours", tightens=False),
)
VOCABULARY: Final[Mapping[str, Fact]] = {fact.name: fact for fact in _ALL}

WINDOWS: Final = ("customer_24h", "wallet_1h", "initiator_24h")
"""The rolling windows; one of them must be capped before anything may be automatic."""

IDENTITIES: Final = frozenset(
    ("customer", "person", "people", "user", "initiator", "approver", "account", "wallet", "address", "destination")
) | {"entity", "counterparty", "client", "name", "id", "email", "key", "transfer", "intent"}
"""Words that somebody writes who wants a rule for somebody in particular; answered with the reason, not with a look-alike."""

ATTRIBUTE: Final[Mapping[str, str]] = {name: {"from": "from_tier"}.get(name, name) for name in VOCABULARY}
"""Fact to the attribute of `Facts` that holds it (`from` is a keyword of Python)."""
if set(ATTRIBUTE.values()) != set(
    Facts.__dataclass_fields__
):  # a fact that no rule can name, or a word with no fact behind it
    raise TypeError("vocabulary and Facts name different facts")


@dataclass(frozen=True, slots=True)
class Among:
    """The fact is one of these words; None among them is "not an internal wallet" for `to_tier`."""

    fact: str
    words: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Is:
    """The flag has this value."""

    fact: str
    value: bool


@dataclass(frozen=True, slots=True)
class NotBelow:
    """The quantity is at least a constant or at least another quantity of the same measure."""

    fact: str
    least: int | str


@dataclass(frozen=True, slots=True)
class Axiom:
    """Wherever `given` holds (always, if None) `then` holds, or the facts describe nothing that exists."""

    why: str
    given: Among | Is | None
    then: Among | Is | NotBelow


_OUTSIDE: Final = (Destination.CUSTOMER_WITHDRAWAL, Destination.ALLOW_LISTED)
_CUSTOMER_TIERS: Final = (Tier.CUSTOMER_COLD, Tier.CUSTOMER_HOT)
AXIOMS: Final = (
    Axiom("an internal wallet has a tier", Among("to", (Destination.INTERNAL_WALLET,)), Among("to_tier", tuple(Tier))),
    Axiom("only an internal wallet has a tier", Among("to", _OUTSIDE), Among("to_tier", (None,))),
    Axiom(
        "an internal wallet is certified, not enrolled by anybody",
        Among("to", (Destination.INTERNAL_WALLET,)),
        Is("enrolled", value=True),
    ),
    Axiom(
        "a wallet of a customer tier is the customers'",
        Among("to_tier", _CUSTOMER_TIERS),
        Among("owner", (Owner.CUSTOMERS,)),
    ),
    Axiom(
        "an operational wallet is the company's",
        Among("to_tier", (Tier.OPERATIONAL,)),
        Among("owner", (Owner.COMPANY,)),
    ),
    Axiom(
        "a withdrawal address is a customer's or nobody's",
        Among("to", (Destination.CUSTOMER_WITHDRAWAL,)),
        Among("owner", (Owner.THE_CUSTOMER, Owner.ANOTHER_CUSTOMER, Owner.NOBODY)),
    ),
    Axiom(
        "an allow-listed address is the company's or nobody's",
        Among("to", (Destination.ALLOW_LISTED,)),
        Among("owner", (Owner.COMPANY, Owner.NOBODY)),
    ),
    Axiom("what nobody enrolled is nobody's", Is("enrolled", value=False), Among("owner", (Owner.NOBODY,))),
    Axiom("what is nobody's is not enrolled", Among("owner", (Owner.NOBODY,)), Is("enrolled", value=False)),
    Axiom(
        "only a fee sweep is within accrued fees",
        Is("within_accrued_fees", value=True),
        Among("purpose", (Purpose.FEE_SWEEP,)),
    ),
    Axiom("a transfer moves something", None, NotBelow("amount", 1)),
    Axiom("a value is rounded up, so it is never zero", None, NotBelow("usd", 1)),
    Axiom("a window includes this transfer (customer)", None, NotBelow("customer_24h", "usd")),
    Axiom("a window includes this transfer (wallet)", None, NotBelow("wallet_1h", "usd")),
    Axiom("a window includes this transfer (initiator)", None, NotBelow("initiator_24h", "usd")),
    Axiom("a destination holds what it was paid", None, NotBelow("dest_balance_after", "amount")),
)
"""Read by the evaluator, which denies where one fails, and by a prover, which assumes them; there is no second list."""


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, for a message: `one of a, b`, with the closest first as a question."""
    words = [str(word) for word in known]
    close = get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return (f"{close[0]!r}? It must be " if close else "") + "one of " + ", ".join(words)
