# SPDX-License-Identifier: AGPL-3.0-or-later
"""Failpoints: what is armed, what was reached, and the kill. Files of one folder, since whoever reaches a point dies of it.

A point's name is `PART.KIND.WHEN:WHAT`, such as `worker.commit.after:signing._record`: derived from what is called, never written
down in a list. `armed` holds one line for each point, `NAME COUNT`; the COUNT-th time that one process gets there it kills itself,
and no process gets killed there again, because `fired/` remembers it. While there is a file `recording`, every point is noted.
"""

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

UNWATCHED: Final = "unwatched"
"""KIND of a way to the outside that no failpoint stands around: it is recorded, and a test fails of it."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A point that some process passed."""

    at: int
    pid: int
    name: str


class Desk:
    """The test's side: arms points, and reads what was reached."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fired").mkdir(parents=True, exist_ok=True)
        (folder / "passed").mkdir(exist_ok=True)
        self.arm({})

    def arm(self, points: Mapping[str, int] | Collection[str]) -> None:
        """Arm exactly these, each at its count (the first time, where none is given); an empty one disarms everything."""
        counts = dict(points) if isinstance(points, Mapping) else dict.fromkeys(points, 1)
        fresh = self.folder / "armed.fresh"
        fresh.write_text("".join(f"{name} {count}\n" for name, count in sorted(counts.items())), encoding="utf-8")
        fresh.replace(self.folder / "armed")

    def fired(self) -> dict[str, int]:
        """Every point at which somebody was killed, and whom."""
        found = [file.read_text(encoding="utf-8").rpartition(" ") for file in (self.folder / "fired").iterdir()]
        return {name: int(pid) for name, _, pid in found if name}

    def forget(self) -> None:
        """Nobody was killed anywhere yet."""
        for file in (self.folder / "fired").iterdir():
            file.unlink()

    def record(self, *, on: bool) -> None:
        """Note every point from now on, or no more. What was noted before is gone when it begins."""
        if on:
            for file in (self.folder / "passed").iterdir():
                file.unlink()
            (self.folder / "recording").touch()
        else:
            (self.folder / "recording").unlink(missing_ok=True)

    def passed(self) -> list[Passed]:
        """What was noted, in order."""
        lines = [
            (int(file.name), line)
            for file in (self.folder / "passed").iterdir()
            for line in file.read_text(encoding="utf-8").splitlines()
        ]
        found = [Passed(int(at), pid, name) for pid, line in lines for at, _, name in [line.partition(" ")]]
        return sorted(found, key=lambda one: one.at)


def kill_self() -> None:
    """As the kernel, or the power, would: nothing is flushed, closed or told."""
    os.kill(os.getpid(), signal.SIGKILL)


class Points:
    """The side of one process: whoever passes a point says so here, and may not come back."""

    def __init__(self, folder: Path, part: str, die: Callable[[], None] = kill_self) -> None:
        self.part = part
        self._folder, self._die = folder, die
        self._turn = threading.Lock()
        self._version, self._armed = -1, dict[str, int]()
        self._times: Counter[str] = Counter()

    def reach(self, kind: str, what: str) -> None:
        """This process is at a point: note it, and die here where it is armed."""
        name = f"{self.part}.{kind}:{what}"
        with self._turn:
            if (self._folder / "recording").exists():
                with (self._folder / "passed" / str(os.getpid())).open("a", encoding="utf-8") as file:
                    file.write(f"{time.monotonic_ns()} {name}\n")
            if name not in self._now_armed():
                return
            self._times[name] += 1
            if self._times[name] >= self._armed[name] and self._claim(name):
                self._die()

    def _now_armed(self) -> Mapping[str, int]:
        try:
            file = self._folder / "armed"
            version = file.stat().st_mtime_ns
            if version != self._version:
                self._armed = dict(_read(file.read_text(encoding="utf-8")))
                self._version = version
                self._times.clear()
        except FileNotFoundError:
            return {}
        return self._armed

    def _claim(self, name: str) -> bool:
        """Whether nobody was killed there before."""
        file = self._folder / "fired" / hashlib.sha256(name.encode()).hexdigest()[:32]
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w", encoding="utf-8") as opened:
            opened.write(f"{name} {os.getpid()}")
        return True


def _read(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, count = line.rpartition(" ")
        yield name, int(count)
