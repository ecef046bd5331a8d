# SPDX-License-Identifier: AGPL-3.0-or-later
"""The API over a furnished treasury: real rosters, signatures and derivation, a store, an attestor's key; and a way to ask it."""

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from api.app import create_app
from api.client import RequestSigner
from api.parts import ApiParts
from custody.rules.attested import verify_signature
from custody.rules.certificates import DepositAddress
from custody.rules.refusals import raise_if
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from tests.fakes.seat import NOW, Clock, ed25519, signed_by
from tests.fakes.treasury import Treasury, roster, statement
from tests.fakes.trust import world

HOST: Final = "api.test"
URL: Final = f"http://{HOST}"


def private(name: str) -> Ed25519PrivateKey:
    """A client's key, the one of its roster entry."""
    return ed25519(name)._private


@dataclass
class FakeAttestor:
    """Signs what it is asked to bind, and counts statements."""

    said: dict[int, Signed[Statement]] = field(default_factory=dict)

    def bind(self, request: DepositAddress) -> Signed[DepositAddress]:
        """See `AddressBinder`."""
        return signed_by(request, world().domain, [ed25519("attestor")])

    def latest(self) -> Signed[Statement]:
        """See `StatementDesk`."""
        found = statement()
        raise_if(verify_signature(found, roster()))
        self.said[found.message.sequence] = found
        return found

    def numbered(self, sequence: int) -> Signed[Statement] | None:
        """See `StatementDesk`."""
        return self.said.get(sequence)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.raw)

    @property
    def rule(self) -> str:
        """The rule of a problem; asserts that it is one, whole."""
        assert self.headers["content-type"] == "application/problem+json", self.raw
        body = self.json
        assert (body["status"], body["type"]) == (self.status, "about:blank")
        assert body["title"]
        assert body["refusals"][0] == {"rule": body["rule"], "operands": body["operands"]}
        return str(body["rule"])


@dataclass
class Api:
    """The app in this process, asked over ASGI with requests that are truly signed unless a test says otherwise."""

    treasury: Treasury = field(default_factory=Treasury)
    clock: Clock = field(default_factory=Clock)
    attestor: FakeAttestor = field(default_factory=FakeAttestor)
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        t, clock = self.treasury, self.clock
        given: dict[str, Any] = {
            "store": t.store,
            "roster": lambda: self.treasury.kernel.roster,
            "kernel": lambda: self.treasury.kernel,
            "attestor": self.attestor,
            "statements": self.attestor,
            "wall": clock,
            "clock": clock,
            "entropy": secrets.token_bytes,
            "begun": NOW - 10,
        }
        self.app: FastAPI = create_app(ApiParts(**{**given, **self.changes}))

    def signer(self, client: str = "backend", key: str = "", genesis: bytes | None = None) -> RequestSigner:
        """Signs as a client, with another's key where told."""
        named = genesis if genesis is not None else world().domain.genesis
        return RequestSigner(client, private(key or client), named, self.clock)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        by: str = "backend",
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One signed request; `key` is the Idempotency-Key, `headers` go under the signature's eyes too."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        told = {"Host": HOST, **({"Content-Type": "application/json"} if raw else {}), **(headers or {})}
        told |= {"Idempotency-Key": key} if key is not None else {}
        return self.send(method, path, raw, self.signer(by).sign(method, URL + path, raw, told))

    def send(self, method: str, path: str, body: bytes, headers: Mapping[str, str] | list[tuple[str, str]]) -> Answer:
        """One request exactly as it is given."""
        return asyncio.run(self._send(method, path, body, headers))

    async def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str] | list[tuple[str, str]]
    ) -> Answer:
        lines = list(headers.items()) if isinstance(headers, Mapping) else headers
        target, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in lines],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        sent: list[Any] = []
        left = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            if left:
                return left.pop()
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start = next(m for m in sent if m["type"] == "http.response.start")
        whole = b"".join(m.get("body", b"") for m in sent if m["type"] == "http.response.body")
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], found, whole)
