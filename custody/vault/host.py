# SPDX-License-Identifier: AGPL-3.0-or-later
"""The process of one seat: its verbs over a unix socket. Signs nothing that `rules.birth` and `rules.seat` do not let through."""

from collections.abc import Callable
from pathlib import Path

from custody.chains.scripts import check_script
from custody.flows.ports import Clock
from custody.rules.succession import JudgeTerms
from custody.vault.hardening import harden, wall_clock
from custody.vault.openbao import OpenBaoClient
from custody.vault.seat import ReadBundle, SeatHost
from custody.vault.verbs import seat_handlers
from custody.wire import serve


def serve_seat(
    name: str,
    approle: Path,
    path: Path,
    *,
    read_bundle: ReadBundle,
    terms: JudgeTerms,
    clock: Clock = wall_clock,
    genesis: bytes | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Host a seat until SIGTERM. Raises InvalidInput or Unavailable where it cannot begin."""
    harden()
    seat = SeatHost(name, OpenBaoClient.from_file(approle), check_script, clock, read_bundle=read_bundle, terms=terms)
    seat.status()  # a wrong AppRole, a sealed server or another seat's vault shows now, not at the first signature
    serve(path, seat_handlers(seat, genesis), ready)
