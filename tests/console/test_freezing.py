# SPDX-License-Identifier: AGPL-3.0-or-later
"""One person stops a scope in the browser; a quorum starts it again, signature by signature, after its delay."""

import json
from collections.abc import Callable

from custody.flows.freeze_carrying import FreezeCarrier
from custody.flows.freezes import FREEZE
from custody.rules.governance import Freeze
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, SubStatus
from tests.console.browsing import Seat
from tests.console.world import World
from tests.fakes import trust
from tests.fakes.seat import EVM

Seats = Callable[[str], Seat]


def test_one_freezes_and_two_end_it(world: World, seats: Seats) -> None:
    """Frozen by Hana for a customer, drafted by Ana, signed by Ana and Cleo, ended after the roster's delay, and proposals go on."""
    hana = seats("hana")
    hana.goto("/freeze")
    hana.page.get_by_label("or one customer").fill("bo")
    hana.page.get_by_label("Reason").fill("their key was seen abroad")
    hana.press("Freeze…", lambda url: url.endswith("/freeze"))
    assert "customer:bo" in hana.text()
    hana.press("Freeze with my passkey", lambda url: "done=frozen" in url)
    assert "their key was seen abroad" in hana.text()
    (frozen,) = world.kernel.freezes
    assert (frozen.scope, world.kernel.frozen_by[frozen.struct_hash]) == ("customer:bo", "hana")

    ana = seats("ana")
    ana.goto("/freeze")
    ana.page.get_by_label("Draft its end").fill("the key is theirs again")
    ana.press("Draft the unfreeze…", lambda url: "done=drafted" in url)
    where = ana.page.url.partition("?")[0].removeprefix(world.origin)
    assert "2 more people" in ana.text()
    for person in ("ana", "cleo"):
        seats(person).goto(where)
        seats(person).press("Sign with my passkey", lambda url: "done=signed" in url)
    assert ana.goto(where).get_by_role("button", name="End the freeze").is_disabled()
    assert ana.post(where + "/carry", {}) == (422, "not_yet_valid")
    world.clock.now += 3601
    ana.goto(where)
    ana.press("End the freeze", lambda url: "done=ended" in url)
    assert world.kernel.freezes == ()
    assert [seats(p).faults for p in ("ana", "cleo", "hana")] == [[], [], []]


def test_a_frozen_transfer_says_so(world: World, seats: Seats) -> None:
    """It is taken and stopped; its page names the freeze, and the queue puts it under what is stopped."""
    world.freeze("chain:" + EVM.name, "dan")
    transfer = world.propose("25")
    assert (transfer.status, transfer.sub_status) == (Status.BLOCKED, SubStatus.FROZEN)
    seat = seats("ana")
    assert (
        f"Frozen: chain:{EVM.name}, by dan"
        in seat.goto(f"/transfers/{transfer.intent.id}").locator("main").inner_text()
    )
    link = f'section[aria-labelledby="part-stopped"] a[href="/transfers/{transfer.intent.id}"]'
    assert seat.goto("/queue").locator(link).count() == 1
    world.thaw()


def test_the_worker_brings_a_freeze_to_seats_once(world: World) -> None:
    """A seat verifies what it is handed; a false row in the mirror stops nobody, and an unfreeze is brought too."""
    frozen = world.freeze("customer:nobody", "ana")
    forged = Signed(Freeze("all", "stop everything", frozen.message.from_time, frozen.message.lapses), ())
    world.store.run(lambda work: work.documents.put(FREEZE, "forged", forged.to_json()))
    seat = trust.world().deployment.seats[0]
    carrier = FreezeCarrier(world.store, lambda: world.roster, {seat.name: seat}, world.clock, world.wall)
    said = [json.loads(line) for line in carrier()]
    assert {(line["scope"], line["why"]) for line in said if line["scope"] == "customer:nobody"} == {
        ("customer:nobody", "has it")
    }
    (refused,) = [line["why"] for line in said if line["scope"] == "all"]
    assert "quorum_not_reached" in refused
    world.wall.now += 11
    assert list(carrier()) == []
    world.thaw()
