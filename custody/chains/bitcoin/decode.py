# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a PSBT does, from its bytes and the wallet's certificate alone; whoever built it shares no code with this.

embit parses and hashes (BIP-174, BIP-143), and is trusted with nothing else: left alone it signs inputs whose amount lies or
whose previous transaction is missing (facts: PSBT and P2WSH; CVE-2020-14199). Here every previous transaction is present and
is hashed again, sums are our own, and every script is derived from the certificate.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from typing import Final

from embit import compact  # type: ignore[import-untyped]
from embit.base import EmbitError  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]
from embit.psbt import PSBT, InputScope, OutputScope  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import SIGHASH  # type: ignore[import-untyped]

from custody.chains.bitcoin.scripts import CHANGE, RECEIVE, witness_script
from custody.rules.amounts import AssetKind
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.intents import Anchor
from custody.rules.payouts import (
    VOID_CHANGE,
    Decoded,
    DecodedPayload,
    Leaf,
    LeafKind,
    Place,
    PsbtPayload,
    SpentInput,
    Surroundings,
    ToSign,
)
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.wallets import Chain

VERSION: Final = 2
SEQUENCES: Final = frozenset({0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF})
"""Replaceable (BIP-125) or final; anything lower could be a relative lock time (BIP-68)."""

_CRASHES: Final = (EmbitError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RuntimeError)
"""What embit raises where it did not expect the bytes it got."""
_SIGNATURE: Final = 72
"""The longest low-s DER signature with its sighash byte."""


@dataclass(frozen=True, slots=True)
class _Input:
    """An input that is ours, as its previous transaction has it, with the script it is signed under."""

    spent: SpentInput
    script: bytes
    witness: bytes


def decode(payload: PsbtPayload, around: Surroundings) -> Decoded:
    """Everything a PSBT does, or every reason why it cannot be signed. Pure; never raises for what the bytes say."""
    certificate = around.certificate
    if payload.chain != certificate.chain or len(certificate.script) != 1:
        return (Refusal(Rule.WRONG_WALLET, got=payload.chain, want=f"{certificate.chain}, with one script"),)
    psbt = _parse(payload.psbt)
    if isinstance(psbt, Refusal):
        return (psbt,)
    refusals = [*_check_shape(psbt)]
    inputs: list[_Input] = []
    for position, scope in enumerate(psbt.inputs):
        faults = [*_check_scope(scope, position)]
        found = _read_input(scope, position, certificate) if not faults else None
        if isinstance(found, _Input):
            inputs.append(found)
        refusals += [*faults, *([found] if isinstance(found, Refusal) else [])]
    if refusals or not inputs:
        return tuple(refusals) or (Refusal(Rule.MALFORMED, field="inputs", got="none", want="at least one"),)
    return _Outputs(around, inputs).read(psbt)


def _parse(raw: bytes) -> "PSBT | Refusal":
    """A version 0 PSBT whose global map holds the transaction and nothing else, and which is written in the one way.

    embit lets fields of version 2 change inputs and outputs of a version 0 PSBT, reads a sequence of 0 as final, and makes as
    many inputs as a number says. What it writes again must be what came, so that no such field was there.
    """
    want = "a version 0 PSBT, its transaction alone in the global map, in embit's order of fields"
    try:
        stream = BytesIO(raw)
        head = stream.read(7)
        stream.seek(compact.read_from(stream), 1)
        if head != b"psbt\xff\x01\x00" or stream.read(1) != b"\x00":
            return Refusal(Rule.NOT_CANONICAL, of="PSBT", got=head.hex(), want=want)
        psbt = PSBT.parse(raw)
        if psbt.serialize() != raw:
            return Refusal(Rule.NOT_CANONICAL, of="PSBT", got=f"{len(raw)} bytes", want=want)
    except _CRASHES as error:
        return Refusal(Rule.MALFORMED, field="psbt", got=type(error).__name__, want=want)
    return psbt


def _check_shape(psbt: "PSBT") -> Iterator[Refusal]:
    if psbt.tx_version != VERSION or psbt.locktime != 0:
        # A lock time hands whoever holds the signed bytes a payment for later.
        got = f"version {psbt.tx_version}, lock time {psbt.locktime}"
        yield Refusal(Rule.TRANSACTION_SHAPE, got=got, want=f"version {VERSION}, lock time 0")
    points = [(scope.txid, scope.vout) for scope in psbt.inputs]
    if len(set(points)) != len(points):
        yield Refusal(Rule.MALFORMED, field="inputs", got="an outpoint twice", want="each once")
    for position, scope in enumerate(psbt.inputs):
        if scope.sequence not in SEQUENCES:
            yield Refusal(
                Rule.TRANSACTION_SHAPE, input=position, got=f"sequence {scope.sequence:#x}", want="no lock time"
            )
    if not psbt.outputs:
        yield Refusal(Rule.MALFORMED, field="outputs", got="none", want="at least one")


def _check_scope(scope: "InputScope", position: int) -> Iterator[Refusal]:
    """Nothing in an input but what a seat needs: a stranger's signature, script or key is a question that nobody asked."""
    odd = {
        "unknown field": scope.unknown,
        "partial signature": scope.partial_sigs,
        "redeem script": scope.redeem_script,
        "final script": scope.final_scriptsig,
        "final witness": scope.final_scriptwitness,
        "taproot": scope.taproot_bip32_derivations or scope.taproot_sigs or scope.taproot_scripts,
        "taproot key": scope.taproot_internal_key or scope.taproot_merkle_root,
    }
    for what, found in odd.items():
        if found:
            yield Refusal(Rule.FOREIGN_KEY, input=position, got=what, want="an unsigned input of this wallet")
    if scope.sighash_type not in {None, SIGHASH.ALL}:
        yield Refusal(Rule.SIGHASH, input=position, got=scope.sighash_type, want=SIGHASH.ALL)


def _read_input(scope: "InputScope", position: int, certificate: WalletCertificate) -> _Input | Refusal:
    """An input's amount and script from its whole previous transaction, which hashes to its txid; the script is derived."""
    outpoint = f"{scope.txid.hex()}:{scope.vout}"
    previous = scope.non_witness_utxo
    if previous is None:
        return Refusal(Rule.PREVIOUS_MISSING, input=position, outpoint=outpoint)
    if previous.txid() != scope.txid or scope.vout >= len(previous.vout):
        return Refusal(Rule.PREVIOUS_MISMATCH, input=position, outpoint=outpoint, got=previous.txid().hex())
    spent = previous.vout[scope.vout]
    told = scope.witness_utxo
    if told is not None and told.serialize() != spent.serialize():  # CVE-2020-14199: the amount lies
        return Refusal(Rule.PREVIOUS_MISMATCH, input=position, outpoint=outpoint, got=told.value, want=spent.value)
    place = _hinted(scope)
    script = _script(certificate, place)
    if place is None or script is None or _pays(script) != spent.script_pubkey.data:
        return Refusal(Rule.FOREIGN_INPUT, input=position, outpoint=outpoint, script=spent.script_pubkey.data.hex())
    if scope.witness_script is not None and scope.witness_script.data != script:
        return Refusal(Rule.FOREIGN_KEY, input=position, got="witness script", want="the certificate's")
    if not _holds_keys(script, scope):
        return Refusal(Rule.FOREIGN_KEY, input=position, got="key derivations", want="the script's keys and no other")
    where = Place(certificate.struct_hash, *place)
    return _Input(SpentInput(outpoint, spent.value, where), spent.script_pubkey.data, script)


def _hinted(scope: "InputScope | OutputScope") -> tuple[int, int] | None:
    """Branch and index as the PSBT's key paths end; only a hint of where to derive, and None unless all agree."""
    ends = {tuple(path.derivation[-2:]) for path in scope.bip32_derivations.values()}
    if len(ends) != 1:
        return None
    end = ends.pop()
    return (int(end[0]), int(end[1])) if len(end) == 2 and end[0] in {RECEIVE, CHANGE} else None


def _script(certificate: WalletCertificate, place: tuple[int, int] | None) -> bytes | None:
    if place is None:
        return None
    try:
        return witness_script(certificate, *place)
    except (InvalidInput, Refused):  # an index that cannot be derived, or a certificate that does not hold
        return None


def _pays(script: bytes) -> bytes:
    """P2WSH (BIP-141): version 0 and the SHA-256 of the witness script."""
    return b"\x00\x20" + sha256(script).digest()


def _holds_keys(script: bytes, scope: "InputScope | OutputScope") -> bool:
    keys = {script[2 + 34 * i : 35 + 34 * i] for i in range(script[-2] - 0x50)}
    return {key.sec() for key in scope.bip32_derivations} == keys


class _Outputs:
    """Reads the outputs against the inputs, which have been read and are ours."""

    def __init__(self, around: Surroundings, inputs: list[_Input]) -> None:
        self._around = around
        self._inputs = inputs
        self._own = around.certificate
        chain = Chain(self._own.chain)
        self._network = NETWORKS[chain.bitcoin_network]
        native = [asset for asset in around.assets.on(chain) if asset.kind is AssetKind.NATIVE]
        self._native = native[0].symbol if native else ""
        self._line = {self._own.struct_hash} | set(_successors(self._own, around.others))

    def read(self, psbt: "PSBT") -> Decoded:
        refusals: list[Refusal] = []
        leaves: list[Leaf] = []
        if not self._native:
            refusals.append(Refusal(Rule.UNKNOWN_ASSET, chain=self._own.chain, want="a native asset in the registry"))
        for position, scope in enumerate(psbt.outputs):
            found = self._leaf(scope, position)
            if isinstance(found, Leaf):
                leaves.append(found)
            else:
                refusals.append(found)
        tx = psbt.tx
        fee = sum(i.spent.units for i in self._inputs) - sum(out.value for out in tx.vout)
        refusals += self._check_fee(fee, leaves, len(tx.serialize()))
        if refusals:
            return tuple(refusals)
        if self._is_void(leaves):
            leaves = [replace(leaves[0], kind=LeafKind.VOID)]
        anchor = Anchor(self._own.chain, self._around.wallet, self._inputs[0].spent.outpoint)
        return DecodedPayload(
            chain=self._own.chain,
            wallet=self._around.wallet,
            certificate=self._own.struct_hash,
            anchor=anchor,
            native=self._native,
            leaves=tuple(leaves),
            inputs=tuple(i.spent for i in self._inputs),
            fee=fee,
            to_sign=tuple(
                ToSign(bytes(tx.sighash_segwit(n, Script(i.witness), i.spent.units, SIGHASH.ALL)), i.spent.place)
                for n, i in enumerate(self._inputs)
            ),
        )

    def _is_void(self, leaves: list[Leaf]) -> bool:
        """The one canonical void: one input, one output, at the signing certificate's change address for voids.

        The script that held the coin will not do: it may be a customer's, who would be credited the same coin again.
        """
        place = Place(self._own.struct_hash, CHANGE, VOID_CHANGE)
        return len(self._inputs) == 1 and [(leaf.kind, leaf.place) for leaf in leaves] == [(LeafKind.CHANGE, place)]

    def _leaf(self, scope: "OutputScope", position: int) -> Leaf | Refusal:
        odd = scope.unknown or scope.redeem_script or scope.taproot_internal_key or scope.taproot_bip32_derivations
        if odd:
            return Refusal(
                Rule.FOREIGN_KEY, output=position, got="an unknown field", want="key derivations at the most"
            )
        script = bytes(scope.script_pubkey.data)
        try:
            destination = str(scope.script_pubkey.address(self._network))
        except ValueError:
            return Refusal(
                Rule.UNKNOWN_CALL, output=position, script=script.hex(), want="an output that has an address"
            )
        if scope.value <= 0:
            return Refusal(Rule.NOT_POSITIVE, output=position, units=scope.value)
        held = [i.spent.place.branch for i in self._inputs if i.script == script]
        if held and (held[0] != CHANGE or not scope.bip32_derivations):
            return Refusal(Rule.OWN_ADDRESS, output=position, to=destination, want="change at the change branch")
        if not scope.bip32_derivations and scope.witness_script is None:
            return Leaf(LeafKind.NATIVE, self._native, scope.value, destination)
        return self._derived(scope, script, destination, position)

    def _derived(self, scope: "OutputScope", script: bytes, destination: str, position: int) -> Leaf | Refusal:
        """An output that claims to be a certified wallet's has to be one: a claim that fails is misread change."""
        hint = _hinted(scope)
        for certificate in (self._own, *self._around.others):
            witness = (
                _script(certificate, hint) if certificate.script and certificate.chain == self._own.chain else None
            )
            if hint is None or witness is None or _pays(witness) != script:
                continue
            if not _holds_keys(witness, scope) or (scope.witness_script and scope.witness_script.data != witness):
                break
            place = Place(certificate.struct_hash, *hint)
            if hint[0] == CHANGE and hint[1] > self._around.window.change:  # of any wallet of ours: nobody watches it
                return Refusal(Rule.CHANGE_TOO_FAR, output=position, index=hint[1], most=self._around.window.change)
            if place.certificate not in self._line:
                return Leaf(LeafKind.NATIVE, self._native, scope.value, destination, place)
            if hint[0] != CHANGE:  # a receive index may be a customer's: change there would be credited to them
                return Refusal(Rule.OWN_ADDRESS, output=position, to=destination, want="change at the change branch")
            return Leaf(LeafKind.CHANGE, self._native, scope.value, destination, place)
        return Refusal(Rule.FOREIGN_KEY, output=position, to=destination, got="key derivations of another script")

    def _check_fee(self, fee: int, leaves: list[Leaf], stripped: int) -> Iterator[Refusal]:
        paid = sum(leaf.units for leaf in leaves if leaf.kind is LeafKind.NATIVE)
        moved = sum(i.spent.units for i in self._inputs)
        vbytes = self._vbytes(stripped)
        most = self._around.fees.most(paid or moved, vbytes)
        if not 0 <= fee <= most:
            yield Refusal(Rule.FEE_TOO_HIGH, fee=fee, most=most, paid=paid or moved, vbytes=vbytes)

    def _vbytes(self, stripped: int) -> int:
        """Virtual size once signed (BIP-141): the stripped size four times, the witnesses once, divided by four, rounded up."""
        witnesses = sum(
            2 + self._own.m * (1 + _SIGNATURE) + len(compact.to_bytes(len(i.witness))) + len(i.witness)
            for i in self._inputs
        )
        return -(-(4 * stripped + 2 + witnesses) // 4)


def _successors(own: WalletCertificate, others: tuple[WalletCertificate, ...]) -> Iterator[bytes]:
    """The certificates among these that follow on this one, one after the other."""
    by_previous = {certificate.previous: certificate for certificate in others}
    seen, at = {own.struct_hash}, own.struct_hash
    while (following := by_previous.get(at)) is not None and following.struct_hash not in seen:
        at = following.struct_hash
        seen.add(at)
        yield at
