# SPDX-License-Identifier: AGPL-3.0-or-later
"""Proposing, approving, rejecting and cancelling, control by control: what each alone refuses is done when it is taken away."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from custody.flows import proposals
from custody.rules import ledger
from custody.rules.approvals import check_approval
from custody.rules.intents import Proposal
from custody.rules.refusals import Rule
from custody.rules.requirement import Outcome
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from tests.fakes.controls import Attempt, Case, Control, check_complete, rules_against
from tests.fakes.seat import NOW, YEAR
from tests.fakes.treasury import Treasury, approval, kernel, no, proposal, signed
from tests.fakes.trust import answers

ONE: Final = 10**18


def asked(
    message: Proposal | Signed[Proposal] | None = None, by: str = "backend", key: str = "k"
) -> Callable[[], Attempt]:
    """One proposal to a fresh treasury."""
    return lambda: proposed(Treasury(), message, by, key)


def proposed(
    t: Treasury, message: Proposal | Signed[Proposal] | None = None, by: str = "backend", key: str = "k"
) -> Attempt:
    """One proposal."""
    said = message if isinstance(message, Signed) else signed(message or proposal(), by)
    return lambda: rules_against(lambda: proposals.propose(t.store, t.kernel, said, key, t.now, bytes(10)))


def again(message: Proposal | None = None, key: str = "k") -> Callable[[], Attempt]:
    """A proposal after the usual one."""

    def prepare() -> Attempt:
        t = Treasury()
        t.propose()
        return proposed(t, message, key=key)

    return prepare


def two_signers() -> Signed[Proposal]:
    """Signed by the backend, and by ana, who could approve if somebody dropped her signature."""
    message = proposal()
    return Signed(message, (*signed(message).signatures, *signed(message, "ana").signatures))


Act = Callable[[Treasury, Transfer], object]


def done(act: Act, before: Act | None = None, policy: Outcome = Outcome.REQUIRE) -> Callable[[], Attempt]:
    """Something done to a transfer that was proposed, and to which something may have happened before."""

    def prepare() -> Attempt:
        t = Treasury(kernel=kernel(answers(policy)))
        made = t.propose()
        if before is not None:
            before(t, made)
        return lambda: rules_against(lambda: act(t, made))

    return prepare


def approve(t: Treasury, made: Transfer) -> object:
    """ana says yes."""
    return proposals.approve(t.store, t.kernel, approval(made, "ana"), t.now)


def approve_badly(t: Treasury, made: Transfer) -> object:
    """Somebody says yes under bo's name with ana's key."""
    return proposals.approve(t.store, t.kernel, approval(made, "bo", "ana"), t.now)


def reject(by: str) -> Act:
    """Somebody's no."""
    return lambda t, made: proposals.reject(t.store, t.kernel, no(made, by), t.now)


def cancel(by: str = "backend") -> Act:
    """The initiator's no, or somebody's in their place."""
    return lambda t, made: proposals.cancel(t.store, t.kernel, no(made, by), t.now)


def permit(t: Treasury, made: Transfer) -> object:
    """Approved, and permitted: a seat may have been asked."""
    return t.authorize(t.approve(made, "ana", "bo"))


def set_back(t: Treasury, made: Transfer) -> None:
    """Permitted; and then whoever has the database lets it stand as if nobody had been asked to sign."""
    permit(t, made)
    _row(t, made, replace(t.get(made), status=Status.QUEUED))


def end_all(t: Treasury, made: Transfer) -> object:
    """What is past its expiry ends."""
    return proposals.expire(t.store, t.kernel, made.intent.expiry)


def expire(t: Treasury, made: Transfer) -> None:
    """Time goes by."""
    t.now = made.intent.expiry


def rewrite(t: Treasury, made: Transfer) -> None:
    """Whoever has the database changes the amount, and keeps the digest."""
    _row(t, made, replace(made, intent=replace(made.intent, not_before=NOW - 5)))


def _row(t: Treasury, made: Transfer, changed: Transfer) -> None:
    rows: dict[bytes, Transfer] = t.store._state.rows.transfers  # type: ignore[attr-defined]
    rows[made.digest] = changed


def c(function: Callable[..., Any], rule: Rule, nth: int = 1) -> tuple[Control, ...]:
    """One control."""
    return (Control(function, rule, nth),)


p = proposals
TABLE: Final = frozenset({Rule.ILLEGAL_MOVE})
"""The table of statuses refuses by itself (custody/rules/transfers.py)."""
JOURNAL: Final = frozenset({Rule.ALREADY_RECORDED})
"""The journal takes each origin once."""
CASES: Final = [
    Case("two signatures", c(p._initiator, Rule.MALFORMED), asked(two_signers())),
    Case("an address authority", c(p._initiator, Rule.AUTHORITY_PROPOSES), asked(by="authority")),
    Case("an endless key", c(p._asked, Rule.MALFORMED), asked(key="k" * 300)),
    Case("a key with another body", c(p._asked, Rule.IDEMPOTENCY_MISMATCH), again(proposal(2))),
    Case("one proposal under two keys", c(p._draft, Rule.PROPOSAL_BOUND), again(key="k2"), JOURNAL),
    Case("expired", c(p._draft, Rule.EXPIRED), asked(proposal(expiry=NOW))),
    Case("expires in a year", c(p._draft, Rule.EXPIRY_TOO_FAR), asked(proposal(expiry=NOW + YEAR))),
    Case("a reference that clears a screen", c(p._check_text, Rule.MALFORMED), asked(proposal(reference="\x1b[2J"))),
    Case(
        "more than there is",
        c(ledger.check_balances, Rule.INSUFFICIENT_BALANCE),
        asked(proposal(amount=10**21)),
        frozenset({Rule.INSUFFICIENT_BALANCE}),
    ),
    Case("approving what policy denied", c(p.approve, Rule.ILLEGAL_MOVE), done(approve, policy=Outcome.DENY)),
    Case("approving in another's name", c(check_approval, Rule.SIGNER_UNKNOWN), done(approve_badly)),
    Case("approving what was cancelled", c(p._check_unasked, Rule.ILLEGAL_MOVE), done(approve, cancel())),
    Case("approving what expired", c(p._check_unasked, Rule.EXPIRED), done(approve, expire)),
    Case("cancelling what is being signed", c(p._check_unasked, Rule.SIGNATURE_ASKED), done(cancel(), permit), TABLE),
    Case("cancelling it, its row set back", c(p._release, Rule.SIGNATURE_ASKED), done(cancel(), set_back)),
    Case("rejecting it, its row set back", c(p._release, Rule.SIGNATURE_ASKED), done(reject("bo"), set_back)),
    Case("its expiry, its row set back", c(p._release, Rule.SIGNATURE_ASKED), done(end_all, set_back)),
    Case("rejecting other fields", c(p._refuse, Rule.WRONG_DIGEST), done(reject("bo"), rewrite)),
    Case("rejected by a stranger", c(p._refuse, Rule.SIGNER_UNKNOWN), done(reject("mallory"))),
    Case("cancelled by somebody else", c(p._refuse, Rule.SIGNER_UNKNOWN, 2), done(cancel("bo"))),
]
NAMED: Final = "says in words whom `proposer_of` did not find; without somebody there is no initiator"
BESIDES: Final = {
    **dict.fromkeys(
        (
            "_initiator signer_not_in_roster",
            "_initiator signature_invalid",
            "_initiator signer_expired",
            "_initiator scope_missing",
        ),
        NAMED,
    ),
    "_open unknown_transfer": "there is nothing to act on",
    "approve roster_older_than_pinned": "without that version there is nobody to count",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_proposals_need_each(case: Case) -> None:
    """With the control it is refused, by this rule; without it it is done, or the next control says no."""
    case.check()


def test_proposals_have_no_other() -> None:
    """Each refusal of these steps is in the table."""
    check_complete([proposals], CASES, BESIDES)
