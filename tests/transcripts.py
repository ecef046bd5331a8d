# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transcripts in documents are made by the commands they show: `python -m tests.transcripts FILE [--write]`.

Each ```console block is run line by line ("$ ") in one folder that holds a copy of `policies/`; what was printed stands below each
line, and a line `(exit N)` where it did not end with 0. Without `--write` a difference is told, and the exit code is 1.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
_BLOCK: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)


def renewed(text: str) -> str:
    """The document with every transcript as the commands print it now."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "policies" / "shipped", folder / "policies" / "shipped")
        return _BLOCK.sub(lambda block: f"```console\n{''.join(_run(block[1], folder))}```", text)


def _run(block: str, folder: Path) -> Iterator[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "120"}
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        done = subprocess.run(
            ["bash", "-c", line[2:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        yield f"{line}\n{done.stdout}{done.stderr}"
        if done.returncode:
            yield f"(exit {done.returncode})\n"


def main(arguments: list[str]) -> int:
    """Compare or write; 1 where a transcript is not what its commands print."""
    path = Path(arguments[0])
    text = path.read_text(encoding="utf-8")
    fresh = renewed(text)
    if "--write" in arguments:
        path.write_text(fresh, encoding="utf-8")
        return 0
    sys.stdout.writelines(difflib.unified_diff(text.splitlines(True), fresh.splitlines(True), "document", "commands"))
    return int(text != fresh)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
