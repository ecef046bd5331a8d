# SPDX-License-Identifier: AGPL-3.0-or-later
"""A seat as it is deployed: its own process, its own OpenBao, its socket; and a search for its secrets everywhere else."""

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import coincurve
import pytest
from embit.bip32 import HDKey  # type: ignore[import-untyped]
from embit.networks import NETWORKS  # type: ignore[import-untyped]

from custody.flows.ports import SeatPort
from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.refusals import Refused, Rule
from custody.vault.keyring import RemoteSeat
from custody.vault.openbao import OpenBaoClient
from custody.vault.wallet_keys import key_path
from custody.wire import Client
from devnet.grants import Kind
from devnet.openbao import OpenBao
from devnet.processes import _die_with
from tests.devnet.recovering import operators_share
from tests.fakes.seat import BITCOIN, EVM, HOT, Deployment, seat_in_memory

VERBS = {"identity", "sign_roster", "pin", "admit_roster", "make_wallet_key", "accept", "head", "status"}
VERBS |= {"admit_policy", "sign", "sign_many", "freeze", "unfreeze", "journal"}
LABEL = "customer_hot/a"
DIES_WITH_US = partial(_die_with, os.getpid())  # a worker of `make test` that is killed leaves no seat behind


@dataclass
class Process:
    """A `bulkhead seat serve`, and everything it ever said."""

    folder: Path
    approle: Path
    running: subprocess.Popen[bytes] | None = None
    heard: list[str] = field(default_factory=list)

    @property
    def socket(self) -> Path:
        """Where it is asked."""
        return self.folder / "s"

    @property
    def log(self) -> Path:
        """What it writes to stdout and stderr."""
        return self.folder / "log"

    def start(self) -> float:
        """Start it; seconds until it answered."""
        began = time.monotonic()
        command = [sys.executable, "-m", "custody.vault.cli", "serve", "hot-1"]
        command += ["--approle", str(self.approle), "--socket", str(self.socket)]
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=DIES_WITH_US,  # noqa: PLW1509  # two system calls
            )
        while time.monotonic() < began + 60:
            if self.running.poll() is not None:
                break
            try:
                Client(self.socket).call("identity")
            except Unavailable:
                time.sleep(0.02)
                continue
            return time.monotonic() - began
        raise AssertionError(self.log.read_text())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int | None:
        """End it and give its exit code."""
        if self.running is None:
            return None
        self.running.send_signal(number)
        code = self.running.wait(30)
        self.running = None
        return code

    def call(self, verb: str, body: dict[str, object] | None = None) -> object:
        """Ask, and keep whatever came back for the search."""
        try:
            answer = Client(self.socket).call(verb, body)
        except CustodyError as error:
            self.heard.append(repr(error) + str(error))
            raise
        self.heard.append(json.dumps(answer))
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """An OpenBao of this module alone: these tests use the seat's real paths and stop the server."""
    server = OpenBao("seat-process", tmp_path_factory.mktemp("seat") / "bao")
    try:
        server.open(Kind.SEAT)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def process(server: OpenBao) -> Iterator[Process]:
    """One seat process."""
    with TemporaryDirectory(prefix="seat-") as folder:
        process = Process(Path(folder), server.approle_file)
        try:
            process.start()
            yield process
        finally:
            process.stop()


@pytest.fixture(scope="module")
def deployment(process: Process) -> Deployment:
    """The real seat with three in memory, after genesis and two wallets."""
    seats: list[SeatPort] = [RemoteSeat("hot-1", process.socket), *(seat_in_memory(name) for name in HOT[1:])]
    deployment = Deployment(seats).pinned()
    for chain in (EVM, BITCOIN):
        signed = deployment.people_sign(deployment.draft(LABEL, chain=chain))
        for seat in seats:
            seat.accept(signed)
    return deployment


def test_killed_and_started_again(process: Process, deployment: Deployment) -> None:
    """After kill -9 a new process has the same identity, keys and journal; the dead one's socket is no obstacle."""
    seat = deployment.seats[0]
    before = (seat.identity(), seat.head(), seat.make_wallet_key(LABEL, EVM), seat.make_wallet_key(LABEL, BITCOIN))
    assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(Unavailable):
        seat.head()
    process.start()
    assert (
        seat.identity(),
        seat.head(),
        seat.make_wallet_key(LABEL, EVM),
        seat.make_wallet_key(LABEL, BITCOIN),
    ) == before


def test_ends_cleanly(process: Process, deployment: Deployment) -> None:
    """SIGTERM: exit code 0, no socket left."""
    assert process.stop() == 0
    assert not process.socket.exists()
    process.start()


def test_small(process: Process, deployment: Deployment) -> None:
    """A seat does without web3, and takes less than 90 MB after a birth; it cannot dump core or be traced by its account."""
    assert process.running is not None
    status = Path(f"/proc/{process.running.pid}/status").read_text()
    resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))
    print(f"VmRSS {resident / 1024:.0f} MB")
    assert resident < 90 * 1024
    if os.getuid() == 0:
        maps = Path(f"/proc/{process.running.pid}/maps").read_text()
        assert "/web3" not in maps
    limits = Path(f"/proc/{process.running.pid}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4:6] == [
        "0",
        "0",
    ]


def test_another_seats_name(process: Process, deployment: Deployment, server: OpenBao) -> None:
    """A process started with this vault under another name, or with a file others can read, says so and ends."""
    command = [sys.executable, "-m", "custody.vault.cli", "serve", "hot-2", "--socket", str(process.folder / "t")]
    told = subprocess.run(
        [*command, "--approle", str(server.approle_file)], capture_output=True, text=True, check=False
    )
    assert told.returncode != 0
    assert "whose vault this is" in told.stderr
    loose = process.folder / "loose.json"
    loose.write_text(server.approle_file.read_text())
    loose.chmod(0o644)
    told = subprocess.run([*command, "--approle", str(loose)], capture_output=True, text=True, check=False)
    assert told.returncode != 0
    assert "only its owner can read" in told.stderr
    assert json.loads(loose.read_text())["secret_id"] not in told.stderr


def test_no_secret_anywhere(process: Process, deployment: Deployment, server: OpenBao) -> None:
    """Every verb, asked well and badly, every line the process wrote, and OpenBao's audit log: no key in any spelling."""
    draft = deployment.people_sign(deployment.draft(LABEL)).to_json()
    bodies: list[dict[str, object] | None] = [None, {"signed": draft}, {"version": {}}]
    bodies += [{"label": LABEL, "chain": EVM.name}, {"label": 5, "chain": []}]
    for verb, body in itertools.product(VERBS, bodies):
        with suppress(InvalidInput, Refused, Unavailable):
            process.call(verb, body)
    for verb in ("read", "export", "sign_digest", "secret", "__class__", "wallet_keys"):
        with pytest.raises(InvalidInput) as invalid:
            process.call(verb)
        assert invalid.value.rule == Rule.MALFORMED
        assert set(invalid.value.want.removeprefix("one of ").split(", ")) == VERBS
    for command in ("status", "head"):
        run = [sys.executable, "-m", "custody.vault.cli", command, "hot-1", "--socket", str(process.socket)]
        process.heard.append(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    run = [sys.executable, "-m", "custody.vault.cli", "init", "hot-1", "--approle", str(server.approle_file)]
    process.heard.append(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    said = "\n".join([*process.heard, process.log.read_text()])
    audit = server.audit_file.read_text()
    assert key_path(LABEL, EVM) in audit  # it is the log of these very requests
    for spelling in _spellings(server):
        assert spelling not in said
        assert spelling not in audit
    assert "prv" not in said


def test_a_share_in_its_operators_hands(deployment: Deployment, server: OpenBao) -> None:
    """With standard tools alone (docs/recovery.md), and it is the key that was certified."""
    approle = json.loads(server.approle_file.read_text())
    share = operators_share(approle, [(LABEL, EVM.name), (LABEL, BITCOIN.name)])
    public = coincurve.PrivateKey(share[LABEL, EVM.name]).public_key.format()
    assert public == deployment.seats[0].make_wallet_key(LABEL, EVM).key.public
    assert share[LABEL, BITCOIN.name] != share[LABEL, EVM.name]


def _spellings(server: OpenBao) -> Iterator[str]:
    vault = OpenBaoClient.from_file(server.approle_file)
    role = json.loads(server.approle_file.read_text())
    yield role["secret_id"]
    for chain in (EVM, BITCOIN):
        stored, version = vault.read(key_path(LABEL, chain))
        assert stored is not None
        assert version == 1
        secret = bytes.fromhex(str(stored["secret"]))
        yield from (secret.hex(), secret.hex().upper(), base64.b64encode(secret).decode(), str(int.from_bytes(secret)))
        for network in ("main", "regtest"):
            root = HDKey.from_seed(secret, version=NETWORKS[network]["xprv"])
            for path in ("m", "m/48h/1h/0h/2h"):
                yield root.derive(path).to_base58()


def test_vault_away(process: Process, deployment: Deployment, server: OpenBao) -> None:
    """With its OpenBao stopped the seat answers that it does not know, and nothing else."""
    server.stop()
    for ask in (deployment.seats[0].head, lambda: deployment.seats[0].make_wallet_key("customer_hot/b", EVM)):
        with pytest.raises(Unavailable):
            ask()
