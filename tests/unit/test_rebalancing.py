# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rebalancing: what is wanted of which balances, what never is, and one proposal for one situation."""

import json
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from custody.balancing import balance_forever, line_of
from custody.flows import proposals
from custody.flows.kernel import Kernel
from custody.flows.ports import Damaged
from custody.flows.rebalancing import (
    PATIENCE,
    WORTH,
    Direction,
    InFlight,
    Reading,
    Rests,
    Turn,
    Wanted,
    key_of,
    pair,
    plan,
)
from custody.flows.rebalancing_cycle import Line, Rebalancer, cycle, may_concern, snapshot
from custody.rules.amounts import Asset
from custody.rules.deposits import BlockRef
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.hot_bands import HotBand
from custody.rules.intents import Proposal
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.transfers import Status, Transfer
from custody.rules.wallets import Address, Chain, Tier
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519
from tests.fakes.treasury import AVAILABLE, DAY, Treasury, deposit, inside, kernel, no, proposal
from tests.fakes.trust import BTC, ETH, USDX, FakePolicy, answers, bundle

COIN: Final = 10**8
ETHER: Final = 10**18
BAND: Final = HotBand(5 * COIN, 20 * COIN, 50 * COIN, 12 * COIN)
HOT: Final[Mapping[str, HotBand]] = {
    "BTC": BAND,
    "ETH": HotBand(50 * ETHER, 100 * ETHER, 200 * ETHER, 60 * ETHER),
}
FEE: Final = 20_000
AT: Final = BlockRef(BITCOIN, 9, b"\x09" * 32, b"\x08" * 32, NOW)


def judged(policy: FakePolicy | None = None, **changes: Any) -> Kernel:
    """The tests' kernel with levels for bitcoin and ether, none for the token."""
    whole = kernel(policy, **changes)
    return replace(
        whole, policies=replace(whole.policies, newest=replace(bundle(policy or answers(Outcome.REQUIRE)), hot=HOT))
    )


KERNEL: Final = judged()
WARM, COLD = pair(KERNEL, BITCOIN)


def transfer(units: int, status: Status = Status.PENDING_AUTHORIZATION, number: int = 1, **changes: Any) -> Transfer:
    """Somebody's transfer of bitcoin out of hot, at a status."""
    t = Treasury(kernel=KERNEL)
    said = proposal(number, chain=BITCOIN.name, asset="BTC", amount=COIN, destination=PAID)
    made = t.propose(said, key=f"k{number}", number=number)
    intent = replace(made.intent, **{"amount": units, "maximum_fee": 0, **changes})
    if status.is_final:
        return replace(made, intent=intent, status=status, waiting_for="", sub_status=None)
    return replace(made, intent=intent, status=status)


PAID: Final = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
INTO_COLD: Final[dict[str, Any]] = {
    "account": "company",
    "purpose": "rebalance",
    "destination": min(a.text for a in COLD.addresses),
}
INTO_HOT: Final[dict[str, Any]] = {
    "account": "company", "purpose": "rebalance", "wallet": COLD.name, "destination": min(a.text for a in WARM.addresses),
}  # fmt: skip


@dataclass
class Given:
    """Balances in bitcoin's base units; the ledger says what the chain says unless told."""

    hot: int
    cold: int = 1_000 * COIN
    ledger: int | None = None
    cold_ledger: int | None = None
    transfers: tuple[Transfer, ...] = ()
    surplus: int = 10**6
    turns: Mapping[tuple[str, Direction], Turn] = field(default_factory=dict)

    def planned(self, now: int = NOW) -> Wanted | Rests:
        """What comes of it."""
        readings = [Reading(WARM.name, "BTC", self.hot, AT), Reading(COLD.name, "BTC", self.cold, AT)]
        ledger = {
            (WARM.name, "BTC"): self.hot if self.ledger is None else self.ledger,
            (COLD.name, "BTC"): self.cold if self.cold_ledger is None else self.cold_ledger,
        }
        flight = InFlight(self.transfers, ledger, {"BTC": self.surplus}, self.turns)
        (found,) = plan(KERNEL, BITCOIN, readings, flight, now)
        return found


OVER, FILL = Direction.OVERFLOW, Direction.REFILL


@pytest.mark.parametrize(
    ("given", "direction", "units"),
    [
        pytest.param(Given(80 * COIN), OVER, 60 * COIN - FEE, id="above the cap, down to the target"),
        pytest.param(Given(50 * COIN + 1), OVER, 30 * COIN + 1 - FEE, id="one satoshi above the cap"),
        pytest.param(Given(50 * COIN), None, 0, id="at the cap"),
        pytest.param(Given(20 * COIN), None, 0, id="at the target"),
        pytest.param(Given(5 * COIN), None, 0, id="at the floor"),
        pytest.param(Given(5 * COIN - 1), FILL, 12 * COIN, id="below the floor, by the largest refill"),
        pytest.param(Given(10 * COIN, transfers=(transfer(6 * COIN),)), FILL, 12 * COIN, id="asked for, below the floor"),
        pytest.param(Given(0, 3 * COIN), FILL, 3 * COIN - FEE, id="as much as cold has, less the fee"),
        pytest.param(Given(0, 9 * COIN, cold_ledger=2 * COIN), FILL, 2 * COIN - FEE, id="cold: the lesser of two figures"),
        pytest.param(Given(0, 0), None, 0, id="cold is empty"),
        pytest.param(Given(0, FEE * WORTH + FEE - 1), None, 0, id="a satoshi less than a move is worth"),
        pytest.param(Given(0, FEE * WORTH + FEE), FILL, FEE * WORTH, id="just worth a move"),
        pytest.param(Given(80 * COIN, surplus=FEE - 1), None, 0, id="nobody can pay the fee"),
        pytest.param(Given(80 * COIN, ledger=40 * COIN), None, 0, id="the ledger does not know of it yet"),
        pytest.param(Given(40 * COIN, ledger=80 * COIN), None, 0, id="the chain does not have it any more"),
        pytest.param(Given(1 * COIN, ledger=8 * COIN), None, 0, id="low by the chain alone: a refill waits"),
        pytest.param(Given(80 * COIN, transfers=(transfer(31 * COIN, Status.QUEUED),)), None, 0, id="decided: leaves"),
        pytest.param(
            Given(80 * COIN, transfers=(transfer(10 * COIN, Status.CONFIRMING),)), OVER, 50 * COIN - FEE, id="sent: leaves"
        ),
        pytest.param(
            Given(80 * COIN, transfers=(transfer(10 * COIN),)), OVER, 50 * COIN - FEE, id="asked for: stays for its customer"
        ),
        pytest.param(
            Given(80 * COIN, transfers=(transfer(70 * COIN),)), OVER, 30 * COIN - FEE, id="asked for keeps nothing above the cap"
        ),
        pytest.param(
            Given(80 * COIN, transfers=(transfer(60 * COIN, **INTO_COLD),)), None, 0, id="people proposed the same already"
        ),
        pytest.param(Given(0, transfers=(transfer(9 * COIN, **INTO_HOT),)), None, 0, id="a refill is on its way"),
        pytest.param(
            Given(0, 5 * COIN, transfers=(transfer(3 * COIN, **INTO_HOT),)), FILL, 2 * COIN - FEE, id="what leaves cold is not there"
        ),
        pytest.param(Given(0, transfers=(transfer(9 * COIN, Status.REJECTED, **INTO_HOT),)), FILL, 12 * COIN, id="ended: not counted"),
        pytest.param(Given(10 * COIN, transfers=(transfer(9 * ETHER, asset="ETH"),)), None, 0, id="another asset's"),
        pytest.param(
            Given(45 * COIN, transfers=(transfer(44 * COIN),)), FILL, 5 * COIN, id="asked for: filled up to the cap, never beyond"
        ),
    ],
)  # fmt: skip
def test_what_is_wanted(given: Given, direction: Direction | None, units: int) -> None:
    """The table of levels; nothing wanted always says why."""
    found = given.planned()
    if direction is None:
        assert isinstance(found, Rests), found
        assert found.why
        return
    assert isinstance(found, Wanted), found
    assert (found.direction, found.units) == (direction, units)
    ends = (WARM.name, COLD.name) if direction is OVER else (COLD.name, WARM.name)
    assert (found.source, found.to) == ends
    assert found.key == key_of(WARM.name, "BTC", direction, 0)
    assert found.why


def test_a_blocked_one_that_policy_denied_counts_for_nothing() -> None:
    """It holds nothing and can only end."""
    dead = replace(transfer(40 * COIN, Status.BLOCKED), live=False)
    found = Given(8 * COIN, transfers=(dead,)).planned()
    assert isinstance(found, Rests)


@pytest.mark.parametrize("promised", [0, 3 * COIN, 16 * COIN, 45 * COIN, 90 * COIN])
@pytest.mark.parametrize("hot", [0, 4 * COIN, 51 * COIN, 80 * COIN])
def test_neither_begins_the_other(hot: int, promised: int) -> None:
    """After a move is done, the other direction is not wanted: whether what was asked for is paid or refused."""
    asked = (transfer(promised),) if promised else ()
    first = Given(hot, transfers=asked).planned()
    if isinstance(first, Rests):
        return
    after = hot + (first.units if first.direction is FILL else -first.units - FEE)
    for rest in ((after, asked), (after, ()), *([(after - promised, ())] if promised <= after else [])):
        following = Given(rest[0], transfers=rest[1]).planned()
        assert isinstance(following, Rests) or following.direction is first.direction, (first, following)
    assert after <= max(BAND.cap, hot)


@pytest.mark.parametrize(
    ("last", "after", "wanted"),
    [
        pytest.param(transfer(COIN), 0, False, id="pending"),
        pytest.param(transfer(COIN, Status.CONFIRMING), DAY * 9, False, id="on its way, however long"),
        pytest.param(transfer(COIN, Status.REJECTED), PATIENCE[OVER] - 1, False, id="a no stands"),
        pytest.param(transfer(COIN, Status.REJECTED), PATIENCE[OVER], True, id="a no was long ago"),
        pytest.param(transfer(COIN, Status.COMPLETED), 0, True, id="done"),
        pytest.param(transfer(COIN, Status.EXPIRED), 0, True, id="nobody answered"),
        pytest.param(replace(transfer(COIN, Status.BLOCKED), live=False), 0, False, id="denied just now"),
        pytest.param(replace(transfer(COIN, Status.BLOCKED), live=False), PATIENCE[OVER], True, id="denied, dead, long ago"),
    ],
)  # fmt: skip
def test_one_at_a_time(last: Transfer, after: int, wanted: bool) -> None:
    """At most one of an asset is pending in either direction, and a person's no is not asked again at once."""
    at = replace(last, moved_at=NOW)
    found = Given(80 * COIN, turns={("BTC", OVER): Turn(4, at)}).planned(NOW + after)
    assert isinstance(found, Wanted) is wanted, found
    if isinstance(found, Wanted):
        assert found.key.endswith("-overflow-4")
    if not at.status.is_final and at.live:
        assert isinstance(Given(0, turns={("BTC", OVER): Turn(4, at)}).planned(NOW + after), Rests)


def test_a_refill_that_waits_holds_up_no_overflow() -> None:
    """Coins came meanwhile: they are above the cap now, whatever people still think about. A refill waits for either."""
    waits = {("BTC", FILL): Turn(1, transfer(COIN, **INTO_HOT))}
    found = Given(80 * COIN, turns=waits).planned()
    assert isinstance(found, Wanted)
    assert found.direction is OVER
    assert isinstance(Given(0, turns=waits).planned(), Rests)


def test_a_balance_that_was_not_read_is_none() -> None:
    """Nothing is assumed, by chain or by ledger, and not from two blocks."""
    both = [Reading(WARM.name, "BTC", 80 * COIN, AT), Reading(COLD.name, "BTC", 0, AT)]
    ledger = {(WARM.name, "BTC"): 80 * COIN, (COLD.name, "BTC"): 0}
    whole = InFlight((), ledger, {"BTC": 10**6}, {})
    assert isinstance(plan(KERNEL, BITCOIN, both, whole, NOW)[0], Wanted)
    for readings, flight in (
        (both[:1], whole),
        (both[1:], whole),
        ([], whole),
        (both, replace(whole, ledger={})),
        ([both[0], replace(both[1], at=replace(AT, hash=b"\x07" * 32))], whole),
    ):
        with pytest.raises(Unavailable):
            plan(KERNEL, BITCOIN, readings, flight, NOW)


@pytest.mark.parametrize(
    "levels",
    [(0, 2, 3, 1), (2, 2, 3, 1), (1, 3, 3, 1), (3, 2, 1, 1), (1, 2, 3, 0)],
)
def test_levels_rise(levels: tuple[int, int, int, int]) -> None:
    """A band without room inside would flap."""
    with pytest.raises(InvalidInput):
        HotBand(*levels)


# the cycle


@dataclass
class View:
    """A node that has every wallet's coins as the ledger has them, unless told otherwise."""

    treasury: Treasury
    chain: Chain
    offline: bool = False
    told: dict[Tier, int] = field(default_factory=dict)

    def final(self) -> BlockRef:
        """See `ChainView`."""
        if self.offline:
            raise Unavailable("node", "it does not answer")
        return replace(AT, chain=self.chain)

    def balance(self, asset: Asset, addresses: Collection[Address], at: BlockRef) -> int:
        """See `ChainView`."""
        assert at.chain == asset.chain == self.chain
        (wallet,) = (w for w in KERNEL.inventory.on(self.chain) if w.addresses == addresses)
        return self.told.get(wallet.tier, self.treasury.balance(wallet.account, asset))


class Table:
    """A treasury with views of its chains, and the desk's program key."""

    def __init__(self, policy: FakePolicy | None = None, client: str = "desk") -> None:
        self.treasury = Treasury(kernel=judged(policy))
        self.views = {chain: View(self.treasury, chain) for chain in (EVM, BITCOIN)}
        signer = ed25519(client)
        self.parts = Rebalancer(
            self.treasury.store,
            lambda: self.treasury.kernel,
            self.views,  # type: ignore[arg-type]  # the two of its methods that are asked
            signer.key,
            signer.sign,
            lambda: self.treasury.now,
        )

    def arrives(self, asset: Asset, units: int, height: int, tier: Tier = Tier.CUSTOMER_HOT) -> None:
        """A deposit that the watcher credits."""
        entry = deposit(asset, units, AVAILABLE, tier, height)
        self.treasury.store.run(lambda work: work.journal.append(entry, self.treasury.now))

    def look(self, *, dry: bool = False) -> dict[str, Line]:
        """One cycle, by asset."""
        return {line.what: line for line in cycle(self.parts, dry=dry)}

    def transfers(self) -> list[Transfer]:
        """Every transfer."""
        return [t for _, t in self.treasury.store.read(lambda work: work.transfers.examine())]


def test_a_deposit_overflows_within_one_cycle() -> None:
    """The first look after the watcher credited it proposes, in its asset alone, from hot to cold; the next ones add nothing."""
    table = Table()
    assert not any(line.wanted for line in table.look().values())
    table.arrives(BTC, 60 * COIN, 70)
    lines = table.look()
    made = lines["BTC"].proposed
    assert made is not None
    assert lines["ETH"].wanted is None
    intent = made.intent
    assert (intent.amount, intent.purpose, intent.wallet) == (50 * COIN - FEE, "cold_sweep", WARM.name)
    assert (intent.initiator, made.status) == ("desk", Status.PENDING_AUTHORIZATION)
    assert intent.destination in {address.text for address in COLD.addresses}
    for _ in range(3):
        assert table.look()["BTC"].proposed is None
    assert len(table.transfers()) == 1


def test_two_assets_at_once() -> None:
    """One above its cap and one below its floor: each its own way; the token has no levels and is left alone."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    taken = proposal(9, amount=75 * ETHER)
    table.treasury.propose(taken, "desk", "w", 9)
    lines = table.look()
    assert {what: line.wanted.direction for what, line in lines.items() if line.wanted} == {"BTC": OVER, "ETH": FILL}
    made = lines["ETH"].proposed
    assert made is not None
    assert (made.intent.purpose, made.intent.amount) == ("rebalance", 40 * ETHER)
    assert USDX.symbol not in lines


def test_a_silent_chain_proposes_nothing_and_stops_no_other() -> None:
    """Unknown is never a value."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    table.views[BITCOIN].offline = True
    lines = table.look()
    assert lines[str(BITCOIN)].fault
    assert "BTC" not in lines
    assert "ETH" in lines
    assert not table.transfers()
    table.views[BITCOIN].offline = False
    del table.views[EVM]
    lines = table.look()
    assert lines["BTC"].proposed is not None
    assert lines[str(EVM)].fault


def test_a_dry_run_proposes_nothing() -> None:
    """It says what it would, and what policy asks."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    line = table.look(dry=True)["BTC"]
    assert line.wanted is not None
    assert line.proposed is None
    assert "policy asks" in line.why
    assert not table.transfers()


def test_what_policy_denies_is_said_and_not_recorded() -> None:
    """Cycle after cycle it would fill the list of transfers."""
    table = Table(answers(Outcome.DENY))
    table.arrives(BTC, 60 * COIN, 70)
    line = table.look()["BTC"]
    assert line.fault
    assert "policy denies it" in line.why
    assert not table.transfers()


def test_killed_anywhere_it_proposes_once() -> None:
    """Before the commit nothing is there, after it the same look finds it: the key comes from the store, not from memory."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)

    class Killed(BaseException):
        """kill -9."""

    real = table.treasury.store.run

    def dies_before(_: Any) -> Any:
        raise Killed

    def dies_after(work: Any) -> Any:
        real(work)
        raise Killed

    for run in (dies_before, dies_after):
        table.treasury.store.run = run  # type: ignore[method-assign, assignment]
        with pytest.raises(Killed):
            table.look()
    table.treasury.store.run = real  # type: ignore[method-assign]
    assert table.look()["BTC"].proposed is None
    assert [t.proposal.message.reference for t in table.transfers()] == [key_of(WARM.name, "BTC", OVER, 0)]


def test_two_processes_propose_once() -> None:
    """Both looked before either proposed, at different balances: the second one's body is another, and is refused."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    before = table.treasury.store.read(lambda work: snapshot(work, table.treasury.kernel, BITCOIN, "desk"))
    other = Proposal(
        key_of(WARM.name, "BTC", OVER, 0), "company", BITCOIN.name, "BTC", COIN, inside(Tier.CUSTOMER_COLD, BITCOIN).destination,
        "cold_sweep", NOW + DAY,
    )  # fmt: skip
    real = proposals.dry_run

    def late(*given: Any) -> Any:
        found = real(*given)
        table.treasury.propose(other, "desk", other.reference, 77)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "dry_run", late)
        line = table.look()["BTC"]
    assert before.turns["BTC", OVER] == Turn()
    assert line.fault
    assert "another process" in line.why
    assert len(table.transfers()) == 1


def test_after_each_end_comes_the_next_number() -> None:
    """Numbers are found by halving, and none is used twice."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    for number in range(6):
        made = table.look()["BTC"].proposed
        assert made is not None
        assert made.proposal.message.reference == key_of(WARM.name, "BTC", OVER, number)
        proposals.reject(table.treasury.store, table.treasury.kernel, no(made, "bo"), table.treasury.now)
        assert table.look()["BTC"].wanted is None
        table.treasury.now += PATIENCE[OVER]


@pytest.mark.parametrize(
    ("client", "rule"),
    [
        pytest.param("settler", Rule.SCOPE_MISSING, id="a client that settles"),
        pytest.param("nobody", Rule.SIGNER_UNKNOWN, id="a stranger"),
    ],
)
def test_who_may_propose(client: str, rule: Rule) -> None:
    """The roster names who; a stranger is told before anything is read."""
    with pytest.raises(Refused) as caught:
        Table(client=client).look()
    assert {refusal.rule for refusal in caught.value.refusals} == {rule}


def test_a_bundle_without_levels_is_refused() -> None:
    """An older bundle: nothing is guessed."""
    table = Table()
    newest = table.treasury.kernel.policies.newest
    table.treasury.kernel = replace(
        table.treasury.kernel, policies=replace(table.treasury.kernel.policies, newest=replace(newest, hot={}))
    )
    with pytest.raises(Refused):
        table.look()


# a damaged row


def broken(table: Table, transfer: Transfer, *, unreadable: bool = False) -> None:
    """Somebody changes a row of the database."""
    rows = table.treasury.store._state.rows  # type: ignore[attr-defined]
    rows.damaged.add(transfer.digest)
    if unreadable:
        rows.unreadable.add(transfer.digest)


def withdrawal(table: Table, asset: str) -> Transfer:
    """A customer's, waiting for people."""
    chain = BITCOIN if asset == "BTC" else EVM
    to = {"destination": PAID} if chain is BITCOIN else {}
    return table.treasury.propose(proposal(9, chain=chain.name, asset=asset, amount=10_000, **to), key="w", number=9)


@pytest.mark.parametrize(
    ("asset", "unreadable", "stands"),
    [
        pytest.param("USDX", False, set(), id="a token without levels, on a chain whose fees the relayer pays"),
        pytest.param("ETH", False, {"ETH"}, id="ether"),
        pytest.param("BTC", False, {"BTC"}, id="bitcoin"),
        pytest.param("USDX", True, {"ETH"}, id="unknown what, of a wallet on the EVM chain"),
        pytest.param("BTC", True, {"BTC"}, id="unknown what, of a wallet on Bitcoin"),
    ],
)
def test_a_damaged_row_stops_what_it_may_concern(asset: str, unreadable: bool, stands: set[str]) -> None:
    """It is a fault with the row's name; every other asset is proposed as if nothing had been; mended, this one is as well."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    table.arrives(ETH, 300 * ETHER, 71)
    table.arrives(USDX, 10**6, 72)
    made = withdrawal(table, asset)
    broken(table, made, unreadable=unreadable)
    lines = table.look()
    assert {what for what, line in lines.items() if line.fault} == stands
    assert {what for what, line in lines.items() if line.proposed} == {"BTC", "ETH"} - stands
    assert all(made.digest.hex() in lines[what].why for what in stands)
    rows = table.treasury.store._state.rows  # type: ignore[attr-defined]
    rows.damaged.clear()
    lines = table.look()
    assert {what for what, line in lines.items() if line.proposed} == stands
    assert not any(line.fault for line in lines.values())


def test_a_damaged_proposal_of_ours_stops_its_asset() -> None:
    """What was asked last is not known, even where it has ended: asking again could ask twice."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    made = table.look()["BTC"].proposed
    assert made is not None
    proposals.reject(table.treasury.store, table.treasury.kernel, no(made, "bo"), table.treasury.now)
    table.treasury.now += PATIENCE[OVER]
    table.arrives(ETH, 300 * ETHER, 71)
    broken(table, made)
    lines = table.look()
    assert lines["BTC"].fault
    assert lines["BTC"].proposed is None
    assert lines["ETH"].proposed is not None


@pytest.mark.parametrize(
    ("damaged", "concerned"),
    [
        pytest.param({"wallet": WARM.name, "assets": {"BTC", "ETH"}}, {"BTC", "ETH"}, id="row and document differ"),
        pytest.param({"wallet": WARM.name, "assets": {"BTC", "GOLD"}}, {"BTC"}, id="an asset of nobody: its wallet's chain"),
        pytest.param({"wallet": b"?" * 32, "assets": {"USDX"}}, {"USDX"}, id="a strange wallet, and a known asset"),
        pytest.param({"wallet": b"?" * 32}, {"BTC", "ETH", "USDX"}, id="nothing is known: everything"),
        pytest.param({}, {"BTC", "ETH", "USDX"}, id="nothing is said: everything"),
    ],
)  # fmt: skip
def test_what_a_damaged_row_may_concern(damaged: dict[str, Any], concerned: set[str]) -> None:
    """Less is known, more stands still."""
    row = Damaged("00", Refusal(Rule.ROW_DAMAGED), None, damaged.get("wallet"), frozenset(damaged.get("assets", ())))
    known = [asset for chain in (EVM, BITCOIN) for asset in KERNEL.assets.on(chain)]
    assert {a.symbol for a in known if may_concern(row, KERNEL, a)} & {"BTC", "ETH", "USDX"} == concerned


def test_a_fee_is_paid_in_the_chains_own_coin() -> None:
    """Where the wallet pays it: a damaged transfer of a token stops that coin too."""
    row = Damaged("00", Refusal(Rule.ROW_DAMAGED), None, None, frozenset({"USDX"}))
    pays = replace(KERNEL, maximum_fee={**KERNEL.maximum_fee, EVM: 10**15})
    assert [may_concern(row, each, ETH) for each in (KERNEL, pays)] == [False, True]


# what is told


def test_each_line_says_what_and_why() -> None:
    """One JSON object a line: proposed, then resting while it is pending, wanted in a dry run, a fault for a silent chain."""
    table = Table()
    table.arrives(BTC, 60 * COIN, 70)
    table.views[EVM].offline = True
    told = [[json.loads(line_of(line)) for line in cycle(table.parts, dry=dry)] for dry in (True, False, False)]
    events = [{line["what"]: line["event"] for line in lines} for lines in told]
    silent = str(EVM)
    assert events == [
        {"BTC": "wanted", silent: "fault"},
        {"BTC": "proposed", silent: "fault"},
        {"BTC": "rests", silent: "fault"},
    ]
    assert all(line["why"] for lines in told for line in lines)
    (made,) = (line for line in told[1] if line["what"] == "BTC")
    assert (made["amount"], made["direction"], made["purpose"]) == ("49.9998 BTC", "overflow", "cold_sweep")
    assert (made["transfer"], made["status"]) == (table.transfers()[0].intent.id, "PENDING_AUTHORIZATION")


def test_by_schedule_a_failure_is_said_and_the_next_look_is_taken() -> None:
    """The kernel is unreadable at first; nothing is proposed until it is read, then once; what is not new is not said again."""
    table, stop, told = Table(), threading.Event(), list[dict[str, Any]]()
    table.arrives(BTC, 60 * COIN, 70)
    looks = [0]

    def kernel_of() -> Kernel:
        looks[0] += 1
        if looks[0] == 1:
            raise Unavailable("attestor", "it tells no time")
        if looks[0] == 5:
            stop.set()
        return table.treasury.kernel

    balance_forever(replace(table.parts, kernel=kernel_of), stop, 0, lambda line: told.append(json.loads(line)))
    assert told[0]["event"] == "failed"
    assert [line["event"] for line in told if line.get("what") == "BTC"] == ["proposed", "rests"]
