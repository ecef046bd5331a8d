# SPDX-License-Identifier: AGPL-3.0-or-later
"""Documents that people sign one by one: who may, once each, and nothing that a row says beside them."""

import pytest

from custody.flows import gathering
from custody.rules.governance import Unfreeze
from custody.rules.refusals import Refused, Rule
from tests.fakes.seat import NOW, YEAR, rules_of, secp256k1
from tests.fakes.store import FakeStore
from tests.fakes.treasury import roster
from tests.fakes.trust import passkey

MESSAGE = Unfreeze(b"\x07" * 32, "looked at", NOW + 3600)
DIGEST = roster().domain.digest(MESSAGE)


@pytest.fixture
def store() -> FakeStore:
    """With one draft of ana's."""
    made = FakeStore()
    assert gathering.draft(made, roster(), MESSAGE, "ana", NOW) == DIGEST
    return made


def people(store: FakeStore, now: int = NOW) -> tuple[str, ...]:
    """Who signed it."""
    (found,) = store.read(lambda work: [*gathering.drafts(work, roster(), Unfreeze, now)])
    assert (found.by, found.at, found.digest, found.signed.message) == ("ana", NOW, DIGEST, MESSAGE)
    return found.people


def test_signatures_come_one_by_one(store: FakeStore) -> None:
    """A passkey's and a keystore's; drafting again and signing again change nothing."""
    assert people(store) == ()
    first = secp256k1("ana").sign(DIGEST)
    for _ in range(2):
        gathering.draft(store, roster(), MESSAGE, "bo", NOW + 1)
        assert gathering.add(store, roster(), Unfreeze, DIGEST, first, NOW).people == ("ana",)
    found = gathering.add(store, roster(), Unfreeze, DIGEST, passkey("bo").over(DIGEST), NOW)
    assert found.people == people(store) == ("ana", "bo")
    assert roster().people_who_signed(found.signed, NOW) == {"ana", "bo"}


def test_a_key_that_displays_joins_a_pages(store: FakeStore) -> None:
    """Who signed at a page signs again with what displays, and counts once; not the other way round, and not twice."""
    gathering.add(store, roster(), Unfreeze, DIGEST, passkey("bo").over(DIGEST), NOW)
    found = gathering.add(store, roster(), Unfreeze, DIGEST, secp256k1("bo").sign(DIGEST), NOW)
    assert (found.people, len(found.signed.signatures)) == (("bo",), 2)
    assert [*roster().check_displaying(found.signed, None, NOW)] == []
    with pytest.raises(Refused) as caught:
        gathering.add(store, roster(), Unfreeze, DIGEST, passkey("bo").over(DIGEST + b""), NOW)
    assert rules_of(caught.value) == {Rule.SIGNER_TWICE}


@pytest.mark.parametrize(
    ("signature", "now", "rule"),
    [
        pytest.param(secp256k1("mallory").sign(DIGEST), NOW, Rule.SIGNER_UNKNOWN, id="a stranger"),
        pytest.param(secp256k1("ana").sign(b"\x01" * 32), NOW, Rule.SIGNATURE_INVALID, id="over another message"),
        pytest.param(secp256k1("ana").sign(DIGEST), NOW + YEAR, Rule.SIGNER_EXPIRED, id="an entry that ended"),
        pytest.param(passkey("bo").over(DIGEST), NOW, Rule.SIGNER_TWICE, id="one person with two keys"),
    ],
)
def test_who_may_not_sign(store: FakeStore, signature: object, now: int, rule: Rule) -> None:
    """Refused, and nothing is kept."""
    gathering.add(store, roster(), Unfreeze, DIGEST, secp256k1("bo").sign(DIGEST), NOW)
    with pytest.raises(Refused) as caught:
        gathering.add(store, roster(), Unfreeze, DIGEST, signature, now)  # type: ignore[arg-type]
    assert rules_of(caught.value) == {rule}
    assert people(store) == ("bo",)


def test_nothing_rests_on_a_row(store: FakeStore) -> None:
    """Rows that somebody wrote: a draft that is none, a signature that is none, one over something else, one moved to another draft."""
    kind, beside = "gathering:Unfreeze", f"gathering:{DIGEST.hex()}"
    rows: list[tuple[str, str, dict[str, object]]] = [
        (kind, "aa", {"message": {}, "by": "x", "at": "1"}),
        (kind, "bb", {"nonsense": 1}),
        (beside, "cc", {"nonsense": 1}),
        (beside, "dd", secp256k1("cy").sign(b"\x02" * 32).to_json()),
    ]
    for of, key, body in rows:
        store.run(lambda work, of=of, key=key, body=body: work.documents.put(of, key, body))  # type: ignore[misc]
    assert people(store) == ()
    with pytest.raises(Refused) as caught:
        store.read(lambda work: gathering.find(work, roster(), Unfreeze, b"\xaa" * 32, NOW))
    assert rules_of(caught.value) == {Rule.NOT_SUCCESSOR}
