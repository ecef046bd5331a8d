# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every process that has a key in its memory does first, and the clock that it goes by."""

import ctypes
import os
import resource
import sys
import time
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def wall_clock() -> int:
    """Seconds since 1970, by this machine."""
    return int(time.time())


def harden() -> None:
    """Keep what this process holds in memory out of files and debuggers; Python cannot wipe it (facts: SECURITY.md)."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
