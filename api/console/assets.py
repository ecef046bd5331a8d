# SPDX-License-Identifier: AGPL-3.0-or-later
"""Static files: hashed in a manifest, named by their hash in every page, and nothing else is served.

A page loads a script by its hash (SRI), so that whoever can change a file on the way, or in a cache, changes no page.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "static"
MANIFEST: Final = FOLDER / "manifest.json"
KINDS: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, its media type and `sha384-…` of the bytes."""

    name: str
    body: bytes
    kind: str
    integrity: str

    @property
    def url(self) -> str:
        """Where a page finds it; another content has another address, so that it may be kept for ever."""
        short = self.integrity.removeprefix("sha384-")[:16].replace("+", "-").replace("/", "_")
        return f"/static/{self.name}?{short}"


def digest(body: bytes) -> str:
    """As the integrity attribute wants it."""
    return "sha384-" + base64.b64encode(hashlib.sha384(body).digest()).decode("ascii")


@cache
def assets() -> dict[str, Asset]:
    """Every file that the manifest names. Raises ValueError where one is another than it says: then nothing is served."""
    named = json.loads(MANIFEST.read_text(encoding="utf-8"))
    found = {}
    for name, integrity in named.items():
        body = (FOLDER / name).read_bytes()
        if digest(body) != integrity:
            raise ValueError(f"{name} is not what the manifest says: python -m api.console.assets")
        found[name] = Asset(name, body, KINDS[Path(name).suffix], integrity)
    return found


def write() -> None:
    """Write the manifest anew; whoever changes a file runs this, and the change stands in two places of the commit."""
    files = sorted(file for file in FOLDER.iterdir() if file.suffix in KINDS)
    named = {file.name: digest(file.read_bytes()) for file in files}
    MANIFEST.write_text(json.dumps(named, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":  # python -m api.console.assets
    write()
