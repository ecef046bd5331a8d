# SPDX-License-Identifier: AGPL-3.0-or-later
"""Freezes and unfreezes out of the mirror, brought to every seat: whoever freezes at a page reaches no seat by themselves.

A seat verifies what it is handed, so nothing that stands in a row stops or frees anything that people did not sign. The command line
hands a freeze to seats directly, which needs no database; this is for those who stood at a page.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from custody.flows.freezes import FREEZE, UNFREEZE
from custody.flows.ports import Clock, SeatPort, Store
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.freezes import check_unfreeze
from custody.rules.governance import Freeze, Unfreeze
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.typed import Struct

M = TypeVar("M", bound=Struct)
_AGAIN: Final = 10
"""Seconds until a seat that was silent, or refused, is handed something once more."""
_Handed = tuple[str, bytes]


class FreezeCarrier:
    """Hands each seat what it was not handed yet, and silent seats again later. It remembers for the life of a process."""

    def __init__(
        self, store: Store, roster: Callable[[], Roster], seats: Mapping[str, SeatPort], clock: Clock, wall: Clock
    ) -> None:
        self._store, self._roster, self._seats, self._clock, self._wall = store, roster, seats, clock, wall
        self._has: set[_Handed] = set()
        self._told: set[str] = set()
        self._next: dict[str, int] = {}

    def __call__(self) -> Iterator[str]:
        """Each seat that took or refuses one, as a line of JSON, once."""
        freezes, ended = self._in_force()
        for name, seat in self._seats.items():
            if self._next.get(name, 0) > self._wall():
                continue
            for signed in freezes:
                yield from self._hand(name, signed.message, signed.message.scope, lambda f=signed, s=seat: s.freeze(f))  # type: ignore[misc]
            for end in ended:
                yield from self._hand(name, end.message, "", lambda f=end, s=seat: s.unfreeze(f))  # type: ignore[misc]

    def _in_force(self) -> tuple[list[Signed[Freeze]], list[Signed[Unfreeze]]]:
        """Freezes that run, and the unfreezes that ended others: one that ended is not handed out again, or it would begin anew."""
        rows = self._store.read(lambda work: (work.documents.all(FREEZE), work.documents.all(UNFREEZE)))
        if not rows[0]:  # nobody is asked for the time, or for the roster, where nothing was ever frozen
            return [], []
        now, roster = self._clock(), self._roster()
        running = {f.message.struct_hash: f for f in _parsed(Freeze, rows[0]) if f.message.lapses > now}
        ended: dict[bytes, Signed[Unfreeze]] = {}
        for each in _parsed(Unfreeze, rows[1]):
            frozen = running.get(each.message.freeze)
            if frozen is not None and not any(check_unfreeze(each, frozen.message, roster, now)):
                ended[each.message.freeze] = each
        return [f for digest, f in running.items() if digest not in ended], list(ended.values())

    def _hand(self, name: str, message: Struct, scope: str, ask: Callable[[], object]) -> Iterator[str]:
        key = name, message.struct_hash
        if key in self._has:
            return
        why = "has it"
        try:
            ask()
        except Unavailable:  # a cold seat, or one that is down
            self._next[name] = self._wall() + _AGAIN
            return
        except (Refused, InvalidInput) as error:
            never = isinstance(error, Refused) and {r.rule for r in error.refusals} == {Rule.NOT_SUCCESSOR}
            if not never:  # an unfreeze of what this seat does not hold is done with
                self._next[name] = self._wall() + _AGAIN
            why = "does not hold it" if never else str(error)
            self._has |= {key} if never else set()
        else:
            self._has.add(key)
        line = json.dumps({"event": type(message).__name__.lower(), "seat": name, "scope": scope, "why": why})
        if line not in self._told:
            self._told.add(line)
            yield line


def _parsed(kind: type[M], rows: Iterable[Mapping[str, object]]) -> Iterator[Signed[M]]:
    for row in rows:
        try:
            yield Signed.from_json(kind, dict(row))
        except InvalidInput:  # somebody's row, and nobody's word
            continue
