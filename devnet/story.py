# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the demonstration tells, and every claim it makes with whether it held."""

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that had to hold."""

    what: str
    held: bool
    seen: str


@dataclass
class Story:
    """Told as it happens; ends with an account of every claim."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    claims: list[Claim] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def chapter(self, title: str) -> None:
        """A new part, with the seconds since the beginning."""
        self._print(f"\n[{time.monotonic() - self.began:5.1f} s] {title}")

    def tell(self, line: str) -> None:
        """Something that happened."""
        self._print(f"    {line}")

    def claim(self, what: str, held: bool, seen: object = "") -> None:  # noqa: FBT001  # a claim is what it is
        """Something that has to be so, with what was seen."""
        self.claims.append(Claim(what, held, str(seen)))
        self._print(f"    {'held  ' if held else 'FAILED'}  {what}" + (f"  ({seen})" if str(seen) else ""))

    @property
    def all_held(self) -> bool:
        """Whether there were claims and every one held."""
        return bool(self.claims) and all(claim.held for claim in self.claims)

    def end(self) -> None:
        """The account: how many claims, and each that failed."""
        failed = [claim for claim in self.claims if not claim.held]
        self.chapter("What happened")
        self.tell(f"{len(self.claims) - len(failed)} of {len(self.claims)} claims held")
        for claim in failed:
            self.tell(f"FAILED: {claim.what}  ({claim.seen})")
        self.tell("All of it held." if self.all_held else "Not all of it held.")

    def _print(self, line: str) -> None:
        print(line, file=self.out, flush=True)
