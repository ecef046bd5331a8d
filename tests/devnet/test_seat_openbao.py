# SPDX-License-Identifier: AGPL-3.0-or-later
"""The OpenBao client against a real server, and against servers that lie, redirect or stall."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from custody.rules.errors import InvalidInput, Unavailable
from custody.vault import approle
from custody.vault.openbao import OpenBaoClient
from devnet.openbao import OpenBao

LOGIN = (200, {"auth": {"client_token": "s.planted"}})
Answer = tuple[int, object]


@contextmanager
def _answering(answers: Callable[[str, str], Answer]) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that says what it is told to, and remembers what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append(f"{self.command} {self.path} token={self.headers.get('X-Vault-Token', '')}")
            status, body = answers(self.command, self.path)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", str(body))
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            with suppress(OSError):  # the client may have given up
                self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_LIST = _answer  # noqa: N815  # the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _client(url: str) -> OpenBaoClient:
    return OpenBaoClient(url, "role", "secret-of-the-role")


CALLS: dict[str, Callable[[OpenBaoClient], object]] = {
    "identity_public": lambda client: client.identity_public(),
    "identity_sign": lambda client: client.identity_sign(b"\x01" * 32),
    "read": lambda client: client.read("state"),
    "write": lambda client: client.write("state", {}, 0),
    "list": lambda client: client.list("bindings"),
}
LIES: dict[str, Answer] = {
    "nothing of use": (200, {}),
    "a list": (200, []),
    "not JSON": (200, b"<html>"),
    "an empty answer": (200, b""),
    "data of another shape": (200, {"data": {"data": "x", "keys": 5, "signature": 7}}),
    "sealed": (503, {"errors": ["Vault is sealed"]}),
    "no such mount": (404, {"errors": ["no handler for route"]}),
    "a 404 of somebody else": (404, b"<html>not found</html>"),
    "a bad request": (400, {"errors": ["cas is required"]}),
    "an error": (500, {"errors": ["internal error"]}),
    "a status nobody uses": (418, {}),
    "a key that was rotated": (
        200,
        {"data": {"type": "ed25519", "latest_version": 2, "keys": {"2": {}}, "signature": "vault:v2:AA=="}},
    ),
    "a key of another kind": (
        200,
        {"data": {"type": "rsa-2048", "latest_version": 1, "keys": {"1": {}}, "signature": "vault:v1"}},
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lying_server_is_unavailable(call: Callable[[OpenBaoClient], object], lie: Answer) -> None:
    """What is no proper answer is never a value."""
    lying = _answering(lambda method, path: LOGIN if path.endswith("/login") else lie)
    with lying as (url, _), pytest.raises(Unavailable) as unavailable:
        call(_client(url))
    assert "secret-of-the-role" not in str(unavailable.value)


@pytest.mark.parametrize("at_login", [True, False], ids=["at login", "after login"])
def test_no_redirect_is_followed(at_login: bool) -> None:
    """A redirect would carry the secret_id or the token to whoever is named in it."""
    with _answering(lambda *_: LOGIN) as (elsewhere, asked_elsewhere):

        def redirecting(_: str, path: str) -> Answer:
            return LOGIN if path.endswith("/login") and not at_login else (307, f"{elsewhere}{path}")

        with _answering(redirecting) as (url, _):
            for call in CALLS.values():
                with pytest.raises(Unavailable):
                    call(_client(url))
    assert asked_elsewhere == []


def test_an_expired_token_is_renewed_once() -> None:
    """403 with an old token: log in and ask again; 403 with a fresh one is an answer."""
    tokens = iter(["s.one", "s.two"])
    state = {"logins": 0}

    def expiring(_: str, path: str) -> Answer:
        if path.endswith("/login"):
            state["logins"] += 1
            return 200, {"auth": {"client_token": next(tokens)}}
        return (403, {"errors": ["permission denied"]}) if state["logins"] < 2 else (404, {"errors": []})

    with _answering(expiring) as (url, asked):
        client = _client(url)
        with pytest.raises(Unavailable, match="permission denied"):
            client.read("state")
        assert client.read("state") == (None, 0)
    assert [line.partition("token=")[2] for line in asked] == ["", "s.one", "s.one", "", "s.two"]


def test_a_stalling_server_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call waits for ever."""
    monkeypatch.setattr(approle, "TIMEOUT", (0.3, 0.3))
    done = threading.Event()

    def stalling(*_: str) -> Answer:
        done.wait(10)
        return LOGIN

    with _answering(stalling) as (url, _):
        with pytest.raises(Unavailable):
            _client(url).read("state")
        done.set()


def test_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy nor a token of the machine is used."""
    monkeypatch.setenv("VAULT_TOKEN", "s.of-the-environment")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with _answering(lambda _, path: LOGIN if path.endswith("/login") else (404, {"errors": []})) as (url, asked):
        _client(url).read("state")
    assert "of-the-environment" not in "".join(asked)


URLS = ["http://vault.example:8200", "http://127.0.0.1.example:1", "ftp://127.0.0.1", "127.0.0.1:8200", ""]


@pytest.mark.parametrize("url", URLS)
def test_no_secret_in_the_clear(url: str) -> None:
    """Plain HTTP leaves the machine nowhere."""
    with pytest.raises(InvalidInput):
        _client(url)


PATHS = ["", "/", "a//b", "../x", "a/../b", "a/%2e%2e/b", "a?version=1", "a b", "keys/\u00fc", "a/"]


@pytest.mark.parametrize("path", PATHS)
def test_paths_cannot_climb(openbao_seat: OpenBao, path: str) -> None:
    """A label or a customer's name in a path reaches no other document and no other API."""
    client = OpenBaoClient.from_file(openbao_seat.approle_file)
    for ask in (client.read, client.list, lambda p: client.write(p, {}, 0)):
        with pytest.raises(InvalidInput):
            ask(path)


FILES = {
    "none": None,
    "not JSON": "{",
    "a list": "[]",
    "one name missing": '{"url": "", "role_id": ""}',
    "one name too many": '{"url": "", "role_id": "", "secret_id": "", "token": ""}',
    "a number": '{"url": "", "role_id": "", "secret_id": 5}',
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES.keys())
def test_files_that_are_no_approle(tmp_path: Path, content: str | None) -> None:
    """Each names the file and what it should be, and repeats nothing of it."""
    file = tmp_path / "approle.json"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    with pytest.raises(InvalidInput):
        OpenBaoClient.from_file(file)


def test_a_deleted_document_is_not_a_new_one(openbao_seat: OpenBao) -> None:
    """The role cannot delete; where somebody else did, the client does not take it for a document that never was."""
    answer = {
        "data": {"data": None, "metadata": {"version": 3, "deletion_time": "2026-01-01T00:00:00Z", "destroyed": False}}
    }
    deleted = _answering(lambda _, path: LOGIN if path.endswith("/login") else (404, answer))
    with deleted as (url, _), pytest.raises(Unavailable, match="was deleted"):
        _client(url).read("state")
    denied: Any = openbao_seat.login()
    asked: list[Callable[[], object]] = [
        lambda: denied.secrets.kv.v2.delete_latest_version_of_secret("state", mount_point="bulkhead"),
        lambda: denied.secrets.kv.v2.delete_metadata_and_all_versions("state", mount_point="bulkhead"),
        lambda: denied.secrets.transit.rotate_key("identity", mount_point="transit"),
        lambda: denied.secrets.transit.export_key("identity", "signing-key", mount_point="transit"),
        denied.sys.list_mounted_secrets_engines,
    ]
    for ask in asked:
        with pytest.raises(Exception, match="permission denied"):
            ask()
