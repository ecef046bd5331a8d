# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every page of the console over HTTP with 100,000 transfers and 50,000 entries in SQLite: what a person waits for the server.

The queue is asked with 50 and with 500 transfers under way, which nobody's day should have. The browser's part is the tests'.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from custody.rules.ledger import Account, AccountKind
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Tier
from tests.console.calling import Caller
from tests.console.conftest import free_port
from tests.console.furnishing import furnish
from tests.console.world import DAY, World, serving
from tests.fakes import treasury
from tests.fakes.seat import NOW

TRANSFERS: Final = 100_000
ENTRIES: Final = 50_000
TIMES: Final = 60
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """How long the server takes for one page, in milliseconds, and its size in bytes."""

    name: str
    median: float
    late: float
    size: int

    def __str__(self) -> str:
        missed = "" if self.late < 100 else "  MISSED (100 ms)"
        return f"{self.name}: p50 {self.median:.0f} ms, p95 {self.late:.0f} ms, {self.size / 1000:.0f} kB{missed}"


def benches() -> Iterator[Page]:
    """A line for each page."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-console-") as folder,
        serving(World(Path(folder), free_port())) as world,
    ):
        found = furnish(world)
        world.crowd(50 - len(world.under_way()))
        fill(world)
        ana = Caller(world, "ana").log_in()
        paths = [
            "/queue",
            "/deposits",
            "/wallets",
            "/coverage",
            "/ledger",
            "/policies",
            "/audit",
            "/audit?kind=approved",
        ]
        paths += ["/ledger?account=customer_available:ada", "/freeze", "/ceremonies", "/me", *found.values()]
        for path in paths:
            yield timed(ana, path)
        world.crowd(500 - len(world.under_way()))
        yield timed(ana, "/queue", "/queue with 500 under way")
        yield timed(ana, "/queue/rows?seen=x", "its rows, as an open page asks for them")


def timed(who: Caller, path: str, name: str = "") -> Page:
    """One page, asked again and again, warm."""
    took, size = [], 0
    for turn in range(TIMES + 3):
        began = time.perf_counter()
        answer = who.get(path)
        if turn >= 3:
            took.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise TypeError(f"{path}: {answer.status_code}")
        size = len(answer.content)
    return Page(name or path, statistics.median(took), statistics.quantiles(took, n=20)[-1], size)


def fill(world: World) -> None:
    """Ended transfers and entries of deposits; documents whose signatures nobody looks at are copies."""
    model = world.propose("20")
    for numbers in _batches(TRANSFERS):
        made = [_ended(world, model, number) for number in numbers]

        def add(work: object, made: list[Transfer] = made) -> None:
            for transfer in made:
                reference = transfer.proposal.message.reference
                work.transfers.add(transfer, "bench", reference, transfer.digest)  # type: ignore[attr-defined]

        world.store.run(add)
        sys.stderr.write(f"\r{numbers[-1] + 1} transfers")
    eth, ada = world.asset("ETH"), Account(AccountKind.CUSTOMER_AVAILABLE, "ada")
    for numbers in _batches(ENTRIES):

        def book(work: object, numbers: range = numbers) -> None:
            for number in numbers:
                entry = treasury.deposit(eth, 10**15, ada, Tier.CUSTOMER_HOT, 10_000 + number)
                work.journal.append(entry, NOW - DAY)  # type: ignore[attr-defined]

        world.store.run(book)
        sys.stderr.write(f"\r{numbers[-1] + 1} entries  ")
    sys.stderr.write("\n")


def _batches(count: int) -> Iterator[range]:
    return (range(first, min(first + _BATCH, count)) for first in range(0, count, _BATCH))


def _ended(world: World, model: Transfer, number: int) -> Transfer:
    said = replace(model.proposal.message, reference=f"old {number}")
    tail = number.to_bytes(8).hex()
    named = f"{model.intent.id[:19]}{tail[:4]}-{tail[4:]}".ljust(36, "0")[:36]
    intent = replace(model.intent, id=named, proposal=said.struct_hash)
    digest = world.roster.domain.digest(intent)
    return replace(
        model,
        digest=digest,
        proposal=replace(model.proposal, message=said),
        intent=intent,
        status=Status.COMPLETED,
        sub_status=None,
        waiting_for="",
        hold=None,
        moved_at=model.created_at + 1,
    )
