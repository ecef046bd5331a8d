# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coverage over time as lines: what the attestor signed, point by point, with whole numbers all the way to the picture's coordinates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.attesting import STATEMENTS
from custody.flows.ports import UnitOfWork, spread
from custody.rules.attested import verify_signature
from custody.rules.coverage import liabilities, surplus
from custody.rules.errors import InvalidInput
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.statements import Statement

POINTS: Final = 200
ROWS: Final = 12
WIDTH: Final = 900
HEIGHT: Final = 220


@dataclass(frozen=True, slots=True)
class Point:
    """One asset in one statement, in base units."""

    time: int
    held: int
    owed: int
    left: int


@dataclass(frozen=True)
class Plot:
    """One asset's points, oldest first; the picture is WIDTH by HEIGHT, its lowest line at `low` base units and its highest at `high`."""

    asset: str
    points: Sequence[Point]

    @property
    def low(self) -> int:
        """The lowest number drawn."""
        return min(min(each.held, each.owed) for each in self.points)

    @property
    def high(self) -> int:
        """The highest; above `low` where all are alike, so that there is a height to draw in."""
        return max(*(max(each.held, each.owed) for each in self.points), self.low + 1)

    @property
    def least(self) -> Point:
        """Where the surplus was least."""
        return min(self.points, key=lambda each: each.left)

    @property
    def table(self) -> Sequence[Point]:
        """A few of them, for whoever reads instead of looking: the first, the last, and evenly between."""
        return spread(self.points, ROWS)

    def line(self, name: str) -> str:
        """The points of a line: `held` or `owed`."""
        return " ".join(f"{self.x(each)},{self.y(getattr(each, name))}" for each in self.points)

    def x(self, point: Point) -> int:
        """Where a point stands from the left."""
        first, last = self.points[0].time, self.points[-1].time
        return WIDTH * (point.time - first) // max(1, last - first)

    def y(self, units: int) -> int:
        """Where a number stands from the top."""
        return HEIGHT - HEIGHT * (units - self.low) // (self.high - self.low)


class Remembered:
    """Statements that were read and verified: a row of the mirror never changes, and one that is damaged is no point."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int], Statement | None] = {}

    def statements(self, work: UnitOfWork, roster: Roster) -> Sequence[Statement]:
        """Up to POINTS, oldest first, each signed by the attestor of the newest roster."""
        attestor = roster.version.struct_hash
        numbers = work.listing.numbers(STATEMENTS, POINTS)
        if len(self._known) > 50 * POINTS:
            self._known.clear()
        for number in numbers:
            if (attestor, number) not in self._known:
                self._known[attestor, number] = _read(work, number, roster)
        found = [self._known[attestor, number] for number in numbers]
        return sorted((each for each in found if each is not None), key=lambda each: each.time)


def plots(statements: Sequence[Statement]) -> Sequence[Plot]:
    """A plot for each asset of the newest statement that at least two of them name."""
    points: dict[str, list[Point]] = {}
    for each in statements:
        for row in each.coverage:
            points.setdefault(row.asset, []).append(Point(each.time, row.reserves, liabilities(row), surplus(row)))
    newest = [row.asset for row in statements[-1].coverage] if statements else []
    return [Plot(asset, points[asset]) for asset in newest if len(points[asset]) > 1]


def _read(work: UnitOfWork, number: int, roster: Roster) -> Statement | None:
    body: Mapping[str, object] | None
    try:
        body = work.listing.document(STATEMENTS, number)
        signed = Signed.from_json(Statement, None if body is None else dict(body))
    except InvalidInput:
        return None
    return None if [*verify_signature(signed, roster)] else signed.message
