# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead attestor serve | status | advance`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import Home, home, out, read_hash, say_json

if TYPE_CHECKING:
    from custody.flows.attestation import InForce
    from custody.rules.certificates import SeatHead
    from custody.rules.signatures import Signed
    from custody.settings import Settings

app = typer.Typer(help="The attestor: its process, its word, its clock.", no_args_is_help=True)


@app.command("serve")
def serve(
    genesis: Annotated[
        str | None, typer.Option(help="Genesis in hex as its operator was told; no other can then be pinned.")
    ] = None,
    home_option: Home = None,
) -> None:
    """Serve until stopped, with its own nodes, its own database login and its own OpenBao, as settings name them."""
    from custody.attestor import serve_attestor  # chains and store load only here
    from custody.rules.wallets import Chain
    from custody.settings import Settings

    folder = home(home_option)
    settings = Settings.load(folder)
    own, database = folder / "attestor", settings.attestor_database or settings.database
    own.mkdir(mode=0o700, exist_ok=True)
    out.print(f"attestor on {settings.attestor.socket}", markup=False)
    serve_attestor(
        Path(settings.attestor.approle),
        Path(settings.attestor.socket),
        database,
        {Chain(name): nodes for name, nodes in settings.attestor_nodes.items()},
        partial(_in_force, settings, database),
        genesis=read_hash(genesis, "genesis") if genesis else None,
        cache=own,
        seat_heads=lambda: _seat_heads(settings),
    )


@app.command("status")
def status(home_option: Home = None) -> None:
    """What the attestor knows, unsigned, for people."""
    from custody.attestor import RemoteAttestor
    from custody.settings import Settings

    say_json(RemoteAttestor(Path(Settings.load(home(home_option)).attestor.socket)).status())


@app.command("advance")
def advance(
    seconds: Annotated[int, typer.Argument(min=1, help="Seconds to move forward.")], home_option: Home = None
) -> None:
    """Move the statement clock forward; refused unless genesis names only devnet chains and declares that clock."""
    from custody.attestor import RemoteAttestor
    from custody.settings import Settings

    now = RemoteAttestor(Path(Settings.load(home(home_option)).attestor.socket)).advance(seconds)
    out.print(f"statement time {now}", markup=False)


def _in_force(settings: "Settings", database: str, now: int) -> "InForce":
    """What this attestor goes by; which bundle that is it asks for each statement, and counts delays from its own first sight."""
    from custody.attestor import oldest_finals
    from custody.composing import GENESIS, assets_in_force, read_genesis
    from custody.flows.attestation import InForce
    from custody.governing import standing_in
    from custody.store import open_store
    from policies.bundle import load

    assets = load(Path(settings.bundle)).assets
    if (settings.home / GENESIS).exists():  # before birth there is nothing in the mirror, nor perhaps a mirror
        store = open_store(database, assets, read_only=True)
        assets = assets_in_force(store, read_genesis(settings.home), assets, lambda: now)
        store.close()
    return InForce(assets, oldest_finals(assets.chains), standing_in(assets))


def _seat_heads(settings: "Settings") -> "Sequence[Signed[SeatHead]]":
    """The newest heads of the seats that answer; a cold one is silent outside a ceremony."""
    from custody.parts import seats
    from custody.rules.errors import CustodyError

    heads = []
    for seat in seats(settings).values():
        try:
            heads.append(seat.head())
        except CustodyError:  # silent, or not born yet: the statement names the heads it has
            continue
    return heads
