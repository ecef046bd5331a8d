# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ten times the load that is taken in: what is too much is told so before anything of it is recorded, and may come again."""

import asyncio
import json
import threading
from typing import Any, Final

from api.app import create_app
from api.gate import Gate
from api.replays import Window
from tests.fakes.api import HOST, URL, Answer, Api
from tests.fakes.treasury import proposal, signed

PATH: Final = "/v1/transfers"
MOST: Final = 4


class _Held:
    """A store whose writes wait until the door is open."""

    def __init__(self, store: Any) -> None:
        self._store, self.door = store, threading.Event()

    def run(self, work: Any) -> Any:
        """As the store's, once the door is open."""
        assert self.door.wait(20)
        return self._store.run(work)

    def read(self, work: Any) -> Any:
        """As the store's."""
        return self._store.read(work)


def _request(api: Api, number: int) -> tuple[bytes, dict[str, str]]:
    message = proposal(reference=f"order {number}", amount=10**15)
    signatures = [signature.to_json() for signature in signed(message).signatures]
    told_body = {**message.to_json(), "amount": "0.001", "expiry": message.expiry, "signatures": signatures}
    body = json.dumps(told_body).encode()
    told = {"Host": HOST, "Content-Type": "application/json", "Idempotency-Key": f"k{number}"}
    return body, dict(api.signer().sign("POST", URL + PATH, body, told))


def test_ten_times_the_load() -> None:
    """Forty writes where four are taken in: four are made, the others are 429 with Retry-After; reads go on; then all are made."""
    api = Api()
    held = _Held(api.treasury.store)
    api.changes = {**api.changes, "store": held}
    api.__post_init__()
    parts = api.app.state.parts
    api.app = create_app(parts, writes_most=MOST)
    requests = [_request(api, number) for number in range(10 * MOST)]

    async def load() -> tuple[list[Answer], Answer]:
        tasks = [asyncio.create_task(api._send("POST", PATH, *request)) for request in requests]
        while sum(task.done() for task in tasks) < 9 * MOST:  # noqa: ASYNC110  # the tasks are what is waited for
            await asyncio.sleep(0.01)
        listed = await api._send("GET", PATH, b"", api.signer().sign("GET", URL + PATH, b"", {"Host": HOST}))
        held.door.set()
        return await asyncio.gather(*tasks), listed

    answers, listed = asyncio.run(asyncio.wait_for(load(), 60))
    assert (listed.status, listed.json["items"]) == (200, [])
    assert sorted(answer.status for answer in answers) == [201] * MOST + [429] * 9 * MOST
    busy = [answer for answer in answers if answer.status == 429]
    assert {(answer.rule, answer.headers["retry-after"]) for answer in busy} == {("too_many_writes_waiting", "1")}
    assert len(api.treasury.store.read(lambda work: work.transfers.examine(0, 100))) == MOST
    for number, answer in enumerate(answers):
        if answer.status == 429:
            assert api.send("POST", PATH, *_request(api, number)).status == 201
    assert len(api.treasury.store.read(lambda work: work.transfers.examine(0, 100))) == 10 * MOST


def test_what_is_turned_away_at_the_door_may_come_again_unchanged() -> None:
    """The first look is before the nonce is taken, so the very same signed request is good later."""
    api = Api()
    turned: list[int] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        turned.append(1)
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    parts = api.app.state.parts
    gate = Gate(inner, parts, Window(parts.begun), most=1)
    api.app = gate  # type: ignore[assignment]
    body, headers = _request(api, 1)
    gate._writes = 1
    assert api.send("POST", PATH, body, headers).status == 429
    gate._writes = 0
    assert (api.send("POST", PATH, body, headers).status, turned) == (201, [1])
