# SPDX-License-Identifier: AGPL-3.0-or-later
"""Drill 1: key-holders vanish, payouts go on, and the hot wallets of both chains move to a new seat set through their own quorum.

A born devnet of its own with two spare seats, on real nodes and real vaults; `make drills` asks for it.
"""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from custody import parts
from custody.bootstrap import open_deployment
from custody.chains.bitcoin.rpc import BitcoinRpc
from custody.chains.bitcoin.spending import WatchedWallet
from custody.chains.evm.transactions import send
from custody.flows import rotation_orders
from custody.flows.inventory import Wallet
from custody.flows.payout_records import newest_request
from custody.flows.ports import UnitOfWork
from custody.rules.amounts import Asset
from custody.rules.certificates import WalletCertificate
from custody.rules.ledger import AccountKind
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.transfers import Permit, Status, Transfer
from custody.rules.wallets import Chain
from devnet.birth import BITCOIN, EVM, Services, World, raise_world
from devnet.grants import Kind
from devnet.network import Devnet, Hosting
from devnet.processes import Lifetime
from devnet.scenes import deposits
from devnet.scenes.ceremony import _surplus
from devnet.scenes.desk import Desk, find
from devnet.scenes.stage import Stage
from devnet.story import Story
from tests.devnet import recovering
from tests.fakes.canary import showing_root

pytestmark = pytest.mark.timeout(900)
BULKHEAD = str(Path(sys.executable).parent / "bulkhead")
SPARE = ("hot-5", "hot-6")
GONE = "hot-1"
NEXT = ("hot-3", "hot-4", "hot-5", "hot-6")
"""Two that stay, with new keys, and two that never had one. hot-2 is retired, and still answers."""
CERTIFIERS = ("ana", "cleo", "eve")


@dataclass
class Drill:
    """One world, its desk, and what was found on the way."""

    desk: Desk
    story: Story
    folder: Path
    seen: dict[str, object] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        """The stage."""
        return self.desk.stage

    def run(self, *words: str, code: int = 0) -> str:
        """A command as a person types it."""
        environment = {**os.environ, "BULKHEAD_HOME": str(self.stage.world.net.home)}
        done = subprocess.run(
            [BULKHEAD, *words], capture_output=True, text=True, env=environment, check=False, timeout=300
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def sign(self, file: Path, *names: str) -> None:
        """People sign what lies in a file."""
        people = self.stage.world.net.home / "people"
        for name in names:
            key = ("--key", str(people / f"{name}.json"), "--password-file", str(people / "password"), "--yes")
            self.run("sign", str(file), *key)

    def wallet(self, chain: Chain) -> Wallet:
        """The hot wallet of a chain as of now."""
        return open_deployment(self.stage.world.net.home).hot_wallet(chain)

    def rounds(self, most: int = 8) -> None:
        """Worker, blocks and watcher until no order of a hot wallet is under way and nothing moves."""
        for _ in range(most):
            self.desk.turn(self.story)
            self.stage.mine(4)
            self.stage.watch()

    def withdraw(self, reference: str, customer: str, asset: str, units: int, to: str) -> Transfer:
        """A withdrawal that people approve, worked until it ends or nothing moves."""
        made = self.desk.propose(reference, customer, asset, units, to)
        for person in ("ana", "cleo", "dan"):
            self.desk.approve(made, person)
        self.desk.work(self.story, made)
        return self.desk.now(made)

    def draft(self, chain: Chain) -> tuple[Path, ...]:
        """The next certificate of the hot wallet, and on EVM the rotation, as the command writes them."""
        file, rotation = self.folder / f"{chain.name[:6]}.json", self.folder / f"{chain.name[:6]}-rotation.json"
        seats = [word for name in NEXT for word in ("--seat", name)]
        named = ("--label", "customer_hot", "--chain", chain.name, *seats)
        files = (file, rotation) if chain.is_evm else (file,)
        self.run("wallet", "rotate", "draft", str(file), *named, *(("--rotation", str(rotation)) * chain.is_evm))
        return files

    def begin(self, files: tuple[Path, ...], code: int = 0) -> str:
        """Order it."""
        more = ("--rotation", str(files[1])) if len(files) > 1 else ()
        return self.run("wallet", "rotate", "begin", str(files[0]), *more, code=code)

    def files(self, name: str) -> tuple[Path, ...]:
        """What was drafted and signed before."""
        found = self.seen[name]
        assert isinstance(found, tuple)
        return found

    def certificate(self, name: str) -> Signed[WalletCertificate]:
        """The certificate among them."""
        return Signed.from_json(WalletCertificate, json.loads(self.files(name)[0].read_text()))

    def audit(self) -> None:
        """The ledger holds to its origins, everything is covered, and nothing is in suspense."""
        assert json.loads(self.run("ledger", "verify", "--json"))["findings"] == []
        self.run("coverage", "--check")
        for asset in self.stage.deployment.bundle.assets:
            total = self.stage.deployment.store.read(partial(_in_suspense, asset=asset))
            assert total == 0, (asset, total)


Document = dict[str, Any]
Spoil = Callable[[Document, Document], tuple[Document, Document]]


def one_person(signed: Document) -> Document:
    """The same with the first signature alone."""
    return {**signed, "signatures": signed["signatures"][:1]}


def changed(signed: Document, **fields: str) -> Document:
    """The same signatures over another message."""
    return {**signed, "message": {**signed["message"], **fields}}


def other_safe(signed: Document) -> Document:
    """A Safe of somebody else's in the certificate."""
    safe = {**signed["message"]["safe"][0], "address": "0x" + "77" * 20}
    return {**signed, "message": {**signed["message"], "safe": [safe]}}


def rpc_of(stage: Stage) -> BitcoinRpc:
    """The node as our own client asks it."""
    node = stage.world.net.bitcoind
    return BitcoinRpc(node.url, BITCOIN, cookie=Path(node.cookie_file))


def _in_suspense(work: UnitOfWork, asset: Asset) -> int:
    return work.journal.total(AccountKind.SUSPENSE, asset)


def _permit_of(work: UnitOfWork, digest: bytes) -> Permit:
    found = work.transfers.permit_of(digest)
    assert found is not None
    return found


def open_drill(world: World, folder: Path) -> Drill:
    """The desk over a world, with customers and their coins in it."""
    stage = Stage(world, world.deployment)
    return Drill(Desk(stage), Story(out=io.StringIO()), folder)


def fill(drill: Drill) -> None:
    """Customers, their deposits, the company's bitcoin for fees, enrolled destinations that are a day old."""
    stage, desk = drill.stage, drill.desk
    deposits.customers(stage, drill.story)
    deposits.arrivals(stage, drill.story)
    ether, coin = Account.create().address, stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner")
    drill.seen |= {"ether": ether, "coin": str(coin)}
    desk.enrol("bob", EVM, ether)
    desk.enrol("alice", BITCOIN, str(coin))
    desk.pass_a_day()
    _surplus(desk, drill.story)


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """A born devnet with two spare seats and customers' coins; one for the whole module, whose tests follow each other."""
    home = tmp_path_factory.mktemp("d")
    net = Devnet(home, lifetime=Lifetime.PARENT, spare=SPARE)
    assert net.hosting is Hosting.ENGINE
    with net.running():
        services = Services(net)
        try:
            drill = open_drill(raise_world(net, services, lambda _: None), tmp_path_factory.mktemp("papers"))
            fill(drill)
            yield drill
        finally:
            services.stop()


def test_the_rest_still_pays(drill: Drill) -> None:
    """N−M seats gone for good: withdrawals of both chains complete; without M of them none does, and it is said who is missing."""
    servers = drill.stage.world.net.hot
    servers[GONE].stop()
    for reference, customer, asset, units in (
        ("one-eth", "bob", "ETH", 3 * 10**17),
        ("one-btc", "alice", "BTC", 10**7),
    ):
        ended = drill.withdraw(
            reference, customer, asset, units, str(drill.seen["coin" if asset == "BTC" else "ether"])
        )
        assert ended.status is Status.COMPLETED, ended.waiting_for
    servers["hot-2"].stop()
    try:
        waiting = drill.withdraw("too-few", "bob", "ETH", 10**17, str(drill.seen["ether"]))
        assert (waiting.status, "seat hot-2 is silent" in waiting.waiting_for) == (Status.PENDING_SIGNATURE, True)
    finally:
        servers["hot-2"].open(Kind.ENGINE)
    drill.desk.work(drill.story, waiting)
    assert drill.desk.now(waiting).status is Status.COMPLETED


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(lambda c, r: (one_person(c), r), "quorum_not_reached", id="a certificate that one person signed"),
        pytest.param(lambda c, r: (c, one_person(r)), "quorum_not_reached", id="a rotation that one person signed"),
        pytest.param(lambda c, r: (changed(c, tier="operational"), r), "tier_or_chain_changed", id="another tier"),
        pytest.param(lambda c, r: (changed(c, previous="0x" + "11" * 32), r), "not_the_successor", id="of nothing"),
        pytest.param(lambda c, r: (changed(c, m="2"), r), "two_m_minus_n_below_two", id="a threshold too low"),
        pytest.param(lambda c, r: (other_safe(c), r), "script_does_not_match_keys", id="another Safe"),
        pytest.param(
            lambda c, r: (c, changed(r, new="0x" + "11" * 32)), "not_the_successor", id="a rotation elsewhere"
        ),
        pytest.param(
            lambda c, r: (c, changed(r, old="0x" + "11" * 32)), "not_the_successor", id="a rotation from elsewhere"
        ),
    ],
)
def test_orders_that_are_refused(drill: Drill, spoil: Spoil, told: str) -> None:
    """Nothing is recorded, and nothing of the wallet waits for it."""
    if "evm" not in drill.seen:
        files = drill.draft(EVM)
        for file in files:
            drill.sign(file, *CERTIFIERS)
        drill.seen["evm"] = files
    good = [json.loads(file.read_text()) for file in drill.files("evm")]
    bad = tuple(drill.folder / f"spoiled-{name}.json" for name in ("certificate", "rotation"))
    for file, body in zip(bad, spoil(*good), strict=True):
        file.write_text(json.dumps(body))
    assert told in drill.begin(bad, code=1)
    wallet = drill.wallet(EVM)
    assert drill.stage.deployment.store.read(lambda work: rotation_orders.standing(work, wallet)) is None


def test_an_evm_wallet_moves_to_new_seats(drill: Drill) -> None:
    """By the old seats' own signatures; what was approved before waits, says why, and is paid by the new ones."""
    seats = parts.seats(drill.stage.deployment.settings)
    old, before = drill.wallet(EVM).certificate, drill.wallet(EVM)
    drill.begin(drill.files("evm"))
    drill.begin(drill.files("evm"))  # the same order again is fine
    early = drill.certificate("evm")
    seats["hot-2"].accept(early)  # whoever carries it to a seat before the chain has it leaves a way out
    waiting = drill.desk.propose("two-eth", "bob", "ETH", 2 * 10**17, str(drill.seen["ether"]))
    for person in ("ana", "cleo", "dan"):
        drill.desk.approve(waiting, person)
    drill.desk.turn(drill.story)
    said = drill.desk.now(waiting)
    assert (said.status, said.waiting_for.partition(":")[0]) == (Status.QUEUED, "its wallet's next keys")
    drill.rounds(4)
    after = drill.wallet(EVM)
    assert (after.name, after.place, after.bound) == (before.name, before.place, before.bound)
    assert [key.key.seat for key in after.certificate.seats] == list(NEXT)
    done = drill.desk.now(waiting)
    assert (done.status, done.intent.certificate) == (Status.COMPLETED, old.struct_hash), done.waiting_for
    assert "not_the_successor" in drill.begin(drill.files("evm"), code=1)
    drill.audit()


def test_a_deposit_address_follows(drill: Drill) -> None:
    """One that was given out before the rotation, paid after it, and swept by the new keys for a payment that needs it."""
    stage = drill.stage
    sender = stage.stranger(60)
    send(stage.evm, sender, stage.addresses["bob", EVM], value=50 * 10**18)
    stage.mine()
    stage.watch()
    ended = drill.withdraw("swept-eth", "bob", "ETH", 40 * 10**18, str(drill.seen["ether"]))
    drill.desk.pass_time(7_200)
    drill.desk.work(drill.story, ended)
    assert drill.desk.now(ended).status is Status.COMPLETED, drill.desk.now(ended).waiting_for
    drill.audit()


def test_a_bitcoin_wallet_moves_to_new_seats(drill: Drill) -> None:
    """Its coins come home from under the old keys, a deposit to an old address too; customers get another address."""
    stage = drill.stage
    held = drill.run("customer", "address", "alice", BITCOIN.name).strip()
    files = drill.draft(BITCOIN)
    drill.sign(files[0], *CERTIFIERS)
    drill.seen["btc"] = files
    drill.begin(files)
    drill.rounds(4)
    assert [key.key.seat for key in drill.wallet(BITCOIN).certificate.seats] == list(NEXT)
    given = drill.run("customer", "address", "alice", BITCOIN.name).strip()
    assert given != held
    assert given == drill.run("customer", "address", "alice", BITCOIN.name).strip()
    before = stage.available("alice", "BTC")
    stage.world.net.bitcoind.pay(held, 7_000_000)
    stage.mine(4)
    stage.watch()
    assert stage.available("alice", "BTC") == before + 7_000_000
    drill.rounds(3)
    older = WatchedWallet(rpc_of(stage), drill.wallet(BITCOIN).certificates[0].message)
    assert older.coins(0) == ()
    ended = drill.withdraw("two-btc", "alice", "BTC", 2 * 10**7, str(drill.seen["coin"]))
    assert ended.status is Status.COMPLETED, ended.waiting_for
    drill.audit()


def test_old_keys_rest(drill: Drill) -> None:
    """A retired seat that took the successor refuses what it signed before: payments, and change to its own certificate."""
    seat = parts.seats(drill.stage.deployment.settings)["hot-2"]
    store = drill.stage.deployment.store
    for reference, rule in (("one-eth", None), ("one-btc", Rule.CERTIFICATE_OLDER)):
        digest = find(drill.stage, reference).digest
        permit = store.read(partial(_permit_of, digest=digest))
        request = store.read(partial(newest_request, anchor=permit.reservation.anchor, void=False))
        assert request is not None
        other = replace(request, certificates=(drill.wallet(EVM).certificates[0],))  # the identical one has its answer
        with pytest.raises(Refused) as refused:
            seat.sign(other)
        assert rule is None or rule in {refusal.rule for refusal in refused.value.refusals}


def test_recovery_from_the_backup_and_shares_alone(drill: Drill) -> None:
    """Drill 2: the file, and three operators' own shares; no process of ours runs, and no code of ours takes part.

    Each operator starts OpenBao alone over the seat's storage, so that root may read it, which no deployment's server lets it.
    """
    people, target = drill.stage.world.net.home / "people", drill.folder / "backup.json"
    key = ("--key", str(people / "ana.json"), "--password-file", str(people / "password"))
    assert "signed by ana" in drill.run("backup", "write", str(target), *key)
    genesis = "0x" + drill.stage.deployment.genesis.hex()
    assert "customer_hot:2" in drill.run("backup", "verify", str(target), "--genesis", genesis)
    assert "genesis" in drill.run("backup", "verify", str(target), "--genesis", "0x" + "11" * 32, code=1)
    backup = json.loads(target.read_text())["backup"]
    net, named = drill.stage.world.net, ("hot-4", "hot-5", "hot-6")
    keys = [("customer_hot:2", chain.name) for chain in (EVM, BITCOIN)]
    drill.stage.world.services.stop()
    shares = {}
    for name in named:
        server = net.hot[name]
        server.stop()
        with showing_root():
            server.start()
        server.unseal()
        unseal = json.loads(server.unseal_file.read_text())["shares"]
        shares[name] = recovering.share_of_an_engine(server.url, unseal, keys)
        server.stop()
    text = target.read_text()
    assert not [s for found in shares.values() for s in found.values() if s.hex() in text]
    _recover_bitcoin(drill, backup, {name: found[keys[1]] for name, found in shares.items()})
    _recover_evm(drill, backup, [found[keys[0]] for found in shares.values()])


def _recover_bitcoin(drill: Drill, backup: dict[str, Any], seeds: dict[str, bytes]) -> None:
    rpc, net = drill.stage.world.net.bitcoind.rpc, drill.stage.world.net
    certificate = recovering.newest(backup, "customer_hot", BITCOIN.name)
    last = 100 + max(int(row["message"]["index"]) for row in backup["bindings"])
    to = str(rpc("getnewaddress", wallet="miner"))
    with pytest.raises(ValueError, match="too few shares"):
        recovering.recover_bitcoin(rpc, certificate, dict(list(seeds.items())[:2]), to, last, "two")
    txid = recovering.recover_bitcoin(rpc, certificate, seeds, to, last)
    net.bitcoind.mine(1)
    told = rpc("getrawtransaction", txid, 1)
    assert isinstance(told, dict)
    assert told["confirmations"] >= 1


def _recover_evm(drill: Drill, backup: dict[str, Any], keys: list[bytes]) -> None:
    payer = drill.stage.stranger(5)
    certificate = recovering.newest(backup, "customer_hot", EVM.name)
    rescue = recovering.SafeRescue(drill.stage.world.net.anvil.url, certificate, keys, payer)
    bound = next(
        row["message"] for row in backup["bindings"]
        if (row["message"]["customer"], row["message"]["chain"]) == ("alice", EVM.name)
    )  # fmt: skip
    assert rescue.client.get_balance(bound["address"]) == 2 * 10**18
    before = rescue.client.get_balance(rescue.safe.address)
    rescue.empty_deposit(int(bound["index"]), bound["address"])
    assert rescue.client.get_balance(rescue.safe.address) == before + 2 * 10**18
    home = Account.create().address
    rescue.send(home, before + 2 * 10**18)
    assert rescue.client.get_balance(home) == before + 2 * 10**18


def test_recovery_knows_nothing_of_us() -> None:
    """Its module imports no room of this code base."""
    imported = [
        line for line in Path(recovering.__file__).read_text().splitlines() if line.startswith(("import", "from"))
    ]
    assert not [line for line in imported if re.match(r"(from|import) (custody|policies|api|devnet|tests)\b", line)]
