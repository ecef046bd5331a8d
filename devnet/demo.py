# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead demo`: from nothing to a born deployment with customers' coins in it, on real nodes, told as it happens."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The narrated demonstration on a network of its own; exit 0 only if all of it held.")


@app.command()
def demo(
    home: Annotated[Path | None, typer.Option("--home", help="Where it keeps its files; made anew each time.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the files for a look afterwards.")] = False,
) -> None:
    """Run it. The network dies with this process, whatever happens."""
    from devnet.birth import Services, raise_world  # chains and store load only now
    from devnet.home import bulkhead_home
    from devnet.network import Devnet
    from devnet.processes import Lifetime
    from devnet.scenes.stage import Stage
    from devnet.story import Story

    folder = home or bulkhead_home() / "demo"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    story = Story()
    net = Devnet(folder, lifetime=Lifetime.PARENT, progress=story.tell)
    story.chapter("A network of our own: Anvil, bitcoind -regtest, one OpenBao for each key-holder")
    with net.running():
        story.chapter("Birth: identity keys, genesis, wallet keys, certificates")
        services = Services(net)
        try:
            world = raise_world(net, services, story.tell)
            stage = Stage(world, world.deployment)
            for scene in scenes():
                scene(stage, story)
        finally:
            services.stop()
    story.end()
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(0 if story.all_held else 1)


def scenes() -> list[Callable[..., None]]:
    """Every scene in the order in which it is played."""
    from devnet.scenes import (
        attacks_forged,
        attacks_nonce,
        attacks_payload,
        attacks_people,
        attacks_rows,
        backend,
        ceremony,
        deposits,
        ledger,
        measured,
        tampering,
        uncovered,
        withdrawals,
    )

    return [
        deposits.inventory,
        deposits.customers,
        deposits.arrivals,
        deposits.reorganised,
        deposits.impostors,
        ledger.trades,
        withdrawals.automatic,
        withdrawals.by_people,
        withdrawals.affiliate,
        backend.over_the_api,
        withdrawals.batches,
        ceremony.time_locked,
        withdrawals.fees,
        ceremony.to_cold,
        ceremony.refill,
        withdrawals.refusals,
        uncovered.drained,
        attacks_people.approvals,
        attacks_payload.payloads,
        attacks_rows.rows,
        attacks_rows.backdated,
        attacks_forged.forged,
        attacks_nonce.equivocation,
        ledger.coverage,
        tampering.rows,
        measured.batches,
        ledger.who_signed,
        ledger.footprint,
    ]
