# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real OpenBao with the tests' own composition of the engine (engine_plugin.py), and the hands that reach into it."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from custody.vault.engine_client import EngineClient
from custody.vault.provisioning import ROLE, Operator, Program
from custody.vault.storage import CasConflict
from devnet.grants import revoke_root, write_private
from devnet.openbao import OpenBao

_ROOT: Final = Path(__file__).resolve().parents[2]
_POLICY: Final = 'path "seat/*" { capabilities = ["update"] }'
LAUNCHER: Final = f"""#!{sys.executable} -I
import sys
sys.path.insert(0, {str(_ROOT)!r})
import runpy
runpy.run_path({str(_ROOT / "tests" / "fakes" / "engine_plugin.py")!r}, run_name="__main__")
"""


@contextmanager
def drawers_server(folder: Path, *, rooted: bool = False) -> Iterator[OpenBao]:
    """The server, with a role that may call every drawer of the mount; its root token lives on where a test restores old storage."""
    server = OpenBao("engine", folder)
    try:
        server.start()
        server.unseal()
        root = server.client(json.loads((folder / "root.json").read_text())["token"])
        file = server.plugin_folder / "drawers"
        file.write_text(LAUNCHER)
        file.chmod(0o700)
        operator = Operator(root)
        operator.register(Program(file.name, hashlib.sha256(file.read_bytes()).hexdigest()))
        operator.mount("hot-1")
        granted = operator.grant()
        root.sys.create_or_update_policy(ROLE, _POLICY)
        write_private(server.approle_file, granted | {"url": server.url})
        if not rooted:
            revoke_root(root)
        yield server
    finally:
        server.stop()


def plugin_pid(server: OpenBao) -> int:
    """The plugin's process of this server."""
    file = str(server.plugin_folder / "drawers").encode()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # gone meanwhile
            if entry.name.isdigit() and file in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
    raise LookupError("no plugin runs")


class DrawerClient(EngineClient):
    """A drawer's verbs; tells the plugin the test's time first, whenever it has changed."""

    def __init__(self, server: OpenBao, drawer: str) -> None:
        super().__init__("hot-1", server.approle_file, f"seat/{drawer}")
        self.clock: Callable[[], int] = lambda: 0
        self._told = -1

    def call(self, verb: str, body: Mapping[str, object] | None = None) -> object:
        """See EngineClient."""
        if (now := self.clock()) != self._told:
            super().call("test_clock", {"now": now})
            self._told = now
        return super().call(verb, body)

    def forget_time(self) -> None:
        """After the plugin's process was started anew."""
        self._told = -1


@dataclass
class DrawerVault:
    """`Vault` over a drawer's storage, for what a test writes and reads behind the seat's back."""

    client: DrawerClient

    def identity_public(self) -> bytes:
        """See `Vault`."""
        return bytes.fromhex(str(self.client.call("test_identity_public")))

    def identity_sign(self, message: bytes) -> bytes:
        """See `Vault`."""
        return bytes.fromhex(str(self.client.call("test_identity_sign", {"message": message.hex()})))

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """See `Vault`."""
        told: Any = self.client.call("test_read", {"path": path})
        return told["document"], told["version"]

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """See `Vault`."""
        told: Any = self.client.call("test_write", {"path": path, "data": dict(data), "cas": cas})
        if told["conflict"]:
            raise CasConflict(path, cas)

    def list(self, path: str) -> Sequence[str]:
        """See `Vault`."""
        told: Any = self.client.call("test_list", {"path": path})
        return list(told)
