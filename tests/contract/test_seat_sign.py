# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat signs what it decided by itself, under the shipped bundle: in memory, over a real OpenBao by wire, and in the engine."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pytest
from embit.psbt import PSBT  # type: ignore[import-untyped]
from embit.script import Script  # type: ignore[import-untyped]

from custody.chains.bitcoin import psbts, second
from custody.chains.bitcoin.scripts import change_address, script_pubkey, witness_script
from custody.chains.evm.safes import owner_address
from custody.chains.evm.signatures import pack, recovered
from custody.rules.birth import check_chain
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import Freeze, PolicyActivation, Unfreeze
from custody.rules.intents import TransferIntent
from custody.rules.payouts import DecodedPayload, PsbtPayload, SafeTx
from custody.rules.refusals import Refused, Rule
from custody.rules.seat_journal import SigningRecord
from custody.rules.seat_request import Request
from custody.rules.signatures import Signed
from custody.rules.wallets import Chain, Tier
from custody.vault.keyring import RemoteSeat
from custody.vault.openbao import OpenBaoClient
from custody.vault.seat import SeatHost
from custody.vault.seat_memory import DOCUMENT_BYTES
from custody.vault.storage import Vault
from tests.fakes import trust
from tests.fakes.engine import DrawerClient, DrawerVault
from tests.fakes.seat import BITCOIN, EVM, HOT, NOW, Drawer, FakeVault, ed25519, rules_of, secp256k1, signed_by
from tests.fakes.seated import Seated, by_wire, reopened, seated, shipped
from tests.fakes.trust import STRANGER

_drawers = itertools.count(1)


@pytest.fixture(params=["memory", "openbao", "engine"])
def vault(request: pytest.FixtureRequest) -> Vault:
    """A vault that nobody has written to."""
    if request.param == "memory":
        return FakeVault()
    if request.param == "engine":
        return DrawerVault(DrawerClient(request.getfixturevalue("engine_drawers"), f"signing-{next(_drawers)}"))
    client = OpenBaoClient.from_file(request.getfixturevalue("openbao_seat").approle_file)
    return Drawer(client, f"signing-{next(_drawers)}")


@dataclass
class Subject:
    """The seat under test as a worker sees it, its vault, and the deployment around it."""

    seat: SeatHost | RemoteSeat
    vault: Vault
    house: Seated

    @property
    def host(self) -> SeatHost:
        """What answers."""
        return self.house.hosts["hot-1"]

    def refuses(self, request: Request) -> set[Rule]:
        """The rules that refuse, after which nothing of it is left: the journal's head is what it was."""
        before = self.seat.head()
        with pytest.raises(Refused) as refused:
            self.seat.sign(request)
        assert self.seat.head() == before
        return rules_of(refused.value)


@pytest.fixture
def subject(vault: Vault) -> Iterator[Subject]:
    """hot-1 of a born deployment: in memory called directly, over a real vault called by wire."""
    with seated({"hot-1": vault}) as house:
        host = house.hosts["hot-1"]
        if isinstance(vault, FakeVault):
            yield Subject(host, vault, house)
            return
        if isinstance(vault, DrawerVault):
            vault.client.clock = house.clock
            yield Subject(RemoteSeat("hot-1", vault.client), vault, house)
            return
        with by_wire(host) as seat:
            yield Subject(seat, vault, house)


def decoded(subject: Subject, request: Request, chain: Chain) -> DecodedPayload:
    """What the payload does, by the test's own look."""
    found = trust.decode(request.payload, subject.house.world.certificate(Tier.CUSTOMER_HOT, chain))
    assert isinstance(found, DecodedPayload)
    return found


@pytest.mark.parametrize("payments", [1, 3, 100])
def test_an_evm_payout_is_signed_by_its_owners(subject: Subject, payments: int) -> None:
    """65 bytes that recover to the certificate's owner; with two more seats the Safe would execute it."""
    request = subject.house.ask(payments=payments)
    certificate = subject.house.world.certificate(Tier.CUSTOMER_HOT, EVM)
    (digest,) = decoded(subject, request, EVM).digests
    made = subject.seat.sign(request)
    assert (made.seat, made.certificate, len(made.signatures)) == ("hot-1", certificate.struct_hash, 1)
    assert recovered(made.signatures[0], digest) == owner_address(certificate.seats[0].key.public)
    others = [subject.house.hosts[name].sign(request) for name in HOT[1:3]]
    assert len(pack(certificate, digest, [made, *others])) == 3 * 65


@pytest.mark.parametrize("payments", [1, 3, 100])
def test_a_bitcoin_payout_is_finalized_by_three(subject: Subject, payments: int) -> None:
    """One signature for each input, by the key of its place; with two more seats the transaction is whole."""
    request = subject.house.ask(chain=BITCOIN, payments=payments)
    certificate = subject.house.world.certificate(Tier.CUSTOMER_HOT, BITCOIN)
    made = subject.seat.sign(request)
    assert len(made.signatures) == len(decoded(subject, request, BITCOIN).inputs)
    others = [subject.house.hosts[name].sign(request) for name in HOT[2:]]
    assert isinstance(request.payload, PsbtPayload)
    psbt = PSBT.parse(request.payload.psbt)
    for index, scope in enumerate(psbt.inputs):
        scope.witness_script = Script(witness_script(certificate, 0, index))
    raw = psbts.finalize(certificate, psbt.serialize(), [made, *others])
    spent = {point: second.SpentOutput(*output) for point, output in psbts.spent(request.payload.psbt).items()}
    assert second.verify_transaction(raw, BITCOIN, spent).txid == psbts.txid(request.payload.psbt)


def test_the_same_request_has_the_same_answer(subject: Subject) -> None:
    """The worker lost the answer, or the seat's process died after it: same signatures, one record, whenever it is asked."""
    for chain in (EVM, BITCOIN):
        request = subject.house.ask(chain=chain, payments=2)
        made, head = subject.seat.sign(request), subject.seat.head()
        assert subject.seat.sign(Request.from_json(json.loads(json.dumps(request.to_json())))) == made
        subject.house.clock.now += 10**6
        assert reopened(subject.host, subject.vault, subject.house.clock).sign(request) == made
        assert subject.seat.head() == head
        subject.house.clock.now -= 10**6


def _tampered(request: Request, **changes: Any) -> Request:
    payload = request.payload
    assert isinstance(payload, SafeTx)
    return replace(request, payload=replace(payload, **changes))


def _intent_changed(request: Request, **changes: Any) -> Request:
    changed: TransferIntent = replace(request.transfers[0].intent, **changes)
    return replace(request, transfers=(replace(request.transfers[0], intent=changed),))


REFUSED: dict[str, tuple[Callable[[Seated], Request], Rule]] = {
    "nobody approved 10 ETH": (lambda h: h.ask(approvers=(), both={"amount": 10**19}), Rule.QUORUM_NOT_REACHED),
    "uncovered": (lambda h: h.ask(rows={"reserves": 1, "on_chain": 1}), Rule.COVERAGE),
    "the hold is gone": (lambda h: h.ask(facts={"hold_stands": False}), Rule.HOLD),
    "a statement of somebody else": (lambda h: h.ask(attestor="settler"), Rule.SIGNATURE_INVALID),
    "another destination after approval": (lambda h: _tampered(h.ask(), to=STRANGER), Rule.PAYLOAD_MISMATCH),
    "operation 1": (lambda h: _tampered(h.ask(), operation=1), Rule.DELEGATECALL),
    "another amount after approval": (lambda h: _tampered(h.ask(), value=10**18 + 1), Rule.PAYLOAD_MISMATCH),
    "another intent after approval": (
        lambda h: _intent_changed(h.ask(), account="customer:bob"),
        Rule.PROPOSAL_MISMATCH,
    ),
    "a wallet that nobody knows": (lambda h: replace(h.ask(), wallet=b"\1" * 32), Rule.UNKNOWN_WALLET),
    "a wallet of other seats": (
        lambda h: h.ask(tier=Tier.CUSTOMER_COLD, to_tier=Tier.CUSTOMER_HOT, proposer="desk"),
        Rule.UNKNOWN_WALLET,
    ),
    "certificates without end": (
        lambda h: h.ask(request=lambda r: replace(r, certificates=(*h.world.certificates.values(),) * 9)),
        Rule.MALFORMED,
    ),
    "a policy that was never in force": (lambda h: h.ask(intent={"policy": b"\7" * 32}), Rule.POLICY_OLDER),
    "behind its attested head": (lambda h: h.ask(statement={"seats": ()}), Rule.BEHIND),
}


@pytest.mark.parametrize(("make", "rule"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_names_its_rule_and_leaves_no_trace(
    subject: Subject, make: Callable[[Seated], Request], rule: Rule
) -> None:
    """Refused with its rule; the journal is what it was, and the true request is signed after it."""
    assert rule in subject.refuses(make(subject.house))
    assert subject.seat.sign(subject.house.ask()).signatures


def test_an_intent_has_one_anchor_and_a_void_is_the_way_out(subject: Subject) -> None:
    """Radiant: a fake failure, and the same intent again at the next nonce. Voided, it is paid nowhere; a new one is."""
    house = subject.house
    first = house.ask(nonce=7)
    digest = house.world.domain.digest(first.transfers[0].intent)
    subject.seat.sign(first)
    assert subject.refuses(house.ask(nonce=8)) == {Rule.INTENT_BOUND}
    assert Rule.PROPOSAL_BOUND in subject.refuses(house.ask(nonce=8, intent={"expiry": NOW + 3999}))
    assert subject.refuses(house.ask(nonce=7, both={"amount": 10**17})) == {Rule.ANCHOR_BOUND}
    assert subject.refuses(house.void(())) == {Rule.ANCHOR_BOUND}
    assert subject.seat.sign(house.void((digest,))).signatures
    assert Rule.ANCHOR_BOUND in subject.refuses(first)
    assert subject.refuses(house.ask(nonce=8)) == {Rule.INTENT_BOUND}
    other = house.ask(nonce=8, both={"amount": 5 * 10**17}, proposal={"reference": "again"})
    assert subject.seat.sign(other).signatures


def test_an_intent_that_was_never_signed_can_be_burned(subject: Subject) -> None:
    """Three seats were given different intents for one nonce: the void burns those that this seat never saw, too."""
    house = subject.house
    unseen = house.ask(nonce=9, both={"amount": 10**17})
    subject.seat.sign(house.void((house.world.domain.digest(unseen.transfers[0].intent),)))
    assert Rule.INTENT_BOUND in subject.refuses(unseen)
    assert subject.refuses(house.ask(nonce=10, both={"amount": 10**17})) == {Rule.INTENT_BOUND}


def test_a_batchs_variant_keeps_its_bindings(subject: Subject) -> None:
    """The same payout under a new statement is signed again; each of its intents stays where it is."""
    house = subject.house
    first, second = house.ask(payments=3), house.ask(payments=3)
    assert subject.seat.sign(first) == subject.seat.sign(house.ask(payments=3))
    assert Rule.SEQUENCE in subject.refuses(second)
    assert subject.refuses(house.ask(payments=3, nonce=8)) == {Rule.INTENT_BOUND}


def test_after_a_rotation_old_keys_only_bring_coins_home(subject: Subject) -> None:
    """On Bitcoin the old certificate's coins are swept into the successor, with the old keys; a payment from them is refused."""
    house, old = subject.house, subject.house.world.certificate(Tier.CUSTOMER_HOT, BITCOIN)
    draft = house.world.deployment.draft("customer_hot/second", Tier.CUSTOMER_HOT, BITCOIN)
    new = replace(draft, previous=old.struct_hash)
    for name in HOT:
        house.hosts[name].accept(house.world.deployment.people_sign(new))
    home = [(2 * 10**8 - 2_000, script_pubkey(change_address(new, 2)))]
    psbt = trust.psbt_of(old, home, change=None)
    trust.scope_keys(psbt.outputs[0], new, 1, 2)
    payload = PsbtPayload(BITCOIN.name, psbt.serialize())
    bare = replace(house.ask(chain=BITCOIN), payload=payload, transfers=())
    made = subject.seat.sign(house.ask(bare, chain=BITCOIN))
    assert (made.certificate, len(made.signatures)) == (old.struct_hash, 1)
    assert Rule.CERTIFICATE_OLDER in subject.refuses(house.ask(chain=BITCOIN))


def test_at_once(subject: Subject) -> None:
    """Eight askers with one request, two processes over one vault: one record, and one answer for whoever gets one."""
    house = subject.house
    request, before = house.ask(payments=5), subject.seat.head().message.position
    # a vault's client belongs to one thread at a time; a second process has a client of its own
    seats = [subject.seat]
    if isinstance(subject.vault, FakeVault):
        seats.append(reopened(subject.host, subject.vault, house.clock))
    answers: list[Any] = []
    turns = [threading.Lock() for _ in seats]  # a process handles one request at a time (custody/wire.py)

    def ask(number: int) -> None:
        seat, turn = seats[number % len(seats)], turns[number % len(seats)]
        with nullcontext() if isinstance(seat, RemoteSeat) else turn:
            try:
                answers.append(seat.sign(request))
            except Unavailable as error:
                answers.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = subject.seat.sign(request)
    assert len(answers) == 8
    assert all(answer == made or isinstance(answer, Unavailable) for answer in answers)
    assert subject.seat.head().message.position == before + 1
    if isinstance(subject.seat, RemoteSeat):
        assert answers == [made] * 8


def _freeze(house: Seated, scope: str = "customer:ada") -> Signed[Freeze]:
    message = Freeze(scope, "looks odd", house.clock.now, house.clock.now + 5000)
    return signed_by(message, house.world.domain, [secp256k1("bo")])


def test_a_freeze_and_its_end(subject: Subject) -> None:
    """One person stops an account, even for a request that was answered; a quorum starts it again, one person does not."""
    house = subject.house
    request = house.ask()
    made = subject.seat.sign(request)
    freeze = _freeze(house)
    assert subject.seat.freeze(freeze) == subject.seat.freeze(freeze)
    assert subject.refuses(request) == {Rule.FROZEN}
    assert subject.refuses(house.ask(nonce=8, both={"amount": 10**17})) >= {Rule.FROZEN}
    message = Unfreeze(freeze.message.struct_hash, "it was not", house.clock.now)
    with pytest.raises(Refused) as refused:
        subject.seat.unfreeze(signed_by(message, house.world.domain, [secp256k1("bo")]))
    assert rules_of(refused.value) == {Rule.QUORUM_NOT_REACHED}
    subject.seat.unfreeze(signed_by(message, house.world.domain, [secp256k1("bo"), secp256k1("ana")]))
    assert subject.seat.sign(request) == made


def test_a_freeze_by_nobody(subject: Subject) -> None:
    """A machine's key stops nothing."""
    message = Freeze("all", "", NOW + 1000, NOW + 5000)
    with pytest.raises(Refused):
        subject.seat.freeze(signed_by(message, subject.house.world.domain, [ed25519("backend")]))
    assert subject.host.status()["frozen"] == []


def test_the_journal_says_what_was_signed(subject: Subject) -> None:
    """Head and lines join up; each line has the message whose hash it records, a payout's with its anchor and intents."""
    house = subject.house
    request = house.ask(payments=2)
    subject.seat.sign(request)
    subject.seat.freeze(_freeze(house))
    lines = subject.seat.journal()[1] if isinstance(subject.seat, RemoteSeat) else subject.seat.lines()
    head = subject.seat.head()
    records = [line.record for line in lines]
    assert list(check_chain(records)) == []
    assert (records[-1].position, records[-1].struct_hash) == (head.message.position, head.message.head)
    policy, signed, frozen = lines[-3:]
    assert [line.record.kind for line in lines[-3:]] == ["policy", "signed", "frozen"]
    assert Signed.from_json(PolicyActivation, policy.body).message.struct_hash == policy.record.digest
    assert Signed.from_json(Freeze, frozen.body).message.struct_hash == frozen.record.digest
    record = SigningRecord.from_json(signed.body)
    assert record.struct_hash == signed.record.digest
    assert record.intents == tuple(house.world.domain.digest(t.intent) for t in request.transfers)
    if isinstance(subject.seat, RemoteSeat):
        assert [line.record for line in subject.seat.journal(after=3, limit=2)[1]] == records[3:5]


def test_a_policy_is_what_its_owners_signed(vault: Vault) -> None:
    """Without a bundle nothing is signed; another bundle under the owners' activation, or a broken one, is not taken."""
    with seated({"hot-1": vault}, policy=False) as house:
        seat, documents = house.hosts["hot-1"], shipped().to_json()
        with pytest.raises(Refused) as refused:
            seat.sign(house.ask())
        assert rules_of(refused.value) == {Rule.POLICY_OLDER}
        one_owner = signed_by(house.activation(shipped().hash).message, house.world.domain, [secp256k1("ana")])
        loosened = json.loads(json.dumps(documents))
        loosened["fees"]["maturity"] = "1h"
        for signed, given in (
            (one_owner, documents),
            (house.activation(shipped().hash), loosened),
            (house.activation(shipped().hash, b"\1" * 32), documents),
        ):
            with pytest.raises(Refused) as refused:
                seat.admit_policy(signed, given)
            assert rules_of(refused.value) & {Rule.QUORUM_NOT_REACHED, Rule.NOT_SUCCESSOR}
        with pytest.raises(InvalidInput):
            seat.admit_policy(house.activation(shipped().hash), {**documents, "rules": {}})
        assert seat.status()["policies"] == []
        head = seat.admit_policy(house.activation(shipped().hash), documents)
        assert seat.admit_policy(house.activation(shipped().hash), documents) == head
        assert reopened(seat, vault, house.clock).sign(house.ask()).signatures


def test_the_largest_document_fits(vault: Vault) -> None:
    """What the seat's bound lets through the vault takes, quotes and all: a seat never commits what it cannot complete."""
    rows = ["0x" + "ab" * 32] * (DOCUMENT_BYTES // 69 - 1)
    body = {"rows": rows}
    assert DOCUMENT_BYTES - 200 < len(json.dumps(body, separators=(",", ":"))) <= DOCUMENT_BYTES
    vault.write("largest", body, cas=0)
    assert vault.read("largest") == (body, 1)
