# SPDX-License-Identifier: AGPL-3.0-or-later
"""Throw-away wallets: keys of this process only, in vaults in memory, and seats that sign whatever they can decode.

For measurements and tests of what a transaction is: no policy, no people and no statement stand behind these signatures, and no
roster names the wallets. Nothing of a deployment signs like this.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eth_account import Account
from eth_account.signers.local import LocalAccount

from custody.chains.bitcoin import decode as bitcoin_decode
from custody.chains.bitcoin.scripts import wallet_descriptor
from custody.chains.evm import decode as evm_decode
from custody.chains.evm.safes import SafeContracts, owner_address, wallet_safe
from custody.rules.amounts import Assets
from custody.rules.certificates import BitcoinScript, Script, SeatKey, WalletCertificate, WalletKey
from custody.rules.errors import Unavailable
from custody.rules.payments import SeatSignatures, UnsignedPayout
from custody.rules.payouts import DecodedPayload, SafeTx, Surroundings
from custody.rules.refusals import Refused, raise_if
from custody.rules.relaying import RelayCall, check_call
from custody.rules.roster import Relayer
from custody.rules.signatures import Key, Scheme, Signature, Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Chain, Tier
from custody.vault.signing import OpenedKeys, sign_digests
from custody.vault.storage import CasConflict
from custody.vault.wallet_keys import make_once

SEATS: Final = ("hot-1", "hot-2", "hot-3", "hot-4")
QUORUM: Final = SEATS[:3]
_NOBODY: Final = Signature(Key(Scheme.ED25519, bytes(32)), bytes(64))


class MemoryVault:
    """A `Vault` that ends with this process. It has no identity: nobody believes what its holder says."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[Mapping[str, object], int]] = {}

    def identity_public(self) -> bytes:
        """See `Vault`."""
        raise Unavailable("throw-away vault", "it has no identity")

    def identity_sign(self, message: bytes) -> bytes:
        """See `Vault`."""
        raise Unavailable("throw-away vault", f"it has no identity to sign {len(message)} bytes with")

    def read(self, path: str) -> tuple[Mapping[str, object] | None, int]:
        """See `Vault`."""
        return self.documents.get(path, (None, 0))

    def write(self, path: str, data: Mapping[str, object], cas: int) -> None:
        """See `Vault`."""
        if self.read(path)[1] != cas:
            raise CasConflict(path, cas)
        self.documents[path] = (dict(data), cas + 1)

    def list(self, path: str) -> Sequence[str]:
        """See `Vault`."""
        return sorted(name.removeprefix(f"{path}/") for name in self.documents if name.startswith(f"{path}/"))


@dataclass(frozen=True)
class SeatedWallet:
    """A certificate, and its seats' vaults with the keys in them. The identity signatures mean nothing."""

    certificate: WalletCertificate
    vaults: dict[str, MemoryVault]
    assets: Assets
    others: tuple[WalletCertificate, ...] = ()

    @property
    def name(self) -> bytes:
        """The wallet's name."""
        return self.certificate.struct_hash

    @property
    def signed(self) -> Signed[WalletCertificate]:
        """The certificate as documents carry it, without its quorum."""
        return Signed(self.certificate, ())

    def decode(self, unsigned: UnsignedPayout) -> DecodedPayload:
        """What the seats' own decoder reads. Raises Refused."""
        around = Surroundings(self.name, self.certificate, self.assets, others=self.others)
        payload = unsigned.payload
        decoded = (
            evm_decode.decode(payload, around)
            if isinstance(payload, SafeTx)
            else bitcoin_decode.decode(payload, around)
        )
        if not isinstance(decoded, DecodedPayload):
            raise Refused(decoded)
        return decoded

    def sign(self, unsigned: UnsignedPayout, seats: Sequence[str] = QUORUM) -> list[SeatSignatures]:
        """Each of these seats decodes by itself and signs the digests that it found."""
        decoded = self.decode(unsigned)
        return [sign_digests(OpenedKeys(self.vaults[seat]), seat, self.certificate, decoded.to_sign) for seat in seats]


def seated_safe(contracts: SafeContracts, label: str, assets: Assets, chain: Chain) -> SeatedWallet:
    """A 3-of-4 Safe over fresh keys."""
    vaults = {name: MemoryVault() for name in SEATS}
    keys = _keys(vaults, label, chain)
    safe = wallet_safe(contracts, [owner_address(key.key.public) for key in keys], 3, int.from_bytes(os.urandom(8)))
    certificate = _certificate(label, chain, keys, ((safe,), ()), 0)
    return SeatedWallet(certificate, vaults, assets)


def seated_script(label: str, assets: Assets, chain: Chain, birth: int = 0) -> SeatedWallet:
    """A 3-of-4 P2WSH wallet over fresh keys."""
    vaults = {name: MemoryVault() for name in SEATS}
    keys = _keys(vaults, label, chain)
    script = BitcoinScript(wallet_descriptor(3, [key.key.xpub for key in keys]))
    return SeatedWallet(_certificate(label, chain, keys, ((), (script,)), birth), vaults, assets)


def _keys(vaults: dict[str, MemoryVault], label: str, chain: Chain) -> tuple[SeatKey, ...]:
    made = {name: make_once(vault, label, chain, os.urandom) for name, vault in vaults.items()}
    return tuple(SeatKey(WalletKey(name, label, chain.name, p.public, p.xpub), _NOBODY) for name, p in made.items())


def _certificate(label: str, chain: Chain, keys: tuple[SeatKey, ...], script: Script, birth: int) -> WalletCertificate:
    return WalletCertificate(
        previous=ZERO32,
        label=label,
        tier=Tier.CUSTOMER_HOT,
        chain=chain.name,
        m=3,
        n=len(keys),
        seats=keys,
        safe=script[0],
        script=script[1],
        birth=birth,
    )


@dataclass
class RelayerHand:
    """The relayer's key in memory, behind the rule of its real seat (`rules.relaying`), without the roster's quorum."""

    chain: Chain
    cap: int = 10**18
    account: LocalAccount = field(default_factory=Account.create)
    signed: list[RelayCall] = field(default_factory=list)

    def identity(self) -> Key:
        """See `RelaySigner`."""
        return Key(Scheme.EIP712_SECP256K1, bytes.fromhex(self.account.address[2:]))

    def sign_call(self, call: RelayCall, certificate: Signed[WalletCertificate]) -> bytes:
        """See `RelaySigner`."""
        raise_if(check_call(call, certificate.message, Relayer(self.chain.name, self.account.address, self.cap)))
        self.signed.append(call)
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain.evm_id,
            "nonce": call.nonce,
            "to": call.to,
            "value": call.value,
            "data": call.data,
            "gas": call.gas,
            "maxFeePerGas": call.max_fee_per_gas,
            "maxPriorityFeePerGas": call.max_priority_fee_per_gas,
        }
        return bytes(self.account.sign_transaction(fields).raw_transaction)
