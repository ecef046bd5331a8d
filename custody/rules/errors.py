# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tree of exceptions: each carries its operands, so that a caller can say what was wrong and what would be right."""

from dataclasses import dataclass


class CustodyError(Exception):
    """Root of everything this code base raises on purpose."""

    def __str__(self) -> str:
        operands = ", ".join(f"{name}={value!s}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({operands})"


@dataclass(eq=False)
class InvalidInput(CustodyError):
    """A value from outside that cannot be accepted: which field, by which rule, what came, what would be right."""

    field: str
    rule: str
    got: str
    want: str

    def __str__(self) -> str:
        return f"{self.field}: {self.rule}: got {self.got}; wanted {self.want}"


@dataclass(eq=False)
class AssetMismatch(CustodyError):
    """Two amounts of different assets met in one sum."""

    left: str
    right: str


@dataclass(eq=False)
class UnbalancedEntry(CustodyError):
    """An entry whose debits and credits differ for an asset (DESIGN.md, "Money")."""

    asset: str
    debits: int
    credits: int


@dataclass(eq=False)
class Unavailable(CustodyError):
    """Something outside did not answer, or not usefully; nothing was decided. Safe to try again."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what} is unavailable: {self.why}"
