# SPDX-License-Identifier: AGPL-3.0-or-later
"""Birth over ports: who must sign, what is pinned, what a new wallet may not share, and the mirror read back unbelieving."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import pytest

from custody.chains.scripts import check_script
from custody.flows.birth import admit_wallet, check_wallet, found, machines_sign
from custody.flows.mirror import CERTIFICATE, ROSTER, certificates_from, put_signed, roster_from, rosters_from, upcoming
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import Roster, RosterVersion
from custody.rules.signatures import Signed
from custody.rules.typed import Domain
from custody.rules.wallets import Tier
from tests.fakes.seat import (
    BITCOIN,
    COLD,
    EVM,
    HOT,
    NOW,
    PEOPLE,
    YEAR,
    Deployment,
    rules_of,
    seat_in_memory,
    secp256k1,
    signed_by,
)
from tests.fakes.store import FakeStore


@cache
def house() -> Deployment:
    """Eight pinned seats."""
    return Deployment([seat_in_memory(name) for name in (*HOT, *COLD)]).pinned()


def roster() -> Roster:
    """Version 1, verified."""
    return Roster(house().genesis(), house().domain.genesis)


@cache
def hot() -> Signed[WalletCertificate]:
    """A certificate for the EVM hot wallet."""
    return house().people_sign(house().draft("customer_hot"))


def test_found_pins_everywhere_and_mirrors() -> None:
    """Born once; asked again, everything answers the same."""
    deployment = Deployment([seat_in_memory(name) for name in HOT])
    store = FakeStore()
    signed = deployment.genesis()
    for _ in range(2):
        born = found(store, signed, deployment.seats, NOW)
    assert born.domain == deployment.domain
    mirrored = store.read(lambda work: work.documents.all(ROSTER))
    assert roster_from(mirrored, deployment.domain.genesis, NOW).version == deployment.version


@pytest.mark.parametrize("missing", [*PEOPLE, "attestor", HOT[1]])
def test_found_names_who_is_missing(missing: str) -> None:
    """Nothing is pinned and nothing mirrored where one signature is missing."""
    deployment = Deployment([seat_in_memory(name) for name in HOT])
    store = FakeStore()
    with pytest.raises(Refused) as caught:
        found(store, deployment.genesis(without=missing), deployment.seats, NOW)
    assert [r.rule for r in caught.value.refusals] == [Rule.SIGNATURE_MISSING]
    assert missing in str(caught.value)
    assert list(store.read(lambda work: work.documents.all(ROSTER))) == []


def test_machines_are_not_asked_to_sign_half_a_roster() -> None:
    """A version that is not whole is refused before any key is used."""
    deployment = Deployment([seat_in_memory(name) for name in HOT])
    broken = replace(deployment.version, thresholds=replace(deployment.version.thresholds, roster=9))
    with pytest.raises(Refused) as caught:
        machines_sign(Signed(broken, ()), deployment.seats)
    assert rules_of(caught.value) == {Rule.THRESHOLD_OUT_OF_RANGE}


def test_a_false_signature_does_not_push_out_a_true_one() -> None:
    """Joined later under the same key, it is kept beside it and counts for nothing."""
    signed = house().genesis()
    false = replace(signed.signatures[0], value=bytes(len(signed.signatures[0].value)))
    domain = Domain(signed.message.struct_hash)
    assert signed.joined([false]).signers(domain) == signed.signers(domain)


def check(signed: Signed[WalletCertificate], known: Iterable[WalletCertificate] = ()) -> set[Rule]:
    """The rules against a new wallet."""
    return {r.rule for r in check_wallet(roster(), signed, known, check_script, NOW)}


def test_a_wallet_that_people_signed() -> None:
    """Passes, is accepted by its seats and mirrored; a repetition changes nothing."""
    assert check(hot()) == set()
    assert check(hot(), [hot().message]) == set()
    store = FakeStore()
    for _ in range(2):
        admit_wallet(store, hot(), [seat for seat in house().seats if seat.name in HOT])
    found_again = certificates_from(store.read(lambda work: work.documents.all(CERTIFICATE)), roster())
    assert list(found_again) == [hot().message.struct_hash]


WALLETS: list[tuple[Callable[[WalletCertificate], WalletCertificate], Rule, str]] = [
    (lambda c: replace(c, m=2), Rule.QUORUMS_TOO_DISJOINT, "2 of 4"),
    (lambda c: replace(c, m=0), Rule.THRESHOLD_OUT_OF_RANGE, "threshold 0"),
    (lambda c: replace(c, m=5), Rule.THRESHOLD_OUT_OF_RANGE, "5 of 4"),
    (lambda c: replace(c, tier="customer_cold"), Rule.SEAT_TIER, "hot seats in a cold wallet"),
    (lambda c: replace(c, seats=(*c.seats[1:], c.seats[1])), Rule.SIGNER_TWICE, "one seat twice"),
    (lambda c: replace(c, label="customer_hot_2"), Rule.KEY_REUSED, "keys made for another wallet"),
    (
        lambda c: replace(c, safe=(replace(c.safe[0], initializer=c.safe[0].initializer[:-32] + b"\x01" * 32),)),
        Rule.INITIALIZER,
        "an initializer that pays",
    ),
]


@pytest.mark.parametrize(("change", "rule"), [pytest.param(c, r, id=name) for c, r, name in WALLETS])
def test_a_wallet_that_is_refused(change: Callable[[WalletCertificate], WalletCertificate], rule: Rule) -> None:
    """A quorum of people cannot sign a wrong wallet into being."""
    assert rule in check(house().people_sign(change(hot().message)))


def test_one_person_is_no_quorum() -> None:
    """Nor is one person twice."""
    assert check(house().people_sign(hot().message, ["ana"])) == {Rule.QUORUM_NOT_REACHED}
    assert check(house().people_sign(hot().message, ["ana", "ana"])) == {Rule.QUORUM_NOT_REACHED}


def test_no_key_and_no_label_in_two_wallets() -> None:
    """Against a wallet that is known under another certificate."""
    known = replace(hot().message, birth=77)
    assert check(hot(), [known]) == {Rule.KEY_REUSED, Rule.NAME_REUSED}


class TestMirror:
    """Whatever stands in the mirror is verified again, from a genesis that comes from elsewhere."""

    def test_another_genesis(self) -> None:
        """A whole roster of another deployment is refused."""
        with pytest.raises(Refused) as caught:
            roster_from([house().genesis().to_json()], b"\x01" * 32, NOW)
        assert rules_of(caught.value) == {Rule.WRONG_GENESIS}

    def test_nothing(self) -> None:
        """Silence is not a roster."""
        with pytest.raises(InvalidInput):
            roster_from([], house().domain.genesis, NOW)

    def test_a_signature_taken_out(self) -> None:
        """Version 1 without somebody is no version 1."""
        signed = house().genesis()
        less = Signed(signed.message, signed.signatures[1:])
        with pytest.raises(Refused) as caught:
            roster_from([less.to_json()], house().domain.genesis, NOW)
        assert rules_of(caught.value) == {Rule.SIGNATURE_MISSING}

    def test_versions_in_any_order(self) -> None:
        """A successor in force follows; one that is not yet does not count."""
        now, later = self.successor(NOW), self.successor(NOW + 100)
        both = [now.to_json(), house().genesis().to_json()]
        assert [r.version.version for r in rosters_from(both, house().domain.genesis, NOW)] == [1, 2]
        assert len(rosters_from([later.to_json(), both[1]], house().domain.genesis, NOW)) == 1

    def test_signers_whose_entries_expired_since(self) -> None:
        """A chain of rosters holds when those who signed an old version are long gone; nobody who was gone could sign it."""
        documents = [house().genesis().to_json(), self.successor(NOW).to_json()]
        assert len(rosters_from(documents, house().domain.genesis, NOW + 3 * YEAR)) == 2
        late = [documents[0], self.successor(NOW + YEAR).to_json()]
        with pytest.raises(Refused) as caught:
            rosters_from(late, house().domain.genesis, NOW + 3 * YEAR)
        assert rules_of(caught.value) == {Rule.QUORUM_NOT_REACHED, Rule.DISPLAYING_MISSING}

    def test_who_leaves_takes_no_wallet_along(self) -> None:
        """A certificate holds by the version under which it was signed; by nobody of any version it does not hold."""
        version, domain = house().version, house().domain
        stay = tuple(person for person in version.people if person.id != "ana")
        following = house().successor(people=stay, policy_owners=("bo", "cy"), not_before=NOW)
        two = house().people_sign(following, ("bo", "cy"))
        documents = [house().genesis().to_json(), two.to_json()]
        newest = rosters_from(documents, domain.genesis, NOW)[-1]
        assert newest.version.version == 2
        assert list(newest.check_certificate(hot(), NOW)) != []  # ana's signature counts no more by the newest alone
        assert list(certificates_from([hot().to_json()], newest)) == [hot().message.struct_hash]
        strangers = signed_by(hot().message, domain, [secp256k1("ana"), secp256k1("mallory")])
        with pytest.raises(Refused) as caught:
            certificates_from([strangers.to_json()], newest)
        assert rules_of(caught.value) == {Rule.QUORUM_NOT_REACHED, Rule.DISPLAYING_MISSING}

    def test_upcoming(self) -> None:
        """A successor that both quorums signed and that is not in force; nothing else."""
        first, ahead = house().genesis().to_json(), self.successor(NOW + 100)
        few = self.successor(NOW + 200, ["ana"])
        assert list(upcoming([first, few.to_json(), ahead.to_json()], roster(), NOW)) == [ahead.message]

    def test_a_successor_that_too_few_signed(self) -> None:
        """A row cannot promote anybody."""
        forged = self.successor(NOW, ["ana"])
        with pytest.raises(Refused) as caught:
            roster_from([house().genesis().to_json(), forged.to_json()], house().domain.genesis, NOW)
        assert rules_of(caught.value) == {Rule.QUORUM_NOT_REACHED}

    @pytest.mark.parametrize("field", ["tier", "label", "m"])
    def test_a_retagged_wallet(self, field: str) -> None:
        """A certificate changed in its row carries signatures over something else."""
        body = hot().to_json()
        body["message"][field] = {"tier": "operational", "label": "mine", "m": "4"}[field]
        with pytest.raises(Refused) as caught:
            certificates_from([body], roster())
        assert Rule.QUORUM_NOT_REACHED in rules_of(caught.value)

    def test_a_successor_without_its_predecessor(self) -> None:
        """A line that does not begin at a birth is refused."""
        orphan = house().people_sign(replace(hot().message, previous=b"\x05" * 32))
        with pytest.raises(Refused) as caught:
            certificates_from([orphan.to_json()], roster())
        assert rules_of(caught.value) == {Rule.NOT_SUCCESSOR}

    def test_two_successors(self) -> None:
        """A fork of a wallet's line is refused."""
        name = hot().message.struct_hash
        heirs = [house().people_sign(replace(hot().message, previous=name, birth=b)) for b in (5, 6)]
        with pytest.raises(Refused) as caught:
            certificates_from([hot().to_json(), *(h.to_json() for h in heirs)], roster())
        assert rules_of(caught.value) == {Rule.NOT_SUCCESSOR}

    def test_put_twice(self) -> None:
        """The same document again is fine."""
        store = FakeStore()
        for _ in range(2):
            store.run(lambda work: put_signed(work.documents, CERTIFICATE, hot()))
        assert len(store.read(lambda work: work.documents.all(CERTIFICATE))) == 1

    @staticmethod
    def successor(not_before: int, names: Iterable[str] = ("ana", "bo")) -> Signed[RosterVersion]:
        """Version 2, in force from a time on."""
        version = house().successor(not_before=not_before)
        return signed_by(version, house().domain, [secp256k1(name) for name in names])


def test_bitcoin_wallets_too() -> None:
    """The same flow, another kind of script."""
    signed = house().people_sign(house().draft("customer_cold", Tier.CUSTOMER_COLD, BITCOIN))
    assert check(signed) == set()
    assert EVM.name not in signed.message.chain
