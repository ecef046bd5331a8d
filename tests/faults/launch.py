# SPDX-License-Identifier: AGPL-3.0-or-later
"""`python -m tests.faults.launch SOCKET`: starts parts of Bulkhead whose machine has a clock that can jump, and little patience.

Each life ends in the part's ordinary main (tests/crash/launch.py). Two things differ. `time.time` adds the seconds in the file `clock`
of the part's own folder, looked at on each call, so that a running process sees its clock jump. And what waits for a node, a vault or
a lease waits for seconds instead of half minutes: the same code, a shorter test.
"""

import importlib
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from custody.cli import main as bulkhead
from tests.crash import launch
from tests.crash.launch import Wanted

CLOCK: Final = "clock"
NODE_SECONDS: Final = 6.0
VAULT_SECONDS: Final = (1.0, 3.0)
LEASE_SECONDS: Final = 4
RETRY_SECONDS: Final = 1


def _live(wanted: Wanted) -> int:
    """One life: clock and patience, then the part's ordinary main."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    launch._die_with_parent()
    set_clock(Path(wanted.environment["HOME"]) / CLOCK)
    lose_patience()
    try:
        return bulkhead(wanted.words)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


def set_clock(file: Path) -> None:
    """From now on this machine's time is off by what the file says, in whole seconds; nothing while there is no such file."""
    true = time.time

    def told() -> float:
        try:
            return true() + int(file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return true()

    time.time = told


def lose_patience() -> None:
    """Shorter waits for nodes, vaults, leases and second tries."""
    working = vars(importlib.import_module("custody.working"))
    working["Pace"] = partial(working["Pace"], retry=RETRY_SECONDS)
    working["Parts"] = partial(working["Parts"], lease=LEASE_SECONDS)
    vars(importlib.import_module("custody.vault.approle"))["TIMEOUT"] = VAULT_SECONDS
    for module, name in (("custody.chains.evm.client", "EvmClient"), ("custody.chains.bitcoin.rpc", "BitcoinRpc")):
        made = vars(importlib.import_module(module))[name].__init__
        made.__defaults__ = tuple(NODE_SECONDS if value == 30.0 else value for value in made.__defaults__ or ())
        if made.__kwdefaults__:
            made.__kwdefaults__ |= {"timeout": NODE_SECONDS}


if __name__ == "__main__":
    launch._live = _live
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.exit(launch.main(sys.argv[1:]))
