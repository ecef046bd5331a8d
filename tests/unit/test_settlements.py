# SPDX-License-Identifier: AGPL-3.0-or-later
"""Settlements and manual entries, recorded by the flow on a store in memory: every refusal, and nothing changed by any."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from custody.flows.bookkeeping import record_manual, record_settlement
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import UINT256_MAX, Amount
from custody.rules.errors import InvalidInput
from custody.rules.ledger import JournalEntry, credit_deposit
from custody.rules.refusals import Refused, Rule
from custody.rules.settlements import FeeLeg, Leg, ManualEntry, ManualPosting, Settlement, Trade
from custody.rules.signatures import Signed
from tests.fakes.ledger import (
    ASSETS,
    ETH,
    FEES,
    HOT,
    HOT_ETH,
    LATE,
    NOW,
    PEOPLE,
    PROPOSER,
    ROSTER,
    SCHEDULE,
    SETTLER,
    STRANGER,
    STRAY,
    SUSPENSE,
    USD,
    Signer,
    agreed,
    available,
    credit,
    make_roster,
    move,
    native,
    settled,
    settlement,
    token,
    trade,
)
from tests.fakes.store import FakeStore


def _fill(work: UnitOfWork) -> None:
    for customer in ("ana", "bo"):
        work.customers.add(customer)
    work.journal.append(credit(native(1)), NOW)
    work.journal.append(credit_deposit(token(2, 10**9), HOT, available("bo"), Amount(USD, 10**9)), NOW)
    work.journal.append(credit_deposit(native(3, 9000, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 9000)), NOW)


@pytest.fixture
def store() -> FakeStore:
    """Ana has 1 ETH, bo has 1000 USD, 9000 wei are nobody's."""
    made = FakeStore()
    made.run(_fill)
    return made


def settle(store: FakeStore, signed: Signed[Settlement]) -> JournalEntry:
    """Record a settlement under the test's roster and schedule."""
    return record_settlement(store, ROSTER, signed, SCHEDULE, ASSETS, NOW)


def refused(store: FakeStore, act: Callable[[], object]) -> list[Rule]:
    """The rules by which something is refused; nothing may have changed."""
    before = store.read(lambda work: (work.journal.head(), dict.fromkeys(work.journal.balances())))
    with pytest.raises(Refused) as caught:
        act()
    assert before == store.read(lambda work: (work.journal.head(), dict.fromkeys(work.journal.balances())))
    return [refusal.rule for refusal in caught.value.refusals]


class TestSettlement:
    """A batch of trades, whole or not at all."""

    def test_moves_what_it_says(self, store: FakeStore) -> None:
        """Legs between customers, fees to `accrued_fees`."""
        fees = [FeeLeg("ana", "ETH", 2 * 10**14), FeeLeg("bo", "USD", 200)]
        recorded = settle(store, settled(settlement(trade("a", fees=fees), trade("b"))))
        assert recorded.position == 4
        found = store.read(lambda work: {(a, s): u for a, s, u in work.journal.balances()})
        assert found == {
            (HOT, ETH): 10**18 + 9000,
            (HOT, USD): 10**9,
            (STRAY, ETH): 9000,
            (available("ana"), ETH): 8 * 10**17 - 2 * 10**14,
            (available("ana"), USD): 2 * 10**5,
            (available("bo"), ETH): 2 * 10**17,
            (available("bo"), USD): 10**9 - 2 * 10**5 - 200,
            (FEES, ETH): 2 * 10**14,
            (FEES, USD): 200,
        }

    @pytest.mark.parametrize(
        ("signed", "rules"),
        [
            pytest.param(Signed(settlement(), ()), [Rule.SIGNATURE_MISSING], id="unsigned"),
            pytest.param(settled(settlement(), STRANGER), [Rule.SIGNER_UNKNOWN], id="a stranger's key"),
            pytest.param(settled(settlement(), PROPOSER), [Rule.SIGNER_UNKNOWN], id="another client's key"),
            pytest.param(settled(settlement(client="nobody")), [Rule.SIGNER_UNKNOWN], id="unknown client"),
            pytest.param(
                settled(settlement(client="backend"), PROPOSER), [Rule.SCOPE_MISSING], id="a proposing client"
            ),
            pytest.param(settled(settlement(client="retired"), LATE), [Rule.SIGNER_EXPIRED], id="expired"),
            pytest.param(
                settled(settlement(client="backend")), [Rule.SCOPE_MISSING, Rule.SIGNER_UNKNOWN], id="both at once"
            ),
            pytest.param(
                replace(settled(settlement()), message=settlement(trade(units=5))),
                [Rule.SIGNATURE_INVALID],
                id="changed after signing",
            ),
            pytest.param(
                Signed(settlement(), (SETTLER.sign(make_roster(version=7), settlement(name="x")),)),
                [Rule.SIGNATURE_INVALID],
                id="a signature over something else",
            ),
        ],
    )
    def test_signer(self, store: FakeStore, signed: Signed[Settlement], rules: list[Rule]) -> None:
        """Exactly the client it names, unexpired, with the scope, by its own key."""
        assert refused(store, lambda: settle(store, signed)) == rules

    @pytest.mark.parametrize(
        ("trades", "rules"),
        [
            pytest.param([Trade("t", (Leg("ana", "ETH", -1),), ())], [Rule.NOT_ZERO_SUM], id="something vanishes"),
            pytest.param(
                [Trade("t", (Leg("ana", "ETH", -5), Leg("bo", "USD", 5)), ())],
                [Rule.NOT_ZERO_SUM] * 2,
                id="zero over two assets",
            ),
            pytest.param(
                [Trade("t", (Leg("ana", "ETH", -5),), ()), Trade("u", (Leg("bo", "ETH", 5),), ())],
                [Rule.NOT_ZERO_SUM] * 2,
                id="zero over two trades",
            ),
            pytest.param([trade("t"), trade("t")], [Rule.NAME_REUSED], id="a trade twice"),
            pytest.param([Trade("t", (), ())], [Rule.MALFORMED], id="no legs"),
            pytest.param([replace(trade(), id="")], [Rule.MALFORMED], id="no id"),
            pytest.param(
                [Trade("t", (Leg("ana", "ETH", 0), Leg("bo", "ETH", 0)), ())],
                [Rule.NOT_POSITIVE] * 2,
                id="legs of zero",
            ),
            pytest.param(
                [trade(seller="eve")], [Rule.UNKNOWN_CUSTOMER, Rule.INSUFFICIENT_BALANCE], id="an unknown customer"
            ),
            pytest.param(
                [Trade("t", (Leg("ana", "DOGE", -5), Leg("bo", "DOGE", 5)), ())],
                [Rule.UNKNOWN_ASSET],
                id="an unknown asset",
            ),
            pytest.param([trade(units=10**18 + 1)], [Rule.INSUFFICIENT_BALANCE], id="more than there is"),
            pytest.param([trade(fees=[FeeLeg("ana", "ETH", 0)])], [Rule.NOT_POSITIVE], id="a fee of zero"),
            pytest.param(
                [trade(fees=[FeeLeg("ana", "ETH", 2 * 10**14 + 1)])],
                [Rule.FEE_ABOVE_SCHEDULE],
                id="a fee one wei above",
            ),
            pytest.param(
                [trade(fees=[FeeLeg("ana", "ETH", 2 * 10**14), FeeLeg("ana", "ETH", 1)])],
                [Rule.FEE_ABOVE_SCHEDULE],
                id="a fee in two parts",
            ),
            pytest.param(
                [trade(fees=[FeeLeg("ana", "BTC", 1)])],
                [Rule.FEE_WITHOUT_TRADE, Rule.INSUFFICIENT_BALANCE],
                id="a fee in an asset not traded",
            ),
            pytest.param(
                [
                    Trade(
                        "t", (Leg("ana", "ETH", 10**17), Leg("ana", "ETH", -(10**17))), (FeeLeg("ana", "ETH", 10**14),)
                    )
                ],
                [Rule.FEE_WITHOUT_TRADE],
                id="a fee on coins sent to oneself",
            ),
            pytest.param(
                [Trade("t", (Leg("ana", "BTC", -5), Leg("bo", "BTC", 5)), (FeeLeg("bo", "BTC", 1),))],
                [Rule.FEE_ABOVE_SCHEDULE, Rule.INSUFFICIENT_BALANCE],
                id="a fee in an asset without a schedule",
            ),
        ],
    )
    def test_trades(self, store: FakeStore, trades: Sequence[Trade], rules: list[Rule]) -> None:
        """Zero-sum per trade and asset, fees within the schedule, nobody below zero."""
        assert sorted(refused(store, lambda: settle(store, settled(settlement(*trades))))) == sorted(rules)

    def test_no_trades(self, store: FakeStore) -> None:
        """A batch has trades."""
        message = Settlement("s", "trading", SCHEDULE.bundle, NOW, ())
        assert refused(store, lambda: settle(store, settled(message))) == [Rule.MALFORMED]

    def test_schedule(self, store: FakeStore) -> None:
        """Under the schedule in force and no other; an empty id is none."""
        assert refused(store, lambda: settle(store, settled(settlement(schedule=bytes(32))))) == [Rule.NOT_SUCCESSOR]
        assert refused(store, lambda: settle(store, settled(settlement(name="")))) == [Rule.MALFORMED]

    def test_every_reason_at_once(self, store: FakeStore) -> None:
        """Signer, trades and balances are told together."""
        bad = settlement(trade("t", 10**19), trade("t", seller="eve"), client="retired")
        rules = refused(store, lambda: settle(store, settled(bad, STRANGER)))
        assert set(rules) == {
            Rule.SIGNER_EXPIRED,
            Rule.SIGNER_UNKNOWN,
            Rule.NAME_REUSED,
            Rule.UNKNOWN_CUSTOMER,
            Rule.INSUFFICIENT_BALANCE,
        }

    def test_once(self, store: FakeStore) -> None:
        """The same batch, or one of its trades in another, is recorded already."""
        settle(store, settled(settlement()))
        assert refused(store, lambda: settle(store, settled(settlement()))) == [Rule.ALREADY_RECORDED] * 2
        assert refused(store, lambda: settle(store, settled(settlement(name="other")))) == [Rule.ALREADY_RECORDED]

    def test_passing_through_zero(self, store: FakeStore) -> None:
        """A batch is net: what comes in by one of its trades may go out by another."""
        there = Trade("a", (Leg("ana", "ETH", -(10**18)), Leg("bo", "ETH", 10**18)), ())
        back = Trade("b", (Leg("bo", "ETH", -(10**18)), Leg("ana", "ETH", 10**18 - 1), Leg("bo", "ETH", 1)), ())
        settle(store, settled(settlement(there, back)))
        assert store.read(lambda work: work.journal.balance(available("bo"), ETH)) == 1

    @pytest.mark.parametrize("units", [2**255, -(2**255) - 1, 2**256, 1.0, True, "1"], ids=str)
    def test_amounts_that_are_none(self, units: object) -> None:
        """They cannot even be written down."""
        with pytest.raises(InvalidInput) as caught:
            Leg("ana", "ETH", units)  # type: ignore[arg-type]  # on purpose
        assert (caught.value.field, caught.value.rule) == ("Leg.change", Rule.MALFORMED)


class TestManual:
    """What two people sign."""

    def test_moves_what_it_says(self, store: FakeStore) -> None:
        """From suspense to the customer that was found."""
        recorded = record_manual(store, ROSTER, agreed(move(4000)), ASSETS, NOW)
        assert recorded.position == 4
        assert store.read(lambda w: (w.journal.balance(SUSPENSE, ETH), w.journal.balance(available("ana"), ETH))) == (
            5000,
            10**18 + 4000,
        )

    @pytest.mark.parametrize(
        "signers",
        [("ana.t",), ("ana.t", "ana.t"), ("ana.t", "outsider")],
        ids=["one person", "one twice", "an outsider"],
    )
    def test_quorum(self, store: FakeStore, signers: Sequence[str]) -> None:
        """Two distinct people of the roster, and nobody else counts."""
        message = move()
        known = {**PEOPLE, "outsider": Signer("outsider")}
        signed = Signed(message, tuple(known[name].sign(ROSTER, message) for name in signers))
        assert refused(store, lambda: record_manual(store, ROSTER, signed, ASSETS, NOW)) == [Rule.QUORUM_NOT_REACHED]

    def test_expired_people_do_not_count(self, store: FakeStore) -> None:
        """After their term nobody signs anything."""
        late = NOW + 2 * 10**6
        assert refused(store, lambda: record_manual(store, ROSTER, agreed(move()), ASSETS, late)) == [
            Rule.QUORUM_NOT_REACHED
        ]

    @pytest.mark.parametrize(
        ("message", "rules"),
        [
            pytest.param(move(9001), [Rule.INSUFFICIENT_BALANCE], id="more than the event brought"),
            pytest.param(
                move(1, debit="suspense:eip155:31338/none/0x00"),
                [Rule.INSUFFICIENT_BALANCE],
                id="an event that never was",
            ),
            pytest.param(move(1, debit=f"{STRAY} "), [Rule.INSUFFICIENT_BALANCE], id="another spelling of the event"),
            pytest.param(move(1, debit="suspense"), [Rule.MALFORMED], id="suspense, and no event"),
            pytest.param(
                move(1, debit="company_surplus", credit_to="reorg_loss"),
                [Rule.MALFORMED],
                id="a loss, and nobody's",
            ),
            pytest.param(move(0), [Rule.NOT_POSITIVE], id="zero"),
            pytest.param(move(asset="DOGE"), [Rule.UNKNOWN_ASSET], id="unknown asset"),
            pytest.param(move(credit_to="president"), [Rule.MALFORMED], id="an account that is none"),
            pytest.param(move(credit_to="customer_available:eve"), [Rule.UNKNOWN_CUSTOMER], id="unknown customer"),
            pytest.param(move(credit_to="company_equity"), [Rule.MOVE_NOT_ALLOWED], id="to the company"),
            pytest.param(
                move(debit="customer_available:ana", credit_to="customer_available:bo"),
                [Rule.MOVE_NOT_ALLOWED],
                id="between customers",
            ),
            pytest.param(
                move(UINT256_MAX), [Rule.INSUFFICIENT_BALANCE, Rule.TOO_LARGE, Rule.TOO_LARGE], id="2^256 - 1"
            ),
            pytest.param(move(name=""), [Rule.MALFORMED], id="no id"),
            pytest.param(
                ManualEntry(
                    "m",
                    "r",
                    (
                        ManualPosting(str(STRAY), "ETH", "debit", 5),
                        ManualPosting("customer_available:ana", "ETH", "credit", 6),
                    ),
                ),
                [Rule.NOT_ZERO_SUM],
                id="unbalanced",
            ),
        ],
    )
    def test_refused(self, store: FakeStore, message: ManualEntry, rules: list[Rule]) -> None:
        """A closed list of moves, of amounts that are there."""
        assert refused(store, lambda: record_manual(store, ROSTER, agreed(message), ASSETS, NOW)) == rules

    def test_an_event_is_taken_no_further_than_it_brought(self, store: FakeStore) -> None:
        """In parts, to several, and then no more: another stranger's coins at the same place stay his."""
        other = credit_deposit(native(4, 500, HOT_ETH), HOT, SUSPENSE, Amount(ETH, 500))
        store.run(lambda work: work.journal.append(other, NOW))
        record_manual(store, ROSTER, agreed(move(4000)), ASSETS, NOW)
        record_manual(store, ROSTER, agreed(move(5000, credit_to="customer_available:bo", name="m2")), ASSETS, NOW)
        more = agreed(move(1, name="m3"))
        assert refused(store, lambda: record_manual(store, ROSTER, more, ASSETS, NOW)) == [Rule.INSUFFICIENT_BALANCE]
        assert store.read(lambda work: work.journal.balance(SUSPENSE, ETH)) == 500

    def test_once(self, store: FakeStore) -> None:
        """An id is used once, whatever it is for."""
        record_manual(store, ROSTER, agreed(move(1)), ASSETS, NOW)
        assert refused(store, lambda: record_manual(store, ROSTER, agreed(move(2)), ASSETS, NOW)) == [
            Rule.ALREADY_RECORDED
        ]

    @pytest.mark.parametrize("units", [-1, 2**256, 1.5, None], ids=str)
    def test_amounts_that_are_none(self, units: object) -> None:
        """They cannot even be written down."""
        with pytest.raises(InvalidInput) as caught:
            ManualPosting("suspense", "ETH", "debit", units)  # type: ignore[arg-type]  # on purpose
        assert caught.value.field == "ManualPosting.units"
