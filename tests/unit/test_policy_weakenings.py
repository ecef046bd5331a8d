# SPDX-License-Identifier: AGPL-3.0-or-later
"""At least two hundred ways to loosen the shipped bundle: each is seen by the difference in meaning, and none is plainly stricter."""

import pytest

from policies.bundle import Bundle, from_json
from policies.proofs.difference import difference, loosens
from policies.refinement import not_plainly_stricter
from tests.unit.shipped import open_shipped
from tests.unit.weakenings import Weakening, weakenings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def edits(bundle: Bundle) -> list[Weakening]:
    """Every weakening that changes a document at all."""
    return [edit for edit in weakenings(bundle) if edit.bundle.hash != bundle.hash]


def test_there_are_many(edits: list[Weakening]) -> None:
    """Of rules, limits, floors, fees, claims and governance."""
    assert len(edits) >= 200
    assert len({edit.bundle.hash for edit in edits}) == len(edits)


def test_every_one_is_seen(bundle: Bundle, edits: list[Weakening]) -> None:
    """As weaker; and no seat would take it for stricter without a solver."""
    assert [edit.name for edit in edits if not loosens(bundle, edit.bundle)] == []
    assert [edit.name for edit in edits if not not_plainly_stricter(bundle, edit.bundle)] == []


def test_backwards_they_tighten(bundle: Bundle, edits: list[Weakening]) -> None:
    """What is plainly stricter is never weaker by meaning: going back from every weakening shows it on as many bundles."""
    plain = [edit for edit in edits if not not_plainly_stricter(edit.bundle, bundle)]
    assert len(plain) >= 100
    assert [edit.name for edit in plain if loosens(edit.bundle, bundle)] == []
    for edit in plain[::20]:  # the whole report says the same as the short answer
        assert not difference(edit.bundle, bundle).is_weaker
    same = from_json(dict(bundle.documents))
    assert not_plainly_stricter(bundle, same) == ()
