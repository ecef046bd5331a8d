# SPDX-License-Identifier: AGPL-3.0-or-later
"""Chains, addresses and tiers: what a wallet is, without saying how it signs."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from embit import base58, bech32  # type: ignore[import-untyped]
from eth_utils.address import is_checksum_address

from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule

_CAIP2: Final = re.compile(r"(eip155):([1-9][0-9]{0,18})|(bip122):([0-9a-f]{32})")

BITCOIN_NETWORKS: Final = {
    "000000000019d6689c085ae165831e93": "main",
    "000000000933ea01ad0ee984209779ba": "test",
    "00000008819873e925422c1ff0f99f7c": "signet",
    "0f9188f13cb7b2c71f2a335e3a4fc328": "regtest",
}
"""First 32 hex digits of each network's genesis block (CAIP-2, bip122) to embit's network name."""

_HRP: Final = {"main": "bc", "test": "tb", "signet": "tb", "regtest": "bcrt"}
_BASE58: Final = {"main": {0x00, 0x05}, "test": {0x6F, 0xC4}, "signet": {0x6F, 0xC4}, "regtest": {0x6F, 0xC4}}

DEVNET_CHAINS: Final = ("eip155:31338", "eip155:31337", "bip122:0f9188f13cb7b2c71f2a335e3a4fc328")
"""Chains that carry no value: only a genesis naming nothing else may declare `clock: statement` (TRUST.md)."""


class Tier(StrEnum):
    """The three compartments. Every wallet is in exactly one, for ever (DESIGN.md, law 1)."""

    CUSTOMER_COLD = "customer_cold"
    CUSTOMER_HOT = "customer_hot"
    OPERATIONAL = "operational"

    @property
    def is_customer(self) -> bool:
        """Whether coins in this tier back what customers are owed."""
        return self is not Tier.OPERATIONAL


@dataclass(frozen=True, slots=True, order=True)
class Chain:
    """A chain by its CAIP-2 name, such as `eip155:1` or `bip122:000000000019d6689c085ae165831e93`."""

    name: str

    def __post_init__(self) -> None:
        match = _CAIP2.fullmatch(self.name)
        if match is None or (match[3] and match[4] not in BITCOIN_NETWORKS):
            raise InvalidInput("chain", Rule.UNKNOWN_CHAIN, repr(self.name), "a CAIP-2 name of a known kind of chain")

    @property
    def is_evm(self) -> bool:
        """Whether this is an EVM chain; otherwise it is a Bitcoin network."""
        return self.name.startswith("eip155:")

    @property
    def evm_id(self) -> int:
        """The EIP-155 chain id."""
        if not self.is_evm:
            raise InvalidInput("chain", Rule.WRONG_NETWORK, self.name, "an EVM chain")
        return int(self.name.removeprefix("eip155:"))

    @property
    def bitcoin_network(self) -> str:
        """embit's name of this Bitcoin network: main, test, signet or regtest."""
        if self.is_evm:
            raise InvalidInput("chain", Rule.WRONG_NETWORK, self.name, "a Bitcoin network")
        return BITCOIN_NETWORKS[self.name.removeprefix("bip122:")]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An address on one chain in its one canonical spelling: EIP-55 on EVM, lower-case bech32 or base58 on Bitcoin."""

    chain: Chain
    text: str

    @classmethod
    def parse(cls, chain: Chain, text: str, field: str = "address") -> Self:
        """Read an address typed by a person; raises InvalidInput naming wrong checksum or wrong network."""
        if chain.is_evm:
            _check_evm(text, field)
            return cls(chain, text)
        return cls(chain, _check_bitcoin(chain, text, field))

    def __str__(self) -> str:
        return self.text


def _check_evm(text: str, field: str) -> None:
    if re.fullmatch(r"0x[0-9a-fA-F]{40}", text) is None:
        raise InvalidInput(field, Rule.WRONG_NETWORK, repr(text), "0x and 40 hex digits (an EVM address)")
    if not is_checksum_address(text):
        raise InvalidInput(field, Rule.WRONG_CHECKSUM, repr(text), "the EIP-55 spelling, upper and lower case mixed")
    if int(text, 16) == 0:
        raise InvalidInput(field, Rule.MALFORMED, repr(text), "an address other than zero")


def _check_bitcoin(chain: Chain, text: str, field: str) -> str:
    network = chain.bitcoin_network
    lowered = text.lower()
    for hrp in set(_HRP.values()):
        if lowered.startswith(hrp + "1"):
            if text not in (lowered, text.upper()):
                raise InvalidInput(field, Rule.WRONG_CHECKSUM, repr(text), "bech32 in one case only (BIP-173)")
            version, program = bech32.decode(hrp, lowered)
            if version is None or program is None:
                raise InvalidInput(field, Rule.WRONG_CHECKSUM, repr(text), "a bech32 address with a valid checksum")
            if hrp != _HRP[network]:
                raise InvalidInput(
                    field, Rule.WRONG_NETWORK, repr(text), f"an address that starts with {_HRP[network]}1"
                )
            if (version, len(program)) not in {(0, 20), (0, 32), (1, 32)}:
                raise InvalidInput(
                    field, Rule.MALFORMED, repr(text), "a witness program of a known kind (P2WPKH, P2WSH, P2TR)"
                )
            return lowered
    try:
        payload = base58.decode_check(text)
    except ValueError as error:
        raise InvalidInput(field, Rule.WRONG_CHECKSUM, repr(text), f"a Bitcoin address of {network}") from error
    if len(payload) != 21 or payload[0] not in _BASE58[network]:
        raise InvalidInput(field, Rule.WRONG_NETWORK, repr(text), f"a Bitcoin address of {network}")
    return text
