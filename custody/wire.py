# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON over a unix socket between processes of one account: `{"verb", "body"}` in, one answer out, then the end.

Framing is `multiprocessing.connection`'s send_bytes and recv_bytes; nothing is ever unpickled. custody/answers.py has the answers.
"""

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, Final

from custody.answers import MESSAGE_BYTES, Handler, answer_of, decode, encode, find_handler, read_answer, read_body
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule

SERVER_SECONDS: Final = 10.0
"""How long a server waits for the next bytes of a request, and for a client to take its answer."""
CLIENT_SECONDS: Final = 60.0
_CONNECTIONS: Final = 32
_DRAIN_SECONDS: Final = 20.0
_SOCKET_PATH_BYTES: Final = 107


class Stop:
    """Ends a `serve` from a signal handler or another thread."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()

    def ring(self) -> None:
        """Ask the server to stop."""
        os.write(self._writer, b"\0")

    def close(self) -> None:
        """Let go of the pipe."""
        os.close(self.reader)
        os.close(self._writer)


def serve(
    path: Path, handlers: Mapping[str, Handler], ready: Callable[[], None] = lambda: None, stop: Stop | None = None
) -> None:
    """Answer requests until SIGTERM or SIGINT (or `stop`, where it is given), then finish what has begun.

    A thread for each connection, one lock for handling: handlers run one at a time. Raises InvalidInput where the path cannot
    be a socket, Unavailable where another process answers there.
    """
    with _listening(path) as listener, _stopping(stop) as bell:
        server = _Server(handlers)
        ready()
        while bell.reader not in (happened := wait([listener, bell.reader])):
            if listener in happened:
                server.greet(listener)
        server.drain()


class _Server:
    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = dict(handlers)
        self._handling = threading.Lock()
        self._room = threading.BoundedSemaphore(_CONNECTIONS)
        self._busy: set[threading.Thread] = set()

    def greet(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # gone before it was greeted, or no descriptor left; the next one may do better
        if _peer(client) != os.getuid() or not self._room.acquire(blocking=False):
            client.close()
            return
        _limit(client, SERVER_SECONDS)
        threading.Thread(target=self._attend, args=(Connection(client.detach()),), daemon=True).start()

    def drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        for thread in list(self._busy):
            thread.join(max(0.0, deadline - time.monotonic()))

    def _attend(self, connection: "Connection[Any, Any]") -> None:
        try:
            with connection:
                try:
                    raw = connection.recv_bytes(MESSAGE_BYTES)
                except EOFError:
                    return
                self._busy.add(threading.current_thread())
                connection.send_bytes(self._answer(raw))
        except OSError:
            pass  # the client left, stalled, or sent too much: there is nobody to tell, and nothing was begun by halves
        finally:
            self._busy.discard(threading.current_thread())
            self._room.release()

    def _answer(self, raw: bytes) -> bytes:
        def ask() -> object:
            verb, body = read_body(decode(raw, "request"), "verb", "body")
            handler = find_handler(self._handlers, verb)
            with self._handling:
                return handler(body)

        answer = encode(answer_of(ask))
        return answer if len(answer) <= MESSAGE_BYTES else encode(_TOO_LONG)


_TOO_LONG: Final = {"unavailable": {"what": "answer", "why": f"longer than {MESSAGE_BYTES} bytes"}}


class Client:
    """Calls verbs of one server; each call is a connection of its own, so that a Client can be shared by threads.

    `name` is whose server it is: whoever waits for it is told that, and not only a path or whatever stands behind the server.
    """

    def __init__(self, path: Path, seconds: float = CLIENT_SECONDS, *, name: str = "") -> None:
        self._path = path
        self._seconds = seconds
        self._name, self._what = name, name or str(path)

    def call(self, verb: str, body: Mapping[str, object] | None = None) -> object:
        """The answer's body. Raises Refused or InvalidInput as the server did; Unavailable where it did not answer.

        After Unavailable the request may have been carried out: verbs are made to be asked again.
        """
        request = encode({"verb": verb, "body": dict(body or {})})
        if len(request) > MESSAGE_BYTES:
            raise InvalidInput("request", Rule.MALFORMED, f"{len(request)} bytes", f"at most {MESSAGE_BYTES}")
        try:
            with self._connected() as connection:
                connection.send_bytes(request)
                raw = connection.recv_bytes(MESSAGE_BYTES)
        except BlockingIOError as error:
            raise Unavailable(self._what, f"no answer within {self._seconds:g} s") from error
        except (OSError, EOFError) as error:
            raise Unavailable(self._what, str(error) or "closed without an answer") from error
        return read_answer(raw, self._what, self._name)

    def _connected(self) -> "Connection[Any, Any]":
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _limit(server, self._seconds)
            server.connect(os.fspath(self._path))
            if (owner := _peer(server)) != os.getuid():
                raise OSError(f"the server belongs to account {owner}")
        except OSError:
            server.close()
            raise
        return Connection(server.detach())


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that its owner alone can reach: mode 0600 in a folder of mode 0700."""
    name = os.fspath(path)
    if len(os.fsencode(name)) > _SOCKET_PATH_BYTES:
        raise InvalidInput(
            "socket", Rule.MALFORMED, f"{len(os.fsencode(name))} bytes", f"a path of at most {_SOCKET_PATH_BYTES}"
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise InvalidInput(
            "socket", Rule.MALFORMED, f"a folder of mode {found.st_mode & 0o777:o}", "an own folder of mode 700"
        )
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(name)
        path.chmod(0o600)
        listener.listen(_CONNECTIONS)
        listener.settimeout(0)
        made = path.stat().st_ino
        yield listener
        if path.exists() and path.stat().st_ino == made:
            path.unlink()
    finally:
        listener.close()


def _clear(path: Path) -> None:
    """Remove the socket of a process that died; never one that somebody answers on, and never another kind of file."""
    if not path.exists():
        return
    if not path.is_socket():
        raise InvalidInput("socket", Rule.ALREADY_EXISTS, path.name, "a path where nothing is, or a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise Unavailable(path.name, "another process answers there already")


@contextmanager
def _stopping(given: Stop | None) -> Iterator[Stop]:
    if given is not None:
        yield given
        return
    bell = Stop()

    def ring(_signal: int, _frame: FrameType | None) -> None:
        bell.ring()

    before = {number: signal.signal(number, ring) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield bell
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bell.close()


def _peer(connected: socket.socket) -> int:
    """The account at the other end, as the kernel knows it."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return int(uid)


def _limit(connected: socket.socket, seconds: float) -> None:
    """Bound every read and write on the descriptor; Connection has no time-out of its own."""
    connected.settimeout(None)
    wanted = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wanted)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wanted)
