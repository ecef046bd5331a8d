# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bounds of one request to a seat, and what a repeated void is told."""

import pytest

from custody.rules import seat
from custody.rules.governance import Freeze
from custody.rules.refusals import Rule
from custody.rules.seat import decide
from custody.rules.seat_journal import SeatJournal, admit_freeze
from custody.rules.seat_request import Plan
from tests.fakes.attacks import void
from tests.fakes.seat import NOW, secp256k1, signed_by
from tests.fakes.trust import Ask, build, world


@pytest.mark.parametrize(
    ("payments", "signed"),
    [pytest.param(2, True, id="as many as may be"), pytest.param(3, False, id="one more")],
)
def test_as_many_intents_as_may_be(monkeypatch: pytest.MonkeyPatch, payments: int, signed: bool) -> None:
    """A full batch is signed; a fuller one is refused before anything is looked at."""
    monkeypatch.setattr(seat, "INTENTS_MOST", 2)
    b = build(Ask(payments=payments))
    answer = decide(b.request, b.decoded, b.journal, b.policy, b.now)
    if signed:
        assert isinstance(answer, Plan)
    else:
        assert isinstance(answer, tuple)
        assert [refusal.rule for refusal in answer] == [Rule.MALFORMED]


def test_a_freeze_keeps_nobody_from_a_void() -> None:
    """Neither the first answer nor a repeated one: an anchor that has to die dies, whatever stands still."""
    b = build(Ask(), void())
    said = signed_by(Freeze("all", "", NOW, NOW + 5_000), world().domain, [secp256k1("bo")])
    frozen = admit_freeze(b.journal, said, NOW)
    assert isinstance(frozen, SeatJournal)
    stood = build(Ask(journal=lambda _: frozen), void())
    plan = decide(stood.request, stood.decoded, frozen, stood.policy, stood.now)
    assert isinstance(plan, Plan), [str(refusal) for refusal in plan]
    (record,) = plan.records
    again = decide(stood.request, stood.decoded, frozen.apply(record), stood.policy, stood.now)
    assert again == Plan((), plan.to_sign)
