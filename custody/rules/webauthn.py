# SPDX-License-Identifier: AGPL-3.0-or-later
"""Passkeys: what a browser's assertion has to be before it counts as a key's signature over a typed message (WebAuthn, ES256).

A passkey's public form names the one origin where it may be used, so that the roster entry itself pins the page: a look-alike page,
another port or a subdomain makes no signature. Whether the assertion holds is the library's to say; here stands what it leaves open
and we do not: one spelling of everything, no other frame, no extension, user verification always (docs/passkeys.md).
"""

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from custody.rules.errors import InvalidInput
from custody.rules.json_text import check_depth
from custody.rules.refusals import Rule

PUBLIC_BYTES: Final = 96
"""A passkey's public form: SHA-256 of its origin, then x and y of its point on P-256, 32 bytes each."""
AUTHENTICATOR_BYTES: Final = 37
"""rpIdHash, flags and counter. We ask for no extension, so an assertion has nothing more."""
CLIENT_DATA_MOST: Final = 1024
"""Bytes of clientDataJSON; browsers write about 250 of them, and an origin's host has 253 at the most."""
VALUE_MOST: Final = AUTHENTICATOR_BYTES + 2 + CLIENT_DATA_MOST + 72
"""Bytes of a signature's value; a DER signature over P-256 has 72 at the most."""
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256 (FIPS 186-5): (r, s) and (r, order - s) hold alike, and only the lower s is a signature here."""
_USED: Final = 0b0000_0101
"""User present and user verified: a stolen laptop that is still unlocked approves nothing."""
_BACKED_UP: Final = 0b0001_1000
"""Backup eligible and backed up, which say where a passkey lives; any other bit means more than an assertion says."""
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ORIGIN: Final = re.compile(rf"(https?)://((?:{_LABEL}\.)*{_LABEL})(?::([1-9][0-9]{{0,4}}))?")
_DEFAULT_PORTS: Final = {"https": "443", "http": "80"}


def origin_host(origin: str) -> str:
    """The host of an origin, which is its rpId, exactly: a parent domain would let every sibling page ask for assertions.

    Raises InvalidInput for anything but a web origin as browsers write it: https and a name, or http on localhost alone.
    """
    found = _ORIGIN.fullmatch(origin)
    want = "https://host, as a browser writes it, or http://localhost"
    if found is None or len(origin) > 300:
        raise InvalidInput("origin", Rule.MALFORMED, repr(origin[:300]), want)
    scheme, host, port = found.groups()
    local = host == "localhost" or host.endswith(".localhost")
    numeric = host.rpartition(".")[2].isdigit()  # an IP address is no rpId
    if numeric or (scheme == "http" and not local) or port == _DEFAULT_PORTS[scheme] or int(port or 0) > 65_535:
        raise InvalidInput("origin", Rule.MALFORMED, repr(origin), want)
    return str(host)


def public_form(origin: str, x: int, y: int) -> bytes:
    """The 96 bytes by which a roster names a passkey: its page and its point. Raises InvalidInput for a wrong one of either."""
    origin_host(origin)
    if not (0 <= x < 2**256 and 0 <= y < 2**256):
        raise InvalidInput("point", Rule.MALFORMED, "a coordinate outside the field", "a point on P-256")
    form = origin_hash(origin) + x.to_bytes(32) + y.to_bytes(32)
    check_point(form)
    return form


def origin_hash(origin: str) -> bytes:
    """SHA-256 of an origin as clientDataJSON spells it: the first 32 bytes of a passkey's public form."""
    return hashlib.sha256(origin.encode()).digest()


@lru_cache(maxsize=1024)
def check_point(public: bytes) -> None:
    """The key is a point on P-256, else InvalidInput: one that is not would stand in a roster and sign nothing, or anything."""
    try:
        EllipticCurvePublicNumbers(int.from_bytes(public[32:64]), int.from_bytes(public[64:]), SECP256R1()).public_key()
    except ValueError as error:
        raise InvalidInput("key.public", Rule.MALFORMED, "no point of the curve", "a point on P-256") from error


def challenge_of(digest: bytes) -> str:
    """What a page asks an authenticator to sign for a digest: base64url without padding (WebAuthn, 5.8.1)."""
    return urlsafe_b64encode(digest).decode().rstrip("=")


def assertion_value(authenticator_data: bytes, client_data: bytes, signature: bytes) -> bytes:
    """A signature's value from the three things an authenticator answers (DER signature as it came, s high or low).

    Raises InvalidInput where it cannot be written in the one form there is. It need not hold: `is_assertion` says so.
    """
    if len(authenticator_data) != AUTHENTICATOR_BYTES:
        got = f"{len(authenticator_data)} bytes"
        raise InvalidInput("authenticatorData", Rule.MALFORMED, got, f"{AUTHENTICATOR_BYTES}: no extension, no key")
    if not 0 < len(client_data) <= CLIENT_DATA_MOST:
        raise InvalidInput(
            "clientDataJSON", Rule.MALFORMED, f"{len(client_data)} bytes", f"1 to {CLIENT_DATA_MOST} bytes"
        )
    try:
        r, s = decode_dss_signature(signature)
    except ValueError as error:
        raise InvalidInput("signature", Rule.MALFORMED, f"{len(signature)} bytes", "ECDSA in DER") from error
    if not (0 < r < ORDER and 0 < s < ORDER):
        raise InvalidInput("signature", Rule.MALFORMED, "r or s outside the group", "ECDSA over P-256")
    low = encode_dss_signature(r, min(s, ORDER - s))
    return authenticator_data + len(client_data).to_bytes(2) + client_data + low


def is_assertion(public: bytes, value: bytes, digest: bytes) -> bool:
    """Whether a value is this passkey's assertion over these 32 bytes, made on its own page by a user it verified.

    False for everything else, whatever it is. The counter is not looked at: passkeys that live in more than one place have none,
    and what a digest may be used for is for each part's own memory to say.
    """
    parts = _parts(value)
    if parts is None or len(digest) != 32:
        return False
    authenticator_data, client_data, signature = parts
    origin = page_of(client_data, "webauthn.get", digest)
    flags = authenticator_data[32]
    if origin is None or origin_hash(origin) != public[:32] or flags & _USED != _USED or flags & ~(_USED | _BACKED_UP):
        return False
    try:
        host = origin_host(origin)
    except InvalidInput:
        return False
    if hashlib.sha256(host.encode()).digest() != authenticator_data[:32]:
        return False
    return _verified(public, (authenticator_data, client_data, signature), digest, origin, host)


def _parts(value: bytes) -> tuple[bytes, bytes, bytes] | None:
    """authenticatorData, clientDataJSON and signature of a value in the one form `assertion_value` writes."""
    start = AUTHENTICATOR_BYTES + 2
    end = start + int.from_bytes(value[AUTHENTICATOR_BYTES:start])
    parts = value[:AUTHENTICATOR_BYTES], value[start:end], value[end:]
    try:
        return parts if len(value) <= VALUE_MOST and assertion_value(*parts) == value else None
    except InvalidInput:
        return None


def page_of(client_data: bytes, kind: str, challenge: bytes) -> str | None:
    """The origin that clientDataJSON names, if it is of this kind, over this challenge and in a page of its own; else None.

    Read apart from the library, which takes the last of two equal keys, UTF-16, and a challenge in other spellings.
    """
    try:
        text = client_data.decode("utf-8")
        check_depth(text, "clientDataJSON")
        data = json.loads(text, object_pairs_hook=_each_once)
    except (ValueError, InvalidInput):
        return None
    if not isinstance(data, dict) or not all(type(value) in (str, bool) for value in data.values()):
        return None
    asked = data.get("type") == kind and data.get("challenge") == challenge_of(challenge)
    framed = data.get("crossOrigin", False) is not False or "topOrigin" in data
    origin = data.get("origin")
    return origin if asked and not framed and isinstance(origin, str) and origin.isascii() else None


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _verified(public: bytes, parts: tuple[bytes, bytes, bytes], digest: bytes, origin: str, host: str) -> bool:
    # Loaded when a passkey's signature is looked at, which a seat, an attestor or a watcher may never do in its life.
    from webauthn import verify_authentication_response  # noqa: PLC0415
    from webauthn.helpers.exceptions import WebAuthnException  # noqa: PLC0415
    from webauthn.helpers.structs import AuthenticationCredential, AuthenticatorAssertionResponse  # noqa: PLC0415

    authenticator_data, client_data, signature = parts
    response = AuthenticatorAssertionResponse(client_data, authenticator_data, signature)
    try:
        verify_authentication_response(
            # The credential's id finds a key where one is looked up by it; here the roster names the key.
            credential=AuthenticationCredential("AA", b"\0", response),
            expected_challenge=digest,
            expected_rp_id=host,
            expected_origin=origin,
            credential_public_key=b"\x04" + public[32:],
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError):
        return False
    return True
