# SPDX-License-Identifier: AGPL-3.0-or-later
"""A watch-only wallet on the node for one certificate: the inventory and PSBT building ask it; it holds no private key."""

import re
from typing import Final

from embit.descriptor.checksum import add_checksum  # type: ignore[import-untyped]

from custody.chains.bitcoin.blocks import read_hash
from custody.chains.bitcoin.rpc import (
    WALLET_LOADED,
    WALLET_NOT_FOUND,
    BitcoinRpc,
    Json,
    RpcError,
    as_int,
    as_list,
    as_object,
    as_text,
)
from custody.chains.bitcoin.scripts import CHANGE, INDEX_WINDOW, RECEIVE, check_script
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule, raise_if

_ALREADY_LOADING: Final = -4
_NAME: Final = re.compile(r"[A-Za-z0-9_:/-]{1,200}")


def watch_only(rpc: BitcoinRpc, wallet_name: str, certificate: WalletCertificate, window: int = INDEX_WINDOW) -> None:
    """Have the node watch both branches, indices 0 to window − 1, in a descriptor wallet of this name. Safe to repeat.

    A wider window widens what is watched. Raises Refused where `check_script` refuses, InvalidInput(name_reused) where the
    wallet of that name holds private keys or another descriptor, InvalidInput(wrong_network), Unavailable.
    """
    if certificate.chain != rpc.chain.name:
        raise InvalidInput("certificate.chain", Rule.WRONG_NETWORK, certificate.chain, rpc.chain.name)
    if _NAME.fullmatch(wallet_name) is None:  # the node makes a folder of this name
        raise InvalidInput("wallet_name", Rule.MALFORMED, repr(wallet_name), "letters, digits and _ : / -")
    raise_if(check_script(certificate))
    _open(rpc, wallet_name)
    wanted = {branch_descriptor(certificate, branch): branch for branch in (RECEIVE, CHANGE)}
    present = _present(rpc, wallet_name)
    if set(present) - set(wanted):
        raise InvalidInput(
            "wallet_name", Rule.NAME_REUSED, f"{wallet_name} with another descriptor", "a name of its own"
        )
    missing = [d for d in wanted if present.get(d, -1) < window - 1]
    if not missing:
        return
    since = _birth_time(rpc, certificate.birth)
    requests: list[Json] = []
    for text in missing:
        request: dict[str, Json] = {
            "desc": text,
            "active": True,
            "internal": wanted[text] == CHANGE,
            "range": [0, max(window - 1, present.get(text, 0))],
            "timestamp": since,
        }
        requests.append(request)
    for answer in as_list(rpc.call("importdescriptors", requests, wallet=wallet_name), "importdescriptors"):
        if as_object(answer, "importdescriptors").get("success") is not True:
            raise Unavailable("bitcoind", f"importdescriptors: {as_object(answer, 'importdescriptors').get('error')}")


def branch_descriptor(certificate: WalletCertificate, branch: int) -> str:
    """One branch of the certificate's descriptor, with its own checksum: what bitcoind imports.

    `getdescriptorinfo` of a descriptor with `<0;1>` answers only branch 0, so the two are spelled out here.
    """
    body = certificate.script[0].descriptor.partition("#")[0]
    return str(add_checksum(body.replace("/<0;1>/*", f"/{branch}/*")))


def _birth_time(rpc: BitcoinRpc, birth: int) -> int | str:
    """When the wallet's birth block was mined: the node looks for coins from there on. A birth ahead of the node is now."""
    block = read_hash(rpc, birth)
    if block is None:
        return "now"
    header = as_object(rpc.call("getblockheader", block.hex()), "getblockheader")
    return as_int(header.get("time"), "time")


def _open(rpc: BitcoinRpc, wallet_name: str) -> None:
    try:
        rpc.call("loadwallet", wallet_name)
    except RpcError as error:
        if error.code == WALLET_NOT_FOUND:
            # no private keys, blank, no passphrase, no avoid_reuse, descriptors
            rpc.call("createwallet", wallet_name, True, True, "", False, True)  # noqa: FBT003
        elif error.code not in {WALLET_LOADED, _ALREADY_LOADING}:
            raise
    info = as_object(rpc.call("getwalletinfo", wallet=wallet_name), "getwalletinfo")
    if info.get("private_keys_enabled") is not False:
        raise InvalidInput("wallet_name", Rule.NAME_REUSED, f"{wallet_name} with private keys", "a watch-only wallet")


def _present(rpc: BitcoinRpc, wallet_name: str) -> dict[str, int]:
    """Descriptors of the node's wallet and the highest index it watches of each."""
    answer = as_object(rpc.call("listdescriptors", wallet=wallet_name), "listdescriptors")
    present: dict[str, int] = {}
    for item in as_list(answer.get("descriptors"), "listdescriptors"):
        row = as_object(item, "listdescriptors")
        limits = as_list(row.get("range"), "range")
        end = limits[1]
        present[as_text(row.get("desc"), "desc")] = end if isinstance(end, int) else -1
    return present
