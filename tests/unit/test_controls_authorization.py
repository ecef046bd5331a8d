# SPDX-License-Identifier: AGPL-3.0-or-later
"""`authorize` and the counting of approvals, control by control: what each alone stops goes through when it is taken away."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from custody.flows import authorization, proposals
from custody.flows.authorization import Withheld
from custody.flows.kernel import check_frozen
from custody.flows.ports import UnitOfWork
from custody.flows.reversals import check_reversed
from custody.rules import approvals, coverage
from custody.rules.approvals import Approval, Approver
from custody.rules.attested import verify_signature
from custody.rules.certificates import WalletCertificate
from custody.rules.governance import Freeze
from custody.rules.hold_origins import check_binding
from custody.rules.ledger import reverse
from custody.rules.origins import NativeProof, Reversal
from custody.rules.payments import Credited, Payment, Reservation, none_credited
from custody.rules.refusals import Rule
from custody.rules.requirement import Decision, Outcome, Requirement
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.transfers import Transfer
from custody.rules.wallets import Tier
from tests.fakes.controls import Attempt, Case, Control, check_complete, rules_against
from tests.fakes.seat import EVM, NOW, YEAR, ed25519, signed_by
from tests.fakes.treasury import (
    AVAILABLE,
    FakeAnchors,
    Treasury,
    by_passkey,
    deposit,
    inside,
    kernel,
    proposal,
    statement,
)
from tests.fakes.trust import ETH, TWO, answers, world
from tests.unit.signers import LATER, ROSTER
from tests.unit.signers import NOW as SIGNED_AT
from tests.unit.test_approvals import DIGEST, ELSEWHERE, INTENT, OTHER, approval, roster

ONE: Final = 10**18
NEWER: Final = b"\x0c" * 32
AUTOMATIC: Final = answers(Outcome.AUTOMATIC)
OPERATIONAL: Final = world().certificate(Tier.OPERATIONAL, EVM)
TO_COLD: Final = inside(Tier.CUSTOMER_COLD)


def permitted(t: Treasury, *transfers: Transfer, said: Signed[Statement] | None = None) -> Attempt:
    """Asks for a permit."""

    def ask() -> set[Rule]:
        found: set[Rule] = set()

        def authorize() -> None:
            granted = t.authorize(*transfers, said=said)
            if isinstance(granted, Withheld):
                assert granted.refusals
                found.update(refusal.rule for refusals in granted.refusals.values() for refusal in refusals)

        return rules_against(authorize) | found

    return ask


def automatic(message: Any = TO_COLD, by: str = "desk") -> tuple[Treasury, Transfer]:
    """A transfer that nobody has to approve; by default one into cold, which holds nothing and needs no coverage."""
    t = Treasury(kernel=kernel(AUTOMATIC))
    return t, t.propose(message, by)


def approved(t: Treasury | None = None, message: Any = None, by: str = "backend", number: int = 1) -> Any:
    """A withdrawal that everybody approved."""
    t = t or Treasury()
    return t, t.approve(t.propose(message or proposal(number), by, f"k{number}", number), "ana", "bo")


def row(t: Treasury, was: Transfer, **changes: Any) -> Transfer:
    """Whoever has the database writes a row anew, under the digest that it names."""
    rows: dict[bytes, Transfer] = t.store._state.rows.transfers  # type: ignore[attr-defined]
    after = replace(was, **changes)
    del rows[was.digest]
    rows[after.digest] = after
    return after


def forged(**changes: Any) -> Attempt:
    """The row's intent is changed, and its digest made to fit."""
    t, made = automatic()
    intent = replace(made.intent, **changes)
    return permitted(t, row(t, made, intent=intent, digest=world().domain.digest(intent)))


def fields_only() -> Attempt:
    """The row's intent is changed, and keeps the digest that was approved."""
    t, made = automatic()
    return permitted(t, row(t, made, intent=replace(made.intent, not_before=NOW - 100)))


def denied_before() -> Attempt:
    """Policy denied it at once, and would let it pass today."""
    t = Treasury(kernel=kernel(answers(Outcome.DENY)))
    made = t.propose(TO_COLD, "desk")
    t.kernel = kernel(AUTOMATIC)
    return permitted(t, made)


def at(now: Callable[[Transfer], int]) -> Attempt:
    """At another time than it was proposed."""
    t, made = automatic()
    t.now = now(made)
    return permitted(t, made)


def frozen() -> Attempt:
    """Somebody stopped the account."""
    t, made = approved()
    t.kernel = replace(t.kernel, freezes=(Freeze("customer:ada", "odd", NOW, NOW + 10),))
    return permitted(t, made)


def reversed_deposit(*, spent: bool) -> Attempt:
    """A reorg took back a deposit of ada's; where she had spent it, as much came in again, which filled the loss but for a part."""
    t, made = approved()

    def work(work: UnitOfWork) -> None:
        credited = work.journal.append(deposit(ETH, ONE, AVAILABLE, height=90), NOW)
        proof = credited.entry.origin
        assert isinstance(proof, NativeProof)
        origin = Reversal(credited.position, proof.chain, proof.height, proof.block, b"\7" * 32)
        had = {} if spent else {(AVAILABLE, ETH): ONE}
        work.journal.append(reverse(credited, origin, had), NOW)
        if spent:  # in a row that says so: only the loss still stands
            work.journal.append(deposit(ETH, ONE, AVAILABLE, height=91), NOW)

    t.store.run(work)
    return permitted(t, made)


def with_row(**changes: Any) -> Attempt:
    """A withdrawal whose row was changed beside its intent."""
    t, made = approved()
    return permitted(t, row(t, made, **changes))


def under(policy: Any, *people: str, passkeys: tuple[str, ...] = ()) -> Attempt:
    """A withdrawal with these approvals, under another policy than it was proposed under."""
    t = Treasury()
    made = t.approve(t.propose(), *people)
    for person in passkeys:
        proposals.approve(t.store, t.kernel, by_passkey(made, person), t.now)
    t.kernel = replace(t.kernel, policies=kernel(policy).policies)
    return permitted(t, made)


def said(made: Callable[[], Signed[Statement]]) -> Attempt:
    """A withdrawal in order, under this statement."""
    return permitted(*approved(), said=made())


def without_ether() -> Signed[Statement]:
    """A statement that is silent about an asset."""
    whole = statement().message
    short = replace(whole, coverage=tuple(line for line in whole.coverage if line.asset != "ETH"))
    return signed_by(short, world().domain, [ed25519("attestor")])


def of_a_later_roster() -> Signed[Statement]:
    """A statement under a roster version that we do not have."""
    return signed_by(replace(statement().message, roster=2), world().domain, [ed25519("attestor")])


def more_than_the_wallet_has() -> Attempt:
    """Customers' balances are there, the hot wallet's coins are not."""
    t = Treasury()
    first = t.approve(t.propose(proposal(amount=60 * ONE)), "ana", "bo", "cy")
    second = t.approve(t.propose(proposal(2, amount=60 * ONE), key="k2", number=2), "ana", "bo", "cy")
    return permitted(t, first, second)


class OtherWallets(FakeAnchors):
    """Reserves the nonce of another wallet than the one that pays."""

    def next_anchor(
        self,
        wallet: bytes,
        certificate: WalletCertificate,
        payments: Sequence[Payment],
        taken: Collection[str],
        credited: Credited = none_credited,
    ) -> Reservation:
        """See `Anchors`."""
        found = super().next_anchor(wallet, certificate, payments, taken, credited)
        return replace(found, anchor=replace(found.anchor, wallet=b"\1" * 32))


def anchor_of_another() -> Attempt:
    """The chain's side answers with another wallet's anchor."""
    return permitted(*approved(Treasury(anchors=OtherWallets())))


def two_wallets() -> Attempt:
    """One of the customers' wallet, one of the company's, under one anchor."""
    t, first = approved()
    _, second = approved(t, inside(Tier.CUSTOMER_HOT, purpose="make_whole", reference="order 2"), "finance", 2)
    return permitted(t, first, second)


def part_of_a_payout() -> Attempt:
    """One intent of a payout of two, asked for alone."""
    t, first = approved()
    _, second = approved(t, number=2)
    t.authorize(first, second)
    return permitted(t, first)


def forgotten() -> Attempt:
    """A store that says yes and records no permit."""
    t, made = approved()
    real = t.store.run

    def run(work: Any) -> Any:
        def forgetting(unit: Any) -> Any:
            unit.transfers.permit = lambda permit: None
            return work(unit)

        return real(forgetting)

    t.store.run = run
    return permitted(t, made)


def twice() -> Attempt:
    """One intent named twice, to be paid twice."""
    t, made = approved()
    return permitted(t, made, made)


def c(function: Callable[..., Any], rule: Rule, nth: int = 1) -> tuple[Control, ...]:
    """One control."""
    return (Control(function, rule, nth),)


a = authorization
TABLE: Final = frozenset({Rule.ILLEGAL_MOVE})
"""The table of statuses refuses by itself (custody/rules/transfers.py)."""
AUTHORIZATION: Final = [
    Case("fields changed, digest kept", c(a._check_open, Rule.WRONG_DIGEST), fields_only),
    Case("denied when it was proposed", c(a._check_open, Rule.ILLEGAL_MOVE), denied_before, TABLE),
    Case("a clock that ran back", c(a._check_open, Rule.TOO_EARLY), lambda: at(lambda _: NOW - 1)),
    Case("expired", c(a._check_open, Rule.EXPIRED), lambda: at(lambda made: made.intent.expiry)),
    Case("another amount", c(check_binding, Rule.PROPOSAL_MISMATCH, 2), lambda: forged(amount=3 * ONE)),
    Case("of another proposal", c(check_binding, Rule.PROPOSAL_MISMATCH, 1), lambda: forged(proposal=b"\1" * 32)),
    Case(
        "outlives its proposal", c(check_binding, Rule.PROPOSAL_MISMATCH, 3), lambda: forged(expiry=NOW + YEAR)
    ),
    Case("another's initiator, who then approves", c(a._check_initiator, Rule.SIGNER_UNKNOWN), lambda: forged(initiator="ana")),
    Case("frozen", c(check_frozen, Rule.FROZEN), frozen),
    Case("a deposit was reversed", c(check_reversed, Rule.DEPOSIT_REVERSED), lambda: reversed_deposit(spent=False)),
    Case("and is lost", c(check_reversed, Rule.DEPOSIT_REVERSED, 2), lambda: reversed_deposit(spent=True)),
    Case("held by somebody else's entry", c(a._check_hold, Rule.HOLD), lambda: with_row(hold=1)),
    Case("never held", c(a._check_hold, Rule.HOLD), lambda: with_row(hold=None)),
    Case("out of another wallet", c(a._check_route, Rule.WRONG_WALLET), lambda: forged(wallet=OPERATIONAL.wallet)),
    Case("an older certificate", c(a._check_route, Rule.CERTIFICATE_OLDER), lambda: forged(certificate=b"\1" * 32)),
    Case("other decimals", c(a._check_route, Rule.TOKEN_MISMATCH), lambda: forged(decimals=6)),
    Case("a token where it is ether", c(a._check_route, Rule.TOKEN_MISMATCH), lambda: forged(token="0x" + "11" * 20)),
    Case("another kind of place", c(a._check_route, Rule.ENROLMENT), lambda: forged(destination_kind="customer_withdrawal")),
    Case("denied by policy", c(Decision.refusals, Rule.POLICY_DENIES), lambda: under(answers(Outcome.DENY), "ana", "bo")),
    Case("one of two people", c(approvals.satisfied, Rule.QUORUM_NOT_REACHED), lambda: under(answers(Outcome.REQUIRE), "ana")),
    Case(
        "two passkeys that showed nothing",
        c(approvals.satisfied, Rule.DISPLAYING_MISSING),
        lambda: under(answers(Outcome.REQUIRE, replace(TWO, displaying=1)), passkeys=("ana", "bo")),
    ),
    Case(
        "the delay is not over",
        c(a._check_decision, Rule.DELAY),
        lambda: under(answers(Outcome.REQUIRE, Requirement((("operations", 1),), delay=9)), "ana"),
    ),
    Case("somebody else's statement", c(verify_signature, Rule.SIGNATURE_INVALID), lambda: said(lambda: statement(attestor="backend"))),
    Case("a stale statement", c(coverage.check_fresh, Rule.STALE), lambda: said(lambda: statement(NOW - 601))),
    Case("a statement of another policy", c(a._check_coverage, Rule.POLICY_OLDER), lambda: said(lambda: statement(policy=NEWER))),
    Case("uncovered", c(coverage.check, Rule.COVERAGE), lambda: said(lambda: statement(reserves=1))),
    Case("an asset without a line", c(coverage.check, Rule.COVERAGE_UNKNOWN), lambda: said(without_ether)),
    Case(
        "a statement of a later roster",
        (*c(verify_signature, Rule.ROSTER_OLDER), *c(a._check_coverage, Rule.POLICY_OLDER)),
        lambda: said(of_a_later_roster),
    ),
    Case("more than the wallet has", c(a._check_coins, Rule.INSUFFICIENT_BALANCE), more_than_the_wallet_has),
    Case("an anchor of another wallet", c(a._check_reservation, Rule.WRONG_WALLET), anchor_of_another),
    Case("two wallets under one anchor", c(a._wallet, Rule.WRONG_WALLET), two_wallets),
    Case("part of a payout", c(a._standing, Rule.INTENT_BOUND), part_of_a_payout),
    Case("a permit that nobody recorded", c(a._mint, Rule.INTENT_BOUND), forgotten),
    Case("one intent twice", c(a.authorize, Rule.MALFORMED), twice, TABLE),
]  # fmt: skip
BESIDES: Final = {
    "_judge roster_older_than_pinned": "without that version there is nobody to count",
    "_judge unknown_transfer": "there is nothing to sign",
    "_standing unknown_transfer": "there is nothing to sign",
}


@pytest.mark.parametrize("case", AUTHORIZATION, ids=lambda case: case.id)
def test_authorize_needs_each(case: Case) -> None:
    """With the control a permit is withheld, by this rule alone; without it there is one."""
    case.check()


def test_authorize_has_no_other() -> None:
    """Each refusal that `authorize` can make is in the table."""
    check_complete([authorization], AUTHORIZATION, BESIDES)


def counted(*given: Approval, newest: Roster = ROSTER, pinned: Roster = ROSTER, now: int = SIGNED_AT) -> Attempt:
    """Whether these are two of treasury: why one was ignored where they are not, or else who is missing."""

    def attempt() -> set[Rule]:
        found = approvals.count(given, INTENT, DIGEST, pinned, newest, now)
        missing = [*approvals.satisfied(Requirement((("treasury", 2),)), found.approvers, INTENT.initiator)]
        return {refusal.rule for refusal in missing and (found.ignored or missing)}

    return attempt


def shown(*given: Approver) -> Attempt:
    """Whether these are two of treasury, one of them with a key that displays."""

    def attempt() -> set[Rule]:
        asked = Requirement((("treasury", 2),), displaying=1)
        return {refusal.rule for refusal in approvals.satisfied(asked, frozenset(given), INTENT.initiator)}

    return attempt


TREASURY: Final = frozenset({"treasury"})
ANA: Final = approval("ana")
APPROVALS: Final = [
    Case(
        "two keys that show nothing",
        c(approvals.satisfied, Rule.DISPLAYING_MISSING),
        lambda: shown(Approver("ana", TREASURY), Approver("bo", TREASURY)),
    ),
    Case("one only", c(approvals.satisfied, Rule.QUORUM_NOT_REACHED), lambda: counted(ANA)),
    Case(
        "names another intent",
        c(approvals.check_approval, Rule.WRONG_DIGEST),
        lambda: counted(ANA, replace(approval("bo"), intent=OTHER)),
    ),
    Case(
        "in another's name",
        c(approvals.check_approval, Rule.SIGNER_UNKNOWN),
        lambda: counted(ANA, approval("bo", "device:dee")),
    ),
    Case("expired", c(approvals.check_approval, Rule.SIGNER_EXPIRED), lambda: counted(ANA, approval("bo"), now=LATER)),
    Case(
        "signed another amount",
        c(approvals.check_approval, Rule.SIGNATURE_INVALID),
        lambda: counted(ANA, approval("bo", digest=OTHER)),
    ),
    Case(
        "signed for another deployment",
        c(approvals.check_approval, Rule.SIGNATURE_INVALID),
        lambda: counted(ANA, approval("bo", digest=ELSEWHERE)),
    ),
    Case(
        "the initiator, whom the count of slots leaves out as well",
        c(approvals.check_approval, Rule.INITIATOR_APPROVES),
        lambda: counted(ANA, approval("cy")),
        frozenset({Rule.INITIATOR_APPROVES, Rule.QUORUM_NOT_REACHED}),
    ),
    Case(
        "one person under two keys, who fills one slot anyway",
        c(approvals.count, Rule.SIGNER_TWICE),
        lambda: counted(ANA, approval("ana", "ana's laptop")),
        frozenset({Rule.QUORUM_NOT_REACHED}),
    ),
    Case(
        "another roster than the intent pins",
        c(approvals.count, Rule.ROSTER_OLDER),
        lambda: counted(ANA, approval("bo"), pinned=roster(2), newest=roster(2)),
    ),
    Case(
        "rosters of two deployments",
        c(approvals.count, Rule.WRONG_GENESIS),
        lambda: counted(ANA, approval("bo"), newest=Roster(ROSTER.signed, b"\2" * 32)),
    ),
]
WORDS: Final = {
    "satisfied initiator_approves_own_transfer": "said beside the quorum that is not reached; who is left out is no statement",
}


@pytest.mark.parametrize("case", APPROVALS, ids=lambda case: case.id)
def test_counting_needs_each(case: Case) -> None:
    """With the control one approval too few counts; without it the bad one fills the slot, or another control says no."""
    case.check()


def test_counting_has_no_other() -> None:
    """Each reason for which an approval may not count is in the table."""
    check_complete([approvals], APPROVALS, WORDS)
