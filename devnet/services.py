# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bulkhead's own processes in the devnet, one each: seats, attestor, relayer, deriver, API, watcher, worker, feeders, rebalancer."""

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import requests

from devnet.home import bulkhead_program
from devnet.pids import holds_port
from devnet.processes import Command, Lifetime, Node, tail

CONSOLE_PORT: Final = 8490
"""Where a person looks for the console; passkeys are named for it, so that a devnet keeps the port it had first."""
API_PORT: Final = 8480
"""Where a person looks for the API; a free port where somebody else listens there."""


class Service(Node):
    """One `bulkhead … serve` process. Ready when its own pid answers on its unix socket."""

    kind = "process"
    start_seconds = 120.0

    def __init__(
        self,
        name: str,
        folder: Path,
        home: Path,
        arguments: Sequence[str],
        lifetime: Lifetime = Lifetime.PARENT,
        *,
        at: Path | None = None,
    ) -> None:
        super().__init__(name, folder, lifetime)
        self.home, self.arguments = home, tuple(arguments)
        self.socket = at or socket_path(folder)

    @property
    def address(self) -> str:
        """The socket's path."""
        return str(self.socket)

    def command(self) -> Command:
        """The console command of this very environment, isolated from the shell's."""
        argv = [str(bulkhead_program()), *self.arguments]
        return Command(argv, {"BULKHEAD_HOME": str(self.home), "HOME": str(self.folder)})

    def start(self) -> bool:
        """Start it and wait until it answers; False when it was running already. Raises NodeFailed."""
        for folder in (self.folder, self.socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.adopt():
            return False
        self._launch()
        return True

    def ready(self) -> bool:
        """Whether somebody listens; `owns` says whether it is ours."""
        return peer_of(self.socket) is not None

    def owns(self, pid: int) -> bool:
        """Whether this pid is the one that listens on the socket."""
        return peer_of(self.socket) == pid


class Loop(Service):
    """A process that serves nobody: the watcher, say, or the rebalancer. Ready once it lives and has said its first word, if any."""

    def __init__(
        self,
        name: str,
        folder: Path,
        home: Path,
        arguments: Sequence[str],
        lifetime: Lifetime = Lifetime.PARENT,
        *,
        said: str = "",
    ) -> None:
        super().__init__(name, folder, home, arguments, lifetime)
        self.said = said

    @property
    def address(self) -> str:
        """It has none."""
        return ""

    def ready(self) -> bool:
        """It has said its word; that it has not ended, `wait_ready` looks at itself."""
        return self.said in tail(self.log)

    def owns(self, pid: int) -> bool:
        """It holds no socket; being alive is all there is to ask."""
        return Path(f"/proc/{pid}").exists()


class Web(Service):
    """The API on a port of 127.0.0.1, the same one again if it can be had. Ready once it takes signed requests."""

    first_port = API_PORT

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def command(self) -> Command:
        """`api serve` on the port that was settled."""
        bare = super().command()
        return Command([*bare.argv, "--port", str(self.port)], bare.environment)

    def start(self) -> bool:
        """Start it on a port that is free, another one where somebody takes it first. Raises NodeFailed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Node.start(self)

    def ready(self) -> bool:
        """Whether it is ready by its own word: for three seconds it takes nothing that an earlier process may have taken."""
        try:
            answer = requests.get(f"{self.url}/v1/health", timeout=2, proxies={"http": ""})
            return answer.ok and answer.json().get("ready") is True
        except requests.RequestException:
            return False

    def owns(self, pid: int) -> bool:
        """Whether this pid holds the port: whoever else answered there would be handed our clients' requests."""
        return holds_port(pid, self.port)

    def _remembered_port(self) -> int | None:
        """The last one; at the first start the documented one, where the network lives on and a person will look for it."""
        return super()._remembered_port() or (self.first_port if self.lifetime is Lifetime.DETACHED else None)


class Console(Web):
    """The treasury console, under the name that its passkeys are made for."""

    first_port = CONSOLE_PORT

    @property
    def url(self) -> str:
        """What browsers call it: passkeys are named for a host, and an address is none."""
        return f"http://localhost:{self.port}"

    def command(self) -> Command:
        """`console serve` on the port that was settled."""
        bare = super().command()
        return Command([*bare.argv, "--origin", self.url], bare.environment)

    def ready(self) -> bool:
        """Whether its login page answers."""
        try:
            told = {"Host": self.url.removeprefix("http://")}
            return requests.get(f"http://127.0.0.1:{self.port}/login", headers=told, timeout=2, proxies={"http": ""}).ok
        except requests.RequestException:
            return False


def socket_path(folder: Path) -> Path:
    """The socket of a part that keeps its things in a folder. A unix socket's path has about 107 bytes."""
    return folder / "s"


def peer_of(path: Path) -> int | None:
    """Pid of whoever listens on a unix socket; None where nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(os.fspath(path))
            pid, _, _ = struct.unpack(
                "3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            )
        except OSError:
            return None
    return int(pid)
