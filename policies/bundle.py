# SPDX-License-Identifier: AGPL-3.0-or-later
"""A policy bundle: what policy owners sign as one hash.

It holds rules, limits, the seats' floors, the asset registry, the fee schedule, who is related or sanctioned, claims and governance, in one
canonical JSON. A bundle without rules cannot exist.

Files, in one folder: those of `FILES`, each with `.yaml` behind it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.errors import InvalidInput
from custody.rules.hot_bands import HotBand
from custody.rules.housekeeping import Consolidation
from custody.rules.ledger import canonical
from custody.rules.refusals import Rule
from custody.rules.requirement import Floors
from custody.rules.settlements import BPS, FeeSchedule
from custody.rules.wallets import Address, Chain
from policies.claims import Claims, read_claims
from policies.evaluate import Policy
from policies.governance import Governance, read_governance
from policies.limits import read_consolidation, read_deposit_sweeps, read_floors, read_hot_bands, read_limits
from policies.parties import Registry, read_registry
from policies.quantities import duration, quantity, text, whole
from policies.rules_model import Limits, PolicyRule
from policies.rules_reader import read_rules
from policies.shapes import mapping, rows
from policies.strict_yaml import Located, Node, check_node, locate

FILES: Final = ("assets", "fees", "limits", "floors", "rules", "claims", "governance", "parties")


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
        return _assets(mapping(self.documents["assets"], "assets.yaml:", ("chains", "assets")))

    @cached_property
    def fees(self) -> FeeSchedule:
        """The fee schedule over this bundle's assets."""
        return _fees(mapping(self.documents["fees"], "fees.yaml:", ("maturity", "fees")), self.assets, self.hash)

    @cached_property
    def limits(self) -> Limits:
        """Native limits that rules refer to, total over the assets."""
        return read_limits(self.documents["limits"], self.assets)

    @cached_property
    def hot(self) -> Mapping[str, HotBand]:
        """Each asset's levels of a hot wallet; nothing in a bundle that names none."""
        return read_hot_bands(self.limits, self.assets)

    @cached_property
    def consolidation(self) -> Mapping[str, Consolidation]:
        """When small coins are joined, by asset; nothing in a bundle that does not say."""
        return read_consolidation(self.limits, self.assets)

    @cached_property
    def deposit_sweeps(self) -> Mapping[str, int]:
        """From how many base units on a deposit address is swept by schedule, by asset; nothing in a bundle that does not say."""
        return read_deposit_sweeps(self.limits, self.assets)

    @cached_property
    def floors(self) -> Floors:
        """The seats' own minima, total over tiers and assets."""
        return read_floors(self.documents["floors"], self.assets)

    @cached_property
    def rules(self) -> tuple[PolicyRule, ...]:
        """Every rule, by id."""
        return read_rules(self.documents["rules"], self.assets, self.limits)

    @cached_property
    def claims(self) -> Claims:
        """What rules have to keep, whoever changes them."""
        return read_claims(self.documents["claims"], self.assets)

    @cached_property
    def governance(self) -> Governance:
        """How the next bundle comes in force."""
        return read_governance(self.documents["governance"])

    @cached_property
    def registry(self) -> Registry:
        """Who is related to us, and who is sanctioned."""
        return read_registry(self.documents["parties"], self.assets)

    @cached_property
    def policy(self) -> Policy:
        """The rules compiled, ready to evaluate; what custody gets as its policy in force."""
        return Policy(self.rules, self.limits, self.floors, self.assets, self.hash)

    def to_json(self) -> dict[str, Node]:
        """The documents, as they are mirrored and handed to seats."""
        return dict(self.documents)


def load(folder: Path) -> Bundle:
    """Read a bundle's files strictly and check that every part is whole. Raises InvalidInput naming file and line."""
    located = {name: locate(folder / f"{name}.yaml") for name in FILES}
    try:
        return from_json({name: document.node for name, document in located.items()})
    except InvalidInput as error:
        line = _line(error.field, located)
        if line is None:
            raise
        file, _, path = error.field.partition(":")
        raise InvalidInput(f"{file}:{line}: {path}".rstrip(": "), error.rule, error.got, error.want) from error


def from_json(documents: Mapping[str, Node]) -> Bundle:
    """A bundle from its documents; every part must be valid for the bundle to exist at all."""
    if set(documents) != set(FILES):
        raise InvalidInput("bundle", Rule.MALFORMED, ", ".join(sorted(documents)), ", ".join(FILES))
    checked = {name: check_node(document, name) for name, document in documents.items()}
    bundle = Bundle(json.loads(canonical(checked)))
    _ = (
        bundle.assets,
        bundle.fees,
        bundle.policy,
        bundle.hot,
        bundle.claims,
        bundle.governance,
        bundle.consolidation,
        bundle.deposit_sweeps,
        bundle.registry,
    )
    return bundle


def _line(field: str, located: Mapping[str, Located]) -> int | None:
    """The line of a field's path, or of the nearest thing around it that has one."""
    document = located.get(field.partition(".yaml:")[0])
    while document is not None and ":" in field:
        if field in document.lines:
            return document.lines[field]
        field = field[: max(field.rfind("."), field.rfind("["))]
    return None


def _assets(data: dict[str, Node]) -> Assets:
    finality: dict[Chain, int] = {}
    for position, row in enumerate(rows(data["chains"], "assets.yaml:chains")):
        where = f"assets.yaml:chains[{position}]"
        fields = mapping(row, where, ("chain", "final"))
        chain = Chain(text(fields["chain"], f"{where}.chain"))
        if chain in finality:
            raise InvalidInput(f"{where}.chain", Rule.NAME_REUSED, str(chain), "each chain once")
        finality[chain] = _finality(chain, fields["final"], f"{where}.final")
    listed = rows(data["assets"], "assets.yaml:assets")
    return Assets(tuple(_asset(row, f"assets.yaml:assets[{i}]") for i, row in enumerate(listed)), finality)


def _finality(chain: Chain, node: Node, where: str) -> int:
    if chain.is_evm:
        if node != "finalized block":
            raise InvalidInput(where, Rule.MALFORMED, repr(node), "'finalized block' on EVM")
        return 0
    least = 3 if chain.bitcoin_network == "regtest" else 6
    number, _, unit = text(node, where).partition(" ")
    depth = whole(number, where, 1000)
    if unit != "confirmations" or depth < least:
        raise InvalidInput(where, Rule.MALFORMED, repr(node), f"at least {least} confirmations (TRUST.md, Provenance)")
    return depth


def _asset(row: Node, where: str) -> Asset:
    has_contract = isinstance(row, dict) and "contract" in row
    fields = mapping(row, where, ("symbol", "chain", "decimals", "dust"), ("contract",))
    chain = Chain(text(fields["chain"], f"{where}.chain"))
    contract = (
        Address.parse(chain, text(fields["contract"], f"{where}.contract"), f"{where}.contract")
        if has_contract
        else None
    )
    kind = AssetKind.ERC20 if contract else AssetKind.NATIVE
    symbol = text(fields["symbol"], f"{where}.symbol")
    bare = Asset(symbol, chain, kind, whole(fields["decimals"], f"{where}.decimals", 36), contract)
    return Asset(symbol, chain, kind, bare.decimals, contract, quantity(fields["dust"], bare, f"{where}.dust"))


def _fees(data: dict[str, Node], assets: Assets, bundle: bytes) -> FeeSchedule:
    maximum: dict[str, int] = {}
    daily: dict[str, int] = {}
    for position, row in enumerate(rows(data["fees"], "fees.yaml:fees")):
        where = f"fees.yaml:fees[{position}]"
        fields = mapping(row, where, ("asset", "at_most", "swept_per_day"))
        asset = assets.get(text(fields["asset"], f"{where}.asset"), f"{where}.asset")
        if asset.symbol in maximum:
            raise InvalidInput(f"{where}.asset", Rule.NAME_REUSED, asset.symbol, "each asset once")
        number, _, unit = text(fields["at_most"], f"{where}.at_most").partition(" ")
        if unit != "bps":
            raise InvalidInput(
                f"{where}.at_most", Rule.MALFORMED, repr(fields["at_most"]), "basis points, such as '25 bps'"
            )
        maximum[asset.symbol] = whole(number, f"{where}.at_most", BPS)
        daily[asset.symbol] = quantity(fields["swept_per_day"], asset, f"{where}.swept_per_day")
    if missing := {a.symbol for a in assets} - set(maximum):
        raise InvalidInput("fees.yaml:fees", Rule.MALFORMED, f"no row for {sorted(missing)}", "a row for every asset")
    return FeeSchedule(bundle, maximum, duration(data["maturity"], "fees.yaml:maturity"), daily)
