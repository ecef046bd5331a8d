# SPDX-License-Identifier: AGPL-3.0-or-later
"""A private PostgreSQL for tests: a temp folder, a Unix socket, no TCP, never run as root."""

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from devnet.binaries import find_postgres
from devnet.debian import CommandFailed, run
from devnet.pids import holds_socket
from devnet.processes import Command, Lifetime, Node, NodeFailed

OWNER: Final = "bulkhead"
_PORT: Final = 5432  # only part of the socket's name: nothing listens on TCP
_ACCOUNTS: Final = ("postgres", "nobody")
_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Unprivileged:
    """How to run as somebody else than root: an account to change to, or words to put before the command."""

    account: str | None = None
    prefix: tuple[str, ...] = ()


def unprivileged(*folders: Path) -> Unprivileged:
    """How PostgreSQL, which refuses root, can run here: as an account that reaches these folders, if any.

    Raises CommandFailed where user namespaces are shut.
    """
    if os.geteuid() != 0:
        return Unprivileged()
    known = {entry.pw_name for entry in pwd.getpwall()}
    account = next((name for name in _ACCOUNTS if name in known), None)
    parents = {parent for folder in folders for parent in folder.resolve().parents}
    if account and all(parent.stat().st_mode & 0o001 for parent in parents):
        return Unprivileged(account=account)
    prefix = ("unshare", "--user", "--map-user=1000")
    run(*prefix, "true")
    return Unprivileged(prefix=prefix)


class Postgres(Node):
    """PostgreSQL on a socket in its own folder, which only its account (and root) can enter."""

    kind: ClassVar[str] = "postgres"
    gentle: ClassVar[signal.Signals] = signal.SIGINT  # "fast": ends the sessions; SIGTERM would wait for them

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "postgres",
        durable: bool = False,
        lifetime: Lifetime = Lifetime.PARENT,
        programs: Path | None = None,
    ) -> None:
        super().__init__(name, folder, lifetime)
        self.durable = durable
        self._programs, self._who = programs or find_postgres(), Unprivileged()

    @property
    def data(self) -> Path:
        """The cluster, and beside its files the socket."""
        return self.folder / "data"

    @property
    def address(self) -> str:
        """The folder of the socket."""
        return str(self.data)

    @property
    def url(self) -> str:
        """A SQLAlchemy address of the first database."""
        return self.url_of(OWNER)

    def url_of(self, database: str) -> str:
        """A SQLAlchemy address of one database."""
        return f"postgresql+psycopg://{OWNER}@/{database}?host={quote(str(self.data))}"

    def start(self) -> bool:
        """Make the cluster when there is none, start it. Raises NodeFailed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._who = unprivileged(self.data, self._programs)
            if not (self.data / "PG_VERSION").is_file():
                self._initialize()
        except CommandFailed as error:
            raise NodeFailed(self.name, f"cannot make a cluster: {error}", self.log) from error
        started = super().start()
        if not self._has(OWNER):
            self.create_database(OWNER)
        return started

    def create_database(self, database: str) -> str:
        """A new, empty database; returns its SQLAlchemy address."""
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return self.url_of(database)

    def drop_database(self, database: str) -> None:
        """Delete a database, ending sessions that are still in it."""
        with self._connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(others, (database,))
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(database)))

    def command(self) -> Command:
        """The server; without `durable` a power cut may lose it, which a test does not mind."""
        argv = [
            *self._who.prefix,
            str(self._programs / "postgres"),
            "-D",
            str(self.data),
            "-k",
            str(self.data),
        ]
        safety = {} if self.durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        for key, value in {**_SETTINGS, **safety, "port": str(_PORT)}.items():
            argv += ["-c", f"{key}={value}"]
        return Command(argv, self._environment(), self._who.account)

    def owns(self, pid: int) -> bool:
        """Whether this pid holds the socket."""
        return holds_socket(pid, self.data / f".s.PGSQL.{_PORT}")

    def ready(self) -> bool:
        """Whether it takes connections."""
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.data), port=_PORT, user=OWNER, dbname="postgres", autocommit=True)

    def _has(self, database: str) -> bool:
        with self._connect() as connection:
            return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).rowcount == 1

    def _environment(self) -> Mapping[str, str]:
        """Where a fetched PostgreSQL finds its libraries: beside itself, in ROOT/usr/lib."""
        language = {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", os.defpath)}
        libraries = self._programs.parents[2]  # ROOT/usr/lib/postgresql/15/bin
        if libraries.is_relative_to("/usr"):
            return language
        folders = {str(p.parent) for p in libraries.parent.glob("lib/*-linux-*/*.so*")}
        return language | {"LD_LIBRARY_PATH": ":".join(sorted(folders))}

    def _initialize(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # half a cluster of a run that was cut off
        self.data.mkdir(mode=0o700)
        if self._who.account:
            shutil.chown(self.data, self._who.account)
        argv = [
            *self._who.prefix,
            str(self._programs / "initdb"),
            "-D",
            str(self.data),
            "--no-sync",
            "--auth=trust",
        ]
        argv += [f"--username={OWNER}", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        run(*argv, environment=self._environment(), user=self._who.account)


@contextmanager
def postgres(*, durable: bool = False, programs: Path | None = None) -> Iterator[str]:
    """A PostgreSQL for the length of a block; yields its address. Raises NodeFailed or ProgramMissing."""
    folder = Path(tempfile.mkdtemp(prefix="bulkhead-pg-"))
    folder.chmod(0o711)  # the account of the server has to pass through to its own folder, not to list this one
    server = Postgres(folder, durable=durable, programs=programs)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
