# SPDX-License-Identifier: AGPL-3.0-or-later
"""Trades settle, the attestor speaks, and the nodes are asked independently."""

import os
from pathlib import Path
from typing import Any

from custody import parts
from custody.attestor import verify_statement
from custody.auditing import audit
from custody.bootstrap import wall_clock
from custody.flows.bookkeeping import record_settlement
from custody.rules.amounts import Amount
from custody.rules.coverage import surplus
from custody.rules.refusals import Refused, Rule
from custody.rules.settlements import FeeLeg, Leg, Settlement, Trade
from custody.rules.signatures import Signed
from custody.rules.typed import Domain
from devnet import independent
from devnet.birth import BITCOIN, EVM
from devnet.engine import packed
from devnet.scenes.stage import Stage
from devnet.story import Story


def trades(stage: Stage, story: Story) -> None:
    """Alice sells bitcoin to bob; the fee is in the schedule; a fee above it and an overdraft are refused whole."""
    story.chapter("Trades settle in the ledger, signed by the matching engine")
    price, quantity = 60_000_000_000, 100_000_000
    good = _settlement(stage, "settlement-1", "t-1", quantity, price, fee=price // 2000)
    position = _record(stage, good)
    story.claim(
        "a settlement of one trade, with its fee, is one entry", isinstance(position, int), f"position {position}"
    )
    owned = stage.available("alice", "USDX"), stage.available("bob", "BTC")
    story.claim("both sides moved to the unit, the fee accrued", owned == (price - price // 2000, 130_000_000), owned)
    for what, rule, name, trade, numbers in (
        (
            "a fee above the signed schedule is refused",
            Rule.FEE_ABOVE_SCHEDULE,
            "settlement-2",
            "t-2",
            (1_000, 600_000, 600_000),
        ),
        ("a trade beyond the balance is refused", Rule.INSUFFICIENT_BALANCE, "settlement-3", "t-3", (10**9, 1, 0)),
    ):
        result = _record(stage, _settlement(stage, name, trade, *numbers))
        story.claim(what, result == {rule}, _told(result))
    again = _record(stage, good)
    story.claim("the same trade settles once", isinstance(again, set) and Rule.ALREADY_RECORDED in again, _told(again))


def _told(result: int | set[Rule]) -> str:
    return f"position {result}" if isinstance(result, int) else ", ".join(sorted(result))


def _settlement(stage: Stage, name: str, trade: str, quantity: int, price: int, fee: int) -> Signed[Settlement]:
    legs = (
        Leg("alice", "BTC", -quantity),
        Leg("bob", "BTC", quantity),
        Leg("bob", "USDX", -price),
        Leg("alice", "USDX", price),
    )
    fees = (FeeLeg("alice", "USDX", fee),) if fee else ()
    bundle = stage.deployment.bundle.hash
    message = Settlement(name, "matching", bundle, wall_clock(), (Trade(trade, legs, fees),))
    domain: Domain = stage.deployment.roster.domain
    return stage.world.cast.sign(domain, Signed(message, ()), ["matching"])


def _record(stage: Stage, signed: Signed[Settlement]) -> int | set[Rule]:
    d = stage.deployment
    try:
        return record_settlement(d.store, d.roster, signed, d.bundle.fees, d.bundle.assets, wall_clock()).position
    except Refused as refused:
        return {refusal.rule for refusal in refused.refusals}


def coverage(stage: Stage, story: Story) -> None:
    """The attestor's statement, checked offline, against the nodes asked with none of its code."""
    story.chapter("Coverage: what is held against what is owed, and what the nodes say when asked independently")
    deployment = stage.deployment
    signed = stage.attestor.statement()
    refusals = list(verify_statement(signed, deployment.roster))
    story.claim("the attestor's statement verifies offline", not refusals, "; ".join(str(r) for r in refusals))
    for height in signed.message.heights:
        story.tell(f"{height.chain} at final block {height.height} 0x{height.hash.hex()}")
    asked = _ask_nodes(stage)
    for row in signed.message.coverage:
        asset = deployment.bundle.assets.get(row.asset)
        told = [
            Amount(asset, u).decimal
            for u in (row.reserves, row.available + row.held, row.suspense, row.accrued_fees, surplus(row))
        ]
        story.tell(
            f"{row.asset:5} reserves {told[0]:>22}  owed {told[1]:>22}  suspense {told[2]:>6}  fees {told[3]:>5}  surplus {told[4]}"
        )
        story.claim(
            f"{row.asset}: chain = nodes asked independently = ledger",
            row.on_chain == asked[row.asset] == row.in_ledger,
            f"{Amount(asset, asked[row.asset])}",
        )
        story.claim(f"{row.asset}: covered", surplus(row) >= 0, f"surplus {Amount(asset, surplus(row))}")
    findings = audit(deployment)
    head = deployment.store.read(lambda work: work.journal.head())
    story.claim(
        f"ledger verify: {head.position} entries, each confirmed at its origin",
        not findings,
        "; ".join(map(str, findings)),
    )


def _ask_nodes(stage: Stage) -> dict[str, int]:
    net, wallets = stage.world.net, list(stage.deployment.inventory())
    safes = {a.text for w in wallets if w.tier.is_customer and w.chain == EVM for a in w.addresses}
    descriptors = [w.place for w in wallets if w.tier.is_customer and w.chain == BITCOIN]
    contracts = stage.world.contracts
    return {
        "BTC": independent.bitcoin(net.bitcoind, descriptors, 3),
        "ETH": independent.ether(net.anvil, safes),
        "USDX": independent.tokens(net.anvil, contracts.usd, safes),
        "USDN": independent.tokens(net.anvil, contracts.silent_usd, safes),
    }


def who_signed(stage: Stage, story: Story) -> None:
    """Which program held the keys that signed all this: what each server's catalog starts, as the seat itself tells it."""
    story.chapter("Who signed")
    mounts = {name: part.mount for name, part in stage.deployment.settings.seats.items()}
    told = {}
    for name in stage.world.net.hot:
        status: Any = parts.seat(name, stage.deployment.settings.seats[name]).status()
        told[name] = status["host"]
        story.tell(f"{name}: {status['position']} lines in its journal, hosted by " + " ".join(status["host"].values()))
    kinds = {host["kind"] for host in told.values()}
    story.claim(
        "every seat signs inside its own OpenBao", kinds == {"engine"} and all(mounts.values()), ", ".join(kinds)
    )
    own = {packed().sha256}
    story.claim(
        "all of them run this checkout's engine", {host.get("sha256") for host in told.values()} == own, next(iter(own))
    )


def footprint(stage: Stage, story: Story) -> None:
    """Memory of everything that runs, this process included; a promise of the project, measured here."""
    story.chapter("Footprint")
    services = [*stage.world.services.online]
    pids = [os.getpid(), *(pid for part in (*stage.world.net.nodes, *services) if (pid := part.pid))]
    pids += [child for pid in pids[1:] for child in _children(pid)]  # a seat's engine is its server's child
    total = sum(_resident(pid) for pid in pids)
    story.claim(
        "all processes together under 2.5 GiB", total < 2.5 * 2**30, f"{total / 2**20:.0f} MiB in {len(pids)} processes"
    )


def _children(pid: int) -> list[int]:
    return [int(word) for task in Path(f"/proc/{pid}/task").glob("*/children") for word in task.read_text().split()]


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
