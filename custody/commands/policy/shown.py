# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every policy command shares: where a bundle is read from, and how findings end."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from custody.commands.common import out, say_json
from custody.rules.amounts import Amount
from custody.rules.errors import Unavailable
from custody.rules.words import span

if TYPE_CHECKING:
    from custody.rules.amounts import Assets
    from custody.rules.facts import Facts
    from policies.bundle import Bundle

SHIPPED: Final = Path(__file__).parents[3] / "policies" / "shipped"
Folder = Annotated[Path | None, typer.Argument(help="The bundle's folder; the shipped bundle if not given.")]


def open_bundle(folder: Path | None) -> "Bundle":
    """A bundle out of a folder, or the shipped one. Raises InvalidInput with file, line and what would be right."""
    from policies.bundle import load

    return load(folder or SHIPPED)


def without_solver(error: ImportError) -> NoReturn:
    """A reviewer's command on a machine that only serves."""
    raise Unavailable(
        f"the library {error.name}", "reviewers' tools are not installed: pip install 'bulkhead[review]'"
    ) from error


def end(findings: Sequence[object], body: dict[str, object], *, as_json: bool, fine: str) -> None:
    """Print and end: JSON whole, or a line for each finding; exit 1 where there is one."""
    if as_json:
        say_json(body)
    else:
        for finding in findings:
            out.print(str(finding), markup=False)
        if not findings:
            out.print(fine, markup=False)
    if findings:
        raise typer.Exit(1)


def facts_lines(facts: "Facts", assets: "Assets", indent: str = "    ") -> list[str]:
    """A transfer's facts for a person: the route, what it is worth, the windows, the destination, the flags."""
    route = f"{facts.from_tier} -> {facts.to_tier or facts.to} (owner {facts.owner}), {facts.purpose}, asked for by {facts.role}"
    money = f"{_amount(facts, facts.amount, assets)}, worth {_usd(facts.usd)} USD"
    windows = (
        f"windows: customer_24h {_usd(facts.customer_24h)} USD, wallet_1h {_usd(facts.wallet_1h)} USD, "
        f"initiator_24h {_usd(facts.initiator_24h)} USD, settled_24h {_usd(facts.settled_24h)} USD"
    )
    age = "of unknown age" if facts.dest_age is None else f"known for {facts.dest_age} s ({span(facts.dest_age)})"
    place = f"destination: {age}, holds {_amount(facts, facts.dest_balance_after, assets)} afterwards"
    flags = ", ".join(
        f"{name}: {'true' if getattr(facts, name) else 'false'}"
        for name in ("enrolled", "related_entity", "sanctioned", "within_accrued_fees", "business_hours")
    )
    return [indent + line for line in (route, money, windows, place, flags)]


def _amount(facts: "Facts", units: int | None, assets: "Assets") -> str:
    if units is None or facts.asset is None:
        return "an unknown amount"
    asset = assets.get(facts.asset)
    return f"{Amount(asset, units).decimal} {asset.symbol}"


def _usd(micro: int | None) -> str:
    from policies.matrix import usd_text

    return "unknown" if micro is None else usd_text(micro)
