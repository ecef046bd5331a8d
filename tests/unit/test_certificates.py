# SPDX-License-Identifier: AGPL-3.0-or-later
"""Wallet certificates by themselves: shape, seats, keys, organisations, tier, succession."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.certificates import (
    BitcoinScript,
    SeatKey,
    WalletCertificate,
    WalletKey,
    check_certificate,
    check_shape,
    check_succession,
)
from custody.rules.refusals import Rule
from tests.unit.signers import BTC, ETH, SAFE, VERSION_1, certificate, wallet_key

ORGANISATIONS: Final = {seat.id: seat.organisation for seat in VERSION_1.seats}
COLD: Final = frozenset(seat.id for seat in VERSION_1.seats if seat.cold)
LABEL: Final = f"customer_hot/{ETH}"
SEATS: Final = certificate().seats
SCRIPT: Final = BitcoinScript("wsh(sortedmulti(3))#checksum")


def rules(made: WalletCertificate, organisations: dict[str, str] = ORGANISATIONS) -> set[Rule]:
    """The rules that refuse a certificate."""
    return {refusal.rule for refusal in check_certificate(made, organisations, COLD)}


def with_key(number: int, **changes: Any) -> tuple[SeatKey, ...]:
    """The four seats with one's wallet key changed."""
    seats = list(SEATS)
    seats[number] = replace(seats[number], key=replace(seats[number].key, **changes))
    return tuple(seats)


def on_bitcoin(**changes: Any) -> WalletCertificate:
    """The Bitcoin twin of the certificate."""
    label = f"customer_cold/{BTC}"
    seats = tuple(wallet_key(f"cold-{n}", label, BTC) for n in (1, 2, 3, 4))
    whole = certificate(label=label, tier="customer_cold", chain=BTC, seats=seats, safe=(), script=(SCRIPT,))
    return replace(whole, **changes)


@pytest.mark.parametrize("made", [certificate(), on_bitcoin()], ids=["hot on EVM", "cold on Bitcoin"])
def test_a_whole_certificate_is_accepted(made: WalletCertificate) -> None:
    """What the other tests change is accepted as it is."""
    assert rules(made) == set()


@pytest.mark.parametrize(
    ("m", "n", "rule"),
    [
        pytest.param(2, 2, None, id="2-of-2"),
        pytest.param(3, 3, None, id="3-of-3"),
        pytest.param(3, 4, None, id="3-of-4"),
        pytest.param(4, 4, None, id="4-of-4"),
        pytest.param(4, 5, None, id="4-of-5"),
        pytest.param(4, 6, None, id="4-of-6"),
        pytest.param(5, 8, None, id="5-of-8"),
        pytest.param(8, 14, None, id="8-of-14"),
        pytest.param(1, 1, Rule.QUORUMS_TOO_DISJOINT, id="1-of-1"),
        pytest.param(1, 2, Rule.QUORUMS_TOO_DISJOINT, id="1-of-2"),
        pytest.param(2, 3, Rule.QUORUMS_TOO_DISJOINT, id="2-of-3: two quorums share one seat"),
        pytest.param(2, 4, Rule.QUORUMS_TOO_DISJOINT, id="2-of-4: two quorums share none"),
        pytest.param(3, 5, Rule.QUORUMS_TOO_DISJOINT, id="3-of-5"),
        pytest.param(4, 7, Rule.QUORUMS_TOO_DISJOINT, id="4-of-7"),
        pytest.param(8, 15, Rule.QUORUMS_TOO_DISJOINT, id="8-of-15"),
        pytest.param(0, 0, Rule.THRESHOLD_OUT_OF_RANGE, id="0-of-0"),
        pytest.param(0, 4, Rule.THRESHOLD_OUT_OF_RANGE, id="0-of-4"),
        pytest.param(5, 4, Rule.THRESHOLD_OUT_OF_RANGE, id="5-of-4"),
        pytest.param(-1, 4, Rule.THRESHOLD_OUT_OF_RANGE, id="negative"),
    ],
)
def test_shape(m: int, n: int, rule: Rule | None) -> None:
    """1 ≤ M ≤ N and 2M−N ≥ 2 (TRUST.md)."""
    assert [refusal.rule for refusal in check_shape(m, n)] == ([] if rule is None else [rule])


@given(st.integers(0, 30), st.integers(0, 30))
def test_shape_means_that_any_two_quorums_share_two_seats(m: int, n: int) -> None:
    """The arithmetic says what it is for: the smallest overlap of two quorums of M out of N is 2M−N, or none."""
    accepted = not list(check_shape(m, n))
    assert accepted is (1 <= m <= n and max(0, m - (n - m)) >= 2)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        pytest.param({"m": 2}, Rule.QUORUMS_TOO_DISJOINT, id="2-of-4"),
        pytest.param({"m": 0}, Rule.THRESHOLD_OUT_OF_RANGE, id="threshold 0"),
        pytest.param({"m": 5}, Rule.THRESHOLD_OUT_OF_RANGE, id="threshold above N"),
        pytest.param({"seats": SEATS[:3]}, Rule.THRESHOLD_OUT_OF_RANGE, id="three seats for N of 4"),
        pytest.param({"seats": ()}, Rule.THRESHOLD_OUT_OF_RANGE, id="no seats"),
        pytest.param({"seats": (*SEATS[:3], SEATS[0])}, Rule.SIGNER_TWICE, id="one seat twice"),
        pytest.param({"seats": with_key(3, public=SEATS[0].key.public)}, Rule.KEY_REUSED, id="one key at two seats"),
        pytest.param(
            {"seats": with_key(3, public=SEATS[0].key.public, xpub="noise")},
            Rule.KEY_REUSED,
            id="one key at two seats, told apart by an xpub that EVM does not use",
        ),
        pytest.param({"seats": with_key(3, seat="hot-9")}, Rule.SEAT_UNKNOWN, id="a seat the roster lacks"),
        pytest.param(
            {"seats": (*SEATS[:3], wallet_key("cold-4", LABEL))}, Rule.SEAT_TIER, id="a cold seat in a hot wallet"
        ),
        pytest.param({"tier": "customer_cold"}, Rule.SEAT_TIER, id="hot seats in a cold wallet"),
        pytest.param({"tier": "exempt"}, Rule.MALFORMED, id="a tier that does not exist"),
        pytest.param({"tier": ""}, Rule.MALFORMED, id="no tier"),
        pytest.param({"label": "operational/x"}, Rule.KEY_REUSED, id="keys made for another label"),
        pytest.param({"seats": with_key(0, chain="eip155:1")}, Rule.KEY_REUSED, id="a key made for another chain"),
        pytest.param({"seats": with_key(0, public=b"")}, Rule.SCRIPT_MISMATCH, id="no key"),
        pytest.param({"seats": with_key(0, public=bytes(65))}, Rule.SCRIPT_MISMATCH, id="an uncompressed key"),
        pytest.param({"seats": with_key(0, xpub="xpub")}, Rule.SCRIPT_MISMATCH, id="an xpub on EVM"),
        pytest.param({"safe": ()}, Rule.SCRIPT_MISMATCH, id="no Safe on EVM"),
        pytest.param({"safe": (SAFE, SAFE)}, Rule.SCRIPT_MISMATCH, id="two Safes"),
        pytest.param({"script": (SCRIPT,)}, Rule.SCRIPT_MISMATCH, id="a Bitcoin script on EVM"),
        pytest.param(
            {"safe": (), "script": (SCRIPT,)}, Rule.SCRIPT_MISMATCH, id="a Bitcoin script in place of the Safe"
        ),
    ],
)
def test_check_certificate_refuses(changes: dict[str, Any], rule: Rule) -> None:
    """Each fault of an EVM certificate is refused by its own rule."""
    assert rule in rules(certificate(**changes))


def bitcoin_keys(*xpubs: str) -> tuple[SeatKey, ...]:
    """Four cold seats with these xpubs."""
    whole = on_bitcoin()
    return tuple(replace(seat, key=replace(seat.key, xpub=xpub)) for seat, xpub in zip(whole.seats, xpubs, strict=True))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        pytest.param({"safe": (SAFE,)}, Rule.SCRIPT_MISMATCH, id="a Safe on Bitcoin"),
        pytest.param({"script": ()}, Rule.SCRIPT_MISMATCH, id="no script"),
        pytest.param({"script": (SCRIPT, SCRIPT)}, Rule.SCRIPT_MISMATCH, id="two scripts"),
        pytest.param({"seats": bitcoin_keys("a", "b", "c", "")}, Rule.SCRIPT_MISMATCH, id="no xpub"),
        pytest.param({"seats": bitcoin_keys("a", "b", "c", "a")}, Rule.KEY_REUSED, id="one xpub twice"),
        pytest.param(
            {"seats": bitcoin_keys("[11111111/48h]a", "b", "c", "[22222222/49h]a")},
            Rule.KEY_REUSED,
            id="one xpub twice, under two origins",
        ),
        pytest.param({"tier": "customer_hot"}, Rule.SEAT_TIER, id="cold seats in a hot wallet"),
    ],
)
def test_check_certificate_refuses_on_bitcoin(changes: dict[str, Any], rule: Rule) -> None:
    """Each fault of a Bitcoin certificate is refused by its own rule."""
    assert rule in rules(on_bitcoin(**changes))


@pytest.mark.parametrize(
    ("held", "refused"),
    [
        pytest.param(1, False, id="one seat each"),
        pytest.param(2, False, id="two of a quorum of three"),
        pytest.param(3, True, id="a whole quorum (Ronin)"),
        pytest.param(4, True, id="every seat"),
    ],
)
def test_no_organisation_holds_a_quorum(held: int, refused: bool) -> None:
    """One organisation may hold fewer than M seats of a wallet."""
    organisations = {f"hot-{n}": "big" if n <= held else f"org {n}" for n in (1, 2, 3, 4)}
    assert (Rule.ORGANISATION_HOLDS_QUORUM in rules(certificate(), organisations)) is refused


def test_refusals_accumulate() -> None:
    """Every reason at once."""
    assert rules(certificate(m=0, tier="exempt", safe=())) >= {
        Rule.THRESHOLD_OUT_OF_RANGE,
        Rule.MALFORMED,
        Rule.SCRIPT_MISMATCH,
    }


OLD: Final = certificate()
NEXT: Final = certificate(previous=OLD.struct_hash, birth=9)


@pytest.mark.parametrize(
    ("new", "rule"),
    [
        pytest.param(NEXT, None, id="keeps tier and chain"),
        pytest.param(replace(NEXT, previous=bytes(32)), Rule.NOT_SUCCESSOR, id="names no predecessor"),
        pytest.param(replace(NEXT, previous=NEXT.struct_hash), Rule.NOT_SUCCESSOR, id="names another"),
        pytest.param(
            replace(NEXT, tier="operational"), Rule.TIER_CHANGED, id="customers' wallet becomes the company's"
        ),
        pytest.param(replace(NEXT, tier="customer_cold"), Rule.TIER_CHANGED, id="hot becomes cold"),
        pytest.param(replace(NEXT, chain="eip155:1"), Rule.TIER_CHANGED, id="moves to another chain"),
    ],
)
def test_succession(new: WalletCertificate, rule: Rule | None) -> None:
    """Law 1: a wallet is in its tier for ever."""
    assert [refusal.rule for refusal in check_succession(OLD, new)] == ([] if rule is None else [rule])


def test_a_wallet_is_named_by_its_first_certificate() -> None:
    """The name is the struct hash, and everything that determines the script is in it."""
    assert OLD.wallet == OLD.struct_hash
    assert len({OLD.wallet, certificate(m=4).wallet, certificate(safe=(replace(SAFE, salt=2),)).wallet}) == 3


def test_material_is_the_key_whatever_stands_around_it() -> None:
    """An origin is a note; the key after it is what may stand in one place only."""
    with_origin = WalletKey("cold-1", LABEL, BTC, b"", "[aabbccdd/48h/1h]tpubX")
    assert with_origin.material == replace(with_origin, xpub="tpubX").material == "tpubX"
    assert WalletKey("hot-1", LABEL, ETH, b"\x02" * 33, "").material == "02" * 33
