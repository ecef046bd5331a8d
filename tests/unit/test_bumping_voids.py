# SPDX-License-Identifier: AGPL-3.0-or-later
"""A void that no block takes goes out for more, under the quorum that people gave the first one, and the anchor dies once."""

from functools import partial
from typing import Any

import pytest

from custody.flows import bumping, payouts
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Amount
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.intents import Void
from custody.rules.ledger import Account, AccountKind, credit_deposit
from custody.rules.origins import BitcoinProof, Executed
from custody.rules.payouts import DecodedPayload
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Address, Tier
from tests.fakes.payouts import Died, Fuse, Workshop
from tests.fakes.seat import BITCOIN, secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD, account_of
from tests.fakes.trust import BTC, ETH, PAYEE, decode, world

HIGHER = 15_000


def voided(chain: str) -> tuple[Workshop, Transfer, int]:
    """A payout that is stuck, and its void, signed by a quorum, sent and stuck as well; what ada had before."""
    if chain == "evm":
        shop = Workshop()
        had = shop.treasury.balance(AVAILABLE)
        transfer = shop.queued()
    else:
        shop = Workshop(chain=BITCOIN)
        had = shop.treasury.balance(AVAILABLE, BTC)
        transfer = shop.queued(chain=BITCOIN.name, asset="BTC", destination=PAYEE[BITCOIN.name], amount=10**7)
    shop.step()
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    assert permit is not None
    people = [secp256k1(name) for name in ("ana", "bo")]
    signed = signed_by(Void(permit.reservation.anchor, permit.intents), world().domain, people)
    payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)
    shop.step()
    shop.step()
    assert shop.get(transfer).status is Status.CANCELLING
    assert len(shop.kept(transfer)) == 2
    shop.now += bumping.STUCK_BITCOIN
    return shop, transfer, had


def finish(shop: Workshop, transfer: Transfer) -> list[Executed]:
    """Blocks until it is at its end; the entries of payouts."""
    for _ in range(8):
        shop.payouts.mine(3)
        shop.step()
        if shop.chain == BITCOIN:
            book(shop)
        if shop.get(transfer).status.is_final:
            break
    rows = shop.treasury.store.read(lambda work: work.journal.read(0, 1000))
    return [row.entry.origin for row in rows if isinstance(row.entry.origin, Executed)]


def book(shop: Workshop) -> None:
    """What a watcher does: what the void brought back stands in suspense."""
    certificate = world().certificate(Tier.CUSTOMER_HOT, BITCOIN)
    for envelope, height in shop.payouts.mined.values():
        block = shop.payouts.view.block(height)
        assert block is not None
        decoded = decode(shop.payouts.built[envelope.id].payload, certificate)
        assert isinstance(decoded, DecodedPayload)
        (leaf,) = decoded.leaves
        amount = Amount(BTC, leaf.units)
        proof = BitcoinProof(BITCOIN.name, height, block.hash, envelope.transaction, 0, leaf.destination, leaf.units)
        shop.treasury.store.run(partial(_credit, Sighting(amount, Address(BITCOIN, leaf.destination), proof)))


def _credit(sighting: Sighting, work: UnitOfWork) -> None:
    proof = sighting.proof
    if not isinstance(proof, BitcoinProof) or any(known.sighting == sighting for known in work.deposits.all()):
        return
    suspense = Account(AccountKind.SUSPENSE)
    entry = credit_deposit(proof, account_of(Tier.CUSTOMER_HOT, BITCOIN), suspense, sighting.amount)
    work.deposits.record(sighting)
    work.deposits.move(sighting.identity, DepositStatus.CREDITED, work.journal.append(entry, proof.height).position)


def test_on_evm_it_takes_the_place_of_what_is_stuck() -> None:
    """At the relayer's nonce of the payout, no seat asked again: the void is mined, the payout never is, ada has everything back."""
    shop, transfer, had = voided("evm")
    shop.payouts.asks = 1
    asked = sum(len(seat.asked) for seat in shop.seats)
    paid, void = shop.kept(transfer)
    shop.step()
    newest = shop.kept(transfer)[-1]
    assert (newest.id, newest.raw) == (void.id, paid.raw + b"+")
    assert list(shop.payouts.pool) == [newest.transaction]
    assert sum(len(seat.asked) for seat in shop.seats) == asked
    (done,) = finish(shop, transfer)
    assert (done.void, done.transaction) == (True, newest.transaction)
    assert shop.get(transfer).status is Status.CANCELLED
    assert (shop.treasury.balance(AVAILABLE, ETH), shop.treasury.balance(HELD, ETH)) == (had, 0)


def test_on_bitcoin_another_variant_of_it() -> None:
    """Above the last one's fee, signed by the same quorum's word; one of the two is mined and the anchor is dead."""
    shop, transfer, _ = voided("bitcoin")
    first = shop.payouts.built[shop.kept(transfer)[-1].id]
    shop.payouts.asks = HIGHER
    shop.step()
    sent = shop.kept(transfer)[-1]
    newest = shop.payouts.built[sent.id]
    assert (newest.paid, newest.fee) == ((), first.fee + HIGHER)
    assert newest.anchor == first.anchor
    assert list(shop.payouts.pool) == [sent.transaction]
    for seat in shop.seats:
        for bound in seat.journal.anchors.values():
            assert bound.voided
    (done,) = finish(shop, transfer)
    assert (done.void, done.transaction, done.fee) == (True, sent.transaction, newest.fee)
    assert shop.get(transfer).status is Status.CANCELLED
    assert shop.treasury.balance(HELD, BTC) == 0


@pytest.mark.parametrize("chain", ["evm", "bitcoin"])
def test_blocks_that_ask_for_no_more(chain: str) -> None:
    """Patience: no variant, no envelope, no seat asked."""
    shop, transfer, _ = voided(chain)
    asked = sum(len(seat.asked) for seat in shop.seats)
    for _ in range(3):
        shop.step()
        shop.now += bumping.STUCK_BITCOIN
    assert len(shop.kept(transfer)) == 2
    assert sum(len(seat.asked) for seat in shop.seats) == asked


@pytest.mark.parametrize("chain", ["evm", "bitcoin"])
def test_it_has_its_time_first(chain: str) -> None:
    """A block should take it before it is offered for more."""
    shop, transfer, _ = voided(chain)
    shop.now -= bumping.STUCK_BITCOIN
    shop.payouts.asks = HIGHER
    shop.step()
    assert len(shop.kept(transfer)) == 2


@pytest.mark.parametrize("chain", ["evm", "bitcoin"])
def test_never_more_than_a_few(chain: str) -> None:
    """Then people are told, who have to be patient: a void has no other way out."""
    shop, transfer, _ = voided(chain)
    for _ in range(2 * payouts.ENVELOPES_MOST):
        shop.payouts.asks = shop.payouts.built[shop.kept(transfer)[-1].id].fee + 1_000
        shop.step()
        shop.now += bumping.STUCK_BITCOIN
    assert len(shop.kept(transfer)) <= payouts.ENVELOPES_MOST + 1
    assert "voids came to nothing" in shop.get(transfer).waiting_for


@pytest.mark.parametrize("chain", ["evm", "bitcoin"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_anywhere(chain: str, after: bool) -> None:
    """At every commit and call: the next worker ends with one void more, and one end of the anchor."""
    died = 0
    for left in range(1 + after, 60, 2):  # a commit before it happened is the one before it after it did
        shop, transfer, _ = voided(chain)
        shop.payouts.asks = HIGHER
        try:
            shop.step(Fuse(left, after))
        except Died:
            died += 1
        else:
            break
        for _ in range(3):
            shop.step()
        assert len(shop.kept(transfer)) == 3, left
        assert [done.void for done in finish(shop, transfer)] == [True], left
        assert shop.get(transfer).status is Status.CANCELLED
    assert died > 1


def test_the_relayer_has_a_cap() -> None:
    """Said with its rule; what was sent stays."""
    shop, transfer, _ = voided("evm")

    def capped(*given: Any) -> None:
        raise Refused([Refusal(Rule.RELAYER_CAP, at_most=2, cap=1)])

    shop.payouts.reseal = capped  # type: ignore[method-assign,assignment]
    shop.step()
    assert shop.get(transfer).waiting_for.startswith("a higher fee of its void: relayer_above_cap")
    assert len(shop.kept(transfer)) == 2


def test_seats_are_missing() -> None:
    """On Bitcoin: said, and gone on with once they are there; no third variant is made meanwhile."""
    shop, transfer, _ = voided("bitcoin")
    shop.payouts.asks = HIGHER
    for seat in shop.seats[:2]:
        seat.silent = True
    shop.step()
    assert "is silent" in shop.get(transfer).waiting_for
    built = len(shop.payouts.built)
    for seat in shop.seats:
        seat.silent = False
    shop.step()
    assert len(shop.kept(transfer)) == 3
    assert [variant.paid for variant in list(shop.payouts.built.values())[built - 1 :]][:1] == [()]
