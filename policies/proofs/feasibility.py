# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether the people there are can ever give what the rules ask: a quorum that nobody can reach locks coins up for ever."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import z3  # type: ignore[import-untyped]

from custody.rules.approvals import unfilled
from custody.rules.facts import Facts
from custody.rules.requirement import Requirement, displaying_floor
from custody.rules.wallets import Tier
from policies.bundle import Bundle
from policies.proofs.examples import Questions, Space
from policies.proofs.symbols import Answer, Transfer

Groups = Mapping[str, frozenset[str]]
"""Person to the groups of that person in the roster, roles among them."""


@dataclass(frozen=True, slots=True)
class Locked:
    """A transfer that nobody can approve: what it asks, who asked for it, and which slots stay empty."""

    facts: Facts
    requirement: Requirement
    initiator: str
    empty: tuple[str, ...]


def locked(bundle: Bundle, people: Groups, showing: Collection[str]) -> Iterator[Locked]:
    """Every different requirement that some transfer has and these people cannot fill, whoever of them asked for it.

    `showing` are those who have a key that displays what it signs. Nothing where every answer that is not a denial can be given. Raises
    Unavailable where the solver does not know.
    """
    transfer = Transfer([asset.symbol for asset in bundle.assets])
    answer, known = Answer(bundle, transfer), z3.Not(z3.Or())
    questions = Questions(Space((bundle,), transfer))
    while (facts := questions.example(z3.Not(answer.denied), known)) is not None:
        asked = bundle.policy.evaluate(facts).requirement
        if asked is None or facts.from_tier is None or facts.asset is None or facts.amount is None:
            return
        least = bundle.floors.people_for(facts.from_tier, facts.asset, facts.amount)
        asked = asked.of_people(least, displaying_floor(facts.from_tier))
        # whoever asks for no more of any group, and for no more people, is answered with this one
        counts = [answer.count(group) > dict(asked.approvals).get(group, 0) for group in answer.groups]
        shown = [answer.shows(needed) for needed in answer.displayings if needed > asked.displaying]
        shown += [transfer.among("from", (t,)) for t in Tier if displaying_floor(t) > asked.displaying]
        known = z3.And(known, z3.Or(*counts, *shown, answer.floor > asked.people))
        found = _stuck(asked, people, str(facts.role), showing)
        if found is not None:
            initiator, empty = found
            yield Locked(facts, asked, initiator, empty)


def _stuck(
    asked: Requirement, people: Groups, role: str, showing: Collection[str]
) -> tuple[str, tuple[str, ...]] | None:
    """The first person of this role whose asking leaves slots empty; the empty name stands for a program, which fills none."""
    for initiator in ("", *sorted(name for name, groups in people.items() if role in groups)):
        others = {person: groups for person, groups in people.items() if person != initiator}
        empty = unfilled(asked, others)
        named = {group for group, _ in asked.approvals}
        useful = {person for person, groups in others.items() if groups & named}
        if empty or len(useful) < asked.people:
            return initiator, tuple(empty) or (f"{asked.people - len(useful)} people more",)
        if (less := asked.displaying - len(useful & {*showing})) > 0:
            return initiator, (f"{less} more with a key that displays",)
    return None
