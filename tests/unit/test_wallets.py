# SPDX-License-Identifier: AGPL-3.0-or-later
"""Chains and addresses: one canonical spelling, and a specific refusal for every way to get one wrong."""

from typing import Final

import pytest
from embit import base58, bech32  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Chain, Tier

EVM: Final = Chain("eip155:1")
MAIN: Final = Chain("bip122:000000000019d6689c085ae165831e93")
TEST: Final = Chain("bip122:000000000933ea01ad0ee984209779ba")
REGTEST: Final = Chain("bip122:0f9188f13cb7b2c71f2a335e3a4fc328")

# EIP-55 and BIP-173/350 test vectors.
CHECKSUMMED: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
P2WPKH: Final = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
P2WSH_TEST: Final = "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7"
P2TR: Final = "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"
P2PKH: Final = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"
P2SH: Final = "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"
P2PKH_TEST: Final = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn"


def flipped(text: str, position: int = -1) -> str:
    """The text with one character changed to another of the same alphabet."""
    letters = list(text)
    letters[position] = "q" if letters[position] != "q" else "p"
    return "".join(letters)


def witness(hrp: str, version: int, program: bytes) -> str:
    """A segwit address with a valid checksum, of whatever version and length."""
    encoded: str = bech32.encode(hrp, version, program)
    return encoded


def with_checksum_of(version: int, encoding: int, program: bytes) -> str:
    """A mainnet segwit address whose checksum is of the encoding given, whatever its version wants (BIP-350)."""
    encoded: str = bech32.bech32_encode(encoding, "bc", [version, *bech32.convertbits(program, 8, 5)])
    return encoded


@pytest.mark.parametrize(
    ("chain", "text", "canonical"),
    [
        pytest.param(EVM, CHECKSUMMED, CHECKSUMMED, id="EIP-55"),
        pytest.param(MAIN, P2WPKH, P2WPKH, id="P2WPKH"),
        pytest.param(MAIN, P2WPKH.upper(), P2WPKH, id="upper-case bech32 becomes lower"),
        pytest.param(TEST, P2WSH_TEST, P2WSH_TEST, id="P2WSH on testnet"),
        pytest.param(MAIN, P2TR, P2TR, id="P2TR, bech32m"),
        pytest.param(MAIN, P2PKH, P2PKH, id="P2PKH"),
        pytest.param(MAIN, P2SH, P2SH, id="P2SH"),
        pytest.param(REGTEST, P2PKH_TEST, P2PKH_TEST, id="base58 of testnet serves regtest too"),
        pytest.param(REGTEST, witness("bcrt", 0, bytes(32)), witness("bcrt", 0, bytes(32)), id="P2WSH on regtest"),
    ],
)
def test_parse_accepts(chain: Chain, text: str, canonical: str) -> None:
    """An address is read into its one canonical spelling."""
    assert Address.parse(chain, text) == Address(chain, canonical)


@pytest.mark.parametrize(
    ("chain", "text", "rule"),
    [
        pytest.param(EVM, CHECKSUMMED.lower(), Rule.WRONG_CHECKSUM, id="EVM: lower case carries no checksum"),
        pytest.param(EVM, "0x" + CHECKSUMMED[2:].upper(), Rule.WRONG_CHECKSUM, id="EVM: upper case"),
        pytest.param(EVM, CHECKSUMMED.swapcase().replace("X", "x"), Rule.WRONG_CHECKSUM, id="EVM: cases swapped"),
        pytest.param(EVM, CHECKSUMMED[:-1] + "e", Rule.WRONG_CHECKSUM, id="EVM: last digit changed"),
        pytest.param(EVM, "0x" + "0" * 40, Rule.MALFORMED, id="EVM: zero address"),
        pytest.param(EVM, CHECKSUMMED[2:], Rule.WRONG_NETWORK, id="EVM: no 0x"),
        pytest.param(EVM, CHECKSUMMED[:-1], Rule.WRONG_NETWORK, id="EVM: 39 digits"),
        pytest.param(EVM, CHECKSUMMED + "\n", Rule.WRONG_NETWORK, id="EVM: newline after"),
        pytest.param(EVM, P2WPKH, Rule.WRONG_NETWORK, id="EVM: a Bitcoin address"),
        pytest.param(EVM, "", Rule.WRONG_NETWORK, id="EVM: empty"),
        pytest.param(EVM, "vitalik.eth", Rule.WRONG_NETWORK, id="EVM: a name"),
        pytest.param(MAIN, CHECKSUMMED, Rule.WRONG_CHECKSUM, id="Bitcoin: an EVM address"),
        pytest.param(MAIN, flipped(P2WPKH), Rule.WRONG_CHECKSUM, id="bech32: one letter changed"),
        pytest.param(MAIN, P2WPKH[:-1], Rule.WRONG_CHECKSUM, id="bech32: one letter short"),
        pytest.param(MAIN, P2WPKH[:10].upper() + P2WPKH[10:], Rule.WRONG_CHECKSUM, id="bech32: mixed case"),
        pytest.param(MAIN, "BC1" + P2WPKH[3:], Rule.WRONG_CHECKSUM, id="bech32: upper prefix, lower rest"),
        pytest.param(MAIN, P2WPKH + " ", Rule.WRONG_CHECKSUM, id="bech32: space after"),
        pytest.param(MAIN, P2WSH_TEST, Rule.WRONG_NETWORK, id="bech32: testnet on mainnet"),
        pytest.param(TEST, P2WPKH, Rule.WRONG_NETWORK, id="bech32: mainnet on testnet"),
        pytest.param(REGTEST, P2WSH_TEST, Rule.WRONG_NETWORK, id="bech32: testnet on regtest"),
        pytest.param(MAIN, with_checksum_of(1, 1, bytes(32)), Rule.WRONG_CHECKSUM, id="v1 with a bech32 checksum"),
        pytest.param(MAIN, with_checksum_of(0, 2, bytes(20)), Rule.WRONG_CHECKSUM, id="v0 with a bech32m checksum"),
        pytest.param(MAIN, with_checksum_of(0, 1, bytes(21)), Rule.WRONG_CHECKSUM, id="v0 of 21 bytes"),
        pytest.param(MAIN, witness("bc", 1, bytes(20)), Rule.MALFORMED, id="v1 of 20 bytes: not Taproot"),
        pytest.param(MAIN, witness("bc", 2, bytes(32)), Rule.MALFORMED, id="v2: anyone could spend it today"),
        pytest.param(MAIN, witness("bc", 16, bytes(2)), Rule.MALFORMED, id="v16"),
        pytest.param(MAIN, flipped(P2PKH, 10), Rule.WRONG_CHECKSUM, id="base58: one letter changed"),
        pytest.param(
            MAIN, P2PKH.replace("1A1z", "1A0z"), Rule.WRONG_CHECKSUM, id="base58: a zero, not in the alphabet"
        ),
        pytest.param(MAIN, P2PKH + "é", Rule.WRONG_CHECKSUM, id="base58: not ASCII"),
        pytest.param(MAIN, "", Rule.WRONG_CHECKSUM, id="Bitcoin: empty"),
        pytest.param(MAIN, P2PKH_TEST, Rule.WRONG_NETWORK, id="base58: testnet on mainnet"),
        pytest.param(TEST, P2PKH, Rule.WRONG_NETWORK, id="base58: mainnet on testnet"),
        pytest.param(MAIN, base58.encode_check(b"\x00" + bytes(19)), Rule.WRONG_NETWORK, id="base58: 19 bytes"),
        pytest.param(MAIN, base58.encode_check(b"\x80" + bytes(32)), Rule.WRONG_NETWORK, id="base58: a private key"),
    ],
)
def test_parse_refuses(chain: Chain, text: str, rule: Rule) -> None:
    """Each wrong address names the field and the rule."""
    with pytest.raises(InvalidInput) as caught:
        Address.parse(chain, text, "body.destination")
    assert (caught.value.field, caught.value.rule) == ("body.destination", rule)


@given(st.sampled_from([EVM, MAIN, REGTEST]), st.text(max_size=100))
def test_parse_never_surprises(chain: Chain, text: str) -> None:
    """Any text is an address or InvalidInput; no decoder's own exception comes out."""
    try:
        address = Address.parse(chain, text)
    except InvalidInput:
        return
    assert Address.parse(chain, address.text) == address


@given(st.binary(min_size=32, max_size=32))
def test_parse_is_the_inverse_of_encoding(program: bytes) -> None:
    """Every P2WSH program of regtest is read back to itself, in either case."""
    text = witness("bcrt", 0, program)
    assert Address.parse(REGTEST, text.upper()).text == text


@given(st.integers(5, len(P2WPKH) - 1), st.sampled_from("023456789acdefghjklmnpqrstuvwxyz"))
def test_one_wrong_letter_is_always_found(position: int, letter: str) -> None:
    """Bech32 detects any single substitution (BIP-173)."""
    text = P2WPKH[:position] + letter + P2WPKH[position + 1 :]
    if text != P2WPKH:
        with pytest.raises(InvalidInput):
            Address.parse(MAIN, text)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("1", id="a bare number"),
        pytest.param("ethereum", id="a nickname"),
        pytest.param("eip155:0", id="chain id zero"),
        pytest.param("eip155:01", id="leading zero"),
        pytest.param("eip155:-1", id="negative"),
        pytest.param("EIP155:1", id="capitals"),
        pytest.param("eip155:1 ", id="space after"),
        pytest.param("eip155:" + "9" * 20, id="20 digits"),
        pytest.param("solana:mainnet", id="another kind of chain"),
        pytest.param("bip122:" + "0" * 32, id="a Bitcoin fork nobody registered"),
        pytest.param("bip122:000000000019D6689C085AE165831E93", id="upper-case hex"),
        pytest.param("bip122:000000000019d668", id="short hash"),
    ],
)
def test_unknown_chain(name: str) -> None:
    """A chain that is not known cannot be named."""
    with pytest.raises(InvalidInput) as caught:
        Chain(name)
    assert caught.value.rule == Rule.UNKNOWN_CHAIN


def test_chain_kinds() -> None:
    """Each kind answers its own question and refuses the other's."""
    assert (EVM.is_evm, EVM.evm_id, Chain("eip155:31338").evm_id) == (True, 1, 31338)
    assert (MAIN.is_evm, MAIN.bitcoin_network, REGTEST.bitcoin_network) == (False, "main", "regtest")
    with pytest.raises(InvalidInput):
        _ = MAIN.evm_id
    with pytest.raises(InvalidInput):
        _ = EVM.bitcoin_network


def test_tiers() -> None:
    """Law 1: three compartments, two of which back what customers are owed."""
    assert {tier: tier.is_customer for tier in Tier} == {
        Tier.CUSTOMER_COLD: True,
        Tier.CUSTOMER_HOT: True,
        Tier.OPERATIONAL: False,
    }
