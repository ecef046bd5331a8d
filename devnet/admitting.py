# SPDX-License-Identifier: AGPL-3.0-or-later
"""A passkey that somebody made at the console, put in force on a devnet: the commands of a real deployment, told as they run.

The devnet's people sign with their key files, and the statement's clock is moved over the roster's delay; the rest is as anywhere.
"""

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devnet import hands
from devnet.home import bulkhead_program
from devnet.network import Devnet

SIGNERS: Final = ("bo", "cleo", "dan", "eve")
"""Four, as the roster's threshold asks."""
_DELAY: Final = 86_400 + 3_600
"""Seconds: the roster's delay, and an hour."""
_SECONDS: Final = 180.0


def admit(net: Devnet, enrolment: Path, say: Callable[[str], object]) -> None:
    """From the enrolment page's file to a key that logs in. Raises ChildProcessError with what a command said."""
    people = net.home / "people"

    def run(*words: str) -> None:
        say("bulkhead " + " ".join(words))
        program, home = str(bulkhead_program()), {"BULKHEAD_HOME": str(net.home)}
        done = subprocess.run(  # noqa: S603  # our own commands
            [program, *words], capture_output=True, text=True, timeout=_SECONDS, check=False, env={**_shell(), **home}
        )
        told = (done.stdout + done.stderr).splitlines()
        for line in (
            told[-3:] if words[0] == "sign" and done.returncode == 0 else told
        ):  # a whole roster stands above these
            say("  " + line)
        if done.returncode != 0:
            raise ChildProcessError(f"`bulkhead {words[0]} {words[1]}` refused; nothing is in force that was not")

    with tempfile.TemporaryDirectory(dir=net.home, prefix="admitting-") as folder:
        version = str(Path(folder) / "roster.json")
        run("passkey", "show", str(enrolment))
        run("passkey", "add", str(enrolment), version)
        for name in SIGNERS:
            key, password = str(people / f"{name}.json"), str(people / "password")
            run("sign", version, "--key", key, "--password-file", password, "--yes")
        run("roster", "carry", version)
        say(f"bulkhead devnet advance {_DELAY}")
        hands.advance(net, _DELAY)
        run("roster", "carry", version)
        run("passkey", "keep", str(enrolment))
    say("in force: log in at the console")


def _shell() -> dict[str, str]:
    """What programs need of the environment, and no setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BULKHEAD_")}
