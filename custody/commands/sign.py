# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead sign FILE --key KEY`: a person reads what a document says, and signs exactly that."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, open_signer, out, read_hash, read_signed, write_json
from custody.rules.errors import InvalidInput
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Rule
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32, Domain, Struct
from custody.rules.words import lines

app = typer.Typer(help="Read a document in plain words and sign it with your own key.")


@app.command()
def sign(
    file: Annotated[
        Path, typer.Argument(help="A document: roster version, certificate, activation, settlement, manual entry.")
    ],
    key: Annotated[Path, typer.Option("--key", help="Your keystore, or a program's PEM file.")],
    password_file: Annotated[Path | None, typer.Option(help="Read the password from here instead of asking.")] = None,
    genesis: Annotated[str | None, typer.Option(help="Genesis in hex; the home's own if not given.")] = None,
    home_option: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you have read it.")] = False,
) -> None:
    """Show what would be signed, recompute its digest from the fields, ask, sign, and write the signature into the file."""
    signed = read_signed(file)
    _check_shown_whole(file, signed.message)
    domain = _domain(signed, genesis, home_option)
    for line in lines(signed.message):
        out.print(line, markup=False)
    out.print(f"\ngenesis  0x{domain.genesis.hex()}\ndigest   0x{domain.digest(signed.message).hex()}", markup=False)
    if not yes:
        typer.confirm("Sign exactly this?", abort=True)
    signature = open_signer(key, password_file).sign(domain.digest(signed.message))
    write_json(file, signed.joined([signature]).to_json())
    out.print(f"signed by {signature.key}", markup=False)


def _check_shown_whole(file: Path, message: Struct) -> None:
    """A bundle that follows another is signed where its difference is computed and shown: its hashes tell a person nothing."""
    if isinstance(message, PolicyActivation) and message.previous != ZERO32:
        got = "an activation of a bundle that follows another"
        raise InvalidInput(file.name, Rule.MALFORMED, got, f"bulkhead policy sign {file.name} NEW --key …")


def _domain(signed: Signed[Struct], genesis: str | None, home_option: str | None) -> Domain:
    if isinstance(signed.message, RosterVersion) and signed.message.version == 1:
        return Domain(signed.message.struct_hash)  # version 1 is its own salt
    if genesis is not None:
        return Domain(read_hash(genesis, "genesis"))
    from custody.bootstrap import read_genesis

    return Domain(read_genesis(home(home_option)))
