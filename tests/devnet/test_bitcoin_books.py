# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a payout brings back is booked once: the watcher, the payout's entry and its audit on a real bitcoind."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from custody.chains.addresses import ChainDeriver
from custody.chains.bitcoin.payouts import BitcoinPayouts
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.scripts import change_address, receive_address
from custody.chains.bitcoin.view import BitcoinView
from custody.chains.payloads import decode
from custody.flows import payouts as posting
from custody.flows.deposits import step
from custody.flows.inventory import Inventory, Wallet
from custody.flows.kernel import Kernel
from custody.flows.mirror import CERTIFICATE, put_signed
from custody.flows.ports import UnitOfWork
from custody.rules import holds
from custody.rules.amounts import Amount
from custody.rules.certificates import DepositAddress
from custody.rules.housekeeping import Consolidation
from custody.rules.intents import Proposal, TransferIntent
from custody.rules.ledger import Account, AccountKind, Entry, Posting, Side
from custody.rules.origins import BitcoinProof, Executed, Hold
from custody.rules.payments import Derived, Mined, Payment, UnsignedPayout
from custody.rules.payouts import CHANGE_WINDOW, VOID_CHANGE
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.wallets import Tier
from devnet.bitcoind import MINER, Bitcoind
from devnet.throwaway import SeatedWallet, seated_script
from tests.devnet.test_bitcoin_payouts import World, every
from tests.devnet.test_executed import intent_of
from tests.fakes.bitcoin import ASSETS, BTC, CONFIRMATIONS, REGTEST
from tests.fakes.store import FakeStore

_WALLETS = count()
ANA: Final = Account(AccountKind.CUSTOMER_AVAILABLE, "ana")
SUSPENSE: Final = Account(AccountKind.SUSPENSE)
SURPLUS: Final = Account(AccountKind.COMPANY_SURPLUS)
DEPOSIT: Final = 10**8
COMPANY: Final = 10**6
"""Satoshi that the company has in the hot wallet."""


@dataclass
class Books:
    """A hot wallet, of which ana has receive index 0, a cold one, the watcher's view, and a ledger."""

    world: World
    cold: SeatedWallet
    view: BitcoinView
    inventory: Inventory
    store: FakeStore

    def wallet(self, seated: SeatedWallet) -> Wallet:
        """A wallet as the inventory has it."""
        return self.inventory.wallets[seated.name]

    def watch(self) -> None:
        """Everything final is seen and credited."""
        self.world.node.mine(CONFIRMATIONS)
        while step(self.store, self.view, self.inventory, ASSETS, lambda: 1).behind:
            pass

    def balance(self, account: Account) -> int:
        """Satoshi in the ledger."""
        units: int = self.store.read(lambda work: work.journal.balance(account, BTC))
        return units

    def credited(self, outpoints: Collection[str]) -> Collection[str]:
        """What authorize hands to the chain's side."""
        found: Collection[str] = self.store.read(lambda work: work.deposits.credited(REGTEST, outpoints))
        return found

    def check(self) -> None:
        """Each wallet has in the ledger what it has on chain; ana has her deposit once; nothing is left in suspense."""
        for wallet in self.inventory:
            assert self.balance(wallet.account) == self.view.balance(BTC, wallet.addresses, self.view.final())
        assert (self.balance(ANA), self.balance(SUSPENSE)) == (DEPOSIT, 0)

    def post(
        self, unsigned: UnsignedPayout, mined: Mined, intents: Sequence[TransferIntent] = (), *, void: bool = False
    ) -> Executed:
        """The payout's entry as the worker makes it, after the auditor's own reading of the chain confirmed it."""
        hot = self.wallet(self.world.wallet)
        kernel = cast("Kernel", SimpleNamespace(inventory=self.inventory, assets=ASSETS))
        post = posting.Post(self.store, kernel, self.world.payouts, self.view, decode, 1)
        decoded = self.world.wallet.decode(unsigned)
        done = Executed(
            chain=REGTEST.name,
            height=mined.height,
            block=mined.block,
            transaction=mined.transaction,
            anchor=unsigned.anchor,
            intents=tuple(bytes.fromhex(intent.id) for intent in intents),
            arrived=tuple(posting._arrived(post, hot, decoded)),
            fee=mined.fee,
            void=void,
        )

        def book(work: UnitOfWork) -> None:
            arrived = posting._booked(work, kernel, hot, done)
            assert not isinstance(arrived, str), arrived
            entry = holds.pay(replace(done, arrived=arrived), intents, Tier.CUSTOMER_HOT, ASSETS)
            assert entry is not None
            work.journal.append(entry, 1)

        assert self.view.confirm_executed(done, intents, self.inventory.holding_of) is None
        self.store.run(book)
        return done


@pytest.fixture
def books(bitcoind: Bitcoind) -> Books:
    """ana deposited one bitcoin, and the company has some coins in the hot wallet, for fees."""
    birth, number = bitcoind.height, next(_WALLETS)
    hot = seated_script(f"books-{number}", ASSETS, REGTEST, birth=birth)
    cold = seated_script(f"books-{number}-cold", ASSETS, REGTEST, birth=birth)
    cold = replace(cold, certificate=replace(cold.certificate, tier=Tier.CUSTOMER_COLD))
    hot = replace(hot, others=(cold.certificate,))
    rpc = BitcoinRpc(bitcoind.url, REGTEST, cookie=bitcoind.cookie_file)
    at = receive_address(hot.certificate, 0)
    bound = Signed(DepositAddress(hot.name, REGTEST.name, "ana", 0, at.text), ())
    inventory = Inventory([hot.signed, cold.signed], [bound], ChainDeriver())
    made = Books(
        World(bitcoind, hot, BitcoinPayouts(rpc, ASSETS)), cold, BitcoinView(rpc, ASSETS), inventory, FakeStore()
    )
    company = change_address(hot.certificate, 1)

    def furnish(work: UnitOfWork) -> None:
        for seated in (hot, cold):
            put_signed(work.documents, CERTIFICATE, seated.signed)
        work.customers.add("ana")
        work.customers.add_address(bound)

    made.store.run(furnish)
    bitcoind.pay(at.text, DEPOSIT)
    bitcoind.pay(company.text, COMPANY)
    made.watch()
    proof = BitcoinProof(REGTEST.name, birth, bytes(32), bytes(32), 0, company.text, COMPANY)
    amount = Amount(BTC, COMPANY)  # stands for make_whole, which would have brought these coins
    stands = made.store.read(lambda work: [account for account, _, _ in work.journal.balances()])
    (came,) = [account for account in stands if account.kind is AccountKind.SUSPENSE]
    whole = Entry(proof, (Posting(came, Side.DEBIT, amount), Posting(SURPLUS, Side.CREDIT, amount)))
    made.store.run(lambda work: work.journal.append(whole, 1))
    made.check()
    return made


def test_a_void_of_a_customers_coin_credits_nobody(books: Books) -> None:
    """The anchor lies at ana's address; its void goes to change: she is credited once, and the void's entry is posted."""
    dead = books.world.build([books.world.pay(30_000_000)])
    void = books.world.payouts.void(books.world.wallet.certificate, dead.anchor, outbid=dead.fee)
    (leaf,) = books.world.wallet.decode(void).leaves
    assert leaf.destination == change_address(books.world.wallet.certificate, VOID_CHANGE).text
    mined = books.world.send(void)
    books.watch()
    assert (books.balance(ANA), books.balance(SUSPENSE)) == (DEPOSIT, DEPOSIT - void.fee)
    books.post(void, mined, void=True)
    books.check()
    assert books.balance(SURPLUS) == COMPANY - void.fee


def _to_cold(books: Books, units: int) -> tuple[Payment, TransferIntent]:
    """A move that the company pays the fee of, held."""
    to = change_address(books.cold.certificate, 0)
    payment = Payment((7).to_bytes(32), "BTC", units, to, 50_000, Derived(books.cold.certificate, 1, 0))
    intent = replace(
        intent_of(payment, books.world.wallet.name),
        account="company",
        purpose="rebalance",
        destination_kind="internal_wallet",
    )
    proposal = Proposal("1", "company", REGTEST.name, "BTC", units, to.text, "rebalance", 2**40)
    held = holds.hold(Hold(proposal, (), intent), ASSETS)
    assert held is not None
    books.store.run(lambda work: work.journal.append(held, 1))
    return payment, intent


def test_a_move_to_cold_is_booked_once(books: Books) -> None:
    """Both outputs are ours, at change addresses of two wallets: nobody's deposit, and only the fee is gone, the company's."""
    units = 40_000_000
    payment, intent = _to_cold(books, units)
    unsigned = books.world.build([payment])
    mined = books.world.send(unsigned)
    books.watch()
    assert books.balance(ANA) == DEPOSIT
    assert books.balance(SUSPENSE) == DEPOSIT - unsigned.fee  # the move and its change, until its entry takes them back
    done = books.post(unsigned, mined, [intent])
    assert {arrived.wallet: arrived.units for arrived in done.arrived} == {
        books.cold.name: units,
        books.world.wallet.name: DEPOSIT - units - unsigned.fee,
    }
    books.check()
    assert books.balance(books.wallet(books.cold).account) == units
    assert books.balance(SURPLUS) == COMPANY - unsigned.fee


def test_a_payout_that_a_reorg_moves_is_booked_where_it_is_now(books: Books) -> None:
    """At finality + 1 on a real node: its entry is reversed to the unit, its hold stands, the same bytes settle in the new block."""
    payment, intent = _to_cold(books, 40_000_000)
    held = books.balance(Account(AccountKind.COMPANY_HELD, "company_surplus"))
    unsigned = books.world.build([payment])
    envelope = books.world.envelope(unsigned)
    mined = books.world.send(unsigned)
    books.watch()
    books.post(unsigned, mined, [intent])
    books.check()
    node, settled = books.world.node, books.balance(SURPLUS)
    assert node.height - mined.height + 1 > CONFIRMATIONS  # deeper than final

    orphan = mined.block.hex()
    node.rpc("invalidateblock", orphan)
    try:
        to = node.rpc("getnewaddress", wallet=MINER)
        node.rpc("generateblock", to, [])
        for _ in range(CONFIRMATIONS + 2):
            node.rpc("generateblock", to, [])
        report = step(books.store, books.view, books.inventory, ASSETS, lambda: 1)
        assert (report.reopened, report.reversed) == (
            0,
            2,
        )  # no transfer stands behind these books; the move and its change
        entries = books.store.read(lambda work: work.journal.read())
        assert [type(e.entry.origin).__name__ for e in entries[-3:]] == ["Reversal"] * 3
        assert books.balance(Account(AccountKind.COMPANY_HELD, "company_surplus")) == held
        assert books.balance(Account(AccountKind.REORG_LOSS)) == 0
        books.check()

        books.world.payouts.broadcast(envelope)
        node.mine(1)
        again = books.world.follow(envelope)
        assert isinstance(again, Mined)
        assert (again.transaction, again.block != mined.block) == (mined.transaction, True)
        books.watch()
        books.post(unsigned, again, [intent])
        books.check()
        assert books.balance(SURPLUS) == settled
    finally:
        node.rpc("reconsiderblock", orphan)


def test_small_coins_join_a_move_to_cold(books: Books) -> None:
    """Eight small coins end in its change, and one that nobody booked stays: ana has all hers, the company pays for it."""
    world, certificate = books.world, books.world.wallet.certificate
    small, units = 10_000, 40_000_000
    for _ in range(8):
        world.node.pay(receive_address(certificate, 0).text, small)
    books.watch()
    world.node.pay(receive_address(certificate, 500).text, small)  # of the descriptor, and of no book
    world.node.mine(CONFIRMATIONS)
    payment, intent = _to_cold(books, units)
    alone = world.payouts.next_anchor(world.wallet.name, certificate, [payment], (), books.credited)

    def pinned(rate: int, coin: int = 2 * small) -> tuple[str, ...]:
        bound = Consolidation(rate, coin)
        found = world.payouts.consolidate(certificate, alone, [payment], (), books.credited, bound)
        assert found.anchor == alone.anchor
        return found.references

    assert pinned(1_000) == alone.references  # the network asks for more than that
    assert pinned(10**6, small - 1) == alone.references  # no coin is small
    reservation = replace(alone, references=pinned(10**6))
    assert len(reservation.references) == len(alone.references) + 8
    unsigned = world.payouts.build(certificate, reservation, [payment])
    decoded = world.wallet.decode(unsigned)
    assert len(decoded.leaves) == 2
    assert decoded.fee <= payment.maximum_fee // 2
    mined = world.send(unsigned)
    books.watch()
    books.post(unsigned, mined, [intent])
    ours = books.wallet(world.wallet)
    assert books.balance(ours.account) == books.view.balance(BTC, ours.addresses, books.view.final())
    assert (books.balance(ANA), books.balance(SUSPENSE)) == (DEPOSIT + 8 * small, 0)
    assert books.balance(SURPLUS) == COMPANY - unsigned.fee
    left = world.payouts._wallet(certificate).coins(CONFIRMATIONS)
    assert sorted(coin.units for coin in left)[:2] == [
        small,
        COMPANY,
    ]  # the unbooked one, the company's, and the change
    assert len(left) == 3


def test_change_at_a_customers_address_never_confirms(books: Books) -> None:
    """If a quorum signed such a thing after all: ana is credited, and the auditor takes it for no void and no change."""
    certificate = books.world.wallet.certificate
    dead = books.world.build([books.world.pay(30_000_000)])
    void = books.world.payouts.void(certificate, dead.anchor)
    mined = books.world.send(void)
    books.watch()
    done = books.post(void, mined, void=True)
    ana = books.inventory.holding_of(receive_address(certificate, 0))
    there = change_address(certificate, VOID_CHANGE)
    refusal = books.view.confirm_executed(done, (), lambda a: ana if a == there else books.inventory.holding_of(a))
    assert refusal is not None
    assert refusal.operands["field"] == "outputs"


def test_more_payouts_than_change_addresses(books: Books) -> None:
    """Each payout's change goes to the next index, and once the window is used up to one of it again: all of it counts in the reserves."""
    world, used = books.world, list[int]()
    certificate = world.wallet.certificate
    for _ in range(2):  # more coins than payouts, at receive indices that are watched
        world.fund(*[10_000_000] * (CHANGE_WINDOW // 2 + 2))
    hot = books.wallet(world.wallet)
    before = books.view.balance(BTC, hot.addresses, books.view.final())
    taken, paid = list[str](), 0
    for number in range(CHANGE_WINDOW + 3):
        payments = [world.pay(1_000_000, intent=number)]
        reservation = world.payouts.next_anchor(world.wallet.name, certificate, payments, taken, every)
        unsigned = world.payouts.build(certificate, reservation, payments)
        world.payouts.broadcast(world.envelope(unsigned))
        taken += reservation.references
        used.append(reservation.change)
        paid += 1_000_000 + unsigned.fee
    world.node.mine(CONFIRMATIONS)
    assert before - paid == books.view.balance(BTC, hot.addresses, books.view.final())
    unused = list(range(2, CHANGE_WINDOW))  # index 1 has the company's coin, and the node counts on from there
    assert used[: len(unused)] == unused
    assert set(used) <= set(range(CHANGE_WINDOW))
    world.send(world.build([world.pay(90_000_000)]))  # change of all of them is spendable


def test_a_coin_that_the_books_do_not_know(books: Books) -> None:
    """Whoever knows the descriptor pays receive index 500: a payout with that coin could never be booked, so none is made with it."""
    world, certificate = books.world, books.world.wallet.certificate
    payment = world.pay(30_000_000)
    world.node.pay(receive_address(certificate, 500).text, 2 * DEPOSIT)
    books.watch()
    blind = world.build([payment])
    refused = books.view.confirm_executed(
        Executed(
            chain=REGTEST.name,
            height=(mined := world.send(blind)).height,
            block=mined.block,
            transaction=mined.transaction,
            anchor=blind.anchor,
            intents=(payment.intent,),
            arrived=(),
            fee=mined.fee,
            void=False,
        ),
        [intent_of(payment, world.wallet.name)],
        books.inventory.holding_of,
    )
    assert refused is not None
    assert refused.operands["field"] == "inputs"


def test_only_credited_coins_are_reserved(books: Books) -> None:
    """Not the unwatched one, though it is the largest, and too little without it; our own change once the watcher booked it."""
    world, certificate = books.world, books.world.wallet.certificate
    world.node.pay(receive_address(certificate, 500).text, 2 * DEPOSIT)
    books.watch()

    def reserve(units: int) -> tuple[str, ...]:
        payments = [world.pay(units)]
        return world.payouts.next_anchor(world.wallet.name, certificate, payments, (), books.credited).references

    known = {f"{d.sighting.proof.txid.hex()}:{d.sighting.proof.vout}" for d in _deposits(books)}
    with pytest.raises(Refused):
        reserve(DEPOSIT + COMPANY)
    (spent,) = reserve(30_000_000)
    assert spent in known
    payments = [world.pay(30_000_000)]
    reservation = world.payouts.next_anchor(world.wallet.name, certificate, payments, (), books.credited)
    unsigned = world.payouts.build(certificate, reservation, payments)
    world.send(unsigned)
    world.node.mine(CONFIRMATIONS)
    with pytest.raises(Refused):
        reserve(30_000_000)  # the change is final, but nobody has booked it
    books.watch()
    (change,) = reserve(30_000_000)
    assert change.startswith(unsigned.id.hex())


def _deposits(books: Books) -> list[Any]:
    found: list[Any] = books.store.read(lambda work: list(work.deposits.all()))
    return found
