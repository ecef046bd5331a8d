# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat in the engine that is killed while it signs, restarted, and put back to an older copy of its own server's storage."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.statements import SeatPosition
from custody.vault.keyring import RemoteSeat
from devnet.openbao import OpenBao, StillSealed
from devnet.processes import NodeFailed
from tests.fakes import attacks
from tests.fakes.engine import DrawerClient, DrawerVault, drawers_server, plugin_pid
from tests.fakes.seat import NOW, rules_of
from tests.fakes.seated import Seated, seated


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server of this module alone: its plugin is killed, and its storage put back."""
    with drawers_server(tmp_path_factory.mktemp("restored") / "bao", rooted=True) as server:
        yield server


@dataclass
class Subject:
    """hot-1 in a drawer of its own, and the deployment around it."""

    seat: RemoteSeat
    client: DrawerClient
    house: Seated
    server: OpenBao

    def again(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer, as a worker does after a crash."""
        deadline = time.monotonic() + 20
        while True:
            self.client.forget_time()
            try:
                return ask()
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def refuses(self, request: Request) -> set[Rule]:
        """The rules that refuse."""
        with pytest.raises(Refused) as refused:
            self.seat.sign(request)
        return rules_of(refused.value)


@pytest.fixture
def subject(server: OpenBao, request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Born, with the shipped bundle in force."""
    client = DrawerClient(server, request.node.name.replace("[", "-").replace("]", ""))
    with seated({"hot-1": DrawerVault(client)}) as house:
        client.clock = house.clock
        yield Subject(RemoteSeat("hot-1", client), client, house, server)


def test_killed_while_it_signs(subject: Subject) -> None:
    """kill -9 at any moment of a request: whoever asks again gets one signature, the journal one line, and its chain holds."""
    house, position = subject.house, subject.seat.head().message.position
    for number, after in enumerate((0.0, 0.01, 0.02, 0.04, 0.08)):
        request = house.ask(nonce=7 + number, both={"amount": 10**17 + number}, proposal={"reference": f"r{number}"})
        heard: list[object] = []

        def ask(request: Request = request, heard: list[object] = heard) -> None:
            try:
                heard.append(subject.seat.sign(request))
            except (Unavailable, Refused) as error:  # started anew within the call, and not told this test's time yet
                heard.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(after)
        os.kill(plugin_pid(subject.server), 9)
        asking.join()
        made = subject.again(lambda request=request: subject.seat.sign(request))
        assert subject.seat.sign(request) == made
        assert heard[0] == made or isinstance(heard[0], (Unavailable, Refused))
        assert subject.seat.head().message.position == position + number + 1
    assert [line.record.position for line in subject.seat.journal()[1]] == list(range(1, position + 6))


def test_one_anchor_for_an_intent_after_restarts(subject: Subject) -> None:
    """The plugin restarted, and a service whose database was put back that builds anew: the intent stays on its first anchor."""
    first = subject.house.ask(nonce=7)
    made = subject.seat.sign(first)
    os.kill(plugin_pid(subject.server), 9)
    subject.again(subject.seat.head)
    assert subject.refuses(subject.house.ask(nonce=8)) == {Rule.INTENT_BOUND}
    assert Rule.PROPOSAL_BOUND in subject.refuses(subject.house.ask(nonce=8, intent={"expiry": NOW + 3999}))
    assert subject.seat.sign(first) == made


def test_time_that_jumped_back_stays_where_it_was(subject: Subject) -> None:
    """A clock put back a year does not make an expired thing fresh: the journal's time never runs back, and the statement is ahead."""
    subject.seat.sign(subject.house.ask(nonce=7))
    subject.house.clock.now -= 31_536_000
    assert subject.seat.status()["time"] >= NOW
    late = subject.house.ask(nonce=8, both={"amount": 10**17}, intent={"expiry": NOW + 1})
    assert Rule.EXPIRED in subject.refuses(late)


def test_an_old_copy_of_its_storage(subject: Subject) -> None:
    """A raft snapshot from before two payouts, restored: it signs nothing, for it does not know what it signed; but a rotation."""
    house, server = subject.house, subject.server
    subject.seat.sign(house.ask(nonce=8))
    old = _snapshot(server)
    known = subject.seat.head().message
    subject.seat.sign(house.ask(nonce=9, both={"amount": 10**17}, proposal={"reference": "after"}))
    head = subject.seat.head().message
    attested = (SeatPosition("hot-1", head.position, head.head),)
    _restore(server, old)
    assert subject.again(subject.seat.head).message == known  # back where it was: it cannot know by itself
    again = house.ask(nonce=10, both={"amount": 10**17}, proposal={"reference": "after"}, statement={"seats": attested})
    assert subject.refuses(again) == {Rule.BEHIND}
    for base in (None, house.void((b"\5" * 32,), nonce=10)):
        assert Rule.BEHIND in subject.refuses(house.ask(base, nonce=8, statement={"seats": attested}))
    attacks.successor.cache_clear()  # it belongs to this deployment's keys
    assert subject.seat.sign(house.ask(attacks.rotation(), statement={"seats": attested})).signatures
    attacks.successor.cache_clear()


def _token(server: OpenBao) -> dict[str, str]:
    return {"X-Vault-Token": json.loads((server.folder / "root.json").read_text())["token"]}


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def _snapshot(server: OpenBao) -> bytes:
    answer = _session().get(f"{server.url}/v1/sys/storage/raft/snapshot", headers=_token(server), timeout=30)
    answer.raise_for_status()
    return answer.content


def _restore(server: OpenBao, snapshot: bytes) -> None:
    where = f"{server.url}/v1/sys/storage/raft/snapshot-force"
    _session().post(where, headers=_token(server), data=snapshot, timeout=60).raise_for_status()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(
            requests.RequestException, NodeFailed, StillSealed
        ):  # it takes up the old storage, and answers late
            time.sleep(0.5)
            server.unseal()
            return
    raise AssertionError("the server did not come back")
