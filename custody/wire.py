# SPDX-License-Identifier: AGPL-3.0-or-later
"""JSON over a unix socket between processes of one account: `{"verb", "body"}` in, one answer out, then the end.

Framing is `multiprocessing.connection`'s send_bytes and recv_bytes; nothing is ever unpickled. An answer is one of `{"ok"}`,
`{"refused": [{"rule", "operands"}]}`, `{"invalid": {"field", "rule", "got", "want"}}`, `{"unavailable": {"what", "why"}}`.
"""

import json
import os
import re
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
from typing import Any, Final, NoReturn

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule

Handler = Callable[[object], object]
"""Takes a request's body, gives the answer's; both JSON. Raises Refused, InvalidInput or Unavailable."""

MESSAGE_BYTES: Final = 8 << 20
"""A request to sign 100 payments by three people each, from 100 coins whose previous transactions have 100 outputs each, has
1.04 MB; larger previous transactions are ordinary. Only this account's own processes can send one at all."""
SERVER_SECONDS: Final = 10.0
"""How long a server waits for the next bytes of a request, and for a client to take its answer."""
CLIENT_SECONDS: Final = 60.0
_CONNECTIONS: Final = 32
_DRAIN_SECONDS: Final = 20.0
_TOLD: Final = 300
_SOCKET_PATH_BYTES: Final = 107
_DEPTH: Final = 64
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[\]{}]")


def read_body(body: object, *names: str) -> tuple[Any, ...]:
    """The values of a body with exactly these names, in their order; raises InvalidInput."""
    if not isinstance(body, dict) or set(body) != set(names):
        got = sorted(body) if isinstance(body, dict) else type(body).__name__
        raise InvalidInput("body", Rule.MALFORMED, str(got), f"an object of {', '.join(names) or 'nothing'}")
    return tuple(body[name] for name in names)


def read_text(value: object, field: str) -> str:
    """A value that has to be text; raises InvalidInput."""
    if not isinstance(value, str):
        raise InvalidInput(field, Rule.MALFORMED, type(value).__name__, "text")
    return value


def read_count(value: object, field: str) -> int:
    """A value that has to be a whole number from 0 on; raises InvalidInput."""
    if type(value) is not int or value < 0:
        raise InvalidInput(field, Rule.MALFORMED, str(value)[:_TOLD], "0 or more")
    return value


def read_object(value: object, field: str) -> dict[str, object]:
    """A value that has to be an object; raises InvalidInput."""
    if not isinstance(value, dict):
        raise InvalidInput(field, Rule.MALFORMED, type(value).__name__, "an object")
    return value


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
        try:
            verb, body = read_body(_decode(raw, "request"), "verb", "body")
            handler = self._handlers.get(verb) if isinstance(verb, str) else None
            if handler is None:
                raise InvalidInput("verb", Rule.MALFORMED, repr(verb), "one of " + ", ".join(sorted(self._handlers)))
            with self._handling:
                answer = _encode({"ok": handler(body)})
        except Refused as error:
            told = [{"rule": r.rule.value, "operands": _plain(r.operands)} for r in error.refusals]
            return _encode({"refused": told})
        except InvalidInput as error:
            told_of = {"field": error.field, "rule": error.rule, "got": error.got, "want": error.want}
            return _encode({"invalid": {name: str(value)[:_TOLD] for name, value in told_of.items()}})
        except Unavailable as error:
            return _encode({"unavailable": {"what": error.what, "why": error.why}})
        except OSError as error:  # a disk that is full, say: whoever asked is told, and the process goes on
            return _encode({"unavailable": {"what": "server", "why": f"{type(error).__name__}: {error.strerror}"}})
        return answer if len(answer) <= MESSAGE_BYTES else _encode(_TOO_LONG)


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
        request = _encode({"verb": verb, "body": dict(body or {})})
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
        return self._read(raw)

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

    def _read(self, raw: bytes) -> object:
        try:
            decoded = _decode(raw, "answer")
        except InvalidInput as error:
            raise Unavailable(self._what, "answered in another language") from error
        try:
            match decoded:
                case {"ok": answer}:
                    return answer
                case {"refused": [_, *_] as told}:
                    raise Refused([Refusal(Rule(t["rule"]), **t["operands"]) for t in told])
                case {"invalid": told}:
                    raise InvalidInput(told["field"], told["rule"], told["got"], told["want"])
                case {"unavailable": told} if self._name and told["what"] != self._name:
                    raise Unavailable(self._name, f"{told['what']}: {told['why']}")
                case {"unavailable": told}:
                    raise Unavailable(told["what"], told["why"])
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(self._what, "answered in another language") from error
        raise Unavailable(self._what, "answered in another language")


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


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _decode(raw: bytes, field: str) -> object:
    """Strict JSON: no name twice, no fractions, no lone surrogates, no endless nesting. Raises InvalidInput."""
    try:
        _check_depth(raw)
        value = json.loads(raw, object_pairs_hook=_once, parse_float=_fraction, parse_constant=_fraction)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise InvalidInput(
            field, Rule.MALFORMED, f"{len(raw)} bytes: {type(error).__name__}", "one JSON object"
        ) from error
    return value


def _check_depth(raw: bytes) -> None:
    """Refuse deep nesting before the parser sees it.

    Python's own guard is gone: py_ecc, which eth-account imports, raises the recursion limit to 100000, and 200 KB of `[` then
    overflow the C stack and kill the process, keys, lock and all.
    """
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _DEPTH:
            raise ValueError("nested too deep")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a name twice")
    return body


def _fraction(text: str) -> NoReturn:
    raise ValueError(f"not an integer: {text[:20]}")


def _plain(value: object) -> object:
    """A refusal's operand as JSON: numbers, text, lists and objects stay; anything else is told as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
