# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who-are-you by an identity provider: true tokens open a session, false ones nothing, and no session of it approves anything."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import requests
from playwright.sync_api import Browser

from api.console.app import create_console
from api.console.oidc import Provider
from custody.rules.errors import InvalidInput, Unavailable
from tests.console.browsing import Seat
from tests.console.calling import Caller, answer_of, rule_of
from tests.console.conftest import free_port
from tests.console.world import World, serving
from tests.fakes.idp import IdentityProvider, elliptic, shared
from tests.fakes.seat import YEAR


@pytest.fixture(scope="module")
def idp() -> Iterator[IdentityProvider]:
    """The provider, on another site than the console."""
    with serving(IdentityProvider(free_port())) as made:
        yield made


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, idp: IdentityProvider) -> Iterator[World]:
    """A console that is the provider's client; tokens are judged by this machine's time."""
    world = World(tmp_path_factory.mktemp("oidc"), free_port())
    world.wall.now = int(time.time())
    world.console = replace(world.console, oidc=Provider(idp.issuer, idp.client, idp.secret))
    world.app = create_console(world.console, strangers=10_000)
    with serving(world) as made:
        yield made


@pytest.fixture(autouse=True)
def true(idp: IdentityProvider, own: World) -> None:
    """It is honest again before each test, and remembered answers are gone."""
    idp.who, idp.lies, idp.signs, idp.algorithm, idp.named = "ana", {}, None, "RS256", ""
    assert own.console.oidc is not None
    own.console.oidc._found.clear()


def arrive(world: World, change: Callable[[dict[str, str]], None] = lambda _: None) -> tuple[Caller, requests.Response]:
    """Through the provider and back, with whatever somebody changes in its answer."""
    caller = Caller(world)
    caller.get("/login")
    there = caller.get("/login/oidc").headers["location"]
    back = urlsplit(requests.get(there, allow_redirects=False, timeout=10).headers["location"])
    told = {name: values[0] for name, values in parse_qs(back.query).items()}
    change(told)
    page = caller.get(f"{back.path}?{urlencode(told)}")
    assert page.status_code == 200
    return caller, caller.get(f"/login/oidc/done?{urlencode(told)}")


def test_in_a_browser(own: World, idp: IdentityProvider, browser: Browser) -> None:
    """Across two sites and back with a strict cookie; the page knows who it is, and asks their passkey for every yes."""
    seat = Seat(browser, own, "ana")
    seat.goto("/login")
    seat.page.get_by_role("link", name=f"Log in with 127.0.0.1:{idp.port}").click()
    seat.page.wait_for_url(lambda url: url.endswith("/queue"))
    assert "Ana Araujo" in seat.page.locator(".who").inner_text()
    transfer = own.propose("20")
    seat.goto(f"/transfers/{transfer.intent.id}")
    seat.press("Approve with my passkey", lambda url: "done=approved" in url)
    (kept,) = own.approvals(transfer)
    assert (kept.person, kept.signature.key) == ("ana", own.passkeys["ana"].key)
    assert seat.faults == []
    assert idp.asked[-1].startswith("Basic ")
    seat.close()


def test_its_word_approves_nothing(own: World) -> None:
    """A session of the provider's, whoever gave it out: no form without the person's own passkey, and none with another's."""
    caller, answer = arrive(own)
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue")
    assert caller.get("/me").status_code == 200
    transfer = own.propose("20")
    assert rule_of(caller.approve(transfer, "")) == "malformed"
    for whose, digest in (("cleo", transfer.digest), ("ana", bytes(32))):
        told = rule_of(caller.approve(transfer, answer_of(own.passkeys[whose], digest)))
        assert told in {"signer_not_in_roster", "signature_invalid"}
    assert own.approvals(transfer) == []


@pytest.mark.parametrize(
    ("lies", "rule"),
    [
        pytest.param({"nonce": "00" * 32}, "signature_invalid", id="for another browser"),
        pytest.param({"nonce": None}, "signature_invalid", id="for no browser"),
        pytest.param({"aud": "another client"}, "signature_invalid", id="for another client"),
        pytest.param({"aud": ["bulkhead-console", "x"]}, "signature_invalid", id="for two, and not said for whom"),
        pytest.param({"iss": "http://127.0.0.1:1"}, "signature_invalid", id="of another issuer"),
        pytest.param({"exp": 1_700_000_000}, "signature_invalid", id="expired"),
        pytest.param({"exp": None}, "signature_invalid", id="without an end"),
        pytest.param({"iat": 9_999_999_999}, "signature_invalid", id="from the future"),
        pytest.param({"preferred_username": None}, "signature_invalid", id="of nobody"),
        pytest.param({"preferred_username": ["ana"]}, "signature_invalid", id="of a list"),
        pytest.param({"preferred_username": "mallory"}, "signer_not_in_roster", id="of a stranger"),
    ],
)
def test_a_false_token_opens_nothing(own: World, idp: IdentityProvider, lies: dict[str, Any], rule: str) -> None:
    """Signed by the provider's own key, and wrong in one claim."""
    idp.lies = lies
    caller, answer = arrive(own)
    assert rule_of(answer) == rule
    assert caller.get("/queue").headers["location"].startswith("/login")


def test_whose_key_signed(own: World, idp: IdentityProvider) -> None:
    """Another key, and a shared secret, open nothing; a key that the provider changed to since does: it is asked again."""
    for algorithm, signs in (("ES256", elliptic()), ("HS256", shared())):
        idp.algorithm, idp.signs = algorithm, signs
        assert rule_of(arrive(own)[1]) == "signature_invalid", algorithm
    idp.algorithm, idp.signs = "RS256", None
    assert arrive(own)[1].status_code == 303
    before, idp.key, idp.algorithm = idp.key, elliptic(), "ES256"
    try:
        assert arrive(own)[1].status_code == 303
    finally:
        idp.key = before


def test_an_answer_serves_the_browser_that_asked_once(own: World) -> None:
    """Another state, another browser's answer, a code twice, and after the passkey was used at this door."""
    assert rule_of(arrive(own, lambda told: told.update(state="00" * 32))[1]) == "signature_invalid"
    assert rule_of(arrive(own, lambda told: told.update(code="nothing"))[1]) == "signature_invalid"
    kept: dict[str, str] = {}
    first, answer = arrive(own, kept.update)
    assert answer.status_code == 303
    victim = Caller(own)
    victim.get("/login")
    query = urlencode(kept)
    assert rule_of(victim.get(f"/login/oidc/done?{query}")) == "signature_invalid"
    assert rule_of(Caller(own).get(f"/login/oidc/done?{query}")) == "expired"
    assert rule_of(first.get(f"/login/oidc/done?{query}")) == "expired"


def test_a_provider_that_is_silent_or_another(own: World, idp: IdentityProvider) -> None:
    """Its configuration names another issuer; and without a provider there is no such door."""
    idp.named = "https://elsewhere.example"
    caller = Caller(own)
    caller.get("/login")
    assert rule_of(caller.get("/login/oidc")) == "unavailable"
    with pytest.raises(Unavailable):
        Provider("http://127.0.0.1:1", "x").leave_for(own.origin, "door")
    for issuer in ("http://idp.example", "idp.example", ""):
        with pytest.raises(InvalidInput):
            Provider(issuer, "x")


def test_a_session_ends_with_its_provider_and_its_person(own: World) -> None:
    """Another provider in the configuration, or the person's time in the roster over: the next look is the login."""
    caller, answer = arrive(own)
    assert answer.status_code == 303
    assert caller.get("/queue").status_code == 200
    kept = own.app.state.parts
    own.app.state.parts = replace(kept, oidc=None)
    assert caller.get("/queue").status_code == 303
    assert rule_of(caller.get("/login/oidc")) == "no_such_route"
    own.app.state.parts = kept
    assert caller.get("/queue").status_code == 200
    now, own.clock.now = own.clock.now, own.clock.now + 2 * YEAR
    assert caller.get("/queue").status_code == 303
    own.clock.now = now
