# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead wallets`: every wallet there is, down to its certificate and seats, with what the chain says it holds."""

from typing import TYPE_CHECKING, Any

import typer

from custody.commands.common import AsJson, Home, home, out, say_json
from custody.rules.amounts import Amount

if TYPE_CHECKING:
    from custody.bootstrap import Deployment

app = typer.Typer(
    help="The inventory: tier, address or descriptor, M-of-N, seats, certificate, balance at a final height."
)


@app.command()
def wallets(home_option: Home = None, as_json: AsJson = False) -> None:
    """List every wallet, its deposit addresses counted in, and the relayers with their caps."""
    from custody.bootstrap import open_deployment

    deployment = open_deployment(home(home_option), read_only=True)
    rows = [*_wallet_rows(deployment), *_relayer_rows(deployment)]
    if as_json:
        say_json(rows)
        return
    for row in rows:
        out.print(f"{row['tier']:14} {row['label']}  on {row['chain']}", markup=False)
        for name, value in row.items():
            if name not in ("tier", "label", "chain"):
                out.print(f"  {name:12} {value if isinstance(value, str) else ', '.join(value)}", markup=False)


def _wallet_rows(deployment: "Deployment") -> list[dict[str, Any]]:
    inventory = deployment.inventory()
    finals = {chain: view.final() for chain, view in deployment.views.items()}
    rows = []
    for wallet in sorted(inventory, key=lambda w: (w.tier, w.chain)):
        view, final = deployment.views[wallet.chain], finals[wallet.chain]
        held = {
            asset: Amount(asset, view.balance(asset, wallet.addresses, final))
            for asset in deployment.bundle.assets.on(wallet.chain)
        }
        certificate = wallet.certificate
        rows.append(
            {
                "tier": str(wallet.tier),
                "label": certificate.label,
                "chain": wallet.chain.name,
                "wallet": "0x" + wallet.name.hex(),
                "certificate": "0x" + certificate.struct_hash.hex(),
                "address": wallet.place,
                "quorum": f"{certificate.m} of {certificate.n}",
                "seats": [s.key.seat for s in certificate.seats],
                "deposits": f"{len(wallet.bound)} customer addresses",
                "balance": [str(amount) for amount in held.values()],
                "at": f"final block {final.height} 0x{final.hash.hex()}",
            }
        )
    return rows


def _relayer_rows(deployment: "Deployment") -> list[dict[str, Any]]:
    from custody.chains.evm import wire
    from custody.chains.evm.client import EvmClient
    from custody.rules.wallets import Chain

    rows = []
    for relayer in deployment.roster.version.relayers:
        client = EvmClient(deployment.node(Chain(relayer.chain)).url, Chain(relayer.chain))
        held = wire.quantity(client.call("eth_getBalance", relayer.address, "latest"), "balance")
        native = next(a for a in deployment.bundle.assets.on(Chain(relayer.chain)) if a.contract is None)
        rows.append(
            {
                "tier": "operational",
                "label": "relayer",
                "chain": relayer.chain,
                "address": relayer.address,
                "cap": str(Amount(native, relayer.cap)),
                "balance": [str(Amount(native, held))],
            }
        )
    return rows
