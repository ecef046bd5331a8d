# SPDX-License-Identifier: AGPL-3.0-or-later
"""One suite for every store: the fake, SQLite and PostgreSQL keep the same promises."""

import threading
from collections.abc import Callable
from functools import partial

import pytest

from custody.flows.ports import Store, UnitOfWork
from custody.rules.amounts import UINT256_MAX, Amount
from custody.rules.certificates import DepositAddress
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.errors import Unavailable
from custody.rules.ledger import (
    AccountKind,
    Entry,
    JournalEntry,
    JournalHead,
    Posting,
    Side,
    credit_deposit,
    entry_hash,
    manual,
    settle,
)
from custody.rules.origins import Reversal
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import FeeLeg
from custody.rules.signatures import Signature, Signed
from tests.fakes.ledger import (
    ANA_BTC,
    ANA_ETH,
    ASSETS,
    BTC,
    COIN,
    ETH,
    EVM,
    FEES,
    HOT,
    HOT_ETH,
    NOW,
    SETTLER,
    STRAY,
    SUSPENSE,
    USD,
    agreed,
    available,
    block_hash,
    coins,
    credit,
    move,
    native,
    reverse_deposit,
    settled,
    settlement,
    stray,
    token,
    trade,
)

ANA, BO = available("ana"), available("bo")
WALLET = bytes(range(32))


def put(store: Store, entry: Entry, at: int = NOW) -> JournalEntry:
    """Record one entry in a transaction of its own."""
    return store.run(lambda work: work.journal.append(entry, at))


def refusal(act: Callable[[], object]) -> set[Rule]:
    """The rules by which something is refused."""
    with pytest.raises(Refused) as caught:
        act()
    return {found.rule for found in caught.value.refusals}


def reversal_of(recorded: JournalEntry, had: int) -> Entry:
    """The entry that takes a native credit back while its owner has so much."""
    proof = recorded.entry.origin
    assert not isinstance(proof, Signed | Reversal)
    origin = Reversal(recorded.position, proof.chain, proof.height, proof.block, block_hash(proof.height, "other"))
    return reverse_deposit(recorded, origin, had)


class TestJournal:
    """Entries, positions, hashes, balances."""

    def test_empty(self, store: Store) -> None:
        """Before the first entry: position 0, no balance, nothing matured."""
        assert store.read(lambda work: work.journal.head()) == JournalHead()
        assert store.read(lambda work: (work.journal.read(), work.journal.get(1), list(work.journal.balances()))) == (
            [],
            None,
            [],
        )
        assert store.read(lambda work: (work.journal.balance(ANA, ETH), work.journal.matured_fees(ETH, NOW))) == (0, 0)

    def test_reads_back_what_was_recorded(self, store: Store) -> None:
        """Every kind of origin comes back equal, at positions 1, 2, 3 …, each on the hash before it."""
        suspense = credit_deposit(native(4, 9000, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 9000))
        entries = [
            credit(native(1)),
            credit(token(2)),
            credit(coins(3)),
            suspense,
            manual(agreed(move(100, str(stray(4)))), ASSETS),
            credit(token(5, 10**9)),
        ]
        recorded = [put(store, entry, NOW + n) for n, entry in enumerate(entries)]
        assert recorded == list(store.read(lambda work: work.journal.read()))
        assert [e.position for e in recorded] == [1, 2, 3, 4, 5, 6]
        assert [e.entry for e in recorded] == entries
        assert [e.previous for e in recorded] == [bytes(32), *(e.hash for e in recorded[:-1])]
        assert all(e.hash == entry_hash(e.position, e.recorded_at, e.previous, e.entry) for e in recorded)
        assert store.read(lambda work: work.journal.head()) == JournalHead(6, recorded[-1].hash)
        assert store.read(lambda work: [e.position for e in work.journal.read(2, 3)]) == [3, 4, 5]
        assert store.read(lambda work: work.journal.get(4)) == recorded[3]
        assert [(e.position, e.damage) for e in store.read(lambda work: work.journal.examine(1, 2))] == [
            (2, ()),
            (3, ()),
        ]

    def test_balances_and_totals(self, store: Store) -> None:
        """Running balances are on the natural side; totals add up over the accounts of a kind."""
        put(store, credit(native(1, 700)))
        put(store, credit(native(2, 300, ANA_ETH)))
        put(store, credit_deposit(native(3, 50, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 50)))
        put(store, manual(agreed(move(20, credit_to="customer_available:bo")), ASSETS))
        expected = {(HOT, ETH, 1050), (ANA, ETH, 1000), (STRAY, ETH, 30), (BO, ETH, 20)}
        assert store.read(lambda work: set(work.journal.balances())) == expected
        totals = {
            (AccountKind.WALLET, ETH, 1050),
            (AccountKind.CUSTOMER_AVAILABLE, ETH, 1020),
            (AccountKind.SUSPENSE, ETH, 30),
        }
        assert store.read(lambda work: set(work.journal.totals())) == totals
        assert store.read(lambda work: work.journal.total(AccountKind.CUSTOMER_AVAILABLE, ETH)) == 1020
        assert store.read(lambda work: work.journal.total(AccountKind.CUSTOMER_HELD, ETH)) == 0

    @pytest.mark.parametrize(
        "units", [2**63 - 1, 2**63, 10**19, 2**64, 10**30 + 1, UINT256_MAX], ids=lambda u: f"{u:.3e}"
    )
    def test_exact_at_every_size(self, store: Store, units: int) -> None:
        """Nothing is rounded, up to 2^256 − 1."""
        put(store, credit(token(1, units)))
        assert store.read(lambda work: work.journal.balance(ANA, USD)) == units
        assert store.read(lambda work: work.journal.read()[0].entry.postings[0].amount) == Amount(USD, units)

    def test_nothing_above_uint256(self, store: Store) -> None:
        """A balance that no chain could hold is refused, and the total over two accounts as well."""
        put(store, credit(token(1, UINT256_MAX)))
        assert refusal(lambda: put(store, credit(token(2, 1)))) == {Rule.TOO_LARGE}
        assert store.read(lambda work: work.journal.balance(ANA, USD)) == UINT256_MAX

    def test_nobody_below_zero(self, store: Store) -> None:
        """A settlement that one customer cannot pay leaves nothing, of anybody's."""
        put(store, credit(native(1, 10**17 - 1)))
        before = store.read(lambda work: (work.journal.head(), set(work.journal.balances())))
        entry = settle(settled(settlement()), ASSETS)
        assert refusal(lambda: put(store, entry)) == {Rule.INSUFFICIENT_BALANCE}
        assert before == store.read(lambda work: (work.journal.head(), set(work.journal.balances())))

    def test_refusal_has_its_numbers(self, store: Store) -> None:
        """Account, asset, balance and change are told for each account that is short, all at once."""
        put(store, credit(native(1, 40)))
        with pytest.raises(Refused) as caught:
            put(store, settle(settled(settlement(trade(units=100, usd=7))), ASSETS))
        assert [dict(r.operands) for r in caught.value.refusals] == [
            {"account": "customer_available:ana", "asset": "ETH", "balance": 40, "change": -100},
            {"account": "customer_available:bo", "asset": "USD", "balance": 0, "change": -7},
        ]

    def test_inside_one_transaction(self, store: Store) -> None:
        """What a work has appended counts for the next entry of the same work."""

        def work(work: UnitOfWork) -> tuple[int, int]:
            first = work.journal.append(credit_deposit(native(1, 500, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 500)), NOW)
            second = work.journal.append(manual(agreed(move(500, str(stray(1)))), ASSETS), NOW)
            return first.position, second.position

        assert store.run(work) == (1, 2)
        assert store.read(lambda work: work.journal.balance(ANA, ETH)) == 500


class TestOnce:
    """What is recorded once at most, ever."""

    @pytest.mark.parametrize("proof", [native(1), token(1), coins(1)], ids=["native", "token", "bitcoin"])
    def test_chain_event(self, store: Store, proof: object) -> None:
        """A chain event credits once."""
        entry = credit(proof)  # type: ignore[arg-type]  # a parameter
        put(store, entry)
        assert refusal(lambda: put(store, entry)) == {Rule.ALREADY_RECORDED}
        assert store.read(lambda work: work.journal.head().position) == 1

    def test_two_outputs_of_one_transaction(self, store: Store) -> None:
        """Two outputs are two events."""
        put(store, credit(coins(1, vout=0)))
        put(store, credit(coins(1, vout=1)))
        assert store.read(lambda work: work.journal.head().position) == 2

    def test_settlement_id(self, store: Store) -> None:
        """A settlement's id, even with other trades."""
        self._fund(store)
        put(store, settle(settled(settlement(trade("t1"))), ASSETS))
        again = settle(settled(settlement(trade("t2"))), ASSETS)
        assert refusal(lambda: put(store, again)) == {Rule.ALREADY_RECORDED}

    def test_trade_id(self, store: Store) -> None:
        """A trade settles once ever, whatever batch it comes in."""
        self._fund(store)
        put(store, settle(settled(settlement(trade("t1"), trade("t2"))), ASSETS))
        again = settle(settled(settlement(trade("t3"), trade("t2"), name="s2")), ASSETS)
        with pytest.raises(Refused) as caught:
            put(store, again)
        assert [dict(r.operands) for r in caught.value.refusals] == [{"kind": "trade", "id": "t2", "position": 3}]

    def test_many_trades(self, store: Store) -> None:
        """More trades than one IN list takes: each is found again."""
        self._fund(store)
        many = settle(settled(settlement(*(trade(f"t{n}", 1000, 10) for n in range(1200)))), ASSETS)
        put(store, many)
        again = settle(settled(settlement(trade("t1199", 1000, 10), name="s2")), ASSETS)
        assert refusal(lambda: put(store, again)) == {Rule.ALREADY_RECORDED}

    def test_manual_id(self, store: Store) -> None:
        """A manual entry's id."""
        put(store, credit_deposit(native(1, 9000, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 9000)))
        put(store, manual(agreed(move(10, str(stray(1)))), ASSETS))
        assert refusal(lambda: put(store, manual(agreed(move(20, str(stray(1)))), ASSETS))) == {Rule.ALREADY_RECORDED}

    def test_reversal(self, store: Store) -> None:
        """One entry is reversed once."""
        put(store, credit(native(9)))
        first = put(store, credit(native(1)))
        put(store, reversal_of(first, 10**18))
        assert Rule.ALREADY_RECORDED in refusal(lambda: put(store, reversal_of(first, 10**18)))

    @pytest.mark.parametrize("position", [3, 7], ids=["a reversal", "nothing there"])
    def test_reversal_of_no_credit(self, store: Store, position: int) -> None:
        """Only a credit can be reversed."""
        put(store, credit(native(9)))
        first = put(store, credit(native(1)))
        put(store, reversal_of(first, 10**18))
        origin = Reversal(position, EVM.name, 1, block_hash(1), block_hash(1, "other"))
        entry = Entry(origin, reversal_of(first, 10**18).postings)
        assert Rule.ORIGIN in refusal(lambda: put(store, entry))

    def test_block_that_came_back(self, store: Store) -> None:
        """After its reversal a chain event may be credited again, once, and so on."""
        for _ in range(3):
            recorded = put(store, credit(native(1)))
            assert refusal(lambda: put(store, credit(native(1)))) == {Rule.ALREADY_RECORDED}
            put(store, reversal_of(recorded, 10**18))
        assert store.read(lambda work: (work.journal.head().position, work.journal.balance(ANA, ETH))) == (6, 0)
        assert store.read(lambda work: [e.damage for e in work.journal.examine()]) == [()] * 6

    @staticmethod
    def _fund(store: Store) -> None:
        put(store, credit(native(1)))
        put(store, credit_deposit(token(2, 10**9), HOT, BO, Amount(USD, 10**9)))


class TestFees:
    """Fees accrue, ripen and are swept."""

    def test_ripen(self, store: Store) -> None:
        """A fee counts from its entry's time on, and not before."""
        self._accrue(store, NOW, "a", 100)
        self._accrue(store, NOW + 50, "b", 30)
        assert [self._matured(store, NOW + t) for t in (-1, 0, 49, 50)] == [0, 100, 100, 130]
        assert store.read(lambda work: work.journal.matured_fees(USD, NOW + 99)) == 0

    def test_swept(self, store: Store) -> None:
        """What was swept is gone from what was ripe, oldest first, and never makes it negative."""
        self._accrue(store, NOW, "a", 100)
        self._accrue(store, NOW + 50, "b", 30)
        sweep = (Posting(FEES, Side.DEBIT, Amount(ETH, 110)), Posting(HOT, Side.CREDIT, Amount(ETH, 110)))
        put(
            store, Entry(coins(77), sweep), NOW + 60
        )  # its origin comes with payouts; the postings are what counts here
        assert [self._matured(store, NOW + t) for t in (0, 50, 70)] == [0, 20, 20]

    def test_clock_that_ran_back(self, store: Store) -> None:
        """An entry recorded with an earlier time ripens with the one before it."""
        self._accrue(store, NOW + 50, "a", 100)
        self._accrue(store, NOW, "b", 30)
        assert [self._matured(store, NOW + t) for t in (0, 49, 50)] == [0, 0, 130]

    @staticmethod
    def _matured(store: Store, by: int) -> int:
        return store.read(lambda work: work.journal.matured_fees(ETH, by))

    @staticmethod
    def _accrue(store: Store, at: int, name: str, units: int) -> None:
        number = ord(name)
        put(store, credit(native(number)), at)
        put(store, credit_deposit(token(number, 10**9), HOT, BO, Amount(USD, 10**9)), at)
        fee = FeeLeg("ana", "ETH", units)
        put(store, settle(settled(settlement(trade(name, fees=[fee]), name=name)), ASSETS), at)


class TestTransactions:
    """All or nothing, snapshots, no writing where only reading is meant."""

    def test_failed_work_leaves_nothing(self, store: Store) -> None:
        """An exception in the middle of work takes back all that the work did."""

        def work(work: UnitOfWork) -> None:
            work.customers.add("ana")
            work.documents.put("roster", "1", {"a": "1"})
            work.deposits.follow([BlockRef(EVM, 1, block_hash(1), block_hash(0), NOW)], 10)
            work.journal.append(credit(native(1)), NOW)
            raise KeyError("crash")

        with pytest.raises(KeyError):
            store.run(work)
        assert store.read(lambda w: (w.customers.ids(), w.documents.all("roster"), w.deposits.newest(EVM))) == (
            frozenset(),
            [],
            None,
        )
        assert store.read(lambda w: (w.journal.head(), list(w.journal.balances()), list(w.journal.totals()))) == (
            JournalHead(),
            [],
            [],
        )
        store.run(lambda w: w.journal.append(credit(native(1)), NOW))

    def test_refused_entry_in_the_middle(self, store: Store) -> None:
        """Work that goes on after a refusal keeps what it did itself, and nothing of the refused entry."""

        def work(work: UnitOfWork) -> set[Rule]:
            work.journal.append(credit(native(1, 50)), NOW)
            found = refusal(lambda: work.journal.append(settle(settled(settlement()), ASSETS), NOW))
            work.journal.append(credit(native(2, 60)), NOW)
            return found

        assert store.run(work) == {Rule.INSUFFICIENT_BALANCE}
        assert store.read(lambda work: (work.journal.head().position, work.journal.balance(ANA, ETH))) == (2, 110)

    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(lambda work: work.journal.append(credit(native(1)), NOW), id="journal"),
            pytest.param(lambda work: work.customers.add("ana"), id="customer"),
            pytest.param(lambda work: work.documents.put("k", "1", {}), id="document"),
            pytest.param(lambda work: work.deposits.record(sighting(1)), id="deposit"),
        ],
    )
    def test_read_cannot_write(self, store: Store, write: Callable[[UnitOfWork], object]) -> None:
        """A snapshot refuses every write."""
        with pytest.raises(Unavailable):
            store.read(write)
        assert store.read(lambda work: (work.journal.head().position, work.customers.ids())) == (0, frozenset())

    def test_snapshot_is_one(self, store: Store) -> None:
        """A read sees one state from its first look to its last, whatever is committed meanwhile."""
        put(store, credit(native(1, 100)))
        looked, wrote = threading.Event(), threading.Event()

        def write() -> None:
            looked.wait(20)
            put(store, credit(native(2, 11)))
            wrote.set()

        def work(work: UnitOfWork) -> list[int]:
            seen = [work.journal.balance(ANA, ETH)]
            looked.set()
            assert wrote.wait(20)
            return [
                *seen,
                work.journal.balance(ANA, ETH),
                work.journal.total(AccountKind.WALLET, ETH),
                len(work.journal.read()),
            ]

        writer = threading.Thread(target=write)
        writer.start()
        assert store.read(work) == [100, 100, 100, 1]
        writer.join()
        assert store.read(lambda work: work.journal.balance(ANA, ETH)) == 111

    def test_threads_on_one_balance(self, store: Store) -> None:
        """Eight threads take from one balance: exactly as many succeed as it holds, and it is never below zero."""
        put(store, credit_deposit(native(1, 10 * 100, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 10 * 100)))
        succeeded: list[int] = []
        refused: list[Refusal] = []

        def take(thread: int) -> None:
            for number in range(3):
                try:
                    put(store, manual(agreed(move(100, str(stray(1)), name=f"m{thread}/{number}")), ASSETS))
                    succeeded.append(thread)
                except Refused as error:
                    refused.extend(error.refusals)

        threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(succeeded), len(refused)) == (10, 14)
        assert {r.rule for r in refused} == {Rule.INSUFFICIENT_BALANCE}
        assert store.read(lambda work: (work.journal.balance(SUSPENSE, ETH), work.journal.balance(ANA, ETH))) == (
            0,
            1000,
        )
        assert store.read(lambda work: [e.position for e in work.journal.read()]) == list(range(1, 12))


def sighting(height: int, units: int = 10**18, fork: str = "") -> Sighting:
    """Native coins seen at ana's address."""
    return Sighting(Amount(ETH, units), ANA_ETH, native(height, units, fork=fork))


def _record(seen: Sighting, work: UnitOfWork) -> None:
    work.deposits.record(seen)


def _add(customer: str, work: UnitOfWork) -> None:
    work.customers.add(customer)


def _bind(signed: Signed[DepositAddress], work: UnitOfWork) -> None:
    work.customers.add_address(signed)


class TestDeposits:
    """Sightings move along a table; blocks are followed and forgotten."""

    def test_follow_and_forget(self, store: Store) -> None:
        """Blocks below `keep` are forgotten, per chain; the same block again is fine."""
        blocks = [BlockRef(EVM, n, block_hash(n), block_hash(n - 1), NOW) for n in range(10, 20)]
        store.run(lambda work: work.deposits.follow([BlockRef(BTC, 3, block_hash(3), block_hash(2), NOW)], 4))
        store.run(lambda work: work.deposits.follow(blocks, 4))
        store.run(lambda work: work.deposits.follow(blocks[-2:], 4))
        assert store.read(lambda w: (w.deposits.newest(EVM), w.deposits.newest(BTC))) == (19, 3)
        kept = store.read(lambda w: [n for n in range(30) if w.deposits.followed(EVM, n) is not None])
        assert kept == [15, 16, 17, 18, 19]
        assert store.read(lambda w: w.deposits.followed(EVM, 15)) == block_hash(15)

    def test_unfollow(self, store: Store) -> None:
        """Blocks above a height go; then others can be followed there, before that they are refused."""
        blocks = [BlockRef(EVM, n, block_hash(n), block_hash(n - 1), NOW) for n in (1, 2, 3)]
        other = BlockRef(EVM, 3, block_hash(3, "other"), block_hash(2), NOW)
        store.run(lambda work: work.deposits.follow(blocks, 100))
        assert refusal(lambda: store.run(lambda w: w.deposits.follow([other], 100))) == {Rule.ALREADY_EXISTS}
        store.run(lambda work: work.deposits.unfollow(EVM, 2))
        assert store.read(lambda w: w.deposits.newest(EVM)) == 2
        store.run(lambda work: work.deposits.follow([other], 100))
        assert store.read(lambda w: w.deposits.followed(EVM, 3)) == other.hash

    def test_record_once(self, store: Store) -> None:
        """A sighting seen twice is one deposit; every kind of proof comes back equal."""
        found = [sighting(3), sighting(1), Sighting(Amount(COIN, 10**8), ANA_BTC, coins(2))]
        for each in (*found, found[0]):
            store.run(partial(_record, each))
        kept = store.read(lambda work: work.deposits.all())
        assert [(d.sighting, d.status, d.position) for d in kept] == [
            (s, DepositStatus.SEEN, None) for s in (found[2], found[1], found[0])
        ]

    def test_waiting(self, store: Store) -> None:
        """Only SEEN ones, only up to the height, ascending."""
        for height in (5, 3, 4, 6):
            store.run(partial(_record, sighting(height)))
        store.run(lambda work: work.deposits.move(sighting(4).identity, DepositStatus.DUST))
        assert [d.sighting.proof.height for d in store.read(lambda w: w.deposits.waiting(EVM, 5))] == [3, 5]
        assert [d.sighting.proof.height for d in store.read(lambda w: w.deposits.at_or_above(EVM, 4))] == [4, 5, 6]
        assert store.read(lambda w: (w.deposits.waiting(BTC, 99), w.deposits.at_or_above(BTC, 0))) == ([], [])

    def test_life(self, store: Store) -> None:
        """Credited, reversed, seen again; the position is that of the credit in force."""
        seen = sighting(1)

        def standing() -> tuple[DepositStatus, int | None]:
            (kept,) = store.read(lambda work: work.deposits.all())
            return kept.status, kept.position

        store.run(lambda work: work.deposits.record(seen))
        store.run(lambda work: self._credit(work, seen))
        assert standing() == (DepositStatus.CREDITED, 1)
        store.run(lambda work: work.deposits.record(seen))
        assert standing() == (DepositStatus.CREDITED, 1)
        store.run(lambda work: work.deposits.move(seen.identity, DepositStatus.REVERSED))
        assert standing() == (DepositStatus.REVERSED, 1)
        store.run(lambda work: work.deposits.record(seen))
        assert standing() == (DepositStatus.SEEN, None)

    def test_credited(self, store: Store) -> None:
        """Outpoints that stand credited: not one that was only seen, was taken back, or is no deposit; 1,200 asked for at once."""
        seen = {height: Sighting(Amount(COIN, 10**8), ANA_BTC, coins(height)) for height in (1, 2, 3, 4)}
        point = {height: f"{s.proof.txid.hex()}:{s.proof.vout}" for height, s in seen.items()}  # type: ignore[union-attr]
        for each in seen.values():
            store.run(partial(_record, each))
        for height in (1, 2, 3):
            store.run(partial(self._credit, seen=seen[height]))
        store.run(lambda work: work.deposits.move(seen[3].identity, DepositStatus.REVERSED))
        others = [f"{number:064x}:0" for number in range(1_200)]
        asked = [*others, *point.values()]
        assert store.read(lambda w: w.deposits.credited(BTC, asked)) == {point[1], point[2]}
        assert store.read(lambda w: w.deposits.credited(BTC, [point[2]])) == {point[2]}
        assert store.read(lambda w: (w.deposits.credited(BTC, ()), w.deposits.credited(EVM, asked))) == (
            frozenset(),
            frozenset(),
        )

    @pytest.mark.parametrize(
        ("to", "position", "rule"),
        [
            pytest.param(DepositStatus.REVERSED, None, Rule.MOVE_NOT_ALLOWED, id="reversed before it was credited"),
            pytest.param(DepositStatus.SEEN, None, Rule.MOVE_NOT_ALLOWED, id="seen twice"),
            pytest.param(DepositStatus.CREDITED, None, Rule.MALFORMED, id="credited without an entry"),
            pytest.param(DepositStatus.ORPHANED, 1, Rule.MALFORMED, id="orphaned with an entry"),
        ],
    )
    def test_refused_moves(self, store: Store, to: DepositStatus, position: int | None, rule: Rule) -> None:
        """A move that the table does not have changes nothing."""
        store.run(lambda work: work.deposits.record(sighting(1)))
        put(store, credit(native(1)))
        assert refusal(lambda: store.run(lambda w: w.deposits.move(sighting(1).identity, to, position))) == {rule}
        assert store.read(lambda work: work.deposits.all()[0].status) is DepositStatus.SEEN

    def test_unknown_deposit(self, store: Store) -> None:
        """What was never seen cannot move."""
        assert refusal(lambda: store.run(lambda w: w.deposits.move("x", DepositStatus.DUST))) == {Rule.MOVE_NOT_ALLOWED}

    @staticmethod
    def _credit(work: UnitOfWork, seen: Sighting) -> None:
        recorded = work.journal.append(credit(seen.proof), NOW)
        work.deposits.move(seen.identity, DepositStatus.CREDITED, recorded.position)


def binding(customer: str = "ana", index: int = 0, wallet: bytes = WALLET, address: str = "") -> Signed[DepositAddress]:
    """A binding with some signature; the store keeps it, others check it."""
    message = DepositAddress(wallet, EVM.name, customer, index, address or f"0x{index:040x}")
    return Signed(message, (Signature(SETTLER.key, bytes(64)),))


class TestCustomers:
    """Customers, and one address for ever at one wallet."""

    def test_add(self, store: Store) -> None:
        """Each customer once, and none without a name."""
        store.run(lambda work: work.customers.add("ana"))
        store.run(lambda work: work.customers.add("Ünal:7"))
        assert refusal(lambda: store.run(lambda w: w.customers.add("ana"))) == {Rule.ALREADY_EXISTS}
        assert refusal(lambda: store.run(lambda w: w.customers.add(""))) == {Rule.MALFORMED}
        assert store.read(lambda work: work.customers.ids()) == {"ana", "Ünal:7"}

    def test_addresses(self, store: Store) -> None:
        """They come back as they were signed, by index, and the lowest free index is told."""
        for name in ("ana", "bo", "cy"):
            store.run(partial(_add, name))
        assert store.read(lambda work: work.customers.next_index(WALLET)) == 0
        for name, index in (("ana", 2), ("bo", 0)):
            store.run(partial(_bind, binding(name, index)))
        assert store.read(lambda work: work.customers.next_index(WALLET)) == 1
        store.run(lambda work: work.customers.add_address(binding("cy", 1)))
        assert store.read(lambda work: work.customers.next_index(WALLET)) == 3
        assert store.read(lambda work: work.customers.addresses()) == [
            binding("bo", 0),
            binding("cy", 1),
            binding("ana", 2),
        ]
        assert store.read(lambda work: work.customers.addresses(BTC)) == []
        assert store.read(lambda work: work.customers.address_of("ana", WALLET)) == binding("ana", 2)
        assert store.read(lambda work: work.customers.address_of("ana", bytes(32))) is None

    @pytest.mark.parametrize(
        ("second", "rules"),
        [
            pytest.param(binding("bo", 0, address="0xaa"), {Rule.INDEX_BOUND}, id="index of the wallet"),
            pytest.param(binding("bo", 1, address=f"0x{0:040x}"), {Rule.ALREADY_EXISTS}, id="address on the chain"),
            pytest.param(binding("ana", 1), {Rule.ALREADY_EXISTS}, id="a second one for the customer"),
            pytest.param(binding("nobody", 1), {Rule.UNKNOWN_CUSTOMER}, id="unknown customer"),
            pytest.param(
                binding("nobody", 0),
                {Rule.UNKNOWN_CUSTOMER, Rule.INDEX_BOUND, Rule.ALREADY_EXISTS},
                id="every reason at once",
            ),
        ],
    )
    def test_refused(self, store: Store, second: Signed[DepositAddress], rules: set[Rule]) -> None:
        """Nothing of a binding is ever bound twice."""
        for name in ("ana", "bo"):
            store.run(partial(_add, name))
        store.run(lambda work: work.customers.add_address(binding()))
        assert refusal(lambda: store.run(lambda w: w.customers.add_address(second))) == rules
        assert store.read(lambda work: work.customers.addresses()) == [binding()]

    def test_same_index_of_another_wallet(self, store: Store) -> None:
        """An index belongs to a wallet."""
        store.run(lambda work: work.customers.add("ana"))
        other = binding(wallet=bytes(32), address="0xbb")
        for each in (binding(), other):
            store.run(partial(_bind, each))
        assert store.read(lambda work: len(work.customers.addresses())) == 2


class TestDocuments:
    """A mirror of what was signed."""

    def test_put_once(self, store: Store) -> None:
        """The same body again is fine, another one is refused; order is that of storing."""
        store.run(lambda work: work.documents.put("roster", "b", {"z": "1", "a": {"n": ["2"]}}))
        store.run(lambda work: work.documents.put("roster", "a", {"x": "1"}))
        store.run(lambda work: work.documents.put("roster", "b", {"a": {"n": ["2"]}, "z": "1"}))
        assert refusal(lambda: store.run(lambda w: w.documents.put("roster", "b", {"z": "2"}))) == {Rule.ALREADY_EXISTS}
        assert store.read(lambda work: work.documents.all("roster")) == [{"z": "1", "a": {"n": ["2"]}}, {"x": "1"}]
        assert store.read(lambda w: (w.documents.get("roster", "a"), w.documents.get("other", "a"))) == (
            {"x": "1"},
            None,
        )
