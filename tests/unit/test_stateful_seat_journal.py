# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat's journal against a model: requests in any order, restarts, lost answers, old copies, voids, freezes and days that pass.

The model is what TRUST.md says and no more ("Journal of a seat", "One anchor per payout"): a proposal belongs to one intent, an intent
to one anchor, an anchor to one payload and its variants in fee; what nobody approved stays within this seat's share of a day; a request
that was answered is answered the same; whatever was voided is dead. It keeps dicts of short names and knows nothing of hashes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from custody.chains.bitcoin.scripts import script_pubkey
from custody.rules import seat, seat_checks_anchor, seat_checks_quorum, seat_checks_statement, seat_journal
from custody.rules.governance import Freeze
from custody.rules.intents import Anchor, Void
from custody.rules.payouts import Payload, PsbtPayload, ToSign, void_safe_tx
from custody.rules.refusals import Rule
from custody.rules.requirement import Outcome
from custody.rules.seat import decide
from custody.rules.seat_journal import SeatJournal, admit_freeze, anchor_key, bind
from custody.rules.seat_request import Plan, Policies, Request
from custody.rules.statements import SeatPosition
from custody.rules.wallets import Address, Chain
from tests.fakes.attacks import hot
from tests.fakes.machines import budget, finds
from tests.fakes.seat import BITCOIN, EVM, NOW, secp256k1, signed_by
from tests.fakes.trust import (
    Ask,
    Built,
    answers,
    bundle,
    decode,
    evm_payload,
    journal_of,
    psbt_of,
    statement_of,
    transfers_of,
    world,
)

DAY: Final = 86_400
LATEST: Final = NOW + 25 * DAY
CAP: Final = {"ETH": 6 * 10**18, "BTC": 6 * 10**7}
"""This seat's share of `trust.FLOORS.automatic_day`, two of three parts."""
EACH: Final = {"ETH": 2 * 10**18, "BTC": 2 * 10**7}
FEE_MOST: Final = {"ETH": 0, "BTC": 20_000}
POLICIES: Final = {True: answers(Outcome.AUTOMATIC), False: answers(Outcome.REQUIRE)}
REQUESTS_KEPT: Final = 64


@dataclass(frozen=True)
class Thing:
    """An intent by short names: the `version`-th intent of the `order`-th proposal on a chain."""

    chain: Chain
    order: int
    version: int

    @property
    def asset(self) -> str:
        """What it pays."""
        return "ETH" if self.chain == EVM else "BTC"

    @property
    def most(self) -> int:
        """Base units that it may take out, fee included."""
        return EACH[self.asset] + self.order + FEE_MOST[self.asset]


@dataclass
class Place:
    """What the model knows of an anchor."""

    things: frozenset[Thing]
    meaning: tuple[object, ...]
    voided: bool = False
    answered: list[tuple[Request, Built, tuple[ToSign, ...], bool]] = field(default_factory=list)
    """Requests, what they asked, the answer, and whether each was a void."""


def ask_of(things: Sequence[Thing], by_itself: bool, approved: bool, now: int, **more: Any) -> Ask:
    """The first thing as an Ask; the others are joined to its request."""
    first = things[0]
    return Ask(
        chain=first.chain,
        both={"amount": EACH[first.asset] + first.order},
        proposal={"reference": f"order {first.order}", "expiry": LATEST},
        intent={"id": f"{first.chain.name}/{first.order}/{first.version}", "expiry": LATEST},
        policy=POLICIES[by_itself],
        approvers=("ana", "bo") if approved else (),
        now=now,
        **more,
    )


class SeatMachine(RuleBasedStateMachine):
    """One hot seat, a worker that asks for anything, an honest attestor, and people who now and then void or freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = journal_of()
        self.now, self.number = NOW + 1000, 10
        self.places: dict[tuple[Chain, int], Place] = {}
        self.intents: dict[Thing, tuple[Chain, int]] = {}
        self.proposals: dict[tuple[Chain, int], int] = {}
        self.alone: list[tuple[int, str, int]] = []
        self.frozen: list[tuple[str, int]] = []
        self.copies: list[SeatJournal] = []
        self.released: dict[tuple[Chain, int], set[tuple[bool, tuple[object, ...]]]] = {}
        """Everything that was ever signed, by anchor: whether it is a void, and what it does but for the fee."""
        self.paying: dict[Thing, set[tuple[Chain, int]]] = {}

    @initialize()
    def begin(self) -> None:
        """A seat that was just born."""
        self.copies.append(self.journal)

    # what a worker asks

    @rule(
        chain=st.sampled_from([EVM, EVM, BITCOIN]),
        orders=st.lists(st.integers(0, 4), min_size=1, max_size=2, unique=True),
        version=st.sampled_from([0, 0, 0, 1]),
        at=st.integers(0, 3),
        by_itself=st.booleans(),
        approved=st.booleans(),
        fee=st.sampled_from([5_000, 5_000, 9_000, 20_000, 20_001]),
        change=st.sampled_from([5, 5, 5, 6]),
        lag=st.integers(0, 2),
        stale=st.sampled_from([False, False, False, True]),
    )
    def pay(
        self,
        chain: Chain,
        orders: list[int],
        version: int,
        at: int,
        by_itself: bool,
        approved: bool,
        fee: int,
        change: int,
        lag: int,
        stale: bool,
    ) -> None:
        """Some intents on some anchor, in some variant, by a statement that may be an old one."""
        things = [Thing(chain, order, version) for order in orders]
        b = self._payout(things, at, fee, change, by_itself, approved, lag, stale)
        where = (chain, at)
        meaning = (frozenset(things), change if chain == BITCOIN else None)
        expected = self._against(things, where, meaning, by_itself, approved, fee)
        if stale:
            expected.add(Rule.SEQUENCE)
        plan = self._answer(b, expected)
        if plan is None:
            return
        fresh = [thing for thing in things if thing not in self.intents]
        if by_itself and self._used(chain) + sum(t.most for t in fresh) <= CAP[things[0].asset]:
            self.alone += [(self.now, thing.asset, thing.most) for thing in fresh]
        place = self.places.setdefault(where, Place(frozenset(things), meaning))
        for thing in things:
            self.intents.setdefault(thing, where)
            self.proposals.setdefault((chain, thing.order), version)
            self.paying.setdefault(thing, set()).add(where)
        place.answered.append((b.request, b, plan.to_sign, False))
        self.released.setdefault(where, set()).add((False, meaning))

    @precondition(lambda self: any(place.answered for place in self.places.values()))
    @rule(data=st.data(), later=st.sampled_from([0, 0, 3600, 3 * DAY]))
    def again(self, data: st.DataObject, later: int) -> None:
        """A request whose answer the worker lost: the identical answer, however late, unless voided or frozen since."""
        where = data.draw(st.sampled_from([key for key, place in self.places.items() if place.answered]))
        place = self.places[where]
        number = data.draw(st.integers(0, len(place.answered) - 1))
        request, b, to_sign, was_void = place.answered[number]
        now = self.now + later
        answer = decide(Request.from_json(request.to_json()), b.decoded, self.journal, b.policy, now)
        remembered = number >= len(place.answered) - REQUESTS_KEPT
        stopped = self._stopped(place.things, where[0], now) and not was_void
        if remembered and not stopped and place.voided == was_void:
            assert answer == Plan((), to_sign)
        else:
            assert isinstance(answer, tuple)
            told = {refusal.rule for refusal in answer}
            assert not stopped or Rule.FROZEN in told
            assert place.voided == was_void or Rule.ANCHOR_BOUND in told

    @rule(
        at=st.integers(0, 3),
        more=st.integers(0, 4),
        forgets=st.sampled_from([False, False, True]),
        people=st.sampled_from([2, 2, 1]),
    )
    def kill(self, at: int, more: int, forgets: bool, people: int) -> None:
        """People void an EVM anchor: two of them, and every intent bound to it has to be named."""
        where, named = (EVM, at), {Thing(EVM, more, 0)}
        place = self.places.get(where)
        bound = sorted(place.things, key=lambda t: (t.order, t.version)) if place is not None else []
        named |= set(bound[1:] if forgets else bound)
        payload = void_safe_tx(EVM.name, hot().safe[0].address, 7 + at)
        anchor = Anchor(EVM.name, hot().struct_hash, str(7 + at))
        digests = tuple(sorted(self._digest(thing) for thing in named))
        signed = world().deployment.people_sign(Void(anchor, digests), ("ana", "bo")[:people])
        b = self._asked(Ask(now=self.now), payload, (), signed=signed)
        expected = set() if people == 2 else {Rule.QUORUM_NOT_REACHED}
        if set(bound) - named:
            expected.add(Rule.ANCHOR_BOUND)
        plan = self._answer(b, expected)
        if plan is None:
            return
        killed = self.places.setdefault(where, Place(frozenset(), (frozenset(),)))
        killed.voided, killed.things = True, killed.things | named
        killed.answered.append((b.request, b, plan.to_sign, True))
        for thing in named:
            self.intents.setdefault(thing, where)
        self.released.setdefault(where, set()).add((True, ()))

    # what happens to a seat

    @rule()
    def restart(self) -> None:
        """The process ends and reads what it stored."""
        stored = json.loads(json.dumps(self.journal.to_json()))
        assert SeatJournal.from_json(stored) == self.journal
        self.journal = SeatJournal.from_json(stored)

    @precondition(lambda self: len(self.copies) > 1)
    @rule(data=st.data(), order=st.integers(0, 4), at=st.integers(0, 3), void=st.booleans())
    def roll_back(self, data: st.DataObject, order: int, at: int, void: bool) -> None:
        """Restored from an older copy, behind the head that the attestor saw: it signs nothing, not even a void."""
        old = data.draw(st.sampled_from(self.copies[:-1]))
        newest, self.journal = self.journal, old
        if void:
            anchor = Anchor(EVM.name, hot().struct_hash, str(7 + at))
            signed = world().deployment.people_sign(Void(anchor, (self._digest(Thing(EVM, order, 0)),)), ("ana", "bo"))
            payload = void_safe_tx(EVM.name, hot().safe[0].address, 7 + at)
            b = self._asked(Ask(now=self.now), payload, (), head=newest, signed=signed)
        else:
            b = self._payout([Thing(EVM, order, 0)], at, 5_000, 5, False, True, 0, False, head=newest)
        answer = decide(b.request, b.decoded, old, b.policy, self.now)
        assert isinstance(answer, tuple)
        assert Rule.BEHIND in {refusal.rule for refusal in answer}
        self.journal = newest

    @rule(seconds=st.sampled_from([60, 3600, 9 * 3600, DAY - 1, DAY]))
    def passes(self, seconds: int) -> None:
        """Time."""
        if self.now + seconds < LATEST - 5 * DAY:
            self.now += seconds

    @rule(scope=st.sampled_from(["customer:ada", "customer:bo", f"chain:{EVM.name}", f"chain:{BITCOIN.name}", "all"]))
    def freeze(self, scope: str) -> None:
        """One person stops a scope for an hour."""
        said = Freeze(scope, "", self.now, self.now + 3600)
        learned = admit_freeze(self.journal, signed_by(said, world().domain, [secp256k1("bo")]), self.now)
        if isinstance(learned, SeatJournal) and learned is not self.journal:
            self._took(learned)
            self.frozen.append((scope, self.now + 3600))

    # what has to hold

    @invariant()
    def one_payload_an_anchor(self) -> None:
        """Whatever was signed for an anchor is one payload, its variants and its void; an intent is paid on one anchor."""
        for where, done in self.released.items():
            assert len({meaning for void, meaning in done if not void}) <= 1, where
        for thing, places in self.paying.items():
            assert len(places) <= 1, thing

    @invariant()
    def one_intent_a_proposal(self) -> None:
        """A proposal is never paid as two intents."""
        found: dict[tuple[Chain, int], set[int]] = {}
        for thing in self.paying:
            found.setdefault((thing.chain, thing.order), set()).add(thing.version)
        assert all(len(versions) == 1 for versions in found.values())

    @invariant()
    def inside_the_days_cap(self) -> None:
        """In no window of a day did more go by itself than this seat's share."""
        for since, asset, _ in self.alone:
            window = sum(units for time, of, units in self.alone if of == asset and since <= time < since + DAY)
            assert window <= CAP[asset]

    @invariant()
    def journal_is_the_model(self) -> None:
        """Bindings, heads and counters as the model has them."""
        journal = self.journal
        assert set(journal.anchors) == {anchor_key(self._anchor(*where)) for where in self.places}
        bound = {self._digest(thing): anchor_key(self._anchor(*where)) for thing, where in self.intents.items()}
        assert dict(journal.intents) == bound
        assert journal.state.time <= self.now
        assert journal.head_at(journal.state.position) == journal.state.head
        for asset in ("ETH", "BTC"):
            assert seat_journal.counted(journal.automatic, asset, self.now) == self._used_of(asset)

    # the model

    def _against(
        self,
        things: list[Thing],
        where: tuple[Chain, int],
        meaning: tuple[object, ...],
        alone: bool,
        people: bool,
        fee: int,
    ) -> set[Rule]:
        """Every rule that stands against a payout, by the model."""
        found, chain = set(), where[0]
        place = self.places.get(where)
        if place is not None and (place.voided or place.things != set(things) or place.meaning != meaning):
            found.add(Rule.ANCHOR_BOUND)
        if any(self.intents.get(thing, where) != where for thing in things):
            found.add(Rule.INTENT_BOUND)
        if any(self.proposals.get((chain, thing.order), thing.version) != thing.version for thing in things):
            found.add(Rule.PROPOSAL_BOUND)
        if self._stopped(frozenset(things), chain, self.now):
            found.add(Rule.FROZEN)
        fresh = sum(thing.most for thing in things if thing not in self.intents)
        over = self._used(chain) + fresh > CAP[things[0].asset]
        if not people and (over or not alone):
            found |= {Rule.QUORUM_NOT_REACHED} | ({Rule.AUTOMATIC_CAP} if alone else set())
        if chain == BITCOIN and fee > 20_000 * len(things):
            found.add(Rule.MAXIMUM_FEE)
        return found

    def _stopped(self, things: frozenset[Thing], chain: Chain, now: int) -> bool:
        scopes = {"all", f"chain:{chain.name}"} | ({"customer:ada"} if things else set())
        return any(scope in scopes and now < lapses for scope, lapses in self.frozen)

    def _used(self, chain: Chain) -> int:
        return self._used_of("ETH" if chain == EVM else "BTC")

    def _used_of(self, asset: str) -> int:
        return sum(units for time, of, units in self.alone if of == asset and time > self.now - DAY)

    # what is asked

    def _digest(self, thing: Thing) -> bytes:
        (transfer,) = transfers_of(ask_of([thing], by_itself=False, approved=False, now=self.now))
        return world().domain.digest(transfer.intent)

    def _anchor(self, chain: Chain, at: int) -> Anchor:
        if chain == EVM:
            return Anchor(EVM.name, hot().struct_hash, str(7 + at))
        coin = psbt_of(hot(BITCOIN), [], units=2 * 10**8 + at).inputs[0]
        return Anchor(BITCOIN.name, hot(BITCOIN).struct_hash, f"{coin.txid.hex()}:{coin.vout}")

    def _payout(
        self,
        things: list[Thing],
        at: int,
        fee: int,
        change: int,
        by_itself: bool,
        approved: bool,
        lag: int,
        stale: bool,
        head: SeatJournal | None = None,
    ) -> Built:
        transfers = tuple(
            transfers_of(ask_of([thing], by_itself=by_itself, approved=approved, now=self.now))[0] for thing in things
        )
        ask = ask_of(things, by_itself, approved, self.now, nonce=7 + at)
        intents = [transfer.intent for transfer in transfers]
        payload: Payload
        if things[0].chain == EVM:
            payload = evm_payload(ask, intents)
        else:
            outputs = [(i.amount, script_pubkey(Address(BITCOIN, i.destination))) for i in intents]
            psbt = psbt_of(hot(BITCOIN), outputs, units=2 * 10**8 + at, fee=fee, change=change)
            payload = PsbtPayload(BITCOIN.name, psbt.serialize())
        return self._asked(ask, payload, transfers, lag=lag, stale=stale, head=head)

    def _asked(
        self,
        ask: Ask,
        payload: Payload,
        transfers: tuple[Any, ...],
        *,
        lag: int = 0,
        stale: bool = False,
        head: SeatJournal | None = None,
        signed: Any = None,
    ) -> Built:
        """With the attestor's next statement, or under the number of its last; it saw this seat's head, or one a little older."""
        self.number += not stale
        known = head or self.journal
        seen = (known.state.position, known.state.head)
        if lag and head is None and len(known.heads) >= lag:
            seen = known.heads[-lag]
        certificate = hot(ask.chain)
        anchor = self._anchor_of(payload)
        sequence = self.journal.sequence if stale else self.number
        told = {"seats": (SeatPosition("hot-1", *seen),), "sequence": sequence}
        statement = statement_of(replace(ask, statement=told), transfers, anchor, known)
        request = Request(payload, certificate.struct_hash, statement, transfers, void=signed)
        return Built(request, decode(payload, certificate), self.journal, Policies(bundle(ask.policy), {}), self.now)

    def _anchor_of(self, payload: Payload) -> Anchor:
        at = range(4)
        if isinstance(payload, PsbtPayload):
            decoded = decode(payload, hot(BITCOIN))
            assert not isinstance(decoded, tuple)
            return next(a for n in at if (a := self._anchor(BITCOIN, n)) == decoded.anchor)
        return self._anchor(EVM, payload.nonce - 7)

    def _answer(self, b: Built, expected: set[Rule]) -> Plan | None:
        """What the seat says is what the model says; a host that hands in only what a request touches gets the same."""
        answer = decide(b.request, b.decoded, self.journal, b.policy, self.now)
        assert answer == decide(b.request, b.decoded, self._touched(b), b.policy, self.now)
        told = set() if isinstance(answer, Plan) else {refusal.rule for refusal in answer}
        assert told == expected, (sorted(told), sorted(expected))
        if not isinstance(answer, Plan):
            return None
        (record,) = answer.records
        after = self.journal.apply(record)
        key = anchor_key(record.anchor)
        assert bind(after.anchors[key], record) == after.anchors[key]  # a host may complete it after a crash
        self._took(after)
        return answer

    def _touched(self, b: Built) -> SeatJournal:
        assert not isinstance(b.decoded, tuple)
        key = anchor_key(b.decoded.anchor)
        digests = {world().domain.digest(t.intent) for t in b.request.transfers}
        proposals = {t.proposal.message.struct_hash for t in b.request.transfers}
        return replace(
            self.journal,
            anchors={k: v for k, v in self.journal.anchors.items() if k == key},
            intents={k: v for k, v in self.journal.intents.items() if k in digests},
            proposals={k: v for k, v in self.journal.proposals.items() if k in proposals},
        )

    def _took(self, after: SeatJournal) -> None:
        assert after.tail is not None
        assert after.tail.previous == self.journal.state.head
        assert after.state.position == self.journal.state.position + 1
        self.journal = after
        self.copies = [*self.copies[-20:], after]


def test_a_seat_against_its_model() -> None:
    """Whatever is asked in whatever order, a seat answers as the model says and signs nothing twice."""
    run_state_machine_as_test(SeatMachine, settings=budget(18, 30))


def _without(check: object) -> Any:
    return {kind: tuple(c for c in checks if c is not check) for kind, checks in seat.CHECKS.items()}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(seat_checks_anchor.check_anchor, id="an anchor takes a second payload"),
        pytest.param(seat_checks_anchor.check_intents_unbound, id="an intent is paid on two anchors"),
        pytest.param(seat_checks_anchor.check_proposals_unbound, id="a proposal becomes two intents"),
        pytest.param(seat_checks_anchor.check_freeze, id="frozen, and signed"),
        pytest.param(seat_checks_statement.check_sequence, id="a statement used twice"),
        pytest.param(seat_checks_statement.check_head, id="an old copy signs"),
        pytest.param(seat_checks_quorum.check_automatic, id="no cap"),
        pytest.param(seat_checks_quorum.check_void_intents, id="a void forgets an intent"),
    ],
)
def test_finds_a_check_that_is_gone(monkeypatch: pytest.MonkeyPatch, check: object) -> None:
    """Each check taken out of the table is missed."""
    monkeypatch.setattr(seat, "CHECKS", _without(check))
    finds(SeatMachine)


def test_finds_a_counter_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went by itself before does not count: a day's cap is taken again and again."""
    monkeypatch.setattr(seat_checks_quorum, "counted", lambda entries, asset, now: 0)
    finds(SeatMachine)
