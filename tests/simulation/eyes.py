# SPDX-License-Identifier: AGPL-3.0-or-later
"""The node that one part asks, which may lag behind the chain, or tell that part alone of blocks that never were."""

from collections.abc import Callable
from copy import copy
from typing import Any, Generic, TypeVar, cast

from tests.simulation.blocks import Chainlike

C = TypeVar("C", bound=Chainlike[Any, Any])


class Eyes(Generic[C]):
    """Everything of the chain as one part's node has it. What is sent to it reaches the chain all the same."""

    def __init__(self, node: C) -> None:
        self._true = node
        self._lie: C | None = None
        self._lagging: tuple[tuple[int, bytes], C] | None = None
        self.lag = 0
        """Blocks by which it is behind."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._now(), name)

    @property
    def honest(self) -> bool:
        """Whether it says what the chain says."""
        return not self.lag and self._lie is None

    def see(self, node: C) -> "Eyes[C]":
        """Another node's eyes, as honest as any."""
        return Eyes(node)

    def tell_truth(self) -> None:
        """From now on what the chain says."""
        self.lag, self._lie = 0, None

    def lie(self, depth: int, make: Callable[[C], None]) -> C:
        """Show a branch of its own: the chain without its newest `depth` blocks, and what `make` puts there."""
        fork = self._copy(depth)
        fork.seed, fork.on_send = f"{fork.seed}/lie {fork.mined}", lambda _: None
        make(fork)
        self._true.known |= fork.known
        self._lie = fork
        return fork

    def _now(self) -> C:
        if self._lie is not None:
            return self._lie
        if not self.lag or self._true.height <= self.lag:
            return self._true
        key = self.lag, self._true.blocks[-1].ref.hash
        if self._lagging is None or self._lagging[0] != key:
            self._lagging = key, self._copy(self.lag)
        fork = self._lagging[1]
        fork.pool = self._true.pool
        return fork

    def _copy(self, depth: int) -> C:
        true = self._true
        fork = copy(true)
        fork.blocks = true.blocks[: len(true.blocks) - depth] if depth else [*true.blocks]
        fork.pool, fork.known = dict(true.pool), dict(true.known)
        fork._final = min(true.final_height, len(fork.blocks) - 1) if not depth else 0
        fork.sent = true.sent  # type: ignore[method-assign]
        return fork


def as_node(eyes: Eyes[C]) -> C:
    """The same where a chain is wanted: whoever reads a chain only reads."""
    return cast("C", eyes)
