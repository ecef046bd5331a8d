# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead rebalance --key FILE [--dry-run] [--every SECONDS]`: propose what hot wallets are above their cap or below their floor."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, open_signer, out

app = typer.Typer(help="Hot wallets above their cap overflow into cold, below their floor a refill is proposed.")


@app.command()
def rebalance(
    key: Annotated[Path, typer.Option("--key", help="A program's PEM file, or an operator's keystore; it proposes.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be proposed, and propose nothing.")
    ] = False,
    every: Annotated[
        int | None, typer.Option("--every", min=1, help="Look again after so many seconds, until stopped.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option(help="Read the password from here instead of asking.")] = None,
    home_option: Home = None,
) -> None:
    """Read final balances and what is in flight, and propose; people approve by policy. Exit code 1 where something went wrong."""
    from custody.balancing import balance_forever, line_of, open_rebalancer
    from custody.bootstrap import open_deployment
    from custody.flows.rebalancing_cycle import cycle

    deployment = open_deployment(home(home_option), read_only=dry_run)
    _ = deployment.activated
    parts = open_rebalancer(deployment, open_signer(key, password_file))
    if every is None:
        lines = cycle(parts, dry=dry_run)
        for line in lines:
            out.print(line_of(line), markup=False)
        if any(line.fault for line in lines):
            raise typer.Exit(1)
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    balance_forever(parts, stop, every, lambda line: out.print(line, markup=False), dry=dry_run)
