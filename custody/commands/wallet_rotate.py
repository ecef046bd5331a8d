# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead wallet rotate draft | begin | status`: a wallet moves to new keys, by people's quorum and its old seats' own."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from custody.commands.common import Home, home, out, read_signed_as, write_json
from custody.rules.certificates import Rotation, WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain

if TYPE_CHECKING:
    from custody.bootstrap import Deployment
    from custody.flows.inventory import Wallet

app = typer.Typer(
    help="Move a wallet to new keys: draft its next certificate, have people sign it, let the worker carry it out.",
    no_args_is_help=True,
)

Label = Annotated[str, typer.Option(help="The wallet's name, such as customer_hot.")]
ChainName = Annotated[str, typer.Option("--chain", help="The chain's CAIP-2 name.")]


@app.command("draft")
def draft(
    target: Annotated[Path, typer.Argument(help="Where to write the certificate that people sign.")],
    label: Label,
    chain: ChainName,
    seat: Annotated[list[str], typer.Option(help="A seat that makes a new key; give it N times.")],
    m: Annotated[int, typer.Option("--m", help="Signatures needed; 2M-N must be at least 2.")] = 3,
    rotation: Annotated[
        Path | None, typer.Option("--rotation", help="Where to write the Rotation that people sign too; EVM only.")
    ] = None,
    home_option: Home = None,
) -> None:
    """Ask each seat to make a new key and write the wallet's next certificate; on EVM the rotation as well."""
    from custody.birthing import draft_next
    from custody.bootstrap import open_deployment

    deployment = open_deployment(home(home_option))
    wallet = _wallet(deployment, label, chain)
    if wallet.chain.is_evm == (rotation is None):
        raise InvalidInput("--rotation", Rule.MALFORMED, str(rotation), "a file on EVM, none on Bitcoin")
    certificate = draft_next(deployment, wallet, seat, m)
    write_json(target, Signed(certificate, ()).to_json())
    out.print(f"now people sign it: bulkhead sign {target}", markup=False)
    if rotation is not None:
        message = Rotation(wallet.certificate.struct_hash, certificate.struct_hash)
        write_json(rotation, Signed(message, ()).to_json())
        out.print(f"and this: bulkhead sign {rotation}", markup=False)


@app.command("begin")
def begin(
    file: Annotated[Path, typer.Argument(help="The certificate with people's signatures.")],
    rotation: Annotated[
        Path | None, typer.Option("--rotation", help="The Rotation with people's signatures; EVM only.")
    ] = None,
    home_option: Home = None,
) -> None:
    """Check everything and let the worker carry it out: nothing of the wallet begins until its new seats have it."""
    from custody.bootstrap import open_deployment
    from custody.chains.scripts import check_script
    from custody.flows import rotation_orders
    from custody.working import KernelReader

    certificate = read_signed_as(file, WalletCertificate)
    signed = None if rotation is None else read_signed_as(rotation, Rotation)
    deployment = open_deployment(home(home_option))
    reader = KernelReader(deployment)
    order = rotation_orders.place(deployment.store, reader(), certificate, signed, check_script, reader.clock())
    new = order.certificate.message
    told = f"order {order.number}: {new.label} on {new.chain}, {new.m} of {new.n}; the worker carries it out"
    out.print(f"{told}: bulkhead wallet rotate status", markup=False)


@app.command("status")
def status(home_option: Home = None) -> None:
    """Each wallet's certificates, the newest last; what is under way, and what lies under older keys."""
    from custody.bootstrap import open_deployment
    from custody.flows import rotation_orders, sweep_records

    deployment = open_deployment(home(home_option), read_only=True)
    for wallet in deployment.inventory():
        line = [signed.message for signed in wallet.certificates]
        seats = ", ".join(key.key.seat for key in line[-1].seats)
        out.print(f"{line[0].label} on {wallet.chain}: {line[-1].m} of {line[-1].n}: {seats}", markup=False)
        for old, new in pairwise(line):
            out.print(f"  {old.label} was followed by {new.label}, 0x{new.struct_hash.hex()}", markup=False)
        order = deployment.store.read(partial(rotation_orders.standing, wallet=wallet))
        errand = deployment.store.read(partial(sweep_records.under_way, wallet=wallet.name))
        if order is not None:
            out.print(f"  under way: order {order.number}, to {order.certificate.message.label}", markup=False)
        if errand is not None:
            out.print(f"  under way: {errand.what} {errand.number} at {errand.anchor.reference}", markup=False)


@app.command("draft-void")
def draft_void(
    target: Annotated[Path, typer.Argument(help="Where to write it.")],
    label: Label,
    chain: ChainName,
    home_option: Home = None,
) -> None:
    """Write the void of a rotation's or a sweep's anchor, where it must die: people sign it, `bulkhead payout void` takes it."""
    from custody.bootstrap import open_deployment
    from custody.flows import sweep_records
    from custody.rules.intents import Void

    deployment = open_deployment(home(home_option), read_only=True)
    wallet = _wallet(deployment, label, chain)
    errand = deployment.store.read(lambda work: sweep_records.under_way(work, wallet.name))
    if errand is None:
        raise InvalidInput("wallet", Rule.UNKNOWN_TRANSFER, f"{label} on {chain}", "one with an errand under way")
    write_json(target, Signed(Void(errand.anchor, ()), ()).to_json())
    out.print(f"{errand.what} at {errand.anchor.reference}; now people sign it: bulkhead sign {target}", markup=False)


def _wallet(deployment: "Deployment", label: str, chain: str) -> "Wallet":
    on = deployment.inventory().on(Chain(chain))
    found = [wallet for wallet in on if wallet.certificates[0].message.label == label]
    if len(found) != 1:
        known = ", ".join(sorted(wallet.certificates[0].message.label for wallet in on)) or "none on this chain"
        raise InvalidInput("label", Rule.UNKNOWN_WALLET, label, known)
    return found[0]
