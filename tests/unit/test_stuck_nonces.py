# SPDX-License-Identifier: AGPL-3.0-or-later
"""A payout behind a stuck nonce loses nothing by it; one that people have to look at says so once, and an expired one says how it ends."""

from collections.abc import Sequence
from typing import Any

import pytest

from custody.flows.payouts import ENVELOPES_MOST
from custody.flows.ports import Moved
from custody.rules.payments import Outcome
from custody.rules.transfers import Status, Transfer
from tests.fakes.payouts import Workshop
from tests.fakes.seat import BITCOIN
from tests.fakes.trust import PAYEE


def history(shop: Workshop, transfer: Transfer) -> Sequence[Moved]:
    """Every line of a transfer's history."""
    return shop.treasury.store.read(lambda work: work.transfers.history(transfer.digest))


def behind() -> tuple[Workshop, Transfer, Transfer]:
    """Two payouts of one Safe are sent; no block takes the first, and the second one's envelope has reverted for it."""
    shop = Workshop()
    first = shop.queued(1)
    shop.step()
    second = shop.queued(2)
    shop.step()
    shop.step()
    assert [shop.get(t).status for t in (first, second)] == [Status.CONFIRMING] * 2
    return shop, first, second


def revert(shop: Workshop, transfer: Transfer) -> None:
    """A block has its newest envelope, and nothing came of it."""
    newest = shop.kept(transfer)[-1].transaction
    shop.payouts.pool.pop(newest, None)
    shop.payouts.reverted[newest] = shop.payouts.view.mine().height


def test_tries_are_not_used_up_behind_a_stuck_nonce() -> None:
    """It says which nonce comes first, is sealed no second time, and is paid with its next envelope once that one is through."""
    shop, first, second = behind()
    revert(shop, second)
    for _ in range(3 * ENVELOPES_MOST):
        shop.step()
    assert len(shop.kept(second)) == 1
    assert shop.get(second).waiting_for == "nonce 7 of its wallet to be consumed first"
    lines = len(history(shop, second))
    shop.step()
    assert len(history(shop, second)) == lines
    shop.run(first, second, steps=20)
    assert [shop.get(t).status for t in (first, second)] == [Status.COMPLETED] * 2
    assert len(shop.kept(second)) == 2


def test_people_are_told_once() -> None:
    """After so many envelopes; its history does not grow with every step that finds it so."""
    shop = Workshop()
    shop.payouts.fails = Outcome.REVERTED
    transfer = shop.queued()
    for _ in range(3 * ENVELOPES_MOST):
        shop.step()
        if shop.payouts.pool:
            shop.payouts.mine()
    assert shop.get(transfer).waiting_for == f"people: {ENVELOPES_MOST} envelopes came to nothing; a void"
    lines = len(history(shop, transfer))
    for _ in range(4):
        shop.step()
    assert len(history(shop, transfer)) == lines
    assert len(shop.kept(transfer)) == ENVELOPES_MOST


@pytest.mark.parametrize("chain", ["evm", "bitcoin"])
def test_an_intent_that_expires_before_a_quorum_signed(chain: str) -> None:
    """Its anchor was asked about, so its hold stays: people are told that a void is the way out, and by which rule."""
    bitcoin: dict[str, Any] = {
        "chain": BITCOIN.name,
        "asset": "BTC",
        "destination": PAYEE[BITCOIN.name],
        "amount": 10**7,
    }
    shop = Workshop(chain=BITCOIN) if chain == "bitcoin" else Workshop()
    for seat in shop.seats[:2]:
        seat.silent = True
    transfer = shop.queued(**bitcoin) if chain == "bitcoin" else shop.queued()
    shop.step()
    shop.now = transfer.intent.expiry
    for seat in shop.seats[:2]:
        seat.silent = False
    shop.step()
    found = shop.get(transfer)
    assert found.status is Status.PENDING_SIGNATURE
    assert found.waiting_for.startswith("people: a void, since it expired before a quorum signed: ")
    assert "expired(" in found.waiting_for
    assert found.hold is not None
