# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rows to what the rules know and back: one mapper each way. Whatever cannot be read is InvalidInput naming the row."""

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from custody.flows.ports import Deposit
from custody.rules.amounts import Amount, Assets
from custody.rules.certificates import DepositAddress
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.json_text import read_json
from custody.rules.ledger import (
    AccountKind,
    Entry,
    JournalEntry,
    Side,
    canonical,
    entry_from_json,
    entry_text,
    entry_to_json,
)
from custody.rules.origins import BitcoinProof, NativeProof, TokenProof, origin_from_json, origin_to_json
from custody.rules.refusals import Rule
from custody.rules.signatures import Signed
from custody.rules.wallets import Address
from custody.store.tables import DepositAddressRow, DepositRow

_UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, UnbalancedEntry)
"""What reading JSON that somebody else wrote can raise, besides InvalidInput."""


class JournalValues(TypedDict):
    """The values of one row of `journal`."""

    position: int
    recorded_at: int
    previous: bytes
    hash: bytes
    body: str


class Line(TypedDict):
    """The values of one row of `postings`."""

    position: int
    line: int
    account: str
    asset: str
    side: str
    units: int


def journal_values(recorded: JournalEntry) -> JournalValues:
    """An entry on its way into `journal`."""
    return {
        "position": recorded.position,
        "recorded_at": recorded.recorded_at,
        "previous": recorded.previous,
        "hash": recorded.hash,
        "body": entry_text(recorded.entry),
    }


def lines(recorded: JournalEntry) -> list[Line]:
    """An entry on its way into `postings`."""
    return [
        {
            "position": recorded.position,
            "line": number,
            "account": str(posting.account),
            "asset": posting.amount.asset.symbol,
            "side": str(posting.side),
            "units": posting.amount.units,
        }
        for number, posting in enumerate(recorded.entry.postings)
    ]


def accrued(entry: Entry) -> dict[str, int]:
    """Fees that an entry accrues, in base units by asset."""
    fees: dict[str, int] = {}
    for posting in entry.postings:
        if posting.account.kind is AccountKind.ACCRUED_FEES and posting.side is Side.CREDIT:
            symbol = posting.amount.asset.symbol
            fees[symbol] = fees.get(symbol, 0) + posting.amount.units
    return fees


def journal_entry(values: JournalValues, assets: Assets) -> JournalEntry:
    """A row of `journal` as an entry; the hash is not recomputed. Raises InvalidInput unless the JSON is the canonical one."""
    where = f"journal[{values['position']}]"
    entry = _read_entry(where, values["body"], assets)
    if canonical(entry_to_json(entry)).decode() != values["body"]:  # a second spelling would be a second thing to hash
        raise InvalidInput(where, Rule.MALFORMED, "another spelling of the entry", "its canonical JSON")
    return JournalEntry(values["position"], values["recorded_at"], values["previous"], entry, values["hash"])


def _read_entry(where: str, body: str, assets: Assets) -> Entry:
    try:
        return entry_from_json(_object(read_json(body, where), where), assets)
    except InvalidInput as error:
        field = error.field if error.field.startswith(where) else f"{where}.{error.field}"
        raise InvalidInput(field, error.rule, error.got, error.want) from error
    except _UNREADABLE as error:
        raise InvalidInput(
            where, Rule.MALFORMED, f"{type(error).__name__}: {error}"[:200], "an entry's canonical JSON"
        ) from error


def deposit_row(sighting: Sighting) -> DepositRow:
    """A new sighting on its way into `deposits`."""
    return DepositRow(
        identity=sighting.identity,
        chain=sighting.address.chain.name,
        height=sighting.proof.height,
        address=sighting.address.text,
        asset=sighting.amount.asset.symbol,
        units=sighting.amount.units,
        proof=canonical(origin_to_json(sighting.proof)).decode(),
        status=DepositStatus.SEEN,
    )


def deposit(row: DepositRow, assets: Assets) -> Deposit:
    """A row of `deposits` as it stands. Raises InvalidInput on a damaged row."""
    where = f"deposits[{row.identity}]"
    try:
        proof = origin_from_json(_object(read_json(row.proof, where), where))
        asset = assets.get(row.asset)
        status = DepositStatus(row.status)
    except _UNREADABLE as error:
        raise InvalidInput(
            where, Rule.MALFORMED, f"{type(error).__name__}: {error}"[:200], "a chain proof's JSON"
        ) from error
    if not isinstance(proof, TokenProof | NativeProof | BitcoinProof):
        raise InvalidInput(where, Rule.MALFORMED, type(proof).__name__, "a chain proof")
    sighting = Sighting(Amount(asset, row.units), Address(asset.chain, row.address), proof)
    if (sighting.identity, proof.chain, proof.height) != (row.identity, row.chain, row.height):
        raise InvalidInput(where, Rule.MALFORMED, sighting.identity, "the identity, chain and height of its proof")
    return Deposit(sighting, status, row.position)


def binding_row(signed: Signed[DepositAddress], keys: int = 0) -> DepositAddressRow:
    """An attested binding on its way into `deposit_addresses`."""
    message = signed.message
    return DepositAddressRow(
        wallet=message.wallet,
        number=message.index,
        customer=message.customer,
        chain=message.chain,
        address=message.address,
        body=canonical(signed.to_json()).decode(),
        keys=keys,
    )


def binding(row: DepositAddressRow) -> Signed[DepositAddress]:
    """A row of `deposit_addresses` as the attestor signed it. Raises InvalidInput where the row says something else."""
    where = f"deposit_addresses[{row.wallet.hex()}/{row.number}]"
    try:
        signed = Signed.from_json(DepositAddress, read_json(row.body, where))
    except _UNREADABLE as error:
        raise InvalidInput(
            where, Rule.MALFORMED, f"{type(error).__name__}: {error}"[:200], "a signed DepositAddress"
        ) from error
    message = signed.message
    told = (message.wallet, message.index, message.customer, message.chain, message.address)
    if told != (row.wallet, row.number, row.customer, row.chain, row.address):
        raise InvalidInput(where, Rule.MALFORMED, f"{row.customer} at {row.address}", "what the attestor signed")
    return signed


def document(kind: str, key: str, body: str) -> Mapping[str, Any]:
    """A mirrored document's JSON. Raises InvalidInput on a damaged row."""
    where = f"documents[{kind}/{key}]"
    return _object(read_json(body, where), where)


def _object(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidInput(where, Rule.MALFORMED, type(data).__name__, "a JSON object")
    return data
