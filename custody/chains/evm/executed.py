# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a mined SafeTx did, from its block, its receipt and the Safe's own events: nothing is taken from a journal.

SafeL2 logs every field of a SafeTx before it runs it, and its hash afterwards; the hash is computed again from the fields. The
events decide, as in `following.py`, not `to` and not the receipt's status: whoever carries a signed SafeTx may wrap it. Which
Safe is the wallet's is told by its address, derived from certificates: anybody can make a Safe of his own, void a nonce in it,
and say that it was ours.

A native payment is proven by the call and the success of the whole (every gas field is zero, so that no inner call may fail);
a token's by its Transfer event as well, because a token may answer false and move nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from custody.chains.evm import pins, wire
from custody.chains.evm.client import EvmClient
from custody.chains.evm.decode import CALL, DELEGATECALL, EXECUTE, MULTI_SEND, TRANSFER, safe_tx_hash
from custody.rules.amounts import AssetKind, Assets
from custody.rules.errors import Unavailable
from custody.rules.executions import Execution, Moved, check_execution, wallet_account
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account
from custody.rules.origins import Executed
from custody.rules.payouts import SafeTx, void_safe_tx
from custody.rules.provenance import HoldingOf
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Address, Chain

_FIELDS: Final = (
    "address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes", "bytes",
)  # fmt: skip
_EXECUTE: Final = _FIELDS[:-1]
_BEGIN: Final = keccak(text=f"SafeMultiSigTransaction({','.join(_FIELDS)})")
_SUCCESS: Final = keccak(text="ExecutionSuccess(bytes32,uint256)")
_FAILURE: Final = keccak(text="ExecutionFailure(bytes32,uint256)")
_TRANSFERRED: Final = keccak(text="Transfer(address,address,uint256)")


@dataclass(frozen=True, slots=True)
class _Run:
    """One SafeTx of the wallet's, with every log between its first and its last."""

    tx: SafeTx
    succeeded: bool
    inside: tuple[wire.Log, ...]


def confirm_executed(
    client: EvmClient, assets: Assets, executed: Executed, intents: Sequence[TransferIntent], holding_of: HoldingOf
) -> Refusal | None:
    """See `PayoutReader`; that the block is canonical was asked before. State of old blocks is not needed."""
    try:
        run = _find(executed, _receipt(client, executed), holding_of)
        found = _Reading(client, assets, executed, run, holding_of).execution()
    except Refused as error:
        return error.refusals[0]
    return check_execution(executed, intents, found, holding_of)


def _receipt(client: EvmClient, executed: Executed) -> list[wire.Log]:
    """The transaction's logs. Raises Refused where its block does not hold it, Unavailable where the node contradicts itself."""
    name, only_hashes = "0x" + executed.transaction.hex(), False
    block = client.call("eth_getBlockByHash", "0x" + executed.block.hex(), only_hashes)
    listed = block.get("transactions") if isinstance(block, Mapping) else None
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise Unavailable(f"block {executed.block.hex()}", "the node does not list its transactions")
    if executed.transaction not in {wire.data(each, "transaction", 32) for each in listed}:
        raise _refused("transaction", executed.transaction.hex(), "a transaction of that block")
    receipt = client.call("eth_getTransactionReceipt", name)
    if not isinstance(receipt, Mapping) or wire.data(receipt.get("blockHash"), "receipt block", 32) != executed.block:
        raise Unavailable(f"transaction {name}", "its block and its receipt are in two places")
    return sorted(wire.logs(receipt.get("logs")), key=lambda log: log.index)


def _find(executed: Executed, logs: Sequence[wire.Log], holding_of: HoldingOf) -> _Run:
    """The wallet's own SafeTx at the anchor's nonce. Raises Refused where this transaction did not run it.

    Events of the wallet's Safes nest like parentheses. Only the outermost count: a deposit Safe has nonces too, and runs inside
    its omnibus, which is its only owner.
    """
    ours = wallet_account(executed)
    safes = {log.address for log in logs if _is_ours(executed.chain, log.address, ours, holding_of)}
    started: list[int] = []
    used: list[int] = []
    for at, log in enumerate(logs):
        event = log.topics[0] if log.topics and log.address in safes else b""
        if event == _BEGIN:
            started.append(at)
        elif event in {_SUCCESS, _FAILURE}:
            if not started or logs[started[-1]].address != log.address or len(log.topics) != 2:
                raise Unavailable(f"events of {log.address}", "they do not pair; is this a SafeL2 1.4.1?")
            first = started.pop()
            if started:
                continue
            tx = _safe_tx(executed.chain, logs[first])
            used.append(tx.nonce)
            if str(tx.nonce) == executed.anchor.reference:
                if safe_tx_hash(tx) != log.topics[1]:
                    raise Unavailable(f"events of {log.address}", "its SafeTx has not the hash that it says")
                return _Run(tx, event == _SUCCESS, tuple(logs[first : at + 1]))
    raise _refused("anchor", executed.anchor.reference, f"one of {used}, which this transaction used of the wallet")


def _is_ours(chain: str, address: str, wallet: Account, holding_of: HoldingOf) -> bool:
    holding = holding_of(_address(chain, address))
    return holding is not None and holding.wallet == wallet


def _safe_tx(chain: str, log: wire.Log) -> SafeTx:
    try:
        read = decode(_FIELDS, log.data)
        (nonce, _, _) = decode(["uint256", "address", "uint256"], read[-1])
    except (DecodingError, OverflowError) as error:
        raise Unavailable(f"events of {log.address}", "they are not those of SafeL2 1.4.1") from error
    to, value, data, operation, safe_gas, base_gas, price, token, receiver = cast(
        "tuple[str, int, bytes, int, int, int, int, str, str]", read[:9]
    )
    return SafeTx(
        chain, log.address, _spelled(to), value, data, operation, safe_gas, base_gas, price, token, receiver, int(nonce)
    )


@dataclass
class _Reading:
    """Reads one SafeTx leaf by leaf. Raises Refused for whatever a payout cannot be made of."""

    client: EvmClient
    assets: Assets
    executed: Executed
    run: _Run
    holding_of: HoldingOf
    payments: list[Moved] = field(default_factory=list)
    returned: list[Moved] = field(default_factory=list)
    transferred: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    """Transfers that the calldata tells, by (contract, from, to, units)."""
    swept: Counter[str] = field(default_factory=Counter)

    def execution(self) -> Execution:
        """Everything that it did; the relayer paid the gas."""
        tx = self.run.tx
        source = self.holding_of(_address(tx.chain, tx.safe))
        if source is None:
            raise _refused("anchor.wallet", tx.safe, "a Safe of ours")
        if (tx.gas_price, tx.gas_token, tx.refund_receiver) != (0, ZERO_ADDRESS, ZERO_ADDRESS):
            raise _refused("transaction", "a refund out of the Safe", "none")  # a payment that no leaf shows
        void = not self.run.succeeded or tx == void_safe_tx(tx.chain, tx.safe, tx.nonce)
        if not void:
            self._leaves()
            self._check_events()
        return Execution(source, tuple(self.payments), tuple(self.returned), 0, void)

    def _leaves(self) -> None:
        tx = self.run.tx
        if (tx.safe_tx_gas, tx.base_gas) != (0, 0):
            raise _refused("safeTxGas", tx.safe_tx_gas, "zero, or an inner call may have failed")
        if tx.operation == CALL:
            self._call(tx.to, tx.value, tx.data)
            return
        # By its code as it stands: that contract cannot destroy itself, and state of old blocks is what few nodes keep.
        if tx.operation != DELEGATECALL or keccak(self.client.code(tx.to)) != pins.MULTISEND_CODE or tx.value:
            raise _refused("transaction", f"operation {tx.operation} to {tx.to}", "MultiSendCallOnly, or operation 0")
        (packed,) = _arguments(tx.data, MULTI_SEND, ["bytes"])
        for to, value, data in _batch(cast("bytes", packed)):
            self._call(to, value, data)

    def _call(self, to: str, value: int, data: bytes) -> None:
        """One call of the wallet's Safe: a sweep of a deposit Safe of its own, or a payment."""
        tx = self.run.tx
        if data[:4] != EXECUTE:
            self.payments.append(self._moved(tx.safe, to, value, data))
            return
        if to == tx.safe or not _is_ours(tx.chain, to, wallet_account(self.executed), self.holding_of) or value:
            raise _refused("transaction", f"a call of {to}", "a deposit Safe of the wallet's")
        inner = _arguments(data, EXECUTE, _EXECUTE)
        target, units, call, operation, safe_gas, base_gas, price = cast(
            "tuple[str, int, bytes, int, int, int, int]", inner[:7]
        )
        swept = self._moved(to, _spelled(target), units, call)
        if (operation, safe_gas, base_gas, price) != (CALL, 0, 0, 0) or swept.to.text != tx.safe:
            raise _refused("transaction", f"{to} pays {swept.to}", f"a sweep into {tx.safe}")
        self.returned.append(swept)
        self.swept[to] += 1

    def _moved(self, source: str, to: str, value: int, data: bytes) -> Moved:
        """A native transfer with empty data, or exactly `transfer(address,uint256)` of a token of the registry."""
        chain = self.client.chain
        if to == self.run.tx.safe and source == to:
            raise _refused("transaction", "the Safe calls itself", "payments")
        for asset in self.assets.on(chain):
            if asset.kind is AssetKind.NATIVE and not data and value > 0:
                return Moved(asset.symbol, value, _address(chain.name, to))
            if asset.contract is not None and asset.contract.text == to and data and not value:
                receiver, units = cast("tuple[str, int]", _arguments(data, TRANSFER, ["address", "uint256"]))
                self.transferred[to, source, _spelled(receiver), units] += 1
                return Moved(asset.symbol, units, _address(chain.name, receiver))
        raise _refused("transaction", f"{value} wei and {len(data)} bytes to {to}", "an asset of the registry")

    def _check_events(self) -> None:
        """What calls of contracts did, by the contracts' own events; a call of an address without code succeeds too."""
        logged = Counter(
            (log.address, wire.word_address(log.topics[1]), wire.word_address(log.topics[2]), int.from_bytes(log.data))
            for log in self.run.inside
            if len(log.topics) == 3 and len(log.data) == 32 and log.topics[0] == _TRANSFERRED
        )
        for contract, source, to, units in (self.transferred - logged).elements():
            raise _refused("transfer", "no event of it", f"{units} of {contract} from {source} to {to}")
        done = Counter(log.address for log in self.run.inside if log.topics and log.topics[0] == _SUCCESS)
        for deposit in (self.swept - done).elements():
            raise _refused("sweep", "no ExecutionSuccess", f"one by deposit Safe {deposit}")


def _batch(packed: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(to, value, data) of each packed call; the contract itself takes no delegatecall."""
    position = 0
    while position < len(packed):
        head = packed[position : position + 85]
        end = position + 85 + int.from_bytes(head[53:85])
        if len(head) < 85 or end > len(packed) or head[0] != CALL:
            raise _refused("multiSend", packed.hex()[:80], "whole plain calls")
        yield _spelled("0x" + head[1:21].hex()), int.from_bytes(head[21:53]), packed[position + 85 : end]
        position = end


def _arguments(data: bytes, selector: bytes, types: Sequence[str]) -> tuple[object, ...]:
    """A call's arguments, if these bytes are exactly what they encode to."""
    try:
        arguments = tuple(decode(types, data[4:])) if data[:4] == selector else ()
    except (DecodingError, OverflowError):
        arguments = ()
    if not arguments or selector + encode(types, arguments) != data:
        raise _refused("transaction", f"call {data[:4].hex()} of {len(data)} bytes", f"canonical ({', '.join(types)})")
    return arguments


def _refused(field: str, got: object, want: str) -> Refused:
    return Refused([Refusal(Rule.ORIGIN, field=field, got=got, want=want)])


def _spelled(address: str) -> str:
    return str(to_checksum_address(address))


def _address(chain: str, address: str) -> Address:
    return Address(Chain(chain), _spelled(address))
