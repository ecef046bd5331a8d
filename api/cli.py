# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead api serve | propose`."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.settings import home_folder

if TYPE_CHECKING:
    from api.client import ApiClient, Json

app = typer.Typer(help="The REST API.", no_args_is_help=True)
_DAY = 86_400
CONNECTIONS_MOST = 4096
"""Beyond these the server answers a bare 503 to everybody, those it already has included, and the gate's 429 is never reached: so it
is far above `gate.WRITES_MOST`, and only keeps a flood of connections from taking all descriptors and memory."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.callback()
def api() -> None:
    """The REST API."""


@app.command("serve")
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8480,
    host: Annotated[str, typer.Option(help="Address; loopback, behind whatever ends TLS.")] = "127.0.0.1",
    home: Annotated[
        str | None, typer.Option("--home", help="The deployment's folder; BULKHEAD_HOME or ./.bulkhead if not given.")
    ] = None,
) -> None:
    """Serve until stopped. One process: the window of seen requests is its memory (docs/api.md)."""
    import uvicorn

    from api.app import create_app
    from api.compose import open_parts

    if host not in _LOOPBACK:
        raise InvalidInput("host", Rule.MALFORMED, host, "a loopback address; a proxy in front ends TLS")
    application = create_app(open_parts(home_folder(home)))
    uvicorn.run(
        application,
        host=host,
        port=port,
        ws="none",
        proxy_headers=False,  # a header of anybody's would change the scheme that signatures are checked against
        server_header=False,
        access_log=False,
        log_level="warning",
        h11_max_incomplete_event_size=32 * 1024,
        limit_concurrency=CONNECTIONS_MOST,
        timeout_keep_alive=30,
    )


@app.command("propose")
def propose(
    account: Annotated[str, typer.Argument(help="Whose coins: `customer:ID` or `company`.")],
    amount: Annotated[str, typer.Argument(help="In the asset's own unit.")],
    asset: Annotated[str, typer.Argument(help="The asset's symbol; it names the chain too.")],
    destination: Annotated[str, typer.Argument(help="An enrolled address, or a wallet of ours.")],
    key: Annotated[Path, typer.Option("--key", help="The client's PEM file: it signs the proposal and the request.")],
    client: Annotated[str, typer.Option(help="The client's id in the roster.")] = "backend",
    purpose: Annotated[str, typer.Option(help="Why coins move.")] = "withdrawal",
    reference: Annotated[
        str | None,
        typer.Option(help="Yours, and the Idempotency-Key: the same again on that day is the same transfer. [new]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what policy answers; record nothing.")] = False,
    days: Annotated[int, typer.Option(min=1, max=30, help="For how long it stands.")] = 7,
    url: Annotated[str, typer.Option(envvar="BULKHEAD_API", help="Where the API is.")] = "http://127.0.0.1:8480",
    password_file: Annotated[Path | None, typer.Option(help="Read the password from here instead of asking.")] = None,
    home: Annotated[str | None, typer.Option("--home", help="Where genesis and the asset registry are.")] = None,
) -> None:
    """Sign a proposal as an API client and send it; its id alone goes to standard output, where it stands to the other."""
    from api.client import ApiClient
    from custody.commands.common import read_password
    from custody.composing import read_genesis
    from custody.keyfiles import Ed25519Signer, open_pem
    from custody.rules.amounts import Amount
    from custody.rules.intents import Proposal
    from custody.rules.typed import Domain
    from custody.settings import Settings
    from policies.bundle import load

    folder, password = home_folder(home), read_password(password_file)
    private, domain = open_pem(key, password), Domain(read_genesis(folder))
    moved = Amount.parse(load(Path(Settings.load(folder).bundle)).assets.get(asset), amount)
    api, name = ApiClient(url, client, private, domain), reference or f"by-hand-{secrets.token_hex(6)}"
    until = (_time(api) // _DAY + days + 1) * _DAY  # midnight: what is repeated on the same day is the same proposal
    chain = moved.asset.chain.name
    proposal = Proposal(name, account, chain, asset, moved.units, destination, purpose, until)
    signer = Ed25519Signer(private)
    if dry_run:
        _tell_decision(api.dry_run(proposal, moved, signer))
        return
    found = api.propose(proposal, moved, signer, name)
    why = f", {found['sub_status']}" if found["sub_status"] else ""
    typer.echo(f"{found['status']}{why}; waits for {found['waiting_for'] or 'the worker'}", err=True)
    typer.echo(found["id"])
    if found["status"] == "BLOCKED":
        raise typer.Exit(1)  # recorded with what denied it, and going nowhere


def _time(api: "ApiClient") -> int:
    """The statement's, which on a devnet may be days ahead of this machine; this machine's where the key may not read it."""
    from custody.composing import wall_clock
    from custody.rules.refusals import Refused

    try:
        return api.statement().message.time
    except Refused:
        return wall_clock()


def _tell_decision(told: "Json") -> None:
    """What a dry run answers: the outcome, what is asked for, and each rule's first unmet condition."""
    outcome = told["decision"]["outcome"]
    typer.echo({"AUTOMATIC": "AUTOMATIC: nobody is asked", "DENY": "DENY"}.get(outcome, f"{outcome} {told['asks']}"))
    for unmet in told["decision"]["unmet"]:
        typer.echo(f"  {unmet['rule']} ({unmet['part']}): not {unmet['condition']}")
    for refusal in told["refusals"]:
        typer.echo(f"  refused: {refusal['rule']} {refusal['operands']}")
