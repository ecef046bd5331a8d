# SPDX-License-Identifier: AGPL-3.0-or-later
"""The code we trust on EVM chains: Safe v1.4.1, each contract by the keccak256 of its runtime code.

The hashes stand in safe-global/safe-deployments (src/assets/v1.4.1, `codeHash`) and equal those of the bytecode that
safe-eth-py ships, and of the code on a chain after `deploy.deploy_contracts`: the tests compare all three.
"""

from typing import Final

SINGLETON_CODE: Final = bytes.fromhex("b1f926978a0f44a2c0ec8fe822418ae969bd8c3f18d61e5103100339894f81ff")
"""SafeL2: the singleton that logs every SafeTx, which is what the watcher's own-outflow arithmetic reads."""
FACTORY_CODE: Final = bytes.fromhex("50c3cdc4074750a7a974204a716c999edd37482f907608d960b2b025ee0b3317")
"""SafeProxyFactory."""
HANDLER_CODE: Final = bytes.fromhex("7c6007a5d711cea8dfd5d91f5940ec29c7f200fe511eb1fc1397b367af3c42f9")
"""CompatibilityFallbackHandler."""
MULTISEND_CODE: Final = bytes.fromhex("ecd5bd14a08c5d2122379900b2f272bdf107a7e92423c10dd5fe3254386c9939")
"""MultiSendCallOnly: the one contract that a Safe may ever delegatecall."""
PROXY_CODE: Final = bytes.fromhex("d7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c")
"""SafeProxy, the runtime code of every Safe itself."""

PROXY_CREATION_CODE: Final = bytes.fromhex(
    "608060405234801561001057600080fd5b506040516101e63803806101e68339818101604052602081101561003357600080fd5b81019080805190"
    "60200190929190505050600073ffffffffffffffffffffffffffffffffffffffff168173ffffffffffffffffffffffffffffffffffffffff161415"
    "6100ca576040517f08c379a00000000000000000000000000000000000000000000000000000000081526004018080602001828103825260228152"
    "602001806101c46022913960400191505060405180910390fd5b806000806101000a81548173ffffffffffffffffffffffffffffffffffffffff02"
    "1916908373ffffffffffffffffffffffffffffffffffffffff1602179055505060ab806101196000396000f3fe608060405273ffffffffffffffff"
    "ffffffffffffffffffffffff600054167fa619486e0000000000000000000000000000000000000000000000000000000060003514156050578060"
    "005260206000f35b3660008037600080366000845af43d6000803e60008114156070573d6000fd5b3d6000f3fea264697066735822122003d1488e"
    "e65e08fa41e58e888a9865554c535f2c77126a82cb4c0f917f31441364736f6c63430007060033496e76616c69642073696e676c65746f6e206164"
    "64726573732070726f7669646564"
)
"""SafeProxy's creation code: what the factory's `proxyCreationCode()` answers and CREATE2 hashes (EIP-1014)."""
