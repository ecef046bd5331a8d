# SPDX-License-Identifier: AGPL-3.0-or-later
"""Steps 1 to 3: propose with a hold and idempotency, approve, reject, cancel, expire; by rule, refusals beside acceptances."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from custody.flows import proposals
from custody.flows.ports import Branch, Store
from custody.flows.verification import AuditState, audit_journal, compare_totals
from custody.rules import holds
from custody.rules.approvals import Approval
from custody.rules.deposits import BlockRef
from custody.rules.errors import Unavailable
from custody.rules.facts import Facts
from custody.rules.intents import Anchor
from custody.rules.ledger import JournalEntry, JournalHead
from custody.rules.origins import Executed, Hold, Release
from custody.rules.parties import Parties
from custody.rules.provenance import Authorities
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.requirement import Outcome, Requirement
from custody.rules.signatures import Signed
from custody.rules.transfers import MOVES, Status, SubStatus, Transfer
from custody.rules.wallets import Tier
from custody.store import migrate, open_store
from tests.fakes.house import DyingStore
from tests.fakes.seat import BITCOIN, EVM, NOW, YEAR, ed25519, secp256k1
from tests.fakes.store import FakeStore
from tests.fakes.treasury import (
    AVAILABLE,
    DAY,
    DERIVE,
    FEES,
    HELD,
    FakePrices,
    Treasury,
    approval,
    enrolment,
    inside,
    inventory,
    kernel,
    no,
    proposal,
    roster,
    signed,
)
from tests.fakes.trust import ASSETS, BTC, ETH, PAYEE, STRANGER, FakePolicy, answers, internal_address, world

ONE = 10**18
AUTOMATIC = answers(Outcome.AUTOMATIC)


def rules(act: Callable[[], object]) -> set[Rule]:
    """The rules by which something is refused."""
    with pytest.raises(Refused) as caught:
        act()
    return {found.rule for found in caught.value.refusals}


def watched(asked: list[Facts], outcome: Outcome = Outcome.REQUIRE) -> FakePolicy:
    """A policy that writes down what it is asked."""
    answer = answers(outcome)
    return FakePolicy(lambda facts: asked.append(facts) or answer.evaluate(facts))


class TestPropose:
    """What is asked for becomes one intent, held for at once."""

    def test_accepted(self) -> None:
        """The intent pins everything; the balance is held; the transfer says whom it waits for."""
        t = Treasury()
        made = t.propose()
        intent, certificate = made.intent, world().certificate(Tier.CUSTOMER_HOT, EVM)
        assert (intent.account, intent.amount, intent.destination) == ("customer:ada", ONE, PAYEE[EVM.name])
        assert (intent.wallet, intent.certificate) == (certificate.struct_hash, certificate.struct_hash)
        assert (intent.initiator, intent.roster, intent.policy) == ("backend", 1, t.kernel.policies.newest.hash)
        assert (intent.maximum_fee, intent.enrolment) == (0, enrolment().message.struct_hash)
        assert made.digest == world().domain.digest(intent)
        assert (made.status, made.waiting_for) == (Status.PENDING_AUTHORIZATION, "1 of operations, 1 of risk")
        assert made.usd == 2000 * 10**6
        assert (t.balance(AVAILABLE), t.balance(HELD)) == (147 * ONE - ONE, ONE)
        history = t.store.read(lambda w: w.transfers.history(made.digest))
        assert [m.status for m in history] == [Status.SUBMITTED, Status.PENDING_AUTHORIZATION]

    @pytest.mark.parametrize(
        ("policy", "status", "sub", "held"),
        [
            pytest.param(answers(Outcome.REQUIRE), Status.PENDING_AUTHORIZATION, None, ONE, id="people"),
            pytest.param(AUTOMATIC, Status.QUEUED, None, ONE, id="automatic"),
            pytest.param(
                answers(Outcome.DENY), Status.BLOCKED, SubStatus.BLOCKED_BY_POLICY, 0, id="denied holds nothing"
            ),
        ],
    )
    def test_policy(self, policy: FakePolicy, status: Status, sub: SubStatus | None, held: int) -> None:
        """Policy's answer places it."""
        t = Treasury(kernel=kernel(policy))
        made = t.propose()
        assert (made.status, made.sub_status, made.live, t.balance(HELD)) == (status, sub, held > 0, held)

    @pytest.mark.parametrize(
        ("message", "by", "outcome"),
        [
            pytest.param(proposal(amount=6 * ONE), "backend", Status.PENDING_AUTHORIZATION, id="above automatic_most"),
            pytest.param(proposal(amount=11 * ONE), "backend", Status.PENDING_AUTHORIZATION, id="above the floor"),
            pytest.param(inside(Tier.CUSTOMER_HOT), "desk", Status.PENDING_AUTHORIZATION, id="never out of cold"),
        ],
    )
    def test_automatic_only_within_floors(self, message: Any, by: str, outcome: Status) -> None:
        """What policy lets go by itself still asks for people where a seat will."""
        assert Treasury(kernel=kernel(AUTOMATIC)).propose(message, by).status is outcome

    @pytest.mark.parametrize(
        ("message", "rule"),
        [
            pytest.param(proposal(expiry=NOW), Rule.EXPIRED, id="expired"),
            pytest.param(proposal(amount=999), Rule.DUST, id="dust"),
            pytest.param(proposal(amount=0), Rule.NOT_POSITIVE, id="nothing"),
            pytest.param(proposal(amount=2**255), Rule.TOO_LARGE, id="a value that is nonsense"),
            pytest.param(proposal(asset="DOGE"), Rule.UNKNOWN_ASSET, id="unknown asset"),
            pytest.param(proposal(asset="BTC"), Rule.WRONG_NETWORK, id="asset of another chain"),
            pytest.param(proposal(chain="eip155:0"), Rule.UNKNOWN_CHAIN, id="unknown chain"),
            pytest.param(proposal(account="customer:eve"), Rule.UNKNOWN_CUSTOMER, id="unknown customer"),
            pytest.param(proposal(account=""), Rule.UNKNOWN_CUSTOMER, id="an empty account"),
            pytest.param(proposal(purpose="gift"), Rule.MALFORMED, id="unknown purpose"),
            pytest.param(proposal(destination=STRANGER), Rule.ENROLMENT, id="unenrolled"),
            pytest.param(proposal(destination=PAYEE[EVM.name].lower()), Rule.WRONG_CHECKSUM, id="checksum"),
            pytest.param(
                proposal(destination=internal_address(Tier.CUSTOMER_HOT, EVM)), Rule.OWN_ADDRESS, id="own address"
            ),
            pytest.param(
                proposal(destination=internal_address(Tier.OPERATIONAL, EVM)), Rule.OWN_ADDRESS, id="to the company"
            ),
            pytest.param(inside(Tier.OPERATIONAL), Rule.WALL, id="customer coins to operational, by another name"),
            pytest.param(
                inside(Tier.OPERATIONAL, account="customer:ada", purpose="fee_sweep"),
                Rule.WALL,
                id="a customer pays fees",
            ),
            pytest.param(proposal(account="customer:bo"), Rule.OWNER_MISMATCH, id="another customer's address"),
            pytest.param(proposal(account="company"), Rule.WALL, id="the company withdraws"),
            pytest.param(proposal(amount=148 * ONE), Rule.INSUFFICIENT_BALANCE, id="more than there is"),
            pytest.param(
                inside(Tier.OPERATIONAL, purpose="fee_sweep", amount=3 * ONE + 1),
                Rule.INSUFFICIENT_BALANCE,
                id="more fees than accrued",
            ),
        ],
    )
    def test_refused(self, message: Any, rule: Rule) -> None:
        """Each refusal names its rule, and nothing is recorded."""
        t = Treasury()
        assert rule in rules(lambda: t.propose(message))
        assert t.store.read(lambda w: (w.transfers.examine(), w.journal.balance(HELD, ETH))) == ([], 0)

    @pytest.mark.parametrize(
        ("sign", "rule"),
        [
            pytest.param(lambda m: signed(m, "settler"), Rule.SCOPE_MISSING, id="a key of the wrong scope"),
            pytest.param(lambda m: signed(m, "nobody"), Rule.SIGNER_UNKNOWN, id="a key of nobody"),
            pytest.param(lambda m: signed(m, "authority"), Rule.AUTHORITY_PROPOSES, id="an address authority"),
            pytest.param(lambda m: Signed(m, ()), Rule.SIGNER_UNKNOWN, id="unsigned"),
            pytest.param(
                lambda m: Signed(m, signed(replace(m, amount=1)).signatures),
                Rule.SIGNATURE_INVALID,
                id="over another amount",
            ),
            pytest.param(
                lambda m: Signed(m, (ed25519("backend").sign(m.struct_hash),)),
                Rule.SIGNATURE_INVALID,
                id="another deployment's",
            ),
        ],
    )
    def test_initiator(self, sign: Callable[[Any], Signed[Any]], rule: Rule) -> None:
        """Only a roster entry that may propose does."""
        t = Treasury()
        propose = lambda: proposals.propose(t.store, t.kernel, sign(proposal()), "k", NOW, bytes(10))  # noqa: E731
        assert rules(propose) == {rule}

    def test_expired_key(self) -> None:
        """A key whose term is over proposes nothing."""
        late = proposal(expiry=NOW + 3 * YEAR)
        t = Treasury(now=NOW + 2 * YEAR)
        assert rules(lambda: t.propose(late)) == {Rule.SIGNER_EXPIRED}

    @pytest.mark.parametrize(
        ("changes", "authority", "rules_found"),
        [
            pytest.param({"address": STRANGER}, "authority", None, id="enrolled"),
            pytest.param({"address": STRANGER}, "ana", {Rule.SIGNATURE_INVALID}, id="by somebody who is no authority"),
            pytest.param({"address": STRANGER, "expiry": NOW}, "authority", {Rule.EXPIRED}, id="lapsed"),
            pytest.param(
                {"address": STRANGER, "kind": "allow_listed"}, "authority", {Rule.ENROLMENT}, id="of another kind"
            ),
            pytest.param(
                {"address": STRANGER, "owner": "customer:bo"}, "authority", {Rule.OWNER_MISMATCH}, id="another's"
            ),
        ],
    )
    def test_enrolment(self, changes: dict[str, Any], authority: str, rules_found: set[Rule] | None) -> None:
        """A planted row opens nothing: the authority's signature does."""
        t = Treasury()
        document = enrolment(authority=authority, **changes)
        t.store.run(lambda w: w.enrolments.add(document, NOW - DAY))
        pay = lambda: t.propose(proposal(destination=STRANGER))  # noqa: E731
        if rules_found is None:
            assert pay().intent.enrolment == document.message.struct_hash
        else:
            assert rules(pay) == rules_found

    def test_enrol(self) -> None:
        """Only an authority's signature enrols; the age begins with the first sight."""
        t = Treasury()
        bad, good = (enrolment(authority=by, address=STRANGER) for by in ("ana", "authority"))
        assert rules(lambda: proposals.enrol(t.store, t.kernel, bad, NOW)) == {Rule.SIGNATURE_INVALID}
        proposals.enrol(t.store, t.kernel, good, NOW)
        proposals.enrol(t.store, t.kernel, good, NOW + 5)
        assert [e.seen_at for e in t.store.read(lambda w: w.enrolments.at(EVM.name, STRANGER))] == [NOW]

    def test_a_deposit_address_is_no_destination(self) -> None:
        """Coins of the omnibus that arrive at a receive index would be credited to its customer."""
        certificate = world().certificate(Tier.CUSTOMER_HOT, BITCOIN)
        place = DERIVE.derive(certificate, Branch.RECEIVE, 0).text
        for message in (
            proposal(chain=BITCOIN.name, asset="BTC", amount=10**6, destination=place),
            inside(Tier.CUSTOMER_HOT, BITCOIN, amount=10**6, destination=place),
        ):
            assert Rule.OWN_ADDRESS in rules(lambda m=message: Treasury().propose(m, "desk"))


class TestIdempotency:
    """One key, one body, one transfer."""

    def test_again(self) -> None:
        """The same request gets the same transfer, and holds once."""
        t = Treasury()
        assert t.propose(number=1) == t.propose(number=2)
        assert t.balance(HELD) == ONE

    @pytest.mark.parametrize(
        ("message", "by", "key", "rule"),
        [
            pytest.param(
                proposal(amount=2 * ONE), "backend", "k", Rule.IDEMPOTENCY_MISMATCH, id="the key with another body"
            ),
            pytest.param(proposal(), "backend", "other", Rule.PROPOSAL_BOUND, id="the body under another key"),
            pytest.param(proposal(), "backend", "", Rule.MALFORMED, id="an empty key"),
            pytest.param(proposal(), "backend", "k" * 201, Rule.MALFORMED, id="a key too long"),
        ],
    )
    def test_refused(self, message: Any, by: str, key: str, rule: Rule) -> None:
        """Anything else is refused."""
        t = Treasury()
        t.propose()
        assert rules(lambda: t.propose(message, by, key, 2)) == {rule}
        assert t.balance(HELD) == ONE

    def test_keys_of_others(self) -> None:
        """A key belongs to its initiator."""
        t = Treasury()
        t.propose()
        assert t.propose(proposal(2), "desk", "k", 2).intent.initiator == "desk"

    def test_after_the_end(self) -> None:
        """A repetition after a cancellation tells the cancelled one: it never proposes anew."""
        t = Treasury()
        made = t.propose()
        proposals.cancel(t.store, t.kernel, no(made, "backend"), NOW)
        assert t.propose(number=9).status is Status.CANCELLED


class TestFacts:
    """What policy is told."""

    def facts(self, t: Treasury, *messages: tuple[Any, str]) -> list[Facts]:
        """Of each proposal in turn."""
        asked: list[Facts] = []
        t.kernel = replace(t.kernel, policies=kernel(watched(asked)).policies)
        for number, (message, by) in enumerate(messages, 1):
            t.propose(replace(message, reference=f"order {number}"), by, f"k{number}", number)
        return asked

    def test_windows_count_what_is_pending(self) -> None:
        """Splitting gains nothing."""
        first, second, third = self.facts(
            Treasury(),
            (proposal(), "backend"),
            (proposal(amount=2 * ONE), "desk"),
            (inside(Tier.CUSTOMER_COLD), "desk"),
        )
        usd = 2000 * 10**6
        assert (first.usd, first.customer_24h, first.wallet_1h, first.initiator_24h) == (usd, usd, usd, usd)
        assert (second.usd, second.customer_24h, second.wallet_1h, second.initiator_24h) == (
            2 * usd,
            3 * usd,
            3 * usd,
            2 * usd,
        )
        assert (third.customer_24h, third.wallet_1h, third.initiator_24h) == (usd, 4 * usd, 3 * usd)
        assert (first.role, second.role, third.to_tier) == ("customer", "operator", Tier.CUSTOMER_COLD)

    def test_ages_and_places(self) -> None:
        """An enrolment's age, a wallet's balance afterwards, what is on its way included."""
        first, second = self.facts(Treasury(), (proposal(), "backend"), (inside(Tier.CUSTOMER_COLD), "desk"))
        assert (first.dest_age, first.dest_balance_after, first.enrolled) == (2 * DAY, ONE, True)
        assert (second.dest_age, second.dest_balance_after) == (0, 41 * ONE)
        both = self.facts(Treasury(), (inside(Tier.CUSTOMER_COLD), "desk"), (inside(Tier.CUSTOMER_COLD), "desk"))
        assert [f.dest_balance_after for f in both] == [41 * ONE, 42 * ONE]

    def test_fees(self) -> None:
        """Within what matured and a day's cap, pending ones taken off; fees that did not mature are none."""
        sweep = inside(Tier.OPERATIONAL, purpose="fee_sweep")
        two = self.facts(Treasury(), (replace(sweep, amount=2 * ONE), "finance"), (sweep, "finance"))
        assert [f.within_accrued_fees for f in two] == [True, True]
        late = Treasury(now=NOW - DAY + 3599)
        assert [f.within_accrued_fees for f in self.facts(late, (sweep, "finance"))] == [False]
        capped: list[Facts] = []
        newest = kernel(watched(capped)).policies.newest
        fees = replace(newest.fees, daily_cap={"ETH": 2 * ONE})
        t = Treasury(kernel=kernel(policies=replace(kernel().policies, newest=replace(newest, fees=fees))))
        for number, units in enumerate((2 * ONE, ONE), 1):
            t.propose(replace(sweep, amount=units, reference=str(number)), "finance", f"k{number}", number)
        assert [f.within_accrued_fees for f in capped] == [True, False]

    def test_lists_and_prices(self) -> None:
        """A price that is missing decides nothing; the bundle's lists are asked."""
        payee = frozenset({PAYEE[EVM.name].lower()})
        for parties, told in (
            (Parties(frozenset({"customer:ada"}), frozenset(), payee), (True, True)),
            (Parties(frozenset({"customer:bo"}), payee), (True, False)),
            (Parties(frozenset({"customer:bo"})), (False, False)),
        ):
            asked: list[Facts] = []
            policies = kernel(watched(asked)).policies
            listed = replace(policies, newest=replace(policies.newest, parties=parties))
            Treasury(kernel=kernel(policies=listed)).propose()
            (one,) = asked
            assert (one.related_entity, one.sanctioned) == told
        for prices in (FakePrices({}), FakePrices({"ETH": 0}), FakePrices(down=True)):
            t = Treasury(kernel=kernel(prices=prices))
            with pytest.raises(Unavailable):
                t.propose()
            assert t.balance(HELD) == 0

    def test_value_is_rounded_up(self) -> None:
        """Never down."""
        t = Treasury(kernel=kernel(prices=FakePrices({"ETH": 1})))
        assert t.propose(proposal(amount=10**18 + 1)).usd == 2


class TestDryRun:
    """The decision, and nothing recorded."""

    def test_says_what_would_happen(self) -> None:
        """Decision, intent and shortage, without a trace."""
        t = Treasury(kernel=kernel(answers(Outcome.DENY)))
        draft = proposals.dry_run(t.store, t.kernel, signed(proposal(amount=200 * ONE)), NOW)
        assert (draft.decision.outcome, draft.decision.denied_by) == (Outcome.DENY, ("D01",))
        assert [r.rule for r in draft.short] == [Rule.INSUFFICIENT_BALANCE]
        assert t.store.read(lambda w: w.transfers.examine()) == []


class TestApprove:
    """People, each with a key of their own."""

    def test_two_people(self) -> None:
        """Who is missing is said; when nobody is, it is queued."""
        t = Treasury()
        made = t.propose()
        assert t.approve(made, "ana").waiting_for == "1 of risk"
        after = t.approve(made, "bo")
        assert (after.status, after.waiting_for) == (Status.QUEUED, "signatures")

    def test_delay(self) -> None:
        """The time-lock counts from the proposal."""
        policy = answers(Outcome.REQUIRE, Requirement((("operations", 1),), delay=3600))
        t = Treasury(kernel=kernel(policy))
        after = t.approve(t.propose(), "ana")
        assert (after.status, after.sub_status) == (Status.QUEUED, SubStatus.PENDING_TIME_LOCK)

    def test_the_same_again(self) -> None:
        """A repeated approval changes nothing."""
        t = Treasury()
        made = t.propose()
        assert t.approve(made, "ana") == t.approve(made, "ana")
        assert len(t.store.read(lambda w: w.transfers.approvals(made.digest))) == 1

    @pytest.mark.parametrize(
        ("make", "found"),
        [
            pytest.param(lambda m: approval(m, "mallory"), {Rule.SIGNER_UNKNOWN}, id="a stranger"),
            pytest.param(lambda m: approval(m, "bo", key="ana"), {Rule.SIGNER_UNKNOWN}, id="in another's name"),
            pytest.param(
                lambda m: approval(m, "bo", over=replace(m.intent, amount=1)),
                {Rule.SIGNATURE_INVALID},
                id="another amount",
            ),
            pytest.param(
                lambda m: approval(m, "bo", over=m.proposal.message), {Rule.SIGNATURE_INVALID}, id="the proposal"
            ),
            pytest.param(
                lambda m: approval(m, "bo", over=no(m, "bo").message), {Rule.SIGNATURE_INVALID}, id="a rejection"
            ),
            pytest.param(
                lambda m: Approval(b"\0" * 32, "bo", secp256k1("bo").sign(b"\0" * 32)),
                {Rule.UNKNOWN_TRANSFER},
                id="nothing",
            ),
        ],
    )
    def test_refused(self, make: Callable[[Transfer], Approval], found: set[Rule]) -> None:
        """Exactly these bytes, by exactly this person."""
        t = Treasury()
        made = t.propose()
        assert rules(lambda: proposals.approve(t.store, t.kernel, make(made), NOW)) == found
        assert t.store.read(lambda w: w.transfers.approvals(made.digest)) == []

    def test_initiator(self) -> None:
        """The initiator never counts."""
        t = Treasury()
        made = t.propose(by="dee")
        assert rules(lambda: t.approve(made, "dee")) == {Rule.INITIATOR_APPROVES}

    def test_too_late(self) -> None:
        """Not after the expiry, not after the end."""
        t = Treasury()
        made = t.propose()
        t.now = made.intent.expiry
        assert rules(lambda: t.approve(made, "ana")) == {Rule.EXPIRED}
        t.now = NOW
        proposals.reject(t.store, t.kernel, no(made, "bo"), NOW)
        assert rules(lambda: t.approve(made, "ana")) == {Rule.ILLEGAL_MOVE}


class TestEnds:
    """Reject, cancel, expire: each frees the hold once."""

    @pytest.mark.parametrize(
        ("act", "by", "status", "sub"),
        [
            pytest.param(proposals.reject, "bo", Status.REJECTED, SubStatus.REJECTED_BY_USER, id="a person rejects"),
            pytest.param(
                proposals.cancel, "backend", Status.CANCELLED, SubStatus.CANCELLED_BY_USER, id="the initiator cancels"
            ),
        ],
    )
    def test_no(self, act: Any, by: str, status: Status, sub: SubStatus) -> None:
        """A signed no ends it; said twice it stays one."""
        t = Treasury()
        made = t.propose()
        after = act(t.store, t.kernel, no(made, by), NOW)
        assert act(t.store, t.kernel, no(made, by), NOW) == after
        assert (after.status, after.sub_status, after.waiting_for) == (status, sub, "")
        assert (t.balance(AVAILABLE), t.balance(HELD)) == (147 * ONE, 0)
        assert audit(t) == []

    @pytest.mark.parametrize(
        ("act", "by", "rule"),
        [
            pytest.param(proposals.cancel, "bo", Rule.SIGNER_UNKNOWN, id="only the initiator cancels"),
            pytest.param(proposals.reject, "backend", Rule.SIGNER_UNKNOWN, id="the initiator does not reject"),
            pytest.param(proposals.cancel, "finance", Rule.SIGNER_UNKNOWN, id="another client does not cancel"),
            pytest.param(proposals.reject, "mallory", Rule.SIGNER_UNKNOWN, id="a stranger rejects nothing"),
        ],
    )
    def test_refused(self, act: Any, by: str, rule: Rule) -> None:
        """Whose no it is, matters."""
        t = Treasury()
        made = t.propose()
        assert rules(lambda: act(t.store, t.kernel, no(made, by), NOW)) == {rule}
        assert t.balance(HELD) == ONE

    def test_expire(self) -> None:
        """What is past its time and was not asked to be signed; once."""
        t = Treasury()
        made, denied = t.propose(), Treasury(kernel=kernel(answers(Outcome.DENY)))
        denied.propose()
        assert proposals.expire(t.store, t.kernel, made.intent.expiry - 1) == []
        assert [e.status for e in proposals.expire(t.store, t.kernel, made.intent.expiry)] == [Status.EXPIRED]
        assert proposals.expire(t.store, t.kernel, made.intent.expiry) == []
        assert [e.status for e in proposals.expire(denied.store, denied.kernel, made.intent.expiry)] == [Status.EXPIRED]
        assert (t.balance(HELD), denied.balance(HELD), audit(t)) == (0, 0, [])

    def test_expire_beyond_what_cannot_end(self) -> None:
        """More than a page of rows that somebody set back, all older: the ones behind them end all the same, in this call."""
        t = Treasury()
        made = [t.propose(proposal(number), key=f"k{number}", number=number) for number in range(1, 7)]
        for each in made[:4]:
            t.authorize(t.approve(each, "ana", "bo"))
            t.store._state.rows.transfers[each.digest] = replace(t.get(each), status=Status.QUEUED)  # type: ignore[attr-defined]
        assert rules(lambda: proposals.expire(t.store, t.kernel, made[0].intent.expiry, 2)) == {Rule.SIGNATURE_ASKED}
        assert [t.get(each).status for each in made] == [Status.QUEUED] * 4 + [Status.EXPIRED] * 2

    @pytest.mark.parametrize("status", [s for s in Status if not s.is_asked and Status.EXPIRED in MOVES[s]])
    @pytest.mark.parametrize(
        "end",
        [
            pytest.param(lambda t, made: proposals.cancel(t.store, t.kernel, no(made, "backend"), NOW), id="cancel"),
            pytest.param(lambda t, made: proposals.reject(t.store, t.kernel, no(made, "bo"), NOW), id="reject"),
            pytest.param(lambda t, made: proposals.expire(t.store, t.kernel, made.intent.expiry), id="expire"),
        ],
    )
    def test_nothing_ends_beside_its_permit(self, end: Callable[[Treasury, Transfer], Any], status: Status) -> None:
        """Whatever its row says: somebody set it back to where nobody had been asked to sign. Another one ends all the same."""
        t = Treasury()
        made, other = t.propose(), t.propose(proposal(2), key="k2", number=2)
        t.authorize(t.approve(made, "ana", "bo"))
        permitted = t.get(made)
        assert permitted.status is Status.PENDING_SIGNATURE
        t.store._state.rows.transfers[made.digest] = replace(permitted, status=status)  # type: ignore[attr-defined]
        assert rules(lambda: end(t, made)) == {Rule.SIGNATURE_ASKED}
        assert (t.get(made).status, t.balance(HELD) >= ONE) == (status, True)
        assert t.store.read(lambda w: w.transfers.rejections(made.digest)) == []
        with suppress(Refused):  # those that expire are ended together, and told together
            end(t, other)
        assert t.get(other).status.is_final

    def test_released_fees_ripen_anew(self) -> None:
        """What a cancelled fee sweep gives back is accrued fees again."""
        t = Treasury()
        made = t.propose(inside(Tier.OPERATIONAL, purpose="fee_sweep"), "finance")
        assert t.balance(FEES) == 2 * ONE
        proposals.cancel(t.store, t.kernel, no(made, "finance"), NOW)
        assert t.balance(FEES) == 3 * ONE
        assert t.store.read(lambda w: w.journal.matured_fees(ETH, NOW)) == 3 * ONE


def audit(t: Treasury) -> list[str]:
    """What an audit says of transfers' entries; the deposits of these tests have no chain behind them."""
    found = Authorities(ASSETS, (roster(),), {}, inventory().holding_of, inventory().tiers)

    def work(work: Any) -> list[str]:
        state = AuditState()
        findings = [*audit_journal(work, state, found, {}), *compare_totals(work, state, ASSETS)]
        # The seven first entries furnish the store, and nobody here is asked about chains.
        return [str(f) for f in findings if f.position is None or f.position > 7]

    return t.store.read(work)


class TestStores:
    """Many at once, and deaths at every commit."""

    def test_a_thousand_at_once(self, tmp_path: Path) -> None:
        """1,000 parallel proposals of one balance: exactly one hold for each unit, never negative."""
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        migrate(url)
        store = open_store(url, ASSETS)
        t = Treasury(store=store)
        each = 3 * ONE
        asked = [signed(proposal(n, amount=each)) for n in range(1000)]

        def one(number: int) -> set[Rule]:
            try:
                proposals.propose(store, t.kernel, asked[number], f"k{number}", NOW, number.to_bytes(10))
            except Refused as refused:
                return {r.rule for r in refused.refusals}
            return set()

        with ThreadPoolExecutor(16) as pool:
            answers_given = list(pool.map(one, range(1000)))
        accepted = answers_given.count(set())
        assert answers_given.count({Rule.INSUFFICIENT_BALANCE}) == 1000 - accepted
        assert (accepted, t.balance(AVAILABLE), t.balance(HELD)) == (49, 0, 147 * ONE)
        recorded = t.store.read(lambda w: w.transfers.examine(limit=2000))
        assert len({transfer.hold for _, transfer in recorded}) == len(recorded) == 49
        assert audit(t) == []
        store.close()

    @pytest.mark.parametrize("after", [False, True], ids=["commit lost", "answer lost"])
    def test_dies_at_each_commit(self, after: bool) -> None:
        """Whatever commit the process dies at, the same calls again end the same."""
        for commit in (1, 2, 3):
            plain = FakeStore()
            t = Treasury(store=plain)
            dying = DyingStore(plain, commit, after=after)

            def life(store: Store, t: Treasury = t) -> Transfer:
                t.store = store
                made = t.propose()
                t.approve(made, "ana")
                return proposals.cancel(t.store, t.kernel, no(made, "backend"), NOW)

            with pytest.raises(DyingStore.Died):
                life(dying)
            t.store = plain
            made = t.propose()
            if made.status is not Status.CANCELLED:
                t.approve(made, "ana")
            ended = proposals.cancel(t.store, t.kernel, no(made, "backend"), NOW)
            assert (ended.status, t.balance(AVAILABLE), t.balance(HELD)) == (Status.CANCELLED, 147 * ONE, 0)
            assert t.balance(AVAILABLE, BTC) == 10 * 10**8 - 10**6
            assert audit(t) == []


class _Node:
    """A view that knows one final height and answers about payouts."""

    def __init__(self, height: int = 99, answer: Refusal | None = None) -> None:
        self.height, self.answer, self.asked = height, answer, list[Any]()

    def final(self) -> BlockRef:
        """See `ChainView`."""
        return BlockRef(EVM, self.height, b"\0" * 32, b"\0" * 32, NOW)

    def confirm(self, proof: Any) -> None:
        """See `ChainView`."""

    def confirm_executed(self, done: Executed, intents: Any, holding_of: Any) -> Refusal | None:
        """See `PayoutReader`."""
        self.asked.append((done, tuple(intents)))
        return self.answer


class TestAudit:
    """The journal's own word on transfers: each hold signed, each ended once, each payout asked of the chain."""

    def paid(self, t: Treasury, made: Transfer, **changes: Any) -> Executed:
        """A final payout, booked."""
        anchor = Anchor(EVM.name, made.intent.wallet, "7")
        done = Executed(EVM.name, 9, b"\1" * 32, b"\2" * 32, anchor, (made.digest,), (), 0, void=False)
        done = replace(done, **changes)
        entry = holds.pay(done, [made.intent], Tier.CUSTOMER_HOT, ASSETS)
        assert entry is not None
        t.store.run(lambda w: w.journal.append(entry, NOW))
        return done

    def findings(self, t: Treasury, node: Any) -> set[Rule]:
        """Of the entries of transfers."""
        authorities = Authorities(ASSETS, (roster(),), {}, inventory().holding_of, inventory().tiers)
        state = AuditState()
        found = t.store.read(lambda w: audit_journal(w, state, authorities, {EVM: node}))
        return {f.refusal.rule for f in found if f.position is not None and f.position > 7}

    def test_a_payout_is_asked_of_the_chain(self) -> None:
        """With the intents that it paid; a view that cannot tell leaves it unproven."""
        t = Treasury()
        made = t.propose()
        done, node = self.paid(t, made), _Node()
        assert self.findings(t, node) == set()
        assert node.asked == [(done, (made.intent,))]
        assert t.balance(HELD) == 0
        assert self.findings(t, _Node(answer=Refusal(Rule.ORIGIN))) == {Rule.ORIGIN}
        assert self.findings(t, _Node(height=8)) == {Rule.ORIGIN}

    def test_a_void_pays_nobody(self) -> None:
        """Its intents are handed over as none."""
        t = Treasury()
        done, node = self.paid(t, t.propose(), void=True), _Node()
        assert self.findings(t, node) == set()
        assert node.asked == [(done, ())]
        assert t.balance(AVAILABLE) == 147 * ONE

    def test_a_hold_ends_once(self) -> None:
        """Neither paid twice nor released after it was paid: the store refuses, and an audit would find it."""
        t = Treasury()
        made = t.propose()
        t.propose(proposal(2), key="k2", number=2)
        self.paid(t, made)
        rejection = no(made, "bo")
        release = holds.release(
            Release(made.hold or 0, made.digest, (rejection.message,), rejection.signatures), made.intent, ASSETS
        )
        assert release is not None
        assert rules(lambda: t.store.run(lambda w: w.journal.append(release, NOW))) == {Rule.ALREADY_RECORDED}
        entries = t.store._state.entries  # type: ignore[attr-defined]
        entries.append(JournalEntry.append(JournalHead(entries[-1].position, entries[-1].hash), release, NOW))
        assert self.findings(t, _Node()) == {Rule.ORIGIN}

    def test_an_unsigned_hold_is_found(self) -> None:
        """A row that debits a customer without the initiator's signature."""
        t = Treasury()
        made = t.propose(proposal(3))
        forged = holds.hold(Hold(made.proposal.message, (), replace(made.intent, id="another")), ASSETS)
        assert forged is not None
        entries = t.store._state.entries  # type: ignore[attr-defined]
        entries.append(JournalEntry.append(JournalHead(entries[-1].position, entries[-1].hash), forged, NOW))
        assert self.findings(t, _Node()) == {Rule.SIGNER_UNKNOWN}
