# SPDX-License-Identifier: AGPL-3.0-or-later
"""`bulkhead policy bundle | draft | sign | activate | log | log replay | simulate`, as people run them on a deployment of their own."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from custody import activating, bootstrap
from custody.cli import main
from custody.commands.policy import governing
from custody.flows.mirror import ACTIVATION, CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import UnitOfWork
from custody.governing import store_activation
from custody.rules.decisions import DECISION, DecisionRecord, What, decided, record_after
from custody.rules.errors import Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer, move
from custody.settings import PartSettings, Settings
from custody.store import migrate, open_store
from policies.bundle import Bundle, load
from tests.fakes import trust
from tests.fakes.governed import DAYS, HOUR, activation
from tests.fakes.seat import NOW, secp256k1
from tests.fakes.seated import Seated, seated
from tests.fakes.trust import Ask
from tests.unit import shipped

GOVERNANCE: Final = """stricter: {owners: 2, delay: 1h}
weaker: {owners: 3, delay: 48h}
claims: {group: risk, people: 1}
"""


class Desk:
    """A born deployment in a folder, with seats that can be asked, and bundles to propose."""

    def __init__(self, folder: Path, house: Seated, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.folder, self.house, self._capsys = folder, house, capsys
        self.home = folder / "home"
        (self.home / "policy").mkdir(parents=True)
        shipped.write(self.home / "policy", governance=GOVERNANCE)
        self.first = load(self.home / "policy")
        url = f"sqlite:///{self.home / 'ledger.db'}"
        migrate(url)
        self.store = open_store(url, self.first.assets)
        self.store.run(self._furnish)
        (self.home / "genesis").write_text("0x" + house.world.domain.genesis.hex() + "\n", encoding="ascii")
        nobody = PartSettings(str(folder / "nobody"), "")
        Settings(self.home, url, str(self.home / "policy"), {}, {}, {}, nobody, nobody).save()
        self.set_time(NOW)
        monkeypatch.setattr(bootstrap, "wall_clock", house.clock)
        monkeypatch.setattr(activating, "seats", lambda _: house.hosts)
        monkeypatch.setattr(activating, "attestor", lambda _: Silent())
        monkeypatch.setattr(governing, "open_signer", lambda key, _: secp256k1(key.stem))
        for host in house.hosts.values():
            host.admit_policy(activation(self.first, None), self.first.to_json())

    def _furnish(self, work: UnitOfWork) -> None:
        put_signed(work.documents, ROSTER, self.house.world.deployment.genesis())
        for certificate in self.house.world.certificates.values():
            put_signed(work.documents, CERTIFICATE, certificate)
        store_activation(work, activation(self.first, None), self.first, NOW)

    def set_time(self, now: int) -> None:
        """Everybody's time."""
        self.house.clock.now = now

    def __call__(self, *words: object) -> tuple[int, str]:
        """Exit code of a policy command on this deployment, and everything printed."""
        return self.run("policy", *words, "--home", self.home)

    def run(self, *words: object) -> tuple[int, str]:
        """The same of any command, wherever it looks."""
        try:
            code = main([*map(str, words)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = self._capsys.readouterr()
        return code, told.out + told.err

    def changed(self, name: str, *edits: tuple[str, str, str]) -> Path:
        """The first bundle's files with some texts of files replaced, in a folder of its own."""
        folder = Path(shutil.copytree(self.home / "policy", self.folder / name))
        for file, old, new in edits:
            text = (folder / file).read_text(encoding="ascii")
            assert old in text
            (folder / file).write_text(text.replace(old, new, 1), encoding="ascii")
        return folder

    def drafted(self, new: Path, author: str = "dee") -> Path:
        """Its activation, whatever the draft says."""
        target = self.folder / f"{new.name}.json"
        self("draft", target, new, "--author", author)
        return target

    def signed(self, new: Path, people: tuple[str, ...], author: str = "dee") -> Path:
        """Its activation, drafted by the command and signed by these; what owners' tools make of it has tests of its own."""
        target, domain = self.drafted(new, author), self.house.world.domain
        unsigned = Signed.from_json(PolicyActivation, json.loads(target.read_text()))
        digest = domain.digest(unsigned.message)
        target.write_text(json.dumps(unsigned.joined(secp256k1(name).sign(digest) for name in people).to_json()))
        return target


class Silent:
    """An attestor that does not answer."""

    def statement(self) -> None:
        """See `AttestorPort`."""
        raise Unavailable("attestor", "no answer")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A deployment with its first bundle in force."""
    with seated({}, policy=False) as house:
        yield Desk(tmp_path, house, monkeypatch, capsys)


STRICTER: Final = ("limits.yaml", "BTC: 0.25 BTC", "BTC: 0.24999999 BTC")
LOOSER: Final = ("limits.yaml", "BTC: 0.25 BTC", "BTC: 0.25000001 BTC")
AFFILIATES: Final = (
    "rules.yaml",
    "[1 of risk, 1 of compliance, 1 of executive, 1 of board]",
    "[1 of risk, 1 of compliance]",
)


def test_a_stricter_bundle_takes_two_owners_and_an_hour(desk: Desk) -> None:
    """Draft, sign, activate, wait, activate again; the log says who and since when; every seat has it, and intents pin either."""
    new = desk.changed("stricter", STRICTER)
    target = desk.folder / "activation.json"
    code, told = desk("draft", target, new, "--author", "dee")
    assert (code, "path: stricter, 1h" in told) == (0, True), told
    report = json.loads((desk.folder / "activation.json.report.json").read_text())
    assert report["verdict"] == "stricter"
    code, told = desk("sign", target, new, "--key", "ana.json", "--yes")
    assert code == 0, told
    for said in (
        "verdict: stricter",
        "proofs hold",
        "signed by 2 owners of ana, bo, cy, dee not among them",
        "signed by 0x",
    ):
        assert said in told or said == "signed by 0x", told
    code, told = desk("activate", target, new)
    assert (code, "quorum_not_reached" in told) == (1, True), told
    assert desk("sign", target, new, "--key", "bo.json", "--yes")[0] == 0
    code, told = desk("activate", target, new)
    assert (code, "noted: bundle" in told, told.count("noted it, and takes it from")) == (0, True, 8), told
    assert "waits until" in desk("log")[1]
    desk.set_time(NOW + HOUR - 1)
    assert json.loads(desk("activate", target, "--json")[1])["in_force"] is False
    desk.set_time(NOW + HOUR)
    code, told = desk("activate", target)
    assert (code, told.count("has it")) == (0, 8), told
    log = json.loads(desk("log", "--json")[1])
    assert [step["signed_by"] for step in log["in_force"]] == [["ana", "bo", "cy"], ["ana", "bo"]]
    assert [step["since"] for step in log["in_force"]] == [NOW, NOW + HOUR]
    assert bootstrap.open_deployment(desk.home).bundle.hash == load(new).hash
    swapped, folder = desk.changed("swapped", LOOSER), desk.home / "policy"
    shutil.rmtree(folder)
    swapped.rename(folder)  # whatever the settings' folder holds now
    assert bootstrap.open_deployment(desk.home).bundle.hash == load(new).hash


def test_a_looser_bundle_takes_three_and_two_days(desk: Desk) -> None:
    """One base unit more by itself: the longer path, and every owner is shown the transfer that it is about."""
    new = desk.changed("looser", LOOSER)
    target = desk.signed(new, ("ana", "bo"))
    code, told = desk("activate", target, new)
    assert (code, "needed=3" in told) == (1, True), told
    code, told = desk("sign", target, new, "--key", "cy.json", "--yes")
    assert code == 0, told
    for said in (
        "weaker: people: it goes by itself",
        "0.25000001 BTC",
        "path: weaker, 2d",
        "not plainly as strict: limits.yaml",
    ):
        assert said in told, told
    assert desk("activate", target, new)[0] == 0
    desk.set_time(NOW + DAYS - 1)
    assert bootstrap.open_deployment(desk.home).bundle.hash == desk.first.hash
    desk.set_time(NOW + DAYS)
    assert bootstrap.open_deployment(desk.home).bundle.hash == load(new).hash
    body = json.loads(desk("activate", target, "--json")[1])
    assert (body["in_force"], {seat["has_it"] for seat in body["seats"]}) == (True, {True})


def test_an_owners_tool_believes_nobody(desk: Desk) -> None:
    """A report of another change, another bundle's files, a predecessor that is not in force, proofs that fail: nothing is signed."""
    new, other = desk.changed("looser", LOOSER), desk.changed("stricter", STRICTER)
    target = desk.drafted(new)
    honest = Signed.from_json(PolicyActivation, json.loads(target.read_text()))
    mild = json.loads((desk.drafted(other)).read_text())["message"]["diff_report"]

    def write(**changed: object) -> None:
        body = honest.to_json()
        body["message"] = {**body["message"], **changed}
        target.write_text(json.dumps(body))

    for changed, folder, rule in (
        ({"diff_report": mild}, new, "approves_another_digest"),
        ({}, other, "not_the_successor"),
        ({"previous": "0x" + "17" * 32}, new, "not_the_successor"),
    ):
        write(**changed)
        code, told = desk("sign", target, folder, "--key", "ana.json", "--yes")
        assert (code, rule in told) == (1, True), told
        assert json.loads(target.read_text())["signatures"] == []
    tidied = desk.changed("tidied", AFFILIATES)
    code, told = desk("draft", target, tidied, "--author", "dee")
    assert (code, "FAILS  C08-related-entities" in told) == (1, True), told
    code, told = desk("sign", target, tidied, "--key", "ana.json", "--yes")
    assert (code, "not signed: " in told) == (1, True), told
    assert json.loads(target.read_text())["signatures"] == []
    with_claim = desk.changed(
        "both",
        AFFILIATES,
        ("claims.yaml", "then: {people: 4, groups: 3, displaying: 1 approval, delay: 24h}", "then: {people: 2}"),
    )
    code, told = desk("draft", target, with_claim, "--author", "dee")
    assert (code, "FAILS" in told, "claims or governance change" in told) == (1, True, True), told


def test_signing_away_from_the_deployment(desk: Desk) -> None:
    """An owner needs two bundles, as folders or files, and genesis; `bulkhead sign` shows hashes and signs no successor."""
    new = desk.changed("stricter", STRICTER)
    target, old_file, new_file = desk.drafted(new), desk.folder / "old.bundle", desk.folder / "new.bundle"
    code, told = desk.run("policy", "bundle", old_file, desk.home / "policy")
    assert (code, "0x" + desk.first.hash.hex() in told) == (0, True)
    assert json.loads(desk.run("policy", "bundle", new_file, new, "--json")[1])["bundle"] == "0x" + load(new).hash.hex()
    genesis, nowhere = "0x" + desk.house.world.domain.genesis.hex(), desk.folder / "nowhere"
    words = (target, new_file, old_file, "--key", "ana.json", "--genesis", genesis, "--yes", "--home", nowhere)
    assert desk.run("policy", "sign", *words)[0] == 0
    signed = Signed.from_json(PolicyActivation, json.loads(target.read_text()))
    assert len(signed.signers(desk.house.world.domain)) == 1
    code, told = desk.run("sign", target, "--key", "bo.json", "--genesis", genesis, "--yes")
    assert (code, "bulkhead policy sign" in told) == (2, True), told
    assert desk("draft", target, new)[0] == 2  # by nobody


def test_claims_have_their_own_people(desk: Desk) -> None:
    """A claim more is plainly stricter, and one of risk signs as well: not its author, though he is of risk."""
    more = (
        "claims.yaml",
        "claims:\n",
        "claims:\n  - {id: C90-once-more, why: It cannot be said often enough., when: {sanctioned: true}, then: denied}\n",
    )
    new = desk.changed("more", more)
    target = desk.signed(new, ("ana", "cy"), author="bo")
    assert desk("activate", target, new)[0] == 0  # cy is of risk
    again = desk.changed("again", more, STRICTER)
    target = desk.signed(again, ("ana",), author="cy")
    code, told = desk("activate", target, again)
    assert (code, told.count("quorum_not_reached")) == (1, 2), told


def test_a_forged_row_counts_for_nothing(desk: Desk) -> None:
    """It is told, with exit 1, and another one that was only overtaken is not."""
    new = load(desk.changed("looser", LOOSER))
    forged = activation(new, desk.first, ("ana",))
    desk.store.run(lambda work: store_activation(work, forged, new, NOW - DAYS))
    desk.set_time(NOW + 2 * DAYS)
    code, told = desk("log")
    assert (code, "counts for nothing" in told, "quorum_not_reached" in told) == (1, True, True), told
    assert bootstrap.open_deployment(desk.home).bundle.hash == desk.first.hash


# decisions


def _add(transfer: Transfer, key: str, work: UnitOfWork) -> None:
    work.transfers.add(transfer, "backend", key, transfer.intent.proposal, transfer)


def decide(desk: Desk, under: Bundle, *changes: dict[str, Any]) -> list[Transfer]:
    """Transfers that were proposed with these facts, and recorded."""
    found = []
    for number, change in enumerate(changes):
        facts = shipped.facts(**change)
        built = trust.build(Ask(proposal={"reference": f"order-{number}"}, intent={"id": f"order-{number}"}))
        (material,) = built.request.transfers
        record = DecisionRecord(decided([under.policy], facts), facts, NOW, What.PROPOSED)
        digest = desk.house.world.domain.digest(material.intent)
        transfer = Transfer(digest, material.proposal, material.intent, facts.usd or 0, NOW, moved_at=NOW)
        placed = move(transfer, Status.QUEUED, NOW, waiting_for="signatures", decision=record)
        desk.store.run(partial(_add, placed, f"key-{number}"))
        found.append(placed)
    return found


def test_every_decision_can_be_answered_again(desk: Desk) -> None:
    """The same by its bundles and facts; what was changed afterwards is found, and so is a record that is gone."""
    first, second = decide(desk, desk.first, {}, {"usd": 200_000 * shipped.USD})
    assert json.loads(desk("log", "replay", "--json")[1]) == {"records": 2, "findings": []}
    facts = shipped.facts(usd=200_000 * shipped.USD)
    again = record_after(second.decision, decided([desk.first.policy], facts), facts, NOW + 5)

    def authorize(work: UnitOfWork) -> None:
        asked = move(second, Status.PENDING_SIGNATURE, NOW + 5, None, "signatures of the seats", again)
        work.documents.put(DECISION, "x", {"transfer": second.digest.hex(), "decision": dict(second.decision or {})})
        work.transfers.update(asked, second, "permit")

    desk.store.run(authorize)
    code, told = desk("log", "replay")
    assert (code, "3 recorded decisions" in told) == (0, True), told
    code, told = desk("explain", first.intent.id)
    assert (code, "AUTOMATIC" in told) == (0, True), told
    with sqlite3.connect(desk.home / "ledger.db") as database:
        body = database.execute("SELECT decision FROM transfers WHERE id = ?", (first.intent.id,)).fetchone()[0]
        changed = body.replace('"outcome":"AUTOMATIC"', '"outcome":"REQUIRE"')
        assert changed != body
        database.execute("UPDATE transfers SET decision = ? WHERE id = ?", (changed, first.intent.id))
        for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("DELETE FROM documents WHERE kind = ?", (DECISION,))
    code, told = desk("log", "replay")
    assert (code, "not what its hash says" in told, "outcome was REQUIRE, is AUTOMATIC" in told) == (1, True, True), (
        told
    )
    assert "names 0x" in told
    assert desk("simulate", desk.home / "policy", desk.home / "policy")[0] == 2


def test_what_another_bundle_would_have_answered(desk: Desk) -> None:
    """Counts, value and examples of what flips; exit 1 where it asks less of any of them."""
    decide(
        desk,
        desk.first,
        {},
        {"amount": 25_000_001, "usd": 24_000 * shipped.USD},
        {"amount": 25_000_000, "usd": 23_000 * shipped.USD},
    )
    old = desk.home / "policy"
    assert desk("simulate", old, old, "--history")[0] == 0
    code, told = desk("simulate", old, desk.changed("looser", LOOSER), "--history")
    assert (code, "goes by itself: 1 of 3, 24,000 USD" in told) == (1, True), told
    assert "1 of 3 past proposals would be answered differently, 1 of them less strictly" in told
    code, told = desk("simulate", old, desk.changed("stricter", STRICTER), "--json")
    assert code == 0, told
    (flip,) = json.loads(told)["flips"]
    assert (flip["direction"], flip["count"], flip["micro_usd"]) == ("stricter", 1, str(23_000 * shipped.USD))


def test_every_activation_is_stored_once(desk: Desk) -> None:
    """Running the command again changes no row."""
    new = desk.changed("stricter", STRICTER)
    target = desk.signed(new, ("ana", "bo"))
    for _ in range(2):
        assert desk("activate", target, new)[0] == 0
    assert len(desk.store.read(lambda work: work.documents.all(ACTIVATION))) == 2
