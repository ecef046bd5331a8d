# SPDX-License-Identifier: AGPL-3.0-or-later
"""`verify_ledger` on real databases: whatever was changed behind our back is found, at its position and by its rule."""

# ruff: noqa: S608  # raw SQL by hand is what these tests are

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import sqlalchemy

from custody.flows.ports import Store, UnitOfWork
from custody.flows.verification import AuditState, Finding, audit_journal, verify_ledger
from custody.rules.amounts import Amount, Asset
from custody.rules.deposits import BlockRef, Sighting
from custody.rules.errors import Unavailable
from custody.rules.ledger import (
    Entry,
    JournalEntry,
    canonical,
    credit_deposit,
    entry_hash,
    entry_to_json,
    manual,
    settle,
)
from custody.rules.origins import ChainProof, Reversal, identity_of
from custody.rules.provenance import Holding
from custody.rules.refusals import Refusal, Rule
from custody.rules.settlements import FeeLeg
from custody.rules.signatures import Signed
from custody.rules.wallets import Address, Chain
from custody.store import open_store
from tests.fakes.ledger import (
    ANA_ETH,
    ASSETS,
    BO_ETH,
    BTC,
    COMPANY_ETH,
    EQUITY,
    ETH,
    EVM,
    HOT,
    HOT_ETH,
    LOOK_ALIKE,
    NOW,
    OPERATIONAL,
    OWNERS,
    PROPOSER,
    STRANGER,
    STRANGER_ETH,
    SUSPENSE,
    USD,
    agreed,
    authorities,
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


@dataclass
class Node:
    """A node that knows some proofs; its blocks are those of `block_hash`, unless a height was replaced."""

    chain: Chain
    proofs: set[str] = field(default_factory=set)
    replaced: dict[int, bytes] = field(default_factory=dict)
    height: int = 100
    offline: bool = False

    def _answer(self) -> None:
        if self.offline:
            raise Unavailable(f"node of {self.chain}", "offline")

    def head(self) -> BlockRef:
        """The newest block."""
        return self.final()

    def final(self) -> BlockRef:
        """The final block."""
        self._answer()
        return BlockRef(self.chain, self.height, block_hash(self.height), block_hash(self.height - 1), NOW)

    def block(self, height: int) -> BlockRef | None:
        """The canonical block."""
        self._answer()
        hashed = self.replaced.get(height, block_hash(height))
        return BlockRef(self.chain, height, hashed, block_hash(height - 1), NOW) if height <= self.height else None

    def sightings(self, first: int, last: int, watched: Collection[Address]) -> Sequence[Sighting]:
        """Not asked here."""
        raise NotImplementedError

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """Not asked here."""
        raise NotImplementedError

    def confirm(self, proof: ChainProof) -> Refusal | None:
        """Whether the proof is known and its block canonical."""
        self._answer()
        canonical_hash = self.replaced.get(proof.height, block_hash(proof.height))
        if identity_of(proof) in self.proofs and canonical_hash == proof.block:
            return None
        return Refusal(Rule.ORIGIN, field="event", got=identity_of(proof), want="an event of the chain")


class World:
    """A ledger and the nodes that know what is in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.nodes = {EVM: Node(EVM), BTC: Node(BTC)}

    def put(self, entry: Entry, at: int = NOW) -> JournalEntry:
        """Record an entry; its node knows its event."""
        origin = entry.origin
        if not isinstance(origin, Signed | Reversal):
            self.nodes[Chain(origin.chain)].proofs.add(identity_of(origin))
        return self.store.run(lambda work: work.journal.append(entry, at))

    def fill(self) -> None:
        """One of everything, all of it true."""
        self.store.run(lambda work: work.customers.add("ana"))
        self.store.run(lambda work: work.customers.add("bo"))
        self.put(credit(native(1)))
        self.put(credit(token(2, 10**9, BO_ETH)))
        self.put(credit(coins(3)))
        self.put(credit(native(4, 9000, HOT_ETH)))
        self.put(credit(native(5, 700, COMPANY_ETH)))
        self.put(settle(settled(settlement(trade(fees=[FeeLeg("ana", "ETH", 10)]))), ASSETS))
        self.put(manual(agreed(move(1000, str(stray(4)))), ASSETS))
        self.reverse(self.put(credit(native(6))))
        self.put(settle(settled(settlement(trade("t2", fees=[FeeLeg("bo", "USD", 7)]), name="s2")), ASSETS), NOW + 9)

    def reverse(self, recorded: JournalEntry) -> JournalEntry:
        """A reorg takes a native credit back."""
        proof = recorded.entry.origin
        assert not isinstance(proof, Signed | Reversal)
        self.nodes[EVM].replaced[proof.height] = other = block_hash(proof.height, "other")
        origin = Reversal(recorded.position, proof.chain, proof.height, proof.block, other)
        owner = recorded.entry.postings[1]
        had = self.store.read(lambda work: work.journal.balance(owner.account, owner.amount.asset))
        return self.put(reverse_deposit(recorded, origin, had))

    def verify(self) -> list[Finding]:
        """What `ledger verify` finds."""
        return verify_ledger(self.store, authorities(), self.nodes)

    def rules(self) -> list[tuple[int | None, Rule]]:
        """Positions and rules of what it finds."""
        return [(found.position, found.refusal.rule) for found in self.verify()]


@pytest.fixture
def world(store: Store) -> World:
    """A ledger that is true, on each kind of store."""
    made = World(store)
    made.fill()
    return made


@dataclass
class Tampered:
    """A true ledger in a database whose guards somebody has taken away."""

    world: World
    engine: sqlalchemy.Engine

    def sql(self, *statements: str) -> None:
        """Change it behind our back."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def rewrite(self, position: int, change: Callable[[str], str]) -> None:
        """Change the stored JSON of an entry."""
        with self.engine.begin() as connection:
            read = sqlalchemy.text("SELECT body FROM journal WHERE position = :p")
            body = str(connection.execute(read, {"p": position}).scalar_one())
            assert change(body) != body
            write = sqlalchemy.text("UPDATE journal SET body = :b WHERE position = :p")
            connection.execute(write, {"b": change(body), "p": position})

    def replace(self, position: int, entry: Entry) -> None:
        """Put another entry in place of one and forge every hash from there on: only its origin can give it away."""
        entries = list(self.world.store.read(lambda work: work.journal.read()))
        previous = entries[position - 2].hash if position > 1 else bytes(32)
        with self.engine.begin() as connection:
            for old in entries[position - 1 :]:
                new = entry if old.position == position else old.entry
                digest = entry_hash(old.position, old.recorded_at, previous, new)
                write = "UPDATE journal SET body = :b, previous = :p, hash = :h WHERE position = :at"
                body = canonical(entry_to_json(new)).decode()
                connection.execute(sqlalchemy.text(write), {"b": body, "p": previous, "h": digest, "at": old.position})
                previous = digest


@pytest.fixture(params=["sqlite", "postgresql"])
def tampered(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[Tampered]:
    """A true ledger without its triggers and, in SQLite, without CHECKs on what is written next."""
    url = make_url(str(request.param))
    store = open_store(url, ASSETS)
    world = World(store)
    world.fill()
    engine = sqlalchemy.create_engine(url)
    tables = ("journal", "postings", "identities", "accruals", "balances", "totals")
    with engine.begin() as connection:
        if request.param == "sqlite":
            found = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
            for name in found:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
        else:
            for table in tables:
                connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    yield Tampered(world, engine)
    engine.dispose()
    store.close()


def _matured(by: int, work: UnitOfWork) -> list[int]:
    return [work.journal.matured_fees(asset, by) for asset in (ETH, USD)]


class TestTrue:
    """A ledger that holds."""

    def test_holds(self, world: World) -> None:
        """Nothing is found in a ledger with one of everything."""
        assert world.verify() == []

    def test_empty(self, store: Store) -> None:
        """Nor in an empty one."""
        assert World(store).verify() == []

    def test_block_that_came_back(self, world: World) -> None:
        """A reversed block is canonical again: a finding until its event is credited again, then none."""
        world.nodes[EVM].replaced.clear()
        assert world.rules() == [(9, Rule.ORIGIN)]
        world.put(credit(native(6)))
        assert world.rules() == []

    def test_spent_before_the_reorg(self, world: World) -> None:
        """What the owner had spent stands in `reorg_loss`, exactly, and the audit agrees."""
        taken = world.put(credit(native(20, 50, HOT_ETH)))
        world.put(manual(agreed(move(40, str(stray(20)), name="m2")), ASSETS))
        world.reverse(taken)
        assert world.verify() == []

    def test_from_a_position_on(self, world: World) -> None:
        """An audit goes on where it stood, and knows the same in the end as one from the start."""
        state, whole = AuditState(), AuditState()

        def ask(known: AuditState) -> Callable[[UnitOfWork], list[Finding]]:
            return lambda work: audit_journal(work, known, authorities(), world.nodes)

        assert world.store.read(ask(state)) == []
        extra = world.put(credit(native(30, 70)))
        world.reverse(world.put(credit(native(31, 70))))
        assert world.store.read(ask(state)) == []
        assert world.store.read(ask(whole)) == []
        assert state == whole
        assert state.head.position == extra.position + 2
        assert state.balances[available("ana"), ETH] == world.store.read(
            lambda w: w.journal.balance(available("ana"), ETH)
        )
        for by in (NOW - 1, NOW, NOW + 9):
            assert [state.matured_fees(asset, by) for asset in (ETH, USD)] == world.store.read(partial(_matured, by))


class TestNodes:
    """What a node does not confirm does not hold, and what cannot be asked is told."""

    def test_offline(self, world: World) -> None:
        """Each entry that rests on a chain whose node is away is unknown, never passed."""
        world.nodes[EVM].offline = True
        assert world.rules() == [(n, Rule.ORIGIN_UNKNOWN) for n in (1, 2, 4, 5, 9)]

    def test_no_node(self, world: World) -> None:
        """The same where no node is known."""
        del world.nodes[BTC]
        assert world.rules() == [(3, Rule.ORIGIN_UNKNOWN)]

    def test_not_on_chain(self, world: World) -> None:
        """A credit that its chain does not know is found every time, until its node confirms it."""
        entry = credit(native(40))
        world.put(entry)
        assert not isinstance(entry.origin, Signed | Reversal)
        world.nodes[EVM].proofs.discard(identity_of(entry.origin))
        state = AuditState()
        for _ in range(2):
            found = world.store.read(lambda work: audit_journal(work, state, authorities(), world.nodes))
            assert [(f.position, f.refusal.rule) for f in found] == [(11, Rule.ORIGIN)]
        world.nodes[EVM].proofs.add(identity_of(entry.origin))
        assert world.store.read(lambda work: audit_journal(work, state, authorities(), world.nodes)) == []

    def test_reorg_nobody_booked(self, world: World) -> None:
        """A credit whose block is gone, with no reversal: a finding."""
        world.nodes[EVM].replaced[1] = block_hash(1, "other")
        assert world.rules() == [(1, Rule.ORIGIN)]

    def test_below_finality(self, world: World) -> None:
        """A credit above the final height is a finding, though its chain has it."""
        world.put(credit(native(101)))
        assert world.rules() == [(11, Rule.ORIGIN)]

    def test_reversal_of_a_canonical_block(self, world: World) -> None:
        """A reversal of a credit that still stands on its chain takes a customer's coins away."""
        recorded = world.put(credit(native(50)))
        world.reverse(recorded)
        del world.nodes[EVM].replaced[50]
        assert world.rules() == [(12, Rule.ORIGIN)]


def _forged() -> list[object]:
    """Entries that any database would take: (what is forged, entry, rules)."""
    wei = Amount(ETH, 10**18)
    person = replace(
        agreed(move(1000, str(stray(4)), name="f")),
        signatures=agreed(move(1000, str(stray(4)), name="f")).signatures[:1],
    )
    changed = settled(settlement(trade("f"), name="f"))
    schedule = settlement(trade("f"), name="f", schedule=bytes(32))
    return [
        pytest.param(
            credit_deposit(native(60), HOT, available("bo"), wei), {Rule.ORIGIN}, id="credited to another customer"
        ),
        pytest.param(
            credit_deposit(native(60), HOT, EQUITY, wei), {Rule.ORIGIN}, id="a customer's coins to the company"
        ),
        pytest.param(
            credit_deposit(native(60), OPERATIONAL, available("ana"), wei), {Rule.ORIGIN}, id="another wallet"
        ),
        pytest.param(
            credit_deposit(native(60), HOT, available("ana"), Amount(ETH, 2 * 10**18)),
            {Rule.ORIGIN},
            id="more than measured",
        ),
        pytest.param(
            credit_deposit(native(60), HOT, available("ana"), Amount(USD, 10**18)), {Rule.ORIGIN}, id="another asset"
        ),
        pytest.param(
            credit_deposit(native(60, 10**18, STRANGER_ETH), HOT, SUSPENSE, wei),
            {Rule.UNKNOWN_WALLET},
            id="not our address",
        ),
        pytest.param(
            credit_deposit(token(60, contract=LOOK_ALIKE), HOT, available("ana"), Amount(USD, 10**6)),
            {Rule.UNKNOWN_ASSET},
            id="a look-alike token",
        ),
        pytest.param(
            credit_deposit(native(60, 9), HOT, available("ana"), Amount(ETH, 9)), {Rule.DUST}, id="below dust"
        ),
        pytest.param(
            credit_deposit(native(60, 10**18, COMPANY_ETH), HOT, SUSPENSE, wei),
            {Rule.ORIGIN},
            id="the company's to a customer tier",
        ),
        pytest.param(
            settle(settled(settlement(trade("f"), name="f"), STRANGER), ASSETS),
            {Rule.SIGNER_UNKNOWN},
            id="a stranger settles",
        ),
        pytest.param(
            settle(settled(settlement(trade("f"), name="f", client="backend"), PROPOSER), ASSETS),
            {Rule.SCOPE_MISSING},
            id="a proposing client settles",
        ),
        pytest.param(
            replace(settle(changed, ASSETS), origin=replace(changed, message=settlement(trade("f", 5), name="f"))),
            {Rule.SIGNATURE_INVALID, Rule.ORIGIN},
            id="a settlement changed after it was signed",
        ),
        pytest.param(settle(settled(schedule), ASSETS), {Rule.ORIGIN_UNKNOWN}, id="under a schedule nobody signed"),
        pytest.param(
            settle(settled(settlement(trade("f", fees=[FeeLeg("ana", "ETH", 10**15)]), name="f")), ASSETS),
            {Rule.FEE_ABOVE_SCHEDULE},
            id="a fee above the schedule",
        ),
        pytest.param(
            replace(
                settle(changed, ASSETS), postings=settle(settled(settlement(trade("g", 7), name="g")), ASSETS).postings
            ),
            {Rule.ORIGIN},
            id="postings that the settlement does not say",
        ),
        pytest.param(manual(person, ASSETS), {Rule.QUORUM_NOT_REACHED}, id="a manual entry of one person"),
        pytest.param(
            manual(agreed(move(debit="customer_available:ana", credit_to="company_equity", name="f")), ASSETS),
            {Rule.MOVE_NOT_ALLOWED},
            id="a customer's balance to the company",
        ),
        pytest.param(
            manual(agreed(move(1000, str(stray(4)), "customer_available:nobody", "f")), ASSETS),
            {Rule.UNKNOWN_CUSTOMER},
            id="an unknown customer",
        ),
    ]


@pytest.mark.parametrize(("entry", "rules"), _forged())
def test_forged_origin(world: World, entry: Entry, rules: set[Rule]) -> None:
    """An entry that balances, on a chain event that is real or a signature that is not: its origin gives it away."""
    recorded = world.put(entry)
    found = world.verify()
    assert {f.position for f in found} == {recorded.position}
    assert {f.refusal.rule for f in found} == rules


def test_suspense_before_the_binding(world: World) -> None:
    """Coins that came before their address was bound are in suspense, which is owed: no finding."""
    world.put(credit_deposit(native(60), HOT, SUSPENSE, Amount(ETH, 10**18)))
    assert world.verify() == []


def test_binding_that_is_not_the_attestors(world: World) -> None:
    """Where no attested binding names a customer, a credit to one is a finding."""
    owners = {**OWNERS, ANA_ETH: Holding(HOT, SUSPENSE)}
    found = verify_ledger(world.store, authorities(owners), world.nodes)
    assert [(f.position, f.refusal.rule) for f in found] == [(1, Rule.ORIGIN), (8, Rule.ORIGIN)]


class TestTampered:
    """Rows changed behind our back."""

    @pytest.mark.parametrize(
        ("change", "rules"),
        [
            pytest.param(
                lambda body: body.replace('"units":"1000000000000000000"', '"units":"2000000000000000000"'),
                {Rule.ROW_DAMAGED, Rule.HASH_CHAIN, Rule.ORIGIN, Rule.BALANCE_MISMATCH},
                id="another amount",
            ),
            pytest.param(
                lambda body: body.replace('"credit","units":"1', '"credit","units":"3'),
                {Rule.ROW_DAMAGED, Rule.BALANCE_MISMATCH},
                id="unbalanced",
            ),
            pytest.param(lambda body: body[:-1], {Rule.ROW_DAMAGED, Rule.BALANCE_MISMATCH}, id="not JSON"),
            pytest.param(lambda _: "[1,2]", {Rule.ROW_DAMAGED, Rule.BALANCE_MISMATCH}, id="another shape"),
            pytest.param(lambda body: body + " ", {Rule.ROW_DAMAGED, Rule.BALANCE_MISMATCH}, id="another spelling"),
            pytest.param(
                lambda body: body.replace('"asset":"ETH"', '"asset":"DOGE"'),
                {Rule.ROW_DAMAGED, Rule.BALANCE_MISMATCH},
                id="an asset that does not exist",
            ),
            pytest.param(
                lambda body: body.replace("eip155:31338", "eip155:99"),
                {Rule.ROW_DAMAGED, Rule.HASH_CHAIN, Rule.ORIGIN_UNKNOWN, Rule.UNKNOWN_ASSET, Rule.UNKNOWN_WALLET},
                id="another chain",
            ),
            pytest.param(
                lambda body: body.replace("eip155:31338", "nowhere"),
                {Rule.ROW_DAMAGED, Rule.HASH_CHAIN, Rule.ORIGIN},
                id="no chain",
            ),
            pytest.param(lambda _: "[" * 100_000, {Rule.ROW_DAMAGED, Rule.BALANCE_MISMATCH}, id="nested without end"),
        ],
    )
    def test_body(self, tampered: Tampered, change: Callable[[str], str], rules: set[Rule]) -> None:
        """An edited entry is a finding at its own position, never a crash, and everything else is still read."""
        tampered.rewrite(1, change)
        found = tampered.world.verify()
        assert rules <= {f.refusal.rule for f in found}
        assert {f.position for f in found if f.refusal.rule in (Rule.ROW_DAMAGED, Rule.HASH_CHAIN)} == {1}

    @pytest.mark.parametrize(
        ("statement", "position", "rule"),
        [
            pytest.param(
                "UPDATE journal SET recorded_at = recorded_at - 1 WHERE position = 3", 3, Rule.HASH_CHAIN, id="time"
            ),
            pytest.param("UPDATE journal SET hash = previous WHERE position = 3", 3, Rule.HASH_CHAIN, id="hash"),
            pytest.param("DELETE FROM journal WHERE position = 4", 5, Rule.HASH_CHAIN, id="a row taken out"),
            pytest.param(
                "UPDATE postings SET account = 'suspense' WHERE position = 1 AND line = 1",
                1,
                Rule.ROW_DAMAGED,
                id="a line",
            ),
            pytest.param(
                "DELETE FROM postings WHERE position = 2 AND line = 0", 2, Rule.ROW_DAMAGED, id="a line taken out"
            ),
            pytest.param(
                "INSERT INTO identities VALUES ('trade', 'x', 0, 2)", 2, Rule.ROW_DAMAGED, id="an identity too many"
            ),
            pytest.param(
                "DELETE FROM identities WHERE kind = 'trade'", 6, Rule.ROW_DAMAGED, id="a trade that could settle again"
            ),
            pytest.param("UPDATE accruals SET ripens = 0", 6, Rule.ROW_DAMAGED, id="a fee ripened early"),
            pytest.param("DELETE FROM accruals WHERE position = 6", 6, Rule.ROW_DAMAGED, id="an accrual taken out"),
        ],
    )
    def test_row(self, tampered: Tampered, statement: str, position: int, rule: Rule) -> None:
        """A changed row is found where it stands."""
        off = (
            "PRAGMA foreign_keys=OFF"
            if tampered.engine.dialect.name == "sqlite"
            else "SET session_replication_role = replica"
        )
        tampered.sql(off, statement)
        assert (position, rule) in tampered.world.rules()

    @pytest.mark.parametrize("table", ["balances", "totals"])
    def test_running_numbers(self, tampered: Tampered, table: str) -> None:
        """A balance or total that the journal does not add up to."""
        units = "'" + "7".rjust(78, "0") + "'" if tampered.engine.dialect.name == "sqlite" else "7"
        key = "account = 'customer_available:ana'" if table == "balances" else "kind = 'customer_available'"
        tampered.sql(f"UPDATE {table} SET units = {units} WHERE asset = 'BTC' AND {key}")
        (found,) = tampered.world.verify()
        assert (found.position, found.refusal.rule) == (None, Rule.BALANCE_MISMATCH)
        assert (found.refusal.operands["kept"], found.refusal.operands["journal"]) == (7, 10**8)

    def test_balance_from_nowhere(self, tampered: Tampered) -> None:
        """A balance that no entry explains."""
        units = "'" + "7".rjust(78, "0") + "'" if tampered.engine.dialect.name == "sqlite" else "7"
        tampered.sql(f"INSERT INTO balances VALUES ('customer_held:eve', 'ETH', {units})")
        assert tampered.world.rules() == [(None, Rule.BALANCE_MISMATCH)]

    def test_damaged_balance(self, tampered: Tampered) -> None:
        """A balance that is no number, or an account that is none, is a finding and no crash."""
        tampered.sql("UPDATE balances SET account = 'president' WHERE substr(account, 1, 9) = 'suspense:'")
        assert tampered.world.rules() == [(None, Rule.ROW_DAMAGED)]

    def test_damaged_text(self, make_url: Callable[[str], str]) -> None:
        """Bytes that are no text at all, which SQLite keeps: a finding at their row."""
        url = make_url("sqlite")
        world = World(open_store(url, ASSETS))
        world.fill()
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER journal_no_update")
            connection.exec_driver_sql("UPDATE journal SET body = CAST(x'ff00fe' AS TEXT) WHERE position = 10")
        engine.dispose()
        assert (10, Rule.ROW_DAMAGED) in world.rules()

    def test_forged_with_every_hash(self, tampered: Tampered) -> None:
        """Who rewrites an entry and every hash after it is given away by the origin, and by the balances."""
        entry = credit_deposit(native(1, 10**18), HOT, available("bo"), Amount(ETH, 10**18))
        tampered.replace(1, entry)
        rules = {(p, r) for p, r in tampered.world.rules() if r is not Rule.ROW_DAMAGED}
        assert (1, Rule.ORIGIN) in rules
        assert (None, Rule.BALANCE_MISMATCH) in rules
        assert Rule.HASH_CHAIN not in {r for _, r in rules}

    @pytest.mark.parametrize("cut", [True, False], ids=["cut off", "rewritten"])
    def test_history_under_an_auditor(self, tampered: Tampered, cut: bool) -> None:
        """Whoever audited up to a head finds the journal cut off or rewritten below it."""
        state, store = AuditState(), tampered.world.store

        def audit(work: UnitOfWork) -> list[Finding]:
            return audit_journal(work, state, authorities(), tampered.world.nodes)

        assert store.read(audit) == []
        if cut:
            off = (
                "PRAGMA foreign_keys=OFF"
                if tampered.engine.dialect.name == "sqlite"
                else "SET session_replication_role = replica"
            )
            tampered.sql(off, "DELETE FROM journal WHERE position > 8")
        else:
            tampered.replace(1, credit_deposit(native(1, 10**18), HOT, available("bo"), Amount(ETH, 10**18)))
        assert [(f.position, f.refusal.rule) for f in store.read(audit)] == [(10, Rule.HISTORY_CHANGED)]

    def test_told_again(self, tampered: Tampered) -> None:
        """What is broken is found each time, not only when it is first read."""
        tampered.rewrite(10, lambda body: json.dumps(json.loads(body)))
        state, store = AuditState(), tampered.world.store
        for _ in range(2):
            found = store.read(lambda work: audit_journal(work, state, authorities(), tampered.world.nodes))
            assert Rule.ROW_DAMAGED in {f.refusal.rule for f in found} or Rule.HISTORY_CHANGED in {
                f.refusal.rule for f in found
            }
