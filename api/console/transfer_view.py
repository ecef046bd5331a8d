# SPDX-License-Identifier: AGPL-3.0-or-later
"""One transfer as a person decides about it: everything worked out again from signed fields (`flows.reviewing`), nothing shortened."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields

from api.console.desk import Desk
from custody.flows import reviewing
from custody.flows.inventory import Wallet
from custody.flows.kernel import Kernel
from custody.flows.review_words import effect
from custody.flows.reviewing import Review
from custody.rules.approvals import Counted, count, satisfied, unfilled
from custody.rules.coverage import liabilities, surplus
from custody.rules.errors import Unavailable
from custody.rules.governance import Freeze
from custody.rules.hold_origins import proposer_of
from custody.rules.refusals import Refused
from custody.rules.requirement import Outcome, Requirement
from custody.rules.roster import ApiClient, Person, Roster
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Transfer
from custody.rules.typed import Struct
from custody.rules.waiting import people_missing


@dataclass(frozen=True)
class RuleTold:
    """A rule that matched: what it asks, and why it is there. Both are the bundle's own words."""

    name: str
    asks: str
    why: str


@dataclass(frozen=True)
class Covered:
    """One asset before and after, in base units."""

    asset: str
    reserves: tuple[int, int]
    owed: tuple[int, int]
    surplus: tuple[int, int]
    in_flight: int

    @property
    def short(self) -> bool:
        """Whether payments out of customer tiers would stop afterwards."""
        return self.surplus[1] < 0


@dataclass(frozen=True)
class Agreed:
    """Who said yes, whose yes does not count, and who is still missing. `mine` is whether this person's yes would fill a slot.

    `displaying` is how many of those still missing have to use a key that shows what it signs; `only_displaying`: this person has to.
    """

    counted: Counted
    missing: str
    mine: bool
    asked: Requirement | None
    displaying: int = 0
    only_displaying: bool = False


@dataclass(frozen=True)
class TransferView:
    """Everything that the page shows."""

    seen: Review
    source: Wallet | None
    initiator: Person | ApiClient | None
    rules: Sequence[RuleTold]
    agreed: Agreed | None
    lock_ends: int
    coverage: Sequence[Covered] | None
    freeze: Freeze | None
    frozen_by: str
    earlier: Sequence[Transfer]

    @property
    def transfer(self) -> Transfer:
        """The transfer."""
        return self.seen.transfer

    @property
    def may_approve(self) -> bool:
        """Whether a passkey's yes of this person is taken now and brings it nearer."""
        agreed = self.agreed
        open_to = not self.seen.late and not self.seen.against
        return open_to and agreed is not None and agreed.mine and not agreed.only_displaying


def look(desk: Desk, named: str) -> TransferView:
    """Work one transfer out again. Raises Refused(unknown_transfer)."""
    kernel, now = desk.kernel, desk.now
    seen = reviewing.review(desk.store, kernel, reviewing.find(desk.store, named), _statement(desk), now)
    intent = seen.transfer.intent
    freeze = kernel.freeze_of(intent, now)
    agreed = agreed_on(desk, seen)
    delay = seen.decision.requirement.delay if seen.decision and seen.decision.requirement else 0
    asked = seen.decision is not None and seen.decision.outcome is Outcome.REQUIRE
    return TransferView(
        seen,
        kernel.inventory.wallets.get(intent.wallet),
        proposer_of(seen.transfer.proposal, kernel.roster, now),
        tuple(_rules(kernel, seen)),
        agreed,
        seen.transfer.created_at + delay if asked and delay else 0,
        _coverage(kernel, seen),
        freeze,
        "" if freeze is None else kernel.frozen_by.get(freeze.struct_hash, ""),
        _earlier(desk, seen.transfer),
    )


def rows(message: Struct) -> list[tuple[str, object]]:
    """Each field of a typed message with its value, in the order in which they are signed; what is inside another as its one JSON form."""
    told = message.to_json()
    return [
        (name, json.dumps(value, separators=(",", ":"), ensure_ascii=False))
        if isinstance(value := told[name], list | dict)
        else (name, getattr(message, name))
        for name in (field.name for field in fields(message))
    ]


def _statement(desk: Desk) -> Signed[Statement] | None:
    try:
        return desk.parts.api.statements.latest()
    except (Unavailable, Refused):  # shown as unknown: nobody signs by this page
        return None


def _rules(kernel: Kernel, seen: Review) -> Iterator[RuleTold]:
    """By the newest bundle's words, else by the pinned one's."""
    if seen.decision is None:
        return
    bundles = kernel.bundles(seen.transfer.intent.policy)
    for name in (*seen.decision.denied_by, *seen.decision.matched):
        told = [words for bundle in reversed(bundles) if (words := bundle.rules.words_of(name)) is not None]
        yield RuleTold(name, told[0].asks if told else "", told[0].why if told else "")


def agreed_on(desk: Desk, seen: Review) -> Agreed | None:
    """Who agreed to a transfer so far, worked out again; None where the roster that it pins is not known."""
    intent, newest = seen.transfer.intent, desk.kernel.roster
    pinned = desk.kernel.roster_of(intent.roster)
    asked = None if seen.decision is None else seen.decision.requirement
    if pinned is None:
        return None
    counted = count(seen.approvals, intent, seen.digest, pinned, newest, desk.now)
    if asked is None:
        return Agreed(counted, "", mine=False, asked=None)
    missing = people_missing(satisfied(asked, counted.approvers, intent.initiator))
    approvers = {a.person for a in counted.approvers} - {intent.initiator}
    mine = fills(desk.person, asked, approvers, intent.initiator, pinned)
    shown = sum(a.displays for a in counted.approvers if a.person != intent.initiator)
    displaying = max(0, asked.displaying - shown)
    # the last places are kept for keys that display: a passkey there would leave a full quorum that nobody can complete
    left = max(asked.people - len(approvers), 1)
    return Agreed(counted, missing, mine, asked, displaying, mine and left <= displaying)


def fills(person: Person, asked: Requirement, approvers: Collection[str], initiator: str, pinned: Roster) -> bool:
    """Whether one more yes, this person's, would bring a transfer nearer to what is asked."""
    groups = {p.id: frozenset(p.groups) for p in pinned.version.people}
    before = {name: groups.get(name, frozenset[str]()) for name in approvers if name != initiator}
    mine = groups.get(person.id, frozenset[str]()) & frozenset(person.groups)
    if person.id == initiator or person.id in before or not mine & {group for group, _ in asked.approvals}:
        return False
    after = {**before, person.id: mine}
    return _lacking(asked, after) < _lacking(asked, before)


def _lacking(asked: Requirement, approvers: dict[str, frozenset[str]]) -> int:
    """How many more people it takes at the least."""
    return max(len(unfilled(asked, approvers)), asked.people - len(approvers))


def _coverage(kernel: Kernel, seen: Review) -> Sequence[Covered] | None:
    """By the attestor's newest statement; None where it is silent, which is unknown and not zero."""
    if seen.statement is None:
        return None
    out, owed = effect(kernel, seen)
    under_way = seen.transfer.status.is_asked
    found = []
    for symbol in sorted(out):
        rows_of = [row for row in seen.statement.message.coverage if row.asset == symbol]
        if len(rows_of) != 1:
            return None
        row, leaves, settles = rows_of[0], *((0, 0) if under_way else (out[symbol], owed[symbol]))
        before, debts = surplus(row), liabilities(row)
        found.append(
            Covered(
                symbol,
                (row.reserves, row.reserves - leaves),
                (debts, debts - settles),
                (before, before - leaves + settles),
                row.in_flight,
            )
        )
    return found


def _earlier(desk: Desk, transfer: Transfer) -> Sequence[Transfer]:
    """What went to this destination out of this account before, the newest last: a page's worth."""
    account, to = transfer.intent.account, transfer.intent.destination
    found = desk.store.read(lambda work: work.transfers.examine(0, 200, account=account))
    mine = [other for _, other in found if isinstance(other, Transfer) and other.intent.destination == to]
    return [other for other in mine if other.digest != transfer.digest][-5:]
