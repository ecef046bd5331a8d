# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `bulkhead devnet up` leaves living: when each process counts as ready, when feeders quote, what a person is told."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from custody.rules.errors import Unavailable
from devnet.guide import guide
from devnet.prices import Feed, quote_forever
from devnet.processes import Lifetime
from devnet.services import API_PORT, Loop, Service, Web, socket_path


class Clock(Feed):
    """A feed without a mirror: times in, quotes out; stops the loop once there is no more time."""

    def __init__(self, times: list[int | None]) -> None:
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "quotes", [])
        object.__setattr__(self, "stop", threading.Event())

    times: list[int | None]
    quotes: list[int]
    stop: threading.Event

    def clock(self) -> int:
        """The next time; None is an attestor that is silent."""
        now = self.times.pop(0)
        if not self.times:
            self.stop.set()
        if now is None:
            raise Unavailable("attestor", "silent")
        return now

    def quote(self, now: int) -> None:
        """Note it."""
        self.quotes.append(now)


@pytest.mark.parametrize(
    ("times", "quotes"),
    [
        pytest.param([100], [100], id="at once"),
        pytest.param([100, 105, 399], [100], id="not again within the period"),
        pytest.param([100, 399, 400, 405], [100, 400], id="again after it"),
        pytest.param([100, 105, 90_000], [100, 90_000], id="at once after somebody moved the clock by a day"),
        pytest.param([100, 50], [100, 50], id="after a clock that was set back"),
        pytest.param([None, None, 100, 105], [100], id="a silent attestor is waited for"),
        pytest.param([100, None, 105], [100], id="and does not make it quote twice"),
    ],
)
def test_feeders_quote(times: list[int | None], quotes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the statement's clock, which a person can move."""
    monkeypatch.setattr("devnet.prices.LOOK", 0)
    feed, said = Clock(list(times)), list[str]()
    quote_forever(feed, feed.stop, 300, said.append)
    assert feed.quotes == quotes
    assert len(said) == len(quotes) + times.count(None)


@pytest.mark.parametrize(
    ("said", "log", "ready"),
    [
        pytest.param("", None, True, id="says nothing first"),
        pytest.param("quoted", None, False, id="no log yet"),
        pytest.param("quoted", "failed to quote: attestor\n", False, id="another word"),
        pytest.param("quoted", "quoted ETH at 100\n", True, id="its word"),
    ],
)
def test_a_loop_is_ready(tmp_path: Path, said: str, log: str | None, ready: bool) -> None:
    """Once it has said what it says first."""
    loop = Loop("feeders", tmp_path, tmp_path, ("devnet", "quote"), said=said)
    if log is not None:
        loop.log.write_text(log)
    assert loop.ready() is ready
    assert loop.owns(os.getpid())
    assert loop.address == ""


@pytest.fixture
def health() -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers what the list's only item says; its port."""
    answer = [b'{"status": "ok", "ready": true}']

    class Handler(BaseHTTPRequestHandler):
        """One answer to everything."""

        def do_GET(self) -> None:
            """Answer."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer[0])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port, answer
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize(
    ("told", "ready"),
    [
        pytest.param(b'{"status": "ok", "ready": true}', True, id="ready"),
        pytest.param(b'{"status": "ok", "ready": false}', False, id="not yet"),
        pytest.param(b"{}", False, id="somebody else's JSON"),
        pytest.param(b"<html>", False, id="somebody else's page"),
    ],
)
def test_the_api_is_ready(tmp_path: Path, health: tuple[int, list[bytes]], told: bytes, ready: bool) -> None:
    """By its own word, and only where our own pid holds the port."""
    web = Web("api", tmp_path, tmp_path, ("api", "serve"))
    web.port, health[1][0] = health[0], told
    assert web.ready() is ready
    assert web.owns(os.getpid())
    assert not web.owns(os.getppid())
    assert list(web.command().argv[-2:]) == ["--port", str(health[0])]


@pytest.mark.parametrize(
    ("lifetime", "kept", "port"),
    [
        pytest.param(Lifetime.DETACHED, None, API_PORT, id="where a person looks"),
        pytest.param(Lifetime.PARENT, None, 0, id="any port for a demonstration or a test"),
        pytest.param(Lifetime.DETACHED, "9123", 9123, id="the last one again"),
    ],
)
def test_the_api_port(tmp_path: Path, lifetime: Lifetime, kept: str | None, port: int) -> None:
    """The documented one, where the network lives on."""
    if kept is not None:
        (tmp_path / "port").write_text(kept)
    assert Web("api", tmp_path, tmp_path, ("api", "serve"), lifetime).port == port


def test_a_service_listens_where_it_is_told(tmp_path: Path) -> None:
    """The deriver's socket stands beside the attestor's, everybody else's in their own folder."""
    assert Service("hot-1", tmp_path, tmp_path, ()).socket == socket_path(tmp_path)
    assert Service("deriver", tmp_path, tmp_path, (), at=tmp_path / "x").address == str(tmp_path / "x")


def test_the_guide_names_only_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that can be pasted: nothing to export at home, and no path of this machine."""
    checkout = Path(__file__).resolve().parents[2]
    monkeypatch.delenv("BULKHEAD_HOME", raising=False)
    monkeypatch.chdir(checkout)
    lines = list(guide(checkout / ".bulkhead", f"http://127.0.0.1:{API_PORT}", "http://localhost:8490"))
    assert not [line for line in lines if "export" in line]
    assert [line for line in lines if " k=.bulkhead/people " in line]
    monkeypatch.chdir(tmp_path)
    elsewhere = "\n".join(guide(tmp_path / "other", "http://127.0.0.1:9999", "http://localhost:9998"))
    assert "export BULKHEAD_HOME=other" in elsewhere
    assert "export BULKHEAD_API=http://127.0.0.1:9999" in elsewhere
    assert "devnet admit --home other " in elsewhere
    assert "http://localhost:9998/enrol?person=ana" in elsewhere
    assert [line for line in lines if "devnet admit ~/" in line]
