# SPDX-License-Identifier: AGPL-3.0-or-later
"""The bench against other policy engines compares like with like: the same bundle, the same answers, and a large one that is sound."""

from typing import Any

import pytest

from custody.rules.decisions import decided
from custody.rules.facts import Facts
from custody.rules.requirement import Outcome
from policies.bundle import Bundle
from policies.proofs.obligations import Prover
from tests.bench.bench_policy import agreeing, transfers
from tests.bench.cedar import Cedar
from tests.bench.engines import WORD_MOST, Told, fits, plain
from tests.bench.many_rules import PLANTED, RULES, many_rules
from tests.bench.rego import Rego
from tests.unit.shipped import ROUTES, USD, facts, open_shipped, with_rules

MANY = 400


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle."""
    return open_shipped(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def some(bundle: Bundle) -> list[Facts]:
    """Transfers at bounds, and those of every day, some of them beyond 64 bits."""
    return [*transfers(bundle, MANY), *(facts(**changes) for changes in ROUTES.values())]


def test_cedar_agrees(bundle: Bundle, some: list[Facts]) -> None:
    """Wherever its 64 bits hold a transfer; each outcome is met, so that it means something."""
    cedar = Cedar(bundle)
    pairs = [(transfer, form) for transfer in some if (form := cedar.form(transfer)) is not None]
    agreeing(bundle.policy, cedar, cedar.ask, pairs)
    assert {Told.of(decided([bundle.policy], transfer)).outcome for transfer, _ in pairs} == set(Outcome)
    assert MANY // 3 < len(pairs) < len(some)


def test_rego_agrees(bundle: Bundle, some: list[Facts]) -> None:
    """By value wherever 64 bits hold a transfer, and by text on all of them."""
    rego = Rego(bundle)
    agreeing(
        bundle.policy,
        rego,
        rego.ask,
        [(transfer, form) for transfer in some if (form := rego.form(transfer)) is not None],
    )
    agreeing(bundle.policy, rego, rego.ask_in_text, [(transfer, plain(transfer)) for transfer in some])


def test_a_disagreement_is_found(bundle: Bundle, some: list[Facts]) -> None:
    """An engine with one rule less is told apart from us."""
    shipped: Any = bundle.documents["rules"]
    rows = [row for row in shipped["rules"] if row["id"] != "D06-cooling-off"]
    rego = Rego(with_rules(bundle, rows))
    with pytest.raises(ValueError, match="Rego says"):
        agreeing(bundle.policy, rego, rego.ask_in_text, [(transfer, plain(transfer)) for transfer in some])


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        pytest.param(WORD_MOST, True, id="the largest of 64 bits"),
        pytest.param(WORD_MOST + 1, False, id="one more"),
    ],
)
def test_what_an_engine_cannot_hold_is_not_put_to_it(bundle: Bundle, amount: int, *, told: bool) -> None:
    """An amount that would wrap or fail is left out, never compared."""
    transfer = facts(asset="ETH", amount=amount, usd=USD)
    assert fits(plain(transfer)) is told
    assert (Cedar(bundle).form(transfer) is not None) is told


def test_the_large_bundle_is_sound(bundle: Bundle) -> None:
    """200 rules of which everything is proved; the one that is planted breaks a claim, and only as what it is."""
    large, weak = many_rules(bundle), many_rules(bundle, planted=True)
    assert len(large.rules) == len(weak.rules) == RULES
    changed = [old.id for old, new in zip(large.rules, weak.rules, strict=True) if old != new]
    assert changed == [PLANTED]
    assert [proof.id for proof in Prover(weak).prove() if not proof.holds] == ["C04-cold-asks-people"]
