# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead relayer serve`: the process that holds the gas-paying key."""

from pathlib import Path

import typer

from custody.commands.common import Home, home, out

app = typer.Typer(help="The relayer pays EVM gas and can move nothing.", no_args_is_help=True)


@app.callback()
def relayer() -> None:
    """A group of one command, so that others can join it."""


@app.command("serve")
def serve(home_option: Home = None) -> None:
    """Serve until stopped, on the socket and with the AppRole of the settings."""
    from custody.settings import Settings
    from custody.vault.relayer import serve_relayer

    part = Settings.load(home(home_option)).relayer
    out.print(f"relayer on {part.socket}", markup=False)
    serve_relayer(Path(part.approle), Path(part.socket))
