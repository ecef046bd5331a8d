# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead deriver serve`: derives addresses from certificates for the API, which may not reach chains itself.

No key, no node, no database: a certificate in, an address out. It stands apart so that the web process's closure stays without
chain code (DESIGN.md, arrows), and so that whoever takes the web process has not taken the derivation with it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from custody.commands.common import Home, home, out

if TYPE_CHECKING:
    from custody.answers import Handler
    from custody.flows.ports import AddressDeriver

app = typer.Typer(help="The process that derives addresses for the API.", no_args_is_help=True)

_DIGITS = 10


@app.callback()
def deriver() -> None:
    """The process that derives addresses for the API."""


@app.command("serve")
def serve(home_option: Home = None) -> None:
    """Serve until stopped, on the socket that settings name."""
    from custody import wire
    from custody.chains.addresses import ChainDeriver
    from custody.settings import Settings

    socket = Path(Settings.load(home(home_option)).deriver_socket)
    out.print(f"deriver on {socket}", markup=False)
    wire.serve(socket, deriver_handlers(ChainDeriver()))


def deriver_handlers(derive: "AddressDeriver") -> "Mapping[str, Handler]":
    """The two verbs: `derive` {certificate, branch, index} and `main` {certificate}."""
    from custody.answers import read_body, read_text
    from custody.flows.ports import Branch
    from custody.rules.certificates import WalletCertificate
    from custody.rules.errors import InvalidInput
    from custody.rules.refusals import Rule

    def one(body: object) -> object:
        certificate, branch, index = read_body(body, "certificate", "branch", "index")
        named, number = read_text(branch, "branch"), read_text(index, "index")
        if named not in Branch.__members__:
            raise InvalidInput("branch", Rule.MALFORMED, repr(named[:40]), " or ".join(Branch.__members__))
        if not (number.isascii() and number.isdecimal() and len(number) <= _DIGITS):
            raise InvalidInput("index", Rule.MALFORMED, repr(number[:40]), "a decimal index")
        return derive.derive(WalletCertificate.from_json(certificate), Branch[named], int(number)).text

    def main(body: object) -> object:
        address = derive.main(WalletCertificate.from_json(read_body(body, "certificate")[0]))
        return None if address is None else address.text

    return {"derive": one, "main": main}
