# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sending, following and posting: unknown outcomes, envelopes that came to nothing, anchors that die, and what the ledger gets."""

import pytest

from custody.chains.bitcoin.scripts import change_address
from custody.flows import payouts
from custody.rules.amounts import Amount
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.hold_origins import Standing, check_executed
from custody.rules.intents import Void
from custody.rules.ledger import Account, AccountKind, credit_deposit
from custody.rules.origins import BitcoinProof, Executed, Hold
from custody.rules.payments import Envelope, Outcome
from custody.rules.refusals import Refused, Rule
from custody.rules.transfers import Status, SubStatus, Transfer
from custody.rules.typed import Struct
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.payouts import Workshop
from tests.fakes.seat import BITCOIN, EVM, rules_of, secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD, account_of, deposit
from tests.fakes.trust import ASSETS, BTC, PAYEE, world

ETHER = 10**18


def people(message: Struct, *names: str) -> object:
    """Signed by these people."""
    return signed_by(message, world().domain, [secp256k1(name) for name in names or ("ana", "bo")])


def void_of(shop: Workshop, transfer: Transfer, *names: str) -> None:
    """People void its payout."""
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    assert permit is not None
    signed = people(Void(permit.reservation.anchor, permit.intents), *names)
    payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)  # type: ignore[arg-type]


@pytest.mark.parametrize("lost", ["before", "after"])
def test_unknown_outcome(lost: str) -> None:
    """Whether it arrived or not: a state of its own, the same bytes again, paid once."""
    shop = Workshop()
    transfer = shop.queued()
    shop.payouts.lost = lost
    shop.step()
    assert shop.get(transfer).status is Status.BROADCAST_UNKNOWN
    assert "whether the node took" in shop.get(transfer).waiting_for
    built = len(shop.payouts.built)
    shop.payouts.mine()
    shop.payouts.lost = ""
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    assert len({envelope.raw for envelope in shop.payouts.sent}) == 1
    assert len(shop.payouts.built) == built
    assert len(shop.payouts.paid()) == 1


def test_the_relayers_nonce_was_used() -> None:
    """A new envelope around the very payout that the quorum signed; no seat is asked again."""
    shop = Workshop()
    transfer = shop.queued()
    shop.payouts.stale = True
    shop.step()
    asked = sum(len(seat.asked) for seat in shop.seats)
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    kept = shop.kept(transfer)
    assert (len(kept), len({envelope.id for envelope in kept})) == (2, 1)
    assert sum(len(seat.asked) for seat in shop.seats) == asked


def test_reverted_again_and_again_is_for_people() -> None:
    """The relayer's call reverts: sealed again a few times, then people are asked; the hold stands."""
    shop = Workshop()
    transfer = shop.queued()
    shop.payouts.fails = Outcome.REVERTED
    for _ in range(20):
        shop.step()
        shop.payouts.mine()
    assert len(shop.kept(transfer)) == payouts.ENVELOPES_MOST
    assert shop.get(transfer).waiting_for.startswith("people: ")
    assert shop.treasury.balance(HELD) == ETHER


def test_a_failed_execution_frees_the_hold() -> None:
    """The nonce is burnt and nobody was paid: FAILED once that is final, and ada has it all back."""
    shop = Workshop()
    before = shop.treasury.balance(AVAILABLE)
    transfer = shop.queued()
    shop.payouts.fails = Outcome.FAILED
    shop.step()
    shop.payouts.mine()
    shop.step()
    assert shop.treasury.balance(HELD) == ETHER
    shop.run(transfer)
    assert shop.get(transfer).status is Status.FAILED
    assert (shop.treasury.balance(HELD), shop.treasury.balance(AVAILABLE)) == (0, before)


def test_replaced_is_for_people_at_once() -> None:
    """Something that nobody here made consumed the anchor: said, and nothing is freed."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    shop.payouts.stranger = True
    shop.payouts.mine(9)
    shop.step()
    found = shop.get(transfer)
    assert (found.status, found.sub_status) == (Status.CONFIRMING, SubStatus.REPLACED)
    assert found.waiting_for.startswith("people: ")
    assert shop.treasury.balance(HELD) == ETHER


def test_a_reorg_takes_it_back_and_it_is_sent_again() -> None:
    """Not final yet, and gone: the same bytes, and one payment at the end."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    shop.payouts.mine()
    shop.payouts.mined.clear()
    shop.payouts.nonce -= 1
    shop.payouts.view.reorg(1)
    shop.step()
    assert (shop.get(transfer).status, shop.get(transfer).sub_status) == (Status.BROADCASTING, SubStatus.REORGED)
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    assert len({envelope.raw for envelope in shop.payouts.sent}) == 1


# voids


def test_a_void_heals_a_stuck_anchor() -> None:
    """Seats refuse the payout and sign the void under people's quorum; the hold is free only once the anchor is finally gone."""
    shop = Workshop()
    before = shop.treasury.balance(AVAILABLE)
    transfer = shop.queued()
    for seat in shop.seats[:2]:
        seat.silent = True
    shop.step()
    void_of(shop, transfer)
    assert shop.get(transfer).status is Status.CANCELLING
    for seat in shop.seats:
        seat.silent = False
    shop.step()
    shop.payouts.mine()
    shop.step()
    assert shop.get(transfer).status is Status.CANCELLING
    assert shop.treasury.balance(HELD) == ETHER
    shop.run(transfer)
    assert (shop.get(transfer).status, shop.payouts.paid()) == (Status.CANCELLED, [])
    assert (shop.treasury.balance(HELD), shop.treasury.balance(AVAILABLE)) == (0, before)
    after = shop.queued(2)
    shop.run(after)
    assert shop.get(after).status is Status.COMPLETED


def test_a_void_that_comes_too_late() -> None:
    """The payout is mined first: it is completed, whatever people wanted."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    void_of(shop, transfer)
    shop.payouts.mine()
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    assert len(shop.payouts.paid()) == 1


def test_who_may_void() -> None:
    """One person is not enough; other intents than the permit's, or an anchor of nobody, are refused."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    with pytest.raises(Refused) as alone:
        void_of(shop, transfer, "ana")
    assert rules_of(alone.value) == {Rule.QUORUM_NOT_REACHED}
    permit = shop.treasury.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    assert permit is not None
    for message, rule in (
        (Void(permit.reservation.anchor, ()), Rule.ANCHOR_BOUND),
        (Void(permit.reservation.anchor.__class__(EVM.name, bytes(32), "1"), permit.intents), Rule.UNKNOWN_TRANSFER),
    ):
        with pytest.raises(Refused) as caught:
            payouts.void(shop.treasury.store, shop.treasury.kernel, people(message), shop.now)  # type: ignore[arg-type]
        assert rules_of(caught.value) == {rule}
    assert shop.get(transfer).status is Status.CONFIRMING


# Bitcoin


def withdrawal(shop: Workshop, number: int = 1) -> Transfer:
    """ada takes 0.1 BTC."""
    changes = {"chain": BITCOIN.name, "asset": "BTC", "destination": PAYEE[BITCOIN.name], "amount": 10**7}
    return shop.queued(number, **changes)


def book_change(shop: Workshop, transfer: Transfer, mined: Envelope | None = None) -> int:
    """What the watcher does with the change of its payout, or of this variant of it: seen and credited to suspense."""
    kept = mined or shop.kept(transfer)[-1]
    _, height = shop.payouts.mined[kept.anchor.reference]
    block = shop.payouts.view.block(height)
    assert block is not None
    address = change_address(world().certificate(Tier.CUSTOMER_HOT, BITCOIN), 5)
    units = 2 * 10**8 - 10**7 - shop.payouts.fee
    proof = BitcoinProof(BITCOIN.name, height, block.hash, kept.transaction, 1, address.text, units)
    amount = Amount(BTC, units)
    entry = credit_deposit(proof, account_of(Tier.CUSTOMER_HOT, BITCOIN), Account(AccountKind.SUSPENSE), amount)
    sighting = Sighting(amount, Address(Chain(BITCOIN.name), address.text), proof)

    def work(work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        work.deposits.record(sighting)
        position = work.journal.append(entry, shop.now).position
        work.deposits.move(sighting.identity, DepositStatus.CREDITED, position)

    shop.treasury.store.run(work)
    return units


def test_bitcoin_pays_its_fee_out_of_the_hold() -> None:
    """Held: amount and maximum fee. Debited: amount and what was paid. The change comes back to the wallet, not to anybody."""
    shop = Workshop(chain=BITCOIN)
    hot, before = account_of(Tier.CUSTOMER_HOT, BITCOIN), shop.treasury.balance(AVAILABLE, BTC)
    in_wallet = shop.treasury.balance(hot, BTC)
    transfer = withdrawal(shop)
    assert before - shop.treasury.balance(AVAILABLE, BTC) == 10**7 + 20_000
    shop.run(transfer, steps=6)
    assert shop.get(transfer).status is Status.CONFIRMING
    assert "the watcher to book" in shop.get(transfer).waiting_for
    book_change(shop, transfer)
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    spent = 10**7 + shop.payouts.fee
    assert before - shop.treasury.balance(AVAILABLE, BTC) == spent
    assert in_wallet - shop.treasury.balance(hot, BTC) == spent
    assert shop.treasury.balance(HELD, BTC) == shop.treasury.balance(Account(AccountKind.SUSPENSE), BTC) == 0


def test_the_entry_is_what_ledger_verify_wants() -> None:
    """Its origin, recomputed by the auditor's own rule from hold and chain, gives exactly these postings."""
    shop = Workshop(chain=BITCOIN)
    transfer = withdrawal(shop)
    shop.run(transfer, steps=6)
    book_change(shop, transfer)
    shop.run(transfer)
    entries = shop.treasury.store.read(lambda work: work.journal.read())
    recorded = entries[-1]
    assert isinstance(recorded.entry.origin, Executed)
    held = next(e for e in entries if isinstance(e.entry.origin, Hold))
    assert isinstance(held.entry.origin, Hold)
    standing = {transfer.digest: Standing(held.position, held.entry.origin.intent)}
    assert list(check_executed(recorded, standing, Tier.CUSTOMER_HOT, ASSETS)) == []


def test_nobody_elses_suspense_is_taken() -> None:
    """Coins that somebody else sent are in suspense too; the entry waits for its own change all the same."""
    shop = Workshop(chain=BITCOIN)
    other = deposit(BTC, 5 * 10**8, Account(AccountKind.SUSPENSE), height=77)
    shop.treasury.store.run(lambda work: work.journal.append(other, shop.now))
    transfer = withdrawal(shop)
    shop.run(transfer, steps=8)
    assert shop.get(transfer).status is Status.CONFIRMING
    book_change(shop, transfer)
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    assert shop.treasury.balance(Account(AccountKind.SUSPENSE), BTC) == 5 * 10**8
