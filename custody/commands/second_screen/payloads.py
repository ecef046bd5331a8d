# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a raw payload does exactly what messages say: read by the pure decoders, compared field by field, each difference in words.

The messages name the certificate by its hash and say what their own tokens are, so nothing here is looked up anywhere: a registry
or a certificate that somebody swapped would be another hash.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from custody.chains.payloads import decode
from custody.commands.second_screen.messages import Message
from custody.commands.second_screen.telling import shown, units
from custody.rules.amounts import Asset, AssetKind, Assets
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.payouts import DecodedPayload, Leaf, LeafKind, Payload, PsbtPayload, SafeTx, Surroundings
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Address, Chain

_NATIVE: Final = "0x" + "00" * 20
_PAID: Final = frozenset({LeafKind.NATIVE, LeafKind.TOKEN})
_ODD: Final = {
    Rule.DELEGATECALL: "runs a stranger's code with the wallet's own coins and owners (delegatecall)",
    Rule.SAFE_CHANGED: "changes the Safe itself: its modules, guard, handler or owners",
    Rule.GAS_FIELDS: "pays whoever sends it, or a named receiver, out of the Safe (gas refund)",
    Rule.UNKNOWN_CALL: "calls something whose effect is not known",
    Rule.UNKNOWN_ASSET: "moves something that no message is about",
    Rule.WRONG_WALLET: "is of another wallet or chain",
    Rule.SWEEP_STRANGER: "sends a deposit address's coins to a stranger",
    Rule.FOREIGN_INPUT: "spends coins that are not this wallet's",
    Rule.FOREIGN_KEY: "names keys that are not this wallet's: an output that only looks like change, or a stranger's input",
    Rule.FEE_TOO_HIGH: "burns coins as a network fee beyond any bound",
    Rule.NOT_CANONICAL: "is not written in the one way, so it may hide something",
    Rule.PREVIOUS_MISMATCH: "lies about what its inputs are worth",
    Rule.PREVIOUS_MISSING: "does not show what its inputs are worth",
}


def read_payload(data: object) -> Payload:
    """A payload as seats are asked to sign it: `{"type", "fields"}`, or a whole request out of `bulkhead payout export`."""
    if isinstance(data, dict) and "payload" in data:
        data = data["payload"]
    if not isinstance(data, dict) or set(data) != {"type", "fields"}:
        raise InvalidInput("payload", Rule.MALFORMED, "another shape", "an object of type and fields")
    kinds: dict[object, type[SafeTx | PsbtPayload]] = {"SafeTx": SafeTx, "PsbtPayload": PsbtPayload}
    kind = kinds.get(data["type"]) if isinstance(data["type"], str) else None
    if kind is None:
        raise InvalidInput("payload.type", Rule.MALFORMED, repr(data["type"])[:80], "SafeTx or PsbtPayload")
    return kind.from_json(data["fields"], "payload.fields")


def read_certificate(data: object) -> WalletCertificate:
    """A wallet certificate, with its signatures or without; whose it is, the messages say by its hash."""
    if isinstance(data, dict) and data.get("type") == "WalletCertificate":
        data = data.get("message")
    return WalletCertificate.from_json(data, "certificate")


def differences(
    messages: Sequence[Message],
    payload: Payload,
    certificate: WalletCertificate,
    others: Sequence[WalletCertificate] = (),
) -> tuple[list[str], list[str]]:
    """What the payload does, line by line, and each way in which that is not exactly what the messages say."""
    if any(message.kind != "TransferIntent" for message in messages):
        raise InvalidInput(
            "message.type", Rule.MALFORMED, messages[0].kind, "TransferIntent: nothing else has a payload"
        )
    against = [*_of_certificate(messages, certificate)]
    first = messages[0].fields
    around = Surroundings(first["wallet"], certificate, _assets(messages), tuple(others))
    decoded = decode(payload, around)
    if not isinstance(decoded, DecodedPayload):
        return [], [*against, *(_refused(refusal) for refusal in decoded)]
    return [*_told(decoded, messages)], [*against, *_compared(decoded, messages)]


def _of_certificate(messages: Sequence[Message], certificate: WalletCertificate) -> Iterator[str]:
    for message in messages:
        if message.fields["certificate"] != certificate.struct_hash:
            want = message.fields["certificate"].hex()
            yield f"certificate: 0x{certificate.struct_hash.hex()} was given, the message names 0x{want}"
        if message.fields["chain"] != certificate.chain:
            yield f"chain: the message says {shown(message.fields['chain'])}, the certificate is of {certificate.chain}"
        if message.fields["wallet"] != messages[0].fields["wallet"]:
            yield "wallet: the messages are about two wallets, a payload is of one"


def _assets(messages: Sequence[Message]) -> Assets:
    """Registry of what the messages are about, by their own words, and the chain's own coin."""
    found: dict[str, Asset] = {}
    for fields in (message.fields for message in messages):
        chain = Chain(fields["chain"])
        token = fields["token"].lower() != _NATIVE
        kind = AssetKind.ERC20 if token else AssetKind.NATIVE
        contract = Address.parse(chain, fields["token"], "token") if token else None
        asset = Asset(fields["asset"], chain, kind, fields["decimals"], contract)
        if found.setdefault(asset.symbol, asset) != asset:
            raise InvalidInput("asset", Rule.NAME_REUSED, asset.symbol, "one meaning of a symbol in all messages")
    for chain in {asset.chain for asset in found.values()}:
        if not any(asset.chain == chain and asset.kind is AssetKind.NATIVE for asset in found.values()):
            name = "NATIVE.COIN"
            found[name] = Asset(name, chain, AssetKind.NATIVE, 18 if chain.is_evm else 8)
    return Assets(tuple(found.values()), {asset.chain: 1 for asset in found.values()})


def _told(decoded: DecodedPayload, messages: Sequence[Message]) -> Iterator[str]:
    places = {message.fields["asset"]: message.fields["decimals"] for message in messages}

    def much(leaf: Leaf) -> str:
        exact = f"{leaf.units} base units of {leaf.asset}"
        return f"{units(leaf.units, places[leaf.asset])} {leaf.asset} ({exact})" if leaf.asset in places else exact

    for leaf in decoded.leaves:
        match leaf.kind:
            case LeafKind.NATIVE | LeafKind.TOKEN:
                yield f"pays {much(leaf)} to {leaf.destination}"
            case LeafKind.CHANGE:
                yield f"returns {much(leaf)} to the same wallet as change, at {leaf.destination}"
            case LeafKind.SWEEP:
                yield f"brings {much(leaf)} from a deposit address of the wallet into it"
            case LeafKind.VOID:
                yield "uses up the anchor and does nothing else"
            case LeafKind.OWNER_CHANGE:
                yield f"changes who owns the Safe: {leaf.owners}"
    yield f"uses up {decoded.anchor.reference} ({'an outpoint' if decoded.inputs else 'the nonce of the Safe'})"
    if decoded.inputs:
        yield f"spends {len(decoded.inputs)} coins of the wallet; network fee {decoded.fee} base units of {decoded.native}"
    for each in decoded.to_sign:
        yield f"seats would sign 0x{each.digest.hex()}"


def _compared(decoded: DecodedPayload, messages: Sequence[Message]) -> Iterator[str]:
    paid = [leaf for leaf in decoded.leaves if leaf.kind in _PAID]
    asked = [message.fields for message in messages]
    for leaf in [*paid]:
        same = next((fields for fields in asked if _of(fields) == (leaf.asset, leaf.destination, leaf.units)), None)
        if same is not None:
            paid.remove(leaf)
            asked.remove(same)
    for leaf, fields in zip([*paid], [*asked], strict=False):
        yield from _fields_apart(leaf, fields)
    for leaf in paid[len(asked) :]:
        yield f"extra payment: {leaf.units} base units of {leaf.asset} to {leaf.destination}, which no message asks for"
    for fields in asked[len(paid) :]:
        yield (
            f"missing payment: {fields['amount']} base units of {shown(fields['asset'])} to {shown(fields['destination'])}"
        )
    for leaf in decoded.leaves:
        if leaf.kind in {LeafKind.VOID, LeafKind.OWNER_CHANGE}:
            yield f"{leaf.kind.value}: which no message asks for"
    most = sum(message.fields["maximumFee"] for message in messages)
    if decoded.fee > most:
        yield f"network fee: the messages allow {most} base units of {decoded.native}, the payload burns {decoded.fee}"


def _of(fields: Any) -> tuple[str, str, int]:  # noqa: ANN401  # a message's fields
    return fields["asset"], fields["destination"], fields["amount"]


def _fields_apart(leaf: Leaf, fields: Any) -> Iterator[str]:  # noqa: ANN401  # a message's fields
    for name, says, does in zip(
        ("asset", "destination", "amount"), _of(fields), (leaf.asset, leaf.destination, leaf.units), strict=True
    ):
        if says != does:
            spelled = "; the same in other capitals" if str(says).lower() == str(does).lower() else ""
            yield f"{name}: the message says {shown(str(says))}, the payload does {does}{spelled}"


def _refused(refusal: Refusal) -> str:
    told = _ODD.get(refusal.rule)
    return f"{told}: {shown(str(refusal))}" if told else f"cannot be read as a payment: {shown(str(refusal))}"
