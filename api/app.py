# SPDX-License-Identifier: AGPL-3.0-or-later
"""The web application: `create_app(parts)`. It can propose and record; it holds nothing that can sign (DESIGN.md, zones of trust)."""

from typing import Final

from fastapi import FastAPI

from api import problems
from api.gate import HEALTH, WRITES_MOST, Gate
from api.idempotency import Answers
from api.openapi import ROUTERS, Described
from api.parts import ApiParts
from api.replays import Window
from api.routes.common import Json

VERSION: Final = "1"


def create_app(parts: ApiParts, writes_most: int = WRITES_MOST) -> FastAPI:
    """The API over ports that are handed in. Everything but health is behind the gate, the description of the API too."""
    app = Described(title="Bulkhead", version=VERSION, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.router.redirect_slashes = False  # a redirect would ask for another target than was signed
    app.state.parts = parts
    app.state.answers = Answers()
    window = Window(parts.begun)
    problems.install(app)

    @app.get(HEALTH, tags=["health"])
    def health() -> Json:
        """Whether this process answers, and whether it takes requests yet; nothing else, because anybody may ask."""
        return {"status": "ok", "ready": window.ready(parts.wall())}

    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Gate, parts=parts, window=window, most=writes_most)
    return app
