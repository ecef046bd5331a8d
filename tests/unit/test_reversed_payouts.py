# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a reorg deeper than finality does to payouts and to customers: exact reversals, the same bytes again, and who is stopped."""

from dataclasses import replace
from typing import Any

import pytest

from custody.chains.bitcoin.scripts import change_address
from custody.flows import freezes
from custody.flows.bookkeeping import record_manual
from custody.flows.ports import UnitOfWork
from custody.flows.reorgs import standing, take_back
from custody.flows.reversals import check_reversed, find
from custody.rules.amounts import Amount
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.errors import Unavailable
from custody.rules.governance import Unfreeze
from custody.rules.ledger import Account, AccountKind, JournalEntry, credit_deposit, loss_of, replay, reverse
from custody.rules.origins import BitcoinProof, ChainProof, Executed, NativeProof, Reversal, identity_of
from custody.rules.payouts import VOID_CHANGE
from custody.rules.refusals import Refused, Rule
from custody.rules.settlements import ManualEntry, ManualPosting
from custody.rules.transfers import REOPENS, Status, SubStatus, Transfer, reopen
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.payouts import Workshop
from tests.fakes.seat import BITCOIN, EVM, rules_of
from tests.fakes.treasury import AVAILABLE, HELD, account_of, deposit, proposal
from tests.fakes.trust import ASSETS, BTC, ETH, PAYEE, world
from tests.unit.test_payout_flow import book_change, people, void_of, withdrawal

SURPLUS = Account(AccountKind.COMPANY_SURPLUS)
SUSPENSE = Account(AccountKind.SUSPENSE)


def balances(shop: Workshop) -> dict[str, int]:
    """Everything that stands, by account and asset."""
    entries = shop.treasury.store.read(lambda work: work.journal.read())
    return {f"{account} {asset}": units for (account, asset), units in replay(entries).items() if units}


def settled(shop: Workshop, *, void: bool = False) -> Transfer:
    """A withdrawal at its end: paid, or voided by people."""
    on_bitcoin = shop.chain == BITCOIN
    transfer = withdrawal(shop) if on_bitcoin else shop.queued()
    shop.step()
    if void:
        void_of(shop, transfer)
        shop.payouts.pool.clear()  # no block ever took the payout
        shop.step()
    finish(shop, transfer)
    return transfer


def finish(shop: Workshop, transfer: Transfer) -> None:
    """Blocks, its change booked by the watcher, and its entry."""
    shop.run(transfer, steps=6)
    if shop.chain == BITCOIN:
        _, height = shop.payouts.mined[shop.kept(transfer)[0].anchor.reference]
        book_change(shop, transfer) if not _is_void(shop, transfer) else book_void(shop, transfer, height)
        shop.run(transfer)


def _is_void(shop: Workshop, transfer: Transfer) -> bool:
    envelope, _ = shop.payouts.mined[shop.kept(transfer)[0].anchor.reference]
    return not shop.payouts.built[envelope.id].paid


def book_void(shop: Workshop, transfer: Transfer, height: int) -> None:
    """What the watcher does with what a void brings back."""
    envelope, _ = shop.payouts.mined[shop.kept(transfer)[0].anchor.reference]
    block = shop.payouts.view.block(height)
    assert block is not None
    address = change_address(world().certificate(Tier.CUSTOMER_HOT, BITCOIN), VOID_CHANGE)
    amount = Amount(BTC, 2 * 10**8 - shop.payouts.built[envelope.id].fee)
    proof = BitcoinProof(BITCOIN.name, height, block.hash, envelope.transaction, 0, address.text, amount.units)
    entry = credit_deposit(proof, account_of(Tier.CUSTOMER_HOT, BITCOIN), SUSPENSE, amount)
    sighting = Sighting(amount, Address(BITCOIN, address.text), proof)

    def work(work: UnitOfWork) -> None:
        work.deposits.record(sighting)
        position = work.journal.append(entry, shop.now).position
        work.deposits.move(sighting.identity, DepositStatus.CREDITED, position)

    shop.treasury.store.run(work)


def take_away(shop: Workshop) -> Any:
    """A reorg below finality: every block since the payout's is another now, and its watcher goes back."""
    fake, chain = shop.payouts, shop.payouts.view
    lowest = min(height for _, height in fake.mined.values())
    fake.nonce -= len(fake.mined)
    fake.mined.clear()
    chain.reorg(chain.head().height - lowest + 1)

    def work(work: UnitOfWork) -> Any:
        resting = standing(work, shop.chain, lowest)
        return take_back(work, resting, {height: chain.block(height) for height in resting.heights}, shop.now)

    return shop.treasury.store.run(work)


@pytest.mark.parametrize("void", [False, True], ids=["paid", "voided"])
@pytest.mark.parametrize("chain", [EVM, BITCOIN], ids=str)
def test_a_payout_is_reversed_exactly_and_settles_at_the_new_block(chain: Chain, void: bool) -> None:
    """Holds restored to the unit, the same stored bytes again, one payment in the end, and the same books as before."""
    shop = Workshop(chain=chain)
    shop.treasury.store.run(lambda work: work.journal.append(deposit(BTC, 2 * 10**8, SUSPENSE, height=77), shop.now))
    transfer = settled(shop, void=void)
    ended, in_the_end = shop.get(transfer).status, balances(shop)
    assert ended is (Status.CANCELLED if void else Status.COMPLETED)
    sent = {envelope.raw for envelope in shop.payouts.sent}
    built = len(shop.payouts.built)

    taken = take_away(shop)
    assert (taken.reopened, taken.reversed) == (1, 1 if chain == BITCOIN else 0)
    again = shop.get(transfer)
    assert (again.status, again.sub_status) == (REOPENS[ended], SubStatus.REORGED)
    assert "a reorg took block" in again.waiting_for
    asset, fee = (BTC, 20_000) if chain == BITCOIN else (ETH, 0)
    assert shop.treasury.balance(HELD, asset) == transfer.intent.amount + fee
    assert shop.treasury.balance(Account(AccountKind.REORG_LOSS), asset) == 0

    shop.step()
    finish(shop, transfer)
    assert shop.get(transfer).status is ended
    assert balances(shop) == in_the_end
    assert ({envelope.raw for envelope in shop.payouts.sent}, len(shop.payouts.built)) == (sent, built)
    assert len(shop.payouts.paid()) == (0 if void else 1)


def test_what_a_void_gave_back_and_was_spent_is_lost_and_filled() -> None:
    """The customer took it out meanwhile: a loss, not a balance below zero; the void that comes again fills it, and gives no more."""
    shop = Workshop(chain=BITCOIN)
    transfer = settled(shop, void=True)
    there = shop.treasury.balance(AVAILABLE, BTC)
    in_the_end = balances(shop)
    other = withdrawal_of(shop, there - 20_000, number=2)
    assert shop.treasury.balance(AVAILABLE, BTC) == 0
    take_away(shop)
    missing = transfer.intent.amount + 20_000 - shop.payouts.fee
    lost = shop.treasury.balance(loss_of(AVAILABLE), BTC)
    assert 0 < lost <= missing + shop.payouts.fee
    assert shop.treasury.balance(AVAILABLE, BTC) == 0
    shop.step()
    finish(shop, transfer)
    assert shop.get(transfer).status is Status.CANCELLED
    assert shop.treasury.balance(loss_of(AVAILABLE), BTC) == 0
    assert shop.treasury.balance(AVAILABLE, BTC) == 0
    held = {"customer_held:ada BTC": there, "customer_available:ada BTC": -there}
    assert balances(shop) == {
        key: units for key in in_the_end | held if (units := in_the_end.get(key, 0) + held.get(key, 0))
    }
    assert not shop.get(other).status.is_final


def withdrawal_of(shop: Workshop, units: int, number: int) -> Transfer:
    """ada asks for so much BTC."""
    changes: dict[str, Any] = {"chain": BITCOIN.name, "asset": "BTC", "destination": PAYEE[BITCOIN.name]}
    message = proposal(number, **changes, amount=units)
    return shop.treasury.propose(message, key=f"k{number}", number=number)


def test_a_chain_too_short_is_waited_for() -> None:
    """A reversal names what stands there now: without a block there, nothing is taken back."""
    shop = Workshop()
    transfer = settled(shop)
    before = balances(shop)

    def work(work: UnitOfWork) -> None:
        resting = standing(work, EVM, 0)
        take_back(work, resting, dict.fromkeys(resting.heights), shop.now)

    with pytest.raises(Unavailable):
        shop.treasury.store.run(work)
    assert (balances(shop), shop.get(transfer).status) == (before, Status.COMPLETED)


def test_a_payout_is_reversed_once() -> None:
    """A second reversal of the same entry, and one of an entry that rests on no block, are refused by the store."""
    shop = Workshop()
    settled(shop)
    take_away(shop)
    entries = shop.treasury.store.read(lambda work: work.journal.read())
    reversal = next(e for e in entries if isinstance(e.entry.origin, Reversal))
    hold = next(e for e in entries if type(e.entry.origin).__name__ == "Hold")
    for origin, rule in (
        (reversal.entry.origin, Rule.ALREADY_RECORDED),
        (Reversal(hold.position, EVM.name, 1, b"\1" * 32, b"\2" * 32), Rule.ORIGIN),
    ):
        assert isinstance(origin, Reversal)
        named = entries[origin.entry - 1]
        entry = reverse(named, origin, dict.fromkeys(named.entry.changes(), 10**30))
        with pytest.raises(Refused) as caught:
            shop.treasury.store.run(lambda work, e=entry: work.journal.append(e, shop.now))  # type: ignore[misc]
        assert rule in rules_of(caught.value)


@pytest.mark.parametrize("status", [s for s in Status if s not in REOPENS], ids=str)
def test_only_what_a_block_ended_begins_again(status: Status) -> None:
    """A transfer that a no, expiry or policy ended had no block; one that has not ended has nothing to reopen."""
    shop = Workshop()
    transfer = shop.get(shop.queued())

    stands = replace(transfer, status=status, sub_status=None, waiting_for="" if status.is_final else "x")
    with pytest.raises(Refused) as caught:
        reopen(stands, shop.now, "why")
    assert rules_of(caught.value) == {Rule.ILLEGAL_MOVE}


# a payout's own coins are nobody's to give away


def to_bo(event: str, units: int, asset: str = "BTC") -> Any:
    """Two people give bo what an event brought."""
    lines = (
        ManualPosting(f"suspense:{event}", asset, "debit", units),
        ManualPosting("customer_available:bo", asset, "credit", units),
    )
    return people(ManualEntry(f"m {event} {units}", "found the sender", lines))


def record(shop: Workshop, signed: Any) -> JournalEntry:
    """Record it."""
    kernel = shop.treasury.kernel
    return record_manual(shop.treasury.store, kernel.roster, signed, ASSETS, shop.now)


def test_change_that_flies_is_not_given_away() -> None:
    """While its payout is not booked nobody takes its change out of suspense; a stranger's coins beside it go as people say."""
    shop = Workshop(chain=BITCOIN)
    other = deposit(BTC, 5 * 10**8, SUSPENSE, height=77)
    shop.treasury.store.run(lambda work: work.journal.append(other, shop.now))
    transfer = withdrawal(shop)
    shop.run(transfer, steps=4)
    units = book_change(shop, transfer)
    change = shop.treasury.store.read(lambda work: work.deposits.all())[-1].sighting.identity
    with pytest.raises(Refused) as caught:
        record(shop, to_bo(change, units))
    assert rules_of(caught.value) == {Rule.RETURNING}
    assert isinstance(other.origin, ChainProof)
    record(shop, to_bo(identity_of(other.origin), 10**8))
    shop.run(transfer)
    assert shop.get(transfer).status is Status.COMPLETED
    with pytest.raises(Refused) as caught:
        record(shop, to_bo(change, 1))
    assert rules_of(caught.value) == {Rule.INSUFFICIENT_BALANCE}
    assert shop.treasury.balance(SUSPENSE, BTC) == 4 * 10**8


@pytest.mark.parametrize(
    ("before", "rules"),
    [
        pytest.param(False, {Rule.RETURNING}, id="a payout that was held for before the credit may be in its block"),
        pytest.param(True, set(), id="one that was held for only after it cannot"),
    ],
)
def test_native_coin_waits_for_payouts_of_before(before: bool, rules: set[Rule]) -> None:
    """Native coin is measured for a whole block: whose it is, is known once the payouts that may be in it have ended."""
    shop = Workshop()
    came = deposit(ETH, 10**18, SUSPENSE, height=78)
    proof = came.origin
    assert isinstance(proof, NativeProof)

    def arrive() -> None:

        sighting = Sighting(Amount(ETH, 10**18), Address(EVM, proof.address), proof)

        def work(work: UnitOfWork) -> None:
            work.deposits.record(sighting)
            work.deposits.move(sighting.identity, DepositStatus.CREDITED, work.journal.append(came, shop.now).position)

        shop.treasury.store.run(work)

    if before:
        arrive()
    transfer = shop.queued()
    shop.step()
    if not before:
        arrive()
    assert shop.get(transfer).status.is_asked
    signed = to_bo(identity_of(proof), 10**18, "ETH")
    if not rules:
        record(shop, signed)
        return
    with pytest.raises(Refused) as caught:
        record(shop, signed)
    assert rules_of(caught.value) == rules
    shop.run(transfer)
    record(shop, signed)


# whoever's deposit was reversed is stopped


def reverse_newest(shop: Workshop) -> Reversal:
    """A reorg takes back the newest credit."""
    entries = shop.treasury.store.read(lambda work: work.journal.read())
    recorded = next(e for e in reversed(entries) if isinstance(e.entry.origin, ChainProof))
    proof = recorded.entry.origin
    assert isinstance(proof, ChainProof)
    origin = Reversal(recorded.position, proof.chain, proof.height, proof.block, b"\7" * 32)

    def work(work: UnitOfWork) -> None:
        held = {key: work.journal.balance(*key) for key in recorded.entry.changes()}
        work.journal.append(reverse(recorded, origin, held), shop.now)

    shop.treasury.store.run(work)
    return origin


def arrives(shop: Workshop, units: int, height: int) -> None:
    """A deposit of ada's, credited as the watcher does it."""

    def work(work: UnitOfWork) -> None:

        proof = deposit(ETH, units, AVAILABLE, height=height).origin
        assert isinstance(proof, ChainProof)
        lost = work.journal.balance(loss_of(AVAILABLE), ETH)
        entry = credit_deposit(proof, account_of(Tier.CUSTOMER_HOT, EVM), AVAILABLE, Amount(ETH, units), lost)
        work.journal.append(entry, shop.now)

    shop.treasury.store.run(work)


def stopped(shop: Workshop, transfer: Transfer) -> set[Rule]:
    """Why `authorize` refuses; nothing where it permits."""
    found = shop.treasury.authorize(transfer)
    return {refusal.rule for refusals in getattr(found, "refusals", {}).values() for refusal in refusals}


def test_a_reversed_deposit_stops_its_customer_until_it_comes_back() -> None:
    """At once, whatever was spent: what is proposed waits as FROZEN, what is queued is not permitted; another customer's goes on."""
    shop = Workshop()
    queued = shop.queued()
    arrives(shop, 10**18, height=80)
    reverse_newest(shop)
    asked = shop.queued(2)
    assert (shop.get(asked).status, shop.get(asked).sub_status) == (Status.BLOCKED, SubStatus.FROZEN)
    assert "deposit_reversed" in shop.get(asked).waiting_for
    assert stopped(shop, queued) == {Rule.DEPOSIT_REVERSED}
    assert (shop.get(queued).status, shop.get(queued).sub_status) == (Status.BLOCKED, SubStatus.FROZEN)
    arrives(shop, 10**18 - 1, height=81)
    assert stopped(shop, queued) == {Rule.DEPOSIT_REVERSED}
    arrives(shop, 1, height=82)
    assert stopped(shop, queued) == set()


def test_two_reversed_deposits_are_not_made_up_by_one() -> None:
    """Each has to come back."""
    shop = Workshop()
    queued = shop.queued()
    for height in (80, 81):
        arrives(shop, 10**18, height=height)
        reverse_newest(shop)
    arrives(shop, 10**18, height=82)
    assert stopped(shop, queued) == {Rule.DEPOSIT_REVERSED}
    arrives(shop, 10**18, height=83)
    assert stopped(shop, queued) == set()


def test_people_let_the_customer_go_on() -> None:
    """A quorum's `Unfreeze` that names the reversal, a roster's delay after it, and no earlier."""
    shop = Workshop()
    queued = shop.queued()
    arrives(shop, 10**18, height=80)
    origin = reverse_newest(shop)
    store, kernel = shop.treasury.store, shop.treasury.kernel
    digest = origin.struct_hash
    assert store.read(lambda work: find(work, digest)) is not None
    drafted = store.read(lambda work: freezes.draft_unfreeze(work, kernel.roster, digest, "his bank called"))
    assert drafted.not_before == shop.now + kernel.roster.version.delay
    drafted = Unfreeze(digest, "his bank called", shop.now + 60)
    signed: Any = people(drafted, "ana", "dee")
    for what, at, rule in (
        (signed, shop.now, Rule.TOO_EARLY),
        (people(drafted, "ana"), drafted.not_before, Rule.QUORUM_NOT_REACHED),
        (people(Unfreeze(b"\3" * 32, "x", 0), "ana", "dee"), drafted.not_before, Rule.NOT_SUCCESSOR),
    ):
        with pytest.raises(Refused) as caught:
            freezes.unfreeze(store, kernel, what, at)  # type: ignore[arg-type]
        assert rule in rules_of(caught.value)
    freezes.unfreeze(store, kernel, signed, drafted.not_before)
    freezes.unfreeze(store, kernel, signed, drafted.not_before)
    assert stopped(shop, queued) == {Rule.DEPOSIT_REVERSED}  # not before its time
    shop.treasury.now = drafted.not_before
    assert Rule.DEPOSIT_REVERSED not in stopped(shop, queued)


def test_what_was_spent_stops_him_until_it_is_filled() -> None:
    """A loss outlives the unfreeze: what arrives fills it first, and then he may go on."""
    shop = Workshop()
    queued = shop.queued(1, amount=10**18)
    arrives(shop, 10**18, height=80)
    everything = shop.treasury.balance(AVAILABLE, ETH)
    shop.queued(2, amount=everything - 10**17)
    reverse_newest(shop)
    lost = 10**18 - 10**17
    assert shop.treasury.balance(loss_of(AVAILABLE), ETH) == lost
    assert shop.treasury.balance(AVAILABLE, ETH) == 0
    arrives(shop, 10**18, height=81)
    assert shop.treasury.balance(loss_of(AVAILABLE), ETH) == 0
    assert shop.treasury.balance(AVAILABLE, ETH) == 10**17
    assert stopped(shop, queued) == set()


def test_the_same_payment_in_another_block_is_not_owed_twice() -> None:
    """Paid in, taken out, reorganised away, and mined again elsewhere: nobody gained anything."""
    shop = Workshop()
    before = balances(shop)
    arrives(shop, 10**18, height=80)
    shop.queued(2, amount=shop.treasury.balance(AVAILABLE, ETH))
    reverse_newest(shop)
    arrives(shop, 10**18, height=81)
    after = balances(shop)
    assert "reorg_loss:customer_available:ada ETH" not in after
    assert after["customer_held:ada ETH"] == before["customer_available:ada ETH"] + 10**18


def test_a_company_transfer_passes() -> None:
    """What stops a customer stops nobody else."""
    shop = Workshop()
    arrives(shop, 10**18, height=80)
    reverse_newest(shop)

    transfer = shop.queued()
    intents = [replace(transfer.intent, account=account) for account in ("company", "customer:bo", "customer:ada")]
    kernel = shop.treasury.kernel
    found = [
        shop.treasury.store.read(lambda work, i=intent: len([*check_reversed(work, kernel, i, shop.now)]))  # type: ignore[misc]
        for intent in intents
    ]
    assert found == [0, 0, 1]


def test_executed_of_an_orphan_is_not_booked() -> None:
    """A watcher that went back already would not look there again: the entry waits for it."""
    shop = Workshop()
    transfer = shop.queued()
    shop.step()
    shop.payouts.mine()
    (height,) = {height for _, height in shop.payouts.mined.values()}

    other = BlockRef(EVM, height, b"\5" * 32, b"\4" * 32, shop.now)
    shop.treasury.store.run(lambda work: work.deposits.follow([other], 1000))
    shop.payouts.mine(3)
    report = shop.step()
    assert any("follows another block" in fault for fault in report.faults)
    assert not shop.get(transfer).status.is_final
    entries = shop.treasury.store.read(lambda work: work.journal.read())
    assert not any(isinstance(e.entry.origin, Executed) for e in entries)
