# SPDX-License-Identifier: AGPL-3.0-or-later
"""Enrolling a passkey and asking for its signature: what pages hand to a browser, and what is made of its answers.

An enrolment is a file that anybody may carry. Whoever handles it verifies the authenticator's whole answer again; nothing is read out
of what stands beside it. It puts nothing in force: a roster version under its quorum does (docs/passkeys.md).
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Key, Scheme, Signature
from custody.rules.webauthn import assertion_value, origin_host, page_of, public_form

PASSKEY: Final = "passkey"
"""Kind of the mirrored rows that say by which credential id a page finds a key; they authorise nothing."""
TRANSPORTS: Final = ("ble", "cable", "hybrid", "internal", "nfc", "smart-card", "usb")
MINUTES_2: Final = 120_000
"""Milliseconds that a browser waits for a person."""
_FIELDS: Final = {"type", "person", "origin", "challenge", "response"}
_RESPONSE_MOST: Final = 16_384
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")
_HEX_32: Final = re.compile(r"0x[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Passkey:
    """An enrolled passkey: whose, its key as a roster names it, and by what a page finds it again."""

    person: str
    key: Key
    credential_id: bytes
    transports: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As it is mirrored for the pages."""
        return {
            "person": self.person,
            "key": self.key.to_json(),
            "credential_id": "0x" + self.credential_id.hex(),
            "transports": list(self.transports),
        }

    @classmethod
    def from_json(cls, data: object) -> "Passkey":
        """Read a mirrored row; raises InvalidInput where it is damaged."""
        if not isinstance(data, Mapping) or set(data) != {"person", "key", "credential_id", "transports"}:
            raise InvalidInput(PASSKEY, Rule.MALFORMED, "another shape", "person, key, credential_id and transports")
        raw, transports = data["credential_id"], data["transports"]
        if not isinstance(raw, str) or re.fullmatch("0x(?:[0-9a-f]{2}){1,1023}", raw) is None:
            raise InvalidInput(f"{PASSKEY}.credential_id", Rule.MALFORMED, repr(raw)[:80], "0x and 1 to 1023 bytes")
        if not isinstance(transports, list) or not all(t in TRANSPORTS for t in transports):
            raise InvalidInput(f"{PASSKEY}.transports", Rule.MALFORMED, repr(transports)[:80], ", ".join(TRANSPORTS))
        key = Key.from_json(data["key"], f"{PASSKEY}.key")
        if key.scheme != Scheme.WEBAUTHN_ES256:
            raise InvalidInput(f"{PASSKEY}.key", Rule.MALFORMED, key.scheme, Scheme.WEBAUTHN_ES256.value)
        return cls(str(data["person"]), key, bytes.fromhex(raw[2:]), tuple(transports))


def creation_options(person: str, name: str, origin: str, challenge: bytes) -> dict[str, Any]:
    """What `navigator.credentials.create` is given, in the JSON form of `PublicKeyCredential.parseCreationOptionsFromJSON`.

    `challenge` is 32 fresh random bytes. ES256 only, user verification always, no extension, no attestation of the device's make.
    """
    from webauthn import generate_registration_options, options_to_json  # noqa: PLC0415  # as in webauthn.py
    from webauthn.helpers.cose import COSEAlgorithmIdentifier  # noqa: PLC0415
    from webauthn.helpers.structs import (  # noqa: PLC0415
        AttestationConveyancePreference,
        AuthenticatorSelectionCriteria,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options = generate_registration_options(
        rp_id=origin_host(origin),
        rp_name="Bulkhead",
        user_id=person.encode(),
        user_name=person,
        user_display_name=name,
        challenge=challenge,
        timeout=MINUTES_2,
        attestation=AttestationConveyancePreference.NONE,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        supported_pub_key_algs=[COSEAlgorithmIdentifier.ECDSA_SHA_256],
    )
    made: dict[str, Any] = json.loads(options_to_json(options))
    return made


def request_options(digest: bytes, origin: str, passkeys: Iterable[Passkey] = ()) -> dict[str, Any]:
    """What `navigator.credentials.get` is given for one digest, in the JSON form of `parseRequestOptionsFromJSON`.

    Without passkeys the browser offers what it has for the page, which is how somebody logs in who has not said who they are.
    """
    from webauthn import generate_authentication_options, options_to_json  # noqa: PLC0415
    from webauthn.helpers.structs import (  # noqa: PLC0415
        AuthenticatorTransport,
        PublicKeyCredentialDescriptor,
        UserVerificationRequirement,
    )

    options = generate_authentication_options(
        rp_id=origin_host(origin),
        challenge=digest,
        timeout=MINUTES_2,
        allow_credentials=[
            PublicKeyCredentialDescriptor(p.credential_id, transports=[AuthenticatorTransport(t) for t in p.transports])
            for p in passkeys
        ],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    made: dict[str, Any] = json.loads(options_to_json(options))
    return made


def enrolled(data: object) -> Passkey:
    """Verify an enrolment file whole and say what it holds. Raises InvalidInput naming what is wrong with it.

    It shows that an authenticator answered this page with this key, its user verified. Whose hand it was, those vouch for who sign the
    roster: attestation would name a maker, not a person.
    """
    if not isinstance(data, dict) or set(data) != _FIELDS or data["type"] != "PasskeyEnrolment":
        raise InvalidInput("enrolment", Rule.MALFORMED, "another shape", "a PasskeyEnrolment: " + ", ".join(_FIELDS))
    person, origin, challenge = data["person"], data["origin"], data["challenge"]
    if not isinstance(person, str) or not person:
        raise InvalidInput("enrolment.person", Rule.MALFORMED, repr(person)[:80], "the id of a person of the roster")
    if not isinstance(challenge, str) or _HEX_32.fullmatch(challenge) is None:
        raise InvalidInput("enrolment.challenge", Rule.MALFORMED, repr(challenge)[:80], "0x and 64 hex digits")
    if not isinstance(origin, str):
        raise InvalidInput("enrolment.origin", Rule.MALFORMED, type(origin).__name__, "the page's origin")
    host, response = origin_host(origin), data["response"]
    client_data = _octets(_object(response, "response").get("response"), "clientDataJSON")
    asked = bytes.fromhex(challenge[2:])
    if page_of(client_data, "webauthn.create", asked) != origin:
        raise InvalidInput("enrolment.response", Rule.MALFORMED, "of another page or request", f"made at {origin}")
    credential_id, (x, y) = _registered(response, asked, host, origin)
    said = _object(response, "response")["response"].get("transports")
    transports = sorted({t for t in said if t in TRANSPORTS}) if isinstance(said, list) else ()
    return Passkey(person, Key(Scheme.WEBAUTHN_ES256, public_form(origin, x, y)), credential_id, tuple(transports))


def signature_of(key: Key, response: object) -> Signature:
    """The signature in what `navigator.credentials.get` answered (its JSON form). Raises InvalidInput; it need not hold yet."""
    inner = _object(response, "assertion").get("response")
    parts = (_octets(inner, name) for name in ("authenticatorData", "clientDataJSON", "signature"))
    return Signature(key, assertion_value(*parts))


def known(rows: Iterable[Mapping[str, object]], newest: Roster) -> dict[str, tuple[Passkey, ...]]:
    """By person, the mirrored passkeys whose keys the newest roster gives that very person; every other row says nothing."""
    found: dict[str, tuple[Passkey, ...]] = {}
    for row in rows:
        try:
            passkey = Passkey.from_json(row)
        except InvalidInput:
            continue  # whoever damaged it kept a page from asking for that key, and no more
        whose = newest.people_by_key.get(passkey.key)
        if whose is not None and whose.id == passkey.person:
            found[whose.id] = (*found.get(whose.id, ()), passkey)
    return found


def _registered(response: object, challenge: bytes, host: str, origin: str) -> tuple[bytes, tuple[int, int]]:
    """The credential id and the point that the library finds in an answer which it verified."""
    from webauthn import verify_registration_response  # noqa: PLC0415
    from webauthn.helpers import decode_credential_public_key  # noqa: PLC0415
    from webauthn.helpers.cose import COSECRV, COSEAlgorithmIdentifier  # noqa: PLC0415
    from webauthn.helpers.decode_credential_public_key import DecodedEC2PublicKey  # noqa: PLC0415
    from webauthn.helpers.exceptions import WebAuthnException  # noqa: PLC0415

    want = "an authenticator's answer for this page, its user verified, with a key for ES256"
    try:
        made = verify_registration_response(
            credential=_object(response, "response"),
            expected_challenge=challenge,
            expected_rp_id=host,
            expected_origin=origin,
            require_user_verification=True,
            supported_pub_key_algs=[COSEAlgorithmIdentifier.ECDSA_SHA_256],
        )
        point = decode_credential_public_key(made.credential_public_key)
    except (WebAuthnException, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # The library reads CBOR that a stranger wrote, and lets its own surprises out.
        raise InvalidInput("enrolment.response", Rule.MALFORMED, str(error)[:200], want) from error
    if not isinstance(point, DecodedEC2PublicKey) or point.crv != COSECRV.P256:
        raise InvalidInput("enrolment.response", Rule.MALFORMED, "another kind of key", want)
    if type(point.x) is not bytes or type(point.y) is not bytes or len(point.x) != 32 or len(point.y) != 32:
        raise InvalidInput("enrolment.response", Rule.MALFORMED, "another kind of point", want)
    return made.credential_id, (int.from_bytes(point.x), int.from_bytes(point.y))


def _object(data: object, field: str) -> dict[str, Any]:
    if not isinstance(data, dict) or len(json.dumps(data)) > _RESPONSE_MOST:
        raise InvalidInput(
            field, Rule.MALFORMED, type(data).__name__, f"an object of {_RESPONSE_MOST} bytes at the most"
        )
    return data


def _octets(data: object, name: str) -> bytes:
    """Bytes that stand in JSON as base64url without padding, in the one spelling they have."""
    text = data.get(name) if isinstance(data, dict) else None
    if not isinstance(text, str) or _BASE64URL.fullmatch(text) is None or len(text) % 4 == 1:
        raise InvalidInput(name, Rule.MALFORMED, repr(text)[:80], "base64url without padding")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
