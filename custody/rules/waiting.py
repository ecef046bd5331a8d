# SPDX-License-Identifier: AGPL-3.0-or-later
"""For whom or what a transfer waits, as a person reads it: the people first, then the time, then whatever else, each with its rule."""

from collections.abc import Iterable, Iterator

from custody.rules import words
from custody.rules.refusals import Refusal, Rule


def people_missing(refusals: Iterable[Refusal]) -> str:
    """Who is still asked for, such as `1 of risk, 1 of treasury`; empty where nobody is.

    Reads `quorum_not_reached`: its open slots, or how many more people of the groups that were named; and whether somebody has to
    approve with a key that displays what it signs.
    """
    asked = (Rule.QUORUM_NOT_REACHED, Rule.DISPLAYING_MISSING)
    found = [refusal for refusal in refusals if refusal.rule in asked]
    return ", ".join(dict.fromkeys(name for refusal in found for name in _missing(refusal)))


def waits_for(refusals: Iterable[Refusal]) -> str:
    """All reasons in one line: what a person can do something about in plain words, with the rule's name behind it."""
    return "; ".join(_plain(refusal) for refusal in refusals)


def _plain(refusal: Refusal) -> str:
    told = refusal.operands
    match refusal.rule:
        case Rule.QUORUM_NOT_REACHED | Rule.DISPLAYING_MISSING if who := people_missing([refusal]):
            return f"{who} ({refusal.rule.value})"
        case Rule.DELAY if isinstance(until := told.get("until"), int):
            return f"the time-lock, until {words.at(until)} ({refusal.rule.value})"
        case Rule.FROZEN if isinstance(lapses := told.get("lapses"), int):
            by = f" by {told['by']}" if "by" in told else ""
            end = f"until {words.at(lapses)} ({refusal.rule.value})"
            return f"the freeze of {told.get('scope')}{by}, {end}: {told.get('reason')}"
        case Rule.TOO_EARLY if isinstance(since := told.get("not_before"), int):
            return f"its time, from {words.at(since)} on ({refusal.rule.value})"
        case _:
            return str(refusal)


def _missing(refusal: Refusal) -> Iterator[str]:
    if refusal.rule is Rule.DISPLAYING_MISSING:
        groups = refusal.operands.get("of")
        of = f" of {', '.join(str(group) for group in groups)}" if isinstance(groups, list) and groups else ""
        yield f"{refusal.operands.get('missing')}{of} by a key that displays (keystore or hardware wallet)"
        return
    slots, approved, people = (refusal.operands.get(name) for name in ("missing", "approved", "people"))
    if isinstance(slots, list) and slots:
        yield from (str(slot) for slot in slots)
    elif isinstance(approved, list) and isinstance(people, int) and people > len(approved):
        more = people - len(approved)
        yield f"{more} more {'person' if more == 1 else 'people'} of these groups"
