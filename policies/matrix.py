# SPDX-License-Identifier: AGPL-3.0-or-later
"""The approval matrix: for each way that coins may go, whom the rules in force ask at which value. Generated, never written.

Read off the evaluator at every value where some rule changes its mind, for a transfer with nothing else remarkable about it: one
base unit, an old destination, no flag, windows that hold this transfer alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.requirement import Decision, Outcome
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.rules_model import Compared
from policies.vocabulary import VOCABULARY, Measure, Quantity

_OLD: Final = 10 * 365 * 86_400
_MICRO: Final = 10**6


@dataclass(frozen=True, slots=True)
class Band:
    """From this value on, until the next band; micro-USD. `related` is what the same asks for a related entity."""

    usd: int
    answer: str
    related: str


@dataclass(frozen=True, slots=True)
class Route:
    """One way that some value may go, and who asks for it."""

    source: Tier
    target: str
    purpose: Purpose
    role: Role
    bands: tuple[Band, ...]


def matrix(bundle: Bundle) -> Iterator[Route]:
    """Every route that some permit opens at some value, in the vocabulary's order."""
    edges = _edges(bundle)
    targets = [(Destination.INTERNAL_WALLET, tier) for tier in Tier] + [
        (to, None) for to in Destination if to is not Destination.INTERNAL_WALLET
    ]
    for source, (to, tier), purpose, role in product(Tier, targets, Purpose, Role):
        bands = _bands(bundle, _facts(bundle, source, to, tier, purpose, role), edges)
        if any(band.answer != _DENIED for band in bands):
            yield Route(source, str(tier or to), purpose, role, bands)


_DENIED: Final = "nobody can"


def _edges(bundle: Bundle) -> Sequence[int]:
    """Every value next to which some rule says another thing; micro-USD, ascending."""
    found = {1}
    for rule in bundle.rules:
        for condition in (*rule.when, *rule.automatic_when):
            fact = VOCABULARY[condition.fact]
            if isinstance(condition, Compared) and isinstance(fact, Quantity) and fact.measure is Measure.USD:
                assert isinstance(condition.bound, int)  # noqa: S101  # limits are native by the reader's rule
                found |= {condition.bound, condition.bound + 1}
    return sorted(edge for edge in found if edge > 0)


def _bands(bundle: Bundle, facts: Facts, edges: Sequence[int]) -> tuple[Band, ...]:
    found: list[Band] = []
    for usd in edges:
        at = replace(facts, usd=usd, customer_24h=usd, wallet_1h=usd, initiator_24h=usd)
        answer, related = (_told(bundle.policy.evaluate(each)) for each in (at, replace(at, related_entity=True)))
        if not found or (found[-1].answer, found[-1].related) != (answer, related):
            found.append(Band(usd, answer, related))
    return tuple(found)


def _told(decision: Decision) -> str:
    if decision.outcome is Outcome.DENY:
        return _DENIED
    return "by itself" if decision.outcome is Outcome.AUTOMATIC else str(decision.requirement)


def _facts(bundle: Bundle, source: Tier, to: Destination, tier: Tier | None, purpose: Purpose, role: Role) -> Facts:
    owner = {
        Destination.CUSTOMER_WITHDRAWAL: Owner.THE_CUSTOMER,
        Destination.ALLOW_LISTED: Owner.COMPANY,
        Destination.INTERNAL_WALLET: Owner.COMPANY if tier is Tier.OPERATIONAL else Owner.CUSTOMERS,
    }[to]
    asset = min(asset.symbol for asset in bundle.assets)
    return Facts(
        source, to, tier, owner, purpose, role, asset, 1, 1, 1, 1, 1, 0, _OLD, 1,
        enrolled=True, related_entity=False, sanctioned=False, within_accrued_fees=purpose is Purpose.FEE_SWEEP, business_hours=True,
    )  # fmt: skip


def markdown(bundle: Bundle) -> Iterator[str]:
    """The matrix as a document, line by line."""
    yield "# Approval matrix"
    yield ""
    yield f"Generated from bundle `0x{bundle.hash.hex()}`. Nothing here decides anything; the rules do."
    yield ""
    yield "| from | to | purpose | asked for by | from value (USD) | asks | of a related entity |"
    yield "|---|---|---|---|---|---|---|"
    for route in matrix(bundle):
        for band in route.bands:
            way = f"{route.source} | {route.target} | {route.purpose} | {route.role}"
            yield f"| {way} | {usd_text(band.usd)} | {band.answer} | {band.related} |"
    yield ""
    yield "## What nobody can approve"
    yield ""
    for rule in bundle.rules:
        if rule.kind == "deny":
            conditions = "; ".join(str(condition) for condition in rule.when)
            yield f"- **{rule.id}**: {rule.why} (`{conditions}`)"
    for title, entities in (
        ("Who is related to us", bundle.registry.related),
        ("Who is sanctioned", bundle.registry.sanctioned),
    ):
        yield from ("", f"## {title}", "")
        for entity in entities:
            names = ", ".join(f"`{each}`" for each in (*entity.customers, *entity.addresses))
            yield f"- **{entity.name}**: {entity.why} ({names})"
        if not entities:
            yield "- Nobody is listed."


def usd_text(micro: int) -> str:
    """Micro-USD as people read it, exactly: `100,000`, `0.000001`."""
    whole, rest = divmod(micro, _MICRO)
    return f"{whole:,}" + (f".{rest:06d}".rstrip("0") if rest else "")
