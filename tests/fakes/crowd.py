# SPDX-License-Identifier: AGPL-3.0-or-later
"""What several processes do to one database at once: a `Crowd` runs functions of this module, each in a process of its own.

They are forked, because the keys of the fakes' world are made anew in every process that imports it. Whoever starts a crowd has no
connection open to that database: SQLite's locks belong to a process, and a child that closes its copy would lose its own.
"""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

from custody.flows import proposals
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused
from custody.store import OutcomeUnknown, migrate, open_store
from tests.fakes import ledger, treasury
from tests.fakes.trust import ASSETS

UNITS: Final = 147 * 10**18 // 500
"""A five-hundredth of what ada has in a furnished treasury."""
_FORK: Final = multiprocessing.get_context("fork")
_LONGEST: Final = 90.0


class Crowd:
    """Processes that begin in the same moment."""

    def __init__(self, *jobs: Callable[[], Any]) -> None:
        self._gate = _FORK.Event()
        self._ends: list[Connection] = []
        self._processes = []
        for job in jobs:
            mine, theirs = _FORK.Pipe(duplex=False)
            process = _FORK.Process(target=_run, args=(self._gate, theirs, job), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(mine)
            self._processes.append(process)

    def begin(self) -> None:
        """Let all of them go."""
        self._gate.set()

    def answers(self) -> list[Any]:
        """What each of them found; one that failed, or that is not done in time, fails the test."""
        found = []
        for end, process in zip(self._ends, self._processes, strict=True):
            assert end.poll(_LONGEST), "a process is not done"
            try:
                found.append(end.recv())
            except EOFError as error:
                raise AssertionError("a process died without an answer") from error
            process.join(10)
            assert process.exitcode == 0
        return found


def _run(gate: Any, end: Connection, job: Callable[[], Any]) -> None:
    gate.wait(_LONGEST)
    end.send(job())


def create(url: str) -> str:
    """Bring a database to the newest schema, as a service does that starts."""
    migrate(url)
    return "done"


def withdraw(url: str, name: str, count: int) -> dict[str, int]:
    """Propose so many withdrawals of one balance; how many were taken, and what the others were told."""
    store, kernel, told = open_store(url, ASSETS), treasury.kernel(), dict[str, int]()
    for number in range(count):
        message = treasury.proposal(reference=f"{name}/{number}", amount=UNITS)
        entropy = os.urandom(10)
        try:
            proposals.propose(store, kernel, treasury.signed(message), f"{name}/{number}", ledger.NOW, entropy)
            what = "taken"
        except Refused as error:
            what = ",".join(sorted(refusal.rule.value for refusal in error.refusals))
        told[what] = told.get(what, 0) + 1
    store.close()
    return told


def append(url: str, first: int, count: int) -> dict[str, int]:
    """Record so many deposits, each until the database says that it stands; how often it did not answer or did not know."""
    store, told = open_store(url, ledger.ASSETS), {"done": 0, "known": 0, "away": 0, "unknown": 0}
    for height in range(first, first + count):
        entry, asked = ledger.credit(ledger.native(height, 1)), False
        while True:
            try:
                store.run(lambda work, e=entry: work.journal.append(e, ledger.NOW))  # type: ignore[misc]
                told["done"] += 1
            except OutcomeUnknown:
                told["unknown"] += 1
                asked = True
                continue
            except Unavailable:
                told["away"] += 1
                continue
            except Refused:
                if (
                    not asked
                ):  # nobody else records it: only what this process asked for and did not hear about may stand
                    raise
                told["known"] += 1
            break
    store.close()
    return told
