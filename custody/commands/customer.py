# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead customer add | address | list`."""

from typing import Annotated

import typer

from custody.commands.common import AsJson, Home, home, out, say_json
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
