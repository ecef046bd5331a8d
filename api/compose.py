# SPDX-License-Identifier: AGPL-3.0-or-later
"""Puts the web process together from a home folder: store, roster, bundle, prices, deriver and attestor, and nothing that can sign.

`custody.bootstrap` composes the other processes and reaches chains and vault; here only what this process may reach is named. What
transfers are judged by comes from `custody.composing`, as it does in the worker.
"""

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from api.attesting import SocketAttestor, StatementClock, Statements
from api.deriving import RemoteDeriver
from api.parts import ApiParts
from custody.composing import MirrorKernel, assets_in_force, read_genesis, wall_clock
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from custody.rules.roster import Roster
from custody.settings import Settings
from custody.store import open_store
from policies.bundle import load

T = TypeVar("T")
_KEPT: Final = 1.0
"""Seconds for which what was read and verified serves: how late a revoked key is refused at the most."""


class Fresh(Generic[T]):
    """A value that is read again once it is older than a second. Whatever is wrong with the mirror is Unavailable: fail closed."""

    def __init__(self, what: str, read: Callable[[], T]) -> None:
        self._what, self._read = what, read
        self._turn = threading.Lock()
        self._value: tuple[float, T] | None = None

    def __call__(self) -> T:
        """The value."""
        with self._turn:
            if self._value is None or time.monotonic() - self._value[0] >= _KEPT:
                try:
                    self._value = time.monotonic(), self._read()
                except (Refused, InvalidInput) as error:
                    # not the caller's fault, and nothing to tell a stranger in full
                    raise Unavailable(self._what, str(error)[:300]) from error
            return self._value[1]


def open_parts(home: Path) -> ApiParts:
    """The parts of a born deployment. Raises InvalidInput before birth; what is not verified yet raises when it is asked for."""
    settings = Settings.load(home)
    genesis, first = read_genesis(home), load(Path(settings.bundle)).assets
    attestor = SocketAttestor(Path(settings.attestor.socket))
    told, derive = StatementClock(attestor, wall_clock), RemoteDeriver(Path(settings.deriver_socket))
    documents = open_store(settings.database, first)  # which registry is in force stands in documents
    assets = assets_in_force(documents, genesis, first, told)
    documents.close()
    store = open_store(settings.database, assets)
    mirror = MirrorKernel(store, genesis, assets, derive, told)
    rosters = Fresh("the roster", mirror.rosters)
    kernel = Fresh("what transfers are judged by", mirror)

    def roster() -> Roster:
        return rosters()[-1]

    def clock() -> int:
        return mirror.time_of(roster())

    statements = Statements(store, attestor, roster, wall_clock)
    entropy, begun = secrets.token_bytes, wall_clock()
    return ApiParts(store, roster, kernel, attestor, statements, wall_clock, clock, entropy, begun)
