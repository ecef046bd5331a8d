# SPDX-License-Identifier: AGPL-3.0-or-later
"""Puts failpoints around everything by which one process of ours changes, or waits for, something outside of itself.

There are few ways out, and each is one class: the store, the socket client, the node clients, the vault client; and two ways in:
the socket server and the web application. Every public method of these classes is wrapped, found by reflection, and a point is named
by what is called. What only reads has one point, after the answer: to be killed before it or after is the same to the world.
"""

import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

from api import app as web
from custody import wire
from custody.store import SqlStore
from tests.crash.points import UNWATCHED, Points

Label = Callable[[Any, str, tuple[Any, ...]], str]
"""What is called: the object, the method's name, its arguments."""

_FENCE: Final = "/custody/flows/leases.py"
_STORE: Final = "/custody/store/"
_READS: Final = re.compile(
    r"(eth_(get|call|chainId|blockNumber|estimate|max|fee|gas)|debug_trace|trace_|list|decode|test|estimate|get(?!new|rawchange))"
    r".*|(read|list)\..+|code|header|read|identity_public"
)
"""What only asks; a method that nobody here has heard of counts as one that acts."""
_ABOUT: Final = re.compile(r"(?<=/customers)/[^/]+|(?<=/transfers)/(?!dry-run)[^/]+|(?<=/statements)/(?!latest)[^/]+")


@dataclass(frozen=True, slots=True)
class Way:
    """One class by which a process reaches outside. `left` are public methods with no point, each because it changes and awaits nothing."""

    module: str
    name: str
    kind: str
    label: Label
    left: frozenset[str] = frozenset()

    @property
    def cls(self) -> type:
        """The class, imported."""
        found = getattr(__import__(self.module, fromlist=[self.name]), self.name)
        if not isinstance(found, type):
            raise TypeError(f"{self.module}.{self.name} is no class")
        return found


def _asked(client: Any, _method: str, given: tuple[Any, ...]) -> str:
    return f"{server_of(client._path)}.{given[0]}"


def _rpc(_client: object, method: str, given: tuple[Any, ...]) -> str:
    """By the node's own method; of a batch by all of its methods."""
    first = given[0] if given else ""
    if isinstance(first, str):
        return first if method in ("call", "batch") else method
    return "+".join(sorted({call[0] for call in first}))


def _document(_vault: object, method: str, given: tuple[Any, ...]) -> str:
    """By the kind of document, which is the first name of its path."""
    path = given[0] if given and isinstance(given[0], str) else ""
    return f"{method}.{path.partition('/')[0]}" if path else method


WAYS: Final = (
    Way("custody.wire", "Client", "ask", _asked),
    Way("custody.chains.evm.client", "EvmClient", "rpc", _rpc),
    Way("custody.chains.bitcoin.rpc", "BitcoinRpc", "rpc", _rpc),
    Way("custody.vault.openbao", "OpenBaoClient", "memory", _document, frozenset({"from_file"})),
)
"""Every way out but the store, whose points lie inside and behind its transactions."""


def server_of(path: Path) -> str:
    """Which part listens on a socket of the devnet: `hot-1.d/s` is a seat's."""
    name = path.stem if path.stem != "s" else path.parent.stem
    return re.sub(r"^(hot|cold)-\d+$", "seat", name)


def public_methods(cls: type) -> Iterator[tuple[str, FunctionType]]:
    """Every plain public method that a class has, its bases' too; classmethods and properties reach nothing by themselves."""
    for name in dir(cls):
        found = getattr(cls, name)
        if not name.startswith("_") and isinstance(found, FunctionType):
            yield name, found


_depth = threading.local()


@contextmanager
def _inside() -> Iterator[bool]:
    """Whether this is the outermost watched call of the thread: what it is made of below has no points of its own."""
    before = getattr(_depth, "value", 0)
    _depth.value = before + 1
    try:
        yield before == 0
    finally:
        _depth.value = before


def wrap_way(way: Way, cls: type, points: Points) -> None:
    """Wrap every public method of a way out that is not left out by name."""
    for name, method in public_methods(cls):
        if name not in way.left:
            setattr(cls, name, _watched(way, name, method, points))


def is_read(what: str) -> bool:
    """Whether all that is called, several methods of a batch among it, changes nothing."""
    return all(_READS.fullmatch(each) for each in what.split("+"))


def _watched(way: Way, name: str, method: FunctionType, points: Points) -> Callable[..., Any]:
    @wraps(method)
    def watched(self: Any, *given: Any, **named: Any) -> Any:
        with _inside() as outermost:
            if not outermost:
                return method(self, *given, **named)
            what = way.label(self, name, given)
            if not what:  # a batch of nothing asks nobody
                return method(self, *given, **named)
            if way.kind == "ask" or not is_read(what):
                points.reach(f"{way.kind}.before", what)
            result = method(self, *given, **named)
            points.reach(f"{way.kind}.after", what)
            return result

    watched.__failpoint__ = way.kind  # type: ignore[attr-defined]  # for whoever checks that nothing is left out
    return watched


# the store


STORE_LEFT: Final = frozenset({"read", "close"})
"""A transaction that only reads leaves nothing: to be killed in it is to be killed behind the commit before it."""


def wrap_store(cls: type, points: Points) -> None:
    """Two points for each transaction that writes: all of it done but not committed, and committed but nobody told."""
    for name, method in public_methods(cls):
        if name not in STORE_LEFT:
            setattr(cls, name, _committing(method, points))


def _committing(method: FunctionType, points: Points) -> Callable[..., Any]:
    @wraps(method)
    def commits(self: Any, work: Callable[[Any], Any]) -> Any:
        with _inside() as outermost:
            if not outermost:
                return method(self, work)
            what = named_by_caller(sys._getframe(1), work)

            def worked(unit: Any) -> Any:
                result = work(unit)
                points.reach("commit.before", what)
                return result

            result = method(self, worked)
            points.reach("commit.after", what)
            return result

    commits.__failpoint__ = "commit"  # type: ignore[attr-defined]
    return commits


def named_by_caller(frame: FrameType | None, work: object) -> str:
    """`module.function(work)` of whoever asked for a transaction, seen through the store and the fence around it."""
    while frame is not None:
        code, file = frame.f_code, frame.f_code.co_filename
        if file.endswith(_FENCE) and code.co_name == "run":
            work = frame.f_locals["work"]
        elif file != __file__ and _STORE not in file:
            where = f"{Path(file).stem}.{code.co_qualname.replace('.<locals>', '')}"
            return f"{where}({_work(work)})" if _work(work) else where
        frame = frame.f_back
    return "nobody"


def _work(work: object) -> str:
    """What a transaction does, where its function says that by its name or by the first thing that it calls."""
    if isinstance(work, partial):
        return _work(work.func)
    if not isinstance(work, FunctionType):
        return ""
    if work.__name__ != "<lambda>":
        return "" if work.__name__ == "work" else work.__name__
    return ".".join(_called(work.__code__))


def _called(code: CodeType) -> tuple[str, ...]:
    """The first dotted name of a lambda."""
    return tuple(name for name in code.co_names[:2])


# ways in


def wrap_server(points: Points) -> None:
    """Around every verb of a socket server: asked and not begun, done and not answered."""
    made = wire._Server.__init__

    @wraps(made)
    def make(self: Any, handlers: Mapping[str, Callable[[object], object]]) -> None:
        made(self, {verb: _answering(verb, handler, points) for verb, handler in handlers.items()})

    wire._Server.__init__ = make  # type: ignore[method-assign]


def _answering(verb: str, handler: Callable[[object], object], points: Points) -> Callable[[object], object]:
    @wraps(handler)
    def answering(body: object) -> object:
        points.reach("serve.before", verb)
        result = handler(body)
        points.reach("serve.after", verb)
        return result

    return answering


def wrap_api(points: Points) -> None:
    """Around every request of the web application: taken and not begun, done and not answered."""
    create = web.create_app

    @wraps(create)
    def create_app(*given: Any, **named: Any) -> Any:
        return watched_app(create(*given, **named), points)

    web.create_app = create_app


def watched_app(inner: Any, points: Points) -> Callable[..., Any]:
    """An ASGI application with a point before each request, and one before its answer's first byte."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        what = route_of(scope["method"], scope["path"])

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                points.reach("request.after", what)
            await send(message)

        points.reach("request.before", what)
        await inner(scope, receive, answer)

    return app


def route_of(method: str, path: str) -> str:
    """`POST /v1/transfers/{}/approvals`: what a request asks for, whoever it is about."""
    return f"{method} {_ABOUT.sub('/{}', path)}"


def hear(points: Points, event: str) -> None:
    """Note a connection that no failpoint stands around."""
    if event == "socket.connect" and not getattr(_depth, "value", 0):
        points.reach(UNWATCHED, named_by_caller(sys._getframe(1), None))


def watch_ways_out(points: Points) -> None:
    """From now on, and for as long as this process lives: a new client of a new kind shows here, and a test fails of it."""
    sys.addaudithook(lambda event, _given: hear(points, event))


def install(points: Points) -> None:
    """Every failpoint of a process, before its main begins."""
    wrap_store(SqlStore, points)
    for way in WAYS:
        wrap_way(way, way.cls, points)
    wrap_server(points)
    wrap_api(points)
    watch_ways_out(points)
