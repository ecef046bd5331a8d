# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ledger against a model: credits, trades, holds and their ends, manual entries and reorgs, on the fake and the real SQLite store.

The model is DESIGN.md's list of accounts as plain numbers, and TRUST.md, "Provenance", for who pays which fee. Every entry goes to both
stores, which have to say the same of it as the model; the audit accepts exactly what was done, and finds any row that somebody changed.
"""

import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from custody.flows.inventory import Inventory
from custody.flows.ports import Branch, Store, UnitOfWork
from custody.flows.verification import AuditState, Finding, audit_journal, compare_totals
from custody.rules import holds
from custody.rules.amounts import Amount
from custody.rules.certificates import DepositAddress
from custody.rules.deposits import BlockRef
from custody.rules.intents import Anchor, Rejection, TransferIntent
from custody.rules.ledger import (
    Account,
    Entry,
    JournalEntry,
    JournalHead,
    canonical,
    credit_deposit,
    credited_to,
    entry_hash,
    entry_to_json,
    manual,
    replay,
    reverse,
    settle,
)
from custody.rules.origins import (
    Arrived,
    BitcoinProof,
    ChainProof,
    Executed,
    Hold,
    NativeProof,
    Release,
    Reversal,
    identity_of,
    measured,
)
from custody.rules.provenance import Authorities
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import FeeLeg, FeeSchedule, Leg, ManualEntry, ManualPosting, Settlement, Trade
from custody.rules.wallets import Address, Chain, Tier
from custody.store import SqlStore, migrate, open_store
from tests.fakes import store as fake_store
from tests.fakes.ledger import reverse_deposit
from tests.fakes.machines import budget, finds
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519, secp256k1, signed_by
from tests.fakes.store import FakeStore
from tests.fakes.treasury import DERIVE, roster
from tests.fakes.trust import ASSETS, BTC, ETH, Ask, transfers_of, world

ASSET: Final = {"ETH": ETH, "BTC": BTC}
CHAIN: Final = {"ETH": EVM, "BTC": BITCOIN}
CUSTOMERS: Final = ("ada", "bo")
SCHEDULE: Final = FeeSchedule(b"\x0c" * 32, {"ETH": 10_000, "BTC": 10_000}, 3600, {})
FEE_MOST: Final = {"ETH": 0, "BTC": 20_000}
UNITS: Final = st.one_of(st.integers(1_000, 60_000), st.sampled_from([2**63, 10**30]))
EXPIRY: Final = NOW + 1_000
NAMES: Final = itertools.count(1)


def block(height: int, fork: str = "") -> bytes:
    """A block's hash."""
    return (b"other" if fork else b"block").ljust(24, b"\0") + height.to_bytes(8)


@dataclass
class Node:
    """Knows what happened: proofs and final transactions; a height in `replaced` has another block by now."""

    chain: Chain
    events: set[ChainProof] = field(default_factory=set)
    executed: set[Executed] = field(default_factory=set)
    replaced: set[int] = field(default_factory=set)

    def final(self) -> BlockRef:
        """Very high."""
        return BlockRef(self.chain, 10**6, block(10**6), block(10**6 - 1), NOW)

    def block(self, height: int) -> BlockRef:
        """The canonical block."""
        hashed = block(height, "other" if height in self.replaced else "")
        return BlockRef(self.chain, height, hashed, block(height - 1), NOW)

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Whether it happened and still stands."""
        ok = proof in self.events and proof.height not in self.replaced
        return None if ok else Refusal(Rule.ORIGIN, event=identity_of(proof))

    def confirm_executed(self, done: Executed, intents: Sequence[TransferIntent], holding_of: object) -> Refusal | None:
        """Whether this transaction consumed the anchor."""
        return (
            None
            if done in self.executed and done.height not in self.replaced
            else Refusal(Rule.ORIGIN, anchor=done.anchor.reference)
        )


def _block_of(arrived: Entry | None, chain: Chain, height: int) -> tuple[str, int, bytes, bytes]:
    """Chain, height, block and transaction of a payout: those that brought what came back, where something did."""
    proof = None if arrived is None else arrived.origin
    if isinstance(proof, BitcoinProof):
        return proof.chain, proof.height, proof.block, proof.txid
    if isinstance(proof, NativeProof):
        return proof.chain, proof.height, proof.block, proof.height.to_bytes(32)
    return chain.name, height, block(height), height.to_bytes(32)


@cache
def inventory() -> Inventory:
    """The wallets of `world`, with an address of each customer on each chain."""
    bindings = []
    for chain in (EVM, BITCOIN):
        hot = world().certificate(Tier.CUSTOMER_HOT, chain)
        for index, name in enumerate(CUSTOMERS):
            address = DERIVE.derive(hot, Branch.RECEIVE, index).text
            message = DepositAddress(hot.struct_hash, chain.name, name, index, address)
            bindings.append(signed_by(message, world().domain, [ed25519("attestor")]))
    return Inventory([*world().certificates.values()], bindings, DERIVE)


@cache
def authorities() -> Authorities:
    """Against whom these entries are checked."""
    return Authorities(ASSETS, (roster(),), {SCHEDULE.bundle: SCHEDULE}, inventory().holding_of, inventory().tiers)


def wallet(symbol: str, tier: Tier = Tier.CUSTOMER_HOT) -> bytes:
    """A wallet's name."""
    return world().certificate(tier, CHAIN[symbol]).struct_hash


@cache
def template() -> Path:
    """A migrated, empty SQLite file, in memory where the system has such a folder."""
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    made = Path(tempfile.mkdtemp(prefix="bulkhead-ledger-", dir=folder))
    migrate(f"sqlite:///{made / 'empty.db'}")
    return made / "empty.db"


@dataclass(frozen=True)
class Held:
    """A hold as the model has it."""

    owner: str
    symbol: str
    amount: int
    fee: int
    intent: TransferIntent
    position: int
    digest: bytes


class LedgerMachine(RuleBasedStateMachine):
    """Two customers, a hot wallet on each chain, people, a settling client, and both chains."""

    def __init__(self) -> None:
        super().__init__()
        self.file = template().with_name(f"{next(NAMES)}.db")
        shutil.copy(template(), self.file)
        self.fake, self.real = FakeStore(), open_store(f"sqlite:///{self.file}", ASSETS)
        for store in self._stores():
            for name in CUSTOMERS:
                store.run(lambda work, n=name: work.customers.add(n))  # type: ignore[misc]
        self.nodes = {EVM: Node(EVM), BITCOIN: Node(BITCOIN)}
        self.model: Counter[tuple[str, str]] = Counter()
        """Base units by account, in its text form, and symbol."""
        self.credits: dict[int, tuple[str, str, int]] = {}
        self.holds: dict[bytes, Held] = {}
        self.paid: dict[int, tuple[list[Held], dict[tuple[str, str], int], int]] = {}
        """Payouts that stand, by position: their holds, what they moved, and the position of their change."""
        self.done: list[tuple[Entry, bool]] = []
        """Entries recorded, and whether the same may be recorded again (its credit was reversed)."""
        self.now, self.count, self.audited = NOW, 0, AuditState()

    def _stores(self) -> tuple[Store, Store]:
        return self.fake, self.real

    # coins

    @rule(symbol=st.sampled_from(["ETH", "BTC"]), units=UNITS, owner=st.sampled_from((*CUSTOMERS, "")))
    def deposit(self, symbol: str, units: int, owner: str) -> None:
        """Coins arrive for a customer, or for nobody who is known: suspense."""
        entry = self._arrives(symbol, units, owner)
        assert isinstance(entry.origin, ChainProof)
        to = f"customer_available:{owner}" if owner else f"suspense:{identity_of(entry.origin)}"
        moves = {(self._wallet(symbol), symbol): units, **self._given(to, symbol, units)}
        if self._try(entry, moves):
            self.credits[len(self.done)] = (to, symbol, moves[to, symbol])

    @precondition(lambda self: self.credits)
    @rule(data=st.data())
    def reorg(self, data: st.DataObject) -> None:
        """A credited block is gone: the credit is taken back, and what its owner has spent is a loss."""
        at = data.draw(st.sampled_from(sorted(self.credits)))
        owner, symbol, given = self.credits[at]
        credited = self._get(at)
        proof = credited.entry.origin
        assert isinstance(proof, ChainProof)
        origin = Reversal(at, proof.chain, proof.height, proof.block, block(proof.height, "other"))
        had = self.model[owner, symbol]
        taken, units = min(had, given), measured(proof)
        lost = {(f"reorg_loss:{owner}", symbol): units - taken}  # what it filled before is lost again
        moves = {(self._wallet(symbol), symbol): -units, (owner, symbol): -taken, **lost}
        if self._try(reverse_deposit(credited, origin, had), moves):
            self.nodes[Chain(proof.chain)].replaced.add(proof.height)
            del self.credits[at]
            self.done[at - 1] = (credited.entry, True)

    # trades and people

    @rule(symbol=st.sampled_from(["ETH", "BTC"]), units=UNITS, fee=st.integers(0, 500), turned=st.booleans())
    def trade(self, symbol: str, units: int, fee: int, turned: bool) -> None:
        """One customer gives another something, and the giver may pay a fee on top."""
        self.count += 1
        giver, taker = CUSTOMERS[::-1] if turned else CUSTOMERS
        legs = (Leg(giver, symbol, -units), Leg(taker, symbol, units))
        fees = (FeeLeg(giver, symbol, fee),) if fee else ()
        message = Settlement(f"s{self.count}", "settler", SCHEDULE.bundle, NOW, (Trade(f"t{self.count}", legs, fees),))
        signed = signed_by(message, world().domain, [ed25519("settler")])
        moves = {
            (f"customer_available:{giver}", symbol): -units - fee,
            (f"customer_available:{taker}", symbol): units,
            ("accrued_fees", symbol): fee,
        }
        self._try(settle(signed, ASSETS), moves)

    @rule(
        symbol=st.sampled_from(["ETH", "BTC"]),
        units=UNITS,
        ways=st.sampled_from(["suspense>ada", "suspense>bo", "company_surplus>ada", "company_surplus>reorg_loss"]),
        data=st.data(),
    )
    def by_hand(self, symbol: str, units: int, ways: str, data: st.DataObject) -> None:
        """Two people move what one event brought for nobody who is known, or what the company gives."""
        self.count += 1
        source, to = ways.split(">")
        to = f"customer_available:{to}" if to in CUSTOMERS else f"{to}:customer_available:ada"
        if source == "suspense":
            known = sorted(account for account, _ in self.model if account.startswith("suspense:"))
            source = data.draw(st.sampled_from([*known, "suspense:what never came"]))
        lines = (ManualPosting(source, symbol, "debit", units), ManualPosting(to, symbol, "credit", units))
        message = ManualEntry(f"m{self.count}", "found the sender", lines)
        signed = signed_by(message, world().domain, [secp256k1("ana"), secp256k1("bo")])
        sign = -1 if to.startswith("reorg_loss") else 1  # a loss stands on the debit side
        self._try(manual(signed, ASSETS), {(source, symbol): -units, (to, symbol): sign * units})

    # transfers

    @rule(symbol=st.sampled_from(["ETH", "BTC"]), owner=st.sampled_from(CUSTOMERS), units=UNITS)
    def hold(self, symbol: str, owner: str, units: int) -> None:
        """A withdrawal is proposed: its amount and its share of the fee wait."""
        self.count += 1
        fee = FEE_MOST[symbol]
        ask = Ask(
            chain=CHAIN[symbol],
            both={"account": f"customer:{owner}", "amount": units},
            proposal={"reference": f"order {self.count}", "expiry": EXPIRY},
            intent={"id": f"intent {self.count}", "maximum_fee": fee, "expiry": EXPIRY},
        )
        (transfer,) = transfers_of(ask)
        origin = Hold(transfer.proposal.message, transfer.proposal.signatures, transfer.intent)
        entry = holds.hold(origin, ASSETS)
        moves = {
            (f"customer_available:{owner}", symbol): -units - fee,
            (f"customer_held:{owner}", symbol): units + fee,
        }
        if self.now < EXPIRY and self._try(entry, moves):
            digest = world().domain.digest(transfer.intent)
            self.holds[digest] = Held(owner, symbol, units, fee, transfer.intent, len(self.done), digest)

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), expires=st.booleans())
    def release(self, data: st.DataObject, expires: bool) -> None:
        """Nothing was signed: a no, or the expiry, gives it back."""
        held = self.holds[data.draw(st.sampled_from(sorted(self.holds)))]
        no: tuple[tuple[Rejection, ...], tuple[Any, ...]] = ((), ())
        if expires:
            self.now = max(self.now, EXPIRY)
        else:
            message = Rejection(held.digest, "not this one")
            no = ((message,), signed_by(message, world().domain, [secp256k1("ana")]).signatures)
        entry = holds.release(Release(held.position, held.digest, *no), held.intent, ASSETS)
        if self._try(entry, self._given_back(held)):
            del self.holds[held.digest]

    @precondition(lambda self: self.holds)
    @rule(data=st.data(), fee=st.integers(0, 20_000), change=st.integers(546, 10_000), void=st.booleans())
    def execute(self, data: st.DataObject, fee: int, change: int, void: bool) -> None:
        """A final transaction paid a customer's holds of one asset, or voided them; change came back and was booked first."""
        held = self.holds[data.draw(st.sampled_from(sorted(self.holds)))]
        symbol = held.symbol
        group = [h for h in self.holds.values() if (h.owner, h.symbol) == (held.owner, symbol)][:3]
        on_bitcoin = symbol == "BTC"
        fee = fee * len(group) if on_bitcoin else 0
        back = self._arrives("BTC", change, "") if on_bitcoin else None
        event = identity_of(back.origin) if back is not None and isinstance(back.origin, ChainProof) else ""
        if back is not None and not self._try(
            back, {(self._wallet("BTC"), "BTC"): change, (f"suspense:{event}", "BTC"): change}
        ):
            return
        self.count += 1
        anchor = Anchor(CHAIN[symbol].name, wallet(symbol), f"{self.count}")
        arrived = (Arrived(wallet(symbol), "BTC", change, event),) if on_bitcoin else ()
        digests = tuple(h.digest for h in group)
        at = _block_of(back, CHAIN[symbol], 500_000 + self.count)
        done = Executed(*at, anchor, digests, arrived, fee, void)
        entry = holds.pay(done, [h.intent for h in group], Tier.CUSTOMER_HOT, ASSETS, replay(self._fake_entries()))
        paid, most = sum(h.amount for h in group), sum(h.fee for h in group)
        moves: Counter[tuple[str, str]] = Counter()
        moves[self._wallet(symbol), symbol] -= fee + (change if on_bitcoin else 0)
        if on_bitcoin:
            moves[f"suspense:{event}", symbol] -= change
        moves[f"customer_held:{held.owner}", symbol] -= paid + most
        if not void:
            moves[self._wallet(symbol), symbol] -= paid
        moves.update(self._given(f"customer_available:{held.owner}", symbol, most - fee + (paid if void else 0)))
        self.nodes[CHAIN[symbol]].executed.add(done)
        if self._try(entry, dict(moves)):
            self.paid[len(self.done)] = (group, dict(moves), len(self.done) - 1 if back is not None else 0)
            for each in group:
                del self.holds[each.digest]

    @precondition(lambda self: self.paid)
    @rule(data=st.data())
    def reorg_of_a_payout(self, data: st.DataObject) -> None:
        """The block of a payout is gone, with its change: exactly the opposite, its holds stand again, what was spent is a loss."""
        at = data.draw(st.sampled_from(sorted(self.paid)))
        group, moves, change = self.paid.pop(at)
        for position, did in ((at, moves), (change, None)):
            if not position:
                continue
            recorded = self._get(position)
            was = recorded.entry.origin
            assert isinstance(was, Executed | BitcoinProof)
            origin = Reversal(position, was.chain, was.height, was.block, block(was.height, "other"))
            self.nodes[Chain(was.chain)].replaced.add(was.height)
            entry = reverse(recorded, origin, replay(self._fake_entries()))
            assert self._try(entry, self._opposite(did or self._change_of(recorded)))
            self.done[position - 1] = (recorded.entry, True)
        for each in group:
            self.holds[each.digest] = each

    def _opposite(self, moves: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        found: Counter[tuple[str, str]] = Counter()
        for (account, symbol), units in moves.items():
            spendable = account.startswith("customer_available")
            taken = min(units, self.model[account, symbol]) if spendable and units > 0 else units
            found[account, symbol] -= taken
            found[f"reorg_loss:{account}", symbol] += units - taken
        return dict(found)

    @staticmethod
    def _change_of(recorded: JournalEntry) -> dict[tuple[str, str], int]:
        return {(str(account), asset.symbol): units for (account, asset), units in recorded.entry.changes().items()}

    def _fake_entries(self) -> list[JournalEntry]:
        return list(self.fake.read(lambda work: work.journal.read(0, 10**6)))

    @rule(symbol=st.sampled_from(["ETH", "BTC"]), units=st.integers(1_000, 10**30), fee=st.integers(0, 20_000))
    def make_whole(self, symbol: str, units: int, fee: int) -> None:
        """The company gives coins of its own, which the ledger takes from suspense to its surplus once they are there."""
        own, most = Tier.OPERATIONAL, FEE_MOST[symbol]
        fee = min(fee, most)
        arrived = {(self._wallet(symbol, own), symbol): units + most, ("company_equity", symbol): units + most}
        assert self._try(self._arrives(symbol, units + most, "", own), arrived)
        self.count += 1
        ask = Ask(
            chain=CHAIN[symbol],
            tier=own,
            to_tier=Tier.CUSTOMER_HOT,
            both={"purpose": "make_whole", "amount": units},
            proposal={"reference": f"order {self.count}", "expiry": 2 * EXPIRY},
            intent={"id": f"intent {self.count}", "maximum_fee": most, "expiry": 2 * EXPIRY},
            proposer="finance",
        )
        (transfer,) = transfers_of(ask)
        held = "company_held:company_equity"
        origin = Hold(transfer.proposal.message, transfer.proposal.signatures, transfer.intent)
        waits = {("company_equity", symbol): -units - most, (held, symbol): units + most}
        assert self._try(holds.hold(origin, ASSETS), waits)
        there = self._arrives(symbol, units, "")
        assert isinstance(there.origin, ChainProof)
        event = identity_of(there.origin)
        assert self._try(there, {(self._wallet(symbol), symbol): units, (f"suspense:{event}", symbol): units})
        self.count += 1
        at = _block_of(there, CHAIN[symbol], 0)
        anchor = Anchor(CHAIN[symbol].name, wallet(symbol, own), f"{self.count}")
        digests = (world().domain.digest(transfer.intent),)
        done = Executed(*at, anchor, digests, (Arrived(wallet(symbol), symbol, units, event),), fee, void=False)
        self.nodes[CHAIN[symbol]].executed.add(done)
        ends = {
            (self._wallet(symbol, own), symbol): -units - fee,
            (held, symbol): -units - most,
            ("company_equity", symbol): most - fee,
            (f"suspense:{event}", symbol): -units,
            ("company_surplus", symbol): units,
        }
        assert self._try(holds.pay(done, [transfer.intent], own, ASSETS), ends)

    # what must not happen

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """What is recorded is not recorded twice."""
        entry, free = data.draw(st.sampled_from(self.done))
        if free:
            return
        for store in self._stores():
            with pytest.raises(Refused) as caught:
                store.run(lambda work: work.journal.append(entry, self.now))
            assert Rule.ALREADY_RECORDED in {refusal.rule for refusal in caught.value.refusals}

    @precondition(lambda self: self.done)
    @rule(data=st.data(), forged=st.booleans())
    def tamper(self, data: st.DataObject, forged: bool) -> None:
        """Somebody changes one row behind everybody's back; whatever is forged with it, an audit finds it there."""
        at = data.draw(st.integers(1, len(self.done)))
        kind = data.draw(st.sampled_from(sorted(TAMPERED)))
        true = list(self.fake._state.entries)
        rows = TAMPERED[kind](true, at)
        if rows is None:
            return
        rows = forge(rows, at) if forged else rows
        changed = FakeStore()
        changed._state = replace(self.fake._state, entries=rows)
        if not forged or kind != "time":  # a time alone proves nothing by itself: only the hash of it does
            assert changed.read(partial(self._verify, AuditState())), (kind, at)
        if forged:  # whoever audited before knows by its own memory
            kept = changed.read(partial(self._verify, self._known()))
            assert {finding.refusal.rule for finding in kept} == {Rule.HISTORY_CHANGED}

    # what has to hold

    @invariant()
    def both_stores_are_the_model(self) -> None:
        """Balances, totals, hashes: as the model, on both; nobody below zero; all sides of an asset sum to zero."""
        wanted = {key: units for key, units in self.model.items() if units}
        assert all(units > 0 for units in wanted.values()), wanted
        for store in self._stores():
            balances, totals, head = store.read(
                lambda work: (list(work.journal.balances()), list(work.journal.totals()), work.journal.head())
            )
            assert {(str(account), asset.symbol): units for account, asset, units in balances} == wanted
            sums: Counter[tuple[str, str]] = Counter()
            for (account, symbol), units in wanted.items():
                sums[account.partition(":")[0], symbol] += units
            assert {(str(kind), asset.symbol): units for kind, asset, units in totals} == dict(sums)
            assert head.position == len(self.done)
        for symbol in ASSET:
            ours = ("wallet", "network_fees", "reorg_loss")
            sides: Counter[bool] = Counter()
            for (account, of), units in wanted.items():
                sides[account.partition(":")[0] in ours] += units if of == symbol else 0
            assert sides[True] == sides[False]

    @invariant()
    def held_is_held(self) -> None:
        """What customers have waiting is exactly their holds."""
        for owner, symbol in itertools.product(CUSTOMERS, ASSET):
            waits = sum(h.amount + h.fee for h in self.holds.values() if (h.owner, h.symbol) == (owner, symbol))
            assert self.model[f"customer_held:{owner}", symbol] == waits

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        """An audit that goes on where it stood accepts what was done, and knows the holds that stand."""
        assert self.fake.read(partial(self._verify, self.audited)) == []
        assert set(self.audited.holds) == set(self.holds)

    def teardown(self) -> None:
        """The database's rows say the same as the fake's, the audit from nothing accepts them, and finds a forged one."""
        try:
            mine, theirs = (list(store.read(lambda work: work.journal.read(0, 10**6))) for store in self._stores())
            assert mine == theirs
            assert self.real.read(partial(self._verify, AuditState())) == []
            assert {key: units for key, units in replay(mine).items() if units} == {
                (Account.parse(account), ASSET[symbol]): units
                for (account, symbol), units in self.model.items()
                if units
            }
            if mine:
                self._forge_in_the_database(mine)
        finally:
            assert isinstance(self.real, SqlStore)
            self.real.close()
            for path in self.file.parent.glob(f"{self.file.name}*"):
                path.unlink()

    # inside

    def _forge_in_the_database(self, entries: list[JournalEntry]) -> None:
        at = len(entries) // 2 + 1
        rows = TAMPERED["amount"](entries, at)
        if rows is None:
            return
        engine = sqlalchemy.create_engine(f"sqlite:///{self.file}")
        with engine.begin() as connection:
            for name in (
                connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
            ):
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            write = sqlalchemy.text("UPDATE journal SET body = :b, previous = :p, hash = :h WHERE position = :at")
            for row in forge(rows, at)[at - 1 :]:
                body = canonical(entry_to_json(row.entry)).decode()
                connection.execute(write, {"b": body, "p": row.previous, "h": row.hash, "at": row.position})
        engine.dispose()
        assert self.real.read(partial(self._verify, AuditState()))
        assert {f.refusal.rule for f in self.real.read(partial(self._verify, self._known()))} == {Rule.HISTORY_CHANGED}

    def _known(self) -> AuditState:
        """What somebody knows who audited everything before it was changed."""
        state = AuditState()
        assert self.fake.read(partial(self._verify, state)) == []
        return state

    def _verify(self, state: AuditState, work: UnitOfWork) -> list[Finding]:
        found = audit_journal(work, state, authorities(), self.nodes)  # type: ignore[arg-type]
        return found or [*compare_totals(work, state, ASSETS)]

    def _arrives(self, symbol: str, units: int, owner: str, tier: Tier = Tier.CUSTOMER_HOT) -> Entry:
        self.count += 1
        chain, height = CHAIN[symbol], self.count
        found = next(
            address
            for address in sorted(inventory().watched(chain), key=str)
            if (at := inventory().wallet_of(address)) is not None
            and at.tier is tier
            and (inventory().customer_of(address) or "") == owner
        )
        proof: ChainProof
        if symbol == "BTC":
            proof = BitcoinProof(chain.name, height, block(height), height.to_bytes(32), 0, found.text, units)
        else:
            proof = NativeProof(chain.name, height, block(height), found.text, 5, 5 + units, 0)
        holding = inventory().holding_of(Address(chain, found.text))
        assert holding is not None
        self.nodes[chain].events.add(proof)
        lost = self.model[f"reorg_loss:{credited_to(proof, holding.owner)}", symbol]
        return credit_deposit(proof, holding.wallet, holding.owner, Amount(ASSET[symbol], units), lost)

    def _given(self, to: str, symbol: str, units: int) -> dict[tuple[str, str], int]:
        """What an account gets of units that are given to it: what it lost to a reorg is filled first."""
        filled = min(self.model[f"reorg_loss:{to}", symbol], units)
        return {(to, symbol): units - filled, (f"reorg_loss:{to}", symbol): -filled}

    def _wallet(self, symbol: str, tier: Tier = Tier.CUSTOMER_HOT) -> str:
        return f"wallet:{wallet(symbol, tier).hex()}"

    def _given_back(self, held: Held) -> dict[tuple[str, str], int]:
        units = held.amount + held.fee
        return {
            (f"customer_held:{held.owner}", held.symbol): -units,
            (f"customer_available:{held.owner}", held.symbol): units,
        }

    def _get(self, at: int) -> JournalEntry:
        found = self.real.read(lambda work: work.journal.get(at))
        assert found is not None
        return found

    def _try(self, entry: Entry | None, moves: Mapping[tuple[str, str], int]) -> bool:
        """Append to both; refused exactly if the model says that somebody would be below zero, and then nothing changed."""
        assert entry is not None
        short = {account for (account, symbol), units in moves.items() if self.model[account, symbol] + units < 0}
        heads: list[JournalEntry] = []
        told: tuple[Refusal, ...]
        for store in self._stores():
            try:
                recorded = store.run(lambda work: work.journal.append(entry, self.now))
            except Refused as refused:
                told = refused.refusals
            else:
                told = ()
                heads.append(recorded)
            assert {r.rule for r in told} <= {Rule.INSUFFICIENT_BALANCE}
            assert {r.operands["account"] for r in told} == short, moves
        assert len(heads) in {0, 2}
        if heads:
            assert heads[0] == heads[1]
            self.model.update(moves)
            self.done.append((entry, False))
        return bool(heads)


Rows = list[JournalEntry]


def _amount(rows: Rows, at: int) -> Rows | None:
    """One unit more on both sides of the first amount."""
    entry = rows[at - 1].entry
    first = entry.postings[0].amount
    both = {
        posting.side: number for number, posting in enumerate(entry.postings) if posting.amount.asset == first.asset
    }
    lines = list(entry.postings)
    for number in both.values():
        lines[number] = replace(lines[number], amount=Amount(first.asset, lines[number].amount.units + 1))
    return _with(rows, at, Entry(entry.origin, tuple(lines)))


def _owner(rows: Rows, at: int) -> Rows | None:
    """What is ada's becomes bo's, and the other way round."""
    names = {"ada": "bo", "bo": "ada"}
    entry = rows[at - 1].entry
    lines = tuple(
        replace(p, account=replace(p.account, owner=names.get(p.account.owner, p.account.owner)))
        for p in entry.postings
    )
    return None if lines == entry.postings else _with(rows, at, Entry(entry.origin, lines))


def _time(rows: Rows, at: int) -> Rows | None:
    return [replace(row, recorded_at=row.recorded_at + 1) if row.position == at else row for row in rows]


def _with(rows: Rows, at: int, entry: Entry) -> Rows:
    return [replace(row, entry=entry) if row.position == at else row for row in rows]


TAMPERED: Final[Mapping[str, Callable[[Rows, int], Rows | None]]] = {
    "amount": _amount,
    "owner": _owner,
    "time": _time,
}


def forge(rows: Rows, at: int) -> Rows:
    """With every hash made right again from a position on."""
    found = rows[: at - 1]
    previous = found[-1].hash if found else JournalHead().hash
    for row in rows[at - 1 :]:
        digest = entry_hash(row.position, row.recorded_at, previous, row.entry)
        found.append(replace(row, previous=previous, hash=digest))
        previous = digest
    return found


def test_the_ledger_against_its_model() -> None:
    """Whatever is booked in whatever order, nobody is below zero, nothing is lost, and what was changed is found."""
    run_state_machine_as_test(LedgerMachine, settings=budget(10, 25))


def _plant(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    whole = reverse_deposit

    def nothing(*_: object, **__: object) -> Iterator[Refusal]:
        return iter(())

    match name:
        case "overdrawn":
            monkeypatch.setattr(fake_store, "check_balances", nothing)
        case "twice":
            monkeypatch.setattr(fake_store.FakeJournal, "_taken", nothing)
        case "loss":
            monkeypatch.setattr(
                "tests.unit.test_stateful_ledger.reverse_deposit",
                lambda credited, origin, had: whole(credited, origin, 0),
            )
        case "fee":
            monkeypatch.setattr(holds, "fee_shares", lambda fee, maxima: tuple(maxima))
        case "origin":
            monkeypatch.setattr("custody.flows.verification.check_entry", nothing)
        case "chain":
            monkeypatch.setattr("custody.flows.verification._check_chain", nothing)
        case "memory":
            monkeypatch.setattr("custody.flows.verification._check_kept", lambda *_: None)


@pytest.mark.parametrize("bug", ["overdrawn", "twice", "loss", "fee", "origin", "chain", "memory"])
def test_finds_a_bug(monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """One check away, and the machine says so."""
    _plant(monkeypatch, bug)
    finds(LedgerMachine)
