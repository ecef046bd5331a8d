# SPDX-License-Identifier: AGPL-3.0-or-later
"""A treasurer's work in a real browser: log in, read, approve with several people, reject, cancel, wait out a time-lock."""

import json
from collections.abc import Callable
from pathlib import Path

from custody.rules.transfers import Status, SubStatus
from tests.console.browsing import Seat
from tests.console.calling import Caller, answer_of, rule_of
from tests.console.conftest import free_port
from tests.console.world import World, serving

Seats = Callable[[str], Seat]
HOUR = 3600


def approve(seat: Seat, transfer_id: str) -> None:
    """Read the page, and approve what it shows."""
    seat.goto(f"/transfers/{transfer_id}")
    seat.press("Approve with my passkey", lambda url: "done=approved" in url)
    assert "Your approval is recorded" in seat.text()
    assert seat.faults == []


def test_two_people_approve_and_the_rest_waits_for_seats(world: World, seats: Seats) -> None:
    """Each yes is an assertion of its own over the intent's digest; the second one completes the quorum."""
    transfer = world.propose("20")
    assert transfer.status is Status.PENDING_AUTHORIZATION, transfer
    for person in ("ana", "cleo"):
        seat = seats(person)
        seat.goto(f"/transfers/{transfer.intent.id}")
        assert "0x" + transfer.digest.hex() in seat.page.locator("#digest").inner_text().replace("\n", "")
        approve(seat, transfer.intent.id)
    assert [a.person for a in world.approvals(transfer)] == ["ana", "cleo"]
    assert all(a.signature.key == world.passkeys[a.person].key for a in world.approvals(transfer))
    assert world.get(transfer).status is Status.QUEUED


def test_the_queue_sorts_by_whom_it_waits_for_and_follows_by_itself(world: World, seats: Seats) -> None:
    """What waits for risk stands under "you" for Cleo and under "others" for Ana, and leaves the queue while one looks at it."""
    transfer = world.propose("19")
    approve(seats("ana"), transfer.intent.id)
    link = f'a[href="/transfers/{transfer.intent.id}"]'
    ana, cleo = seats("ana").goto("/queue"), seats("cleo").goto("/queue")
    assert ana.locator(f'section[aria-labelledby="part-others"] {link}').count() == 1
    mine = cleo.locator(f'section[aria-labelledby="part-me"] {link}')
    assert mine.count() == 1
    approve(seats("cleo"), transfer.intent.id)
    ana.locator(f'section[aria-labelledby="part-way"] {link}').wait_for(timeout=10_000)
    assert seats("ana").faults == []


def test_whoever_fills_no_place_is_not_asked(world: World, seats: Seats) -> None:
    """Once Bo of operations has said yes, Ana of operations is one of many: it waits for risk, and not for her."""
    transfer = world.propose("19")
    world.approve_by_keystore(transfer, "bo")
    link = f'a[href="/transfers/{transfer.intent.id}"]'
    assert seats("ana").goto("/queue").locator(f'section[aria-labelledby="part-others"] {link}').count() == 1
    assert seats("cleo").goto("/queue").locator(f'section[aria-labelledby="part-me"] {link}').count() == 1
    seats("ana").goto(f"/transfers/{transfer.intent.id}")
    assert "Your approval would fill no slot" in seats("ana").text()


def test_a_passkey_decides_nothing_that_is_older_than_it(tmp_path: Path) -> None:
    """Asked for under the roster before it: the page offers the keystore, and a yes by passkey is refused all the same."""
    with serving(World(tmp_path, free_port())) as own:
        transfer = own.propose("18")
        own.replace_passkey("ana")
        ana = Caller(own, "ana").log_in()
        page = ana.get(f"/transfers/{transfer.intent.id}").text
        assert "Approve with my passkey" not in page
        assert "which does not know your passkey" in page
        refused = ana.approve(transfer, answer_of(own.passkeys["ana"], transfer.digest))
        assert rule_of(refused) == "signer_not_in_roster"
        own.approve_by_keystore(transfer, "ana")
        assert [a.person for a in own.approvals(transfer)] == ["ana"]
        assert "Approve with my passkey" in ana.get(f"/transfers/{own.propose('18').intent.id}").text


def test_a_rejection_is_signed_with_its_reason_and_ends_it(world: World, seats: Seats) -> None:
    """One person's no, over a message of its own, frees the hold."""
    transfer, seat = world.propose("18"), seats("cleo")
    seat.goto(f"/transfers/{transfer.intent.id}")
    seat.page.get_by_label("Reason").fill("not the customer's usual address")
    seat.press("Reject it…", lambda url: url.endswith("/reject"))
    assert "not the customer's usual address" in seat.text()
    seat.press("Reject it with my passkey", lambda url: "done=rejected" in url)
    ended = world.get(transfer)
    assert (ended.status, ended.sub_status) == (Status.REJECTED, SubStatus.REJECTED_BY_USER)
    (kept,) = world.store.read(lambda work: work.transfers.rejections(transfer.digest))
    assert kept.message.reason == "not the customer's usual address"


def test_the_initiator_cancels_and_never_approves(world: World, seats: Seats) -> None:
    """Who asked for it is offered no approval; their signed no cancels it."""
    transfer, seat = world.propose_as("bo", "16"), seats("bo")
    seat.goto(f"/transfers/{transfer.intent.id}")
    assert seat.page.get_by_role("button", name="Approve with my passkey").count() == 0
    assert "You asked for it" in seat.text()
    seat.page.get_by_label("Reason").fill("asked twice")
    seat.press("Cancel it…", lambda url: url.endswith("/reject"))
    seat.press("Cancel it with my passkey", lambda url: "done=cancelled" in url)
    assert world.get(transfer).status is Status.CANCELLED


def test_a_time_lock_is_shown_and_waited_out(world: World, seats: Seats) -> None:
    """A large one waits after the last yes; the page says until when, and that it is over once it is."""
    transfer = world.propose("60")
    for person in ("ana", "dan"):
        approve(seats(person), transfer.intent.id)
    world.approve_by_keystore(transfer, "cleo")
    locked = world.get(transfer)
    assert (locked.status, locked.sub_status) == (Status.QUEUED, SubStatus.PENDING_TIME_LOCK), locked
    seat = seats("ana")
    seat.goto("/queue")
    link = f'a[href="/transfers/{transfer.intent.id}"]'
    assert seat.page.locator(f'section[aria-labelledby="part-time"] {link}').count() == 1
    assert (
        "left)" in seat.goto(f"/transfers/{transfer.intent.id}").locator("section[aria-labelledby=agree]").inner_text()
    )
    world.clock.now += HOUR
    assert (
        "(over)" in seat.goto(f"/transfers/{transfer.intent.id}").locator("section[aria-labelledby=agree]").inner_text()
    )


def test_the_last_place_is_kept_for_a_key_that_displays(world: World, seats: Seats) -> None:
    """Above an amount policy wants one key that shows what it signs: a passkey may not fill the last place without one."""
    transfer = world.propose("61")
    for person in ("ana", "dan"):
        approve(seats(person), transfer.intent.id)
    seat = seats("cleo")
    seat.goto(f"/transfers/{transfer.intent.id}")
    assert "This place is for a key that shows what it signs" in seat.text()
    assert f"bulkhead approve {transfer.intent.id}" in seat.text()
    assert seat.page.get_by_role("button", name="Approve with my passkey").count() == 0
    answer = {
        "digest": "0x" + transfer.digest.hex(),
        "stood": "PENDING_AUTHORIZATION/",
        "answer": json.dumps({"id": "x"}),
    }
    assert seat.post(f"/transfers/{transfer.intent.id}/approve", answer) == (422, "no_key_that_displays_signed")
    assert len(world.approvals(transfer)) == 2


def test_what_changed_since_the_page_was_opened_is_said(world: World, seats: Seats) -> None:
    """Two tabs: rejected in one, approved in the other, which is refused with what it saw and what is so now."""
    transfer, seat = world.propose("17"), seats("ana")
    seat.goto(f"/transfers/{transfer.intent.id}")
    world.reject(transfer, "cleo")
    seat.page.get_by_role("button", name="Approve with my passkey").click()
    seat.page.get_by_role("heading", name="Refused").wait_for()
    assert "PENDING_AUTHORIZATION/" in seat.text()
    assert "REJECTED/REJECTED_BY_USER" in seat.text()
    assert world.approvals(transfer) == []
