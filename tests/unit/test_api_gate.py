# SPDX-License-Identifier: AGPL-3.0-or-later
"""Nothing gets in but a request that a client of the roster signed whole, now, once, for this deployment (RFC 9421, RFC 9530)."""

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from http_message_signatures import ContentDigest, HTTPMessageSigner, MappingKeyResolver, algorithms

from api import bodies
from api.bodies import BODY_BYTES
from api.replays import AHEAD, OLDEST
from api.signing import HeaderLines, Message, tag
from custody.rules.errors import InvalidInput
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from tests.fakes.api import HOST, URL, Answer, Api, private
from tests.fakes.seat import NOW
from tests.fakes.treasury import Treasury, kernel, roster
from tests.fakes.trust import world

PATH: Final = "/v1/customers"
BODY: Final = b'{"id":"zoe"}'
NONCE: Final = "0123456789abcdef"
COVERED: Final = ("@method", "@authority", "@path", "@query")


@pytest.fixture(scope="module")
def api() -> Api:
    """One app for all refusals: none of them changes anything."""
    return Api()


class Careless(HTTPMessageSigner):
    """Signs whatever digest it finds; the library's own signer would not."""

    class content_digest_class(ContentDigest):  # noqa: N801  # the library's name
        """Looks at nothing that is there."""

        @classmethod
        def prepare(cls, headers: Any, body: bytes | None, *, use_existing_digest: bool) -> None:
            """Add a digest where a body is given."""
            if body is not None:
                cls.add(headers, body)


def sign(
    method: str = "GET",
    path: str = PATH,
    body: bytes = b"",
    *,
    url: str = URL,
    client: str = "backend",
    key: str = "backend",
    created: int | None = NOW,
    lasts: int | None = 60,
    nonce: str | None = NONCE,
    genesis: bytes | None = None,
    covered: tuple[str, ...] = COVERED,
    digest: bool = True,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """A request's headers as the library signs them, one thing of it changed."""
    told = {"Host": HOST, **({"Content-Type": "application/json"} if body else {}), **(headers or {})}
    message = Message(method, url + path, HeaderLines(told.items()))
    keys = MappingKeyResolver(public_keys={}, private_keys={client: private(key)})
    prepared: dict[str, Any] = {"body": body} if body and digest else {}
    Careless(signature_algorithm=algorithms.ED25519, key_resolver=keys).sign(
        message,
        key_id=client,
        created=None if created is None else datetime.fromtimestamp(created, UTC),
        expires=None if lasts is None else datetime.fromtimestamp((created or NOW) + lasts, UTC),
        nonce=nonce,
        label="x",
        tag=tag(genesis or world().domain.genesis),
        covered_component_ids=covered,
        **prepared,
    )
    return dict(message.headers.items())


def without(headers: dict[str, str], name: str) -> dict[str, str]:
    """The headers but one."""
    return {known: value for known, value in headers.items() if known.lower() != name}


def with_text(headers: dict[str, str], name: str, old: str, new: str) -> dict[str, str]:
    """The headers with one of them changed after signing."""
    assert old in headers[name]
    return {**headers, name: headers[name].replace(old, new)}


def get(headers: dict[str, str] | list[tuple[str, str]], path: str = PATH) -> Callable[[Api], Answer]:
    """Send a GET."""
    return lambda api: api.send("GET", path, b"", headers)


def post(headers: dict[str, str], body: bytes = BODY) -> Callable[[Api], Answer]:
    """Send a POST."""
    return lambda api: api.send("POST", PATH, body, headers)


class TestSigned:
    """What a signature must be, and cover."""

    def test_accepted(self) -> None:
        """Either spelling of the target, with and without a body."""
        api = Api()
        assert get(sign())(api).status == 200
        assert get(sign(covered=("@method", "@target-uri"), nonce=NONCE * 2))(api).status == 200
        assert get(sign(path=f"{PATH}?limit=1", nonce=NONCE + "a"), f"{PATH}?limit=1")(api).status == 200
        assert post(sign("POST", body=BODY, nonce=NONCE + "b"))(api).status == 201

    @pytest.mark.parametrize(
        ("ask", "rule"),
        [
            pytest.param(get({"Host": HOST}), "signature_missing", id="unsigned"),
            pytest.param(get(without(sign(), "signature")), "signature_missing", id="input without signature"),
            pytest.param(get(without(sign(), "signature-input")), "signature_missing", id="signature without input"),
            pytest.param(get(sign(key="settler")), "signature_invalid", id="another client's key"),
            pytest.param(get(sign(key="stranger")), "signature_invalid", id="a stranger's key"),
            pytest.param(get(sign(client="stranger")), "signer_not_in_roster", id="unknown client"),
            pytest.param(get(sign(client="ana", key="ana")), "signer_not_in_roster", id="a person is no client"),
            pytest.param(
                get(sign(client="attestor", key="attestor")), "signer_not_in_roster", id="the attestor is no client"
            ),
            pytest.param(get(sign(genesis=b"\1" * 32)), "signature_invalid", id="signed for another deployment"),
            pytest.param(get(sign(path="/v1/wallets")), "signature_invalid", id="another path"),
            pytest.param(get(sign(), f"{PATH}?limit=2"), "signature_invalid", id="a query added"),
            pytest.param(get(sign(method="POST")), "signature_invalid", id="another method"),
            pytest.param(get(sign(url="http://evil.test")), "signature_invalid", id="another authority"),
            pytest.param(
                get(sign(covered=("@method", "@authority", "@path"))), "component_not_signed", id="query not covered"
            ),
            pytest.param(
                get(sign(covered=("@authority", "@path", "@query"))), "component_not_signed", id="method not covered"
            ),
            pytest.param(
                get(sign(covered=("@method", "@path", "@query"))), "component_not_signed", id="authority not covered"
            ),
            pytest.param(get(sign(nonce=None)), "component_not_signed", id="no nonce"),
            pytest.param(get(sign(nonce="short")), "component_not_signed", id="a short nonce"),
            pytest.param(get(sign(lasts=None)), "component_not_signed", id="no expiry"),
            pytest.param(get(sign(created=NOW - OLDEST - 1, lasts=600)), "stale", id="too old, whatever its expiry"),
            pytest.param(get(sign(created=NOW + AHEAD + 1)), "not_yet_valid", id="a clock too far ahead"),
            pytest.param(get(sign(created=NOW - 5, lasts=5)), "expired", id="expired"),
            pytest.param(
                get(with_text(sign(), "Signature-Input", f"created={NOW}", f"created={NOW - 1}")),
                "signature_invalid",
                id="time changed",
            ),
            pytest.param(
                get(with_text(sign(), "Signature-Input", "backend", "settler")),
                "signature_invalid",
                id="client changed",
            ),
            pytest.param(
                get(with_text(sign(), "Signature-Input", "ed25519", "hmac-sha256")),
                "signature_invalid",
                id="another algorithm",
            ),
            pytest.param(get({**sign(), "Signature": "x=:AA==:"}), "signature_invalid", id="a short signature"),
            pytest.param(get({**sign(), "Signature": "nonsense"}), "signature_invalid", id="no structured field"),
            pytest.param(
                get({**sign(), "Idempotency-Key": "k"}), "component_not_signed", id="a key added after signing"
            ),
            pytest.param(post(sign("POST")), "component_not_signed", id="a body added after signing"),
            pytest.param(
                post(sign("POST", body=BODY, digest=False)), "component_not_signed", id="a body without digest"
            ),
            pytest.param(post(sign("POST", body=BODY), b'{"id":"eve"}'), "content_digest_mismatch", id="another body"),
            pytest.param(
                post(without(sign("POST", body=BODY), "content-digest")), "signature_invalid", id="digest taken away"
            ),
            pytest.param(
                post(with_text(sign("POST", body=BODY), "Content-Digest", "sha-256", "sha-512")),
                "signature_invalid",
                id="digest renamed",
            ),
        ],
    )
    def test_refused(self, api: Api, ask: Callable[[Api], Answer], rule: str) -> None:
        """401 by the rule, and the way to authenticate."""
        answer = ask(api)
        assert (answer.status, answer.rule) == (401, rule)
        assert answer.headers["www-authenticate"] == "Signature"

    def test_digest_of_a_weak_kind(self, api: Api) -> None:
        """MD5 is no digest, signed or not."""
        md5 = base64.b64encode(bytes(16)).decode()
        headers = sign(
            "POST",
            body=BODY,
            digest=False,
            covered=(*COVERED, "content-digest"),
            headers={"Content-Digest": f"md5=:{md5}:"},
        )
        assert post(headers)(api).rule == "content_digest_mismatch"

    @pytest.mark.parametrize("name", ["Host", "Content-Digest", "Idempotency-Key", "Content-Type"])
    def test_a_header_twice(self, api: Api, name: str) -> None:
        """One reader might take the first and another both."""
        headers = [*sign("POST", body=BODY, headers={"Idempotency-Key": "k"}).items(), (name, "x")]
        answer = api.send("POST", PATH, BODY, headers)
        assert (answer.status, answer.rule) == (400, "malformed")

    @pytest.mark.parametrize("path", ["/v1/nothing", "/v1/openapi.json", "/", "/v1/health/", "/v1/transfers"])
    def test_strangers_hear_nothing(self, api: Api, path: str) -> None:
        """Not even which routes there are."""
        assert get({"Host": HOST}, path)(api).status == 401

    def test_health_is_open_to_look_at_only(self, api: Api) -> None:
        """The one open route changes nothing."""
        assert get({"Host": HOST}, "/v1/health")(api).json == {"status": "ok", "ready": True}
        assert api.send("POST", "/v1/health", b"", {"Host": HOST}).status == 401


class TestOnce:
    """A request is taken once."""

    def test_replayed(self) -> None:
        """The same bytes again, and the same nonce in another request."""
        api, headers = Api(), sign("POST", body=BODY)
        assert post(headers)(api).status == 201
        assert (post(headers)(api).status, post(headers)(api).rule) == (401, "request_replayed")
        assert get(sign())(api).rule == "request_replayed"

    def test_a_nonce_is_its_clients(self) -> None:
        """Nobody can use up another's nonces."""
        api = Api()
        assert get(sign(client="settler", key="settler"))(api).status == 200
        assert get(sign())(api).status == 200

    def test_refused_requests_use_up_no_nonce(self) -> None:
        """Whoever cannot sign cannot burn a nonce that they saw."""
        api = Api()
        assert get(sign(key="settler"))(api).status == 401
        assert get(sign())(api).status == 200

    @pytest.mark.parametrize("after", [1, OLDEST, OLDEST + 1, 3 * OLDEST])
    def test_at_any_later_time(self, after: int) -> None:
        """While it could be fresh the nonce is remembered; afterwards the age refuses."""
        api, headers = Api(), sign(lasts=10**6)
        assert get(headers)(api).status == 200
        api.clock.now += after
        assert get(headers)(api).rule == ("request_replayed" if after <= OLDEST else "stale")

    def test_what_an_earlier_process_may_have_taken(self) -> None:
        """A restart forgets nonces, so it refuses whatever was signed before it; health says from when on it takes requests."""
        api = Api(changes={"begun": NOW})
        assert get({"Host": HOST}, "/v1/health")(api).json["ready"] is False
        assert get(sign())(api).rule == "stale"
        assert get(sign(created=NOW + AHEAD))(api).rule == "stale"
        api.clock.now += AHEAD + 1
        assert get({"Host": HOST}, "/v1/health")(api).json["ready"] is True
        assert get(sign(created=NOW + AHEAD + 1))(api).status == 200


class TestRoster:
    """Who is a client is the newest roster's to say, at once."""

    def _changed(self, **changes: Any) -> Api:
        version = roster().version
        clients = tuple(
            replace(c, **changes) if c.id == "backend" else c for c in version.clients if changes or c.id != "backend"
        )
        signed = Signed(replace(version, clients=clients), ())
        newer = Roster(signed, world().domain.genesis)
        return Api(treasury=Treasury(kernel=kernel(rosters=(newer,))))

    def test_revoked(self) -> None:
        """A client that the newest version no longer names."""
        assert get(sign())(self._changed()).rule == "signer_not_in_roster"

    def test_expired(self) -> None:
        """An entry at its end."""
        assert get(sign())(self._changed(expires=NOW)).rule == "signer_expired"
        assert get(sign())(self._changed(expires=NOW + 1)).status == 200

    def test_key_exchanged(self) -> None:
        """The old key of a client is nobody's."""
        other = next(c.key for c in roster().version.clients if c.id == "desk")
        assert get(sign())(self._changed(key=other)).rule == "signature_invalid"
        assert get(sign(key="desk"))(self._changed(key=other)).status == 200


DEEP: Final = b'{"id":' + b"[" * 5000 + b"]" * 5000 + b"}"


class TestBodies:
    """Strict JSON in a bounded body; nothing of it is parsed before the signature holds."""

    @pytest.mark.parametrize(
        ("body", "status", "rule"),
        [
            pytest.param(b"{", 400, "malformed", id="not JSON"),
            pytest.param(b"[]", 400, "malformed", id="no object"),
            pytest.param(b'"zoe"', 400, "malformed", id="a bare string"),
            pytest.param(b'{"id":NaN}', 400, "malformed", id="NaN"),
            pytest.param(b'{"id":Infinity}', 400, "malformed", id="Infinity"),
            pytest.param(b'{"id":1.5}', 400, "malformed", id="a float"),
            pytest.param(b'{"id":1e400}', 400, "malformed", id="a float beyond all"),
            pytest.param(b'{"id":' + b"9" * 21 + b"}", 400, "malformed", id="a huge integer"),
            pytest.param(b'{"id":' + b"9" * 100_000 + b"}", 400, "malformed", id="an integer that takes minutes"),
            pytest.param(b'{"id":7}', 400, "malformed", id="a number for a text"),
            pytest.param(b'{"id":"a","id":"b"}', 400, "malformed", id="a name twice"),
            pytest.param(b'{"id":"\\ud800"}', 400, "malformed", id="a lone surrogate"),
            pytest.param(b'{"id":"\xff"}', 400, "malformed", id="no UTF-8"),
            pytest.param(DEEP, 400, "malformed", id="nested too deeply"),
            pytest.param(b'{"id":"zoe","more":1}', 400, "malformed", id="an unknown key"),
            pytest.param(b"{}", 400, "malformed", id="a missing key"),
            pytest.param(b'{"id":"Zoe!"}', 400, "malformed", id="no id"),
            pytest.param(b'{"id":"' + b"z" * BODY_BYTES + b'"}', 413, "body_too_large", id="too large"),
        ],
    )
    def test_refused(self, api: Api, body: bytes, status: int, rule: str) -> None:
        """A problem by its rule, however the body was made."""
        answer = api.ask("POST", PATH, body)
        assert (answer.status, answer.rule) == (status, rule)

    def test_depth_is_bounded_before_parsing(self, api: Api) -> None:
        """Not by the parser's own limit, which a library raises for everybody: a dead process instead of an answer."""
        for levels, said in ((70, True), (60, False)):
            body = b'{"id":' + b"[" * levels + b"]" * levels + b"}"
            assert ("nested too deeply" in api.ask("POST", PATH, body).json["detail"]) is said

    def test_announced_too_large(self, api: Api) -> None:
        """Refused by its announced length, before anything is read."""
        assert api.send("POST", PATH, b"", {"Host": HOST, "Content-Length": "9" * 30}).status == 413

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json2"])
    def test_another_media_type(self, api: Api, kind: str) -> None:
        """JSON alone, told as JSON."""
        answer = api.ask("POST", PATH, BODY, headers={"Content-Type": kind})
        assert (answer.status, answer.rule) == (415, "media_type_not_json")

    def test_compressed(self, api: Api) -> None:
        """A small body that unpacks to a large one is no body of ours."""
        assert api.ask("POST", PATH, BODY, headers={"Content-Encoding": "gzip"}).rule == "media_type_not_json"

    def test_strangers_bodies_are_not_parsed(self, api: Api) -> None:
        """Bad JSON without a signature is a missing signature."""
        assert api.send("POST", PATH, DEEP, {"Host": HOST}).rule == "signature_missing"


def test_a_body_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that never ends is given up on."""
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)

    async def drip() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(InvalidInput, match="not whole"):
        asyncio.run(bodies.receive_body(drip, None))


def test_nothing_was_changed_by_refusals(api: Api) -> None:
    """After every refusal above, the customers are those there were."""
    found = api.ask("GET", PATH).json["items"]
    assert [row["id"] for row in found] == ["ada", "bo"], json.dumps(found)
