# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shapes every document of a bundle is made of: exact keys, non-empty lists, one value for each asset."""

from collections.abc import Callable, Collection
from typing import TypeVar

from custody.rules.amounts import Asset, Assets
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from policies.strict_yaml import Node
from policies.vocabulary import nearest

T = TypeVar("T")


def below(where: str, key: str) -> str:
    """The path of a key: `rules.yaml:rules[3]` and `when` are `rules.yaml:rules[3].when`."""
    return f"{where}{key}" if where.endswith(":") else f"{where}.{key}"


def mapping(node: Node, where: str, must: Collection[str], may: Collection[str] = ()) -> dict[str, Node]:
    """A mapping with every key of `must`, and no key outside both; an unknown one is answered with the closest known."""
    if not isinstance(node, dict):
        raise InvalidInput(where, Rule.MALFORMED, type(node).__name__, "a mapping of " + ", ".join((*must, *may)))
    for key in node:
        if key not in must and key not in may:
            raise InvalidInput(below(where, key), Rule.MALFORMED, f"unknown key {key!r}", nearest(key, (*must, *may)))
    for key in must:
        if key not in node:
            raise InvalidInput(where, Rule.MALFORMED, f"no {key!r}", "every key of " + ", ".join(must))
    return node


def rows(node: Node, where: str) -> list[Node]:
    """A list that is not empty."""
    if not isinstance(node, list) or not node:
        raise InvalidInput(
            where, Rule.MALFORMED, "none" if node == [] else type(node).__name__, "a list of at least one"
        )
    return node


def for_each_asset(node: Node, assets: Assets, where: str, read: Callable[[Node, Asset, str], T]) -> dict[str, T]:
    """One value for every asset of the registry and no other: a limit that an asset lacks would be no limit."""
    fields = mapping(node, where, [asset.symbol for asset in assets])
    return {asset.symbol: read(fields[asset.symbol], asset, below(where, asset.symbol)) for asset in assets}
