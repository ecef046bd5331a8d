# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead customer add | address | enrol | list`."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import AsJson, Home, home, open_signer, out, say_json
from custody.rules.wallets import Chain

app = typer.Typer(help="Customers, their deposit addresses and what they are owed.", no_args_is_help=True)


@app.command("add")
def add(customer: Annotated[str, typer.Argument(help="The customer's id.")], home_option: Home = None) -> None:
    """Record a customer. It owns nothing until coins of theirs are final on a chain."""
    from custody.bootstrap import open_deployment
    from custody.flows.customers import add_customer

    add_customer(open_deployment(home(home_option)).store, customer)
    out.print(f"added {customer}", markup=False)


@app.command("address")
def address(
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    chain: Annotated[str, typer.Argument(help="The chain's CAIP-2 name.")],
    home_option: Home = None,
    as_json: AsJson = False,
) -> None:
    """The customer's deposit address: bound by the attestor, derived here again from the wallet's certificate."""
    from custody.bootstrap import open_deployment
    from custody.chains.addresses import ChainDeriver
    from custody.flows.customers import issue_address
    from custody.parts import attestor

    deployment = open_deployment(home(home_option))
    wallet, word = deployment.hot_wallet(Chain(chain)), attestor(deployment.settings)
    signed = issue_address(deployment.store, word, deployment.roster, wallet, customer, ChainDeriver())
    if as_json:
        say_json(signed.to_json())
    else:
        out.print(signed.message.address, markup=False)


@app.command("enrol")
def enrol(
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    chain: Annotated[str, typer.Argument(help="The chain's CAIP-2 name.")],
    place: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where the customer may withdraw to.")],
    key: Annotated[Path, typer.Option("--key", help="An address authority's keystore.")],
    password_file: Annotated[Path | None, typer.Option(help="Read the password from here instead of asking.")] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(help="What proves that it is theirs; its SHA-256 is signed, zeros where there is none."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="For how long.")] = 365,
    home_option: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: you have read it.")] = False,
) -> None:
    """Show what would be signed, ask, sign, and record it; it ages from the attestor's first sight (cooling-off)."""
    from custody.bootstrap import open_deployment
    from custody.flows import proposals
    from custody.rules.certificates import Enrolment
    from custody.rules.facts import Destination
    from custody.rules.signatures import Signed
    from custody.rules.wallets import Address
    from custody.rules.words import lines
    from custody.working import KernelReader

    deployment, where = open_deployment(home(home_option)), Chain(chain)
    reader = KernelReader(deployment)
    kernel, now = reader(), reader.clock()
    address = Address.parse(where, place).text
    proof = hashlib.sha256(evidence.read_bytes()).digest() if evidence else bytes(32)
    kind, until = Destination.CUSTOMER_WITHDRAWAL.value, now + days * 86_400
    message = Enrolment(where.name, address, f"customer:{customer}", kind, proof, until)
    digest = kernel.roster.domain.digest(message)
    for line in (*lines(message), f"digest   0x{digest.hex()}"):
        out.print(line, markup=False)
    if not yes:
        typer.confirm("Sign exactly this?", abort=True)
    signature = open_signer(key, password_file).sign(digest)
    proposals.enrol(deployment.store, kernel, Signed(message, (signature,)), now)
    out.print(f"enrolled for {message.owner}", markup=False)


@app.command("list")
def list_all(home_option: Home = None, as_json: AsJson = False) -> None:
    """Every customer with what is available and held, per asset."""
    from custody.bootstrap import open_deployment
    from custody.rules.amounts import Amount
    from custody.rules.ledger import AccountKind

    deployment = open_deployment(home(home_option), read_only=True)
    ids, balances = deployment.store.read(lambda work: (work.customers.ids(), list(work.journal.balances())))
    owned: dict[str, dict[str, str]] = {customer: {} for customer in sorted(ids)}
    for account, asset, units in balances:
        if account.kind in (AccountKind.CUSTOMER_AVAILABLE, AccountKind.CUSTOMER_HELD):
            owned[account.owner][f"{account.kind.removeprefix('customer_')} {asset}"] = Amount(asset, units).decimal
    if as_json:
        say_json(owned)
        return
    for customer, rows in owned.items():
        out.print(f"{customer}: " + (", ".join(f"{v} {k}" for k, v in sorted(rows.items())) or "nothing"), markup=False)
