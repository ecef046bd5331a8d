# SPDX-License-Identifier: AGPL-3.0-or-later
"""Passkeys: which assertions are a key's own word over a digest, and every other thing a browser or an attacker can answer."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.signatures import Key, Scheme, Signature
from custody.rules.webauthn import (
    CLIENT_DATA_MOST,
    ORDER,
    VALUE_MOST,
    assertion_value,
    challenge_of,
    origin_host,
    public_form,
)
from tests.fakes.authenticator import AT, BE, BS, ED, HONEST, ORIGIN, UP, UV, Assertion, Authenticator, Lies, high_s
from tests.unit.signers import Signer

DIGEST: Final = bytes(range(32))
OTHER: Final = bytes(range(1, 33))
ANA: Final = Authenticator("ana's passkey")


def client(**changes: object) -> bytes:
    """clientDataJSON as a browser writes it, with these keys changed, or left out where None."""
    data = {"type": "webauthn.get", "challenge": challenge_of(DIGEST), "origin": ORIGIN, "crossOrigin": False} | changes
    return json.dumps({k: v for k, v in data.items() if v is not None}, separators=(",", ":")).encode()


CHROME: Final = {
    "other_keys_can_be_added_here": "do not compare clientDataJSON against a template. See https://goo.gl/yabPex"
}


@pytest.mark.parametrize(
    ("key", "lies"),
    [
        pytest.param(ANA, HONEST, id="a platform passkey"),
        pytest.param(ANA, Lies(flags=UP | UV | BE | BS), id="one that is synchronised"),
        pytest.param(ANA, Lies(flags=UP | UV | BE), id="one that could be"),
        pytest.param(ANA, Lies(counter=2**32 - 1), id="with a counter"),
        pytest.param(ANA, Lies(extra=CHROME), id="Chrome's further key"),
        pytest.param(ANA, Lies(client_data=client(crossOrigin=None)), id="Safari leaves crossOrigin out"),
        pytest.param(Authenticator("bo", "http://localhost:8443"), HONEST, id="http on localhost, with a port"),
        pytest.param(Authenticator("bo", "http://console.localhost"), HONEST, id="http below localhost"),
        pytest.param(
            Authenticator("bo", "https://xn--bcher-kva.example:8443"), HONEST, id="a name in Punycode, a port"
        ),
    ],
)
def test_a_passkeys_own_assertion_holds(key: Authenticator, lies: Lies) -> None:
    """Over the digest it was made for, and over no other."""
    signature = key.over(DIGEST, lies)
    assert signature.is_over(DIGEST)
    assert not signature.is_over(OTHER)
    assert len(signature.value) <= VALUE_MOST


@pytest.mark.parametrize(
    "lies",
    [
        pytest.param(Lies(origin="https://treasury.bulkhead.example.evil"), id="another origin"),
        pytest.param(Lies(origin="https://treasury.bulkhead.example:8443"), id="another port"),
        pytest.param(Lies(origin="http://treasury.bulkhead.example"), id="http"),
        pytest.param(Lies(origin="https://pay.treasury.bulkhead.example"), id="a subdomain"),
        pytest.param(Lies(origin="https://treasury.bulkhead.example/"), id="a path"),
        pytest.param(Lies(origin="HTTPS://TREASURY.BULKHEAD.EXAMPLE"), id="capitals"),
        pytest.param(Lies(origin="https://treasury.bulkhead.example."), id="a final dot"),
        pytest.param(Lies(origin="https://user@treasury.bulkhead.example"), id="a user in the origin"),
        pytest.param(Lies(origin="https://tre\u0430sury.bulkhead.example"), id="a Cyrillic letter"),
        pytest.param(Lies(origin=""), id="no origin"),
        pytest.param(Lies(origin="null"), id="an opaque origin"),
        pytest.param(Lies(origin="android:apk-key-hash:AAAA"), id="an app"),
        pytest.param(Lies(rp_id="bulkhead.example"), id="rpId of the parent domain"),
        pytest.param(Lies(rp_id="evil.example"), id="another rpId"),
        pytest.param(Lies(rp_id=""), id="empty rpId"),
        pytest.param(Lies(rp_id=ORIGIN), id="the origin for an rpId"),
        pytest.param(Lies(type="webauthn.create"), id="a registration"),
        pytest.param(Lies(type="payment.get"), id="a payment"),
        pytest.param(Lies(client_data=client(type=None)), id="no type"),
        pytest.param(Lies(challenge=challenge_of(OTHER)), id="another digest"),
        pytest.param(Lies(challenge=""), id="empty challenge"),
        pytest.param(Lies(challenge=challenge_of(DIGEST) + "="), id="challenge with padding"),
        pytest.param(Lies(challenge=challenge_of(DIGEST + b"\0")), id="challenge with a byte more"),
        pytest.param(Lies(challenge=challenge_of(DIGEST)[:-1] + "9"), id="challenge in another spelling"),
        pytest.param(Lies(challenge="0x" + DIGEST.hex()), id="challenge in hex"),
        pytest.param(Lies(client_data=client(challenge=None)), id="no challenge"),
        pytest.param(Lies(extra={"crossOrigin": True}), id="in another page's frame"),
        pytest.param(Lies(extra={"crossOrigin": "false"}), id="crossOrigin a text"),
        pytest.param(Lies(extra={"crossOrigin": 0}), id="crossOrigin a number"),
        pytest.param(Lies(extra={"topOrigin": ORIGIN}), id="topOrigin, though its own"),
        pytest.param(Lies(extra={"topOrigin": None}), id="topOrigin null"),
        pytest.param(Lies(extra={"tokenBinding": {"status": "present", "id": "x"}}), id="a structure inside"),
        pytest.param(Lies(flags=UP), id="user not verified"),
        pytest.param(Lies(flags=UV), id="user not present"),
        pytest.param(Lies(flags=0), id="no flag"),
        pytest.param(Lies(flags=UP | UV | BS), id="backed up, though it cannot be"),
        pytest.param(Lies(flags=UP | UV | 2), id="a reserved flag"),
        pytest.param(Lies(flags=UP | UV | 32), id="the other reserved flag"),
        pytest.param(Lies(flags=UP | UV | AT), id="says it carries a key"),
        pytest.param(Lies(flags=UP | UV | ED), id="says it carries extensions"),
        pytest.param(Lies(client_data=client(challenge=challenge_of(OTHER))[:-1] + client()[:0] + b',"challenge":"'
                          + challenge_of(DIGEST).encode() + b'"}'), id="challenge twice, ours last"),
        pytest.param(Lies(client_data=client()[:-1] + b',"origin":"' + ORIGIN.encode() + b'"}'), id="origin twice, the same"),
        pytest.param(Lies(client_data=client().decode().encode("utf-16")), id="UTF-16"),
        pytest.param(Lies(client_data=b"\xef\xbb\xbf" + client()), id="with a byte order mark"),
        pytest.param(Lies(client_data=client() + b"{}"), id="something after the object"),
        pytest.param(Lies(client_data=b"[" + client() + b"]"), id="a list"),
        pytest.param(Lies(client_data=b'"webauthn.get"'), id="a text"),
        pytest.param(Lies(client_data=b"\xff\xfe"), id="no UTF-8"),
        pytest.param(Lies(client_data=b"[" * CLIENT_DATA_MOST), id="nested as deep as it may be long"),
        pytest.param(Lies(client_data=b'{"type":"webauthn.get","x":' + b"9" * 900 + b"}"), id="a huge number"),
    ],
)  # fmt: skip
def test_an_assertion_that_says_something_else_is_no_signature(lies: Lies) -> None:
    """Each was truly signed by the key in the roster, so only what it says can refuse it; none raises."""
    assert Signature(ANA.key, ANA.assertion(DIGEST, lies).value).is_over(DIGEST) is False


@pytest.mark.parametrize(
    ("spoil", "writable"),
    [
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, high_s(a.signature)), True, id="high s"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, a.signature + b"\0"), False, id="a byte after it"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, a.signature[:-1]), False, id="cut short"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, long_form(a.signature)), False, id="BER length"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, der(0, 0)), False, id="r and s zero"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, der(ORDER, 1)), False, id="r the order"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, der(-1, -1)), False, id="below zero"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, der(2**4096, 1)), False, id="a huge r"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, b"\1" * 64), False, id="64 raw bytes"),
        pytest.param(lambda a: Assertion(a.authenticator_data, a.client_data, b""), False, id="no signature"),
        pytest.param(lambda a: Assertion(a.authenticator_data + b"\0", a.client_data, a.signature), False, id="38 bytes"),
        pytest.param(lambda a: Assertion(a.authenticator_data[:-1], a.client_data, a.signature), False, id="36 bytes"),
        pytest.param(lambda a: Assertion(a.authenticator_data, b"", a.signature), False, id="no client data"),
        pytest.param(lambda a: Assertion(a.authenticator_data, b" " * 1025, a.signature), False, id="1025 bytes of it"),
    ],
)  # fmt: skip
def test_a_value_has_one_form(spoil: Callable[[Assertion], Assertion], writable: bool) -> None:
    """Put together carelessly it is no signature; `assertion_value` brings a high s down and refuses the rest."""
    spoilt = spoil(ANA.assertion(DIGEST))
    assert Signature(ANA.key, spoilt.unchecked).is_over(DIGEST) is False
    if writable:
        assert Signature(ANA.key, spoilt.value).is_over(DIGEST) is True
    else:
        with pytest.raises(InvalidInput) as caught:
            assert spoilt.value
        assert caught.value.rule == Rule.MALFORMED


def der(r: int, s: int) -> bytes:
    """Two integers in DER."""

    def integer(value: int) -> bytes:
        raw = value.to_bytes((value.bit_length() // 8) + 1, signed=True)
        return b"\x02" + (bytes([len(raw)]) if len(raw) < 128 else b"\x82" + len(raw).to_bytes(2)) + raw

    if r >= 0 and s >= 0:
        return encode_dss_signature(r, s)
    body = integer(r) + integer(s)
    return b"\x30" + bytes([len(body)]) + body


def long_form(signature: bytes) -> bytes:
    """The same signature with its length spelled in two bytes, as BER allows and DER does not."""
    return signature[:1] + b"\x81" + signature[1:]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda v: b"", id="empty"),
        pytest.param(lambda v: v[:37], id="ends before the length"),
        pytest.param(lambda v: v[:39], id="ends after the length"),
        pytest.param(lambda v: v[:37] + b"\xff\xff" + v[39:], id="length beyond the end"),
        pytest.param(lambda v: v[:37] + b"\x00\x00" + v[39:], id="length zero"),
        pytest.param(lambda v: v + bytes(VALUE_MOST), id="too long"),
        pytest.param(lambda v: v[:32] + bytes([v[32] ^ 4]) + v[33:], id="a flag changed after signing"),
        pytest.param(lambda v: v[:33] + bytes([v[33] ^ 1]) + v[34:], id="the counter changed after signing"),
        pytest.param(lambda v: v[:39] + v[39:].replace(b'"crossOrigin":false', b'"crossOrigin":false '), id="a space more"),
    ],
)  # fmt: skip
def test_a_spoilt_value_is_no_signature(spoil: Callable[[bytes], bytes]) -> None:
    """None of them raises."""
    assert Signature(ANA.key, spoil(ANA.over(DIGEST).value)).is_over(DIGEST) is False


def test_another_key_another_page_another_scheme() -> None:
    """An assertion counts for the key and the page that the roster names together."""
    value = ANA.over(DIGEST).value
    assert not Signature(Authenticator("bo's passkey").key, value).is_over(DIGEST)
    assert not Signature(ANA.at("https://other.example").key, value).is_over(DIGEST)
    assert not Signature(Signer("device:ana").key, value).is_over(DIGEST)
    assert not Signature(Signer("backend").key, value).is_over(DIGEST)
    assert not Signature(ANA.key, Signer("device:ana").over(DIGEST).value).is_over(DIGEST)


@pytest.mark.parametrize("digest", [DIGEST[:31], DIGEST + b"\0", b""], ids=["31 bytes", "33 bytes", "none"])
def test_only_32_bytes_are_a_digest(digest: bytes) -> None:
    """A challenge of another length is somebody's password prompt, no message of ours."""
    assert Signature(ANA.key, ANA.assertion(digest).value).is_over(digest) is False


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_bytes_are_an_assertion_by_luck_nor_an_exception(noise: bytes, at: int) -> None:
    """Whatever a peer sends, pure noise or noise written over a true one, is true or false."""
    true = ANA.over(DIGEST).value
    assert Signature(ANA.key, noise).is_over(DIGEST) is False
    spoilt = true[:at] + noise + true[at + len(noise) :]
    assert Signature(ANA.key, spoilt).is_over(DIGEST) is (spoilt == true)


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(ANA.key.public[:32] + bytes(64), id="zero"),
        pytest.param(ANA.key.public[:64] + bytes([ANA.key.public[64] ^ 1]) + ANA.key.public[65:], id="beside the curve"),
        pytest.param(ANA.key.public[:32] + b"\xff" * 64, id="outside the field"),
        pytest.param(ANA.key.public[:95], id="95 bytes"),
        pytest.param(b"\4" + ANA.key.public[32:], id="a point without a page"),
        pytest.param(b"", id="empty"),
    ],
)  # fmt: skip
def test_a_key_is_a_point_on_the_curve(public: bytes) -> None:
    """A roster cannot name another."""
    with pytest.raises(InvalidInput) as caught:
        Key(Scheme.WEBAUTHN_ES256, public)
    assert (caught.value.field, caught.value.rule) == ("key.public", Rule.MALFORMED)


def test_one_passkey_on_two_pages_is_one_key() -> None:
    """The pages' hashes differ, what its holder holds does not."""
    assert ANA.key != ANA.at("https://other.example").key
    assert ANA.key.material == ANA.at("https://other.example").key.material


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        pytest.param("https://treasury.example", "treasury.example", id="https"),
        pytest.param("https://treasury.example:8443", "treasury.example", id="a port"),
        pytest.param("http://localhost:8000", "localhost", id="localhost"),
        pytest.param("http://a.localhost", "a.localhost", id="below localhost"),
        pytest.param("https://localhost", "localhost", id="localhost by https"),
    ],
)
def test_the_rp_id_is_the_host(origin: str, host: str) -> None:
    """Exactly."""
    assert origin_host(origin) == host


@pytest.mark.parametrize(
    "origin",
    [
        "", "treasury.example", "http://treasury.example", "http://localhost.evil.example", "http://127.0.0.1:8000", "https://127.0.0.1",
        "https://[::1]", "https://treasury.example:443", "http://localhost:80", "https://treasury.example:99999", "https://a..b",
        "https://-a.example", "https://a_b.example", "ftp://treasury.example", "https://Treasury.example", "https://treasury.example/x",
        "https://treasury.example?", "https://treasury.example#", "https://a b.example", "https://" + "a" * 64 + ".example",
        "https://" + ".".join(["a" * 60] * 6), "https://treasury.example\n", "https://treasury.example:08443",
    ],
)  # fmt: skip
def test_what_is_no_origin_of_a_page(origin: str) -> None:
    """Nor can a passkey be named for one."""
    for attempt in (lambda: origin_host(origin), lambda: public_form(origin, *ANA.point)):
        with pytest.raises(InvalidInput) as caught:
            attempt()
        assert (caught.value.field, caught.value.rule) == ("origin", Rule.MALFORMED)


@pytest.mark.parametrize(
    "point", [(0, 0), (-1, 1), (2**256, 1), (1, 1)], ids=["zero", "below", "above", "off the curve"]
)
def test_what_is_no_point(point: tuple[int, int]) -> None:
    """The same for coordinates."""
    with pytest.raises(InvalidInput):
        public_form(ORIGIN, *point)


def test_the_form_is_the_pages_hash_and_the_point() -> None:
    """96 bytes, as docs/passkeys.md says."""
    x, y = ANA.point
    assert ANA.key.public == hashlib.sha256(ORIGIN.encode()).digest() + x.to_bytes(32) + y.to_bytes(32)


def test_a_value_is_its_three_parts() -> None:
    """As docs/passkeys.md says, for whoever writes it in another language."""
    made = ANA.assertion(DIGEST)
    value = assertion_value(made.authenticator_data, made.client_data, made.signature)
    assert value[:37] == made.authenticator_data
    length = int.from_bytes(value[37:39])
    assert value[39 : 39 + length] == made.client_data
    assert value[39 + length :] in (made.signature, der_of_low(made.signature))


def der_of_low(signature: bytes) -> bytes:
    """A signature with its lower s."""
    r, s = decode_dss_signature(signature)
    return der(r, min(s, ORDER - s))


def test_the_library_loads_when_a_passkey_is_checked_and_not_before() -> None:
    """A seat that never sees a passkey's signature pays for none."""
    text = (
        "import sys; from custody.rules import signatures as s; "
        f"k = s.Key('webauthn-es256', bytes.fromhex('{ANA.key.public.hex()}')); assert 'webauthn' not in sys.modules; "
        "assert not s.Signature(k, b'').is_over(bytes(32)); assert 'webauthn' not in sys.modules; "
        f"assert s.Signature(k, bytes.fromhex('{ANA.over(DIGEST).value.hex()}')).is_over(bytes.fromhex('{DIGEST.hex()}')); "
        "assert 'webauthn' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)
