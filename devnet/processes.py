# SPDX-License-Identifier: AGPL-3.0-or-later
"""Supervised processes: started with a log, ready only when our own pid listens, stopped without orphans."""

import ctypes
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from devnet.pids import Identity, Record, end, holds_port

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing may be looked up
_POLL_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 15.0  # between the gentle signal and SIGKILL
_INHERITED: Final = ("PATH", "LANG", "TMPDIR", "TZ")


class Lifetime(Enum):
    """How long a node lives."""

    PARENT = "parent"  # dies with the process that started it, even when that one is killed
    DETACHED = "detached"  # lives on until `bulkhead devnet down`


class NodeFailed(Exception):
    """A node did not come up: its name, why, and the end of its log."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        super().__init__(f"{name}: {reason}\n{tail(log)}".rstrip())
        self.name, self.reason, self.log = name, reason, log


class PortTaken(NodeFailed):
    """Somebody else listens where this node was to listen."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, and as whom."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None  # only root may name another account


def tail(log: Path, size: int = 1500) -> str:
    """The last characters of a log file, or nothing when there is none."""
    return log.read_text(errors="replace")[-size:] if log.is_file() else ""


class _Spawner:
    """One thread that lives as long as this process and makes all its children.

    PR_SET_PDEATHSIG fires when the *thread* that made the child ends: a child made by a thread of a pool
    would die when the pool is done.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._owner = 0

    def make(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Run the job in that thread and hand back its result."""
        with self._lock:
            if self._owner != os.getpid():  # after a fork the thread is not there
                self._owner = os.getpid()
                threading.Thread(target=self._work, name="spawner", daemon=True).start()
        done: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, done))
        return done.result()

    def _work(self) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                done.set_result(job())
            except (OSError, subprocess.SubprocessError, LookupError, ValueError) as error:
                done.set_exception(error)


_SPAWNER: Final = _Spawner()


def _die_with(parent: int) -> None:
    """Runs in the child before exec: ask the kernel for SIGKILL when the parent ends."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != parent:
        os._exit(127)


class Process:
    """One running child: leader of its own process group, writing to its own log."""

    def __init__(
        self,
        name: str,
        command: Command,
        log: Path,
        lifetime: Lifetime,
        gentle: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name, self.log, self.gentle = name, log, gentle
        bind = partial(_die_with, os.getpid())

        def start() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(  # noqa: S603
                    list(command.argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={k: os.environ[k] for k in _INHERITED if k in os.environ} | dict(command.environment),
                    user=command.user,
                    umask=0o077,
                    start_new_session=True,
                    # safe with threads: it only makes two system calls, through a library loaded before
                    preexec_fn=bind if lifetime is Lifetime.PARENT else None,  # noqa: PLW1509
                )

        try:
            self._popen = _SPAWNER.make(start)
        except (OSError, subprocess.SubprocessError) as error:
            raise NodeFailed(name, f"cannot start {command.argv[0]}: {error}", log) from error
        identity = Identity.of(self._popen.pid)
        if identity is None:  # a zombie would still be found
            raise NodeFailed(name, "ended at once", log)
        self.identity = identity

    def ended(self) -> bool:
        """Whether the child has exited."""
        return self._popen.poll() is not None

    def stop(self) -> None:
        """End the child and its group, and reap it."""
        end(self.identity, self.gentle, GRACE_SECONDS)
        self._popen.wait()

    def wait_ready(self, ready: Callable[[], bool], owns: Callable[[int], bool], seconds: float) -> None:
        """Wait until it answers and it is this pid that listens. Raises NodeFailed or PortTaken."""
        deadline = time.monotonic() + seconds
        answered = False
        while time.monotonic() < deadline:
            if self.ended():
                kind = PortTaken if "in use" in tail(self.log).lower() else NodeFailed
                raise kind(self.name, f"exited with {self._popen.returncode}", self.log)
            if owns(self.identity.pid):
                answered = True
                if ready():
                    return
            time.sleep(_POLL_SECONDS)
        reason = "does not answer" if answered else "does not hold its listening socket"
        raise NodeFailed(self.name, f"{reason} after {seconds} s", self.log)


_TAKEN: Final[set[int]] = set()
_TAKEN_LOCK: Final = threading.Lock()


def free_port(preferred: int | None = None) -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now, the preferred one if it can be had.

    Another process may still take it before our node does, so readiness asks who holds it.
    """
    with _TAKEN_LOCK:
        for wanted in (preferred or 0, *[0] * 50):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", wanted))
                except OSError:
                    continue
                port = int(probe.getsockname()[1])
            if port not in _TAKEN or port == preferred:
                _TAKEN.add(port)
                return port
    raise OSError("no free port on 127.0.0.1")


class Node(ABC):
    """One server of the network: its own folder, log and pid record, a port that stays the same if it can."""

    kind: ClassVar[str]
    gentle: ClassVar[signal.Signals] = signal.SIGTERM
    start_seconds: ClassVar[float] = 30.0
    attempts: ClassVar[int] = 3

    def __init__(self, name: str, folder: Path, lifetime: Lifetime = Lifetime.PARENT) -> None:
        self.name, self.folder, self.lifetime = name, folder, lifetime
        self.port = self._remembered_port() or 0
        self._process: Process | None = None

    @abstractmethod
    def command(self) -> Command:
        """What to run, with `self.port` settled."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers as the node it should be; False while it does not answer at all."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it is reached, without secrets."""

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / "log.txt"

    @property
    def record_file(self) -> Path:
        """Where the pid record stands while it runs."""
        return self.folder / "pid.json"

    @property
    def pid(self) -> int | None:
        """The pid when it runs, whoever started it."""
        record = Record.read(self.record_file)
        return record.pid if record and record.identity.alive() else None

    def owns(self, pid: int) -> bool:
        """Whether this pid holds the node's listening socket."""
        return holds_port(pid, self.port)

    def start(self) -> bool:
        """Start it and wait until it answers; False when it was running already. Raises NodeFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.adopt():
            return False
        for attempt in range(1, self.attempts + 1):
            self.port = free_port(self._remembered_port() if attempt == 1 else None)
            try:
                self._launch()
            except PortTaken:
                if attempt == self.attempts:
                    raise
            else:
                break
        return True

    def adopt(self) -> bool:
        """Take over the address of a process that runs already, from its record; False when none does."""
        record = Record.read(self.record_file)
        if record is None or not record.identity.alive():
            return False
        self.port = self._remembered_port() or self.port
        if not (self.owns(record.pid) and self.ready()):
            raise NodeFailed(self.name, f"pid {record.pid} runs but does not answer; stop it first", self.log)
        return True

    def stop(self) -> None:
        """Stop it, also when another process started it. Does nothing when it does not run."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        else:
            stop_recorded(self.record_file, self.gentle)
        self.record_file.unlink(missing_ok=True)

    def _launch(self) -> None:
        self.log.unlink(missing_ok=True)
        process = Process(self.name, self.command(), self.log, self.lifetime, self.gentle)
        try:
            identity = process.identity
            record = Record(self.name, self.kind, self.address, identity.pid, identity.started, identity.boot)
            record.write(self.record_file)
            process.wait_ready(self.ready, self.owns, self.start_seconds)
        except BaseException:  # whatever happened, Ctrl-C too: leave no process behind
            process.stop()
            self.record_file.unlink(missing_ok=True)
            raise
        (self.folder / "port").write_text(f"{self.port}\n")
        self._process = process

    def _remembered_port(self) -> int | None:
        file = self.folder / "port"
        return int(file.read_text()) if file.is_file() else None


def stop_recorded(file: Path, gentle: signal.Signals = signal.SIGTERM, seconds: float = GRACE_SECONDS) -> bool:
    """Stop the process that a record names, if it is still that process; False when it was gone."""
    record = Record.read(file)
    if record is None:
        return False
    alive = record.identity.alive()
    if alive:
        end(record.identity, gentle, seconds)
    file.unlink(missing_ok=True)
    return alive
