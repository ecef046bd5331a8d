# SPDX-License-Identifier: AGPL-3.0-or-later
"""Step 4: one permit or every reason; each control is attacked, and nothing is pinned where one refuses."""

import ast
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from custody.flows import authorization, proposals
from custody.flows.authorization import SigningPermit, Withheld
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Amount
from custody.rules.approvals import Approval
from custody.rules.certificates import WalletCertificate
from custody.rules.deposits import DepositStatus, Sighting
from custody.rules.facts import Facts
from custody.rules.governance import Freeze
from custody.rules.origins import BitcoinProof
from custody.rules.payments import Credited, Payment, Reservation, none_credited
from custody.rules.refusals import Refused, Rule
from custody.rules.requirement import Decision, Outcome, Requirement
from custody.rules.roster import Roster, RosterVersion
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, SubStatus, Transfer, move
from custody.rules.wallets import Address, Tier
from tests.fakes.house import DyingStore
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519, secp256k1, signed_by
from tests.fakes.store import FakeStore
from tests.fakes.treasury import (
    DAY,
    HELD,
    FakeAnchors,
    Treasury,
    approval,
    enrolment,
    inside,
    kernel,
    no,
    proposal,
    roster,
    statement,
    with_pinned,
)
from tests.fakes.trust import BTC, BUNDLE, PAYEE, STRANGER, FakePolicy, answers, bundle, world

ONE = 10**18
NEWER = b"\x0c" * 32


def approved(t: Treasury, message: Any = None, by: str = "backend", number: int = 1) -> Transfer:
    """A transfer with everybody's approval."""
    said = replace(message or proposal(), reference=f"order {number}")
    return t.approve(t.propose(said, by, f"k{number}", number), "ana", "bo")


def withheld(t: Treasury, *transfers: Transfer, said: Any = None) -> set[Rule]:
    """The rules against a permit; nothing was pinned."""
    found = t.authorize(*transfers, said=said)
    assert isinstance(found, Withheld), found
    assert t.store.read(lambda w: w.transfers.permitted()) == []
    return {refusal.rule for refusals in found.refusals.values() for refusal in refusals}


def planted(t: Treasury, work: Callable[[UnitOfWork], Any]) -> None:
    """Somebody writes into the database."""
    t.store.run(work)


def tampered(t: Treasury, was: Transfer, **changes: Any) -> Transfer:
    """The row of a transfer, changed behind everybody's back in the fake store."""
    after = replace(was, **changes)
    t.store._state.rows.transfers[was.digest] = after  # type: ignore[attr-defined]
    return after


class TestPermit:
    """What is granted."""

    def test_granted(self) -> None:
        """The anchor is pinned, the seats' material is whole, and the transfer waits for the seats."""
        t = Treasury()
        made = approved(t)
        permit = t.authorize(made)
        assert isinstance(permit, SigningPermit)
        assert permit.permit.reservation.anchor.reference == "7"
        assert permit.permit.statement == 5
        (material,), (payment,) = permit.material, permit.payments
        assert (material.intent, material.proposal) == (made.intent, made.proposal)
        assert {a.person for a in material.approvals} == {"ana", "bo"}
        assert material.enrolment == enrolment()
        assert (payment.intent, payment.units, payment.destination.text) == (made.digest, ONE, PAYEE[EVM.name])
        assert t.get(made).status is Status.PENDING_SIGNATURE

    def test_again_is_the_same(self) -> None:
        """Asked twice, even when policy or coverage changed: the recorded permit, and no second anchor."""
        t = Treasury()
        made = approved(t)
        first = t.authorize(made)
        t.kernel = replace(t.kernel, policies=kernel(answers(Outcome.DENY)).policies)
        assert t.authorize(made, said=statement(reserves=0)) == first
        assert t.anchors.asked == 1

    def test_batch(self) -> None:
        """Several of one wallet share one anchor; another batch gets the next."""
        t = Treasury()
        batch = [approved(t, number=n) for n in range(1, 6)]
        first, second = t.authorize(*batch[:3]), t.authorize(*batch[3:])
        assert isinstance(first, SigningPermit)
        assert isinstance(second, SigningPermit)
        assert [p.permit.reservation.anchor.reference for p in (first, second)] == ["7", "8"]
        assert [p.intent for p in first.payments] == [made.digest for made in batch[:3]]

    def test_bitcoin(self) -> None:
        """Outpoints are pinned with the permit."""
        t = Treasury()
        out = proposal(chain=BITCOIN.name, asset="BTC", amount=10**7, destination=PAYEE[BITCOIN.name])
        permits = [t.authorize(approved(t, out, number=n)) for n in (1, 2)]
        anchors = [p.permit.reservation.anchor.reference for p in permits if isinstance(p, SigningPermit)]
        assert len(set(anchors)) == 2

    @pytest.mark.parametrize(
        ("message", "by"),
        [
            pytest.param(inside(Tier.CUSTOMER_COLD), "desk", id="cold sweep"),
            pytest.param(inside(Tier.OPERATIONAL, purpose="fee_sweep"), "finance", id="fees"),
            pytest.param(inside(Tier.CUSTOMER_HOT, purpose="make_whole"), "finance", id="make whole"),
            pytest.param(proposal(account="company", purpose="vendor_payment"), "finance", id="vendor"),
        ],
    )
    def test_every_way(self, message: Any, by: str) -> None:
        """Each purpose has a way through."""
        t = Treasury()
        assert isinstance(t.authorize(approved(t, message, by)), SigningPermit)

    def test_automatic(self) -> None:
        """Policy and floors let it go: nobody is asked."""
        t = Treasury(kernel=kernel(answers(Outcome.AUTOMATIC)))
        assert isinstance(t.authorize(t.propose()), SigningPermit)

    def test_approvals_while_seats_wait(self) -> None:
        """A seat whose counter is full falls back to people, whose approvals the permit then brings."""
        t = Treasury(kernel=kernel(answers(Outcome.AUTOMATIC)))
        made = t.propose()
        t.authorize(made)
        t.approve(made, "ana", "bo")
        again = t.authorize(made)
        assert isinstance(again, SigningPermit)
        assert {a.person for a in again.material[0].approvals} == {"ana", "bo"}

    def test_only_authorize_makes_one(self) -> None:
        """No other module constructs a SigningPermit."""
        makers = {
            str(file.relative_to(root))
            for root in [Path(__file__).parents[2]]
            for room in ("custody", "api", "policies", "devnet")
            for file in (root / room).rglob("*.py")
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "SigningPermit"
        }
        assert makers == {"custody/flows/authorization.py"}


class TestQuorum:
    """Law 3, verified afresh."""

    @pytest.mark.parametrize(
        ("by", "people", "found"),
        [
            pytest.param("backend", ("ana", "bo"), None, id="operations and risk"),
            pytest.param("backend", ("cy", "dee"), None, id="two who can fill both slots"),
            pytest.param("backend", ("ana",), {Rule.QUORUM_NOT_REACHED}, id="one of two"),
            pytest.param("backend", ("cy",), {Rule.QUORUM_NOT_REACHED}, id="one person in both groups fills one slot"),
            pytest.param("backend", ("ana", "dee"), {Rule.QUORUM_NOT_REACHED}, id="nobody of risk"),
            pytest.param("backend", (), {Rule.QUORUM_NOT_REACHED}, id="nobody"),
        ],
    )
    def test_people(self, by: str, people: tuple[str, ...], found: set[Rule] | None) -> None:
        """Distinct people in their groups."""
        t = Treasury()
        made = t.approve(t.propose(by=by), *people)
        if found is None:
            assert isinstance(t.authorize(made), SigningPermit)
            return
        assert withheld(t, made) == found
        after = t.get(made)
        assert (after.status, after.sub_status) == (Status.PENDING_AUTHORIZATION, None)
        assert "quorum_not_reached" in after.waiting_for

    @pytest.mark.parametrize(
        ("forged", "rule"),
        [
            pytest.param(lambda m: approval(m, "bo", key="ana"), Rule.SIGNER_UNKNOWN, id="another's key"),
            pytest.param(
                lambda m: approval(m, "bo", over=replace(m.intent, amount=5)), Rule.SIGNATURE_INVALID, id="other bytes"
            ),
            pytest.param(
                lambda m: Approval(m.digest, "eve", secp256k1("eve").sign(m.digest)),
                Rule.SIGNER_UNKNOWN,
                id="a stranger",
            ),
        ],
    )
    def test_planted_approvals(self, forged: Callable[[Transfer], Approval], rule: Rule) -> None:
        """An approval inserted into the database counts for nothing, and says so."""
        t = Treasury()
        made = t.approve(t.propose(), "ana")
        planted(t, lambda w: w.transfers.approve(forged(made), NOW))
        assert withheld(t, made) == {Rule.QUORUM_NOT_REACHED, rule}
        assert t.get(made).status is Status.PENDING_AUTHORIZATION

    def test_a_stray_approval_hinders_nobody(self) -> None:
        """Enough true ones pass beside it."""
        t = Treasury()
        made = approved(t)
        planted(t, lambda w: w.transfers.approve(Approval(made.digest, "eve", secp256k1("eve").sign(made.digest)), NOW))
        assert isinstance(t.authorize(made), SigningPermit)

    def test_initiator(self) -> None:
        """A planted approval of the initiator's own does not count."""
        t = Treasury()
        made = t.approve(t.propose(by="dee"), "bo")
        planted(t, lambda w: w.transfers.approve(approval(made, "dee"), NOW))
        assert Rule.INITIATOR_APPROVES in withheld(t, made)

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            pytest.param({"people": "bo"}, {Rule.QUORUM_NOT_REACHED, Rule.SIGNER_UNKNOWN}, id="an approver left"),
            pytest.param({"clients": "backend"}, {Rule.SIGNER_UNKNOWN}, id="the initiator's key was revoked"),
        ],
    )
    def test_newest_roster(self, change: dict[str, str], found: set[Rule]) -> None:
        """Who was in the pinned version only, no longer counts."""
        t = Treasury()
        made = approved(t)
        ((what, who),) = change.items()
        version: RosterVersion = replace(
            world().deployment.successor(),
            **{what: tuple(row for row in getattr(world().deployment.version, what) if row.id != who)},
        )
        newest = Roster(Signed(version, ()), world().domain.genesis)
        t.kernel = replace(t.kernel, rosters=(roster(), newest))
        assert withheld(t, made, said=_of_roster(2)) == found

    def test_unknown_pinned_roster(self) -> None:
        """A version that nobody can show is none."""
        t = Treasury()
        made = approved(t)
        newest = Roster(Signed(world().deployment.successor(), ()), world().domain.genesis)
        t.kernel = replace(t.kernel, rosters=(newest,))
        assert Rule.ROSTER_OLDER in withheld(t, made)

    def test_floor(self) -> None:
        """A seat's floor asks for more people than policy does."""
        t = Treasury()
        made = approved(t, proposal(amount=101 * ONE))
        assert withheld(t, made) == {Rule.QUORUM_NOT_REACHED}
        t.approve(made, "cy")
        assert isinstance(t.authorize(made), SigningPermit)


def _of_roster(version: int) -> Any:
    return signed_by(replace(statement().message, roster=version), world().domain, [ed25519("attestor")])


class TestPolicy:
    """Pinned and newest, the stricter of both, with fresh facts."""

    def test_delay(self) -> None:
        """The time-lock passes only with time."""
        t = Treasury(kernel=kernel(answers(Outcome.REQUIRE, Requirement((("operations", 1),), delay=3600))))
        made = t.approve(t.propose(), "ana")
        t.now = NOW + 3599
        assert withheld(t, made) == {Rule.DELAY}
        assert (t.get(made).status, t.get(made).sub_status) == (Status.QUEUED, SubStatus.PENDING_TIME_LOCK)
        t.now = NOW + 3600
        assert isinstance(t.authorize(made), SigningPermit)

    @pytest.mark.parametrize(
        ("newer", "found"),
        [
            pytest.param(answers(Outcome.AUTOMATIC, bundle=NEWER), None, id="newer is looser: what was asked still is"),
            pytest.param(answers(Outcome.DENY, bundle=NEWER), {Rule.POLICY_DENIES}, id="newer denies"),
            pytest.param(
                answers(Outcome.REQUIRE, Requirement((("treasury", 1), ("risk", 2))), NEWER),
                {Rule.QUORUM_NOT_REACHED},
                id="newer asks more",
            ),
        ],
    )
    def test_stricter_of_both(self, newer: FakePolicy, found: set[Rule] | None) -> None:
        """Neither bundle loosens what the other asks."""
        t = Treasury()
        made = t.approve(t.propose(), "ana", "bo")
        t.kernel = replace(t.kernel, policies=with_pinned(bundle(newer), bundle(answers(Outcome.REQUIRE))))
        if found is None:
            assert isinstance(t.authorize(made), SigningPermit)
        else:
            assert withheld(t, made) == found

    def test_unknown_pinned_policy(self) -> None:
        """A bundle that nobody can show permits nothing."""
        t = Treasury()
        made = approved(t)
        t.kernel = replace(t.kernel, policies=kernel(answers(Outcome.REQUIRE, bundle=NEWER)).policies)
        assert Rule.POLICY_OLDER in withheld(t, made)

    def test_fresh_facts_count_it_once(self) -> None:
        """Its own row is not counted a second time; what came after it is."""
        asked: list[Facts] = []
        answer = answers(Outcome.REQUIRE)
        t = Treasury(kernel=kernel(FakePolicy(lambda f: asked.append(f) or answer.evaluate(f))))
        made = approved(t)
        approved(t, number=2)
        t.now = NOW + 60
        t.authorize(made)
        usd = 2000 * 10**6
        assert [f.customer_24h for f in asked[:3]] == [usd, 2 * usd, 2 * usd]

    def test_denied_may_pass_later(self) -> None:
        """Blocked by policy it says so, and is judged again."""
        t = Treasury()
        made = approved(t)
        good = t.kernel
        t.kernel = replace(good, policies=kernel(answers(Outcome.DENY)).policies)
        assert withheld(t, made) == {Rule.POLICY_DENIES}
        assert (t.get(made).status, t.get(made).sub_status) == (Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY)
        t.kernel = good
        assert isinstance(t.authorize(made), SigningPermit)

    def test_denied_at_once_never(self) -> None:
        """What held nothing is never signed for."""
        t = Treasury(kernel=kernel(answers(Outcome.DENY)))
        made = t.propose()
        t.kernel = kernel()
        assert Rule.ILLEGAL_MOVE in withheld(t, made)


class TestCoverage:
    """Law 2 by the newest statement."""

    @pytest.mark.parametrize(
        ("said", "found"),
        [
            pytest.param(statement(reserves=10**20, on_chain=10**20), None, id="covered to the unit"),
            pytest.param(statement(reserves=10**20 - 1), {Rule.COVERAGE}, id="one unit short"),
            pytest.param(statement(in_flight=10**30), {Rule.COVERAGE}, id="all in flight"),
            pytest.param(statement(time=NOW - 601), {Rule.STALE}, id="stale"),
            pytest.param(statement(time=NOW + 30), None, id="a clock a little ahead"),
            pytest.param(statement(time=NOW + 31), {Rule.STALE}, id="from the future"),
            pytest.param(statement(attestor="backend"), {Rule.SIGNATURE_INVALID}, id="not the attestor's"),
            pytest.param(statement(policy=NEWER), {Rule.POLICY_OLDER}, id="of another policy"),
        ],
    )
    def test_statement(self, said: Any, found: set[Rule] | None) -> None:
        """Unknown means no."""
        t = Treasury()
        made = approved(t)
        if found is None:
            assert isinstance(t.authorize(made, said=said), SigningPermit)
            return
        assert withheld(t, made, said=said) == found
        if found & {Rule.COVERAGE, Rule.STALE}:
            assert (t.get(made).status, t.get(made).sub_status) == (Status.BLOCKED, SubStatus.BLOCKED_BY_COVERAGE)

    def test_asset_without_a_row(self) -> None:
        """An asset that the statement does not know is not covered."""
        t = Treasury()
        said = statement()
        short = replace(said.message, coverage=tuple(r for r in said.message.coverage if r.asset != "ETH"))
        assert withheld(t, approved(t), said=signed_by(short, world().domain, [ed25519("attestor")])) == {
            Rule.COVERAGE_UNKNOWN
        }

    def test_fees_reduce_coverage(self) -> None:
        """Fees leave for the company: their surplus has to be there, pending permits counted."""
        t = Treasury()
        first, second = (
            approved(t, inside(Tier.OPERATIONAL, purpose="fee_sweep"), "finance", number=n) for n in (1, 2)
        )
        said = statement(reserves=10**20 + ONE)
        assert isinstance(t.authorize(first, said=said), SigningPermit)
        found = t.authorize(second, said=said)
        assert isinstance(found, Withheld)
        assert {r.rule for r in found.refusals[second.digest]} == {Rule.COVERAGE}

    @pytest.mark.parametrize(
        ("message", "by"),
        [
            pytest.param(inside(Tier.CUSTOMER_COLD), "desk", id="between customer tiers"),
            pytest.param(inside(Tier.CUSTOMER_HOT, purpose="make_whole"), "finance", id="make whole"),
        ],
    )
    def test_passes_in_a_shortfall(self, message: Any, by: str) -> None:
        """What is no payment out of customer tiers is not bound by it."""
        t = Treasury()
        assert isinstance(t.authorize(approved(t, message, by), said=statement(reserves=0)), SigningPermit)

    @pytest.mark.parametrize(
        ("surplus", "signed"),
        [
            pytest.param(20_000, True, id="exactly its fee"),
            pytest.param(19_999, False, id="one unit less"),
            pytest.param(-1, False, id="a shortfall"),
        ],
    )
    def test_a_bitcoin_moves_fee(self, surplus: int, signed: bool) -> None:
        """Between customers' wallets the miner's fee leaves: the company's funds there cover it, or nothing is signed."""
        t = Treasury()
        move = approved(t, inside(Tier.CUSTOMER_COLD, BITCOIN, amount=10**7), "desk")
        found = t.authorize(move, said=statement(reserves=10**20 + surplus))
        assert isinstance(found, SigningPermit) is signed
        if isinstance(found, Withheld):
            assert {r.rule for r in found.refusals[move.digest]} == {Rule.COVERAGE}
            assert t.get(move).sub_status is SubStatus.BLOCKED_BY_COVERAGE

    def test_a_permitted_moves_fee_is_taken(self) -> None:
        """Two moves cannot spend one surplus: a permit that no statement knows of counts its fee."""
        t = Treasury()
        first, second = (
            approved(t, inside(Tier.CUSTOMER_COLD, BITCOIN, amount=10**7), "desk", number=n) for n in (1, 2)
        )
        said = statement(reserves=10**20 + 20_000)
        assert isinstance(t.authorize(first, said=said), SigningPermit)
        assert isinstance(t.authorize(second, said=said), Withheld)

    def test_coins(self) -> None:
        """What the wallet does not hold waits for a refill; permitted ones are taken off."""
        t = Treasury()
        first = t.approve(approved(t, proposal(amount=60 * ONE)), "cy")
        second = t.approve(approved(t, proposal(amount=60 * ONE), number=2), "cy")
        both = t.authorize(first, second)
        assert isinstance(both, Withheld)
        assert {r.rule for rs in both.refusals.values() for r in rs} == {Rule.INSUFFICIENT_BALANCE}
        assert isinstance(t.authorize(first), SigningPermit)
        later = t.authorize(second)
        assert isinstance(later, Withheld)
        assert t.get(second).status is Status.QUEUED


class TestRows:
    """A row changed in the database authorises nothing."""

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            pytest.param({"amount": 50 * ONE}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH, Rule.HOLD}, id="amount"),
            pytest.param(
                {"destination": STRANGER}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH, Rule.HOLD}, id="destination"
            ),
            pytest.param(
                {"account": "customer:bo"}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH, Rule.HOLD}, id="account"
            ),
            pytest.param({"initiator": "ana"}, {Rule.WRONG_DIGEST, Rule.SIGNER_UNKNOWN, Rule.HOLD}, id="initiator"),
            pytest.param({"expiry": NOW + 10**8}, {Rule.WRONG_DIGEST, Rule.PROPOSAL_MISMATCH, Rule.HOLD}, id="expiry"),
            pytest.param({"certificate": b"\1" * 32}, {Rule.WRONG_DIGEST, Rule.CERTIFICATE_OLDER}, id="certificate"),
            pytest.param({"token": STRANGER, "decimals": 6}, {Rule.WRONG_DIGEST, Rule.TOKEN_MISMATCH}, id="token"),
            pytest.param({"maximum_fee": 10**17}, {Rule.WRONG_DIGEST, Rule.HOLD, Rule.MAXIMUM_FEE}, id="maximum fee"),
        ],
    )
    def test_intent(self, change: dict[str, Any], found: set[Rule]) -> None:
        """The digest is computed from the fields, and approvals are to another one."""
        t = Treasury()
        made = approved(t)
        tampered(t, t.get(made), intent=replace(made.intent, **change))
        assert withheld(t, made) >= found

    @pytest.mark.parametrize("hold", [None, 1, 999], ids=["none", "somebody's deposit", "a row that is not there"])
    def test_hold(self, hold: int | None) -> None:
        """The hold is the journal's entry for exactly this intent."""
        t = Treasury()
        made = approved(t)
        tampered(t, t.get(made), hold=hold)
        assert Rule.HOLD in withheld(t, made)

    def test_no_proposal(self) -> None:
        """A forged automatic payout: no initiator's signature, no permit."""
        t = Treasury(kernel=kernel(answers(Outcome.AUTOMATIC)))
        made = t.propose()
        tampered(t, made, proposal=replace(made.proposal, signatures=()))
        assert withheld(t, made) >= {Rule.SIGNER_UNKNOWN, Rule.HOLD}

    def test_enrolment_gone(self) -> None:
        """The very enrolment that the intent names has to be in force."""
        t = Treasury()
        made = approved(t)
        t.store._state.rows.enrolments.clear()  # type: ignore[attr-defined]
        assert Rule.ENROLMENT in withheld(t, made)

    def test_status_alone(self) -> None:
        """A status set by hand asks nobody."""
        t = Treasury()
        made = t.propose()
        tampered(t, made, status=Status.QUEUED, waiting_for="signatures")
        assert withheld(t, made) == {Rule.QUORUM_NOT_REACHED}

    def test_decision_alone(self) -> None:
        """Nor does a decision: policy is asked again."""
        t = Treasury()
        made = t.propose()
        easy = Decision(Outcome.AUTOMATIC, Requirement((("operations", 1),)), (), (), (), (), (BUNDLE,))
        tampered(t, made, decision=easy.to_json())
        assert withheld(t, made) == {Rule.QUORUM_NOT_REACHED}


class TestTime:
    """Not yet, no longer, not while frozen."""

    def test_fee_above_maximum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An intent whole in itself that lets the network take more than this deployment allows; without the control it passes."""
        t = Treasury(kernel=kernel(maximum_fee={BITCOIN: 20_001}))
        made = approved(t, proposal(chain=BITCOIN.name, asset="BTC", amount=10**7, destination=PAYEE[BITCOIN.name]))
        t.kernel = kernel()
        assert withheld(t, made) == {Rule.MAXIMUM_FEE}
        monkeypatch.setattr(authorization, "check_fee", lambda *_: ())
        assert isinstance(t.authorize(made), SigningPermit)

    def test_expired(self) -> None:
        """Not at its expiry."""
        t = Treasury()
        made = approved(t)
        t.now = made.intent.expiry
        assert Rule.EXPIRED in withheld(t, made)

    def test_not_yet(self) -> None:
        """A clock that ran back permits nothing."""
        t = Treasury()
        made = approved(t)
        t.now = NOW - 1
        assert Rule.TOO_EARLY in withheld(t, made)

    @pytest.mark.parametrize("scope", ["all", "customer:ada", f"chain:{EVM.name}"])
    def test_frozen(self, scope: str) -> None:
        """A freeze in force stops it, and lapses."""
        t = Treasury()
        made = approved(t)
        t.kernel = replace(t.kernel, freezes=(Freeze(scope, "something is wrong", NOW, NOW + 10),))
        assert withheld(t, made) == {Rule.FROZEN}
        assert t.get(made).sub_status is SubStatus.FROZEN
        t.now = NOW + 10
        assert isinstance(t.authorize(made), SigningPermit)

    def test_other_scopes_pass(self) -> None:
        """Somebody else's freeze is not ours."""
        t = Treasury(kernel=kernel(freezes=(Freeze("customer:bo", "x", NOW, NOW + 10),)))
        assert isinstance(t.authorize(approved(t)), SigningPermit)


class AskingAnchors(FakeAnchors):
    """Asks which of three coins the ledger has credited, before it reserves one."""

    told: Collection[str] = ()

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """See `Anchors`."""
        self.told = credited([f"{name * 32}:0" for name in ("aa", "bb", "cc")])
        return super().next_anchor(wallet, certificate, payments, taken, credited)


class TestAnchors:
    """One anchor per payout."""

    def test_the_chains_side_is_told_what_is_credited(self) -> None:
        """A coin that was only seen, or that nobody watches, is none to pay with: the books could not explain where it went."""
        anchors = AskingAnchors()
        t = Treasury(anchors=anchors)
        to = PAYEE[BITCOIN.name]

        def arrive(work: UnitOfWork) -> None:
            for number, name in enumerate(("aa", "bb")):
                proof = BitcoinProof(BITCOIN.name, 5 + number, bytes(32), bytes.fromhex(name * 32), 0, to, 9)
                sighting = Sighting(Amount(BTC, 9), Address(BITCOIN, to), proof)
                work.deposits.record(sighting)
                if name == "aa":
                    work.deposits.move(sighting.identity, DepositStatus.CREDITED, 1)

        t.store.run(arrive)
        message = replace(proposal(), chain=BITCOIN.name, asset="BTC", amount=1_000_000, destination=to)
        assert isinstance(t.authorize(approved(t, message)), SigningPermit)
        assert set(anchors.told) == {"aa" * 32 + ":0"}

    def test_an_anchor_twice(self) -> None:
        """Whoever comes second with an anchor is refused, and nothing of it remains."""
        t = Treasury(anchors=FakeAnchors(fixed="7"))
        first, second = approved(t), approved(t, number=2)
        t.authorize(first)
        with pytest.raises(Refused) as caught:
            t.authorize(second)
        assert Rule.ANCHOR_BOUND in {r.rule for r in caught.value.refusals}
        assert t.get(second).status is Status.QUEUED

    @pytest.mark.parametrize(
        ("pick", "rule"),
        [
            pytest.param(lambda a, b, c: [a, c], Rule.INTENT_BOUND, id="one that another payout carries"),
            pytest.param(lambda a, b, c: [a], Rule.INTENT_BOUND, id="part of a payout"),
            pytest.param(lambda a, b, c: [c, c], Rule.MALFORMED, id="one twice"),
            pytest.param(lambda a, b, c: [], Rule.MALFORMED, id="none"),
        ],
    )
    def test_intents_once(self, pick: Callable[..., list[Transfer]], rule: Rule) -> None:
        """An intent is carried by one payout for ever."""
        t = Treasury()
        a, b, c = (approved(t, number=n) for n in (1, 2, 3))
        t.authorize(a, b)
        with pytest.raises(Refused) as caught:
            t.authorize(*pick(a, b, c))
        assert {r.rule for r in caught.value.refusals} == {rule}

    def test_two_wallets(self) -> None:
        """An anchor belongs to one wallet."""
        t = Treasury()
        moves = [approved(t), approved(t, inside(Tier.CUSTOMER_HOT, purpose="make_whole"), "finance", 2)]
        with pytest.raises(Refused) as caught:
            t.authorize(*moves)
        assert {r.rule for r in caught.value.refusals} == {Rule.WRONG_WALLET}

    def test_one_bad_holds_back_all(self) -> None:
        """A batch is permitted whole or not at all; only the bad one is said to be."""
        t = Treasury()
        good, bad = approved(t), t.propose(proposal(2), key="k2", number=2)
        found = t.authorize(good, bad)
        assert isinstance(found, Withheld)
        assert set(found.refusals) == {bad.digest}
        assert t.get(good).status is Status.QUEUED

    def test_nothing_ends_it_afterwards(self) -> None:
        """Once a first signature may have been asked for: no cancelling, no rejecting, no expiry."""
        t = Treasury()
        made = approved(t)
        t.authorize(made)
        for act, by in ((proposals.cancel, "backend"), (proposals.reject, "bo")):
            with pytest.raises(Refused) as caught:
                act(t.store, t.kernel, no(made, by), NOW)
            assert {r.rule for r in caught.value.refusals} == {Rule.SIGNATURE_ASKED}
        assert proposals.expire(t.store, t.kernel, made.intent.expiry + DAY) == []
        assert t.balance(HELD) == ONE

    @pytest.mark.parametrize("after", [False, True], ids=["commit lost", "answer lost"])
    def test_dies_at_its_commit(self, after: bool) -> None:
        """Killed at the one commit, it is asked again: one permit, whatever was recorded."""
        t = Treasury(store=FakeStore())
        made, plain = approved(t), t.store
        t.store = DyingStore(plain, 1, after=after)
        with pytest.raises(DyingStore.Died):
            t.authorize(made)
        t.store = plain
        permit = t.authorize(made)
        assert isinstance(permit, SigningPermit)
        assert t.store.read(lambda w: w.transfers.permitted()) == [permit.permit]
        assert permit.permit.reservation.anchor.reference == "7"

    def test_moves_follow(self) -> None:
        """What was permitted moves on by the table alone."""
        t = Treasury()
        made = approved(t)
        t.authorize(made)
        with pytest.raises(Refused):
            move(t.get(made), Status.COMPLETED, NOW)
