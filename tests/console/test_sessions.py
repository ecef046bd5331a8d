# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who sits there: logins that answer what was asked, once; sessions that end; and nothing that a session alone could approve."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from api.console.app import create_console
from api.console.assets import FOLDER, MANIFEST, assets, digest, write
from api.console.registry import all_pages
from api.console.sessions import IDLE, WHOLE, Doorbell
from custody.rules.errors import InvalidInput
from custody.rules.roster import Roster
from tests.console.calling import Caller, answer_of, rule_of
from tests.console.conftest import free_port
from tests.console.world import World, serving
from tests.fakes.authenticator import Authenticator

MINUTE = 60


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A console of this file's own, whose clocks it may turn."""
    with serving(World(tmp_path_factory.mktemp("sessions"), free_port())) as made:
        yield made


def test_a_login_gives_another_secret_than_it_asked_with(own: World) -> None:
    """Fixation: whoever planted the cookie of a login page in somebody's browser holds nothing after the login."""
    ana, attacker = Caller(own, "ana"), Caller(own)
    attacker.get("/login")
    planted = attacker.cookie
    ana.http.cookies.set("bulkhead", planted, domain="localhost.local", path="/")
    answer = ana.answer_login()
    assert answer.status_code == 303
    assert planted not in answer.headers["set-cookie"]
    assert attacker.get("/queue").headers["location"] == "/login?next=/queue"
    assert ana.get("/queue").status_code == 200


def test_the_cookie_is_out_of_reach(own: World) -> None:
    """No script reads it, and no other site sends it; over TLS it is bound to the host."""
    said = Caller(own).get("/login").headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "path=/" in said
    assert "domain" not in said
    secure = replace(own.console, origin="https://treasury.example")
    assert secure.secure
    assert create_console(secure).state.parts.host == "treasury.example"


def test_an_origin_that_is_none_is_refused(own: World) -> None:
    """An http origin but localhost, a path, an address: passkeys could not be named for it."""
    for origin in ("http://treasury.example", "https://treasury.example/", "https://10.0.0.1"):
        with pytest.raises(InvalidInput):
            replace(own.console, origin=origin)


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        pytest.param("another digest", "signature_invalid", id="over another digest"),
        pytest.param("approval", "signature_invalid", id="an approval is no login"),
        pytest.param("stranger", "signer_not_in_roster", id="a passkey that no roster names"),
        pytest.param("other page", "signature_invalid", id="made at another page"),
    ],
)
def test_only_the_login_that_was_asked_for_logs_in(own: World, case: str, rule: str) -> None:
    """Everything else is refused, and uses the login up."""
    caller = Caller(own, "ana")
    held = own.passkeys["ana"]
    given = {
        "another digest": (held, b"\x07" * 32),
        "approval": (held, own.propose("15").digest),
        "stranger": (Authenticator("nobody's", own.origin), None),
        "other page": (held.at("http://localhost:1"), None),
    }[case]
    answer = caller.answer_login(*given)
    assert rule_of(answer) == rule
    assert answer.status_code in {403, 422}
    assert caller.get("/queue").status_code == 303


def test_a_login_is_used_up_by_its_first_answer(own: World) -> None:
    """The same answer again, from a copied cookie, opens no second session."""
    ana = Caller(own, "ana")
    page = ana.get("/login").text
    cookie, token = ana.cookie, ana.token
    asked = bytes.fromhex(page.split('data-digest="0x')[1][:64])
    form = {"answer": answer_of(own.passkeys["ana"], asked)}
    assert ana.post("/login", form).status_code == 303
    thief = Caller(own)
    thief.http.cookies.set("bulkhead", cookie, domain="localhost.local", path="/")
    thief.token = token
    assert rule_of(thief.post("/login", form)) == "expired"


def test_sessions_end(own: World) -> None:
    """After half an hour of silence, after a working day whatever happens, by logging out, and when the key left the roster."""
    ana = Caller(own, "ana").log_in()
    own.wall.now += IDLE - MINUTE
    assert ana.get("/queue").status_code == 200
    own.wall.now += IDLE - MINUTE
    assert ana.get("/queue").status_code == 200
    own.wall.now += IDLE + 1
    assert ana.get("/queue").status_code == 303

    ana.log_in()
    for _ in range(WHOLE // (IDLE - MINUTE)):
        assert ana.get("/queue").status_code == 200
        own.wall.now += IDLE - MINUTE
    own.wall.now += IDLE - MINUTE
    assert ana.get("/queue").status_code == 303

    ana.log_in()
    cookie = ana.cookie
    assert ana.post("/logout", {}).headers["location"] == "/login"
    ana.http.cookies.set("bulkhead", cookie, domain="localhost.local", path="/")
    assert ana.get("/queue").status_code == 303


def test_a_key_that_left_the_roster_opens_nothing_at_once(own: World) -> None:
    """The session of a passkey that the newest roster does not name is over with the next look."""
    dan, before = Caller(own, "dan").log_in(), own.roster
    assert dan.get("/queue").status_code == 200
    people = tuple(
        replace(p, keys=p.keys[:1], displays=p.displays[:1]) if p.id == "dan" else p for p in before.version.people
    )
    version = replace(before.version, version=3, previous=before.version.struct_hash, people=people)
    own.__dict__["roster"] = Roster(
        replace(before.signed, message=version), before.domain.genesis, (*before.earlier, before)
    )
    try:
        assert dan.get("/queue").status_code == 303
    finally:
        own.__dict__["roster"] = before
    assert dan.get("/queue").status_code == 200


def test_one_sees_and_ends_ones_own_sessions_and_nobody_elses(own: World) -> None:
    """Two browsers of Cleo: one ends the other; Dan cannot end hers."""
    first, second, dan = Caller(own, "cleo").log_in(), Caller(own, "cleo").log_in(), Caller(own, "dan").log_in()
    page = first.get("/me").text
    name = page.split('name="name" value="')[1][:64]
    assert dan.post("/me/end", {"name": name}).status_code == 303
    assert second.get("/queue").status_code == 200
    assert first.post("/me/end", {"name": name}).status_code == 303
    assert second.get("/queue").status_code == 303
    assert first.get("/queue").status_code == 200


def test_what_is_stored_opens_no_session(own: World) -> None:
    """The database has hashes: a row that somebody read is no cookie."""
    ana = Caller(own, "ana").log_in()
    (row, *_) = own.store.read(lambda work: work.visits.of("ana"))
    thief = Caller(own)
    for value in (row.name.hex(), row.name.hex().upper()):
        thief.http.cookies.set("bulkhead", value, domain="localhost.local", path="/")
        assert thief.get("/queue").status_code == 303
    assert ana.get("/queue").status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"token": ""}, id="no token"),
        pytest.param({"token": "0" * 64}, id="a made-up token"),
        pytest.param({"token": "another session's"}, id="the token of another session"),
        pytest.param({"Origin": "https://evil.example"}, id="another origin"),
        pytest.param({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, id="a sandboxed frame"),
        pytest.param({"Origin": "null", "Sec-Fetch-Site": "none"}, id="a file"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="a sibling host"),
        pytest.param({"Host": "console.evil.example"}, id="another name for this host"),
    ],
)
def test_a_form_of_somebody_else_asks_for_nothing(own: World, change: dict[str, str]) -> None:
    """CSRF: the transfer stands as it stood, whoever's cookie the browser sent along."""
    transfer, ana = own.propose("15"), Caller(own, "ana").log_in()
    answer = answer_of(own.passkeys["ana"], transfer.digest)
    form = {"token": change["token"]} if "token" in change else {}
    if form.get("token") == "another session's":
        form["token"] = Caller(own, "cleo").log_in().token
    headers = {name.replace("-", "_"): value for name, value in change.items() if name != "token"}
    said = {"digest": "0x" + transfer.digest.hex(), "stood": "PENDING_AUTHORIZATION/", "answer": answer, **form}
    refused = ana.post(f"/transfers/{transfer.intent.id}/approve", said, **headers)
    assert refused.status_code == 403
    assert own.approvals(transfer) == []
    assert ana.approve(transfer, answer).status_code == 303
    assert len(own.approvals(transfer)) == 1


def test_a_stolen_session_approves_nothing(own: World) -> None:
    """Ana's cookie and token in a thief's hands: every signature that the thief can come by is refused."""
    ana = Caller(own, "ana").log_in()
    thief = Caller(own)
    thief.http.cookies.set("bulkhead", ana.cookie, domain="localhost.local", path="/")
    assert thief.get("/queue").status_code == 200
    transfer, other = own.propose("14"), own.propose("15")
    held = own.passkeys["ana"]
    tried = {
        "nothing": "{}",
        "no JSON": "x",
        "a login's": answer_of(held, b"\x01" * 32),
        "another transfer's": answer_of(held, other.digest),
        "another page's": answer_of(held.at("http://localhost:1"), transfer.digest),
        "another person's": answer_of(own.passkeys["cleo"], transfer.digest),
        "a key of the thief's": answer_of(Authenticator("thief", own.origin), transfer.digest),
        "no user verified": answer_of(replace(held, flags=1), transfer.digest),
    }
    for what, answer in tried.items():
        refused = thief.approve(transfer, answer)
        assert refused.status_code in {400, 403, 422}, what
        assert own.approvals(transfer) == [], what
    assert thief.approve(transfer, answer_of(held, other.digest), digest="0x" + other.digest.hex()).status_code == 422
    assert own.approvals(transfer) == []


NEXT = (
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    "/queue/../../evil",
    "/queue?x=//evil",
    "javascript:alert(1)",
    "/logout",
    "/static/console.js",
    "/nope",
    "/transfers/%2f%2fevil",
)


def test_no_link_leads_elsewhere(own: World) -> None:
    """Open redirects: after a login one comes to a page of the console, whatever the link said."""
    for target in NEXT:
        caller = Caller(own, "ana")
        page = requests.get(own.origin + "/login", params={"next": target}, timeout=30).text
        assert 'name="next" value="/queue"' in page, target
        caller.get("/login")
        asked = bytes.fromhex(caller.get("/login").text.split('data-digest="0x')[1][:64])
        form = {"answer": answer_of(own.passkeys["ana"], asked), "next": target}
        assert caller.post("/login", form).headers["location"] == "/queue", target
    kept = requests.get(own.origin + "/login", params={"next": "/transfers/0190-aa"}, timeout=30).text
    assert 'name="next" value="/transfers/0190-aa"' in kept


def test_a_crowd_at_the_door_is_told_to_wait(own: World) -> None:
    """Each stranger's login is a row, so a flood of them is turned away before it is one; who has a row already is not."""
    clock = [0.0]
    before, own.app.state.doorbell = own.app.state.doorbell, Doorbell(2, lambda: clock[0])
    try:
        first = Caller(own)
        assert [first.get("/login").status_code, Caller(own).get("/login").status_code] == [200, 200]
        crowded = Caller(own).get("/login")
        assert (crowded.status_code, rule_of(crowded)) == (429, "too_many_writes_waiting")
        assert first.get("/login").status_code == 200
        clock[0] = 1.0
        assert Caller(own).get("/login").status_code == 200
    finally:
        own.app.state.doorbell = before


def test_every_answer_carries_the_shell(own: World) -> None:
    """Pages, files, refusals and redirects alike: no frame, no foreign script, no trace, no cache."""
    ana = Caller(own, "ana").log_in()
    for path in ("/queue", "/login", "/enrol", "/nope", "/static/nope", "/freeze", "/static/console.js"):
        headers = ana.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert ("no-store" in headers["cache-control"]) != path.endswith(".js")


def test_the_manifest_says_what_is_served_and_what_pages_ask_for(own: World) -> None:
    """Each file's hash is recomputed; a file beside the manifest is not served."""
    assert {f.name for f in FOLDER.iterdir()} == {*assets(), MANIFEST.name}
    for name, asset in assets().items():
        assert digest((FOLDER / name).read_bytes()) == asset.integrity
    before = MANIFEST.read_bytes()
    write()
    assert MANIFEST.read_bytes() == before
    page = Caller(own).get("/login").text
    for name in ("console.css", "console.js", "htmx.min.js"):
        assert f'{assets()[name].url}" integrity="{assets()[name].integrity}"' in page
    assert Caller(own).get("/static/manifest.json").status_code == 404
    assert Caller(own).get("/static/..%2fapp.py").status_code == 404


def _routes() -> list[tuple[str, str, str]]:
    return [
        (page.name, method, route.path)
        for page in all_pages()
        for route in page.router.routes
        for method in sorted(route.methods)
    ]


@pytest.mark.parametrize(("page", "method", "path"), _routes())
def test_nobody_and_whoever_only_looks(
    own: World, lookers: dict[str, Caller], page: str, method: str, path: str
) -> None:
    """Every route of every page: a stranger is sent to the login; a viewer decides nothing, and sees no page of those who do."""
    path = path.replace("{position}", "1").replace("{form}", "csv").replace("{customer}", "ada")
    path = re.sub(r"\{\w+\}", "ab" * 32, path)
    stranger, viewer = lookers["stranger"], lookers["viewer"]
    asked = (lambda who: who.get(path)) if method == "GET" else (lambda who: who.post(path, {}))
    turned_away = asked(stranger)
    assert (turned_away.status_code, turned_away.headers["location"][:6]) == (303, "/login")
    known = next(each for each in all_pages() if each.name == page)
    if not known.sees(own.roster.people_by_key[own.passkeys["vic"].key], own.roster):
        assert rule_of(asked(viewer)) == "scope_missing"
    elif method == "POST" and page != "me":
        assert asked(viewer).status_code in {400, 403, 404, 422}


@pytest.fixture(scope="module")
def lookers(own: World) -> dict[str, Caller]:
    """A stranger, and a viewer who is logged in."""
    return {"stranger": Caller(own), "viewer": Caller(own, "vic").log_in()}


def test_a_viewer_decides_nothing_with_a_true_signature(own: World) -> None:
    """Vic's passkey is in the roster, and is in no group: no approval, no rejection, no freeze."""
    transfer, vic = own.propose("15"), Caller(own, "vic").log_in()
    refused = vic.approve(transfer, answer_of(own.passkeys["vic"], transfer.digest))
    assert rule_of(refused) == "scope_missing"
    form = {"stood": "PENDING_AUTHORIZATION/", "reason": "no"}
    assert rule_of(vic.post(f"/transfers/{transfer.intent.id}/reject", form)) == "scope_missing"
    assert own.approvals(transfer) == []
    assert rule_of(vic.post("/freeze", {"scope": "all", "reason": "no", "hours": "1"})) == "scope_missing"
    assert "/freeze" not in vic.get("/queue").text
