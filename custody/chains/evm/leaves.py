# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a Safe is told to do: payments and sweeps as calls, one alone or several through MultiSendCallOnly.

The builder's side. The decoder (`decode.py`) reads the same bytes with code of its own, so nothing here is imported there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from safe_eth.safe.multi_send import MultiSendOperation, MultiSendTx
from safe_eth.safe.safe_tx import SafeTx as LibrarySafeTx

from custody.chains.evm.safes import deposit_safe
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.payments import Payment, Sweep
from custody.rules.payouts import SafeTx, void_safe_tx
from custody.rules.refusals import Rule
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Chain

VERSION: Final = "1.4.1"
_EXECUTE: Final = (
    "address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "bytes",
)  # fmt: skip
_EXECUTE_SELECTOR: Final = keccak(text=f"execTransaction({','.join(_EXECUTE)})")[:4]
_HASH: Final = (*_EXECUTE[:-1], "uint256")
_HASH_SELECTOR: Final = keccak(text=f"getTransactionHash({','.join(_HASH)})")[:4]
_MULTI_SEND_SELECTOR: Final = keccak(text="multiSend(bytes)")[:4]
_TRANSFER_SELECTOR: Final = keccak(text="transfer(address,uint256)")[:4]


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a Safe makes; `name` says whose it is, for a person who reads why it fails."""

    name: str
    to: str
    value: int
    data: bytes
    token: bool = False


def payment_call(payment: Payment, assets: Assets, chain: Chain) -> Call:
    """A native transfer with empty data, or exactly `transfer(address,uint256)`. Raises InvalidInput."""
    if payment.destination.chain != chain:
        raise InvalidInput("destination", Rule.WRONG_NETWORK, str(payment.destination.chain), str(chain))
    name = f"intent {payment.intent.hex()}"
    return _move(name, _asset(payment.asset, assets, chain), payment.destination.text, payment.units)


def sweep_call(sweep: Sweep, certificate: WalletCertificate, assets: Assets) -> Call:
    """The deposit Safe's own `execTransaction`, sent by its only owner, paying that owner.

    The pre-validated signature (r = owner, s = 0, v = 1) holds because the owner itself is the caller (Safe 1.4.1,
    `checkNSignatures`); whoever else sends it gets GS025.
    """
    chain, omnibus = Chain(certificate.chain), certificate.safe[0].address
    deposit = deposit_safe(certificate, sweep.index).text
    name = f"sweep of {sweep.asset} from deposit address {sweep.index}"
    inner = _move(name, _asset(sweep.asset, assets, chain), omnibus, sweep.units)
    owned = encode(["address", "uint256"], [omnibus, 0]) + b"\x01"
    data = execute_data(inner.to, inner.value, inner.data, 0, owned)
    return Call(name, deposit, 0, data)


def batch_data(calls: Sequence[Call]) -> bytes:
    """`multiSend(bytes)` of plain calls, each packed by safe-eth-py's encoder.

    Not its `build_tx_data`: that one fills in a transaction, for which web3 goes looking for a node of its own choice.
    """
    each = [MultiSendTx(MultiSendOperation.CALL, to_checksum_address(c.to), c.value, c.data) for c in calls]
    return _MULTI_SEND_SELECTOR + encode(["bytes"], [b"".join(bytes(leaf.encoded_data) for leaf in each)])


def safe_tx(certificate: WalletCertificate, nonce: int, calls: Sequence[Call]) -> SafeTx:
    """The one SafeTx of these calls: alone a plain call, several a batch. Every gas and refund field is zero."""
    if not calls:
        raise InvalidInput("payments", Rule.MALFORMED, "none", "at least one payment or sweep")
    safe = certificate.safe[0]
    if len(calls) == 1:
        to, value, data, operation = calls[0].to, calls[0].value, calls[0].data, 0
    else:
        to, value, data, operation = safe.multisend, 0, batch_data(calls), 1
    blank = void_safe_tx(certificate.chain, safe.address, nonce)
    return SafeTx(
        chain=blank.chain,
        safe=blank.safe,
        to=str(to_checksum_address(to)),
        value=value,
        data=data,
        operation=operation,
        safe_tx_gas=0,
        base_gas=0,
        gas_price=0,
        gas_token=ZERO_ADDRESS,
        refund_receiver=ZERO_ADDRESS,
        nonce=nonce,
    )


def library_hash(tx: SafeTx) -> bytes:
    """The SafeTx hash as safe-eth-py computes it; no node is asked."""
    known = LibrarySafeTx(
        None,  # type: ignore[arg-type]  # only asked for what is given below
        to_checksum_address(tx.safe),
        to_checksum_address(tx.to),
        tx.value,
        tx.data,
        tx.operation,
        tx.safe_tx_gas,
        tx.base_gas,
        tx.gas_price,
        to_checksum_address(tx.gas_token),
        to_checksum_address(tx.refund_receiver),
        safe_nonce=tx.nonce,
        safe_version=VERSION,
        chain_id=Chain(tx.chain).evm_id,
    )
    return bytes(known.safe_tx_hash)


def hash_question(tx: SafeTx) -> bytes:
    """The call of the contract's own `getTransactionHash`."""
    fields = [tx.to, tx.value, tx.data, tx.operation, tx.safe_tx_gas, tx.base_gas, tx.gas_price]
    return _HASH_SELECTOR + encode(_HASH, [*fields, tx.gas_token, tx.refund_receiver, tx.nonce])


def execute_data(to: str, value: int, data: bytes, operation: int, signatures: bytes) -> bytes:
    """The call of `execTransaction` with every gas and refund field zero."""
    fields = [to, value, data, operation, 0, 0, 0, ZERO_ADDRESS, ZERO_ADDRESS, signatures]
    return _EXECUTE_SELECTOR + encode(_EXECUTE, fields)


def _asset(symbol: str, assets: Assets, chain: Chain) -> Asset:
    asset = assets.get(symbol)
    if asset.chain != chain:
        raise InvalidInput("asset", Rule.WRONG_NETWORK, f"{symbol} on {asset.chain}", str(chain))
    return asset


def _move(name: str, asset: Asset, to: str, units: int) -> Call:
    if units <= 0:
        raise InvalidInput("units", Rule.NOT_POSITIVE, str(units), "more than zero")
    if asset.kind is AssetKind.NATIVE or asset.contract is None:
        return Call(name, to, units, b"")
    data = _TRANSFER_SELECTOR + encode(["address", "uint256"], [to, units])
    return Call(name, asset.contract.text, 0, data, token=True)
