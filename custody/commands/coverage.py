# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead coverage`: per asset, what is held against what is owed, at one final height per chain (DESIGN.md, law 2)."""

from typing import Annotated

import typer
from rich.table import Table

from custody.commands.common import AsJson, Home, home, out, say_json
from custody.rules.amounts import Amount, Assets
from custody.rules.coverage import check, surplus
from custody.rules.statements import Statement

app = typer.Typer(
    help="Reserves, liabilities, in flight and surplus per asset, from a fresh statement of the attestor."
)


@app.callback(invoke_without_command=True)
def coverage(
    check_option: Annotated[
        bool, typer.Option("--check", help="Exit 1 where any asset is below zero or unknown.")
    ] = False,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """Ask the attestor, verify what it signed, and show it."""
    from custody.attestor import verify_signature  # noqa: PLC0415
    from custody.bootstrap import open_deployment  # noqa: PLC0415
    from custody.parts import attestor  # noqa: PLC0415
    from custody.rules.refusals import raise_if  # noqa: PLC0415

    deployment = open_deployment(home(home_option), read_only=True)
    assets = deployment.bundle.assets
    signed = attestor(deployment.settings).statement()
    raise_if(verify_signature(signed, deployment.roster))
    refusals = list(check(signed.message.coverage, [asset.symbol for asset in assets]))
    if as_json:
        say_json({"statement": signed.to_json(), "refusals": [str(r) for r in refusals]})
    else:
        show(signed.message, assets)
    if check_option:
        raise_if(refusals)


def show(statement: Statement, assets: Assets) -> None:
    """The table a person reads, with the blocks that everything refers to."""
    table = Table(title=f"Coverage by statement {statement.sequence}, ledger position {statement.ledger_position}")
    columns = (
        "asset",
        "reserves",
        "on chain",
        "in ledger",
        "available",
        "held",
        "suspense",
        "in flight",
        "accrued fees",
        "surplus",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "asset" else "right")
    for row in statement.coverage:
        asset = assets.get(row.asset)
        units = (
            row.reserves,
            row.on_chain,
            row.in_ledger,
            row.available,
            row.held,
            row.suspense,
            row.in_flight,
            row.accrued_fees,
        )
        table.add_row(row.asset, *(Amount(asset, u).decimal for u in units), Amount(asset, surplus(row)).decimal)
    out.print(table)
    for height in statement.heights:
        out.print(f"{height.chain} at final block {height.height} 0x{height.hash.hex()}", markup=False)
