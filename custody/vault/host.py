# SPDX-License-Identifier: AGPL-3.0-or-later
"""The process of one seat: its verbs over a unix socket. Signs nothing that `rules.birth` and `rules.seat` do not let through."""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from custody.chains.scripts import check_script
from custody.flows.ports import Clock
from custody.rules.certificates import WalletCertificate
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.succession import JudgeTerms
from custody.rules.wallets import Chain
from custody.vault.openbao import OpenBaoClient
from custody.vault.seat import ReadBundle, SeatHost
from custody.wire import Handler, read_body, read_count, read_object, read_text, serve

_PR_SET_DUMPABLE: Final = 4
LINES_MOST: Final = 100
"""Lines of the journal in one answer; each may have a batch of hundreds in it."""


def wall_clock() -> int:
    """Seconds since 1970, by this machine."""
    return int(time.time())


def seat_handlers(seat: SeatHost, genesis: bytes | None = None) -> Mapping[str, Handler]:
    """The verbs of a seat. There is none that gives out, takes in or deletes a private key.

    `genesis` is what the operator was told apart from the wire: where it is given, no other can be pinned.
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
        return seat.status()

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

    def journal(body: object) -> object:
        after, limit = read_body(body, "after", "limit")
        lines = seat.lines(read_count(after, "after"), min(read_count(limit, "limit"), LINES_MOST))
        return {"head": seat.head().to_json(), "lines": [line.to_json() for line in lines]}

    return {verb.__name__: verb for verb in (admit_policy, freeze, unfreeze, sign, journal)}


def serve_seat(
    name: str,
    approle: Path,
    path: Path,
    *,
    read_bundle: ReadBundle,
    terms: JudgeTerms,
    clock: Clock = wall_clock,
    genesis: bytes | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Host a seat until SIGTERM. Raises InvalidInput or Unavailable where it cannot begin."""
    harden()
    seat = SeatHost(name, OpenBaoClient.from_file(approle), check_script, clock, read_bundle=read_bundle, terms=terms)
    seat.status()  # a wrong AppRole, a sealed server or another seat's vault shows now, not at the first signature
    serve(path, seat_handlers(seat, genesis), ready)


def harden() -> None:
    """Keep what this process holds in memory out of files and debuggers; Python cannot wipe it (facts: SECURITY.md)."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
