# SPDX-License-Identifier: AGPL-3.0-or-later
"""One OpenBao server: the trust domain of one seat, of the attestor or of the relayer."""

import json
import time
from pathlib import Path
from typing import ClassVar, Final

import hvac  # type: ignore[import-untyped]
import requests
from hvac.exceptions import VaultError  # type: ignore[import-untyped]

from custody.rules.errors import Unavailable
from custody.vault.provisioning import Program
from devnet import binaries
from devnet.engine import packed
from devnet.grants import Kind, provision, provision_engine, revoke_root, write_private
from devnet.processes import Command, Lifetime, Node, NodeFailed, free_port

SHARES: Final = 3
THRESHOLD: Final = 2
_ACTIVE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.02

# TLS is off because this is the devnet: the listener is bound to loopback of one machine, and every address
# is configuration. An installation sets tls_cert_file and tls_key_file here, and nothing else changes.
_CONFIGURATION: Final = """\
ui = false
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster_port}"
storage "raft" {{
  path = {data}
  node_id = {name}
  performance_multiplier = "1"
}}
plugin_directory = {plugins}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_disable = true
}}
audit "file" "to-file" {{
  options {{
    file_path = {audit}
    mode = "0600"
  }}
}}
"""


class StillSealed(Exception):
    """The server is sealed, or not active, so that nothing can be asked of it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is sealed or not active")
        self.name = name


class NoRoot(Exception):
    """A server that has no role yet, and whose root token is gone: delete its folder and start again."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(f"{name} has neither a role nor a root token; delete {folder} and start again")
        self.name, self.folder = name, folder


class OpenBao(Node):
    """`bao server` on 127.0.0.1, raft storage, file audit; never in dev mode."""

    kind: ClassVar[str] = "openbao"

    def __init__(
        self, name: str, folder: Path, *, lifetime: Lifetime = Lifetime.PARENT, program: Path | None = None
    ) -> None:
        super().__init__(name, folder, lifetime)
        self._program = program
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc of the machine

    @property
    def url(self) -> str:
        """The API address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Where it is reached."""
        return self.url

    @property
    def audit_file(self) -> Path:
        """One JSON line for each request and each answer, secrets hashed."""
        return self.folder / "audit.log"

    @property
    def approle_file(self) -> Path:
        """url, role_id and secret_id for the one program that uses this server."""
        return self.folder / "approle.json"

    @property
    def plugin_folder(self) -> Path:
        """Where the server starts plugins from: whoever writes here and in the catalog decides what a seat is."""
        return self.folder.resolve() / "plugins"

    @property
    def unseal_file(self) -> Path:
        """The unseal shares. They lie beside the server in the devnet only."""
        return self.folder / "unseal.json"

    @property
    def _root_file(self) -> Path:
        """The root token, from `unseal` on a new server until `provision` has revoked it."""
        return self.folder / "root.json"

    def client(self, token: str | None = None) -> hvac.Client:
        """A client of this server; never picks up a token or an address from the environment."""
        client = hvac.Client(url=self.url, session=self._session, timeout=30, allow_redirects=False)
        client.token = token
        return client

    def command(self) -> Command:
        """The server, from a configuration written anew for its ports."""
        program = self._program or binaries.find(binaries.Program.BAO)
        data = self.folder / "raft"
        for folder in (data, self.plugin_folder):
            folder.mkdir(mode=0o700, exist_ok=True)
        configuration = self.folder / "server.hcl"
        configuration.write_text(
            _CONFIGURATION.format(
                port=self.port,
                cluster_port=free_port(),
                data=json.dumps(str(data)),
                name=json.dumps(self.name),
                audit=json.dumps(str(self.audit_file)),
                plugins=json.dumps(str(self.plugin_folder)),
            )
        )
        # two threads: ten servers share one machine
        environment = {"HOME": str(self.folder), "GOMAXPROCS": "2"}
        return Command([str(program), "server", f"-config={configuration}"], environment)

    def start(self) -> bool:
        """Start it; it is sealed then, or not even initialized. Raises NodeFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        started = super().start()
        if self.approle_file.is_file():
            self._store_role(json.loads(self.approle_file.read_text()))
        return started

    def ready(self) -> bool:
        """Whether the API answers, sealed or not."""
        try:
            return self._session.get(f"{self.url}/v1/sys/seal-status", timeout=5).ok
        except requests.RequestException:
            return False

    @property
    def sealed(self) -> bool:
        """Whether it is sealed (a new server is). Raises requests.RequestException when it does not run."""
        status = self._session.get(f"{self.url}/v1/sys/seal-status", timeout=5).json()
        return bool(status["sealed"])

    def unseal(self) -> None:
        """Initialize a new server, hand in shares, wait until active. Raises StillSealed or NodeFailed."""
        client = self.client()
        try:
            if not client.sys.is_initialized():
                made = client.sys.initialize(SHARES, THRESHOLD)
                write_private(self._root_file, {"token": made["root_token"]})
                write_private(self.unseal_file, {"threshold": THRESHOLD, "shares": made["keys_base64"]})
            if self.sealed:
                stored = json.loads(self.unseal_file.read_text())
                client.sys.submit_unseal_keys(stored["shares"][: stored["threshold"]])
        except (VaultError, FileNotFoundError) as error:
            raise NodeFailed(self.name, f"cannot be unsealed: {error}", self.log) from error
        self._wait_active()

    def provision(self, kind: Kind) -> None:
        """Make what the program needs, write approle.json, revoke root. Does nothing the second time.

        Raises NoRoot, grants.RootStillAlive, or NodeFailed when the server refuses.
        """
        if not self._root_file.is_file():
            if self.approle_file.is_file():
                return
            raise NoRoot(self.name, self.folder)
        root = self.client(json.loads(self._root_file.read_text())["token"])
        try:
            if not self.approle_file.is_file():
                self._store_role(self._grant(root, Kind(kind)))
            revoke_root(root)
        except (VaultError, Unavailable) as error:
            raise NodeFailed(self.name, f"cannot be provisioned: {error}", self.log) from error
        self._root_file.unlink()

    def _grant(self, root: hvac.Client, kind: Kind) -> dict[str, str]:
        if kind is not Kind.ENGINE:
            return provision(root, kind)
        made = packed()
        return provision_engine(root, self.name, Program(made.write(self.plugin_folder).name, made.sha256))

    def open(self, kind: Kind) -> bool:
        """Start, unseal and provision; False when it was running already."""
        started = self.start()
        self.unseal()
        self.provision(kind)
        return started

    def login(self) -> hvac.Client:
        """A client with a fresh token of this server's role. Raises hvac.exceptions.VaultError."""
        role = json.loads(self.approle_file.read_text())
        client = self.client()
        client.auth.approle.login(role_id=role["role_id"], secret_id=role["secret_id"])
        return client

    def _store_role(self, role: dict[str, str]) -> None:
        """Write approle.json with the address of this run."""
        wanted = role | {"url": self.url}
        if not self.approle_file.is_file() or json.loads(self.approle_file.read_text()) != wanted:
            write_private(self.approle_file, wanted)

    def _wait_active(self) -> None:
        """Wait for `standby: false`: an unsealed server refuses requests until it has won its election."""
        deadline = time.monotonic() + _ACTIVE_SECONDS
        while time.monotonic() < deadline:
            if self._session.get(f"{self.url}/v1/sys/health", timeout=5).status_code == requests.codes.ok:
                return
            time.sleep(_POLL_SECONDS)
        raise StillSealed(self.name)
