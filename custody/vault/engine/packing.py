# SPDX-License-Identifier: AGPL-3.0-or-later
"""Packs the engine into one file for OpenBao's plugin directory: code inside, hashes of the libraries that stay outside.

Two runs over the same files give the same bytes: names are sorted, times are fixed, and code is stored without references, whose
flags depend on what else a process has seen. It is made on the machine where it runs, for the interpreter that packs it.
"""

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import marshal
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.vault.engine import pinned

NAME: Final = "bulkhead-seat"
_OWN: Final = ("custody", "policies")
_ENTRY: Final = ("custody.vault.engine.main", "custody.vault.engine.hosting")
_NOT_PACKED: Final = frozenset(
    {"tests", "test", "testing", "SelfTest", "__pycache__", "pyinstaller", "commands", "store"}
)
_INTERPRETER_LINE: Final = 127
"""Bytes of a first line that every Linux reads as an interpreter and its argument."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_TRACE: Final = """
import ast, json, sys
sys.path[:0] = sys.argv[1:3]
names, seen = list(sys.argv[3:]), set()
while names:
    for name in names:
        __import__(name)
    own = {m.__file__ for n, m in sys.modules.items() if n.startswith(("custody.", "policies.")) and m.__file__} - seen
    seen |= own
    trees = [ast.parse(open(file, "rb").read()) for file in sorted(own)]
    inside = [n for t in trees for f in ast.walk(t) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)]
    names = [n.module for n in inside if isinstance(n, ast.ImportFrom) and n.module and not n.level]
    names += [alias.name for n in inside if isinstance(n, ast.Import) for alias in n.names]
print(json.dumps(sorted({m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)})))
"""


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed engine: its bytes and the hash that the catalog pins."""

    content: bytes

    @property
    def sha256(self) -> str:
        """Hex, as the catalog takes it."""
        return hashlib.sha256(self.content).hexdigest()

    def write(self, folder: Path, name: str = NAME) -> Path:
        """Store it executable for its owner alone, whole or not at all."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target, fresh = folder / name, folder / f".{name}.{os.urandom(8).hex()}"
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        with os.fdopen(handle, "wb") as stream:
            stream.write(self.content)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(target)
        return target


def pack(own: Path, site: Path, python: Path) -> Packed:
    """The engine of the source tree `own`, with the dependencies in `site`, for an interpreter that has neither on its path.

    Raises InvalidInput where the interpreter's path is too long for a first line.
    """
    first = f"#!{python} -IS\n".encode()
    if len(first) > _INTERPRETER_LINE or b" " in os.fsencode(python):
        want = f"a path without blanks that fits into {_INTERPRETER_LINE} bytes"
        raise InvalidInput("python", Rule.MALFORMED, str(python), want)
    tops = _dependencies(own, site, python)
    modules: dict[str, list[Any]] = {}
    libraries: dict[str, str] = {}
    code = io.BytesIO(first)  # before the archive, which Python looks for at the end
    code.seek(len(first))
    sources = [(own, name) for name in _OWN] + [(site, name) for name in tops]
    for root, top in sources:
        for file in _files(root, top):
            name = _module(file, root)
            relative = file.relative_to(root).as_posix()
            if file.suffix == ".py" and name not in modules:
                text = marshal.dumps(compile(file.read_bytes(), relative, "exec", dont_inherit=True, optimize=0), 2)
                modules[name] = [code.tell(), len(text), file.name == "__init__.py", relative]
                code.write(text)
            elif any(file.name.endswith(suffix) for suffix in EXTENSION_SUFFIXES):
                libraries.setdefault(name, relative)
    _name_spaces(modules)
    files = {
        file.relative_to(site).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for top in tops
        for file in _files(site, top)
        if file.suffix != ".py"
    }
    manifest = {
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "python": sys.version.split()[0],
        "site": str(site),
        "modules": modules,
        "libraries": libraries,
        "files": files,
        "packages": dict(_packages(site, tops)),
    }
    return Packed(code.getvalue() + _archive(manifest))


def _dependencies(own: Path, site: Path, python: Path) -> list[str]:
    """Which packages and modules of `site` a seat loads, by loading one, and what its functions import only when they are called."""
    told = subprocess.run(  # noqa: S603 - this very interpreter
        [str(python), "-I", "-c", _TRACE, str(own), str(site), *_ENTRY], capture_output=True, text=True, check=True
    )
    found = {
        Path(file).relative_to(site).parts[0] for file in json.loads(told.stdout) if Path(file).is_relative_to(site)
    }
    return sorted(name for name in found if not name.startswith(("_distutils", "__editable", "_virtualenv")))


def _files(root: Path, top: str) -> Iterator[Path]:
    start = root / top
    found = [start] if start.is_file() else sorted(start.rglob("*"))
    for file in found:
        if file.is_file() and not _NOT_PACKED.intersection(file.relative_to(root).parts[:-1]) and file.suffix != ".pyc":
            yield file


def _module(file: Path, root: Path) -> str:
    parts = list(file.relative_to(root).parts)
    parts[-1] = parts[-1].split(".")[0]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _name_spaces(modules: dict[str, list[Any]]) -> None:
    """Packages without a file of their own, such as `google`: nothing but a place for others."""
    for name in list(modules):
        while "." in name:
            name = name.rpartition(".")[0]  # noqa: PLW2901 - upwards
            modules.setdefault(name, [0, 0, True, name.replace(".", "/")])


def _packages(site: Path, tops: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    for each in sorted(importlib.metadata.distributions(path=[str(site)]), key=lambda one: one.metadata["Name"]):
        offers = {Path(str(file)).parts[0] for file in each.files or ()}
        if offers.intersection(tops):
            name = each.metadata["Name"].lower().replace("-", "_").replace(".", "_")
            yield name, {"METADATA": f"Metadata-Version: 2.1\nName: {each.metadata['Name']}\nVersion: {each.version}\n"}


def _archive(manifest: dict[str, Any]) -> bytes:
    entries = {
        "__main__.py": Path(pinned.__file__).read_bytes(),
        pinned.MANIFEST: json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode(),
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o600 << 16
            archive.writestr(entry, content)
    return made.getvalue()
