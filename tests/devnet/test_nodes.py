# SPDX-License-Identifier: AGPL-3.0-or-later
"""The nodes are ours, hold only what they were granted, survive a restart, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import hvac
import pytest
import sqlalchemy
from hvac.exceptions import Forbidden, InvalidRequest

from devnet import processes
from devnet.anvil import Anvil, RpcFailed
from devnet.binaries import Program, ProgramMissing, WrongHash, find
from devnet.bitcoind import MINER, SATOSHI, Bitcoind
from devnet.debian import NoMirror, mirror
from devnet.grants import Kind
from devnet.home import bulkhead_home
from devnet.openbao import OpenBao
from devnet.pids import Identity, Record, holds_port
from devnet.processes import Command, Lifetime, Node, NodeFailed, Process, _die_with, stop_recorded

CHECKOUT = Path(__file__).resolve().parents[2]
DIES_WITH_US = partial(_die_with, os.getpid())  # whoever kills a worker of `make test` kills what it started
PATCH = {"Content-Type": "application/merge-patch+json"}
SECRET = "the-value-that-must-not-be-logged"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    """A process that does nothing, for whoever wants to stop one."""
    process = Process("sleeper", Command(["sleep", "600"]), tmp_path / "log.txt", Lifetime.PARENT)
    yield process
    process.stop()


def gone(identities: list[Identity], seconds: float = 30.0) -> bool:
    """Whether all of these processes end in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(i.alive() for i in identities):
        time.sleep(0.02)
    return not any(i.alive() for i in identities)


# Whose port it is


def test_our_pid_holds_the_port(anvil: Anvil, bitcoind: Bitcoind, openbao_seat: OpenBao) -> None:
    """Each node's own process listens where we say it does, and no other process of ours does."""
    for node in (anvil, bitcoind, openbao_seat):
        assert node.pid is not None
        assert holds_port(node.pid, node.port)
        assert not holds_port(os.getpid(), node.port)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: Anvil(folder), id="anvil"),
        pytest.param(lambda folder: Bitcoind(folder), id="bitcoind"),
        pytest.param(lambda folder: OpenBao("other", folder), id="openbao"),
    ],
)
def test_a_port_taken_meanwhile_is_given_up(
    make: Callable[[Path], Node], anvil: Anvil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When somebody takes the port between look and start, the node moves; theirs never counts as its own."""
    ports = iter([anvil.port])
    real = processes.free_port
    monkeypatch.setattr(processes, "free_port", lambda preferred=None: next(ports, None) or real(preferred))
    node = make(tmp_path / "node")
    try:
        node.start()
        assert node.port != anvil.port
        assert node.pid is not None
        assert holds_port(node.pid, node.port)
    finally:
        node.stop()


def test_another_chain_id_is_not_our_node(anvil: Anvil, tmp_path: Path) -> None:
    """A node that answers with another chain id is not ready."""
    other = Anvil(tmp_path, chain_id=1)
    other.port = anvil.port
    assert not other.ready()


# Chains


def test_anvil_finalizes_two_behind_the_head(anvil_snapshot: Anvil) -> None:
    """With one slot in an epoch, finalized is head - 2."""
    head = anvil_snapshot.mine(5)
    final = anvil_snapshot.rpc("eth_getBlockByNumber", "finalized", False)
    assert isinstance(final, dict)
    assert head - 2 == int(final["number"], 16)


def test_anvil_snapshot_puts_the_chain_back(anvil: Anvil) -> None:
    """A revert undoes blocks and balances; its name is good for once."""
    account = "0x" + "ab" * 20
    height, name = anvil.height, anvil.snapshot()
    anvil.set_balance(account, 7)
    anvil.mine(3)
    anvil.revert(name)
    assert (height, "0x0") == (anvil.height, anvil.rpc("eth_getBalance", account, "latest"))
    with pytest.raises(RpcFailed):
        anvil.revert(name)


def test_anvil_keeps_its_chain_over_a_restart(tmp_path: Path) -> None:
    """Block hashes and balances are there again after SIGTERM and a new start."""
    node, account = Anvil(tmp_path), "0x" + "cd" * 20
    try:
        node.start()
        node.set_balance(account, 10**20)
        node.mine(4)
        before = node.rpc("eth_getBlockByNumber", "0x4", False)
        node.stop()
        node.start()
        assert hex(10**20) == node.rpc("eth_getBalance", account, "latest")
        after = node.rpc("eth_getBlockByNumber", "0x4", False)
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert before["hash"] == after["hash"]
    finally:
        node.stop()


def test_bitcoind_pays_exactly(bitcoind: Bitcoind) -> None:
    """The miner pays an amount to the satoshi, and amounts come back as Decimal."""
    address = str(bitcoind.rpc("getnewaddress", wallet=MINER))
    txid = bitcoind.pay(address, 1_234_567)
    bitcoind.mine()
    details = bitcoind.rpc("gettransaction", txid, wallet=MINER)
    assert isinstance(details, dict)
    received = [d["amount"] for d in details["details"] if d["category"] == "receive"]
    assert received == [1_234_567 * SATOSHI]
    assert type(received[0]) is Decimal


def test_bitcoind_keeps_its_chain_and_its_cookie_private(tmp_path: Path) -> None:
    """The chain is there after a restart; nobody else can read the RPC password."""
    node = Bitcoind(tmp_path)
    try:
        node.start()
        tip, password = node.mine()[-1], node.credentials
        assert node.cookie_file.stat().st_mode & 0o777 == 0o600
        node.stop()
        node.start()
        assert tip == node.rpc("getbestblockhash")
        assert password != node.credentials
    finally:
        node.stop()


def test_bitcoind_reports_a_refused_call(bitcoind: Bitcoind) -> None:
    """An error of the node names the method and the code."""
    with pytest.raises(RpcFailed) as caught:
        bitcoind.rpc("getblockhash", 10**9)
    assert (caught.value.method, caught.value.code) == ("getblockhash", -8)


def test_postgres_is_ours_and_on_no_port(postgres_url: str) -> None:
    """It answers on its socket, listens on no address, and does not run as root."""
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SHOW listen_addresses")).scalar_one() == ""
    folder = Path(str(engine.url.query["host"]))
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not holds_port(int((folder / "postmaster.pid").read_text().split()[0]), 5432)
    engine.dispose()


# What a seat's token may do


def test_a_seat_writes_and_reads_its_own(openbao_seat: OpenBao) -> None:
    """Create, read and update below its own mount; sign and verify with its own identity."""
    client = openbao_seat.login()
    store, transit = client.secrets.kv.v2, client.secrets.transit
    store.create_or_update_secret("journal/1", {"value": "a"}, cas=0, mount_point="bulkhead")
    store.create_or_update_secret("journal/1", {"value": "b"}, cas=1, mount_point="bulkhead")
    kept = store.read_secret_version("journal/1", mount_point="bulkhead", raise_on_deleted_version=True)
    assert kept["data"]["data"] == {"value": "b"}
    message = "aGVsbG8="
    signature = transit.sign_data("identity", hash_input=message)["data"]["signature"]
    assert transit.verify_signed_data("identity", hash_input=message, signature=signature)["data"]["valid"] is True


def test_a_stale_write_is_refused(openbao_seat: OpenBao) -> None:
    """Check-and-set holds: a second "create" of the same entry is refused."""
    store = openbao_seat.login().secrets.kv.v2
    store.create_or_update_secret("journal/once", {"value": "a"}, cas=0, mount_point="bulkhead")
    with pytest.raises(InvalidRequest):
        store.create_or_update_secret("journal/once", {"value": "b"}, cas=0, mount_point="bulkhead")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("delete", "bulkhead/data/journal/1", id="delete the latest version"),
        pytest.param("put", "bulkhead/delete/journal/1", id="delete versions"),
        pytest.param("put", "bulkhead/destroy/journal/1", id="destroy versions"),
        pytest.param("delete", "bulkhead/metadata/journal/1", id="delete all versions"),
        pytest.param("put", "bulkhead/metadata/journal/1", id="change how many versions are kept"),
        pytest.param("patch", "bulkhead/data/journal/1", id="patch"),
        pytest.param("list", "bulkhead/metadata/journal", id="list"),
        pytest.param("get", "bulkhead/metadata/journal/1", id="read metadata"),
        pytest.param("put", "bulkhead/config", id="configure the store"),
        pytest.param("get", "secret/data/other", id="another mount"),
        pytest.param("put", "transit/keys/other", id="make a key"),
        pytest.param("put", "transit/keys/identity/config", id="allow deletion of the key"),
        pytest.param("put", "transit/keys/identity/rotate", id="rotate the key"),
        pytest.param("delete", "transit/keys/identity", id="delete the key"),
        pytest.param("get", "transit/export/signing-key/identity", id="export the key"),
        pytest.param("get", "transit/backup/identity", id="back up the key"),
        pytest.param("list", "transit/keys", id="list keys"),
        pytest.param("put", "sys/policies/acl/mine", id="make a policy"),
        pytest.param("put", "sys/policies/acl/bulkhead", id="change its own policy"),
        pytest.param("get", "sys/policies/acl/bulkhead", id="read its own policy"),
        pytest.param("put", "sys/mounts/mine", id="mount an engine"),
        pytest.param("get", "sys/mounts", id="list mounts"),
        pytest.param("get", "sys/raw/core", id="raw storage"),
        pytest.param("put", "sys/plugins/catalog/secret/mine", id="register a plugin"),
        pytest.param("put", "sys/seal", id="seal the server"),
        pytest.param("put", "auth/token/create", id="make a token"),
        pytest.param("get", "auth/token/lookup-self", id="the default policy"),
        pytest.param("put", "auth/approle/role/bulkhead/secret-id", id="make a secret_id"),
        pytest.param("put", "auth/approle/role/mine", id="make a role"),
    ],
)
def test_a_seat_is_refused(openbao_seat: OpenBao, method: str, path: str) -> None:
    """Everything that is not granted is refused, with 403 and nothing else."""
    with pytest.raises(Forbidden):
        openbao_seat.login().adapter.request(method, f"/v1/{path}", json={}, headers=PATCH if method == "patch" else {})


def test_the_key_cannot_be_exported_or_deleted(openbao_seat: OpenBao) -> None:
    """The identity is an ed25519 key that stays inside."""
    key = openbao_seat.login().secrets.transit.read_key("identity")["data"]
    stays = {
        "type": "ed25519",
        "exportable": False,
        "allow_plaintext_backup": False,
        "deletion_allowed": False,
    }
    assert stays == {name: key[name] for name in stays}


def test_a_token_is_short_and_has_one_policy(openbao_seat: OpenBao) -> None:
    """A login gives one hour, the role's policy, and not the default policy."""
    role = json.loads(openbao_seat.approle_file.read_text())
    answer = openbao_seat.client().auth.approle.login(role["role_id"], role["secret_id"])
    assert (answer["auth"]["policies"], answer["auth"]["lease_duration"]) == (["bulkhead"], 3600)


def test_the_attestor_lists_its_bindings_only(tmp_path: Path) -> None:
    """The attestor finds its bindings, and lists nothing else."""
    server = OpenBao("attestor", tmp_path / "attestor")
    try:
        server.open(Kind.ATTESTOR)
        store = server.login().secrets.kv.v2
        store.create_or_update_secret("bindings/one", {"value": "a"}, mount_point="bulkhead")
        assert store.list_secrets("bindings", mount_point="bulkhead")["data"]["keys"] == ["one"]
        with pytest.raises(Forbidden):
            store.list_secrets("", mount_point="bulkhead")
        with pytest.raises(Forbidden):
            store.delete_metadata_and_all_versions("bindings/one", mount_point="bulkhead")
    finally:
        server.stop()


# Root, shares, audit


def test_the_root_token_is_dead(tmp_path: Path) -> None:
    """The token works until provisioning, and neither answers nor lies on disk afterwards."""
    server = OpenBao("seat", tmp_path / "seat")
    try:
        server.start()
        server.unseal()
        token = json.loads((server.folder / "root.json").read_text())["token"]
        root = server.client(token)
        assert root.auth.token.lookup_self()["data"]["policies"] == ["root"]
        server.provision(Kind.SEAT)
        with pytest.raises(Forbidden):
            root.auth.token.lookup_self()
        files = [p for p in server.folder.iterdir() if p.is_file()]
        assert [p.name for p in files if token.encode() in p.read_bytes()] == []
    finally:
        server.stop()


def test_provisioning_goes_on_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off before the root token was revoked, the next run revokes it and keeps the role."""
    server = OpenBao("seat", tmp_path / "seat")

    def crash(_: hvac.Client) -> None:
        raise KeyboardInterrupt

    try:
        server.start()
        server.unseal()
        with monkeypatch.context() as patch:
            patch.setattr("devnet.openbao.revoke_root", crash)
            with pytest.raises(KeyboardInterrupt):
                server.provision(Kind.SEAT)
        role, token = (
            server.approle_file.read_text(),
            json.loads((server.folder / "root.json").read_text())["token"],
        )
        server.provision(Kind.SEAT)
        assert role == server.approle_file.read_text()
        with pytest.raises(Forbidden):
            server.client(token).auth.token.lookup_self()
        server.login()
    finally:
        server.stop()


def test_the_audit_log_names_the_path_and_no_secret(openbao_seat: OpenBao) -> None:
    """Each request is on record, and neither values nor credentials can be read there."""
    client = openbao_seat.login()
    client.secrets.kv.v2.create_or_update_secret("journal/audited", {"value": SECRET}, mount_point="bulkhead")
    with pytest.raises(Forbidden):
        client.adapter.request("list", "/v1/bulkhead/metadata/journal")
    log = openbao_seat.audit_file.read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    seen = {
        (e["request"]["operation"], e["request"]["path"], e["auth"]["policy_results"]["allowed"])
        for e in entries
        if "policy_results" in e.get("auth", {})
    }
    assert {
        ("create", "bulkhead/data/journal/audited", True),
        ("list", "bulkhead/metadata/journal/", False),
    } <= seen
    role = json.loads(openbao_seat.approle_file.read_text())
    shares = json.loads(openbao_seat.unseal_file.read_text())["shares"]
    secrets = {SECRET, client.token, role["secret_id"], *shares}
    assert set() == {secret for secret in secrets if secret in log}
    assert openbao_seat.audit_file.stat().st_mode & 0o777 == 0o600


def test_credentials_are_private(openbao_seat: OpenBao) -> None:
    """Only the owner reads the credentials, and approle.json says what a client needs."""
    files = (openbao_seat.approle_file, openbao_seat.unseal_file)
    assert [f.stat().st_mode & 0o777 for f in files] == [0o600, 0o600]
    assert {"url", "role_id", "secret_id"} == set(json.loads(openbao_seat.approle_file.read_text()))
    assert openbao_seat.url == json.loads(openbao_seat.approle_file.read_text())["url"]


def test_a_restart_keeps_keys_and_entries(tmp_path: Path) -> None:
    """Sealed after a restart; unsealed, the same identity and the same entries; also on another port."""
    server = OpenBao("seat", tmp_path / "seat")
    try:
        server.open(Kind.SEAT)
        before = server.login()
        before.secrets.kv.v2.create_or_update_secret("journal/1", {"value": "a"}, mount_point="bulkhead")
        key = before.secrets.transit.read_key("identity")["data"]["keys"]
        server.stop()
        (server.folder / "port").unlink()
        server.start()
        assert server.sealed
        server.open(Kind.SEAT)
        assert not server.sealed
        after = server.login()
        kept = after.secrets.kv.v2.read_secret_version(
            "journal/1", mount_point="bulkhead", raise_on_deleted_version=True
        )
        assert kept["data"]["data"] == {"value": "a"}
        assert key == after.secrets.transit.read_key("identity")["data"]["keys"]
    finally:
        server.stop()


# Processes


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"started": 1}, id="same pid, another start"),
        pytest.param({"boot": "another boot"}, id="same pid and start, another boot"),
    ],
)
def test_a_reused_pid_is_never_signalled(sleeper: Process, tmp_path: Path, change: dict[str, object]) -> None:
    """A record whose pid belongs to another process by now stops nothing."""
    mine = sleeper.identity
    record = Record("gone", "anvil", "", mine.pid, mine.started, mine.boot)
    file = tmp_path / "pid.json"
    replace(record, **change).write(file)  # type: ignore[arg-type]
    assert stop_recorded(file) is False
    assert mine.alive()
    assert not file.exists()


def test_a_recorded_process_is_stopped(sleeper: Process, tmp_path: Path) -> None:
    """A record that still fits stops its process, from wherever it is read."""
    mine = sleeper.identity
    file = tmp_path / "pid.json"
    Record("sleeper", "anvil", "", mine.pid, mine.started, mine.boot).write(file)
    assert stop_recorded(file) is True
    assert gone([mine])


def test_stopping_takes_the_whole_group(tmp_path: Path) -> None:
    """Children of a node that outlive it are stopped with it, also those deaf to SIGTERM."""
    script = "trap '' TERM; sleep 600 & echo $!; exec sleep 600"
    process = Process("family", Command(["sh", "-c", script]), tmp_path / "log.txt", Lifetime.PARENT)
    deadline = time.monotonic() + 30
    while not (tmp_path / "log.txt").read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.01)
    child = Identity.of(int((tmp_path / "log.txt").read_text()))
    assert child is not None
    os.kill(process.identity.pid, signal.SIGKILL)  # the leader goes first, without a word
    process.stop()
    assert gone([child, process.identity])


def test_a_node_that_does_not_come_up_leaves_nothing(tmp_path: Path) -> None:
    """A failed start names the node, shows its log, and leaves neither process nor record."""
    program = tmp_path / "anvil"
    program.write_text("#!/bin/sh\necho no such chain\nexit 3\n")
    program.chmod(0o755)
    node = Anvil(tmp_path / "node", program=program)
    with pytest.raises(NodeFailed, match=r"anvil: exited with 3\nno such chain"):
        node.start()
    assert node.pid is None
    assert not node.record_file.exists()


PARENT = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from devnet.anvil import Anvil
from devnet.openbao import OpenBao
from devnet.processes import Lifetime

home, lifetime = Path(sys.argv[1]), Lifetime(sys.argv[2])
nodes = [Anvil(home / "anvil", lifetime=lifetime), OpenBao("seat", home / "seat", lifetime=lifetime)]
with ThreadPoolExecutor() as pool:
    list(pool.map(lambda node: node.start(), nodes))
time.sleep(0.3)  # the threads that asked for the nodes have ended: the nodes must not
print(*[node.pid for node in nodes], flush=True)
time.sleep(600)
"""


def start_parent(home: Path, lifetime: Lifetime) -> tuple[subprocess.Popen[str], list[Identity]]:
    """Another Python that starts two nodes; the process and its nodes."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(home), lifetime.value],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=DIES_WITH_US,  # noqa: PLW1509  # two system calls
    )
    assert parent.stdout is not None
    nodes = [Identity.of(int(pid)) for pid in parent.stdout.readline().split()]
    found = [node for node in nodes if node is not None]
    assert len(found) == 2
    return parent, found


def test_a_killed_parent_leaves_no_orphans(tmp_path: Path) -> None:
    """Nodes of a test or a demo die with it, even when it is killed without a chance to clean up."""
    parent, nodes = start_parent(tmp_path, Lifetime.PARENT)
    assert all(node.alive() for node in nodes)
    parent.kill()
    parent.communicate()
    assert gone(nodes)


def test_detached_nodes_live_on_and_another_process_stops_them(tmp_path: Path) -> None:
    """What `devnet up` started outlives it, is adopted by a second start, and is stopped from its record."""
    parent, nodes = start_parent(tmp_path, Lifetime.DETACHED)
    try:
        parent.kill()
        parent.communicate()
        assert not gone(nodes, seconds=0.5)
        adopted = Anvil(tmp_path / "anvil", lifetime=Lifetime.DETACHED)
        assert adopted.start() is False
        assert adopted.chain_id == int(str(adopted.rpc("eth_chainId")), 16)
    finally:
        Anvil(tmp_path / "anvil").stop()
        OpenBao("seat", tmp_path / "seat").stop()
    assert gone(nodes)


# Programs and places


def path_with(folder: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, first on PATH, that holds one program."""
    folder.mkdir()
    (folder / name).write_bytes(content)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")
    return folder / name


def test_a_program_on_path_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real program on PATH is taken before anything is fetched."""
    program = path_with(tmp_path / "bin", "anvil", b"\x7fELF...", monkeypatch)
    assert program == find(Program.ANVIL, tmp_path / "cache")


def test_a_script_on_path_is_not_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel's own `bao` script would stand between us and the server, so the server itself is taken."""
    script = path_with(tmp_path / "bin", "bao", b"#!/bin/sh\nexec true\n", monkeypatch)
    assert script != find(Program.BAO)
    assert find(Program.BAO).read_bytes()[:4] == b"\x7fELF"


def test_a_wrong_hash_reaches_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is not the pinned one is refused, and no part of it stays."""
    path_with(tmp_path / "bin", "npm", b"#!/bin/sh\necho other > anvil.tgz\n", monkeypatch)
    with pytest.raises(WrongHash):
        find(Program.ANVIL, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["anvil.lock"]


def test_a_missing_program_says_what_would_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the fetch fails, the error names the program and the way out."""
    path_with(tmp_path / "bin", "npm", b"#!/bin/sh\necho offline >&2; exit 1\n", monkeypatch)
    with pytest.raises(ProgramMissing, match=r"anvil: npm pack .* failed: offline\. Put anvil .* on PATH"):
        find(Program.ANVIL, tmp_path / "cache")


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        pytest.param(
            "sources.list",
            "deb http://one.example/debian trixie main\n",
            "http://one.example/debian",
            id="list",
        ),
        pytest.param(
            "sources.list.d/debian.sources",
            "Types: deb\n# http://old.example/debian\nURIs: http://two.example/debian/\nSuites: trixie\n",
            "http://two.example/debian",
            id="deb822",
        ),
    ],
)
def test_the_mirror_is_the_machines_own(tmp_path: Path, file: str, text: str, expected: str) -> None:
    """Both forms of apt sources are read; a comment or a security archive is not a mirror."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "a.list").write_text("deb http://three.example/debian-security trixie main\n")
    (tmp_path / file).write_text(text)
    assert expected == mirror(tmp_path)


def test_no_mirror_is_said(tmp_path: Path) -> None:
    """Without a Debian archive in the sources there is nothing to guess."""
    (tmp_path / "sources.list.d").mkdir()
    with pytest.raises(NoMirror):
        mirror(tmp_path)


def test_the_home_can_be_moved(tmp_path: Path) -> None:
    """$BULKHEAD_HOME wins; without it the home is in the checkout."""
    assert tmp_path == bulkhead_home({"BULKHEAD_HOME": str(tmp_path)})
    assert bulkhead_home({}) == CHECKOUT / ".bulkhead"
