# SPDX-License-Identifier: AGPL-3.0-or-later
"""What somebody signs of a backup: which bytes it was, and when."""

from dataclasses import dataclass

from custody.rules.typed import Bytes32, Struct, Uint64


@dataclass(frozen=True, slots=True)
class Backup(Struct):
    """A backup's digest (SHA-256 of its canonical body, custody/backing.py) and its time, in seconds since 1970."""

    digest: Bytes32
    time: Uint64
