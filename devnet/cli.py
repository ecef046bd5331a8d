# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead devnet up | status | down`, and what a person does to it by hand: `pay | mine | advance | quote`."""

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
    from devnet.guide import guide
    from devnet.network import Devnet, NetworkBusy
    from devnet.processes import NodeFailed

    began = time.monotonic()
    network = Devnet(home, block_time=block_time, progress=_say)
    services = Services(network)
    try:
        network.up()
    except (NetworkBusy, NodeFailed, ProgramMissing, WrongHash) as error:  # it stopped what it had started
        raise _fail(error) from error
    try:
        raise_world(network, services, _say, living=True)
        services.start(services.shown)
    except BaseException as error:  # Ctrl-C and surprises too: leave nothing half up
        services.stop()
        network.down()
        if isinstance(error, NodeFailed):
            raise _fail(error) from error
        raise
    _say(f"up in {time.monotonic() - began:.1f} s")
    for line in guide(network.home, services.web.url, services.console.url):
        typer.echo(line)


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


@app.command()
def pay(
    address: Annotated[str, typer.Argument(help="Where to: a customer's deposit address.")],
    amount: Annotated[str, typer.Argument(help="How much, in the asset's own unit.")],
    asset: Annotated[str, typer.Argument(help="Its symbol; it names the chain too.")],
    blocks: Annotated[int, typer.Option(min=0, help="Blocks on both chains afterwards, so that it is final.")] = 3,
    home: HomeOption = None,
) -> None:
    """Somebody who is nobody to us pays an address, out of nothing."""
    from devnet import hands
    from devnet.network import Devnet

    network = Devnet(home)
    paid = hands.pay(network, address, amount, asset)
    hands.mine(network, blocks)
    _say(f"paid {paid.decimal} {asset} to {address}, with {blocks} blocks on top")


@app.command()
def mine(
    blocks: Annotated[int, typer.Argument(min=1, max=1000, help="How many, on each chain.")] = 4,
    home: HomeOption = None,
) -> None:
    """Make blocks on both chains, which stand still otherwise: a payment completes once enough of them are above it."""
    from devnet import hands
    from devnet.network import Devnet

    evm, bitcoin = hands.mine(Devnet(home), blocks)
    _say(f"Anvil at block {evm}, bitcoind at block {bitcoin}")


@app.command()
def advance(
    seconds: Annotated[int, typer.Argument(min=1, max=10**8, help="How many; a day is 86400.")],
    home: HomeOption = None,
) -> None:
    """Let time pass on the statement's clock, which a devnet's genesis declares; the feeders quote again at once."""
    from devnet import hands
    from devnet.network import Devnet

    _say(f"statement time {hands.advance(Devnet(home), seconds)}")


@app.command()
def quote(
    every: Annotated[
        int, typer.Option(min=60, max=3300, help="Seconds of the statement's time; a price serves for an hour.")
    ] = 1800,
    home: HomeOption = None,
) -> None:
    """Quote prices as the devnet's two feeders until stopped, and at once when the clock was moved forward."""
    import signal
    import threading

    from devnet.home import bulkhead_home
    from devnet.prices import Feed, quote_forever

    feed = Feed.open((home or bulkhead_home()).absolute())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    quote_forever(feed, stop, every, typer.echo)


@app.command()
def live(
    home: HomeOption = None,
    once: Annotated[bool, typer.Option("--once", help="Set the scenes, and end.")] = False,
) -> None:
    """Be the customers, the backend and the colleagues: set scenes that wait for somebody at the console, then go on until stopped."""
    import signal

    from devnet.birth import Services
    from devnet.living import Life
    from devnet.network import Devnet

    network = Devnet(home)
    life = Life.over(network, Services(network).web.url, typer.echo)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: life.stop.set())
    life.furnish()
    if not once:
        life.go_on()


@app.command()
def admit(
    file: Annotated[
        Path, typer.Argument(metavar="ENROLMENT", help="The file that the console's enrolment page offered.")
    ],
    home: HomeOption = None,
) -> None:
    """Put a new passkey in force by the commands that everybody uses: a roster version, four people's signatures, its delay.

    Any person of the roster with a devnet's key files and clock could type them; nothing here goes round a rule.
    """
    from devnet.admitting import admit as put_in_force
    from devnet.network import Devnet

    try:
        put_in_force(Devnet(home), file, _say)
    except ChildProcessError as error:
        raise _fail(error) from error


if __name__ == "__main__":
    app()
