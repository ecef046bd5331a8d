# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pure decisions of a seat, and what is left when its process dies between any two writes."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from custody.rules.birth import (
    RecordKind,
    SeatRecord,
    SeatState,
    Step,
    add_wallet_key,
    admit_roster,
    check_chain,
    check_in_force,
    pin,
    seat_head,
)
from custody.rules.certificates import WalletKey
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.typed import ZERO32, Domain
from custody.vault.attestor_key import AttestorVault
from custody.vault.seat import SeatHost
from tests.fakes.seat import (
    BITCOIN,
    EVM,
    HOT,
    NOW,
    Clock,
    Deployment,
    FakeVault,
    rules_of,
    seat_in_memory,
    secp256k1,
    signed_by,
)

LABEL = "customer_hot/a"


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """Four seats in memory after genesis."""
    return Deployment([seat_in_memory(name) for name in HOT]).pinned()


@pytest.fixture(scope="module")
def pinned(deployment: Deployment) -> SeatState:
    """hot-1's state right after genesis."""
    step = pin(SeatState("hot-1"), deployment.genesis(), deployment.seats[0].identity(), NOW)
    assert isinstance(step, Step)
    return step.state


def _key(label: str, public: bytes = b"\x02" * 33, xpub: str = "", chain: str = EVM.name) -> WalletKey:
    return WalletKey("hot-1", label, chain, public, xpub)


KEYS: dict[str, tuple[WalletKey, Rule | None]] = {
    "the same again": (_key("a"), None),
    "another key for the label": (_key("a", b"\x03" * 33), Rule.ALREADY_EXISTS),
    "the same key for another label": (_key("b"), Rule.KEY_REUSED),
    "another key for another label": (_key("b", b"\x03" * 33), None),
    "the same xpub under another origin": (_key("b", b"", "[00000000/1h]tpubX", BITCOIN.name), Rule.KEY_REUSED),
    "another seat's key": (replace(_key("b", b"\x03" * 33), seat="hot-2"), Rule.NOT_OWN_KEY),
}


@pytest.mark.parametrize(("key", "rule"), KEYS.values(), ids=KEYS.keys())
def test_one_key_for_each_label(pinned: SeatState, key: WalletKey, rule: Rule | None) -> None:
    """One key for each label and chain, one label and chain for each key."""
    state = pinned
    for known in (_key("a"), _key("x", b"", "[d34db33f/48h/1h/0h/2h]tpubX", BITCOIN.name)):
        step = add_wallet_key(state, known, NOW)
        assert isinstance(step, Step)
        state = step.state
    outcome = add_wallet_key(state, key, NOW)
    if rule is None:
        assert isinstance(outcome, Step)
        assert (outcome.record is None) == (key in state.keys)
    else:
        assert isinstance(outcome, tuple)
        assert {refusal.rule for refusal in outcome} == {rule}


def test_a_move_is_one_record_and_leaves_the_old_state_alone(pinned: SeatState) -> None:
    """The record names the head before it; the new head is its hash."""
    step = add_wallet_key(pinned, _key("a"), NOW + 5)
    assert isinstance(step, Step)
    want = SeatRecord(pinned.position + 1, RecordKind.WALLET_KEY, _key("a").struct_hash, NOW + 5, pinned.head)
    assert step.record == want
    assert (step.state.position, step.state.head, step.state.time) == (want.position, want.struct_hash, NOW + 5)
    assert pinned.keys == ()


def test_a_roster_waits_for_its_delay(deployment: Deployment, pinned: SeatState) -> None:
    """A successor before its time is refused, and the seat's own past counts as time where its clock was set back."""
    two = deployment.people_sign(deployment.successor(not_before=NOW + 50))
    early = admit_roster(pinned, two, NOW + 49)
    assert isinstance(early, tuple)
    assert {refusal.rule for refusal in early} == {Rule.TOO_EARLY}
    assert isinstance(admit_roster(replace(pinned, time=NOW + 50), two, NOW), Step)


def test_the_delay_counts_from_first_sight() -> None:
    """A quorum that names a time long past puts nothing in force before a seat has seen it for the delay of the old roster."""
    unborn = Deployment([seat_in_memory(name) for name in HOT])
    version = replace(unborn.version, delay=100)
    state = SeatState("hot-1", version.struct_hash, unborn.genesis(version), time=NOW)
    following = replace(version, version=2, previous=version.struct_hash, not_before=version.not_before + 100)
    signers = [secp256k1("ana"), secp256k1("bo")]
    two = signed_by(following, Domain(version.struct_hash), signers)
    alone = admit_roster(state, signed_by(following, Domain(version.struct_hash), signers[:1]), NOW + 500)
    assert isinstance(alone, tuple)
    assert {refusal.rule for refusal in alone} == {Rule.QUORUM_NOT_REACHED}
    noted = admit_roster(state, two, NOW + 500)
    assert isinstance(noted, Step)
    assert noted.record is not None
    assert (noted.record.kind, noted.record.digest) == (RecordKind.ROSTER_SEEN, following.struct_hash)
    assert SeatState.from_json(noted.state.to_json()) == noted.state
    assert [(r.rule, r.operands["not_before"]) for r in check_in_force(noted.state, following)] == [
        (Rule.TOO_EARLY, NOW + 600)
    ]
    early = admit_roster(noted.state, two, NOW + 599)
    assert isinstance(early, tuple)
    assert {refusal.rule for refusal in early} == {Rule.TOO_EARLY}
    assert noted.state.pinned is not None
    assert noted.state.pinned.version == version
    taken = admit_roster(noted.state, two, NOW + 600)
    assert isinstance(taken, Step)
    assert (taken.state.roster, taken.state.seen) == (two, ())
    assert list(check_in_force(taken.state, following)) == []


def test_a_seat_says_from_when_a_roster_counts() -> None:
    """Noted is not taken: the host refuses until the delay has passed, and remembers what it noted in its vault."""
    vault, clock = FakeVault(), Clock()
    unborn = Deployment([seat_in_memory("hot-1", vault, clock), *(seat_in_memory(name) for name in HOT[1:])])
    unborn.version = replace(unborn.version, delay=100)
    deployment = unborn.pinned()
    two = deployment.people_sign(deployment.successor(not_before=NOW + 100))
    clock.now = NOW + 5000
    for later, rules in ((0, {Rule.TOO_EARLY}), (99, {Rule.TOO_EARLY}), (100, set())):
        clock.now = NOW + 5000 + later
        seat = seat_in_memory("hot-1", vault, clock)
        try:
            seat.admit_roster(two)
        except Refused as refused:
            assert rules_of(refused) == rules  # noqa: PT017  # both outcomes stand in one table
        assert seat.head().message.roster == (1 if rules else 2)
    assert list(check_chain(seat_in_memory("hot-1", vault, clock).records())) == []


def test_a_state_from_before_sights(pinned: SeatState) -> None:
    """Has seen nothing: delays begin."""
    body = pinned.to_json()
    del body["seen"]
    assert SeatState.from_json(body) == pinned


def test_state_survives_json(deployment: Deployment) -> None:
    """What was stored is what is read, certificates and all."""
    vault = FakeVault()
    seats = [seat_in_memory("hot-1", vault), *(seat_in_memory(name) for name in HOT[1:])]
    born = Deployment(seats).pinned()
    seats[0].accept(born.people_sign(born.draft(LABEL)))
    stored, _ = vault.read("state")
    assert stored is not None
    state = SeatState.from_json(stored["state"])
    assert state.to_json() == stored["state"]
    assert list(state.wallets) == [born.draft(LABEL).struct_hash]


DAMAGE: dict[str, Callable[[dict[str, object]], object]] = {
    "nothing": lambda body: None,
    "a missing field": lambda body: {k: v for k, v in body.items() if k != "keys"},
    "a short head": lambda body: body | {"head": "0x00"},
    "a position in words": lambda body: body | {"position": "seven"},
    "keys that are none": lambda body: body | {"keys": [{}]},
    "a roster in part": lambda body: body | {"roster": {"type": "RosterVersion"}},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_state_is_not_a_new_one(pinned: SeatState, damage: Callable[[dict[str, object]], object]) -> None:
    """Whatever cannot be read stops the seat; it does not begin again."""
    with pytest.raises(InvalidInput):
        SeatState.from_json(json.loads(json.dumps(damage(pinned.to_json()))))


def test_a_state_that_is_gone_is_not_a_new_one() -> None:
    """Deleted, or lost while the journal stands: the seat is not born a second time."""
    vault = FakeVault()
    Deployment([seat_in_memory("hot-1", vault), *(seat_in_memory(name) for name in HOT[1:])]).pinned()
    vault.deleted.add("state")
    with pytest.raises(Unavailable):
        seat_in_memory("hot-1", vault).status()
    vault.deleted.clear()
    del vault.documents["state"]
    with pytest.raises(Refused) as refused:
        seat_in_memory("hot-1", vault).status()
    assert rules_of(refused.value) == {Rule.HASH_CHAIN}


def _chain(*times: int) -> list[SeatRecord]:
    records: list[SeatRecord] = []
    for position, time in enumerate(times, 1):
        records.append(
            SeatRecord(position, RecordKind.PINNED, ZERO32, time, records[-1].struct_hash if records else ZERO32)
        )
    return records


CHAINS: dict[str, tuple[list[SeatRecord], bool]] = {
    "empty": ([], True),
    "whole": (_chain(1, 1, 5), True),
    "time runs back": (_chain(5, 4), False),
    "a gap": ([_chain(1, 1, 1)[0], _chain(1, 1, 1)[2]], False),
    "no beginning": (_chain(1, 1)[1:], False),
    "an edited record": ([replace(_chain(1, 2)[0], time=0), _chain(1, 2)[1]], False),
    "two in the wrong order": (_chain(1, 1)[::-1], False),
}


@pytest.mark.parametrize(("records", "whole"), CHAINS.values(), ids=CHAINS.keys())
def test_the_journal_is_a_hash_chain(records: list[SeatRecord], whole: bool) -> None:
    """Every kind of edit shows."""
    assert (list(check_chain(records)) == []) is whole


def test_no_head_before_genesis() -> None:
    """There is no deployment yet in which a head could mean anything."""
    assert isinstance(seat_head(SeatState("hot-1")), Refusal)


def _birth(seat: SeatHost, deployment: Deployment) -> None:
    """A whole birth of one seat; each step may be asked again."""
    seat.sign_roster(deployment.version)
    seat.pin(deployment.genesis())
    for chain in (EVM, BITCOIN):
        seat.accept(deployment.people_sign(deployment.draft(LABEL, chain=chain)))


def _writes_of_a_birth() -> int:
    vault = FakeVault()
    deployment = Deployment([seat_in_memory("hot-1", vault), *(seat_in_memory(name) for name in HOT[1:])])
    for seat in deployment.seats[1:]:
        seat.sign_roster(deployment.version)
    deployment.pinned()
    _birth(seat_in_memory("hot-1", vault), deployment)
    return vault.writes


WRITES = 14
"""Two for each of six records, and one for each of two wallet keys; `test_every_write_was_tried` counts them."""


@pytest.mark.parametrize("write", range(1, WRITES + 1))
@pytest.mark.parametrize("moment", ["die_before", "die_after"])
def test_a_crash_at_any_write(moment: str, write: int) -> None:
    """Killed before or after any write, a new process over the same vault ends where an undisturbed one does.

    No key is made twice, and nothing that was signed is missing from the journal.
    """
    vault = FakeVault()
    others = [seat_in_memory(name) for name in HOT[1:]]
    deployment = Deployment([seat_in_memory("hot-1", vault), *others])
    # the others are born without hot-1's vault noticing: what it signs is signed by another host over a copy of its identity
    twin = FakeVault()
    twin._identity = vault._identity
    deployment.seats = [seat_in_memory("hot-1", twin), *others]
    genesis = deployment.genesis()
    for other in others:
        other.pin(genesis)
    deployment.seats = [seat_in_memory("hot-1", vault), *others]
    setattr(vault, moment, write)
    with pytest.raises(Unavailable):
        _birth(seat_in_memory("hot-1", vault), deployment)
    found = seat_in_memory("hot-1", vault)
    signed_before = [key.struct_hash for key in SeatState.from_json(_state(vault)).keys] if _state(vault) else []
    _birth(found, deployment)
    records = found.records()
    assert [r.kind for r in records] == ["roster_signed", "pinned", *["wallet_key", "certificate"] * 2]
    assert list(check_chain(records)) == []
    assert found.head().message.head == records[-1].struct_hash
    assert set(signed_before) <= {r.digest for r in records}
    assert len([path for path in vault.documents if path.startswith("keys/")]) == 2
    assert all(len(versions) == 1 for path, versions in vault.documents.items() if path != "state")


def _state(vault: FakeVault) -> object:
    stored, _ = vault.read("state")
    return stored["state"] if stored else None


def test_every_write_was_tried() -> None:
    """The table above is as long as a birth has writes."""
    assert _writes_of_a_birth() == WRITES


def test_two_processes_over_one_vault() -> None:
    """The second to write is told to ask again; it never overwrites."""
    vault = FakeVault()
    seat = seat_in_memory("hot-1", vault)
    deployment = Deployment([seat, *(seat_in_memory(name) for name in HOT[1:])]).pinned()
    rival = seat_in_memory("hot-1", vault)
    read = vault.read
    asked: list[str] = []

    def read_and_lose_the_race(path: str) -> object:
        found = read(path)
        if path == "state" and not asked:
            asked.append(path)
            rival.admit_roster(deployment.people_sign(deployment.successor(not_before=NOW)))
        return found

    vault.read = read_and_lose_the_race  # type: ignore[method-assign, assignment]
    with pytest.raises((Unavailable, Refused)):
        seat.admit_roster(deployment.people_sign(deployment.successor(not_before=NOW + 1)))
    assert seat.head().message.roster == 2
    assert list(check_chain(seat.records())) == []


@pytest.mark.parametrize("write", [1, 2])
@pytest.mark.parametrize("moment", ["die_before", "die_after"])
def test_a_binding_cut_in_half(moment: str, write: int) -> None:
    """After a crash the customer's own request completes it, and nobody else is given an index that was written."""
    vault, wallet = FakeVault(), b"\x01" * 32
    setattr(vault, moment, write)
    with pytest.raises(Unavailable):
        AttestorVault(vault).bind(wallet, 5, "alice", "0xa")
    if any(path.startswith("bindings/") for path in vault.documents):
        with pytest.raises(Refused) as refused:
            AttestorVault(vault).bind(wallet, 5, "bob", "0xb")
        assert rules_of(refused.value) == {Rule.INDEX_BOUND}
    AttestorVault(vault).bind(wallet, 5, "alice", "0xa")
    assert len(vault.documents) == 2
