# SPDX-License-Identifier: AGPL-3.0-or-later
"""Signing: who is asked and in which order, what a refusal, a silence or a lie costs, and what is asked again."""

from dataclasses import replace

import pytest

from custody.flows import carrying, signing
from custody.flows import payout_records as records
from custody.flows.ports import UnitOfWork
from custody.rules.intents import Anchor
from custody.rules.payments import SeatSignatures
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Status, SubStatus, Transfer
from custody.rules.wallets import Tier
from tests.fakes.payouts import Workshop
from tests.fakes.seat import EVM, HOT
from tests.fakes.trust import world

FROZEN = Refusal(Rule.FROZEN, scope="all")


def anchor_of(shop: Workshop, transfer: Transfer) -> Anchor:
    """The anchor that its permit pinned."""
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    assert permit is not None
    return permit.reservation.anchor


def test_another_seat_is_first_each_time() -> None:
    """Counters spread: over four anchors each seat is the first once, and left out once."""
    certificate = world().certificate(Tier.CUSTOMER_HOT, EVM)
    shop = Workshop()
    orders = [
        [seat.name for seat in signing.in_turn(shop.seats, certificate, Anchor(certificate.chain, bytes(32), str(n)))]  # type: ignore[arg-type]
        for n in range(4)
    ]
    assert sorted(order[0] for order in orders) == sorted(HOT)
    assert sorted(order[-1] for order in orders) == sorted(HOT)


@pytest.mark.parametrize("silent", HOT)
def test_a_silent_seat_is_passed_over(silent: str) -> None:
    """Three of four are enough, whichever is away."""
    shop = Workshop()
    next(seat for seat in shop.seats if seat.name == silent).silent = True
    transfer = shop.queued()
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED


def test_refusals_are_recorded_with_seat_and_rule() -> None:
    """Two refuse: it waits, says which seats and which rules, and goes on once they no longer do. Nothing was sent."""
    shop = Workshop()
    for seat in shop.seats[:2]:
        seat.refuses = (FROZEN,)
    transfer = shop.queued()
    shop.step()
    found = shop.get(transfer)
    assert (found.status, found.sub_status) == (Status.PENDING_SIGNATURE, SubStatus.SIGNER_REFUSED)
    assert "2 of 3 signatures" in found.waiting_for
    assert all(f"seat {name} refused: frozen(scope=all)" in found.waiting_for for name in HOT[:2])
    assert not shop.payouts.sent
    for seat in shop.seats:
        seat.refuses = ()
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED


@pytest.mark.parametrize("liars", [1, 2])
def test_a_seat_that_lies(liars: int) -> None:
    """A false signature never reaches the chain: the fourth seat takes the place of one; two liars are named."""
    shop = Workshop()
    for seat in shop.seats[:liars]:
        seat.lies = True
    transfer = shop.queued()
    shop.step()
    if liars == 1:
        assert shop.get(transfer).status is Status.CONFIRMING
    else:
        assert "seat hot-1 gave a false signature: signature_invalid" in shop.get(transfer).waiting_for
        assert not shop.payouts.sent


def test_the_same_request_is_asked_again() -> None:
    """While its statement serves, a seat that answered is asked nothing more and one that was silent gets the same request."""
    shop = Workshop()
    for seat in shop.seats[1:3]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    sequence, first = shop.attestor.sequence, {seat.name: list(seat.asked) for seat in shop.seats}
    for seat in shop.seats:
        seat.silent = False
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    again = {request for seat in shop.seats for request in seat.asked}
    assert again == {request for asked in first.values() for request in asked}
    assert shop.attestor.sequence == sequence + 1  # the statement of the step; nothing was attested anew


def test_a_stale_statement_is_made_anew_for_the_same_bytes() -> None:
    """Hours later: one more request, the same SafeTx, and the seats that signed before are not asked again."""
    shop = Workshop()
    for seat in shop.seats[1:3]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    shop.now += 5000
    for seat in shop.seats:
        seat.silent = False
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    digests = {digest for seat in shop.seats for bound in seat.journal.anchors.values() for digest in bound.digests}
    assert len(digests) == 1
    assert len({request for seat in shop.seats for request in seat.asked}) == 2


def test_a_seat_that_saw_a_newer_statement() -> None:
    """A number that a seat has seen is answered by a fresh statement in the same run, not by giving up."""
    shop = Workshop()
    for seat in shop.seats[1:3]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    for seat in shop.seats:
        seat.silent = False
        seat.journal = replace(seat.journal, sequence=shop.attestor.sequence + 5)
    shop.attestor.sequence += 9
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING


def test_the_attestor_refuses() -> None:
    """Its reason stands with the transfer; no seat is asked."""
    shop = Workshop()
    shop.attestor.against = (Refusal(Rule.COVERAGE, asset="ETH", surplus=-1),)
    transfer = shop.queued()
    shop.step()
    found = shop.get(transfer)
    assert (found.status, found.sub_status) == (Status.PENDING_SIGNATURE, SubStatus.BLOCKED_BY_COVERAGE)
    assert not any(seat.asked for seat in shop.seats)


def test_a_row_of_signatures_that_somebody_changed() -> None:
    """The stored answer is dropped and the seat asked again."""
    shop = Workshop()
    for seat in shop.seats[1:3]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    anchor = anchor_of(shop, transfer)
    documents = shop.treasury.store._state.documents  # type: ignore[attr-defined]
    rows = [key for key in documents if key[0].startswith("signatures:")]
    assert rows
    for row in rows:
        documents[row] = {**documents[row], "signatures": ["0x" + "11" * 65]}
    for seat in shop.seats:
        seat.silent = False
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    assert anchor.reference == "7"


def test_carried_by_hand() -> None:
    """What was asked can be carried to a seat in a file, and its answer brought back; an unknown anchor is refused."""
    shop = Workshop()
    for seat in shop.seats[:2]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    anchor, store = anchor_of(shop, transfer), shop.treasury.store
    request = carrying.to_carry(store, anchor)
    assert request is not None
    shop.seats[0].silent = False
    carrying.bring_back(store, anchor, shop.seats[0].sign(request))
    shop.seats[0].silent = True
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    with pytest.raises(Refused):
        carrying.bring_back(store, replace(anchor, reference="99"), SeatSignatures("hot-1", bytes(32), ()))


def test_carried_by_hand_with_a_fresh_statement() -> None:
    """Cold seats that have seen a newer number refuse what they are brought; a renewed request is the same payout, and is taken."""
    shop = Workshop()
    for seat in shop.seats[:2]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    anchor, store, cold = anchor_of(shop, transfer), shop.treasury.store, shop.seats[0]
    old = carrying.to_carry(store, anchor)
    assert old is not None
    cold.silent = False
    cold.journal = replace(cold.journal, sequence=shop.attestor.sequence)
    with pytest.raises(Refused) as caught:
        cold.sign(old)
    assert {refusal.rule for refusal in caught.value.refusals} == {Rule.SEQUENCE}
    shop.now += 60
    shop.attestor.sequence += 1
    fresh = signing.renew(store, shop.treasury.kernel, shop.attestor, anchor)  # type: ignore[arg-type]
    assert replace(fresh, statement=old.statement) == old
    assert fresh.statement.message.sequence > old.statement.message.sequence
    assert (fresh.statement.message.anchor, carrying.to_carry(store, anchor)) == ((anchor,), fresh)
    carrying.bring_back(store, anchor, cold.sign(fresh))
    cold.silent = True
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING


def test_nothing_to_renew() -> None:
    """No seat was asked about that anchor: the attestor is not asked either."""
    shop = Workshop()
    before, nowhere = shop.attestor.sequence, Anchor(EVM.name, bytes(32), "7")
    with pytest.raises(Refused) as caught:
        signing.renew(shop.treasury.store, shop.treasury.kernel, shop.attestor, nowhere)  # type: ignore[arg-type]
    assert {refusal.rule for refusal in caught.value.refusals} == {Rule.UNKNOWN_TRANSFER}
    assert shop.attestor.sequence == before


def test_carried_by_hand_a_second_time() -> None:
    """A damaged file that was brought first does not bar the same seat's true answer."""
    shop = Workshop()
    for seat in shop.seats[:2]:
        seat.silent = True
    transfer = shop.queued()
    shop.step()
    anchor, store = anchor_of(shop, transfer), shop.treasury.store
    request = carrying.to_carry(store, anchor)
    assert request is not None
    shop.seats[0].silent = False
    true = shop.seats[0].sign(request)
    shop.seats[0].silent = True
    carrying.bring_back(store, anchor, replace(true, signatures=(b"\x11" * 65,)))
    shop.step()
    assert shop.get(transfer).status is Status.PENDING_SIGNATURE
    for _ in range(2):  # the same again changes nothing
        carrying.bring_back(store, anchor, true)
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING


def test_what_is_signed_is_recorded_first() -> None:
    """The variant and the request are in the store before the first seat is asked (law 5)."""
    shop = Workshop()
    transfer = shop.queued()
    seen: list[tuple[int, bool]] = []

    def look(work: UnitOfWork) -> tuple[int, bool]:
        permit = work.transfers.permit_of(transfer.digest)
        assert permit is not None
        at = permit.reservation.anchor
        return len(records.variants(work, at)), records.newest_request(work, at, void=False) is not None

    for seat in shop.seats:
        real = seat.sign
        seat.sign = lambda request, r=real: (seen.append(shop.treasury.store.read(look)), r(request))[1]  # type: ignore[assignment,misc,func-returns-value]
    shop.step()
    assert seen == [(1, True)] * 3
