# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat remembers of everything it signed, and how it learns of policies and freezes (TRUST.md, "Journal of a seat").

Pure: a journal and a record in, the next journal out. Every record is one line of the hash chain that `birth` began. Bindings are
for ever: a proposal belongs to one intent, an intent to one anchor, an anchor to one meaning.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Self

from custody.rules.birth import SeatRecord, SeatState
from custody.rules.errors import InvalidInput
from custody.rules.freezes import check_extension, check_freeze, check_unfreeze, is_recent
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.intents import Anchor
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.succession import FIRST, Terms, check_mature, check_signed, check_successor, matures
from custody.rules.typed import ZERO32, Bytes32, Struct, Uint64, Uint256

DAY: Final = 86_400
HEADS_KEPT: Final = 512
"""Own heads remembered, to compare with the one that the attestor knows."""
REQUESTS_KEPT: Final = 64
DIGESTS_KEPT: Final = 2_048
"""Answered requests, and digests, that one anchor remembers. An older request is refused by its statement's number instead."""
COUNTERS_MOST: Final = 512
COUNTER_GRAIN: Final = 600
"""Seconds that entries of a rolling window are brought together by once there are more of them; they only count for longer."""


class SigningKind(StrEnum):
    """What a seat records beside what `birth.RecordKind` names."""

    SIGNED = "signed"
    POLICY_SEEN = "policy_seen"
    POLICY = "policy"
    FROZEN = "frozen"
    UNFROZEN = "unfrozen"


@dataclass(frozen=True, slots=True)
class Spent(Struct):
    """Base units that count towards a cap of this seat."""

    asset: str
    units: Uint256


@dataclass(frozen=True, slots=True)
class SigningRecord(Struct):
    """What is written before a payload's digests are signed. `proposals` are those of `intents`, in their order; a void has none.

    `request` is the hash of the whole request, so that the same one is known again. `automatic` counts what no person approved,
    `swept` what went to the operational tier as fees.
    """

    request: Bytes32
    anchor: Anchor
    meaning: Bytes32
    digests: tuple[Bytes32, ...]
    intents: tuple[Bytes32, ...]
    proposals: tuple[Bytes32, ...]
    void: bool
    automatic: tuple[Spent, ...]
    swept: tuple[Spent, ...]
    sequence: Uint64
    time: Uint64


@dataclass(frozen=True, slots=True)
class Bound:
    """What an anchor belongs to: the payout's meaning, its intents, every answered request, and whether it was voided."""

    meaning: bytes
    digests: tuple[bytes, ...]
    intents: tuple[bytes, ...]
    requests: tuple[bytes, ...]
    voided: bool = False

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "meaning": _hex(self.meaning),
            "digests": [_hex(digest) for digest in self.digests],
            "intents": [_hex(intent) for intent in self.intents],
            "requests": [_hex(request) for request in self.requests],
            "voided": self.voided,
        }

    @classmethod
    def from_json(cls, data: Any) -> Self:  # noqa: ANN401  # as it was stored
        """Read the stored form; raises InvalidInput where it is not whole."""
        try:
            lists = [tuple(_bytes(x) for x in data[name]) for name in ("digests", "intents", "requests")]
            if type(data["voided"]) is not bool:
                raise ValueError(data["voided"])
            return cls(_bytes(data["meaning"]), lists[0], lists[1], lists[2], data["voided"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput("anchor", Rule.MALFORMED, repr(error), "what to_json wrote") from error


@dataclass(frozen=True, slots=True)
class Counter:
    """One entry of a rolling window."""

    time: int
    asset: str
    units: int


def anchor_key(anchor: Anchor) -> str:
    """The text under which an anchor is kept; a wallet's name and the chain keep references apart."""
    return f"{anchor.chain}/{anchor.wallet.hex()}/{anchor.reference}"


def bind(old: Bound | None, record: SigningRecord) -> Bound:
    """What an anchor belongs to after a record. Doing it again changes nothing, so that a host may complete it after a crash."""
    return Bound(
        record.meaning if old is None or record.void else old.meaning,
        tuple(dict.fromkeys((*(old.digests if old else ()), *record.digests)))[-DIGESTS_KEPT:],
        tuple(dict.fromkeys((*(old.intents if old else ()), *record.intents))),
        tuple(dict.fromkeys((*(old.requests if old else ()), record.request)))[-REQUESTS_KEPT:],
        voided=record.void or (old is not None and old.voided),
    )


@dataclass(frozen=True)
class SeatJournal:
    """Everything `decide` may look back on. `policies` are the bundles whose activation this seat verified, the newest last.

    `noted` are activations of the next bundle that wait for their time, with the time at which this seat first saw each.
    `anchors`, `intents` (digest to anchor) and `proposals` (hash to intent's digest) grow for ever. A host may keep each entry
    under a path of its own and hand in only the ones that a request touches, but of those everything it has.
    """

    state: SeatState
    policies: tuple[bytes, ...] = ()
    noted: tuple[tuple[bytes, int], ...] = ()
    freezes: tuple[Signed[Freeze], ...] = ()
    anchors: Mapping[str, Bound] = field(default_factory=dict)
    intents: Mapping[bytes, str] = field(default_factory=dict)
    proposals: Mapping[bytes, bytes] = field(default_factory=dict)
    automatic: tuple[Counter, ...] = ()
    swept: tuple[Counter, ...] = ()
    sequence: int = 0
    heads: tuple[tuple[int, bytes], ...] = ()
    tail: SeatRecord | None = None
    """The newest line of the hash chain that this module wrote, for the host to store beside the state."""

    @property
    def roster(self) -> Roster | None:
        """The newest roster, or None before genesis."""
        return self.state.pinned

    def head_at(self, position: int) -> bytes | None:
        """This journal's own head at a position, where it is still remembered."""
        return self.state.head if position == self.state.position else dict(self.heads).get(position)

    def frozen(self, now: int) -> Iterator[Freeze]:
        """The freezes that are in force at a time: each from when it was taken, whatever the clock of whoever signed it said."""
        return (f.message for f in self.freezes if now < f.message.lapses)

    def apply(self, record: SigningRecord) -> "SeatJournal":
        """The journal with one more signed payload. Pure, and does not judge: `seat.decide` made the record."""
        key = anchor_key(record.anchor)
        bound = bind(self.anchors.get(key), record)
        return replace(
            self._recorded(SigningKind.SIGNED, record.struct_hash, record.time),
            anchors={**self.anchors, key: bound},
            intents={**dict.fromkeys(record.intents, key), **self.intents},  # the first binding stands for ever
            proposals={**dict(zip(record.proposals, record.intents, strict=False)), **self.proposals},
            automatic=_window(self.automatic, record.automatic, record.time),
            swept=_window(self.swept, record.swept, record.time),
            sequence=max(self.sequence, record.sequence),
        )

    def _recorded(self, kind: SigningKind, digest: bytes, now: int) -> "SeatJournal":
        state = self.state
        record = SeatRecord(state.position + 1, kind, digest, max(now, state.time), state.head)
        after = replace(state, position=record.position, head=record.struct_hash, time=record.time)
        heads = (*self.heads, (state.position, state.head))[-HEADS_KEPT:]
        return replace(self, state=after, heads=heads, tail=record)

    def to_json(self) -> dict[str, Any]:
        """The stored form."""
        return {
            "state": self.state.to_json(),
            "policies": [_hex(bundle) for bundle in self.policies],
            "noted": [[_hex(activation), str(time)] for activation, time in self.noted],
            "freezes": [freeze.to_json() for freeze in self.freezes],
            "anchors": {key: bound.to_json() for key, bound in self.anchors.items()},
            "intents": {_hex(intent): key for intent, key in self.intents.items()},
            "proposals": {_hex(proposal): _hex(intent) for proposal, intent in self.proposals.items()},
            "automatic": [[str(c.time), c.asset, str(c.units)] for c in self.automatic],
            "swept": [[str(c.time), c.asset, str(c.units)] for c in self.swept],
            "sequence": str(self.sequence),
            "heads": [[str(position), _hex(head)] for position, head in self.heads],
            "tail": None if self.tail is None else self.tail.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the stored form; raises InvalidInput where it is not whole, so that a damaged journal is never an empty one."""
        if not isinstance(data, dict):
            raise InvalidInput("seat journal", Rule.MALFORMED, type(data).__name__, "an object")
        try:
            return cls(
                state=SeatState.from_json(data["state"]),
                policies=tuple(_bytes(bundle) for bundle in data["policies"]),
                noted=tuple(
                    (_bytes(activation), int(time)) for activation, time in data.get("noted", ())
                ),  # none: the delay begins
                freezes=tuple(Signed.from_json(Freeze, freeze) for freeze in data["freezes"]),
                anchors={str(key): Bound.from_json(bound) for key, bound in data["anchors"].items()},
                intents={_bytes(intent): str(key) for intent, key in data["intents"].items()},
                proposals={_bytes(proposal): _bytes(intent) for proposal, intent in data["proposals"].items()},
                automatic=_counters(data["automatic"]),
                swept=_counters(data["swept"]),
                sequence=int(data["sequence"]),
                heads=tuple((int(position), _bytes(head)) for position, head in data["heads"]),
                tail=None if data["tail"] is None else SeatRecord.from_json(data["tail"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput("seat journal", Rule.MALFORMED, repr(error), "what to_json wrote") from error


Learned = SeatJournal | tuple[Refusal, ...]
"""The journal after it learned something, or at least one refusal."""


def admit_policy(
    journal: SeatJournal, signed: Signed[PolicyActivation], now: int, terms: Terms | None = None
) -> Learned:
    """Put a bundle in force: it succeeds the newest one, everybody signed whom that one asks for, and its delay is over.

    `terms` are what the bundle in force asks of this one, which the host worked out from both bundles' documents; the first needs
    none. The delay counts from when this seat first saw the activation: handed in for the first time it is only noted, and
    `check_admitted` says from when it counts. The same activation again changes nothing. Whoever hands bundles to `decide` must
    have hashed them.
    """
    roster, activation = journal.roster, signed.message
    if roster is None:
        return (Refusal(Rule.NOT_PINNED, seat=journal.state.seat, want="genesis pinned first"),)
    if journal.policies and activation.bundle == journal.policies[-1]:
        return journal
    newest = journal.policies[-1] if journal.policies else ZERO32
    time = max(now, journal.state.time)
    asked = FIRST if not journal.policies else terms
    refusals = [*check_successor(activation, newest, journal.policies)]
    if asked is None:
        refusals.append(Refusal(Rule.NOT_SUCCESSOR, want="the terms of the bundle in force"))
        return tuple(refusals)
    refusals += check_signed(signed, asked, roster, time)
    if refusals:
        return tuple(refusals)
    digest, known = activation.struct_hash, dict(journal.noted)
    if digest not in known and asked.delay > 0:
        noted = (*journal.noted, (digest, time))
        return replace(journal._recorded(SigningKind.POLICY_SEEN, digest, now), noted=noted)  # noqa: SLF001
    if early := (*check_mature(activation, asked, known.get(digest, time), time),):
        return early
    after = journal._recorded(SigningKind.POLICY, digest, now)  # noqa: SLF001
    return replace(after, policies=(*journal.policies, activation.bundle), noted=())


def check_admitted(journal: SeatJournal, activation: PolicyActivation, terms: Terms | None) -> Iterator[Refusal]:
    """Whether a bundle that was handed in is the one that this seat goes by now; if not, from when it may be."""
    seen = dict(journal.noted).get(activation.struct_hash)
    if seen is not None and terms is not None:
        yield Refusal(
            Rule.TOO_EARLY,
            path=terms.path,
            seen=seen,
            delay=terms.delay,
            not_before=matures(activation, terms, seen),
            now=journal.state.time,
        )


def admit_freeze(journal: SeatJournal, signed: Signed[Freeze], now: int) -> Learned:
    """Take a freeze that one person signed. It lapses within a day; who extends it stands in a group that has not yet frozen."""
    roster, freeze = journal.roster, signed.message
    if roster is None:
        return (Refusal(Rule.NOT_PINNED, seat=journal.state.seat, want="genesis pinned first"),)
    if freeze in [known.message for known in journal.freezes]:
        return journal
    time = max(now, journal.state.time)
    refusals = (*check_freeze(signed, roster, time), *check_extension(signed, journal.freezes, roster, time))
    if refusals:
        return refusals
    kept = tuple(known for known in journal.freezes if is_recent(known, time))
    after = journal._recorded(SigningKind.FROZEN, freeze.struct_hash, now)  # noqa: SLF001
    return replace(after, freezes=(*kept, signed))


def admit_unfreeze(journal: SeatJournal, signed: Signed[Unfreeze], now: int) -> Learned:
    """End one freeze early, by quorum and after the delay that its `not_before` states, a roster delay at the least."""
    roster, unfreeze = journal.roster, signed.message
    if roster is None:
        return (Refusal(Rule.NOT_PINNED, seat=journal.state.seat, want="genesis pinned first"),)
    time = max(now, journal.state.time)
    frozen = next((f.message for f in journal.freezes if f.message.struct_hash == unfreeze.freeze), None)
    if frozen is None:
        return (Refusal(Rule.NOT_SUCCESSOR, freeze=unfreeze.freeze.hex(), want="a freeze that this seat knows"),)
    if refusals := (*check_unfreeze(signed, frozen, roster, time),):
        return refusals
    after = journal._recorded(SigningKind.UNFROZEN, unfreeze.struct_hash, now)  # noqa: SLF001
    return replace(after, freezes=tuple(f for f in journal.freezes if f.message != frozen))


def counted(entries: Iterable[Counter], asset: str, now: int) -> int:
    """Base units of one asset within 24 hours. An entry from the future counts too: a clock that ran back frees nothing."""
    return sum(entry.units for entry in entries if entry.asset == asset and entry.time > now - DAY)


def _window(entries: tuple[Counter, ...], more: Iterable[Spent], now: int) -> tuple[Counter, ...]:
    kept = [entry for entry in entries if entry.time > now - DAY]
    whole = _together([*kept, *(Counter(now, spent.asset, spent.units) for spent in more)], 1)
    return whole if len(whole) <= COUNTERS_MOST else _together(whole, COUNTER_GRAIN)


def _together(entries: Iterable[Counter], grain: int) -> tuple[Counter, ...]:
    """One entry for each asset and so many seconds, at their end: a busy day may not make the journal outgrow its vault."""
    found: dict[tuple[int, str], int] = {}
    for entry in entries:
        at = -(-entry.time // grain) * grain, entry.asset
        found[at] = found.get(at, 0) + entry.units
    return tuple(Counter(time, asset, units) for (time, asset), units in found.items())


def _counters(rows: Iterable[Any]) -> tuple[Counter, ...]:
    return tuple(Counter(int(time), str(asset), int(units)) for time, asset, units in rows)


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _bytes(text: str) -> bytes:
    value = bytes.fromhex(text.removeprefix("0x"))
    if len(value) != 32:
        raise ValueError(text)
    return value
