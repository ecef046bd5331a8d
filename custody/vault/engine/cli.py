# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead seat pack | init | upgrade | rotate`: what a seat's own operator does to the seat's own server.

Each takes a token of the operator's for the length of a command, out of a file, and never stores it. One server at a time: that a
seat runs other code than before is every operator's own decision.
"""

import json
import os
import stat
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

if TYPE_CHECKING:
    from custody.vault.provisioning import Program

Name = Annotated[str, typer.Argument(help="The seat's id in the roster.")]
AppRole = Annotated[
    Path, typer.Option("--approle", help="File with url, role_id and secret_id; `init` with a token writes it.")
]
Url = Annotated[str, typer.Option("--url", help="The seat's own OpenBao: https, or http on loopback.")]
TokenFile = Annotated[
    Path,
    typer.Option(
        "--token-file", help="A token that may change plugins, mounts and roles; its owner alone reads the file."
    ),
]
Plugins = Annotated[
    Path, typer.Option("--plugins", help="The server's plugin_directory, as this account can write it.")
]
File = Annotated[
    Path | None, typer.Option("--file", help="A packed engine; packed from this installation if not given.")
]
Genesis = Annotated[
    str | None, typer.Option("--genesis", help="The one genesis that may be pinned: 0x and 64 hex digits.")
]


def add(app: typer.Typer) -> None:
    """Enter the commands."""
    for command in (pack, init, upgrade, rotate):
        app.command()(command)


def pack(out: Annotated[Path, typer.Argument(help="The folder to write the file into.")]) -> None:
    """Pack the engine of this installation into one file and print its sha256. The same installation gives the same bytes."""
    program = _packed(None, out)
    _show({"file": str(out / program.command), "sha256": program.sha256})


def init(
    name: Name,
    approle: AppRole,
    url: Annotated[
        str | None, typer.Option("--url", help="The seat's own OpenBao: https, or http on loopback.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="A token that may change plugins, mounts and roles; its owner alone reads the file."
        ),
    ] = None,
    plugins: Annotated[Path | None, typer.Option("--plugins", help="The server's plugin_directory.")] = None,
    file: File = None,
    genesis: Genesis = None,
) -> None:
    """Make a seat inside its OpenBao and print its identity key, for the roster.

    With a token: registers and mounts the engine, and writes the AppRole file of its clients. Without one: the identity of a seat
    that a process hosts (`serve`), from the transit key that its server has.
    """
    if token_file is None:
        _show_hosted(name, approle)
        return
    from custody.vault.engine_client import MOUNT, EngineClient
    from custody.vault.keyring import RemoteSeat
    from custody.vault.provisioning import Operator

    if url is None or plugins is None:
        raise InvalidInput("init", Rule.MALFORMED, "a token alone", "--url and --plugins with it")
    operator = Operator.at(_checked(url), _token(token_file))
    operator.check_audited()
    program = _packed(file, plugins)
    operator.register(program)
    operator.mount(name, MOUNT, genesis)
    _write_private(approle, operator.grant() | {"url": url})
    seat = RemoteSeat(name, EngineClient(name, approle))
    operator.wait(seat.identity)
    _show(
        {"seat": name, "identity": seat.identity().to_json(), "engine": seat.status()["host"], "approle": str(approle)}
    )
    typer.echo(
        "Revoke the token that made this now: bao token revoke -self. Nothing that runs needs one, and whoever has it owns the seat.",
        err=True,
    )


def upgrade(name: Name, approle: AppRole, url: Url, token_file: TokenFile, plugins: Plugins, file: File = None) -> None:
    """Put another packed engine in this seat's place; keys and journal stay where they are. Prints what was and what is.

    The seat has to answer from the new file with the head that it had; if it does not, the old file is registered again.
    """
    from custody.vault.engine_client import EngineClient
    from custody.vault.keyring import RemoteSeat
    from custody.vault.provisioning import Operator, upgrade_seat

    operator = Operator.at(_checked(url), _token(token_file))
    seat = RemoteSeat(name, EngineClient(name, approle))
    before, after = upgrade_seat(operator, seat, _packed(file, plugins))
    _show({"seat": name, "was": before, "is": after})


def rotate(name: Name, approle: AppRole, url: Url, token_file: TokenFile) -> None:
    """Give the seat's clients a new secret_id and end every other; keys are not touched (those rotate by certificate)."""
    from custody.vault.engine_client import EngineClient
    from custody.vault.keyring import RemoteSeat
    from custody.vault.provisioning import Operator

    operator = Operator.at(_checked(url), _token(token_file))
    _write_private(approle, operator.rotate() | {"url": url})
    _show({"seat": name, "identity": RemoteSeat(name, EngineClient(name, approle)).identity().to_json()})


def _show_hosted(name: str, approle: Path) -> None:
    from custody.vault.openbao import OpenBaoClient
    from custody.vault.storage import Identity

    _show({"seat": name, "identity": Identity(OpenBaoClient.from_file(approle)).key.to_json()})


def _packed(file: Path | None, plugins: Path) -> "Program":
    """The engine in the plugin directory, under a name with its hash in it: the one that runs stays beside it until it is not needed."""
    import custody
    from custody.vault.engine.packing import NAME, Packed
    from custody.vault.engine.packing import pack as make
    from custody.vault.provisioning import Program

    if file is not None:
        made = Packed(file.read_bytes())
    else:
        made = make(Path(custody.__file__).parent.parent, Path(sysconfig.get_path("purelib")), Path(sys.executable))
    command = f"{NAME}-{made.sha256[:12]}"
    made.write(plugins, command)
    return Program(command, made.sha256)


def _checked(url: str) -> str:
    from custody.vault.approle import check_url

    return check_url(url)


def _token(file: Path) -> str:
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("token file", Rule.MALFORMED, type(error).__name__, "a readable file") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput("token file", Rule.MALFORMED, stat.filemode(mode), "a file that only its owner can read")
    return text


def _write_private(path: Path, body: object) -> None:
    fresh = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        json.dump(body, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _show(body: object) -> None:
    typer.echo(json.dumps(body, indent=1))
