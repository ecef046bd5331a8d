# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead seat pack | init | upgrade | rotate | serve | status | head | journal | sign-roster | pin | admit-policy | sign | …`.

Nothing here prints or takes a private key. Cold seats are asked the same way inside a ceremony: files in, files out.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule
from custody.vault.engine import cli as operating

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

operating.add(app)

Name = Annotated[str, typer.Argument(help="The seat's id in the roster.")]
AppRole = Annotated[
    Path, typer.Option("--approle", help="File with url, role_id and secret_id of the seat's own OpenBao.")
]
Socket = Annotated[Path, typer.Option("--socket", help="The seat's unix socket.")]
At = Annotated[
    Path,
    typer.Option(
        "--at",
        "--socket",
        "--approle",
        help="Where the seat is: its process's socket, or the AppRole file of its engine's clients.",
    ),
]
Genesis = Annotated[
    str | None,
    typer.Option("--genesis", help="The one genesis that may be pinned, as you were told it: 0x and 64 hex digits."),
]


@app.command()
def serve(name: Name, approle: AppRole, socket: Socket, genesis: Genesis = None) -> None:
    """Host the seat on its socket until SIGTERM."""
    from custody.seating import read_bundle, terms
    from custody.vault.host import serve_seat

    def ready() -> None:
        typer.echo(f"seat {name} answers on {socket}", err=True)

    serve_seat(name, approle, socket, read_bundle=read_bundle, terms=terms, genesis=_digest(genesis), ready=ready)


@app.command()
def status(name: Name, at: At) -> None:
    """Show what the seat knows: roster, wallet keys (public), certificates, journal."""
    _show(_seat(name, at).status())


@app.command()
def head(name: Name, at: At) -> None:
    """Show the newest head of the seat's journal, signed."""
    _show(_seat(name, at).head().to_json())


@app.command("sign-roster")
def sign_roster(name: Name, file: Path, at: At) -> None:
    """Have the seat sign the roster version in FILE (signed or not) and print its signature."""
    _show(_seat(name, at).sign_roster(_roster(file).message).to_json())


@app.command()
def pin(name: Name, file: Path, at: At, genesis: Genesis = None) -> None:
    """Have the seat pin the genesis in FILE, signed by everybody that it names."""
    signed, told = _roster(file), _digest(genesis)
    found = signed.message.struct_hash
    if told is not None and told != found:
        raise Refused([Refusal(Rule.WRONG_GENESIS, got="0x" + found.hex(), want="0x" + told.hex())])
    _seat(name, at).pin(signed)
    _show({"seat": name, "genesis": "0x" + found.hex()})


@app.command("admit-policy")
def admit_policy(
    name: Name,
    activation: Annotated[Path, typer.Argument(help="The activation, signed by its owners.")],
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder, or the file that `policy bundle` wrote.")],
    at: At,
    statement: Annotated[
        Path | None,
        typer.Option(help="A statement, which tells a devnet's time; elsewhere the seat's own clock counts."),
    ] = None,
) -> None:
    """Have the seat put a policy bundle in force; it hashes and judges it by itself. Prints the journal's new head.

    A bundle that follows another is noted at one ceremony and taken at the next, once the delay is over; the refusal says from when.
    """
    from custody.rules.governance import PolicyActivation
    from custody.rules.signatures import Signed
    from custody.rules.statements import Statement
    from custody.seating import documents_of

    documents = documents_of(bundle) if bundle.is_dir() else _read(bundle)
    if not isinstance(documents, dict):
        raise InvalidInput(bundle.name, Rule.MALFORMED, type(documents).__name__, "a bundle's documents")
    told = None if statement is None else Signed.from_json(Statement, _read(statement))
    signed = Signed.from_json(PolicyActivation, _read(activation))
    _show(_seat(name, at).admit_policy(signed, documents, told).to_json())


@app.command()
def sign(
    name: Name,
    request: Annotated[Path, typer.Argument(help="The request: payload, intents, approvals, statement, in JSON.")],
    at: At,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write the signatures; printed if not given.")
    ] = None,
) -> None:
    """Have the seat decide on REQUEST by itself and sign it. Ask again after a failure: the same request, the same answer."""
    from custody.rules.seat_request import Request

    signed = _seat(name, at).sign(Request.from_json(_read(request))).to_json()
    if out is None:
        _show(signed)
        return
    fresh = out.with_name(out.name + ".fresh")
    fresh.write_text(json.dumps(signed, indent=1) + "\n", encoding="ascii")
    fresh.replace(out)
    typer.echo(f"seat {name} signed; signatures in {out}", err=True)


@app.command()
def freeze(name: Name, file: Path, at: At) -> None:
    """Carry the signed freeze in FILE to the seat and print the journal's new head."""
    from custody.rules.governance import Freeze
    from custody.rules.signatures import Signed

    _show(_seat(name, at).freeze(Signed.from_json(Freeze, _read(file))).to_json())


@app.command()
def unfreeze(name: Name, file: Path, at: At) -> None:
    """Carry the signed unfreeze in FILE to the seat and print the journal's new head."""
    from custody.rules.governance import Unfreeze
    from custody.rules.signatures import Signed

    _show(_seat(name, at).unfreeze(Signed.from_json(Unfreeze, _read(file))).to_json())


@app.command()
def journal(
    name: Name,
    at: At,
    after: Annotated[int, typer.Option(min=0, help="Only lines behind this position.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many lines.")] = 100,
) -> None:
    """Show the seat's journal: its signed head, and each line with what was recorded."""
    found, lines = _seat(name, at).journal(after, limit)
    _show({"head": found.to_json(), "lines": [line.to_json() for line in lines]})


def _seat(name: str, at: Path) -> "RemoteSeat":
    """By its socket, or by an AppRole file, which is a plain file: then it lives in an engine."""
    from custody.vault.engine_client import EngineClient
    from custody.vault.keyring import RemoteSeat

    return RemoteSeat(name, EngineClient(name, at) if at.is_file() else at)


def _roster(file: Path) -> "Signed[RosterVersion]":
    """A roster version from a file, with the signatures that stand beside it, if any."""
    from custody.rules.roster import RosterVersion
    from custody.rules.signatures import Signed

    body = _read(file)
    if isinstance(body, dict) and "signatures" in body:
        return Signed.from_json(RosterVersion, body)
    return Signed(RosterVersion.from_json(body), ())


def _read(file: Path) -> object:
    from custody.rules.json_text import read_json

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(file.name, Rule.MALFORMED, type(error).__name__, "a readable JSON file") from error
    return read_json(text, file.name)


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
