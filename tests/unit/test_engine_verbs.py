# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat's clients may call, a request's way into the engine, and storage that is written before a key is used."""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule
from custody.vault.engine.answers import carry_out
from custody.vault.engine.handshake import COOKIE, NotStartedByOpenBao, read_environment
from custody.vault.engine.storage import EngineVault
from custody.vault.engine_client import EngineClient
from custody.vault.provisioning import VERBS, policy
from custody.vault.storage import CasConflict
from custody.vault.verbs import seat_handlers
from tests.fakes.seat import EVM, HOT, Deployment, seat_in_memory


@dataclass
class MemoryEntries:
    """`Entries` in memory; remembers in which order it was asked."""

    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False

    def get(self, key: str) -> bytes | None:
        """See `Entries`."""
        self.asked.append(f"get {key}")
        return self.stored.get(key)

    def put_all(self, expected: Mapping[str, bytes | None], entries: Mapping[str, bytes]) -> bool:
        """See `Entries`."""
        if self.broken:
            raise Unavailable("memory", "broken")
        if any(self.stored.get(key) != value for key, value in expected.items()):
            return False
        self.asked.append("put " + " ".join(entries))
        self.stored.update(entries)
        return True

    def names(self, prefix: str) -> Sequence[str]:
        """See `Entries`."""
        return sorted(key.removeprefix(prefix) for key in self.stored if key.startswith(prefix))


def test_clients_may_call_the_verbs_and_nothing_else() -> None:
    """The policy names every verb that a seat has, with one capability, and no pattern."""
    assert set(VERBS) == set(seat_handlers(seat_in_memory("hot-1")))
    assert policy().count('capabilities = ["update"]') == len(VERBS) == policy().count("capabilities")
    assert "*" not in policy()
    assert "+" not in policy()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param("[]", "another shape", id="no object"),
        pytest.param('{"body": ["{}"], "more": 1}', "another shape", id="a field more"),
        pytest.param('{"body": [1]}', "another shape", id="a part that is no text"),
        pytest.param("{", "JSONDecodeError", id="no JSON"),
        pytest.param('{"body": "{\\"a\\": 1, \\"a\\": 2}"}', "ValueError", id="a name twice"),
        pytest.param('{"body": "{\\"a\\": 1.5}"}', "ValueError", id="a fraction"),
        pytest.param(json.dumps({"body": "[" * 100_000}), "ValueError", id="endless nesting"),
    ],
)
def test_what_is_no_request(data: str, told: str) -> None:
    """400, and nothing was asked of the storage."""
    entries = MemoryEntries()
    answer = carry_out({"head": lambda _: {}}, EngineVault(entries), "head", data)
    assert answer.code == 400
    assert told in answer.text
    assert entries.asked == []


def test_answers_have_the_status_of_their_kind() -> None:
    """OpenBao puts the message of whatever is not 200 into its audit log as it stands."""

    def refuse(_: object) -> object:
        raise Refused([Refusal(Rule.FROZEN, scope="all")])

    def silent(_: object) -> object:
        raise Unavailable("vault", "away")

    handlers: Mapping[str, Any] = {"refuse": refuse, "silent": silent, "well": lambda body: body}
    told = {verb: carry_out(handlers, EngineVault(MemoryEntries()), verb, "{}") for verb in (*handlers, "nonsense")}
    assert {verb: each.code for verb, each in told.items()} == {
        "refuse": 403,
        "silent": 503,
        "well": 200,
        "nonsense": 400,
    }
    assert json.loads(told["refuse"].text)["refused"][0]["rule"] == Rule.FROZEN.value


def test_nothing_is_signed_before_it_is_written() -> None:
    """Law 5: the identity and wallet keys are read after everything before them is stored, in one transaction."""
    entries = MemoryEntries()
    vault = EngineVault(entries)
    vault.identity_public()
    vault.write("state", {"position": "1"}, 0)
    vault.write("journal/1", {"kind": "x"}, 0)
    assert not [each for each in entries.asked if each.startswith("put documents")]
    entries.asked.clear()
    vault.identity_sign(b"digest")
    assert entries.asked == ["put documents/state documents/journal/1", "get identity"]
    vault.write("journal/2", {"kind": "y"}, 0)
    entries.asked.clear()
    assert vault.read("keys/abc") == (None, 0)
    assert entries.asked == ["put documents/journal/2", "get documents/keys/abc"]


def test_a_lost_transaction_is_not_believed() -> None:
    """What was not stored is not known either: the next look is at the storage, and no key was used."""
    entries = MemoryEntries()
    vault = EngineVault(entries)
    vault.identity_public()
    vault.write("state", {"position": "1"}, 0)
    entries.broken = True
    with pytest.raises(Unavailable):
        vault.identity_sign(b"digest")
    entries.broken = False
    assert vault.read("state") == (None, 0)


def test_another_writer_is_noticed() -> None:
    """Two processes of one mount, for the moment of a reload: the second one's step is refused, not merged."""
    entries = MemoryEntries()
    one, two = EngineVault(entries), EngineVault(entries)
    one.write("state", {"n": "1"}, 0)
    one.finish()
    assert (one.read("state")[1], two.read("state")[1]) == (1, 1)
    one.write("state", {"n": "2"}, 1)
    two.write("state", {"n": "3"}, 1)
    one.finish()
    with pytest.raises(Unavailable, match="another process"):
        two.finish()
    assert two.read("state") == ({"n": "2"}, 2)
    with pytest.raises(CasConflict):
        two.write("state", {"n": "4"}, 1)


def test_a_lost_identity_is_not_replaced() -> None:
    """A seat with a past and no identity key is damaged; a new key would be somebody else."""
    entries = MemoryEntries()
    seat = seat_in_memory("hot-1", EngineVault(entries))
    Deployment([seat, *(seat_in_memory(name) for name in HOT[1:])]).pinned()
    seat.make_wallet_key("customer_hot/a", EVM)
    del entries.stored["identity"]
    with pytest.raises(Unavailable, match="identity key is gone"):
        seat_in_memory("hot-1", EngineVault(entries)).identity()


ENVIRONMENT = {
    COOKIE[0]: COOKIE[1],
    "PLUGIN_PROTOCOL_VERSIONS": "5",
    "PLUGIN_CLIENT_CERT": "-----BEGIN CERTIFICATE-----",
}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({COOKIE[0]: ""}, id="no cookie"),
        pytest.param({"PLUGIN_PROTOCOL_VERSIONS": "3,4"}, id="an older protocol, without TLS"),
        pytest.param({"PLUGIN_CLIENT_CERT": ""}, id="no certificate"),
    ],
)
def test_who_may_start_it(change: dict[str, str]) -> None:
    """OpenBao with mutual TLS, and nobody else."""
    assert read_environment(ENVIRONMENT).sockets is None
    with pytest.raises(NotStartedByOpenBao):
        read_environment(ENVIRONMENT | change)


@pytest.mark.parametrize("mount", ["", "../sys", "seat/", "a b", "sys/../seat", "seat?x"])
def test_mounts_cannot_climb(mount: str, tmp_path: Any) -> None:
    """A mount's path is names; it reaches no other API."""
    with pytest.raises(InvalidInput):
        EngineClient("hot-1", tmp_path, mount)


def test_a_slow_seat_is_waited_for_once(tmp_path: Path) -> None:
    """A server that takes requests and never answers: the first asker waits its seconds, the next ones are told at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        approle = tmp_path / "approle.json"
        approle.touch(mode=0o600)
        where = f"http://127.0.0.1:{listener.getsockname()[1]}"
        approle.write_text(json.dumps({"url": where, "role_id": "r", "secret_id": "s"}))
        client = EngineClient("hot-1", approle, timeout=(0.5, 0.5))
        with pytest.raises(Unavailable, match="Timeout"):
            client.call("head")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer in time"):
            client.call("head")
        assert time.monotonic() - began < 0.1
