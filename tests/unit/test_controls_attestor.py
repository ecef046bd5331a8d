# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attestor's word on a payout, control by control: what each alone stops is attested when it is taken away."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from custody.flows import attesting_payouts
from custody.flows.attesting_payouts import Asking
from custody.flows.ports import Branch
from custody.rules import ended_holds
from custody.rules.ended_holds import Ends
from custody.rules.intents import Anchor
from custody.rules.refusals import Rule
from custody.rules.wallets import Address, Tier
from custody.vault import attestor_memory
from tests.fakes.controls import Attempt, Case, Control, check_complete, rules_against
from tests.fakes.house import DERIVE, address_of, certificate
from tests.fakes.ledger import BTC
from tests.unit.test_attest_payouts import E18, Desk, nonce


def asked(digests: Callable[[Desk], list[bytes]], anchor: Anchor | None = None) -> Callable[[], Attempt]:
    """A statement for these intents of a fresh house, on the Safe's first nonce unless told."""

    def prepare() -> Attempt:
        desk = Desk()
        named = digests(desk)
        attestor = desk.house.attestor()
        return lambda: rules_against(lambda: attestor.attest(anchor or nonce(0), named))

    return prepare


def twice(desk: Desk) -> list[bytes]:
    """One intent, named twice."""
    return [desk.hold()] * 2


def spent(desk: Desk) -> list[bytes]:
    """The Safe is past that nonce for good."""
    digest = desk.hold()
    desk.consume(0)
    desk.house.evm.mine_many(3)
    desk.house.settle(desk.house.evm)
    return [digest]


def lapsed(desk: Desk) -> list[bytes]:
    """An intent at its expiry."""
    digest = desk.hold(expiry=desk.house.clock() + 30)
    desk.house.clock.now += 30
    return [digest]


def lost(desk: Desk) -> list[bytes]:
    """A reorg took a deposit that ana had spent: her ether stays too."""
    desk.coin(address_of("ana", BTC, 0))
    digest = desk.hold()
    desk.hold(chain=BTC.name, amount=desk.house.balance("ana", "BTC") - 5_000)
    desk.house.btc.reorg(3)
    desk.house.settle(desk.house.btc)
    return [digest]


def bound_elsewhere(desk: Desk) -> list[bytes]:
    """An intent that was attested for nonce 1: two chances to be paid."""
    digest = desk.hold()
    desk.house.attestor().attest(nonce(1), [digest])
    return [digest]


def coins(address: Address, *, booked: bool) -> Callable[[], Attempt]:
    """A statement for an intent whose permit pins a coin of the wallet and then one at this address."""

    def prepare() -> Attempt:
        desk = Desk()
        anchor, digest = desk.permitted(desk.coin(address_of("bo", BTC, 1)), desk.coin(address, booked=booked))
        attestor = desk.house.attestor()
        return lambda: rules_against(lambda: attestor.attest(anchor, [digest]))

    return prepare


def freed(how: Callable[[Desk, bytes], None]) -> Callable[[], Attempt]:
    """A statement after the hold of an intent that was attested ended like this."""

    def prepare() -> Attempt:
        desk = Desk()
        attestor, digest = desk.house.attestor(), desk.hold()
        attestor.attest(nonce(0), [digest])
        how(desk, digest)
        return lambda: rules_against(attestor.statement)

    return prepare


def c(function: Callable[..., Any], rule: Rule, nth: int = 1) -> tuple[Control, ...]:
    """One control."""
    return (Control(function, rule, nth),)


CASES: Final = [
    Case("one intent twice", c(Asking.refusals, Rule.MALFORMED), asked(twice)),
    Case("nothing is held", c(Asking.refusals, Rule.HOLD), asked(lambda _: [b"\1" * 32])),
    Case("a nonce out of reach", c(Asking._check_anchor, Rule.COIN_GONE), asked(lambda desk: [desk.hold()], nonce(17))),
    Case("a nonce that is gone", c(Asking._check_anchor, Rule.ANCHOR_SPENT), asked(spent)),
    Case(
        "another wallet's nonce",
        c(Asking._check_intent, Rule.WRONG_WALLET),
        asked(lambda desk: [desk.hold()], nonce(0, Tier.OPERATIONAL)),
    ),
    Case(
        "a coin that the ledger has not credited",
        c(Asking._check_coins, Rule.COIN_GONE),
        coins(address_of("bo", BTC, 1), booked=False),
    ),
    Case(
        "a coin of another wallet",
        c(Asking._check_coins, Rule.COIN_GONE, 2),
        coins(DERIVE.derive(certificate(Tier.CUSTOMER_COLD, BTC), Branch.RECEIVE, 0), booked=True),
    ),
    Case("a deposit is lost to a reorg", c(Asking._check_intent, Rule.DEPOSIT_REVERSED), asked(lost)),
    Case("expired", c(Asking._check_intent, Rule.EXPIRED), asked(lapsed)),
    Case(
        "more than the wallet has",
        c(Asking._check_balances, Rule.INSUFFICIENT_BALANCE),
        asked(lambda desk: [desk.unheld(amount=7 * E18), desk.unheld(amount=5 * E18)]),
    ),
    Case(
        "released though it was attested", c(Ends.check, Rule.SIGNATURE_ASKED), freed(lambda desk, d: desk.release(d))
    ),
    Case(
        "freed by the void of another anchor",
        c(Ends.check, Rule.INTENT_BOUND),
        freed(lambda desk, d: desk.execute(nonce(1), d, void=True)),
    ),
    Case("on a second anchor", c(attestor_memory._bound_elsewhere, Rule.INTENT_BOUND), asked(bound_elsewhere)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_attestor_needs_each(case: Case) -> None:
    """With the control there is no statement, by this rule; without it there is one."""
    case.check()


def test_the_attestor_has_no_other() -> None:
    """Each refusal to speak for a payout is in the table."""
    check_complete([attesting_payouts, ended_holds], CASES, {})
