# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wallet-key signing inside the seat's own process: a plan's digests, and nothing else, with the key of their place.

The digests are the ones that this seat's own decoder computed and `seat.decide` said yes to; no payload is read here, so that
there is no second opinion about what is signed (DESIGN.md, law 4). A secret is read from the seat's own vault at the moment of
signing, is held no longer than the request, and leaves this module only as signatures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import coincurve
from embit.bip32 import HDKey  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]

from custody.rules.certificates import SeatKey, WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.payments import SeatSignatures
from custody.rules.payouts import Place, ToSign
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.wallets import Chain
from custody.vault.storage import Vault
from custody.vault.wallet_keys import SECRET_BYTES, account_path, key_path

_SIGHASH_ALL: Final = b"\x01"


@dataclass(repr=False)
class OpenedKeys:
    """Keys of one seat's vault, each opened at its first use and checked against what was certified; dropped with the request."""

    vault: Vault
    _evm: dict[tuple[str, bytes], coincurve.PrivateKey] = field(default_factory=dict)
    _branches: dict[tuple[str, str, int], HDKey] = field(default_factory=dict)

    def evm(self, own: SeatKey) -> coincurve.PrivateKey:
        """The key of an EVM wallet. Raises Unavailable."""
        place = (own.key.label, own.key.public)
        if place not in self._evm:
            key = coincurve.PrivateKey(_secret(self.vault, own))
            if key.public_key.format(compressed=True) != own.key.public:
                raise _another(own)
            self._evm[place] = key
        return self._evm[place]

    def branch(self, own: SeatKey, branch: int) -> HDKey:
        """The key above all indices of a branch of a Bitcoin wallet's account. Raises Unavailable."""
        place = (own.key.label, own.key.xpub, branch)
        if place not in self._branches:
            self._branches[place] = _account(_secret(self.vault, own), own).derive([branch])
        return self._branches[place]


def sign_digests(
    keys: OpenedKeys, seat: str, certificate: WalletCertificate, to_sign: Sequence[ToSign]
) -> SeatSignatures:
    """One signature for each digest, in order; each verified under the certificate's key before anybody sees it.

    EVM: r ‖ s ‖ v, v 27 or 28, low s. Bitcoin: DER, low s, with SIGHASH_ALL's byte behind, by the key of the place's branch and
    index. Raises Refused: own_key_not_in_certificate, payload_of_another_wallet, malformed; Unavailable where the vault does
    not answer, or holds another key than the one that it was certified with.
    """
    own = next((key for key in certificate.seats if key.key.seat == seat), None)
    if own is None:
        raise Refused([Refusal(Rule.NOT_OWN_KEY, seat=seat, certificate=certificate.struct_hash.hex())])
    strays = [each.place for each in to_sign if each.place.certificate != certificate.struct_hash]
    if strays:
        want = certificate.struct_hash.hex()
        raise Refused([Refusal(Rule.WRONG_WALLET, got=place.certificate.hex(), want=want) for place in strays])
    if not to_sign or any(len(each.digest) != 32 for each in to_sign):
        raise Refused([Refusal(Rule.MALFORMED, field="digests", got=len(to_sign), want="at least one, of 32 bytes")])
    sign = _sign_evm if Chain(certificate.chain).is_evm else _sign_bitcoin
    return SeatSignatures(seat, certificate.struct_hash, tuple(sign(keys, own, each) for each in to_sign))


def _sign_evm(keys: OpenedKeys, own: SeatKey, each: ToSign) -> bytes:
    key = keys.evm(own)
    made = key.sign_recoverable(each.digest, hasher=None)
    if coincurve.PublicKey.from_signature_and_message(made, each.digest, hasher=None) != key.public_key:
        raise _another(own)
    return made[:64] + bytes([27 + made[64]])


def _account(secret: bytes, own: SeatKey) -> HDKey:
    """The account of a Bitcoin wallet's key, if it is the certified one. Raises Unavailable."""
    chain = Chain(own.key.chain)
    versions = NETWORKS[chain.bitcoin_network]
    path = account_path(chain.bitcoin_network)
    root = HDKey.from_seed(secret, version=versions["xprv"])
    account = root.derive(f"m/{path}")
    shown = f"[{root.my_fingerprint.hex()}/{path}]{account.to_public().to_base58(version=versions['xpub'])}"
    if shown != own.key.xpub:
        raise _another(own)
    return account


def _sign_bitcoin(keys: OpenedKeys, own: SeatKey, each: ToSign) -> bytes:
    key = coincurve.PrivateKey(keys.branch(own, each.place.branch).derive([_index(each.place)]).secret)
    made = key.sign(each.digest, hasher=None)
    if not key.public_key.verify(made, each.digest, hasher=None):
        raise _another(own)
    return made + _SIGHASH_ALL


def _index(place: Place) -> int:
    if place.index is None:
        raise InvalidInput("place.index", Rule.MALFORMED, "none", "the index of a Bitcoin input")
    return place.index


def _secret(vault: Vault, own: SeatKey) -> bytes:
    stored, _ = vault.read(key_path(own.key.label, Chain(own.key.chain)))
    secret = stored.get("secret") if stored is not None else None
    if (
        stored is None
        or not isinstance(secret, str)
        or (stored.get("label"), stored.get("chain"))
        != (
            own.key.label,
            own.key.chain,
        )
    ):
        raise _another(own)
    try:
        material = bytes.fromhex(secret)
    except ValueError:
        material = b""
    if len(material) != SECRET_BYTES:
        raise _another(own)
    return material


def _another(own: SeatKey) -> Unavailable:
    return Unavailable("wallet key", f"the vault's key for {own.key.label} on {own.key.chain} is not the certified one")
