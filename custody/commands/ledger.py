# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead ledger verify | entries | settle | manual | suspense | grant-reader`."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import AsJson, Home, home, out, read_signed_as, say_json
from custody.rules.settlements import ManualEntry, Settlement

app = typer.Typer(
    help="The journal: verify it to its origins, list entries, record signed settlements.", no_args_is_help=True
)


@app.command("verify")
def verify(home_option: Home = None, as_json: AsJson = False) -> None:
    """Recompute everything: hash chain, sums, balances, each origin at its chain or its signers. Exit 1 on a finding."""
    from custody.auditing import audit
    from custody.bootstrap import open_deployment

    deployment = open_deployment(home(home_option), read_only=True)
    findings = audit(deployment)
    head = deployment.store.read(lambda work: work.journal.head())
    if as_json:
        found = [{"position": f.position, "rule": str(f.refusal.rule), "detail": str(f.refusal)} for f in findings]
        say_json({"position": head.position, "head": head.hash.hex(), "findings": found})
    else:
        for finding in findings:
            where = f"position {finding.position}" if finding.position is not None else "ledger"
            out.print(f"{where}: {finding.refusal}", markup=False)
        verdict = "holds" if not findings else f"{len(findings)} findings"
        out.print(f"{verdict}: {head.position} entries, head 0x{head.hash.hex()}", markup=False)
    if findings:
        raise typer.Exit(1)


@app.command("entries")
def entries(
    after: Annotated[int, typer.Option(help="Only positions above this one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """List journal entries with what made each true."""
    from custody.bootstrap import open_deployment
    from custody.rules.ledger import entry_to_json

    deployment = open_deployment(home(home_option), read_only=True)
    found = deployment.store.read(lambda work: work.journal.read(after, limit))
    if as_json:
        say_json(
            [
                {"position": e.position, "recorded_at": e.recorded_at, "hash": e.hash.hex(), **entry_to_json(e.entry)}
                for e in found
            ]
        )
        return
    for recorded in found:
        origin = entry_to_json(recorded.entry)["origin"]
        out.print(f"{recorded.position}  {origin['type']}  0x{recorded.hash.hex()}", markup=False)
        for posting in recorded.entry.postings:
            out.print(f"     {posting.side:6} {posting.account}  {posting.amount}", markup=False)


@app.command("settle")
def settle(file: Annotated[Path, typer.Argument(help="A signed Settlement.")], home_option: Home = None) -> None:
    """Record a settlement of trades: all of it or nothing."""
    from custody.bootstrap import open_deployment, wall_clock
    from custody.flows.bookkeeping import record_settlement

    signed = read_signed_as(file, Settlement)
    deployment = open_deployment(home(home_option))
    _ = deployment.activated
    recorded = record_settlement(
        deployment.store,
        deployment.roster,
        signed,
        deployment.bundle.fees,
        deployment.bundle.assets,
        wall_clock(),
    )
    out.print(f"recorded at position {recorded.position}", markup=False)


@app.command("manual")
def manual(
    file: Annotated[Path, typer.Argument(help="A ManualEntry with its signatures.")], home_option: Home = None
) -> None:
    """Record an entry that two people signed."""
    from custody.bootstrap import open_deployment, wall_clock
    from custody.flows.bookkeeping import record_manual

    signed = read_signed_as(file, ManualEntry)
    deployment = open_deployment(home(home_option))
    recorded = record_manual(deployment.store, deployment.roster, signed, deployment.bundle.assets, wall_clock())
    out.print(f"recorded at position {recorded.position}", markup=False)


@app.command("suspense")
def suspense(home_option: Home = None, as_json: AsJson = False) -> None:
    """List what arrived and is owed to nobody yet: the account that a manual entry names, and what its event has left."""
    from custody.bootstrap import open_deployment
    from custody.rules.ledger import AccountKind

    deployment = open_deployment(home(home_option), read_only=True)
    balances = deployment.store.read(lambda work: list(work.journal.balances()))
    found = [(str(account), asset, units) for account, asset, units in balances if account.kind is AccountKind.SUSPENSE]
    if as_json:
        say_json([{"account": a, "asset": asset.symbol, "base_units": str(units)} for a, asset, units in found])
        return
    for account, asset, units in found:
        out.print(f"{account}  {units} {asset.symbol}", markup=False)
    out.print(f"{len(found)} events; what a payout brings back is listed until its own entry takes it", markup=False)


@app.command("grant-reader")
def grant_reader(
    role: Annotated[str, typer.Argument(help="The database role that the attestor will log in as.")],
    home_option: Home = None,
) -> None:
    """Leave a PostgreSQL role with SELECT on the ledger and nothing else, for the attestor; made where there is none.

    Run as the database's owner. How the role logs in stays the operator's to say. SQLite has no roles: there the attestor opens the
    file read-only by itself.
    """
    from custody.settings import Settings
    from custody.store import grant_reader as grant

    settings = Settings.load(home(home_option))
    grant(settings.database, role)
    out.print(f"{role} may read the ledger and change nothing", markup=False)
    if not settings.attestor_database:
        out.print('name its login in bulkhead.json: "attestor_database"', markup=False)
