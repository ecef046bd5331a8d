# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead coverage`: per asset, what is held against what is owed, at one final height per chain (DESIGN.md, law 2)."""

from typing import Annotated

import typer

from custody.commands.common import AsJson, Home, home, out, say_json
from custody.rules.amounts import Amount, Assets
from custody.rules.coverage import surplus
from custody.rules.statements import AssetCoverage, Statement

app = typer.Typer(
    help="Reserves, liabilities, in flight and surplus per asset, from a fresh statement of the attestor."
)


@app.command()
def coverage(
    check_option: Annotated[
        bool,
        typer.Option("--check", help="Exit 1 where an asset is below zero or unknown, or a Safe is not as certified."),
    ] = False,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """Ask the attestor, verify what it signed, and show it."""
    from custody.attestor import verify_signature, verify_statement
    from custody.bootstrap import open_deployment
    from custody.parts import attestor
    from custody.rules.refusals import raise_if

    deployment = open_deployment(home(home_option), read_only=True)
    assets = deployment.bundle.assets
    signed = attestor(deployment.settings).statement()
    raise_if(verify_signature(signed, deployment.roster))
    newest = [(name, line[-1].message) for name, line in deployment.wallets().items()]
    refusals = verify_statement(signed, deployment.roster, [asset.symbol for asset in assets], newest)
    if as_json:
        say_json({"statement": signed.to_json(), "refusals": [str(r) for r in refusals]})
    else:
        show(signed.message, assets)
    for refusal in refusals:
        out.print(f"refused: {refusal}", markup=False)
    if check_option and refusals:
        raise typer.Exit(1)


def show(statement: Statement, assets: Assets) -> None:
    """What a person reads: every number whole, and the blocks that everything refers to."""
    out.print(
        f"coverage by statement {statement.sequence} at ledger position {statement.ledger_position}", markup=False
    )
    for height in statement.heights:
        out.print(f"  {height.chain} at final block {height.height} 0x{height.hash.hex()}", markup=False)
    for row in statement.coverage:
        asset = assets.get(row.asset)
        told = {name: Amount(asset, units).decimal for name, units in row_numbers(row).items()}
        width = max(len(number) for number in told.values())
        out.print(f"{row.asset}", markup=False)
        for name, number in told.items():
            out.print(f"  {name:20} {number:>{width}}", markup=False)


def row_numbers(row: AssetCoverage) -> dict[str, int]:
    """The arithmetic of law 2 in the order in which it is done; base units."""
    return {
        "on chain": row.on_chain,
        "in ledger": row.in_ledger,
        "reserves (lesser)": row.reserves,
        "- available": row.available,
        "- held": row.held,
        "- suspense": row.suspense,
        "- in flight": row.in_flight,
        "= surplus": surplus(row),
        "accrued fees": row.accrued_fees,
        "of which matured": row.matured_fees,
    }
