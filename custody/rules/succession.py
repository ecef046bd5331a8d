# SPDX-License-Identifier: AGPL-3.0-or-later
"""How one policy bundle follows another: who has to sign, and from when it counts (docs/decisions/0011).

The bundle in force decides the path to its successor, and each part that goes by bundles judges that path by itself: seats, the
attestor, and whoever reads the mirror. Nobody believes the diff report, which only people read, and no row says what is in force.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a bundle that follows: owners besides its author, seconds after it was first seen, people of a group.

    `loosens` is everything about it that is not plainly as strict as before, which is why the longer path is asked; empty on the
    shorter one. `people` is 0 where claims and governance stay as they are.
    """

    owners: int
    delay: int
    group: str = ""
    people: int = 0
    loosens: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """Which of the two paths it is, in a word."""
        return "weaker" if self.loosens else "stricter"


FIRST: Final = Terms(owners=1, delay=0)
"""The first bundle follows nothing: as many owners as the roster asks for."""

JudgeTerms = Callable[[Mapping[str, object], Mapping[str, object]], Terms]
"""The documents of the bundle in force and of the next one in, the terms out; policies are handed in (DESIGN.md, arrows).

Raises InvalidInput where one cannot be read, Refused where the second may follow under no terms at all.
"""


def check_successor(activation: PolicyActivation, newest: bytes, earlier: tuple[bytes, ...]) -> Iterator[Refusal]:
    """It follows the bundle in force, was never in force itself, and names a report unless it is the first (`newest` zero)."""
    if activation.previous != newest or activation.bundle in earlier:
        yield Refusal(Rule.NOT_SUCCESSOR, got=activation.previous.hex(), want=newest.hex())
    if (activation.diff_report == ZERO32) != (activation.previous == ZERO32):
        want = "the hash of the diff from the bundle before; zero for the first"
        yield Refusal(Rule.MALFORMED, field="diff_report", got=activation.diff_report.hex(), want=want)


def check_signed(signed: Signed[PolicyActivation], terms: Terms, roster: Roster, now: int) -> Iterator[Refusal]:
    """Enough owners signed, and where claims or governance change enough people of their group; the author counts as neither.

    An author whom the roster does not name would leave nobody out.
    """
    author, version = signed.message.author, roster.version
    if author not in {person.id for person in version.people}:
        yield Refusal(Rule.SIGNER_UNKNOWN, field="author", got=author, want="a person of the roster")
    owners = frozenset(version.policy_owners) - {author}
    yield from roster.check_quorum(signed, max(terms.owners, version.thresholds.policy), owners, now)
    yield from roster.check_displaying(signed, owners, now)
    if terms.people:
        group = {person.id for person in version.people if terms.group in person.groups} - {author}
        yield from roster.check_quorum(signed, terms.people, group, now)


def matures(activation: PolicyActivation, terms: Terms, seen: int) -> int:
    """From when it counts, for a part that first saw it then: after the delay, and not before its own time."""
    return max(activation.not_before, seen + terms.delay)


def check_mature(activation: PolicyActivation, terms: Terms, seen: int, now: int) -> Iterator[Refusal]:
    """Whether its time has come; if not, from when."""
    earliest = matures(activation, terms, seen)
    if now < earliest:
        yield Refusal(Rule.TOO_EARLY, path=terms.path, seen=seen, delay=terms.delay, not_before=earliest, now=now)
