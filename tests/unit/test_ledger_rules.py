# SPDX-License-Identifier: AGPL-3.0-or-later
"""Double entry by itself: balance, sides, hashes, and the shapes of every entry there is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.amounts import Amount
from custody.rules.errors import InvalidInput, UnbalancedEntry
from custody.rules.json_text import DEEPEST, read_json
from custody.rules.ledger import (
    MANUAL_MOVES,
    Account,
    AccountKind,
    Entry,
    JournalEntry,
    JournalHead,
    Posting,
    Side,
    canonical,
    check_balances,
    check_manual,
    entry_from_json,
    entry_hash,
    entry_to_json,
    loss_of,
    manual,
    replay,
    settle,
)
from custody.rules.origins import Once, Reversal, recorded_once
from custody.rules.refusals import Rule
from custody.rules.settlements import FeeLeg, ManualPosting
from tests.fakes.ledger import (
    ASSETS,
    ETH,
    EVM,
    HOT,
    NOW,
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
    token,
    trade,
)

ANA, BO, LOSS = available("ana"), available("bo"), loss_of(available("ana"))


def line(account: Account, side: Side, units: int, asset: str = "ETH") -> Posting:
    """One posting."""
    return Posting(account, side, Amount(ASSETS.get(asset), units))


@pytest.mark.parametrize("units", [0, -1, -(10**30)])
def test_postings_are_positive(units: int) -> None:
    """A negative amount cannot be expressed: a posting has a side instead."""
    with pytest.raises(InvalidInput) as caught:
        line(ANA, Side.CREDIT, units)
    assert (caught.value.field, caught.value.rule) == ("posting.amount", Rule.NOT_POSITIVE)


@pytest.mark.parametrize(
    "postings",
    [
        pytest.param((line(HOT, Side.DEBIT, 2), line(ANA, Side.CREDIT, 1)), id="more in than owed"),
        pytest.param((line(HOT, Side.DEBIT, 1), line(ANA, Side.CREDIT, 1, "USD")), id="another asset does not balance"),
        pytest.param((line(HOT, Side.DEBIT, 1),), id="one side only"),
        pytest.param((line(HOT, Side.DEBIT, 10**30), line(ANA, Side.CREDIT, 10**30 + 1)), id="one unit in 10^30"),
    ],
)
def test_unbalanced_entry_cannot_be_made(postings: tuple[Posting, ...]) -> None:
    """Per asset, to the unit."""
    with pytest.raises(UnbalancedEntry):
        Entry(native(1), postings)


def test_empty_entry_cannot_be_made() -> None:
    """An entry says something."""
    with pytest.raises(InvalidInput):
        Entry(native(1), ())


OWNED = {
    AccountKind.WALLET,
    AccountKind.CUSTOMER_AVAILABLE,
    AccountKind.CUSTOMER_HELD,
    AccountKind.COMPANY_HELD,
}


@pytest.mark.parametrize("kind", AccountKind, ids=str)
def test_account_text(kind: AccountKind) -> None:
    """The text form reads back, with an owner where the kind has owners and only there; no line stands at a whole kind."""
    owned = kind in OWNED
    account = Account(kind, "a:b" if owned else "")
    assert Account.parse(str(account)) == account
    if kind in {AccountKind.SUSPENSE, AccountKind.REORG_LOSS}:
        assert Account(kind).is_whole_kind
        with pytest.raises(InvalidInput, match="the one that is meant"):
            Posting(Account(kind), Side.DEBIT, Amount(ETH, 1))
        return
    with pytest.raises(InvalidInput):
        Account(kind, "" if owned else "someone")


@pytest.mark.parametrize("text", ["", "president", "wallet", "company_surplus:x", "WALLET:ab"])
def test_account_that_is_none(text: str) -> None:
    """There is no account but those of the list."""
    with pytest.raises(InvalidInput):
        Account.parse(text)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(credit(native(1)), id="native"),
        pytest.param(credit(token(1)), id="token"),
        pytest.param(credit(coins(1)), id="bitcoin"),
        pytest.param(settle(settled(settlement(trade(fees=[FeeLeg("ana", "ETH", 5)]))), ASSETS), id="settlement"),
        pytest.param(manual(agreed(move()), ASSETS), id="manual"),
    ],
)
def test_json_round_trip(entry: Entry) -> None:
    """An entry is read back equal from its canonical JSON, in which every number of units is a string."""
    text = canonical(entry_to_json(entry))
    assert entry_from_json(json.loads(text), ASSETS) == entry
    assert canonical(json.loads(text)) == text
    assert all(isinstance(p["units"], str) for p in json.loads(text)["postings"])


def test_hash_covers_everything() -> None:
    """Position, time, predecessor and entry: a change of any is another hash."""
    base = (1, NOW, bytes(32), credit(native(1)))
    others = [(2, *base[1:]), (1, NOW + 1, *base[2:]), (1, NOW, b"\1" * 32, base[3]), (*base[:3], credit(native(2)))]
    assert len({entry_hash(*base), *(entry_hash(*other) for other in others)}) == 5


def test_chain() -> None:
    """Each entry hangs on the hash before it."""
    first = JournalEntry.append(JournalHead(), credit(native(1)), NOW)
    second = JournalEntry.append(JournalHead(1, first.hash), credit(native(2)), NOW)
    assert (first.position, second.position, second.previous) == (1, 2, first.hash)


class TestReversal:
    """Exact, and never more than there is."""

    @pytest.mark.parametrize(
        ("had", "taken", "lost"),
        [
            pytest.param(100, 100, 0, id="nothing spent"),
            pytest.param(250, 100, 0, id="had more"),
            pytest.param(30, 30, 70, id="some spent"),
            pytest.param(0, 0, 100, id="all spent"),
        ],
    )
    def test_loss(self, had: int, taken: int, lost: int) -> None:
        """What the owner has spent goes to `reorg_loss`."""
        recorded = JournalEntry.append(JournalHead(), credit(native(1, 100)), NOW)
        origin = Reversal(1, EVM.name, 1, block_hash(1), block_hash(1, "other"))
        changes = reverse_deposit(recorded, origin, had).changes()
        expected = {(HOT, ETH): -100, (ANA, ETH): -taken, (LOSS, ETH): lost}
        assert changes == {key: units for key, units in expected.items() if units}


class TestManual:
    """A closed list of moves."""

    @pytest.mark.parametrize("debit", AccountKind, ids=str)
    @pytest.mark.parametrize("credited", AccountKind, ids=str)
    def test_moves(self, debit: AccountKind, credited: AccountKind) -> None:
        """Everything outside the list is refused, and nothing in it leads to the company."""
        names = [f"{kind}:ana" if kind in OWNED else str(kind) for kind in (debit, credited)]
        rules = {r.rule for r in check_manual(move(debit=names[0], credit_to=names[1]), frozenset({"ana"}))}
        assert rules == (set() if (debit, credited) in MANUAL_MOVES else {Rule.MOVE_NOT_ALLOWED})
        if not rules:
            assert credited not in (AccountKind.COMPANY_EQUITY, AccountKind.COMPANY_SURPLUS, AccountKind.ACCRUED_FEES)

    @pytest.mark.parametrize(
        "postings",
        [
            pytest.param((), id="none"),
            pytest.param((ManualPosting("suspense", "ETH", "debit", 1),), id="one"),
            pytest.param((ManualPosting("suspense", "ETH", "debit", 1),) * 2, id="two debits"),
            pytest.param(
                (ManualPosting("suspense", "ETH", "up", 1), ManualPosting("suspense", "ETH", "down", 1)), id="no side"
            ),
            pytest.param((*move().postings, *move().postings), id="four"),
        ],
    )
    def test_one_debit_one_credit(self, postings: tuple[ManualPosting, ...]) -> None:
        """Two people sign one move, not a booklet."""
        message = type(move())("m", "r", postings)
        assert [r.rule for r in check_manual(message, frozenset({"ana"}))] == [Rule.MALFORMED]

    def test_unknown_customer(self) -> None:
        """A customer has to exist."""
        assert [r.rule for r in check_manual(move(), frozenset({"bo"}))] == [Rule.UNKNOWN_CUSTOMER]


@pytest.mark.parametrize(
    ("standing", "short"),
    [
        pytest.param({(ANA, ETH): 10**17, (BO, USD): 10**5}, set(), id="just enough"),
        pytest.param({(ANA, ETH): 10**17 - 1, (BO, USD): 10**5}, {"customer_available:ana"}, id="one wei short"),
        pytest.param(
            {(ANA, ETH): 10**30, (BO, ETH): 10**30}, {"customer_available:bo"}, id="the other asset does not help"
        ),
        pytest.param({}, {"customer_available:ana", "customer_available:bo"}, id="unknown balances are zero"),
    ],
)
def test_nobody_below_zero(standing: dict[tuple[Account, object], int], short: set[str]) -> None:
    """Each account that would be below zero is named."""
    entry = settle(settled(settlement()), ASSETS)
    found = list(check_balances(entry, standing))  # type: ignore[arg-type]  # a parameter
    assert {r.operands["account"] for r in found} == short
    assert {r.rule for r in found} <= {Rule.INSUFFICIENT_BALANCE}


@given(st.lists(st.integers(1, 2**200), min_size=1, max_size=8))
def test_replay_sums_to_zero(amounts: list[int]) -> None:
    """What wallets have is what is owed, whatever came in."""
    head, entries = JournalHead(), []
    for height, units in enumerate(amounts):
        entries.append(JournalEntry.append(head, credit(native(height, units)), NOW))
        head = JournalHead(entries[-1].position, entries[-1].hash)
    assert replay(entries) == {(HOT, ETH): sum(amounts), (ANA, ETH): sum(amounts)}


def test_recorded_once() -> None:
    """What each kind of origin may be recorded for once."""
    assert recorded_once(settled(settlement(trade("a"), trade("b")))) == (
        (Once.SETTLEMENT, "s1"),
        (Once.TRADE, "a"),
        (Once.TRADE, "b"),
    )
    assert recorded_once(agreed(move())) == ((Once.MANUAL, "m1"),)
    assert recorded_once(Reversal(7, EVM.name, 1, block_hash(1), bytes(32))) == ((Once.REVERSAL, "7"),)
    assert recorded_once(native(1))[0][0] is Once.CHAIN_EVENT
    assert recorded_once(native(1)) != recorded_once(native(1, fork="other"))


class TestJsonText:
    """JSON of others is read without recursion running away."""

    @pytest.mark.parametrize(
        "text", ["[" * 100_000, '{"a":' * 50_000, "[" * 65 + "]" * 65], ids=["lists", "objects", "just too deep"]
    )
    def test_too_deep(self, text: str) -> None:
        """Refused before anything recurses: with py_ecc's recursion limit this used to kill the process."""
        with pytest.raises(InvalidInput) as caught:
            read_json(text, "row")
        assert caught.value.field == "row"

    def test_deep_enough(self) -> None:
        """The limit itself is fine, and brackets inside strings do not count."""
        assert read_json("[" * DEEPEST + "]" * DEEPEST, "row")
        assert read_json(json.dumps({"id": "[" * 5000, "q": '"' + "{" * 99}), "row") == {
            "id": "[" * 5000,
            "q": '"' + "{" * 99,
        }

    @pytest.mark.parametrize("text", ["", "{", "nul", '{"a":1', "\udcff"])
    def test_no_json(self, text: str) -> None:
        """Malformed, naming the field."""
        with pytest.raises(InvalidInput):
            read_json(text, "row")


def test_suspense_is_owed() -> None:
    """Coins of nobody known are a liability all the same."""
    assert SUSPENSE.kind.is_liability
    assert not Account(AccountKind.COMPANY_EQUITY).kind.is_liability
    assert {kind for kind in AccountKind if kind.side is Side.DEBIT} == {HOT.kind, AccountKind.NETWORK_FEES, LOSS.kind}
    assert USD.contract is not None
