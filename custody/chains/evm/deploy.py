# SPDX-License-Identifier: AGPL-3.0-or-later
"""Safe v1.4.1 on a chain that has none, the check of the code that is there, and the birth of one Safe.

The sender pays gas and gains nothing: a Safe's address fixes its owners, so anybody may deploy it, and one that is
already there with the same code counts as success.
"""

from collections.abc import Callable, Iterator
from typing import Final

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from safe_eth.eth.contracts import (
    get_compatibility_fallback_handler_V1_4_1_contract,
    get_multi_send_call_only_V1_4_1_contract,
    get_proxy_factory_V1_4_1_contract,
    get_safe_V1_4_1_contract,
)
from web3 import Web3
from web3.contract import Contract

from custody.chains.evm import pins, safes, wire
from custody.chains.evm.client import EvmClient, NodeRefused
from custody.chains.evm.safes import SafeContracts
from custody.chains.evm.transactions import send
from custody.rules.certificates import SafeParameters
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refusal, Rule, raise_if

_CREATE: Final = keccak(text="createProxyWithNonce(address,bytes,uint256)")[:4]


def deploy_contracts(client: EvmClient, deployer: LocalAccount) -> SafeContracts:
    """Deploy SafeL2, SafeProxyFactory, CompatibilityFallbackHandler and MultiSendCallOnly from safe-eth-py's bytecode.

    About 7.2 million gas. Raises Refused(code_hash_mismatch) if what stands there afterwards is not Safe v1.4.1.
    """

    def deploy(contract_of: Callable[[Web3], Contract]) -> tuple[str, bytes]:
        address = deploy_code(client, deployer, HexBytes(contract_of(Web3()).constructor().data_in_transaction))
        return address, keccak(client.code(address))

    contracts = SafeContracts(
        *deploy(get_safe_V1_4_1_contract),
        *deploy(get_proxy_factory_V1_4_1_contract),
        *deploy(get_compatibility_fallback_handler_V1_4_1_contract),
        *deploy(get_multi_send_call_only_V1_4_1_contract),
    )
    raise_if(verify_contracts(client, contracts))
    return contracts


def verify_contracts(client: EvmClient, contracts: SafeContracts) -> Iterator[Refusal]:
    """The stated hashes are the pinned ones, and the chain has exactly that code at these addresses."""
    yield from safes.check_code(contracts)
    there = {
        "singleton": (contracts.singleton, contracts.singleton_code),
        "factory": (contracts.factory, contracts.factory_code),
        "handler": (contracts.handler, contracts.handler_code),
        "multisend": (contracts.multisend, contracts.multisend_code),
    }
    for name, (address, stated) in there.items():
        found = keccak(client.code(address))
        if found != stated:
            yield Refusal(Rule.CODE_HASH, of=name, address=address, got=found.hex(), want=stated.hex())


def deploy_safe(client: EvmClient, sender: LocalAccount, parameters: SafeParameters) -> bytes | None:
    """Deploy one Safe through its factory; the transaction's hash, or None where it was there already.

    Raises Refused(address_does_not_derive_from_certificate, code_hash_mismatch), or Unavailable when the outcome is
    unknown.
    """
    raise_if(_derives(parameters))
    if client.code(parameters.address):
        raise_if(check_deployed(client, parameters))
        return None
    call = _CREATE + encode(
        ["address", "bytes", "uint256"], [parameters.singleton, parameters.initializer, parameters.salt]
    )
    try:
        receipt = send(client, sender, parameters.factory, call)
    except NodeRefused:
        # The gas estimate reverts when somebody else deployed it since we looked.
        if not client.code(parameters.address):
            raise
        raise_if(check_deployed(client, parameters))
        return None
    if not receipt.succeeded and not client.code(parameters.address):
        raise Unavailable(f"Safe {parameters.address}", f"transaction {receipt.transaction.hex()} reverted")
    raise_if(check_deployed(client, parameters))
    return receipt.transaction if receipt.succeeded else None


def deploy_code(client: EvmClient, deployer: LocalAccount, creation_code: bytes) -> str:
    """Make one contract; its address. Raises NodeRefused where the constructor reverts."""
    receipt = send(client, deployer, None, creation_code)
    if not receipt.succeeded or receipt.contract is None:
        raise Unavailable("contract", f"transaction {receipt.transaction.hex()} reverted")
    return receipt.contract


def _derives(parameters: SafeParameters) -> Iterator[Refusal]:
    derived = safes.proxy_address(parameters.factory, parameters.singleton, parameters.initializer, parameters.salt)
    if derived != parameters.address:
        yield Refusal(Rule.ADDRESS_MISMATCH, got=parameters.address, want=derived)


def check_deployed(client: EvmClient, parameters: SafeParameters) -> Iterator[Refusal]:
    """What stands at a Safe's address is SafeProxy v1.4.1 and points at its singleton (slot 0)."""
    code, slot = client.batch(
        [
            ("eth_getCode", (parameters.address, "latest")),
            ("eth_getStorageAt", (parameters.address, "0x0", "latest")),
        ]
    )
    found = keccak(wire.data(code, "code"))
    if found != pins.PROXY_CODE:
        yield Refusal(
            Rule.CODE_HASH, of="proxy", address=parameters.address, got=found.hex(), want=pins.PROXY_CODE.hex()
        )
    singleton = wire.word_address(wire.data(slot, "slot 0", 32))
    if singleton != parameters.singleton:
        yield Refusal(
            Rule.CODE_HASH, of="singleton", address=parameters.address, got=singleton, want=parameters.singleton
        )
