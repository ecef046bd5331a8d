# SPDX-License-Identifier: AGPL-3.0-or-later
"""Coverage: for each asset what is held, owed and left by the attestor's newest statement, and how that went over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from api.console.desk import At, Desk
from api.console.plots import Plot, Remembered, plots
from api.console.registry import Page
from custody.rules.coverage import liabilities, surplus
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.statements import AssetCoverage, Statement

router = APIRouter()
PAGE = Page("coverage", "/coverage", "Coverage", router, 40)


@dataclass(frozen=True)
class AssetRow:
    """Law 2's arithmetic for one asset, in base units."""

    row: AssetCoverage
    owed: int
    left: int


@router.get("/coverage")
def get_coverage(desk: At) -> Response:
    """What the attestor last said of every asset, and what it said before."""
    told, why = _statement(desk)
    message = None if told is None else told.message
    rows = [] if message is None else [AssetRow(row, liabilities(row), surplus(row)) for row in message.coverage]
    return desk.show("coverage.html", statement=message, why=why, rows=rows, plots=_plots(desk))


def _statement(desk: Desk) -> tuple[Signed[Statement] | None, str]:
    """The newest statement as it was verified again; else why there is none, which is unknown and not zero."""
    try:
        return desk.parts.api.statements.latest(), ""
    except (Unavailable, Refused) as error:
        return None, str(error)


_REMEMBERED: Final = Remembered()


def _plots(desk: Desk) -> Sequence[Plot]:
    return plots(desk.store.read(lambda work: _REMEMBERED.statements(work, desk.roster)))
