# SPDX-License-Identifier: AGPL-3.0-or-later
"""A payout that no block takes: variants of one anchor within what people approved, the same nonce for more, and who is told."""

from typing import Any

import pytest

from custody.flows import bumping, payouts
from custody.rules.intents import Void
from custody.rules.ledger import Account, AccountKind
from custody.rules.payments import UnsignedPayout
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome as Answer
from custody.rules.transfers import Status, SubStatus, Transfer
from tests.fakes.payouts import Died, Fuse, Workshop
from tests.fakes.seat import BITCOIN, secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD, proposal
from tests.fakes.trust import BTC, PAYEE, answers, world
from tests.unit.test_payout_flow import book_change

HIGHER, TOO_HIGH = 12_000, 20_001
"""Satoshi; the intent allows 20,000 and the first variant pays 5,000."""


def stuck(asks: int = 0) -> tuple[Workshop, Transfer]:
    """ada's 0.1 BTC, sent and in no block for an hour; then a block wants so much."""
    shop = Workshop(chain=BITCOIN)
    transfer = shop.queued(chain=BITCOIN.name, asset="BTC", destination=PAYEE[BITCOIN.name], amount=10**7)
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    shop.now += bumping.STUCK_BITCOIN
    shop.payouts.asks = asks
    return shop, transfer


def counters(shop: Workshop) -> list[object]:
    """What each seat has counted against its caps, and the intents that it bound."""
    return [(seat.journal.automatic, dict(seat.journal.intents)) for seat in shop.seats]


def test_a_variant_takes_its_place_and_settles_with_its_own_fee() -> None:
    """Same anchor, same intents, a higher fee out of change; seats sign and count it once; the fee that was paid is debited."""
    shop, transfer = stuck(HIGHER)
    before, counted = shop.treasury.balance(AVAILABLE, BTC), counters(shop)
    shop.step()
    first, second = shop.kept(transfer)
    assert first.anchor == second.anchor
    built = [shop.payouts.built[envelope.id] for envelope in (first, second)]
    assert [unsigned.fee for unsigned in built] == [shop.payouts.fee, HIGHER]
    assert counters(shop) == counted
    assert list(shop.payouts.pool) == [second.transaction]
    assert second.transaction.hex() in shop.get(transfer).waiting_for
    shop.payouts.mine(9)
    shop.step()
    assert "the watcher to book" in shop.get(transfer).waiting_for
    change = booked(shop, transfer)
    shop.step()
    assert shop.get(transfer).status is Status.COMPLETED
    assert change == 2 * 10**8 - 10**7 - HIGHER
    assert shop.treasury.balance(HELD, BTC) == shop.treasury.balance(Account(AccountKind.SUSPENSE), BTC) == 0
    assert shop.treasury.balance(AVAILABLE, BTC) - before == 20_000 - HIGHER


def booked(shop: Workshop, transfer: Transfer) -> int:
    """The watcher books the change of the variant that was mined."""
    mined, _ = shop.payouts.mined[shop.kept(transfer)[0].anchor.reference]
    shop.payouts.fee, fee = shop.payouts.built[mined.id].fee, shop.payouts.fee
    try:
        return book_change(shop, transfer, mined)
    finally:
        shop.payouts.fee = fee


def test_the_first_variant_is_mined_after_all() -> None:
    """A miner had it: it settles with its own fee, and the variant is nobody's payment."""
    shop, transfer = stuck(HIGHER)
    shop.step()
    first, second = shop.kept(transfer)
    shop.payouts.pool = {first.transaction: first}
    shop.payouts.mine(9)
    shop.step()
    booked(shop, transfer)
    shop.step()
    assert shop.get(transfer).status is Status.COMPLETED
    assert second.id not in {envelope.id for envelope, _ in shop.payouts.mined.values()}
    assert len(shop.payouts.paid()) == 1


@pytest.mark.parametrize(("asks", "early"), [(0, 0), (5_000, 0), (HIGHER, 1)], ids=["no more", "as paid", "too early"])
def test_what_is_not_bumped(asks: int, early: int) -> None:
    """Nothing more is asked, or the hour is not over."""
    shop, transfer = stuck(asks)
    shop.now -= early
    shop.step()
    assert len(shop.kept(transfer)) == 1


def test_a_higher_fee_than_people_approved() -> None:
    """Said with the transfer; nothing is sent and no hold is freed. People's void ends it, or a block in the end."""
    shop, transfer = stuck(TOO_HIGH)
    shop.step()
    found = shop.get(transfer)
    assert (found.status, found.sub_status) == (Status.CONFIRMING, SubStatus.ACTUAL_FEE_TOO_HIGH)
    assert "a higher fee than people approved" in found.waiting_for
    assert len(shop.kept(transfer)) == 1
    assert shop.treasury.balance(HELD, BTC) == 10**7 + 20_000
    shop.payouts.mine(9)
    shop.step()
    booked(shop, transfer)
    shop.step()
    assert shop.get(transfer).status is Status.COMPLETED


def test_a_seat_refuses_a_variant_above_the_maximum() -> None:
    """A worker that lies about maxima gets no signature: each seat compares the fee with the intents."""
    shop, transfer = stuck(TOO_HIGH)
    honest = shop.payouts.outbid

    def lying(certificate: Any, reservation: Any, sent: Any, maxima: Any) -> UnsignedPayout | None:
        return honest(certificate, reservation, sent, dict.fromkeys(maxima, 10**8))

    shop.payouts.outbid = lying  # type: ignore[method-assign]
    shop.step()
    assert Rule.MAXIMUM_FEE.value in shop.get(transfer).waiting_for
    assert len(shop.kept(transfer)) == 1


def test_missing_seats_are_waited_for_by_name() -> None:
    """Two seats are silent: said, asked again at the next step, and no third variant is made."""
    shop, transfer = stuck(HIGHER)
    for seat in shop.seats[:2]:
        seat.silent = True
    shop.step()
    assert "a higher fee: 2 of 3 signatures" in shop.get(transfer).waiting_for
    for seat in shop.seats:
        seat.silent = False
    shop.step()
    assert [envelope.id for envelope in shop.kept(transfer)] == list(shop.payouts.built)[-2:]


def test_people_void_it_meanwhile() -> None:
    """The void comes while seats sign: the variant's bytes are never kept, so the newest ones are the void's."""
    shop, transfer = stuck(HIGHER)
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    assert permit is not None
    people = [secp256k1(name) for name in ("ana", "bo")]
    signed = signed_by(Void(permit.reservation.anchor, permit.intents), world().domain, people)
    combine = shop.payouts.combine

    def late(*given):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN202
        payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)
        return combine(*given)

    shop.payouts.combine = late  # type: ignore[method-assign]
    shop.step()
    assert shop.get(transfer).status is Status.CANCELLING
    assert len(shop.kept(transfer)) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_anywhere(after: bool) -> None:
    """At every commit and call of a bump: the next worker ends with one variant, sent, and one payment."""
    died = 0
    for left in range(1, 60):
        shop, transfer = stuck(HIGHER)
        try:
            shop.step(Fuse(left, after))
        except Died:
            died += 1
        else:
            break
        shop.step()
        shop.step()
        kept = shop.kept(transfer)
        assert (len(kept), len(shop.payouts.built)) == (2, 2)
        assert list(shop.payouts.pool) == [kept[-1].transaction]
        assert shop.get(transfer).status is Status.CONFIRMING
    assert died > 10


def test_the_node_refuses_the_replacement() -> None:
    """Unknown, and the same bytes again; nothing is rebuilt."""
    shop, transfer = stuck(HIGHER)
    shop.payouts.lost = "before"
    shop.step()
    assert shop.get(transfer).status is Status.BROADCAST_UNKNOWN
    shop.step()
    shop.payouts.lost = ""
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    assert len(shop.kept(transfer)) == 2
    assert len({envelope.raw for envelope in shop.payouts.sent}) == 2


def test_evicted_from_the_mempool() -> None:
    """The same bytes are sent again, and no seat is asked."""
    shop, transfer = stuck()
    asked = sum(len(seat.asked) for seat in shop.seats)
    shop.payouts.pool.clear()
    shop.step()
    shop.step()
    assert list(shop.payouts.pool) == [shop.kept(transfer)[0].transaction]
    assert len({envelope.raw for envelope in shop.payouts.sent}) == 1
    assert sum(len(seat.asked) for seat in shop.seats) == asked


def evm_stuck() -> tuple[Workshop, Transfer]:
    """ada's ether, sent and in no block for three minutes, while blocks ask for more."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    shop.now += bumping.STUCK_EVM
    shop.payouts.asks = 1
    return shop, transfer


def test_the_relayers_nonce_is_stuck() -> None:
    """The same signed payout at the same nonce for more: no seat is asked, and it is paid once."""
    shop, transfer = evm_stuck()
    asked = sum(len(seat.asked) for seat in shop.seats)
    shop.step()
    first, second = shop.kept(transfer)
    assert (first.id, first.raw + b"+") == (second.id, second.raw)
    assert list(shop.payouts.pool) == [second.transaction]
    shop.run(transfer)
    assert (shop.get(transfer).status, len(shop.payouts.paid())) == (Status.COMPLETED, 1)
    assert sum(len(seat.asked) for seat in shop.seats) == asked


def test_above_the_relayers_cap() -> None:
    """Said, with its sub-status; the payout stays where it is."""
    shop, transfer = evm_stuck()

    def capped(*given):  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN202
        raise Refused([Refusal(Rule.RELAYER_CAP, at_most=2, cap=1)])

    shop.payouts.reseal = capped  # type: ignore[method-assign]
    shop.step()
    assert shop.get(transfer).sub_status is SubStatus.ACTUAL_FEE_TOO_HIGH
    assert Rule.RELAYER_CAP.value in shop.get(transfer).waiting_for


def test_never_more_than_a_few_envelopes() -> None:
    """Then people are asked: gas prices do not explain it any more."""
    shop, transfer = evm_stuck()
    for _ in range(payouts.ENVELOPES_MOST + 2):
        shop.step()
        shop.now += bumping.STUCK_EVM
    assert len(shop.kept(transfer)) == payouts.ENVELOPES_MOST
    assert shop.get(transfer).waiting_for.startswith("people: ")


def test_a_variant_of_what_nobody_approved_is_counted_once() -> None:
    """A small one that goes by itself takes up each seat's cap once, its maximum fee included, however often it is bumped."""
    shop = Workshop(answers(Answer.AUTOMATIC), chain=BITCOIN)
    changes = {"chain": BITCOIN.name, "asset": "BTC", "destination": PAYEE[BITCOIN.name], "amount": 300_000}
    transfer = shop.treasury.propose(proposal(1, **changes), key="k1", number=1)
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING, shop.get(transfer).waiting_for
    counted = counters(shop)
    units = [sum(entry.units for entry in seat.journal.automatic) for seat in shop.seats]
    assert sorted(units) == [0, *[300_000 + 20_000] * 3]
    shop.now, shop.payouts.asks = shop.now + bumping.STUCK_BITCOIN, HIGHER
    shop.step()
    assert len(shop.kept(transfer)) == 2, shop.get(transfer).waiting_for
    assert counters(shop) == counted
