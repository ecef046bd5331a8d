# SPDX-License-Identifier: AGPL-3.0-or-later
"""`Idempotency-Key` on every POST that moves money: missing 400, another body 422, in flight 409 (TERMS.md).

What guarantees that money moves once is the store (UNIQUE on scope and key, on proposals, on settlements); this remembers answers for
as long as the process lives, so that a repetition hears what the first one heard.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from api.identity import Caller
from custody.rules.refusals import Refusal, Refused, Rule

_MOST: Final = 20_000
Json = dict[str, object]


class Answers:
    """Answers by (client, route, key), and which are being worked on; safe to share between threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._busy: dict[tuple[str, str, str], bytes] = {}
        self._given: OrderedDict[tuple[str, str, str], tuple[bytes, Json | None]] = OrderedDict()

    def once(
        self, caller: Caller, route: str, asked: bytes, work: Callable[[str], Json], *, remember: bool = True
    ) -> Json:
        """Do the work under the caller's key, or give the answer of the first time. `asked` is the hash of what is asked.

        `remember` is False where the store itself knows the newest answer. Only what succeeded is kept: a refusal may be gone next
        time. Raises Refused: idempotency_key_missing, idempotency_key_with_another_body, idempotency_key_in_flight.
        """
        key = caller.idempotency_key
        if key is None:
            raise Refused(
                [Refusal(Rule.IDEMPOTENCY_MISSING, want="an Idempotency-Key header, covered by the signature")]
            )
        place = (caller.client.id, route, key)
        with self._turn:
            if (busy := self._busy.get(place)) is not None:
                raise Refused(
                    [Refusal(Rule.IDEMPOTENCY_MISMATCH if busy != asked else Rule.IDEMPOTENCY_IN_FLIGHT, key=key)]
                )
            given = self._given.get(place)
            if given is not None and given[0] != asked:
                raise Refused([Refusal(Rule.IDEMPOTENCY_MISMATCH, key=key)])
            if given is not None and given[1] is not None:
                return given[1]
            self._busy[place] = asked
        try:
            answer = work(key)
            with self._turn:
                self._given[place] = (asked, answer if remember else None)
                while len(self._given) > _MOST:
                    self._given.popitem(last=False)
            return answer
        finally:
            with self._turn:
                del self._busy[place]
