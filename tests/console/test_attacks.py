# SPDX-License-Identifier: AGPL-3.0-or-later
"""A hostile page, name or database against a real browser: nothing runs, nothing is framed, and nothing is signed that is not shown."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Route
from typer.testing import CliRunner

from custody.commands.verify_intent import app as verify_intent
from custody.rules.passkeys import enrolled
from custody.rules.transfers import Status
from tests.console.browsing import Seat
from tests.console.conftest import free_port
from tests.console.world import World
from tests.fakes.authenticator import Authenticator

Seats = Callable[[str], Seat]
NASTY: Final = (
    '<img src=x onerror="document.body.dataset.pwned=1"><script>document.body.dataset.pwned=1</script>&"\'{{ 7 * 7 }}'
)
"""What somebody might call an order or a reason."""


def is_clean(seat: Seat) -> bool:
    """Nothing of anybody's ran in this page, and nothing was even tried."""
    return seat.page.evaluate("document.body.dataset.pwned === undefined") is True and seat.faults == []


def test_names_memos_reasons_and_errors_are_text(world: World, seats: Seats) -> None:
    """Markup in a roster's name, a reference, a rejection's reason, a freeze's reason and a path is shown as it is written."""
    bo = seats("bo")
    assert "Bo <b onclick=alert(1)>Berg</b>" in bo.goto("/queue").locator(".who").inner_text()
    transfer = world.propose("15", reference=NASTY)
    assert NASTY in bo.goto(f"/transfers/{transfer.intent.id}").locator("main").inner_text()
    assert is_clean(bo)
    bo.page.get_by_label("Reason").fill(NASTY)
    bo.press("Reject it…", lambda url: url.endswith("/reject"))
    assert NASTY in bo.text()
    bo.press("Reject it with my passkey", lambda url: "done=rejected" in url)
    assert bo.text().count(NASTY) == 2  # the reference, and the reason in the history
    assert is_clean(bo)
    bo.goto("/freeze")
    bo.page.get_by_label("Scope", exact=True).select_option("all")
    bo.page.get_by_label("Reason").fill(NASTY)
    bo.press("Freeze…", lambda url: url.endswith("/freeze"))
    assert NASTY in bo.text()
    assert is_clean(bo)
    for path in (
        "/<script>document.body.dataset.pwned=1</script>",
        "/transfers/<img src=x onerror=alert(1)>",
        "/queue?most=<b>",
    ):
        bo.goto(path)
        assert is_clean(bo), path


def test_what_no_eye_sees_is_spelled_out(world: World, seats: Seats) -> None:
    """A right-to-left override in a reason would turn an address around; the flow refuses it, and the page that says so is plain."""
    transfer, seat = world.propose("15"), seats("ana")
    seat.goto(f"/transfers/{transfer.intent.id}")
    seat.page.get_by_label("Reason").fill("abc\u202edef")
    seat.press("Reject it…", lambda url: url.endswith("/reject"))
    assert "abc\\u202edef" in seat.text()
    seat.page.get_by_role("button", name="Reject it with my passkey").click()
    seat.page.get_by_role("alert").filter(has_text="the page shows another reason than it sends").wait_for()
    assert world.get(transfer).status is Status.PENDING_AUTHORIZATION


def test_no_other_page_frames_the_console(world: World, seats: Seats, fresh: Seats) -> None:
    """Clickjacking: an attacker's page with the console under glass gets an empty frame, cookie or not."""
    ana = fresh("ana").log_in()
    for path in ("/queue", "/login"):
        ana.page.route("https://evil.example/**", partial(_framing, target=world.origin + path))
        ana.page.goto("https://evil.example/")
        ana.page.wait_for_timeout(300)
        (frame,) = [each for each in ana.page.frames if each != ana.page.main_frame]
        assert "Queue" not in (frame.content() or "")
        assert "passkey" not in (frame.content() or "")
        ana.page.unroute("https://evil.example/**")


def _framing(route: Route, target: str) -> None:
    route.fulfill(body=f'<iframe src="{target}" width=900 height=700></iframe>', content_type="text/html")


def test_another_sites_form_asks_for_nothing(world: World, fresh: Seats) -> None:
    """CSRF with the browser's own cookies: the console refuses what comes from elsewhere, and the transfer stands."""
    ana, transfer = fresh("ana").log_in(), world.propose("15")
    target = f"{world.origin}/transfers/{transfer.intent.id}/reject"
    fields = '<input name=reason value=x><input name=stood value="PENDING_AUTHORIZATION/">'
    body = f'<form method=post action="{target}">{fields}<button>win</button></form>'
    ana.page.route("https://evil.example/**", lambda route: route.fulfill(body=body, content_type="text/html"))
    ana.page.goto("https://evil.example/")
    ana.page.get_by_role("button", name="win").click()
    ana.page.get_by_text("Refused: what changes something comes from a page of this console.").wait_for()
    assert world.get(transfer).status is Status.PENDING_AUTHORIZATION


def test_without_a_verified_user_nothing_is_sent(world: World, fresh: Seats) -> None:
    """A stolen laptop that is unlocked: the authenticator does not know the finger, so there is no signature."""
    ana, transfer = fresh("ana").log_in(), world.propose("15")
    ana.verified(yes=False)
    ana.goto(f"/transfers/{transfer.intent.id}")
    ana.page.get_by_role("button", name="Approve with my passkey").click()
    ana.page.get_by_role("alert").filter(has_text="Nothing was sent").wait_for()
    assert world.approvals(transfer) == []


def test_another_persons_passkey_at_my_session(world: World, fresh: Seats) -> None:
    """Ana's session and only Cleo's passkey in the machine: it is not even asked."""
    ana, transfer = fresh("ana").log_in(), world.propose("15")
    ana.forget()
    ana.hold(world.passkeys["cleo"])
    ana.goto(f"/transfers/{transfer.intent.id}")
    ana.page.get_by_role("button", name="Approve with my passkey").click()
    ana.page.get_by_role("alert").filter(has_text="Nothing was sent").wait_for()
    assert world.approvals(transfer) == []


TAMPERED: Final = {
    "another amount beside the digest": (
        'data-field="amount">15000000000000000000',
        'data-field="amount">1000000000000000000',
    ),
    "another destination beside it": ('data-field="destination">', 'data-field="destination">0xEvil'),
    "a field left out": ('<dd data-field="maximum_fee">', "<dd>"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_page_that_shows_another_thing_asks_for_no_signature(world: World, fresh: Seats, what: str) -> None:
    """Whoever changes what is shown and not what is sent meets the page's own script."""
    ana, transfer = fresh("ana").log_in(), world.propose("15")
    was, becomes = TAMPERED[what]
    _rewrite(ana, world, transfer.intent.id, lambda text: text.replace(was, becomes))
    ana.page.get_by_role("button", name="Approve with my passkey").click()
    ana.page.get_by_role("alert").filter(has_text="than it sends").wait_for()
    assert world.approvals(transfer) == []


def test_a_wholly_hostile_console_is_told_apart_by_a_second_screen(world: World, fresh: Seats, tmp_path: Path) -> None:
    """Bybit: the server itself shows one thing and asks for another, script, file and all. A passkey signs it, for it shows nothing.

    `verify-intent` on another screen does not agree with the digest that the page shows for what it shows; and above an amount policy
    asks for a key that displays, so the passkeys alone move nothing.
    """
    ana, theft = fresh("ana").log_in(), world.propose("15")
    shown = {**theft.intent.to_json(), "amount": str(10**18), "destination": "0x" + "11" * 20}
    told = tmp_path / "shown.json"
    told.write_text(json.dumps({"type": "TransferIntent", "message": shown}))

    def lie(text: str) -> str:
        text = text.replace("15000000000000000000", str(10**18))
        return text.replace(theft.intent.destination, "0x" + "11" * 20)

    _rewrite(ana, world, theft.intent.id, lie)
    assert "15000000000000000000" not in ana.text()
    digest = ana.page.locator("#digest").get_attribute("data-digest") or ""
    genesis = "0x" + world.roster.domain.genesis.hex()
    run = CliRunner().invoke(verify_intent, [str(told), "--genesis", genesis, "--digest", digest])
    assert run.exit_code == 1
    assert "DIFFERS  digest: shown was " + digest in run.output
    true = tmp_path / "true.json"
    true.write_text(json.dumps({"type": "TransferIntent", "message": theft.intent.to_json()}))
    run = CliRunner().invoke(verify_intent, [str(true), "--genesis", genesis, "--digest", digest])
    assert run.exit_code == 0, run.output
    assert "15 ETH" in run.output

    large = world.propose("61")
    for person in ("ana", "dan", "cleo"):
        world.approve_by_passkey(large, person)
    stands = world.get(large)
    assert stands.status is Status.PENDING_AUTHORIZATION
    assert "by a key that displays" in stands.waiting_for


def _rewrite(seat: Seat, world: World, transfer_id: str, change: Callable[[str], str]) -> None:
    """Open a transfer's page as somebody in between changed it."""

    def between(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=change(answer.text()))

    seat.page.route(f"**/transfers/{transfer_id}", between)
    seat.goto(f"/transfers/{transfer_id}")


def test_a_passkey_is_made_and_enrols_nobody(world: World, stranger: Seat, tmp_path: Path) -> None:
    """The page makes a credential and a file that verifies; the new passkey logs nobody in before a roster names it."""
    stranger.goto("/enrol")
    stranger.page.get_by_label("Your id in the roster").fill("ana")
    stranger.press("Go on", lambda url: "person=ana" in url)
    stranger.page.get_by_role("button", name="Make a passkey for ana").click()
    stranger.page.get_by_role("heading", name="Your passkey is made").wait_for()
    with stranger.page.expect_download() as waiting:
        stranger.page.get_by_role("button", name="Download passkey-ana.json").click()
    kept = tmp_path / "passkey-ana.json"
    waiting.value.save_as(kept)
    found = enrolled(json.loads(kept.read_text()))
    assert (found.person, found.transports) == ("ana", ("internal",))
    assert found.key not in world.roster.people_by_key
    stranger.goto("/login")
    stranger.page.get_by_role("button", name="Log in with a passkey").click()
    stranger.page.get_by_text("signer_not_in_roster").wait_for()
    assert stranger.goto("/queue").url.endswith("/login?next=/queue")
    assert stranger.faults == []


def test_a_passkey_of_another_page_is_not_even_offered(browser: Browser, world: World) -> None:
    """A look-alike host holds other passkeys: the browser keeps them apart by rpId, and the roster by origin."""
    held = Authenticator("ana's passkey", f"http://console.localhost:{free_port()}")
    seat = Seat(browser, world)
    seat.hold(held)
    seat.goto("/login")
    seat.page.get_by_role("button", name="Log in with a passkey").click()
    seat.page.get_by_role("alert").filter(has_text="Nothing was sent").wait_for()
    seat.close()
