# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wei that our Safes sent, block by block, from the events that SafeL2 itself logs.

SafeL2 logs `SafeMultiSigTransaction` before it executes and `ExecutionSuccess` or `ExecutionFailure` after, so a Safe's
events in one transaction nest like parentheses. A reverted call leaves no log. An inner deposit Safe logs its own
events. Outflows by a module are not counted: no module is ever enabled, and a Safe that has one is frozen by its state
(`safe_drift`).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_same_address
from eth_utils.crypto import keccak
from safe_eth.safe.multi_send import MultiSend

from custody.chains.evm import pins, wire
from custody.chains.evm.scan import Scan, chunks
from custody.rules.errors import Unavailable
from custody.rules.typed import ZERO_ADDRESS

_FIELDS: Final = "address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes,bytes"
_BEGIN: Final = keccak(text=f"SafeMultiSigTransaction({_FIELDS})")
_SUCCESS: Final = keccak(text="ExecutionSuccess(bytes32,uint256)")
_FAILURE: Final = keccak(text="ExecutionFailure(bytes32,uint256)")

Outflows = dict[tuple[str, int], int]
"""Wei by (Safe, height)."""


@dataclass(frozen=True, slots=True)
class SafeCall:
    """What one SafeTx did, as logged; `pays_gas_in_wei` where a refund would leave in native coin."""

    to: str
    value: int
    data: bytes
    delegate: bool
    pays_gas_in_wei: bool


def own_outflows(scan: Scan, watched: Sequence[str]) -> Outflows:
    """What each watched Safe sent to others in each block of the range."""
    events = ["0x" + topic.hex() for topic in (_BEGIN, _SUCCESS, _FAILURE)]
    by_transaction: defaultdict[tuple[str, bytes], list[wire.Log]] = defaultdict(list)
    for chunk in chunks(watched):
        for log in scan.logs([events], chunk):
            by_transaction[log.address, log.transaction].append(log)
    pinned: dict[str, bool] = {}

    def is_multisend(address: str, block: bytes) -> bool:
        if address not in pinned:
            pinned[address] = keccak(scan.client.code(address, wire.at_hash(block))) == pins.MULTISEND_CODE
        return pinned[address]

    sent: defaultdict[tuple[str, int], int] = defaultdict(int)
    for (safe, _), logs in by_transaction.items():
        sent[safe, logs[0].height] += _sent(safe, logs, is_multisend)
    return dict(sent)


def _sent(safe: str, logs: Sequence[wire.Log], is_multisend: Callable[[str, bytes], bool]) -> int:
    """Wei that one Safe sent in one transaction: its events in order, matched like parentheses."""
    total = 0
    open_calls: list[SafeCall] = []
    for log in logs:
        if log.topics[0] == _BEGIN:
            open_calls.append(_call(log))
            continue
        if not open_calls:
            raise Unavailable(f"outflows of {safe}", "its events do not pair; is this a SafeL2 1.4.1?")
        call = open_calls.pop()
        if log.topics[0] == _SUCCESS:
            total += _value(safe, call, batches=call.delegate and is_multisend(call.to, log.block))
        if call.pays_gas_in_wei:
            total += int.from_bytes(log.data)
    return total


def _value(safe: str, call: SafeCall, *, batches: bool) -> int:
    if not call.delegate:
        return 0 if is_same_address(call.to, safe) else call.value
    # A delegatecall to anything but the pinned code could have done what it liked: count nothing, so that at worst a
    # deposit in the same block is credited late, by people, and never too high.
    if not batches:
        return 0
    try:
        leaves = MultiSend.from_transaction_data(call.data)
    except (ValueError, AssertionError, DecodingError):
        return 0
    return sum(leaf.value for leaf in leaves if not is_same_address(leaf.to, safe))


def _call(log: wire.Log) -> SafeCall:
    try:
        read = decode(_FIELDS.split(","), log.data)
    except (DecodingError, OverflowError) as error:
        raise Unavailable(f"outflows of {log.address}", "its event is not that of SafeL2 1.4.1") from error
    to, value, data, operation, _, _, _, gas_token, _, _, _ = cast(
        "tuple[str, int, bytes, int, int, int, int, str, str, bytes, bytes]", read
    )
    return SafeCall(to, value, data, operation == 1, gas_token == ZERO_ADDRESS)
