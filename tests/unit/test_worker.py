# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worker: every stage, resumed from a death at any commit or call, with one payout and the same bytes at the end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from custody.flows import payouts
from custody.rules.governance import Freeze
from custody.rules.intents import Anchor, Void
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Outcome as Answer
from custody.rules.requirement import Requirement
from custody.rules.transfers import Status, SubStatus
from custody.rules.wallets import Tier
from custody.store import migrate, open_store
from tests.fakes.payouts import Died, Fuse, Workshop
from tests.fakes.seat import EVM, secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD, account_of, proposal
from tests.fakes.trust import ASSETS, TWO, answers, world

ETHER = 10**18


def test_a_withdrawal_from_queue_to_end() -> None:
    """Authorized, signed by three seats, sent, followed, posted; ada is debited what was paid, and nothing stays held."""
    shop = Workshop()
    transfer, before = shop.queued(), shop.treasury.balance(AVAILABLE)
    assert shop.get(transfer).status is Status.QUEUED
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    assert sum(bool(seat.asked) for seat in shop.seats) == 3
    shop.run(transfer)
    assert (shop.get(transfer).status, shop.get(transfer).sub_status) == (Status.COMPLETED, SubStatus.CONFIRMED)
    assert [paid.units for paid in shop.payouts.paid()] == [ETHER]
    assert shop.treasury.balance(AVAILABLE) == before  # it was held when it was proposed
    assert shop.treasury.balance(HELD) == 0
    assert shop.treasury.balance(account_of(Tier.CUSTOMER_HOT, EVM)) == 109 * ETHER


def commits() -> int:
    """How many commits and calls a whole withdrawal takes."""
    shop, fuse = Workshop(), Fuse()
    transfer = shop.queued()
    for _ in range(12):
        shop.step(fuse)
        shop.payouts.mine()
    assert shop.get(transfer).status is Status.COMPLETED
    return fuse.burnt


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_anywhere(after: bool) -> None:
    """Whatever commit or call is the last: one SafeTx was signed, one payment was made, one envelope went out, ada paid once."""
    points = commits()
    assert points > 20
    for point in range(1, points + 1):
        shop, fuse = Workshop(), Fuse(point, after)
        transfer = shop.queued()
        with pytest.raises(Died):
            for _ in range(12):
                shop.step(fuse)
                shop.payouts.mine()
        shop.pace.again.clear()
        shop.run(transfer)
        assert shop.get(transfer).status is Status.COMPLETED, (point, shop.get(transfer))
        assert [paid.intent for paid in shop.payouts.paid()] == [transfer.digest]
        assert len({digest for seat in shop.seats for b in seat.journal.anchors.values() for digest in b.digests}) == 1
        assert len({envelope.raw for envelope in shop.payouts.sent}) == 1
        assert shop.treasury.balance(HELD) == 0
        assert shop.treasury.balance(account_of(Tier.CUSTOMER_HOT, EVM)) == 109 * ETHER


def test_a_batch_is_one_payout() -> None:
    """Three of one wallet go together, under one anchor."""
    shop = Workshop()
    three = [shop.queued(number, amount=ETHER + number) for number in (1, 2, 3)]
    shop.run(*three)
    assert {shop.get(transfer).status for transfer in three} == {Status.COMPLETED}
    assert len(shop.payouts.mined) == 1
    assert sorted(paid.units for paid in shop.payouts.paid()) == [ETHER + 1, ETHER + 2, ETHER + 3]


def test_a_batch_without_the_one_that_is_refused() -> None:
    """Frozen, short of approvals by now, or whatever: the others go, and it says why it does not."""
    shop = Workshop()
    good, bad = shop.queued(1), shop.queued(2)

    def unhold(work: Any) -> None:
        """Somebody with the database names another entry as its hold."""
        rows = work.transfers._state.transfers
        rows[bad.digest] = replace(rows[bad.digest], hold=1)

    shop.treasury.store.run(unhold)
    shop.run(good, steps=8)
    assert shop.get(good).status is Status.COMPLETED
    assert (shop.get(bad).status, shop.get(bad).sub_status) == (Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY)
    assert Rule.HOLD in shop.get(bad).waiting_for


def damage(shop: Workshop, what: bytes | Anchor) -> None:
    """Somebody with the database changes the row of a transfer, or of a permit."""
    rows: Any = shop.treasury.store.run(lambda work: work.transfers)
    rows._state.damaged.add(what)


def repair(shop: Workshop) -> None:
    """The rows are again what they were."""
    rows: Any = shop.treasury.store.run(lambda work: work.transfers)
    rows._state.damaged.clear()


def test_a_damaged_transfer_stops_no_other() -> None:
    """It is said which it is and what is wrong; it never moves while another of the same wallet is paid."""
    shop = Workshop()
    bad, good = shop.queued(1), shop.queued(2)
    damage(shop, bad.digest)
    reports = [shop.step()]
    shop.run(good, steps=8)
    assert shop.get(good).status is Status.COMPLETED
    (fault,) = reports[0].faults
    assert bad.digest.hex() in fault
    assert Rule.ROW_DAMAGED in fault
    assert [line.transfer for line in reports[0].waiting] == [good.intent.id]
    repair(shop)
    assert shop.get(bad) == bad
    shop.run(bad)
    assert shop.get(bad).status is Status.COMPLETED


def test_a_damaged_transfer_keeps_none_from_its_expiry() -> None:
    """Those that can be read end, and their holds are free."""
    shop = Workshop()
    bad, good = shop.queued(1), shop.queued(2)
    damage(shop, bad.digest)
    shop.now = good.intent.expiry
    report = shop.step()
    assert shop.get(good).status is Status.EXPIRED
    assert any(fault.startswith("expiry: ") for fault in report.faults)
    repair(shop)
    assert shop.get(bad) == bad


@pytest.mark.parametrize("what", ["transfer", "permit"])
def test_a_damaged_payout_on_its_way_stops_no_other(what: str) -> None:
    """It stays where it was, though its transaction is mined; the next of the wallet goes out, since this one did."""
    shop = Workshop()
    bad = shop.queued(1)
    shop.step()
    was = shop.get(bad)
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(bad.digest))
    assert permit is not None
    damage(shop, bad.digest if what == "transfer" else permit.reservation.anchor)
    good = shop.queued(2)
    shop.payouts.mine(5)
    report = shop.step()
    assert any("row_damaged" in fault for fault in report.faults)
    shop.run(good, steps=8)
    assert shop.get(good).status is Status.COMPLETED
    repair(shop)
    assert shop.get(bad) == was
    shop.run(bad)
    assert shop.get(bad).status is Status.COMPLETED


def test_nothing_goes_out_behind_a_damaged_nonce() -> None:
    """Not signed yet when it was damaged: a later nonce could not be mined. Another chain's wallet would go on."""
    shop = Workshop()
    bad = shop.queued(1)
    for seat in shop.seats[:2]:
        seat.silent = True
    shop.step()
    damage(shop, bad.digest)
    waiting = shop.queued(2)
    shop.step()
    assert shop.get(waiting).waiting_for == "nonce 7 of its wallet to be sent first"
    for seat in shop.seats:
        seat.silent = False
    repair(shop)
    shop.run(bad, waiting)
    assert {shop.get(transfer).status for transfer in (bad, waiting)} == {Status.COMPLETED}


def test_a_leaf_that_reverts_takes_no_batch_with_it() -> None:
    """It is tried before anything is pinned; the others go together, and it waits unpinned, free to be cancelled."""
    shop = Workshop()
    good = [shop.queued(1), shop.queued(2)]
    bad = shop.queued(3)
    shop.payouts.reverting = {bad.digest}
    shop.run(*good, steps=8)
    assert {shop.get(transfer).status for transfer in good} == {Status.COMPLETED}
    assert shop.get(bad).status is Status.BLOCKED
    assert Rule.LEAF_FAILS in shop.get(bad).waiting_for


def test_one_wallet_has_one_unsent_payout() -> None:
    """While nonce 7 is stuck with the seats, nothing is pinned behind it; what waits says so, and may still be cancelled."""
    shop = Workshop()
    first = shop.queued(1)
    for seat in shop.seats[:2]:
        seat.silent = True
    shop.step()
    second = shop.queued(2)
    shop.step()
    assert shop.get(first).status is Status.PENDING_SIGNATURE
    assert "hot-1 is silent" in shop.get(first).waiting_for
    assert (shop.get(second).status, shop.get(second).waiting_for) == (
        Status.QUEUED,
        "nonce 7 of its wallet to be sent first",
    )
    for seat in shop.seats:
        seat.silent = False
    shop.run(first, second)
    assert {shop.get(transfer).status for transfer in (first, second)} == {Status.COMPLETED}
    assert len(shop.payouts.mined) == 2


def test_drift_blocks_before_anything_is_pinned() -> None:
    """A Safe that is not as certified: blocked, and says what differs; nothing is asked of any seat."""
    shop = Workshop()
    shop.payouts.drift = (Refusal(Rule.SAFE_DRIFT, field="threshold", got=1, want=3),)
    transfer = shop.queued()
    shop.step()
    found = shop.get(transfer)
    assert (found.status, found.sub_status) == (Status.BLOCKED, SubStatus.FROZEN)
    assert "threshold" in found.waiting_for
    assert not any(seat.asked for seat in shop.seats)
    shop.payouts.drift = ()
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED


def test_a_silent_attestor_stops_nothing_that_is_on_its_way() -> None:
    """What was sent is followed to its end; what was not begun waits."""
    shop = Workshop()
    first = shop.queued(1)
    shop.step()
    shop.attestor.down = True
    second = shop.queued(2)
    shop.payouts.mine(5)
    report = shop.step()
    assert shop.get(first).status is Status.COMPLETED
    assert shop.get(second).status is Status.QUEUED
    assert any("attestor" in fault for fault in report.faults)


def test_a_void_that_cannot_be_signed_keeps_no_payout_from_its_booking() -> None:
    """People void what a block has by then: who signs voids is silent, and what the chain says is booked all the same."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    assert permit is not None
    void = Void(permit.reservation.anchor, permit.intents)
    signed = signed_by(void, world().domain, [secp256k1("ana"), secp256k1("bo")])
    payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)
    assert shop.get(transfer).status is Status.CANCELLING
    shop.attestor.down = True
    shop.payouts.mine(5)
    report = shop.step()
    assert shop.get(transfer).status is Status.COMPLETED
    assert any("attestor" in fault for fault in report.faults)


def test_what_stays_the_same_is_said_once() -> None:
    """Five steps that find the same drift leave one line in the history."""
    shop = Workshop()
    transfer = shop.queued()
    before = len(shop.treasury.store.read(lambda work: work.transfers.history(transfer.digest)))
    shop.payouts.drift = (Refusal(Rule.SAFE_DRIFT, field="guard"),)
    for _ in range(5):
        shop.step()
    history = shop.treasury.store.read(lambda work: work.transfers.history(transfer.digest))
    assert len(history) == before + 1


def test_the_step_says_what_moved_and_what_waits() -> None:
    """Lines for people and programs; a store that is away is the only thing that a step raises."""
    shop = Workshop()
    transfer = shop.queued()
    report = shop.step()
    (line,) = report.waiting
    assert (line.transfer, line.status) == (transfer.intent.id, Status.CONFIRMING)
    assert report.moved == report.waiting
    assert line.waiting_for


def test_expired_before_anything_was_asked() -> None:
    """It ends and its hold is free."""
    shop = Workshop()
    transfer = shop.queued()
    shop.now = transfer.intent.expiry
    shop.step()
    assert shop.get(transfer).status is Status.EXPIRED
    assert shop.treasury.balance(HELD) == 0


def test_unavailable_is_no_end() -> None:
    """A node that is away at the first look: the next step goes on."""
    shop = Workshop()
    transfer = shop.queued()
    shop.payouts.view.offline = True
    shop.payouts.lost = "before"
    shop.step()
    assert shop.get(transfer).status in {Status.QUEUED, Status.BROADCAST_UNKNOWN}
    shop.payouts.view.offline, shop.payouts.lost = False, ""
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED


def test_a_delay_is_waited_for() -> None:
    """Nothing is asked of anybody before it is over; the attestor is shown the transfer at once, since it counts from there."""
    shop = Workshop(answers(Answer.REQUIRE, replace(TWO, delay=3600)))
    transfer = shop.queued()
    assert shop.get(transfer).sub_status is SubStatus.PENDING_TIME_LOCK
    sequence = shop.attestor.sequence
    shop.step()
    assert shop.attestor.sequence == sequence + 1
    assert shop.get(transfer).sub_status is SubStatus.PENDING_TIME_LOCK
    shop.now += 3600
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED


def test_people_are_asked_as_soon_as_a_freeze_ends() -> None:
    """Not when its time-lock is over, an hour later: they approve while that runs, and it goes at its end."""
    shop = Workshop(answers(Answer.REQUIRE, Requirement((("operations", 1),), delay=3600)))
    free = shop.treasury.kernel
    freeze = Freeze("customer:ada", "odd", shop.now, shop.now + 60)
    shop.treasury.kernel = replace(free, freezes=(freeze,))
    transfer = shop.treasury.propose(proposal(1), key="k1", number=1)
    shop.step()
    assert shop.get(transfer).sub_status is SubStatus.FROZEN
    shop.treasury.now = shop.now = shop.now + 60
    shop.step()
    assert shop.get(transfer).status is Status.PENDING_AUTHORIZATION
    shop.treasury.approve(transfer, "ana")
    assert shop.get(transfer).sub_status is SubStatus.PENDING_TIME_LOCK
    shop.treasury.now = shop.now = shop.now + 3600
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED


def test_automatic_goes_by_itself_and_in_parts() -> None:
    """Nobody approves; what goes together stays within one seat's share of a day's cap (9 ETH x 2/3)."""
    shop = Workshop(answers(Answer.AUTOMATIC))
    two = [shop.treasury.propose(proposal(n, amount=4 * ETHER), key=f"k{n}", number=n) for n in (1, 2)]
    shop.step()
    assert [shop.get(transfer).status for transfer in two] == [Status.CONFIRMING, Status.QUEUED]


def test_a_full_counter_falls_back_to_people() -> None:
    """A seat that will not let more go by itself is recorded with its rule; people who approve then are enough."""
    shop = Workshop(answers(Answer.AUTOMATIC))
    one = shop.treasury.propose(proposal(1, amount=4 * ETHER), key="k1", number=1)
    shop.run(one)
    two = shop.treasury.propose(proposal(2, amount=4 * ETHER), key="k2", number=2)
    shop.step()
    found = shop.get(two)
    assert (found.status, found.sub_status) == (Status.PENDING_SIGNATURE, SubStatus.SIGNER_REFUSED)
    assert Rule.AUTOMATIC_CAP in found.waiting_for
    shop.treasury.approve(two, "ana", "bo")
    shop.run(two)
    assert shop.get(two).status is Status.COMPLETED


def test_on_the_embedded_store(tmp_path: Path) -> None:
    """The same over SQLite with its constraints: a batch, a void, and one that goes after it."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    migrate(url)
    shop = Workshop(store=open_store(url, ASSETS))
    two = [shop.queued(number) for number in (1, 2)]
    shop.run(*two)
    assert {shop.get(transfer).status for transfer in two} == {Status.COMPLETED}
    stuck = shop.queued(3)
    for seat in shop.seats[:2]:
        seat.silent = True
    shop.step()
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(stuck.digest))
    assert permit is not None
    void = Void(permit.reservation.anchor, permit.intents)
    signed = signed_by(void, world().domain, [secp256k1("ana"), secp256k1("bo")])
    payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)
    for seat in shop.seats:
        seat.silent = False
    shop.run(stuck)
    assert shop.get(stuck).status is Status.CANCELLED
    after = shop.queued(4)
    shop.run(after)
    assert shop.get(after).status is Status.COMPLETED
    assert shop.treasury.balance(HELD) == 0
