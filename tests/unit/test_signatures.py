# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signatures: what counts as a key's own word over exactly these bytes, and everything that does not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.errors import InvalidInput
from custody.rules.intents import Rejection
from custody.rules.refusals import Rule
from custody.rules.settlements import Leg
from custody.rules.signatures import Key, Scheme, Signature, Signed
from custody.rules.typed import Domain
from tests.unit.signers import Signer, signed

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
DIGEST: Final = bytes(range(32))
DEVICE: Final = Signer("device:ana")
SERVER: Final = Signer("backend")


def high_s(value: bytes) -> bytes:
    """The other signature of the same key over the same bytes: s to n - s, parity turned (EIP-2)."""
    s = ORDER - int.from_bytes(value[32:64])
    return value[:32] + s.to_bytes(32) + bytes([value[64] ^ 1])


def plus_order(s: bytes) -> bytes:
    """The same S modulo the order of Ed25519's group, spelled otherwise."""
    return (int.from_bytes(s, "little") + 2**252 + 27742317777372353535851937790883648493).to_bytes(32, "little")


def changed(value: bytes, position: int) -> bytes:
    """One bit changed."""
    return value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]


@pytest.mark.parametrize("signer", [DEVICE, SERVER], ids=["secp256k1", "ed25519"])
def test_a_keys_own_signature_holds(signer: Signer) -> None:
    """Each scheme's signature holds over the digest it was made for, and over no other."""
    signature = signer.over(DIGEST)
    assert signature.is_over(DIGEST)
    assert not signature.is_over(bytes(32))
    assert not signature.is_over(changed(DIGEST, 31))


@pytest.mark.parametrize("offset", [0, 27], ids=["v 0 or 1", "v 27 or 28"])
def test_both_spellings_of_the_parity_hold(offset: int) -> None:
    """Wallets answer 27/28, libraries 0/1: the same signature."""
    value = DEVICE.over(DIGEST).value
    assert value[64] in (0, 1)
    assert Signature(DEVICE.key, value[:64] + bytes([value[64] + offset])).is_over(DIGEST)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(high_s, id="high s, though it recovers the same key"),
        pytest.param(lambda v: v[:64], id="64 bytes: no parity"),
        pytest.param(lambda v: v + b"\x00", id="66 bytes"),
        pytest.param(lambda v: b"", id="empty"),
        pytest.param(lambda v: v[:64] + bytes([v[64] ^ 1]), id="other parity"),
        pytest.param(lambda v: v[:64] + b"\x02", id="v 2"),
        pytest.param(lambda v: v[:64] + b"\x1d", id="v 29"),
        pytest.param(lambda v: v[:64] + bytes([v[64] + 35]), id="EIP-155 v"),
        pytest.param(lambda v: bytes(32) + v[32:], id="r zero"),
        pytest.param(lambda v: v[:32] + bytes(32) + v[64:], id="s zero"),
        pytest.param(lambda v: ORDER.to_bytes(32) + v[32:], id="r the group order"),
        pytest.param(lambda v: b"\xff" * 32 + v[32:], id="r above the group order"),
        pytest.param(lambda v: bytes(65), id="all zero"),
        pytest.param(lambda v: changed(v, 5), id="one bit of r"),
        pytest.param(lambda v: changed(v, 40), id="one bit of s"),
    ],
)
def test_secp256k1_refuses(spoil: Callable[[bytes], bytes]) -> None:
    """Every malformed, malleated or foreign value is no signature; none of them raises."""
    assert not Signature(DEVICE.key, spoil(DEVICE.over(DIGEST).value)).is_over(DIGEST)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda v: v[:63], id="63 bytes"),
        pytest.param(lambda v: v + b"\x00", id="65 bytes"),
        pytest.param(lambda v: b"", id="empty"),
        pytest.param(lambda v: bytes(64), id="all zero"),
        pytest.param(lambda v: changed(v, 5), id="one bit of R"),
        pytest.param(lambda v: changed(v, 40), id="one bit of S"),
        pytest.param(lambda v: v[:32] + plus_order(v[32:]), id="S plus the group order (RFC 8032, 5.1.7)"),
    ],
)
def test_ed25519_refuses(spoil: Callable[[bytes], bytes]) -> None:
    """The same for Ed25519."""
    assert not Signature(SERVER.key, spoil(SERVER.over(DIGEST).value)).is_over(DIGEST)


def test_a_signature_under_another_key_does_not_hold() -> None:
    """Claiming somebody else's signature does not make it one's own."""
    assert not Signature(Signer("device:bo").key, DEVICE.over(DIGEST).value).is_over(DIGEST)
    assert not Signature(Signer("settler").key, SERVER.over(DIGEST).value).is_over(DIGEST)


def test_schemes_do_not_cross() -> None:
    """A value of one scheme says nothing under a key of the other."""
    assert not Signature(SERVER.key, DEVICE.over(DIGEST).value).is_over(DIGEST)
    assert not Signature(DEVICE.key, SERVER.over(DIGEST).value).is_over(DIGEST)


def test_a_public_key_that_is_no_point_verifies_nothing() -> None:
    """An Ed25519 key off the curve refuses instead of raising."""
    assert not Signature(Key(Scheme.ED25519, b"\x02" + bytes(31)), SERVER.over(DIGEST).value).is_over(DIGEST)


@pytest.mark.parametrize(
    ("scheme", "public", "field"),
    [
        pytest.param("rsa", bytes(32), "key.scheme", id="unknown scheme"),
        pytest.param("", bytes(32), "key.scheme", id="no scheme"),
        pytest.param("ED25519", bytes(32), "key.scheme", id="capitals"),
        pytest.param("ed25519", bytes(31), "key.public", id="ed25519 of 31 bytes"),
        pytest.param("ed25519", bytes(20), "key.public", id="an address as ed25519"),
        pytest.param("eip712-secp256k1", bytes(33), "key.public", id="compressed key for an address"),
        pytest.param("eip712-secp256k1", b"", "key.public", id="empty"),
    ],
)
def test_a_key_is_well_formed(scheme: str, public: bytes, field: str) -> None:
    """A key of no known scheme or of the wrong length cannot be made."""
    with pytest.raises(InvalidInput) as caught:
        Key(scheme, public)
    assert (caught.value.field, caught.value.rule) == (field, Rule.MALFORMED)


HERE: Final = bytes([1]) * 32
ELSEWHERE: Final = bytes([2]) * 32
NO: Final = Rejection(bytes(32), "no")


def test_signers_are_the_distinct_keys_with_a_valid_signature() -> None:
    """One key twice is one signer; an invalid signature is none."""
    ana, bo = Signer("device:ana"), Signer("device:bo")
    good = ana.sign(NO, HERE)
    bad = Signature(bo.key, good.value)
    assert Signed(NO, (good, good, bad)).signers(Domain(HERE)) == {ana.key}


def test_another_deployments_signature_is_none() -> None:
    """Genesis is in the digest: what was signed for one deployment means nothing in another."""
    document = signed(NO, ELSEWHERE, ["device:ana", "backend"])
    assert document.signers(Domain(HERE)) == frozenset()
    assert len(document.signers(Domain(ELSEWHERE))) == 2


def test_a_changed_message_loses_its_signers() -> None:
    """A signature is over exactly this message."""
    document = signed(NO, HERE, ["device:ana"])
    assert replace(document, message=Rejection(bytes(32), "yes")).signers(Domain(HERE)) == frozenset()


def test_joined_keeps_each_key_once_in_key_order() -> None:
    """Gathering is independent of the order in which signatures come."""
    ana, bo, server = (Signer(word).sign(NO, HERE) for word in ("device:ana", "device:bo", "backend"))
    one, other = Signed(NO, ()).joined([ana, bo, server]), Signed(NO, (server,)).joined([bo, ana, bo])
    assert one == other
    assert len(one.signatures) == 3


def test_signed_json_round_trip() -> None:
    """A signed message survives its JSON form."""
    document = signed(NO, HERE, ["device:ana", "backend"])
    assert Signed.from_json(Rejection, document.to_json()) == document


WHOLE: Final = signed(NO, HERE, ["backend"]).to_json()


@pytest.mark.parametrize(
    ("data", "field"),
    [
        pytest.param(None, "Rejection", id="null"),
        pytest.param([], "Rejection", id="list"),
        pytest.param({**WHOLE, "note": ""}, "Rejection", id="unknown key"),
        pytest.param({k: v for k, v in WHOLE.items() if k != "type"}, "Rejection", id="no type"),
        pytest.param({**WHOLE, "type": "Void"}, "type", id="another type"),
        pytest.param({**WHOLE, "type": None}, "type", id="null type"),
        pytest.param({**WHOLE, "signatures": {}}, "signatures", id="signatures an object"),
        pytest.param({**WHOLE, "signatures": ["0x"]}, "signatures[0]", id="signature a string"),
        pytest.param(
            {**WHOLE, "signatures": [{**WHOLE["signatures"][0], "value": "0xZZ"}]}, "signatures[0].value", id="not hex"
        ),
        pytest.param({**WHOLE, "message": {**WHOLE["message"], "reason": 1}}, "Rejection.reason", id="reason a number"),
    ],
)
def test_signed_json_refuses(data: Any, field: str) -> None:
    """Each malformed document names the place."""
    with pytest.raises(InvalidInput) as caught:
        Signed.from_json(Rejection, data)
    assert (caught.value.field, caught.value.rule) == (field, Rule.MALFORMED)


@given(st.binary(max_size=80), st.binary(min_size=32, max_size=32))
def test_no_bytes_are_a_signature_by_luck_nor_an_exception(value: bytes, digest: bytes) -> None:
    """Whatever a peer sends is true or false."""
    for signer in (DEVICE, SERVER):
        assert Signature(signer.key, value).is_over(digest) is False


@given(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.integers(-(2**255), 2**255 - 1),
    st.sampled_from(["device:ana", "backend"]),
)
def test_signing_round_trip(text: str, change: int, word: str) -> None:
    """Any message can be signed by either scheme and is found signed by that key alone."""
    document = signed(Leg(text, text, change), HERE, [word])
    assert document.signers(Domain(HERE)) == {Signer(word).key}
