# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the relayer's key may sign: zero-value calls to certified Safes and to their factory, under its cap (TRUST.md)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from custody.rules.certificates import WalletCertificate
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Relayer
from custody.rules.typed import ZERO_ADDRESS, Bytes, EvmHex, Struct, Uint64, Uint256

EXEC_TRANSACTION: Final = bytes.fromhex("6a761202")
"""Selector of Safe's execTransaction (Safe 1.4.1 ABI)."""
CREATE_PROXY: Final = bytes.fromhex("1688f0b9")
"""Selector of the factory's createProxyWithNonce(address,bytes,uint256) (Safe 1.4.1 ABI)."""
SETUP: Final = bytes.fromhex("b63e800d")
"""Selector of Safe's setup(address[],uint256,address,bytes,address,address,uint256,address) (Safe 1.4.1 ABI)."""
_SETUP: Final = ("address[]", "uint256", "address", "bytes", "address", "address", "uint256", "address")


@dataclass(frozen=True, slots=True)
class RelayCall(Struct):
    """An EIP-1559 transaction of the relayer, before its signature. Fees in wei per gas."""

    chain: str
    nonce: Uint64
    to: EvmHex
    value: Uint256
    data: Bytes
    gas: Uint64
    max_fee_per_gas: Uint256
    max_priority_fee_per_gas: Uint256


def deploy_call_data(certificate: WalletCertificate) -> bytes:
    """The one call that deploys a certified Safe through its factory."""
    safe = certificate.safe[0]
    arguments = encode(["address", "bytes", "uint256"], [safe.singleton, safe.initializer, safe.salt])
    return CREATE_PROXY + bytes(arguments)


def deposit_call_data(certificate: WalletCertificate, index: int) -> bytes:
    """The one call that deploys a deposit Safe of a certified Safe: its only owner is that Safe, its salt the index."""
    safe = certificate.safe[0]
    none = ZERO_ADDRESS
    setup = SETUP + encode(_SETUP, [[safe.address], 1, none, b"", safe.handler, none, 0, none])
    return CREATE_PROXY + bytes(encode(["address", "bytes", "uint256"], [safe.singleton, setup, index]))


def _deploys_deposit(data: bytes, certificate: WalletCertificate) -> bool:
    if data[:4] != CREATE_PROXY:
        return False
    try:
        _, _, index = decode(["address", "bytes", "uint256"], data[4:])
    except (DecodingError, OverflowError):
        return False
    return data == deposit_call_data(certificate, index)


def check_call(call: RelayCall, certificate: WalletCertificate, relayer: Relayer) -> Iterator[Refusal]:
    """A call for one certified Safe: no value, its own execTransaction, its deployment or a deposit Safe's, gas within the cap.

    The certificate must have been verified before; this only compares.
    """
    if not certificate.safe or certificate.chain != call.chain or relayer.chain != call.chain:
        yield Refusal(Rule.WRONG_NETWORK, call=call.chain, certificate=certificate.chain, relayer=relayer.chain)
        return
    if call.value:
        yield Refusal(Rule.RELAYER_VALUE, value=call.value, want=0)
    safe = certificate.safe[0]
    executes = call.to.lower() == safe.address.lower() and call.data[:4] == EXEC_TRANSACTION
    deploys = call.to.lower() == safe.factory.lower() and (
        call.data == deploy_call_data(certificate) or _deploys_deposit(call.data, certificate)
    )
    if not executes and not deploys:
        yield Refusal(
            Rule.RELAYER_TARGET, to=call.to, selector=call.data[:4].hex(), want="a certified Safe or its deployment"
        )
    if call.gas * call.max_fee_per_gas > relayer.cap:
        yield Refusal(Rule.RELAYER_CAP, at_most=call.gas * call.max_fee_per_gas, cap=relayer.cap)
