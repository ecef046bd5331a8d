# SPDX-License-Identifier: AGPL-3.0-or-later
"""A small disk of its own for one folder, which a test can fill to the last block and empty again.

A tmpfs where this account may mount one. Elsewhere processes are told that no file of theirs may grow (RLIMIT_FSIZE): a write fails
then as well, with EFBIG instead of ENOSPC.
"""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MEGABYTE: Final = 1 << 20


@dataclass
class Disk:
    """One folder. `writers` gives the processes that write to it, for where it cannot be a disk of its own."""

    folder: Path
    megabytes: int
    writers: Callable[[], Sequence[int]] = tuple
    mounted: bool = field(default=False, init=False)

    def attach(self) -> None:
        """Mount it, empty, where that is permitted."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mount = shutil.which("mount")
        if mount is not None and os.geteuid() == 0:
            options = f"size={self.megabytes}m,mode=0700"
            done = subprocess.run(
                [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], capture_output=True, check=False
            )
            self.mounted = done.returncode == 0

    def detach(self) -> None:
        """Unmount it; what was on it is gone."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, check=True)
            self.mounted = False

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not one more block for the length of the block."""
        if not self.mounted:
            with _no_growth(self.writers()):
                yield
            return
        ballast = self.folder / "ballast"
        try:
            _fill(ballast)
            yield
        finally:
            ballast.unlink(missing_ok=True)


def _fill(ballast: Path) -> None:
    """Write until nothing more can be written, in ever smaller pieces."""
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for size in (MEGABYTE, 64 * 1024, 4096, 1):
            while True:
                try:
                    os.write(handle, b"\0" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    break
    finally:
        os.close(handle)


@contextmanager
def _no_growth(pids: Sequence[int]) -> Iterator[None]:
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    try:
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
        yield
    finally:
        for pid, limit in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
