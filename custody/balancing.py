# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rebalancer put together: store, the watcher's nodes, the kernel, and one key that may propose and nothing else."""

import json
import threading
from collections.abc import Callable

from custody.bootstrap import Deployment
from custody.chains.views import open_view
from custody.flows.ports import ChainView
from custody.flows.rebalancing_cycle import Line, Rebalancer, cycle
from custody.keyfiles import Signer
from custody.rules.amounts import Amount
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from custody.rules.wallets import Chain
from custody.working import KernelReader


def open_rebalancer(deployment: Deployment, signer: Signer) -> Rebalancer:
    """Every part of it; raises InvalidInput or Unavailable where a node is not the chain that it should be."""
    kernel, assets = KernelReader(deployment), deployment.bundle.assets
    births = [certificates[0].message for certificates in deployment.wallets().values()]
    views: dict[Chain, ChainView] = {}
    for chain in assets.chains:
        node, birth = deployment.node(chain), min((c.birth for c in births if c.chain == chain.name), default=0)
        views[chain] = open_view(
            chain, node.url, node.cookie, assets, None, birth
        )  # the watcher's cache is the watcher's
    return Rebalancer(deployment.store, kernel, views, signer.key, signer.sign, kernel.clock)


def balance_forever(
    parts: Rebalancer, stop: threading.Event, every: float, say: Callable[[str], object], *, dry: bool = False
) -> None:
    """Cycle after cycle until `stop` is set: what is new is said; what is refused or does not answer is looked at again."""
    before: frozenset[str] = frozenset()
    while not stop.is_set():
        try:
            told = [line_of(line) for line in cycle(parts, dry=dry)]
        except (Unavailable, Refused, InvalidInput) as error:
            told = [json.dumps({"event": "failed", "error": type(error).__name__, "why": str(error)})]
        for line in told:
            if line not in before:
                say(line)
        before = frozenset(told)
        stop.wait(every)


def line_of(line: Line) -> str:
    """One line of JSON: what was proposed, or would be, or why nothing is."""
    event = "proposed" if line.proposed is not None else "fault" if line.fault else "wanted" if line.wanted else "rests"
    body: dict[str, object] = {"event": event, "what": line.what}
    if line.wanted is not None:
        wanted = line.wanted
        body |= {
            "direction": wanted.direction.value,
            "purpose": wanted.purpose.value,
            "amount": str(Amount(wanted.asset, wanted.units)),
            "destination": wanted.destination,
            "reference": wanted.key,
        }
    if line.proposed is not None:
        body |= {"transfer": line.proposed.intent.id, "status": line.proposed.status.value}
        body |= {"waiting_for": line.proposed.waiting_for} if line.proposed.waiting_for else {}
    return json.dumps({**body, "why": line.why})
