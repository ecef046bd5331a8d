# SPDX-License-Identifier: AGPL-3.0-or-later
"""The PSBT decoder: hostile PSBTs that libraries sign are refused, and digests equal what a signed spend verifies against."""

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

import pytest
from embit import script as scripts  # type: ignore[import-untyped]
from embit.ec import PrivateKey  # type: ignore[import-untyped]
from embit.psbt import PSBT, DerivationPath  # type: ignore[import-untyped]
from embit.script import Script, Witness  # type: ignore[import-untyped]
from embit.transaction import SIGHASH, TransactionOutput  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.chains.bitcoin.decode import decode
from custody.chains.bitcoin.scripts import change_address, receive_address, script_pubkey, witness_script
from custody.chains.bitcoin.second import SpentOutput, verify_transaction
from custody.rules.payouts import (
    CHANGE_WINDOW,
    VOID_CHANGE,
    DecodedPayload,
    FeeBounds,
    IndexWindow,
    LeafKind,
    Place,
    PsbtPayload,
    Surroundings,
)
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Tier
from tests.fakes.attacks import hot
from tests.fakes.bitcoin import bitcoin_certificate, seat_path, seat_root
from tests.fakes.seat import BITCOIN, EVM
from tests.fakes.trust import ASSETS, PAYEE, coin, psbt_of, scope_keys, world

HOT: Final = hot(BITCOIN)
COLD: Final = world().certificate(Tier.CUSTOMER_COLD, BITCOIN)
SUCCESSOR: Final = replace(bitcoin_certificate(name="next"), previous=HOT.struct_hash)
TO: Final = script_pubkey(Address(BITCOIN, PAYEE[BITCOIN.name]))
MALLORY: Final = PrivateKey(b"\x66" * 32)
UNITS: Final = 10**7


def around(**changes: Any) -> Surroundings:
    """The hot wallet, with the cold one and its own successor recognised."""
    return replace(Surroundings(HOT.struct_hash, HOT, ASSETS, (COLD, SUCCESSOR)), **changes)


def read(psbt: PSBT, **changes: Any) -> Any:
    """What the decoder answers."""
    return decode(PsbtPayload(BITCOIN.name, psbt.serialize()), around(**changes))


def changed(change: Callable[[PSBT], object], **how: Any) -> PSBT:
    """A payment of 0.1 BTC with one thing changed in place."""
    psbt = psbt_of(HOT, [(UNITS, TO)], **how)
    change(psbt)
    return psbt


def set_value(psbt: PSBT, **fields: Any) -> None:
    """Change fields of the first input."""
    for name, value in fields.items():
        setattr(psbt.inputs[0], name, value)


def paid_to(certificate: Any, branch: int, index: int, *, hinted: bool = True) -> PSBT:
    """A payment to a place of some wallet."""
    derive = change_address if branch else receive_address
    psbt = psbt_of(HOT, [(UNITS, script_pubkey(derive(certificate, index)))])
    if hinted:
        scope_keys(psbt.outputs[0], certificate, branch, index)
    return psbt


def test_a_payment_with_change() -> None:
    """Leaves, inputs, fee, anchor and one digest for each input."""
    found = read(psbt_of(HOT, [(UNITS, TO)], coins=2, fee=5_000))
    assert isinstance(found, DecodedPayload), [str(refusal) for refusal in found]
    payment, change = found.leaves
    assert (payment.kind, payment.units, payment.destination, payment.place) == (
        LeafKind.NATIVE,
        UNITS,
        PAYEE[BITCOIN.name],
        None,
    )
    assert (change.kind, change.units) == (LeafKind.CHANGE, 4 * 10**8 - UNITS - 5_000)
    assert change.place == Place(HOT.struct_hash, 1, 5)
    assert (found.fee, found.native) == (5_000, "BTC")
    assert found.anchor.reference == found.inputs[0].outpoint == f"{coin(HOT, 2 * 10**8, 0, 0).txid().hex()}:1"
    assert [spent.place.index for spent in found.inputs] == [0, 1]
    assert len(set(found.digests)) == 2


def test_a_void_is_one_coin_to_the_one_change_address() -> None:
    """One input, one output, change address 0 of the signing certificate: nothing moves but the fee."""
    found = read(psbt_of(HOT, [], fee=3_000, change=VOID_CHANGE))
    assert isinstance(found, DecodedPayload)
    assert (found.is_void, found.fee) == (True, 3_000)
    assert found.leaves[0].place == Place(HOT.struct_hash, 1, VOID_CHANGE)
    again = read(psbt_of(HOT, [], fee=4_000, change=VOID_CHANGE))
    assert isinstance(again, DecodedPayload)
    assert again.meaning == found.meaning


def to_receive(index: int) -> PSBT:
    """One coin to a receive address of the wallet, which may be a customer's, key paths shown."""
    psbt = psbt_of(HOT, [(2 * 10**8 - 3_000, script_pubkey(receive_address(HOT, index)))], change=None)
    scope_keys(psbt.outputs[0], HOT, 0, index)
    return psbt


@pytest.mark.parametrize(
    "psbt",
    [
        pytest.param(to_receive(0), id="the very script that held it"),
        pytest.param(to_receive(3), id="another receive index"),
        pytest.param(
            psbt_of(HOT, [(2 * 10**8 - 3_000, script_pubkey(receive_address(HOT, 0)))], change=None), id="no key paths"
        ),
    ],
)
def test_nothing_comes_back_to_a_receive_address(psbt: PSBT) -> None:
    """A customer bound to it would be credited the wallet's own coin again: no void, no change, no payment."""
    found = read(psbt)
    assert isinstance(found, tuple), found.leaves
    assert [refusal.rule for refusal in found] == [Rule.OWN_ADDRESS]


def to_successor() -> PSBT:
    """One coin into the next certificate's first change address."""
    psbt = psbt_of(HOT, [(2 * 10**8 - 3_000, script_pubkey(change_address(SUCCESSOR, 0)))], change=None)
    scope_keys(psbt.outputs[0], SUCCESSOR, 1, 0)
    return psbt


@pytest.mark.parametrize(
    "psbt",
    [
        pytest.param(psbt_of(HOT, [], change=1), id="another change index"),
        pytest.param(psbt_of(HOT, [], coins=2, change=VOID_CHANGE), id="two coins"),
        pytest.param(to_successor(), id="the successor's"),
    ],
)
def test_what_is_no_void(psbt: PSBT) -> None:
    """There is one void of an anchor; what else stays in the wallet is change, which needs no quorum and frees no hold."""
    found = read(psbt)
    assert isinstance(found, DecodedPayload)
    assert [leaf.kind for leaf in found.leaves] == [LeafKind.CHANGE]


def from_change(index: int, back: int, *, hinted: bool = True) -> PSBT:
    """A payment out of a coin at a change index, its own change at another, or at the same."""
    psbt = psbt_of(HOT, [(UNITS, TO)], change=back)
    tx = coin(HOT, 2 * 10**8, 0, 0)
    tx.vout[1].script_pubkey = Script(script_pubkey(change_address(HOT, index)))
    psbt.inputs[0].non_witness_utxo, psbt.inputs[0].txid = tx, tx.txid()
    psbt.inputs[0].bip32_derivations.clear()
    scope_keys(psbt.inputs[0], HOT, 1, index)
    if not hinted:
        psbt.outputs[1].bip32_derivations.clear()
    return psbt


def test_a_change_address_may_be_used_again() -> None:
    """Once the window was used up, change may come back even to where the coin lay; unnamed it is still refused."""
    for back in (3, 4):
        found = read(from_change(3, back))
        assert isinstance(found, DecodedPayload)
        assert (found.leaves[1].kind, found.leaves[1].place) == (LeafKind.CHANGE, Place(HOT.struct_hash, 1, back))
    assert [r.rule for r in read(from_change(3, 3, hinted=False))] == [Rule.OWN_ADDRESS]


@pytest.mark.parametrize(
    ("certificate", "branch", "kind"),
    [
        pytest.param(COLD, 1, LeafKind.NATIVE, id="another wallet of ours"),
        pytest.param(COLD, 0, LeafKind.NATIVE, id="another wallet's receive branch, told as that"),
        pytest.param(SUCCESSOR, 1, LeafKind.CHANGE, id="the successor"),
        pytest.param(HOT, 1, LeafKind.CHANGE, id="a second change"),
    ],
)
def test_places_of_certified_wallets_are_named(certificate: Any, branch: int, kind: LeafKind) -> None:
    """An output that says whose it is is derived again, and then it is known."""
    found = read(paid_to(certificate, branch, 8))
    assert isinstance(found, DecodedPayload)
    assert found.leaves[0].kind is kind
    assert found.leaves[0].place == Place(certificate.struct_hash, branch, 8)


def lie(psbt: PSBT) -> None:
    """CVE-2020-14199: the witness amount is another than the previous transaction's."""
    spent = psbt.inputs[0].non_witness_utxo.vout[1]
    psbt.inputs[0].witness_utxo = TransactionOutput(spent.value - 1, spent.script_pubkey)


def lie_alone(psbt: PSBT) -> None:
    """The same with nothing left that could tell."""
    lie(psbt)
    set_value(psbt, non_witness_utxo=None)


def other_previous(psbt: PSBT) -> None:
    """A previous transaction that pays more, of another txid."""
    psbt.inputs[0].non_witness_utxo = coin(HOT, 3 * 10**8, 0, 0)


def foreign(psbt: PSBT) -> None:
    """The coin of another wallet, with that wallet's keys."""
    tx = coin(COLD, 2 * 10**8, 0, 9)
    psbt.inputs[0].non_witness_utxo, psbt.inputs[0].txid = tx, tx.txid()
    psbt.inputs[0].bip32_derivations.clear()
    scope_keys(psbt.inputs[0], COLD, 0, 0)


def alien_key(scope: Any) -> None:
    """A key that is in no script of ours."""
    scope.bip32_derivations[MALLORY.get_public_key()] = DerivationPath(b"\1\2\3\4", [0, 0])


def doubled(psbt: PSBT) -> None:
    """One coin twice."""
    psbt.inputs.append(psbt.inputs[0])


REFUSED: Final = [
    ("previous transaction missing", lambda p: set_value(p, non_witness_utxo=None), Rule.PREVIOUS_MISSING),
    ("amount lies", lie, Rule.PREVIOUS_MISMATCH),
    (
        "amount lies, previous transaction removed",
        lie_alone,
        Rule.PREVIOUS_MISSING,
    ),
    ("another previous transaction", other_previous, Rule.PREVIOUS_MISMATCH),
    ("an output that is not there", lambda p: set_value(p, vout=7), Rule.PREVIOUS_MISMATCH),
    ("SIGHASH_NONE", lambda p: set_value(p, sighash_type=SIGHASH.NONE), Rule.SIGHASH),
    ("SIGHASH_SINGLE", lambda p: set_value(p, sighash_type=SIGHASH.SINGLE), Rule.SIGHASH),
    ("SIGHASH_ALL for anybody", lambda p: set_value(p, sighash_type=0x81), Rule.SIGHASH),
    ("SIGHASH_DEFAULT", lambda p: set_value(p, sighash_type=0), Rule.SIGHASH),
    ("a stranger's coin", foreign, Rule.FOREIGN_INPUT),
    ("an output of the coin that is not ours", lambda p: set_value(p, vout=0), Rule.FOREIGN_INPUT),
    ("no key paths", lambda p: p.inputs[0].bip32_derivations.clear(), Rule.FOREIGN_INPUT),
    ("another witness script", lambda p: set_value(p, witness_script=Script(b"\x51")), Rule.FOREIGN_KEY),
    ("a key missing", lambda p: p.inputs[0].bip32_derivations.popitem(), Rule.FOREIGN_KEY),
    ("a redeem script", lambda p: set_value(p, redeem_script=Script(b"\x51")), Rule.FOREIGN_KEY),
    (
        "a partial signature",
        lambda p: p.inputs[0].partial_sigs.update({MALLORY.get_public_key(): b"\x30\x01"}),
        Rule.FOREIGN_KEY,
    ),
    ("a final witness", lambda p: set_value(p, final_scriptwitness=Witness([b"\1"])), Rule.FOREIGN_KEY),
    ("an unknown field", lambda p: set_value(p, unknown={b"\xfc\1": b"\1"}), Rule.FOREIGN_KEY),
    ("an unknown field of an output", lambda p: setattr(p.outputs[0], "unknown", {b"\xfc\1": b"\1"}), Rule.FOREIGN_KEY),
    ("a relative lock time", lambda p: set_value(p, sequence=10), Rule.TRANSACTION_SHAPE),
    ("a lock time", lambda p: setattr(p, "locktime", 500), Rule.TRANSACTION_SHAPE),
    ("version 1", lambda p: setattr(p, "tx_version", 1), Rule.TRANSACTION_SHAPE),
    ("a coin twice", doubled, Rule.MALFORMED),
    ("a global key", lambda p: setattr(p, "unknown", {b"\xfc\1": b"\1"}), Rule.NOT_CANONICAL),
    (
        "change to a stranger who shows our key paths",
        lambda p: setattr(p.outputs[1], "script_pubkey", Script(TO)),
        Rule.FOREIGN_KEY,
    ),
    ("change with another key among its paths", lambda p: alien_key(p.outputs[1]), Rule.FOREIGN_KEY),
    (
        "change with another witness script",
        lambda p: setattr(p.outputs[1], "witness_script", Script(b"\x51")),
        Rule.FOREIGN_KEY,
    ),
    ("change left out", lambda p: p.outputs.pop(), Rule.FEE_TOO_HIGH),
    ("change too small", lambda p: setattr(p.outputs[1], "value", 10**8), Rule.FEE_TOO_HIGH),
    ("a fee of 10 %", lambda p: setattr(p.outputs[1], "value", p.outputs[1].value - UNITS // 10), Rule.FEE_TOO_HIGH),
    ("more out than in", lambda p: setattr(p.outputs[1], "value", 3 * 10**8), Rule.FEE_TOO_HIGH),
    ("data in an output", lambda p: setattr(p.outputs[0], "script_pubkey", Script(b"\x6a\x01\x01")), Rule.UNKNOWN_CALL),
    ("an output without a script", lambda p: setattr(p.outputs[0], "script_pubkey", Script(b"")), Rule.UNKNOWN_CALL),
    (
        "a bare key",
        lambda p: setattr(p.outputs[0], "script_pubkey", scripts.Script(b"\x21" + MALLORY.sec() + b"\xac")),
        Rule.UNKNOWN_CALL,
    ),
    ("an output of nothing", lambda p: setattr(p.outputs[0], "value", 0), Rule.NOT_POSITIVE),
    (
        "change back to the address it came from",
        lambda p: setattr(p.outputs[1], "script_pubkey", Script(script_pubkey(receive_address(HOT, 0)))),
        Rule.OWN_ADDRESS,
    ),
]


@pytest.mark.parametrize(("change", "rule"), [pytest.param(change, rule, id=name) for name, change, rule in REFUSED])
def test_hostile_psbts_are_refused(change: Any, rule: Rule) -> None:
    """One thing wrong in an honest PSBT."""
    found = read(changed(change))
    assert isinstance(found, tuple), found
    assert rule in {refusal.rule for refusal in found}, [str(refusal) for refusal in found]


@pytest.mark.parametrize(
    ("psbt", "rule", "changes"),
    [
        pytest.param(
            paid_to(HOT, 0, 8), Rule.OWN_ADDRESS, {}, id="change to a receive index, which may be a customer's"
        ),
        pytest.param(paid_to(HOT, 1, 1000), Rule.CHANGE_TOO_FAR, {}, id="change far beyond the window"),
        pytest.param(paid_to(HOT, 1, CHANGE_WINDOW), Rule.CHANGE_TOO_FAR, {}, id="the first index that nobody watches"),
        pytest.param(paid_to(COLD, 1, CHANGE_WINDOW), Rule.CHANGE_TOO_FAR, {}, id="a move to where nobody watches"),
        pytest.param(
            paid_to(HOT, 1, 8),
            Rule.CHANGE_TOO_FAR,
            {"window": IndexWindow(change=7)},
            id="change one beyond the window",
        ),
        pytest.param(paid_to(COLD, 1, 8), Rule.FOREIGN_KEY, {"others": ()}, id="a wallet that was not handed in"),
        pytest.param(
            psbt_of(HOT, [(UNITS, TO)], fee=2_001),
            Rule.FEE_TOO_HIGH,
            {"fees": FeeBounds(absolute=2_000)},
            id="fee absolute",
        ),
        pytest.param(
            psbt_of(HOT, [(UNITS, TO)], fee=1_001),
            Rule.FEE_TOO_HIGH,
            {"fees": FeeBounds(share_bps=1)},
            id="fee by share",
        ),
        pytest.param(
            psbt_of(HOT, [(UNITS, TO)], fee=1_000), Rule.FEE_TOO_HIGH, {"fees": FeeBounds(rate=3)}, id="fee by rate"
        ),
        pytest.param(
            psbt_of(HOT, [(UNITS, TO)]),
            Rule.WRONG_WALLET,
            {"certificate": world().certificate(Tier.CUSTOMER_HOT, EVM)},
            id="a Safe's certificate",
        ),
        pytest.param(
            psbt_of(HOT, [(UNITS, TO)]), Rule.FOREIGN_INPUT, {"certificate": COLD}, id="another wallet's certificate"
        ),
    ],
)
def test_what_depends_on_the_wallet(psbt: PSBT, rule: Rule, changes: dict[str, Any]) -> None:
    """Windows, bounds and certificates."""
    found = read(psbt, **changes)
    assert isinstance(found, tuple), found
    assert rule in {refusal.rule for refusal in found}


def test_an_unhinted_output_is_a_payment() -> None:
    """Change that does not say so needs an intent like any other payment: nothing is taken for change on its own word."""
    found = read(paid_to(HOT, 1, 8, hinted=False))
    assert isinstance(found, DecodedPayload)
    assert found.leaves[0].kind is LeafKind.NATIVE


RAW: Final = psbt_of(HOT, [(UNITS, TO)]).serialize()


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        pytest.param(b"", Rule.MALFORMED, id="nothing"),
        pytest.param(RAW[:-1], Rule.MALFORMED, id="torn"),
        pytest.param(RAW + b"\0", Rule.MALFORMED, id="bytes behind"),
        pytest.param(b"psbu" + RAW[4:], Rule.NOT_CANONICAL, id="another magic"),
        pytest.param(b"psbt\xff\x01\xfb\x04\x02\0\0\0\0", Rule.NOT_CANONICAL, id="version 2"),
        pytest.param(b"psbt\xff\x01\x04\x09" + b"\xff" * 9 + b"\0", Rule.NOT_CANONICAL, id="2^64 inputs promised"),
        pytest.param(
            RAW.replace(b"\xfd\xff\xff\xff", b"\0\0\0\0", 1),
            Rule.NOT_CANONICAL,
            id="a sequence of 0, which embit reads as final",
        ),
    ],
)
def test_malformed_bytes(raw: bytes, rule: Rule) -> None:
    """Refused without a crash, and without believing a count."""
    found = decode(PsbtPayload(BITCOIN.name, raw), around())
    assert isinstance(found, tuple)
    assert [refusal.rule for refusal in found] == [rule]


@pytest.mark.parametrize(
    "key", [pytest.param(b"\x0e", id="txid"), pytest.param(b"\x0f", id="vout"), pytest.param(b"\x10", id="sequence")]
)
def test_version_two_fields_do_not_change_a_version_zero_input(key: bytes) -> None:
    """embit would take another outpoint or sequence from such a field than the unsigned transaction shows."""
    value = {b"\x0e": b"\7" * 32, b"\x0f": b"\0\0\0\0", b"\x10": b"\xff\xff\xff\xff"}[key]
    end_of_global = RAW.index(b"\0", 7 + RAW[7]) + 1
    assert PSBT.parse(RAW).serialize() == RAW
    raw = RAW[:end_of_global] + bytes([len(key)]) + key + bytes([len(value)]) + value + RAW[end_of_global:]
    found = decode(PsbtPayload(BITCOIN.name, raw), around())
    assert isinstance(found, tuple)
    assert found[0].rule in {Rule.NOT_CANONICAL, Rule.MALFORMED}


@settings(max_examples=120, deadline=None)
@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_any_changed_byte_is_seen(at: int, flip: int) -> None:
    """A PSBT with one byte changed never raises; where other digests would be signed, what it is seen to do differs too."""
    raw = RAW[:at] + bytes([RAW[at] ^ flip]) + RAW[at + 1 :]
    found = decode(PsbtPayload(BITCOIN.name, raw), around())
    honest = decode(PsbtPayload(BITCOIN.name, RAW), around())
    assert isinstance(honest, DecodedPayload)
    if isinstance(found, DecodedPayload) and found.digests != honest.digests:
        assert (found.inputs, found.leaves, found.fee) != (honest.inputs, honest.leaves, honest.fee) or _sequence(
            raw
        ) != _sequence(RAW)


def _sequence(raw: bytes) -> int:
    return int(PSBT.parse(raw).inputs[0].sequence)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    """Whatever the bytes, the answer is refusals."""
    for raw in (data, b"psbt\xff" + data, b"psbt\xff\x01\x00" + data):
        assert isinstance(decode(PsbtPayload(BITCOIN.name, raw), around()), tuple)


def test_signatures_over_the_digests_verify_elsewhere() -> None:
    """Three of four keys sign the decoder's digests; bitcoinlib, the second decoder, verifies the spend and sees the same outputs."""
    wallet = bitcoin_certificate()
    psbt = psbt_of(wallet, [(UNITS, TO)], coins=2)
    found = decode(PsbtPayload(BITCOIN.name, psbt.serialize()), Surroundings(wallet.struct_hash, wallet, ASSETS))
    assert isinstance(found, DecodedPayload)
    tx, spent, script = psbt.tx, {}, b""
    for number, (each, scope) in enumerate(zip(found.to_sign, psbt.inputs, strict=True)):
        branch, index = each.place.branch, each.place.index or 0
        script = witness_script(wallet, branch, index)
        roots = [seat_root(f"hot-{n}").derive(f"m/{seat_path()}/{branch}/{index}").key for n in range(4)]
        signers = sorted(roots, key=lambda key: key.sec())[:3]
        signatures = [key.sign(each.digest).serialize() + b"\1" for key in signers]
        tx.vin[number].witness = Witness([b"", *signatures, script])
        output = scope.non_witness_utxo.vout[1]
        spent[scope.txid, scope.vout] = SpentOutput(output.value, bytes(output.script_pubkey.data))
    raw = tx.serialize()
    second = verify_transaction(raw, BITCOIN, spent)
    assert [(o.value, o.address) for o in second.outputs] == [(leaf.units, leaf.destination) for leaf in found.leaves]
    assert sum(s.value for s in spent.values()) - sum(o.value for o in second.outputs) == found.fee
    assert [f"{i.txid.hex()}:{i.vout}" for i in second.inputs] == [i.outpoint for i in found.inputs]
    assert sha256(script).digest() == script_pubkey(receive_address(wallet, 1))[2:]
