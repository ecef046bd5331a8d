# SPDX-License-Identifier: AGPL-3.0-or-later
"""A second opinion by other code: addresses and raw transactions through bitcoinlib, which shares nothing with embit.

The one file that imports bitcoinlib. Only public data comes here: its `Signature` objects keep private keys and nonces, and
it writes files. Importing it makes a data folder, in HOME unless told otherwise, so it gets a private one that goes away
with this process. Its amounts in floats (`values.py`) are never used.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from custody.chains.bitcoin.scripts import CHANGE, RECEIVE, check_branch, check_index, derive_address
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Chain

_DATA = tempfile.mkdtemp(prefix="bulkhead-second-")
atexit.register(shutil.rmtree, _DATA, ignore_errors=True)
_BEFORE = os.environ.get("BCL_DATA_DIR")
os.environ["BCL_DATA_DIR"] = _DATA
try:
    from bitcoinlib.encoding import EncodingError, change_base, double_sha256  # type: ignore[import-untyped]
    from bitcoinlib.keys import Address, BKeyError, HDKey  # type: ignore[import-untyped]
    from bitcoinlib.scripts import ScriptError  # type: ignore[import-untyped]
    from bitcoinlib.transactions import Transaction, TransactionError  # type: ignore[import-untyped]
finally:
    if _BEFORE is None:
        del os.environ["BCL_DATA_DIR"]
    else:
        os.environ["BCL_DATA_DIR"] = _BEFORE

_NETWORKS = {"main": "bitcoin", "test": "testnet", "signet": "signet", "regtest": "regtest"}
_OP_0, _OP_CHECKMULTISIG, _PUSH_KEY = 0x50, 0xAE, 33
_SIGHASH_ALL = b"\x01"
_CRASHES = (ValueError, ArithmeticError, LookupError, TypeError)
"""What bitcoinlib raises where it did not expect the bytes it got."""


@dataclass(frozen=True, slots=True)
class DecodedInput:
    """What an input spends. `txid` in displayed order."""

    txid: bytes
    vout: int
    sequence: int


@dataclass(frozen=True, slots=True)
class DecodedOutput:
    """What an output pays: satoshi, the output script, and its address where it has one."""

    value: int
    script: bytes
    address: str


@dataclass(frozen=True, slots=True)
class SpentOutput:
    """An output that an input spends, from the transaction that made it: satoshi and output script."""

    value: int
    script: bytes


@dataclass(frozen=True, slots=True)
class DecodedTransaction:
    """A raw transaction as the second decoder reads it. `txid` in displayed order."""

    txid: bytes
    version: int
    locktime: int
    inputs: tuple[DecodedInput, ...]
    outputs: tuple[DecodedOutput, ...]


def second_address(certificate: WalletCertificate, branch: int, index: int) -> str:
    """A wallet's P2WSH address from its seats' keys alone: derived, sorted (BIP-67), scripted, hashed, spelled in bech32.

    The descriptor is not read. Raises InvalidInput for a key that bitcoinlib cannot read.
    """
    check_branch(branch)
    check_index(index)
    network = Chain(certificate.chain).bitcoin_network
    publics = sorted(
        bytes(_branch(s.key.xpub, network, branch).child_public(index).public_byte) for s in certificate.seats
    )
    pushes = b"".join(bytes([_PUSH_KEY]) + public for public in publics)
    script = bytes([_OP_0 + certificate.m]) + pushes + bytes([_OP_0 + len(publics), _OP_CHECKMULTISIG])
    program = sha256(script).hexdigest()
    address = Address(hashed_data=program, script_type="p2wsh", encoding="bech32", network=_NETWORKS[network])
    return str(address.address)


def agree(certificate: WalletCertificate, indices: Iterable[int] = range(3)) -> Refusal | None:
    """Derive both branches twice, by embit from the descriptor and by bitcoinlib from the keys; a refusal where they differ.

    Raises Refused where `check_script` refuses the certificate, and InvalidInput where there is no index to compare.
    """
    compared = 0
    for index in indices:
        for branch in (RECEIVE, CHANGE):
            first, second = derive_address(certificate, branch, index).text, second_address(certificate, branch, index)
            if first != second:
                where = {"why": "two derivations differ", "branch": branch, "index": index}
                return Refusal(Rule.SCRIPT_MISMATCH, **where, got=first, want=second)
            compared += 1
    if not compared:
        raise InvalidInput("indices", Rule.MALFORMED, "none", "at least one index")
    return None


def decode_transaction(raw: bytes, chain: Chain) -> DecodedTransaction:
    """Read a fully signed transaction; raises InvalidInput where it is malformed, not whole, or followed by anything else.

    Where signatures are missing bitcoinlib drops the ones there are, so such a transaction is refused as malformed.
    """
    return _decoded(_parse(raw, chain), raw)


def verify_transaction(raw: bytes, chain: Chain, spent: Mapping[tuple[bytes, int], SpentOutput]) -> DecodedTransaction:
    """Read a fully signed transaction and check every signature against what it spends, by (txid, vout).

    Raises InvalidInput where it is malformed, spends something not in `spent` or spends it twice, pays more than it spends,
    or carries a signature that does not verify.
    """
    parsed = _parse(raw, chain)
    decoded = _decoded(parsed, raw)
    points = [(i.txid, i.vout) for i in decoded.inputs]
    unknown = [f"{txid.hex()}:{vout}" for txid, vout in points if (txid, vout) not in spent]
    if unknown or len(set(points)) != len(points):
        raise InvalidInput(
            "transaction.inputs", Rule.MALFORMED, ", ".join(unknown) or "one twice", "known outputs, each once"
        )
    if sum(o.value for o in decoded.outputs) > sum(spent[p].value for p in points):
        raise InvalidInput("transaction.outputs", Rule.MALFORMED, "more than the inputs", "at most what is spent")
    for point, item in zip(points, parsed.inputs, strict=True):
        _check_witness(item.witnesses, spent[point], point)
        item.value = spent[point].value
    if parsed.verify() is not True:
        raise InvalidInput("transaction", Rule.SIGNATURE_INVALID, decoded.txid.hex(), "valid signatures on every input")
    return decoded


@lru_cache(maxsize=1_000)
def _branch(xpub: str, network: str, branch: int) -> HDKey:
    # bitcoinlib gives regtest mainnet's prefixes, so a test network's tpub is read as testnet's; the key is the same.
    reader = "bitcoin" if network == "main" else "testnet"
    try:
        text = xpub.partition("]")[2]
        whole = change_base(text, 58, 256, 82)
        if double_sha256(whole[:-4])[:4] != whole[-4:]:  # HDKey itself reads a key whose checksum is wrong
            raise InvalidInput("xpub", Rule.WRONG_CHECKSUM, text[:20], "an extended public key with its checksum")
        key = HDKey(text, network=reader, witness_type="segwit", multisig=True)
        if key.is_private:
            raise InvalidInput("xpub", Rule.MALFORMED, "a private key", "an extended public key")
        return key.child_public(branch)
    except (BKeyError, EncodingError, ValueError) as error:
        raise InvalidInput("xpub", Rule.MALFORMED, xpub[:20], "an extended public key") from error


def _parse(raw: bytes, chain: Chain) -> Transaction:
    try:
        parsed = Transaction.parse_hex(raw.hex(), strict=True, network=_NETWORKS[chain.bitcoin_network])
    except (TransactionError, ScriptError, EncodingError, BKeyError, *_CRASHES) as error:
        raise InvalidInput("transaction", Rule.MALFORMED, f"{len(raw)} bytes", "a raw transaction") from error
    if parsed.raw() != raw:  # trailing bytes, or something that bitcoinlib reads and does not keep
        raise InvalidInput(
            "transaction", Rule.MALFORMED, f"{len(raw)} bytes", "a transaction that serialises to the same"
        )
    return parsed


def _decoded(parsed: Transaction, raw: bytes) -> DecodedTransaction:
    inputs = tuple(DecodedInput(bytes(i.prev_txid), int(i.output_n_int), int(i.sequence)) for i in parsed.inputs)
    outputs = tuple(DecodedOutput(o.value, bytes(o.lock_script), str(o.address)) for o in parsed.outputs)
    if any(type(o.value) is not int for o in outputs):
        raise InvalidInput("transaction.outputs", Rule.MALFORMED, f"{len(raw)} bytes", "integer amounts")
    return DecodedTransaction(bytes.fromhex(parsed.txid), parsed.version_int, parsed.locktime, inputs, outputs)


def _check_witness(witnesses: list[bytes], spent: SpentOutput, point: tuple[bytes, int]) -> None:
    """P2WSH multisig only: an empty item, M signatures over SIGHASH_ALL, and the script whose hash is spent (BIP-141)."""
    where = f"{point[0].hex()}:{point[1]}"
    script = witnesses[-1] if witnesses else b""
    if spent.script != b"\x00\x20" + sha256(script).digest():
        raise InvalidInput(
            "transaction.witness", Rule.SCRIPT_MISMATCH, where, "the witness script of the output it spends"
        )
    if len(witnesses) != script[0] - _OP_0 + 2 or any(w[-1:] != _SIGHASH_ALL for w in witnesses[1:-1]):
        raise InvalidInput(
            "transaction.witness", Rule.SIGNATURE_INVALID, where, "exactly M signatures, each SIGHASH_ALL"
        )
