# SPDX-License-Identifier: AGPL-3.0-or-later
"""The one door through which a seat's process sees policies: documents in, the bundle as `rules.seat` uses it out."""

import json
from collections.abc import Mapping
from pathlib import Path

from custody.rules.seat_request import BundleInForce
from custody.rules.succession import Terms
from policies import succession
from policies.bundle import Bundle, from_json, load
from policies.strict_yaml import Node


def in_force(bundle: Bundle) -> BundleInForce:
    """A bundle's rules, asset registry, fee schedule, levels and lists, under the hash that this process computed."""
    levels = bundle.hot, bundle.consolidation, bundle.deposit_sweeps
    return BundleInForce(bundle.policy, bundle.assets, bundle.fees, *levels, bundle.registry.parties)


def read_bundle(documents: Mapping[str, object]) -> BundleInForce:
    """A bundle from its documents, read as strictly as from files. Raises InvalidInput naming what is wrong."""
    return in_force(_read(documents))


def terms(old: Mapping[str, object], new: Mapping[str, object]) -> Terms:
    """What the bundle in force asks of the next one, by both bundles' documents: `rules.succession.JudgeTerms`."""
    return succession.terms(_read(old), _read(new))


def _read(documents: Mapping[str, object]) -> Bundle:
    nodes: dict[str, Node] = json.loads(json.dumps(dict(documents)))
    return from_json(nodes)


def documents_of(folder: Path) -> dict[str, object]:
    """The documents of a bundle's folder, as they are handed to seats. Raises InvalidInput naming file and line."""
    return dict(load(folder).to_json())
