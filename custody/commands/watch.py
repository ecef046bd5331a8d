# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead watch`: follow the chains, credit at finality, reverse what a reorg takes back."""

import signal
import threading
from typing import Annotated

import typer

from custody.commands.common import Home, home, out

app = typer.Typer(help="Follow the chains: see deposits, credit them at finality, reverse what a reorg takes back.")


@app.command()
def watch(
    once: Annotated[bool, typer.Option("--once", help="Catch up with every chain and stop.")] = False,
    home_option: Home = None,
) -> None:
    """Run until stopped; safe to stop and start at any moment."""
    from custody.bootstrap import open_deployment, wall_clock
    from custody.watcher import catch_up, watch_forever

    deployment = open_deployment(home(home_option))
    _ = deployment.activated
    if once:
        for line in catch_up(
            deployment.store, deployment.views, deployment.inventory, deployment.bundle.assets, wall_clock
        ):
            out.print(line, markup=False)
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch_forever(deployment.store, deployment.views, deployment.inventory, deployment.bundle.assets, wall_clock, stop)
