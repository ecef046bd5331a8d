# SPDX-License-Identifier: AGPL-3.0-or-later
"""The roster: what version 1 must be, who has to sign it, how a successor follows, and who counts."""

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.governance import Freeze
from custody.rules.intents import Rejection
from custody.rules.refusals import Rule
from custody.rules.roster import (
    ApiClient,
    Person,
    Relayer,
    Roster,
    RosterVersion,
    Thresholds,
    check_genesis,
    check_successor,
    check_version,
)
from custody.rules.signatures import Signature, Signed
from custody.rules.typed import Struct
from tests.fakes.authenticator import Authenticator
from tests.unit.signers import (
    BTC,
    ETH,
    EVERYBODY,
    GENESIS,
    LATER,
    NOW,
    ROSTER,
    VERSION_1,
    Signer,
    certificate,
    genesis_of,
    person,
    seat,
    signed,
    wallet_key,
)

MAINNET: Final = "eip155:1"


def rules(refusals: object) -> set[Rule]:
    """The rules that refused."""
    return {refusal.rule for refusal in refusals}  # type: ignore[attr-defined]


def thresholds(**changes: int) -> Thresholds:
    """Version 1's thresholds with these changed."""
    return replace(VERSION_1.thresholds, **changes)


def test_version_1_is_whole() -> None:
    """The roster that the other tests change is accepted as it is."""
    assert list(check_version(VERSION_1)) == []
    assert list(check_genesis(genesis_of(VERSION_1), NOW)) == []


ANA, BO, CY, DEE = VERSION_1.people
BACKEND, SETTLER = VERSION_1.clients

PASSKEY: Final = Authenticator("somebody's passkey")


def with_passkey(whose: Person, passkey: Authenticator) -> Person:
    """A person with a passkey more."""
    return replace(whose, keys=(*whose.keys, passkey.key), displays=(*whose.displays, False))


VERSIONS: Final = [
    pytest.param({"people": (ANA, replace(BO, keys=ANA.keys[:1]), CY, DEE)}, Rule.KEY_REUSED, id="one key, two people"),
    pytest.param(
        {"people": (replace(ANA, keys=ANA.keys[:1] * 2), BO, CY, DEE)}, Rule.KEY_REUSED, id="one key twice in a person"
    ),
    pytest.param({"attestor": BACKEND.key}, Rule.KEY_REUSED, id="attestor and client share a key"),
    pytest.param({"clients": (BACKEND, replace(SETTLER, key=BACKEND.key))}, Rule.KEY_REUSED, id="two clients, one key"),
    pytest.param(
        {"seats": (*VERSION_1.seats[1:], replace(VERSION_1.seats[0], identity=VERSION_1.attestor))},
        Rule.KEY_REUSED,
        id="a seat's identity is the attestor's",
    ),
    pytest.param(
        {"relayers": (Relayer(ETH, "0x" + ANA.keys[0].public.hex(), 1),)},
        Rule.KEY_REUSED,
        id="the relayer is a person's device",
    ),
    pytest.param({"people": (ANA, BO, CY, DEE, person("ana", "other"))}, Rule.NAME_REUSED, id="one person's id twice"),
    pytest.param({"seats": (*VERSION_1.seats, seat("hot-1", "org 9"))}, Rule.NAME_REUSED, id="one seat's id twice"),
    pytest.param({"clients": (BACKEND, replace(SETTLER, id="backend"))}, Rule.NAME_REUSED, id="one client's id twice"),
    pytest.param({"people": (replace(ANA, keys=(), displays=()), BO, CY, DEE)}, Rule.MALFORMED, id="no key"),
    pytest.param({"people": (replace(ANA, displays=(True,)), BO, CY, DEE)}, Rule.MALFORMED, id="displays too few"),
    pytest.param(
        {"people": (ANA, replace(BO, keys=(PASSKEY.key,), displays=(True,)), CY, DEE)},
        Rule.NOT_DISPLAYING,
        id="a passkey that is said to display",
    ),
    pytest.param(
        {"people": (replace(ANA, displays=(True, True)), BO, CY, DEE)},
        Rule.NOT_DISPLAYING,
        id="a PEM file that displays",
    ),
    pytest.param(
        {"people": (with_passkey(ANA, PASSKEY), with_passkey(BO, PASSKEY), CY, DEE)},
        Rule.KEY_REUSED,
        id="one passkey, two people",
    ),
    pytest.param(
        {"people": (with_passkey(ANA, PASSKEY), with_passkey(BO, PASSKEY.at("https://other.example")), CY, DEE)},
        Rule.KEY_REUSED,
        id="one passkey, two people, two pages",
    ),
    pytest.param(
        {"people": (with_passkey(with_passkey(ANA, PASSKEY), PASSKEY.at("https://other.example")), BO, CY, DEE)},
        Rule.KEY_REUSED,
        id="one passkey of one person named for two pages",
    ),
    pytest.param(
        {"people": (ANA, *(replace(p, displays=(False,)) for p in (BO, CY, DEE)))},
        Rule.DISPLAYING_MISSING,
        id="one person alone has a key that displays",
    ),
    pytest.param({"seats": ()}, Rule.MALFORMED, id="no seats"),
    pytest.param(
        {"seats": (replace(VERSION_1.seats[0], identity=Signer("device:x").key), *VERSION_1.seats[1:])},
        Rule.MALFORMED,
        id="a seat's identity is not ed25519",
    ),
    *(
        pytest.param({"thresholds": thresholds(**{name: 0})}, Rule.THRESHOLD_OUT_OF_RANGE, id=f"{name} threshold 0")
        for name in ("roster", "certificate", "policy", "manual_entry", "void", "unfreeze")
    ),
    *(
        pytest.param({"thresholds": thresholds(**{name: 5})}, Rule.THRESHOLD_OUT_OF_RANGE, id=f"{name} 5 of 4 people")
        for name in ("roster", "certificate", "manual_entry", "void", "unfreeze")
    ),
    pytest.param({"thresholds": thresholds(policy=4)}, Rule.THRESHOLD_OUT_OF_RANGE, id="policy 4 of 3 owners"),
    pytest.param(
        {"thresholds": thresholds(policy=3)}, Rule.THRESHOLD_OUT_OF_RANGE, id="policy 3 of 3 owners, one of whom writes"
    ),
    pytest.param(
        {"thresholds": thresholds(manual_entry=1)}, Rule.THRESHOLD_OUT_OF_RANGE, id="manual entry by one person"
    ),
    pytest.param(
        {"people": (), "address_authorities": (), "policy_owners": ()}, Rule.THRESHOLD_OUT_OF_RANGE, id="nobody"
    ),
    pytest.param({"policy_owners": ("ana", "bo", "eve")}, Rule.SIGNER_UNKNOWN, id="an owner nobody knows"),
    pytest.param({"address_authorities": ("backend",)}, Rule.SIGNER_UNKNOWN, id="a client as address authority"),
    pytest.param({"policy_owners": ("ana", "ana", "bo")}, Rule.SIGNER_TWICE, id="one owner twice"),
    pytest.param(
        {"clients": (replace(BACKEND, scopes=("propose", "settle")), SETTLER)},
        Rule.SCOPES_SHARED,
        id="one client proposes and settles",
    ),
    pytest.param({"clients": (replace(BACKEND, scopes=("admin",)), SETTLER)}, Rule.MALFORMED, id="unknown scope"),
    pytest.param({"chains": ()}, Rule.MALFORMED, id="no chains"),
    pytest.param({"chains": (ETH, BTC, "ethereum")}, Rule.UNKNOWN_CHAIN, id="a chain by its nickname"),
    pytest.param({"chains": (BTC,)}, Rule.UNKNOWN_CHAIN, id="a relayer on a chain that is not named"),
    pytest.param(
        {"relayers": (replace(VERSION_1.relayers[0], chain=BTC),)}, Rule.UNKNOWN_CHAIN, id="a relayer on Bitcoin"
    ),
    pytest.param({"clock": "mine"}, Rule.MALFORMED, id="unknown clock"),
    pytest.param({"clock": ""}, Rule.MALFORMED, id="no clock"),
    pytest.param(
        {"clock": "statement", "chains": (ETH, MAINNET)}, Rule.CLOCK_NOT_DEVNET, id="statement clock on mainnet"
    ),
]


@pytest.mark.parametrize(("changes", "rule"), VERSIONS)
def test_check_version_refuses(changes: dict[str, Any], rule: Rule) -> None:
    """Each fault is refused by its own rule."""
    assert rule in rules(check_version(replace(VERSION_1, **changes)))


@pytest.mark.parametrize(("changes", "rule"), VERSIONS)
def test_a_faulty_version_is_no_genesis_whoever_signed(changes: dict[str, Any], rule: Rule) -> None:
    """Signatures do not heal a version."""
    assert rule in rules(check_genesis(genesis_of(replace(VERSION_1, **changes)), NOW))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"clock": "statement"}, id="statement clock where every chain is a devnet's"),
        pytest.param({"chains": (ETH, BTC, MAINNET)}, id="wall clock on mainnet"),
        pytest.param({"clients": ()}, id="no clients"),
        pytest.param({"relayers": ()}, id="no relayer"),
        pytest.param({"thresholds": thresholds(roster=4, certificate=4, policy=2)}, id="everybody for everything"),
    ],
)
def test_check_version_accepts(changes: dict[str, Any]) -> None:
    """What is unusual but whole passes."""
    assert list(check_version(replace(VERSION_1, **changes))) == []


def test_refusals_accumulate() -> None:
    """A person sees every reason at once, each naming its field."""
    found = list(
        check_version(replace(VERSION_1, clock="mine", thresholds=thresholds(manual_entry=1, void=9), seats=()))
    )
    assert {r.operands["field"] for r in found} >= {
        "roster.clock", "roster.seats", "roster.thresholds.manual_entry", "roster.thresholds.void",
    }  # fmt: skip


@pytest.mark.parametrize("missing", EVERYBODY)
def test_everybody_named_signs_genesis(missing: str) -> None:
    """One missing signature, of a person or a machine, is named."""
    found = list(check_genesis(genesis_of(VERSION_1, [word for word in EVERYBODY if word != missing]), NOW))
    assert [r.rule for r in found] == [Rule.SIGNATURE_MISSING]


def test_one_of_a_persons_keys_is_enough() -> None:
    """Ana may sign with her laptop in place of her device."""
    words = ["ana's laptop" if word == "device:ana" else word for word in EVERYBODY]
    assert list(check_genesis(genesis_of(VERSION_1, words), NOW)) == []


def test_genesis_signed_under_another_salt_is_unsigned() -> None:
    """The salt of version 1 is its own hash: everybody's signature is missing under another."""
    found = list(check_genesis(signed(VERSION_1, bytes(32), EVERYBODY), NOW))
    assert len(found) == len(EVERYBODY) + 1  # nobody showed what they signed either
    assert rules(found) == {Rule.SIGNATURE_MISSING, Rule.DISPLAYING_MISSING}


@pytest.mark.parametrize(
    ("changes", "now", "rule"),
    [
        pytest.param({"version": 2}, NOW, Rule.NOT_SUCCESSOR, id="version 2"),
        pytest.param({"version": 0}, NOW, Rule.NOT_SUCCESSOR, id="version 0"),
        pytest.param({"previous": bytes(31) + b"\x01"}, NOW, Rule.NOT_SUCCESSOR, id="a predecessor"),
        pytest.param({}, LATER, Rule.SIGNER_EXPIRED, id="everybody's entry expired this second"),
    ],
)
def test_genesis_refuses(changes: dict[str, Any], now: int, rule: Rule) -> None:
    """Genesis is the first, and its people are there."""
    assert rule in rules(check_genesis(genesis_of(replace(VERSION_1, **changes)), now))


# Successors.

IN_FORCE: Final = NOW + VERSION_1.delay
EVE: Final = person("eve")
VERSION_2: Final = replace(VERSION_1, version=2, previous=GENESIS, people=(ANA, BO, CY, DEE, EVE), not_before=IN_FORCE)


def successor(*words: str, **changes: Any) -> Signed[RosterVersion]:
    """Version 2 with these changes, signed by these words."""
    return signed(replace(VERSION_2, **changes), GENESIS, words or ("device:ana", "device:bo"))


def test_a_successor_follows() -> None:
    """Quorum of the old and of the new, after the old one's delay."""
    assert list(check_successor(ROSTER, successor(), IN_FORCE)) == []


@pytest.mark.parametrize(
    ("document", "now", "rule"),
    [
        pytest.param(successor(version=3), IN_FORCE, Rule.NOT_SUCCESSOR, id="a version left out"),
        pytest.param(successor(version=1), IN_FORCE, Rule.NOT_SUCCESSOR, id="the same version again"),
        pytest.param(successor(previous=bytes(32)), IN_FORCE, Rule.NOT_SUCCESSOR, id="no predecessor"),
        pytest.param(successor(clock="statement"), IN_FORCE, Rule.NOT_SUCCESSOR, id="another clock"),
        pytest.param(successor(chains=(ETH,)), IN_FORCE, Rule.NOT_SUCCESSOR, id="a chain dropped"),
        pytest.param(successor(), IN_FORCE - 1, Rule.TOO_EARLY, id="a second before its time"),
        pytest.param(successor(not_before=IN_FORCE - 1), IN_FORCE, Rule.TOO_EARLY, id="less than the old one's delay"),
        pytest.param(successor(not_before=0), IN_FORCE, Rule.TOO_EARLY, id="backdated"),
        pytest.param(successor("device:ana"), IN_FORCE, Rule.QUORUM_NOT_REACHED, id="one of two"),
        pytest.param(
            successor("device:ana", "ana's laptop"), IN_FORCE, Rule.QUORUM_NOT_REACHED, id="one person, two keys"
        ),
        pytest.param(successor("device:ana", "device:eve"), IN_FORCE, Rule.QUORUM_NOT_REACHED, id="a newcomer lets herself in"),
        pytest.param(successor("device:ana", "backend"), IN_FORCE, Rule.QUORUM_NOT_REACHED, id="a machine is nobody"),
        pytest.param(
            successor("device:ana", "device:dee", people=(ANA, BO, CY)), IN_FORCE, Rule.QUORUM_NOT_REACHED,
            id="somebody leaving does not count in the new",
        ),
        pytest.param(successor(), LATER, Rule.QUORUM_NOT_REACHED, id="signers' entries expired"),
        pytest.param(
            signed(VERSION_2, bytes(32), ["device:ana", "device:bo"]), IN_FORCE, Rule.QUORUM_NOT_REACHED,
            id="signed for another deployment",
        ),
        pytest.param(
            successor(thresholds=thresholds(manual_entry=1)), IN_FORCE, Rule.THRESHOLD_OUT_OF_RANGE,
            id="a fault of its own",
        ),
    ],
)  # fmt: skip
def test_check_successor_refuses(document: Signed[RosterVersion], now: int, rule: Rule) -> None:
    """Each way to take over a roster is refused by its own rule."""
    assert rule in rules(check_successor(ROSTER, document, now))


def test_a_chain_may_be_added() -> None:
    """A successor keeps every chain and may bring another."""
    assert list(check_successor(ROSTER, successor(chains=(ETH, BTC, MAINNET)), IN_FORCE)) == []


def passkeys(*names: str) -> Roster:
    """The deployment, where these people have a passkey too."""
    people = tuple(with_passkey(p, Authenticator(p.id)) if p.id in names else p for p in VERSION_1.people)
    version = replace(VERSION_1, people=people)
    return Roster(Signed(version, ()), GENESIS)


@pytest.mark.parametrize(
    ("by_device", "by_passkey", "refused"),
    [
        pytest.param(("ana", "bo"), (), False, id="two devices"),
        pytest.param(("ana",), ("bo",), False, id="a device beside a passkey"),
        pytest.param((), ("ana", "bo"), True, id="two passkeys"),
        pytest.param((), ("ana", "bo", "cy"), True, id="any number of them"),
    ],
)
def test_who_is_who_is_not_decided_by_passkeys_alone(
    by_device: tuple[str, ...], by_passkey: tuple[str, ...], refused: bool
) -> None:
    """A page that lies could name its own people otherwise; the old version says whose keys display."""
    old = passkeys("ana", "bo", "cy")
    shown = tuple(replace(p, displays=(True,) * len(p.keys)) for p in old.version.people)
    for people in (old.version.people, shown):  # whatever the new one says of keys
        new = replace(old.version, version=2, previous=old.version.struct_hash, people=people, not_before=IN_FORCE)
        digest = old.domain.digest(new)
        signatures = [Signer(f"device:{n}").over(digest) for n in by_device]
        signatures += [Authenticator(n).over(digest) for n in by_passkey]
        found = rules(check_successor(old, Signed(new, ()).joined(signatures), IN_FORCE))
        assert (Rule.DISPLAYING_MISSING in found) is refused
        assert Rule.QUORUM_NOT_REACHED not in found


@pytest.mark.parametrize(
    ("now", "among", "reached"),
    [
        pytest.param(NOW, None, True, id="ana's device"),
        pytest.param(NOW, ("ana",), True, id="among them"),
        pytest.param(NOW, ("bo",), False, id="not among them"),
        pytest.param(NOW, (), False, id="among nobody"),
        pytest.param(LATER, None, False, id="her entry expired"),
    ],
)
def test_whose_key_displays_counts_as_quorums_do(now: int, among: tuple[str, ...] | None, reached: bool) -> None:
    """Unexpired, of those who are asked, and truly signed."""
    notice = signed(NOTICE, GENESIS, ["device:ana", "ana's laptop"])
    assert (not list(ROSTER.check_displaying(notice, among, now))) is reached
    laptop = signed(NOTICE, GENESIS, ["ana's laptop"])
    assert rules(ROSTER.check_displaying(laptop, None, NOW)) == {Rule.DISPLAYING_MISSING}
    forged = replace(notice, message=replace(NOTICE, scope="company"))
    assert rules(ROSTER.check_displaying(forged, None, NOW)) == {Rule.DISPLAYING_MISSING}


def test_raising_the_threshold_binds_its_own_version() -> None:
    """The new version's threshold counts for the new version already."""
    three = thresholds(roster=3)
    assert rules(check_successor(ROSTER, successor(thresholds=three), IN_FORCE)) == {Rule.QUORUM_NOT_REACHED}
    enough = successor("device:ana", "device:bo", "device:cy", thresholds=three)
    assert list(check_successor(ROSTER, enough, IN_FORCE)) == []


# Quorum.

NOTICE: Final = Freeze("all", "drill", NOW, NOW + 60)
OWNERS: Final = ("ana", "bo", "cy")


def quorum(needed: int, words: list[str], among: tuple[str, ...] | None = None, now: int = NOW) -> bool:
    """Whether these words' signatures reach so many."""
    return not list(ROSTER.check_quorum(signed(NOTICE, GENESIS, words), needed, among, now))


@pytest.mark.parametrize(
    ("needed", "words", "among", "reached"),
    [
        pytest.param(2, ["device:ana", "device:bo"], None, True, id="2 of 4 reached"),
        pytest.param(2, ["device:ana"], None, False, id="one of two"),
        pytest.param(2, ["device:ana", "device:ana"], None, False, id="one signature twice"),
        pytest.param(2, ["device:ana", "ana's laptop"], None, False, id="one member, two keys"),
        pytest.param(2, ["device:ana", "mallory"], None, False, id="outsider ignored"),
        pytest.param(2, ["device:ana", "settler"], None, False, id="API client ignored"),
        pytest.param(2, ["device:ana", "hot-1"], None, False, id="seat ignored"),
        pytest.param(2, ["device:ana", "attestor"], None, False, id="attestor ignored"),
        pytest.param(2, ["device:ana", "device:dee"], OWNERS, False, id="outside the group"),
        pytest.param(2, ["device:ana", "device:bo", "mallory"], OWNERS, True, id="more than enough"),
        pytest.param(1, ["device:ana"], (), False, id="an empty group never agrees"),
        pytest.param(0, [], None, False, id="threshold 0 never passes"),
        pytest.param(0, ["device:ana"], None, False, id="threshold 0 never passes, even signed"),
        pytest.param(-1, ["device:ana"], None, False, id="negative threshold"),
        pytest.param(5, ["device:ana", "device:bo", "device:cy", "device:dee"], None, False, id="more than there are"),
    ],
)
def test_quorum_counts_distinct_people(
    needed: int, words: list[str], among: tuple[str, ...] | None, reached: bool
) -> None:
    """Law 3: distinct people, distinct slots."""
    assert quorum(needed, words, among) is reached


@pytest.mark.parametrize(("now", "reached"), [(LATER - 1, True), (LATER, False), (LATER + 1, False)])
def test_an_entry_expires_at_its_second(now: int, reached: bool) -> None:
    """An expired grant is nobody's (Ronin)."""
    assert quorum(2, ["device:ana", "device:bo"], now=now) is reached


def test_a_signature_over_another_message_does_not_count() -> None:
    """A rejection is never an approval: the verb is inside the digest."""
    other: Struct = Rejection(bytes(32), "drill")
    stolen = tuple(Signer(word).sign(other, GENESIS) for word in ("device:ana", "device:bo"))
    assert rules(ROSTER.check_quorum(Signed(NOTICE, stolen), 2, None, NOW)) == {Rule.QUORUM_NOT_REACHED}


def test_the_refusal_names_who_counted() -> None:
    """A person reads the document, who counted and how many are needed."""
    (refusal,) = ROSTER.check_quorum(signed(NOTICE, GENESIS, ["device:bo"]), 2, None, NOW)
    assert dict(refusal.operands) == {"document": "Freeze", "signed": ["bo"], "needed": 2}


@given(st.lists(st.sampled_from(["device:ana", "ana's laptop", "device:bo", "device:cy", "mallory", "hot-1"])))
def test_quorum_is_the_number_of_distinct_people(words: list[str]) -> None:
    """For any multiset of signatures, exactly the distinct people count."""
    document = signed(NOTICE, GENESIS, words)
    people = {w.removeprefix("device:").removesuffix("'s laptop") for w in words} & {"ana", "bo", "cy"}
    assert ROSTER.people_who_signed(document, NOW) == people
    for needed in (1, len(people), len(people) + 1):
        assert (not list(ROSTER.check_quorum(document, needed, None, NOW))) is (1 <= needed <= len(people))


# Certificates against the roster.


def test_a_certificate_with_its_quorum_is_accepted() -> None:
    """Shape, seats' own signatures and people's quorum all hold."""
    document = signed(certificate(), GENESIS, ["device:ana", "device:bo"])
    assert list(ROSTER.check_certificate(document, NOW)) == []


@pytest.mark.parametrize(
    ("changes", "words", "rule"),
    [
        pytest.param({}, ["device:ana"], Rule.QUORUM_NOT_REACHED, id="one of two people"),
        pytest.param({}, ["hot-1", "hot-2", "hot-3", "hot-4"], Rule.QUORUM_NOT_REACHED, id="seats certify themselves"),
        pytest.param({"chain": MAINNET}, ["device:ana", "device:bo"], Rule.UNKNOWN_CHAIN, id="a chain the roster lacks"),
        pytest.param(
            {"seats": tuple(wallet_key(f"hot-{n}", f"customer_hot/{ETH}", genesis=bytes(32)) for n in (1, 2, 3, 4))},
            ["device:ana", "device:bo"], Rule.SIGNATURE_INVALID, id="keys signed for another deployment",
        ),
        pytest.param(
            {
                "seats": (
                    replace(
                        wallet_key("hot-1", f"customer_hot/{ETH}"),
                        signature=Signature(
                            Signer("mallory").key,
                            Signer("mallory").sign(wallet_key("hot-1", f"customer_hot/{ETH}").key, GENESIS).value,
                        ),
                    ),
                    *(wallet_key(f"hot-{n}", f"customer_hot/{ETH}") for n in (2, 3, 4)),
                )
            },
            ["device:ana", "device:bo"], Rule.SIGNATURE_INVALID, id="a stranger vouches for a seat's key",
        ),
    ],
)  # fmt: skip
def test_check_certificate_refuses(changes: dict[str, Any], words: list[str], rule: Rule) -> None:
    """A certificate is refused by the rule it breaks."""
    assert rule in rules(ROSTER.check_certificate(signed(certificate(**changes), GENESIS, words), NOW))


def test_clients_and_seats_are_found() -> None:
    """Look-ups answer by key and by name."""
    assert ROSTER.clients_by_key[BACKEND.key] == BACKEND
    assert ROSTER.seats["hot-1"].organisation == "org 1"
    assert ROSTER.people_by_key[Signer("ana's laptop").key].id == "ana"
    assert isinstance(ROSTER.clients_by_key[SETTLER.key], ApiClient)
    assert Roster(genesis_of(VERSION_1), GENESIS).domain == ROSTER.domain
