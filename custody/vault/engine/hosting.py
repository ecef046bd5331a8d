# SPDX-License-Identifier: AGPL-3.0-or-later
"""Composes the seat of one mount: the same `SeatHost` and verbs as in a seat's own process, over the plugin's storage."""

import asyncio
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grpclib.client import Channel

from custody.chains.scripts import check_script
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Rule
from custody.seating import read_bundle, terms
from custody.vault.engine import VERSION
from custody.vault.engine.answers import carry_out
from custody.vault.engine.entries import GrpcEntries
from custody.vault.engine.plugin import Verbs
from custody.vault.engine.storage import EngineVault
from custody.vault.hardening import wall_clock
from custody.vault.seat import SeatHost
from custody.vault.verbs import seat_handlers

SEAT: Final = "seat"
GENESIS: Final = "genesis"
"""Options of the mount: whose it is, and the one genesis that may be pinned, as the operator was told it."""


def host(options: Mapping[str, str], channel: Channel, loop: asyncio.AbstractEventLoop) -> Verbs:
    """The verbs of this mount's seat. Raises InvalidInput for options that name none, Unavailable where its storage does not fit."""
    name, genesis = options.get(SEAT, ""), options.get(GENESIS)
    if not name:
        raise InvalidInput(f"options.{SEAT}", Rule.MALFORMED, repr(name), "the seat's id in the roster")
    entries = GrpcEntries(channel, loop)
    entries.check()
    vault = EngineVault(entries)
    seat = SeatHost(name, vault, check_script, wall_clock, read_bundle=read_bundle, terms=terms)
    told = {"kind": "engine", "version": VERSION, "sha256": _own_hash()}
    handlers = seat_handlers(seat, None if genesis is None else _digest(genesis), told)

    def verbs(path: str, data: str) -> tuple[int, str]:
        told = carry_out(handlers, vault, path, data)
        return told.code, told.text

    return verbs


def _own_hash() -> str:
    """The sha256 of the file that this process was started from, which OpenBao compared with its catalog before."""
    with Path(sys.argv[0]).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(text: str) -> bytes:
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise InvalidInput(f"options.{GENESIS}", Rule.MALFORMED, repr(text)[:80], "0x and 64 hex digits")
    return found
