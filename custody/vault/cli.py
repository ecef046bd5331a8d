# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead seat init | serve | status | head | sign-roster | pin`. Nothing here prints or takes a private key."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule

if TYPE_CHECKING:
    from custody.rules.roster import RosterVersion
    from custody.rules.signatures import Signed
    from custody.vault.keyring import RemoteSeat

app = typer.Typer(
    name="seat",
    help="One key-holder: its identity, its wallet keys, its journal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a pretty traceback may show local variables, and this process has secrets in some
)

Name = Annotated[str, typer.Argument(help="The seat's id in the roster.")]
AppRole = Annotated[
    Path, typer.Option("--approle", help="File with url, role_id and secret_id of the seat's own OpenBao.")
]
Socket = Annotated[Path, typer.Option("--socket", help="The seat's unix socket.")]
Genesis = Annotated[
    str | None,
    typer.Option("--genesis", help="The one genesis that may be pinned, as you were told it: 0x and 64 hex digits."),
]


@app.command()
def init(name: Name, approle: AppRole) -> None:
    """Print the identity key that the seat's OpenBao made, for the roster."""
    from custody.vault.openbao import OpenBaoClient
    from custody.vault.storage import Identity

    key = Identity(OpenBaoClient.from_file(approle)).key
    _show({"seat": name, "identity": key.to_json()})


@app.command()
def serve(name: Name, approle: AppRole, socket: Socket, genesis: Genesis = None) -> None:
    """Host the seat on its socket until SIGTERM."""
    from custody.vault.host import serve_seat

    def ready() -> None:
        typer.echo(f"seat {name} answers on {socket}", err=True)

    serve_seat(name, approle, socket, genesis=_digest(genesis), ready=ready)


@app.command()
def status(name: Name, socket: Socket) -> None:
    """Show what the seat knows: roster, wallet keys (public), certificates, journal."""
    _show(_seat(name, socket).status())


@app.command()
def head(name: Name, socket: Socket) -> None:
    """Show the newest head of the seat's journal, signed."""
    _show(_seat(name, socket).head().to_json())


@app.command("sign-roster")
def sign_roster(name: Name, file: Path, socket: Socket) -> None:
    """Have the seat sign the roster version in FILE (signed or not) and print its signature."""
    _show(_seat(name, socket).sign_roster(_roster(file).message).to_json())


@app.command()
def pin(name: Name, file: Path, socket: Socket, genesis: Genesis = None) -> None:
    """Have the seat pin the genesis in FILE, signed by everybody that it names."""
    signed, told = _roster(file), _digest(genesis)
    found = signed.message.struct_hash
    if told is not None and told != found:
        raise Refused([Refusal(Rule.WRONG_GENESIS, got="0x" + found.hex(), want="0x" + told.hex())])
    _seat(name, socket).pin(signed)
    _show({"seat": name, "genesis": "0x" + found.hex()})


def _seat(name: str, socket: Path) -> "RemoteSeat":
    from custody.vault.keyring import RemoteSeat

    return RemoteSeat(name, socket)


def _roster(file: Path) -> "Signed[RosterVersion]":
    """A roster version from a file, with the signatures that stand beside it, if any."""
    from custody.rules.roster import RosterVersion
    from custody.rules.signatures import Signed

    try:
        body = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(file.name, Rule.MALFORMED, type(error).__name__, "a readable JSON file") from error
    if isinstance(body, dict) and "signatures" in body:
        return Signed.from_json(RosterVersion, body)
    return Signed(RosterVersion.from_json(body), ())


def _digest(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise InvalidInput("genesis", Rule.MALFORMED, repr(text), "0x and 64 hex digits")
    return found


def _show(body: object) -> None:
    typer.echo(json.dumps(body, indent=1))


if __name__ == "__main__":
    app()
