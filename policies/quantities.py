# SPDX-License-Identifier: AGPL-3.0-or-later
"""Quantities as a reviewer writes them, each with its unit, and the exact integers they mean. No float, no rounding, ever."""

import re
from typing import Final

from custody.rules.amounts import UINT256_MAX, Amount, Asset
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from policies.strict_yaml import Node

MICRO: Final = 6
"""Decimal places of a micro-USD."""
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|min|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]*)(?:\.([0-9]+))?")


def text(node: Node, where: str) -> str:
    """A scalar; raises InvalidInput for a list or a mapping."""
    if not isinstance(node, str):
        raise InvalidInput(where, Rule.MALFORMED, type(node).__name__, "text")
    return node


def whole(node: Node, where: str, most: int) -> int:
    """A whole number of at most nine digits, and at most `most`."""
    number = text(node, where)
    if re.fullmatch(r"0|[1-9][0-9]{0,8}", number) is None or int(number) > most:
        raise InvalidInput(where, Rule.MALFORMED, repr(number), f"a whole number up to {most}")
    return int(number)


def quantity(node: Node, asset: Asset, where: str) -> int:
    """An amount with its mandatory unit, such as `0.25 BTC`, more than zero and no dust; base units."""
    number, _, unit = text(node, where).partition(" ")
    if unit != asset.symbol:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), f"an amount in {asset.symbol}, unit written out")
    return Amount.parse(asset, number, where).units


def duration(node: Node, where: str) -> int:
    """A duration with its mandatory unit (s, min, h, d); seconds."""
    match = _DURATION.fullmatch(text(node, where))
    if match is None:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), "a duration such as 24h")
    return int(match[1]) * _SECONDS[match[2]]


def units(node: Node, asset: Asset, where: str) -> int:
    """A bound in an asset's own unit, such as `2,500 ETH`; zero is allowed; base units. Raises too_many_decimal_places."""
    return _bound(node, asset.symbol, asset.decimals, where)


def micro_usd(node: Node, where: str) -> int:
    """A bound in USD, such as `5,000,000 USD`; micro-USD. Raises too_many_decimal_places beyond six."""
    return _bound(node, "USD", MICRO, where)


def _bound(node: Node, unit: str, places: int, where: str) -> int:
    number, _, given = text(node, where).partition(" ")
    match = _NUMBER.fullmatch(number)
    if given != unit or match is None:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), f"a number and its unit, such as 5,000 {unit}")
    digits, fraction = match[1].replace(",", ""), match[2] or ""
    if len(fraction) > places:
        raise InvalidInput(where, Rule.TOO_MANY_PLACES, repr(node), f"at most {places} places for {unit}")
    # Compared by length first: Python refuses to read very long numbers, and a limit nobody can reach is a mistake anyway.
    value = int(digits + fraction.ljust(places, "0")) if len(digits) <= 78 else UINT256_MAX + 1
    if value > UINT256_MAX:
        raise InvalidInput(where, Rule.TOO_LARGE, repr(node), "at most 2^256 - 1 base units")
    return value
