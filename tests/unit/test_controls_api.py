# SPDX-License-Identifier: AGPL-3.0-or-later
"""The API's way in, control by control: what each alone keeps out is answered when it is taken away."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import pytest

from api import gate, identity, replays
from api.replays import OLDEST, Window
from custody.rules.refusals import Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from tests.fakes.api import Api
from tests.fakes.controls import Attempt, Case, Control, check_complete
from tests.fakes.seat import NOW
from tests.fakes.treasury import Treasury, kernel, roster
from tests.fakes.trust import world
from tests.unit.test_api_gate import BODY, COVERED, NONCE, PATH, sign

Headers = Mapping[str, str] | list[tuple[str, str]]


def asked(
    headers: Callable[[], Headers],
    body: bytes = b"",
    *,
    path: str = PATH,
    before: bool = False,
    api: Callable[[], Api] = Api,
) -> Callable[[], Attempt]:
    """One request to a fresh app, or the second of two: a GET, or a POST where there is a body."""

    def prepare() -> Attempt:
        app, told, method = api(), headers(), "POST" if body else "GET"
        if before:
            assert app.send(method, path, body, told).status < 300

        def attempt() -> set[Rule]:
            answer = app.send(method, path, body, told)
            return set() if answer.status < 300 else {Rule(answer.rule)}

        return attempt

    return prepare


def signed_twice() -> Headers:
    """One request under two signatures, both good."""
    first, second = sign(), sign(nonce=NONCE * 2)
    parts = {name: f"{first[name]}, {second[name].replace('x=', 'y=', 1)}" for name in ("Signature-Input", "Signature")}
    return {**first, **parts}


def expired_client() -> Api:
    """The newest roster's entry of the client ends now."""
    version = roster().version
    clients = tuple(replace(client, expires=NOW) if client.id == "backend" else client for client in version.clients)
    newer = Roster(Signed(replace(version, clients=clients), ()), world().domain.genesis)
    return Api(treasury=Treasury(kernel=kernel(rosters=(newer,))))


def began(at: int) -> Callable[[], Api]:
    """A process that has been up since then."""
    return lambda: Api(changes={"begun": at})


def set_back() -> Attempt:
    """A nonce that was taken, forgotten while the clock was a day ahead, and comes again once the clock is right."""
    window = Window(NOW - 1000)
    for nonce, now in (("mine", NOW), ("another", NOW + 86_400)):
        assert window.admit("backend", nonce, now) is None

    def attempt() -> set[Rule]:
        refusal = window.admit("backend", "mine", NOW + 1)
        return set() if refusal is None else {refusal.rule}

    return attempt


def posted(**changes: Any) -> Headers:
    """Headers of a POST of the usual body."""
    return sign("POST", body=BODY, **changes)


def c(function: Callable[..., Any], rule: Rule, nth: int = 1) -> tuple[Control, ...]:
    """One control."""
    return (Control(function, rule, nth),)


GATE: Final = [
    Case(
        "unsigned, whom the library takes for nobody as well",
        c(identity.identify, Rule.SIGNATURE_MISSING),
        asked(lambda: {"Host": sign()["Host"]}),
        frozenset({Rule.SIGNATURE_INVALID}),
    ),
    Case("two signatures", c(identity._verify, Rule.SIGNATURE_INVALID, 2), asked(signed_twice)),
    Case(
        "a client that expired",
        c(identity._RosterKeys.resolve_public_key, Rule.SIGNER_EXPIRED),
        asked(sign, api=expired_client),
    ),
    Case(
        "its query is not signed",
        c(identity._check_covered, Rule.NOT_COVERED),
        asked(lambda: sign(covered=("@method", "@authority", "@path"))),
    ),
    Case(
        "its method is not signed",
        c(identity._check_covered, Rule.NOT_COVERED),
        asked(lambda: sign(covered=COVERED[1:])),
    ),
    Case(
        "a body without a digest",
        c(identity._check_covered, Rule.NOT_COVERED),
        asked(lambda: posted(digest=False), BODY),
    ),
    Case("another body", c(identity._check_digest, Rule.CONTENT_DIGEST), asked(posted, b'{"id":"eve"}')),
    Case("a nonce that can be guessed", c(identity.identify, Rule.NOT_COVERED), asked(lambda: sign(nonce="short"))),
    Case("replayed", c(Window.admit, Rule.REPLAYED), asked(sign, before=True)),
    Case("replayed, after a clock that was a day ahead", c(Window.admit, Rule.STALE), set_back),
    Case("from the future", c(Window.check_age, Rule.TOO_EARLY), asked(lambda: sign(created=NOW + 60))),
    Case(
        "old, whatever its expiry",
        c(Window.check_age, Rule.STALE),
        asked(lambda: sign(created=NOW - OLDEST - 1, lasts=600), api=began(NOW - 1000)),
    ),
    Case(
        "of before a restart",
        c(Window.check_age, Rule.STALE, 2),
        asked(lambda: sign(created=NOW - 5), api=began(NOW - 5)),
    ),
    Case("past its expiry", c(Window.check_age, Rule.EXPIRED), asked(lambda: sign(created=NOW - 5, lasts=5))),
    Case(
        "a header twice",
        c(identity.identify, Rule.MALFORMED),
        asked(lambda: [*sign().items(), ("Content-Type", "a"), ("Content-Type", "b")]),
    ),
    Case(
        "two hosts",
        (*c(gate._message, Rule.MALFORMED, 2), *c(identity.identify, Rule.MALFORMED)),
        asked(lambda: [*sign().items(), ("Host", "evil.test")]),
    ),
    Case(
        "an endless idempotency key",
        c(identity._idempotency_key, Rule.MALFORMED),
        asked(lambda: sign(covered=(*COVERED, "idempotency-key"), headers={"Idempotency-Key": "k" * 300})),
    ),
    Case(
        "without the scope",
        c(identity.Caller.check_scope, Rule.SCOPE_MISSING),
        asked(lambda: sign(client="finance", key="finance")),
    ),
    Case(
        "a line break in its query",
        c(gate._check_target, Rule.MALFORMED),
        asked(lambda: sign(path=f"{PATH}?limit=1&x=%0A"), path=f"{PATH}?limit=1&x=%0A"),
    ),
    Case(
        "compressed",
        c(gate._check_media, Rule.MEDIA_TYPE),
        asked(lambda: posted(headers={"Content-Encoding": "gzip"}), BODY),
    ),
]
BESIDES: Final = {
    "_message malformed": "bytes that are no ASCII make no target: there is nothing to go on with",
    "_verify signature_invalid": "the library's own no in our words: without a result there is no client",
    "_RosterKeys.resolve_public_key signer_not_in_roster": "without a key there is nothing to verify with",
    "Gate._check_room too_many_writes_waiting": "turns away more load than can be recorded, not an attack: test_api_pressure.py",
    "_Verifier.validate_created_and_expires component_not_signed": "without a time there is nothing to compare",
}


@pytest.mark.parametrize("case", GATE, ids=lambda case: case.id)
def test_the_gate_needs_each(case: Case) -> None:
    """With the control the request is refused, by this rule; without it the request is answered."""
    case.check()


def test_the_gate_has_no_other() -> None:
    """Each refusal of the way in is in the table."""
    check_complete([gate, identity, replays], GATE, BESIDES)
