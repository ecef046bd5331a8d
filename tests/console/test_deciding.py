# SPDX-License-Identifier: AGPL-3.0-or-later
"""A treasurer's work in a real browser: log in, read, approve with several people, reject, cancel, wait out a time-lock."""

from collections.abc import Callable

from custody.rules.transfers import Status
from tests.console.browsing import Seat
from tests.console.world import World

Seats = Callable[[str], Seat]


def test_two_people_approve_and_the_rest_waits_for_seats(world: World, seats: Seats) -> None:
    """Each yes is an assertion of its own over the intent's digest; the second one completes the quorum."""
    transfer = world.propose("20")
    assert transfer.status is Status.PENDING_AUTHORIZATION, transfer
    for person in ("ana", "cleo"):
        seat = seats(person)
        seat.goto(f"/transfers/{transfer.intent.id}")
        assert "0x" + transfer.digest.hex() in seat.page.locator("#digest").inner_text().replace("\n", "")
        seat.press("Approve with my passkey", lambda url: "done=approved" in url)
        assert "Your approval is recorded" in seat.text()
        assert seat.faults == []
    assert [a.person for a in world.approvals(transfer)] == ["ana", "cleo"]
    assert world.get(transfer).status is Status.QUEUED
