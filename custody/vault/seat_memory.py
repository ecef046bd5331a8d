# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a seat remembers: one small state under check-and-set, and beside it one document for each thing that is kept for ever.

A step is committed by one write of the state, which carries the step's own line of the journal with its body. Whoever comes next
sees to the rest: anchor, bindings, and last the line itself under its position, so that a line that is there says that all of
its bindings are. A crash between any two writes loses nothing and binds nothing twice.

The state holds what is bounded: roster, certificates, keys, bundles' hashes, freezes of two days, counters of one day. Anchors,
proposals, burned intents and lines grow for ever and lie under paths of their own.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Self

from custody.rules.birth import SeatRecord, SeatState
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.intents import Anchor
from custody.rules.payouts import DecodedPayload
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.seat_journal import Bound, SeatJournal, SigningKind, SigningRecord, anchor_key, bind
from custody.rules.seat_request import Request
from custody.vault.storage import CasConflict, Vault

STATE: Final = "state"
DOCUMENT_BYTES: Final = 768 * 1024
"""OpenBao takes a text of 1 MiB in a request, and an entry of 1 MiB in its storage, where each quote of ours has two bytes."""


def record_path(position: int) -> str:
    """Where one line of the journal lies: create-only, named by its position."""
    return f"journal/{position}"


def anchor_path(anchor: Anchor) -> str:
    """Where an anchor's own document lies."""
    return "anchors/" + hashlib.sha256(anchor_key(anchor).encode()).hexdigest()


def proposal_path(proposal: bytes) -> str:
    """Where it stands which intent, on which anchor, a proposal became: create-only."""
    return f"proposals/{proposal.hex()}"


def burned_path(intent: bytes) -> str:
    """Where it stands which anchor's void burned an intent: create-only."""
    return f"burned/{intent.hex()}"


def check_size(field: str, document: Mapping[str, object], share: int = 1) -> None:
    """Raises Refused where a document would not fit into the vault, before anything of it is written."""
    size, most = len(json.dumps(document, separators=(",", ":"))), DOCUMENT_BYTES // share
    if size > most:
        raise Refused([Refusal(Rule.MALFORMED, field=field, got=size, want=f"at most {most} bytes")])


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a seat's journal and the JSON of the message whose hash it records; none for what the state holds anyway."""

    record: SeatRecord
    body: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The stored form, which also travels."""
        return {"record": self.record.to_json(), "body": None if self.body is None else dict(self.body)}

    @classmethod
    def from_json(cls, data: object, field: str = "line") -> Self:
        """Read the stored form; raises InvalidInput."""
        body = data.get("body") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or set(data) != {"record", "body"} or not isinstance(body, dict | None):
            raise InvalidInput(field, Rule.MALFORMED, type(data).__name__, "a record and its body")
        return cls(SeatRecord.from_json(data["record"], f"{field}.record"), body)


@dataclass(frozen=True, slots=True)
class Held:
    """The journal as stored, without its bindings (see `SeatMemory.recall`), and the version to write over."""

    journal: SeatJournal
    version: int

    @property
    def state(self) -> SeatState:
        """What birth decides on."""
        return self.journal.state


class SeatMemory:
    """One seat's journal in its vault. Every method raises Unavailable where the vault does not answer."""

    def __init__(self, name: str, vault: Vault) -> None:
        self._name = name
        self._vault = vault
        self._read: tuple[Mapping[str, object], SeatJournal] | None = None

    def load(self) -> Held:
        """The newest state, with everything that an interrupted step left undone completed first. Raises Refused(hash_chain)."""
        stored, version = self._vault.read(STATE)
        if stored is None:
            if self.line(1) is not None:  # a state that is gone, and a past that is not: never born again
                raise self._broken(0, "a journal without a state")
            return Held(SeatJournal(SeatState(self._name)), 0)
        journal = self._journal(stored)
        state, tail = journal.state, journal.tail
        if state.seat != self._name:
            raise InvalidInput("seat.name", Rule.SEAT_UNKNOWN, repr(self._name), f"{state.seat!r}, whose vault this is")
        if tail is None or (tail.position, tail.struct_hash) != (state.position, state.head):
            raise self._broken(state.position, state.head.hex())
        self._complete(Line.from_json({"record": tail.to_json(), "body": stored.get("body")}, STATE))
        return Held(journal, version)

    def commit(self, held: Held, after: SeatJournal, body: Mapping[str, Any] | None = None, share: int = 1) -> Held:
        """Store one step with its line. Raises Unavailable where another process moved first, Refused where it has grown too large.

        `share` above 1 leaves the rest of the room to others: freezes take half, so that no heap of them stops a roster.
        """
        if after.tail is None or after.state.position != held.state.position + 1:
            raise self._broken(after.state.position, "a step of another length than one line")
        bounded = replace(after, anchors={}, intents={}, proposals={}, heads=())
        line = Line(after.tail, None if body is None else dict(body))
        document = {**bounded.to_json(), "body": line.body}
        check_size("state", document, share)
        try:
            self._vault.write(STATE, document, cas=held.version)
        except CasConflict as error:
            raise Unavailable(f"seat {self._name}", "another process moved its state; ask again") from error
        self._read = (document, bounded)
        self._complete(line)
        return Held(bounded, held.version + 1)

    def _journal(self, stored: Mapping[str, object]) -> SeatJournal:
        """The stored state as an object; made once for as long as the vault gives the very same state."""
        if self._read is None or self._read[0] != stored:
            self._read = (stored, SeatJournal.from_json(stored))
        return self._read[1]

    def line(self, position: int) -> Line | None:
        """One line as stored; `birth.check_chain` judges the records of many."""
        stored, _ = self._vault.read(record_path(position))
        return None if stored is None else Line.from_json(stored, record_path(position))

    def recall(self, journal: SeatJournal, request: Request, decoded: DecodedPayload) -> SeatJournal:
        """The journal with everything it ever bound of what a request touches, and its own head where the statement knew it."""
        bound, _ = self._bound(decoded.anchor)
        intents: dict[bytes, str] = {}
        proposals: dict[bytes, bytes] = {}
        roster = journal.roster
        for transfer in request.transfers if roster is not None else ():
            digest = roster.domain.digest(transfer.intent) if roster is not None else b""
            proposal = transfer.proposal.message.struct_hash
            became = self._binding(proposal_path(proposal))
            if became is not None:
                proposals[proposal] = bytes.fromhex(became["intent"])
                intents[proposals[proposal]] = became["anchor"]
            burned = self._binding(burned_path(digest))
            if burned is not None:
                intents.setdefault(digest, burned["anchor"])
        anchors = {} if bound is None else {anchor_key(decoded.anchor): bound}
        return replace(
            journal, anchors=anchors, intents=intents, proposals=proposals, heads=self._heads(journal, request)
        )

    def _heads(self, journal: SeatJournal, request: Request) -> tuple[tuple[int, bytes], ...]:
        told = [p for p in request.statement.message.seats if p.seat == self._name]
        if len(told) != 1 or not 0 < told[0].position < journal.state.position:
            return ()
        line = self.line(told[0].position)
        return () if line is None else ((line.record.position, line.record.struct_hash),)

    def _complete(self, line: Line) -> None:
        """See the newest line written, its bindings before it. Another one in its place means that an older state was restored."""
        record = line.record
        stored = self.line(record.position)
        if stored is None:
            if record.kind == SigningKind.SIGNED:
                self._bind(SigningRecord.from_json(line.body, record_path(record.position)))
            with suppress(CasConflict):  # written meanwhile
                self._vault.write(record_path(record.position), line.to_json(), cas=0)
            stored = self.line(record.position)
        if stored != line or self.line(record.position + 1) is not None:
            raise self._broken(record.position, record.struct_hash.hex())

    def _bind(self, record: SigningRecord) -> None:
        self._bind_anchor(record)
        key = anchor_key(record.anchor)
        paid = list(zip(record.intents, record.proposals, strict=False))
        for intent, proposal in paid:
            self._once(proposal_path(proposal), {"proposal": proposal.hex(), "intent": intent.hex(), "anchor": key})
        for intent in record.intents[len(paid) :]:  # a void's: whatever their proposals are, nothing pays them again
            self._once(burned_path(intent), {"intent": intent.hex(), "anchor": key})

    def _bind_anchor(self, record: SigningRecord) -> None:
        path, key = anchor_path(record.anchor), anchor_key(record.anchor)
        old, version = self._bound(record.anchor)
        after = bind(old, record)
        if after != old:
            try:
                self._vault.write(path, {"anchor": key, "bound": after.to_json()}, cas=version)
            except CasConflict as error:  # somebody completes the same step, or it is done: the next call sees which
                raise Unavailable(f"seat {self._name}", "another process completes its journal; ask again") from error

    def _once(self, path: str, binding: Mapping[str, object]) -> None:
        with suppress(CasConflict):  # the first binding stands for ever
            self._vault.write(path, binding, cas=0)

    def _bound(self, anchor: Anchor) -> tuple[Bound | None, int]:
        stored, version = self._vault.read(anchor_path(anchor))
        if stored is None:
            return None, version
        if stored.get("anchor") != anchor_key(anchor):
            raise self._broken(0, f"another anchor's document under {anchor_path(anchor)}")
        return Bound.from_json(stored.get("bound")), version

    def _binding(self, path: str) -> dict[str, str] | None:
        stored, _ = self._vault.read(path)
        if stored is None:
            return None
        body = {name: value for name, value in stored.items() if isinstance(value, str)}
        if not path.endswith("/" + body.get("proposal", body.get("intent", ""))) or not {"intent", "anchor"} <= set(
            body
        ):
            raise self._broken(0, f"a damaged binding under {path}")
        return body

    def _broken(self, position: int, head: str) -> Refused:
        return Refused([Refusal(Rule.HASH_CHAIN, seat=self._name, position=position, head=head)])
