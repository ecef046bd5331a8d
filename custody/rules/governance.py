# SPDX-License-Identifier: AGPL-3.0-or-later
"""Messages that change what is in force: policy, freeze, unfreeze (TRUST.md, "Stricter only")."""

from dataclasses import dataclass

from custody.rules.typed import Bytes32, Struct, Uint64


@dataclass(frozen=True, slots=True)
class PolicyActivation(Struct):
    """Puts a bundle in force from `not_before` on. `diff_report` is zero for the first bundle, as is `previous`."""

    bundle: Bytes32
    previous: Bytes32
    diff_report: Bytes32
    author: str
    not_before: Uint64


@dataclass(frozen=True, slots=True)
class Freeze(Struct):
    """One person stops a scope (`wallet:…`, `customer:…`, `chain:…` or `all`) until `lapses`; carried to seats by anyone."""

    scope: str
    reason: str
    from_time: Uint64
    lapses: Uint64


@dataclass(frozen=True, slots=True)
class Unfreeze(Struct):
    """Ends one freeze early: quorum and delay."""

    freeze: Bytes32
    reason: str
    not_before: Uint64
