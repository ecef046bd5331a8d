# SPDX-License-Identifier: AGPL-3.0-or-later
"""Passkeys at a seat: which of them it counts, and that a quorum which was shown nothing signs nothing large."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from custody.rules.approvals import Approval
from custody.rules.login import Login
from custody.rules.refusals import Rule
from custody.rules.requirement import Outcome, Requirement
from custody.rules.seat import decide
from custody.rules.seat_request import Plan, Request
from custody.rules.signatures import Signature
from custody.rules.wallets import Tier
from tests.fakes.attacks import HOT, rotation
from tests.fakes.authenticator import AT, BS, HONEST, ORIGIN, UP, UV, Lies, high_s
from tests.fakes.seat import BITCOIN, NOW, secp256k1, signed_by
from tests.fakes.trust import TWO, Ask, answers, build, passkey, world

BOTH: Final = {"ana": HONEST, "bo": HONEST}
SHOWN: Final = answers(Outcome.REQUIRE, replace(TWO, displaying=1))
ALL_SHOWN: Final = answers(Outcome.REQUIRE, replace(TWO, displaying=2))
COLD: Final[dict[str, Any]] = {"tier": Tier.CUSTOMER_COLD, "to_tier": HOT, "proposer": "desk"}


def answer(ask: Ask, base: Request | None = None) -> set[Rule]:
    """The rules by which the seat refuses; none where it would sign."""
    b = build(ask, base)
    found = decide(b.request, b.decoded, b.journal, b.policy, b.now)
    return set() if isinstance(found, Plan) else {refusal.rule for refusal in found}


@pytest.mark.parametrize(
    ("ask", "rule"),
    [
        pytest.param(Ask(passkeys=BOTH), None, id="two passkeys where nobody asks for more"),
        pytest.param(Ask(passkeys=BOTH, chain=BITCOIN), None, id="bitcoin: the same"),
        pytest.param(Ask(passkeys={"ana": HONEST}, policy=SHOWN), None, id="a passkey beside a device"),
        pytest.param(Ask(policy=ALL_SHOWN), None, id="two devices"),
        pytest.param(Ask(passkeys=BOTH, policy=SHOWN), Rule.DISPLAYING_MISSING, id="two passkeys above the amount"),
        pytest.param(
            Ask(passkeys={"bo": HONEST}, policy=ALL_SHOWN), Rule.DISPLAYING_MISSING, id="one device where two are asked"
        ),
        pytest.param(Ask(**COLD, passkeys={"ana": HONEST}), None, id="out of cold with one device"),
        pytest.param(
            Ask(**COLD, passkeys=BOTH),
            Rule.DISPLAYING_MISSING,
            id="out of cold with passkeys, though policy asks for none",
        ),
        pytest.param(
            Ask(passkeys=BOTH, policy=answers(Outcome.AUTOMATIC, replace(TWO, displaying=1))), None, id="goes by itself"
        ),
        pytest.param(
            Ask(
                passkeys=BOTH,
                both={"amount": 5 * 10**18 + 1},
                policy=answers(Outcome.AUTOMATIC, replace(TWO, displaying=1)),
            ),
            Rule.DISPLAYING_MISSING,
            id="would go by itself, but for this seat's cap",
        ),
        pytest.param(
            Ask(approvers=("ana", "bo", "dee"), passkeys=BOTH, policy=SHOWN), None, id="a third of the groups shows it"
        ),
        pytest.param(
            Ask(approvers=("ana", "bo", "authority"), passkeys=BOTH, policy=SHOWN),
            Rule.DISPLAYING_MISSING,
            id="a third of no group does not count",
        ),
        pytest.param(
            Ask(approvers=("ana", "bo", "dee"), passkeys=BOTH, policy=SHOWN, proposer="dee"),
            Rule.DISPLAYING_MISSING,
            id="nor does the initiator",
        ),
    ],
)
def test_what_has_to_be_shown(ask: Ask, rule: Rule | None) -> None:
    """By policy, and out of cold by the seat itself."""
    assert (not answer(ask)) if rule is None else rule in answer(ask)


@pytest.mark.parametrize(
    "lies",
    [
        pytest.param(Lies(origin="https://treasury.bulkhead.example.evil"), id="wrong origin"),
        pytest.param(Lies(origin=ORIGIN + ":8443"), id="wrong port"),
        pytest.param(Lies(rp_id="bulkhead.example"), id="the parent domain's rpId"),
        pytest.param(Lies(type="webauthn.create"), id="a registration"),
        pytest.param(Lies(flags=UP), id="user not verified"),
        pytest.param(Lies(flags=UV), id="user not present"),
        pytest.param(Lies(flags=UP | UV | AT), id="attested data said to be there"),
        pytest.param(Lies(flags=UP | UV | BS), id="backed up and not eligible"),
        pytest.param(Lies(extra={"crossOrigin": True}), id="cross-origin"),
        pytest.param(Lies(extra={"topOrigin": ORIGIN}), id="in a frame of its own page"),
        pytest.param(Lies(challenge=""), id="no digest"),
        pytest.param(Lies(challenge="A" * 43), id="another digest"),
    ],
)
@pytest.mark.parametrize("chain", ["evm", "bitcoin"])
def test_a_lying_browser_is_not_counted(lies: Lies, chain: str) -> None:
    """Ana approves with her device, and what bo's browser answers is no signature: one of two is missing."""
    where = {"chain": BITCOIN} if chain == "bitcoin" else {}
    assert answer(Ask(**where, passkeys={"bo": HONEST})) == set()
    assert answer(Ask(**where, passkeys={"bo": lies})) == {Rule.QUORUM_NOT_REACHED, Rule.SIGNATURE_INVALID}


def bos(make: Callable[[bytes], Signature]) -> Callable[[Request], Request]:
    """A request in which bo's approval has another signature, made for the intent's digest."""

    def changed(request: Request) -> Request:
        transfer = request.transfers[0]
        digest = world().domain.digest(transfer.intent)
        mine = Approval(digest, "bo", make(digest))
        return replace(request, transfers=(replace(transfer, approvals=(transfer.approvals[0], mine)),))

    return changed


def login(_: bytes) -> Signature:
    """Bo logs in."""
    message = Login(ORIGIN, b"\5" * 32, NOW + 900, NOW + 1200)
    return passkey("bo").sign(message, world().domain.genesis)


def raw(make: Callable[[bytes], bytes]) -> Callable[[bytes], Signature]:
    """Bo's passkey, and a value of somebody's own making."""
    return lambda digest: Signature(passkey("bo").key, make(digest))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        pytest.param(login, Rule.SIGNATURE_INVALID, id="a login, kept by the page"),
        pytest.param(
            raw(lambda d: replace(passkey("bo").assertion(d), signature=high_s(passkey("bo").assertion(d).signature)).unchecked),
            Rule.SIGNATURE_INVALID, id="with the high s",
        ),
        pytest.param(raw(lambda d: passkey("bo").over(d).value + b"\0"), Rule.SIGNATURE_INVALID, id="a byte after it"),
        pytest.param(raw(lambda _: b""), Rule.SIGNATURE_INVALID, id="nothing"),
        pytest.param(raw(lambda _: b"\xff" * 4096), Rule.SIGNATURE_INVALID, id="four kilobytes of nothing"),
        pytest.param(raw(lambda d: secp256k1("bo").sign(d).value), Rule.SIGNATURE_INVALID, id="the device's value"),
        pytest.param(raw(lambda d: passkey("ana").over(d).value), Rule.SIGNATURE_INVALID, id="ana's passkey in bo's name"),
        pytest.param(lambda d: passkey("ana").over(d), Rule.SIGNER_UNKNOWN, id="ana's key in bo's name"),
        pytest.param(
            lambda d: passkey("bo").at("https://other.example").over(d), Rule.SIGNER_UNKNOWN, id="bo's passkey on another page"
        ),
    ],
)  # fmt: skip
def test_what_is_no_approval_of_bos(make: Callable[[bytes], Signature], rule: Rule) -> None:
    """Each is refused where a true one would be counted."""
    assert answer(Ask(request=bos(lambda digest: passkey("bo").over(digest)))) == set()
    assert answer(Ask(request=bos(make))) == {Rule.QUORUM_NOT_REACHED, rule}


def test_a_rotation_by_passkeys_alone() -> None:
    """Who holds a wallet's keys is not decided on the word of a page; a device beside a passkey is enough."""
    base = rotation()
    assert base.rotation is not None
    message, domain = base.rotation.message, world().domain

    def of(*signers: Any) -> Request:
        signatures = [signer.sign(domain.digest(message)) for signer in signers if not hasattr(signer, "over")]
        signatures += [signer.over(domain.digest(message)) for signer in signers if hasattr(signer, "over")]
        return replace(base, rotation=signed_by(message, domain, []).joined(signatures))

    assert answer(Ask(), of(secp256k1("ana"), passkey("bo"))) == set()
    assert answer(Ask(), of(passkey("ana"), passkey("bo"))) == {Rule.DISPLAYING_MISSING}


def test_the_requirement_says_who_is_missing() -> None:
    """How many approvals by keys that display, and of which groups."""
    b = build(Ask(passkeys=BOTH, policy=SHOWN))
    found = decide(b.request, b.decoded, b.journal, b.policy, b.now)
    assert isinstance(found, tuple)
    (refusal,) = {str(each): each for each in found}.values()
    assert refusal.rule is Rule.DISPLAYING_MISSING
    assert (refusal.operands["missing"], refusal.operands["of"]) == (1, ["operations", "risk"])
    assert str(Requirement(TWO.approvals, displaying=1)) == "1 of operations, 1 of risk, 1 by a key that displays"
