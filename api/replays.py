# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which signed requests were seen: each nonce once while its signature could still be fresh.

The window is this process's memory. Signatures that an earlier process may have accepted are refused by their age (`begun`), so a
restart forgets nothing, nor does a clock that jumps ahead and is set back: what was forgotten by the wrong time is refused by its age
as well. A second process behind one authority would not know this one's, and money never rests on it: every POST
that moves money is idempotent in the store.
"""

import threading
from collections import deque
from typing import Final

from custody.rules.errors import Unavailable
from custody.rules.refusals import Refusal, Rule

OLDEST: Final = 60
"""Seconds that a signature may be old."""
AHEAD: Final = 2
"""Seconds that a client's clock may be ahead of ours."""
_MOST: Final = 500_000
_JITTER: Final = 10
"""Seconds by which requests that are looked at side by side may tell different times without a clock having been set back."""


class Window:
    """Nonces by client; safe to share between threads."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self._seen: set[tuple[str, str]] = set()
        self._order: deque[tuple[int, tuple[str, str]]] = deque()
        self._turn = threading.Lock()
        self._latest = begun

    def ready(self, now: int) -> bool:
        """Whether a fresh signature of a client whose clock is right is taken already."""
        return now > self.begun + AHEAD

    def check_age(self, created: int, expires: int, now: int) -> Refusal | None:
        """Whether a signature's own times are good now. None if they are."""
        if created > now + AHEAD:
            return Refusal(Rule.TOO_EARLY, created=created, now=now, ahead_most=AHEAD)
        if now - created > OLDEST:
            return Refusal(Rule.STALE, document="request", age=now - created, oldest=OLDEST)
        if created <= self.begun + AHEAD:
            return Refusal(
                Rule.STALE, document="request", created=created, want=f"after {self.begun + AHEAD}, as we restarted"
            )
        if expires <= now:
            return Refusal(Rule.EXPIRED, document="request", expired=expires, now=now)
        return None

    def admit(self, client: str, nonce: str, now: int) -> Refusal | None:
        """Take a nonce, once. None if it is new. Raises Unavailable where the window is full, rather than forget one."""
        key = (client, nonce)
        with self._turn:
            if self._set_back(now):
                return Refusal(Rule.STALE, document="request", now=now, want="a new one: our clock was set back")
            while self._order and self._order[0][0] < now - OLDEST - 2 * AHEAD - _JITTER:
                self._seen.discard(self._order.popleft()[1])
            if key in self._seen:
                return Refusal(Rule.REPLAYED, client=client, nonce=nonce)
            if len(self._order) >= _MOST:
                raise Unavailable("requests", "more within a minute than can be remembered")
            self._seen.add(key)
            self._order.append((now, key))
        return None

    def _set_back(self, now: int) -> bool:
        """Whether the clock ran back: what was forgotten by then may look fresh again, so we begin anew, as a process that starts does."""
        back, self._latest = now < self._latest - _JITTER, now
        if back:
            self.begun = now
            self._order = deque((now, key) for _, key in self._order)
        return back
