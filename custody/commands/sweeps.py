# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead payout sweeps [--draft-void FILE --chain CHAIN]`: the last sweep of each wallet's deposit addresses, and its way out."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, out, write_json
from custody.rules.refusals import Refusal, Refused, Rule


def sweeps(
    draft_void: Annotated[
        Path | None,
        typer.Option("--draft-void", help="Write the void of the one that is under way, for people to sign."),
    ] = None,
    chain: Annotated[str | None, typer.Option("--chain", help="Only this chain's.")] = None,
    home_option: Home = None,
) -> None:
    """List the last sweep of each hot wallet's deposit addresses: under way, or done."""
    from custody.bootstrap import open_deployment
    from custody.flows import sweep_records
    from custody.rules import words
    from custody.rules.intents import Void
    from custody.rules.signatures import Signed
    from custody.rules.wallets import Tier

    deployment = open_deployment(home(home_option), read_only=True)
    under_way: list[sweep_records.SweepRun] = []
    for name, line in sorted(deployment.wallets().items()):
        certificate = line[0].message
        if certificate.tier != Tier.CUSTOMER_HOT.value or chain not in {None, certificate.chain}:
            continue
        run = deployment.store.read(partial(sweep_records.newest, wallet=name))
        if run is None:
            continue
        stands = "done" if run.ended else "under way"
        told = f"{certificate.chain}: sweep {run.number} at nonce {run.anchor.reference}, begun {words.at(run.at)}, {stands}"
        out.print(told, markup=False)
        under_way += [] if run.ended else [run]
    if draft_void is None:
        return
    if len(under_way) != 1:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, sweeps=len(under_way), want="one under way; name its chain")])
    write_json(draft_void, Signed(Void(under_way[0].anchor, ()), ()).to_json())
    out.print(f"now people sign it: bulkhead sign {draft_void}", markup=False)
