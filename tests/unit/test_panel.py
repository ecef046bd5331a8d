# SPDX-License-Identifier: AGPL-3.0-or-later
"""A view that keeps what its node said of a block, and a node that lied once about it: silence while it counts, and no longer."""

from collections.abc import Collection
from typing import Any

import pytest

from custody.flows.panel import Panel
from custody.rules.amounts import Asset
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.wallets import Address
from tests.fakes.ledger import ETH


class _Counting:
    """A view that asks its node once and remembers."""

    chain = ETH.chain

    def __init__(self, *said: int) -> None:
        self._said, self._kept, self.read = list(said), list[int](), 0

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:  # the port's
        if not self._kept:
            self._kept = [self._said.pop(0) if len(self._said) > 1 else self._said[0]]
            self.read += 1
        return self._kept[0]

    def read_again(self) -> None:
        self._kept = []


def test_a_lie_is_not_remembered() -> None:
    """The first answer is nobody's; both nodes are asked anew, and what they agree on then counts."""
    liar, honest = _Counting(8, 7), _Counting(7)
    views: Any = [liar, honest]
    panel, at = Panel(ETH.chain, views), BlockRef(ETH.chain, 1, b"\1" * 32, b"\0" * 32, 1)
    with pytest.raises(Unavailable, match="disagree about balance"):
        panel.balance(ETH, [], at)
    assert panel.balance(ETH, [], at) == 7
    assert (liar.read, honest.read) == (2, 2)


def test_what_is_agreed_on_is_not_asked_again() -> None:
    """Reading a chain from birth takes long: only a difference makes anybody do it."""
    views: Any = [_Counting(7), _Counting(7)]
    panel, at = Panel(ETH.chain, views), BlockRef(ETH.chain, 1, b"\1" * 32, b"\0" * 32, 1)
    assert [panel.balance(ETH, [], at) for _ in range(3)] == [7, 7, 7]
    assert [view.read for view in views] == [1, 1]
