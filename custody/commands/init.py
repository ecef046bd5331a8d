# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead init ROSTER`: a deployment is born once everybody named has signed version 1."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, out, read_signed_as, write_json
from custody.rules.refusals import raise_if
from custody.rules.roster import RosterVersion, check_version, named_keys
from custody.rules.signatures import Signed
from custody.rules.typed import Domain

app = typer.Typer(help="Give birth to a deployment: everybody named signs roster version 1, every part pins it.")


@app.command()
def init(
    roster: Annotated[
        Path, typer.Argument(help="Version 1 with people's signatures (bulkhead roster draft, bulkhead sign).")
    ],
    home_option: Home = None,
) -> None:
    """Let seats, attestor and relayer sign, check that nobody is missing, pin it everywhere, and write down genesis."""
    from custody.bootstrap import GENESIS, wall_clock
    from custody.flows.birth import Part, found, machines_sign
    from custody.parts import attestor, ledger_before_birth, relayer, seats
    from custody.settings import Settings

    signed = read_signed_as(roster, RosterVersion)
    folder = home(home_option)
    settings = Settings.load(folder)
    parts: list[Part] = [*seats(settings).values(), attestor(settings), relayer(settings)]
    complete = machines_sign(signed, parts)
    write_json(roster, complete.to_json())
    born = found(ledger_before_birth(settings), complete, parts, wall_clock())
    (folder / GENESIS).write_text(f"0x{born.domain.genesis.hex()}\n", encoding="ascii")
    out.print(f"born. genesis 0x{born.domain.genesis.hex()}", markup=False)
    out.print(f"signed by all {len(named_keys(complete.message))} named; pinned by {len(parts)} parts", markup=False)


roster_app = typer.Typer(help="Roster versions: draft, show who signed.")


@roster_app.command("draft")
def draft(
    source: Annotated[Path, typer.Argument(help="The version's fields in JSON.")],
    target: Annotated[Path, typer.Argument(help="Where to write the document that people sign.")],
) -> None:
    """Check that a version is whole in itself and write it as a document without signatures."""
    from custody.commands.common import read_json

    version = RosterVersion.from_json(read_json(source), "roster")
    raise_if(check_version(version))
    write_json(target, Signed(version, ()).to_json())
    out.print(
        f"struct hash 0x{version.struct_hash.hex()}" + (" = genesis" if version.version == 1 else ""), markup=False
    )


@roster_app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A roster document.")]) -> None:
    """Who is named, and who has signed so far (version 1)."""
    signed = read_signed_as(file, RosterVersion)
    signers = signed.signers(Domain(signed.message.struct_hash))
    for name, keys in named_keys(signed.message).items():
        out.print(f"{'signed ' if signers & set(keys) else 'missing'}  {name}", markup=False)
