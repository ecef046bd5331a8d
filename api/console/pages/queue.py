# SPDX-License-Identifier: AGPL-3.0-or-later
"""The queue: what waits for me, for others, for time."""

from fastapi import APIRouter
from starlette.responses import Response

from api.console.desk import At
from api.console.registry import Page

router = APIRouter()
PAGE = Page("queue", "/queue", "Queue", router, 10)


@router.get("/queue")
def get_queue(desk: At) -> Response:
    """Everything under way, sorted by whom or what it waits for."""
    return desk.show("queue.html")
