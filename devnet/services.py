# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bulkhead's own processes in the devnet: each seat, the attestor, the relayer, the watcher; one process each."""

import os
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from devnet.processes import Command, Lifetime, Node


class Service(Node):
    """One `bulkhead … serve` process. Ready when its own pid answers on its unix socket."""

    kind = "process"
    start_seconds = 60.0

    def __init__(
        self, name: str, folder: Path, home: Path, arguments: Sequence[str], lifetime: Lifetime = Lifetime.PARENT
    ) -> None:
        super().__init__(name, folder, lifetime)
        self.home, self.arguments = home, tuple(arguments)

    @property
    def socket(self) -> Path:
        """Where it is reached."""
        return socket_path(self.folder)

    @property
    def address(self) -> str:
        """The socket's path."""
        return str(self.socket)

    def command(self) -> Command:
        """The console command of this very environment, isolated from the shell's."""
        argv = [str(Path(sys.executable).parent / "bulkhead"), *self.arguments]
        return Command(argv, {"BULKHEAD_HOME": str(self.home), "HOME": str(self.folder)})

    def start(self) -> bool:
        """Start it and wait until it answers; False when it was running already. Raises NodeFailed."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    """A process that serves nobody: the watcher. Ready as soon as it lives."""

    def ready(self) -> bool:
        """It has not ended; `wait_ready` looks at that itself."""
        return True

    def owns(self, pid: int) -> bool:
        """It holds no socket; being alive is all there is to ask."""
        return Path(f"/proc/{pid}").exists()


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
