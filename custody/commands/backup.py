# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead backup write | verify`: everything public that recovery needs, in one file, and its check with no network."""

from pathlib import Path
from typing import Annotated

import typer

from custody.commands.common import Home, home, open_signer, out, write_json

app = typer.Typer(
    help="Write everything public that recovery needs to one file; check such a file from genesis, with no network.",
    no_args_is_help=True,
)


@app.command("write")
def write(
    target: Annotated[Path, typer.Argument(help="Where to write it.")],
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Your key file: sign the digest, so that a stranger's file is told apart."),
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File with your key's password.")
    ] = None,
    home_option: Home = None,
) -> None:
    """Genesis, rosters, certificates, bindings, enrolments, bundles, heads. No secret is in it; customers' ids are."""
    from custody.backing import compose, message_of, verify
    from custody.bootstrap import open_deployment

    deployment = open_deployment(home(home_option), read_only=True)
    body = compose(deployment)
    message = message_of(body)
    digest = deployment.roster.domain.digest(message)
    signatures = () if key is None else (open_signer(key, password_file).sign(digest),)
    found = verify(body, signatures, deployment.genesis)
    write_json(target, {"backup": body, "signatures": [each.to_json() for each in signatures]})
    out.print(f"digest 0x{found.digest.hex()}", markup=False)
    by = ", ".join(found.signers) or "nobody: give --key"
    out.print(f"signed by {by}; " + ", ".join(f"{n} {name}" for name, n in found.counts.items()), markup=False)


@app.command("verify")
def check(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    genesis: Annotated[str, typer.Option("--genesis", help="As you were told it: 0x and 64 hex digits.")],
) -> None:
    """Check everything in it from genesis on, with no network and no deployment, and list what holds coins."""
    from custody.backing import read_backup, verify
    from custody.commands.common import read_hash

    body, signatures = read_backup(file)
    found = verify(body, signatures, read_hash(genesis, "genesis"))
    for wallet in found.inventory:
        for signed in wallet.certificates:
            certificate = signed.message
            at = certificate.safe[0].address if certificate.safe else certificate.script[0].descriptor
            seats = ", ".join(each.key.seat for each in certificate.seats)
            told = f"{certificate.label} on {certificate.chain}: {certificate.m} of {certificate.n} ({seats}), {at}"
            out.print(told, markup=False, soft_wrap=True)
    out.print(f"digest 0x{found.digest.hex()}", markup=False)
    by = ", ".join(found.signers) or "nobody"
    out.print(f"signed by {by}; " + ", ".join(f"{n} {name}" for name, n in found.counts.items()), markup=False)
