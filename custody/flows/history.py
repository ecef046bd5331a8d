# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the attestor remembers of the journal rows that it has read, so that none of them can be changed behind its back.

Its memory is a hash every `SEGMENT` rows and the head it vouched for. Each statement reads the newest segment and one older one
again: a row that an attacker rewrote, hashes and all, does not lead to the remembered hash.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from custody.flows.ports import Examined, Journal
from custody.rules.ledger import JournalEntry, JournalHead, entry_hash
from custody.rules.origins import ChainProof, Executed, Hold, Release, Reversal, recorded_once
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed

_BATCH: Final = 1000
SEGMENT: Final = 256
"""Rows between two remembered hashes."""


class History:
    """Rows as they were when they were first read. `attested` is the head that was vouched for before."""

    def __init__(self, attested: JournalHead) -> None:
        self.attested = attested
        self.head = JournalHead()
        self.heights: dict[str, int] = {}
        """The newest block height per chain that an entry rests on."""
        self.attested_heights: dict[str, int] = {}
        """The same for entries at or below the attested head."""
        self._vouched: Counter[ChainProof] = Counter()
        self._refusals: list[Refusal] = []
        self._marks = [bytes(32)]
        self._once: set[tuple[str, str]] = set()
        self._payouts: dict[int, tuple[tuple[str, str], ...]] = {}
        """What each payout's entry recorded, by its position: a reversal lets it be recorded again."""
        self._turn = 0

    def read(self, journal: Journal) -> None:
        """Read what is new. Raises Refused(HISTORY_CHANGED, HASH_CHAIN, ALREADY_RECORDED) naming positions."""
        self._check_length(journal.head())
        while rows := journal.examine(self.head.position, _BATCH):
            for row in rows:
                self._note(row)
        self._check_length(self.head)
        raise_if(self._refusals)

    def _note(self, row: Examined) -> None:
        if row.position != self.head.position + 1:
            self._find(self.head.position + 1, got=f"row {row.position}", want="no gap")
        recorded = row.recorded
        found = recorded.hash if recorded is not None else b""
        if recorded is not None and (recorded.previous, found) != (self.head.hash, rehash(recorded)):
            self._find(row.position, got=found.hex(), want=f"the hash of this row after {self.head.hash.hex()}")
        if row.damage and row.position <= self.attested.position:
            self._find(row.position, got=str([str(damage) for damage in row.damage]), want="the row as it was attested")
        self.head = JournalHead(row.position, found)
        if row.position % SEGMENT == 0:
            self._marks.append(found)
        if row.position == self.attested.position and found != self.attested.hash:
            self._find(row.position, got=found.hex(), want=self.attested.hash.hex())
        if recorded is not None:
            self._note_origin(recorded)

    def _check_length(self, head: JournalHead) -> None:
        """A journal never gets shorter than what was vouched for or read. Raises Refused(HISTORY_CHANGED)."""
        known = max(self.attested.position, self.head.position)
        if head.position < known:
            raise Refused(
                [Refusal(Rule.HISTORY_CHANGED, position=head.position + 1, got="no row", want=f"{known} rows")]
            )

    def vouches_for(self, proof: ChainProof) -> bool:
        """Whether the next entry with exactly this proof stands at or below the attested head; each entry is asked about once.

        Such a proof held when it was attested, and a pruned node may not know now. It is counted, not remembered by its event:
        otherwise a credit planted after a true one was reversed would never be asked about.
        """
        if self._vouched[proof] < 1:
            return False
        self._vouched[proof] -= 1
        return True

    def recheck(self, journal: Journal) -> None:
        """Read the newest segment and one older one again. Raises Refused(HISTORY_CHANGED)."""
        if self.head.position == 0:
            return
        newest = (self.head.position - 1) // SEGMENT
        for segment in sorted({newest, self._turn % (newest + 1)}):
            after, last = segment * SEGMENT, min((segment + 1) * SEGMENT, self.head.position)
            kept = self._marks[segment + 1] if last == (segment + 1) * SEGMENT else self.head.hash
            _walk(self._marks[segment], journal.examine(after, last - after), after, last, kept)
        self._turn = (self._turn + 1) % (newest + 1)

    def _note_origin(self, recorded: JournalEntry) -> None:
        origin = recorded.entry.origin
        if isinstance(origin, Signed | Hold | Release | Executed):
            # One settlement entered twice is two true signatures and one theft; so is one hold freed twice.
            for kind, identity in recorded_once(origin):
                if (kind.value, identity) in self._once:
                    told = {"position": recorded.position, "kind": kind.value, "id": identity}
                    self._refusals.append(Refusal(Rule.ALREADY_RECORDED, **told))
                self._once.add((kind.value, identity))
        if isinstance(origin, Executed):
            found = recorded_once(origin)
            self._payouts[recorded.position] = tuple((kind.value, identity) for kind, identity in found)
        elif isinstance(origin, Reversal):  # whether it may reverse that, and once, is the audit's to say
            self._once -= set(self._payouts.pop(origin.entry, ()))
        if isinstance(origin, ChainProof | Executed):
            self.heights[origin.chain] = max(origin.height, self.heights.get(origin.chain, 0))
            if recorded.position <= self.attested.position:
                if not isinstance(origin, Executed):
                    self._vouched[origin] += 1
                self.attested_heights[origin.chain] = self.heights[origin.chain]

    def _find(self, position: int, got: str, want: str) -> None:
        rule = Rule.HISTORY_CHANGED if position <= self.attested.position else Rule.HASH_CHAIN
        self._refusals.append(Refusal(rule, position=position, got=got, want=want))


def rehash(recorded: JournalEntry) -> bytes:
    """The hash that a row should have by what stands in it."""
    return entry_hash(recorded.position, recorded.recorded_at, recorded.previous, recorded.entry)


def _walk(previous: bytes, rows: Sequence[Examined], after: int, last: int, kept: bytes) -> None:
    """The hash chain over rows after+1..last, from a remembered hash to a remembered hash."""
    by_position: Mapping[int, Examined] = {row.position: row for row in rows}
    for position in range(after + 1, last + 1):
        row = by_position.get(position)
        if row is None or row.recorded is None or row.damage:
            damage = [str(refusal) for refusal in row.damage] if row else ["no row"]
            raise Refused([Refusal(Rule.HISTORY_CHANGED, position=position, damage=damage)])
        recorded = row.recorded
        computed = rehash(recorded)
        if recorded.previous != previous or recorded.hash != computed:
            got, want = (recorded.hash, computed) if recorded.previous == previous else (recorded.previous, previous)
            raise Refused([Refusal(Rule.HISTORY_CHANGED, position=position, got=got.hex(), want=want.hex())])
        previous = recorded.hash
    if previous != kept:
        raise Refused([Refusal(Rule.HISTORY_CHANGED, position=last, got=previous.hex(), want=kept.hex())])
