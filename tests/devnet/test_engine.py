# SPDX-License-Identifier: AGPL-3.0-or-later
"""The packed engine in a real OpenBao: made by its operator's command, bound to its file and its dependencies, upgraded, and searched."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from custody.flows.ports import SeatPort
from custody.rules.errors import Unavailable
from custody.rules.refusals import Refused, Rule
from custody.vault.approle import AppRole
from custody.vault.cli import app
from custody.vault.engine.handshake import COOKIE
from custody.vault.engine.packing import Packed, pack
from custody.vault.engine_client import EngineClient
from custody.vault.hardening import wall_clock
from custody.vault.keyring import RemoteSeat
from custody.vault.provisioning import Operator, Program, upgrade_seat
from custody.vault.wallet_keys import key_path
from devnet import openbao
from devnet.engine import packed
from devnet.openbao import OpenBao
from tests.fakes.seat import BITCOIN, EVM, HOT, YEAR, Deployment, rules_of, seat_in_memory

LABEL = "customer_hot/a"
ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_path("purelib"))


@dataclass
class Operated:
    """A server whose operator still has a token, and the seat that was made in it."""

    server: OpenBao
    token_file: Path
    approle: Path

    @property
    def seat(self) -> RemoteSeat:
        """By its clients' AppRole."""
        return RemoteSeat("hot-1", EngineClient("hot-1", self.approle))

    @property
    def operator(self) -> Operator:
        """With the token."""
        return Operator.at(self.server.url, self.token_file.read_text())

    def run(self, *words: str) -> Any:
        """`bulkhead seat …` for this server; its JSON."""
        at = ("--approle", str(self.approle), "--url", self.server.url, "--token-file", str(self.token_file))
        told = CliRunner().invoke(app, [words[0], "hot-1", *at, *words[1:]])
        assert told.exit_code == 0, (told.output, told.exception)
        return json.loads(told.stdout)

    def pid(self) -> int:
        """The plugin's process."""
        mine = str(self.server.plugin_folder).encode()
        for entry in Path("/proc").iterdir():
            if (
                entry.name.isdigit()
                and mine in (entry / "cmdline").read_bytes()
                and b"-IS" in (entry / "cmdline").read_bytes()
            ):
                return int(entry.name)
        raise AssertionError("no plugin runs")


@pytest.fixture(scope="module")
def packed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout's engine."""
    return packed().write(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory, packed_file: Path) -> Iterator[Operated]:
    """A seat made by `bulkhead seat init`, on a server that tells raw storage to root: a throwaway."""
    folder = tmp_path_factory.mktemp("operated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openbao, "_CONFIGURATION", openbao._CONFIGURATION + "raw_storage_endpoint = true\n")
        server = OpenBao("hot-1", folder / "bao")
        try:
            server.start()
            server.unseal()
            token = folder / "token"
            token.touch(mode=0o600)
            token.write_text(json.loads((server.folder / "root.json").read_text())["token"])
            made = Operated(server, token, folder / "approle.json")
            told = made.run("init", "--plugins", str(server.plugin_folder), "--file", str(packed_file))
            assert told["identity"] == made.seat.identity().to_json()
            assert told["engine"]["sha256"] == hashlib.sha256(packed_file.read_bytes()).hexdigest()
            yield made
        finally:
            server.stop()


@pytest.fixture(scope="module")
def born(operated: Operated) -> Deployment:
    """The seat with three in memory, after genesis and two wallets, by this machine's clock."""
    seats: list[SeatPort] = [operated.seat, *(seat_in_memory(name, clock=wall_clock) for name in HOT[1:])]
    deployment = Deployment(seats)
    deployment.version = _begun(deployment.version)
    deployment.pinned()
    for chain in (EVM, BITCOIN):
        signed = deployment.people_sign(deployment.draft(LABEL, chain=chain))
        for seat in seats:
            seat.accept(signed)
    return deployment


def _begun(version: Any) -> Any:
    return replace(version, not_before=version.not_before - YEAR)


def test_small_and_hard_to_look_into(operated: Operated, born: Deployment) -> None:
    """Less than 100 MB after a birth, no core, not dumpable, and its descriptors and memory are root's alone."""
    status = Path(f"/proc/{operated.pid()}/status").read_text()
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    print(f"VmRSS {resident / 1024:.0f} MB")
    assert resident < 100 * 1024
    limits = Path(f"/proc/{operated.pid()}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4:6] == [
        "0",
        "0",
    ]
    assert "Umask:\t0077" in status
    assert Path(f"/proc/{operated.pid()}/environ").stat().st_uid == 0


def test_a_clients_token_does_verbs_and_nothing_else(operated: Operated, born: Deployment) -> None:
    """No read, no list, no delete, no other seat's mount, nothing under sys, with the very token that asks for signatures."""
    role = AppRole.from_file(operated.approle)
    role.ask(lambda: role.client.adapter.post("/v1/seat/status", json={}))
    operated.operator.mount("hot-2", "other")
    headers = {"X-Vault-Token": role.client.token}
    asked = [("GET", "seat/status"), ("LIST", "seat/"), ("DELETE", "seat/status"), ("POST", "other/status")]
    asked += [("GET", "sys/mounts"), ("GET", "sys/raw/logical"), ("POST", "sys/plugins/catalog/secret/bulkhead-seat")]
    asked += [("GET", "sys/policies/acl"), ("POST", "sys/mounts/mine"), ("POST", "sys/plugins/reload/backend")]
    asked += [
        ("POST", "auth/approle/role/bulkhead-seat/secret-id"),
        ("GET", "auth/token/lookup-self"),
        ("POST", "seat/export"),
    ]
    session = requests.Session()
    session.trust_env = False
    for method, path in asked:
        answer = session.request(method, f"{operated.server.url}/v1/{path}", headers=headers, json={}, timeout=30)
        assert answer.status_code == 403, (method, path, answer.text)
        assert "permission denied" in answer.text, (method, path, answer.text)
    root = {"X-Vault-Token": operated.token_file.read_text()}
    for method, path in (("GET", "seat/status"), ("LIST", "seat/keys"), ("DELETE", "seat/keys")):
        answer = session.request(method, f"{operated.server.url}/v1/{path}", headers=root, timeout=30)
        assert "unsupported operation" in answer.text, (method, path, answer.text)  # root itself finds no such path
    session.delete(f"{operated.server.url}/v1/sys/mounts/other", headers=root, timeout=30).raise_for_status()


def test_a_refusal_stands_in_the_audit_log(operated: Operated, born: Deployment) -> None:
    """By its rule, in the clear, beside the role that asked."""
    with pytest.raises(Refused) as refused:
        operated.seat.make_wallet_key("Not A Label", EVM)
    assert rules_of(refused.value) == {Rule.MALFORMED}
    lines = [line for line in operated.server.audit_file.read_text().splitlines() if "Not A Label" in line]
    assert lines
    assert all('"path":"seat/make_wallet_key"' in line and "malformed" in line for line in lines)


def test_killed(operated: Operated, born: Deployment) -> None:
    """After kill -9 OpenBao starts it anew within seconds, with its keys and its journal."""
    seat = operated.seat
    before = (seat.identity(), seat.head(), seat.make_wallet_key(LABEL, EVM), seat.make_wallet_key(LABEL, BITCOIN))
    os.kill(operated.pid(), 9)
    operated.operator.wait(seat.head)
    assert (
        seat.identity(),
        seat.head(),
        seat.make_wallet_key(LABEL, EVM),
        seat.make_wallet_key(LABEL, BITCOIN),
    ) == before


def test_another_file_does_not_start(operated: Operated, born: Deployment, packed_file: Path) -> None:
    """One byte more in the plugin directory, or another hash in the catalog: no seat, and the right file again is the seat again."""
    seat, program = operated.seat, operated.operator.registered(str(operated.seat.status()["host"]["version"]))  # type: ignore[index]
    before, file = seat.head(), operated.server.plugin_folder / program.command
    with file.open("ab") as stream:
        stream.write(b"\n")
    os.kill(operated.pid(), 9)
    with pytest.raises(Unavailable):
        seat.head()
    Packed(packed_file.read_bytes()).write(operated.server.plugin_folder, program.command)
    operated.operator.reload()
    operated.operator.wait(seat.head)
    with pytest.raises((Unavailable, Refused)):
        upgrade_seat(operated.operator, seat, Program(program.command, "00" * 32))
    operated.operator.wait(seat.head)
    assert seat.head() == before
    assert operated.operator.registered("v0.1.0") == program


def test_upgrade_keeps_the_keys(operated: Operated, born: Deployment, tmp_path: Path) -> None:
    """Another build by the operator's command: identity, keys and head stay, and the seat says which build it is now."""
    seat, content = operated.seat, packed().content
    before = (seat.identity(), seat.head(), seat.make_wallet_key(LABEL, EVM))
    other = tmp_path / "other"
    other.write_bytes(content.replace(b"it is not there.", b"it is not there!", 1))  # a word in a docstring of __main__
    assert other.read_bytes() != content
    told = operated.run("upgrade", "--plugins", str(operated.server.plugin_folder), "--file", str(other))
    assert told["was"]["sha256"] != told["is"]["sha256"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert (seat.identity(), seat.head(), seat.make_wallet_key(LABEL, EVM)) == before


def test_rotate_ends_the_old_secret(operated: Operated, born: Deployment) -> None:
    """The clients' old secret_id logs in nowhere; the seat is the same."""
    old = operated.approle.with_name("old.json")
    shutil.copy(operated.approle, old)
    identity = operated.seat.identity()
    assert operated.run("rotate")["identity"] == identity.to_json()
    assert operated.seat.identity() == identity
    with pytest.raises(Unavailable, match="login"):
        RemoteSeat("hot-1", EngineClient("hot-1", old)).identity()


def test_init_wants_an_audit_log(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody would see what a seat was asked, none is made."""
    monkeypatch.setattr(Operator, "_do", lambda *_: {"data": {}})
    at = ["--url", operated.server.url, "--token-file", str(operated.token_file), "--plugins", "/nowhere"]
    told = CliRunner().invoke(app, ["init", "hot-1", "--approle", "x", *at])
    assert "audit device" in str(told.exception)


def test_keys_are_made_inside_and_found_nowhere_else(operated: Operated, born: Deployment) -> None:
    """The raw bytes, out of root's own look into the storage, in every spelling: not in a log, an answer, or any other process."""
    token = {"X-Vault-Token": operated.token_file.read_text()}
    session = requests.Session()
    session.trust_env = False

    def raw(method: str, path: str) -> Any:
        answer = session.request(method, f"{operated.server.url}/v1/sys/raw/{path}", headers=token, timeout=30)
        return answer.json()["data"] if answer.ok else {}

    mounts = raw("LIST", "logical")["keys"]
    (mount,), secrets = [each for each in mounts if "documents/" in raw("LIST", f"logical/{each}").get("keys", ())], []
    for chain in (EVM, BITCOIN):
        stored = raw("GET", f"logical/{mount}documents/{key_path(LABEL, chain)}")["value"]
        secrets.append(bytes.fromhex(json.loads(stored.partition("\n")[2])["secret"]))
    spelled = [s for secret in secrets for s in (secret, secret.hex().encode(), base64.b64encode(secret), secret[::-1])]
    files = [operated.server.audit_file, operated.server.log, operated.approle, *operated.server.folder.rglob("core*")]
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        assert not [s for s in spelled if s in content], file
    assert not [s for s in spelled if s in json.dumps([operated.seat.status(), str(operated.seat.journal())]).encode()]
    assert secrets[0] != secrets[1]


@cache
def _twice() -> list[str]:
    code = "import sys; from pathlib import Path; from custody.vault.engine.packing import pack; "
    code += "print(pack(*map(Path, sys.argv[1:])).sha256)"
    words = [sys.executable, "-P", "-c", code, str(ROOT), str(SITE), sys.executable]
    seeds = [os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    running = [subprocess.Popen(words, env=seed, stdout=subprocess.PIPE, text=True) for seed in seeds]
    return [each.communicate(timeout=120)[0].strip() for each in running]


def test_packing_is_reproducible() -> None:
    """Two runs, two hash seeds, the same bytes; and they are the ones that the devnet starts."""
    assert _twice() == [packed().sha256] * 2


@pytest.mark.parametrize("harm", ["changed", "gone"])
def test_a_tampered_dependency_does_not_start(tmp_path: Path, harm: str) -> None:
    """One byte of one library changed, or the library gone: it ends before it imports anything, and says which."""
    site = tmp_path / "site"
    site.mkdir()
    for entry in SITE.iterdir():
        if entry.name == "coincurve":
            shutil.copytree(entry, site / entry.name)
        elif not entry.name.startswith("__editable"):
            (site / entry.name).symlink_to(entry)
    file = pack(ROOT, site, Path(sys.executable)).write(tmp_path / "packed")
    environment = {COOKIE[0]: COOKIE[1], "PLUGIN_PROTOCOL_VERSIONS": "3"}
    told = subprocess.run([str(file)], env=environment, capture_output=True, text=True, check=False)
    assert (told.returncode, "protocol 5" in told.stderr) == (2, True), told.stderr
    library = next((site / "coincurve").glob("_libsecp256k1*.so"))
    if harm == "gone":
        library.unlink()
    else:
        content = bytearray(library.read_bytes())
        content[len(content) // 2] ^= 1
        library.write_bytes(content)
    told = subprocess.run([str(file)], env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 3
    assert library.name in told.stderr
    assert told.stdout == ""
