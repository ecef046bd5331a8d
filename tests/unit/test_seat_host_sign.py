# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat's process dies at every write there is, forgets nothing, outgrows nothing, and carries files in and out of a ceremony."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from embit.script import Script  # type: ignore[import-untyped]
from embit.transaction import TransactionOutput  # type: ignore[import-untyped]
from typer.testing import CliRunner

from custody.answers import MESSAGE_BYTES
from custody.rules.birth import SeatState, check_chain
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.governance import Freeze
from custody.rules.intents import Anchor
from custody.rules.payments import SeatSignatures
from custody.rules.payouts import PsbtPayload
from custody.rules.refusals import Refused, Rule
from custody.rules.seat_journal import (
    COUNTERS_MOST,
    DAY,
    DIGESTS_KEPT,
    REQUESTS_KEPT,
    SeatJournal,
    SigningRecord,
    Spent,
    bind,
    counted,
)
from custody.rules.seat_request import Request
from custody.rules.wallets import Tier
from custody.vault.cli import app
from custody.vault.seat import SeatHost
from custody.vault.seat_memory import DOCUMENT_BYTES, STATE, SeatMemory
from tests.fakes.seat import BITCOIN, EVM, NOW, FakeVault, rules_of, secp256k1, signed_by
from tests.fakes.seated import LATER, Seated, by_wire, reopened, seated, shipped
from tests.fakes.trust import psbt_of

Step = Callable[[Seated, SeatHost], object]


def _void(house: Seated, seat: SeatHost) -> object:
    return seat.sign(house.void((b"\3" * 32, b"\4" * 32)))


def _freeze(house: Seated, seat: SeatHost) -> object:
    message = Freeze("customer:ada", "", LATER, LATER + 5000)
    return seat.freeze(signed_by(message, house.world.domain, [secp256k1("bo")]))


STEPS: dict[str, tuple[Step, bool]] = {
    "a payment": (lambda h, s: s.sign(h.ask()), True),
    "a batch": (lambda h, s: s.sign(h.ask(payments=3)), True),
    "a bitcoin payment": (lambda h, s: s.sign(h.ask(chain=BITCOIN, payments=2)), True),
    "a void": (_void, True),
    "a policy": (lambda h, s: s.admit_policy(h.activation(shipped().hash), shipped().to_json()), False),
    "a freeze": (_freeze, True),
}


@pytest.mark.parametrize(("step", "policy"), STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("moment", ["die_before", "die_after"])
def test_death_at_every_write(step: Step, policy: bool, moment: str) -> None:
    """Whichever write is lost, or only its answer: asked the same again, a new process answers as if nothing had happened."""
    vault = FakeVault()
    with seated({"hot-1": vault}, policy=policy) as house:
        born = {path: list(versions) for path, versions in vault.documents.items()}
        fixed: list[Any] = []
        asked = _repeating(house, fixed)
        before = vault.writes
        wanted = step(asked, house.hosts["hot-1"])
        writes, whole = vault.writes - before, {path: v[-1] for path, v in vault.documents.items()}
        assert writes >= 2
        for number in range(1, writes + 1):
            vault.documents = {path: list(versions) for path, versions in born.items()}
            vault.writes = 0
            setattr(vault, moment, number)
            with pytest.raises(Unavailable):
                step(asked, reopened(house.hosts["hot-1"], vault, house.clock))
            vault.die_before = vault.die_after = 0
            seat = reopened(house.hosts["hot-1"], vault, house.clock)
            assert step(asked, seat) == wanted
            assert {path: v[-1] for path, v in vault.documents.items()} == whole
            assert list(check_chain(seat.records())) == []


def _repeating(house: Seated, fixed: list[Any]) -> Any:
    """The house, but the first request that it makes is every request."""

    class Repeating:
        world = house.world
        activation = staticmethod(house.activation)

        def ask(self, **fields: Any) -> Request:
            return self._once(lambda: house.ask(**fields))

        def void(self, intents: tuple[bytes, ...]) -> Request:
            return self._once(lambda: house.void(intents))

        def _once(self, make: Callable[[], Request]) -> Request:
            if not fixed:
                fixed.append(make())
            found: Request = fixed[0]
            return found

    return Repeating()


@pytest.mark.parametrize("die_after", [1, 2, 3, 4, 5])
def test_what_was_committed_binds_though_nobody_finished_it(die_after: int) -> None:
    """The process died between its record and its signature; the next request, for another nonce, finds every intent bound."""
    vault = FakeVault()
    with seated({"hot-1": vault}) as house:
        vault.writes, vault.die_after = 0, die_after
        with pytest.raises(Unavailable):
            house.hosts["hot-1"].sign(house.ask(payments=3))
        vault.die_after = 0
        seat = reopened(house.hosts["hot-1"], vault, house.clock)
        for payments in (1, 2, 3):
            with pytest.raises(Refused) as refused:
                seat.sign(house.ask(payments=payments, nonce=8))
            assert rules_of(refused.value) == {Rule.INTENT_BOUND}


def test_nothing_is_written_before_the_record_and_nothing_signed_without_it() -> None:
    """The commit is the first write; where it is lost, not one byte of the vault changed."""
    vault = FakeVault()
    with seated({"hot-1": vault}) as house:
        before = {path: list(versions) for path, versions in vault.documents.items()}
        vault.writes, vault.die_before = 0, 1
        with pytest.raises(Unavailable):
            house.hosts["hot-1"].sign(house.ask(payments=3))
        assert vault.documents == before


def test_a_refusal_writes_nothing() -> None:
    """Not a byte, so that refusals cannot fill a vault either."""
    vault = FakeVault()
    with seated({"hot-1": vault}) as house:
        before = vault.writes
        for fields in (
            {"approvers": (), "both": {"amount": 10**19}},
            {"attestor": "settler"},
            {"rows": {"reserves": 1}},
        ):
            with pytest.raises(Refused):
                house.hosts["hot-1"].sign(house.ask(**fields))
        assert vault.writes == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda d: d.pop(STATE), id="the state is gone"),
        pytest.param(lambda d: d.update({STATE: d[STATE][:-1]}), id="an older state"),
    ],
)
def test_a_restored_vault_signs_nothing(damage: Callable[[dict[str, list[str]]], object]) -> None:
    """A state without its past, or behind it: two signatures for one nonce would follow."""
    vault = FakeVault()
    with seated({"hot-1": vault}) as house:
        request = house.ask()
        house.hosts["hot-1"].sign(request)
        damage(vault.documents)
        with pytest.raises(Refused) as refused:
            reopened(house.hosts["hot-1"], vault, house.clock).sign(request)
        assert rules_of(refused.value) == {Rule.HASH_CHAIN}


@pytest.mark.parametrize("folder", ["anchors", "proposals", "bundles"])
def test_documents_in_each_others_place(folder: str) -> None:
    """A binding or a bundle under another's path is never read as that one's, nor as none."""
    vault = FakeVault()
    with seated({"hot-1": vault}) as house:
        request = house.ask()
        house.hosts["hot-1"].sign(request)
        for path, versions in vault.documents.items():
            if path.startswith(folder):
                body = json.loads(versions[-1])
                swapped = {**body, "anchor": "other", "proposal": "other"} if folder != "bundles" else {"assets": {}}
                vault.documents[path] = [*versions, json.dumps(swapped)]
        with pytest.raises(CustodyError) as error:
            reopened(house.hosts["hot-1"], vault, house.clock).sign(request)
        assert isinstance(error.value, Refused | InvalidInput | Unavailable)


def test_the_state_does_not_grow() -> None:
    """Twelve payouts of five intents later the state is as large as after one, but for digits; each line is beside it."""
    vault = FakeVault()
    sizes = []
    with seated({"hot-1": vault}) as house:
        for number in range(12):
            amount = {"amount": 10**17 + 1000 * number}
            house.hosts["hot-1"].sign(house.ask(payments=5, nonce=7 + number, both=amount))
            sizes.append(len(vault.documents[STATE][-1]))
        assert len([path for path in vault.documents if path.startswith("proposals/")]) == 12 * 5
    assert sizes[-1] - sizes[0] < 500
    assert max(sizes) < DOCUMENT_BYTES


def test_counters_of_a_busy_day_stay_few_and_never_count_less() -> None:
    """Two thousand automatic payments within a day: brought together, they count for up to ten minutes longer, never for less."""
    journal = SeatJournal(SeatState("hot-1"))
    for second in range(0, 50_000, 25):
        spent = (Spent("ETH", 1), Spent("ETH", 2), Spent("BTC", 1))
        record = SigningRecord(
            b"\1" * 32, Anchor(EVM.name, b"\2" * 32, "1"), b"\3" * 32, (), (), (), False, spent, (), 1, NOW + second
        )
        journal = journal.apply(record)
        assert counted(journal.automatic, "ETH", NOW + second) == 3 * (second // 25 + 1)
    assert len(journal.automatic) <= COUNTERS_MOST
    assert counted(journal.automatic, "ETH", NOW + DAY + 600 + 50_000) == 0


def test_an_anchor_remembers_a_bounded_number_of_requests() -> None:
    """Whoever asks for one payout a thousand times fills no document, and unbinds nothing."""
    record = SigningRecord(
        b"\0" * 32,
        Anchor(EVM.name, b"\2" * 32, "1"),
        b"\3" * 32,
        (),
        (b"\5" * 32,),
        (b"\6" * 32,),
        False,
        (),
        (),
        1,
        NOW,
    )
    bound, tag = None, b""
    for number in range(3000):
        tag = number.to_bytes(32)
        bound = bind(bound, replace(record, request=tag, digests=(tag,)))
    assert bound is not None
    assert (len(bound.requests), len(bound.digests)) == (REQUESTS_KEPT, DIGESTS_KEPT)
    assert (bound.meaning, bound.intents, bound.voided) == (b"\3" * 32, (b"\5" * 32,), False)
    assert bind(bound, replace(record, request=tag, digests=(tag,))) == bound
    assert bind(bind(bound, replace(record, void=True)), record).voided


def test_freezes_fill_half_a_state_at_the_most() -> None:
    """One person heaps up freezes; the roster that removes that person still fits."""
    vault = FakeVault()
    with seated({"hot-1": vault}) as house:
        seat, told = house.hosts["hot-1"], []
        for number in range(10):
            message = Freeze(f"customer:{number}", "x" * 60_000, LATER, LATER + 5000)
            try:
                seat.freeze(signed_by(message, house.world.domain, [secp256k1("bo")]))
            except Refused as refused:
                told.append(rules_of(refused))
        assert told == [{Rule.MALFORMED}] * len(told) != []
        assert len(vault.documents[STATE][-1]) < DOCUMENT_BYTES // 2 + 10_000
        assert seat.sign(house.ask()).signatures


def test_a_step_of_more_than_one_line_is_not_committed() -> None:
    """What is committed is what can be completed."""
    memory = SeatMemory("hot-1", FakeVault())
    held = memory.load()
    with pytest.raises(Refused):
        memory.commit(held, held.journal)


def test_the_statements_clock_where_genesis_declares_it() -> None:
    """The demonstration passes a day: a statement from tomorrow is fresh where all use its time, and is refused elsewhere."""
    with seated({}) as house:
        seat = house.hosts["hot-1"]
        fields: dict[str, Any] = {
            "now": LATER + DAY,
            "proposal": {"expiry": NOW + 10**6},
            "intent": {"expiry": NOW + 10**6},
        }
        with pytest.raises(Refused) as refused:
            seat.sign(house.ask(**fields))
        assert rules_of(refused.value) == {Rule.STALE}
    with seated({}, clock="statement") as house:
        assert house.hosts["hot-1"].sign(house.ask(**fields)).signatures
        assert house.hosts["hot-1"].head().message.time == LATER + DAY - 20


def test_cold_seats_sign_from_a_file_into_a_file(tmp_path: Path) -> None:
    """A refill by ceremony: the request as a file, each cold seat's signatures as a file, and the refusal in words."""
    vault = FakeVault()
    with seated({"cold-1": vault}) as house:
        fields: dict[str, Any] = {"tier": Tier.CUSTOMER_COLD, "to_tier": Tier.CUSTOMER_HOT, "proposer": "desk"}
        fields |= {
            "approvers": ("ana", "bo", "cy"),
            "facts": {"first_seen": NOW - 4000},
            "intent": {"not_before": NOW - 4000},
        }
        request, out = tmp_path / "request.json", tmp_path / "signatures.json"
        request.write_text(json.dumps(house.ask(**fields).to_json()))
        with by_wire(house.hosts["cold-1"]) as seat:
            socket = str(seat._client._path)
            told = CliRunner().invoke(app, ["sign", "cold-1", str(request), "--socket", socket, "--out", str(out)])
            assert told.exit_code == 0, (told.output, told.exception)
            made = SeatSignatures.from_json(json.loads(out.read_text()))
            assert (made.seat, len(made.signatures)) == ("cold-1", 1)
            journal = CliRunner().invoke(app, ["journal", "cold-1", "--socket", socket])
            assert json.loads(journal.stdout)["lines"][-1]["record"]["kind"] == "signed"
            request.write_text(json.dumps(house.ask(**{**fields, "approvers": ("ana",)}).to_json()))
            again = CliRunner().invoke(app, ["sign", "cold-1", str(request), "--socket", socket])
            assert isinstance(again.exception, Refused)
            assert Rule.QUORUM_NOT_REACHED in rules_of(again.exception)


def test_a_policy_and_a_freeze_from_files(tmp_path: Path) -> None:
    """What `policy activate` cannot bring to a silent seat its operator does; anyone carries a freeze."""
    with seated({}, policy=False) as house, by_wire(house.hosts["hot-1"]) as seat:
        socket = str(seat._client._path)
        activation, bundle, freeze = (tmp_path / f"{name}.json" for name in ("activation", "bundle", "freeze"))
        activation.write_text(json.dumps(house.activation(shipped().hash).to_json()))
        bundle.write_text(json.dumps(shipped().to_json()))
        told = CliRunner().invoke(app, ["admit-policy", "hot-1", str(activation), str(bundle), "--socket", socket])
        assert told.exit_code == 0, (told.output, told.exception)
        message = Freeze("all", "", LATER, LATER + 5000)
        freeze.write_text(json.dumps(signed_by(message, house.world.domain, [secp256k1("ana")]).to_json()))
        assert CliRunner().invoke(app, ["freeze", "hot-1", str(freeze), "--socket", socket]).exit_code == 0
        assert (seat.status()["policies"], seat.status()["frozen"]) == (["0x" + shipped().hash.hex()], ["all"])


def test_a_batch_of_a_hundred_fits_the_wire() -> None:
    """With three approvals for each payment and a hundred coins whose previous transactions have a hundred outputs each."""
    with seated({}) as house:
        certificate = house.world.certificate(Tier.CUSTOMER_HOT, BITCOIN)
        request = house.ask(chain=BITCOIN, payments=100, approvers=("ana", "bo", "cy"))
        psbt = psbt_of(certificate, [(10**7, b"\0\x14" + bytes(20))] * 100, coins=100)
        for scope in psbt.inputs:
            change = TransactionOutput(1000, Script(b"\0\x14" + bytes(20)))
            scope.non_witness_utxo.vout += [change] * 98
        whole = replace(request, payload=PsbtPayload(BITCOIN.name, psbt.serialize()))
        size = len(json.dumps({"verb": "sign", "body": {"request": whole.to_json()}}))
        assert 1_000_000 < size < MESSAGE_BYTES // 4


def test_an_answer_of_another_seat_is_not_taken() -> None:
    """The client believes nothing that it can check."""
    with seated({}) as house, by_wire(house.hosts["hot-2"]) as seat:
        seat._name = "hot-1"
        with pytest.raises(Unavailable):
            seat.sign(house.ask())
