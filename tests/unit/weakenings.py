# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every single edit by which somebody could loosen a bundle: rule by rule, condition by condition, number by number."""

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from custody.rules.errors import InvalidInput
from policies.bundle import Bundle, from_json
from policies.rules_model import Compared, Kind, LimitName, OneOf, PolicyRule, Says
from policies.vocabulary import VOCABULARY, Choice, Measure, Quantity

Documents = dict[str, Any]
_PLACES: Final = {"BTC": 8, "ETH": 18, "USDX": 6, "USDN": 6}


@dataclass(frozen=True, slots=True)
class Weakening:
    """One edit, and the bundle after it."""

    name: str
    bundle: Bundle


def weakenings(bundle: Bundle) -> Iterator[Weakening]:
    """All of them; each bundle is whole and can be loaded."""
    for name, edit in (*_rules(bundle), *_limits(bundle), *_documents(bundle)):
        documents: Documents = copy.deepcopy(dict(bundle.documents))
        edit(documents)
        with suppress(InvalidInput):  # a word that the reader refuses there is no way to loosen anything
            yield Weakening(name, from_json(documents))


Edit = Callable[[Documents], object]


def _row(documents: Documents, name: str) -> dict[str, Any]:
    (row,) = [row for row in documents["rules"]["rules"] if row["id"] == name]
    found: dict[str, Any] = row
    return found


def _rules(bundle: Bundle) -> Iterator[tuple[str, Edit]]:
    for rule in bundle.rules:
        name = rule.id
        if rule.kind is not Kind.PERMIT:
            yield f"{name} is gone", lambda d, n=name: d["rules"]["rules"].remove(_row(d, n))
        for group, _ in rule.approvals:
            if len(rule.approvals) > 1:
                yield f"{name} without {group}", lambda d, n=name, g=group: _without(_row(d, n)["approvals"], g)
        if rule.delay:
            yield f"{name} a second sooner", lambda d, n=name, s=rule.delay: _row(d, n).update(delay=f"{s - 1}s")
            if rule.approvals or rule.displaying:
                yield f"{name} without delay", lambda d, n=name: _row(d, n).pop("delay")
        if rule.displaying and (rule.approvals or rule.delay):
            yield f"{name} by keys that show nothing", lambda d, n=name: _row(d, n).pop("displaying")
        yield from _conditions(bundle, rule)


def _without(rows: list[str], group: str) -> None:
    rows[:] = [row for row in rows if not row.endswith(f" of {group}")]


def _conditions(bundle: Bundle, rule: PolicyRule) -> Iterator[tuple[str, Edit]]:
    """A permit matches more, or lets more go by itself; a require or a deny matches less."""
    for part, conditions in (("when", rule.when), ("automatic_when", rule.automatic_when)):
        for condition in conditions:
            where = f"{rule.id}.{part}.{condition.fact}"
            change = _moved(condition, more=rule.kind is Kind.PERMIT, bundle=bundle)
            for text in change:
                yield (
                    f"{where} -> {text}",
                    lambda d, n=rule.id, p=part, f=condition.fact, t=text: _row(d, n)[p].__setitem__(f, t),
                )


def _moved(condition: OneOf | Compared | Says, *, more: bool, bundle: Bundle) -> Iterator[Any]:
    """The condition with one word more or less, or its bound one unit further."""
    fact = VOCABULARY[condition.fact]
    if isinstance(condition, OneOf) and isinstance(fact, Choice):
        if not more and len(condition.words) > 1:
            yield from ([word for word in condition.words if word != left] for left in condition.words)
        if more:
            yield from ([*condition.words, word] for word in fact.words if word not in condition.words)
        return
    if isinstance(condition, Compared) and isinstance(fact, Quantity) and isinstance(condition.bound, int):
        up = condition.comparator.from_above is more
        bound = condition.bound + (1 if up else -1)
        text = f"{bound // 10**6:,}.{bound % 10**6:06d} USD" if fact.measure is Measure.USD else f"{bound}s"
        yield f"{condition.comparator} {text}"


def _limits(bundle: Bundle) -> Iterator[tuple[str, Edit]]:
    used = {
        c.bound.name
        for rule in bundle.rules
        for c in (*rule.when, *rule.automatic_when)
        if isinstance(c, Compared) and isinstance(c.bound, LimitName)
    }
    for name in sorted(used):
        for symbol, units in bundle.limits[name].items():
            text = f"{_decimal(units + 1, _PLACES[symbol])} {symbol}"
            yield f"limit {name} {text}", lambda d, n=name, s=symbol, t=text: d["limits"][n].__setitem__(s, t)


def _decimal(units: int, places: int) -> str:
    whole, rest = divmod(units, 10**places)
    return f"{whole}.{rest:0{places}d}"


def _documents(bundle: Bundle) -> Iterator[tuple[str, Edit]]:
    for place, claim in enumerate(bundle.claims.each):
        if len(bundle.claims.each) > 1:
            yield f"claim {claim.id} is gone", lambda d, p=place: d["claims"]["claims"].pop(p)
    for name, by_asset in bundle.claims.limits.items():
        for symbol, units in by_asset.items():
            text = f"{_decimal(units + 1, _PLACES[symbol])} {symbol}"
            yield (
                f"claims' limit {name} {text}",
                lambda d, n=name, s=symbol, t=text: d["claims"]["limits"][n].update({s: t}),
            )
    for place, row in enumerate(bundle.documents["fees"]["fees"]):  # type: ignore[index,arg-type,call-overload]
        yield f"a higher fee {row}", lambda d, p=place: d["fees"]["fees"][p].update(at_most="30 bps")
    yield "fees mature sooner", lambda d: d["fees"].update(maturity="86399s")
    for symbol, units in bundle.floors.automatic_most.items():
        text = f"{_decimal(units + 1, _PLACES[symbol])} {symbol}"
        yield (
            f"seats' automatic day {symbol}",
            lambda d, s=symbol: d["floors"]["automatic"]["per_day"].update({s: f"{10**9} {s}"}),
        )
        yield (
            f"seats' automatic most {symbol}",
            lambda d, s=symbol, t=text: (
                d["floors"]["automatic"]["most"].update({s: t}),
                d["floors"]["people"]["customer_hot"][0]["more_than"].update({s: t}),
            ),
        )
    for tier, bands in bundle.documents["floors"]["people"].items():  # type: ignore[index,call-overload,union-attr]
        for place, band in enumerate(bands):
            if int(band["people"]) > 1:
                yield (
                    f"a person less out of {tier} in band {place}",
                    lambda d, t=tier, p=place, n=int(band["people"]) - 1: d["floors"]["people"][t][p].update(
                        people=str(n)
                    ),
                )
            if place:
                yield f"no band {place} out of {tier}", lambda d, t=tier, p=place: d["floors"]["people"][t].pop(p)
    yield "fewer owners to loosen", lambda d: d["governance"].update(stricter={"owners": "2", "delay": "1h"})
    yield "a shorter time-lock to loosen", lambda d: d["governance"]["weaker"].update(delay="47h")
    yield "other owners of claims", lambda d: d["governance"]["claims"].update(group="operations")
