# SPDX-License-Identifier: AGPL-3.0-or-later
"""Logging in: which answer opens a session, and that nothing else ever reads as one, nor one as anything else."""

from dataclasses import replace
from typing import Final

import pytest

from custody.rules.approvals import Approval, check_approval
from custody.rules.intents import Rejection, TransferIntent
from custody.rules.login import CLOCK_AHEAD, LOGIN_MOST, Login, who_logs_in
from custody.rules.refusals import Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signature, Signed
from custody.rules.typed import ZERO32, ZERO_ADDRESS, Domain
from tests.fakes.authenticator import ORIGIN, UP, Authenticator, Lies
from tests.unit.signers import ETH, GENESIS, LATER, NOW, ROSTER, VERSION_1, Signer

ANA: Final = Authenticator("ana's passkey")
ELSEWHERE: Final = "https://other.example"
AWAY: Final = Authenticator("bo's passkey", ELSEWHERE)


def roster(**more: Authenticator) -> Roster:
    """The usual deployment, where these people have a passkey too."""
    people = tuple(
        replace(p, keys=(*p.keys, more[p.id].key), displays=(*p.displays, False)) if p.id in more else p
        for p in VERSION_1.people
    )
    return Roster(Signed(replace(VERSION_1, version=2, people=people), ()), GENESIS)


NEWEST: Final = roster(ana=ANA, bo=AWAY)
ASKED: Final = Login(origin=ORIGIN, session=b"\x05" * 32, issued=NOW, expires=NOW + LOGIN_MOST)


def answered(message: Login, *signatures: Signature) -> Signed[Login]:
    """A login with these signatures, or with ana's own."""
    return Signed(message, signatures or (ANA.sign(message, GENESIS),))


def rules(found: object) -> set[Rule]:
    """The rules of an answer that logs nobody in."""
    assert isinstance(found, tuple)
    return {refusal.rule for refusal in found}


@pytest.mark.parametrize(
    "now", [NOW, NOW + LOGIN_MOST - 1, NOW - CLOCK_AHEAD], ids=["at once", "just in time", "clocks"]
)
def test_a_passkey_logs_its_person_in(now: int) -> None:
    """The person is whom the newest roster says the key is of."""
    person = who_logs_in(answered(ASKED), ASKED, NEWEST, now)
    assert not isinstance(person, tuple)
    assert person.id == "ana"


@pytest.mark.parametrize(
    ("signed", "newest", "now", "rule"),
    [
        pytest.param(answered(replace(ASKED, session=b"\x06" * 32)), NEWEST, NOW, Rule.WRONG_DIGEST, id="of another session"),
        pytest.param(answered(replace(ASKED, expires=NOW + 10)), NEWEST, NOW, Rule.WRONG_DIGEST, id="another time"),
        pytest.param(answered(replace(ASKED, origin=ELSEWHERE)), NEWEST, NOW, Rule.WRONG_DIGEST, id="for another page"),
        pytest.param(answered(ASKED), NEWEST, NOW + LOGIN_MOST, Rule.EXPIRED, id="too late"),
        pytest.param(answered(ASKED), NEWEST, NOW - CLOCK_AHEAD - 1, Rule.TOO_EARLY, id="before it was asked for"),
        pytest.param(answered(ASKED), ROSTER, NOW, Rule.SIGNER_UNKNOWN, id="a key that was taken out"),
        pytest.param(answered(ASKED, Authenticator("mallory").sign(ASKED, GENESIS)), NEWEST, NOW, Rule.SIGNER_UNKNOWN, id="a stranger"),
        pytest.param(Signed(ASKED, ()), NEWEST, NOW, Rule.SIGNATURE_MISSING, id="no signature"),
        pytest.param(
            answered(ASKED, ANA.sign(ASKED, GENESIS), Signer("device:bo").sign(ASKED, GENESIS)), NEWEST, NOW,
            Rule.SIGNATURE_MISSING, id="two",
        ),
        pytest.param(
            answered(ASKED, Signer("device:ana").sign(ASKED, GENESIS)), NEWEST, NOW, Rule.SIGNATURE_INVALID,
            id="a device, which knows no page",
        ),
        pytest.param(answered(ASKED, AWAY.sign(ASKED, GENESIS)), NEWEST, NOW, Rule.SIGNATURE_INVALID, id="a passkey of another page"),
        pytest.param(answered(ASKED, ANA.sign(ASKED, ZERO32)), NEWEST, NOW, Rule.SIGNATURE_INVALID, id="of another deployment"),
        pytest.param(
            answered(ASKED, ANA.over(Domain(GENESIS).digest(ASKED), Lies(flags=UP))), NEWEST, NOW, Rule.SIGNATURE_INVALID,
            id="user not verified",
        ),
        pytest.param(
            answered(ASKED, ANA.sign(Rejection(ZERO32, "no"), GENESIS)), NEWEST, NOW, Rule.SIGNATURE_INVALID, id="a rejection",
        ),
    ],
)  # fmt: skip
def test_nobody_is_logged_in(signed: Signed[Login], newest: Roster, now: int, rule: Rule) -> None:
    """Each with its rule."""
    assert rules(who_logs_in(signed, ASKED, newest, now)) == {rule}


def test_an_entry_that_expired_logs_nobody_in() -> None:
    """At the second of its expiry."""
    late = replace(ASKED, issued=LATER - 1, expires=LATER + 1)
    assert rules(who_logs_in(answered(late), late, NEWEST, LATER)) == {Rule.SIGNER_EXPIRED}


@pytest.mark.parametrize(
    ("issued", "expires"),
    [
        pytest.param(NOW, NOW + LOGIN_MOST + 1, id="a second too long"),
        pytest.param(NOW, NOW, id="no time at all"),
        pytest.param(NOW, NOW - 1, id="ends before it begins"),
    ],
)
def test_a_login_lives_for_minutes(issued: int, expires: int) -> None:
    """Whatever the console asked for."""
    asked = replace(ASKED, issued=issued, expires=expires)
    assert rules(who_logs_in(answered(asked), asked, NEWEST, NOW)) == {Rule.EXPIRY_TOO_FAR}


INTENT: Final = TransferIntent(
    id="018f0000-0000-7000-8000-000000000000", proposal=ZERO32, chain=ETH, wallet=ZERO32, certificate=ZERO32, asset="ETH",
    token=ZERO_ADDRESS, decimals=18, amount=10**18, account="customer:7", destination="0x" + "33" * 20,
    destination_kind="customer_withdrawal", enrolment=ZERO32, purpose="withdrawal", maximum_fee=10**15, initiator="cy",
    policy=ZERO32, roster=2, not_before=NOW, expiry=LATER,
)  # fmt: skip


def test_a_login_is_no_approval() -> None:
    """A console that was broken into asks for a login, and hands the answer to a seat as an approval."""
    digest = Domain(GENESIS).digest(INTENT)
    login = ANA.sign(ASKED, GENESIS)
    stolen = check_approval(Approval(digest, "ana", login), INTENT, digest, NEWEST, NEWEST, NOW)
    true = check_approval(Approval(digest, "ana", ANA.over(digest)), INTENT, digest, NEWEST, NEWEST, NOW)
    assert (stolen and stolen.rule, true) == (Rule.SIGNATURE_INVALID, None)


def test_an_approval_is_no_login() -> None:
    """And the other way round: who saw an approval go by opens no session with it."""
    approval = ANA.sign(INTENT, GENESIS)
    assert rules(who_logs_in(answered(ASKED, approval), ASKED, NEWEST, NOW)) == {Rule.SIGNATURE_INVALID}
