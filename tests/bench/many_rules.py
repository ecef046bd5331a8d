# SPDX-License-Identifier: AGPL-3.0-or-later
"""The shipped bundle grown to 200 rules as a large house would have them, in its own words, the same ones each time.

Each permit is split into one for each asset and role; each asset and purpose has bands of native amounts from which more people are
asked and more time passes; ceilings that nobody can approve beyond fill up the number. Requires and denies of the shipped bundle stay.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from custody.rules.facts import Purpose
from policies.bundle import Bundle
from tests.unit.shipped import with_rules

RULES: Final = 200
PLANTED: Final = "P116-refill-from-cold-btc-operator"
"""The permit that is weak where one is planted: a refill out of cold that forgot risk and the hour."""
_BANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "BTC": ("1", "5", "10", "20", "40"),
    "ETH": ("20", "100", "200", "400", "900"),
    "USDX": ("60,000", "300,000", "600,000", "1,500,000", "3,000,000"),
    "USDN": ("60,000", "300,000", "600,000", "1,500,000", "3,000,000"),
}
_ASKED: Final = (
    ("1 of operations", "1 of treasury"),
    ("1 of operations", "1 of treasury", "1 of risk"),
    ("1 of operations", "1 of treasury", "2 of risk"),
    ("1 of operations", "2 of treasury", "2 of risk", "1 of executive"),
    ("1 of operations", "2 of treasury", "2 of risk", "1 of executive", "1 of board"),
)
_DELAYS: Final = ("", "30min", "2h", "12h", "48h")
_CEILING: Final = {"BTC": "90 BTC", "ETH": "1,900 ETH", "USDX": "4,900,000 USDX", "USDN": "4,900,000 USDN"}
Row = dict[str, Any]


def many_rules(bundle: Bundle, *, planted: bool = False) -> Bundle:
    """The large bundle; with `planted`, one of its permits asks for too few."""
    rows: Any = bundle.documents["rules"]
    shipped: list[Row] = rows["rules"]
    symbols = sorted(_BANDS)
    kept = [row for row in shipped if row["kind"] != "permit"]
    found = [*kept, *_permits([row for row in shipped if row["kind"] == "permit"], symbols), *_bands(symbols)]
    found += islice(_ceilings(symbols), RULES - len(found))
    if planted:
        weak = next(row for row in found if row["id"] == PLANTED)
        weak["approvals"] = ["1 of operations", "1 of treasury"]
        del weak["delay"]
    return with_rules(bundle, found)


def _permits(shipped: list[Row], symbols: list[str]) -> Iterator[Row]:
    number = 100
    for row in shipped:
        words = row["id"].partition("-")[2]
        for symbol in symbols:
            for role in row["when"]["role"]:
                narrow = {**row, "id": f"P{number}-{words}-{symbol.lower()}-{role.replace('_', '-')}"}
                narrow["when"] = {**row["when"], "asset": [symbol], "role": [role]}
                if role not in row.get("automatic_when", {}).get("role", ()):
                    narrow.pop("automatic_when", None)
                yield narrow
                number += 1


def _bands(symbols: list[str]) -> Iterator[Row]:
    number = 100
    for symbol in symbols:
        for purpose in Purpose:
            for units, asked, delay in zip(_BANDS[symbol], _ASKED, _DELAYS, strict=True):
                when = {"purpose": [str(purpose)], "asset": [symbol], "amount": f"at least {units} {symbol}"}
                yield {
                    "id": f"R{number}-{purpose.replace('_', '-')}-{symbol.lower()}-{units.replace(',', '')}",
                    "kind": "require",
                    "why": "More coins at once are seen by more people, and wait for longer.",
                    "when": when,
                    "approvals": list(asked),
                    **({"delay": delay} if delay else {}),
                }
                number += 1


def _ceilings(symbols: list[str]) -> Iterator[Row]:
    number = 100
    for purpose in Purpose:
        for symbol in symbols:
            yield {
                "id": f"D{number}-{purpose.replace('_', '-')}-{symbol.lower()}",
                "kind": "deny",
                "why": "Beyond this nobody can approve; it goes in parts, each of which people see.",
                "when": {
                    "purpose": [str(purpose)],
                    "asset": [symbol],
                    "amount": f"more than {_CEILING[symbol]}",
                },
            }
            number += 1
