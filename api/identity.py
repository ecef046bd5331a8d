# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who sent a request: an API client of the newest roster, by an Ed25519 signature over everything that matters in it (RFC 9421)."""

from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import (
    ContentDigest,
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    VerifyResult,
    algorithms,
)

from api.parts import ApiParts
from api.problems import Unauthenticated
from api.replays import Window
from api.signing import CONTENT_DIGEST, IDEMPOTENCY_KEY, METHOD, TARGET, TARGET_PARTS, Message, tag
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import ApiClient, Roster
from custody.rules.signatures import Scheme

NONCE_LEAST: Final = 16
NONCE_MOST: Final = 64
KEY_MOST: Final = 200
_TOLD: Final = 200
_ONCE: Final = ("host", "content-length", "content-type", "content-encoding", CONTENT_DIGEST, IDEMPOTENCY_KEY)
"""Headers that are read: repeated, one reader might take the first and another both."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client. `idempotency_key` is the signed header, where it was sent."""

    client: ApiClient
    idempotency_key: str | None

    def check_scope(self, scope: str) -> None:
        """Raises Refused(scope_missing)."""
        if scope not in self.client.scopes:
            raise Refused(
                [Refusal(Rule.SCOPE_MISSING, client=self.client.id, want=scope, has=list(self.client.scopes))]
            )


def identify(parts: ApiParts, window: Window, message: Message, body: bytes) -> Caller:
    """The client whose one signature covers this request, once.

    Raises Unauthenticated: signature_missing, signature_invalid, signer_not_in_roster, signer_expired, component_not_signed,
    content_digest_mismatch, not_yet_valid, stale, expired, request_replayed; InvalidInput (malformed headers); Unavailable.
    """
    for name in _ONCE:
        if len(message.headers.all(name)) > 1:
            raise InvalidInput(name, Rule.MALFORMED, "the header more than once", "once")
    for name in ("signature-input", "signature"):
        if name not in message.headers:
            raise Unauthenticated([Refusal(Rule.SIGNATURE_MISSING, header=name, want="RFC 9421, Ed25519")])
    roster, now = parts.roster(), parts.wall()
    keys = _RosterKeys(roster, now)
    result = _verify(keys, window, message, tag(roster.domain.genesis), now)
    client = keys.found[str(result.parameters["keyid"])]
    _check_covered(result, message, body)
    _check_digest(message, body)
    nonce = result.nonce or ""
    if not NONCE_LEAST <= len(nonce) <= NONCE_MOST:
        raise Unauthenticated(
            [
                Refusal(
                    Rule.NOT_COVERED, parameter="nonce", want=f"{NONCE_LEAST} to {NONCE_MOST} characters, new each time"
                )
            ]
        )
    refusal = window.admit(client.id, nonce, now)
    if refusal is not None:
        raise Unauthenticated([refusal])
    return Caller(client, _idempotency_key(message))


class _RosterKeys(HTTPSignatureKeyResolver):
    """Keys by client id, out of one roster version."""

    def __init__(self, roster: Roster, now: int) -> None:
        self._clients = {client.id: client for client in roster.version.clients}
        self._now = now
        self.found: dict[str, ApiClient] = {}

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        """The key of a client in force; raises Refused."""
        client = self._clients.get(key_id)
        if client is None or client.key.scheme != Scheme.ED25519:
            raise Refused(
                [Refusal(Rule.SIGNER_UNKNOWN, keyid=key_id[:_TOLD], want="an API client of the newest roster")]
            )
        if client.expires <= self._now:
            raise Refused([Refusal(Rule.SIGNER_EXPIRED, client=client.id, expired=client.expires, now=self._now)])
        self.found[key_id] = client
        return Ed25519PublicKey.from_public_bytes(client.key.public)

    def resolve_private_key(self, key_id: str) -> Any:  # noqa: ANN401  # the library's own signature; nothing is signed here
        """There is none."""
        raise KeyError(key_id)


class _Verifier(HTTPMessageVerifier):
    """The library's verifier on our clock: its own reads the machine's."""

    def __init__(self, keys: _RosterKeys, window: Window, now: int) -> None:
        super().__init__(signature_algorithm=algorithms.ED25519, key_resolver=keys)
        self._window, self._now = window, now

    def validate_created_and_expires(self, sig_input: Any, max_age: object = None) -> None:  # noqa: ANN401, ARG002  # the library's
        """`created` and `expires` must be there and good. Raises Unauthenticated."""
        created, expires = sig_input.params.get("created"), sig_input.params.get("expires")
        for name, value in (("created", created), ("expires", expires)):
            if type(value) is not int:
                raise Unauthenticated([Refusal(Rule.NOT_COVERED, parameter=name, want="seconds since 1970")])
        refusal = self._window.check_age(created, expires, self._now)
        if refusal is not None:
            raise Unauthenticated([refusal])


def _verify(keys: _RosterKeys, window: Window, message: Message, wanted: str, now: int) -> VerifyResult:
    try:
        results = _Verifier(keys, window, now).verify(message, expect_tag=wanted)
    except HTTPMessageSignaturesException as error:
        if isinstance(error.__cause__, Refused):
            raise Unauthenticated(error.__cause__.refusals) from error
        raise Unauthenticated(
            [Refusal(Rule.SIGNATURE_INVALID, document="request", why=str(error)[:_TOLD], tag=wanted)]
        ) from error
    if len(results) != 1:
        raise Unauthenticated(
            [Refusal(Rule.SIGNATURE_INVALID, document="request", got=len(results), want="one signature")]
        )
    return results[0]


def _check_covered(result: VerifyResult, message: Message, body: bytes) -> None:
    """Whatever decides what a request does is under the signature."""
    signed = {name for name in result.covered_components if ";" not in name}  # a parameter would cover a part only
    needed = [METHOD, *(TARGET_PARTS if _quoted(TARGET) not in signed else ())]
    needed += [CONTENT_DIGEST] * (bool(body) or CONTENT_DIGEST in message.headers)
    needed += [IDEMPOTENCY_KEY] * (IDEMPOTENCY_KEY in message.headers)
    missing = [name for name in needed if _quoted(name) not in signed]
    if missing:
        raise Unauthenticated([Refusal(Rule.NOT_COVERED, missing=missing)])


def _quoted(name: str) -> str:
    return f'"{name}"'


def _check_digest(message: Message, body: bytes) -> None:
    for value in message.headers.all(CONTENT_DIGEST):
        try:
            ContentDigest.verify(value, body)
        except HTTPMessageSignaturesException as error:
            raise Unauthenticated([Refusal(Rule.CONTENT_DIGEST, why=str(error)[:_TOLD])]) from error


def _idempotency_key(message: Message) -> str | None:
    for value in message.headers.all(IDEMPOTENCY_KEY):
        if not 1 <= len(value) <= KEY_MOST or not value.isprintable():
            raise InvalidInput(
                "Idempotency-Key", Rule.MALFORMED, f"{len(value)} characters", f"1 to {KEY_MOST}, printable"
            )
        return value
    return None
