# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a bundle is plainly stricter than the one before it, seen without a solver: by seats, which load none, and by the service.

What is not plain takes the path of a weaker one: more owners and the longer delay (governance.yaml). So nobody has to believe the
diff report that a bundle comes with: it tells people what they sign, and decides nothing. Each way allowed here is stricter on its
own and beside all others, since a require or deny only ever adds, and matching permits are joined by their maximum. A permit that
goes, or matches less, is not plain: another one that asks for less may match what it matched.
"""

from collections.abc import Iterator, Mapping

from policies.bundle import Bundle
from policies.limits import PLANNED
from policies.rules_model import Compared, Condition, Kind, LimitName, OneOf, PolicyRule

_SAFER_LOWER = frozenset(("hot_wallet_floor", "hot_wallet_target", "hot_wallet_cap"))
"""Levels of which less is less that can be lost; any other limit that moves coins between our wallets has no plain direction."""


def not_plainly_stricter(old: Bundle, new: Bundle) -> tuple[str, ...]:
    """Everything about a new bundle that is not plainly as strict as before; empty where all of it is."""
    return (
        *_same(old, new),
        *_fees(old, new),
        *_floors(old, new),
        *_claims(old, new),
        *_limits(old, new),
        *_rules(old, new),
        *_parties(old, new),
    )


def governance_changes(old: Bundle, new: Bundle) -> bool:
    """Whether the owners of claims have to sign: claims, or how bundles are changed, read differently."""
    return any(old.documents[name] != new.documents[name] for name in ("claims", "governance"))


def _same(old: Bundle, new: Bundle) -> Iterator[str]:
    for name in ("assets", "governance"):
        if old.documents[name] != new.documents[name]:
            yield f"{name}.yaml changed"


def _fees(old: Bundle, new: Bundle) -> Iterator[str]:
    if new.fees.maturity < old.fees.maturity:
        yield "fees.yaml: fees mature sooner"
    for what, was, now in (
        ("at_most", old.fees.maximum_bps, new.fees.maximum_bps),
        ("swept_per_day", old.fees.daily_cap, new.fees.daily_cap),
    ):
        yield from _not_above(f"fees.yaml: {what}", was, now)


def _floors(old: Bundle, new: Bundle) -> Iterator[str]:
    yield from _not_above("floors.yaml: automatic.most", old.floors.automatic_most, new.floors.automatic_most)
    yield from _not_above("floors.yaml: automatic.per_day", old.floors.automatic_day, new.floors.automatic_day)
    for tier, by_asset in old.floors.people.items():
        for symbol, bands in by_asset.items():
            others = new.floors.people.get(tier, {}).get(symbol, ())
            for units in {1, *(above + 1 for above, _ in (*bands, *others))}:
                asked = max((people for above, people in others if units > above), default=0)
                if asked < old.floors.people_for(tier, symbol, units):
                    yield f"floors.yaml: fewer people out of {tier} from {units} base units of {symbol}"


def _claims(old: Bundle, new: Bundle) -> Iterator[str]:
    if old.claims.limits != new.claims.limits:
        yield "claims.yaml: limits changed"
    now = {claim.id: claim for claim in new.claims.each}
    yield from (
        f"claims.yaml: {claim.id} changed or is gone" for claim in old.claims.each if now.get(claim.id) != claim
    )


def _parties(old: Bundle, new: Bundle) -> Iterator[str]:
    """Lists may grow; whoever leaves one is a stranger from then on."""
    was, now = old.registry.parties, new.registry.parties
    for name in ("accounts", "addresses", "sanctioned"):
        gone = getattr(was, name) - getattr(now, name)
        yield from (f"parties.yaml: {each} is no longer listed ({name})" for each in sorted(gone))


def _limits(old: Bundle, new: Bundle) -> Iterator[str]:
    """A limit may fall, unless a permit matches by it, or it steers moves of our own with no plain direction."""
    fixed = {name for rule in (*old.rules, *new.rules) if rule.kind is Kind.PERMIT for name in _named(rule.when)}
    fixed |= PLANNED - _SAFER_LOWER
    for name in sorted(old.limits.keys() | new.limits.keys()):
        was, now = old.limits.get(name), new.limits.get(name)
        if was is None or now is None or (name in fixed and was != now):
            if was != now:
                yield f"limits.yaml: {name} changed"
            continue
        yield from _not_above(f"limits.yaml: {name}", was, now)


def _named(conditions: tuple[Condition, ...]) -> Iterator[str]:
    for condition in conditions:
        if isinstance(condition, Compared) and isinstance(condition.bound, LimitName):
            yield condition.bound.name


def _not_above(where: str, was: Mapping[str, int], now: Mapping[str, int]) -> Iterator[str]:
    if was.keys() != now.keys():
        yield f"{where}: other assets"
    yield from (f"{where} of {symbol} rose" for symbol in was.keys() & now.keys() if now[symbol] > was[symbol])


def _rules(old: Bundle, new: Bundle) -> Iterator[str]:
    was, now = ({rule.id: rule for rule in bundle.rules} for bundle in (old, new))
    for name, rule in was.items():
        if name not in now:
            yield f"rules.yaml: {name} is gone"
        else:
            yield from rule_loosened(rule, now[name])
    yield from (
        f"rules.yaml: {name} is a new permit" for name in now.keys() - was.keys() if now[name].kind is Kind.PERMIT
    )


def rule_loosened(old: PolicyRule, new: PolicyRule) -> tuple[str, ...]:
    """How a rule under the same id is not plainly as strict as before; empty where it is."""
    asked, automatic = dict(new.approvals), new.automatic_when
    found = {
        "matches otherwise": old.kind is not new.kind or not _matches_as_much(old, new),
        "asks for fewer": any(asked.get(group, 0) < needed for group, needed in old.approvals),
        "asks for fewer keys that display": new.displaying < old.displaying,
        "waits less": new.delay < old.delay,
        "lets more go by itself": automatic
        and (not old.automatic_when or not all(_kept(condition, automatic) for condition in old.automatic_when)),
    }
    return tuple(f"rules.yaml: {old.id} {what}" for what, so in found.items() if so)


def _matches_as_much(old: PolicyRule, new: PolicyRule) -> bool:
    """A permit matches the very same; a require or a deny whatever it did, and perhaps more."""
    if old.kind is Kind.PERMIT:
        return _set(old.when) == _set(new.when)
    return all(_kept(condition, old.when) for condition in new.when)


def _kept(condition: Condition, conditions: tuple[Condition, ...]) -> bool:
    """Whether one of these holds only where this one does."""
    return any(_implies(other, condition) for other in conditions)


def _implies(one: Condition, other: Condition) -> bool:
    if _plain(one) == _plain(other):
        return True
    if isinstance(one, OneOf) and isinstance(other, OneOf):
        return one.fact == other.fact and set(one.words) <= set(other.words)
    if not isinstance(one, Compared) or not isinstance(other, Compared):
        return False
    if (one.fact, one.comparator) != (other.fact, other.comparator):
        return False
    if not isinstance(one.bound, int) or not isinstance(other.bound, int):
        return False
    return one.bound <= other.bound if one.comparator.from_above else one.bound >= other.bound


def _set(conditions: tuple[Condition, ...]) -> frozenset[object]:
    return frozenset(_plain(condition) for condition in conditions)


def _plain(condition: Condition) -> object:
    """A condition without the way that it was written: the order of words and the digits of a bound."""
    if isinstance(condition, OneOf):
        return condition.fact, frozenset(condition.words)
    return (condition.fact, condition.comparator, condition.bound) if isinstance(condition, Compared) else condition
