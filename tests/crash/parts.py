# SPDX-License-Identifier: AGPL-3.0-or-later
"""The devnet's services, each forked out of the launcher: the same words, sockets and folders, with failpoints inside."""

import sys
import time
from pathlib import Path
from typing import Final, TypeVar

from devnet.birth import Services
from devnet.network import Devnet
from devnet.pids import Identity, Record, holds_port
from devnet.processes import Command, Lifetime, NodeFailed, Process
from devnet.services import Loop, Service, Web, peer_of
from tests.crash.launch import Wanted, ask
from tests.crash.points import Desk

S = TypeVar("S", bound="Forked")

_ROOT: Final = Path(__file__).resolve().parents[2]
_POLL: Final = 0.02
_LOADING: Final = 120.0


class Nursery:
    """The process out of which parts are forked (launch.py); it dies with this one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.socket = folder / "n"
        self.socket.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "tests.crash.launch", str(self.socket)]
        command = Command(argv, {"PYTHONPATH": str(_ROOT), "HOME": str(folder)})
        self._process = Process("nursery", command, folder / "nursery.txt", Lifetime.PARENT)

    def start(self, wanted: Wanted) -> Identity:
        """Have a part started. Raises NodeFailed."""
        self._process.wait_ready(self.socket.exists, lambda _: True, _LOADING)
        found = Identity.of(ask(self.socket, wanted))
        if found is None:
            raise NodeFailed(wanted.part, "ended at once", Path(wanted.log))
        return found

    def stop(self) -> None:
        """End it, and with it every part that still lives."""
        self._process.stop()


class Forked(Service):
    """A part that is killed and comes back: its record names whoever outlives its lives, and its newest life is who answers."""

    points: Path
    part: str
    nursery: Nursery

    def _launch(self) -> None:
        self.log.unlink(missing_ok=True)
        bare = self.command()
        words = tuple(bare.argv[1:])
        wanted = Wanted(str(self.points), self.part, words, dict(bare.environment), str(self.log))
        identity = self.nursery.start(wanted)
        Record(self.name, self.kind, self.address, identity.pid, identity.started, identity.boot).write(
            self.record_file
        )
        deadline = time.monotonic() + self.start_seconds
        while not (self.owns(identity.pid) and self.ready()):
            if time.monotonic() > deadline or not identity.alive():
                self.stop()
                raise NodeFailed(self.name, "does not answer", self.log)
            time.sleep(_POLL)
        (self.folder / "port").write_text(f"{self.port}\n")


class ForkedServer(Forked):
    """One that listens on a unix socket."""

    def owns(self, pid: int) -> bool:
        """Whether its newest life is the one that listens."""
        return peer_of(self.socket) in children(pid)


class ForkedLoop(Forked, Loop):
    """One that serves nobody."""


class ForkedWeb(Forked, Web):
    """The API."""

    def owns(self, pid: int) -> bool:
        """Whether its newest life holds the port."""
        return any(holds_port(child, self.port) for child in children(pid))


def children(pid: int) -> list[int]:
    """The children that a process has now."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


class KillableServices(Services):
    """Every part that has to do with a deposit or a withdrawal, with failpoints."""

    def __init__(self, net: Devnet) -> None:
        super().__init__(net)
        self.desk, self._nursery = Desk(net.home / "crash"), Nursery(net.home / "crash")
        self.hot = {name: self._forked(ForkedServer, seat, "seat") for name, seat in self.hot.items()}
        self.cold = {name: self._forked(ForkedServer, seat, "seat") for name, seat in self.cold.items()}
        self.attestor = self._forked(ForkedServer, self.attestor, "attestor")
        self.relayer = self._forked(ForkedServer, self.relayer, "relayer")
        self.deriver = self._forked(ForkedServer, self.deriver, "deriver")
        self.watcher = self._forked(ForkedLoop, self.watcher, "watcher")
        self.worker = self._forked(ForkedLoop, self.worker, "worker")
        self.web = self._forked(ForkedWeb, self.web, "api")

    @property
    def killable(self) -> list[Service]:
        """The parts that run all the time, whoever asks others last."""
        asked = [*self.hot.values(), self.attestor, self.relayer, self.deriver]
        return [*asked, self.watcher, self.worker, self.web]

    def lives(self) -> dict[str, int]:
        """The pid of each part's newest life, by the service's name."""
        found = {service.name: children(service.pid or 0) for service in self.killable}
        return {name: pids[0] for name, pids in found.items() if pids}

    def close(self) -> None:
        """End what they are forked from, and with it whoever still lives."""
        self._nursery.stop()

    def _forked(self, cls: type[S], bare: Service, part: str) -> S:
        made = cls(bare.name, bare.folder, bare.home, bare.arguments, bare.lifetime)
        made.socket = bare.socket
        made.points, made.part, made.nursery = self.desk.folder, part, self._nursery
        return made
