# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the attestor sees for the first time: intents, enrolments, certificates. Delays and the age of a destination count from here.

The time is the attestor's own and lies in its vault; that a row says it is older means nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from custody.flows.inventory import Inventory
from custody.flows.ports import AttestorMemory, Damaged, Enrolled, UnitOfWork
from custody.flows.verification import AuditState
from custody.rules import holds
from custody.rules.amounts import Assets
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.hold_origins import check_binding, proposer_of
from custody.rules.intents import TransferIntent
from custody.rules.refusals import Refusal
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.walls import COMPANY

_LIMIT: Final = 1000
_PENDING: Final = tuple(status for status in Status if not status.is_final)


@dataclass(frozen=True, slots=True)
class Reading:
    """How far enrolments were read: every one up to a number, but for those that are damaged, which are looked at again each time."""

    up_to: int = 0
    damaged: Mapping[int, Refusal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sighted:
    """What a store shows. `enrolments` and `unheld` (transfers that the journal holds nothing of) still have to prove themselves."""

    enrolments: Sequence[Signed[Enrolment]]
    unheld: Sequence[Transfer]
    proven: Sequence[bytes]
    read: Reading


def look(
    work: UnitOfWork, ledger: AuditState, inventory: Inventory, asked: Sequence[TransferIntent], before: Reading
) -> Sighted:
    """Everything that may be new. A damaged row is told, and seen when it can be read: it keeps nothing else from being seen."""
    enrolments, unheld = [], []
    up_to, damaged = before.up_to, dict[int, Refusal]()
    for number, found in _enrolments(work, before):
        up_to = max(up_to, number)
        if isinstance(found, Damaged):
            damaged[number] = found.why
        else:
            enrolments.append(found.enrolment)
    for intent in asked:
        with suppress(InvalidInput):  # a damaged one is told above; another address's sight does not wait for it
            enrolled = work.enrolments.get(intent.enrolment)
            enrolments += [enrolled.enrolment] if enrolled is not None else []
    number = 0
    while rows := work.transfers.examine(number, _LIMIT, account=COMPANY, statuses=_PENDING):
        unheld += [transfer for _, transfer in rows if isinstance(transfer, Transfer) and transfer.hold is None]
        number = rows[-1][0]
    certificates = [signed.message.struct_hash for wallet in inventory for signed in wallet.certificates]
    return Sighted(enrolments, unheld, (*certificates, *ledger.holds), Reading(up_to, damaged))


def _enrolments(work: UnitOfWork, before: Reading) -> Iterator[tuple[int, Enrolled | Damaged]]:
    """Those that were damaged and whatever came since, with their numbers."""
    for number in before.damaged:
        yield from work.enrolments.examine(number - 1, 1)
    after = before.up_to
    while page := work.enrolments.examine(after, _LIMIT):
        yield from page
        after = page[-1][0]


def remember(sighted: Sighted, memory: AttestorMemory, roster: Roster, assets: Assets, now: int) -> None:
    """Note for ever when each thing that proves itself was first seen."""
    for digest in memory.unseen(sighted.proven):
        memory.first_sight(digest, now)
    by_hash = {signed.message.struct_hash: signed for signed in sighted.enrolments}
    for digest in memory.unseen(by_hash):
        if is_enrolled(by_hash[digest], roster, now):
            memory.first_sight(digest, now)
    unheld = {transfer.digest: transfer for transfer in sighted.unheld}
    for digest in memory.unseen(unheld):
        if proves_itself(unheld[digest], roster, assets, now):
            memory.first_sight(digest, now)


def is_enrolled(signed: Signed[Enrolment], roster: Roster, now: int) -> bool:
    """Whether an address authority of this roster signed it."""
    return bool(roster.people_who_signed(signed, now) & frozenset(roster.version.address_authorities))


def proves_itself(transfer: Transfer, roster: Roster, assets: Assets, now: int) -> bool:
    """Whether a transfer that holds nothing is one that somebody proposed: what its row says is worth what was signed."""
    intent = transfer.intent
    try:
        if holds.parts(intent, assets) or roster.domain.digest(intent) != transfer.digest:
            return False
    except InvalidInput:
        return False
    initiator = proposer_of(transfer.proposal, roster, now)
    faults = check_binding(intent, transfer.proposal.message)
    return initiator is not None and initiator.id == intent.initiator and not any(faults)


def find(
    work: UnitOfWork, digests: Sequence[bytes], ledger: AuditState, roster: Roster, assets: Assets, now: int
) -> Iterator[tuple[bytes, TransferIntent]]:
    """The intents of these digests: as the journal holds them, or from a row that proves itself and has nothing to hold."""
    for digest in digests:
        standing = ledger.holds.get(digest)
        if standing is not None:
            yield digest, standing.intent
        elif digest not in ledger.moves.of and digest not in ledger.moves.dead:
            row = work.transfers.get(digest)
            if row is not None and proves_itself(row, roster, assets, now):
                yield digest, row.intent
