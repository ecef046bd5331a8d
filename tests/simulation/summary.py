# SPDX-License-Identifier: AGPL-3.0-or-later
"""What runs came to: seeds, steps, crashes, reorgs, faults by kind, how much of the calls they covered, and findings."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.gates import Fault, every_method
from tests.simulation.invariants import CHECKS
from tests.simulation.runs import Run


@dataclass(frozen=True)
class Covered:
    """Where faults struck. A kind is `role/Port.method`; a method is the same whoever calls it."""

    methods: frozenset[str]
    """Methods of ports that a fault struck."""
    called: frozenset[str]
    """Those that were called."""
    every: frozenset[str]
    """Those that there are, by reflection."""
    kinds: int
    kinds_called: int
    pairs: int
    """Of kind and fault."""
    pairs_possible: int


def covered(runs: Sequence[Run]) -> Covered:
    """How much of what there is, over all of these runs."""
    calls = {kind for done in runs for kind in done.calls}
    struck = {point.rpartition(", ")[0] for done in runs for point in done.points}
    pairs = {point for done in runs for point in done.points}
    return Covered(
        methods=frozenset(_method(kind) for kind in struck),
        called=frozenset(_method(kind) for kind in calls),
        every=every_method(),
        kinds=len(struck),
        kinds_called=len(calls),
        pairs=len(pairs),
        pairs_possible=len(calls) * len(Fault),
    )


def _method(kind: str) -> str:
    return kind.partition("/")[2]


def summary(runs: Sequence[Run]) -> str:
    """What these runs came to, with a line that replays each finding."""
    tally: Counter[str] = sum((done.tally for done in runs), Counter())
    points: Counter[str] = sum((done.points for done in runs), Counter())
    found, area = [done for done in runs if done.broken], covered(runs)
    checks = len(CHECKS.always) + len(CHECKS.on_signature) + len(CHECKS.on_send) + len(CHECKS.at_rest)
    by_fault = {fault: sum(n for at, n in points.items() if at.endswith(f", {fault.value}")) for fault in Fault}
    told = {
        "seeds": f"{len(runs)} ({runs[0].seed} to {runs[-1].seed})",
        "steps": f"{tally['steps']}, {tally['interleaved']} of them several processes at once",
        "invariants": f"{checks}, {len(CHECKS.always)} of them after each step",
        "crashes": f"{tally['crashes']}, and {tally['deaths of servers']} of seats, attestor and relayer while they answered",
        "faults": ", ".join(f"{fault.value} {times}" for fault, times in by_fault.items()),
        "port methods struck": f"{len(area.methods)} of {len(area.called)} called, of {len(area.every)} that there are",
        "kinds of calls struck": f"{area.kinds} of {area.kinds_called} (by role), with {area.pairs} of {area.pairs_possible} faults",
        "clocks, nodes": f"{tally['clock jumps']} clocks wrong, {tally['stale nodes']} nodes behind, {tally['lies']} lied",
        "rows, copies": f"{tally['damaged rows']} rows damaged, {tally['databases rolled back']} databases and "
        f"{tally['seats rolled back']} seats rolled back",
        "people": f"{tally['freezes']} freezes, {tally['rosters']} rosters",
        "reorgs": f"{tally['reorgs']}, {tally['reorgs beyond finality']} of them beyond finality",
        "deposits credited": f"{tally['credited']}, reversed {tally['reversed']}",
        "proposed": tally["proposed"],
        "paid": tally["paid"],
        "voids": f"{tally['voids asked']} asked, {tally['voided']} transfers voided",
        "findings": len(found),
    }
    lines = [f"{name:28}{value}" for name, value in told.items()]
    return "\n".join([*lines, *(f"  {str(each)[:2_000]}\n    {done.replay}" for done in found for each in done.broken)])
