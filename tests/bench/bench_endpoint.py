# SPDX-License-Identifier: AGPL-3.0-or-later
"""`POST /v1/transfers` whole, against a FastAPI hello that authenticates by the same signature check.

Both apps are asked over ASGI in this process, one request after another, without a socket: what an HTTP server costs would be the
same on both sides and only hide the difference. Requests are signed beforehand (RFC 9421, RFC 9530). The hello stands behind the
same gate and gets bodies of the same size, so that both pay for body, digest, signature and nonce.
"""

import asyncio
import json
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI, Request

from api.app import create_app
from api.client import ApiClient, RequestSigner
from api.gate import CALLER, Gate
from api.parts import ApiParts
from api.replays import Window
from custody.rules.amounts import Amount
from tests.bench.bench_propose import READY, House, Proposals
from tests.bench.harness import RAW, Comparison, compare
from tests.fakes.api import HOST, URL, FakeAttestor, private
from tests.fakes.seat import NOW, Clock, ed25519
from tests.fakes.trust import BTC, world

TRANSFERS: Final = "/v1/transfers"
HELLO: Final = "/v1/hello"
Lines = list[tuple[bytes, bytes]]


@dataclass
class Served:
    """One path of an app, asked with requests that were signed ahead of time."""

    app: Any
    path: str
    loop: asyncio.AbstractEventLoop
    ready: list[tuple[Lines, bytes]] = field(default_factory=list)
    proposals: Proposals = field(default_factory=Proposals)

    def prepare(self, count: int) -> None:
        """Sign so many requests; no process remembers what is in them."""
        key, domain, clock = private("backend"), world().domain, Clock()
        client, signer = (
            ApiClient(URL, "backend", key, domain, clock),
            RequestSigner("backend", key, domain.genesis, clock),
        )
        for _ in range(count):
            said = self.proposals.next().message
            body = json.dumps(client._proposal(said, Amount(BTC, said.amount), ed25519("backend"))).encode()
            told = {"Host": HOST, "Content-Type": "application/json", "Idempotency-Key": said.reference}
            headers = signer.sign("POST", URL + self.path, body, told)
            self.ready.append(([(name.lower().encode(), value.encode()) for name, value in headers.items()], body))

    def one(self) -> int:
        """One request, answered 201."""
        if not self.ready:
            self.prepare(READY)
        headers, body = self.ready.pop()
        status, answer = self.loop.run_until_complete(_ask(self.app, self.path, headers, body))
        if status != 201:
            raise TypeError(f"{status}: {answer[:500]!r}")
        return 1


async def _ask(app: Any, path: str, headers: Lines, body: bytes) -> tuple[int, bytes]:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    left: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if not left:
            await asyncio.Event().wait()  # the client stays until it is answered
        return left.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent[1:])


def _hello(parts: ApiParts) -> FastAPI:
    """The least that authenticates: the caller's name, as JSON."""
    app = FastAPI(openapi_url=None)

    @app.post(HELLO, status_code=201)
    async def hello(request: Request) -> dict[str, str]:
        return {"hello": request.scope[CALLER].client.id}

    app.add_middleware(Gate, parts=parts, window=Window(parts.begun))
    return app


def _parts(house: House) -> ApiParts:
    attestor, kernel = FakeAttestor(), house.treasury.kernel
    return ApiParts(
        store=house.store,
        roster=lambda: kernel.roster,
        kernel=lambda: kernel,
        attestor=attestor,
        statements=attestor,
        wall=Clock(),
        clock=Clock(),
        entropy=secrets.token_bytes,
        begun=NOW - 10,
    )


def benches() -> Iterator[Comparison]:
    """The one comparison; a ratio of 0.5 is half as many proposals a second as hellos."""
    RAW.mkdir(parents=True, exist_ok=True)
    loop = asyncio.new_event_loop()
    with (
        tempfile.TemporaryDirectory(prefix="endpoint-", dir=RAW) as folder,
        House.open(f"sqlite:///{folder}/ledger.db") as house,
    ):
        parts = _parts(house)
        transfers, hello = Served(create_app(parts), TRANSFERS, loop), Served(_hello(parts), HELLO, loop)
        transfers.prepare(2 * READY)
        hello.prepare(3 * READY)
        yield compare("POST /v1/transfers (ASGI, SQLite), over an authenticated hello", transfers.one, hello.one)
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
