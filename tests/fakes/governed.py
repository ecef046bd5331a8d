# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bundles that follow one another in the tests' deployment: its three owners can fill both paths, and one of risk the claims' own."""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final

from custody.rules.governance import PolicyActivation
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from policies.bundle import Bundle, from_json
from tests.fakes import trust
from tests.fakes.seat import NOW, secp256k1, signed_by
from tests.fakes.seated import shipped

Edit = Callable[[dict[str, Any]], None]

HOUR: Final = 3600
DAYS: Final = 48 * HOUR
OWNERS: Final = ("ana", "bo", "cy")
GOVERNANCE: Final = {
    "stricter": {"owners": "2", "delay": "1h"},
    "weaker": {"owners": "3", "delay": "48h"},
    "claims": {"group": "risk", "people": "1"},
}


def after(bundle: Bundle, *edits: Edit) -> Bundle:
    """The bundle with these edits of its documents."""
    documents: dict[str, Any] = copy.deepcopy(dict(bundle.documents))
    for edit in edits:
        edit(documents)
    return from_json(documents)


def rule(name: str, **changed: object) -> Edit:
    """Change fields of one rule; None removes it whole where no field is named."""

    def edit(documents: dict[str, Any]) -> None:
        rows = documents["rules"]["rules"]
        (row,) = [row for row in rows if row["id"].startswith(name)]
        if not changed:
            rows.remove(row)
        row.update(changed)

    return edit


@cache
def first() -> Bundle:
    """The shipped bundle under this governance."""
    return after(shipped(), lambda documents: documents.update(governance=copy.deepcopy(GOVERNANCE)))


@cache
def tighter() -> Bundle:
    """After the first: an hour more for what R01 delays."""
    return after(first(), rule("R01", delay="2h"))


@cache
def looser() -> Bundle:
    """After the first: affiliates wait an hour less, which C08 does not let pass."""
    return after(first(), rule("R04", delay="23h"))


def activation(
    bundle: Bundle,
    previous: Bundle | None,
    people: Iterable[str] = OWNERS,
    *,
    author: str = "dee",
    not_before: int = NOW,
    report: bytes = b"\x0e" * 32,
) -> Signed[PolicyActivation]:
    """An activation that these people signed."""
    before = (ZERO32, ZERO32) if previous is None else (previous.hash, report)
    message = PolicyActivation(bundle.hash, *before, author, not_before)
    return signed_by(message, trust.world().domain, [secp256k1(name) for name in people])


def signed_by_all(line: Sequence[Bundle]) -> list[Signed[PolicyActivation]]:
    """Each bundle after the one before it, signed by every owner."""
    return [activation(bundle, line[number - 1] if number else None) for number, bundle in enumerate(line)]
