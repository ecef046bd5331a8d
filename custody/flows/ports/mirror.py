# SPDX-License-Identifier: AGPL-3.0-or-later
"""The mirror of signed documents: whoever reads one verifies its signatures again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from custody.flows.ports.moving import Damaged
from custody.rules.certificates import Enrolment
from custody.rules.signatures import Signed


class Documents(Protocol):
    """Mirror of signed documents. A mirror only: whoever reads one verifies its signatures again."""

    def put(self, kind: str, key: str, body: Mapping[str, object]) -> None:
        """Store once; the same body again is fine, another body under the same key raises Refused(already_exists)."""
        ...

    def get(self, kind: str, key: str) -> Mapping[str, object] | None:
        """One document's JSON."""
        ...

    def all(self, kind: str) -> Sequence[Mapping[str, object]]:
        """Every document of a kind in the order they were stored."""
        ...


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolment and when this store first saw it, which is what its age counts from outside a seat."""

    enrolment: Signed[Enrolment]
    seen_at: int


class Enrolments(Protocol):
    """Mirror of signed enrolments. Whoever reads one verifies its signatures again."""

    def add(self, signed: Signed[Enrolment], at: int) -> None:
        """Record once; the same enrolment again is fine, and keeps its first sight."""
        ...

    def get(self, digest: bytes) -> Enrolled | None:
        """By the struct hash of the enrolment. Raises InvalidInput on a damaged row, as `at` and `of` do."""
        ...

    def at(self, chain: str, address: str) -> Sequence[Enrolled]:
        """Every enrolment of one address, the newest first."""
        ...

    def of(self, owner: str) -> Sequence[Enrolled]:
        """Every enrolment of one owner (`customer:ID` or `company`), the newest first."""
        ...

    def examine(self, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, Enrolled | Damaged]]:
        """Enrolments with their numbers above `after`, ascending; a damaged row is told, and everything else is read on."""
        ...
