# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.crash.launch SOCKET`: starts parts of Bulkhead with failpoints in them, and starts each again whenever it was killed.

What all parts import is imported once. A part asked for over the socket is a fork of that, which does nothing but outlive its lives;
each life is a fork again, with its own pid, sockets and connections to database, vault and nodes, and ends in the part's ordinary main.
So a kill costs a few tenths of a second, and not the seconds in which Python loads web3.
"""

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, Self

from custody.cli import main as bulkhead
from tests.crash import wrapping
from tests.crash.points import Points

PARTS: Final = ("api", "attestor", "deriver", "relayer", "seat", "watcher", "worker")
"""Every part of a deposit and a withdrawal."""
_MODULES: Final = (
    "api.app",
    "api.cli",
    "api.compose",
    "custody.bootstrap",
    "custody.chains.bitcoin.payouts",
    "custody.chains.bitcoin.view",
    "custody.chains.evm.payouts",
    "custody.chains.evm.view",
    "custody.cli",
    "custody.commands.attestor",
    "custody.commands.deriver",
    "custody.commands.relayer",
    "custody.commands.watch",
    "custody.commands.worker",
    "custody.seating",
    "custody.store.migrations.guards",
    "custody.vault.attestor_memory",
    "custody.vault.cli",
    "custody.vault.host",
    "custody.vault.relayer",
    "custody.watcher",
    "custody.working",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)
"""What parts load anyway; a module that is missing here is loaded in each life, which only takes longer."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ASKED: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """One part to start: the folder of failpoints, the part's name, its words for `bulkhead`, its environment and its log."""

    points: str
    part: str
    words: tuple[str, ...]
    environment: Mapping[str, str]
    log: str

    def to_bytes(self) -> bytes:
        """As it travels."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """As it came."""
        body = json.loads(raw)
        return cls(**{**body, "words": tuple(body["words"])})


def ask(path: Path, wanted: Wanted) -> int:
    """Have a part started; the pid of whoever outlives its lives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(60)
        asking.connect(str(path))
        asking.send(wanted.to_bytes())
        return int(asking.recv(_ASKED))


def main(arguments: Sequence[str]) -> int:
    """Load what all parts load, then start what is asked for until this process is stopped."""
    (path,) = arguments
    for module in _MODULES:
        importlib.import_module(module)
    if threading.active_count() != 1:
        raise RuntimeError("a thread runs before the fork; its locks would be inherited")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(16)
        while True:
            client, _ = listener.accept()
            with client:
                wanted = Wanted.from_bytes(client.recv(_ASKED))
                child = os.fork()
                if child == 0:
                    listener.close()
                    client.close()
                    _end_with(_outlive, wanted)
                client.send(str(child).encode())
            with suppress(ChildProcessError):  # none yet, or none left
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _end_with(run: Callable[[Wanted], int], wanted: Wanted) -> NoReturn:
    """Run in a fork, and never come back to what was forked."""
    code = 1
    try:
        code = run(wanted)
    except Exception:  # noqa: BLE001  # the end of a process: there is nobody above
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _outlive(wanted: Wanted) -> int:
    """One life after another, until one ends by itself or this process is told to stop."""
    _die_with_parent()
    os.setsid()
    with Path(wanted.log).open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(wanted.environment)
    lives = _Lives()
    while True:
        child = os.fork()
        if child == 0:
            _end_with(_live, wanted)
        status = lives.outlive(child)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) or lives.stopping:
            return max(0, os.waitstatus_to_exitcode(status))


class _Lives:
    """Waits for the life there is, and passes a gentle end on to it."""

    def __init__(self) -> None:
        self.child, self.stopping = 0, False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def outlive(self, child: int) -> int:
        self.child = child
        if self.stopping:
            os.kill(child, signal.SIGTERM)
        return os.waitpid(child, 0)[1]

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True
        if self.child:
            with suppress(ProcessLookupError):
                os.kill(self.child, signal.SIGTERM)


def _live(wanted: Wanted) -> int:
    """One life: failpoints, then the part's ordinary main."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _die_with_parent()
    wrapping.install(Points(Path(wanted.points), wanted.part))
    if wanted.part == "worker":
        _impatient()
    try:
        return bulkhead(wanted.words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent ends: a test that is killed leaves nobody behind."""
    parent = os.getppid()
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        os._exit(127)


def _impatient() -> None:
    """A worker waits ten seconds before it asks again what did not answer; here one, which is patience and changes nothing else."""
    working = vars(importlib.import_module("custody.working"))
    working["Pace"] = partial(working["Pace"], retry=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
