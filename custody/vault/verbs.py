# SPDX-License-Identifier: AGPL-3.0-or-later
"""The verbs of a seat, whoever hosts it: closed JSON in and out. There is none that gives out, takes in or deletes a key."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from custody.answers import Handler, answer_of, read_body, read_count, read_object, read_text
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.wallets import Chain
from custody.vault.seat import Recorded, SeatHost
from custody.vault.signing import OpenedKeys

PROCESS: Final[Mapping[str, str]] = {"kind": "process"}
REQUESTS_MOST: Final = 256
"""Requests in one `sign_many`; each is decided on by itself."""
LINES_MOST: Final = 100
"""Lines of the journal in one answer; each may have a batch of hundreds in it."""


def seat_handlers(
    seat: SeatHost, genesis: bytes | None = None, host: Mapping[str, str] = PROCESS
) -> Mapping[str, Handler]:
    """The verbs of a seat. There is none that gives out, takes in or deletes a private key.

    `genesis` is what the operator was told apart from the wire: where it is given, no other can be pinned. `host` is what hosts
    the seat, by its own word, for its status.
    """

    def sign_roster(body: object) -> object:
        (version,) = read_body(body, "version")
        return seat.sign_roster(RosterVersion.from_json(version)).to_json()

    def pin(body: object) -> object:
        signed = Signed.from_json(RosterVersion, read_body(body, "signed")[0])
        if genesis is not None and signed.message.struct_hash != genesis:
            raise Refused([Refusal(Rule.WRONG_GENESIS, got=signed.message.struct_hash.hex(), want=genesis.hex())])
        seat.pin(signed)
        return {}

    def admit_roster(body: object) -> object:
        told = isinstance(body, dict) and "statement" in body
        signed, *said = read_body(body, "signed", *(["statement"] if told else []))
        statement = Signed.from_json(Statement, said[0]) if said else None
        seat.admit_roster(Signed.from_json(RosterVersion, signed), statement)
        return {}

    def make_wallet_key(body: object) -> object:
        label, chain = read_body(body, "label", "chain")
        return seat.make_wallet_key(read_text(label, "label"), Chain(read_text(chain, "chain"))).to_json()

    def accept(body: object) -> object:
        return seat.accept(Signed.from_json(WalletCertificate, read_body(body, "signed")[0])).to_json()

    def identity(body: object) -> object:
        read_body(body)
        return seat.identity().to_json()

    def head(body: object) -> object:
        read_body(body)
        return seat.head().to_json()

    def status(body: object) -> object:
        read_body(body)
        return {**seat.status(), "host": dict(host)}

    verbs = (identity, sign_roster, pin, admit_roster, make_wallet_key, accept, head, status)
    return {**{verb.__name__: verb for verb in verbs}, **_signing_handlers(seat)}


def _signing_handlers(seat: SeatHost) -> Mapping[str, Handler]:
    """What comes after birth: policy, payloads, freezes, and the journal for whoever audits it."""

    def admit_policy(body: object) -> object:
        signed, documents, told = read_body(body, "signed", "documents", "statement")
        activation = Signed.from_json(PolicyActivation, signed)
        statement = None if told is None else Signed.from_json(Statement, told)
        return seat.admit_policy(activation, read_object(documents, "documents"), statement).to_json()

    def freeze(body: object) -> object:
        return seat.freeze(Signed.from_json(Freeze, read_body(body, "signed")[0])).to_json()

    def unfreeze(body: object) -> object:
        return seat.unfreeze(Signed.from_json(Unfreeze, read_body(body, "signed")[0])).to_json()

    def sign(body: object) -> object:
        return seat.sign(Request.from_json(read_body(body, "request")[0])).to_json()

    def sign_many(body: object) -> object:
        (requests,) = read_body(body, "requests")
        if not isinstance(requests, list) or not 0 < len(requests) <= REQUESTS_MOST:
            got = len(requests) if isinstance(requests, list) else type(requests).__name__
            raise InvalidInput("requests", Rule.MALFORMED, str(got), f"a list of 1 to {REQUESTS_MOST}")
        recorded = [answer_of(partial(_record, seat, request)) for request in requests]
        keys = seat.opened_keys()
        return [
            answer_of(partial(_sign_recorded, seat, each["ok"], keys)) if "ok" in each else each for each in recorded
        ]

    def journal(body: object) -> object:
        after, limit = read_body(body, "after", "limit")
        lines = seat.lines(read_count(after, "after"), min(read_count(limit, "limit"), LINES_MOST))
        return {"head": seat.head().to_json(), "lines": [line.to_json() for line in lines]}

    return {verb.__name__: verb for verb in (admit_policy, freeze, unfreeze, sign, sign_many, journal)}


def _record(seat: SeatHost, request: object) -> Recorded:
    return seat.record(Request.from_json(request))


def _sign_recorded(seat: SeatHost, recorded: object, keys: OpenedKeys) -> object:
    if not isinstance(recorded, Recorded):
        raise TypeError(type(recorded).__name__)
    return seat.sign_recorded(recorded, keys).to_json()
