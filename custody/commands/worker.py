# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead worker [--once]`: move transfers along; it holds no key."""

import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import typer

from custody.commands.common import Home, home, out

app = typer.Typer(help="Move transfers along: authorize, ask seats to sign, broadcast, follow to finality, post.")


@app.command()
def worker(
    once: Annotated[
        bool, typer.Option("--once", help="Work until nothing moves, say what everything waits for, and stop.")
    ] = False,
    home_option: Home = None,
) -> None:
    """Run until stopped; safe to stop, start and kill at any moment."""
    from custody.activating import Carrier
    from custody.bootstrap import open_deployment
    from custody.working import freeze_carrier, open_worker, work_forever, work_once

    deployment = open_deployment(home(home_option))
    _ = deployment.activated
    parts = replace(open_worker(deployment), sweeps=True)
    bundles, freezes = Carrier(deployment), freeze_carrier(deployment, parts)

    def carry() -> Iterator[str]:
        yield from bundles()
        yield from freezes()

    if once:
        for line in work_once(parts, carry):
            out.print(line, markup=False)
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    work_forever(parts, stop, say=lambda line: out.print(line, markup=False), carry=carry)
