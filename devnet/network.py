# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole development network: two chains, and one OpenBao for each party that holds a key."""

import fcntl
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import requests

from devnet.anvil import Anvil
from devnet.binaries import Progress, find_all
from devnet.bitcoind import Bitcoind
from devnet.grants import Kind
from devnet.home import bulkhead_home
from devnet.openbao import OpenBao
from devnet.processes import Lifetime, Node

HOT_SEATS: Final = ("hot-1", "hot-2", "hot-3", "hot-4")
COLD_SEATS: Final = ("cold-1", "cold-2", "cold-3", "cold-4")
_WORKERS: Final = 16  # every node at once: they mostly wait


class State(StrEnum):
    """How a node is."""

    RUNNING = "running"
    SEALED = "sealed"
    UNRESPONSIVE = "unresponsive"
    STOPPED = "stopped"
    COLD = "stopped (cold, by design)"


class Hosting(StrEnum):
    """Where seats live."""

    ENGINE = "engine"  # inside their own OpenBao
    PROCESS = "process"  # in processes of ours, with their documents in OpenBao: where no plugin can be installed


class NetworkBusy(Exception):
    """Another process is starting, stopping or running the network of this home."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"{home} is in use by another process")
        self.home = home


class NetworkRuns(Exception):
    """`running()` was asked for in a home whose network is up already."""

    def __init__(self, home: Path, names: Sequence[str]) -> None:
        super().__init__(f"{home}: {', '.join(names)} run already; stop them with: bulkhead devnet down")
        self.home, self.names = home, tuple(names)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One line of `bulkhead devnet status`."""

    name: str
    kind: str
    pid: int | None
    address: str
    state: State


class Devnet:
    """Every node of one home. The cold seats run only inside `ceremony()`."""

    def __init__(
        self,
        home: Path | None = None,
        *,
        lifetime: Lifetime = Lifetime.DETACHED,
        block_time: int | None = None,
        progress: Progress = lambda _: None,
        spare: tuple[str, ...] = (),
        hosting: Hosting = Hosting.ENGINE,
    ) -> None:
        """`spare` are more hot seats, which the roster names and no wallet has at birth: a rotation may go to them."""
        self.spare = spare
        self.home = home or bulkhead_home()
        self.folder = self.home / "devnet"
        self.hosting = self._born_with(hosting)
        self.progress = progress
        self._place(lifetime, block_time)

    def _born_with(self, wanted: Hosting) -> Hosting:
        """A network keeps the hosting that it was born with: keys do not move between an engine and a process."""
        known = self.folder / "hosting"
        if known.is_file():
            return Hosting(known.read_text(encoding="ascii").strip())
        return Hosting.PROCESS if (self.folder / HOT_SEATS[0] / "approle.json").is_file() else wanted

    @property
    def seat_kind(self) -> Kind:
        """What a seat's server is provisioned for."""
        return Kind.ENGINE if self.hosting is Hosting.ENGINE else Kind.SEAT

    def _place(self, lifetime: Lifetime, block_time: int | None) -> None:
        """Name every node and give it its folder; nothing is started."""

        def server(name: str, lifetime: Lifetime = lifetime) -> OpenBao:
            return OpenBao(name, self.folder / name, lifetime=lifetime)

        self.anvil = Anvil(self.folder / "anvil", block_time=block_time, lifetime=lifetime)
        self.bitcoind = Bitcoind(self.folder / "bitcoind", lifetime=lifetime)
        self.hot = {name: server(name) for name in (*HOT_SEATS, *self.spare)}
        self.cold = {name: server(name, Lifetime.PARENT) for name in COLD_SEATS}
        self.attestor, self.relayer = server("attestor"), server("relayer")

    @property
    def network_file(self) -> Path:
        """Addresses for other processes, without secrets; there while the network is up."""
        return self.folder / "network.json"

    @property
    def nodes(self) -> list[Node]:
        """All nodes, the cold ones last."""
        return [
            self.anvil,
            self.bitcoind,
            *self.hot.values(),
            self.attestor,
            self.relayer,
            *self.cold.values(),
        ]

    def up(self) -> None:
        """Start what does not run, unsealed and provisioned; if that fails, stop what this call started."""
        with self._exclusive("lock"):
            self._up()

    def down(self) -> None:
        """Stop every node, whoever started it; what they stored stays. Raises NetworkBusy."""
        with self._exclusive("lock"), self._exclusive("ceremony.lock"):
            self._stop(self.nodes)
            self.network_file.unlink(missing_ok=True)

    @contextmanager
    def running(self) -> Iterator["Devnet"]:
        """The network for the length of a block; dies with this process. Raises NetworkRuns, NetworkBusy."""
        with self._exclusive("lock"):
            alive = [node.name for node in self.nodes if node.pid is not None]
            if alive:
                raise NetworkRuns(self.home, alive)
            for node in self.nodes:
                node.lifetime = Lifetime.PARENT
            try:
                self._up()
                yield self
            finally:
                self._stop(self.nodes)
                self.network_file.unlink(missing_ok=True)

    @contextmanager
    def ceremony(self, names: Iterable[str] = COLD_SEATS) -> Iterator[dict[str, OpenBao]]:
        """The named cold seats, unsealed for the length of a block; they die with this process."""
        seats = {name: self.cold[name] for name in names}
        with self._exclusive("ceremony.lock"):
            try:
                self._start([(seat, self.seat_kind) for seat in seats.values()])
                yield seats
            finally:
                self._stop(list(seats.values()))

    def status(self) -> list[NodeStatus]:
        """How every node is, seen from outside."""
        with ThreadPoolExecutor(_WORKERS) as pool:
            return list(pool.map(self._look, self.nodes))

    def _up(self) -> None:
        find_all(progress=self.progress)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "hosting").write_text(f"{self.hosting.value}\n", encoding="ascii")
        seats = [(seat, self.seat_kind) for seat in self.hot.values()]
        servers = [*seats, (self.attestor, Kind.ATTESTOR), (self.relayer, Kind.RELAYER)]
        self._start([(self.bitcoind, None), (self.anvil, None), *servers])
        self._write()

    def _start(self, wanted: Sequence[tuple[Node, Kind | None]]) -> None:
        """Start nodes at once; when one fails, or on Ctrl-C, stop those that this call started."""
        running_before = {node.name for node, _ in wanted if node.pid is not None}
        try:
            with ThreadPoolExecutor(_WORKERS) as pool:
                for _ in pool.map(lambda pair: self._start_one(*pair), wanted):
                    pass
        except BaseException:  # the pool has ended by now, so nothing is still starting
            self._stop([node for node, _ in wanted if node.name not in running_before])
            raise

    def _start_one(self, node: Node, kind: Kind | None) -> None:
        began = time.monotonic()
        started = node.open(kind) if isinstance(node, OpenBao) and kind is not None else node.start()
        seconds = time.monotonic() - began
        self.progress(f"{node.name}: ready in {seconds:.1f} s" if started else f"{node.name}: runs already")

    def _stop(self, nodes: Sequence[Node]) -> None:
        running = [node for node in nodes if node.pid is not None]
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(lambda node: node.stop(), nodes))
        for node in running:
            self.progress(f"{node.name}: stopped")

    def _look(self, node: Node) -> NodeStatus:
        pid, state = node.pid, State.RUNNING
        if pid is None:
            state = State.COLD if node.name in self.cold else State.STOPPED
        elif not (node.owns(pid) and node.ready()):
            state = State.UNRESPONSIVE
        elif isinstance(node, OpenBao):
            state = State.SEALED if _sealed(node) else State.RUNNING
        return NodeStatus(node.name, node.kind, pid, node.address if pid else "", state)

    def _write(self) -> None:
        """Store the addresses, whole or not at all."""

        def server(node: OpenBao) -> dict[str, object]:
            online = node.pid is not None
            return {
                "url": node.url if online else None,
                "approle": str(node.approle_file),
                "folder": str(node.folder),
                "pid": node.pid,
                "online": online,
            }

        content = {
            "anvil": {"url": self.anvil.url, "chain_id": self.anvil.chain_id, "pid": self.anvil.pid},
            "bitcoin": {
                "url": self.bitcoind.url,
                "cookie": str(self.bitcoind.cookie_file),
                "network": "regtest",
                "pid": self.bitcoind.pid,
            },
            "seats": {name: server(seat) for name, seat in {**self.hot, **self.cold}.items()},
            "attestor": server(self.attestor),
            "relayer": server(self.relayer),
        }
        draft = self.network_file.with_suffix(".draft")
        draft.write_text(json.dumps(content, indent=1) + "\n")
        draft.rename(self.network_file)

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[None]:
        """Hold a lock between processes; the kernel frees it when the holder dies. Raises NetworkBusy."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NetworkBusy(self.home) from error
            yield


def _sealed(server: OpenBao) -> bool:
    try:
        return server.sealed
    except requests.RequestException:  # it went away between two questions
        return True
