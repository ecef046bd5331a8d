# SPDX-License-Identifier: AGPL-3.0-or-later
"""Unpack signed Debian packages into a private folder, without touching the system's own packages.

The private apt has its own lists, its own empty status (so that it names the whole closure) and only Debian's
own keyring; an index that is not signed by it is refused.
"""

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SYSTEM_SOURCES: Final = Path("/etc/apt")
_INSTALL_LINE: Final = re.compile(r"^Inst (?P<name>\S+) \((?P<version>\S+) ", re.MULTILINE)
_ARCHIVE_URI: Final = re.compile(r"\b(?:https?|mirror\+\w+|file)://\S+?/debian/?(?=\s|$)", re.MULTILINE)


class CommandFailed(Exception):
    """A command did not work: command, exit code, last words."""

    def __init__(self, step: Sequence[str], code: int, words: str) -> None:
        super().__init__(f"{' '.join(step)} exited with {code}: {words.strip()[-600:]}")
        self.step, self.code = tuple(step), code


class NoMirror(Exception):
    """The machine's own apt sources name no Debian archive, so there is nowhere to fetch from."""

    def __init__(self, sources: Path) -> None:
        super().__init__(f"no Debian archive in the apt sources below {sources}")
        self.sources = sources


class NotInClosure(Exception):
    """What was asked for is not among the packages that apt named."""

    def __init__(self, wanted: str) -> None:
        super().__init__(f"not among the packages apt names: {wanted}")
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Package:
    """One Debian package at the version that the signed index names now."""

    name: str
    version: str


def run(
    *argv: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None, user: str | None = None
) -> str:
    """The standard output of a command. Raises CommandFailed."""
    try:
        done = subprocess.run(  # noqa: S603
            argv,
            cwd=cwd,
            env=environment,
            user=user,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError as error:
        raise CommandFailed(argv[:6], 127, str(error)) from error
    if done.returncode != 0:
        raise CommandFailed(argv[:6], done.returncode, done.stderr or done.stdout)
    return done.stdout


def mirror(sources: Path = SYSTEM_SOURCES) -> str:
    """The Debian archive this machine uses, from its `.list` and deb822 `.sources` files. Raises NoMirror."""
    folder = sources / "sources.list.d"
    files = [sources / "sources.list", *sorted(folder.glob("*.list")), *sorted(folder.glob("*.sources"))]
    for file in files:
        lines = file.read_text().splitlines() if file.is_file() else []
        active = "\n".join(line for line in lines if line.startswith(("deb ", "URIs:")))
        found = _ARCHIVE_URI.search(active)
        if found:
            return found.group().rstrip("/")
    raise NoMirror(sources)


class PrivateApt:
    """An apt of our own under one folder, reading only the given suites."""

    def __init__(self, folder: Path, suites: Iterable[str]) -> None:
        self.folder = folder
        for sub in ("lists/partial", "cache/archives/partial", "debs"):
            (folder / sub).mkdir(parents=True, exist_ok=True)
        archive = mirror()
        lines = [f"deb [signed-by={KEYRING}] {archive} {suite} main\n" for suite in suites]
        (folder / "sources.list").write_text("".join(lines))

    @property
    def _options(self) -> list[str]:
        settings = {
            "Dir::Etc::SourceList": str(self.folder / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State": str(self.folder),
            "Dir::State::Lists": str(self.folder / "lists"),
            "Dir::State::status": "/dev/null",
            "Dir::Cache": str(self.folder / "cache"),
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
        }
        return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Read the signed indexes. Raises CommandFailed, also when a signature does not hold."""
        run("apt-get", "-qq", "update", *self._options)

    def closure(self, package: str) -> list[Package]:
        """The package and everything it needs. Raises NotInClosure."""
        plan = run("apt-get", "install", "-s", "--no-install-recommends", package, *self._options)
        closure = [Package(m["name"], m["version"]) for m in _INSTALL_LINE.finditer(plan)]
        if package not in {p.name for p in closure}:
            raise NotInClosure(package)
        return closure

    def unpack(self, packages: Iterable[Package], into: Path, wanted: Callable[[Package], bool]) -> list[Package]:
        """Download the wanted packages and unpack them (no scripts are run); returns what came."""
        chosen = [p for p in packages if wanted(p)]
        debs = self.folder / "debs"
        run("apt-get", "-qq", "download", *(f"{p.name}={p.version}" for p in chosen), *self._options, cwd=debs)
        into.mkdir(parents=True, exist_ok=True)
        for deb in sorted(debs.glob("*.deb")):
            run("dpkg", "-x", str(deb), str(into))
            deb.unlink()
        return chosen
