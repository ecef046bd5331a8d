# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who-are-you by OpenID Connect, where a deployment wants it: authorization code with PKCE (OpenID Connect Core 1.0, RFC 7636).

The provider's word opens a session, which looks and drafts; it approves nothing, because every approval is an assertion of the
person's own passkey. Whoever takes the provider over sees what its people see, and moves no coin.

State, nonce and verifier are derived from the secret in the cookie that the login page gave this browser, so that nothing is kept for
it, an answer serves the browser that asked alone, and serves it once.
"""

import hmac
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule

Json = dict[str, Any]
"""What a provider answers, before anything of it is believed."""
BACK: Final = "/login/oidc/back"
ALGORITHMS: Final = ("RS256", "PS256", "ES256")
"""Signatures that are taken: never `none`, and no shared secret."""
_SECONDS: Final = 10.0
_REMEMBERED: Final = 300.0
_MOST: Final = 256 * 1024
_LEEWAY: Final = 30
_FAULTS: Final = (JoseError, ValueError, KeyError, TypeError)
"""What the library raises for a token or a key set that is none."""
_LOCAL: Final = ("localhost", "127.0.0.1")


@dataclass
class Provider:
    """One issuer that this console is a client of. `claim` is the one whose value is a person's id in the roster.

    Raises InvalidInput for an issuer that is not https (but on this machine).
    """

    issuer: str
    client: str
    secret: str = field(default="", repr=False)
    claim: str = "preferred_username"
    _found: dict[str, tuple[float, Json]] = field(default_factory=dict, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        _check_address("oidc-issuer", self.issuer)
        if not self.client or not self.claim:
            raise InvalidInput(
                "oidc-client", Rule.MALFORMED, "nothing", "the client's id at the issuer, and a claim's name"
            )

    def leave_for(self, origin: str, door: str) -> str:
        """Where the browser goes to be asked who it is; `door` is the secret of its login cookie. Raises Unavailable."""
        challenge = urlsafe_b64encode(sha256(_drawn(door, "verifier").encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self.client,
            "redirect_uri": origin + BACK,
            "scope": "openid profile email",
            "state": _drawn(door, "state"),
            "nonce": _drawn(door, "nonce"),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        at = self._endpoint("authorization_endpoint")
        return f"{at}{'&' if urlsplit(at).query else '?'}{urlencode(asked)}"

    def who(self, origin: str, door: str, state: str, code: str, now: int) -> str:
        """The person's id that the provider vouches for. Raises Refused (signature_invalid) and Unavailable."""
        if not hmac.compare_digest(state.encode(), _drawn(door, "state").encode()):
            raise _refused("an answer to what this very browser asked; begin at the login page")
        told = self._post(
            self._endpoint("token_endpoint"),
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": origin + BACK,
                "client_id": self.client,
                "code_verifier": _drawn(door, "verifier"),
            },
        )
        claims = self._verified(str(told.get("id_token", "")), now)
        if claims.get("nonce") != _drawn(door, "nonce"):
            raise _refused("a token for what this very browser asked")
        audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if len(audience) > 1 and claims.get("azp") != self.client:
            raise _refused("a token for this console")
        who = claims.get(self.claim)
        if not isinstance(who, str) or not who:
            raise _refused(f"the claim {self.claim}")
        return who

    def _verified(self, token: str, now: int) -> Mapping[str, Any]:
        """The claims of a token that one of the provider's keys signed, for this console and now."""
        registry = jwt.JWTClaimsRegistry(
            now=now,
            leeway=_LEEWAY,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self.client},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            try:
                found = self._opened(token, fresh=False)
            except _FAULTS:  # keys are changed by their owner: once more, with those of now
                found = self._opened(token, fresh=True)
            registry.validate(found.claims)
        except _FAULTS as error:
            raise _refused(f"an id_token that holds: {type(error).__name__}") from error
        return found.claims

    def _opened(self, token: str, *, fresh: bool) -> jwt.Token:
        keys = KeySet.import_key_set(cast("KeySetSerialization", self._get(self._endpoint("jwks_uri"), fresh=fresh)))
        return jwt.decode(token, keys, list(ALGORITHMS))

    def _endpoint(self, name: str) -> str:
        told = self._get(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if told.get("issuer") != self.issuer:
            raise Unavailable(
                "oidc", f"the configuration there is {str(told.get('issuer'))[:80]!r}'s, not {self.issuer!r}'s"
            )
        at = told.get(name)
        try:
            _check_address(name, at if isinstance(at, str) else "")
        except InvalidInput as error:
            raise Unavailable("oidc", f"its configuration names no {name} that can be asked") from error
        return str(at)

    def _get(self, url: str, *, fresh: bool = False) -> Json:
        with self._turn:
            known = self._found.get(url)
            if known is None or fresh or time.monotonic() - known[0] > _REMEMBERED:
                known = self._found[url] = (time.monotonic(), self._asked("GET", url))
            return known[1]

    def _post(self, url: str, form: Mapping[str, str]) -> Json:
        return self._asked("POST", url, form, (self.client, self.secret) if self.secret else None)

    def _asked(
        self, method: str, url: str, data: Mapping[str, str] | None = None, auth: tuple[str, str] | None = None
    ) -> Json:
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(
                    method, url, timeout=_SECONDS, allow_redirects=False, stream=True, data=data, auth=auth
                )
                body = answer.raw.read(_MOST + 1, decode_content=True)
                if answer.status_code == 400 and method == "POST":  # RFC 6749, 5.2: the code is none, or was used
                    raise _refused("a code that the provider has just given out")
                if answer.status_code != 200 or len(body) > _MOST:
                    raise Unavailable("oidc", f"{urlsplit(url).netloc} answered {answer.status_code}")
                told = json.loads(body)
        except (requests.RequestException, ValueError) as error:
            raise Unavailable("oidc", f"{urlsplit(url).netloc}: {type(error).__name__}") from error
        if not isinstance(told, dict):
            raise Unavailable("oidc", f"{urlsplit(url).netloc} answered no object")
        return told


def _check_address(name: str, url: str) -> None:
    parts = urlsplit(url)
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL)) or not parts.hostname:
        raise InvalidInput(name, Rule.MALFORMED, url[:80], "an https address")


def _drawn(door: str, what: str) -> str:
    """64 hex characters that only whoever holds the cookie's secret can compute."""
    return hmac.new(door.encode(), f"bulkhead oidc {what}".encode(), sha256).hexdigest()


def _refused(want: str) -> Refused:
    return Refused([Refusal(Rule.SIGNATURE_INVALID, document="id_token", want=want)])
