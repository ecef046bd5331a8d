# SPDX-License-Identifier: AGPL-3.0-or-later
"""What both ends of a signed request agree on (RFC 9421, RFC 9530): the tag, the components, and the message that is signed.

The tag carries genesis, so that a request signed for one deployment is nothing to another, even under the same key.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

IDEMPOTENCY_KEY: Final = "idempotency-key"
CONTENT_DIGEST: Final = "content-digest"
METHOD: Final = "@method"
TARGET: Final = "@target-uri"
TARGET_PARTS: Final = ("@authority", "@path", "@query")
"""Together they stand for the target; what a client behind a proxy that changes the scheme signs."""


def tag(genesis: bytes) -> str:
    """The signature's tag for one deployment."""
    return f"bulkhead:{genesis.hex()}"


class HeaderLines:
    """A message's header lines in order, repeated ones kept, as the signature library reads and writes them."""

    def __init__(self, lines: Iterable[tuple[str, str]] = ()) -> None:
        self._lines = list(lines)

    def items(self) -> Sequence[tuple[str, str]]:
        """Every line."""
        return tuple(self._lines)

    def all(self, name: str) -> list[str]:
        """The values of every line of this name."""
        return [value for known, value in self._lines if known.lower() == name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._lines))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def __setitem__(self, name: str, value: str) -> None:
        del self[name]
        self._lines.append((name, value))

    def __delitem__(self, name: str) -> None:
        self._lines = [line for line in self._lines if line[0].lower() != name.lower()]


@dataclass(frozen=True)
class Message:
    """One request as it is signed: method in capitals, absolute URL as it is sent, headers."""

    method: str
    url: str
    headers: HeaderLines = field(default_factory=HeaderLines)
