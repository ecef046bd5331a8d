# SPDX-License-Identifier: AGPL-3.0-or-later
"""Trying a payout before anybody is asked to sign it: whether it goes through, and which leaf does not.

`simulate` of the Safe's fallback handler (StorageAccessible) runs MultiSendCallOnly in the Safe's own context and takes everything
back, so neither signatures nor the Safe's nonce matter, and a payout may be tried while others are still on their way.
"""

from collections.abc import Sequence
from typing import Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from custody.chains.evm import wire
from custody.chains.evm.client import EvmClient, NodeRefused
from custody.chains.evm.leaves import Call, batch_data
from custody.rules.certificates import SafeParameters
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refusal, Rule

_SIMULATE: Final = keccak(text="simulate(address,bytes)")[:4]
SIGNING_GAS: Final = 60_000
"""What checking signatures, the nonce and SafeL2's own log cost on top of a simulation, with room to spare."""


def simulate(client: EvmClient, safe: SafeParameters, calls: Sequence[Call]) -> Refusal | None:
    """None where all calls go through in their order; else a refusal that names the first that does not.

    A token that answers `false` instead of reverting counts as failing: nothing would be paid while the anchor is consumed.
    Raises Unavailable where the node does not answer.
    """
    return (
        _without_code(client, calls)
        or (None if _goes_through(client, safe, calls) else _failing(client, safe, calls))
        or _says_false(client, safe, calls)
    )


def estimate(client: EvmClient, safe: SafeParameters, calls: Sequence[Call]) -> int:
    """Gas of the whole payout, roughly and rather too high: that of the simulation, and of what signatures add."""
    fields = _question(safe, calls)
    return wire.quantity(client.call("eth_estimateGas", fields), "gas") * 11 // 10 + SIGNING_GAS


def _without_code(client: EvmClient, calls: Sequence[Call]) -> Refusal | None:
    """Calling an address without code succeeds and does nothing: an undeployed deposit Safe, or a token that is not there."""
    asked = list(dict.fromkeys(call.to for call in calls if call.data))
    codes = client.batch([("eth_getCode", (address, "latest")) for address in asked])
    empty = {address for address, code in zip(asked, codes, strict=True) if not wire.data(code, "code")}
    at = next((position for position, call in enumerate(calls) if call.data and call.to in empty), None)
    return None if at is None else _named(calls, at, "there is no code at its address")


def _question(safe: SafeParameters, calls: Sequence[Call]) -> dict[str, object]:
    data = _SIMULATE + encode(["address", "bytes"], [safe.multisend, batch_data(calls)])
    return {"to": safe.address, "data": "0x" + data.hex()}


def _goes_through(client: EvmClient, safe: SafeParameters, calls: Sequence[Call]) -> bool:
    try:
        client.call("eth_call", _question(safe, calls), "latest")
    except NodeRefused as error:
        if "revert" not in error.why.lower():  # a limit of the node's own says nothing about the payout
            raise
        return False
    return True


def _failing(client: EvmClient, safe: SafeParameters, calls: Sequence[Call]) -> Refusal:
    """The shortest beginning of the batch that fails ends with the leaf that fails: found by halving."""
    good, bad = 0, len(calls)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _goes_through(client, safe, calls[:middle]):
            good = middle
        else:
            bad = middle
    return _named(calls, bad - 1, "it reverts")


def _says_false(client: EvmClient, safe: SafeParameters, calls: Sequence[Call]) -> Refusal | None:
    for position, call in enumerate(calls):
        if not call.token:
            continue
        fields = {"from": safe.address, "to": call.to, "data": "0x" + call.data.hex()}
        try:
            answer = wire.data(client.call("eth_call", fields, "latest"), "transfer")
        except NodeRefused as error:
            if position == 0:  # nothing came before it, and the whole went through just now: the chain moved
                raise Unavailable(f"simulation of {call.name}", "two answers of the node differ") from error
            continue  # it lives on an earlier leaf's coins, such as a sweep's; together they went through
        if answer and not _is_true(answer):
            return _named(calls, position, f"the token answers 0x{answer[:32].hex()}")
    return None


def _is_true(answer: bytes) -> bool:
    try:
        (said,) = decode(["bool"], answer)
    except (DecodingError, OverflowError):
        return False
    return said is True


def _named(calls: Sequence[Call], position: int, why: str) -> Refusal:
    call = calls[position]
    told = {"to": call.to, "value": call.value, "data": call.data[:36].hex()}
    return Refusal(Rule.LEAF_FAILS, leaf=position, name=call.name, why=why, **told)
