# SPDX-License-Identifier: AGPL-3.0-or-later
"""The packed seat engine of this checkout, made once for these sources, these dependencies and this interpreter."""

import hashlib
import importlib.metadata
import sys
import sysconfig
import threading
from functools import cache
from pathlib import Path
from typing import Final

from custody.vault.engine.packing import NAME, Packed, pack
from devnet.home import bulkhead_home

_TURN: Final = threading.Lock()  # servers are provisioned at once
_OWN: Final = Path(__file__).resolve().parent.parent


def packed() -> Packed:
    """The engine; packing takes seconds and is done again when anything in it has changed since this process looked."""
    with _TURN:
        return _packed()


@cache
def _packed() -> Packed:
    folder = bulkhead_home() / "engine" / _key()
    file = folder / NAME
    if file.is_file():
        return Packed(file.read_bytes())
    made = pack(_OWN, Path(sysconfig.get_path("purelib")), Path(sys.executable))
    made.write(folder)
    return made


def _key() -> str:
    """What a packed engine depends on: our sources byte by byte, the dependencies as their installer recorded them."""
    said = hashlib.sha256(f"{sys.executable} {sys.version}\n".encode())
    for top in ("custody", "policies"):
        for file in sorted((_OWN / top).rglob("*.py")):
            said.update(f"{file.relative_to(_OWN)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    records = sorted(
        (each.metadata["Name"], each.read_text("RECORD") or "") for each in importlib.metadata.distributions()
    )
    for name, record in records:
        said.update(f"{name} {hashlib.sha256(record.encode()).hexdigest()}\n".encode())
    return said.hexdigest()[:32]
