# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the attestor sees for the first time: intents, enrolments, certificates. Delays and the age of a destination count from here.

The time is the attestor's own and lies in its vault; that a row says it is older means nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from custody.flows.inventory import Inventory
from custody.flows.ports import AttestorMemory, UnitOfWork
from custody.flows.verification import AuditState
from custody.rules import holds
from custody.rules.amounts import Assets
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.hold_origins import check_binding, proposer_of
from custody.rules.intents import TransferIntent
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from custody.rules.walls import COMPANY

_LIMIT: Final = 1000
_PENDING: Final = tuple(status for status in Status if not status.is_final)


@dataclass(frozen=True, slots=True)
class Sighted:
    """What a store shows. `enrolments` and `unheld` (transfers that the journal holds nothing of) still have to prove themselves.

    `up_to` is the number of the last enrolment that was read.
    """

    enrolments: Sequence[Signed[Enrolment]]
    unheld: Sequence[Transfer]
    proven: Sequence[bytes]
    up_to: int


def look(
    work: UnitOfWork, ledger: AuditState, inventory: Inventory, asked: Sequence[TransferIntent], after: int
) -> Sighted:
    """Everything that may be new. A damaged row is seen when it can be read: it keeps nothing else from being attested."""
    enrolments, unheld = [], []
    up_to = after
    try:
        while page := work.enrolments.page(up_to, _LIMIT):
            enrolments += [enrolled.enrolment for _, enrolled in page]
            up_to = page[-1][0]
    except InvalidInput:
        up_to = after
    try:
        for intent in asked:
            found = work.enrolments.get(intent.enrolment)
            enrolments += [found.enrolment] if found is not None else []
    except InvalidInput:
        pass
    number = 0
    while rows := work.transfers.examine(number, _LIMIT, account=COMPANY, statuses=_PENDING):
        unheld += [transfer for _, transfer in rows if isinstance(transfer, Transfer) and transfer.hold is None]
        number = rows[-1][0]
    certificates = [signed.message.struct_hash for wallet in inventory for signed in wallet.certificates]
    return Sighted(enrolments, unheld, (*certificates, *ledger.holds), up_to)


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
