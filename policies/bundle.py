# SPDX-License-Identifier: AGPL-3.0-or-later
"""A policy bundle: what policy owners sign as one hash. It holds the asset registry and the fee schedule; rules, limits and
claims join it in the same canonical JSON.

Files, in one folder: `assets.yaml` and `fees.yaml`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from custody.rules.amounts import Amount, Asset, AssetKind, Assets
from custody.rules.errors import InvalidInput
from custody.rules.ledger import canonical
from custody.rules.refusals import Rule
from custody.rules.settlements import BPS, FeeSchedule
from custody.rules.wallets import Address, Chain
from policies.strict_yaml import Node, read

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|min|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}
FILES: Final = ("assets", "fees")


@dataclass(frozen=True)
class Bundle:
    """A bundle's documents as read, and the hash over their canonical JSON that everything pins."""

    documents: Mapping[str, Node]

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical JSON; 32 bytes."""
        return hashlib.sha256(b"bulkhead policy bundle v1\x00" + canonical(dict(self.documents))).digest()

    @cached_property
    def assets(self) -> Assets:
        """The asset registry; raises InvalidInput naming the field that is wrong."""
        return _assets(_mapping(self.documents["assets"], "assets.yaml", {"chains", "assets"}))

    @cached_property
    def fees(self) -> FeeSchedule:
        """The fee schedule over this bundle's assets."""
        return _fees(_mapping(self.documents["fees"], "fees.yaml", {"maturity", "fees"}), self.assets, self.hash)

    def to_json(self) -> dict[str, Node]:
        """The documents, as they are mirrored and handed to seats."""
        return dict(self.documents)


def load(folder: Path) -> Bundle:
    """Read a bundle's files strictly and check that every part is whole."""
    return from_json({name: read(folder / f"{name}.yaml") for name in FILES})


def from_json(documents: Mapping[str, Node]) -> Bundle:
    """A bundle from its documents; both parts must be valid for the bundle to exist at all."""
    if set(documents) != set(FILES):
        raise InvalidInput("bundle", Rule.MALFORMED, ", ".join(sorted(documents)), ", ".join(FILES))
    bundle = Bundle(json.loads(canonical(dict(documents))))
    _ = bundle.assets, bundle.fees
    return bundle


def _mapping(node: Node, where: str, keys: set[str]) -> dict[str, Node]:
    if not isinstance(node, dict) or set(node) != keys:
        got = ", ".join(sorted(node)) if isinstance(node, dict) else type(node).__name__
        raise InvalidInput(where, Rule.MALFORMED, got, "exactly the keys " + ", ".join(sorted(keys)))
    return node


def _rows(node: Node, where: str) -> list[Node]:
    if not isinstance(node, list) or not node:
        raise InvalidInput(where, Rule.MALFORMED, type(node).__name__, "a list of at least one")
    return node


def _text(node: Node, where: str) -> str:
    if not isinstance(node, str):
        raise InvalidInput(where, Rule.MALFORMED, type(node).__name__, "text")
    return node


def _whole(node: Node, where: str, most: int) -> int:
    text = _text(node, where)
    if re.fullmatch(r"0|[1-9][0-9]{0,8}", text) is None or int(text) > most:
        raise InvalidInput(where, Rule.MALFORMED, repr(text), f"a whole number up to {most}")
    return int(text)


def quantity(node: Node, asset: Asset, where: str) -> int:
    """An amount with its mandatory unit, such as `0.25 BTC`; base units."""
    number, _, unit = _text(node, where).partition(" ")
    if unit != asset.symbol:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), f"an amount in {asset.symbol}, unit written out")
    return Amount.parse(asset, number, where).units


def duration(node: Node, where: str) -> int:
    """A duration with its mandatory unit (s, min, h, d); seconds."""
    match = _DURATION.fullmatch(_text(node, where))
    if match is None:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), "a duration such as 24h")
    return int(match[1]) * _SECONDS[match[2]]


def _assets(data: dict[str, Node]) -> Assets:
    finality: dict[Chain, int] = {}
    for position, row in enumerate(_rows(data["chains"], "assets.yaml:chains")):
        where = f"assets.yaml:chains[{position}]"
        fields = _mapping(row, where, {"chain", "final"})
        chain = Chain(_text(fields["chain"], f"{where}.chain"))
        if chain in finality:
            raise InvalidInput(f"{where}.chain", Rule.NAME_REUSED, str(chain), "each chain once")
        finality[chain] = _finality(chain, fields["final"], f"{where}.final")
    rows = _rows(data["assets"], "assets.yaml:assets")
    return Assets(tuple(_asset(row, f"assets.yaml:assets[{i}]") for i, row in enumerate(rows)), finality)


def _finality(chain: Chain, node: Node, where: str) -> int:
    if chain.is_evm:
        if node != "finalized block":
            raise InvalidInput(where, Rule.MALFORMED, repr(node), "'finalized block' on EVM")
        return 0
    least = 3 if chain.bitcoin_network == "regtest" else 6
    number, _, unit = _text(node, where).partition(" ")
    depth = _whole(number, where, 1000)
    if unit != "confirmations" or depth < least:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), f"at least {least} confirmations (TRUST.md, Provenance)")
    return depth


def _asset(row: Node, where: str) -> Asset:
    has_contract = isinstance(row, dict) and "contract" in row
    fields = _mapping(row, where, {"symbol", "chain", "decimals", "dust"} | ({"contract"} if has_contract else set()))
    chain = Chain(_text(fields["chain"], f"{where}.chain"))
    contract = Address.parse(chain, _text(fields["contract"], f"{where}.contract"), f"{where}.contract") if has_contract else None
    kind = AssetKind.ERC20 if contract else AssetKind.NATIVE
    symbol = _text(fields["symbol"], f"{where}.symbol")
    bare = Asset(symbol, chain, kind, _whole(fields["decimals"], f"{where}.decimals", 36), contract)
    return Asset(symbol, chain, kind, bare.decimals, contract, quantity(fields["dust"], bare, f"{where}.dust"))


def _fees(data: dict[str, Node], assets: Assets, bundle: bytes) -> FeeSchedule:
    maximum: dict[str, int] = {}
    daily: dict[str, int] = {}
    for position, row in enumerate(_rows(data["fees"], "fees.yaml:fees")):
        where = f"fees.yaml:fees[{position}]"
        fields = _mapping(row, where, {"asset", "at_most", "swept_per_day"})
        asset = assets.get(_text(fields["asset"], f"{where}.asset"), f"{where}.asset")
        if asset.symbol in maximum:
            raise InvalidInput(f"{where}.asset", Rule.NAME_REUSED, asset.symbol, "each asset once")
        number, _, unit = _text(fields["at_most"], f"{where}.at_most").partition(" ")
        if unit != "bps":
            raise InvalidInput(f"{where}.at_most", Rule.MALFORMED, repr(fields["at_most"]), "basis points, such as '25 bps'")
        maximum[asset.symbol] = _whole(number, f"{where}.at_most", BPS)
        daily[asset.symbol] = quantity(fields["swept_per_day"], asset, f"{where}.swept_per_day")
    if missing := {a.symbol for a in assets} - set(maximum):
        raise InvalidInput("fees.yaml:fees", Rule.MALFORMED, f"no row for {sorted(missing)}", "a row for every asset")
    return FeeSchedule(bundle, maximum, duration(data["maturity"], "fees.yaml:maturity"), daily)
