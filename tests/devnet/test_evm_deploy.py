# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is derived with no node is what the real chain makes of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from eth_abi.abi import encode
from eth_typing import URI
from eth_utils.crypto import keccak
from safe_eth.eth import EthereumClient
from safe_eth.safe.proxy_factory import ProxyFactoryV141
from web3 import HTTPProvider, Web3

from custody.chains.evm import pins, wire
from custody.chains.evm.client import EvmClient, NodeRefused
from custody.chains.evm.deploy import check_deployed, deploy_contracts, deploy_safe, verify_contracts
from custody.chains.evm.safes import SafeContracts, check_safe, deposit_parameters
from custody.chains.evm.transactions import send
from custody.rules.certificates import SafeParameters
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused, Rule
from custody.rules.wallets import Chain
from devnet.anvil import Anvil
from devnet.contracts import fund
from tests.fakes.evm import CHAIN, account, batch_call, evm_certificate, execute, owned_call, signed_call

DEPLOYER = account("deployer")
ETHER = 10**18


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Anvil]:
    """An empty chain of this module's own."""
    anvil = Anvil(tmp_path_factory.mktemp("deploy") / "anvil")
    try:
        anvil.start()
        yield anvil
    finally:
        anvil.stop()


@pytest.fixture(scope="module")
def client(node: Anvil) -> EvmClient:
    """Its client, with a funded deployer."""
    client = EvmClient(node.url, CHAIN)
    fund(client, DEPLOYER.address, 1000 * ETHER)
    return client


@pytest.fixture(scope="module")
def contracts(client: EvmClient) -> SafeContracts:
    """Safe v1.4.1 on it."""
    return deploy_contracts(client, DEPLOYER)


def ask(client: EvmClient, safe: str, question: str, kind: str) -> object:
    """One view of a Safe."""
    (answer,) = wire.abi([kind], client.read(safe, question), question)
    return answer


def test_contracts_on_chain_have_the_pinned_code(client: EvmClient, contracts: SafeContracts) -> None:
    """Runtime code as deployed, hashed by us, equals the pins; the factory's creation code is the one CREATE2 hashes."""
    assert list(verify_contracts(client, contracts)) == []
    assert keccak(client.code(contracts.singleton)) == pins.SINGLETON_CODE
    (creation,) = wire.abi(["bytes"], client.read(contracts.factory, "proxyCreationCode()"), "creation code")
    assert creation == pins.PROXY_CREATION_CODE


@pytest.mark.parametrize("name", ["singleton", "factory", "handler", "multisend"])
def test_other_code_is_refused(client: EvmClient, contracts: SafeContracts, name: str) -> None:
    """An address with other code, or with none, whatever the certificate claims about it."""
    for elsewhere in (contracts.multisend if name != "multisend" else contracts.handler, "0x" + "77" * 20):
        moved = SafeContracts.from_json({**contracts.to_json(), name: elsewhere})
        found = [r for r in verify_contracts(client, moved) if r.operands["of"] == name]
        assert [refusal.rule for refusal in found] == [Rule.CODE_HASH]


def test_a_wallet_safe_is_what_was_derived(client: EvmClient, contracts: SafeContracts) -> None:
    """Address, owners, threshold, singleton and nonce, asked of the contract; deploying again is success and does nothing."""
    certificate = evm_certificate(contracts)
    safe = certificate.safe[0]
    assert list(check_safe(certificate)) == []
    assert client.code(safe.address) == b""
    assert deploy_safe(client, DEPLOYER, safe) is not None
    assert keccak(client.code(safe.address)) == pins.PROXY_CODE
    assert ask(client, safe.address, "getThreshold()", "uint256") == 3
    owners = ask(client, safe.address, "getOwners()", "address[]")
    assert isinstance(owners, tuple)
    assert sorted(Web3.to_checksum_address(o) for o in owners) == sorted(
        Web3.to_checksum_address(account(s.key.seat).address) for s in certificate.seats
    )
    assert ask(client, safe.address, "VERSION()", "string") == "1.4.1"
    assert deploy_safe(client, DEPLOYER, safe) is None


def test_the_factory_itself_agrees(node: Anvil, client: EvmClient, contracts: SafeContracts) -> None:
    """safe-eth-py against the deployed factory calculates our address."""
    factory = ProxyFactoryV141(Web3.to_checksum_address(contracts.factory), EthereumClient(URI(node.url)))
    safe = evm_certificate(contracts, salt=2**255 + 7).safe[0]
    singleton = Web3.to_checksum_address(safe.singleton)
    assert factory.calculate_proxy_address(singleton, safe.initializer, safe.salt) == safe.address


def test_deposit_safe_receives_before_it_exists_and_pays_the_omnibus(
    client: EvmClient, contracts: SafeContracts
) -> None:
    """Coins wait at the derived address; anybody deploys it; then the omnibus, under its quorum, sweeps it home."""
    certificate = evm_certificate(contracts)
    omnibus = certificate.safe[0]
    deploy_safe(client, DEPLOYER, omnibus)
    deposit = deposit_parameters(certificate, 41)
    assert send(client, DEPLOYER, deposit.address, value=3 * ETHER).gas == 21_000
    assert client.code(deposit.address) == b""
    stranger = account("a stranger who deploys it first")
    fund(client, stranger.address, ETHER)
    assert deploy_safe(client, stranger, deposit) is not None
    assert ask(client, deposit.address, "getOwners()", "address[]") == (omnibus.address.lower(),)
    assert deploy_safe(client, DEPLOYER, deposit) is None
    sweep = owned_call(omnibus.address, omnibus.address, 3 * ETHER)
    with pytest.raises(NodeRefused):  # GS025: only the omnibus may
        send(client, stranger, deposit.address, sweep)
    batch = batch_call([(deposit.address, 0, sweep)])
    before = wire.quantity(client.call("eth_getBalance", omnibus.address, "latest"))
    call = signed_call(
        client, omnibus.address, ["hot-1", "hot-2", "hot-4"], contracts.multisend, data=batch, delegate=True
    )
    execute(client, DEPLOYER, omnibus.address, call)
    assert wire.quantity(client.call("eth_getBalance", omnibus.address, "latest")) - before == 3 * ETHER


def test_altered_parameters_are_not_deployed(client: EvmClient, contracts: SafeContracts) -> None:
    """An address that does not derive, and one whose singleton is not what stands there."""
    safe = evm_certificate(contracts, salt=5).safe[0]
    with pytest.raises(Refused) as caught:
        deploy_safe(client, DEPLOYER, replace(safe, address=contracts.handler))
    assert [r.rule for r in caught.value.refusals] == [Rule.ADDRESS_MISMATCH]
    deploy_safe(client, DEPLOYER, safe)
    wrong: SafeParameters = replace(safe, singleton=contracts.handler)
    assert [r.operands["of"] for r in check_deployed(client, wrong)] == ["singleton"]
    elsewhere = next(check_deployed(client, replace(safe, address=contracts.handler)))
    assert elsewhere.operands["of"] == "proxy"


def test_a_race_for_the_same_safe_is_success(client: EvmClient, contracts: SafeContracts) -> None:
    """Somebody deploys between our look and our transaction: the factory reverts, the Safe is right, so it is done."""
    safe = evm_certificate(contracts, salt=6).safe[0]

    class Late(EvmClient):
        """Lets another deploy the Safe just before our gas estimate."""

        def call(self, method: str, *params: object) -> object:
            if method == "eth_estimateGas":
                deploy_safe(client, account("deployer"), safe)
            return super().call(method, *params)

    late = Late(str(client._provider.endpoint_uri), CHAIN)
    assert deploy_safe(late, DEPLOYER, safe) is None
    assert list(check_deployed(client, safe)) == []


def test_wrong_chain_is_refused(node: Anvil) -> None:
    """A node of another chain than the one asked for: which was found, which was wanted."""
    with pytest.raises(InvalidInput) as caught:
        EvmClient(node.url, Chain("eip155:1"))
    assert (caught.value.rule, caught.value.got, caught.value.want) == (Rule.WRONG_NETWORK, "eip155:31338", "eip155:1")
    with pytest.raises(InvalidInput):
        EvmClient(node.url, Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328"))


def test_a_dead_node_is_unavailable(tmp_path: Path) -> None:
    """Before and after construction; the message names no URL, which may hold a hosted node's key."""
    anvil = Anvil(tmp_path / "anvil")
    anvil.start()
    client = EvmClient(anvil.url, CHAIN)
    anvil.stop()
    questions: list[Callable[[], object]] = [
        lambda: client.call("eth_blockNumber"),
        lambda: client.batch([("eth_blockNumber", [])]),
        lambda: EvmClient(f"{anvil.url}/v3/secret-key", CHAIN),
    ]
    for ask_it in questions:
        with pytest.raises(Unavailable) as caught:
            ask_it()
        assert "secret-key" not in str(caught.value)
        assert str(anvil.port) not in str(caught.value)


def test_errors_of_the_node_are_told(client: EvmClient, contracts: SafeContracts) -> None:
    """An unknown method and a revert: NodeRefused, alone or in a batch, with the node's words and no partial answer."""
    with pytest.raises(NodeRefused, match="eth_noSuchMethod"):
        client.call("eth_noSuchMethod")
    with pytest.raises(NodeRefused):
        client.batch([("eth_chainId", []), ("eth_noSuchMethod", []), ("eth_chainId", [])])
    with pytest.raises(NodeRefused, match="revert"):
        data = keccak(text="setup(address[],uint256,address,bytes,address,address,uint256,address)")[:4] + encode(
            ["address[]", "uint256", "address", "bytes", "address", "address", "uint256", "address"],
            [[], 0, "0x" + "00" * 20, b"", "0x" + "00" * 20, "0x" + "00" * 20, 0, "0x" + "00" * 20],
        )
        client.call("eth_call", {"to": contracts.singleton, "data": "0x" + data.hex()}, "latest")


def test_batches_longer_than_one_request(client: EvmClient) -> None:
    """Answers come in the order of the calls, over several requests; no calls, no answers."""
    wei = {"0x" + (10**20 + i).to_bytes(20).hex(): 10**19 + i for i in range(450)}
    client.batch([("anvil_setBalance", (address, hex(units))) for address, units in wei.items()])
    answers = client.batch([("eth_getBalance", (address, "latest")) for address in wei])
    assert [wire.quantity(answer) for answer in answers] == list(wei.values())
    assert client.batch([]) == []


def test_ccip_read_is_off(node: Anvil, client: EvmClient) -> None:
    """web3 follows a contract's `OffchainLookup` to any URL unless told not to."""
    assert client._provider.global_ccip_read_enabled is False
    assert HTTPProvider(node.url).global_ccip_read_enabled is True
