# SPDX-License-Identifier: AGPL-3.0-or-later
"""What changed beside the rules' meaning: registry, fees, hot wallets' levels, seats' automatic caps, lists, claims, governance.

Each number has a direction that is known to be stricter. Whatever has none, and whatever is new here, counts as weaker.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from custody.rules.amounts import Asset
from custody.rules.requirement import exact_span
from policies.bundle import Bundle
from policies.claims import Claim
from policies.limits import PLANNED
from policies.refinement import rule_loosened
from policies.rules_model import Kind

_LEVELS: Final = frozenset(("hot_wallet_floor", "hot_wallet_target", "hot_wallet_cap", "largest_refill"))
"""Compared as a wallet's band."""


class Direction(StrEnum):
    """Whether a change loosens. Unknown is weaker."""

    WEAKER = "weaker"
    STRICTER = "stricter"


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One difference of two documents: where, from what to what."""

    direction: Direction
    where: str
    old: str
    new: str


def changes(old: Bundle, new: Bundle) -> tuple[Change, ...]:
    """Every difference that is not one of rules, limits within rules and floors of people, which are compared by meaning."""
    return tuple(
        sorted(
            (
                *_assets(old, new),
                *_chains(old, new),
                *_fees(old, new),
                *_hot(old, new),
                *_planned(old, new),
                *_guards(old, new),
                *_floors(old, new),
                *_governance(old, new),
                *_parties(old, new),
            )
        )
    )


def _assets(old: Bundle, new: Bundle) -> Iterator[Change]:
    was, now = ({asset.symbol: asset for asset in bundle.assets} for bundle in (old, new))
    for symbol in sorted(was.keys() | now.keys()):
        where = f"assets.yaml {symbol}"
        if symbol not in was:
            yield Change(Direction.WEAKER, where, "absent", "added")
        elif symbol not in now:
            yield Change(Direction.STRICTER, where, "present", "removed")
        else:
            for name in ("chain", "decimals", "contract", "kind"):
                yield from _any(f"{where} {name}", getattr(was[symbol], name), getattr(now[symbol], name))
            yield from _number(
                f"{where} dust", was[symbol].dust, now[symbol].dust, _units(was[symbol]), more=Direction.STRICTER
            )


def _chains(old: Bundle, new: Bundle) -> Iterator[Change]:
    was, now = ({chain: bundle.assets.confirmations[chain] for chain in bundle.assets.chains} for bundle in (old, new))
    for chain in sorted(was.keys() | now.keys(), key=str):
        where = f"assets.yaml {chain} final"
        if chain not in was or chain not in now:
            yield Change(
                Direction.WEAKER if chain in now else Direction.STRICTER,
                where,
                str(was.get(chain, "absent")),
                str(now.get(chain, "removed")),
            )
        else:
            yield from _number(where, was[chain], now[chain], str, more=Direction.STRICTER)


def _fees(old: Bundle, new: Bundle) -> Iterator[Change]:
    yield from _number("fees.yaml maturity", old.fees.maturity, new.fees.maturity, exact_span, more=Direction.STRICTER)
    for asset in _common(old, new):
        symbol, where = asset.symbol, f"fees.yaml {asset.symbol}"
        yield from _number(
            f"{where} at_most (bps)",
            old.fees.maximum_bps[symbol],
            new.fees.maximum_bps[symbol],
            str,
            more=Direction.WEAKER,
        )
        yield from _number(
            f"{where} swept_per_day",
            old.fees.daily_cap[symbol],
            new.fees.daily_cap[symbol],
            _units(asset),
            more=Direction.WEAKER,
        )


def _hot(old: Bundle, new: Bundle) -> Iterator[Change]:
    """More in hot wallets is more that can be lost at once."""
    for asset in _common(old, new):
        was, now = old.hot.get(asset.symbol), new.hot.get(asset.symbol)
        for name in ("floor", "target", "cap", "refill_most"):
            where = f"limits.yaml hot wallet's {name}, {asset.symbol}"
            if was is None or now is None:
                yield from _any(where, was, now)
            else:
                yield from _number(where, getattr(was, name), getattr(now, name), _units(asset), more=Direction.WEAKER)


def _planned(old: Bundle, new: Bundle) -> Iterator[Change]:
    """What else our own moves go by: which direction is safer is not known, so each change is weaker."""
    for name in sorted(PLANNED - _LEVELS):
        was, now = (bundle.limits.get(name, {}) for bundle in (old, new))
        for asset in _common(old, new):
            yield from _any(f"limits.yaml {name}, {asset.symbol}", was.get(asset.symbol), now.get(asset.symbol))


def _floors(old: Bundle, new: Bundle) -> Iterator[Change]:
    for asset in _common(old, new):
        symbol = asset.symbol
        for name, was, now in (
            ("most", old.floors.automatic_most, new.floors.automatic_most),
            ("per_day", old.floors.automatic_day, new.floors.automatic_day),
        ):
            yield from _number(
                f"floors.yaml automatic.{name}, {symbol}",
                was[symbol],
                now[symbol],
                _units(asset),
                more=Direction.WEAKER,
            )


def _parties(old: Bundle, new: Bundle) -> Iterator[Change]:
    """Who leaves a list is a stranger to every rule; which entity it stood under changes no answer."""
    was, now = old.registry.parties, new.registry.parties
    for name, told in (("accounts", "related"), ("addresses", "related"), ("sanctioned", "sanctioned")):
        here, there = getattr(was, name), getattr(now, name)
        for each in sorted(here ^ there):
            listed = each in there
            direction = Direction.STRICTER if listed else Direction.WEAKER
            yield Change(
                direction, f"parties.yaml {told} {each}", *(("absent", "listed") if listed else ("listed", "removed"))
            )


def _governance(old: Bundle, new: Bundle) -> Iterator[Change]:
    was, now = old.governance, new.governance
    for name in ("stricter", "weaker"):
        here, there = getattr(was, name), getattr(now, name)
        yield from _number(f"governance.yaml {name}.owners", here.owners, there.owners, str, more=Direction.STRICTER)
        yield from _number(
            f"governance.yaml {name}.delay", here.delay, there.delay, exact_span, more=Direction.STRICTER
        )
    yield from _any("governance.yaml claims.group", was.claims_group, now.claims_group)
    yield from _number(
        "governance.yaml claims.people", was.claims_people, now.claims_people, str, more=Direction.STRICTER
    )
    yield from _claims(old, new)


def _guards(old: Bundle, new: Bundle) -> Iterator[Change]:
    """A rule that goes or reads looser is weaker even where no answer changes today.

    It stood against a permit to come, or beside another rule that asks the same: whoever wants a wall open takes the spare bricks
    first. A rule under another name is the same rule.
    """
    for rule in old.rules:
        others = [other for other in new.rules if other.kind is rule.kind]
        if not others or all(rule_loosened(rule, other) for other in others):
            same = next((other for other in others if other.id == rule.id), None)
            if same is not None or rule.kind is not Kind.PERMIT:
                how = (
                    "gone"
                    if same is None
                    else "; ".join(told.partition(rule.id)[2].strip() for told in rule_loosened(rule, same))
                )
                yield Change(Direction.WEAKER, f"rules.yaml {rule.id}", "as it was", how)


def _claims(old: Bundle, new: Bundle) -> Iterator[Change]:
    """A claim that is gone or reads differently counts as weaker: whether the new ones still imply it is for its owners to say."""
    was, now = ({claim.id: claim for claim in bundle.claims.each} for bundle in (old, new))
    for name in sorted(was.keys() | now.keys()):
        where = f"claims.yaml {name}"
        if name not in was:
            yield Change(Direction.STRICTER, where, "absent", "added")
        elif name not in now:
            yield Change(Direction.WEAKER, where, "present", "removed")
        elif replace(was[name], why="") != replace(now[name], why=""):
            yield Change(Direction.WEAKER, where, _told(was[name]), _told(now[name]))
    if old.claims.limits != new.claims.limits:
        yield Change(Direction.WEAKER, "claims.yaml limits", "as they were", "changed")


def _told(claim: Claim) -> str:
    conditions = ", ".join(str(condition) for condition in claim.when)
    shown = f", {claim.displaying} by a key that displays," if claim.displaying else ""
    asked = f"{claim.people} people of {claim.groups} groups{shown} after {exact_span(claim.delay)}"
    return f"{conditions}: {'denied' if claim.denied else asked}"


def _common(old: Bundle, new: Bundle) -> Iterator[Asset]:
    known = {asset.symbol for asset in new.assets}
    yield from (asset for asset in old.assets if asset.symbol in known)


def _units(asset: Asset) -> Callable[[int], str]:
    return lambda units: f"{units} base units of {asset.symbol}"


def _number(where: str, old: int, new: int, tell: Callable[[int], str], *, more: Direction) -> Iterator[Change]:
    if old != new:
        less = Direction.STRICTER if more is Direction.WEAKER else Direction.WEAKER
        yield Change(more if new > old else less, where, tell(old), tell(new))


def _any(where: str, old: object, new: object) -> Iterator[Change]:
    if old != new:
        yield Change(Direction.WEAKER, where, str(old), str(new))


def reworded(old: Bundle, new: Bundle) -> tuple[str, ...]:
    """Rules, claims and entities whose reason reads differently; what else of them changed is told by meaning."""
    was, now = (_words(bundle) for bundle in (old, new))
    return tuple(name for name in sorted(was.keys() & now.keys()) if was[name] != now[name])


def _words(bundle: Bundle) -> Mapping[str, str]:
    rules = {rule.id: rule.why for rule in bundle.rules}
    entities = (*bundle.registry.related, *bundle.registry.sanctioned)
    parties = {f"parties.yaml {entity.name}": entity.why for entity in entities}
    return rules | parties | {claim.id: claim.why for claim in bundle.claims.each}
