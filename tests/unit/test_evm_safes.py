# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Safe is derived one way from public keys, and a certificate whose Safe is anything else is refused with the reason."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import safe_eth
from eth_abi.abi import encode
from eth_keys.backends import get_backend
from eth_keys.backends.coincurve import CoinCurveECCBackend
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st
from safe_eth.eth.contracts import get_safe_V1_4_1_contract
from safe_eth.eth.utils import mk_contract_address_2
from web3 import Web3

from custody.chains.evm import pins
from custody.chains.evm.safes import (
    SafeContracts,
    check_safe,
    decode_setup,
    deposit_parameters,
    deposit_safe,
    owner_address,
    wallet_safe,
)
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.typed import ZERO32, ZERO_ADDRESS
from custody.rules.wallets import Address
from tests.fakes.evm import CHAIN, NOWHERE, SEATS, altered, evm_certificate, private_key, seat_key

RIGHT = evm_certificate()
SAFE = RIGHT.safe[0]
SETUP = decode_setup(SAFE.initializer)
assert SETUP is not None
OWNERS = list(SETUP.owners)
MALLORY = private_key("mallory").public_key.to_checksum_address()
TYPES = ["address[]", "uint256", "address", "bytes", "address", "address", "uint256", "address"]


def initializer(
    owners: list[str] = OWNERS,
    threshold: int = 3,
    to: str = ZERO_ADDRESS,
    data: bytes = b"",
    handler: str = NOWHERE.handler,
    payment: tuple[str, int, str] = (ZERO_ADDRESS, 0, ZERO_ADDRESS),
) -> bytes:
    """A `setup` call that may be wrong in one argument."""
    selector = keccak(text=f"setup({','.join(TYPES)})")[:4]
    return selector + encode(TYPES, [owners, threshold, to, data, handler, *payment])


def with_initializer(changed: bytes) -> WalletCertificate:
    """A certificate whose address follows its initializer, so that nothing but the initializer is wrong."""
    salt = keccak(keccak(changed) + SAFE.salt.to_bytes(32))
    code = pins.PROXY_CREATION_CODE + bytes(12) + bytes.fromhex(SAFE.singleton[2:])
    address = mk_contract_address_2(bytes.fromhex(SAFE.factory[2:]), salt, code)
    return altered(RIGHT, initializer=changed, address=address)


def test_the_right_certificate_is_accepted() -> None:
    """The Safe of a certificate's own keys; the helper that alters one leaves a right one right."""
    assert list(check_safe(RIGHT)) == []
    assert with_initializer(initializer()) == RIGHT


@pytest.mark.parametrize(
    ("certificate", "rules"),
    [
        pytest.param(with_initializer(initializer(to=MALLORY)), {Rule.INITIALIZER}, id="non-zero to"),
        pytest.param(with_initializer(initializer(data=b"\x01")), {Rule.INITIALIZER}, id="data"),
        pytest.param(with_initializer(initializer(to=MALLORY, data=b"\x01")), {Rule.INITIALIZER}, id="to and data"),
        pytest.param(
            with_initializer(initializer(payment=(ZERO_ADDRESS, 1, ZERO_ADDRESS))), {Rule.INITIALIZER}, id="payment"
        ),
        pytest.param(
            with_initializer(initializer(payment=(MALLORY, 0, ZERO_ADDRESS))), {Rule.INITIALIZER}, id="payment token"
        ),
        pytest.param(
            with_initializer(initializer(payment=(ZERO_ADDRESS, 0, MALLORY))), {Rule.INITIALIZER}, id="payment receiver"
        ),
        pytest.param(with_initializer(initializer(handler=MALLORY)), {Rule.INITIALIZER}, id="wrong handler"),
        pytest.param(with_initializer(initializer(handler=ZERO_ADDRESS)), {Rule.INITIALIZER}, id="no handler"),
        pytest.param(with_initializer(initializer(threshold=2)), {Rule.SCRIPT_MISMATCH}, id="wrong threshold"),
        pytest.param(
            with_initializer(initializer(owners=[*OWNERS, MALLORY])), {Rule.SCRIPT_MISMATCH}, id="extra owner"
        ),
        pytest.param(with_initializer(initializer(owners=OWNERS[:3])), {Rule.SCRIPT_MISMATCH}, id="owner left out"),
        pytest.param(
            with_initializer(initializer(owners=[*OWNERS[:3], MALLORY])), {Rule.SCRIPT_MISMATCH}, id="owner swapped"
        ),
        pytest.param(
            with_initializer(initializer(owners=OWNERS[::-1])), {Rule.SCRIPT_MISMATCH}, id="owners in another order"
        ),
        pytest.param(with_initializer(initializer() + bytes(32)), {Rule.INITIALIZER}, id="trailing bytes"),
        pytest.param(with_initializer(b""), {Rule.INITIALIZER}, id="no initializer"),
        pytest.param(with_initializer(b"\xde\xad\xbe\xef" + initializer()[4:]), {Rule.INITIALIZER}, id="another call"),
        pytest.param(with_initializer(initializer()[:100]), {Rule.INITIALIZER}, id="cut off"),
        pytest.param(altered(RIGHT, singleton_code=bytes(32)), {Rule.CODE_HASH}, id="wrong singleton hash"),
        pytest.param(altered(RIGHT, factory_code=pins.SINGLETON_CODE), {Rule.CODE_HASH}, id="wrong factory hash"),
        pytest.param(altered(RIGHT, handler_code=bytes(32)), {Rule.CODE_HASH}, id="wrong handler hash"),
        pytest.param(altered(RIGHT, multisend_code=bytes(32)), {Rule.CODE_HASH}, id="wrong MultiSendCallOnly hash"),
        pytest.param(altered(RIGHT, proxy_creation_code=bytes(32)), {Rule.CODE_HASH}, id="wrong proxy hash"),
        pytest.param(altered(RIGHT, multisend=SAFE.handler), {Rule.CODE_HASH}, id="one address for two contracts"),
        pytest.param(altered(RIGHT, address=MALLORY), {Rule.ADDRESS_MISMATCH}, id="altered address"),
        pytest.param(altered(RIGHT, address=SAFE.address.lower()), {Rule.ADDRESS_MISMATCH}, id="another spelling"),
        pytest.param(altered(RIGHT, salt=1), {Rule.ADDRESS_MISMATCH}, id="another salt"),
        pytest.param(altered(RIGHT, factory=MALLORY), {Rule.ADDRESS_MISMATCH}, id="another factory"),
        pytest.param(altered(RIGHT, singleton=MALLORY), {Rule.ADDRESS_MISMATCH}, id="another singleton"),
        pytest.param(replace(RIGHT, m=2), {Rule.SCRIPT_MISMATCH}, id="certificate says another m"),
        pytest.param(
            replace(RIGHT, seats=(*RIGHT.seats[:3], seat_key("mallory"))),
            {Rule.SCRIPT_MISMATCH},
            id="another seat's key",
        ),
        pytest.param(replace(RIGHT, safe=()), {Rule.SCRIPT_MISMATCH}, id="no Safe"),
        pytest.param(replace(RIGHT, safe=(SAFE, SAFE)), {Rule.SCRIPT_MISMATCH}, id="two Safes"),
        pytest.param(replace(RIGHT, previous=bytes([1]) * 32), {Rule.SCRIPT_MISMATCH}, id="a successor"),
        pytest.param(
            replace(RIGHT, chain="bip122:0f9188f13cb7b2c71f2a335e3a4fc328"), {Rule.SCRIPT_MISMATCH}, id="on Bitcoin"
        ),
    ],
)
def test_refused(certificate: WalletCertificate, rules: set[Rule]) -> None:
    """Each is refused by exactly its own rule."""
    assert {refusal.rule for refusal in check_safe(certificate)} == rules


def test_every_reason_at_once() -> None:
    """Refusals accumulate: a person sees all of them."""
    worst = altered(
        with_initializer(initializer([MALLORY], 1, MALLORY, b"\x01", MALLORY, (MALLORY, 1, MALLORY))),
        singleton_code=bytes(32),
        address=MALLORY,
    )
    fields = [refusal.operands.get("field") for refusal in check_safe(worst)]
    assert {"to", "data", "payment", "paymentToken", "paymentReceiver", "owners", "threshold"} <= set(fields)
    assert {Rule.CODE_HASH, Rule.ADDRESS_MISMATCH} <= {refusal.rule for refusal in check_safe(worst)}


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(b"", id="empty"),
        pytest.param(private_key("a").public_key.to_bytes(), id="uncompressed"),
        pytest.param(b"\x02" + b"\xff" * 32, id="above the field"),
        pytest.param(b"\x05" + bytes(32), id="unknown prefix"),
        pytest.param(b"\x02" + (5).to_bytes(32), id="no point has this x"),
    ],
)
def test_bad_public_key(public: bytes) -> None:
    """Not a key: InvalidInput from the parser, a refusal from the check."""
    with pytest.raises(InvalidInput):
        owner_address(public)
    broken = replace(RIGHT.seats[0], key=replace(RIGHT.seats[0].key, public=public))
    found = list(check_safe(replace(RIGHT, seats=(broken, *RIGHT.seats[1:]))))
    assert [refusal.rule for refusal in found] == [Rule.SCRIPT_MISMATCH]


@pytest.mark.parametrize(
    ("owners", "threshold", "rule"),
    [
        pytest.param([MALLORY, MALLORY], 1, Rule.KEY_REUSED, id="one owner twice"),
        pytest.param([MALLORY, MALLORY.lower()], 1, Rule.KEY_REUSED, id="one owner in two spellings"),
        pytest.param([MALLORY], 0, Rule.THRESHOLD_OUT_OF_RANGE, id="threshold 0"),
        pytest.param([MALLORY], 2, Rule.THRESHOLD_OUT_OF_RANGE, id="threshold above N"),
        pytest.param([], 1, Rule.THRESHOLD_OUT_OF_RANGE, id="nobody"),
        pytest.param([ZERO_ADDRESS], 1, Rule.MALFORMED, id="zero"),
        pytest.param(["0x" + "1".rjust(40, "0")], 1, Rule.MALFORMED, id="Safe's sentinel"),
        pytest.param(["mallory"], 1, Rule.MALFORMED, id="no address"),
    ],
)
def test_no_such_safe(owners: list[str], threshold: int, rule: Rule) -> None:
    """What Safe's own setup would revert on is not derived either."""
    with pytest.raises(InvalidInput) as caught:
        wallet_safe(NOWHERE, owners, threshold, 0)
    assert caught.value.rule == rule


def test_one_safe_whatever_the_order_of_seats() -> None:
    """The order in which seats are named does not change the wallet."""
    assert {evm_certificate(seats=order).safe[0].address for order in permutations(SEATS)} == {SAFE.address}


@settings(max_examples=30, deadline=None)
@given(salt=st.integers(0, 2**256 - 1), count=st.integers(1, 6), data=st.data())
def test_derivation_equals_the_library(salt: int, count: int, data: st.DataObject) -> None:
    """Initializer and address are safe-eth-py's, byte for byte, for any owners, threshold and salt."""
    threshold = data.draw(st.integers(1, count))
    owners = [private_key(f"{salt}/{i}").public_key.to_checksum_address() for i in range(count)]
    ours = wallet_safe(NOWHERE, owners, threshold, salt)
    ordered = sorted(owners, key=lambda owner: int(owner, 16))
    safe = get_safe_V1_4_1_contract(Web3(), Web3.to_checksum_address(ours.singleton))
    setup = [ordered, threshold, ZERO_ADDRESS, b"", ours.handler, ZERO_ADDRESS, 0, ZERO_ADDRESS]
    assert safe.encode_abi("setup", setup) == "0x" + ours.initializer.hex()
    created = Web3.solidity_keccak(["bytes32", "uint256"], [keccak(ours.initializer), salt])
    code = shipped("Proxy", "bytecode") + bytes.fromhex(ours.singleton[2:]).rjust(32, b"\0")
    assert ours.address == mk_contract_address_2(bytes.fromhex(ours.factory[2:]), created, code)


def shipped(name: str, field: str) -> bytes:
    """Bytecode of Safe v1.4.1 from the artefacts that safe-eth-py ships."""
    folder = Path(safe_eth.__file__).parent / "eth" / "contracts" / "abis"
    return bytes.fromhex(json.loads((folder / f"{name}_V1_4_1.json").read_text())[field][2:])


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        pytest.param("Safe", pins.SINGLETON_CODE, id="SafeL2"),
        pytest.param("ProxyFactory", pins.FACTORY_CODE, id="SafeProxyFactory"),
        pytest.param("CompatibilityFallbackHandler", pins.HANDLER_CODE, id="CompatibilityFallbackHandler"),
        pytest.param("MultiSendCallOnly", pins.MULTISEND_CODE, id="MultiSendCallOnly"),
        pytest.param("Proxy", pins.PROXY_CODE, id="SafeProxy"),
    ],
)
def test_pinned_code_is_the_library_s(name: str, pin: bytes) -> None:
    """Each pinned hash is that of the runtime code that safe-eth-py ships."""
    assert keccak(shipped(name, "deployedBytecode")) == pin


def test_pinned_creation_code_is_the_library_s() -> None:
    """What CREATE2 hashes."""
    assert shipped("Proxy", "bytecode") == pins.PROXY_CREATION_CODE


def test_deposit_safes() -> None:
    """Owned by the wallet's Safe alone, another address for each index and each wallet, EIP-55 spelling."""
    other = evm_certificate(salt=1)
    found = [deposit_safe(c, index) for c in (RIGHT, other) for index in (0, 1, 2, 2**64 - 1)]
    assert len({address.text for address in found}) == len(found)
    assert all(Address.parse(CHAIN, address.text) == address for address in found)
    setup = decode_setup(deposit_parameters(RIGHT, 7).initializer)
    assert setup is not None
    assert (setup.owners, setup.threshold, setup.handler) == ((SAFE.address,), 1, SETUP.handler if SETUP else "")
    with pytest.raises(InvalidInput):
        deposit_safe(replace(RIGHT, safe=()), 0)


def test_golden_address() -> None:
    """A published deposit address cannot be recalled: these stay as they are, for ever."""
    assert SAFE.address == "0xC6667b648083078f1d42136209B9F94a99ccfe33"
    assert deposit_safe(RIGHT, 0).text == "0x289eb53aEb11bdAEa284c1D74BCfADfdc91D6c3F"


def test_contracts_travel_as_json() -> None:
    """SafeContracts there and back; a missing key is named."""
    assert SafeContracts.from_json(NOWHERE.to_json()) == NOWHERE
    with pytest.raises(InvalidInput, match="handler_code"):
        SafeContracts.from_json({k: v for k, v in NOWHERE.to_json().items() if k != "handler_code"})


def test_a_seat_imports_no_driver() -> None:
    """Deriving and checking pull in neither web3 nor safe-eth-py nor a network library."""
    program = (
        "import sys, custody.chains.evm.safes\n"
        "print([m for m in ('web3', 'safe_eth', 'requests', 'aiohttp', 'bitcoinlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keys_use_libsecp256k1() -> None:
    """eth-keys picks coincurve; without it every key operation would be seventy times slower (facts/chains.md)."""
    assert isinstance(get_backend(), CoinCurveECCBackend)
    assert RIGHT.previous == ZERO32
