# SPDX-License-Identifier: AGPL-3.0-or-later
"""The table of moves, law 1's ways, and the entries of holds, releases and payouts."""

from dataclasses import replace
from typing import Any

import pytest

from custody.rules import holds
from custody.rules.errors import InvalidInput
from custody.rules.facts import Purpose
from custody.rules.hold_origins import Standing, check_executed, check_hold, check_release
from custody.rules.intents import Anchor
from custody.rules.ledger import Account, AccountKind, Entry, JournalEntry, JournalHead, Side, loss_of
from custody.rules.origins import Arrived, Executed, Hold, Release, origin_from_json, origin_to_json
from custody.rules.refusals import Refused, Rule
from custody.rules.transfers import MOVES, SUB_STATUSES, Status, SubStatus, Transfer, move, uuid7
from custody.rules.wallets import Tier
from custody.rules.walls import WAYS, check_walls, way_of
from tests.fakes.seat import BITCOIN, EVM, NOW
from tests.fakes.treasury import FakeAnchors, Treasury, inside, no, proposal, roster
from tests.fakes.trust import ASSETS, PAYEE, world

HOT, COLD, OWN = Tier.CUSTOMER_HOT, Tier.CUSTOMER_COLD, Tier.OPERATIONAL
BTC_OUT = {"chain": BITCOIN.name, "asset": "BTC", "destination": PAYEE[BITCOIN.name], "amount": 10**8}


@pytest.fixture(scope="module")
def treasury() -> Treasury:
    """Somebody to make intents with."""
    return Treasury()


_COUNT = iter(range(1, 10**6))


def made(treasury: Treasury, message: Any = None, by: str = "backend") -> Transfer:
    """A transfer of a proposal."""
    number = next(_COUNT)
    said = replace(message or proposal(), reference=f"order {number}")
    return treasury.propose(said, by, key=f"k{number}", number=number)


class TestMoves:
    """One table, one function."""

    @pytest.mark.parametrize(
        ("was", "to", "legal"),
        [
            pytest.param(Status.QUEUED, Status.PENDING_SIGNATURE, True, id="permitted"),
            pytest.param(Status.PENDING_SIGNATURE, Status.BROADCASTING, True, id="signed"),
            pytest.param(Status.CONFIRMING, Status.BROADCASTING, True, id="a reorg takes it back"),
            pytest.param(Status.CANCELLING, Status.COMPLETED, True, id="the void came too late"),
            pytest.param(
                Status.PENDING_SIGNATURE, Status.CANCELLED, False, id="no cancelling once a signature was asked for"
            ),
            pytest.param(Status.PENDING_SIGNATURE, Status.EXPIRED, False, id="no expiry either"),
            pytest.param(Status.BROADCAST_UNKNOWN, Status.FAILED, False, id="an unknown outcome is no failure"),
            pytest.param(Status.BROADCASTING, Status.QUEUED, False, id="never rebuilt"),
            pytest.param(Status.SUBMITTED, Status.COMPLETED, False, id="no short way"),
            pytest.param(Status.COMPLETED, Status.BROADCASTING, False, id="nothing after the end"),
        ],
    )
    def test_table(self, treasury: Treasury, was: Status, to: Status, legal: bool) -> None:
        """Legal moves pass; every other is refused by its rule."""
        standing = replace(made(treasury), status=was, waiting_for="" if was.is_final else "x", sub_status=None)
        if legal:
            assert move(standing, to, NOW + 1, waiting_for="" if to.is_final else "y").status is to
            return
        with pytest.raises(Refused) as caught:
            move(standing, to, NOW, waiting_for="" if to.is_final else "y")
        assert [r.rule for r in caught.value.refusals] == [Rule.ILLEGAL_MOVE]

    def test_whole(self) -> None:
        """Every status has a row; what may be asked to be signed ends by its anchor alone; everything can end."""
        assert set(MOVES) == set(Status)
        asked = {s for s in Status if s.is_asked}
        assert {to for s in asked for to in MOVES[s]} & {Status.EXPIRED, Status.REJECTED, Status.QUEUED} == set()
        assert {s for s in Status if Status.CANCELLED in MOVES[s]} & asked == {Status.CANCELLING}
        for status in Status:
            reached, before = {status}, set[Status]()
            while reached != before:
                before, reached = reached, reached | {to for s in reached for to in MOVES[s]}
            assert any(s.is_final for s in reached)
        assert {sub for subs in SUB_STATUSES.values() for sub in subs} == set(SubStatus)

    @pytest.mark.parametrize(
        ("to", "waiting", "sub"),
        [
            pytest.param(Status.QUEUED, "", None, id="waits for nothing"),
            pytest.param(Status.CANCELLED, "somebody", None, id="ended and waits"),
            pytest.param(Status.QUEUED, "x", SubStatus.CONFIRMED, id="a sub-status of another status"),
        ],
    )
    def test_says_why(self, treasury: Treasury, to: Status, waiting: str, sub: SubStatus | None) -> None:
        """A waiting transfer says for what, an ended one waits for nothing."""
        with pytest.raises(InvalidInput):
            move(made(treasury), to, NOW, sub, waiting)

    def test_denied_holds_nothing(self, treasury: Treasury) -> None:
        """What policy denied before anything was held can end and nothing else."""
        denied = replace(made(treasury), live=False, hold=None)
        with pytest.raises(Refused):
            move(denied, Status.PENDING_SIGNATURE, NOW, waiting_for="x")
        assert move(denied, Status.EXPIRED, NOW).status is Status.EXPIRED

    def test_time_never_runs_back(self, treasury: Treasury) -> None:
        """A clock that ran back moves nothing out of a window."""
        standing = made(treasury)
        assert move(standing, Status.QUEUED, NOW - 10**6, waiting_for="x").moved_at == standing.moved_at


class TestUuid7:
    """RFC 9562."""

    def test_fields(self) -> None:
        """Time first, then version, variant and noise; ordered by time."""
        found = uuid7(0x017F22E279B0, bytes.fromhex("330c8dc0c0c07398f9a9"))
        assert found.startswith("017f22e2-79b0-7")
        assert (found[14], found[19] in "89ab", len(found)) == ("7", True, 36)
        assert uuid7(1, b"\xff" * 10) < uuid7(2, bytes(10))
        assert len({uuid7(1, n.to_bytes(10)) for n in range(2000)}) > 499

    @pytest.mark.parametrize("entropy", [b"", b"\x00" * 9, b"\x00" * 11], ids=["none", "nine", "eleven"])
    def test_refused(self, entropy: bytes) -> None:
        """Ten bytes, no fewer."""
        with pytest.raises(InvalidInput):
            uuid7(1, entropy)


class TestWalls:
    """Law 1."""

    @pytest.mark.parametrize(
        ("source", "to", "account", "purpose", "allowed"),
        [
            pytest.param(HOT, None, "customer:ada", "withdrawal", True, id="withdrawal"),
            pytest.param(HOT, OWN, "company", "fee_sweep", True, id="fees"),
            pytest.param(COLD, HOT, "company", "rebalance", True, id="refill"),
            pytest.param(HOT, COLD, "company", "cold_sweep", True, id="cold sweep"),
            pytest.param(OWN, None, "company", "vendor_payment", True, id="vendor"),
            pytest.param(OWN, HOT, "company", "make_whole", True, id="make whole"),
            pytest.param(HOT, OWN, "company", "rebalance", False, id="customer coins to the company"),
            pytest.param(COLD, OWN, "company", "fee_sweep", False, id="fees out of cold"),
            pytest.param(HOT, OWN, "customer:ada", "fee_sweep", False, id="a customer pays the company"),
            pytest.param(HOT, None, "company", "withdrawal", False, id="the company withdraws customer coins"),
            pytest.param(HOT, None, "company", "vendor_payment", False, id="a vendor paid by customers"),
            pytest.param(COLD, None, "customer:ada", "withdrawal", False, id="cold pays nobody outside"),
            pytest.param(OWN, None, "customer:ada", "withdrawal", False, id="company coins for a customer"),
            pytest.param(HOT, None, "customer:", "withdrawal", False, id="nobody's account"),
            pytest.param(HOT, None, "customer:ada", "gift", False, id="an unknown purpose"),
        ],
    )
    def test_ways(self, source: Tier, to: Tier | None, account: str, purpose: str, allowed: bool) -> None:
        """The six purposes have their ways; there is no other."""
        assert ([*check_walls(source, to, account, purpose)] == []) is allowed

    def test_every_purpose_has_one_way_to_each_place(self) -> None:
        """`way_of` is never a choice."""
        assert set(WAYS) == set(Purpose)
        for ways in WAYS.values():
            places = [to for way in ways for to in way.to]
            assert len(places) == len(set(places))
        assert way_of(Purpose.WITHDRAWAL, OWN) is None


def lines(entry: Entry | None) -> dict[str, int]:
    """Net changes by account and asset."""
    return {} if entry is None else {f"{account} {asset}": units for (account, asset), units in entry.changes().items()}


def executed(*transfers: Transfer, **changes: Any) -> Executed:
    """A final payout."""
    first = transfers[0].intent
    anchor = Anchor(first.chain, first.wallet, "7")
    done = Executed(
        first.chain, 9, b"\1" * 32, b"\2" * 32, anchor, tuple(t.digest for t in transfers), (), 0, void=False
    )
    return replace(done, **changes)


class TestEntries:
    """What each kind of transfer holds, and what its end books."""

    def test_withdrawal(self, treasury: Treasury) -> None:
        """Bitcoin holds amount and capped fee, pays what was paid, and gives the rest back."""
        paid = made(treasury, proposal(**BTC_OUT))
        wallet = f"wallet:{paid.intent.wallet.hex()} BTC"
        origin = Hold(paid.proposal.message, paid.proposal.signatures, paid.intent)
        held = {"customer_available:ada BTC": -100_020_000, "customer_held:ada BTC": 100_020_000}
        assert lines(holds.hold(origin, ASSETS)) == held
        after = holds.pay(executed(paid, fee=1500), [paid.intent], HOT, ASSETS)
        assert lines(after) == {
            "customer_held:ada BTC": -100_020_000,
            wallet: -100_001_500,
            "customer_available:ada BTC": 18_500,
        }

    def test_change_is_taken_back(self, treasury: Treasury) -> None:
        """Change arrives like any deposit; the payout's entry takes it out of suspense again."""
        paid = made(treasury, proposal(**BTC_OUT))
        back = Arrived(paid.intent.wallet, "BTC", 5 * 10**8, "its change")
        after = lines(holds.pay(executed(paid, fee=0, arrived=(back,)), [paid.intent], HOT, ASSETS))
        assert after["suspense:its change BTC"] == -5 * 10**8
        assert after[f"wallet:{paid.intent.wallet.hex()} BTC"] == -6 * 10**8

    def test_batch_shares(self, treasury: Treasury) -> None:
        """The fee is shared to the last unit, within each one's maximum."""
        batch = [made(treasury, proposal(**{**BTC_OUT, "amount": 10**6 + n})) for n in range(3)]
        after = holds.pay(executed(*batch, fee=10_001), [t.intent for t in batch], HOT, ASSETS)
        wallet = f"wallet:{batch[0].intent.wallet.hex()} BTC"
        assert lines(after)[wallet] == -(3 * 10**6 + 3 + 10_001)

    @pytest.mark.parametrize(
        ("fee", "maxima", "shares"),
        [
            pytest.param(10, [10, 10, 10], (4, 3, 3), id="the odd one to the first"),
            pytest.param(30, [10, 10, 10], (10, 10, 10), id="all of it"),
            pytest.param(5, [0, 10], (0, 5), id="none to whom none is allowed"),
            pytest.param(0, [0, 0], (0, 0), id="nothing"),
            pytest.param(7, [1, 100, 3], (1, 6, 0), id="by what is allowed"),
        ],
    )
    def test_fee_shares(self, fee: int, maxima: list[int], shares: tuple[int, ...]) -> None:
        """They add up, and none is above its maximum."""
        found = holds.fee_shares(fee, maxima)
        assert found == shares
        assert sum(found) == fee

    def test_fee_above_all(self) -> None:
        """A fee that nobody allowed cannot be booked."""
        with pytest.raises(InvalidInput):
            holds.fee_shares(31, [10, 10, 10])

    @pytest.mark.parametrize(
        ("message", "by", "tier", "held", "after"),
        [
            pytest.param(
                inside(OWN, purpose="fee_sweep"),
                "finance",
                HOT,
                {"accrued_fees ETH": -(10**18), "company_held:accrued_fees ETH": 10**18},
                {"company_held:accrued_fees ETH": -(10**18), "wallet ETH": -(10**18)},
                id="fees",
            ),
            pytest.param(
                proposal(account="company", purpose="vendor_payment"),
                "finance",
                OWN,
                {"company_equity ETH": -(10**18), "company_held:company_equity ETH": 10**18},
                {"company_held:company_equity ETH": -(10**18), "wallet ETH": -(10**18)},
                id="vendor",
            ),
            pytest.param(inside(COLD), "desk", HOT, {}, {}, id="inside customer tiers, on EVM"),
            pytest.param(
                inside(COLD, BITCOIN, amount=10**7),
                "desk",
                HOT,
                {"company_surplus BTC": -20_000, "company_held:company_surplus BTC": 20_000},
                {"company_held:company_surplus BTC": -20_000, "company_surplus BTC": 20_000},
                id="inside, on Bitcoin",
            ),
        ],
    )
    def test_company(
        self, treasury: Treasury, message: Any, by: str, tier: Tier, held: dict[str, int], after: dict[str, int]
    ) -> None:
        """Company accounts wait in accounts of their own, and never in a customer's."""
        moved = made(treasury, message, by)
        origin = Hold(moved.proposal.message, moved.proposal.signatures, moved.intent)
        assert lines(holds.hold(origin, ASSETS)) == held
        paid = lines(holds.pay(executed(moved), [moved.intent] if held else [], tier, ASSETS))
        assert {k.replace(f"wallet:{moved.intent.wallet.hex()}", "wallet"): v for k, v in paid.items()} == after

    def test_make_whole(self, treasury: Treasury) -> None:
        """Operational coins that reached a customer wallet are company_surplus there."""
        moved = made(treasury, inside(HOT, purpose="make_whole"), "finance")
        hot = world().certificate(HOT, EVM).struct_hash
        done = executed(moved, arrived=(Arrived(hot, "ETH", 10**18, "an arrival"),))
        assert lines(holds.pay(done, [moved.intent], OWN, ASSETS)) == {
            "company_held:company_equity ETH": -(10**18),
            f"wallet:{moved.intent.wallet.hex()} ETH": -(10**18),
            "suspense:an arrival ETH": -(10**18),
            "company_surplus ETH": 10**18,
        }

    def test_void(self, treasury: Treasury) -> None:
        """Everything held comes back but what the void cost, out of what its payout might have cost at most."""
        paid = made(treasury, proposal(**BTC_OUT))
        after = lines(holds.pay(executed(paid, void=True, fee=300), [paid.intent], HOT, ASSETS))
        assert after == {
            f"wallet:{paid.intent.wallet.hex()} BTC": -300,
            "customer_held:ada BTC": -100_020_000,
            "customer_available:ada BTC": 100_019_700,
        }

    def test_void_above_what_people_approved(self, treasury: Treasury) -> None:
        """No customer bears more than was approved: what is above that is the company's."""
        paid = made(treasury, proposal(**{**BTC_OUT, "amount": 10**6}))
        after = lines(holds.pay(executed(paid, void=True, fee=20_200), [paid.intent], HOT, ASSETS))
        assert after == {
            "company_surplus BTC": -200,
            f"wallet:{paid.intent.wallet.hex()} BTC": -20_200,
            "customer_held:ada BTC": -1_020_000,
            "customer_available:ada BTC": 1_000_000,
        }

    def test_void_of_a_batch(self, treasury: Treasury) -> None:
        """Shared as a payout's fee is, within each one's own maximum."""
        batch = [made(treasury, proposal(**{**BTC_OUT, "amount": 10**6 + n})) for n in range(3)]
        after = lines(holds.pay(executed(*batch, void=True, fee=10_001), [t.intent for t in batch], HOT, ASSETS))
        assert after["customer_available:ada BTC"] == 3 * 10**6 + 3 + 3 * 20_000 - 10_001
        assert "company_surplus BTC" not in after

    def test_what_comes_back_fills_what_was_lost(self, treasury: Treasury) -> None:
        """A void that a reorg undid, and whose customer spent what it gave back, gives nothing a second time."""
        paid = made(treasury, proposal(**{**BTC_OUT, "amount": 10**6}))
        ada = Account(AccountKind.CUSTOMER_AVAILABLE, "ada")
        lost = {(loss_of(ada), ASSETS.get("BTC")): 400_000}
        after = lines(holds.pay(executed(paid, void=True, fee=0), [paid.intent], HOT, ASSETS, lost))
        assert after == {
            "customer_held:ada BTC": -1_020_000,
            "reorg_loss:customer_available:ada BTC": -400_000,
            "customer_available:ada BTC": 620_000,
        }

    def test_company_held_names_what_it_holds(self) -> None:
        """The account needs an owner."""
        with pytest.raises(InvalidInput):
            Account(AccountKind.COMPANY_HELD)
        assert AccountKind.COMPANY_HELD.side is Side.CREDIT
        assert not AccountKind.COMPANY_HELD.is_liability


class TestOrigins:
    """What an audit checks of the three kinds of entries."""

    def recorded(self, treasury: Treasury, transfer: Transfer) -> JournalEntry:
        """The entry of its hold."""
        found = treasury.store.read(lambda w: w.journal.get(transfer.hold or 0))
        assert found is not None
        return found

    def test_round_trip(self, treasury: Treasury) -> None:
        """The stored JSON is read back whole."""
        paid = made(treasury, proposal(**BTC_OUT))
        rejection = no(paid, "ana")
        for origin in (
            Hold(paid.proposal.message, paid.proposal.signatures, paid.intent),
            Release(3, paid.digest, (rejection.message,), rejection.signatures),
            executed(paid, arrived=(Arrived(paid.intent.wallet, "BTC", 5),)),
        ):
            assert origin_from_json(origin_to_json(origin)) == origin

    @pytest.mark.parametrize(
        ("field", "value", "rule"),
        [
            pytest.param("amount", 2 * 10**18, Rule.PROPOSAL_MISMATCH, id="another amount than was asked"),
            pytest.param("account", "customer:bo", Rule.PROPOSAL_MISMATCH, id="another's account"),
            pytest.param("initiator", "ana", Rule.PROPOSAL_MISMATCH, id="another initiator"),
            pytest.param("expiry", NOW + 10**9, Rule.PROPOSAL_MISMATCH, id="a later expiry"),
        ],
    )
    def test_hold_refused(self, treasury: Treasury, field: str, value: Any, rule: Rule) -> None:
        """A planted hold is not what its proposal says."""
        good = self.recorded(treasury, made(treasury))
        assert [*check_hold(good, roster(), ASSETS, frozenset({"ada", "bo"}))] == []
        origin = good.entry.origin
        assert isinstance(origin, Hold)
        forged = replace(origin, intent=replace(origin.intent, **{field: value}))
        entry = holds.hold(forged, ASSETS)
        assert entry is not None
        bad = JournalEntry.append(JournalHead(), entry, NOW)
        assert rule in {r.rule for r in check_hold(bad, roster(), ASSETS, frozenset({"ada", "bo"}))}

    def test_hold_needs_a_signature(self, treasury: Treasury) -> None:
        """No row debits a customer: an unsigned proposal holds nothing."""
        origin = self.recorded(treasury, made(treasury)).entry.origin
        assert isinstance(origin, Hold)
        entry = holds.hold(replace(origin, signatures=()), ASSETS)
        assert entry is not None
        found = check_hold(JournalEntry.append(JournalHead(), entry, NOW), roster(), ASSETS, frozenset({"ada"}))
        assert {r.rule for r in found} == {Rule.SIGNER_UNKNOWN}

    @pytest.mark.parametrize(
        ("case", "rule"),
        [
            pytest.param("rejected", None, id="a person's no"),
            pytest.param("cancelled", None, id="the initiator's own no"),
            pytest.param("expired", None, id="past its expiry"),
            pytest.param("early", Rule.ORIGIN, id="before its expiry, and nobody's no"),
            pytest.param("stranger", Rule.SIGNER_UNKNOWN, id="the no of a client that did not propose"),
            pytest.param("other", Rule.WRONG_DIGEST, id="a no to another transfer"),
            pytest.param("unheld", Rule.ORIGIN, id="a hold that does not stand"),
            pytest.param("more", Rule.ORIGIN, id="other postings"),
        ],
    )
    def test_release(self, treasury: Treasury, case: str, rule: Rule | None) -> None:
        """A hold ends by a signed no or by its expiry, exactly, once."""
        transfer, another = made(treasury), made(treasury, proposal(amount=2 * 10**18))
        by = {"rejected": "ana", "cancelled": "backend", "stranger": "finance"}.get(case, "")
        rejection = no(another if case == "other" else transfer, by or "ana")
        origin = Release(transfer.hold or 0, transfer.digest, (), ())
        if by or case in {"other", "more"}:
            origin = replace(origin, rejection=(rejection.message,), signatures=rejection.signatures)
        entry = holds.release(origin, (another if case == "more" else transfer).intent, ASSETS)
        assert entry is not None
        at = transfer.intent.expiry if case == "expired" else NOW
        standing = {} if case == "unheld" else {transfer.digest: Standing(transfer.hold or 0, transfer.intent)}
        found = {
            r.rule for r in check_release(JournalEntry.append(JournalHead(), entry, at), standing, roster(), ASSETS)
        }
        assert found == ({rule} if rule else set())

    @pytest.mark.parametrize(
        ("tier", "changes", "known", "rule"),
        [
            pytest.param(HOT, {}, True, None, id="as it was"),
            pytest.param(None, {}, True, Rule.UNKNOWN_WALLET, id="a wallet that nobody certified"),
            pytest.param(HOT, {"void": True}, True, Rule.ORIGIN, id="a void that pays"),
            pytest.param(HOT, {"fee": 5}, True, Rule.ORIGIN, id="a fee that was not booked"),
            pytest.param(HOT, {}, False, Rule.ORIGIN, id="a hold that does not stand"),
        ],
    )
    def test_executed(
        self, treasury: Treasury, tier: Tier | None, changes: dict[str, Any], known: bool, rule: Rule | None
    ) -> None:
        """A payout's entry is what its holds and its numbers make of it."""
        paid = made(treasury, proposal(**BTC_OUT))
        booked = holds.pay(executed(paid), [paid.intent], HOT, ASSETS)
        assert booked is not None
        recorded = JournalEntry.append(JournalHead(), Entry(executed(paid, **changes), booked.postings), NOW)
        standing = {paid.digest: Standing(paid.hold or 0, paid.intent)} if known else {}
        found = {r.rule for r in check_executed(recorded, standing, tier, ASSETS)}
        assert found == ({rule} if rule else set())


def test_anchors_of_tests() -> None:
    """The fake gives what the permit pins."""
    certificate = world().certificate(HOT, EVM)
    assert FakeAnchors().next_anchor(b"\1" * 32, certificate, (), {"9"}).references == ("10",)
