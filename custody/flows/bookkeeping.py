# SPDX-License-Identifier: AGPL-3.0-or-later
"""Record what people and the trading backend sign: settlements of trades and manual entries. All of one, or nothing.

Every reason against a document is told at once; what only the journal knows (balances, what is recorded already) is checked in
the transaction that records it.
"""

from collections.abc import Callable, Iterator, Sequence

from custody.flows import sweep_records
from custody.flows.ports import Damaged, Deposit, Store, UnitOfWork
from custody.rules.amounts import Assets
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.intents import Anchor
from custody.rules.ledger import AccountKind, Entry, JournalEntry, check_balances, manual, settle
from custody.rules.origins import BitcoinProof, NativeProof
from custody.rules.provenance import check_signed_manual, check_signed_settlement
from custody.rules.refusals import Refusal, Rule, raise_if
from custody.rules.roster import Roster
from custody.rules.settlements import FeeSchedule, ManualEntry, Settlement
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit


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

    What leaves suspense names the chain event that brought it (`suspense:IDENTITY`), and takes no more than that has left.

    Raises Refused: quorum_not_reached, manual_entry_moves_between_these_accounts, unknown_customer, unknown_asset, amounts that
    are none, insufficient_balance, already_recorded (this id), coins_may_be_a_payouts_own.
    """

    def work(work: UnitOfWork) -> JournalEntry:
        found = list(check_signed_manual(signed, roster, assets, work.customers.ids(), now))
        found += _check_not_returning(work, signed.message)
        return _append(work, found, lambda: manual(signed, assets), now)

    return store.run(work)


def _check_not_returning(work: UnitOfWork, entry: ManualEntry) -> Iterator[Refusal]:
    """What a payout brings back to us is nobody's to give away: its own entry takes it, once that is booked.

    A log or an output names its transaction. Native coin on EVM is measured for a whole block: there any payout may be in it whose
    bytes were stored and that was held for before the credit, so people wait until those have ended.
    """
    for posting in entry.postings:
        kind, _, event = posting.account.partition(":")
        deposit = work.deposits.find(event) if kind == AccountKind.SUSPENSE else None
        if deposit is None:
            continue
        proof = deposit.sighting.proof
        for anchor, intents in (*_flying(work, proof.chain), *_sweeping(work, deposit)):
            mine = {envelope.transaction for envelope in work.transfers.kept(anchor)}
            if isinstance(proof, NativeProof):
                came = mine and _is_before(work, intents, deposit.position)
            else:
                came = (proof.txid if isinstance(proof, BitcoinProof) else proof.transaction) in mine
            if came:
                want = "the payout's own entry first"
                yield Refusal(Rule.RETURNING, event=event, payout=anchor.reference, want=want)


def _flying(work: UnitOfWork, chain: str) -> Iterator[tuple[Anchor, Sequence[bytes]]]:
    """Anchors on a chain that are pinned and not at their end, and their intents; none are known of a damaged row."""
    for permit in work.transfers.examine_permitted():
        if isinstance(permit, Permit) and permit.reservation.anchor.chain == chain:
            yield permit.reservation.anchor, permit.intents
        elif isinstance(permit, Damaged) and permit.anchor is not None and permit.anchor.chain == chain:
            yield permit.anchor, ()


def _sweeping(work: UnitOfWork, deposit: Deposit) -> Iterator[tuple[Anchor, Sequence[bytes]]]:
    """The sweep under way that may have brought a deposit to its wallet; it carries no intent."""
    credited = None if deposit.position is None else work.journal.get(deposit.position)
    for posting in () if credited is None else credited.entry.postings:
        if posting.account.kind is AccountKind.WALLET:
            run = sweep_records.under_way(work, bytes.fromhex(posting.account.owner))
            if run is not None:
                yield run.anchor, ()


def _is_before(work: UnitOfWork, intents: Sequence[bytes], credited: int | None) -> bool:
    """Whether a payout may have been sent before an entry was made: unless everything it carries was held for only after."""
    found = [work.transfers.get(intent) for intent in intents]
    after = [t is not None and t.hold is not None and credited is not None and t.hold > credited for t in found]
    return not after or not all(after)


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
