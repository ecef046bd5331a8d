# SPDX-License-Identifier: AGPL-3.0-or-later
"""The watching process: one step after another on every chain, until it is told to stop.

It holds no key. Killing it at any moment loses nothing: each step begins from what the store says.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from custody.flows.deposits import MAX_BLOCKS, StepReport, step
from custody.flows.inventory import Inventory
from custody.flows.ports import ChainView, Clock, Store
from custody.rules.amounts import Assets
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused
from custody.rules.wallets import Chain

log: Final = logging.getLogger("custody.watcher")

POLL: Final = 1.0
"""Seconds between two looks at a chain whose every block is followed."""
LONGEST_WAIT: Final = 30.0
_SMALLEST: Final = 10
_LARGEST: Final = 2000
_TRIES: Final = 50
"""Steps that `catch_up` lets fail on one chain before it gives up on it."""


class Pace:
    """How many blocks to ask for, and how long to wait: more blocks while it goes well, fewer and later when it does not."""

    def __init__(self, poll: float) -> None:
        self._poll, self._failures = poll, 0
        self.blocks = MAX_BLOCKS

    def went_well(self, report: StepReport) -> float:
        """Seconds until the next step: none while there are blocks to follow."""
        self._failures = 0
        if report.followed == self.blocks:
            self.blocks = min(_LARGEST, self.blocks * 2)
        return self._poll if report.behind == 0 else 0.0

    def failed(self) -> float:
        """Seconds until it is tried again, twice as long each time; half as many blocks."""
        self._failures += 1
        self.blocks = max(_SMALLEST, self.blocks // 2)
        return float(min(LONGEST_WAIT, self._poll * 2 ** min(self._failures - 1, 10)))


def line_of(report: StepReport) -> str:
    """One line of JSON about a step."""
    body: dict[str, object] = {"event": "step", "chain": report.chain.name}
    for name in ("head", "final", "newest", "behind", "followed", "seen", "credited", "dust", "orphaned", "reversed"):
        body[name] = getattr(report, name)
    if report.refused:
        body["refused"] = [str(refusal) for refusal in report.refused]
    return json.dumps(body)


def catch_up(
    store: Store,
    views: Mapping[Chain, ChainView],
    inventory: Callable[[], Inventory],
    assets: Assets,
    clock: Clock,
    *,
    pause: Callable[[float], object] | None = None,
) -> Iterator[str]:
    """Follow every chain up to its head once; one line for each step. Raises Unavailable where a chain stays silent."""
    wait = pause or threading.Event().wait
    for chain in sorted(views):
        pace, failures = Pace(0.1), 0
        while True:
            try:
                report = step(store, views[chain], inventory(), assets, clock, max_blocks=pace.blocks)
            except Unavailable:
                failures += 1
                if failures == _TRIES:
                    raise
                wait(min(1.0, pace.failed()))
                continue
            yield line_of(report)
            pace.went_well(report)
            if report.behind == 0:
                break


def watch_forever(
    store: Store,
    views: Mapping[Chain, ChainView],
    inventory: Callable[[], Inventory],
    assets: Assets,
    clock: Clock,
    stop: threading.Event,
    *,
    poll: float = POLL,
) -> None:
    """One thread per chain, so that a silent node of one chain holds up no other; returns once `stop` is set."""
    threads = [
        threading.Thread(
            target=watch, args=(store, view, inventory, assets, clock, stop), kwargs={"poll": poll}, name=str(chain)
        )
        for chain, view in views.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def watch(
    store: Store,
    view: ChainView,
    inventory: Callable[[], Inventory],
    assets: Assets,
    clock: Clock,
    stop: threading.Event,
    *,
    poll: float = POLL,
) -> None:
    """Step after step on one chain. Whatever this code base raises is logged and tried again, ever more slowly.

    What stays refused is told once: said at every step for ever, nobody would read the line that matters.
    """
    pace = Pace(poll)
    told: tuple[Refusal, ...] = ()
    while not stop.is_set():
        try:
            report = step(store, view, inventory(), assets, clock, max_blocks=pace.blocks)
        except (Unavailable, Refused, InvalidInput) as error:
            wait = pace.failed()
            _say(view.chain, error, wait)
        else:
            wait = pace.went_well(report)
            news = report.refused != told or not replace(report, refused=()).is_quiet
            log.log(logging.INFO if news else logging.DEBUG, "%s", line_of(report))
            told = report.refused
        stop.wait(wait)


def _say(chain: Chain, error: CustodyError, wait: float) -> None:
    level = logging.WARNING if isinstance(error, Unavailable) else logging.ERROR
    body = {"event": "failed", "chain": chain.name, "error": type(error).__name__, "why": str(error), "again_in": wait}
    log.log(level, "%s", json.dumps(body))
