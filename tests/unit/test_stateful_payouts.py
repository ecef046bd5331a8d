# SPDX-License-Identifier: AGPL-3.0-or-later
"""Payouts against a model, byte by byte: variants for a higher fee, voids, lost answers, reorgs, and a worker that dies anywhere.

Every call that leaves the worker is watched: a seat is asked only for what is recorded, and nothing is sent but bytes that are stored.
One anchor is one set of payments (TRUST.md, "One anchor per payout"): variants differ in fee alone, within what people approved, and
of whatever was signed for an anchor a block takes one. What became of bytes nobody knows of is asked of the chain and never guessed.
"""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from custody.chains.bitcoin import psbts
from custody.chains.bitcoin.scripts import change_address, script_pubkey
from custody.flows import payout_records, payouts
from custody.flows.bumping import STUCK_BITCOIN
from custody.flows.ports import UnitOfWork
from custody.rules import seat, seat_checks_intents
from custody.rules.amounts import Amount
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.intents import Anchor, Void
from custody.rules.ledger import Account, AccountKind, Entry, credit_deposit
from custody.rules.origins import BitcoinProof, Executed
from custody.rules.payments import Envelope, Outcome
from custody.rules.payouts import PsbtPayload
from custody.rules.seat_request import Request
from custody.rules.transfers import Permit, Status, Transfer
from custody.rules.wallets import Chain, Tier
from tests.fakes.chain import FakeChain
from tests.fakes.machines import budget, finds
from tests.fakes.payouts import Died, FakePayouts, Fuse, Workshop
from tests.fakes.seat import BITCOIN, EVM, secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD, account_of
from tests.fakes.trust import BTC, ETH, PAYEE, world

AMOUNT: Final = {EVM: 10**18, BITCOIN: 10**7}
FEE_MOST: Final = 20_000
SENT: Final = {Status.BROADCASTING, Status.BROADCAST_UNKNOWN, Status.CONFIRMING}


class PayoutMachine(RuleBasedStateMachine):
    """A few approved withdrawals of one chain, and everything between the permit and the books."""

    chain: ClassVar[Chain] = EVM

    def __init__(self) -> None:
        super().__init__()
        self.shop = Workshop(chain=self.chain)
        self.asset = ETH if self.chain == EVM else BTC
        self.had = self.shop.treasury.balance(AVAILABLE, self.asset)
        self.transfers: list[Transfer] = []
        self.raw: dict[bytes, bytes] = {}
        """Bytes of every transaction that was ever stored, by its id."""
        self.kept: dict[Anchor, tuple[Envelope, ...]] = {}
        self.voided: set[bytes] = set()
        self.sent: set[bytes] = set()
        self.booked: set[str] = set()
        self._watch()

    def _watch(self) -> None:
        """What is asked of the world is looked at from here on."""
        broadcast, payouts_ = self.shop.payouts.broadcast, self.shop.payouts

        def watched(envelope: Envelope) -> None:
            assert envelope in self._read(lambda work: work.transfers.kept(envelope.anchor)), (
                "sent before it was stored"
            )
            assert self.raw.setdefault(envelope.transaction, envelope.raw) == envelope.raw
            self.sent.add(envelope.transaction)
            broadcast(envelope)

        payouts_.broadcast = watched  # type: ignore[method-assign]
        for each in self.shop.seats:
            sign = each.sign

            def asked(request: Request, sign: Any = sign) -> Any:
                anchor = request.statement.message.anchor[0]
                permits = [p for p in self._permits() if p.reservation.anchor == anchor]
                assert len(permits) == 1, "a seat was asked before a permit was recorded"
                known = self._read(lambda work: payout_records.variants(work, anchor))
                assert request.payload in [variant.unsigned.payload for variant in known], "asked, and not recorded"
                return sign(request)

            each.sign = asked  # type: ignore[method-assign]

    # what happens

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        """Withdrawals that people approved."""
        for number in range(1, count + 1):
            said: dict[str, Any] = {"amount": AMOUNT[self.chain] + number}
            if self.chain == BITCOIN:
                said |= {"chain": BITCOIN.name, "asset": "BTC", "destination": PAYEE[BITCOIN.name]}
            self.transfers.append(self.shop.queued(number, **said))

    @rule()
    def step(self) -> None:
        """The worker looks at everything once."""
        self.shop.step()

    @rule(left=st.integers(1, 50), after=st.booleans())
    def crash(self, left: int, after: bool) -> None:
        """It dies at some commit or call, before or after it."""
        try:
            self.shop.step(Fuse(left, after))
        except Died:
            return

    @rule(count=st.integers(1, 3))
    def mine(self, count: int) -> None:
        """A block takes what waits, and what comes back to us is booked by the watcher."""
        self.shop.payouts.mine(count)

    @rule()
    def watch(self) -> None:
        """The watcher books the change of final Bitcoin payouts."""
        chain = self.shop.payouts
        final = chain.view.final().height
        for at, (envelope, height) in chain.mined.items():
            payload = chain.built[envelope.id].payload
            if self.chain == EVM or at in self.booked or height > final or not isinstance(payload, PsbtPayload):
                continue
            self.booked.add(at)
            address = change_address(world().certificate(Tier.CUSTOMER_HOT, BITCOIN), 5)
            outputs = psbts.paid_scripts(payload.psbt)
            vout, units = next((n, u) for n, (u, script) in enumerate(outputs) if script == script_pubkey(address))
            block = chain.view.block(height)
            assert block is not None
            proof = BitcoinProof(BITCOIN.name, height, block.hash, envelope.transaction, vout, address.text, units)
            sighting = Sighting(Amount(BTC, units), address, proof)
            wallet, suspense = account_of(Tier.CUSTOMER_HOT, BITCOIN), Account(AccountKind.SUSPENSE)
            entry = credit_deposit(proof, wallet, suspense, sighting.amount)

            def work(work: UnitOfWork, entry: Entry = entry, sighting: Sighting = sighting) -> None:
                work.deposits.record(sighting)
                work.deposits.move(
                    sighting.identity, DepositStatus.CREDITED, work.journal.append(entry, self.shop.now).position
                )

            self.shop.treasury.store.run(work)

    @rule()
    def empty_block(self) -> None:
        """A block that takes nothing."""
        self.shop.payouts.view.mine()

    @rule(seconds=st.sampled_from([10, 200, STUCK_BITCOIN]))
    def passes(self, seconds: int) -> None:
        """Time."""
        self.shop.now += seconds
        self.shop.treasury.now = self.shop.now

    @rule(
        lost=st.sampled_from(["", "", "before", "after"]),
        asks=st.sampled_from([0, 6_000, 9_000, 20_000, 70_000]),
        silent=st.sampled_from([0, 0, 2]),
        stale=st.sampled_from([False, False, True]),
        down=st.sampled_from([False, False, True]),
    )
    def weather(self, lost: str, asks: int, silent: int, stale: bool, down: bool) -> None:
        """What node, seats and attestor are like from here on, and what fee a block wants."""
        chain = self.shop.payouts
        chain.lost, chain.asks, chain.stale = lost, asks, stale and self.chain == EVM
        self.shop.attestor.down = down
        for number, each in enumerate(self.shop.seats):
            each.silent = number < silent

    @rule(outcome=st.sampled_from([Outcome.DONE, Outcome.FAILED, Outcome.REVERTED]))
    def calls(self, outcome: Outcome) -> None:
        """What the next EVM call comes to, while none is in a block."""
        if self.chain == EVM and not self.shop.payouts.mined:
            self.shop.payouts.fails = outcome

    @rule(depth=st.integers(1, 2))
    def reorg(self, depth: int) -> None:
        """The newest blocks are replaced by empty ones; a node keeps what was in them, or forgets it."""
        chain = self.shop.payouts
        head = chain.view.head().height
        if head <= depth:
            return
        gone = [at for at, (_, height) in chain.mined.items() if height > head - depth]
        for at in gone:
            del chain.mined[at]
        chain.nonce -= len(gone)
        chain.view.reorg(depth)

    @rule()
    def forget(self) -> None:
        """The node's pool is emptied."""
        self.shop.payouts.pool.clear()

    @precondition(lambda self: self.chain == EVM and self._permits())
    @rule(data=st.data())
    def void(self, data: st.DataObject) -> None:
        """Two people want an anchor dead."""
        permit = data.draw(st.sampled_from(self._permits()))
        signed = signed_by(
            Void(permit.reservation.anchor, permit.intents), world().domain, [secp256k1("ana"), secp256k1("bo")]
        )
        payouts.void(self.shop.treasury.store, self.shop.treasury.kernel, signed, self.shop.now)
        self.voided |= set(permit.intents)

    # what has to hold

    @invariant()
    def one_anchor_one_payload(self) -> None:
        """Variants of an anchor pay the same to the same, differ in fee alone, each more than the last, and never above the maximum."""
        permits = self._read(lambda work: [work.transfers.permit_of(t.digest) for t in self.transfers])
        found = {permit.reservation.anchor: permit for permit in permits if permit is not None}
        carried = Counter(intent for permit in found.values() for intent in permit.intents)
        assert all(times == 1 for times in carried.values())
        for anchor, permit in found.items():
            variants = self._read(lambda work, a=anchor: payout_records.variants(work, a))
            live = [v.unsigned for v in variants if not v.void]
            assert len(variants) - len(live) <= 1
            assert all(v.unsigned.anchor == anchor for v in variants)
            assert len({tuple((p.intent, p.asset, p.units, p.destination) for p in u.paid) for u in live}) <= 1
            assert all(sorted(p.intent for p in u.paid) == sorted(permit.intents) for u in live)
            fees = [unsigned.fee for unsigned in live]
            assert fees == sorted(set(fees)) or self.chain == EVM
            assert all(fee <= (0 if self.chain == EVM else FEE_MOST * len(permit.intents)) for fee in fees)

    @invariant()
    def bytes_stay(self) -> None:
        """What was stored stays as it was; the ids of two variants differ; nothing was sent that is not stored."""
        stored: set[bytes] = set()
        for permit in self._all_permits():
            anchor = permit.reservation.anchor
            kept = tuple(self._read(lambda work, a=anchor: work.transfers.kept(a)))
            before = self.kept.get(anchor, ())
            assert kept[: len(before)] == before
            self.kept[anchor] = kept
            for envelope in kept:
                assert self.raw.setdefault(envelope.transaction, envelope.raw) == envelope.raw
                stored.add(envelope.transaction)
        assert self.sent <= stored

    @invariant()
    def paid_once(self) -> None:
        """By the chain itself: no intent twice, and the ledger's word on each is the chain's."""
        chain = self.shop.payouts
        times: Counter[bytes] = Counter()
        if chain.fails is not Outcome.FAILED:
            times.update(paid.intent for paid in chain.paid())
        for known in self.transfers:
            status = self.shop.get(known).status
            assert times[known.digest] <= 1
            assert status is not Status.COMPLETED or times[known.digest] == 1
            assert status is not Status.CANCELLED or (known.digest in self.voided and not times[known.digest])
            assert status is not Status.FAILED or chain.fails is Outcome.FAILED
            assert status not in {Status.REJECTED, Status.EXPIRED}

    @invariant()
    def books(self) -> None:
        """Held until its anchor is finally gone; then what was paid, with its share of the fee, and not a unit more."""
        held = fee = paid = 0
        for known in self.transfers:
            status, intent = self.shop.get(known).status, known.intent
            if not status.is_final:
                held += intent.amount + intent.maximum_fee
            elif status is Status.COMPLETED:
                paid += intent.amount
        final = max(0, self.shop.payouts.view.head().height - 2)  # three deep, whatever the node calls final
        for entry in self._read(lambda work: list(work.journal.read())):
            origin = entry.entry.origin
            if isinstance(origin, Executed):
                fee += 0 if origin.void else origin.fee
                assert self.shop.payouts.mined[origin.anchor.reference][1] <= final
        assert self.shop.treasury.balance(HELD, self.asset) == held
        assert self.shop.treasury.balance(AVAILABLE, self.asset) == self.had - held - paid - fee

    @invariant()
    def unknown_is_not_rebuilt(self) -> None:
        """Out of an unknown outcome lead the same bytes or what the chain says, never a second payout."""
        for known in self.transfers:
            history = self._read(lambda work, k=known: work.transfers.history(k.digest))
            path = [moved.status for moved in history]
            for was, to in pairwise(path):
                if was is Status.BROADCAST_UNKNOWN:
                    assert to in {*SENT, Status.CANCELLING}, path

    def teardown(self) -> None:
        """Let alone with good weather, every payout ends, or people are asked to look."""
        self.weather(lost="", asks=0, silent=0, stale=False, down=False)
        self.shop.payouts.fails = self.shop.payouts.fails if self.shop.payouts.mined else Outcome.DONE
        for _ in range(12):
            self.shop.now += 4_000
            self.shop.step()
            self.shop.payouts.mine()
            self.watch()
        for check in (self.paid_once, self.books, self.one_anchor_one_payload, self.bytes_stay):
            check()
        for known in self.transfers:
            now = self.shop.get(known)
            told = now.waiting_for
            one_coin = (
                self.chain == BITCOIN and not now.status.is_asked
            )  # the fake wallet's, which the first payout took
            assert now.status.is_final or "people: " in told or one_coin, (now.status, told)

    # inside

    def _read(self, work: Any) -> Any:
        return self.shop.treasury.store.read(work)

    def _permits(self) -> list[Permit]:
        return [*self._read(lambda work: work.transfers.permitted())]

    def _all_permits(self) -> list[Permit]:
        found = [self._read(lambda work, t=t: work.transfers.permit_of(t.digest)) for t in self.transfers]
        return [*{permit.reservation.anchor: permit for permit in found if permit is not None}.values()]


class BitcoinPayoutMachine(PayoutMachine):
    """The same on Bitcoin, where a higher fee is another variant."""

    chain = BITCOIN


@pytest.mark.parametrize("machine", [PayoutMachine, BitcoinPayoutMachine], ids=["evm", "bitcoin"])
def test_payouts_against_their_model(machine: type[PayoutMachine]) -> None:
    """Whatever dies, is lost or comes back, in whatever order."""
    run_state_machine_as_test(machine, settings=budget(6, 30))


def _plant(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    match bug:
        case "other bytes than were stored":
            send = payouts._send

            def other(post: Any, permit: Permit, kept: Any) -> None:
                send(post, permit, [*kept, replace(kept[-1], raw=kept[-1].raw + b"?")])

            monkeypatch.setattr(payouts, "_send", other)
        case "asked before it is recorded":
            monkeypatch.setattr(payout_records, "put_variant", lambda work, made, void: None)
        case "a failed call is called paid":
            executed = payouts._executed
            monkeypatch.setattr(payouts, "_executed", lambda *args: (executed(*args)[0], Status.COMPLETED))


@pytest.mark.parametrize(
    "bug",
    [
        "other bytes than were stored",
        "asked before it is recorded",
        "a failed call is called paid",
    ],
)
def test_finds_a_bug(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """One rule away, and the machine says so."""
    _plant(monkeypatch, bug)
    finds(PayoutMachine)


def test_finds_a_fee_above_what_people_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that asks for much, a builder that pays it, and seats that do not look: the steps are led by hand, being many."""
    outbid = FakePayouts.outbid

    def whatever(self: FakePayouts, certificate: Any, reservation: Any, sent: Any, maxima: Any) -> Any:
        return outbid(self, certificate, reservation, sent, dict.fromkeys(maxima, 10**9))

    monkeypatch.setattr(FakePayouts, "outbid", whatever)
    blind = {
        kind: tuple(check for check in checks if check is not seat_checks_intents.check_maximum_fee)
        for kind, checks in seat.CHECKS.items()
    }
    monkeypatch.setattr(seat, "CHECKS", blind)
    machine = BitcoinPayoutMachine()
    machine.begin(1)
    machine.step()
    machine.one_anchor_one_payload()
    machine.weather(lost="", asks=70_000, silent=0, stale=False, down=False)
    machine.passes(STUCK_BITCOIN)
    machine.step()
    with pytest.raises(AssertionError):
        machine.one_anchor_one_payload()


def test_finds_what_is_booked_before_it_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that calls its newest block final: the books have what a reorg may still take."""
    monkeypatch.setattr(FakeChain, "final", FakeChain.head)
    machine = PayoutMachine()
    machine.begin(1)
    machine.step()
    machine.books()
    machine.mine(1)
    machine.step()
    with pytest.raises(AssertionError):
        machine.books()
