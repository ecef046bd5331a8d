# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a seat binds stays bound: repeated requests, variants, voids, counters, policies and freezes, over its own journal."""

import json
from dataclasses import replace
from typing import Any, Final

import pytest

from custody.rules.birth import check_chain
from custody.rules.errors import InvalidInput
from custody.rules.freezes import FREEZE_MOST
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.payouts import DecodedPayload, PsbtPayload
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Outcome
from custody.rules.seat import decide
from custody.rules.seat_journal import (
    Learned,
    SeatJournal,
    admit_freeze,
    admit_policy,
    admit_unfreeze,
    anchor_key,
    check_admitted,
)
from custody.rules.seat_request import Plan, Request
from custody.rules.signatures import Signed
from custody.rules.statements import SeatPosition
from custody.rules.succession import Terms
from custody.rules.typed import ZERO32
from custody.rules.wallets import Tier
from tests.fakes.attacks import HOT, OTHER, bitcoin_sweep, hot, rotated, rotation, sweep, void
from tests.fakes.seat import BITCOIN, NOW, secp256k1, signed_by
from tests.fakes.trust import (
    BUNDLE,
    PAYEE,
    Ask,
    Built,
    answers,
    build,
    journal_of,
    psbt_of,
    transfers_of,
    world,
)

AUTO = answers(Outcome.AUTOMATIC)
BURNED: Final = b"\x0d" * 32
"""A bundle that never was in force."""


def answer(b: Built, journal: SeatJournal | None = None, now: int | None = None) -> tuple[Refusal, ...] | Plan:
    """What a seat with this journal answers."""
    return decide(b.request, b.decoded, journal or b.journal, b.policy, now or b.now)


def signed(b: Built, journal: SeatJournal | None = None) -> SeatJournal:
    """The journal after a yes."""
    plan = answer(b, journal)
    assert isinstance(plan, Plan), [str(refusal) for refusal in plan]
    journal = journal or b.journal
    for record in plan.records:
        journal = journal.apply(record)
    return journal


def rules(refusals: tuple[Refusal, ...] | Plan | SeatJournal) -> set[Rule]:
    """The rules that refused."""
    assert isinstance(refusals, tuple), "signed"
    return {refusal.rule for refusal in refusals}


def following(
    ask: Ask, journal: SeatJournal, sequence: int = 10, base: Request | None = None, **statement: Any
) -> Built:
    """A request that comes after others: the attestor has seen this seat's head since, and counts on."""
    seats = (SeatPosition("hot-1", journal.state.position, journal.state.head),)
    changed = {"seats": seats, "sequence": sequence, **ask.statement, **statement}
    return replace(build(replace(ask, statement=changed, journal=None), base), journal=journal)


def test_an_identical_request_gets_the_identical_answer() -> None:
    """The worker lost the answer: the same digests again, nothing written, even much later, by another copy of the same bytes."""
    b = build(Ask(payments=3))
    after = signed(b)
    again = Request.from_json(json.loads(json.dumps(b.request.to_json())))
    assert again == b.request
    plan = decide(again, b.decoded, after, b.policy, b.now + 10**6)
    assert isinstance(plan, Plan)
    assert (plan.records, plan.to_sign) == ((), b.decoded.to_sign)  # type: ignore[union-attr]


def test_a_freeze_stops_even_a_repeated_request() -> None:
    """Stricter only: the answer that was lost is not given again while the account is frozen."""
    b = build(Ask())
    after = signed(b)
    frozen = admit_freeze(
        after, signed_by(Freeze("customer:ada", "", NOW, NOW + 5000), world().domain, [secp256k1("bo")]), NOW
    )
    assert isinstance(frozen, SeatJournal)
    assert rules(answer(b, frozen)) == {Rule.FROZEN}


def test_another_payload_on_a_bound_anchor_is_refused() -> None:
    """The nonce belongs to the first payout, whoever approved the second."""
    after = signed(build(Ask()))
    second = following(Ask(both={"amount": 10**18 + 5}), after)
    assert rules(answer(second)) == {Rule.ANCHOR_BOUND}


def test_the_same_intent_on_two_anchors_is_refused() -> None:
    """Radiant: a fake failure, and the same intent offered again at the next nonce."""
    after = signed(build(Ask()))
    assert rules(answer(following(Ask(nonce=8), after))) == {Rule.INTENT_BOUND, Rule.PROPOSAL_BOUND} - {
        Rule.PROPOSAL_BOUND
    }


def test_a_proposal_becomes_one_intent() -> None:
    """A second intent of the same proposal, at another nonce, is refused."""
    after = signed(build(Ask()))
    assert rules(answer(following(Ask(nonce=8, intent={"id": "another"}), after))) == {Rule.PROPOSAL_BOUND}


def test_a_statement_is_accepted_once() -> None:
    """A second payout under the first one's sequence number is refused."""
    after = signed(build(Ask()))
    second = following(Ask(nonce=8, both={"amount": 10**18 + 5}), after, sequence=9)
    assert rules(answer(second)) == {Rule.SEQUENCE}


def bumped(ask: Ask, fee: int) -> Ask:
    """The same Bitcoin payment with another fee, out of its change."""

    def payload(_: PsbtPayload) -> PsbtPayload:
        intent = transfers_of(ask)[0].intent
        from custody.chains.bitcoin.scripts import script_pubkey  # noqa: PLC0415
        from custody.rules.wallets import Address  # noqa: PLC0415

        script = script_pubkey(Address(BITCOIN, intent.destination))
        return PsbtPayload(BITCOIN.name, psbt_of(hot(BITCOIN), [(intent.amount, script)], fee=fee).serialize())

    return replace(ask, payload=payload)


def test_a_variant_differs_in_fee_only() -> None:
    """A higher fee within the maximum is a variant of the same payout; above it, or with another change, it is not."""
    ask = Ask(chain=BITCOIN, policy=AUTO, approvers=())
    after = signed(build(ask))
    variant = following(bumped(ask, 9_000), after)
    plan = answer(variant)
    assert isinstance(plan, Plan), [str(refusal) for refusal in plan]
    assert plan.records[0].automatic == ()  # counted once, with the first
    assert plan.to_sign != build(ask).decoded.to_sign  # type: ignore[union-attr]
    assert Rule.MAXIMUM_FEE in rules(answer(following(bumped(ask, 20_001), after)))
    other_change = bumped(ask, 5_000)
    moved = replace(other_change, payload=lambda p: _moved_change(ask))
    assert rules(answer(following(moved, after))) == {Rule.ANCHOR_BOUND}


def _moved_change(ask: Ask) -> PsbtPayload:
    from custody.chains.bitcoin.scripts import script_pubkey  # noqa: PLC0415
    from custody.rules.wallets import Address  # noqa: PLC0415

    intent = transfers_of(ask)[0].intent
    script = script_pubkey(Address(BITCOIN, intent.destination))
    return PsbtPayload(BITCOIN.name, psbt_of(hot(BITCOIN), [(intent.amount, script)], change=6).serialize())


def test_three_seats_with_three_intents_for_one_nonce_are_healed_by_a_void() -> None:
    """Nothing is refused for good without a way out: the void names every intent, and each seat signs it."""
    asks = [Ask(both={"amount": 10**18 + n}) for n in range(3)]
    digests = [world().domain.digest(transfers_of(ask)[0].intent) for ask in asks]
    journals = [signed(build(ask)) for ask in asks]
    for ask, journal in zip(asks[1:], journals[:-1], strict=True):
        assert rules(answer(following(ask, journal))) == {Rule.ANCHOR_BOUND}
    forgetful = following(Ask(), journals[2], base=void(tuple(digests[:2])))
    assert rules(answer(forgetful)) == {Rule.ANCHOR_BOUND}
    for ask, journal in zip(asks, journals, strict=True):
        killing = following(Ask(), journal, base=void(tuple(digests)))
        after = signed(killing)
        assert answer(killing, after) == Plan((), killing.decoded.to_sign)  # type: ignore[union-attr]
        assert rules(answer(build(ask), after)) >= {Rule.ANCHOR_BOUND}
        for burned in asks:  # none of the three is paid at another nonce
            assert Rule.INTENT_BOUND in rules(answer(following(replace(burned, nonce=8), after, 11)))
        fresh = Ask(nonce=8, both={"amount": 10**18}, proposal={"reference": "again"})
        assert isinstance(answer(following(fresh, after, 11)), Plan)


def test_automatic_counts_until_people_are_needed_and_frees_after_a_day() -> None:
    """9 ETH a day, 2 of 3 parts of it for this seat: six payments of one, and the seventh asks for people."""
    journal = journal_of()
    for number in range(6):
        ask = Ask(policy=AUTO, approvers=(), nonce=7 + number, both={"amount": 10**18 - number})
        journal = signed(following(ask, journal, 10 + number))
    seventh = Ask(policy=AUTO, approvers=(), nonce=20, both={"amount": 10**18 - 9})
    assert rules(answer(following(seventh, journal, 30))) == {Rule.AUTOMATIC_CAP, Rule.QUORUM_NOT_REACHED}
    with_people = replace(seventh, approvers=("ana", "bo"))
    assert (
        signed(following(with_people, journal, 30)).automatic == journal.automatic
    )  # what people approved is not counted
    late: dict[str, Any] = {
        "proposal": {"expiry": NOW + 10**6},
        "intent": {"expiry": NOW + 10**6},
        "now": NOW + 1000 + 86_400,
    }
    assert isinstance(answer(following(replace(seventh, **late), journal, 30)), Plan)


def test_fees_count_towards_the_days_cap() -> None:
    """Two sweeps of one ETH under a cap of one and a half: the second is refused by this seat's own count."""
    ask = Ask(
        to_tier=Tier.OPERATIONAL,
        both={"purpose": "fee_sweep"},
        proposer="finance",
        rows={"available": 0},
        cap=15 * 10**17,
    )
    after = signed(build(ask))
    assert [entry.units for entry in after.swept] == [10**18]
    second = replace(ask, nonce=8, both={"purpose": "fee_sweep", "amount": 10**18 - 1})
    assert rules(answer(following(second, after))) == {Rule.WALL}


def test_a_sweep_counts_its_fee() -> None:
    """What nobody approved and the network takes counts towards the automatic cap."""
    after = signed(build(Ask(chain=BITCOIN, rows={"available": 0}, journal=rotated), bitcoin_sweep()))
    assert [(entry.asset, entry.units) for entry in after.automatic] == [("BTC", 2_000)]
    assert signed(build(Ask(), sweep())).automatic == ()


def test_a_journal_survives_json_and_is_one_chain() -> None:
    """Every record is a line of the hash chain, and the stored form reads back to the same journal."""
    journal, lines = journal_of(), []
    first = journal.state.position
    for number, b in enumerate((build(Ask()), build(Ask(), void((transfers_digest(),))))):
        again = following(Ask(), journal, 10 + number, base=b.request if b.request.void else None)
        journal = signed(again, journal)
        assert journal.tail is not None
        lines.append(journal.tail)
    assert [line.position for line in lines] == [first + 1, first + 2]
    assert lines[1].previous == lines[0].struct_hash
    assert [r.rule for r in check_chain(lines)] == [
        Rule.HASH_CHAIN
    ]  # only because it does not begin at the first record
    stored = json.loads(json.dumps(journal.to_json()))
    assert SeatJournal.from_json(stored) == journal
    assert journal.head_at(first + 1) == lines[0].struct_hash
    assert journal.head_at(first + 9) is None


def transfers_digest() -> bytes:
    """The digest of the plain intent."""
    return world().domain.digest(transfers_of(Ask())[0].intent)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda d: d.pop("anchors"), id="a part missing"),
        pytest.param(lambda d: d.update(sequence="many"), id="a number that is none"),
        pytest.param(lambda d: d.update(policies=["0x01"]), id="a short hash"),
        pytest.param(lambda d: next(iter(d["anchors"].values())).update(voided="no"), id="a flag in words"),
        pytest.param(lambda d: d.update(state=None), id="no state"),
    ],
)
def test_a_damaged_journal_is_never_an_empty_one(damage: Any) -> None:
    """What cannot be read raises: forgetting a binding would sign twice."""
    data = json.loads(json.dumps(signed(build(Ask())).to_json()))
    damage(data)
    with pytest.raises(InvalidInput):
        SeatJournal.from_json(data)


def test_time_never_runs_back_and_never_runs_away() -> None:
    """A host whose clock jumps a year ahead does not drag the journal along: time is bounded by a fresh statement's."""
    b = build(Ask())
    after = signed(b)
    assert after.state.time == b.now
    ahead = replace(b, now=b.now + 500)
    assert signed(ahead).state.time == b.request.statement.message.time + 30


TERMS: Final = Terms(owners=2, delay=3600)
LOOSER: Final = Terms(owners=3, delay=172_800, loosens=("rules.yaml: R01 is gone",))
CLAIMS: Final = Terms(owners=2, delay=3600, group="risk", people=2)


def activation(
    bundle: bytes = OTHER, previous: bytes = BUNDLE, author: str = "dee", not_before: int = NOW
) -> PolicyActivation:
    """A next bundle, written by somebody who owns no policy."""
    return PolicyActivation(bundle, previous, OTHER, author, not_before)


def admit(
    journal: SeatJournal, said: PolicyActivation, people: tuple[str, ...], now: int, terms: Terms | None = TERMS
) -> Learned:
    """What a journal says to an activation that these people signed."""
    signed = signed_by(said, world().domain, [secp256k1(name) for name in people])
    return admit_policy(journal, signed, now, terms)


@pytest.mark.parametrize(
    ("said", "people", "terms", "rule"),
    [
        pytest.param(activation(), ("ana", "bo"), TERMS, None, id="two owners"),
        pytest.param(activation(), ("ana",), TERMS, Rule.QUORUM_NOT_REACHED, id="one owner"),
        pytest.param(
            activation(author="bo"), ("ana", "bo"), TERMS, Rule.QUORUM_NOT_REACHED, id="the author never counts"
        ),
        pytest.param(activation(author="bo"), ("ana", "cy"), TERMS, None, id="two besides the author"),
        pytest.param(
            activation(author="nobody"), ("ana", "bo"), TERMS, Rule.SIGNER_UNKNOWN, id="an author nobody knows"
        ),
        pytest.param(activation(), ("ana", "dee"), TERMS, Rule.QUORUM_NOT_REACHED, id="somebody who owns no policy"),
        pytest.param(activation(), ("ana", "bo"), LOOSER, Rule.QUORUM_NOT_REACHED, id="weaker: two of three"),
        pytest.param(activation(), ("ana", "bo", "cy"), LOOSER, None, id="weaker: three"),
        pytest.param(
            activation(author="cy"), ("ana", "bo", "cy"), LOOSER, Rule.QUORUM_NOT_REACHED, id="weaker: its author third"
        ),
        pytest.param(activation(), ("ana", "bo"), CLAIMS, Rule.QUORUM_NOT_REACHED, id="claims: one of risk"),
        pytest.param(activation(), ("ana", "bo", "cy"), CLAIMS, None, id="claims: two of risk, owners too"),
        pytest.param(
            activation(author="cy"), ("ana", "bo", "cy"), CLAIMS, Rule.QUORUM_NOT_REACHED, id="claims: their author"
        ),
        pytest.param(
            activation(), ("ana", "bo"), replace(TERMS, owners=1), None, id="the roster's own two at the least"
        ),
        pytest.param(
            activation(), ("ana",), replace(TERMS, owners=1), Rule.QUORUM_NOT_REACHED, id="a bundle that asks for fewer"
        ),
        pytest.param(activation(), ("ana", "bo"), None, Rule.NOT_SUCCESSOR, id="terms that nobody worked out"),
        pytest.param(activation(previous=BURNED), ("ana", "bo"), TERMS, Rule.NOT_SUCCESSOR, id="not the successor"),
        pytest.param(
            replace(activation(), diff_report=ZERO32), ("ana", "bo"), TERMS, Rule.MALFORMED, id="without a report"
        ),
    ],
)
def test_a_policy_counts_by_its_owners(
    said: PolicyActivation, people: tuple[str, ...], terms: Terms | None, rule: Rule | None
) -> None:
    """A bundle succeeds the one in force, and everybody signed whom that one asks for; then it is noted, and waits."""
    learned = admit(journal_of(), said, people, NOW, terms)
    if rule is not None:
        assert rules(learned) == {rule}
        return
    assert isinstance(learned, SeatJournal)
    assert (learned.policies, learned.noted) == ((BUNDLE,), ((said.struct_hash, NOW),))
    assert [r.rule for r in check_admitted(learned, said, terms)] == [Rule.TOO_EARLY]


@pytest.mark.parametrize(
    ("terms", "not_before", "first", "earliest"),
    [
        pytest.param(TERMS, NOW, NOW, NOW + 3600, id="stricter: an hour"),
        pytest.param(LOOSER, NOW, NOW, NOW + 172_800, id="weaker: two days"),
        pytest.param(TERMS, 0, NOW + 500, NOW + 4100, id="dated back: from its first sight"),
        pytest.param(TERMS, NOW + 9000, NOW, NOW + 9000, id="not before its own time"),
    ],
)
def test_the_delay_counts_from_first_sight(terms: Terms, not_before: int, first: int, earliest: int) -> None:
    """A second early is too early, and says from when; then it is in force, for ever after the one before."""
    said, people = activation(not_before=not_before), ("ana", "bo", "cy")
    noted = admit(journal_of(), said, people, first, terms)
    assert isinstance(noted, SeatJournal)
    assert noted.tail is not None
    assert (noted.tail.kind, noted.tail.digest) == ("policy_seen", said.struct_hash)
    early = admit(noted, said, people, earliest - 1, terms)
    assert isinstance(early, tuple)
    assert [(r.rule, r.operands["not_before"]) for r in early] == [(Rule.TOO_EARLY, earliest)]
    after = admit(SeatJournal.from_json(json.loads(json.dumps(noted.to_json()))), said, people, earliest, terms)
    assert isinstance(after, SeatJournal)
    assert (after.policies, after.noted) == ((BUNDLE, OTHER), ())
    assert [*check_admitted(after, said, terms)] == []
    assert admit(after, said, people, earliest) is after
    older = (
        activation(BUNDLE, OTHER),
        activation(BUNDLE, BUNDLE),
        replace(said, bundle=BURNED),
        replace(said, bundle=BUNDLE),
    )
    for back in older:
        assert rules(admit(after, back, people, earliest + 999_999, terms)) == {Rule.NOT_SUCCESSOR}


def test_what_waits_is_overtaken() -> None:
    """Objecting is tightening: a stricter bundle signed meanwhile comes first, and what waited follows nothing any more."""
    slow, fast = activation(BURNED), activation()
    both = admit(journal_of(), slow, ("ana", "bo", "cy"), NOW, LOOSER)
    assert isinstance(both, SeatJournal)
    both = admit(both, fast, ("ana", "bo"), NOW + 60)
    assert isinstance(both, SeatJournal)
    assert dict(both.noted) == {slow.struct_hash: NOW, fast.struct_hash: NOW + 60}
    after = admit(both, fast, ("ana", "bo"), NOW + 3660)
    assert isinstance(after, SeatJournal)
    assert after.policies == (BUNDLE, OTHER)
    assert rules(admit(after, slow, ("ana", "bo", "cy"), NOW + 999_999, LOOSER)) == {Rule.NOT_SUCCESSOR}


def freeze(who: str, scope: str = "all", start: int = NOW, lapses: int = NOW + 1000) -> Signed[Freeze]:
    """One person's freeze."""
    return signed_by(Freeze(scope, "", start, lapses), world().domain, [secp256k1(who)])


def test_one_person_freezes_and_another_group_extends() -> None:
    """It lapses by itself; the same group cannot renew it, another can; a stranger freezes nothing; a day is the most."""
    one = admit_freeze(journal_of(), freeze("bo"), NOW)
    assert isinstance(one, SeatJournal)
    assert [f.scope for f in one.frozen(NOW + 999)] == ["all"]
    assert [*one.frozen(NOW + 1000)] == []
    assert admit_freeze(one, freeze("bo"), NOW) is one
    assert rules(admit_freeze(one, freeze("bo", lapses=NOW + 2000), NOW + 900)) == {Rule.FREEZE_TOO_LONG}
    assert isinstance(admit_freeze(one, freeze("dee", lapses=NOW + 2000), NOW + 900), SeatJournal)
    assert rules(admit_freeze(one, freeze("mallory", lapses=NOW + 999), NOW)) >= {Rule.QUORUM_NOT_REACHED}
    too_long = freeze("bo", lapses=NOW + FREEZE_MOST + 1)
    assert rules(admit_freeze(journal_of(), too_long, NOW)) == {Rule.FREEZE_TOO_LONG}


def test_unfreezing_takes_quorum() -> None:
    """One person cannot, two can; before its time nobody can."""
    frozen = freeze("bo")
    journal = admit_freeze(journal_of(), frozen, NOW)
    assert isinstance(journal, SeatJournal)
    said = Unfreeze(frozen.message.struct_hash, "found", NOW + 10)
    two = signed_by(said, world().domain, [secp256k1("ana"), secp256k1("dee")])
    assert rules(admit_unfreeze(journal, replace(two, signatures=two.signatures[:1]), NOW + 10)) == {
        Rule.QUORUM_NOT_REACHED
    }
    assert rules(admit_unfreeze(journal, two, NOW + 9)) == {Rule.TOO_EARLY}
    thawed = admit_unfreeze(journal, two, NOW + 10)
    assert isinstance(thawed, SeatJournal)
    assert [*thawed.frozen(NOW + 11)] == []


def test_a_decoder_that_refuses_is_heard() -> None:
    """What the decoder refused the seat refuses, with the same reasons; silence is no payload."""
    b = build(Ask(payload=lambda tx: replace(tx, gas_price=1)))
    assert rules(answer(b)) == {Rule.GAS_FIELDS}
    assert rules(answer(replace(b, decoded=()))) == {Rule.MALFORMED}


def test_two_things_at_once_are_none() -> None:
    """A void that also pays, or a rotation that also voids, is refused before anything is looked at."""
    b = build(Ask())
    both = replace(b.request, void=void().void)
    assert rules(decide(both, b.decoded, b.journal, b.policy, b.now)) == {Rule.MALFORMED}
    both = replace(rotation(), void=void().void)
    assert rules(decide(both, b.decoded, b.journal, b.policy, b.now)) == {Rule.MALFORMED}


def test_a_seat_that_is_not_born_signs_nothing() -> None:
    """Before genesis is pinned there is no domain to verify in."""
    b = build(Ask())
    unborn = replace(b.journal, state=replace(b.journal.state, roster=None))
    assert rules(answer(b, unborn)) == {Rule.NOT_PINNED}


@pytest.mark.parametrize(
    "base", [pytest.param(None, id="payout"), pytest.param(rotation, id="rotation"), pytest.param(void, id="void")]
)
def test_a_request_travels_as_json(base: Any) -> None:
    """Carried to a cold seat and read back, a request is the same; a field more or less is refused."""
    request = build(Ask(), base() if base else None).request
    body = json.loads(json.dumps(request.to_json()))
    assert Request.from_json(body) == request
    assert Request.from_json(body).hash == request.hash
    for odd in ({**body, "requirement": "none"}, {k: v for k, v in body.items() if k != "statement"}):
        with pytest.raises(InvalidInput):
            Request.from_json(odd)
    with pytest.raises(InvalidInput):
        Request.from_json({**body, "payload": {"type": "Raw", "fields": {}}})


def test_a_record_names_what_it_binds() -> None:
    """Digests, intents and proposals of the plan's record are those of the request."""
    b = build(Ask(payments=2))
    plan = answer(b)
    assert isinstance(plan, Plan)
    assert isinstance(b.decoded, DecodedPayload)
    record = plan.records[0]
    assert record.digests == b.decoded.digests
    assert record.intents == tuple(world().domain.digest(t.intent) for t in b.request.transfers)
    after = b.journal.apply(record)
    assert after.anchors[anchor_key(b.decoded.anchor)].intents == record.intents
    assert set(after.intents.values()) == {anchor_key(b.decoded.anchor)}
    assert PAYEE[hot().chain] == b.request.transfers[0].intent.destination
    assert HOT.value == hot().tier
