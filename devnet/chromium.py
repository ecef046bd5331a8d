# SPDX-License-Identifier: AGPL-3.0-or-later
"""Find or fetch a Chromium for the console's tests and pictures: Debian's, unpacked privately, with the libraries and a font it needs.

It is started without a display, so Debian's headless shell is what is fetched. No script of a package is run, and nothing is installed.
"""

import json
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devnet.binaries import Program, ProgramMissing, Progress, cached
from devnet.debian import CommandFailed, NoMirror, NotInClosure, Package, PrivateApt, run

PACKAGE: Final = "chromium-headless-shell"
FONTS: Final = "fonts-dejavu-core"
INSTALLED: Final = ("chromium-headless-shell", "chromium", "google-chrome")
FLAGS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""It talks to nobody but the pages it is sent to."""
_REMEDY: Final = f"Install the Debian package {PACKAGE}"
_FONT_SETTINGS: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir prefix="relative">fonts</dir><cachedir prefix="xdg">fontconfig</cachedir></fontconfig>
"""


@dataclass(frozen=True, slots=True)
class Chromium:
    """Where the program is, and what its environment needs beside one's own."""

    program: Path
    environment: dict[str, str]

    @property
    def flags(self) -> tuple[str, ...]:
        """What it is started with. Its sandbox needs a user other than root; pages here are our own either way."""
        return (*FLAGS, "--no-sandbox") if os.geteuid() == 0 else FLAGS


def find_chromium(cache: Path | None = None, progress: Progress = lambda _: None) -> Chromium:
    """One on PATH, else the cached one, else Debian's. Raises ProgramMissing."""
    for name in INSTALLED:
        found = shutil.which(name)
        if found is not None:
            return Chromium(Path(found), {})
    root = cached(Program.CHROMIUM, PACKAGE, _fetch, cache, progress)
    program = _program(root)
    if program is None:
        raise ProgramMissing(Program.CHROMIUM, f"{root} holds no browser", _REMEDY)
    libraries = ":".join(sorted({str(file.parent) for file in root.rglob("*.so*")}))
    settings = root / "fonts.conf"
    return Chromium(program, {"LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": str(settings)})


def _fetch(draft: Path, into: Path) -> None:
    """Unpack the browser of this machine's own release with what it needs; the machine's own C library stays."""
    if not Path("/usr/bin/apt-get").is_file():
        raise ProgramMissing(Program.CHROMIUM, "not installed, and this is not a Debian machine", _REMEDY)
    try:
        apt = PrivateApt(draft / "apt", _suites())
        apt.update()
        came = apt.unpack(apt.closure(PACKAGE), into, _is_wanted)
        fonts = apt.unpack(apt.closure(FONTS), into, lambda package: package.name == FONTS)
        program = _program(into)
        if program is None:
            raise NotInClosure(PACKAGE)
        libraries = ":".join(sorted({str(file.parent) for file in into.rglob("*.so*")}))
        run(str(program), "--version", "--no-sandbox", environment={**os.environ, "LD_LIBRARY_PATH": libraries})
    except (CommandFailed, NoMirror, NotInClosure) as error:
        raise ProgramMissing(Program.CHROMIUM, f"could not be fetched: {error}", _REMEDY) from error
    # the folder is renamed to its place once it is whole, so that its own paths are found from beside this file
    (into / "fonts.conf").write_text(_FONT_SETTINGS)
    (into / "fonts").symlink_to("usr/share/fonts")
    versions = {package.name: package.version for package in (*came, *fonts)}
    (into / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


def _suites() -> tuple[str, ...]:
    """This machine's own release: its libraries are the ones that the machine's C library was made for."""
    return (platform.freedesktop_os_release()["VERSION_CODENAME"],)


def _is_wanted(package: Package) -> bool:
    """The browser and its libraries, without the machine's own C library."""
    own = package.name.startswith("chromium")
    return own or (package.name.startswith("lib") and re.match(r"lib(c6|c-|c-bin|llvm|perl)", package.name) is None)


def _program(root: Path) -> Path | None:
    """The binary itself: a wrapper script would look for the libraries of the machine."""
    named = ("chromium-headless-shell", "headless_shell", "chromium")
    found = [p for name in named for p in sorted(root.glob(f"usr/lib/**/{name}")) if p.is_file()]
    return next((p for p in found if _is_elf(p)), None)


def _is_elf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"
