# SPDX-License-Identifier: AGPL-3.0-or-later
"""The relayer deploys deposit Safes of a certified wallet, and nothing that only looks like one."""

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from custody.chains.evm.safes import contracts_of, deposit_parameters, encode_setup, proxy_address, wallet_safe
from custody.rules.refusals import Rule
from custody.rules.relaying import CREATE_PROXY, RelayCall, check_call, deploy_call_data, deposit_call_data
from custody.rules.roster import Relayer
from tests.fakes.evm import CHAIN, evm_certificate

CERTIFICATE = evm_certificate()
SAFE = CERTIFICATE.safe[0]
RELAYER = Relayer(CHAIN.name, "0x" + "11" * 20, 10**18)


def create(singleton: str, initializer: bytes, salt: int) -> bytes:
    """`createProxyWithNonce` of the factory."""
    return CREATE_PROXY + encode(["address", "bytes", "uint256"], [singleton, initializer, salt])


def rules(data: bytes, to: str = SAFE.factory, value: int = 0) -> list[Rule]:
    """Why the relayer refuses a call."""
    call = RelayCall(CHAIN.name, 0, to, value, data, 300_000, 10**9, 10**9)
    return [refusal.rule for refusal in check_call(call, CERTIFICATE, RELAYER)]


@pytest.mark.parametrize("index", [0, 1, 41, 999, 2**64])
def test_deposit_safes_are_deployed_where_they_derive(index: int) -> None:
    """The call makes exactly the Safe that the deposit address is of."""
    deposit = deposit_parameters(CERTIFICATE, index)
    data = deposit_call_data(CERTIFICATE, index)
    assert data == create(deposit.singleton, deposit.initializer, deposit.salt)
    assert proxy_address(SAFE.factory, SAFE.singleton, deposit.initializer, index) == deposit.address
    assert rules(data) == []
    assert rules(deploy_call_data(CERTIFICATE)) == []


STRANGER = "0x" + "99" * 20


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(create(SAFE.singleton, encode_setup([STRANGER], 1, SAFE.handler), 1), id="a stranger's Safe"),
        pytest.param(
            create(SAFE.singleton, encode_setup([SAFE.address, STRANGER], 1, SAFE.handler), 1), id="two owners"
        ),
        pytest.param(create(SAFE.singleton, encode_setup([SAFE.address], 1, STRANGER), 1), id="another handler"),
        pytest.param(create(STRANGER, encode_setup([SAFE.address], 1, SAFE.handler), 1), id="another singleton"),
        pytest.param(create(SAFE.singleton, SAFE.initializer, 12345), id="the wallet's own keys under another salt"),
        pytest.param(deposit_call_data(CERTIFICATE, 1) + b"\x00", id="bytes behind"),
        pytest.param(deposit_call_data(CERTIFICATE, 1)[:-1], id="cut off"),
        pytest.param(CREATE_PROXY, id="no arguments"),
        pytest.param(
            keccak(text="createChainSpecificProxyWithNonce(address,bytes,uint256)")[:4], id="another function"
        ),
    ],
)
def test_what_only_looks_like_a_deposit_safe(data: bytes) -> None:
    """Gas is company money: it deploys nothing that a certificate does not derive."""
    assert rules(data) == [Rule.RELAYER_TARGET]


def test_where_and_with_what() -> None:
    """The right call to another contract, or with value, is refused too."""
    data = deposit_call_data(CERTIFICATE, 1)
    assert rules(data, to=SAFE.address) == [Rule.RELAYER_TARGET]
    assert rules(data, value=1) == [Rule.RELAYER_VALUE]
    assert wallet_safe(contracts_of(SAFE), [SAFE.address], 1, 1).initializer in data
