# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several processes on one database, a process killed in the middle, and the ledger against a model of it."""

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from custody.flows.ports import Store, UnitOfWork
from custody.rules.amounts import Amount, Asset
from custody.rules.ledger import (
    Account,
    AccountKind,
    Entry,
    JournalEntry,
    JournalHead,
    credit_deposit,
    manual,
    replay,
    settle,
)
from custody.rules.origins import Reversal
from custody.rules.refusals import Refused, Rule
from custody.rules.settlements import FeeLeg, Leg, Trade
from custody.rules.signatures import Signed
from custody.store import SqlStore, open_store
from tests.fakes.ledger import (
    ASSETS,
    ETH,
    HOT,
    HOT_ETH,
    NOW,
    SUSPENSE,
    agreed,
    available,
    block_hash,
    credit,
    move,
    native,
    reverse_deposit,
    settled,
    settlement,
    stray,
)
from tests.fakes.store import FakeStore

ROOT: Final = Path(__file__).resolve().parents[2]

TAKER: Final = """
import sys
from custody.rules.refusals import Refused
from custody.rules.ledger import manual
from custody.store import open_store
from tests.fakes.ledger import ASSETS, NOW, agreed, move, stray

url, name = sys.argv[1:]
store = open_store(url, ASSETS)
taken = 0
for number in range(6):
    entry = manual(agreed(move(100, str(stray(1)), name=f"{name}/{number}")), ASSETS)
    try:
        store.run(lambda work: work.journal.append(entry, NOW))
        taken += 1
    except Refused:
        pass
print(taken)
"""

DOOMED: Final = """
import os, signal, sys
from custody.store import open_store
from tests.fakes.ledger import ASSETS, NOW, credit, native

store = open_store(sys.argv[1], ASSETS)
store.run(lambda work: work.journal.append(credit(native(1)), NOW))

def work(work):
    work.customers.add("ana")
    work.journal.append(credit(native(2)), NOW)
    os.kill(os.getpid(), signal.SIGKILL)

store.run(work)
"""


def _start(program: str, *arguments: str) -> "subprocess.Popen[str]":
    # a program that stands in this file
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def _suspense(units: int) -> Entry:
    return credit_deposit(native(1, units, HOT_ETH), HOT, SUSPENSE, Amount(ETH, units))


def test_processes_on_one_balance(url: str) -> None:
    """Three processes take eighteen times from a balance of ten: exactly ten succeed, and the journal has no gap."""
    store = open_store(url, ASSETS)
    store.run(lambda work: work.journal.append(_suspense(1000), NOW))
    takers = [_start(TAKER, url, f"p{n}") for n in range(3)]
    taken = [int(taker.communicate(timeout=120)[0]) for taker in takers]
    assert sum(taken) == 10
    entries = store.read(lambda work: work.journal.read())
    assert [e.position for e in entries] == list(range(1, 12))
    assert [e.previous for e in entries] == [JournalHead().hash, *(e.hash for e in entries[:-1])]
    assert dict(replay(entries)) == {(HOT, ETH): 1000, (available("ana"), ETH): 1000}
    assert {(a, s): u for a, s, u in store.read(lambda work: list(work.journal.balances()))} == replay(entries)
    store.close()


def test_killed_in_the_middle(url: str) -> None:
    """A process killed inside its work leaves nothing of it, and nobody locked out."""
    doomed = _start(DOOMED, url)
    doomed.communicate(timeout=60)
    assert doomed.returncode == -signal.SIGKILL
    store = open_store(url, ASSETS)
    assert store.read(lambda work: (work.journal.head().position, work.customers.ids())) == (1, frozenset())
    store.run(lambda work: work.journal.append(credit(native(2)), NOW))
    assert store.read(lambda work: [e.damage for e in work.journal.examine()]) == [(), ()]
    store.close()


CUSTOMERS: Final = ("ana", "bo", "cy")
AMOUNTS: Final = st.one_of(st.integers(1, 300), st.sampled_from([2**63, 10**30]))


class LedgerMachine(RuleBasedStateMachine):
    """Random credits, trades, manual entries and reversals: the store and a dict of balances always agree."""

    make: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).make()
        self.model: dict[tuple[Account, Asset], int] = defaultdict(int)
        self.head, self.count = JournalHead(), 0
        self.credits: list[int] = []

    @initialize()
    def begin(self) -> None:
        """Nobody has anything."""
        assert self.store.read(lambda work: work.journal.head()) == JournalHead()

    @rule(units=AMOUNTS, customer=st.sampled_from((*CUSTOMERS, "")))
    def deposit(self, units: int, customer: str) -> None:
        """Coins arrive for a customer, or for nobody who is known."""
        self.count += 1
        owner = available(customer) if customer else SUSPENSE
        if self._try(credit_deposit(native(self.count, units), HOT, owner, Amount(ETH, units))):
            self.credits.append(self.head.position)

    @rule(units=AMOUNTS, fee=st.integers(0, 3), pair=st.permutations(CUSTOMERS))
    def trade(self, units: int, fee: int, pair: list[str]) -> None:
        """One customer gives another something, and may pay a fee."""
        self.count += 1
        legs = (Leg(pair[0], "ETH", -units), Leg(pair[1], "ETH", units))
        fees = (FeeLeg(pair[0], "ETH", fee),) if fee else ()
        batch = settlement(Trade(f"t{self.count}", legs, fees), name=f"s{self.count}")
        self._try(settle(settled(batch), ASSETS))

    @rule(units=AMOUNTS, customer=st.sampled_from(CUSTOMERS), data=st.data())
    def find_owner(self, units: int, customer: str, data: st.DataObject) -> None:
        """Two people credit a customer out of what one event brought, or never did."""
        self.count += 1
        known = sorted(str(account) for account, _ in self.model if account.kind is AccountKind.SUSPENSE)
        event = data.draw(st.sampled_from([*known, str(stray(10**6))]))
        entry = move(units, event, credit_to=f"customer_available:{customer}", name=f"m{self.count}")
        self._try(manual(agreed(entry), ASSETS))

    @precondition(lambda self: self.credits)
    @rule(data=st.data())
    def reorg(self, data: st.DataObject) -> None:
        """A credit is taken back; what its owner has spent is a loss."""
        at = data.draw(st.sampled_from(self.credits))
        credited = self.store.read(lambda work: work.journal.get(at))
        assert credited is not None
        proof = credited.entry.origin
        assert not isinstance(proof, Signed | Reversal)
        origin = Reversal(at, proof.chain, proof.height, proof.block, block_hash(proof.height, "other"))
        owner = credited.entry.postings[1].account
        if self._try(reverse_deposit(credited, origin, self.model[owner, ETH])):
            self.credits.remove(at)

    @precondition(lambda self: self.head.position > 0)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """What is recorded is not recorded twice, unless its block was taken back meanwhile."""
        at = data.draw(st.integers(1, self.head.position))
        known = self.store.read(lambda work: work.journal.get(at))
        assert known is not None
        if not isinstance(known.entry.origin, Signed | Reversal) and at not in self.credits:
            return
        with pytest.raises(Refused) as caught:
            self.store.run(lambda work: work.journal.append(known.entry, NOW))
        assert Rule.ALREADY_RECORDED in {refusal.rule for refusal in caught.value.refusals}

    @invariant()
    def agrees(self) -> None:
        """Head, balances and totals are the model's."""
        found = self.store.read(
            lambda work: (work.journal.head(), list(work.journal.balances()), list(work.journal.totals()))
        )
        wanted = {key: units for key, units in self.model.items() if units}
        assert found[0] == self.head
        assert {(account, asset): units for account, asset, units in found[1]} == wanted
        sums: dict[tuple[str, Asset], int] = defaultdict(int)
        for (account, asset), units in wanted.items():
            sums[account.kind, asset] += units
        assert {(kind, asset): units for kind, asset, units in found[2]} == sums
        assert all(units > 0 for _, _, units in found[1])

    def _try(self, entry: Entry) -> bool:
        """Append; it is refused exactly if the model says that somebody would be below zero."""
        changes = entry.changes()
        short = {str(account) for (account, asset), units in changes.items() if self.model[account, asset] + units < 0}
        try:
            recorded = self.store.run(partial(_append, entry))
        except Refused as refused:
            told = {refusal.operands["account"] for refusal in refused.refusals}
        else:
            told = set()
            self._took(entry, recorded)
        assert told == short
        return not told

    def _took(self, entry: Entry, recorded: JournalEntry) -> None:
        assert (recorded.position, recorded.previous) == (self.head.position + 1, self.head.hash)
        self.head = JournalHead(recorded.position, recorded.hash)
        for key, units in entry.changes().items():
            self.model[key] += units

    def teardown(self) -> None:
        """The rows themselves are sound, whatever happened."""
        assert all(not row.damage for row in self.store.read(lambda work: work.journal.examine()))
        if isinstance(self.store, SqlStore):
            self.store.close()


def _append(entry: Entry, work: UnitOfWork) -> JournalEntry:
    return work.journal.append(entry, NOW)


@pytest.mark.parametrize("engine", ["fake", "sqlite", "postgresql"])
def test_ledger_against_a_model(engine: str, make_url: Callable[[str], str]) -> None:
    """Whatever is tried in whatever order, nobody is below zero and nothing is lost."""

    def open_empty() -> Store:
        return FakeStore() if engine == "fake" else open_store(make_url(engine), ASSETS)

    class Machine(LedgerMachine):
        """The machine on one kind of store."""

        make = staticmethod(open_empty)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
