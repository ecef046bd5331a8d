# SPDX-License-Identifier: AGPL-3.0-or-later
"""Facts of a transfer as a person writes them: the words of the rules, amounts with their units, windows that follow the value.

    from: customer_hot
    to: customer_withdrawal
    owner: the_customer
    purpose: withdrawal
    role: customer
    asset: BTC
    amount: 0.1 BTC
    usd: 6,000 USD
    dest_age: 2d

What is left out is harmless: windows equal to the value, a destination that holds what it is paid, enrolled, nothing flagged.
"""

import re
from collections.abc import Mapping
from typing import Final

from custody.rules.amounts import Asset, Assets
from custody.rules.errors import InvalidInput
from custody.rules.facts import Destination, Facts, Owner, Purpose, Role
from custody.rules.refusals import Rule
from custody.rules.wallets import Tier
from policies.quantities import duration, micro_usd, text, units
from policies.shapes import below, mapping
from policies.strict_yaml import Node
from policies.vocabulary import ATTRIBUTE, VOCABULARY, Choice, Flag, Measure, Quantity, nearest

MUST: Final = ("from", "to", "owner", "purpose", "role", "asset", "amount", "usd")
_TYPES: Final = {"from": Tier, "to": Destination, "to_tier": Tier, "owner": Owner, "purpose": Purpose, "role": Role}
_NOW: Final = re.compile(r"0(?:s|min|h|d)")
_FOLLOWS: Final = {
    "customer_24h": "usd",
    "wallet_1h": "usd",
    "initiator_24h": "usd",
    "dest_balance_after": "amount",
}
"""Quantities that are at least another one, and that one."""


def read_facts(node: Node, assets: Assets, where: str, like: Mapping[str, Node] | None = None) -> Facts:
    """Facts out of a mapping, over those of `like` where it is given. Raises InvalidInput naming what is wrong.

    A flag is told as `true` or `false`; `to_tier` is left out for everything but our own wallets.
    """
    fields = mapping({**(like or {}), **mapping(node, where, (), tuple(VOCABULARY))}, where, MUST, tuple(VOCABULARY))
    symbol = text(fields["asset"], below(where, "asset"))
    asset = assets.get(symbol, below(where, "asset"))
    found: dict[str, object] = {"asset": symbol, "to_tier": None, "settled_24h": 0, "dest_age": 0}
    for name, fact in VOCABULARY.items():
        if name in fields and name != "asset":
            found[name] = _value(fact, fields[name], asset, below(where, name))
    for name, other in _FOLLOWS.items():
        found.setdefault(name, found[other])
    for name, fact in VOCABULARY.items():
        if isinstance(fact, Flag):
            found.setdefault(name, not fact.tightens if name != "within_accrued_fees" else False)
    return Facts(**{ATTRIBUTE[name]: value for name, value in found.items()})  # type: ignore[arg-type]


def _value(fact: Choice | Flag | Quantity, node: Node, asset: Asset, where: str) -> object:
    written = text(node, where)
    if isinstance(fact, Choice):
        if written not in fact.words:
            raise InvalidInput(where, Rule.MALFORMED, repr(written), nearest(written, fact.words))
        return _TYPES[fact.name](written)
    if isinstance(fact, Flag):
        if written not in ("true", "false"):
            raise InvalidInput(where, Rule.MALFORMED, repr(written), "true or false")
        return written == "true"
    if fact.measure is Measure.USD:
        return micro_usd(written, where)
    if fact.measure is Measure.TIME:
        return 0 if _NOW.fullmatch(written) else duration(written, where)
    return units(written, asset, where)
