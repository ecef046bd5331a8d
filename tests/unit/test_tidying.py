# SPDX-License-Identifier: AGPL-3.0-or-later
"""Deposit addresses swept by schedule: what is worth it, one at a time, resumed from a death anywhere, booked once, voided by people."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from custody.chains.evm.leaves import payment_call, safe_tx, sweep_call
from custody.chains.evm.safes import deposit_safe
from custody.chains.payloads import decode
from custody.flows import payout_records, payouts, sweep_records, worker
from custody.flows.errands import STUCK, Tidied
from custody.flows.inventory import Inventory, Wallet
from custody.flows.payouts import ENVELOPES_MOST, Post
from custody.flows.ports import UnitOfWork
from custody.flows.signing import Ceremony
from custody.flows.sweep_records import SweepRun
from custody.flows.sweeping import SWEEPS_MOST
from custody.flows.tidying import EVERY, choose, tidy
from custody.rules.amounts import Amount
from custody.rules.certificates import DepositAddress, WalletCertificate
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.governance import Freeze
from custody.rules.intents import Void
from custody.rules.ledger import Account, AccountKind, credit_deposit, reverse
from custody.rules.origins import Executed, NativeProof, Reversal
from custody.rules.payments import Outcome, Paid, Payment, Reservation, Sweep, UnsignedPayout
from custody.rules.payouts import DecodedPayload, Leaf, LeafKind, Surroundings
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.seat_request import Policies
from custody.rules.signatures import Signed
from custody.rules.transfers import Status
from custody.rules.wallets import Address, Tier
from tests.fakes.payouts import Died, FakePayouts, Fuse, Workshop
from tests.fakes.seat import EVM, NOW, secp256k1, signed_by
from tests.fakes.treasury import DERIVE, SURPLUS, account_of
from tests.fakes.trust import ASSETS, ETH, world

ETHER: Final = 10**18
LEAST: Final = ETHER // 20
SUSPENSE: Final = Account(AccountKind.SUSPENSE)
CERTIFICATE: Final = world().certificate(Tier.CUSTOMER_HOT, EVM)
SAFE: Final = CERTIFICATE.safe[0].address


@dataclass
class Deposits(FakePayouts):
    """A chain with deposit Safes; `held` is what each has finally."""

    held: list[Sweep] = field(default_factory=list)
    deployed: set[int] = field(default_factory=set)
    failing: set[int] = field(default_factory=set)
    """Indices whose sweep fails in a simulation."""

    def sweepable(self, certificate: WalletCertificate, indices: Sequence[int]) -> tuple[Sweep, ...]:
        """See `DepositSweeper`."""
        return tuple(sweep for sweep in self.held if sweep.index in indices)

    def deploy_deposits(self, certificate: Signed[WalletCertificate], indices: Sequence[int]) -> None:
        """See `DepositSweeper`."""
        self.deployed |= set(indices)

    def build(
        self,
        certificate: WalletCertificate,
        reservation: Reservation,
        payments: Sequence[Payment],
        sweeps: Sequence[Sweep] = (),
    ) -> UnsignedPayout:
        """See `PayoutChain`."""
        if not sweeps:
            return super().build(certificate, reservation, payments)
        assert self.deployed >= {sweep.index for sweep in sweeps}
        for at, sweep in enumerate(sweeps):
            if sweep.index in self.failing:
                raise Refused([Refusal(Rule.LEAF_FAILS, leaf=at, name="sweep", why="it reverts")])
        calls = [sweep_call(sweep, certificate, ASSETS) for sweep in sweeps]
        calls += [payment_call(payment, ASSETS, EVM) for payment in payments]
        paid = tuple(Paid(p.intent, p.asset, p.units, p.destination.text, 0) for p in payments)
        tx = safe_tx(certificate, int(reservation.anchor.reference), calls)
        return self._unsigned(certificate, reservation.anchor, tx, paid, 0)


class Shop(Workshop):
    """A workshop whose hot Safe has ten deposit addresses of ada's, ETH on three of them."""

    payouts: Deposits

    def __post_init__(self) -> None:
        super().__post_init__()
        hot = CERTIFICATE
        bound = [
            Signed(DepositAddress(hot.wallet, EVM.name, f"c{i}", i, deposit_safe(hot, i).text), ()) for i in range(10)
        ]
        kernel = self.treasury.kernel
        newest = replace(kernel.policies.newest, deposit_sweeps={"ETH": LEAST})
        inventory = Inventory(list(world().certificates.values()), bound, DERIVE)
        self.treasury.kernel = replace(kernel, inventory=inventory, policies=Policies(newest, {}))
        self.payouts = Deposits(held=[Sweep(1, "ETH", ETHER), Sweep(2, "ETH", LEAST - 1), Sweep(3, "ETH", LEAST)])
        self.attestor._chain = self.payouts

    @property
    def wallet(self) -> Wallet:
        """The hot Safe."""
        return self.treasury.kernel.inventory.wallets[CERTIFICATE.wallet]

    def tidy(self, fuse: Fuse | None = None, *, idle: bool = True) -> Tidied | None:
        """One look, as a worker takes it."""
        parts = self.parts(fuse)
        chain, store = parts.chains[EVM], parts.store
        ceremony = Ceremony(store, parts.kernel(), chain, parts.seats, parts.attestor, self.now)
        post = Post(store, parts.kernel(), chain, self.payouts.view, decode, self.now)
        return tidy(ceremony, post, self.wallet, idle=idle)

    def run(self, *_nobody: Any, steps: int = 8) -> Tidied | None:  # type: ignore[override]
        """Looks with a block after each."""
        found = None
        for _ in range(steps):
            found = self.tidy()
            self.payouts.mine()
            self.book()
        return found

    def book(self) -> None:
        """What a watcher does: the coins that a sweep brought the Safe stand in suspense, once its block is there."""
        for envelope, height in self.payouts.mined.values():
            units: int = sum(leaf.units for leaf in self._leaves(envelope.id))
            block = self.payouts.view.block(height)
            if units and block is not None and self.payouts.fails is Outcome.DONE:
                self._credit(height, block.hash, units)

    def _leaves(self, digest: bytes) -> list[Leaf]:
        read = decode(self.payouts.built[digest].payload, Surroundings(CERTIFICATE.wallet, CERTIFICATE, ASSETS))
        assert isinstance(read, DecodedPayload)
        return [leaf for leaf in read.leaves if leaf.kind is LeafKind.SWEEP]

    def _credit(self, height: int, block: bytes, units: int) -> None:
        proof = NativeProof(EVM.name, height, block, SAFE, 0, units, 0)
        amount = Amount(ETH, units)
        sighting = Sighting(amount, Address(EVM, SAFE), proof)

        def work(work: UnitOfWork) -> None:
            if any(d.sighting == sighting for d in work.deposits.all()):
                return
            entry = work.journal.append(credit_deposit(proof, self.wallet.account, SUSPENSE, amount), self.now)
            work.deposits.record(sighting)
            work.deposits.move(sighting.identity, DepositStatus.CREDITED, entry.position)

        self.treasury.store.run(work)

    def newest(self) -> SweepRun | None:
        """The last sweep."""
        return self.treasury.store.read(lambda work: sweep_records.newest(work, CERTIFICATE.wallet))

    def swept(self) -> list[tuple[int, str]]:
        """What was swept in blocks, by index and asset."""
        leaves = [leaf for envelope, _ in self.payouts.mined.values() for leaf in self._leaves(envelope.id)]
        return [(leaf.source.index or 0, leaf.asset) for leaf in leaves if leaf.source is not None]

    def entries(self) -> list[Executed]:
        """The journal's entries of payouts."""
        rows = self.treasury.store.read(lambda work: work.journal.read(0, 1000))
        return [row.entry.origin for row in rows if isinstance(row.entry.origin, Executed)]


def test_what_is_worth_it_is_swept_and_booked_once() -> None:
    """Signed by three seats that see no intent, sent, followed, booked: the wallet has what it had, suspense nothing, no fee was paid."""
    shop = Shop()
    before = shop.treasury.balance(account_of(Tier.CUSTOMER_HOT, EVM))
    surplus = shop.treasury.balance(SURPLUS)
    shop.run()
    assert shop.swept() == [(1, "ETH"), (3, "ETH")]
    assert shop.payouts.deployed == {1, 3}
    assert sum(bool(seat.asked) for seat in shop.seats) == 3
    (done,) = shop.entries()
    assert (done.intents, done.fee, done.void) == ((), 0, False)
    assert [arrived.units for arrived in done.arrived] == [ETHER + LEAST]
    assert shop.treasury.balance(account_of(Tier.CUSTOMER_HOT, EVM)) == before
    assert (shop.treasury.balance(SUSPENSE), shop.treasury.balance(SURPLUS)) == (0, surplus)
    run = shop.newest()
    assert run is not None
    assert run.ended
    assert shop.tidy() is None


def test_one_at_a_time_and_by_schedule() -> None:
    """The next one begins a quarter of an hour after the last began, at the next nonce."""
    shop = Shop()
    shop.run()
    shop.now += EVERY - 1
    assert shop.tidy() is None
    shop.now += 1
    assert shop.tidy(idle=False) is None  # a nonce before it is not out yet
    shop.run()
    assert [run.anchor.reference for run in [shop.newest()] if run is not None] == ["8"]
    assert len(shop.entries()) == 2


@pytest.mark.parametrize(
    ("offered", "want"),
    [
        pytest.param([Sweep(1, "ETH", LEAST - 1)], [], id="less than it is worth"),
        pytest.param([Sweep(1, "USDX", 10**9)], [], id="an asset that the bundle does not name"),
        pytest.param([Sweep(2, "ETH", LEAST), Sweep(1, "ETH", 3 * LEAST)], [1, 2], id="the largest first"),
        pytest.param([Sweep(i, "ETH", LEAST) for i in range(99)], [*range(SWEEPS_MOST)], id="a batch and no more"),
    ],
)
def test_which_addresses(offered: list[Sweep], want: list[int]) -> None:
    """By the bundle's bound of each asset."""
    assert [sweep.index for sweep in choose(offered, {"ETH": LEAST})] == want


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_anywhere(after: bool) -> None:
    """Whatever commit or call is the last: one SafeTx was signed, it was mined once and booked once."""
    whole, fuse = Shop(), Fuse()
    for _ in range(6):
        whole.tidy(fuse)
        whole.payouts.mine()
        whole.book()
    points = fuse.burnt
    assert points > 12
    for point in range(1, points + 1):
        shop, fuse = Shop(), Fuse(point, after)
        for _ in range(6):
            try:
                shop.tidy(fuse)
            except Died:
                fuse = Fuse()
            shop.payouts.mine()
            shop.book()
        shop.run()
        assert len(shop.payouts.mined) == 1, point
        assert len({envelope.id for envelope in shop.payouts.sent}) == 1, point
        assert len(shop.entries()) == 1, point


def test_a_leaf_that_fails_is_left_out() -> None:
    """A token that is paused or an address that somebody broke hinders no other."""
    shop = Shop()
    shop.payouts.failing = {1}
    shop.run()
    assert shop.swept() == [(3, "ETH")]
    alone = Shop()
    alone.payouts.failing = {1, 3}
    assert alone.run() is None
    assert alone.newest() is None


@pytest.mark.parametrize("what", ["all", "chain", "wallet"])
def test_a_frozen_wallet_is_not_swept(what: str) -> None:
    """Nothing is pinned: a nonce that seats would refuse would hold up every payment after it."""
    shop = Shop()
    scope = {"all": "all", "chain": f"chain:{EVM.name}", "wallet": f"wallet:{CERTIFICATE.wallet.hex()}"}[what]
    shop.treasury.kernel = replace(shop.treasury.kernel, freezes=(Freeze(scope, "look", NOW, NOW + 9_000),))
    assert shop.run() is None
    assert shop.newest() is None


def test_a_bundle_that_says_nothing_sweeps_nothing() -> None:
    """One from before there were schedules."""
    shop = Shop()
    kernel = shop.treasury.kernel
    shop.treasury.kernel = replace(kernel, policies=Policies(replace(kernel.policies.newest, deposit_sweeps={}), {}))
    assert shop.run() is None
    drifted = Shop()
    drifted.payouts.drift = (Refusal(Rule.SAFE_DRIFT, field="owners"),)
    assert drifted.run() is None


def test_seats_refuse_what_leaves_the_wallet() -> None:
    """A worker that lies puts a payment beside the sweeps: no seat signs, whatever the schedule is said to be."""
    shop = Shop()

    class Thief(Deposits):
        def build(
            self,
            certificate: WalletCertificate,
            reservation: Reservation,
            payments: Sequence[Payment],
            sweeps: Sequence[Sweep] = (),
        ) -> UnsignedPayout:
            thief = Payment(bytes(32), "ETH", ETHER, Address(EVM, "0x" + "11" * 20))
            return FakePayouts.build(self, certificate, reservation, [thief])

    shop.payouts.__class__ = Thief
    found = shop.tidy()
    assert found is not None
    assert "payload_does_not_match_intents" in found.why
    assert found.nonce == "7"
    assert shop.payouts.sent == []


def test_seats_are_silent() -> None:
    """The nonce is taken and said, and what is recorded goes on once they answer."""
    shop = Shop()
    for seat in shop.seats[:2]:
        seat.silent = True
    found = shop.tidy()
    assert found is not None
    assert "is silent" in found.why
    for seat in shop.seats:
        seat.silent = False
    shop.run()
    assert len(shop.entries()) == 1


def test_an_envelope_that_reverts_is_sealed_again_and_then_people_look() -> None:
    """The nonce is not consumed; after so many the relayer's gas is not burnt on, and a void is the way out."""
    shop = Shop()
    shop.payouts.fails = Outcome.REVERTED
    found = shop.run(steps=20)
    assert found is not None
    assert found.why.startswith("people: ")
    run = shop.newest()
    assert run is not None
    assert len(shop.payouts.sent) == ENVELOPES_MOST
    shop.payouts.fails = Outcome.DONE
    said = Signed(Void(run.anchor, ()), ())
    signed = signed_by(said.message, world().domain, [secp256k1("ana"), secp256k1("bo")])
    payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)
    shop.run()
    assert [done.void for done in shop.entries()] == []  # a void on EVM moves nothing, so it has no entry
    run = shop.newest()
    assert run is not None
    assert run.ended
    assert shop.payouts.nonce == 8


def test_a_void_of_a_sweep_wants_people() -> None:
    """And an anchor that is one."""
    shop = Shop()
    shop.tidy()
    run = shop.newest()
    assert run is not None
    for anchor, people, rule in (
        (run.anchor, ["ana"], Rule.QUORUM_NOT_REACHED),
        (replace(run.anchor, reference="9"), ["ana", "bo"], Rule.UNKNOWN_TRANSFER),
    ):
        signed = signed_by(Void(anchor, ()), world().domain, [secp256k1(name) for name in people])
        with pytest.raises(Refused) as caught:
            payouts.void(shop.treasury.store, shop.treasury.kernel, signed, shop.now)
        assert rule in {refusal.rule for refusal in caught.value.refusals}


def test_a_stuck_sweep_is_offered_for_more() -> None:
    """Only where blocks ask for more, only after a while, never without end; the SafeTx is the same."""
    shop = Shop()
    shop.tidy()
    shop.payouts.asks = 1
    shop.tidy()
    assert len(shop.payouts.sent) == 1
    shop.now += STUCK
    for _ in range(ENVELOPES_MOST + 3):
        shop.tidy()
    assert len({envelope.transaction for envelope in shop.payouts.sent}) == ENVELOPES_MOST
    assert len({envelope.id for envelope in shop.payouts.sent}) == 1
    shop.payouts.asks = 0
    shop.run()
    assert len(shop.entries()) == 1


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_connection_that_breaks(lost: str) -> None:
    """Whether it arrived or not, the same bytes again."""
    shop = Shop()
    shop.payouts.lost = lost
    found = shop.tidy()
    assert found is not None
    assert "whether the node took" in found.why
    shop.payouts.lost = ""
    shop.run()
    assert len(shop.entries()) == 1
    assert len({envelope.transaction for envelope in shop.payouts.sent}) == 1


def test_a_relayers_nonce_that_went_elsewhere() -> None:
    """A new envelope around the same SafeTx."""
    shop = Shop()
    shop.payouts.stale = True
    shop.run()
    assert len(shop.entries()) == 1
    assert len({envelope.id for envelope in shop.payouts.sent}) == 1


def test_a_stranger_consumed_the_nonce() -> None:
    """People look; nothing is booked, and nothing is sent again."""
    shop = Shop()
    shop.tidy()
    shop.payouts.stranger = True
    shop.payouts.mine()
    found = shop.tidy()
    assert found is not None
    assert (found.nonce, found.why[:7]) == ("", "people:")
    assert shop.entries() == []


def test_it_waits_for_the_watcher() -> None:
    """What it brought is booked by the watcher first; the entry would take somebody else's coins otherwise."""
    shop = Shop()
    shop.tidy()
    shop.payouts.mine(5)
    found = shop.tidy()
    assert found is not None
    assert (found.nonce, found.why.startswith("the watcher to book")) == ("", True)
    assert shop.entries() == []
    shop.book()
    shop.tidy()
    assert len(shop.entries()) == 1


def test_a_payout_and_a_sweep_never_share_a_nonce() -> None:
    """UNIQUE on anchors counts a sweep's too: whoever comes second is refused, and nothing of it remains."""
    shop = Shop()
    transfer = shop.queued()
    shop.step()
    assert shop.get(transfer).status is Status.CONFIRMING
    pinned = shop.treasury.store.read(lambda work: work.transfers.permitted())[0].reservation
    shop.payouts.next_anchor = lambda *_: pinned  # type: ignore[method-assign]
    with pytest.raises(Refused) as caught:
        shop.tidy()
    assert Rule.ANCHOR_BOUND in {refusal.rule for refusal in caught.value.refusals}
    assert shop.newest() is None
    assert len(shop.treasury.store.read(lambda work: payout_records.variants(work, pinned.anchor))) == 1


# in the worker


def work(shop: Shop, *, sweeps: bool = True, steps: int = 1) -> tuple[str, ...]:
    """Steps of the worker that sweeps by schedule, with a block after each; what it says is wrong."""
    faults: tuple[str, ...] = ()
    for _ in range(steps):
        faults = worker.step(replace(shop.parts(), sweeps=sweeps), shop.pace).faults
        shop.payouts.mine()
        shop.book()
    return faults


def test_the_worker_sweeps_by_schedule() -> None:
    """Only where it is told to; it looks again a minute later, and goes on with what is under way at every step."""
    shop = Shop()
    assert work(shop, sweeps=False, steps=3) == ()
    assert shop.newest() is None
    shop.now += worker.LOOK
    assert work(shop, steps=5) == ()
    assert len(shop.entries()) == 1
    shop.now += EVERY
    work(shop, steps=5)
    assert len(shop.entries()) == 2


def test_nothing_begins_behind_a_sweep_that_is_not_out() -> None:
    """A payment waits for the sweep's nonce by its number, stays free to be cancelled, and goes out after it."""
    shop = Shop()
    for seat in shop.seats[:2]:
        seat.silent = True
    transfer = shop.queued()
    faults = work(shop, steps=2)
    assert any("is silent" in fault for fault in faults)
    found = shop.get(transfer)
    assert (found.status, found.waiting_for) == (Status.QUEUED, "nonce 7 of its wallet to be sent first")
    shop.attestor.down = True
    work(shop)  # where the sweep stands cannot be known, and nothing begins behind it all the same
    shop.attestor.down = False
    assert shop.get(transfer).status is Status.QUEUED
    for seat in shop.seats:
        seat.silent = False
    work(shop, steps=8)
    assert shop.get(transfer).status is Status.COMPLETED
    assert len(shop.entries()) == 2


def test_a_sweep_comes_behind_payouts_that_are_out() -> None:
    """At the next free nonce, though the payout before it is not final yet."""
    shop = Shop()
    transfer = shop.queued()
    work(shop, sweeps=False)
    assert shop.get(transfer).status is Status.CONFIRMING
    shop.now += worker.LOOK
    work(shop, steps=6)
    assert [done.anchor.reference for done in shop.entries()] == ["7", "8"]


def test_a_reorg_takes_a_sweep_back() -> None:
    """Its entry is reversed with its block: it is under way again, and booked once more where it is mined now."""
    shop = Shop()
    shop.run()
    run, (done,) = shop.newest(), shop.entries()
    assert run is not None
    assert run.ended

    def undo(work: UnitOfWork) -> None:
        (recorded,) = work.journal.executed(EVM, done.height, done.height)
        origin = Reversal(recorded.position, EVM.name, done.height, done.block, bytes(32))
        balances = {key: work.journal.balance(*key) for key in recorded.entry.changes()}
        work.journal.append(reverse(recorded, origin, balances), shop.now)

    shop.treasury.store.run(undo)
    again = shop.newest()
    assert again is not None
    assert (again.number, again.ended) == (run.number, False)
    shop.run(steps=1)
    again = shop.newest()
    assert again is not None
    assert again.ended
    assert len(shop.entries()) == 2
