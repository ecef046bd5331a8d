# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every hostile request and payload that the tables of the unit tests know, put to a seat inside a real OpenBao."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, cast

import pytest

from custody.rules.payouts import PsbtPayload
from custody.rules.refusals import Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.statements import SeatPosition
from custody.vault.keyring import RemoteSeat
from devnet.openbao import OpenBao
from policies.bundle import Bundle, from_json
from tests.fakes import attacks, trust
from tests.fakes.engine import DrawerClient, DrawerVault
from tests.fakes.seat import BITCOIN, EVM, Clock, FakeVault, rules_of, seat_in_memory
from tests.fakes.seated import _activation, shipped
from tests.fakes.trust import Ask, build, world
from tests.unit import test_bitcoin_decode, test_evm_decode
from tests.unit.shipped import with_rules
from tests.unit.test_seat_decide import ROWS

_PLAIN: Final = Ask()
_NUMBERS: Final = itertools.count(1000)
_PERMIT: Final = {"kind": "permit", "why": "As the tables.", "approvals": ["1 of operations", "1 of risk"]}
_TIERS: Final = ["customer_hot", "customer_cold", "operational"]
_ROUTES: Final = {
    "customer_withdrawal": ["withdrawal"],
    "internal_wallet": ["rebalance", "cold_sweep", "fee_sweep", "make_whole"],
    "allow_listed": ["vendor_payment"],
}


def _when(to: str, purpose: str) -> dict[str, list[str]]:
    inside = {"to_tier": _TIERS} if to == "internal_wallet" else {}
    return {"from": _TIERS, "to": [to], **inside, "purpose": [purpose]}


_RULES: Final = [
    {"id": f"P0{i}-{purpose.replace('_', '-')}", **_PERMIT, "when": _when(to, purpose)}
    for i, (to, purpose) in enumerate((to, purpose) for to, purposes in _ROUTES.items() for purpose in purposes)
]
"""Two groups look at whatever it is: what the tables' own policy asks."""


@cache
def bundle() -> Bundle:
    """A whole bundle that says what the tables' policy says, over their tokens."""
    documents = json.dumps(with_rules(shipped(), _RULES).to_json())
    for symbol in ("USDX",):
        ours, theirs = shipped().assets.get(symbol).contract, trust.ASSETS.get(symbol).contract
        documents = documents.replace(str(ours), str(theirs))
    return from_json(json.loads(documents))


@dataclass
class Engine:
    """hot-1 of the world that the tables speak of, in a drawer of the engine, with the shipped bundle in force."""

    seat: RemoteSeat
    clock: Clock
    head: SeatPosition
    server: OpenBao

    def request(self, ask: Ask, base: Request | None = None) -> Request:
        """What the ask describes, under the shipped bundle and a statement that is newer than every one before."""
        said = {"policy": bundle().hash, "sequence": next(_NUMBERS), "seats": (self.head,), **ask.statement}
        intent = {"policy": bundle().hash, **ask.intent}
        return build(replace(ask, statement=said, intent=intent), base).request

    def answer(self, request: Request, now: int) -> set[Rule]:
        """The rules that refuse; nothing where it signs."""
        self.clock.now = now
        try:
            self.seat.sign(request)
        except Refused as refused:
            return rules_of(refused)
        return set()


@pytest.fixture(scope="module")
def engine(engine_drawers: OpenBao) -> Engine:
    """The seat that the tables' world has in memory, with everything that it keeps, moved into the engine's storage."""
    deployment, memory, clock = world().deployment, FakeVault(), Clock()
    memory.documents = json.loads(json.dumps(_vault_of(deployment.seats[0]).documents))
    memory._identity = _vault_of(deployment.seats[0])._identity
    host = seat_in_memory("hot-1", memory, clock)
    host.admit_policy(_activation(world(), bundle().hash), bundle().to_json())
    head = host.head().message
    client = DrawerClient(engine_drawers, "tables")
    client.clock = clock
    vault = DrawerVault(client)
    vault.identity_public()  # made first: with a journal and without an identity the engine knows that it lost one
    for path, versions in memory.documents.items():
        vault.write(path, json.loads(versions[-1]), 0)
    return Engine(RemoteSeat("hot-1", client), clock, SeatPosition("hot-1", head.position, head.head), engine_drawers)


def _vault_of(seat: Any) -> Any:
    return seat._vault


def _told(wrong: Iterable[tuple[str, Rule, set[Rule]]]) -> str:
    return "\n".join(f"{name}: want {rule}, got {sorted(got) or 'a signature'}" for name, rule, got in wrong)


def _by_request(row: attacks.Row) -> bool:
    """Whether the lie is in what is asked; the others tell of a journal or a decoder that is not as it should be."""
    kept = ("journal", "decoded", "pinned", "cap")
    same = all(getattr(row.ask, name) == getattr(_PLAIN, name) for name in kept)
    return same and _decision(row.ask) == _decision(_PLAIN)


def _decision(ask: Ask) -> Any:
    return ask.policy.evaluate(cast("Any", None))


def test_every_lie_of_the_table(engine: Engine) -> None:
    """Approvals that are none, too few, twice, an outsider's, another digest's, expired; forged statements, old rosters, and on.

    The honest request beside them is signed last. A wallet that this seat never accepted is refused before anything is decoded.
    """
    rows = [row for row in ROWS if _by_request(row)]
    before, wrong = engine.seat.status()["head"], []
    for row in rows:
        got = engine.answer(engine.request(row.ask, row.base()), row.ask.now)
        if row.rule not in got and got != {Rule.UNKNOWN_WALLET}:
            wrong.append((row.id, row.rule, got))
    assert not wrong, _told(wrong)
    assert len(rows) > 150
    assert engine.seat.status()["head"] == before
    audit = engine.server.audit_file.read_text()
    assert not [row.rule for row in rows if row.rule is not Rule.COVERAGE and f'\\"{row.rule.value}\\"' not in audit]
    assert engine.answer(engine.request(_PLAIN), _PLAIN.now) == set()


def test_every_hostile_payload(engine: Engine) -> None:
    """PSBTs that lie about amounts, lack their coins' transactions, or ask for other sighashes; SafeTxs that do more than pay."""
    before, wrong = engine.seat.status()["head"], []
    bitcoin, evm = engine.request(Ask(chain=BITCOIN)), engine.request(Ask(chain=EVM, nonce=9))
    psbts = [
        (name, PsbtPayload(BITCOIN.name, test_bitcoin_decode.changed(change).serialize()), rule)
        for name, change, rule in test_bitcoin_decode.REFUSED
    ]
    for (name, payload, rule), base in (
        *((row, bitcoin) for row in psbts),
        *((row, evm) for row in test_evm_decode.REFUSED),
    ):
        got = engine.answer(replace(base, payload=payload), _PLAIN.now)
        if rule not in got:
            wrong.append((name, rule, got))
    assert not wrong, _told(wrong)
    assert len(psbts) + len(test_evm_decode.REFUSED) > 60
    assert engine.seat.status()["head"] == before
