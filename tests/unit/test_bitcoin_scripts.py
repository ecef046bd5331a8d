# SPDX-License-Identifier: AGPL-3.0-or-later
"""Descriptors are made one way, and a certificate whose descriptor is anything else is refused with the reason."""

import subprocess
import sys
from itertools import permutations

import pytest
from embit.descriptor.checksum import add_checksum  # type: ignore[import-untyped]

from custody.chains.bitcoin import scripts
from custody.chains.bitcoin.scripts import (
    change_address,
    check_script,
    receive_address,
    script_pubkey,
    wallet_descriptor,
    witness_script,
)
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refused, Rule
from custody.rules.wallets import Address, Chain
from tests.fakes.bitcoin import MAIN, REGTEST, bitcoin_certificate, seat_xpub

KEYS = [seat_xpub(f"hot-{i}") for i in range(4)]
STRANGER = seat_xpub("mallory")
RIGHT = wallet_descriptor(3, KEYS)
BODY = RIGHT.partition("#")[0]
JOINED = ",".join(key + "/<0;1>/*" for key in sorted(KEYS))


def test_one_descriptor_whatever_the_order() -> None:
    """The order in which seats are named does not change the wallet."""
    assert {wallet_descriptor(3, order) for order in permutations(KEYS)} == {RIGHT}
    assert add_checksum(BODY) == RIGHT
    assert list(check_script(bitcoin_certificate(3, KEYS))) == []


def test_bip67_vector() -> None:
    """BIP-67's sorting: in every script the keys ascend, whatever their order in the descriptor."""
    script = witness_script(bitcoin_certificate(3, KEYS), 0, 7)
    keys = [script[2 + 34 * i : 2 + 34 * i + 33] for i in range(4)]
    assert (script[0], script[-2], script[-1]) == (0x53, 0x54, 0xAE)
    assert keys == sorted(keys)


def test_branches_and_indices_differ() -> None:
    """No two of a wallet's addresses are the same, and all are regtest's P2WSH."""
    certificate = bitcoin_certificate(3, KEYS)
    derived = [derive(certificate, i) for derive in (receive_address, change_address) for i in (0, 1, 2**31 - 1)]
    assert len({a.text for a in derived}) == 6
    assert all(
        Address.parse(REGTEST, a.text) == a and a.text.startswith("bcrt1q") and len(a.text) == 64 for a in derived
    )
    assert script_pubkey(derived[0]).hex().startswith("0020")


def wrong(body: str, *, checksum: bool = True) -> str:
    """A descriptor with a right checksum unless told otherwise."""
    return str(add_checksum(body)) if checksum else body


@pytest.mark.parametrize(
    ("descriptor", "why"),
    [
        pytest.param(
            wrong(wallet_descriptor(3, [*KEYS[1:], STRANGER]).partition("#")[0]),
            {"stranger's key", "seat left out"},
            id="another key",
        ),
        pytest.param(wrong(BODY.replace("multi(3,", "multi(2,")), {"threshold"}, id="wrong m"),
        pytest.param(
            wrong(wallet_descriptor(3, [*KEYS, STRANGER]).partition("#")[0]), {"stranger's key"}, id="extra key"
        ),
        pytest.param(
            wrong(f"wsh(sortedmulti(3,{','.join(JOINED.split(',')[:3])}))"), {"seat left out"}, id="a seat left out"
        ),
        pytest.param(wrong(f"wsh(sortedmulti(3,{','.join(JOINED.split(',')[::-1])}))"), {"order"}, id="another order"),
        pytest.param(wrong(f"wsh(multi(3,{JOINED}))"), {"form"}, id="unsorted multi"),
        pytest.param(wrong(f"sh(multi(3,{JOINED}))"), {"form"}, id="sh(multi)"),
        pytest.param(wrong(f"sh(wsh(sortedmulti(3,{JOINED})))"), {"form"}, id="wrapped"),
        pytest.param(
            wrong(f"wsh(or_d(pk({STRANGER}/<0;1>/*),multi(3,{JOINED})))"), {"form"}, id="miniscript with a way around"
        ),
        pytest.param(wrong(BODY.replace("<0;1>", "0")), {"branches"}, id="single branch"),
        pytest.param(wrong(BODY.replace("<0;1>", "<1;0>")), {"branches"}, id="branches swapped"),
        pytest.param(wrong(BODY.replace("<0;1>/*", "<0;1>/5")), {"branches"}, id="no range"),
        pytest.param(BODY, {"form"}, id="no checksum"),
        pytest.param(RIGHT[:-1] + ("q" if RIGHT[-1] != "q" else "p"), {"checksum"}, id="bad checksum"),
        pytest.param(RIGHT + "#" + RIGHT[-8:], {"form"}, id="two checksums"),
        pytest.param(RIGHT.replace("wsh(", "wsh( "), {"form"}, id="a space"),
        pytest.param(RIGHT + "\n", {"form"}, id="a line end"),
        pytest.param("", {"form"}, id="empty"),
    ],
)
def test_descriptor_refused(descriptor: str, why: set[str]) -> None:
    """Each deviation is refused by name."""
    refusals = list(check_script(bitcoin_certificate(3, KEYS, descriptor=descriptor)))
    assert {r.rule for r in refusals} == {Rule.SCRIPT_MISMATCH}
    assert {str(r.operands["why"]) for r in refusals} == why
    with pytest.raises(Refused):
        receive_address(bitcoin_certificate(3, KEYS, descriptor=descriptor), 0)


def test_private_key_is_refused_and_never_quoted() -> None:
    """A tprv in the descriptor or in a seat's key is refused, and no error repeats it."""
    private = seat_xpub("hot-0", private=True)
    secret = private.partition("]")[2]
    inside = bitcoin_certificate(3, KEYS, descriptor=wrong(BODY.replace(KEYS[0], private)))
    seated = bitcoin_certificate(3, [private, *KEYS[1:]], descriptor=RIGHT)
    for certificate in (inside, seated):
        (refusal,) = check_script(certificate)
        assert refusal.operands["why"] == "private key"
        assert secret not in str(refusal)
    with pytest.raises(InvalidInput) as caught:
        wallet_descriptor(3, [private, *KEYS[1:]])
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "chain", "why"),
    [
        pytest.param([seat_xpub(f"hot-{i}", MAIN) for i in range(4)], REGTEST, "network", id="mainnet xpub on regtest"),
        pytest.param(KEYS, MAIN, "network", id="tpub on mainnet"),
        pytest.param(KEYS, Chain("eip155:1"), "chain", id="an EVM chain"),
    ],
)
def test_network_refused(keys: list[str], chain: Chain, why: str) -> None:
    """Keys spelled for another network are refused."""
    certificate = bitcoin_certificate(3, keys, chain=chain, descriptor=wallet_descriptor(3, keys))
    assert {str(r.operands["why"]) for r in check_script(certificate)} == {why}


def test_one_key_under_two_origins() -> None:
    """One seat cannot fill two places by naming another fingerprint."""
    twin = "[deadbeef" + KEYS[0][9:]
    keys = [KEYS[0], twin, *KEYS[2:]]
    with pytest.raises(InvalidInput) as caught:
        wallet_descriptor(3, keys)
    assert caught.value.rule == Rule.KEY_REUSED
    body = f"wsh(sortedmulti(3,{','.join(k + '/<0;1>/*' for k in sorted(keys))}))"
    refusals = list(check_script(bitcoin_certificate(3, keys, descriptor=wrong(body))))
    assert [r.operands["why"] for r in refusals] == ["key twice"]


@pytest.mark.parametrize(
    ("m", "keys", "rule"),
    [
        pytest.param(0, KEYS, Rule.THRESHOLD_OUT_OF_RANGE, id="zero of four"),
        pytest.param(5, KEYS, Rule.THRESHOLD_OUT_OF_RANGE, id="five of four"),
        pytest.param(1, [], Rule.THRESHOLD_OUT_OF_RANGE, id="no keys"),
        pytest.param(2, [KEYS[0], KEYS[0]], Rule.KEY_REUSED, id="a key twice"),
        pytest.param(2, [KEYS[0], seat_xpub("a", MAIN)], Rule.WRONG_NETWORK, id="two networks"),
        pytest.param(1, [KEYS[0].partition("]")[2]], Rule.MALFORMED, id="no origin"),
        pytest.param(1, [KEYS[0].replace("h", "'")], Rule.MALFORMED, id="another spelling of hardened"),
        pytest.param(1, [KEYS[0][:-1] + ("1" if KEYS[0][-1] != "1" else "2")], Rule.WRONG_CHECKSUM, id="a typo"),
        pytest.param(1, [KEYS[0].replace("/2h]", "]")], Rule.MALFORMED, id="origin one step short"),
        pytest.param(1, [KEYS[0].replace("/2h]", "/1h]")], Rule.MALFORMED, id="origin of another account"),
        pytest.param(1, [KEYS[0].replace("/2h]", "/2147483650]")], Rule.MALFORMED, id="2h in another spelling"),
    ],
)
def test_keys_refused(m: int, keys: list[str], rule: Rule) -> None:
    """Keys and thresholds that make no wallet."""
    with pytest.raises(InvalidInput) as caught:
        wallet_descriptor(m, keys)
    assert caught.value.rule == rule


@pytest.mark.parametrize("index", [-1, 2**31, True, "0"], ids=["below", "hardened", "bool", "text"])
def test_index_refused(index: object) -> None:
    """Only indices that a public key can derive."""
    with pytest.raises(InvalidInput):
        receive_address(bitcoin_certificate(), index)  # type: ignore[arg-type]  # what is being refused


def test_script_pubkey_of_every_kind() -> None:
    """Any kind of address a customer may name; never an EVM one or one of another network."""
    texts = [
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
        "2N2JD6wb56AfK4tfmM6PwdVmoYk2dCKf4Br",
        "mrX9vMRYLfVy1BnZbc5gZjuyaqH3ZW2ZHz",
    ]
    scripts = [script_pubkey(Address.parse(REGTEST, text)).hex() for text in texts]
    assert [s[:4] for s in scripts] == ["0014", "a914", "76a9"]
    with pytest.raises(InvalidInput):
        script_pubkey(Address(Chain("eip155:1"), "0x" + "11" * 20))
    with pytest.raises(InvalidInput):
        script_pubkey(Address(REGTEST, "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"))


def test_cheap_to_import() -> None:
    """A seat that checks a script loads no bitcoinlib, no driver and no HTTP client."""
    code = (
        "import sys, custody.chains.bitcoin.scripts\n"
        "print([m for m in ('bitcoinlib', 'requests', 'web3', 'sqlalchemy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_prv_in_the_middle_of_a_public_key_is_no_private_key() -> None:
    """Base58 spells anything once in a while; a wallet must not fail to be born for it."""
    public = "[aabbccdd/48h/1h/0h/2h]tpubD" + "A" * 40 + "xprv" + "B" * 63
    assert scripts._PRIVATE.search(public) is None
    assert scripts._PRIVATE.search(public.replace("tpubD", "tprv8")) is not None
    assert scripts._PRIVATE.search(f"wsh(sortedmulti(1,xprv{'C' * 30}))") is not None
