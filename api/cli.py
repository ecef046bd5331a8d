# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead api serve`."""

from typing import Annotated

import typer

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.settings import home_folder

app = typer.Typer(help="The REST API.", no_args_is_help=True)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@app.callback()
def api() -> None:
    """The REST API."""


@app.command("serve")
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = 8480,
    host: Annotated[str, typer.Option(help="Address; loopback, behind whatever ends TLS.")] = "127.0.0.1",
    home: Annotated[
        str | None, typer.Option("--home", help="The deployment's folder; BULKHEAD_HOME or ./.bulkhead if not given.")
    ] = None,
) -> None:
    """Serve until stopped. One process: the window of seen requests is its memory (docs/api.md)."""
    import uvicorn

    from api.app import create_app
    from api.compose import open_parts

    if host not in _LOOPBACK:
        raise InvalidInput("host", Rule.MALFORMED, host, "a loopback address; a proxy in front ends TLS")
    application = create_app(open_parts(home_folder(home)))
    uvicorn.run(
        application,
        host=host,
        port=port,
        ws="none",
        proxy_headers=False,  # a header of anybody's would change the scheme that signatures are checked against
        server_header=False,
        access_log=False,
        log_level="warning",
        h11_max_incomplete_event_size=32 * 1024,
        limit_concurrency=256,
        timeout_keep_alive=30,
    )
