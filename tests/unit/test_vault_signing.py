# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat's own signing: exactly the plan's digests, with the certified key or not at all."""

from collections.abc import Callable
from dataclasses import replace

import coincurve
import pytest

from custody.chains.bitcoin.scripts import witness_script
from custody.chains.evm.safes import owner_address
from custody.chains.evm.signatures import recovered
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.payouts import Place, ToSign
from custody.rules.refusals import Refused, Rule
from custody.vault.signing import OpenedKeys, sign_digests
from custody.vault.wallet_keys import key_path
from devnet.throwaway import SEATS, SeatedWallet, seated_safe, seated_script
from tests.fakes.bitcoin import ASSETS, REGTEST
from tests.fakes.evm import CHAIN, NOWHERE

DIGESTS = [bytes([i]) * 32 for i in range(1, 4)]


@pytest.fixture(params=["evm", "bitcoin"])
def wallet(request: pytest.FixtureRequest) -> SeatedWallet:
    """A wallet of each kind with its seats' vaults."""
    if request.param == "evm":
        return seated_safe(NOWHERE, "customer_hot", ASSETS, CHAIN)
    return seated_script("customer_hot", ASSETS, REGTEST)


def places(wallet: SeatedWallet, index: int = 5) -> list[ToSign]:
    """Three digests at one place."""
    return [ToSign(digest, Place(wallet.certificate.struct_hash, 1, index)) for digest in DIGESTS]


def test_evm_signatures_are_the_owners() -> None:
    """65 bytes each, recovered to the seat's owner address, low s; the same again when asked again."""
    wallet = seated_safe(NOWHERE, "customer_hot", ASSETS, CHAIN)
    for name, seat in zip(SEATS, wallet.certificate.seats, strict=True):
        made = sign_digests(OpenedKeys(wallet.vaults[name]), name, wallet.certificate, places(wallet))
        assert [recovered(s, d) for s, d in zip(made.signatures, DIGESTS, strict=True)] == [
            owner_address(seat.key.public)
        ] * 3
        assert all(int.from_bytes(s[32:64]) < 2**255 and s[64] in {27, 28} for s in made.signatures)
        assert sign_digests(OpenedKeys(wallet.vaults[name]), name, wallet.certificate, places(wallet)) == made


def test_bitcoin_signatures_are_by_the_key_of_the_place() -> None:
    """DER with SIGHASH_ALL, under the one key of the place's script that is this seat's."""
    wallet = seated_script("customer_hot", ASSETS, REGTEST)
    script = witness_script(wallet.certificate, 1, 5)
    publics = [coincurve.PublicKey(script[2 + 34 * i : 35 + 34 * i]) for i in range(4)]
    signers = set[int]()
    for name in SEATS:
        made = sign_digests(OpenedKeys(wallet.vaults[name]), name, wallet.certificate, places(wallet))
        assert {s[-1] for s in made.signatures} == {1}
        for signature, digest in zip(made.signatures, DIGESTS, strict=True):
            (who,) = [i for i, key in enumerate(publics) if key.verify(signature[:-1], digest, hasher=None)]
            signers.add(who)
    assert signers == {0, 1, 2, 3}


def damaged(**changes: object) -> Callable[[SeatedWallet], None]:
    """Another entry in the first seat's vault."""

    def change(wallet: SeatedWallet) -> None:
        vault, certificate = wallet.vaults["hot-1"], wallet.certificate
        key = certificate.seats[0].key
        stored, version = vault.read(key_path(key.label, CHAIN if key.chain == CHAIN.name else REGTEST))
        assert stored is not None
        vault.write(key_path(key.label, CHAIN if key.chain == CHAIN.name else REGTEST), {**stored, **changes}, version)

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(damaged(secret="11" * 32), id="another key"),
        pytest.param(damaged(secret="11" * 31), id="short"),
        pytest.param(damaged(secret="not hex"), id="not hex"),
        pytest.param(damaged(secret=7), id="not text"),
        pytest.param(damaged(label="operational"), id="another label's"),
        pytest.param(damaged(chain="eip155:1"), id="another chain's"),
        pytest.param(lambda wallet: wallet.vaults["hot-1"].documents.clear(), id="gone"),
    ],
)
def test_another_key_than_the_certified_one_signs_nothing(
    wallet: SeatedWallet, change: Callable[[SeatedWallet], None]
) -> None:
    """Unavailable, and no word about what lies in the vault."""
    change(wallet)
    with pytest.raises(Unavailable) as caught:
        sign_digests(OpenedKeys(wallet.vaults["hot-1"]), "hot-1", wallet.certificate, places(wallet))
    assert "11" * 31 not in str(caught.value)
    assert caught.value.__context__ is None


def test_what_is_not_signed(wallet: SeatedWallet) -> None:
    """A stranger, a place of another certificate, no digest, a digest of another length."""
    vault, asked = wallet.vaults["hot-1"], places(wallet)
    for seat, to_sign, rule in (
        ("mallory", asked, Rule.NOT_OWN_KEY),
        ("hot-1", [*asked, replace(asked[0], place=Place(bytes(32)))], Rule.WRONG_WALLET),
        ("hot-1", [], Rule.MALFORMED),
        ("hot-1", [replace(asked[0], digest=b"short")], Rule.MALFORMED),
    ):
        with pytest.raises(Refused) as caught:
            sign_digests(OpenedKeys(vault), seat, wallet.certificate, to_sign)
        assert [refusal.rule for refusal in caught.value.refusals] == [rule]
    if not wallet.certificate.safe:
        with pytest.raises(InvalidInput):
            sign_digests(
                OpenedKeys(vault),
                "hot-1",
                wallet.certificate,
                [replace(asked[0], place=Place(asked[0].place.certificate))],
            )
