# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead devnet up | status | down`."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="devnet", help="Run Anvil, bitcoind -regtest and one OpenBao for each seat.", no_args_is_help=True
)

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Where the network keeps its files [default: $BULKHEAD_HOME or .bulkhead]."),
]


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _fail(error: Exception) -> typer.Exit:
    """An expected failure as one message on stderr, and exit code 1."""
    _say(f"bulkhead devnet: {error}")
    return typer.Exit(1)


@app.command()
def up(
    home: HomeOption = None,
    block_time: Annotated[
        int | None, typer.Option(help="Seconds between Anvil's blocks [default: on demand].")
    ] = None,
) -> None:
    """Fetch what is missing and start the network; it lives on until `down`."""
    import time

    from devnet.binaries import ProgramMissing, WrongHash
    from devnet.network import Devnet, NetworkBusy
    from devnet.processes import NodeFailed

    began = time.monotonic()
    network = Devnet(home, block_time=block_time, progress=_say)
    try:
        network.up()
    except (NetworkBusy, NodeFailed, ProgramMissing, WrongHash) as error:
        raise _fail(error) from error
    _say(f"up in {time.monotonic() - began:.1f} s; addresses are in {network.network_file}")


@app.command()
def status(home: HomeOption = None) -> None:
    """Show every node."""
    from rich.console import Console
    from rich.table import Table

    from devnet.network import Devnet

    table = Table("name", "kind", "pid", "address", "state")
    for node in Devnet(home).status():
        table.add_row(node.name, node.kind, str(node.pid or ""), node.address, node.state.value)
    Console().print(table)


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop every node; what they stored stays."""
    from devnet.network import Devnet, NetworkBusy

    try:
        Devnet(home, progress=_say).down()
    except NetworkBusy as error:
        raise _fail(error) from error


if __name__ == "__main__":
    app()
