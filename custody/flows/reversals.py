# SPDX-License-Identifier: AGPL-3.0-or-later
"""A customer whose credited deposit a reorg took back takes nothing out until it came back or people have looked (ETC, 51 %).

Nothing is written down for it: the journal itself says who is stopped, from the very entry that reverses the credit. It ends by itself
once chain events have credited as much again and nothing of it is lost; before that by a quorum's `Unfreeze` that names the reversal,
a roster's delay after it. What the customer had spent stays a loss, and stops him, until it is filled: by what arrives, or by two
people's entry.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

from custody.flows.kernel import Kernel
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Amount
from custody.rules.errors import InvalidInput
from custody.rules.governance import Unfreeze
from custody.rules.intents import TransferIntent
from custody.rules.ledger import Account, AccountKind, JournalEntry, canonical, loss_of
from custody.rules.origins import ChainProof, Reversal
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.walls import CUSTOMER

LIFT: Final = "unfreeze after a reversal"
"""Kind of document: a quorum's word that the customer of a reversed deposit may go on."""


def check_reversed(work: UnitOfWork, kernel: Kernel, intent: TransferIntent, now: int) -> Iterator[Refusal]:
    """No deposit of the customer's is taken back, and none of what was is lost. The company's own transfers pass."""
    if not intent.account.startswith(CUSTOMER):
        return
    customer = intent.account.removeprefix(CUSTOMER)
    account = Account(AccountKind.CUSTOMER_AVAILABLE, customer)
    reversals = _taken(work, account)
    if reversals is None:
        return
    taken = [each for each in reversals if not _is_lifted(work, kernel.roster, each[0], now)]
    for at, (recorded, origin, amount) in enumerate(taken):
        missing = sum(units.units for _, _, units in taken[at:] if units.asset == amount.asset)
        missing -= work.journal.credited_since(account, amount.asset, recorded.position)
        if missing > 0:
            told = {"customer": customer, "block": origin.height, "missing": missing, "asset": amount.asset.symbol}
            yield Refusal(Rule.DEPOSIT_REVERSED, **told, reversal=origin.struct_hash.hex())
    for asset in kernel.assets:
        if lost := work.journal.balance(loss_of(account), asset):
            yield Refusal(Rule.DEPOSIT_REVERSED, customer=customer, lost=lost, asset=asset.symbol)


def find(work: UnitOfWork, digest: bytes) -> JournalEntry | None:
    """The entry that reversed a deposit, by the struct hash of its origin; None where there is none."""
    for recorded in work.journal.reversals():
        if isinstance(recorded.entry.origin, Reversal) and recorded.entry.origin.struct_hash == digest:
            return recorded
    return None


def earliest_lift(recorded: JournalEntry, roster: Roster) -> int:
    """The first second at which a quorum may let the customer go on."""
    return recorded.recorded_at + roster.version.delay


def check_lift(signed: Signed[Unfreeze], recorded: JournalEntry, roster: Roster, now: int) -> Iterator[Refusal]:
    """A quorum says so, no earlier than it states and than the roster's delay lets it (TRUST.md, "Stricter only")."""
    yield from roster.check_quorum(signed, roster.version.thresholds.unfreeze, None, now)
    earliest = max(signed.message.not_before, earliest_lift(recorded, roster))
    if now < earliest:
        yield Refusal(Rule.TOO_EARLY, not_before=earliest, now=now)


def lift(work: UnitOfWork, signed: Signed[Unfreeze]) -> None:
    """Record what `check_lift` let pass; the same again is fine."""
    body = signed.to_json()  # signatures are part of the name: a forged row takes no true one's place
    name = f"{signed.message.freeze.hex()}/{sha256(canonical(body)).hexdigest()}"
    if work.documents.get(LIFT, name) is None:
        work.documents.put(LIFT, name, body)


def _taken(work: UnitOfWork, account: Account) -> Sequence[tuple[JournalEntry, Reversal, Amount]] | None:
    """Reversals of the account's credits, oldest first, and how much arrived by each; a payout that was undone is no deposit.

    None where nothing was ever reversed, and so nothing can be lost: what nearly every proposal finds.
    """
    reversals = work.journal.reversals(account)
    found: list[tuple[JournalEntry, Reversal, Amount]] = []
    for recorded in reversals:
        origin = recorded.entry.origin
        credited = work.journal.get(origin.entry) if isinstance(origin, Reversal) else None
        if credited is None or not isinstance(origin, Reversal) or not isinstance(credited.entry.origin, ChainProof):
            continue
        arrived = next(p.amount for p in credited.entry.postings if p.account.kind is AccountKind.WALLET)
        found.append((recorded, origin, arrived))
    return found if reversals else None


def _is_lifted(work: UnitOfWork, roster: Roster, recorded: JournalEntry, now: int) -> bool:
    origin = recorded.entry.origin
    digest = origin.struct_hash if isinstance(origin, Reversal) else b""
    for row in work.documents.all(LIFT):
        try:
            signed = Signed.from_json(Unfreeze, dict(row))
        except InvalidInput:  # somebody's row, and nobody's word
            continue
        if signed.message.freeze == digest and not any(check_lift(signed, recorded, roster, now)):
            return True
    return False
