# SPDX-License-Identifier: AGPL-3.0-or-later
"""Asks the nodes themselves, with none of custody's code: what the demonstration holds the coverage report against.

Addresses come as text from the inventory; everything else is a plain JSON-RPC call and addition.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from devnet.anvil import Anvil
from devnet.bitcoind import Bitcoind

_BALANCE_OF = "0x70a08231"


def ether(anvil: Anvil, addresses: Iterable[str]) -> int:
    """Wei at these addresses, at the finalized block."""
    return sum(int(str(anvil.rpc("eth_getBalance", address, "finalized")), 16) for address in addresses)


def tokens(anvil: Anvil, contract: str, addresses: Iterable[str]) -> int:
    """Base units of a token at these addresses, at the finalized block."""
    total = 0
    for address in addresses:
        call = {"to": contract, "data": _BALANCE_OF + address[2:].lower().rjust(64, "0")}
        total += int(str(anvil.rpc("eth_call", call, "finalized")), 16)
    return total


def bitcoin(bitcoind: Bitcoind, descriptors: Iterable[str], confirmations: int) -> int:
    """Satoshi that these descriptors' first 200 scripts of each branch hold, this many confirmations deep."""
    objects = [{"desc": branch, "range": 200} for d in descriptors for branch in _branches(bitcoind, d)]
    found: Any = bitcoind.rpc("scantxoutset", "start", objects)
    tip = int(found["height"])
    deep = [u for u in found["unspents"] if tip - int(u["height"]) + 1 >= confirmations]
    return sum(int(Decimal(u["amount"]) * 10**8) for u in deep)


def _branches(bitcoind: Bitcoind, descriptor: str) -> list[str]:
    body = descriptor.partition("#")[0]
    plain = [body.replace("<0;1>", branch) for branch in ("0", "1")]
    told: list[Any] = [bitcoind.rpc("getdescriptorinfo", d) for d in plain]
    return [str(answer["descriptor"]) for answer in told]
