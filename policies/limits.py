# SPDX-License-Identifier: AGPL-3.0-or-later
"""`limits.yaml` and `floors.yaml`: native amounts that hold whatever a price says, each total over the assets."""

import re
from collections.abc import Mapping
from typing import Final

from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput
from custody.rules.hot_bands import HotBand
from custody.rules.housekeeping import Consolidation
from custody.rules.refusals import Rule
from custody.rules.requirement import MOST_APPROVALS, Floors
from custody.rules.wallets import Tier
from policies.quantities import units, whole
from policies.rules_model import Limits
from policies.shapes import below, for_each_asset, mapping, rows
from policies.strict_yaml import Node

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_FLOOR, _TARGET, _CAP, _REFILL = "hot_wallet_floor", "hot_wallet_target", "hot_wallet_cap", "largest_refill"
_RATE, _COIN, _SWEEP = "consolidation_rate", "consolidation_coin", "deposit_sweep"
PLANNED: Final = frozenset((_FLOOR, _TARGET, _CAP, _REFILL, _RATE, _COIN, _SWEEP))
"""Limits by which coins are moved between our own wallets; rules need not name them."""


def read_limits(node: Node, assets: Assets, file: str = "limits.yaml:") -> Limits:
    """Named limits for rules to refer to: name to asset symbol to base units."""
    if not isinstance(node, dict) or not node:
        raise InvalidInput(
            file, Rule.MALFORMED, type(node).__name__, "a mapping of limits, each with a value for every asset"
        )
    for name in node:
        if _NAME.fullmatch(name) is None:
            raise InvalidInput(below(file, name), Rule.MALFORMED, repr(name), "a name of lower-case words joined by _")
    return {name: for_each_asset(row, assets, below(file, name), units) for name, row in node.items()}


def read_hot_bands(limits: Limits, assets: Assets, file: str = "limits.yaml:") -> Mapping[str, HotBand]:
    """Each asset's levels of a hot wallet, out of four limits. None where a bundle names neither floor nor target.

    Cap and largest refill are the very limits that rules deny by, so what rebalancing aims at and what policy refuses cannot
    drift apart. Raises InvalidInput: one level without the others, levels that do not rise, a step that is dust.
    """
    if _FLOOR not in limits and _TARGET not in limits:
        return {}
    for name in (_FLOOR, _TARGET, _CAP, _REFILL):
        if name not in limits:
            want = "floor, target, cap and largest refill of hot wallets together, or neither floor nor target"
            raise InvalidInput(file, Rule.MALFORMED, f"no {name!r}", want)
    found: dict[str, HotBand] = {}
    for asset in assets:
        symbol = asset.symbol
        floor, target, cap, refill = (limits[name][symbol] for name in (_FLOOR, _TARGET, _CAP, _REFILL))
        where = below(below(file, _TARGET), symbol)
        if (
            min(target - floor, cap - target, floor) < asset.dust
        ):  # a step that is no payment would be proposed for ever
            got = f"floor {floor}, target {target}, cap {cap} base units"
            want = f"floor, target and cap each at least the dust of {symbol} ({asset.dust}) above the one before"
            raise InvalidInput(where, Rule.MALFORMED, got, want)
        if refill < asset.dust:
            raise InvalidInput(below(below(file, _REFILL), symbol), Rule.DUST, str(refill), f"at least {asset.dust}")
        found[symbol] = HotBand(floor, target, cap, refill)
    return found


def read_consolidation(limits: Limits, assets: Assets, file: str = "limits.yaml:") -> Mapping[str, Consolidation]:
    """When each Bitcoin asset's small coins are joined, out of two limits; an asset with zero in both is left alone.

    None where a bundle names neither. Raises InvalidInput: one without the other, a coin that is dust, an asset without coins.
    """
    if _RATE not in limits and _COIN not in limits:
        return {}
    for name in (_RATE, _COIN):
        if name not in limits:
            raise InvalidInput(file, Rule.MALFORMED, f"no {name!r}", f"{_RATE} and {_COIN} together, or neither")
    found: dict[str, Consolidation] = {}
    for asset in assets:
        rate, coin = limits[_RATE][asset.symbol], limits[_COIN][asset.symbol]
        where = below(below(file, _COIN if rate else _RATE), asset.symbol)
        if (rate or coin) and asset.chain.is_evm:
            raise InvalidInput(
                where, Rule.MALFORMED, f"{rate} and {coin}", f"0 {asset.symbol}: it has no coins to join"
            )
        if bool(rate) != bool(coin) or (coin and coin < asset.dust):
            want = f"both zero, or a coin of at least the dust of {asset.symbol} ({asset.dust}) and a rate above zero"
            raise InvalidInput(where, Rule.MALFORMED, f"a rate of {rate} and coins of {coin} base units", want)
        if rate:
            found[asset.symbol] = Consolidation(rate, coin)
    return found


def read_deposit_sweeps(limits: Limits, assets: Assets, file: str = "limits.yaml:") -> Mapping[str, int]:
    """From how many base units on an EVM asset's deposit address is swept by schedule; an asset with zero is left alone.

    None where a bundle does not name it. Raises InvalidInput: less than dust, or an asset whose deposit addresses hold no balance.
    """
    found: dict[str, int] = {}
    for asset in assets if _SWEEP in limits else ():
        least, where = limits[_SWEEP][asset.symbol], below(below(file, _SWEEP), asset.symbol)
        if least and not asset.chain.is_evm:
            want = f"0 {asset.symbol}: coins are spent where they lie"
            raise InvalidInput(where, Rule.MALFORMED, str(least), want)
        if 0 < least < asset.dust:
            raise InvalidInput(where, Rule.DUST, str(least), f"zero, or at least {asset.dust}")
        if least:
            found[asset.symbol] = least
    return found


def read_floors(node: Node, assets: Assets, file: str = "floors.yaml:") -> Floors:
    """A seat's own minima. Cold and operational coins need people from the first base unit; only customer_hot has a free band."""
    fields = mapping(node, file, ("automatic", "people"))
    where = below(file, "automatic")
    automatic = mapping(fields["automatic"], where, ("most", "per_day"))
    most = for_each_asset(automatic["most"], assets, below(where, "most"), units)
    day = for_each_asset(automatic["per_day"], assets, below(where, "per_day"), units)
    where = below(file, "people")
    tiers = mapping(fields["people"], where, tuple(Tier))
    people = {tier: _bands(tiers[tier], tier, assets, below(where, tier)) for tier in Tier}
    for symbol, highest in most.items():
        if people[Tier.CUSTOMER_HOT][symbol][0][0] > highest:  # between the two, a seat would be asked by nobody
            got = f"people only above more than automatic.most of {symbol}"
            raise InvalidInput(
                below(where, Tier.CUSTOMER_HOT), Rule.MALFORMED, got, "a first band from automatic.most on"
            )
    return Floors(people, most, day)


def _bands(node: Node, tier: Tier, assets: Assets, where: str) -> Mapping[str, tuple[tuple[int, int], ...]]:
    bands: dict[str, list[tuple[int, int]]] = {asset.symbol: [] for asset in assets}
    for position, row in enumerate(rows(node, where)):
        here = f"{where}[{position}]"
        fields = mapping(row, here, ("people", "more_than"))
        people = whole(fields["people"], below(here, "people"), MOST_APPROVALS)
        for symbol, above in for_each_asset(fields["more_than"], assets, below(here, "more_than"), units).items():
            # Bands that do not rise in both are bands with a gap: more coins would need fewer people.
            if bands[symbol] and (above <= bands[symbol][-1][0] or people <= bands[symbol][-1][1]):
                raise InvalidInput(
                    below(here, "more_than"), Rule.MALFORMED, f"{symbol} does not rise", "more people above more coins"
                )
            if not bands[symbol] and (people < 1 or (above > 0 and tier is not Tier.CUSTOMER_HOT)):
                raise InvalidInput(
                    here, Rule.MALFORMED, f"{people} people above {above}", f"somebody for every coin out of {tier}"
                )
            bands[symbol].append((above, people))
    return {symbol: tuple(found) for symbol, found in bands.items()}
