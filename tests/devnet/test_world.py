# SPDX-License-Identifier: AGPL-3.0-or-later
"""The whole of Ground on real nodes: the demonstration's scenes, and every command a person would use to check them."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from api.console.registry import all_pages
from custody.activating import Carrier, activate_policy
from custody.bootstrap import open_deployment
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refused
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.transfers import Status
from devnet.birth import EVM, Services, raise_world
from devnet.demo import scenes
from devnet.network import HOT_SEATS, Devnet
from devnet.processes import Lifetime
from devnet.scenes.desk import Desk
from devnet.scenes.stage import Stage
from devnet.story import Story
from policies.bundle import from_json, load
from tests.console.calling import Caller, answer_of, rule_of
from tests.devnet import browsing
from tests.devnet.passkey_walk import walk
from tests.fakes.authenticator import Authenticator
from tests.fakes.canary import showing_root

pytestmark = pytest.mark.timeout(900)  # the first test plays the whole demonstration, beside another worker's tests
BULKHEAD = str(Path(sys.executable).parent / "bulkhead")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Story]]:
    """A born devnet on which every scene has been played; one for the whole module."""
    home = tmp_path_factory.mktemp("w")
    browsing.leave_passkeys(home / "people")
    story = Story(out=io.StringIO())
    net = Devnet(home, lifetime=Lifetime.PARENT)
    with showing_root(), net.running():
        services = Services(net)
        try:
            world = raise_world(net, services, story.tell)
            stage = Stage(world, world.deployment)
            for scene in scenes():
                scene(stage, story)
            yield stage, story
        finally:
            services.stop()


def bulkhead(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the console command in the stage's home."""
    environment = {**os.environ, "BULKHEAD_HOME": str(stage.world.net.home)}
    return subprocess.run([BULKHEAD, *words], capture_output=True, text=True, env=environment, check=False, timeout=300)


def test_every_claim_held(played: tuple[Stage, Story]) -> None:
    """What `make demo` claims, it claims here; a scene without claims would prove nothing."""
    _, story = played
    failed = [f"{claim.what}: {claim.seen}" for claim in story.claims if not claim.held]
    assert not failed, "\n".join(failed)  # each of them whole: a run like this one is not soon repeated
    assert len(story.claims) >= 60


def test_no_key_of_a_seat_is_anywhere_else(played: tuple[Stage, Story]) -> None:
    """The raw keys of a seat that signed all of this: not in the memory, environment, files or logs of any part of ours.

    This process was worker and client. The engine's own memory is the control: there the search does find them.
    """
    world = played[0].world
    server = world.net.hot["hot-1"]
    parts = [os.getpid(), *(pid for part in (*world.services.online, world.services.web) if (pid := part.pid))]
    engine = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(server.plugin_folder).encode() in (entry / "cmdline").read_bytes()
    ]
    skipped = {"plugins", "raft"}
    files = [
        f
        for f in world.net.home.rglob("*")
        if f.is_file() and not skipped.intersection(f.relative_to(world.net.home).parts)
    ]
    shares = json.loads(server.unseal_file.read_text())["shares"]

    def search(pids: list[int], files: list[Path]) -> dict[str, Any]:
        asked = {"servers": [{"url": server.url, "shares": shares}], "pids": pids, "files": [str(f) for f in files]}
        words = [sys.executable, "-m", "tests.fakes.canary"]
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(words, input=json.dumps(asked), capture_output=True, text=True, cwd=root, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    told = search(parts, files)
    assert told == {"keys": 4, "searched": len(parts) + len(files), "found": []}
    assert len(parts) >= 5
    assert server.audit_file in files
    assert search(engine, [])["found"]


def test_wallets(played: tuple[Stage, Story]) -> None:
    """The inventory: three tiers on two chains, 3 of 4, and the relayer with its cap."""
    done = bulkhead(played[0], "wallets", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert sorted(row["tier"] for row in rows) == ["customer_cold"] * 2 + ["customer_hot"] * 2 + ["operational"] * 3
    assert {row.get("quorum") for row in rows if row["label"] != "relayer"} == {"3 of 4"}
    assert [row["cap"] for row in rows if row["label"] == "relayer"] == ["10 ETH"]
    plain = bulkhead(played[0], "wallets").stdout
    assert all(row["address"] in plain for row in rows)


def test_coverage(played: tuple[Stage, Story]) -> None:
    """Per asset, at one final block per chain; `--check` is content."""
    done = bulkhead(played[0], "coverage", "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("at final block") == 2
    for asset in ("BTC", "ETH", "USDX", "USDN"):
        assert f"\n{asset}\n" in done.stdout
    assert re.search(r"on chain +\d+\.\d{17}1\n", done.stdout)  # bob's one wei: not one digit lost


def test_ledger_verify_and_entries(played: tuple[Stage, Story]) -> None:
    """Holds, and lists what made each entry true."""
    done = bulkhead(played[0], "ledger", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["findings"] == []
    kinds = {entry["origin"]["type"] for entry in json.loads(bulkhead(played[0], "ledger", "entries", "--json").stdout)}
    assert kinds >= {"TokenProof", "NativeProof", "BitcoinProof", "Settlement"}


def test_statement_offline(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """A statement handed to a stranger verifies with the roster and genesis alone; a changed one does not."""
    stage, _ = played
    made = bulkhead(stage, "statement", "make")
    assert made.returncode == 0, made.stderr
    statement, roster = tmp_path / "statement.json", tmp_path / "roster.json"
    statement.write_text(made.stdout)
    roster.write_text(json.dumps(stage.deployment.roster.signed.to_json()))
    genesis = "0x" + stage.deployment.roster.domain.genesis.hex()
    offline = [BULKHEAD, "statement", "verify", str(statement), "--roster", str(roster), "--genesis", genesis]
    nowhere = {**os.environ, "BULKHEAD_HOME": str(tmp_path / "nowhere")}
    good = subprocess.run(offline, capture_output=True, text=True, env=nowhere, check=False)
    assert good.returncode == 0, good.stderr
    changed = json.loads(made.stdout)
    changed["message"]["coverage"][0]["reserves"] = "1"
    statement.write_text(json.dumps(changed))
    bad = subprocess.run(offline, capture_output=True, text=True, env=nowhere, check=False)
    assert bad.returncode == 1
    assert "signature_invalid" in bad.stderr


BAD_INPUT = [
    pytest.param(("customer", "add", "Alice!"), 2, "malformed", id="a customer's id"),
    pytest.param(("customer", "add", "alice"), 1, "already_exists", id="a customer twice"),
    pytest.param(("customer", "address", "nobody", "eip155:31338"), 1, "unknown_customer", id="an unknown customer"),
    pytest.param(("customer", "address", "alice", "eip155:1"), 2, "unknown_wallet", id="a chain without a wallet"),
    pytest.param(("customer", "address", "alice", "dogecoin"), 2, "unknown_chain", id="no chain at all"),
    pytest.param(("statement", "verify", "/dev/null"), 2, "malformed", id="no JSON"),
    pytest.param(("wallet", "create", "/nonexistent.json"), 2, "malformed", id="no file"),
    pytest.param(("seat", "no-such-verb"), 2, "", id="no such verb"),
    pytest.param(("wallletts",), 2, "did you mean", id="a typing error"),
]


@pytest.mark.parametrize(("words", "code", "told"), BAD_INPUT)
def test_bad_input(played: tuple[Stage, Story], words: tuple[str, ...], code: int, told: str) -> None:
    """A specific refusal, its exit code, nothing changed, and no traceback."""
    before = played[0].deployment.store.read(lambda work: (work.journal.head(), work.customers.ids()))
    done = bulkhead(played[0], *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert played[0].deployment.store.read(lambda work: (work.journal.head(), work.customers.ids())) == before


def test_a_second_birth_is_refused(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """Version 1 is signed once; another one finds every part pinned."""
    stage, _ = played
    version = stage.deployment.roster.version
    other = RosterVersion.from_json({**version.to_json(), "delay": "1"})
    file = tmp_path / "roster.json"
    file.write_text(json.dumps({"type": "RosterVersion", "message": other.to_json(), "signatures": []}))
    done = bulkhead(stage, "init", str(file))
    assert done.returncode in (1, 3), done.stdout + done.stderr  # refused by a hot seat, or a cold one is silent
    assert stage.world.deployment.roster.version == version


def test_birth_by_commands_can_be_repeated(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """`bulkhead init` with what was signed: every part answers the same, nobody signs anything else."""
    stage, _ = played
    signed, file = stage.deployment.roster.signed, tmp_path / "roster.json"
    file.write_text(json.dumps({**signed.to_json(), "signatures": []}))
    shown = bulkhead(stage, "roster", "show", str(file)).stdout
    assert shown.count("missing") == len(shown.splitlines()) > 20
    people = stage.world.cast.sign(
        stage.deployment.roster.domain,
        Signed(signed.message, ()),
        (*stage.world.cast.people, *stage.world.cast.programs),
    )
    file.write_text(json.dumps(people.to_json()))
    with stage.world.services.ceremony():
        done = bulkhead(stage, "init", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0x" + stage.deployment.roster.domain.genesis.hex() in done.stdout
    assert json.loads(file.read_text())["signatures"] == signed.to_json()["signatures"]
    assert "missing" not in bulkhead(stage, "roster", "show", str(file)).stdout


def test_a_wallet_by_commands(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """Drafted from seats' keys, signed by people one by one, accepted by every seat, and on its chain."""
    stage, _ = played
    home, file = stage.world.net.home, tmp_path / "wallet.json"
    hot = [word for name in stage.world.net.hot for word in ("--seat", name)]
    draft = [
        "wallet",
        "draft",
        str(file),
        "--label",
        "vendor_float",
        "--tier",
        "operational",
        "--chain",
        "eip155:31338",
    ]
    thin = bulkhead(stage, *draft, *hot, "--m", "2")
    assert (thin.returncode, "two_m_minus_n_below_two" in thin.stderr) == (1, True), thin.stderr
    assert not file.exists()
    done = bulkhead(stage, *draft, *hot)
    assert done.returncode == 0, done.stdout + done.stderr
    password = str(home / "people" / "password")
    for name in ("ana", "cleo"):
        key = str(home / "people" / f"{name}.json")
        assert bulkhead(stage, "sign", str(file), "--key", key, "--password-file", password, "--yes").returncode == 0
    early = bulkhead(stage, "wallet", "create", str(file))
    assert (early.returncode, "quorum_not_reached" in early.stderr) == (1, True), early.stderr
    key = str(home / "people" / "eve.json")
    assert bulkhead(stage, "sign", str(file), "--key", key, "--password-file", password, "--yes").returncode == 0
    for _ in range(2):  # the second time everything is there already
        done = bulkhead(stage, "wallet", "create", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
    assert "vendor_float" in bulkhead(stage, "wallets").stdout


def test_a_withdrawal_by_hand(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """What `make up` leaves living, and what it ends with: enrol, propose over the API, approve twice, complete; and the console."""
    stage, _ = played
    services, people = stage.world.services, stage.world.net.home / "people"
    to, password = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", str(people / "password")

    def run(*words: str, key: str = "") -> str:
        keyed = ("--key", str(people / key), "--password-file", password) if key else ()
        done = bulkhead(stage, *words, *keyed)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    services.start([*services.loops, *services.shown])
    try:
        services.check_living()
        wait_for(lambda: "a stricter bundle" in services.life.log.read_text())  # whose clock it moves is everybody's
        assert not [line for line in services.life.log.read_text().splitlines() if not line.endswith(" s")]
        run("customer", "add", "zoe")
        run("devnet", "pay", run("customer", "address", "zoe", "eip155:31338"), "20", "ETH")
        run("customer", "enrol", "zoe", "eip155:31338", to, "--yes", key="hana.json")
        run("devnet", "advance", "90000")
        proposing = ("api", "propose", "customer:zoe", "6", "ETH", to, "--url", services.web.url)
        made = run(*proposing, key="backend.pem")
        assert "P01-customer-withdrawal (automatic_when)" in run(*proposing, "--dry-run", key="backend.pem")
        for person in ("ana", "cleo"):
            run("approve", made, "--yes", key=f"{person}.json")
        deadline = time.monotonic() + 300
        while f"{made}  COMPLETED" not in (told := run("transfers", "--all")) and time.monotonic() < deadline:
            run("devnet", "mine", "4")
        assert f"{made}  COMPLETED" in told, told
        assert "quoted ETH, BTC" in services.feeders.log.read_text()
        newcomer(stage, tmp_path, run)
        services.check_living()
    finally:
        for service in (*reversed(services.shown), *services.loops):
            service.stop()


def newcomer(stage: Stage, folder: Path, run: Callable[..., str]) -> None:
    """Bo makes a passkey for the console that is left living, is admitted by the command, logs in, and approves what waits for him."""
    services = stage.world.services
    place = Newcomer(services.console.url, f"http://127.0.0.1:{services.console.port}")
    enrolment, challenge = folder / "passkey-bo.json", os.urandom(32)
    told = {"type": "PasskeyEnrolment", "person": "bo", "origin": place.origin, "challenge": "0x" + challenge.hex()}
    enrolment.write_text(json.dumps({**told, "response": place.passkeys["bo"].registration(challenge)}))
    run("devnet", "admit", str(enrolment))
    bo = Caller(place, "bo").log_in()
    pages = [page.path for page in all_pages() if page.label]
    assert {path: bo.get(path).status_code for path in pages} == dict.fromkeys(pages, 200)
    part = r'(?s)aria-labelledby="part-me".*?</section>'
    wait_for(lambda: bool(re.search(part, bo.get("/queue").text)))
    deployment, done = stage.deployment, False
    for named in re.findall(r'href="/transfers/([0-9a-f-]+)"', re.search(part, bo.get("/queue").text)[0]):  # type: ignore[index]
        transfer = deployment.store.read(lambda work, id_=named: work.transfers.find(id_))  # type: ignore[misc]
        page = bo.get(f"/transfers/{named}").text
        if transfer is not None and "Approve with my passkey" in page and "<b>1 of operations</b>" in page:
            answer = bo.approve(transfer, answer_of(place.passkeys["bo"], transfer.digest))
            assert answer.status_code == 303, rule_of(answer)
            wait_for(lambda id_=named: f"{id_}  COMPLETED" in run("transfers", "--all"))  # type: ignore[misc]
            done = True
            break
    assert done, bo.get("/queue").text


@dataclass
class Newcomer:
    """The console as a browser on this machine finds it, and one passkey for it."""

    origin: str
    url: str

    @cached_property
    def passkeys(self) -> Mapping[str, Authenticator]:
        """Bo's."""
        return {"bo": Authenticator("bo's telephone", self.origin)}


def wait_for(holds: Callable[[], bool]) -> None:
    """Within five minutes, on a machine that does much else."""
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)


def test_no_private_key_in_any_file_but_key_files(played: tuple[Stage, Story]) -> None:
    """A canary search: nobody's key stands in the database, a log, settings, or an audit log."""
    stage, _ = played
    home = stage.world.net.home
    cast = stage.world.cast
    signers = (*cast.people.values(), *cast.spare.values())
    secrets = [bytes(signer._private.to_bytes()).hex().encode() for signer in signers]
    for path in home.rglob("*"):
        if path.is_file() and "raft" not in path.parts and path.parent.name != "people":
            body = path.read_bytes()
            assert not [s for s in secrets if s in body], path


def bundle_that_asks_sooner(stage: Stage, folder: Path) -> Path:
    """The devnet's first bundle, under which less ether goes by itself."""
    shutil.copytree(stage.world.net.home / "policy", folder)
    limits = (folder / "limits.yaml").read_text(encoding="ascii")
    (folder / "limits.yaml").write_text(limits.replace("ETH: 5 ETH", "ETH: 0.001 ETH", 1), encoding="ascii")
    return folder


def by_owners(stage: Stage, target: Path, names: tuple[str, ...]) -> None:
    """Their signatures in the file, beside the one that the command made."""
    signed = Signed.from_json(PolicyActivation, json.loads(target.read_text()))
    target.write_text(json.dumps(stage.world.cast.sign(stage.deployment.roster.domain, signed, names).to_json()))


def test_a_stricter_bundle_by_the_owners_commands(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """In force after an hour of the statement's clock, at the desk and at seats; what was proposed before asks for what both ask.

    It and the one below come last in this module: the world goes by another bundle afterwards.
    """
    stage, story = played
    desk, first = Desk(stage), stage.deployment.lineage().newest.bundle
    address = Account.create().address
    desk.enrol("alice", EVM, address)
    desk.pass_a_day()
    waiting = desk.propose("governed-1", "alice", "ETH", 2 * 10**15, address)
    assert (waiting.status, waiting.intent.policy) == (Status.QUEUED, first.hash)
    new, target, people = (
        bundle_that_asks_sooner(stage, tmp_path / "new"),
        tmp_path / "new.json",
        stage.world.net.home / "people",
    )
    assert bulkhead(stage, "policy", "draft", str(target), str(new), "--author", "gil").returncode == 0
    key = ("--key", str(people / "cleo.json"), "--password-file", str(people / "password"), "--yes")
    signing = bulkhead(stage, "policy", "sign", str(target), str(new), *key)
    assert signing.returncode == 0, signing.stdout + signing.stderr
    by_owners(stage, target, ("dan", "eve"))
    noted = json.loads(bulkhead(stage, "policy", "activate", str(target), str(new), "--json").stdout)
    assert (noted["path"], noted["in_force"]) == ("stricter", False)
    assert [seat["seat"] for seat in noted["seats"] if seat["waits_until"]] == list(HOT_SEATS)
    assert desk.worker.kernel().policies.newest.hash == first.hash
    desk.pass_time(3_600 + 60)
    taken = json.loads(bulkhead(stage, "policy", "activate", str(target), "--json").stdout)
    assert (taken["in_force"], [seat["seat"] for seat in taken["seats"] if seat["has_it"]]) == (True, list(HOT_SEATS))
    assert desk.worker.kernel().policies.newest.hash == load(new).hash
    desk.turn(story)
    assert desk.now(waiting).status is Status.PENDING_AUTHORIZATION  # it went by itself under the bundle that it pins
    assert {person: desk.approve(waiting, person) for person in ("ana", "cleo")} == {"ana": set(), "cleo": set()}
    desk.work(story, waiting)
    assert desk.now(waiting).status is Status.COMPLETED, desk.now(waiting).waiting_for


def test_a_weaker_bundle_waits_two_days(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """Four owners; refused by every seat an hour before its time; the worker brings it to them after; every decision replays."""
    stage, story = played
    desk, home = Desk(stage), stage.world.net.home
    newest = desk.worker.kernel().policies.newest
    documents = json.loads(json.dumps(load(home / "policy").to_json()))
    documents["rules"]["rules"][0]["why"] += " Once more."  # a bundle that was in force never is again
    weaker = from_json(documents)
    message = PolicyActivation(weaker.hash, newest.hash, b"\x01" * 32, "gil", 0)
    domain, owners = stage.deployment.roster.domain, ("cleo", "dan", "eve", "fay")
    signed = stage.world.cast.sign(domain, Signed(message, ()), owners)
    with pytest.raises(Refused):
        activate_policy(open_deployment(home), stage.world.cast.sign(domain, Signed(message, ()), owners[:3]), weaker)
    done = activate_policy(open_deployment(home), signed, weaker)
    assert (done.terms.path, done.terms.owners, done.terms.delay, done.in_force) == ("weaker", 4, 48 * 3_600, False)
    desk.pass_time(47 * 3_600)
    early = activate_policy(open_deployment(home), signed, weaker)
    assert (early.in_force, {each.seat for each in early.handed if each.waits_until}) == (False, set(HOT_SEATS))
    assert desk.worker.kernel().policies.newest.hash == newest.hash
    desk.pass_time(3_600 + 60)
    told = [json.loads(line) for line in Carrier(open_deployment(home))()]
    assert {each["seat"]: each["why"] for each in told} == dict.fromkeys(HOT_SEATS, "has it")
    assert desk.worker.kernel().policies.newest.hash == weaker.hash
    address = Account.create().address
    desk.enrol("alice", EVM, address)
    desk.pass_a_day()
    small = desk.propose("governed-2", "alice", "ETH", 2 * 10**15, address)
    desk.work(story, small)
    assert desk.now(small).status is Status.COMPLETED, desk.now(small).waiting_for
    log = bulkhead(stage, "policy", "log")
    assert log.returncode == 0, log.stdout + log.stderr
    assert log.stdout.count("in force since") == 3
    replayed = bulkhead(stage, "policy", "log", "replay")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_what_is_approved_in_a_browser_makes_real_seats_sign(played: tuple[Stage, Story]) -> None:
    """Two passkeys at the real console's page, over the real processes: the worker asks, OpenBao's seats sign, and the chain has it."""
    stage, story = played
    browsing.approve_in_browser(stage, story)


def test_a_passkey_from_its_enrolment_to_a_withdrawal(played: tuple[Stage, Story], tmp_path: Path) -> None:
    """Enrolled by a roster version under its quorum; alone it approves what is small, and above the amount beside a key that displays."""
    stage, story = played
    walk(Desk(stage), story, lambda *words: bulkhead(stage, *words), tmp_path)
