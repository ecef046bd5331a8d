# SPDX-License-Identifier: AGPL-3.0-or-later
"""Record what people and the trading backend sign: settlements of trades and manual entries. All of one, or nothing.

Every reason against a document is told at once; what only the journal knows (balances, what is recorded already) is checked in
the transaction that records it.
"""

from collections.abc import Callable, Iterator, Sequence

from custody.flows.ports import Store, UnitOfWork
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.ledger import Entry, JournalEntry, check_balances, manual, settle
from custody.rules.provenance import check_signed_manual, check_signed_settlement
from custody.rules.refusals import Refusal, raise_if
from custody.rules.roster import Roster
from custody.rules.settlements import FeeSchedule, ManualEntry, Settlement
from custody.rules.signatures import Signed


def record_settlement(
    store: Store, roster: Roster, signed: Signed[Settlement], schedule: FeeSchedule, assets: Assets, now: int
) -> JournalEntry:
    """Record a settlement that its API client signed with the settle scope.

    Raises Refused: signer_not_in_roster, signer_expired, scope_missing, signature_invalid, every rule of `check_settlement`,
    unknown_asset, insufficient_balance, already_recorded (this id, or any of its trades).
    """

    def work(work: UnitOfWork) -> JournalEntry:
        found = list(check_signed_settlement(signed, roster, schedule, assets, work.customers.ids(), now))
        return _append(work, found, lambda: settle(signed, assets), now)

    return store.run(work)


def record_manual(store: Store, roster: Roster, signed: Signed[ManualEntry], assets: Assets, now: int) -> JournalEntry:
    """Record an entry of the closed list that enough distinct people signed (`thresholds.manual_entry`).

    Raises Refused: quorum_not_reached, manual_entry_moves_between_these_accounts, unknown_customer, unknown_asset, amounts that
    are none, insufficient_balance, already_recorded (this id).
    """

    def work(work: UnitOfWork) -> JournalEntry:
        found = list(check_signed_manual(signed, roster, assets, work.customers.ids(), now))
        return _append(work, found, lambda: manual(signed, assets), now)

    return store.run(work)


def _append(work: UnitOfWork, found: Sequence[Refusal], make: Callable[[], Entry], now: int) -> JournalEntry:
    if found:
        raise_if((*found, *_short(work, make)))
    return work.journal.append(make(), now)


def _short(work: UnitOfWork, make: Callable[[], Entry]) -> Iterator[Refusal]:
    """Who would be below zero, so that a person who has to correct a document sees that as well."""
    try:
        entry = make()
    except (InvalidInput, UnbalancedEntry):
        return
    yield from check_balances(entry, {key: work.journal.balance(*key) for key in entry.changes()})
