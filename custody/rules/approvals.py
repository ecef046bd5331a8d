# SPDX-License-Identifier: AGPL-3.0-or-later
"""Quorum, as kernel code that no policy touches: the initiator never counts, and one person fills one slot (DESIGN.md, law 3).

Counting heads group by group would let one person who is in two groups stand for both; slots are filled by matching instead.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from custody.rules.intents import TransferIntent
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Requirement
from custody.rules.roster import Person, Roster
from custody.rules.signatures import Signature
from custody.rules.typed import Bytes32, Struct


@dataclass(frozen=True, slots=True)
class Approval(Struct):
    """One person's yes: their signature over the EIP-712 digest of exactly one `TransferIntent`."""

    intent: Bytes32
    person: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Approver:
    """A person whose approval was verified, with the groups they may approve for, and whether their key displayed what it signed."""

    person: str
    groups: frozenset[str]
    displays: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """Distinct people who approved, and why each other approval was ignored: a stray one hinders nobody and helps nobody."""

    approvers: frozenset[Approver]
    ignored: tuple[Refusal, ...]


def check_approval(
    approval: Approval, intent: TransferIntent, digest: bytes, pinned: Roster, newest: Roster, now: int
) -> Refusal | None:
    """Why one approval does not count, or None: this very intent, a person of both roster versions, not the initiator.

    `digest` is the intent's, as the caller computed it from the fields under genesis. The key must be that person's in the
    version the intent pins and in the newest: one that was revoked meanwhile is refused. The refusal names the person.
    """
    told = {"person": approval.person}
    if approval.intent != digest:
        return Refusal(Rule.WRONG_DIGEST, **told, got=approval.intent.hex(), want=digest.hex())
    people = [roster.people_by_key.get(approval.signature.key) for roster in (pinned, newest)]
    if any(person is None or person.id != approval.person for person in people):
        return Refusal(
            Rule.SIGNER_UNKNOWN, **told, key=str(approval.signature.key), want="a key of theirs, pinned and newest"
        )
    for person in people:
        if person is not None and person.expires <= now:
            return Refusal(Rule.SIGNER_EXPIRED, **told, expired=person.expires, now=now)
    if approval.person == intent.initiator:
        return Refusal(Rule.INITIATOR_APPROVES, **told)
    if not approval.signature.is_over(digest):
        return Refusal(Rule.SIGNATURE_INVALID, **told, document="TransferIntent")
    return None


def count(
    approvals: Iterable[Approval], intent: TransferIntent, digest: bytes, pinned: Roster, newest: Roster, now: int
) -> Counted:
    """Verify every approval afresh; a person approves for the groups they were in then and are in still.

    `digest` is the intent's, computed once by the caller (hashing costs more than a signature check). `pinned` is the roster
    version that the intent names; where it is another, or newer than `newest`, nobody is counted.
    """
    versions = {"pinned": pinned.version.version, "newest": newest.version.version, "intent": intent.roster}
    if pinned.version.version != intent.roster or newest.version.version < intent.roster:
        return Counted(frozenset(), (Refusal(Rule.ROSTER_OLDER, **versions),))
    if pinned.domain != newest.domain:
        return Counted(frozenset(), (Refusal(Rule.WRONG_GENESIS, **versions),))
    found: dict[str, Approver] = {}
    ignored: list[Refusal] = []
    for approval in approvals:
        refusal = check_approval(approval, intent, digest, pinned, newest, now)
        if refusal is None and approval.person in found:  # a second key, or the same signature again: still one person
            refusal = Refusal(Rule.SIGNER_TWICE, person=approval.person, key=str(approval.signature.key))
        if refusal is not None:
            ignored.append(refusal)
            continue
        then, now_in = (_groups(roster.people_by_key[approval.signature.key]) for roster in (pinned, newest))
        shown = all(roster.displays(approval.signature.key) for roster in (pinned, newest))
        found[approval.person] = Approver(approval.person, then & now_in, shown)
    return Counted(frozenset(found.values()), tuple(ignored))


def _groups(person: Person) -> frozenset[str]:
    return frozenset(person.groups)


def satisfied(requirement: Requirement, approvers: AbstractSet[Approver], initiator: str) -> Iterator[Refusal]:
    """Whether these people are enough: every slot filled by a person of its own, enough distinct people, enough keys that display.

    Yields nothing where they are. Only somebody of a group that the requirement names counts, and the initiator never does. A quorum of
    keys that show nothing approved whatever some page showed them, so it is refused by a rule of its own.
    """
    people = _distinct(approvers)
    stepped_back = people.pop(initiator, None)
    named = {group for group, _ in requirement.approvals}
    eligible = {person: found.groups & named for person, found in people.items() if found.groups & named}
    missing = unfilled(requirement, eligible)
    if missing or len(eligible) < requirement.people:
        if stepped_back is not None:
            yield Refusal(Rule.INITIATOR_APPROVES, person=initiator)
        yield Refusal(
            Rule.QUORUM_NOT_REACHED,
            document="TransferIntent",
            approved=sorted(eligible),
            needed=str(requirement),
            people=requirement.people,
            missing=[f"{missing.count(group)} of {group}" for group in sorted(set(missing))],
        )
    displaying = sorted(person for person in eligible if people[person].displays)
    if len(displaying) < requirement.displaying:
        yield Refusal(
            Rule.DISPLAYING_MISSING,
            document="TransferIntent",
            displaying=displaying,
            needed=requirement.displaying,
            missing=requirement.displaying - len(displaying),
            of=sorted(named),
        )


def _distinct(approvers: AbstractSet[Approver]) -> dict[str, Approver]:
    """By person. Someone given twice counts once, and only with what both times agree on."""
    people: dict[str, Approver] = {}
    for each in approvers:
        other = people.get(each.person, each)
        people[each.person] = Approver(each.person, each.groups & other.groups, each.displays and other.displays)
    return people


def unfilled(requirement: Requirement, people: dict[str, frozenset[str]]) -> list[str]:
    """The groups of the slots that stay empty in a largest matching of people to slots, one entry for each; none if all fill.

    Augmenting paths (Kuhn): a person who already fills a slot moves to another of their groups if that makes room.
    """
    slots = [group for group, needed in requirement.approvals for _ in range(needed)]
    holder: dict[int, str] = {}

    def place(person: str, tried: set[int]) -> bool:
        for slot, group in enumerate(slots):
            if group in people[person] and slot not in tried:
                tried.add(slot)
                if slot not in holder or place(holder[slot], tried):
                    holder[slot] = person
                    return True
        return False

    for person in sorted(people):
        place(person, set())
    return [group for slot, group in enumerate(slots) if slot not in holder]
