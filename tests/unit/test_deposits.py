# SPDX-License-Identifier: AGPL-3.0-or-later
"""The watcher's step: credited once, at finality, to whom the address is bound; and exactly taken back."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from custody.flows.deposits import StepReport
from custody.flows.mirror import CERTIFICATE, put_signed
from custody.flows.ports import Branch
from custody.rules.amounts import Amount, Asset
from custody.rules.deposits import BlockRef, DepositStatus, Sighting
from custody.rules.errors import Unavailable
from custody.rules.ledger import Account, AccountKind, Entry, Posting, Side, replay
from custody.rules.origins import ChainProof, Reversal
from custody.rules.refusals import Refusal, Rule
from custody.rules.wallets import Address, Tier
from custody.watcher import Pace, catch_up, line_of, watch, watch_forever
from tests.fakes import ledger
from tests.fakes.chain import FakeChain
from tests.fakes.house import DERIVE, DyingStore, House, address_of, binding, certificate, deployment
from tests.fakes.ledger import ASSETS, BTC, COIN, EQUITY, ETH, EVM, SUSPENSE, USD, agreed, move
from tests.fakes.seat import NOW

LOSS = Account(AccountKind.REORG_LOSS)


def ana(house: House) -> Address:
    """Ana's address on the EVM chain."""
    return address_of("ana", EVM, 0)


def statuses(house: House) -> list[DepositStatus]:
    """Where each deposit stands, in order."""
    return [deposit.status for deposit in house.store.read(lambda work: work.deposits.all())]


def entries(house: House) -> list[Entry]:
    """The journal."""
    return [recorded.entry for recorded in house.store.read(lambda work: work.journal.read())]


def spend(house: House, customer: str, asset: Asset, units: int) -> None:
    """What a customer had is another's now, as after a trade."""
    lines = (
        Posting(Account(AccountKind.CUSTOMER_AVAILABLE, customer), Side.DEBIT, Amount(asset, units)),
        Posting(Account(AccountKind.CUSTOMER_AVAILABLE, "bo"), Side.CREDIT, Amount(asset, units)),
    )
    note = agreed(move(name=f"m{house.store.read(lambda work: work.journal.head()).position}"))
    house.store.run(lambda work: work.journal.append(Entry(note, lines), NOW))


class Hasty(FakeChain):
    """A node whose balances at its head are those of the block after already, while it is `hasty` (Anvil, while it mines)."""

    hasty = True

    def head(self) -> BlockRef:
        """The one before the newest, which is being made."""
        return self._blocks[-2].ref if self.hasty else super().head()

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """What comes in the block after the last one seems to be in the last; what came in the first was told before."""
        if not self.hasty:
            return super().sightings(first, last, watched)
        at = self._blocks[last].ref
        early = super().sightings(first + 1, last + 1, watched)
        return [replace(s, proof=replace(s.proof, height=at.height, block=at.hash)) for s in early]


class Counted(threading.Event):
    """Is set after so many waits, and does something after some of them."""

    def __init__(self, steps: int, at: Mapping[int, Callable[[], object]]) -> None:
        super().__init__()
        self._left, self._at, self._waited = steps, at, 0

    def wait(self, timeout: float | None = None) -> bool:
        """One step further."""
        del timeout
        self._waited += 1
        self._at.get(self._waited, bool)()
        if self._waited == self._left:
            self.set()
        return self.is_set()


class TestReadAgain:
    """A balance read too early costs a second look, and no customer a deposit."""

    def chain(self) -> tuple[House, Hasty]:
        """Ana is paid in block 2, and the node says so of block 1."""
        house, chain = House(), Hasty(EVM)
        chain.mine()
        chain.mine((ETH, ana(house), 1000))
        first = house.step(chain)
        chain.mine()
        second = house.step(chain)
        assert (first.seen, second.seen) == (1, 0)
        chain.hasty = False
        return house, chain

    def test_what_came_is_credited(self) -> None:
        """In its own block, once; what stood in the block before is told, and never credited."""
        house, chain = self.chain()
        chain.mine_many(3)
        reports = [house.step(chain) for _ in range(5)]
        assert sum(report.credited for report in reports) == 1
        assert {refusal.rule for report in reports for refusal in report.refused} == {Rule.ORIGIN}
        assert house.balance("ana", "ETH") == 1000
        assert statuses(house) == [DepositStatus.SEEN, DepositStatus.CREDITED]

    def test_it_is_read_again_once(self) -> None:
        """Whatever a node goes on refusing, the watcher goes on with the chain."""
        house, chain = self.chain()
        chain.mine_many(30)
        house.settle(chain)
        chain.mine()
        reports = [house.step(chain) for _ in range(4)]
        assert [report.followed for report in reports] == [1, 0, 0, 0]
        assert [report.behind for report in reports] == [0, 0, 0, 0]

    def test_it_is_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """What stays refused is no news at the next step; what comes beside it is."""
        house, chain = self.chain()
        chain.mine_many(30)
        house.settle(chain)
        caplog.set_level(logging.INFO, logger="custody.watcher")
        stop = Counted(8, at={5: lambda: chain.mine((ETH, ana(house), 5))})
        watch(house.store, chain, house.inventory, ASSETS, house.clock, stop, poll=0)
        lines = [json.loads(record.getMessage()) for record in caplog.records]
        assert [(line["seen"], len(line["refused"])) for line in lines] == [(0, 1), (1, 1)]

    def test_a_crash_in_between(self) -> None:
        """Forgetting the blocks and noting why are one transaction."""
        house, chain = self.chain()
        chain.mine_many(3)
        for commits in range(1, 5):
            for after in (False, True):
                with suppress(DyingStore.Died):
                    house.step(chain, DyingStore(house.store, commits, after=after))
        house.settle(chain)
        house.step(chain)
        assert house.balance("ana", "ETH") == 1000

    def test_the_newest_measurement_counts(self) -> None:
        """The same event, measured otherwise: until it is booked the later reading takes the place of the first."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        (true,) = house.evm.sightings(0, 1, [ana(house)])
        wrong = replace(true, amount=Amount(ETH, 7), proof=replace(true.proof, after=7))
        for sighting, units in ((wrong, 7), (true, 1000)):
            house.store.run(lambda work, one=sighting: work.deposits.record(one))  # type: ignore[misc]
            (found,) = house.store.read(lambda work: work.deposits.all())
            assert (found.sighting.amount.units, found.status) == (units, DepositStatus.SEEN)


class TestCredit:
    """Nothing below finality, everything at it, once."""

    def test_at_finality_and_not_before(self) -> None:
        """Three confirmations: seen with one and two, credited with three."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        reports = [house.step(house.evm)]
        for _ in range(3):
            house.evm.mine()
            reports.append(house.step(house.evm))
        assert [report.seen for report in reports] == [1, 0, 0, 0]
        assert [report.credited for report in reports] == [0, 0, 1, 0]
        assert house.balance("ana", "ETH") == 1000

    @pytest.mark.parametrize(
        ("asset", "address", "owner"),
        [
            pytest.param(ETH, lambda: address_of("ana", EVM, 0), "ana", id="native to its customer"),
            pytest.param(USD, lambda: address_of("bo", EVM, 1), "bo", id="token to its customer"),
            pytest.param(COIN, lambda: address_of("bo", BTC, 1), "bo", id="bitcoin to its customer"),
            pytest.param(
                ETH,
                lambda: DERIVE.derive(certificate(Tier.CUSTOMER_HOT, EVM), Branch.RECEIVE, 3),
                SUSPENSE,
                id="an address nobody is bound to: suspense",
            ),
            pytest.param(
                USD,
                lambda: DERIVE.main(certificate(Tier.CUSTOMER_HOT, EVM)),
                SUSPENSE,
                id="the omnibus Safe itself: suspense",
            ),
            pytest.param(
                COIN,
                lambda: DERIVE.derive(certificate(Tier.CUSTOMER_HOT, BTC), Branch.CHANGE, 2),
                SUSPENSE,
                id="a change address: suspense",
            ),
            pytest.param(
                COIN,
                lambda: DERIVE.derive(certificate(Tier.CUSTOMER_COLD, BTC), Branch.RECEIVE, 0),
                SUSPENSE,
                id="a cold address: suspense",
            ),
            pytest.param(
                ETH, lambda: DERIVE.main(certificate(Tier.OPERATIONAL, EVM)), EQUITY, id="the company's own: equity"
            ),
        ],
    )
    def test_owner(self, asset: Asset, address: Callable[[], Address], owner: str | Account) -> None:
        """Whom an arrival is booked to."""
        house = House()
        chain = house.evm if asset.chain == EVM else house.btc
        chain.mine((asset, address(), 5000))
        chain.mine_many(2)
        house.settle(chain)
        assert house.balance(owner, asset.symbol) == 5000
        assert len(entries(house)) == 1

    @pytest.mark.parametrize(
        ("units", "status", "balance"),
        [
            pytest.param(9, DepositStatus.DUST, 0, id="below dust"),
            pytest.param(10, DepositStatus.CREDITED, 10, id="exactly dust"),
            pytest.param(2**200, DepositStatus.CREDITED, 2**200, id="more than 64 bits"),
        ],
    )
    def test_dust(self, units: int, status: DepositStatus, balance: int) -> None:
        """Below the asset's dust nothing is ever credited."""
        house = House()
        house.evm.mine((ETH, ana(house), units))
        house.evm.mine_many(4)
        house.settle(house.evm)
        house.step(house.evm)
        assert [status] == statuses(house)
        assert balance == house.balance("ana", "ETH")

    def test_two_in_one_block(self) -> None:
        """Two token transfers to one address, two owners and a native arrival in one block: each credited once."""
        house = House()
        bo = address_of("bo", EVM, 1)
        house.evm.mine((USD, ana(house), 7), (USD, ana(house), 7), (USD, bo, 5), (ETH, ana(house), 100))
        house.evm.mine_many(2)
        assert house.step(house.evm).credited == 4
        assert (house.balance("ana", "USD"), house.balance("bo", "USD"), house.balance("ana", "ETH")) == (14, 5, 100)

    def test_stranger_is_not_seen(self) -> None:
        """Coins at an address that is not ours are nobody's business."""
        house = House()
        house.evm.mine((ETH, Address(EVM, "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"), 1000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        assert statuses(house) == []

    def test_starts_at_birth_and_restarts_anywhere(self) -> None:
        """Follows from the earliest birth in small ranges, each step a process of its own, and ends where one range would."""
        house = House()
        for _ in range(7):
            house.evm.mine((ETH, ana(house), 100))
        house.evm.mine_many(2)
        reports = [house.step(house.evm, max_blocks=2) for _ in range(6)]
        assert [report.behind for report in reports] == [7, 5, 3, 1, 0, 0]
        assert [report.followed for report in reports] == [2, 2, 2, 2, 1, 0]
        assert house.balance("ana", "ETH") == 700

    def test_confirmed_again_at_the_source(self) -> None:
        """What the node takes back when it is asked again is not credited, and stays seen."""
        house = House()

        class Forgetful(type(house.evm)):  # type: ignore[misc]  # the class of this house's chain
            def confirm(self, proof: ChainProof) -> Refusal | None:
                return Refusal(Rule.ORIGIN, event="not there")

        house.evm.__class__ = Forgetful
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        report = house.step(house.evm)
        assert ([refusal.rule for refusal in report.refused], report.credited) == ([Rule.ORIGIN], 0)
        assert statuses(house) == [DepositStatus.SEEN]


class TestReorg:
    """A reorg before finality costs nothing; after it, a reversal, exactly."""

    def test_before_finality(self) -> None:
        """Seen, orphaned, never credited."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine()
        house.step(house.evm)
        house.evm.reorg(2)
        report = house.step(house.evm)
        house.evm.mine_many(5)
        house.settle(house.evm)
        assert (report.orphaned, report.reversed) == (1, 0)
        assert (statuses(house), entries(house)) == ([DepositStatus.ORPHANED], [])

    def test_same_transaction_in_another_block(self) -> None:
        """Orphaned there, credited here: once in all."""
        house = House()
        coin = address_of("ana", BTC, 0)
        house.btc.mine((COIN, coin, 70_000))
        house.settle(house.btc)
        house.btc.reorg(1, (), ((COIN, coin, 70_000),))
        house.btc.mine_many(3)
        house.settle(house.btc)
        assert statuses(house) == [DepositStatus.ORPHANED, DepositStatus.CREDITED]
        assert house.balance("ana", "BTC") == 70_000

    @pytest.mark.parametrize(
        ("spent", "left", "loss"),
        [
            pytest.param(0, 0, 0, id="unspent: taken back whole"),
            pytest.param(400, 0, 400, id="partly spent: the rest is a loss"),
            pytest.param(1000, 0, 1000, id="all spent: all of it is a loss"),
        ],
    )
    def test_beyond_finality(self, spent: int, left: int, loss: int) -> None:
        """A credited deposit that vanishes is reversed; what its owner no longer has is a shortfall."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        if spent:
            spend(house, "ana", ETH, spent)
        house.evm.reorg(4)
        report = house.step(house.evm)
        assert (report.orphaned, report.reversed) == (0, 1)
        assert (left, loss) == (house.balance("ana", "ETH"), house.balance(LOSS, "ETH"))
        assert statuses(house) == [DepositStatus.REVERSED]
        reversal = entries(house)[-1].origin
        canonical = house.evm.block(1)
        assert isinstance(reversal, Reversal)
        assert canonical is not None
        assert (1, 1, canonical.hash) == (reversal.entry, reversal.height, reversal.canonical)

    def test_owner_keeps_what_other_deposits_brought(self) -> None:
        """Only what is missing goes to the loss: a second deposit below the fork covers the first."""
        house = House()
        house.evm.mine((ETH, ana(house), 300))
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        spend(house, "ana", ETH, 500)
        house.evm.reorg(4)
        house.settle(house.evm)
        assert (house.balance("ana", "ETH"), house.balance(LOSS, "ETH")) == (0, 200)

    def test_reorg_of_a_reorg(self) -> None:
        """The old branch comes back, with its hashes: credited, reversed, credited again."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        dropped = house.evm.reorg(4)
        house.settle(house.evm)
        assert house.balance("ana", "ETH") == 0
        house.evm.rollback(4)
        house.evm.adopt(dropped)
        house.evm.mine()
        house.settle(house.evm)
        assert house.balance("ana", "ETH") == 1000
        assert statuses(house) == [DepositStatus.CREDITED]
        assert len(entries(house)) == 3

    def test_deeper_than_what_is_kept(self) -> None:
        """The fork lies below every kept block: credited deposits above it are found and reversed, those below stay."""
        house = House()
        house.evm.mine((ETH, ana(house), 300))
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(10)
        while house.step(house.evm, max_blocks=3, keep=2).behind:
            pass
        house.evm.reorg(11, (), ((ETH, ana(house), 50),))
        reports = [house.step(house.evm, max_blocks=4, keep=2) for _ in range(4)]
        assert reports[0].reversed == 1
        assert reports[-1].behind == 0
        assert house.balance("ana", "ETH") == 350

    def test_deeper_than_every_deposit(self) -> None:
        """Nothing that was ever recorded is on the chain any more: followed again from birth."""
        house = House()
        house.evm.mine((ETH, ana(house), 300))
        house.evm.mine_many(10)
        house.settle(house.evm)
        house.step(house.evm, keep=1)
        house.evm.mine()
        house.step(house.evm, keep=1)
        house.evm.reorg(12, (), ((ETH, ana(house), 70),))
        house.settle(house.evm)
        assert house.balance("ana", "ETH") == 70

    def test_lagging_node_is_no_reorg(self) -> None:
        """A head below what was followed, on the same branch: unknown, so nothing is taken back."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(4)
        house.settle(house.evm)
        house.evm.rollback(3)
        with pytest.raises(Unavailable, match="behind"):
            house.step(house.evm)
        assert house.balance("ana", "ETH") == 1000

    def test_shorter_chain_waits_for_the_block_a_reversal_names(self) -> None:
        """While the new branch has no block at that height, nothing is booked; when it has, the reversal is."""
        house = House()
        house.evm.mine()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        house.evm.rollback(5)
        house.evm.mine()
        with pytest.raises(Unavailable, match="no block 2 yet"):
            house.step(house.evm)
        house.evm.mine()
        assert house.step(house.evm).reversed == 1
        assert house.balance("ana", "ETH") == 0

    def test_dust_is_orphaned_too(self) -> None:
        """Dust that vanishes and comes back bigger is credited."""
        house = House()
        house.evm.mine((ETH, ana(house), 1))
        house.evm.mine_many(3)
        house.settle(house.evm)
        house.evm.reorg(4, ((ETH, ana(house), 50),))
        house.settle(house.evm)
        assert statuses(house) == [DepositStatus.ORPHANED, DepositStatus.CREDITED]


class TestCrash:
    """Whatever commit is the last one, the next process ends in the same books."""

    @pytest.mark.parametrize("after", [pytest.param(False, id="before"), pytest.param(True, id="after")])
    @pytest.mark.parametrize("commit", [1, 2, 3, 4])
    def test_at_each_commit(self, commit: int, after: bool) -> None:  # a table's column
        """Die at each commit of a step that reorganises, follows and credits two deposits."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        again = ((ETH, ana(house), 1000), (ETH, address_of("bo", EVM, 1), 70))
        house.evm.reorg(4, again)
        with pytest.raises(DyingStore.Died):
            house.step(house.evm, DyingStore(house.store, commit, after=after))
        house.settle(house.evm)
        assert (house.balance("ana", "ETH"), house.balance("bo", "ETH")) == (1000, 70)
        assert Counter({DepositStatus.REVERSED: 1, DepositStatus.CREDITED: 2}) == Counter(statuses(house))
        assert len(entries(house)) == 4

    def test_two_watchers(self) -> None:
        """A second watcher that acts on what the first has moved on from records nothing."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)

        class Slow(FakeChain):
            def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
                found = super().sightings(first, last, watched)
                self.__class__ = FakeChain  # type: ignore[assignment]  # only once
                house.settle(house.evm)
                return found

        slow = FakeChain(EVM, 3, start=NOW)
        slow._blocks, slow.__class__ = house.evm._blocks, Slow  # the same chain, slower
        with pytest.raises(Unavailable, match="another watcher"):
            house.step(slow)
        assert house.balance("ana", "ETH") == 1000

    def test_address_bound_meanwhile(self) -> None:
        """A step that began before an address was bound records nothing, so its customer's coins do not go to suspense."""
        house = House()
        stale = house.inventory()
        house.store.run(lambda work: work.customers.add("cy"))
        house.store.run(lambda work: work.customers.add_address(binding("cy", EVM, 2)))
        house.evm.mine((ETH, address_of("cy", EVM, 2), 1000))
        house.evm.mine_many(3)
        fresh, house.inventory = house.inventory, lambda: stale  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="inventory"):
            house.step(house.evm)
        house.inventory = fresh  # type: ignore[method-assign]
        house.step(house.evm)
        assert house.balance("cy", "ETH") == 1000

    def test_wallet_certified_later_is_followed_from_its_birth(self) -> None:
        """Coins that reached a new wallet before the watcher knew it are found: its blocks are read again."""
        house = House()
        draft = replace(deployment().draft(f"more/{EVM}", Tier.CUSTOMER_HOT, EVM), birth=2)
        main = DERIVE.main(draft)
        assert main is not None
        house.evm.mine((ETH, ana(house), 500))
        house.evm.mine((ETH, main, 900))
        house.evm.mine_many(3)
        house.settle(house.evm)
        signed = deployment().people_sign(draft)
        house.store.run(lambda work: put_signed(work.documents, CERTIFICATE, signed))
        house.settle(house.evm)
        assert (house.balance("ana", "ETH"), house.balance(SUSPENSE, "ETH")) == (500, 900)

    def test_reorg_while_blocks_are_followed_again(self) -> None:
        """Dead after going back for a new wallet, and the chain moves before the blocks are read again: still taken back."""
        house = House()
        draft = replace(deployment().draft(f"more/{EVM}", Tier.CUSTOMER_HOT, EVM), birth=1)
        house.evm.mine((ETH, ana(house), 500))
        house.evm.mine_many(3)
        house.settle(house.evm)
        signed = deployment().people_sign(draft)
        house.store.run(lambda work: put_signed(work.documents, CERTIFICATE, signed))
        with pytest.raises(DyingStore.Died):
            house.step(house.evm, DyingStore(house.store, 1, after=True))
        assert house.store.read(lambda work: work.deposits.newest(EVM)) == 0
        house.evm.reorg(4)
        house.settle(house.evm)
        assert (house.balance("ana", "ETH"), statuses(house)) == (0, [DepositStatus.REVERSED])


class LyingChain(FakeChain):
    """Tells each sighting with one thing changed."""

    lie: Callable[[Sighting], Sighting]

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """See `ChainView`."""
        return [type(self).lie(s) for s in super().sightings(first, last, watched)]


LOOK_ALIKE = replace(USD, contract=Address(EVM, ledger.LOOK_ALIKE))


class TestLies:
    """A node that contradicts itself, or the registry, is not believed: nothing of its range is recorded."""

    @pytest.mark.parametrize(
        "lie",
        [
            pytest.param(
                lambda s: replace(s, proof=replace(s.proof, block=bytes(32))), id="a block that was not followed"
            ),
            pytest.param(lambda s: replace(s, proof=replace(s.proof, height=99)), id="a height outside the range"),
            pytest.param(lambda s: replace(s, proof=replace(s.proof, chain="eip155:1")), id="another chain"),
            pytest.param(lambda s: replace(s, amount=Amount(USD, 2 * s.amount.units)), id="more than was measured"),
            pytest.param(lambda s: replace(s, amount=Amount(ETH, s.amount.units)), id="another asset"),
            pytest.param(lambda s: replace(s, amount=Amount(LOOK_ALIKE, s.amount.units)), id="an asset of no registry"),
            pytest.param(
                lambda s: replace(s, proof=replace(s.proof, contract=ledger.LOOK_ALIKE)), id="a look-alike contract"
            ),
            pytest.param(
                lambda s: replace(s, address=address_of("bo", EVM, 1)), id="another customer's address than the proof's"
            ),
            pytest.param(
                lambda s: Sighting(
                    s.amount,
                    Address(EVM, "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
                    replace(s.proof, address="0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
                ),
                id="an address that is not ours",
            ),
            pytest.param(
                lambda s: replace(s, amount=Amount(USD, 0), proof=replace(s.proof, measured=0)),
                id="a log without a balance change",
            ),
        ],
    )
    def test_sighting(self, lie: Callable[[Sighting], Sighting]) -> None:
        """One lie in one sighting."""
        house = House()
        liar = type("Liar", (LyingChain,), {"lie": staticmethod(lie)})(EVM, 3, start=NOW)
        liar.mine((USD, ana(house), 1000))
        liar.mine_many(3)
        with pytest.raises(Unavailable, match="sighting"):
            house.step(liar)
        assert (statuses(house), house.store.read(lambda work: work.deposits.newest(EVM))) == ([], None)

    def test_parent_that_does_not_link(self) -> None:
        """Blocks of two branches in one range."""
        house = House()

        class Torn(FakeChain):
            def block(self, height: int) -> BlockRef | None:
                found = super().block(height)
                return replace(found, parent=bytes(32)) if found and height == 2 else found

        torn = Torn(EVM, 3, start=NOW)
        torn.mine_many(4)
        with pytest.raises(Unavailable, match="does not follow"):
            house.step(torn)
        assert house.store.read(lambda work: work.deposits.newest(EVM)) is None

    @pytest.mark.parametrize("calls", range(1, 12))
    def test_node_dies_at_each_call(self, calls: int) -> None:
        """Whatever call is the last one answered, the next step completes."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.evm.calls_left = calls
        with suppress(Unavailable):
            house.step(house.evm)
        house.evm.calls_left, house.evm.offline = None, False
        house.settle(house.evm)
        house.step(house.evm)
        assert (house.balance("ana", "ETH"), len(entries(house))) == (1000, 1)


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("mine"), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 10**20)), max_size=3)),
        st.tuples(st.just("reorg"), st.tuples(st.integers(1, 8), st.lists(st.integers(1, 10**20), max_size=9))),
        st.tuples(st.just("watch"), st.integers(1, 6)),
        st.tuples(st.just("spend"), st.integers(1, 10**20)),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MOVES)
def test_random_chains(moves: list[tuple[str, Any]]) -> None:
    """Whatever the chain does and whenever it is watched: in the end exactly the final canonical deposits stand credited."""
    house = House()
    company = DERIVE.main(certificate(Tier.OPERATIONAL, EVM))
    assert company is not None
    wheres = [address_of("ana", EVM, 0), address_of("bo", EVM, 1), company]
    for move_ in moves:
        match move_:
            case ("mine", payments):
                house.evm.mine(*((ETH, wheres[to], units) for to, units in payments))
            case ("reorg", (depth, amounts)):
                if house.evm.head().height:
                    house.evm.reorg(
                        min(depth, house.evm.head().height), *[[(ETH, wheres[0], units)] for units in amounts]
                    )
            case ("watch", blocks):
                with suppress(Unavailable):  # the chain is shorter than a block that a reversal has to name
                    house.step(house.evm, max_blocks=blocks)
            case ("spend", units) if have := house.balance("ana", "ETH"):
                spend(house, "ana", ETH, min(have, units))
    house.evm.mine_many(3)
    house.settle(house.evm)
    house.step(house.evm)
    check_books(house)


def check_books(house: House) -> None:
    """Credited deposits are the final canonical ones; each wallet has what they sum to; everything sums to zero."""
    final, watched = house.evm.final().height, house.inventory().watched(EVM)
    canonical = {s.identity: s for s in house.evm.sightings(1, final, watched) if s.amount.units >= s.amount.asset.dust}
    deposits = house.store.read(lambda work: work.deposits.all())
    credited = {d.sighting.identity for d in deposits if d.status is DepositStatus.CREDITED}
    assert set(canonical) == credited
    balances = replay(house.store.read(lambda work: work.journal.read()))
    assert all(units >= 0 for units in balances.values())
    wallets = sum(units for (account, _), units in balances.items() if account.kind is AccountKind.WALLET)
    assert sum(s.amount.units for s in canonical.values()) == wallets
    debits = sum(units for (account, _), units in balances.items() if account.kind.side is Side.DEBIT)
    assert 2 * debits == sum(balances.values())


class TestLoop:
    """The process around the step."""

    def test_catches_up_on_every_chain(self) -> None:
        """One line for each step, a retry where a node was silent for a while."""
        house = House()
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        house.btc.offline = True
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            house.btc.offline = False

        views = {EVM: house.evm, BTC: house.btc}
        lines = list(catch_up(house.store, views, house.inventory, ASSETS, house.clock, pause=wait))
        assert len(lines) == 2
        assert waits == [0.1]
        assert house.balance("ana", "ETH") == 1000

    def test_gives_up_on_a_chain_that_stays_silent(self) -> None:
        """After many tries the silence is told."""
        house = House()
        house.btc.offline = True
        with pytest.raises(Unavailable, match="offline"):
            list(catch_up(house.store, {BTC: house.btc}, house.inventory, ASSETS, house.clock, pause=lambda _: None))

    def test_runs_until_stopped(self) -> None:
        """One silent chain does not hold up the other."""
        house, stop = House(), threading.Event()
        house.btc.offline = True
        house.evm.mine((ETH, ana(house), 1000))
        house.evm.mine_many(3)
        views = {EVM: house.evm, BTC: house.btc}
        arguments = (house.store, views, house.inventory, ASSETS, house.clock, stop)
        thread = threading.Thread(target=watch_forever, args=arguments, kwargs={"poll": 0.01})
        thread.start()
        for _ in range(500):
            if house.balance("ana", "ETH"):
                break
            stop.wait(0.01)
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        assert house.balance("ana", "ETH") == 1000

    def test_pace(self) -> None:
        """More blocks while full ranges come, half as many and ever later after failures, and at once again after success."""
        pace = Pace(1.0)
        full = StepReport(EVM, 10**6, 0, 200, 10**6 - 200, followed=200)
        assert (pace.went_well(full), pace.blocks) == (0.0, 400)
        assert [pace.failed() for _ in range(3)] == [1.0, 2.0, 4.0]
        assert pace.blocks == 50
        assert [pace.failed() for _ in range(20)][-1] == 30.0
        assert (pace.went_well(replace(full, behind=0, followed=3)), pace.blocks) == (1.0, 10)

    def test_line(self) -> None:
        """One line of JSON, refusals named."""
        report = StepReport(EVM, 5, 3, 5, 0, credited=1, refused=(Refusal(Rule.ORIGIN, event="x"),))
        assert '"credited": 1' in line_of(report)
        assert "origin_not_confirmed" in line_of(report)
        assert "\n" not in line_of(report)
