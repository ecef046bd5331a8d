# SPDX-License-Identifier: AGPL-3.0-or-later
"""When a roster comes in force at a seat whose deployment tells the time by statements, and at one that has a clock."""

from dataclasses import replace

import pytest

from custody.rules.refusals import Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from tests.fakes.seat import rules_of, secp256k1, signed_by
from tests.fakes.seated import LATER, Seated, by_wire, seated
from tests.fakes.trust import passkey

DAY = 86_400


def successor(house: Seated, *more: str) -> Signed[RosterVersion]:
    """The next version, from tomorrow on, signed by ana and bo and these people's passkeys."""
    old = house.world.deployment.version
    message = replace(old, version=2, previous=old.struct_hash, not_before=LATER + DAY)
    signed = signed_by(message, house.world.domain, [secp256k1("ana"), secp256k1("bo")])
    return signed.joined(passkey(name).over(house.world.domain.digest(message)) for name in more)


def told(house: Seated, time: int, by: str = "attestor") -> Signed[Statement]:
    """A statement of then."""
    request = house.ask(statement={"time": time}, attestor=by)
    return request.statement


def early(house: Seated, signed: Signed[RosterVersion], statement: Signed[Statement] | None) -> set[Rule]:
    """By which rules a seat does not take it, asked over its socket."""
    with by_wire(house.hosts["hot-1"]) as remote:
        try:
            remote.admit_roster(signed, statement)
        except Refused as refused:
            return rules_of(refused)
    return set()


@pytest.mark.parametrize("clock", ["statement", "wall"])
def test_only_a_devnet_hears_the_time_from_a_statement(clock: str) -> None:
    """Where genesis says so, a later statement is a later time; elsewhere the seat's own clock alone counts."""
    with seated({}, clock=clock) as house:
        signed = successor(house, "cy")
        assert early(house, signed, None) == {Rule.TOO_EARLY}
        assert early(house, signed, told(house, LATER + DAY - 1)) == {Rule.TOO_EARLY}
        then = early(house, signed, told(house, LATER + DAY))
        assert then == (set() if clock == "statement" else {Rule.TOO_EARLY})
        house.clock.now = LATER + DAY
        assert early(house, signed, None) == set()


def test_a_strangers_statement_hurries_nobody() -> None:
    """Whoever carries a roster could carry a made-up time beside it."""
    with seated({}, clock="statement") as house:
        signed = successor(house)
        assert early(house, signed, told(house, LATER + 2 * DAY, by="mallory")) == {Rule.SIGNATURE_INVALID}
        assert early(house, signed, told(house, LATER)) == {Rule.TOO_EARLY}
