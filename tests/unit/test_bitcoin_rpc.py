# SPDX-License-Identifier: AGPL-3.0-or-later
"""The JSON-RPC client: exact numbers, credentials that change under it, and answers it does not believe."""

import base64
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from custody.chains.bitcoin.rpc import MAX_SATOSHI, BitcoinRpc, Json, Login, RpcError, bitcoins, decode, satoshi
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.rules.wallets import Chain
from tests.fakes.bitcoin import MAIN, REGTEST

GENESIS = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
Answer = tuple[int, str, bytes]


class Node:
    """A scripted node: checks the password, notes what it was asked, and answers each call by `reply`."""

    def __init__(self) -> None:
        self.password = "first"
        self.asked: list[tuple[str, int]] = []
        self.reply: Callable[[dict[str, object]], dict[str, object]] = lambda call: {
            "id": call["id"],
            "result": GENESIS,
        }
        self.raw: Answer | None = None
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                node.asked.append((self.path, len(body)))
                want = "Basic " + base64.b64encode(f"u:{node.password}".encode()).decode()
                status, kind, content = node.raw or (
                    200,
                    "application/json",
                    json.dumps([node.reply(call) for call in reversed(body)]).encode(),
                )
                if self.headers["Authorization"] != want:
                    status, kind, content = 401, "text/html", b""
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Nothing: the tests look at `asked`."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that listens until the test is over."""
    found = Node()
    thread = Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def connect(node: Node, chain: Chain = REGTEST) -> BitcoinRpc:
    """A client with the password of now."""
    return BitcoinRpc(node.url, chain, login=Login("u", node.password), timeout=5)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        pytest.param("0.10000000", 10_000_000, id="a tenth"),
        pytest.param("0.30000000", 30_000_000, id="0.1 + 0.2"),
        pytest.param("0.00000001", 1, id="one satoshi"),
        pytest.param("1e-8", 1, id="with an exponent"),
        pytest.param("20999999.99999999", MAX_SATOSHI - 1, id="a satoshi short of all"),
        pytest.param("21000000", MAX_SATOSHI, id="all there is, as an integer"),
        pytest.param("0", 0, id="nothing"),
    ],
)
def test_satoshi_exact(text: str, units: int) -> None:
    """A JSON number of BTC becomes satoshi without a float in between."""
    assert satoshi(decode(text.encode(), "test")) == units
    assert satoshi(decode(bitcoins(units).encode(), "test")) == units


@pytest.mark.parametrize("text", ["0.000000001", "-0.1", "21000000.00000001", "true", '"0.1"', "null", "1e400"])
def test_not_an_amount(text: str) -> None:
    """What cannot be an amount is unknown, never a value."""
    with pytest.raises(Unavailable):
        satoshi(decode(text.encode(), "test"))


@pytest.mark.parametrize("content", [b"", b"{", b"NaN", b'{"a": Infinity}', b"\xff"])
def test_not_json(content: bytes) -> None:
    """What is not JSON is no answer."""
    with pytest.raises(Unavailable):
        decode(content, "test")


def test_integers_stay_exact() -> None:
    """Integers beyond 2^53 and fractions beyond a double keep every digit."""
    found = decode(b"[9007199254740993, 0.1234567890123456789]", "test")
    assert found == [9007199254740993, Decimal("0.1234567890123456789")]


def test_batch_in_order(node: Node) -> None:
    """Answers come back in the order of the calls, whatever order the node used."""
    rpc = connect(node)
    node.reply = lambda call: {"id": call["id"], "result": call["params"]}
    parameters: list[list[Json]] = [[i] for i in range(5)]
    assert rpc.batch("echo", parameters) == parameters
    assert rpc.batch("echo", []) == []


def test_cookie_read_again(node: Node, tmp_path: Path) -> None:
    """A node that was started again has another cookie; the client notices by itself."""
    cookie = tmp_path / "cookie"
    cookie.write_text("u:first\n")
    rpc = BitcoinRpc(node.url, REGTEST, cookie=cookie)
    node.password = "second"
    cookie.write_text("u:second")
    assert rpc.call("getblockhash", 0) == GENESIS
    cookie.unlink()
    assert rpc.call("getblockhash", 0) == GENESIS
    node.password = "third"
    with pytest.raises(Unavailable):
        rpc.call("getblockhash", 0)


def test_wrong_network(node: Node) -> None:
    """A node of another network is refused at construction."""
    with pytest.raises(InvalidInput) as caught:
        connect(node, MAIN)
    assert (caught.value.rule, caught.value.got) == (Rule.WRONG_NETWORK, REGTEST.name)
    with pytest.raises(InvalidInput):
        connect(node, Chain("eip155:1"))


def test_refusal_of_the_node(node: Node) -> None:
    """An error of the node comes with its method, code and message; warming up is no refusal."""
    rpc = connect(node)
    node.reply = lambda call: {"id": call["id"], "error": {"code": -8, "message": "Block height out of range"}}
    with pytest.raises(RpcError) as caught:
        rpc.call("getblockhash", 10**9)
    assert (caught.value.method, caught.value.code) == ("getblockhash", -8)
    node.reply = lambda call: {"id": call["id"], "error": {"code": -28, "message": "Loading block index"}}
    with pytest.raises(Unavailable) as waiting:
        rpc.call("getblockhash", 0)
    assert not isinstance(waiting.value, RpcError)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param((503, "text/plain", b"Work queue depth exceeded"), id="work queue full"),
        pytest.param((200, "text/html", b"<html>a proxy</html>"), id="not JSON"),
        pytest.param((200, "application/json", b"[]"), id="no answer in it"),
        pytest.param((200, "application/json", b'{"id": 99, "result": 1}'), id="an answer to something else"),
        pytest.param((200, "application/json", b'[{"id": true, "result": 1}]'), id="an id that is no number"),
        pytest.param((302, "text/plain", b""), id="a redirect"),
        pytest.param((200, "application/json", b""), id="nothing"),
    ],
)
def test_answers_not_believed(node: Node, raw: Answer) -> None:
    """Anything but an answer to what was asked is Unavailable, and nothing is followed elsewhere."""
    rpc = connect(node)
    node.raw = raw
    with pytest.raises(Unavailable):
        rpc.call("getblockhash", 0)


def test_nobody_listens(node: Node) -> None:
    """A node that is not there is Unavailable; the password stands in no error and no repr."""
    url = node.url
    node.server.server_close()
    with pytest.raises(Unavailable) as caught:
        BitcoinRpc(url, REGTEST, login=Login("u", "hunter2"), timeout=2)
    assert "hunter2" not in f"{caught.value} {Login('u', 'hunter2')!r}"
    with pytest.raises(InvalidInput):
        BitcoinRpc("http://u:hunter2@127.0.0.1:1", REGTEST)


def test_wallet_name_in_the_path(node: Node) -> None:
    """A wallet's name is one segment of the path, slashes and all."""
    rpc = connect(node)
    rpc.call("getwalletinfo", wallet="bulkhead-hot/bip122:0f")
    assert node.asked[-1][0] == "/wallet/bulkhead-hot%2Fbip122%3A0f"
