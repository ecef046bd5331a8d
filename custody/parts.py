# SPDX-License-Identifier: AGPL-3.0-or-later
"""Connections to the processes that hold keys, made from settings: seats, attestor, relayer."""

from pathlib import Path

from custody.attestor import RemoteAttestor
from custody.flows.ports import AttestorPort, SeatPort, Store
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.settings import PartSettings, Settings
from custody.store import migrate, open_store
from custody.vault.engine_client import EngineClient
from custody.vault.keyring import RemoteSeat
from custody.vault.relayer import RemoteRelayer
from policies.bundle import load


def seats(settings: Settings) -> dict[str, SeatPort]:
    """Every seat by its name, reached over its socket or its engine's mount; a cold seat answers only inside a ceremony."""
    return {name: seat(name, part) for name, part in sorted(settings.seats.items())}


def seat(name: str, part: PartSettings) -> RemoteSeat:
    """One seat, wherever it lives."""
    if part.mount:
        return RemoteSeat(name, EngineClient(name, Path(part.approle), part.mount))
    return RemoteSeat(name, Path(part.socket))


def seats_named(settings: Settings, names: list[str]) -> list[SeatPort]:
    """Some seats; raises InvalidInput for a name that settings do not know."""
    known = seats(settings)
    for name in names:
        if name not in known:
            raise InvalidInput("seat", Rule.SEAT_UNKNOWN, repr(name), "one of " + ", ".join(known))
    return [known[name] for name in names]


def attestor(settings: Settings) -> AttestorPort:
    """The attestor over its socket."""
    return RemoteAttestor(Path(settings.attestor.socket))


def relayer(settings: Settings) -> RemoteRelayer:
    """The relayer's own seat over its socket."""
    return RemoteRelayer(Path(settings.relayer.socket))


def ledger_before_birth(settings: Settings) -> Store:
    """The store with its schema brought up to date, for the commands of birth; nothing in it is believed yet."""
    migrate(settings.database)
    return open_store(settings.database, load(Path(settings.bundle)).assets)
