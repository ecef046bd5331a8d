# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ten times the writes that the API's process takes in, all at once, over HTTP: what is too much is told so before it is accepted."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from api.client import RequestSigner
from api.gate import WRITES_MOST
from custody.composing import wall_clock
from custody.rules.transfers import Status
from tests.faults.world import Hall

TIMES: Final = 10
_UNITS: Final = 10**14
"""The least that is paid, by the asset registry."""
_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Told:
    """What one request was answered: 0 where the connection ended without an answer."""

    name: str
    status: int
    body: Mapping[str, Any]


def customers_at_once(hall: Hall) -> None:
    """More writes at once than one process takes in: each is recorded and told so, or is told 429 and left no trace. No third thing."""
    names = [f"crowd-{number}" for number in range(2 * WRITES_MOST + WRITES_MOST // 2)]
    told = _send(hall, "/v1/customers", {name: {"id": name} for name in names})
    taken = _sorted_out(told, 201)
    assert hall.stage.deployment.store.read(lambda work: work.customers.ids()) & set(names) == taken


def withdrawals_at_once(hall: Hall) -> None:
    """Ten times as many withdrawals of one balance: what was accepted is paid, once, and what was refused is nowhere."""
    signer, domain = hall.carrier.office.signer("backend"), hall.stage.deployment.roster.domain
    bodies: dict[str, Mapping[str, Any]] = {}
    first = hall.proposal(hall.ether, _UNITS, "crowd")
    for number in range(TIMES * WRITES_MOST):
        name = f"crowd-out-{hall.made}-{number}"
        proposal = type(first)(name, *[getattr(first, field) for field in list(first.__dataclass_fields__)[1:]])
        signature = signer.sign(domain.digest(proposal)).to_json()
        amount = hall.carrier.office.amount(proposal).decimal
        bodies[name] = {**proposal.to_json(), "amount": amount, "expiry": proposal.expiry, "signatures": [signature]}
    hall.made += 1
    taken = _sorted_out(_send(hall, "/v1/transfers", bodies), 201)
    found = {t.proposal.message.reference: t for t in hall.transfers()}
    assert found.keys() & bodies.keys() == taken
    assert len(taken) >= WRITES_MOST // 2
    hall.until(lambda: all(t.status.is_final for t in hall.transfers()), "all of them are at their end")
    assert {t.status for t in hall.transfers() if t.proposal.message.reference in taken} == {Status.COMPLETED}


def _sorted_out(told: Sequence[Told], taken: int) -> set[str]:
    """Those that were taken. Raises AssertionError where one was answered otherwise than that, or 429 with its rule."""
    statuses = Counter(one.status for one in told)
    assert set(statuses) == {taken, 429}, statuses
    assert {one.body.get("rule") for one in told if one.status == 429} == {"too_many_writes_waiting"}
    return {one.name for one in told if one.status == taken}


def _send(hall: Hall, path: str, bodies: Mapping[str, Mapping[str, Any]]) -> list[Told]:
    """All of them at once, each on a connection of its own; every one is connected before the first is sent."""
    office = hall.carrier.office
    signer = RequestSigner("backend", office.key("backend"), hall.stage.deployment.roster.domain.genesis, wall_clock)
    raw: dict[str, bytes] = {}
    for name, body in bodies.items():
        content = json.dumps(body, separators=(",", ":")).encode()
        plain = {"Content-Type": "application/json", "Idempotency-Key": name}
        headers = {**signer.sign("POST", office.url + path, content, plain), "Content-Length": str(len(content))}
        headers |= {"Host": office.url.removeprefix("http://"), "Connection": "close"}
        head = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        raw[name] = f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content
    return asyncio.run(_at_once(hall.services.web.port, raw))


async def _at_once(port: int, raw: Mapping[str, bytes]) -> list[Told]:
    go = asyncio.Event()
    asked = [asyncio.create_task(_one(port, name, request, go)) for name, request in raw.items()]
    await asyncio.sleep(0.5)
    go.set()
    return list(await asyncio.wait_for(asyncio.gather(*asked), _SECONDS))


async def _one(port: int, name: str, request: bytes, go: asyncio.Event) -> Told:
    await go.wait()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
    except OSError:
        return Told(name, 0, {})
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        told = json.loads(body)
    except ValueError:
        told = {"text": body[:200].decode(errors="replace")}
    return Told(name, int(head.split(b" ")[1]) if head else 0, told)
