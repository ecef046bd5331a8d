# SPDX-License-Identifier: AGPL-3.0-or-later
"""How bundles follow one another: the path, who signs, the delay; and that no row of a mirror puts another one in force."""

import json
from collections.abc import Callable
from typing import Any, Final

import pytest

from custody.chains.addresses import ChainDeriver
from custody.composing import MirrorKernel, assets_in_force
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import UnitOfWork
from custody.governing import SIGHT, BundleReader, check_registry, standing_in, store_activation
from custody.rules.decisions import decided
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.succession import FIRST, check_signed
from custody.vault.seat import SeatHost
from policies.bundle import Bundle
from policies.succession import Lineage, terms
from tests.fakes.governed import DAYS, HOUR, Edit, activation, after, first, looser, rule, tighter
from tests.fakes.seat import NOW, FakeVault, rules_of, secp256k1
from tests.fakes.seated import LATER, Seated, by_wire, reopened, seated
from tests.fakes.store import FakeStore
from tests.fakes.trust import passkey, world
from tests.unit import shipped


def limit(name: str, asset: str, value: str) -> Edit:
    """One limit changed."""
    return lambda documents: documents["limits"][name].update({asset: value})


def in_file(file: str, *path: str, value: object) -> Edit:
    """One value of one file changed."""

    def edit(documents: dict[str, Any]) -> None:
        node = documents[file]
        for key in path[:-1]:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[path[-1]] = value

    return edit


def claim_gone(documents: dict[str, Any]) -> None:
    """The last claim is taken out."""
    documents["claims"]["claims"].pop()


def shown_gone(documents: dict[str, Any]) -> None:
    """A day of small payments is approved by passkeys alone."""
    (row,) = [row for row in documents["rules"]["rules"] if row["id"].startswith("R03")]
    del row["displaying"]


def claim_more(documents: dict[str, Any]) -> None:
    """The last claim once more under another id."""
    rows = documents["claims"]["claims"]
    rows.append({**rows[-1], "id": "C99-once-more"})


@pytest.mark.parametrize(
    ("edit", "path", "people"),
    [
        pytest.param(rule("R01", delay="2h"), "stricter", 0, id="a longer delay"),
        pytest.param(
            rule("R01", why="The same in other words, which decide nothing."), "stricter", 0, id="other words"
        ),
        pytest.param(rule("R01", displaying="1 approval"), "stricter", 0, id="a key that displays"),
        pytest.param(rule("R03", displaying="2 approvals"), "stricter", 0, id="two of them"),
        pytest.param(shown_gone, "weaker", 0, id="no key that displays"),
        pytest.param(
            limit("without_display", "BTC", "1.00000001 BTC"), "weaker", 0, id="a key that displays from more on"
        ),
        pytest.param(limit("auto_withdrawal", "BTC", "0.24999999 BTC"), "stricter", 0, id="a unit less by itself"),
        pytest.param(in_file("fees", "maturity", value="25h"), "stricter", 0, id="fees mature later"),
        pytest.param(in_file("floors", "automatic", "per_day", "BTC", value="14 BTC"), "stricter", 0, id="a lower cap"),
        pytest.param(claim_more, "stricter", 1, id="a claim more"),
        pytest.param(limit("auto_withdrawal", "BTC", "0.25000001 BTC"), "weaker", 0, id="a unit more by itself"),
        pytest.param(rule("R04"), "weaker", 0, id="a require deleted"),
        pytest.param(rule("P01"), "weaker", 0, id="a permit deleted, of which nothing is plain"),
        pytest.param(in_file("fees", "maturity", value="23h"), "weaker", 0, id="fees mature sooner"),
        pytest.param(in_file("fees", "fees", "0", "at_most", value="26 bps"), "weaker", 0, id="a higher fee"),
        pytest.param(in_file("floors", "automatic", "per_day", "BTC", value="16 BTC"), "weaker", 0, id="a higher cap"),
        pytest.param(
            in_file("assets", "assets", "0", "dust", value="0.00002 BTC"), "weaker", 0, id="the asset registry"
        ),
        pytest.param(claim_gone, "weaker", 1, id="a claim less"),
        pytest.param(in_file("governance", "stricter", "delay", value="2h"), "weaker", 1, id="governance, any change"),
        pytest.param(in_file("governance", "weaker", "owners", value="4"), "weaker", 1, id="governance, more owners"),
    ],
)
def test_the_bundle_in_force_decides_the_path(edit: Edit, path: str, people: int) -> None:
    """Plainly stricter takes two owners and an hour, anything else three and two days; claims and governance one of risk."""
    found = terms(first(), after(first(), edit))
    assert (found.path, found.people) == (path, people)
    assert (found.owners, found.delay) == ((2, HOUR) if path == "stricter" else (3, DAYS))
    assert found.group == ("risk" if people else "")
    assert bool(found.loosens) == (path == "weaker")


def test_the_new_bundles_governance_counts_for_nothing() -> None:
    """Whoever writes his own bundle's governance writes it for the one after."""
    easy = {
        "stricter": {"owners": "1", "delay": "1s"},
        "weaker": {"owners": "2", "delay": "2s"},
        "claims": {"group": "nobody", "people": "1"},
    }
    found = terms(first(), after(first(), lambda documents: documents.update(governance=easy)))
    assert (found.owners, found.delay, found.group) == (3, DAYS, "risk")
    assert terms(None, looser()) == FIRST


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(in_file("assets", "assets", "2", "decimals", value="7"), id="other decimals"),
        pytest.param(
            in_file("assets", "assets", "2", "contract", value="0x5B38Da6a701c568545dCfcB03FcB875f56beddC4"),
            id="another contract",
        ),
    ],
)
def test_books_keep_their_units(edit: Edit) -> None:
    """An asset that is owed stays what it is, whoever signs."""
    with pytest.raises(Refused) as refused:
        terms(first(), after(first(), edit))
    assert rules_of(refused.value) == {Rule.NOT_SUCCESSOR}


# the mirror


def rosters() -> tuple[Roster, ...]:
    """Version 1."""
    genesis = world().deployment.genesis()
    return (Roster(genesis, genesis.message.struct_hash),)


Row = tuple[Signed[PolicyActivation], Bundle, int]


def mirror(*rows: Row) -> FakeStore:
    """A mirror with these activations, each first stored then."""
    store = FakeStore()

    def furnish(work: UnitOfWork) -> None:
        put_signed(work.documents, ROSTER, world().deployment.genesis())
        for certificate in world().certificates.values():
            put_signed(work.documents, CERTIFICATE, certificate)
        for signed, bundle, seen in rows:
            store_activation(work, signed, bundle, seen)

    store.run(furnish)
    return store


def read(store: FakeStore, now: int) -> Lineage:
    """What a fresh process makes of it."""
    found: Lineage = store.read(lambda work: BundleReader().read(work, rosters(), now))
    return found


BORN: Final[Row] = (activation(first(), None), first(), NOW)
TIGHT: Final[Row] = (activation(tighter(), first()), tighter(), NOW)
LOOSE: Final[Row] = (activation(looser(), first()), looser(), NOW)


def forged(people: tuple[str, ...], **changed: Any) -> Row:
    """The looser bundle, signed by these."""
    return activation(looser(), changed.pop("previous", first()), people, **changed), looser(), NOW


@pytest.mark.parametrize(
    ("rows", "now", "in_force"),
    [
        pytest.param((BORN,), NOW, first(), id="the first"),
        pytest.param((BORN, TIGHT), NOW + HOUR - 1, first(), id="stricter: a second early"),
        pytest.param((BORN, TIGHT), NOW + HOUR, tighter(), id="stricter: after an hour"),
        pytest.param((BORN, LOOSE), NOW + DAYS - 1, first(), id="weaker: a second early"),
        pytest.param((BORN, LOOSE), NOW + DAYS, looser(), id="weaker: after two days"),
        pytest.param((TIGHT, BORN), NOW + HOUR, tighter(), id="rows in another order"),
        pytest.param(
            (BORN, LOOSE, TIGHT), NOW + DAYS, tighter(), id="the quicker one is first; the other follows nothing"
        ),
        pytest.param((TIGHT, LOOSE, BORN), NOW + DAYS, tighter(), id="whatever the order"),
        pytest.param((BORN, forged(("ana", "bo"))), NOW + DAYS, first(), id="weaker: two owners of three"),
        pytest.param(
            (BORN, forged(("ana", "bo", "cy"), author="cy")), NOW + DAYS, first(), id="weaker: its author third"
        ),
        pytest.param((BORN, forged(())), NOW + DAYS, first(), id="signed by nobody"),
        pytest.param(
            (BORN, forged(("ana", "bo", "cy"), author="nobody")), NOW + DAYS, first(), id="by an unknown author"
        ),
        pytest.param((BORN, forged(("ana", "bo", "cy"), report=bytes(32))), NOW + DAYS, first(), id="without a report"),
        pytest.param(
            (BORN, forged(("ana", "bo", "cy"), previous=tighter())), NOW + DAYS, first(), id="after one that never was"
        ),
        pytest.param((BORN, forged((), previous=None)), NOW + DAYS, first(), id="another first, unsigned"),
        pytest.param(
            (BORN, forged(("ana", "bo", "cy"), not_before=NOW + 3 * DAYS)),
            NOW + DAYS,
            first(),
            id="not before its time",
        ),
        pytest.param((BORN, (LOOSE[0], looser(), NOW + 500)), NOW + DAYS, first(), id="seen later"),
        pytest.param(
            (BORN, (LOOSE[0], looser(), 0)), NOW + DAYS - 1, first(), id="seen before there was one to follow"
        ),
    ],
)
def test_what_is_in_force_is_computed(rows: tuple[Row, ...], now: int, in_force: Bundle) -> None:
    """By signatures and times, whatever rows there are and in whichever order."""
    found = read(mirror(*rows), now)
    assert found.newest.bundle.hash == in_force.hash


def _rows(store: FakeStore, kind: str) -> list[tuple[str, str]]:
    return [key for key in store._state.documents if key[0] == kind]


def test_rows_that_are_gone_or_changed() -> None:
    """A newest row that is deleted leaves the older bundle; a bundle's that is deleted or swapped, nothing; a first sight, no time."""

    def with_rows(change: Callable[[dict[tuple[str, str], Any]], None]) -> FakeStore:
        store = mirror(BORN, TIGHT)
        change(store._state.documents)
        return store

    now, key = NOW + HOUR, TIGHT[0].message.struct_hash.hex()
    gone = with_rows(lambda rows: rows.pop((ACTIVATION, key)))
    assert read(gone, now).newest.bundle.hash == first().hash
    unseen = with_rows(lambda rows: rows.pop((SIGHT, key)))
    assert read(unseen, now).newest.bundle.hash == first().hash
    for change in (
        lambda rows: rows.pop((BUNDLE, tighter().hash.hex())),
        lambda rows: rows.update({(BUNDLE, tighter().hash.hex()): looser().to_json()}),
        lambda rows: rows.update({(BUNDLE, tighter().hash.hex()): {"rules": "none"}}),
    ):
        with pytest.raises(Unavailable, match="lost bundle"):
            read(with_rows(change), now)
    nothing = with_rows(lambda rows: rows.pop((ACTIVATION, BORN[0].message.struct_hash.hex())))
    with pytest.raises(Refused):
        _ = read(nothing, now).newest


def test_the_kernel_goes_by_it() -> None:
    """One process sees the new bundle come in force, knows the older for intents that pin it, and asks both of those."""
    store, time = mirror(BORN, TIGHT), [NOW]
    reader = MirrorKernel(
        store, world().domain.genesis, first().assets, ChainDeriver(), lambda: time[0], lambda: time[0]
    )
    assert reader().policies.newest.hash == first().hash
    time[0] = NOW + HOUR
    kernel = reader()
    assert kernel.policies.newest.hash == tighter().hash
    assert [bundle.hash for bundle in kernel.bundles(first().hash)] == [first().hash, tighter().hash]
    assert kernel.bundles(looser().hash) == ()
    time[0] = NOW  # a clock that ran back
    assert reader().policies.newest.hash == first().hash


def test_another_registry_starts_a_process_again() -> None:
    """Books are read by the registry in force, or not at all; one that opens anew opens by it."""
    dust = after(first(), in_file("assets", "assets", "0", "dust", value="0.00002 BTC"))
    store, now = mirror(BORN, (activation(dust, first()), dust, NOW)), NOW + DAYS
    reader = MirrorKernel(store, world().domain.genesis, first().assets, ChainDeriver(), lambda: now, lambda: now)
    with pytest.raises(Unavailable, match="start this process again"):
        reader()
    opened = assets_in_force(store, world().domain.genesis, first().assets, lambda: now, lambda: now)
    check_registry(dust, opened)
    with pytest.raises(Unavailable):
        store.read(lambda work: standing_in(first().assets)(work, rosters(), now, lambda _: NOW))


def test_the_attestor_counts_from_its_own_first_sight() -> None:
    """A row that dates a first sight back hurries no attestor; every bundle's fee schedule stays known."""
    store, sights = mirror(BORN, (TIGHT[0], tighter(), 0)), dict[bytes, int]()
    standing = standing_in(first().assets)

    def at(now: int) -> bytes:
        found = store.read(lambda work: standing(work, rosters(), now, lambda digest: sights.setdefault(digest, now)))
        assert found.schedules.keys() >= {first().hash, found.policy}
        return bytes(found.policy)

    assert [at(NOW + 9 * HOUR), at(NOW + 10 * HOUR - 1), at(NOW + 10 * HOUR)] == [
        first().hash,
        first().hash,
        tighter().hash,
    ]
    assert sights == {TIGHT[0].message.struct_hash: NOW + 9 * HOUR}


# seats


def under_first(house: Seated) -> SeatHost:
    """A seat with the tests' first bundle in force."""
    host = house.hosts["hot-1"]
    house.clock.now = NOW
    host.admit_policy(activation(first(), None), first().to_json())
    return host


def here() -> tuple[Row, Row, Row]:
    """The first, the stricter and the looser bundle, signed in the deployment that is seated now."""
    rows = (first(), None), (tighter(), first()), (looser(), first())
    born, tight, loose = ((activation(bundle, previous), bundle, NOW) for bundle, previous in rows)
    return born, tight, loose


def early(seat: Any, row: Row) -> int:
    """From when a seat takes it, as its refusal says."""
    with pytest.raises(Refused) as refused:
        seat.admit_policy(row[0], row[1].to_json())
    (refusal,) = refused.value.refusals
    assert refusal.rule is Rule.TOO_EARLY
    return int(str(refusal.operands["not_before"]))


@pytest.mark.parametrize("wired", [pytest.param(False, id="host"), pytest.param(True, id="by its socket")])
def test_a_seat_waits_by_its_own_clock(wired: bool) -> None:
    """It works the path out from both bundles, notes the activation, and takes it when its own delay is over; a restart forgets nothing."""
    vault = FakeVault()
    with seated({"hot-1": vault}, policy=False) as house:
        host = under_first(house)
        born, tight, loose = here()
        house.clock.now = LATER
        if wired:
            with by_wire(host) as seat:
                assert early(seat, tight) == LATER + HOUR
        else:
            assert early(host, tight) == LATER + HOUR
        assert early(host, loose) == LATER + DAYS
        again = reopened(host, vault, house.clock)
        house.clock.now = LATER + HOUR - 1
        assert early(again, tight) == LATER + HOUR
        house.clock.now = LATER + HOUR
        head = again.admit_policy(tight[0], tighter().to_json())
        assert again.admit_policy(tight[0], tighter().to_json()) == head
        assert again.status()["policies"] == ["0x" + first().hash.hex(), "0x" + tighter().hash.hex()]
        house.clock.now = LATER + 3 * DAYS
        for row in (loose, born):  # overtaken, and older
            with pytest.raises(Refused) as refused:
                again.admit_policy(row[0], row[1].to_json())
            assert rules_of(refused.value) == {Rule.NOT_SUCCESSOR}


def test_a_seat_never_goes_back() -> None:
    """A mirror whose newest row was deleted makes the attestor say the older bundle: the seat refuses. Intents may pin the older."""
    older = after(first(), in_file("governance", "stricter", "delay", value="5min"))
    newer = after(older, rule("R01", delay="2h"))
    with seated({}, policy=False) as house:
        host = house.hosts["hot-1"]
        house.clock.now = NOW
        host.admit_policy(activation(older, None), older.to_json())
        row = activation(newer, older), newer, NOW
        assert early(host, row) == NOW + 300
        house.clock.now = LATER
        host.admit_policy(row[0], newer.to_json())
        pinned = {"policy": older.hash}
        with pytest.raises(Refused) as refused:
            host.sign(house.ask(statement=pinned, intent=pinned))
        assert rules_of(refused.value) == {Rule.POLICY_OLDER}
        assert host.sign(house.ask(statement={"policy": newer.hash}, intent=pinned)).signatures


def test_intents_of_the_older_bundle_are_judged_by_the_stricter_of_both() -> None:
    """Neither the one that they pin nor the newest loosens what the other asks, whichever of them is the stricter."""
    facts = shipped.facts(usd=200_000 * shipped.USD)
    for line in ((first(), tighter()), (tighter(), first())):
        found = decided([bundle.policy for bundle in line], facts)
        assert found.requirement is not None
        assert found.requirement.delay == 2 * HOUR
        assert set(found.bundles) == {first().hash, tighter().hash}


def test_a_seat_believes_neither_signers_nor_documents() -> None:
    """Too few owners for the path, claims without their people, another bundle's documents, a vault that lost the old ones."""
    vault = FakeVault()
    with seated({"hot-1": vault}, policy=False) as house:
        host, (_, tight, _) = under_first(house), here()
        less = after(first(), claim_gone)
        for signed, bundle, rule_ in (
            (activation(looser(), first(), ("ana", "bo")), looser(), Rule.QUORUM_NOT_REACHED),
            (activation(less, first(), ("ana", "cy"), author="bo"), less, Rule.QUORUM_NOT_REACHED),
            (activation(tighter(), first()), looser(), Rule.NOT_SUCCESSOR),
        ):
            with pytest.raises(Refused) as refused:
                host.admit_policy(signed, bundle.to_json())
            assert rules_of(refused.value) == {rule_}
        with pytest.raises(InvalidInput):
            host.admit_policy(tight[0], {**tighter().to_json(), "governance": {}})
        assert host.status()["policies"] == ["0x" + first().hash.hex()]
        vault.documents[f"bundles/{first().hash.hex()}"] = [json.dumps(looser().to_json())]
        with pytest.raises(Unavailable):
            host.admit_policy(tight[0], tighter().to_json())


@pytest.mark.parametrize(
    ("devices", "passkeys", "refused"),
    [
        pytest.param(("ana", "bo"), (), set(), id="two devices"),
        pytest.param(("ana",), ("bo",), set(), id="a device beside a passkey"),
        pytest.param((), ("ana", "bo"), {Rule.DISPLAYING_MISSING}, id="passkeys alone"),
        pytest.param(("cy",), ("ana", "bo"), {Rule.DISPLAYING_MISSING}, id="the author's device does not count"),
        pytest.param(("dee",), ("ana", "bo"), {Rule.DISPLAYING_MISSING}, id="nor that of somebody who owns no policy"),
    ],
)
def test_a_bundle_is_not_put_in_force_by_passkeys_alone(
    devices: tuple[str, ...], passkeys: tuple[str, ...], refused: set[Rule]
) -> None:
    """A page that lies could take the clause out of the bundle first, and the coins then."""
    roster = world().deployment.roster()
    message = PolicyActivation(tighter().hash, first().hash, b"\1" * 32, "cy", NOW)
    digest = roster.domain.digest(message)
    made = [secp256k1(n).sign(digest) for n in devices] + [passkey(n).over(digest) for n in passkeys]
    found = check_signed(Signed(message, tuple(made)), FIRST, roster, NOW)
    assert {refusal.rule for refusal in found} == refused
