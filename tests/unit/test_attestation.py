# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor believes no row: what was changed behind its back is found, named by position, and not signed over."""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from eth_keys.datatypes import PublicKey

from custody.attestor import RemoteAttestor, attestor_handlers, oldest_finals, verify_signature, verify_statement
from custody.flows.attestation import Attestor
from custody.flows.bookkeeping import record_settlement
from custody.flows.history import SEGMENT
from custody.flows.mirror import CERTIFICATE, ROSTER, put_signed
from custody.flows.panel import Panel
from custody.rules.amounts import Amount, Asset
from custody.rules.attested import check_safes
from custody.rules.deposits import BlockRef
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.ledger import Entry, JournalEntry, JournalHead, Posting
from custody.rules.origins import NativeProof
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import FeeLeg
from custody.rules.signatures import Signed
from custody.rules.statements import AssetCoverage, SeatPosition, Statement
from custody.rules.typed import ZERO_ADDRESS
from custody.rules.wallets import Address, Chain, Tier
from custody.store import migrate, open_store
from custody.vault.attestor_memory import VaultMemory
from custody.vault.seat import SeatHost
from custody.wire import Stop, serve
from tests.fakes import ledger
from tests.fakes.chain import FakeChain
from tests.fakes.house import (
    House,
    SafeChain,
    address_of,
    attestor_vault,
    binding,
    certificate,
    certificates,
    deployment,
    roster,
)
from tests.fakes.ledger import ASSETS, BTC, COIN, ETH, EVM, USD, available
from tests.fakes.seat import NOW, Deployment, FakeVault, ed25519, rules_of, seat_in_memory, signed_by
from tests.fakes.store import FakeJournal


def lived_in(house: House | None = None) -> House:
    """Three credited deposits, on both chains."""
    house = house or House()
    house.evm.mine((ETH, address_of("ana", EVM, 0), 1000), (USD, address_of("bo", EVM, 1), 700))
    house.evm.mine_many(3)
    house.btc.mine((COIN, address_of("ana", BTC, 0), 90_000))
    house.btc.mine_many(3)
    house.settle(house.evm)
    house.settle(house.btc)
    return house


def row(statement: Signed[Statement], symbol: str) -> AssetCoverage:
    """One asset's line."""
    return next(row for row in statement.message.coverage if row.asset == symbol)


def refusals(attestor: Attestor) -> list[tuple[Rule, object]]:
    """What it refuses to sign over: rules with positions."""
    with pytest.raises(Refused) as refused:
        attestor.statement()
    return [(refusal.rule, refusal.operands.get("position")) for refusal in refused.value.refusals]


def settle(house: House) -> None:
    """Ana sells ETH to Bo for USD; she pays a fee of one wei."""
    message = ledger.settlement(ledger.trade(units=500, usd=100, fees=[FeeLeg("ana", "ETH", 1)]))
    signed = Signed(message, (ed25519("settler").sign(deployment().domain.digest(message)),))
    record_settlement(house.store, roster(), signed, ledger.SCHEDULE, ASSETS, house.clock())


class TestStatement:
    """What an honest deployment's statement says."""

    def test_numbers(self) -> None:
        """Coins, liabilities and heights are the chains' and the journal's."""
        house = lived_in()
        house.evm.mine((ETH, address_of("ana", EVM, 0), 50))
        house.evm.mine_many(2)
        statement = house.attestor().statement()
        eth, final = row(statement, "ETH"), house.evm.final()
        assert (eth.on_chain, eth.in_ledger, eth.reserves, eth.available, eth.suspense) == (1050, 1000, 1000, 1000, 0)
        assert (row(statement, "USD").reserves, row(statement, "BTC").available) == (700, 90_000)
        assert (final.height, final.hash) == next(
            (h.height, h.hash) for h in statement.message.heights if h.chain == EVM.name
        )
        head = house.store.read(lambda work: work.journal.head())
        assert (head.position, head.hash) == (statement.message.ledger_position, statement.message.ledger_head)
        assert verify_statement(statement, roster(), [a.symbol for a in ASSETS]) == []

    def test_company_coins_do_not_count(self) -> None:
        """What arrives at the operational wallet is no reserve."""
        house = House()
        company = house.wallet(Tier.OPERATIONAL, EVM).place
        house.evm.mine((ETH, Address(EVM, company), 5000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        eth = row(house.attestor().statement(), "ETH")
        assert (eth.on_chain, eth.in_ledger, eth.available) == (0, 0, 0)

    def test_suspense_is_owed(self) -> None:
        """Coins of nobody we know are a liability."""
        house = House()
        house.evm.mine((ETH, Address(EVM, house.wallet(Tier.CUSTOMER_HOT, EVM).place), 5000))
        house.evm.mine_many(3)
        house.settle(house.evm)
        eth = row(house.attestor().statement(), "ETH")
        assert (eth.suspense, eth.available, eth.reserves) == (5000, 0, 5000)

    def test_shortfall_is_said_and_refused_by_coverage(self) -> None:
        """Coins leave behind the ledger's back: the statement says so, and the check refuses it."""
        house = lived_in()
        house.evm.mine(spends=[(ETH, address_of("ana", EVM, 0), 400)])
        house.evm.mine_many(2)
        statement = house.attestor().statement()
        assert (
            row(statement, "ETH").on_chain,
            row(statement, "ETH").available,
            row(statement, "ETH").reserves,
        ) == (600, 1000, 600)
        assert [refusal.rule for refusal in verify_statement(statement, roster())] == [Rule.COVERAGE]

    def test_fees_ripen(self) -> None:
        """Accrued at once, matured after the schedule's time, by the attestor's own books."""
        house = lived_in()
        settle(house)
        found = []
        for seconds in (0, 3599, 1):
            house.clock.now += seconds
            eth = row(house.attestor().statement(), "ETH")
            found.append((eth.accrued_fees, eth.matured_fees))
        assert found == [(1, 0), (1, 0), (1, 1)]

    def test_sequence_and_time_after_restart(self) -> None:
        """Every statement has a new number, whatever process makes it; the attested head stands in the vault."""
        house = lived_in()
        first = house.attestor()
        numbers = [first.statement().message.sequence, first.statement().message.sequence]
        numbers.append(house.attestor().statement().message.sequence)
        assert numbers == [1, 2, 3]
        house.clock.now -= 500
        again = house.attestor()
        times = [again.statement().message.time]
        house.clock.now -= 500
        times.append(again.statement().message.time)
        assert times[0] <= times[1]
        assert house.memory.attested() == house.store.read(lambda work: work.journal.head())

    def test_extends_then_signs(self) -> None:
        """The vault dies after the head was extended: no signature, and the next process goes on from there."""
        house = lived_in()
        house.vault.die_after = house.vault.writes + 7  # roster seen, four certificates seen, sequence, head
        with pytest.raises(Unavailable):
            house.attestor().statement()
        assert house.memory.attested() == house.store.read(lambda work: work.journal.head())
        assert verify_statement(house.attestor().statement(), roster()) == []

    def test_pruned_node(self) -> None:
        """After a restart, proofs that held when they were attested are not asked for again; new ones are."""
        house = lived_in()
        house.attestor().statement()
        asked: list[object] = []

        class Pruned(SafeChain):
            def confirm(self, proof: object) -> Refusal | None:
                asked.append(proof)
                return super().confirm(proof)  # type: ignore[arg-type]

        house.evm.__class__ = Pruned
        house.attestor().statement()
        assert asked == []
        house.evm.mine((ETH, address_of("bo", EVM, 1), 60))
        house.evm.mine_many(2)
        house.settle(house.evm)
        asked.clear()
        house.attestor().statement()
        assert len(asked) == 1


def chain_of(rows: Sequence[tuple[Entry, int]]) -> list[JournalEntry]:
    """Entries as an attacker writes them: every hash right."""
    head, written = JournalHead(), []
    for entry, at in rows:
        recorded = JournalEntry.append(head, entry, at)
        written.append(recorded)
        head = JournalHead(recorded.position, recorded.hash)
    return written


def scaled(entry: Entry, factor: int) -> Entry:
    """The same entry with other amounts, its proof with them."""
    postings = tuple(replace(p, amount=Amount(p.amount.asset, p.amount.units * factor)) for p in entry.postings)
    proof = entry.origin
    assert isinstance(proof, NativeProof)
    return Entry(replace(proof, after=proof.before + (proof.after - proof.before) * factor), postings)


def given_to(entry: Entry, customer: str) -> Entry:
    """The same entry, owed to another customer."""
    wallet, owner = entry.postings
    return Entry(entry.origin, (wallet, Posting(available(customer), owner.side, owner.amount)))


Rows = list[JournalEntry]


def rehashed(change: Callable[[Entry], Entry], position: int) -> Callable[[Rows], Rows]:
    """Change one entry and recompute every hash from there on."""
    return lambda rows: chain_of(
        [(change(r.entry) if r.position == position else r.entry, r.recorded_at) for r in rows]
    )


def in_place(change: Callable[[Entry], Entry], position: int) -> Callable[[Rows], Rows]:
    """Change one entry and no hash."""
    return lambda rows: [replace(r, entry=change(r.entry)) if r.position == position else r for r in rows]


def native_position(house: House) -> int:
    """Where Ana's ETH was credited."""
    rows: Rows = house.store._state.entries
    return next(r.position for r in rows if isinstance(r.entry.origin, NativeProof))


class TestHistory:
    """A row changed behind the attestor's back, while it runs and while it is down."""

    @pytest.mark.parametrize("restarted", [pytest.param(False, id="running"), pytest.param(True, id="restarted")])
    @pytest.mark.parametrize(
        "attack",
        [
            pytest.param(lambda at: in_place(lambda e: scaled(e, 2), at), id="amount"),
            pytest.param(lambda at: in_place(lambda e: given_to(e, "bo"), at), id="owner"),
            pytest.param(lambda at: rehashed(lambda e: scaled(e, 2), at), id="amount, hashes recomputed"),
            pytest.param(lambda at: rehashed(lambda e: given_to(e, "bo"), at), id="owner, hashes recomputed"),
            pytest.param(lambda at: lambda rows: [r for r in rows if r.position != at], id="deleted"),
            pytest.param(
                lambda at: lambda rows: chain_of([(r.entry, r.recorded_at) for r in rows if r.position != at]),
                id="closed up",
            ),
            pytest.param(lambda at: lambda rows: rows[:-1], id="cut off at the end"),
            pytest.param(
                lambda at: lambda rows: chain_of([(r.entry, r.recorded_at + 1) for r in rows]), id="times moved"
            ),
        ],
    )
    def test_attested_row(self, attack: Callable[[int], Callable[[Rows], Rows]], restarted: bool) -> None:
        """Whatever was vouched for is what is there, or nothing is signed; put back, it signs again."""
        house = lived_in()
        attestor = house.attestor()
        attestor.statement()
        good, at = list(house.store._state.entries), native_position(house)
        house.store._state.entries = attack(at)(good)
        used = house.attestor() if restarted else attestor
        found = refusals(used)
        assert Rule.HISTORY_CHANGED in {rule for rule, _ in found}
        assert all(position is not None for _, position in found)
        house.store._state.entries = good
        assert verify_statement(used.statement(), roster()) == []

    def test_position_of_a_changed_row(self) -> None:
        """The refusal says where."""
        house = lived_in()
        attestor = house.attestor()
        attestor.statement()
        at = native_position(house)
        house.store._state.entries = in_place(lambda e: scaled(e, 2), at)(house.store._state.entries)
        assert [(Rule.HISTORY_CHANGED, at)] == refusals(attestor)

    @pytest.mark.parametrize(
        ("plant", "rule"),
        [
            pytest.param(lambda e: scaled(e, 3), Rule.ORIGIN, id="an amount that the chain does not show"),
            pytest.param(lambda e: given_to(e, "bo"), Rule.ORIGIN, id="another customer's address"),
            pytest.param(lambda e: e, Rule.ALREADY_RECORDED, id="a true deposit a second time"),
        ],
    )
    def test_new_row(self, plant: Callable[[Entry], Entry], rule: Rule) -> None:
        """A row written into the database with every hash right has no origin; every later statement says so too."""
        house = lived_in()
        attestor = house.attestor()
        attestor.statement()
        rows = house.store._state.entries
        planted = plant(rows[native_position(house) - 1].entry)
        house.store._state.entries = chain_of([*((r.entry, r.recorded_at) for r in rows), (planted, NOW)])
        for used in (attestor, attestor, house.attestor()):
            assert (rule, len(rows) + 1) in refusals(used)

    def test_new_row_with_a_broken_hash(self) -> None:
        """Beyond what was vouched for it is the chain of hashes that is broken."""
        house = lived_in()
        rows = house.store._state.entries
        house.store._state.entries = [*rows[:-1], replace(rows[-1], hash=bytes(32))]
        assert (Rule.HASH_CHAIN, len(rows)) in refusals(house.attestor())

    def test_planted_after_a_reversal(self) -> None:
        """A true proof, reversed since, cannot be used again while its block is not canonical; after a restart neither."""
        house = lived_in()
        attestor = house.attestor()
        attestor.statement()
        house.evm.reorg(4)
        house.evm.mine_many(2)
        house.settle(house.evm)
        attestor.statement()
        rows = house.store._state.entries
        planted = rows[native_position(house) - 1].entry
        house.store._state.entries = chain_of([*((r.entry, r.recorded_at) for r in rows), (planted, NOW)])
        for used in (attestor, house.attestor()):
            assert (Rule.ORIGIN, len(rows) + 1) in refusals(used)

    def test_settlement_twice(self) -> None:
        """One true settlement entered twice: both signatures are right, and the second is a theft."""
        house = lived_in()
        settle(house)
        rows = house.store._state.entries
        attestor = house.attestor()
        attestor.statement()
        again = rows[-1]
        house.store._state.entries = chain_of([(r.entry, r.recorded_at) for r in (*rows, again)])
        for used in (attestor, house.attestor()):
            assert (Rule.ALREADY_RECORDED, len(rows) + 1) in refusals(used)

    def test_old_segment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Old rows are read again in turn, so a change deep down is found after as many statements as there are segments."""
        monkeypatch.setattr("custody.flows.history.SEGMENT", 2)
        house = House()
        for _ in range(9):
            house.evm.mine((ETH, address_of("ana", EVM, 0), 100))
        house.evm.mine_many(2)
        house.settle(house.evm)
        attestor = house.attestor()
        attestor.statement()
        for position in (1, 4, 9):
            good = list(house.store._state.entries)
            house.store._state.entries = [replace(r, recorded_at=1) if r.position == position else r for r in good]
            with pytest.raises(Refused, match="attested_history_changed"):
                for _ in range(5):
                    attestor.statement()
            house.store._state.entries = good
            attestor.statement()
        assert SEGMENT > 2

    @pytest.mark.parametrize("change", [pytest.param(1, id="raised"), pytest.param(-1, id="lowered")])
    @pytest.mark.parametrize("what", ["balances", "totals"])
    def test_running_totals(self, what: str, change: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A balance row differs from the journal."""
        house = lived_in()
        attestor = house.attestor()
        attestor.statement()
        honest = getattr(FakeJournal, what)
        cooked = lambda journal: ((k, a, units + (change if a == ETH else 0)) for k, a, units in honest(journal))  # noqa: E731
        monkeypatch.setattr(FakeJournal, what, cooked)
        assert {Rule.BALANCE_MISMATCH} == {rule for rule, _ in refusals(attestor)}

    @pytest.mark.parametrize(
        ("statement", "rule"),
        [
            pytest.param(
                "UPDATE balances SET units = replace(units, '1', '2')", Rule.BALANCE_MISMATCH, id="balances raised"
            ),
            pytest.param("DELETE FROM totals", Rule.BALANCE_MISMATCH, id="totals deleted"),
            pytest.param(
                "UPDATE journal SET body = replace(body, 'ana', 'bo')", Rule.HISTORY_CHANGED, id="owner renamed"
            ),
            pytest.param("DELETE FROM journal WHERE position = 1", Rule.HISTORY_CHANGED, id="first row deleted"),
            pytest.param(
                "UPDATE postings SET account = 'suspense' WHERE line = 1", Rule.HISTORY_CHANGED, id="lines for queries"
            ),
        ],
    )
    def test_in_a_real_database(self, statement: str, rule: Rule, tmp_path: Path) -> None:
        """The administrator of a SQLite file drops the triggers and writes."""
        url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
        migrate(url)
        house = lived_in(House(store=open_store(url, ASSETS)))
        attestor = house.attestor()
        attestor.statement()
        with sqlite3.connect(tmp_path / "ledger.sqlite") as raw:
            raw.execute("PRAGMA foreign_keys = OFF")
            for (trigger,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                raw.execute(f"DROP TRIGGER {trigger}")
            assert raw.execute(statement).rowcount
        assert rule in {found for found, _ in refusals(attestor)}


class TestMirror:
    """Documents in the database are a mirror; the genesis in the vault is what counts."""

    @pytest.mark.parametrize(
        ("plant", "rule"),
        [
            pytest.param(
                lambda documents: put_signed(
                    documents, CERTIFICATE, Signed(replace(certificate(Tier.CUSTOMER_HOT, EVM), birth=7), ())
                ),
                Rule.QUORUM_NOT_REACHED,
                id="a wallet that nobody signed",
            ),
            pytest.param(
                lambda documents: put_signed(
                    documents,
                    CERTIFICATE,
                    deployment().people_sign(replace(certificate(Tier.CUSTOMER_HOT, EVM), birth=7), ("ana",)),
                ),
                Rule.QUORUM_NOT_REACHED,
                id="a wallet that one person signed",
            ),
            pytest.param(
                lambda documents: put_signed(documents, ROSTER, Signed(deployment().successor(previous=bytes(32)), ())),
                Rule.NOT_SUCCESSOR,
                id="a roster that does not follow",
            ),
        ],
    )
    def test_forged(self, plant: Callable[[object], None], rule: Rule) -> None:
        """Neither a statement nor a binding over a forged document."""
        house = lived_in()
        house.store.run(lambda work: plant(work.documents))
        attestor = house.attestor()
        assert rule in {found for found, _ in refusals(attestor)}
        with pytest.raises(Refused):
            attestor.bind(binding("ana", EVM, 0).message)

    def test_older_roster(self) -> None:
        """A roster that was seen in force stays seen: a database rolled back to the older one is refused."""
        house = lived_in()
        second = deployment().people_sign(deployment().successor(not_before=NOW))
        newer = House(vault=house.vault, evm=house.evm, btc=house.btc)
        newer.store.run(lambda work: put_signed(work.documents, ROSTER, second))
        assert newer.attestor().statement().message.roster == 2
        with pytest.raises(Refused) as refused:
            house.attestor().statement()
        assert {Rule.ROSTER_OLDER} == rules_of(refused.value)

    def test_pinned_once(self) -> None:
        """Genesis is pinned once; the same again is fine; unsigned or another is refused; without one nothing is signed."""
        house = House(vault=attestor_vault())
        attestor = house.attestor()
        attestor.pin(deployment().genesis())
        other = replace(deployment().version, delay=77)
        with pytest.raises(Refused) as refused:
            attestor.pin(deployment().genesis(other))
        assert {Rule.WRONG_GENESIS} == rules_of(refused.value)
        house.vault.documents.clear()
        attestor = house.attestor()
        with pytest.raises(Refused) as refused:
            attestor.pin(deployment().genesis(without="bo"))
        assert {Rule.SIGNATURE_MISSING} == rules_of(refused.value)
        with pytest.raises(Refused) as refused:
            attestor.statement()
        assert {Rule.NOT_PINNED} == rules_of(refused.value)

    def test_signs_only_a_roster_that_names_it(self) -> None:
        """Version 1 before genesis, itself again after; never one with another attestor, nor another version 1."""
        house = House()
        attestor = house.attestor()
        version = deployment().version
        assert attestor.sign_roster(version).is_over(deployment().domain.digest(version))
        for odd, rule in (
            (replace(version, attestor=ed25519("mallory").key), Rule.SIGNER_UNKNOWN),
            (replace(version, delay=9), Rule.NOT_SUCCESSOR),
        ):
            with pytest.raises(Refused) as refused:
                attestor.sign_roster(odd)
            assert rule in rules_of(refused.value)
        second = deployment().successor(not_before=NOW)
        assert attestor.sign_roster(second).is_over(deployment().domain.digest(second))


class TestBind:
    """An index is one customer's for ever."""

    def test_same_again(self) -> None:
        """The same binding gets the same signature, in any process."""
        house = House()
        assert binding("ana", EVM, 0) == house.attestor().bind(binding("ana", EVM, 0).message)
        assert binding("ana", EVM, 0) == house.attestor().bind(binding("ana", EVM, 0).message)

    @pytest.mark.parametrize(
        ("ask", "rule"),
        [
            pytest.param(lambda b: replace(b, customer="bo"), Rule.INDEX_BOUND, id="another customer"),
            pytest.param(
                lambda b: binding("ana", EVM, 3).message, Rule.INDEX_BOUND, id="a second index of one customer"
            ),
            pytest.param(
                lambda b: replace(b, address=address_of("bo", EVM, 1).text), Rule.ADDRESS_MISMATCH, id="another address"
            ),
            pytest.param(lambda b: replace(b, wallet=bytes(32)), Rule.UNKNOWN_WALLET, id="an unknown wallet"),
            pytest.param(lambda b: replace(b, chain=BTC.name), Rule.WRONG_NETWORK, id="another chain"),
            pytest.param(lambda b: binding("mallory", EVM, 4).message, Rule.UNKNOWN_CUSTOMER, id="nobody's customer"),
            pytest.param(lambda b: binding("bo", EVM, 400).message, Rule.INDEX_TOO_FAR, id="beyond the watched window"),
            pytest.param(
                lambda b: replace(b, wallet=certificate(Tier.OPERATIONAL, EVM).wallet),
                Rule.TIER_NOT_CUSTOMER,
                id="the company's wallet",
            ),
        ],
    )
    def test_refused(self, ask: Callable[[object], object], rule: Rule) -> None:
        """Refused, and nothing bound."""
        house = House()
        attestor = house.attestor()
        asked = binding("ana", EVM, 0).message
        attestor.bind(asked)
        before = dict(house.vault.documents)
        with pytest.raises(Refused) as refused:
            attestor.bind(ask(asked))  # type: ignore[arg-type]
        assert rule in rules_of(refused.value)
        assert before == house.vault.documents


class TestChains:
    """One final height per chain: fresh, agreed, and not below what the journal rests on."""

    def test_node_gone_back(self) -> None:
        """A node whose final block is below the newest entry is stale."""
        house = lived_in()
        house.evm.rollback(2)
        with pytest.raises(Refused) as refused:
            house.attestor().statement()
        assert rules_of(refused.value) & {Rule.STALE, Rule.ORIGIN}

    def test_restarted_on_a_stale_node(self) -> None:
        """After a restart too, although old proofs are not asked for again."""
        house = lived_in()
        house.attestor().statement()
        house.evm.rollback(2)
        with pytest.raises(Refused) as refused:
            house.attestor().statement()
        assert {Rule.STALE} == rules_of(refused.value)

    def test_never_a_lower_height_than_before(self) -> None:
        """A height that was stated once is the least the next statement may stand on."""
        house = lived_in()
        house.evm.mine_many(5)
        attestor = house.attestor()
        attestor.statement()
        house.evm.rollback(2)
        with pytest.raises(Refused) as refused:
            attestor.statement()
        assert {Rule.STALE} == rules_of(refused.value)

    def test_too_old(self) -> None:
        """A final block older than the limit says nothing about today."""
        house = lived_in()
        house.clock.now += 10**6 + 100
        with pytest.raises(Refused) as refused:
            house.attestor().statement()
        assert {Rule.STALE} == rules_of(refused.value)
        assert {EVM: 30 * 86400, Chain("eip155:1"): 3600} == oldest_finals([EVM, Chain("eip155:1")])

    def test_no_limit_is_never_fresh(self) -> None:
        """A chain that nobody gave a limit is refused."""
        house = lived_in()
        house.clock.now += 1000
        with pytest.raises(Refused) as refused:
            house.attestor(oldest={EVM: 10**6}).statement()
        assert {Rule.STALE} == rules_of(refused.value)

    def test_reorged_away_and_not_yet_reversed(self) -> None:
        """Between a deep reorg and its reversal nothing is signed by an attestor that had not vouched; afterwards it is."""
        house = lived_in()
        house.evm.reorg(4)
        assert Rule.ORIGIN in {rule for rule, _ in refusals(house.attestor())}
        house.evm.mine_many(2)
        house.settle(house.evm)
        statement = house.attestor().statement()
        assert (row(statement, "ETH").available, row(statement, "ETH").on_chain) == (0, 0)

    def test_reorged_away_after_it_was_spent(self) -> None:
        """The loss is a shortfall until somebody makes it whole."""
        house = lived_in()
        settle(house)
        attestor = house.attestor()
        attestor.statement()
        house.evm.reorg(4)
        house.evm.mine_many(2)
        house.settle(house.evm)
        statement = attestor.statement()
        assert (row(statement, "ETH").available, row(statement, "ETH").reserves) == (500, 0)
        assert Rule.COVERAGE in {refusal.rule for refusal in verify_statement(statement, roster())}

    @pytest.mark.parametrize(
        "differ",
        [
            pytest.param(lambda other: other.mine((ETH, address_of("bo", EVM, 1), 9)), id="another branch"),
            pytest.param(lambda other: None, id="another genesis"),
        ],
    )
    def test_nodes_disagree(self, differ: Callable[[FakeChain], object]) -> None:
        """Two nodes on two branches: unknown."""
        house = lived_in()
        other = SafeChain(EVM, 3, seed="other", start=NOW)
        differ(other)
        other.mine_many(5)
        with pytest.raises(Unavailable, match="disagree"):
            house.attestor([house.evm, other]).statement()

    def test_nodes_agree_at_the_lower_final(self) -> None:
        """One node is a block behind: the statement stands on the block that both have."""
        house = lived_in()
        behind = SafeChain(EVM, 3, start=NOW)
        house.evm.mine()
        behind._blocks = house.evm._blocks[:-1]
        statement = house.attestor([house.evm, behind]).statement()
        assert behind.final().height == next(h.height for h in statement.message.heights if h.chain == EVM.name)

    def test_one_node_lies_about_coins(self) -> None:
        """Balances differ: unknown, whichever of them is right."""
        house = lived_in()

        class Rich(SafeChain):
            def balance(self, asset: Asset, addresses: object, at: BlockRef) -> int:
                return super().balance(asset, addresses, at) + 1  # type: ignore[arg-type]

        rich = Rich(EVM, 3, start=NOW)
        rich._blocks = house.evm._blocks
        with pytest.raises(Unavailable, match="disagree about balance"):
            house.attestor([house.evm, rich]).statement()

    def test_one_node_outside_the_devnet(self) -> None:
        """A chain that carries value needs two nodes."""
        chain = Chain("eip155:1")
        with pytest.raises(Unavailable, match="2 needed"):
            Panel(chain, [FakeChain(chain)])
        assert chain == Panel(chain, [FakeChain(chain), FakeChain(chain)]).head().chain

    @pytest.mark.parametrize("calls", range(0, 16, 3))
    def test_node_dies(self, calls: int) -> None:
        """A silent node is no statement; when it answers again, there is one."""
        house = lived_in()
        house.evm.calls_left = calls
        attestor = house.attestor()
        with suppress(Unavailable):
            attestor.statement()
        house.evm.calls_left, house.evm.offline = None, False
        assert verify_statement(attestor.statement(), roster()) == []


class TestSafes:
    """The state of every certified Safe stands in the statement; drift from the certificate is refused by whoever checks."""

    @staticmethod
    def honest() -> dict[str, object]:
        """A deployed hot Safe as certified."""
        hot = certificate(Tier.CUSTOMER_HOT, EVM)
        owners = tuple("0x" + Account.from_key_bytes(seat.key.public) for seat in hot.seats)
        safe = hot.safe[0]
        return {
            "deployed": True,
            "owners": owners,
            "threshold": 3,
            "singleton": safe.singleton,
            "handler": safe.handler,
        }

    @pytest.mark.parametrize(
        ("drift", "field"),
        [
            pytest.param({}, None, id="as certified"),
            pytest.param({"threshold": 1}, "threshold", id="threshold lowered"),
            pytest.param({"owners": ("0x" + "11" * 20,) * 4}, "owners", id="owners exchanged"),
            pytest.param({"modules": ("0x" + "66" * 20,)}, "modules", id="a module enabled"),
            pytest.param({"guard": "0x" + "66" * 20}, "guard", id="a guard set"),
            pytest.param({"singleton": "0x" + "66" * 20}, "singleton", id="another implementation"),
            pytest.param({"handler": ZERO_ADDRESS}, "handler", id="another handler"),
            pytest.param({"address": "0x" + "66" * 20}, "address", id="another Safe"),
        ],
    )
    def test_drift(self, drift: dict[str, object], field: str | None) -> None:
        """The statement reports it; the check names the field."""
        house = lived_in()
        house.evm.drift = {**self.honest(), **drift}
        statement = house.attestor().statement()
        hot = certificate(Tier.CUSTOMER_HOT, EVM)
        found = list(check_safes(statement.message, [(hot.wallet, hot)]))
        assert ([] if field is None else [field]) == [refusal.operands["field"] for refusal in found]
        assert {Rule.SAFE_DRIFT} >= {
            refusal.rule for refusal in verify_statement(statement, roster(), (), [(hot.wallet, hot)])
        }

    def test_missing(self) -> None:
        """A Safe that the statement leaves out is drift."""
        statement = replace(House().attestor().statement().message, safes=())
        pairs = [(c.message.wallet, c.message) for c in certificates()]
        assert [refusal.rule for refusal in check_safes(statement, pairs)] == [Rule.SAFE_DRIFT] * 2


class Account:
    """Owner addresses of seats' keys."""

    @staticmethod
    def from_key_bytes(public: bytes) -> str:
        """Forty hex digits."""
        return PublicKey.from_compressed_bytes(public).to_canonical_address().hex()


class TestOffline:
    """Checking a statement with the roster alone."""

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            pytest.param(lambda s: replace(s, sequence=s.sequence + 1), Rule.SIGNATURE_INVALID, id="a field changed"),
            pytest.param(lambda s: replace(s, roster=9), Rule.ROSTER_OLDER, id="a roster we do not have"),
            pytest.param(lambda s: replace(s, heights=s.heights[:1]), Rule.COVERAGE_UNKNOWN, id="a chain left out"),
            pytest.param(
                lambda s: replace(s, heights=(*s.heights, s.heights[0])), Rule.NAME_REUSED, id="a chain twice"
            ),
            pytest.param(lambda s: replace(s, coverage=s.coverage[:1]), Rule.COVERAGE_UNKNOWN, id="an asset left out"),
            pytest.param(
                lambda s: replace(s, coverage=(*s.coverage, s.coverage[0])), Rule.NAME_REUSED, id="an asset twice"
            ),
            pytest.param(lambda s: replace(s, coverage=()), Rule.COVERAGE_UNKNOWN, id="no asset at all"),
            pytest.param(
                lambda s: replace(s, coverage=(replace(s.coverage[0], reserves=10**9), *s.coverage[1:])),
                Rule.COVERAGE,
                id="reserves above the lesser of chain and ledger",
            ),
        ],
    )
    def test_refused(self, change: Callable[[Statement], Statement], rule: Rule) -> None:
        """Signed again or not, what does not hold is told."""
        changed = change(lived_in().attestor().statement().message)
        forged = Signed(changed, (ed25519("mallory").sign(deployment().domain.digest(changed)),))
        assert rule in {refusal.rule for refusal in verify_statement(forged, roster(), [a.symbol for a in ASSETS])}
        assert Rule.SIGNATURE_INVALID in {refusal.rule for refusal in verify_signature(forged, roster())}

    def test_json(self) -> None:
        """As a file and back, it still verifies."""
        signed = lived_in().attestor().statement()
        assert verify_statement(Signed.from_json(Statement, signed.to_json()), roster()) == []


class TestSeats:
    """The seats' newest signed heads."""

    def test_newest_head(self) -> None:
        """A head that runs back does not replace a newer one, and what no seat signed says nothing: neither stops a statement."""
        house = House()
        seat, domain = deployment().seats[0], deployment().domain
        assert isinstance(seat, SeatHost)
        attestor = house.attestor()
        attestor._seat_heads = lambda: [seat.head()]
        newest = attestor.statement().message.seats
        assert [(seat.name, seat.head().message.position)] == [(s.seat, s.position) for s in newest]
        head = seat.head().message
        for other in (
            Signed(replace(head, position=head.position + 1), ()),
            signed_by(replace(head, position=head.position + 1), domain, [ed25519("mallory")]),
            signed_by(replace(head, seat="hot-9"), domain, [ed25519("mallory")]),
            Signed(replace(head, position=0), (seat._sign(seat._memory.load().state, replace(head, position=0)),)),
        ):
            attestor._seat_heads = lambda other=other: [other]  # type: ignore[misc]
            assert newest == attestor.statement().message.seats

    def test_a_restart_forgets_no_head(self) -> None:
        """A cold seat is silent between ceremonies: its head is told all the same, or it would refuse as one that is behind."""
        house = House()
        attestor = house.attestor()
        attestor._seat_heads = lambda: [seat.head() for seat in deployment().seats]
        told = attestor.statement().message.seats
        assert sorted(seat.name for seat in deployment().seats) == [position.seat for position in told]
        restarted = house.attestor()
        assert told == restarted.statement().message.seats

    def test_heads_never_fall(self) -> None:
        """Across restarts, at the same position too; each seat by itself."""
        house = House()
        one, two = SeatPosition("cold-1", 5, b"\x01" * 32), SeatPosition("hot-1", 2, b"\x02" * 32)
        assert house.memory.see_heads([one]) == [one]
        for older in (replace(one, position=4), replace(one, head=b"\x03" * 32)):
            assert VaultMemory(house.vault).see_heads([older, two]) == [one, two]
        writes = house.vault.writes
        assert VaultMemory(house.vault).see_heads([two]) == [one, two]
        assert house.vault.writes == writes
        newer = replace(one, position=6, head=b"\x04" * 32)
        assert VaultMemory(house.vault).see_heads([newer]) == [newer, two]
        assert VaultMemory(house.vault).see_heads([]) == [newer, two]

    @pytest.mark.parametrize("value", ["", "5", "x:" + "01" * 32, "5:01", 5])
    def test_damaged_heads_are_not_no_heads(self, value: object) -> None:
        """A document in another shape stops the attestor."""
        house = House()
        house.vault.write("heads", {"hot-1": value}, cas=0)
        with pytest.raises(InvalidInput):
            house.memory.see_heads([])

    def test_two_attestors_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who comes second is told so, and overwrites nothing."""
        house, read = House(), FakeVault.read
        first, second = (SeatPosition("hot-1", position, b"\x02" * 32) for position in (3, 4))

        def racing(vault: FakeVault, path: str) -> tuple[Mapping[str, object] | None, int]:
            found = read(vault, path)
            monkeypatch.setattr(FakeVault, "read", read)
            VaultMemory(vault).see_heads([second])
            return found

        monkeypatch.setattr(FakeVault, "read", racing)
        with pytest.raises(Unavailable):
            house.memory.see_heads([first])
        assert house.memory.see_heads([first]) == [second]


class TestRosters:
    """Which version the attestor goes by."""

    def test_the_delay_counts_from_first_sight(self) -> None:
        """A quorum that names a time long past puts nothing in force before the attestor has seen it for the old one's delay."""
        unborn = Deployment([seat_in_memory("hot-1")])
        unborn.version = replace(unborn.version, delay=100)
        born, house = unborn.pinned(), House(vault=attestor_vault())
        house.vault.documents.clear()
        house.memory.pin(born.genesis())
        house.store._state.documents = {k: v for k, v in house.store._state.documents.items() if k[0] != ROSTER}
        house.store.run(lambda work: put_signed(work.documents, ROSTER, born.genesis()))
        house.clock.now = NOW + 5000
        backdated = born.people_sign(born.successor(not_before=NOW + 100))
        house.store.run(lambda work: put_signed(work.documents, ROSTER, backdated))
        for later, version in ((0, 1), (99, 1), (100, 2)):
            house.clock.now = NOW + 5000 + later
            assert house.store.read(house.attestor()._roster).version.version == version
        ahead = born.people_sign(
            replace(backdated.message, version=3, previous=backdated.message.struct_hash, not_before=NOW + 6000)
        )
        house.store.run(lambda work: put_signed(work.documents, ROSTER, ahead))
        for now, version in ((NOW + 5500, 2), (NOW + 5999, 2), (NOW + 6000, 3)):  # seen in time: in force when it says
            house.clock.now = now
            assert house.store.read(house.attestor()._roster).version.version == version


class TestClock:
    """`clock: statement`, on the devnet alone, forward alone."""

    def test_advance(self) -> None:
        """Moves every later statement's time, whatever process makes it."""
        house = House()
        assert house.attestor().advance(3600) == NOW + 3600
        assert house.attestor().statement().message.time == NOW + 3600

    @pytest.mark.parametrize("seconds", [0, -1])
    def test_never_back(self, seconds: int) -> None:
        """This clock never runs back."""
        with pytest.raises(InvalidInput):
            House().attestor().advance(seconds)

    def test_refused_where_genesis_says_wall(self) -> None:
        """A deployment on the wall clock cannot be moved in time."""
        plain = Deployment([seat_in_memory("hot-1")])
        house = House(vault=attestor_vault())
        house.vault.documents.clear()
        house.memory.pin(plain.genesis())
        house.store._state.documents = {k: v for k, v in house.store._state.documents.items() if k[0] != ROSTER}
        house.store.run(lambda work: put_signed(work.documents, ROSTER, plain.genesis()))
        with pytest.raises(Refused) as refused:
            house.attestor().advance(60)
        assert {Rule.CLOCK_NOT_DEVNET} == rules_of(refused.value)
        assert house.memory.offset() == 0


class TestProcess:
    """Over its socket."""

    def test_verbs(self, tmp_path: Path) -> None:
        """Every verb answers as the object behind it does; refusals travel by rule."""
        house, stop, ready = lived_in(), Stop(), threading.Event()
        path = tmp_path / "run" / "attestor.sock"
        handlers = attestor_handlers(house.attestor(), deployment().version.struct_hash)
        thread = threading.Thread(target=serve, args=(path, handlers, ready.set, stop))
        thread.start()
        try:
            assert ready.wait(5)
            remote = RemoteAttestor(path)
            assert deployment().version.attestor == remote.identity()
            remote.pin(deployment().genesis())
            assert remote.sign_roster(deployment().version).is_over(deployment().domain.digest(deployment().version))
            assert binding("ana", EVM, 0) == remote.bind(binding("ana", EVM, 0).message)
            assert verify_statement(remote.statement(), roster()) == []
            assert remote.advance(5) == NOW + 5
            assert {EVM.name: 1, BTC.name: 1} == remote.status()["chains"]
            with pytest.raises(Refused) as refused:
                remote.bind(replace(binding("ana", EVM, 0).message, customer="bo"))
            assert {Rule.INDEX_BOUND} == rules_of(refused.value)
            with pytest.raises(Refused) as refused:
                remote.pin(deployment().genesis(replace(deployment().version, delay=5)))
            assert {Rule.WRONG_GENESIS} == rules_of(refused.value)
        finally:
            stop.ring()
            thread.join(10)
        assert not thread.is_alive()
