# SPDX-License-Identifier: AGPL-3.0-or-later
"""An entry's text and hash are put together from remembered parts: they are, byte by byte, its canonical JSON's."""

import hashlib

from custody.rules.ledger import JournalEntry, canonical, entry_hash, entry_text, entry_to_json
from custody.rules.origins import Hold
from tests.fakes.treasury import Treasury


def plainly(recorded: JournalEntry) -> bytes:
    """The hash as it is defined, from one canonical JSON object."""
    numbers = {"position": recorded.position, "recorded_at": recorded.recorded_at, "previous": recorded.previous.hex()}
    body = canonical({**numbers, **entry_to_json(recorded.entry)})
    return hashlib.sha256(b"bulkhead journal v1\x00" + body).digest()


def test_every_entry_of_a_treasury() -> None:
    """Deposits, accruals and a hold with its proposal, intent and signature; asked twice, so that both are remembered."""
    treasury = Treasury()
    treasury.propose()
    entries = treasury.store.read(lambda work: work.journal.read())
    assert any(isinstance(recorded.entry.origin, Hold) for recorded in entries)
    for recorded in (*entries, *entries):
        assert entry_text(recorded.entry).encode() == canonical(entry_to_json(recorded.entry))
        assert recorded.hash == plainly(recorded)
        again = entry_hash(recorded.position, recorded.recorded_at, recorded.previous, recorded.entry)
        assert again == recorded.hash
