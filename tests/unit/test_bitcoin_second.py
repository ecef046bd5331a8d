# SPDX-License-Identifier: AGPL-3.0-or-later
"""bitcoinlib as a second opinion: the same addresses, the same reading of a transaction, and no trust where they part."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from embit.descriptor import Descriptor  # type: ignore[import-untyped]
from embit.psbt import PSBT  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import Transaction, TransactionInput, TransactionOutput  # type: ignore[import-untyped]

from custody.chains.bitcoin import second
from custody.chains.bitcoin.scripts import change_address, receive_address, script_pubkey, witness_script
from custody.chains.bitcoin.second import (
    DecodedInput,
    DecodedOutput,
    SpentOutput,
    agree,
    decode_transaction,
    second_address,
    verify_transaction,
)
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.rules.wallets import Chain
from tests.fakes.bitcoin import MAIN, REGTEST, bitcoin_certificate, seat_path, seat_root, seat_xpub

CERTIFICATE = bitcoin_certificate()
FUNDS = 21_000_000 * 10**8 - 1  # an odd number of satoshi that no float holds with its neighbours
PREVIOUS = bytes(range(32))
PAID = FUNDS - 4_321


@pytest.mark.parametrize("chain", [REGTEST, MAIN, Chain("bip122:00000008819873e925422c1ff0f99f7c")], ids=str)
def test_twenty_indices_agree(chain: Chain) -> None:
    """Two codes that share nothing derive the same addresses from the same keys."""
    certificate = bitcoin_certificate(chain=chain)
    assert agree(certificate, range(20)) is None
    assert second_address(certificate, 0, 5) == receive_address(certificate, 5).text
    assert second_address(certificate, 1, 5) == change_address(certificate, 5).text


def test_a_difference_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the two derivations differ no wallet is born; comparing nothing is no agreement."""
    monkeypatch.setattr(second, "second_address", lambda *_: "bcrt1qother")
    refusal = agree(CERTIFICATE)
    assert refusal is not None
    assert (refusal.rule, refusal.operands["why"]) == (Rule.SCRIPT_MISMATCH, "two derivations differ")
    with pytest.raises(InvalidInput):
        agree(CERTIFICATE, [])


def test_home_stays_clean(tmp_path: Path) -> None:
    """Importing it writes nothing in HOME, nothing that outlives the process, and leaves the environment as it was."""
    code = "import os, custody.chains.bitcoin.second as s\nassert 'BCL_DATA_DIR' not in os.environ\nprint(s._DATA)"
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    environment.pop("BCL_DATA_DIR", None)
    (tmp_path / "home").mkdir()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["home"]


def signed(certificate: WalletCertificate, signers: int = 3) -> bytes:
    """A real 3-of-4 spend of one output, by embit, with the test seats' keys."""
    descriptor = Descriptor.from_string(certificate.script[0].descriptor).derive(0, branch_index=0)
    unsigned = Transaction(
        version=2,
        vin=[TransactionInput(PREVIOUS, 1, sequence=0xFFFFFFFD)],
        vout=[TransactionOutput(PAID, Script(script_pubkey(change_address(certificate, 0))))],
        locktime=101,
    )
    psbt = PSBT(unsigned)
    psbt.inputs[0].witness_utxo = TransactionOutput(FUNDS, descriptor.script_pubkey())
    psbt.inputs[0].witness_script = descriptor.witness_script()
    for i in range(signers):
        psbt.sign_with(seat_root(f"hot-{i}").derive(f"m/{seat_path()}/0/0").key)
    signatures = psbt.inputs[0].partial_sigs
    script = witness_script(certificate, 0, 0)
    in_order = sorted(signatures, key=lambda public: script.index(public.sec()))
    stack = [b"", *(signatures[public] for public in in_order), script]
    unsigned.vin[0].witness.items = stack
    return bytes(unsigned.serialize())


SPENT = {(PREVIOUS, 1): SpentOutput(FUNDS, script_pubkey(receive_address(CERTIFICATE, 0)))}


def test_decodes_what_embit_built() -> None:
    """Every field of a transaction, amounts to the last satoshi."""
    raw = signed(CERTIFICATE)
    decoded = decode_transaction(raw, REGTEST)
    assert decoded.txid == Transaction.parse(raw).txid()
    assert (decoded.version, decoded.locktime) == (2, 101)
    assert decoded.inputs == (DecodedInput(PREVIOUS, 1, 0xFFFFFFFD),)
    change = change_address(CERTIFICATE, 0)
    assert decoded.outputs == (DecodedOutput(PAID, script_pubkey(change), change.text),)
    assert verify_transaction(raw, REGTEST, SPENT) == decoded


@pytest.mark.parametrize(
    ("spent", "signers", "rule"),
    [
        pytest.param({}, 3, Rule.MALFORMED, id="an unknown input"),
        pytest.param(
            {(PREVIOUS, 1): SpentOutput(PAID - 1, SPENT[PREVIOUS, 1].script)}, 3, Rule.MALFORMED, id="pays more"
        ),
        pytest.param(
            {(PREVIOUS, 1): SpentOutput(FUNDS - 1, SPENT[PREVIOUS, 1].script)},
            3,
            Rule.SIGNATURE_INVALID,
            id="amount lies",
        ),
        pytest.param(
            {(PREVIOUS, 1): SpentOutput(FUNDS, script_pubkey(receive_address(CERTIFICATE, 1)))},
            3,
            Rule.SCRIPT_MISMATCH,
            id="another script",
        ),
        pytest.param(SPENT, 2, Rule.MALFORMED, id="a signature short"),
    ],
)
def test_verification_refuses(spent: dict[tuple[bytes, int], SpentOutput], signers: int, rule: Rule) -> None:
    """What does not verify is refused by name."""
    with pytest.raises(InvalidInput) as caught:
        verify_transaction(signed(CERTIFICATE, signers), REGTEST, spent)
    assert caught.value.rule == rule


def test_one_signature_twice() -> None:
    """One seat's signature in two places is not two seats."""
    transaction = Transaction.parse(signed(CERTIFICATE))
    items = transaction.vin[0].witness.items
    items[2] = items[1]
    with pytest.raises(InvalidInput):
        verify_transaction(transaction.serialize(), REGTEST, SPENT)


def test_a_changed_byte_never_verifies() -> None:
    """Wherever a byte of the outputs or of the signatures changes, the transaction is refused."""
    raw = signed(CERTIFICATE)
    for position in (48, 60, 90, 100, 130, 200, 260, len(raw) - 1):
        forged = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(InvalidInput):
            verify_transaction(forged, REGTEST, SPENT)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x02\x00\x00\x00", id="a version only"),
        pytest.param(signed(CERTIFICATE)[:-1], id="a byte short"),
        pytest.param(signed(CERTIFICATE) + b"\x00", id="a byte more"),
        pytest.param(signed(CERTIFICATE)[:80], id="cut in the outputs"),
        pytest.param(b"\xff" * 300, id="noise"),
    ],
)
def test_malformed_refused(raw: bytes) -> None:
    """What is not exactly one whole transaction is refused."""
    with pytest.raises(InvalidInput) as caught:
        decode_transaction(raw, REGTEST)
    assert caught.value.rule == Rule.MALFORMED


def test_bad_key_refused() -> None:
    """A key that bitcoinlib cannot read is bad input, not a crash."""
    keys = [seat_xpub(f"hot-{i}") for i in range(4)]
    broken = bitcoin_certificate(3, [keys[0][:-3] + "111", *keys[1:]], descriptor="")
    with pytest.raises(InvalidInput):
        second_address(broken, 0, 0)
