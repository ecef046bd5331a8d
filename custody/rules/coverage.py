# SPDX-License-Identifier: AGPL-3.0-or-later
"""Law 2: for each asset, in its own base units, final customer-tier balance covers what is owed. No prices."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule
from custody.rules.statements import AssetCoverage, Statement


@dataclass(frozen=True, slots=True)
class Outflow:
    """What a transfer would take out of customer tiers: base units of one asset, its maximum fee included."""

    asset: str
    units: int
    reduces_liability: int
    """How much of it settles a customer's own balance (a withdrawal), in the same base units."""

    def __post_init__(self) -> None:
        if not 0 <= self.reduces_liability <= self.units:  # more would let one outflow pay for another
            raise InvalidInput("outflow", Rule.MALFORMED, f"{self.reduces_liability} of {self.units}", "0 to all of it")


def liabilities(row: AssetCoverage) -> int:
    """What customers are owed of one asset: available, held, and suspense, which belongs to somebody unknown."""
    return row.available + row.held + row.suspense


def surplus(row: AssetCoverage) -> int:
    """Reserves less in-flight outflows less liabilities; below zero is a shortfall. Base units."""
    return row.reserves - row.in_flight - liabilities(row)


def check(rows: Iterable[AssetCoverage], assets: Iterable[str], outflows: Iterable[Outflow] = ()) -> Iterator[Refusal]:
    """Every asset covered, now and after these outflows; an asset without exactly one row is unknown, and unknown means no."""
    told = list(rows)
    times = Counter(row.asset for row in told)
    by_asset = {row.asset: row for row in told if times[row.asset] == 1}
    leaving: dict[str, int] = {}
    for outflow in outflows:
        leaving[outflow.asset] = leaving.get(outflow.asset, 0) + outflow.units - outflow.reduces_liability
    for asset in sorted(set(assets) | set(leaving)):
        row = by_asset.get(asset)
        if row is None:
            yield Refusal(Rule.COVERAGE_UNKNOWN, asset=asset)
        elif (after := surplus(row) - leaving.get(asset, 0)) < 0:
            yield Refusal(
                Rule.COVERAGE,
                asset=asset,
                reserves=row.reserves,
                in_flight=row.in_flight,
                owed=liabilities(row),
                surplus=after,
            )


def check_fresh(statement: Statement, now: int, oldest: int, last_sequence: int) -> Iterator[Refusal]:
    """A statement is used once and while it is fresh: `oldest` seconds at most, sequence above the last one seen."""
    age = now - statement.time
    if not 0 <= age <= oldest:
        yield Refusal(Rule.STALE, age=age, oldest=oldest)
    if statement.sequence <= last_sequence:
        yield Refusal(Rule.SEQUENCE, sequence=statement.sequence, last=last_sequence)
