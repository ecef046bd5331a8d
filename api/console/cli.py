# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead console serve`."""

from pathlib import Path
from typing import Annotated

import typer

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.settings import home_folder

app = typer.Typer(help="The treasury console.", no_args_is_help=True)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CONNECTIONS_MOST = 1024


@app.callback()
def console() -> None:
    """The treasury console."""


@app.command("serve")
def serve(
    origin: Annotated[
        str,
        typer.Option(envvar="BULKHEAD_ORIGIN", help="The one address that browsers use; passkeys are named for it."),
    ] = "",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 8490,
    host: Annotated[str, typer.Option(help="Address; loopback, behind whatever ends TLS.")] = "127.0.0.1",
    oidc_issuer: Annotated[
        str, typer.Option(help="An identity provider that may say who somebody is; it approves nothing.")
    ] = "",
    oidc_client: Annotated[str, typer.Option(help="This console's client id there.")] = "",
    oidc_secret_file: Annotated[Path | None, typer.Option(help="Its secret, where it has one.")] = None,
    oidc_claim: Annotated[
        str, typer.Option(help="The claim whose value is a person's id in the roster.")
    ] = "preferred_username",
    home: Annotated[
        str | None, typer.Option("--home", help="The deployment's folder; BULKHEAD_HOME or ./.bulkhead if not given.")
    ] = None,
) -> None:
    """Serve the pages until stopped."""
    import uvicorn

    from api.compose import open_parts
    from api.console.app import create_console
    from api.console.parts import ConsoleParts
    from api.deriving import RemoteDeriver
    from custody.settings import Settings

    if host not in _LOOPBACK:
        raise InvalidInput("host", Rule.MALFORMED, host, "a loopback address; a proxy in front ends TLS")
    named = origin or f"http://localhost:{port}"
    folder = home_folder(home)
    deriver = RemoteDeriver(Path(Settings.load(folder).deriver_socket))
    provider = None
    if oidc_issuer:
        from api.console.oidc import Provider

        secret = "" if oidc_secret_file is None else oidc_secret_file.read_text(encoding="ascii").strip()
        provider = Provider(oidc_issuer, oidc_client, secret, oidc_claim)
    application = create_console(ConsoleParts(open_parts(folder), named, deriver.decode, provider))
    typer.echo(f"the console is {named}", err=True)
    uvicorn.run(
        application,
        host=host,
        port=port,
        ws="none",
        proxy_headers=False,  # nothing is believed that a proxy says; the origin stands in the configuration
        server_header=False,
        access_log=False,
        log_level="warning",
        limit_concurrency=_CONNECTIONS_MOST,
        timeout_keep_alive=30,
    )
