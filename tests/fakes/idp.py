# SPDX-License-Identifier: AGPL-3.0-or-later
"""An identity provider over HTTP that signs true tokens, and whatever else a test wants from it (OpenID Connect Core 1.0, RFC 7636)."""

import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import FastAPI, Form, Request
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from starlette.responses import JSONResponse, RedirectResponse, Response

_Field = Annotated[str, Form()]


@dataclass
class IdentityProvider:
    """Whoever comes is `who`. `lies` replace claims; `None` leaves one out."""

    port: int
    client: str = "bulkhead-console"
    secret: str = "s3cret"
    who: str = "ana"
    algorithm: str = "RS256"
    lies: dict[str, Any] = field(default_factory=dict)
    named: str = ""
    key: Any = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    signs: Any = None
    """Another key than the one it publishes."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        """Its name; another site than the console's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def app(self) -> FastAPI:
        """Discovery, authorization, token, keys."""
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        def configuration() -> dict[str, str]:
            paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
            return {"issuer": self.named or self.issuer, **{n: f"{self.issuer}/{p}" for n, p in paths.items()}}

        @app.get("/authorize")
        def authorize(request: Request) -> Response:
            asked = dict(request.query_params)
            code = sha256(repr(asked).encode()).hexdigest()
            self.codes[code] = asked
            back = urlencode({"state": asked["state"], "code": code})
            return RedirectResponse(f"{asked['redirect_uri']}?{back}", 302)

        @app.post("/token")
        def token(request: Request, code: _Field, code_verifier: _Field, redirect_uri: _Field) -> Response:
            self.asked.append(request.headers.get("authorization", ""))
            asked = self.codes.pop(code, None)
            proof = urlsafe_b64encode(sha256(code_verifier.encode()).digest()).rstrip(b"=").decode()
            if asked is None or asked["code_challenge"] != proof or asked["redirect_uri"] != redirect_uri:
                return JSONResponse({"error": "invalid_grant"}, 400)
            return JSONResponse({"id_token": self.token(asked["nonce"]), "token_type": "Bearer", "access_token": "x"})

        @app.get("/keys")
        def keys() -> dict[str, Any]:
            return {"keys": [{**self.key.as_dict(private=False), "use": "sig"}]}

        return app

    def token(self, nonce: str) -> str:
        """An id_token for whoever is there."""
        now = int(time.time())
        true = {"iss": self.issuer, "aud": self.client, "sub": "7", "nonce": nonce, "iat": now, "exp": now + 300}
        claims = {**true, "preferred_username": self.who, **self.lies}
        signs = self.signs or self.key
        head = {"alg": self.algorithm, "kid": signs.kid or "one"}
        return jwt.encode(head, {k: v for k, v in claims.items() if v is not None}, signs, algorithms=[self.algorithm])


def elliptic() -> Any:
    """A key of ES256."""
    return ECKey.generate_key("P-256", {"kid": "two"})


def shared() -> Any:
    """A secret, under the name of the published key."""
    return OctKey.import_key("0123456789abcdef0123456789abcdef", {"kid": "one"})
