# SPDX-License-Identifier: AGPL-3.0-or-later
"""Quorum: whose approval counts, and whether the people who count fill every slot, one person each."""

from dataclasses import replace
from itertools import combinations_with_replacement, permutations, product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.rules.approvals import Approval, Approver, check_approval, count, satisfied
from custody.rules.errors import InvalidInput
from custody.rules.intents import TransferIntent
from custody.rules.refusals import Rule
from custody.rules.requirement import MOST_APPROVALS, Requirement
from custody.rules.roster import Roster
from custody.rules.signatures import Signature, Signed
from custody.rules.typed import ZERO32, ZERO_ADDRESS, Domain
from tests.fakes.authenticator import Authenticator
from tests.unit.signers import ETH, GENESIS, LATER, NOW, ROSTER, VERSION_1, Signer, person

PEOPLE: Final = {
    "ana": {"operations", "treasury"},
    "bo": {"operations", "treasury"},
    "cleo": {"risk"},
    "dan": {"risk", "treasury"},
    "eve": {"executive"},
    "fay": {"board"},
    "gil": {"finance"},
    "hana": {"compliance"},
}
"""Groups of the devnet's roster."""


def approvers(*names: str) -> frozenset[Approver]:
    """These people with their groups."""
    return frozenset(Approver(name, frozenset(PEOPLE.get(name, ()))) for name in names)


def asked(*needed: str, people: int = 0) -> Requirement:
    """A requirement from words such as `2 of risk`."""
    return Requirement(tuple((group, int(n)) for n, _, group in (word.split() for word in needed)), people=people)


@pytest.mark.parametrize(
    ("needed", "names", "initiator", "enough"),
    [
        pytest.param(["1 of operations", "1 of risk"], ["ana", "cleo"], "backend", True, id="one of each"),
        pytest.param(["1 of operations", "1 of risk"], ["ana", "bo"], "backend", False, id="two of one group"),
        pytest.param(["1 of operations", "1 of risk"], ["ana"], "backend", False, id="one missing"),
        pytest.param(["1 of operations", "1 of risk"], [], "backend", False, id="nobody"),
        pytest.param(["1 of operations", "1 of risk"], ["ana", "cleo"], "ana", False, id="initiator approves himself"),
        pytest.param(
            ["1 of operations", "1 of risk"], ["ana", "bo", "cleo"], "ana", True, id="enough without the initiator"
        ),
        pytest.param(["1 of risk", "1 of treasury"], ["dan"], "backend", False, id="one person in both groups"),
        pytest.param(["1 of risk", "1 of treasury"], ["dan", "cleo"], "backend", True, id="the one in both makes room"),
        pytest.param(
            ["1 of risk", "1 of treasury"], ["dan", "ana"], "backend", True, id="the one in both takes the other"
        ),
        pytest.param(
            ["2 of treasury", "1 of operations"], ["ana", "bo"], "backend", False, id="two people, three slots"
        ),
        pytest.param(["2 of treasury", "1 of operations"], ["ana", "bo", "dan"], "backend", True, id="chain of moves"),
        pytest.param(
            ["2 of treasury", "1 of operations"], ["ana", "bo", "cleo"], "backend", False, id="third in another group"
        ),
        pytest.param(["1 of board"], ["mallory"], "backend", False, id="outsider ignored"),
        pytest.param(["1 of board"], ["fay", "mallory"], "backend", True, id="outsider hinders nobody"),
    ],
)
def test_slots_are_filled_by_one_person_each(needed: list[str], names: list[str], initiator: str, enough: bool) -> None:
    """The matching, in the cases that counting by group gets wrong and in the plain ones."""
    refusals = list(satisfied(asked(*needed), approvers(*names), initiator))
    assert (not refusals) is enough
    if not enough:
        assert refusals[-1].rule is Rule.QUORUM_NOT_REACHED


def test_a_missing_slot_is_named() -> None:
    """The refusal says who approved and what is missing; the initiator's own approval is told beside it."""
    refusals = list(satisfied(asked("1 of operations", "2 of risk"), approvers("ana", "dan"), "dan"))
    assert [r.rule for r in refusals] == [Rule.INITIATOR_APPROVES, Rule.QUORUM_NOT_REACHED]
    assert refusals[1].operands["missing"] == ["2 of risk"]
    assert refusals[1].operands["approved"] == ["ana"]


@pytest.mark.parametrize(
    ("names", "enough"),
    [
        pytest.param(["ana", "cleo", "bo"], True, id="a third of a named group"),
        pytest.param(["ana", "cleo"], False, id="slots full, people too few"),
        pytest.param(["ana", "cleo", "fay"], False, id="a third of a group nobody named"),
        pytest.param(["ana", "cleo", "backend"], False, id="a third who is the initiator"),
    ],
)
def test_a_floor_asks_for_more_people_than_slots(names: list[str], enough: bool) -> None:
    """A seat's floor counts distinct people of the groups that are asked."""
    needed = asked("1 of operations", "1 of risk").of_people(3)
    assert (not list(satisfied(needed, approvers(*names), "backend"))) is enough


@pytest.mark.parametrize(
    ("showing", "needed", "enough"),
    [
        pytest.param([], 0, True, id="nobody asks"),
        pytest.param(["ana"], 1, True, id="one of them showed it"),
        pytest.param([], 1, False, id="passkeys alone"),
        pytest.param(["ana"], 2, False, id="one where two are asked"),
        pytest.param(["ana", "cleo"], 2, True, id="both"),
        pytest.param(["fay"], 1, False, id="somebody of a group that nobody named"),
        pytest.param(["backend"], 1, False, id="the initiator"),
    ],
)
def test_some_keys_have_to_display(showing: list[str], needed: int, enough: bool) -> None:
    """A quorum of keys that show nothing is refused by a rule of its own, which says how many are missing."""
    names = {"ana", "cleo", "fay", "backend"}
    who = frozenset(Approver(n, frozenset(PEOPLE.get(n, ("risk",))), displays=n in showing) for n in names)
    requirement = replace(asked("1 of operations", "1 of risk"), displaying=needed)
    found = list(satisfied(requirement, who, "backend"))
    assert [r.rule for r in found] == ([] if enough else [Rule.DISPLAYING_MISSING])
    if not enough:
        eligible = len({*showing} & {"ana", "cleo"})
        assert (found[0].operands["missing"], found[0].operands["of"]) == (needed - eligible, ["operations", "risk"])


def test_somebody_given_twice_displays_if_both_times() -> None:
    """As with groups: what both agree on."""
    twice = frozenset({Approver("ana", frozenset({"risk"}), displays=shown) for shown in (True, False)})
    found = [r.rule for r in satisfied(replace(asked("1 of risk"), displaying=1), twice, "backend")]
    assert found == [Rule.DISPLAYING_MISSING]


def test_somebody_given_twice_counts_once() -> None:
    """Two entries for one person are one person, with the groups both agree on."""
    twice = frozenset({Approver("ana", frozenset({"risk"})), Approver("ana", frozenset({"operations"}))})
    assert list(satisfied(asked("1 of risk"), twice, "backend"))
    assert list(satisfied(asked("1 of risk", "1 of operations"), twice, "backend"))


GROUPS: Final = ("a", "b", "c")
SUBSETS: Final = [
    frozenset(g for g, chosen in zip(GROUPS, bits, strict=True) if chosen) for bits in product((0, 1), repeat=3)
]


def by_trying_all(needed: dict[str, int], people: tuple[frozenset[str], ...]) -> bool:
    """Whether some order of the people fills the slots one by one: every possibility, no cleverness."""
    slots = [group for group, n in needed.items() for _ in range(n)]
    return any(all(g in p for g, p in zip(slots, order, strict=False)) for order in permutations(people, len(slots)))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_every_membership_of_a_small_roster(size: int) -> None:
    """All memberships of up to four people in three groups, all thresholds up to two: the same as trying everything."""
    for people in combinations_with_replacement(SUBSETS, size):
        who = frozenset(Approver(f"p{i}", groups) for i, groups in enumerate(people))
        for thresholds in product((0, 1, 2), repeat=3):
            needed = {g: n for g, n in zip(GROUPS, thresholds, strict=True) if n}
            if needed:
                enough = not list(satisfied(Requirement(tuple(needed.items())), who, "initiator"))
                assert enough == by_trying_all(needed, people), (people, needed)


@given(
    people=st.lists(st.frozensets(st.sampled_from("abcd")), max_size=7).map(tuple),
    needed=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 2), min_size=1),
    extra=st.frozensets(st.sampled_from("abcd")),
)
def test_larger_rosters_and_one_more_person(
    people: tuple[frozenset[str], ...], needed: dict[str, int], extra: frozenset[str]
) -> None:
    """Seven people in four groups agree with brute force; one more approver never hurts; as the initiator, never helps."""
    requirement = Requirement(tuple(needed.items()))
    who = frozenset(Approver(f"p{i}", groups) for i, groups in enumerate(people))
    enough = not list(satisfied(requirement, who, "initiator"))
    assert enough == by_trying_all(needed, people)
    more = who | {Approver("extra", extra)}
    assert not enough or not list(satisfied(requirement, more, "initiator"))
    assert enough == (not list(satisfied(requirement, more, "extra")))


@pytest.mark.parametrize(
    ("approvals", "delay", "people"),
    [
        pytest.param((), 0, 0, id="an empty quorum"),
        pytest.param((("risk", 0),), 0, 0, id="threshold zero"),
        pytest.param((("risk", -1),), 0, 0, id="threshold below zero"),
        pytest.param((("risk", True),), 0, 0, id="a boolean threshold"),
        pytest.param((("risk", MOST_APPROVALS + 1),), 0, 0, id="threshold beyond the most"),
        pytest.param((("risk", 1), ("risk", 2)), 0, 0, id="a group twice"),
        pytest.param((("risk", 1),), -1, 0, id="negative delay"),
        pytest.param((("risk", 1),), 0, -1, id="negative people"),
        pytest.param((("risk", 1),), 0, True, id="a boolean of people"),
    ],
)
def test_requirements_that_cannot_be(approvals: tuple[tuple[str, int], ...], delay: int, people: int) -> None:
    """A quorum that anybody reaches cannot be constructed."""
    with pytest.raises(InvalidInput) as caught:
        Requirement(approvals, delay, people)
    assert caught.value.rule == Rule.THRESHOLD_OUT_OF_RANGE


# Whose approval counts


INTENT: Final = TransferIntent(
    id="018f0000-0000-7000-8000-000000000000", proposal=ZERO32, chain=ETH, wallet=ZERO32, certificate=ZERO32, asset="ETH",
    token=ZERO_ADDRESS, decimals=18, amount=10**18, account="customer:7", destination="0x" + "33" * 20,
    destination_kind="customer_withdrawal", enrolment=ZERO32, purpose="withdrawal", maximum_fee=10**15, initiator="cy",
    policy=ZERO32, roster=1, not_before=NOW, expiry=LATER,
)  # fmt: skip
DIGEST: Final = Domain(GENESIS).digest(INTENT)


def approval(name: str, word: str = "", digest: bytes = DIGEST) -> Approval:
    """An approval in somebody's name, signed with a word's key over a digest."""
    return Approval(DIGEST, name, Signer(word or f"device:{name}").over(digest))


def roster(version: int, **changes: object) -> Roster:
    """A later version under the same genesis, taken as verified."""
    return Roster(Signed(replace(VERSION_1, version=version, **changes), ()), GENESIS)  # type: ignore[arg-type]


REVOKED: Final = roster(
    2, people=(person("ana", "ana's laptop"), replace(person("bo"), keys=(Signer("bo's new key").key,)))
)
OTHER: Final = Domain(GENESIS).digest(replace(INTENT, amount=2 * 10**18))
ELSEWHERE: Final = Domain(b"\x01" * 32).digest(INTENT)


@pytest.mark.parametrize(
    ("given_", "newest", "now", "rule"),
    [
        pytest.param(approval("ana"), ROSTER, NOW, None, id="accepted"),
        pytest.param(approval("ana", "ana's laptop"), ROSTER, NOW, None, id="second key of a person"),
        pytest.param(approval("ana"), REVOKED, NOW, None, id="in both versions"),
        pytest.param(approval("ana", digest=OTHER), ROSTER, NOW, Rule.SIGNATURE_INVALID, id="signed another amount"),
        pytest.param(
            approval("ana", digest=ELSEWHERE), ROSTER, NOW, Rule.SIGNATURE_INVALID, id="signed for another deployment"
        ),
        pytest.param(replace(approval("ana"), intent=OTHER), ROSTER, NOW, Rule.WRONG_DIGEST, id="names another intent"),
        pytest.param(approval("bo", "device:ana"), ROSTER, NOW, Rule.SIGNER_UNKNOWN, id="in another's name"),
        pytest.param(approval("mallory"), ROSTER, NOW, Rule.SIGNER_UNKNOWN, id="outsider"),
        pytest.param(approval("backend", "backend"), ROSTER, NOW, Rule.SIGNER_UNKNOWN, id="a program, not a person"),
        pytest.param(approval("bo"), REVOKED, NOW, Rule.SIGNER_UNKNOWN, id="key revoked since"),
        pytest.param(approval("dee"), REVOKED, NOW, Rule.SIGNER_UNKNOWN, id="person left since"),
        pytest.param(
            approval("bo", "bo's new key"), REVOKED, NOW, Rule.SIGNER_UNKNOWN, id="key not in the pinned version"
        ),
        pytest.param(approval("ana"), ROSTER, LATER, Rule.SIGNER_EXPIRED, id="expired this second"),
        pytest.param(approval("ana"), ROSTER, LATER - 1, None, id="a second before expiry"),
        pytest.param(approval("cy"), ROSTER, NOW, Rule.INITIATOR_APPROVES, id="initiator"),
    ],
)
def test_one_approval(given_: Approval, newest: Roster, now: int, rule: Rule | None) -> None:
    """Each reason for which an approval does not count, beside the ones that do."""
    refusal = check_approval(given_, INTENT, DIGEST, ROSTER, newest, now)
    assert (refusal and refusal.rule) == rule


def test_one_person_under_two_keys_is_one() -> None:
    """Two valid signatures of one person fill one slot, and the second is told as such."""
    counted = count(
        [approval("ana"), approval("ana", "ana's laptop"), approval("bo")], INTENT, DIGEST, ROSTER, ROSTER, NOW
    )
    assert {a.person for a in counted.approvers} == {"ana", "bo"}
    assert [r.rule for r in counted.ignored] == [Rule.SIGNER_TWICE]


def test_groups_are_those_of_then_and_of_now() -> None:
    """Somebody who joined a group after the intent, or left it since, does not approve for it."""
    newest = roster(
        2, people=(replace(person("ana"), groups=("risk",)), replace(person("bo"), groups=("risk", "treasury")))
    )
    counted = count([approval("ana"), approval("bo")], INTENT, DIGEST, ROSTER, newest, NOW)
    assert counted.approvers == {
        Approver("ana", frozenset(), displays=True),
        Approver("bo", frozenset({"treasury"}), displays=True),
    }


@pytest.mark.parametrize(
    ("pinned", "newest", "rule"),
    [
        pytest.param(roster(2), roster(2), Rule.ROSTER_OLDER, id="another version than the intent pins"),
        pytest.param(ROSTER, roster(0), Rule.ROSTER_OLDER, id="newest is older than pinned"),
        pytest.param(ROSTER, Roster(ROSTER.signed, b"\x02" * 32), Rule.WRONG_GENESIS, id="rosters of two deployments"),
    ],
)
def test_the_wrong_roster_counts_nobody(pinned: Roster, newest: Roster, rule: Rule) -> None:
    """An approver must stand in the version that the intent pins and in the newest (TRUST.md)."""
    counted = count([approval("ana")], INTENT, DIGEST, pinned, newest, NOW)
    assert counted.approvers == frozenset()
    assert [r.rule for r in counted.ignored] == [rule]


ANAS: Final = Authenticator("ana's passkey")


def with_passkey(version: int, **changes: object) -> Roster:
    """A version that gives ana a passkey."""
    ana = VERSION_1.people[0]
    said = {"keys": (*ana.keys, ANAS.key), "displays": (*ana.displays, False)} | changes
    hers = replace(ana, **said)  # type: ignore[arg-type]
    return roster(version, people=(hers, *VERSION_1.people[1:]))


@pytest.mark.parametrize(
    ("pinned", "newest", "signature", "displays"),
    [
        pytest.param(with_passkey(1), with_passkey(2), ANAS.over(DIGEST), False, id="a passkey shows nothing"),
        pytest.param(with_passkey(1), with_passkey(2), approval("ana").signature, True, id="a device does"),
        pytest.param(with_passkey(1), with_passkey(2), approval("ana", "ana's laptop").signature, False, id="a PEM file"),
        pytest.param(
            with_passkey(1), with_passkey(2, displays=(False, False, False)), approval("ana").signature, False,
            id="a device that was found not to",
        ),
        pytest.param(
            with_passkey(1, displays=(False, False, False)), with_passkey(2), approval("ana").signature, False,
            id="a device that did not then",
        ),
        pytest.param(
            with_passkey(1, displays=(True, True, True)), with_passkey(2, displays=(True, True, True)), ANAS.over(DIGEST),
            False, id="a passkey, whatever a roster says",
        ),
    ],
)  # fmt: skip
def test_whose_key_displays(pinned: Roster, newest: Roster, signature: Signature, displays: bool) -> None:
    """By the word of both versions, key by key, and never a key that is handed 32 bytes."""
    (found,) = count([Approval(DIGEST, "ana", signature)], INTENT, DIGEST, pinned, newest, NOW).approvers
    assert (found.person, found.displays) == ("ana", displays)


def test_an_approval_travels_as_json() -> None:
    """The form in which the worker hands it to a seat."""
    assert Approval.from_json(approval("ana").to_json()) == approval("ana")
