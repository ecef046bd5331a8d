# SPDX-License-Identifier: AGPL-3.0-or-later
"""The wire between processes: what goes through unchanged, and what hostile bytes get for an answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import eth_account  # noqa: F401  # raises the recursion limit, as it does in every real server
import pytest

from custody import wire
from custody.answers import MESSAGE_BYTES, Handler, read_body
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule
from custody.wire import Client, Stop, serve


def _echo(body: object) -> object:
    return body


def _refuse(body: object) -> object:
    raise Refused(
        [Refusal(Rule.DUST, units=5, limit="6"), Refusal(Rule.KEY_REUSED, keys={b"\x01"}, at=[1, None, b"\x02"])]
    )


def _invalid(body: object) -> object:
    raise InvalidInput("field", Rule.MALFORMED, "got" * 500, "want")


def _away(body: object) -> object:
    raise Unavailable("the vault", "it is sealed")


HANDLERS: dict[str, Handler] = {"echo": _echo, "refuse": _refuse, "invalid": _invalid, "away": _away}


@contextmanager
def served(handlers: dict[str, Handler]) -> Iterator[Path]:
    """A server on a thread of this process."""
    with TemporaryDirectory(prefix="wire-") as folder:
        path, stop, ready = Path(folder) / "s", Stop(), threading.Event()
        server = threading.Thread(target=serve, args=(path, handlers, ready.set, stop))
        server.start()
        try:
            assert ready.wait(10)
            yield path
        finally:
            stop.ring()
            server.join(30)
            stop.close()
            assert not server.is_alive()
        assert not path.exists()


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """One server for the tests that leave it as it was."""
    with served(HANDLERS) as path:
        yield path


def _raw(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.connect(os.fspath(path))
    return connected


def _ask(path: Path, message: bytes) -> object:
    with Connection(_raw(path).detach()) as connection:
        connection.send_bytes(message)
        return json.loads(connection.recv_bytes())


@pytest.mark.parametrize(
    "body",
    [{}, {"a": [1, "2", None, True, {"b": -(2**70)}]}, {"text": "ü\u0000"}, {"text": "[{" * 100 + '"'}],
    ids=["empty", "nested", "odd text", "brackets in text"],
)
def test_bodies_go_through(path: Path, body: dict[str, object]) -> None:
    """JSON out is JSON in."""
    assert Client(path).call("echo", body) == body


def test_refusals_keep_their_operands(path: Path) -> None:
    """Rule and numbers arrive; what JSON has no word for is told as text."""
    with pytest.raises(Refused) as refused:
        Client(path).call("refuse")
    want = (Refusal(Rule.DUST, units=5, limit="6"), Refusal(Rule.KEY_REUSED, keys=["b'\\x01'"], at=[1, None, "0x02"]))
    assert refused.value.refusals == want


def test_invalid_input_and_unavailable_arrive(path: Path) -> None:
    """Each is raised again with its operands; a long operand is cut."""
    with pytest.raises(InvalidInput) as invalid:
        Client(path).call("invalid")
    assert (invalid.value.field, invalid.value.rule, len(invalid.value.got)) == ("field", Rule.MALFORMED, 300)
    with pytest.raises(Unavailable, match="the vault is unavailable: it is sealed"):
        Client(path).call("away")


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "garbage": bytes(range(256)),
    "a pickle": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
    "not an object": b"[]",
    "no verb": b'{"body": {}}',
    "an unknown verb": b'{"verb": "export_key", "body": {}}',
    "a verb that is none": b'{"verb": ["echo"], "body": {}}',
    "one name twice": b'{"verb": "echo", "body": {}, "body": {}}',
    "a name too many": b'{"verb": "echo", "body": {}, "force": true}',
    "a fraction": b'{"verb": "echo", "body": {"amount": 0.1}}',
    "not a number": b'{"verb": "echo", "body": {"amount": NaN}}',
    "half a character": b'{"verb": "echo", "body": {"a": "\\ud800"}}',
    "a number without end": b'{"verb": "echo", "body": ' + b"9" * 10_000 + b"}",
    "a nest without end": b'{"verb": "echo", "body": ' + b"[" * 200_000 + b"}",
    "a nest of objects": b'{"verb": "echo", "body": ' + b'{"a":' * 150_000 + b"}",
    "a nest behind a string": b'{"verb": "]]]]]]\\"]]]]", "body": ' + b"[" * 200_000,
    "a nest of 65": b'{"verb": "echo", "body": ' + b"[" * 65 + b"]" * 65 + b"}",
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_messages_are_invalid(path: Path, message: bytes) -> None:
    """Each gets an answer that names the rule, and the server lives on."""
    answer = _ask(path, message)
    assert isinstance(answer, dict)
    assert answer["invalid"]["rule"] == Rule.MALFORMED
    assert Client(path).call("echo", {"still": "here"}) == {"still": "here"}


FRAMES: dict[str, bytes] = {
    "a frame above the cap": (MESSAGE_BYTES + 1).to_bytes(4, "big") + b"x",
    "a frame of 2 GiB": b"\x7f\xff\xff\xff",
    "a frame of 16 EiB": b"\xff\xff\xff\xff" + b"\xff" * 8,
    "half a frame": b"\x00\x00\x01\x00abc",
    "half a length": b"\x00\x00",
    "a good-bye": b"",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_hostile_frames_end_their_connection_only(path: Path, frame: bytes) -> None:
    """Nothing is reserved for a length that was only claimed, and others are served."""
    with _raw(path) as connected:
        connected.sendall(frame)
        connected.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # what it closes with where bytes were left unread
            assert connected.recv(100) == b""
    assert Client(path).call("echo") == {}


def test_a_client_that_says_nothing_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent connections are cut off, those above the limit at once; then there is room again."""
    monkeypatch.setattr(wire, "SERVER_SECONDS", 1.5)  # on a busy machine, too, forty connections are made within it
    with served(HANDLERS) as path:
        silent = [_raw(path) for _ in range(40)]
        with pytest.raises(Unavailable):
            Client(path).call("echo")
        answered, deadline = None, time.monotonic() + 60
        while answered is None and time.monotonic() < deadline:
            with suppress(Unavailable):
                answered = Client(path).call("echo")
        assert answered == {}
        for connected in silent:
            connected.close()


def test_a_server_that_says_nothing() -> None:
    """The client gives up, and says that it does not know."""
    with TemporaryDirectory(prefix="wire-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "s"
        listener.bind(os.fspath(path))
        listener.listen()
        with pytest.raises(Unavailable, match="no answer within"):
            Client(path, seconds=0.3).call("echo")


ANSWERS = {
    "garbage": b"\xff",
    "another language": b'{"yes": 1}',
    "a rule that nobody knows": b'{"refused": [{"rule": "because", "operands": {}}]}',
    "a refusal without reason": b'{"refused": []}',
    "operands that are none": b'{"refused": [{"rule": "dust", "operands": 5}]}',
    "an operand that shadows": b'{"refused": [{"rule": "dust", "operands": {"rule": 1}}]}',
    "an error in part": b'{"invalid": {"field": "x"}}',
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_nonsense_answers_are_unavailable(answer: bytes) -> None:
    """What the client cannot read is never a yes, and never the caller's fault."""
    with TemporaryDirectory(prefix="wire-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "s"
        listener.bind(os.fspath(path))
        listener.listen()

        def reply() -> None:
            with Connection(listener.accept()[0].detach()) as connection:
                connection.recv_bytes()
                connection.send_bytes(answer)

        server = threading.Thread(target=reply)
        server.start()
        with pytest.raises(Unavailable):
            Client(path, seconds=5).call("echo")
        server.join()


def test_too_long_either_way(path: Path) -> None:
    """A request above the cap is not sent, and an answer above it is not."""
    with pytest.raises(InvalidInput):
        Client(path).call("echo", {"a": "x" * MESSAGE_BYTES})

    def long(_body: object) -> object:
        return "x" * MESSAGE_BYTES

    with served({"long": long}) as other, pytest.raises(Unavailable, match="longer than"):
        Client(other).call("long")


def test_nobody_there() -> None:
    """No socket, or a dead one, is Unavailable."""
    with TemporaryDirectory(prefix="wire-") as folder:
        with pytest.raises(Unavailable):
            Client(Path(folder) / "s").call("echo")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{folder}/s")
        with pytest.raises(Unavailable):
            Client(Path(folder) / "s").call("echo")


def test_another_account_is_not_served(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word on who is at the other end counts, on both sides."""
    real, us = wire._peer, threading.get_ident()
    monkeypatch.setattr(wire, "_peer", lambda s: real(s) + (threading.get_ident() != us))
    with pytest.raises(Unavailable):
        Client(path).call("echo")
    monkeypatch.setattr(wire, "_peer", lambda s: real(s) + (threading.get_ident() == us))
    with pytest.raises(Unavailable, match="belongs to account"):
        Client(path).call("echo")


def test_the_socket_is_its_owners_alone(path: Path) -> None:
    """0600 in 0700; a folder that others can enter is refused, as is a place where something is."""
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with pytest.raises(Unavailable):
        serve(path, {})
    with TemporaryDirectory(prefix="wire-") as folder:
        Path(folder, "file").touch()
        with pytest.raises(InvalidInput):
            serve(Path(folder, "file"), {})
        with pytest.raises(InvalidInput):
            serve(Path(folder, "x" * 120), {})
        Path(folder).chmod(0o755)
        with pytest.raises(InvalidInput):
            serve(Path(folder, "s"), {})


def test_handlers_run_one_at_a_time() -> None:
    """Two requests at once never meet in a handler."""
    inside: list[int] = []

    def handle(body: object) -> object:
        inside.append(1)
        time.sleep(0.05)
        count = len(inside)
        inside.pop()
        return count

    with served({"handle": handle}) as path:
        answers: list[object] = []
        callers = [threading.Thread(target=lambda: answers.append(Client(path).call("handle"))) for _ in range(6)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert answers == [1] * 6


@pytest.mark.parametrize(
    ("body", "names"), [([], ("a",)), ({}, ("a",)), ({"a": 1, "b": 2}, ("a",))], ids=["a list", "too few", "too many"]
)
def test_bodies_have_exactly_their_names(body: object, names: tuple[str, ...]) -> None:
    """No argument is ignored and none is made up."""
    with pytest.raises(InvalidInput):
        read_body(body, *names)


SERVER = """
import sys, time
from pathlib import Path
from custody.wire import serve
def slow(body):
    Path(sys.argv[1] + ".begun").touch()
    time.sleep(1)
    return "done"
serve(Path(sys.argv[1]), {"slow": slow}, lambda: print("ready", flush=True))
"""


def test_sigterm_finishes_what_has_begun() -> None:
    """A request that is being handled gets its answer; then the process ends with 0 and takes its socket along."""
    with TemporaryDirectory(prefix="wire-") as folder:
        path = Path(folder) / "s"
        with subprocess.Popen([sys.executable, "-c", SERVER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                answers: list[object] = []
                caller = threading.Thread(target=lambda: answers.append(Client(path).call("slow")))
                caller.start()
                while not Path(f"{path}.begun").exists():
                    time.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                caller.join()
                assert process.wait(10) == 0
            finally:
                process.kill()
        assert answers == ["done"]
        assert not path.exists()
