# SPDX-License-Identifier: AGPL-3.0-or-later
"""A server between one of our parts and what it asks: slow, deaf, cut off, behind, or lying, for as long as a test wants.

It stands in front of real servers (Anvil, bitcoind, OpenBao), which know nothing of it. Without a trick it changes no byte.
"""

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

_HOP: Final = frozenset({"connection", "content-length", "host", "keep-alive", "transfer-encoding"})
_UPSTREAM_SECONDS: Final = 60.0


class Cut(Exception):
    """The connection ends without an answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The JSON-RPC calls in it, a batch's in order; none where it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return []
        listed = found if isinstance(found, list) else [found]
        return [call for call in listed if isinstance(call, dict) and "method" in call]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `sent` is how much of its body travels before the connection ends, None for all of it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: int | None = None


Forward = Callable[[Asked], Answer]
Trick = Callable[[Asked, Forward], Answer]
"""What is done with a request. Raises Cut."""


def honest(asked: Asked, forward: Forward) -> Answer:
    """Pass it on, and give back what came."""
    return forward(asked)


@dataclass
class Proxy:
    """One listening port in front of one server's."""

    upstream: Callable[[], int]
    """The server's port, asked each time: it may come back at another one."""
    trick: Trick = honest
    heard: list[tuple[str, Any]] = field(default_factory=list)
    """Every JSON-RPC call, or verb and path, in order, with what it carried."""
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        if self._server is None:
            raise RuntimeError("not started")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = (
                True  # head and body are two writes; the second would wait 40 ms for an acknowledgement
            )
            wbufsize = -1

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, dict(self.headers.items()), body)
                try:
                    answer = proxy._answer(asked)
                except (Cut, OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                sent = answer.body if answer.sent is None else answer.body[: answer.sent]
                self.close_connection = answer.sent is not None
                with contextlib.suppress(OSError):  # whoever asked may have given up
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(sent)
                    self.wfile.flush()

            do_GET = do_POST = do_PUT = do_LIST = do_DELETE = _answer  # noqa: N815  # the names that http.server calls

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keep the test's output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that goes away is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def playing(self, trick: Trick) -> Iterator[Self]:
        """Do that for the length of a block."""
        self.trick = trick
        try:
            yield self
        finally:
            self.trick = honest

    def _answer(self, asked: Asked) -> Answer:
        self.heard += [(call["method"], call.get("params")) for call in asked.calls] or [
            (f"{asked.method} {asked.path}", asked.body)
        ]
        return self.trick(asked, self._forward)

    def _forward(self, asked: Asked) -> Answer:
        port = self.upstream()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_UPSTREAM_SECONDS)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP}
            headers["Host"] = f"127.0.0.1:{port}"
            connection.request(asked.method, asked.path, asked.body or None, headers)
            answer = connection.getresponse()
            told = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()


# tricks


def when(applies: Callable[[Asked], bool], trick: Trick) -> Trick:
    """A trick for some requests only."""
    return lambda asked, forward: trick(asked, forward) if applies(asked) else forward(asked)


def calls(*methods: str) -> Callable[[Asked], bool]:
    """Whether a request carries one of these JSON-RPC methods."""
    return lambda asked: any(call["method"] in methods for call in asked.calls)


def deaf(until: threading.Event) -> Trick:
    """Take the request, and do nothing with it; the connection ends once the event is set."""

    def hang(_asked: Asked, _forward: Forward) -> Answer:
        until.wait()
        raise Cut

    return hang


def slow(seconds: float) -> Trick:
    """Done at once, told late."""

    def late(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        threading.Event().wait(seconds)
        return answer

    return late


def lost(times: int, lost_of: Callable[[Asked], object] = lambda _: None) -> Trick:
    """Done, and the answer lost: `times` times for each kind of request, which `lost_of` names (None: all are one kind)."""
    left: dict[object, int] = {}
    turn = threading.Lock()

    def cut(asked: Asked, forward: Forward) -> Answer:
        answer, kind = forward(asked), lost_of(asked)
        with turn:
            left[kind] = left.get(kind, times) - 1
            if left[kind] >= 0:
                raise Cut
        return answer

    return cut


def refused(_asked: Asked, _forward: Forward) -> Answer:
    """Cut before anything was done."""
    raise Cut


def half(asked: Asked, forward: Forward) -> Answer:
    """Done, and half of the answer arrives."""
    answer = forward(asked)
    return replace(answer, sent=len(answer.body) // 2)


def failing(asked: Asked, _forward: Forward) -> Answer:
    """Refused with HTTP 500, and something that is no JSON."""
    return Answer(500, {"Content-Type": "text/html"}, b"<html>internal error</html>" + asked.path.encode())


Change = Callable[[str, Sequence[Any], Any], Any]
"""Makes a false result of a true one, given method and parameters."""


def lying(change: Change) -> Trick:
    """Every JSON-RPC result as `change` has it. Errors stay as they are."""

    def lie(asked: Asked, forward: Forward) -> Answer:
        answer = forward(asked)
        by_id = {call.get("id"): call for call in asked.calls}
        try:
            told = json.loads(answer.body)
        except ValueError:
            return answer
        for one in told if isinstance(told, list) else [told]:
            call = by_id.get(one.get("id"))
            if call is not None and one.get("result") is not None:
                one["result"] = change(call["method"], call.get("params") or [], one["result"])
        return replace(answer, body=json.dumps(told).encode())

    return lie


def only(methods: Collection[str], change: Callable[[Any], Any]) -> Change:
    """A lie about some methods."""
    return lambda method, _params, result: change(result) if method in methods else result


def behind(height: int, final: int) -> Trick:
    """An EVM node that is behind: it has no block above `height`, and nothing that is in one."""
    tags = {"latest": hex(height), "pending": hex(height), "finalized": hex(final), "safe": hex(final)}

    def older(method: str, params: list[Any]) -> list[Any]:
        if method == "eth_getTransactionCount":  # the pool's, which a node that is behind has too
            return params
        if method == "eth_getLogs":
            return [{name: tags.get(str(value), value) for name, value in params[0].items()}]
        return [tags.get(value, value) if isinstance(value, str) else value for value in params]

    def unknown(method: str, _params: Sequence[Any], result: Any) -> Any:  # JSON
        if method == "eth_blockNumber":
            return hex(height)
        number = result.get("number", result.get("blockNumber")) if isinstance(result, dict) else None
        if not isinstance(number, str) or int(number, 16) <= height:
            return result
        waiting = {"blockHash": None, "blockNumber": None, "transactionIndex": None}
        return {**result, **waiting} if method == "eth_getTransactionByHash" else None

    def answer(asked: Asked, forward: Forward) -> Answer:
        body = json.loads(asked.body)
        for call in body if isinstance(body, list) else [body]:
            call["params"] = older(call["method"], call.get("params") or [])
        return lying(unknown)(replace(asked, body=json.dumps(body).encode()), forward)

    return answer
