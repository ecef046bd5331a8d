# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every seat must do and refuse: in memory, hosted over a real OpenBao and asked by wire, and in the engine that OpenBao loads.

One OpenBao server is one identity, so only the seat under test is ever real; the others live in memory.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from custody.chains.scripts import check_script
from custody.rules.birth import check_chain
from custody.rules.certificates import WalletCertificate
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.ledger import JournalHead
from custody.rules.refusals import Refused, Rule
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Chain, Tier
from custody.seating import read_bundle, terms
from custody.vault.attestor_key import AttestorVault
from custody.vault.keyring import RemoteSeat
from custody.vault.openbao import OpenBaoClient
from custody.vault.seat import SeatHost
from custody.vault.storage import CasConflict, Vault
from custody.vault.verbs import seat_handlers
from custody.wire import Stop, serve
from tests.fakes.engine import DrawerClient, DrawerVault
from tests.fakes.seat import (
    BITCOIN,
    COLD,
    EVM,
    HOT,
    NOW,
    Clock,
    Deployment,
    Drawer,
    FakeVault,
    rules_of,
    seat_in_memory,
    version_one,
)

LABEL = "customer_hot/eip155:31338"
_drawers = itertools.count(1)


@pytest.fixture(params=["memory", "openbao", "engine"])
def vault(request: pytest.FixtureRequest) -> Vault:
    """A vault that nobody has written to."""
    if request.param == "memory":
        return FakeVault()
    if request.param == "engine":
        return DrawerVault(DrawerClient(request.getfixturevalue("engine_drawers"), f"drawer-{next(_drawers)}"))
    client = OpenBaoClient.from_file(request.getfixturevalue("openbao_seat").approle_file)
    return Drawer(client, f"drawer-{next(_drawers)}")


@dataclass
class Subject:
    """The seat under test as its callers see it, and the host behind it."""

    seat: SeatHost | RemoteSeat
    host: SeatHost
    clock: Clock


@pytest.fixture
def subject(vault: Vault) -> Iterator[Subject]:
    """A new seat named hot-1: in memory called directly, over a real vault called by wire."""
    clock = Clock()
    host = SeatHost("hot-1", vault, check_script, clock, read_bundle=read_bundle, terms=terms)
    if isinstance(vault, FakeVault):
        yield Subject(host, host, clock)
        return
    if isinstance(vault, DrawerVault):
        vault.client.clock = clock
        yield Subject(RemoteSeat("hot-1", vault.client), host, clock)
        return
    with _by_wire(host) as seat:
        yield Subject(seat, host, clock)


@contextmanager
def _by_wire(host: SeatHost) -> Iterator[RemoteSeat]:
    """A remote seat over a thread that serves a host."""
    stop, ready = Stop(), threading.Event()
    with TemporaryDirectory(prefix="seat-") as folder:  # short: a socket's path has 107 bytes
        path = Path(folder) / "s"
        server = threading.Thread(target=serve, args=(path, seat_handlers(host), ready.set, stop))
        server.start()
        try:
            assert ready.wait(60)
            yield RemoteSeat(host.name, path)
        finally:
            stop.ring()
            server.join()
            stop.close()


@pytest.fixture
def unborn(subject: Subject) -> Deployment:
    """Four hot seats, the first of them under test; nothing is signed yet."""
    return Deployment([subject.seat, *(seat_in_memory(name) for name in HOT[1:])])


@pytest.fixture
def deployment(unborn: Deployment) -> Deployment:
    """The same after genesis."""
    return unborn.pinned()


def test_a_seats_life(subject: Subject, unborn: Deployment) -> None:
    """Identity, genesis, a key, a certificate; every answer is the same when asked again, and the journal joins up."""
    seat = subject.seat
    assert seat.identity() == seat.identity()
    genesis = unborn.genesis()
    seat.pin(genesis)
    seat.pin(genesis)
    assert seat.sign_roster(unborn.version) in genesis.signatures
    for other in unborn.seats[1:]:
        other.pin(genesis)
    for chain, label in ((EVM, LABEL), (BITCOIN, "customer_hot/regtest")):
        assert seat.make_wallet_key(label, chain) == seat.make_wallet_key(label, chain)
        signed = unborn.people_sign(unborn.draft(label, chain=chain))
        accepted = seat.accept(signed)
        assert seat.accept(signed) == accepted == seat.head()
        assert accepted.signers(unborn.domain) == {seat.identity()}
    head = seat.head()
    status = subject.seat.status()
    assert (status["position"], status["genesis"]) == (6, "0x" + genesis.message.struct_hash.hex())
    assert [wallet["label"] for wallet in subject.host.status()["wallets"]] == [LABEL, "customer_hot/regtest"]
    records = subject.host.records()
    assert [r.kind for r in records] == ["roster_signed", "pinned", *["wallet_key", "certificate"] * 2]
    assert list(check_chain(records)) == []
    assert (records[-1].position, records[-1].struct_hash) == (head.message.position, head.message.head)


def test_wallet_keys_differ_and_fit_their_chain(subject: Subject, deployment: Deployment) -> None:
    """Two labels never share a key; EVM gives 33 bytes, Bitcoin an account xpub with origin and nothing that can spend."""
    made = [subject.seat.make_wallet_key(label, EVM).key for label in ("customer_hot/a", "operational/a")]
    assert made[0].public != made[1].public
    assert [len(key.public) for key in made] == [33, 33]
    bitcoin = subject.seat.make_wallet_key("operational/b", BITCOIN)
    assert bitcoin.key.xpub.startswith("[")
    assert "/48h/1h/0h/2h]tpub" in bitcoin.key.xpub
    assert bitcoin.signature.is_over(deployment.domain.digest(bitcoin.key))


BEFORE_GENESIS: dict[str, Callable[[SeatHost | RemoteSeat, Deployment], object]] = {
    "a wallet key": lambda seat, d: seat.make_wallet_key(LABEL, EVM),
    "a head": lambda seat, d: seat.head(),
    "a successor": lambda seat, d: seat.admit_roster(d.people_sign(d.successor())),
}


@pytest.mark.parametrize("ask", BEFORE_GENESIS.values(), ids=BEFORE_GENESIS.keys())
def test_nothing_before_genesis(
    subject: Subject, unborn: Deployment, ask: Callable[[SeatHost | RemoteSeat, Deployment], object]
) -> None:
    """A seat that has pinned nothing signs nothing but version 1."""
    with pytest.raises(Refused) as refused:
        ask(subject.seat, unborn)
    assert rules_of(refused.value) == {Rule.NOT_PINNED}
    assert subject.host.records() == []


ROSTERS: dict[str, tuple[Callable[[RosterVersion], RosterVersion], Rule]] = {
    "somebody else's identity in my place": (
        lambda v: replace(v, seats=(replace(v.seats[0], identity=v.attestor), *v.seats[1:])),
        Rule.SEAT_UNKNOWN,
    ),
    "without this seat": (lambda v: replace(v, seats=v.seats[1:]), Rule.SEAT_UNKNOWN),
    "one key of two people": (
        lambda v: replace(v, people=(replace(v.people[0], keys=v.people[1].keys), *v.people[1:])),
        Rule.KEY_REUSED,
    ),
    "a threshold of zero": (
        lambda v: replace(v, thresholds=replace(v.thresholds, certificate=0)),
        Rule.THRESHOLD_OUT_OF_RANGE,
    ),
    "version 2 before version 1": (lambda v: replace(v, version=2, previous=v.struct_hash), Rule.NOT_SUCCESSOR),
}


@pytest.mark.parametrize(("change", "rule"), ROSTERS.values(), ids=ROSTERS.keys())
def test_rosters_it_does_not_sign(
    subject: Subject, unborn: Deployment, change: Callable[[RosterVersion], RosterVersion], rule: Rule
) -> None:
    """Before genesis: only a whole version 1 that names this seat with this identity."""
    with pytest.raises(Refused) as refused:
        subject.seat.sign_roster(change(unborn.version))
    assert rule in rules_of(refused.value)
    assert subject.host.records() == []


@pytest.mark.parametrize("missing", ["ana", "attestor", "hot-1", "hot-4"])
def test_genesis_wants_everybody(subject: Subject, unborn: Deployment, missing: str) -> None:
    """One signature less, whoever's it is: not pinned."""
    with pytest.raises(Refused) as refused:
        subject.seat.pin(unborn.genesis(without=missing))
    assert rules_of(refused.value) == {Rule.SIGNATURE_MISSING}
    assert subject.seat.status()["genesis"] is None


def test_another_genesis(subject: Subject, deployment: Deployment) -> None:
    """Pinned once is pinned for ever: another version 1 is neither pinned nor signed."""
    other = replace(deployment.version, not_before=NOW - 1)
    for ask in (lambda: subject.seat.pin(Signed(other, ())), lambda: subject.seat.sign_roster(other)):
        with pytest.raises(Refused) as refused:
            ask()
        assert rules_of(refused.value) == {Rule.WRONG_GENESIS}


def test_the_next_roster_and_no_older_one(subject: Subject, deployment: Deployment) -> None:
    """A successor takes quorum; a replayed older version is refused, the newest again is fine."""
    seat = subject.seat
    two = deployment.successor(not_before=NOW)
    with pytest.raises(Refused) as refused:
        seat.admit_roster(deployment.people_sign(two, ["ana"]))
    assert rules_of(refused.value) == {Rule.QUORUM_NOT_REACHED}
    assert seat.sign_roster(two).is_over(deployment.domain.digest(two))
    seat.admit_roster(deployment.people_sign(two))
    seat.admit_roster(deployment.people_sign(two))
    assert seat.head().message.roster == 2
    three = replace(two, version=3, previous=two.struct_hash)
    seat.admit_roster(deployment.people_sign(three))
    for ask in (lambda: seat.admit_roster(deployment.people_sign(two)), lambda: seat.sign_roster(two)):
        with pytest.raises(Refused) as refused:
            ask()
        assert rules_of(refused.value) == {Rule.ROSTER_OLDER}


KEYS: dict[str, tuple[str, Chain, Rule]] = {
    "a chain that the roster has not": (LABEL, Chain("eip155:1"), Rule.UNKNOWN_CHAIN),
    "an empty label": ("", EVM, Rule.MALFORMED),
    "a label with a line in it": ("customer\nhot", EVM, Rule.MALFORMED),
    "a label without end": ("a" * 101, EVM, Rule.MALFORMED),
}


@pytest.mark.parametrize(("label", "chain", "rule"), KEYS.values(), ids=KEYS.keys())
def test_keys_it_does_not_make(subject: Subject, deployment: Deployment, label: str, chain: Chain, rule: Rule) -> None:
    """A refused request leaves no key behind."""
    with pytest.raises(Refused) as refused:
        subject.seat.make_wallet_key(label, chain)
    assert rules_of(refused.value) == {rule}
    assert subject.seat.status()["keys"] == []


def _swap_my_key(d: Deployment, c: WalletCertificate) -> Signed[WalletCertificate]:
    """Another seat's key in hot-1's slot, under hot-1's name."""
    stolen = d.seats[1].make_wallet_key("operational/other", EVM)
    mine = replace(c.seats[0], key=replace(stolen.key, seat="hot-1", label=c.label))
    return d.people_sign(replace(c, seats=(mine, *c.seats[1:])))


def _initializer_that_calls(d: Deployment, c: WalletCertificate) -> Signed[WalletCertificate]:
    """The initializer with its `to` word set: setup's third argument is a delegatecall's target."""
    word = 4 + 32 * 2
    initializer = c.safe[0].initializer
    calling = initializer[:word] + bytes(12) + b"\x66" * 20 + initializer[word + 32 :]
    return d.people_sign(replace(c, safe=(replace(c.safe[0], initializer=calling),)))


CERTIFICATES: dict[str, tuple[Callable[[Deployment, WalletCertificate], Signed[WalletCertificate]], Rule]] = {
    "no quorum": (lambda d, c: d.people_sign(c, ["ana"]), Rule.QUORUM_NOT_REACHED),
    "nobody": (lambda d, c: Signed(c, ()), Rule.QUORUM_NOT_REACHED),
    "an outsider beside one person": (lambda d, c: d.people_sign(c, ["ana", "mallory"]), Rule.QUORUM_NOT_REACHED),
    "signatures of another certificate": (
        lambda d, c: Signed(replace(c, birth=2), d.people_sign(c).signatures),
        Rule.QUORUM_NOT_REACHED,
    ),
    "another seat's key in my slot": (_swap_my_key, Rule.NOT_OWN_KEY),
    "without me": (lambda d, c: d.people_sign(replace(c, n=3, seats=c.seats[1:])), Rule.NOT_OWN_KEY),
    "2-of-4": (lambda d, c: d.people_sign(replace(c, m=2)), Rule.QUORUMS_TOO_DISJOINT),
    "0-of-4": (lambda d, c: d.people_sign(replace(c, m=0)), Rule.THRESHOLD_OUT_OF_RANGE),
    "5-of-4": (lambda d, c: d.people_sign(replace(c, m=5)), Rule.THRESHOLD_OUT_OF_RANGE),
    "one seat twice": (lambda d, c: d.people_sign(replace(c, seats=(c.seats[0], *c.seats[:3]))), Rule.SIGNER_TWICE),
    "hot seats in a cold wallet": (lambda d, c: d.people_sign(replace(c, tier=Tier.CUSTOMER_COLD)), Rule.SEAT_TIER),
    "a tier of its own": (lambda d, c: d.people_sign(replace(c, tier="founders")), Rule.MALFORMED),
    "an initializer that calls out": (_initializer_that_calls, Rule.INITIALIZER),
    "another address": (
        lambda d, c: d.people_sign(replace(c, safe=(replace(c.safe[0], address="0x" + "77" * 20),))),
        Rule.ADDRESS_MISMATCH,
    ),
    "other code": (
        lambda d, c: d.people_sign(replace(c, safe=(replace(c.safe[0], singleton_code=ZERO32),))),
        Rule.CODE_HASH,
    ),
    "neither Safe nor script": (lambda d, c: d.people_sign(replace(c, safe=())), Rule.SCRIPT_MISMATCH),
    "a predecessor that nobody knows": (
        lambda d, c: d.people_sign(replace(c, previous=b"\x01" * 32)),
        Rule.NOT_SUCCESSOR,
    ),
}


@pytest.mark.parametrize(("make", "rule"), CERTIFICATES.values(), ids=CERTIFICATES.keys())
def test_certificates_it_does_not_accept(
    subject: Subject,
    deployment: Deployment,
    make: Callable[[Deployment, WalletCertificate], Signed[WalletCertificate]],
    rule: Rule,
) -> None:
    """Refused with its rule, and nothing is changed; the good one is accepted after it."""
    good = deployment.draft(LABEL)
    bad = make(deployment, good)
    before = subject.seat.head()
    with pytest.raises(Refused) as refused:
        subject.seat.accept(bad)
    assert rule in rules_of(refused.value)
    assert subject.seat.head() == before
    assert subject.seat.accept(deployment.people_sign(good)).message.position == before.message.position + 1


def test_a_second_birth_for_a_label(subject: Subject, deployment: Deployment) -> None:
    """One label and chain bear one wallet, whoever signs another; nor does the same key set under another label."""
    first = deployment.draft(LABEL)
    subject.seat.accept(deployment.people_sign(first))
    with pytest.raises(Refused) as refused:
        subject.seat.accept(deployment.people_sign(replace(first, birth=2)))
    assert rules_of(refused.value) == {Rule.ALREADY_ACCEPTED, Rule.KEY_REUSED}
    again = deployment.draft("operational/two", Tier.OPERATIONAL)
    relabelled = replace(
        first, label="operational/two", tier=Tier.OPERATIONAL, seats=(again.seats[0], *first.seats[1:])
    )
    with pytest.raises(Refused) as refused:
        subject.seat.accept(deployment.people_sign(relabelled))
    assert Rule.KEY_REUSED in rules_of(refused.value)


def test_a_successor_follows_the_newest(subject: Subject, deployment: Deployment) -> None:
    """On Bitcoin a successor with new keys joins its wallet's line; it may not change tier, or follow an older one."""
    birth = deployment.draft("operational/one", Tier.OPERATIONAL, BITCOIN)
    subject.seat.accept(deployment.people_sign(birth))
    following = replace(deployment.draft("operational/one#2", Tier.OPERATIONAL, BITCOIN), previous=birth.struct_hash)
    with pytest.raises(Refused) as refused:
        subject.seat.accept(deployment.people_sign(replace(following, tier=Tier.CUSTOMER_HOT)))
    assert Rule.TIER_CHANGED in rules_of(refused.value)
    subject.seat.accept(deployment.people_sign(following))
    (wallet,) = subject.host.status()["wallets"]
    assert (wallet["wallet"], wallet["certificate"]) == tuple("0x" + c.struct_hash.hex() for c in (birth, following))
    fork = replace(deployment.draft("operational/one#3", Tier.OPERATIONAL, BITCOIN), previous=birth.struct_hash)
    with pytest.raises(Refused) as refused:
        subject.seat.accept(deployment.people_sign(fork))
    assert Rule.NOT_SUCCESSOR in rules_of(refused.value)


def test_time_never_runs_back(subject: Subject, deployment: Deployment) -> None:
    """A clock set back leaves the journal's time where it was."""
    subject.clock.now = NOW + 100
    subject.seat.make_wallet_key("customer_hot/a", EVM)
    subject.clock.now = NOW - 1_000_000
    subject.seat.make_wallet_key("customer_hot/b", EVM)
    assert subject.seat.head().message.time == NOW + 100
    assert list(check_chain(subject.host.records())) == []


def test_a_restored_state_stops_the_seat(vault: Vault) -> None:
    """An older state put back, with the journal still ahead of it, is found; the seat does not sign over its past."""
    seat = seat_in_memory("hot-1", vault)
    deployment = Deployment([seat, *(seat_in_memory(name) for name in HOT[1:])]).pinned()
    old, _ = vault.read("state")
    seat.make_wallet_key(LABEL, EVM)
    _, version = vault.read("state")
    assert old is not None
    vault.write("state", old, version)
    for ask in (seat.head, lambda: seat.make_wallet_key("other", EVM), lambda: seat.sign_roster(deployment.version)):
        with pytest.raises(Refused) as refused:
            ask()
        assert rules_of(refused.value) == {Rule.HASH_CHAIN}


def test_a_vault_belongs_to_one_seat(vault: Vault) -> None:
    """A host started with another seat's AppRole does not begin."""
    Deployment([seat_in_memory("hot-1", vault), *(seat_in_memory(name) for name in HOT[1:])]).pinned()
    with pytest.raises(InvalidInput):
        seat_in_memory("hot-2", vault).status()


def test_organisation_and_cold_seats() -> None:
    """Two organisations of four seats cannot give one of them M; a cold seat is never in a hot wallet."""
    seats = [seat_in_memory(name) for name in (*HOT, *COLD)]
    deployment = Deployment(seats)
    one_firm = tuple(replace(seat, organisation="firm") for seat in deployment.version.seats)
    deployment.version = replace(version_one({s.name: s.identity() for s in seats}), seats=one_firm)
    deployment.pinned()
    with pytest.raises(Refused) as refused:
        seats[0].accept(deployment.people_sign(deployment.draft(LABEL)))
    assert rules_of(refused.value) == {Rule.ORGANISATION_HOLDS_QUORUM}
    cold = deployment.draft("customer_cold/a", Tier.CUSTOMER_COLD)
    with pytest.raises(Refused) as refused:
        seats[4].accept(deployment.people_sign(replace(cold, tier=Tier.CUSTOMER_HOT)))
    assert Rule.SEAT_TIER in rules_of(refused.value)


def test_check_and_set(vault: Vault) -> None:
    """Writing over a version that is not the newest changes nothing, and a document is created once."""
    assert vault.read("a/b") == (None, 0)
    vault.write("a/b", {"n": "1"}, 0)
    for stale in (0, 2):
        with pytest.raises(CasConflict):
            vault.write("a/b", {"n": "2"}, stale)
    vault.write("a/b", {"n": "3"}, 1)
    assert vault.read("a/b") == ({"n": "3"}, 2)
    many = {"many": [{"text": "x" * 60}] * 5000}  # what a seat with dozens of certificates stores
    vault.write("a/c", many, 0)
    assert vault.read("a/c") == (many, 1)


class TestAttestorVault:
    """What the attestor never forgets."""

    def test_an_index_is_one_customers_for_ever(self, vault: Vault) -> None:
        """The same again is fine; another customer, another index or another address is not."""
        attestor, wallet = AttestorVault(vault), b"\x01" * 32
        attestor.bind(wallet, 0, "alice", "0xa")
        attestor.bind(wallet, 0, "alice", "0xa")
        attestor.bind(wallet, 1, "bob/../alice", "0xb")
        attestor.bind(b"\x02" * 32, 0, "bob", "0xa")
        for index, customer, address, rule in (
            (0, "bob", "0xa", Rule.INDEX_BOUND),
            (2, "alice", "0xc", Rule.INDEX_BOUND),
            (0, "alice", "0xd", Rule.ADDRESS_MISMATCH),
        ):
            with pytest.raises(Refused) as refused:
                attestor.bind(wallet, index, customer, address)
            assert rules_of(refused.value) == {rule}
        attestor.bind(wallet, 2, "carol", "0xc")  # the refused try left index 2 free

    def test_numbers_only_grow(self, vault: Vault) -> None:
        """Each sequence number is above all before it, across restarts too."""
        given = [AttestorVault(vault).next_sequence(at_least) for at_least in (1, 1, 10, 3)]
        assert given == [1, 2, 10, 11]

    def test_history_is_only_extended(self, vault: Vault) -> None:
        """From the head that was vouched for, forward; anything else is a changed history."""
        attestor, one, two = AttestorVault(vault), JournalHead(3, b"\x01" * 32), JournalHead(5, b"\x02" * 32)
        assert attestor.attested() is None
        attestor.extend(JournalHead(), JournalHead())
        attestor.extend(JournalHead(), one)
        attestor.extend(one, two)
        attestor.extend(one, two)
        assert attestor.attested() == two
        for old, new in ((one, JournalHead(9, b"\x03" * 32)), (two, JournalHead(5, b"\x04" * 32)), (two, one)):
            with pytest.raises(Refused) as refused:
                attestor.extend(old, new)
            assert rules_of(refused.value) == {Rule.HISTORY_CHANGED}
        assert attestor.attested() == two

    def test_it_signs_with_its_identity(self, vault: Vault) -> None:
        """A raw Ed25519 signature over the digest."""
        attestor = AttestorVault(vault)
        signature = attestor.sign(b"\x07" * 32)
        assert signature.key == attestor.identity()
        assert signature.is_over(b"\x07" * 32)


def test_an_exchanged_identity_shows() -> None:
    """A vault whose key changed underneath signs nothing that leaves the process."""
    vault = FakeVault()
    attestor = AttestorVault(vault)
    attestor.identity()
    vault._identity = FakeVault()._identity
    with pytest.raises(Unavailable):
        attestor.sign(b"\x07" * 32)
