# SPDX-License-Identifier: AGPL-3.0-or-later
"""Blocks a second that the watcher follows on a real Anvil, against the bare node calls that it makes for them.

The bare side sends the very bytes that the watcher sent, over one connection, and parses nothing. The watcher parses, checks and
records durably in SQLite.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import requests

from custody.chains.views import open_view
from custody.flows.deposits import step
from custody.flows.ports import ChainView
from custody.store import SqlStore, migrate, open_store
from devnet.anvil import Anvil
from tests.bench.harness import RAW, Comparison, compare
from tests.fakes.house import House, address_of
from tests.fakes.ledger import ASSETS, EVM

BLOCKS: Final = 2000
RANGES: Final = (10, 50)
"""Blocks of one step."""
_EVERY: Final = 100
_RECORDED: Final = 8


class Watcher:
    """Steps over the same chain again and again, each a durable commit."""

    def __init__(self, store: SqlStore, view: ChainView, blocks: int) -> None:
        self._house, self._store, self._view, self._blocks = House(store=store, customers=("ana",)), store, view, blocks

    def one(self) -> int:
        """One step."""
        house = self._house
        report = step(self._store, self._view, house.inventory(), ASSETS, house.clock, max_blocks=self._blocks)
        if report.behind < self._blocks:
            self._store.run(lambda work: work.deposits.unfollow(EVM, 0))
        return report.followed


class BareCalls:
    """What the watcher asked, again."""

    def __init__(self, watcher: Watcher, url: str, blocks: int) -> None:
        self._session, self._url, self._blocks = requests.Session(), url, blocks
        self._session.trust_env = False
        self.steps: list[list[bytes]] = []
        for _ in range(_RECORDED):
            with _Tap() as tap:
                watcher.one()
            self.steps.append(tap.bodies)
        self._turns = itertools.cycle(self.steps)

    def one(self) -> int:
        """The calls of one step."""
        for body in next(self._turns):
            self._session.post(self._url, data=body, headers={"Content-Type": "application/json"}).raise_for_status()
        return self._blocks


class _Tap:
    """Listens to what goes out through `requests`."""

    def __enter__(self) -> Self:
        self.bodies: list[bytes] = []
        self._send = requests.Session.send

        def send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            body = request.body or b""
            self.bodies.append(body if isinstance(body, bytes) else body.encode())
            return self._send(session, request, **options)

        requests.Session.send = send  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: object) -> None:
        requests.Session.send = self._send  # type: ignore[method-assign]


def benches() -> Iterator[Comparison]:
    """One comparison per size of a step."""
    RAW.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RAW) as folder:
        node = Anvil(Path(folder) / "anvil")
        try:
            node.start()
            for number in range(BLOCKS // _EVERY):
                node.set_balance(address_of("ana", EVM, 0).text, 10**18 * (number + 1))
                node.mine(_EVERY)
            for blocks in RANGES:
                url = f"sqlite:///{folder}/watcher-{blocks}.db"
                migrate(url)
                store = open_store(url, ASSETS)
                watcher = Watcher(store, open_view(EVM, node.url, "", ASSETS), blocks)
                bare = BareCalls(watcher, node.url, blocks)
                calls = sum(len(made) for made in bare.steps) / len(bare.steps)
                yield compare(
                    f"watcher, {blocks} blocks a step, against its {calls:.0f} bare requests", watcher.one, bare.one
                )
                store.close()
        finally:
            node.stop()
