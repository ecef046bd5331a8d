# SPDX-License-Identifier: AGPL-3.0-or-later
"""A certified Safe as the chain has it at one block: what the attestor states for seats that have no node."""

from typing import Final

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from custody.chains.evm import pins, wire
from custody.chains.evm.client import EvmClient
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Rule
from custody.rules.statements import SafeState
from custody.rules.typed import ZERO_ADDRESS

_SINGLETON_SLOT: Final = "0x0"
_HANDLER_SLOT: Final = "0x" + keccak(text="fallback_manager.handler.address").hex()
_GUARD_SLOT: Final = "0x" + keccak(text="guard_manager.guard.address").hex()
_MODULES: Final = keccak(text="getModulesPaginated(address,uint256)")[:4]
_SENTINEL: Final = "0x" + "1".rjust(40, "0")
_PAGE: Final = 50
_PAGES: Final = 20


def read_safe(client: EvmClient, wallet: bytes, certificate: WalletCertificate, block: bytes) -> SafeState:
    """Read one Safe at a block hash; zeros where nothing is deployed.

    Raises Unavailable where other code than SafeProxy v1.4.1 stands there, or where its singleton does not answer as a
    Safe.
    """
    if len(certificate.safe) != 1:
        raise InvalidInput("certificate.safe", Rule.SCRIPT_MISMATCH, f"{len(certificate.safe)} Safes", "one Safe")
    address, at = certificate.safe[0].address, wire.at_hash(block)
    code = client.code(address, at)
    if not code:
        return _undeployed(wallet, certificate.chain, address)
    if keccak(code) != pins.PROXY_CODE:
        raise Unavailable(f"Safe {address}", f"its code has hash {keccak(code).hex()}, not SafeProxy's")
    singleton, handler, guard = (
        wire.word_address(wire.data(slot, "storage", 32))
        for slot in client.batch(
            [("eth_getStorageAt", (address, slot, at)) for slot in (_SINGLETON_SLOT, _HANDLER_SLOT, _GUARD_SLOT)]
        )
    )
    (owners,) = wire.abi(["address[]"], client.read(address, "getOwners()", at), f"owners of {address}")
    (threshold,) = wire.abi(["uint256"], client.read(address, "getThreshold()", at), f"threshold of {address}")
    (nonce,) = wire.abi(["uint256"], client.read(address, "nonce()", at), f"nonce of {address}")
    return SafeState(
        wallet=wallet,
        chain=certificate.chain,
        address=address,
        deployed=True,
        nonce=int(str(nonce)),
        owners=_spelled(owners),
        threshold=int(str(threshold)),
        singleton=singleton,
        handler=handler,
        guard=guard,
        modules=_modules(client, address, at),
    )


def _undeployed(wallet: bytes, chain: str, address: str) -> SafeState:
    return SafeState(
        wallet=wallet,
        chain=chain,
        address=address,
        deployed=False,
        nonce=0,
        owners=(),
        threshold=0,
        singleton=ZERO_ADDRESS,
        handler=ZERO_ADDRESS,
        guard=ZERO_ADDRESS,
        modules=(),
    )


def _modules(client: EvmClient, address: str, at: wire.BlockId) -> tuple[str, ...]:
    """Every enabled module, page by page; a list that does not end is `Unavailable`."""
    found: list[str] = []
    start = _SENTINEL
    for _ in range(_PAGES):
        call = {"to": address, "data": "0x" + (_MODULES + encode(["address", "uint256"], [start, _PAGE])).hex()}
        page, following = wire.abi(["address[]", "address"], client.call("eth_call", call, at), f"modules of {address}")
        found += _spelled(page)
        start = str(following)
        if start in (_SENTINEL, ZERO_ADDRESS):
            return tuple(found)
    raise Unavailable(f"modules of {address}", f"more than {_PAGE * _PAGES}")


def _spelled(addresses: object) -> tuple[str, ...]:
    if not isinstance(addresses, tuple):
        raise Unavailable("Safe", "it answered no list of addresses")
    return tuple(wire.word_address(bytes.fromhex(str(address)[2:])) for address in addresses)
