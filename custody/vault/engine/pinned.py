# SPDX-License-Identifier: AGPL-3.0-or-later
"""The first code of the packed engine (its `__main__`): nothing is imported but what its own file holds or pins by hash.

The file's sha256 stands in OpenBao's plugin catalog. Inside are the code of every module, ours and the dependencies', and the
hashes of what cannot be inside: libraries that the system loads from disk. All of them are read and compared before the first
import. The interpreter and its standard library rest on who owns them. Standard library only, for this comes first of all.
"""

import hashlib
import importlib.machinery
import importlib.util
import json
import marshal
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

MANIFEST: Final = "manifest.json"


class Tampered(Exception):
    """A file is not the one that this engine was packed with, or it is not there."""


class PinnedModule(Loader):
    """Runs one module's code from the packed file."""

    def __init__(self, code: bytes) -> None:
        self._code = code

    def exec_module(self, module: ModuleType) -> None:
        """See Loader."""
        exec(marshal.loads(self._code), module.__dict__)  # noqa: S102, S302 - bytes of the file that the catalog pins


class PinnedDistribution(Distribution):
    """What a package says about itself; some ask for their own version when they are imported."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def read_text(self, filename: str) -> str | None:
        """See Distribution."""
        return self._texts.get(filename)

    def locate_file(self, path: Any) -> Any:  # noqa: ANN401 - the base class's signature
        """There are no files."""
        raise FileNotFoundError(path)


class PinnedFinder(MetaPathFinder):
    """Finds the manifest's modules and no others; the standard library's are left to Python."""

    def __init__(self, manifest: Mapping[str, Any], archive: str) -> None:
        self._site = Path(manifest["site"])
        self._modules: Mapping[str, Sequence[Any]] = manifest["modules"]
        self._libraries: Mapping[str, str] = manifest["libraries"]
        self._packages: Mapping[str, Mapping[str, str]] = manifest["packages"]
        self._archive = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)

    def check(self, hashes: Mapping[str, str]) -> None:
        """Compare every file with its hash. Raises Tampered."""
        for name, want in hashes.items():
            try:
                with (self._site / name).open("rb") as file:
                    got = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise Tampered(f"{name}: {type(error).__name__}") from error
            if got != want:
                raise Tampered(f"{name}: sha256 {got}, want {want}")

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See MetaPathFinder."""
        library = self._libraries.get(fullname)
        if library is not None:
            file = str(self._site / library)
            loader = importlib.machinery.ExtensionFileLoader(fullname, file)
            return importlib.util.spec_from_file_location(fullname, file, loader=loader)
        found = self._modules.get(fullname)
        if found is None:
            return None
        start, length, is_package, file = found
        code = os.pread(self._archive, length, start) or marshal.dumps(compile("", file, "exec"))  # a name space's
        spec = importlib.machinery.ModuleSpec(
            fullname, PinnedModule(code), origin=str(self._site / file), is_package=is_package
        )
        spec.has_location = True  # a package looks beside its own file for its libraries, which were compared
        if is_package:
            spec.submodule_search_locations = [str(self._site / fullname.replace(".", "/"))]
        return spec

    def find_distributions(self, context: Any = None) -> Iterator[Distribution]:  # noqa: ANN401 - as above
        """What importlib.metadata asks."""
        asked = (context or DistributionFinder.Context()).name
        for name, texts in self._packages.items():
            if asked is None or _plain(asked) == name:
                yield PinnedDistribution(texts)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def start(manifest: Mapping[str, Any], archive: str) -> None:
    """Check what is pinned, then let nothing else be imported. Raises Tampered."""
    if importlib.util.MAGIC_NUMBER.hex() != manifest["magic"]:
        raise Tampered(f"packed for {manifest['python']}, and this is Python {sys.version.split()[0]}")
    finder = PinnedFinder(manifest, archive)
    finder.check(manifest["files"])
    site = str(finder._site)  # noqa: SLF001 - its own module
    sys.path[:] = [folder for folder in sys.path if not folder.startswith(site)]
    sys.meta_path.insert(0, finder)


def main() -> None:
    """Start the engine out of the file that this code stands in."""
    loader: Any = globals()["__loader__"]  # zipimport gives it
    archive = loader.archive
    manifest = json.loads(loader.get_data(f"{archive}/{MANIFEST}"))
    try:
        start(manifest, archive)
    except Tampered as error:
        sys.stderr.write(json.dumps({"@level": "error", "@message": f"refuses to start: {error}"}) + "\n")
        raise SystemExit(3) from None
    from custody.vault.engine.main import main as run  # noqa: PLC0415 - nothing of ours before everything is checked

    run()


if __name__ == "__main__":
    main()
