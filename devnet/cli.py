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
    block_time: Annotated[int | None, typer.Option(help="Seconds between Anvil's blocks [default: on demand].")] = None,
) -> None:
    """Fetch what is missing, start the network and Bulkhead's processes, give birth if need be; lives on until `down`."""
    import time

    from devnet.binaries import ProgramMissing, WrongHash
    from devnet.birth import Services, raise_world
    from devnet.network import Devnet, NetworkBusy
    from devnet.processes import NodeFailed

    began = time.monotonic()
    network = Devnet(home, block_time=block_time, progress=_say)
    services = Services(network)
    try:
        network.up()
        raise_world(network, services, _say)
        services.watcher.start()
    except (NetworkBusy, NodeFailed, ProgramMissing, WrongHash) as error:
        services.stop()
        raise _fail(error) from error
    except BaseException:  # Ctrl-C and surprises too: leave nothing half up
        services.stop()
        network.down()
        raise
    _say(f"up in {time.monotonic() - began:.1f} s; stop it with: bulkhead devnet down")


@app.command()
def status(home: HomeOption = None) -> None:
    """Show every node."""
    from rich.console import Console
    from rich.table import Table

    from devnet.birth import Services
    from devnet.network import Devnet

    network = Devnet(home)
    table = Table("name", "kind", "pid", "address", "state", box=None)
    table.columns[3].overflow = "fold"
    for node in network.status():
        table.add_row(node.name, node.kind, str(node.pid or ""), node.address, node.state.value)
    for service in Services(network).all:
        pid = service.pid
        state = "running" if pid else ("stopped (cold, by design)" if service.name in network.cold else "stopped")
        table.add_row(service.name, service.kind, str(pid or ""), service.address if pid else "", state)
    Console().print(table)


@app.command()
def down(home: HomeOption = None) -> None:
    """Stop every process and node; what they stored stays."""
    from devnet.birth import Services
    from devnet.network import Devnet, NetworkBusy

    network = Devnet(home, progress=_say)
    try:
        Services(network).stop()
        network.down()
    except NetworkBusy as error:
        raise _fail(error) from error


if __name__ == "__main__":
    app()
