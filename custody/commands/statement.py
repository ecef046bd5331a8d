# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead statement make | verify FILE`."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, out, read_hash, read_json, read_signed_as, say_json
from custody.rules.refusals import raise_if
from custody.rules.roster import Roster, RosterVersion
from custody.rules.signatures import Signed
from custody.rules.statements import Statement

app = typer.Typer(help="The attestor's signed statement: make one, or verify one offline.", no_args_is_help=True)


@app.command("make")
def make(home_option: Home = None) -> None:
    """Ask the attestor for a statement and print it; redirect it into a file to hand it on."""
    from custody.bootstrap import open_deployment
    from custody.parts import attestor

    say_json(attestor(open_deployment(home(home_option), read_only=True).settings).statement().to_json())


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="A statement.")],
    roster: Annotated[
        Path | None, typer.Option(help="The roster document; the home's own mirror if not given.")
    ] = None,
    genesis: Annotated[
        str | None, typer.Option(help="Genesis in hex, from a source you trust; the home's if not given.")
    ] = None,
    home_option: Home = None,
) -> None:
    """Check one with no network: the attestor's signature under genesis, and law 2's arithmetic for every asset."""
    from custody.attestor import verify_statement

    signed = read_signed_as(file, Statement)
    raise_if(verify_statement(signed, _roster(roster, genesis, home_option)))
    for row in signed.message.coverage:
        owed = row.available + row.held + row.suspense
        out.print(
            f"{row.asset}: reserves {row.reserves} cover {owed} owed and {row.in_flight} in flight (base units)",
            markup=False,
        )
    out.print(
        f"holds: statement {signed.message.sequence}, ledger position {signed.message.ledger_position}", markup=False
    )


def _roster(file: Path | None, genesis: str | None, home_option: str | None) -> Roster:
    from custody.bootstrap import open_deployment, read_genesis, wall_clock
    from custody.flows.mirror import roster_from

    if file is None:
        return open_deployment(home(home_option), read_only=True).roster
    trusted = read_hash(genesis, "genesis") if genesis else read_genesis(home(home_option))
    document = read_json(file)
    Signed.from_json(RosterVersion, document)
    return roster_from([document], trusted, wall_clock())
