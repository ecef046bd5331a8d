# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two sides measured against each other on a noisy machine.

Interleaved rounds of at most 0.15 s, at least 25 of them, one ratio per round, median and quartiles, and an A/A control by the
same procedure: outside 1 ± 0.05 the run is void. Raw JSON stays under `.bulkhead/bench/`. Asserts nothing about time.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

Side = Callable[[], int]
"""Does one slice of work, a few milliseconds long, and says how many units of it were done."""

ROUND_SECONDS: Final = 0.14
ROUNDS: Final = 31
TOLERANCE: Final = 0.05
RAW: Final = Path(__file__).resolve().parents[2] / ".bulkhead" / "bench"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of the rounds' ratios."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of at least two values."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times as many units a second the first side does as the second; void where the control says so.

    `latency` is p50 and p99 of one unit on the first side over the same on the second, where each slice is one unit.
    """

    name: str
    ratio: Spread
    control: Spread
    rounds: int
    latency: tuple[float, float] | None

    @property
    def void(self) -> bool:
        """Whether A against A was not 1 ± 0.05, so that A against B says nothing."""
        return abs(self.control.median - 1) > TOLERANCE

    def __str__(self) -> str:
        verdict = "VOID " if self.void else ""
        waits = f"; latency p50 {self.latency[0]:.2f}×, p99 {self.latency[1]:.2f}×" if self.latency else ""
        return f"{verdict}{self.name}: {self.ratio}×{waits}; A/A {self.control}; {self.rounds} rounds"


@dataclass(frozen=True, slots=True)
class Figure:
    """Milliseconds of one piece of work, best and median by the wall's clock, and best by the processor's.

    No ratio, so it says something of this machine alone and only where nothing else runs; the processor's is the steadier one.
    """

    name: str
    best: float
    median: float
    processor: float
    times: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.best:.0f} ms best, {self.median:.0f} ms median,"
            f" {self.processor:.0f} ms of processor time; {self.times} times"
        )


def figure(name: str, work: Callable[[], None], *, before: Callable[[], None], times: int) -> Figure:
    """Time a piece of work that is too long for rounds; what comes before it each time is not counted. Keeps the raw times."""
    wall: list[float] = []
    processor: list[float] = []
    for _ in range(times):
        before()
        began, spent = time.perf_counter(), time.process_time()
        work()
        wall.append((time.perf_counter() - began) * 1000)
        processor.append((time.process_time() - spent) * 1000)
    result = Figure(name, min(wall), statistics.median(wall), min(processor), times)
    _write(name, {**asdict(result), "wall_ms": wall, "processor_ms": processor})
    return result


@dataclass(slots=True)
class _Slices:
    """What one side did in one part of a round."""

    units: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.units / self.seconds


def compare(name: str, a: Side, b: Side, *, rounds: int = ROUNDS) -> Comparison:
    """Measure a against b, after an A/A control of the same length; writes the raw rounds and returns the ratios.

    A ratio above 1 means that a does more units a second than b.
    """
    if rounds < 25:
        raise ValueError(f"{rounds} rounds; the protocol wants at least 25")
    for side in (a, b):  # caches, pools and prepared statements are made before the clock runs
        _slice(side, _Slices(), [])
    control = [_round(a, a, number, [], []) for number in range(rounds)]
    waits_a: list[float] = []
    waits_b: list[float] = []
    measured = [_round(a, b, number, waits_a, waits_b) for number in range(rounds)]
    latency = (_percentile(waits_a, 50) / _percentile(waits_b, 50), _percentile(waits_a, 99) / _percentile(waits_b, 99))
    single = all(
        first.units == len_
        for first, len_ in ((_total(measured, 0), len(waits_a)), (_total(measured, 1), len(waits_b)))
    )
    result = Comparison(
        name,
        Spread.of([first.rate / second.rate for first, second in measured]),
        Spread.of([first.rate / second.rate for first, second in control]),
        rounds,
        latency if single else None,
    )
    _keep(result, control, measured)
    return result


def _round(a: Side, b: Side, number: int, waits_a: list[float], waits_b: list[float]) -> tuple[_Slices, _Slices]:
    """One round: slices of both sides by turns, whoever has had less time next; who starts changes with each round."""
    first, second = _Slices(), _Slices()
    while first.seconds + second.seconds < ROUND_SECONDS:
        behind = first.seconds < second.seconds or (first.seconds == second.seconds and number % 2 == 0)
        if behind:
            _slice(a, first, waits_a)
        else:
            _slice(b, second, waits_b)
    for side, slices, waits in ((a, first, waits_a), (b, second, waits_b)):
        if not slices.units:  # one slice of the other side took the whole round
            _slice(side, slices, waits)
    return first, second


def _slice(side: Side, slices: _Slices, waits: list[float]) -> None:
    began = time.perf_counter()
    slices.units += side()
    took = time.perf_counter() - began
    slices.seconds += took
    waits.append(took)


def _total(rounds: list[tuple[_Slices, _Slices]], side: int) -> _Slices:
    return _Slices(sum(both[side].units for both in rounds), sum(both[side].seconds for both in rounds))


def _percentile(waits: list[float], percent: int) -> float:
    return statistics.quantiles(waits, n=100, method="inclusive")[percent - 1]


def _keep(result: Comparison, control: list[tuple[_Slices, _Slices]], measured: list[tuple[_Slices, _Slices]]) -> None:
    body = {
        **asdict(result),
        "void": result.void,
        "control_rounds": [[asdict(side) for side in both] for both in control],
        "measured_rounds": [[asdict(side) for side in both] for both in measured],
    }
    _write(result.name, body)


def _write(name: str, facts: dict[str, Any]) -> None:
    RAW.mkdir(parents=True, exist_ok=True)
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    machine = {"python": platform.python_version(), "cpus": os.cpu_count(), "load": os.getloadavg()}
    body = {**facts, "machine": machine}
    (RAW / f"{slug}-{time.time_ns()}.json").write_text(json.dumps(body, indent=1), encoding="utf-8")
