# SPDX-License-Identifier: AGPL-3.0-or-later
"""A transfer's life against a model: people, time, a worker that dies anywhere, and a chain that takes, loses and gives back.

The model knows who said what, and what the ledger owes by it (TRUST.md, "One anchor per payout"): a hold is freed by a no or by its
expiry only while no signature was asked for, and after that by the final consumption of its anchor alone; what ended stays as it is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, permutations
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from custody.flows import authorization, payouts, proposals
from custody.flows.ports import Moved, UnitOfWork
from custody.rules import holds, seat_checks_quorum
from custody.rules.governance import Freeze
from custody.rules.intents import Void
from custody.rules.origins import Executed, Release
from custody.rules.payments import Outcome
from custody.rules.refusals import Refused, Rule
from custody.rules.transfers import MOVES, Permit, Status, Transfer, move
from tests.fakes import treasury
from tests.fakes.machines import budget, finds
from tests.fakes.payouts import Died, Fuse, Workshop
from tests.fakes.seat import secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD
from tests.fakes.trust import GROUPS, world

ETHER: Final = 10**18
PEOPLE: Final = ("ana", "bo", "cy", "dee")
TRANSFERS_MOST: Final = 5
BEFORE: Final = {Status.PENDING_AUTHORIZATION, Status.QUEUED, Status.BLOCKED}
ASKED: Final = {
    Status.PENDING_SIGNATURE,
    Status.BROADCASTING,
    Status.BROADCAST_UNKNOWN,
    Status.CONFIRMING,
    Status.CANCELLING,
}
ENDS: Final = {Status.COMPLETED, Status.CANCELLED, Status.REJECTED, Status.FAILED, Status.EXPIRED}


def enough(people: set[str], units: int) -> bool:
    """One of operations and another one of risk (`trust.TWO`), and a third for 100 ETH or more (`trust.FLOORS`)."""
    two = any("operations" in GROUPS[a] and "risk" in GROUPS[b] for a, b in permutations(people, 2))
    return two and (units < 100 * ETHER or len(people) >= 3)


@dataclass
class Known:
    """What the model knows of a transfer: its amount, its expiry, who said yes, and who ended it."""

    transfer: Transfer
    amount: int
    expiry: int
    yes: set[str]
    no: str = ""
    seen: tuple[Any, ...] = ()
    """Its history as it was last read."""


def _history(digest: bytes, work: UnitOfWork) -> Sequence[Moved]:
    return work.transfers.history(digest)


class LifecycleMachine(RuleBasedStateMachine):
    """ada's withdrawals on EVM, with one worker after another."""

    def __init__(self) -> None:
        super().__init__()
        self.shop = Workshop()
        self.had = self.shop.treasury.balance(AVAILABLE)
        self.known: list[Known] = []
        self.voided: set[bytes] = set()
        self.frozen_until = 0

    # people

    @precondition(lambda self: len(self.known) < TRANSFERS_MOST)
    @rule(amount=st.sampled_from([1, 2, 30, 140]), life=st.sampled_from([3_600, 86_400, 86_400]))
    def propose(self, amount: int, life: int) -> None:
        """Taken exactly if the balance covers it."""
        number = len(self.known) + 1
        units, expiry = amount * ETHER + number, self.shop.now + life
        message = treasury.proposal(number, amount=units, expiry=expiry)
        covered = units <= self.shop.treasury.balance(AVAILABLE)
        try:
            made = self.shop.treasury.propose(message, key=f"k{number}", number=number)
        except Refused as refused:
            told = {refusal.rule for refusal in refused.refusals}
            assert (told, covered) == ({Rule.INSUFFICIENT_BALANCE}, False)  # either is right at its time
            return
        assert covered
        assert made.status is (Status.BLOCKED if self.shop.now < self.frozen_until else Status.PENDING_AUTHORIZATION)
        self.known.append(Known(made, units, expiry, set()))

    @precondition(lambda self: any(self._status(known) in BEFORE for known in self.known))
    @rule(data=st.data())
    def agree(self, data: st.DataObject) -> None:
        """Two people say yes, and the worker looks."""
        known = data.draw(st.sampled_from([known for known in self.known if self._status(known) in BEFORE]))
        if self.shop.now < known.expiry:
            self.shop.treasury.approve(self.shop.get(known.transfer), "ana", "bo")
            known.yes |= {"ana", "bo"}
            self.shop.step()

    @precondition(lambda self: self.known)
    @rule(data=st.data(), person=st.sampled_from(PEOPLE))
    def approve(self, data: st.DataObject, person: str) -> None:
        """A yes counts until the end, the expiry or the permit; the same again changes nothing."""
        known = data.draw(st.sampled_from(self.known))
        was = self._status(known)
        try:
            after = self.shop.treasury.approve(self.shop.get(known.transfer), person)
        except Refused:
            late = self.shop.now >= known.expiry and was is not Status.PENDING_SIGNATURE
            assert was in ENDS or was in ASKED or late
            return
        assert was not in ENDS or person in known.yes
        known.yes.add(person)
        if was is Status.PENDING_AUTHORIZATION:
            assert (after.status is Status.QUEUED) == enough(known.yes, known.amount)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), who=st.sampled_from(["ana", "bo", "backend"]))
    def say_no(self, data: st.DataObject, who: str) -> None:
        """A person rejects, the initiator cancels: exactly while no signature was asked for."""
        known = data.draw(st.sampled_from(self.known))
        was, transfer = self._status(known), self.shop.get(known.transfer)
        store, kernel = self.shop.treasury.store, self.shop.treasury.kernel
        end = proposals.cancel if who == "backend" else proposals.reject
        try:
            after = end(store, kernel, treasury.no(transfer, who), self.shop.now)
        except Refused as refused:
            assert was not in BEFORE, refused  # noqa: PT017
            return
        assert was in BEFORE or known.no == who
        assert after.status is (Status.CANCELLED if who == "backend" else Status.REJECTED)
        known.no = who

    @precondition(lambda self: self._asked())
    @rule(data=st.data(), people=st.sampled_from([2, 2, 1]))
    def void(self, data: st.DataObject, people: int) -> None:
        """Two people want an anchor dead; nothing is freed by their word."""
        known = data.draw(st.sampled_from(self._asked()))
        permit = self._permit(known)
        if permit is None:
            return
        message = Void(permit.reservation.anchor, permit.intents)
        signed = signed_by(message, world().domain, [secp256k1(name) for name in PEOPLE[:people]])
        held = self.shop.treasury.balance(HELD)
        try:
            payouts.void(self.shop.treasury.store, self.shop.treasury.kernel, signed, self.shop.now)
        except Refused as refused:
            assert people == 1, refused  # noqa: PT017
            return
        assert people == 2
        self.voided |= set(permit.intents)
        assert self.shop.treasury.balance(HELD) == held

    @rule()
    def freeze(self) -> None:
        """One person stops ada for half an hour."""
        now = self.shop.now
        self.frozen_until = now + 1_800
        freeze = Freeze("customer:ada", "", now, now + 1_800)
        self.shop.treasury.kernel = replace(self.shop.treasury.kernel, freezes=(freeze,))

    # the worker, the chain, time

    @rule(seconds=st.sampled_from([30, 30, 200, 200, 1_800, 40_000]))
    def passes(self, seconds: int) -> None:
        """Time."""
        self.shop.now += seconds
        self.shop.treasury.now = self.shop.now

    @rule()
    def step(self) -> None:
        """The worker looks at everything once."""
        self.shop.step()

    @rule(left=st.integers(1, 40), after=st.booleans())
    def crash(self, left: int, after: bool) -> None:
        """It dies at some commit or call: before it, or after it, when only the answer is lost."""
        try:
            self.shop.step(Fuse(left, after))
        except Died:
            return

    @rule(count=st.integers(1, 4))
    def mine(self, count: int) -> None:
        """Blocks."""
        self.shop.payouts.mine(count)

    @rule(
        lost=st.sampled_from(["", "", "before", "after"]),
        fails=st.sampled_from([Outcome.DONE, Outcome.DONE, Outcome.FAILED, Outcome.REVERTED]),
        silent=st.sampled_from([0, 0, 1, 2]),
        stale=st.sampled_from([False, False, True]),
        asks=st.integers(0, 1),
    )
    def weather(self, lost: str, fails: Outcome, silent: int, stale: bool, asks: int) -> None:
        """What the node, the chain and the seats are like from here on."""
        chain = self.shop.payouts
        chain.lost, chain.stale, chain.asks = lost, stale, asks
        if not chain.mined and not chain.reverted:
            chain.fails = fails
        for number, seat in enumerate(self.shop.seats):
            seat.silent = number < silent

    @rule(depth=st.integers(1, 2))
    def reorg(self, depth: int) -> None:
        """The newest blocks, none of them final, are replaced by empty ones; what was in them is in no block."""
        chain = self.shop.payouts
        head = chain.view.head().height
        if head <= depth:
            return
        gone = [at for at, (_, height) in chain.mined.items() if height > head - depth]
        for at in gone:
            del chain.mined[at]
        chain.nonce -= len(gone)
        chain.view.reorg(depth)

    # what has to hold

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        """Held is what has not ended; gone is what a final block paid, and nothing else."""
        held = sum(k.amount for k in self.known if self._status(k) not in ENDS)
        paid = sum(k.amount for k in self.known if self._status(k) is Status.COMPLETED)
        assert self.shop.treasury.balance(HELD) == held
        assert self.shop.treasury.balance(AVAILABLE) == self.had - held - paid

    @invariant()
    def histories_only_grow(self) -> None:
        """Each is a path in the table and goes on from what it was; nothing follows an end; who waits says for what."""
        for known in self.known:
            digest = known.transfer.digest
            history = tuple(self.shop.treasury.store.read(partial(_history, digest)))
            assert history[: len(known.seen)] == known.seen
            known.seen = history
            path = [moved.status for moved in history]
            assert path[0] is Status.SUBMITTED
            assert all(to in MOVES[was] for was, to in pairwise(path)), path
            assert not ENDS & set(path[:-1])
            asked = next((n for n, status in enumerate(path) if status in ASKED), len(path))
            assert not (BEFORE | {Status.REJECTED, Status.EXPIRED}) & set(path[asked:]), path
            now = self.shop.get(known.transfer)
            assert path[-1] is now.status
            assert bool(now.waiting_for) == (now.status not in ENDS)

    @invariant()
    def ends_are_true(self) -> None:
        """COMPLETED was paid once in a final block; what ended otherwise was not paid; people's ends need their word."""
        chain = self.shop.payouts
        times = Counter(paid.intent for paid in self._mined(final=False))
        final = {paid.intent for paid in self._mined(final=True)}
        for known in self.known:
            status, digest = self._status(known), known.transfer.digest
            assert times[digest] <= 1
            if status is Status.COMPLETED:
                assert digest in final
            elif status in ENDS:
                assert times[digest] == 0
            assert status is not Status.REJECTED or known.no in PEOPLE
            assert status is not Status.CANCELLED or known.no == "backend" or digest in self.voided
            assert status is not Status.EXPIRED or self.shop.now >= known.expiry
            assert status is not Status.FAILED or chain.fails is Outcome.FAILED
            if times[digest]:  # nobody's payment without people
                assert enough(known.yes, known.amount)

    @invariant()
    def only_the_anchor_frees(self) -> None:
        """A release stands beside no permit; the end of an anchor stands in the journal only once the chain consumed it for good."""
        final = self._final()
        for entry in self.shop.treasury.store.read(lambda work: work.journal.read()):
            origin = entry.entry.origin
            if isinstance(origin, Release):
                assert self.shop.treasury.store.read(lambda w, o=origin: w.transfers.permit_of(o.intent)) is None  # type: ignore[misc]
            if isinstance(origin, Executed):
                _, height = self.shop.payouts.mined[origin.anchor.reference]
                assert height <= final

    def teardown(self) -> None:
        """Let alone with good weather, everything ends, or waits for people."""
        self.weather(lost="", fails=Outcome.DONE, silent=0, stale=False, asks=0)
        self.shop.payouts.fails = Outcome.DONE
        for _ in range(14):
            self.shop.now += 400
            self.shop.step()
            self.shop.payouts.mine()
        for check in (self.the_ledger_is_the_model, self.histories_only_grow, self.only_the_anchor_frees):
            check()
        for known in self.known:
            now = self.shop.get(known.transfer)
            waits = now.status in {Status.PENDING_AUTHORIZATION, Status.BLOCKED} or any(
                word in now.waiting_for for word in ("people: ", "insufficient_balance(wallet")
            )
            assert now.status in ENDS or waits, (now.status, now.waiting_for)

    # inside

    def _status(self, known: Known) -> Status:
        return self.shop.get(known.transfer).status

    def _asked(self) -> list[Known]:
        return [known for known in self.known if self._status(known) in ASKED]

    def _permit(self, known: Known) -> Permit | None:
        return self.shop.treasury.store.read(lambda work: work.transfers.permit_of(known.transfer.digest))

    def _final(self) -> int:
        """The height that is three deep, whatever the node calls final."""
        return max(0, self.shop.payouts.view.head().height - 2)

    def _mined(self, *, final: bool) -> list[Any]:
        chain = self.shop.payouts
        most = self._final() if final else 10**9
        done = [envelope for envelope, height in chain.mined.values() if height <= most]
        if chain.fails is Outcome.FAILED:
            return []
        return [paid for envelope in done for paid in chain.built[envelope.id].paid]


def test_a_life_against_its_model() -> None:
    """Whatever people, time, the worker and the chain do, in whatever order."""
    run_state_machine_as_test(LifecycleMachine, settings=budget(10, 30))


def _plant(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    def nothing(*_: object, **__: object) -> tuple[()]:
        return ()

    match bug:
        case "a no after the permit":

            def release(work: Any, kernel: Any, transfer: Transfer, now: int, no: Any) -> None:
                rejection, signatures = ((), ()) if no is None else ((no.message,), no.signatures)
                origin = Release(transfer.hold or 0, transfer.digest, rejection, signatures)
                entry = holds.release(origin, transfer.intent, kernel.assets)
                assert entry is not None
                work.journal.append(entry, now)

            def anywhere(
                transfer: Transfer, to: Status, at: int, sub_status: Any = None, *more: Any, **named: Any
            ) -> Transfer:
                if to in {Status.CANCELLED, Status.REJECTED}:
                    return replace(transfer, status=to, sub_status=sub_status, waiting_for="", moved_at=at)
                return move(transfer, to, at, sub_status, *more, **named)

            monkeypatch.setattr(proposals, "_check_unasked", nothing)
            monkeypatch.setattr(proposals, "_release", release)
            monkeypatch.setattr(proposals, "move", anywhere)
        case "a hold that nobody frees":
            monkeypatch.setattr(proposals, "_release", nothing)
        case "a void that is called paid":
            executed = payouts._executed
            monkeypatch.setattr(payouts, "_executed", lambda *args: (executed(*args)[0], Status.COMPLETED))
        case "nobody is asked":
            for module in (authorization, proposals, seat_checks_quorum):
                monkeypatch.setattr(module, "satisfied", nothing)


@pytest.mark.parametrize(
    "bug",
    [
        "a no after the permit",
        "a hold that nobody frees",
        "a void that is called paid",
        "nobody is asked",
    ],
)
def test_finds_a_bug(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """One rule away, and the machine says so."""
    _plant(monkeypatch, bug)
    finds(LifecycleMachine)
