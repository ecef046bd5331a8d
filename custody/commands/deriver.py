# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead deriver serve`: derives addresses from certificates for the API, which may not reach chains itself.

No key, no node, no database: a certificate in, an address out. It stands apart so that the web process's closure stays without
chain code (DESIGN.md, arrows), and so that whoever takes the web process has not taken the derivation with it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from custody.commands.common import Home, home, out, read_hash

if TYPE_CHECKING:
    from custody.answers import Handler
    from custody.flows.ports import AddressDeriver
    from custody.rules.amounts import Assets

app = typer.Typer(help="The process that derives addresses for the API.", no_args_is_help=True)

_DIGITS = 10
_CERTIFICATES_MOST = 256
_COLUMNS = 5


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
    """Three verbs: `derive` {certificate, branch, index}, `main` {certificate}, `decode` {unsigned, wallet, certificates, assets}."""
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

    return {"derive": one, "main": main, "decode": _decode}


def _decode(body: object) -> object:
    """What an unsigned payload does, for a page that shows it as a draft; or why it cannot be read. No seat asks this."""
    from custody.answers import read_body, read_text
    from custody.chains.payloads import decode
    from custody.rules.certificates import WalletCertificate
    from custody.rules.errors import InvalidInput
    from custody.rules.payments import UnsignedPayout
    from custody.rules.payouts import DecodedPayload, Surroundings
    from custody.rules.refusals import Rule

    unsigned, wallet, certificates, registry = read_body(body, "unsigned", "wallet", "certificates", "assets")
    if not isinstance(certificates, list) or not 1 <= len(certificates) <= _CERTIFICATES_MOST:
        raise InvalidInput("certificates", Rule.MALFORMED, type(certificates).__name__, "a list, the signing one first")
    signing, *others = (WalletCertificate.from_json(each) for each in certificates)
    named, payload = read_hash(read_text(wallet, "wallet"), "wallet"), UnsignedPayout.from_json(unsigned).payload
    found = decode(payload, Surroundings(named, signing, _assets(registry), tuple(others)))
    if not isinstance(found, DecodedPayload):
        return {"refusals": [str(refusal) for refusal in found]}
    leaves = [[leaf.kind.value, leaf.asset, str(leaf.units), leaf.destination] for leaf in found.leaves]
    return {
        "anchor": found.anchor.reference,
        "native": found.native,
        "fee": str(found.fee),
        "leaves": leaves,
        "inputs": [[spent.outpoint, str(spent.units)] for spent in found.inputs],
        "digests": [digest.hex() for digest in found.digests],
    }


def _assets(rows: object) -> "Assets":
    """The registry of whoever asks: rows of symbol, chain, kind, decimals and contract (or nothing)."""
    from custody.rules.amounts import Asset, AssetKind, Assets
    from custody.rules.errors import InvalidInput
    from custody.rules.refusals import Rule
    from custody.rules.wallets import Address, Chain

    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == _COLUMNS for row in rows):
        raise InvalidInput("assets", Rule.MALFORMED, type(rows).__name__, "rows of five columns")
    found = []
    for symbol, chain, kind, decimals, contract in rows:
        if kind not in set(AssetKind) or not str(decimals).isdecimal():
            raise InvalidInput("assets", Rule.MALFORMED, repr((kind, decimals))[:80], "a kind and a whole number")
        place = None if contract is None else Address.parse(Chain(str(chain)), str(contract))
        found.append(Asset(str(symbol), Chain(str(chain)), AssetKind(kind), int(str(decimals)[:3]), place))
    return Assets(tuple(found), dict.fromkeys((asset.chain for asset in found), 1))
