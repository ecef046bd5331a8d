# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead wallet draft | create | rotate`: drafted from seats' keys, signed by people, accepted by every seat; and its next keys."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands import wallet_rotate
from custody.commands.common import Home, home, out, read_signed_as, write_json
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain, Tier

app = typer.Typer(
    help="Draft a wallet from its seats' keys; create it once people have signed its certificate.", no_args_is_help=True
)
app.add_typer(wallet_rotate.app, name="rotate")


@app.command("draft")
def draft(
    target: Annotated[Path, typer.Argument(help="Where to write the certificate that people sign.")],
    label: Annotated[str, typer.Option(help="The wallet's name, such as customer_hot.")],
    tier: Annotated[Tier, typer.Option(help="The wallet's tier, for ever.")],
    chain: Annotated[str, typer.Option(help="The chain's CAIP-2 name.")],
    seat: Annotated[list[str], typer.Option(help="A seat that holds a key; give it N times.")],
    m: Annotated[int, typer.Option("--m", help="Signatures needed; 2M-N must be at least 2.")] = 3,
    home_option: Home = None,
) -> None:
    """Ask each seat to make its key for this wallet and write the certificate."""
    from custody.birthing import draft_certificate
    from custody.bootstrap import open_deployment

    certificate = draft_certificate(open_deployment(home(home_option)), label, tier, Chain(chain), seat, m)
    write_json(target, Signed(certificate, ()).to_json())
    out.print(f"wallet 0x{certificate.struct_hash.hex()}\nnow people sign it: bulkhead sign {target}", markup=False)


@app.command("create")
def create(
    file: Annotated[Path, typer.Argument(help="A certificate with people's signatures.")], home_option: Home = None
) -> None:
    """Check everything, let each seat accept, record it, and put the wallet on its chain."""
    from custody.birthing import create_wallet, show_heads
    from custody.bootstrap import open_deployment

    signed = read_signed_as(file, WalletCertificate)
    deployment = open_deployment(home(home_option))
    where = create_wallet(deployment, signed)
    out.print(
        f"accepted by {signed.message.n} seats; {signed.message.label} on {signed.message.chain}: {where}", markup=False
    )
    seen = frozenset[str]()
    try:
        seen = show_heads(deployment)
    except (Unavailable, Refused) as error:  # the wallet is born all the same; the next statement does as well
        out.print(f"no statement by the attestor: {error}", markup=False)
    unseen = [key.key.seat for key in signed.message.seats if key.key.seat not in seen]
    if unseen:
        told = ", ".join(unseen)
        out.print(f"the attestor has not seen {told}: bulkhead statement make, while they are up", markup=False)
