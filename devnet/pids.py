# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which process is meant: a pid together with its start time, so that a re-used pid is never signalled."""

import json
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"  # the state of a listening socket in /proc/net/tcp
_PGRP, _START = 2, 19  # places in /proc/PID/stat, counted from the state field, see proc(5)


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, or None when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # the name before may itself hold spaces and brackets


def boot_id() -> str:
    """The kernel's name for this boot: start times of two boots cannot be compared."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for ever: pid, start time in clock ticks since boot, and the boot."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process that has this pid now, or None."""
        fields = _stat(pid)
        return None if fields is None else cls(pid, int(fields[_START]), boot_id())

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        fields = _stat(self.pid)
        if fields is None or fields[0] in "ZX":
            return False
        return int(fields[_START]) == self.started and boot_id() == self.boot

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process and no other; False when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive():  # looked at after the handle was taken: the handle cannot move to another process
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; True when it has."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return not self.alive() or bool(select.select([handle], [], [], seconds)[0])
        finally:
            os.close(handle)


def group(leader: Identity) -> Iterator[Identity]:
    """The living processes of the group that this process leads, itself left out."""
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == leader.pid:
            continue
        fields = _stat(int(entry.name))
        if fields and int(fields[_PGRP]) == leader.pid and int(fields[_START]) >= leader.started:
            yield Identity(int(entry.name), int(fields[_START]), leader.boot)


def end(leader: Identity, gently: signal.Signals, seconds: float) -> None:
    """Stop a process and its group: the gentle signal, a wait, SIGKILL for what is left."""
    members = list(group(leader))
    if leader.signal(gently) and not leader.wait(seconds):
        leader.signal(signal.SIGKILL)
        leader.wait(seconds)
    for member in {*members, *group(leader)}:
        member.signal(signal.SIGKILL)


def holds_port(pid: int, port: int) -> bool:
    """Whether this very process listens on this port: a probe alone would pass against a stranger's node."""
    mine = _sockets(pid)
    for table in ("net/tcp", "net/tcp6") if mine else ():  # the kernel takes milliseconds to write one of these tables
        try:
            rows = (_PROC / table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue
        cells = (row.split() for row in rows)
        if any(c[9] in mine and c[3] == _LISTEN and int(c[1].rpartition(":")[2], 16) == port for c in cells):
            return True
    return False


def holds_socket(pid: int, path: Path) -> bool:
    """Whether this process itself holds the Unix socket bound at this path."""
    rows = (row.split() for row in (_PROC / "net/unix").read_text().splitlines()[1:])
    return bool({r[6] for r in rows if r[7:] == [str(path)]} & _sockets(pid))


def _sockets(pid: int) -> set[str]:
    """The inode numbers of the sockets a process has open."""
    inodes = set()
    try:
        links = list((_PROC / str(pid) / "fd").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return set()
    for link in links:
        try:
            target = str(link.readlink())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    return inodes


@dataclass(frozen=True, slots=True)
class Record:
    """What stands on disk about a running node, for `status` and `down` from another process."""

    name: str
    kind: str
    address: str
    pid: int
    started: int
    boot: str

    @property
    def identity(self) -> Identity:
        """The process that was started, which may be gone."""
        return Identity(self.pid, self.started, self.boot)

    def write(self, file: Path) -> None:
        """Store it, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=1) + "\n")
        draft.rename(file)

    @classmethod
    def read(cls, file: Path) -> "Record | None":
        """The stored record, or None when there is none or it is not one."""
        try:
            fields = json.loads(file.read_text())
            return cls(**fields)
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None
