# SPDX-License-Identifier: AGPL-3.0-or-later
"""Enrolling: which answers of a browser become a passkey, which do not, and what a mirrored row is worth."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from webauthn.helpers import encode_cbor

from custody.rules.errors import InvalidInput
from custody.rules.passkeys import Passkey, creation_options, enrolled, known, request_options, signature_of
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from tests.fakes.authenticator import AT, ED, ORIGIN, UP, UV, Authenticator, Lies, base64url
from tests.unit.signers import GENESIS, VERSION_1, Signer

CHALLENGE: Final = bytes(range(100, 132))
DIGEST: Final = bytes(range(32))
ANA: Final = Authenticator("ana's passkey")


def enrolment(lies: Lies | None = None, **changes: object) -> dict[str, Any]:
    """The file that a page offers, with these keys changed."""
    made = {
        "type": "PasskeyEnrolment",
        "person": "ana",
        "origin": ORIGIN,
        "challenge": "0x" + CHALLENGE.hex(),
        "response": ANA.registration(CHALLENGE, lies or Lies()),
    }
    return made | changes


def test_an_enrolment_is_the_key_that_answered() -> None:
    """The key as rosters name it, and by what a page finds it."""
    assert enrolled(enrolment()) == Passkey("ana", ANA.key, ANA.credential_id, ("internal",))


def attested(**changes: Any) -> dict[str, Any]:
    """An enrolment whose attestation object says something else; None leaves a key out."""
    made = enrolment()
    x, y = ANA.point
    cose = {1: 2, 3: -7, -1: 1, -2: x.to_bytes(32), -3: y.to_bytes(32)} | changes.pop("cose", {})
    data = ANA._authenticator_data(
        Lies(), UP | UV | AT, bytes(16) + len(ANA.credential_id).to_bytes(2) + ANA.credential_id + encode_cbor(cose)
    )
    whole = {"fmt": "none", "attStmt": {}, "authData": data} | changes
    made["response"]["response"]["attestationObject"] = base64url(encode_cbor(whole))
    return made


def response(**changes: object) -> dict[str, Any]:
    """An enrolment with keys of the answer's inner object changed."""
    made = enrolment()
    made["response"]["response"] |= changes
    return made


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param({}, id="empty"),
        pytest.param({k: v for k, v in enrolment().items() if k != "person"}, id="for nobody"),
        pytest.param(enrolment() | {"public_key": "0x00"}, id="a key beside the answer"),
        pytest.param(enrolment(type="Passkey"), id="another type"),
        pytest.param(enrolment(person=""), id="an empty person"),
        pytest.param(enrolment(person=7), id="a number for a person"),
        pytest.param(enrolment(challenge="0x00"), id="a short challenge"),
        pytest.param(enrolment(challenge="0x" + "FF" * 32), id="capitals in the challenge"),
        pytest.param(enrolment(challenge="0x" + "00" * 32), id="another challenge"),
        pytest.param(enrolment(origin="https://other.example"), id="another page"),
        pytest.param(enrolment(origin="http://treasury.bulkhead.example"), id="an origin that is none"),
        pytest.param(enrolment(origin=None), id="no origin"),
        pytest.param(enrolment(response=None), id="no answer"),
        pytest.param(enrolment(response={"response": None}), id="an answer without one"),
        pytest.param(enrolment(response={"x": "a" * 20_000}), id="an answer without end"),
        pytest.param(enrolment(Lies(origin="https://evil.example")), id="made at another page"),
        pytest.param(enrolment(Lies(rp_id="bulkhead.example")), id="rpId of the parent domain"),
        pytest.param(enrolment(Lies(type="webauthn.get")), id="an assertion"),
        pytest.param(enrolment(Lies(flags=UP | AT)), id="user not verified"),
        pytest.param(enrolment(Lies(flags=UV | AT)), id="user not present"),
        pytest.param(enrolment(Lies(flags=UP | UV)), id="carries no key"),
        pytest.param(enrolment(Lies(flags=UP | UV | AT | ED)), id="says it carries extensions"),
        pytest.param(enrolment(Lies(trailing=b"\0")), id="something after the key"),
        pytest.param(enrolment(Lies(extra={"crossOrigin": True})), id="in another page's frame"),
        pytest.param(response(clientDataJSON="="), id="no base64url"),
        pytest.param(response(attestationObject=""), id="no attestation object"),
        pytest.param(response(attestationObject=base64url(b"\xff" * 40)), id="no CBOR"),
        pytest.param(response(attestationObject=base64url(encode_cbor([1]))), id="CBOR of a list"),
        pytest.param(response(attestationObject=base64url(encode_cbor({}))), id="CBOR of nothing"),
        pytest.param(response(attestationObject=base64url(b"\x81" * 9_000)), id="CBOR nested without end"),
        pytest.param(attested(fmt="something"), id="an unknown format"),
        pytest.param(attested(fmt=7), id="a format that is a number"),
        pytest.param(attested(attStmt={"x5c": [b"\0"]}), id="attestation `none` with a statement"),
        pytest.param(attested(fmt="packed", attStmt={"alg": -7, "sig": b"\0" * 70}), id="a signature of nobody"),
        pytest.param(attested(authData=b"\0" * 10), id="ten bytes of data"),
        pytest.param(attested(cose={3: -257}), id="for RSA"),
        pytest.param(attested(cose={-1: 2}), id="on another curve"),
        pytest.param(attested(cose={1: 1}), id="an Ed25519 key"),
        pytest.param(attested(cose={-2: b"\1" * 31}), id="a coordinate of 31 bytes"),
        pytest.param(attested(cose={-2: b"\0" * 31 + b"\1", -3: b"\0" * 31 + b"\1"}), id="beside the curve"),
        pytest.param(attested(cose={-2: 7, -3: 8}), id="coordinates that are numbers"),
    ],
)
def test_what_becomes_no_passkey(data: object) -> None:
    """Refused as input, whatever it is; none raises anything else."""
    with pytest.raises(InvalidInput):
        enrolled(data)


def test_options_ask_for_what_is_verified() -> None:
    """ES256 only, user verification always, no attestation, no extension, the page's own host."""
    options = creation_options("ana", "Ana Araujo", ORIGIN, CHALLENGE)
    assert options["challenge"] == base64url(CHALLENGE)
    assert options["rp"]["id"] == "treasury.bulkhead.example"
    assert [each["alg"] for each in options["pubKeyCredParams"]] == [-7]
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert options["attestation"] == "none"
    assert not options.get("extensions")


@pytest.mark.parametrize(
    "passkeys", [(), (Passkey("ana", ANA.key, ANA.credential_id, ("internal", "hybrid")),)], ids=["any", "hers"]
)
def test_a_request_asks_for_the_digest(passkeys: tuple[Passkey, ...]) -> None:
    """The challenge is the digest and nothing else."""
    options = request_options(DIGEST, ORIGIN, passkeys)
    assert options["challenge"] == base64url(DIGEST)
    assert (options["rpId"], options["userVerification"]) == ("treasury.bulkhead.example", "required")
    assert [each["id"] for each in options["allowCredentials"]] == [base64url(p.credential_id) for p in passkeys]


def answer() -> dict[str, Any]:
    """What a page sends after `credentials.get`."""
    made = ANA.assertion(DIGEST)
    return {
        "id": base64url(ANA.credential_id),
        "response": {
            "authenticatorData": base64url(made.authenticator_data),
            "clientDataJSON": base64url(made.client_data),
            "signature": base64url(made.signature),
        },
    }


def test_an_answer_is_a_signature() -> None:
    """Of the key that the server says it is; whether it holds is asked of it."""
    signature = signature_of(ANA.key, answer())
    assert signature.is_over(DIGEST)
    assert not signature_of(Authenticator("bo").key, answer()).is_over(DIGEST)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda a: None, id="nothing"),
        pytest.param(lambda a: {}, id="empty"),
        pytest.param(lambda a: {"response": []}, id="a list"),
        pytest.param(lambda a: {"response": a["response"] | {"signature": None}}, id="no signature"),
        pytest.param(lambda a: {"response": a["response"] | {"signature": "AAAA"}}, id="no DER"),
        pytest.param(lambda a: {"response": a["response"] | {"signature": a["response"]["signature"] + "="}}, id="padding"),
        pytest.param(lambda a: {"response": a["response"] | {"authenticatorData": "AA"}}, id="one byte of data"),
        pytest.param(lambda a: {"response": a["response"] | {"clientDataJSON": "A" * 20_000}}, id="without end"),
    ],
)  # fmt: skip
def test_an_answer_of_no_form(spoil: Callable[[dict[str, Any]], object]) -> None:
    """Is invalid input."""
    with pytest.raises(InvalidInput):
        signature_of(ANA.key, spoil(answer()))


def test_a_row_says_where_a_key_is_found_and_nothing_else() -> None:
    """A row for a key that the roster gives nobody, or another, or a damaged one, is not there; nor does a row make a key."""
    people = tuple(
        replace(p, keys=(*p.keys, ANA.key), displays=(*p.displays, False)) if p.id == "ana" else p
        for p in VERSION_1.people
    )
    newest = Roster(Signed(replace(VERSION_1, version=2, people=people), ()), GENESIS)
    hers = enrolled(enrolment())
    rows: list[dict[str, object]] = [
        hers.to_json(),
        replace(hers, person="bo").to_json(),
        replace(hers, key=Authenticator("mallory").key).to_json(),
        hers.to_json() | {"credential_id": "0x"},
        hers.to_json() | {"transports": ["telepathy"]},
        hers.to_json() | {"key": {"scheme": "none", "public": "0x"}},
        {"person": "ana"},
        replace(hers, key=Signer("device:ana").key).to_json(),
    ]
    assert known(rows, newest) == {"ana": (hers,)}
