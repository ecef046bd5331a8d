# SPDX-License-Identifier: AGPL-3.0-or-later
"""The engine as OpenBao loads it, composed for tests: many empty seats in one mount, and a clock that a test sets.

Not the packed engine, whose composition (custody/vault/engine/hosting.py) has one seat, this machine's clock and none of these
paths. Everything under it is the same: handshake, services, storage, transactions, verbs, refusals.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grpclib.client import Channel

from custody.answers import Handler, read_body
from custody.chains.scripts import check_script
from custody.seating import read_bundle, terms
from custody.vault.engine import main
from custody.vault.engine.answers import carry_out
from custody.vault.engine.entries import GrpcEntries
from custody.vault.engine.plugin import Verbs
from custody.vault.engine.storage import EngineVault
from custody.vault.seat import SeatHost
from custody.vault.storage import CasConflict
from custody.vault.verbs import seat_handlers


@dataclass
class DrawerEntries:
    """A part of the plugin's storage; all drawers have one identity, as all drawers of one server do."""

    entries: GrpcEntries
    drawer: str

    def get(self, key: str) -> bytes | None:
        """See `Entries`."""
        return self.entries.get(self._at(key))

    def put_all(self, expected: Mapping[str, bytes | None], entries: Mapping[str, bytes]) -> bool:
        """See `Entries`."""
        watched = {self._at(key): value for key, value in expected.items()}
        return self.entries.put_all(watched, {self._at(key): value for key, value in entries.items()})

    def names(self, prefix: str) -> Sequence[str]:
        """See `Entries`."""
        return self.entries.names(self._at(prefix))

    def _at(self, key: str) -> str:
        return key if key == "identity" else f"{self.drawer}/{key}"


class Drawer:
    """One seat and a test's hands in its storage."""

    def __init__(self, name: str, entries: GrpcEntries) -> None:
        self.now = 0
        self.vault = EngineVault(DrawerEntries(entries, name))
        seat = SeatHost("hot-1", self.vault, check_script, lambda: self.now, read_bundle=read_bundle, terms=terms)
        hands = (self.clock, self.read, self.write, self.list, self.identity_public, self.identity_sign)
        self.handlers: dict[str, Handler] = {**seat_handlers(seat), **{f"test_{hand.__name__}": hand for hand in hands}}

    def clock(self, body: object) -> object:
        """What time it is from now on."""
        (self.now,) = read_body(body, "now")
        return {}

    def read(self, body: object) -> object:
        """A document behind the seat's back."""
        document, version = self.vault.read(*read_body(body, "path"))
        return {"document": document, "version": version}

    def write(self, body: object) -> object:
        """Over a version, behind the seat's back."""
        try:
            self.vault.write(*read_body(body, "path", "data", "cas"))
        except CasConflict:
            return {"conflict": True}
        return {"conflict": False}

    def list(self, body: object) -> object:
        """Names below a folder."""
        return list(self.vault.list(*read_body(body, "path")))

    def identity_public(self, body: object) -> object:
        """The identity that all drawers have."""
        read_body(body)
        return self.vault.identity_public().hex()

    def identity_sign(self, body: object) -> object:
        """Its signature."""
        return self.vault.identity_sign(bytes.fromhex(read_body(body, "message")[0])).hex()


def open_drawers(_options: Mapping[str, str], channel: Channel, loop: asyncio.AbstractEventLoop) -> Verbs:
    """Verbs as `drawer/verb`; a drawer is made when it is first asked for."""
    entries, drawers = GrpcEntries(channel, loop), dict[str, Drawer]()
    entries.check()

    def verbs(path: str, data: str) -> tuple[int, str]:
        name, _, verb = path.partition("/")
        drawer = drawers.setdefault(name, Drawer(name, entries))
        told = carry_out(drawer.handlers, drawer.vault, verb, data)
        return told.code, told.text

    return verbs


if __name__ == "__main__":
    main.open_seat = open_drawers
    main.main()
