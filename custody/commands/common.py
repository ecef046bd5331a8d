# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every sub-command shares: the home option, reading and writing signed documents, printing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer
from rich.console import Console

from custody.rules import json_text
from custody.rules.certificates import Rotation, WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.intents import Void
from custody.rules.refusals import Rule
from custody.rules.roster import RosterVersion
from custody.rules.settlements import ManualEntry, Settlement
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.typed import Struct
from custody.settings import home_folder

if TYPE_CHECKING:
    from custody.keyfiles import Signer

Kind = TypeVar("Kind", bound=Struct)

Home = Annotated[
    str | None, typer.Option("--home", help="The deployment's folder; BULKHEAD_HOME or ./.bulkhead if not given.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]

out: Final = Console(soft_wrap=True, highlight=False)

KINDS: Final[dict[str, type[Struct]]] = {
    kind.__name__: kind
    for kind in (
        RosterVersion,
        WalletCertificate,
        Rotation,
        PolicyActivation,
        Settlement,
        ManualEntry,
        Freeze,
        Unfreeze,
        Void,
        Statement,
    )
}
"""Documents that travel as files."""


def home(given: str | None) -> Path:
    """The home folder that a command works in."""
    return home_folder(given)


def read_json(path: Path) -> Any:  # noqa: ANN401  # JSON as it came; every caller parses it into a typed message next
    """Read a JSON file; raises InvalidInput naming the file and the place."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(path.name, Rule.MALFORMED, str(error.strerror), "a readable file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(path.name, Rule.MALFORMED, "bytes that are no UTF-8", "JSON") from error
    return json_text.read_json(text, path.name)


def read_signed(path: Path) -> Signed[Struct]:
    """Read a signed document of any kind that travels as a file."""
    data = read_json(path)
    kind = KINDS.get(data.get("type", "")) if isinstance(data, dict) else None
    if kind is None:
        raise InvalidInput(f"{path.name}.type", Rule.MALFORMED, "no known type", "one of " + ", ".join(KINDS))
    return Signed.from_json(kind, data)


def read_signed_as(path: Path, kind: type[Kind]) -> Signed[Kind]:
    """Read a signed document of one kind. Raises InvalidInput naming the file, the kind that it holds and the one wanted."""
    found = read_signed(path)
    if not isinstance(found.message, kind):
        raise InvalidInput(path.name, Rule.MALFORMED, type(found.message).__name__, f"a signed {kind.__name__}")
    return Signed(found.message, found.signatures)


def read_hash(text: str, field: str) -> bytes:
    """32 bytes that a person typed in hex, with or without 0x. Raises InvalidInput naming the field."""
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise InvalidInput(field, Rule.MALFORMED, repr(text[:80]), "64 hex digits, with or without 0x")
    return raw


def write_json(path: Path, body: object) -> None:
    """Write a JSON file atomically."""
    fresh = path.with_name(path.name + ".fresh")
    fresh.write_text(json.dumps(body, indent=1) + "\n", encoding="ascii")
    fresh.replace(path)


def read_password(file: Path | None) -> str:
    """A key file's password: from a file where one is named, else asked for on the terminal."""
    if file is None:
        answer: str = typer.prompt("Password", hide_input=True, err=True)
        return answer
    return file.read_text(encoding="utf-8").rstrip("\n")


def open_signer(key: Path, password_file: Path | None) -> "Signer":
    """A person's keystore or a program's PEM file, opened with its password."""
    from custody.keyfiles import open_key  # the key libraries load only here

    return open_key(key, read_password(password_file))


def say_json(body: object) -> None:
    """Print JSON on standard output, undecorated."""
    typer.echo(json.dumps(body, indent=1))
