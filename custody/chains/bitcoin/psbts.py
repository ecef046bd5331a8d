# SPDX-License-Identifier: AGPL-3.0-or-later
"""PSBTs of a P2WSH wallet: written for seats that believe nothing, and turned into a transaction once M of them signed.

The builder's side; `decode.py` reads the same bytes with code of its own. Every input carries its whole previous transaction,
its witness script and its key paths (BIP-174); change carries key paths, and so does an output to another wallet of ours.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import coincurve
from embit.base import EmbitError  # type: ignore[import-untyped]
from embit.descriptor import Descriptor  # type: ignore[import-untyped]
from embit.ec import PublicKey  # type: ignore[import-untyped]
from embit.psbt import PSBT, DerivationPath, InputScope, OutputScope  # type: ignore[import-untyped]
from embit.script import Script, Witness  # type: ignore[import-untyped]
from embit.transaction import SIGHASH, Transaction, TransactionInput, TransactionOutput  # type: ignore[import-untyped]

from custody.chains.bitcoin.coins import Coin
from custody.chains.bitcoin.scripts import check_branch, check_index, check_script, witness_script
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.payments import SeatSignatures
from custody.rules.refusals import Refusal, Rule, raise_if

REPLACEABLE: Final = 0xFFFFFFFD
"""BIP-125: a variant with a higher fee may take its place."""
_CRASHES: Final = (EmbitError, ValueError, LookupError, TypeError)


@dataclass(frozen=True, slots=True)
class Target:
    """An output: satoshi, script, and the place in a certificate that derives it, where one of ours does."""

    units: int
    script: bytes
    certificate: WalletCertificate | None = None
    branch: int = 0
    index: int = 0


def write(certificate: WalletCertificate, coins: Sequence[tuple[Coin, bytes]], targets: Sequence[Target]) -> bytes:
    """The unsigned PSBT that spends these coins, each with its raw previous transaction, in their order.

    Outputs are sorted by script, so that change stands anywhere and variants, which differ in fee only, keep their order.
    """
    ordered = sorted(targets, key=lambda target: (target.script, target.units))
    inputs = [TransactionInput(*_outpoint(coin), sequence=REPLACEABLE) for coin, _ in coins]
    outputs = [TransactionOutput(target.units, Script(target.script)) for target in ordered]
    psbt = PSBT(Transaction(version=2, vin=inputs, vout=outputs, locktime=0))
    for scope, (coin, previous) in zip(psbt.inputs, coins, strict=True):
        scope.non_witness_utxo = Transaction.parse(previous)
        scope.witness_script = Script(witness_script(certificate, coin.branch, coin.index))
        scope.sighash_type = SIGHASH.ALL
        _name_keys(scope, certificate, coin.branch, coin.index)
    for scope, target in zip(psbt.outputs, ordered, strict=True):
        if target.certificate is not None:
            _name_keys(scope, target.certificate, target.branch, target.index)
    return bytes(psbt.serialize())


def txid(psbt: bytes) -> bytes:
    """The id of the transaction, in displayed order: a witness does not change it (BIP-141)."""
    return bytes(_read(psbt).tx.txid())


def with_change(raw: bytes, script: bytes, units: int) -> bytes:
    """The same PSBT but for what its change holds: a variant, which differs in fee only."""
    psbt = _read(raw)
    for scope in psbt.outputs:
        if bytes(scope.script_pubkey.data) == script:
            scope.value = units
    return bytes(psbt.serialize())


def finalize(certificate: WalletCertificate, raw: bytes, given: Sequence[SeatSignatures]) -> bytes:
    """The signed transaction. Raises Refused with everything that is wrong with any seat's signatures.

    Each seat brings one signature for each input, in their order, DER with SIGHASH_ALL behind; the first M seats are used.
    """
    psbt = _read(raw)
    places = [_place(scope) for scope in psbt.inputs]
    scripts = [witness_script(certificate, branch, index) for branch, index in places]
    digests = [bytes(psbt.sighash(position, SIGHASH.ALL)) for position in range(len(places))]
    keys = {seat.key.seat: i for i, seat in enumerate(certificate.seats)}
    refusals: list[Refusal] = []
    good: dict[str, tuple[bytes, ...]] = {}
    for each in given:
        faults = [*_check(each, certificate, keys, places, digests)]
        if each.seat in good:
            faults.append(Refusal(Rule.SIGNER_TWICE, seat=each.seat))
        if not faults:
            good[each.seat] = each.signatures
        refusals += faults
    if len(good) < certificate.m:
        refusals.append(Refusal(Rule.QUORUM_NOT_REACHED, signatures=len(good), want=certificate.m))
    raise_if(refusals)
    used = list(good)[: certificate.m]
    for position, scope in enumerate(psbt.inputs):
        publics = {_public(certificate, keys[seat], *places[position]): seat for seat in used}
        stack = [good[publics[public]][position] for public in sorted(publics)]  # in the script's order (BIP-67)
        scope.final_scriptwitness = Witness([b"", *stack, scripts[position]])
    tx = psbt.tx
    for vin, scope in zip(tx.vin, psbt.inputs, strict=True):
        vin.witness = scope.final_scriptwitness
    return bytes(tx.serialize())


def read_outputs(raw: bytes, vout: int) -> tuple[int, bytes]:
    """Satoshi and script of one output of a raw transaction."""
    output = _transaction(raw).vout[vout]
    return int(output.value), bytes(output.script_pubkey.data)


def transaction_id(raw: bytes) -> bytes:
    """The id of a raw transaction, in displayed order."""
    return bytes(_transaction(raw).txid())


def vbytes(raw: bytes) -> int:
    """Virtual size of a signed transaction (BIP-141), rounded up."""
    transaction = _transaction(raw)
    for vin in transaction.vin:
        vin.witness = Witness([])
    return -(-(3 * len(transaction.serialize()) + len(raw)) // 4)


def spent(psbt: bytes) -> dict[tuple[bytes, int], tuple[int, bytes]]:
    """What the inputs of a PSBT spend, by (txid, vout): satoshi and script, from the previous transactions in it."""
    found: dict[tuple[bytes, int], tuple[int, bytes]] = {}
    for scope in _read(psbt).inputs:
        previous = scope.non_witness_utxo
        if previous is None or previous.txid() != scope.txid or scope.vout >= len(previous.vout):
            raise InvalidInput("psbt", Rule.PREVIOUS_MISMATCH, scope.txid.hex(), "the transaction that is spent")
        output = previous.vout[scope.vout]
        found[bytes(scope.txid), int(scope.vout)] = (int(output.value), bytes(output.script_pubkey.data))
    return found


def paid_scripts(psbt: bytes) -> list[tuple[int, bytes]]:
    """Satoshi and script of each output, in order."""
    return [(int(out.value), bytes(out.script_pubkey.data)) for out in _read(psbt).tx.vout]


def _check(
    each: SeatSignatures,
    certificate: WalletCertificate,
    keys: dict[str, int],
    places: Sequence[tuple[int, int]],
    digests: Sequence[bytes],
) -> Iterator[Refusal]:
    if each.seat not in keys:
        yield Refusal(Rule.SIGNER_UNKNOWN, seat=each.seat, want="a seat of the certificate")
        return
    if each.certificate != certificate.struct_hash:
        yield Refusal(Rule.WRONG_WALLET, seat=each.seat, got=each.certificate.hex(), want=certificate.struct_hash.hex())
        return
    if len(each.signatures) != len(digests):
        got = f"{len(each.signatures)} signatures"
        yield Refusal(Rule.MALFORMED, seat=each.seat, got=got, want=f"one for each of {len(digests)} inputs")
        return
    for position, (signature, digest, place) in enumerate(zip(each.signatures, digests, places, strict=True)):
        if signature[-1:] != bytes([SIGHASH.ALL]):
            yield Refusal(Rule.SIGHASH, seat=each.seat, input=position, got=signature[-1:].hex(), want="01")
        elif not _verifies(_public(certificate, keys[each.seat], *place), signature[:-1], digest):
            yield Refusal(Rule.SIGNATURE_INVALID, seat=each.seat, input=position)


def _verifies(public: bytes, signature: bytes, digest: bytes) -> bool:
    try:  # libsecp256k1 takes low s only, as nodes relay (BIP-146)
        return bool(coincurve.PublicKey(public).verify(signature, digest, hasher=None))
    except ValueError:  # not DER
        return False


@lru_cache(maxsize=16)
def _descriptor(certificate: WalletCertificate) -> "Descriptor":
    raise_if(check_script(certificate))
    return Descriptor.from_string(certificate.script[0].descriptor)


@lru_cache(maxsize=4096)
def _keys(certificate: WalletCertificate, branch: int, index: int) -> tuple[tuple[bytes, bytes, tuple[int, ...]], ...]:
    """Public key, master fingerprint and whole path of each seat's key at a place, in the descriptor's order."""
    derived = _descriptor(certificate).derive(check_index(index), branch_index=check_branch(branch))
    return tuple((bytes(k.sec()), bytes(k.origin.fingerprint), tuple(k.origin.derivation)) for k in derived.keys)


def _public(certificate: WalletCertificate, seat: int, branch: int, index: int) -> bytes:
    """The public key of one seat at a place; descriptors have their keys in the order of their text."""
    texts = sorted(each.key.xpub for each in certificate.seats)
    return _keys(certificate, branch, index)[texts.index(certificate.seats[seat].key.xpub)][0]


def _name_keys(scope: "InputScope | OutputScope", certificate: WalletCertificate, branch: int, index: int) -> None:
    for public, fingerprint, path in sorted(_keys(certificate, branch, index)):
        scope.bip32_derivations[PublicKey.parse(public)] = DerivationPath(fingerprint, list(path))


def _place(scope: "InputScope") -> tuple[int, int]:
    ends = {tuple(path.derivation[-2:]) for path in scope.bip32_derivations.values()}
    if len(ends) != 1:
        raise InvalidInput("psbt", Rule.FOREIGN_KEY, f"{len(ends)} places", "one place for each input")
    branch, index = ends.pop()
    return int(branch), int(index)


def _outpoint(coin: Coin) -> tuple[bytes, int]:
    transaction, _, vout = coin.outpoint.partition(":")
    return bytes.fromhex(transaction), int(vout)


def _read(raw: bytes) -> "PSBT":
    try:
        return PSBT.parse(raw)
    except _CRASHES as error:
        raise InvalidInput("psbt", Rule.MALFORMED, f"{len(raw)} bytes", "a PSBT") from error


def _transaction(raw: bytes) -> "Transaction":
    try:
        return Transaction.parse(raw)
    except _CRASHES as error:
        raise InvalidInput("transaction", Rule.MALFORMED, f"{len(raw)} bytes", "a raw transaction") from error
