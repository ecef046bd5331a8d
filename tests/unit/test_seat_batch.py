# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat decides a full batch in time that a quorum can wait for. The figure itself is `make bench`'s; this is a generous bound."""

import time
from typing import Final

import pytest

from custody.rules.wallets import Chain
from tests.bench.bench_seat import Batch
from tests.fakes.seat import BITCOIN, EVM

MOST: Final = 0.4
"""Seconds of processor time: several times what it takes, so that only a mistake of another order is caught, on any machine."""


@pytest.mark.parametrize("chain", [pytest.param(EVM, id="EVM"), pytest.param(BITCOIN, id="Bitcoin")])
def test_a_hundred_withdrawals(chain: Chain) -> None:
    """The best of five, by the processor's clock: what else the machine does is no matter here."""
    batch = Batch.of(chain)
    spent = []
    for _ in range(5):
        batch.arrive()
        began = time.process_time()
        batch.decide()
        spent.append(time.process_time() - began)
    assert min(spent) < MOST
