# SPDX-License-Identifier: AGPL-3.0-or-later
"""A policy decision with its hashed record, against the same bundle in Cedar and in Rego; then how long proofs take.

Ours is what production does for a proposal: `decided` over the bundle in force, with floors, and the record of facts, reasons and unmet
conditions under its hash. Theirs is the engine's evaluation of the same transfer, its facts brought into its form beforehand, and the
SHA-256 of canonical JSON of facts and answer. All sides get the same transfers, most of them at or next to a bound, as far as the
engine's numbers hold them; every answer is compared first, and a single disagreement is an error.
"""

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any, Final

from custody.rules import decisions
from custody.rules.decisions import DecisionRecord, What, decided
from custody.rules.facts import Facts
from policies.bundle import Bundle
from policies.evaluate import Policy
from policies.proofs.examples import facts_of
from policies.proofs.obligations import Prover
from tests.bench.cedar import Cedar
from tests.bench.engines import Engine, Form, Told, plain, side
from tests.bench.harness import RAW, Comparison, Figure, Side, compare, figure
from tests.bench.many_rules import PLANTED, many_rules
from tests.bench.rego import Rego
from tests.unit.shipped import open_shipped
from tests.unit.test_policy_agreement import Formulas, some_transfer

AT: Final = 1_767_225_600
TRANSFERS: Final = 2_000
"""Of which about half have a number of more than 64 bits."""
_SLICE: Final = 6
_OURS: Final = 400
"""Transfers of one slice, theirs and ours: six milliseconds or so each."""
_FIRST: Final = 100
_SEED: Final = 20_260_102


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence between the measurements."""

    said: str

    def __str__(self) -> str:
        return self.said


def transfers(bundle: Bundle, count: int = TRANSFERS, seed: int = _SEED) -> list[Facts]:
    """So many transfers, the same ones each time, most of them at or next to a bound of the bundle, up to 2^256 − 1."""
    formulas, random = Formulas(bundle), Random(seed)
    return [facts_of(some_transfer(random, formulas)) for _ in range(count)]


def agreeing(policy: Policy, engine: Engine, ask: Callable[[Form], Any], pairs: Sequence[tuple[Facts, Form]]) -> None:
    """That an engine answers as we do. Raises ValueError for the first transfer that it answers in another way."""
    for facts, form in pairs:
        ours, theirs = Told.of(decided([policy], facts)), engine.told(ask(form))
        if ours != theirs:
            raise ValueError(f"{type(engine).__name__} says {theirs}, we say {ours}, to {facts}")


def ours(policy: Policy, facts: Sequence[Facts], *, forgetful: bool = False) -> Side:
    """Our side of a comparison; a forgetful one begins each slice as a process that has just started."""
    turns = cycle(facts)

    def slice_() -> int:
        many = _FIRST if forgetful else _OURS
        if forgetful:
            _forget(policy)
        for _, transfer in zip(range(many), turns, strict=False):
            DecisionRecord(decided([policy], transfer), transfer, AT, What.PROPOSED).to_json()
        return many

    return slice_


def _forget(policy: Policy) -> None:
    policy._frame.cache_clear()
    decisions._settled.cache_clear()
    for known in (policy._decisions, policy._faulty, decisions._JOINED, decisions._TOLD):
        known.clear()


def benches() -> Iterator[Comparison | Figure | Line]:
    """Cedar, Rego by value and by text, then proofs of the shipped bundle and of 200 rules."""
    RAW.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_shipped(Path(folder))
    facts, cedar, rego = transfers(bundle), Cedar(bundle), Rego(bundle)
    gc.collect()
    gc.freeze()  # thousands of transfers are the bench's; no side pays for looking through them
    try:
        yield from _against("Cedar", "5", bundle, facts, cedar, cedar.form, cedar.ask)
        yield from _from_nothing(bundle, facts, cedar)
        yield from _against("Rego, numbers as values", "50", bundle, facts, rego, rego.form, rego.ask)
        yield from _against("Rego, numbers as text", "50", bundle, facts, rego, plain, rego.ask_in_text)
    finally:
        gc.unfreeze()
    yield from _proofs(bundle)


def _against(
    name: str,
    goal: str,
    bundle: Bundle,
    facts: Sequence[Facts],
    engine: Engine,
    formed: Callable[[Facts], Form | None],
    ask: Callable[[Form], Any],
) -> Iterator[Comparison | Line]:
    pairs = [(transfer, form) for transfer in facts if (form := formed(transfer)) is not None]
    agreeing(bundle.policy, engine, ask, pairs)
    beyond = len(facts) - len(pairs)
    yield Line(f"{name}: {len(pairs)} transfers agree, none differs; {beyond} of {len(facts)} cannot be told to it")
    theirs = side(ask, [form for _, form in pairs], bundle.hash.hex(), AT, _SLICE)
    mine = ours(bundle.policy, [transfer for transfer, _ in pairs])
    yield compare(f"a decision with its hashed record, over {name} (goal {goal}x)", mine, theirs)


def _from_nothing(bundle: Bundle, facts: Sequence[Facts], cedar: Cedar) -> Iterator[Comparison]:
    """What the first transfers of a process cost: hardly two of a slice are alike, and all that is remembered has to be made."""
    pairs = [(transfer, form) for transfer in facts if (form := cedar.form(transfer)) is not None]
    theirs = side(cedar.ask, [form for _, form in pairs], bundle.hash.hex(), AT, _SLICE)
    mine = ours(bundle.policy, [transfer for transfer, _ in pairs], forgetful=True)
    yield compare(f"the same, nothing remembered at each {_FIRST}th, over Cedar (no goal)", mine, theirs)


def _proofs(bundle: Bundle) -> Iterator[Figure | Line]:
    large = many_rules(bundle)
    rules = len(large.rules)
    yield figure("full proof of the shipped bundle (goal 5,000 ms)", lambda: _whole(bundle), before=_tidy, times=3)
    yield figure(f"full proof of {rules} rules (goal 60,000 ms)", lambda: _whole(large), before=_tidy, times=2)
    broken = [proof.id for proof in Prover(many_rules(bundle, planted=True)).prove() if not proof.holds]
    if not broken:
        raise ValueError(f"{PLANTED} was not found")
    yield Line(f"one weak rule among {rules}, {PLANTED}, breaks {', '.join(broken)}")


def _whole(bundle: Bundle) -> None:
    """Prove everything. It has to hold: a proof that fails can be quicker."""
    failed = [proof.id for proof in Prover(bundle).prove() if not proof.holds]
    if failed:
        raise ValueError(failed)


def _tidy() -> None:
    gc.collect()
