# SPDX-License-Identifier: AGPL-3.0-or-later
"""When a freeze holds, and when quorum ends it early (TRUST.md, "Stricter only"): one rule for seats and for whoever reads the mirror."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from custody.rules.governance import Freeze, Unfreeze
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed

FREEZE_MOST: Final = 86_400
"""Seconds that one freeze may last; another group extends it (TRUST.md, "Stricter only")."""
_SCOPE: Final = re.compile(r"all|company|wallet:(0x)?[0-9a-f]{64}|customer:\S+|chain:\S+")


def check_freeze(signed: Signed[Freeze], roster: Roster, time: int) -> Iterator[Refusal]:
    """One person signed it, for a day at the most, from now on or before, and for a scope that there can be.

    A scope with a typing error would be taken by everybody and stop nothing: whoever signed it would believe that it did.
    """
    freeze = signed.message
    if not is_scope(freeze.scope):
        want = "all, company, customer:ID, chain:NAME or wallet: and 64 lower-case hex digits"
        yield Refusal(Rule.MALFORMED, field="scope", got=freeze.scope[:80], want=want)
    if not freeze.from_time < freeze.lapses <= min(freeze.from_time, time) + FREEZE_MOST or freeze.lapses <= time:
        yield Refusal(Rule.FREEZE_TOO_LONG, from_time=freeze.from_time, lapses=freeze.lapses, now=time)
    yield from roster.check_quorum(signed, 1, None, time)


def check_extension(
    signed: Signed[Freeze], known: Iterable[Signed[Freeze]], roster: Roster, time: int
) -> Iterator[Refusal]:
    """Who freezes a scope again stands in a group that has not yet: else one person stops a deployment for ever, day by day."""
    scope = signed.message.scope
    recent = [f for f in known if f.message.scope == scope and is_recent(f, time)]
    groups = _groups(roster, signed, time)
    before = {group for known_one in recent for group in _groups(roster, known_one, time)}
    if recent and not groups - before:
        yield Refusal(Rule.FREEZE_TOO_LONG, scope=scope, groups=sorted(groups), want="another group")


def is_scope(text: str) -> bool:
    """Whether a freeze of this scope could ever stop anything: one of the forms that scopes have."""
    return _SCOPE.fullmatch(text) is not None


def is_recent(signed: Signed[Freeze], time: int) -> bool:
    """In force still, or lapsed less than a day ago."""
    return signed.message.lapses + FREEZE_MOST > time


def check_unfreeze(signed: Signed[Unfreeze], frozen: Freeze, roster: Roster, time: int) -> Iterator[Refusal]:
    """A quorum ends this freeze early, after the delay that its `not_before` states, a roster delay at the least."""
    unfreeze = signed.message
    if unfreeze.freeze != frozen.struct_hash:
        yield Refusal(Rule.NOT_SUCCESSOR, freeze=unfreeze.freeze.hex(), want=frozen.struct_hash.hex())
    yield from roster.check_quorum(signed, roster.version.thresholds.unfreeze, None, time)
    earliest = max(unfreeze.not_before, earliest_end(frozen, roster))
    if time < earliest:
        yield Refusal(Rule.TOO_EARLY, not_before=earliest, now=time)


def earliest_end(frozen: Freeze, roster: Roster) -> int:
    """The first second at which a quorum may end a freeze."""
    return frozen.from_time + roster.version.delay


def _groups(roster: Roster, signed: Signed[Freeze], now: int) -> set[str]:
    people = roster.people_who_signed(signed, now)
    return {group for person in roster.version.people if person.id in people for group in person.groups}
