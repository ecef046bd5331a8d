# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who has the console open in which browser: rows that authorise nothing, and that everybody may be shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Visit:
    """One browser at the console. `name` is the SHA-256 of a secret that only this browser has.

    Without a person it waits for its login, which stands in `login` as JSON; with one it is a session, and `login` says by which key it
    began. Seconds since 1970 by the machine's clock: begun, last seen, and when it ends whatever happens.
    """

    name: bytes
    person: str
    login: str
    begun: int
    seen: int
    until: int


class Visits(Protocol):
    """Visits, kept until they end."""

    def add(self, visit: Visit) -> None:
        """Raises Refused(already_exists) for a name that there is."""
        ...

    def get(self, name: bytes) -> Visit | None:
        """The visit of this name, ended or not."""
        ...

    def see(self, name: bytes, at: int) -> None:
        """It was used again; time never runs back."""
        ...

    def end(self, name: bytes) -> bool:
        """Forget it, and say whether it was there: whoever asks first uses it up, and nobody after."""
        ...

    def of(self, person: str) -> Sequence[Visit]:
        """Every session of one person, the newest first."""
        ...

    def forget(self, before: int) -> None:
        """Forget every visit whose end, `until`, lies before a time."""
        ...
