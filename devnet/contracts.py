# SPDX-License-Identifier: AGPL-3.0-or-later
"""The contracts of the development chain: Safe, two dollars, and the tokens and senders that a watcher must not fall for.

Our own Solidity stands in `devnet/solidity`, compiled by `build.sh` there into the checked-in `artefacts.json`; neither node nor
solc is needed to deploy it. The funding and mining calls are Anvil's and exist on no other chain.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from custody.chains.evm.client import EvmClient
from custody.chains.evm.deploy import deploy_code, deploy_contracts
from custody.chains.evm.safes import SafeContracts
from custody.chains.evm.transactions import Receipt, send
from custody.rules.errors import Unavailable
from custody.rules.typed import EvmHex, Struct

ARTEFACTS: Final = Path(__file__).with_name("solidity") / "artefacts.json"
DECIMALS: Final = 6
"""Of every token here, as USDC and USDT have."""
_TOKEN: Final = ["string", "string", "uint8"]


@dataclass(frozen=True, slots=True)
class DevnetContracts(Struct):
    """Where everything stands. Register `usd` and `silent_usd`; the other tokens exist to be refused.

    `silent_usd` returns no data, as USDT does. `fake_usd` looks like `usd` to the letter. `lying_usd` logs transfers that
    move nothing. `fee_usd` keeps a hundredth of each transfer. `forwarder` pays by internal call; `reverter` takes it all back.
    """

    safe: SafeContracts
    usd: EvmHex
    silent_usd: EvmHex
    fake_usd: EvmHex
    lying_usd: EvmHex
    fee_usd: EvmHex
    forwarder: EvmHex
    reverter: EvmHex


def deploy_all(client: EvmClient, deployer: LocalAccount) -> DevnetContracts:
    """Deploy everything; the deployer, who must be funded, becomes the tokens' minter. About 14 million gas."""
    return DevnetContracts(
        safe=deploy_contracts(client, deployer),
        usd=deploy_token(client, deployer, "Dollar", "Devnet Dollar", "USDX"),
        silent_usd=deploy_token(client, deployer, "SilentDollar", "Devnet Silent Dollar", "USDN"),
        fake_usd=deploy_token(client, deployer, "Dollar", "Devnet Dollar", "USDX"),
        lying_usd=deploy_token(client, deployer, "LyingDollar", "Devnet Lying Dollar", "USDL"),
        fee_usd=deploy_token(client, deployer, "FeeDollar", "Devnet Fee Dollar", "USDF"),
        forwarder=deploy_code(client, deployer, creation_code("Forwarder")),
        reverter=deploy_code(client, deployer, creation_code("Reverter")),
    )


def deploy_token(client: EvmClient, deployer: LocalAccount, contract: str, name: str, symbol: str) -> str:
    """One token of a kind in `Tokens.sol`; its address."""
    return deploy_code(client, deployer, creation_code(contract) + encode(_TOKEN, [name, symbol, DECIMALS]))


def creation_code(contract: str) -> bytes:
    """Compiled code that makes a contract; constructor arguments are appended to it."""
    return bytes.fromhex(str(_artefacts()[contract]["bytecode"])[2:])


def call_data(signature: str, *arguments: object) -> bytes:
    """ABI encoding of a call, such as `call_data("transfer(address,uint256)", to, units)`; no tuples."""
    types = [part for part in signature[signature.index("(") + 1 : -1].split(",") if part]
    return keccak(text=signature)[:4] + encode(types, arguments)


def mint(client: EvmClient, minter: LocalAccount, token: str, to: str, units: int) -> Receipt:
    """Make new units of a token. Raises Unavailable where the token refuses."""
    return _done(send(client, minter, token, call_data("mint(address,uint256)", to, units)))


def transfer(client: EvmClient, sender: LocalAccount, token: str, to: str, units: int) -> Receipt:
    """Send a token's units from a plain account. Raises Unavailable where the token refuses."""
    return _done(send(client, sender, token, call_data("transfer(address,uint256)", to, units)))


def fund(client: EvmClient, address: str, wei: int) -> None:
    """Give an account exactly this many wei (`anvil_setBalance`)."""
    client.call("anvil_setBalance", address, hex(wei))


def mine(client: EvmClient, blocks: int = 1) -> None:
    """Add blocks with what is pending (`anvil_mine`); with the devnet's slots, two more make a block final."""
    client.call("anvil_mine", hex(blocks))


def _done(receipt: Receipt) -> Receipt:
    if not receipt.succeeded:
        raise Unavailable("token", f"transaction {receipt.transaction.hex()} reverted")
    return receipt


@cache
def _artefacts() -> dict[str, dict[str, object]]:
    contracts: dict[str, dict[str, object]] = json.loads(ARTEFACTS.read_text())["contracts"]
    return contracts
