# SPDX-License-Identifier: AGPL-3.0-or-later
"""API v1 as it is served: a real uvicorn on loopback, the typed client, SQLite, and the processes beside it on their sockets."""

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import requests
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.attesting import SocketAttestor
from api.client import ApiClient, RequestSigner, wall_clock
from api.compose import open_parts
from api.deriving import RemoteDeriver
from api.parts import ApiParts
from custody.answers import Handler
from custody.chains.addresses import ChainDeriver
from custody.commands.deriver import deriver_handlers
from custody.flows.mirror import ACTIVATION, BUNDLE, CERTIFICATE, ROSTER, put_signed
from custody.flows.ports import Branch, UnitOfWork
from custody.rules.amounts import Amount
from custody.rules.certificates import DepositAddress
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.typed import ZERO32
from custody.rules.wallets import Tier
from custody.settings import PartSettings, Settings
from custody.store import migrate, open_store
from custody.wire import Stop, serve
from tests.fakes.api import Api, private
from tests.fakes.seat import BITCOIN, EVM, ed25519, rules_of, secp256k1, signed_by
from tests.fakes.treasury import Treasury, enrolment, inside, proposal, roster, signed, statement
from tests.fakes.trust import ASSETS, BTC, ETH, world
from tests.unit import shipped

ONE: Final = Amount(ETH, 10**18)


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app under uvicorn on a free port of loopback; its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def _say(answer: object, _body: object) -> object:
    return answer


@contextmanager
def answering(path: Path, handlers: Mapping[str, Handler]) -> Iterator[None]:
    """A process's verbs on its socket."""
    stop, ready = Stop(), threading.Event()
    thread = threading.Thread(target=serve, args=(path, handlers, ready.set, stop), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        stop.ring()
        thread.join(60)
        stop.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because sockets have to be; nobody else's."""
    made = Path(tempfile.mkdtemp(prefix="bh-"))
    yield made
    shutil.rmtree(made)


class TestServed:
    """The client against the app in a real server, the store SQLite."""

    @pytest.fixture
    def api(self, make_url: Callable[[str], str]) -> Iterator[Api]:
        """A furnished treasury over SQLite."""
        store = open_store(make_url("sqlite"), ASSETS)
        yield Api(treasury=Treasury(store=store))
        store.close()

    @pytest.fixture
    def url(self, api: Api) -> Iterator[str]:
        """Where it is served."""
        with serving(api.app) as url:
            yield url

    @pytest.fixture
    def connect(self, api: Api, url: str) -> Callable[[str], ApiClient]:
        """Makes a client by its id in the roster."""
        return lambda name: ApiClient(url, name, private(name), world().domain, api.clock)

    def test_a_withdrawal_until_it_is_queued(self, connect: Callable[[str], ApiClient]) -> None:
        """Propose, look, approve, list: the whole way of the API, every document signed by the client."""
        backend = connect("backend")
        assert backend.health() == {"status": "ok", "ready": True}
        dry = backend.dry_run(proposal(), ONE, ed25519("backend"))
        assert dry["decision"]["outcome"] == "REQUIRE"
        made = backend.propose(proposal(), ONE, ed25519("backend"), "key 1")
        assert backend.approve(made["id"], "ana", secp256k1("ana"))["waiting_for"] == "1 of risk"
        assert backend.approve(made["id"], "cy", secp256k1("cy"))["status"] == "QUEUED"
        assert [t["id"] for t in backend.transfers(account="customer:ada")] == [made["id"]]
        assert len(backend.transfer(made["id"])["approvals"]) == 2
        assert backend.cancel(made["id"], "changed my mind", ed25519("backend"))["status"] == "CANCELLED"

    def test_the_rest(self, connect: Callable[[str], ApiClient]) -> None:
        """Customers, addresses, enrolments, wallets, coverage, statements."""
        backend = connect("backend")
        backend.add_customer("zoe")
        issued = backend.issue_address("zoe", BITCOIN.name)
        assert roster().version.attestor in issued.signers(world().domain)
        assert backend.addresses("zoe") == [issued]
        assert [row["id"] for row in backend.customers()] == ["ada", "bo", "zoe"]
        assert backend.customer("ada")["id"] == "ada"
        assert backend.enrol(enrolment(evidence=b"\1" * 32))["kind"] == "customer_withdrawal"
        assert len(backend.enrolments("customer:ada")) == 3
        assert len(backend.wallets()) == 6
        assert {row["asset"] for row in backend.coverage()["items"]} == {"ETH", "USDX", "BTC"}
        assert backend.statement(backend.statement().message.sequence) == statement()

    def test_people_propose_too(self, connect: Callable[[str], ApiClient]) -> None:
        """A person's proposal, carried by a client; the person's role and no other counts, and a no ends it."""
        desk = connect("desk")
        message = inside(Tier.CUSTOMER_COLD, BITCOIN, amount=10**6)
        made = desk.propose(message, Amount(BTC, 10**6), secp256k1("dee"), "k")
        assert made["initiator"] == "dee"
        assert connect("backend").reject(made["id"], "not now", secp256k1("bo"))["status"] == "REJECTED"

    def test_refusals_arrive_as_refusals(self, connect: Callable[[str], ApiClient]) -> None:
        """The client raises what the server refused, by its rule."""
        with pytest.raises(Refused) as caught:
            connect("settler").add_customer("eve")
        assert rules_of(caught.value) == {Rule.SCOPE_MISSING}
        with pytest.raises(Refused) as caught:
            connect("backend").propose(proposal(), Amount(ETH, 2 * 10**18), ed25519("backend"), "k")
        assert rules_of(caught.value) == {Rule.SIGNATURE_INVALID}

    def test_over_the_wire(self, api: Api, url: str) -> None:
        """Unsigned, another key, another deployment, another body, twice: each 401 by the real server."""
        body, path = b'{"id":"eve"}', "/v1/customers"

        def send(
            signer: RequestSigner, sent: bytes = body, headers: Mapping[str, str] | None = None
        ) -> requests.Response:
            told = signer.sign("POST", url + path, body, {"Content-Type": "application/json"})
            return requests.post(url + path, data=sent, headers=told if headers is None else headers, timeout=60)

        assert send(api.signer(), headers={}).json()["rule"] == "signature_missing"
        assert send(api.signer(key="settler")).json()["rule"] == "signature_invalid"
        assert send(api.signer(genesis=b"\2" * 32)).json()["rule"] == "signature_invalid"
        assert send(api.signer(), b'{"id":"bob"}').json()["rule"] == "content_digest_mismatch"
        once = api.signer().sign("POST", url + path, body, {"Content-Type": "application/json"})
        answers = [send(api.signer(), headers=once) for _ in range(2)]
        assert [a.status_code for a in answers] == [201, 401]
        assert answers[1].json()["rule"] == "request_replayed"
        assert requests.get(f"{url}/v1/customers", timeout=60).headers["content-type"] == "application/problem+json"

    def test_one_key_raced(self, connect: Callable[[str], ApiClient], api: Api) -> None:
        """Eight at once under one key: one intent, one hold; whoever came too soon hears 409."""
        found: list[str] = []
        refused: list[Refused] = []

        def go() -> None:
            try:
                found.append(connect("backend").propose(proposal(), ONE, ed25519("backend"), "k")["id"])
            except Refused as error:
                refused.append(error)

        threads = [threading.Thread(target=go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1
        assert all(rules_of(error) == {Rule.IDEMPOTENCY_IN_FLIGHT} for error in refused)
        assert len(api.treasury.store.read(lambda work: work.transfers.examine())) == 1

    def test_a_bug_tells_nothing(self) -> None:
        """500 as a problem, without a word of what happened."""

        def broken() -> Any:
            raise RuntimeError("secret of the house")

        api = Api(changes={"kernel": broken})
        with serving(api.app) as url:
            headers = api.signer().sign("GET", f"{url}/v1/wallets")
            answer = requests.get(f"{url}/v1/wallets", headers=headers, timeout=60)
        assert (answer.status_code, answer.json()["rule"]) == (500, "internal_error")
        assert "secret" not in answer.text

    def test_nobody_there(self, connect: Callable[[str], ApiClient]) -> None:
        """A server that does not answer is Unavailable, never a value."""
        lost = ApiClient("http://127.0.0.1:9", "backend", private("backend"), world().domain)
        with pytest.raises(Unavailable):
            lost.wallets()


class TestDeriver:
    """Addresses by socket are the addresses derived here."""

    def test_same(self, folder: Path) -> None:
        """Both branches, both chains, the Safe; refusals cross as they are."""
        here = ChainDeriver()
        with answering(folder / "s" / "deriver.sock", deriver_handlers(here)):
            there = RemoteDeriver(folder / "s" / "deriver.sock")
            for tier in Tier:
                for chain in (EVM, BITCOIN):
                    certificate = world().certificate(tier, chain)
                    assert there.main(certificate) == here.main(certificate)
                    assert there.derive(certificate, Branch.RECEIVE, 7) == here.derive(certificate, Branch.RECEIVE, 7)
            bitcoin = world().certificate(Tier.CUSTOMER_HOT, BITCOIN)
            assert there.derive(bitcoin, Branch.CHANGE, 3) == here.derive(bitcoin, Branch.CHANGE, 3)
            with pytest.raises(InvalidInput):
                there.derive(world().certificate(Tier.CUSTOMER_HOT, EVM), Branch.CHANGE, 3)

    def test_silent_or_mad(self, folder: Path) -> None:
        """No answer, and an answer that is no address, are Unavailable."""
        path = folder / "s" / "deriver.sock"
        certificate = world().certificate(Tier.CUSTOMER_HOT, EVM)
        with pytest.raises(Unavailable):
            RemoteDeriver(path).derive(certificate, Branch.RECEIVE, 0)
        for answer in ("0x12", 7, None):
            with answering(path, {"derive": partial(_say, answer)}), pytest.raises(Unavailable):
                RemoteDeriver(path).derive(certificate, Branch.RECEIVE, 0)


def home_of(folder: Path, *, activated: bool = True) -> Settings:
    """A born home: genesis, roster, wallets and the shipped bundle, in SQLite."""
    bundle = folder / "bundle"
    bundle.mkdir()
    loaded = shipped.open_shipped(bundle)
    url = f"sqlite:///{folder / 'ledger.db'}"
    migrate(url)
    store = open_store(url, loaded.assets)
    activation = PolicyActivation(loaded.hash, ZERO32, ZERO32, "cy", wall_clock() - 10)

    def furnish(work: UnitOfWork) -> None:
        put_signed(work.documents, ROSTER, world().deployment.genesis())
        for certificate in world().certificates.values():
            put_signed(work.documents, CERTIFICATE, certificate)
        if activated:
            document = signed_by(activation, world().domain, [secp256k1("ana"), secp256k1("bo")])
            work.documents.put(BUNDLE, loaded.hash.hex(), loaded.to_json())
            work.documents.put(ACTIVATION, loaded.hash.hex(), document.to_json())

    store.run(furnish)
    store.close()
    (folder / "genesis").write_text("0x" + world().domain.genesis.hex() + "\n", encoding="ascii")
    attestor, nobody = PartSettings(str(folder / "s" / "attestor.sock"), ""), PartSettings("", "")
    settings = Settings(folder, url, str(bundle), {}, {}, {}, attestor, nobody)
    settings.save()
    return settings


class TestComposed:
    """What `bulkhead api serve` composes from a home folder."""

    @contextmanager
    def _beside(self, settings: Settings, word: Signed[Any] | None = None) -> Iterator[None]:
        """The attestor's and the deriver's verbs."""

        def bind(body: Any) -> object:
            return signed(DepositAddress.from_json(body["request"]), "attestor").to_json()

        def time_now(_body: object) -> object:
            return {"time": str(wall_clock())}

        verbs: dict[str, Handler] = {
            "bind": bind,
            "statement": lambda _: (word or statement()).to_json(),
            "status": time_now,
        }
        with (
            answering(Path(settings.attestor.socket), verbs),
            answering(Path(settings.deriver_socket), deriver_handlers(ChainDeriver())),
        ):
            yield

    def _client(self, url: str) -> ApiClient:
        return ApiClient(url, "backend", private("backend"), world().domain)

    def _app(self, folder: Path) -> tuple[ApiParts, FastAPI]:
        parts = replace(open_parts(folder), begun=0)
        return parts, create_app(parts)

    def test_whole(self, folder: Path) -> None:
        """From the mirror, verified: wallets, an address bound and derived over both sockets, a statement kept and shown."""
        settings = home_of(folder)
        with self._beside(settings):
            parts, app = self._app(folder)
            with serving(app) as url:
                client = self._client(url)
                assert len(client.wallets()) == 6
                client.add_customer("zoe")
                issued = client.issue_address("zoe", EVM.name)
                hot = world().certificate(Tier.CUSTOMER_HOT, EVM)
                assert issued.message.address == ChainDeriver().derive(hot, Branch.RECEIVE, 0).text
                assert client.addresses("zoe") == [issued]
                assert client.statement() == client.statement(5)
                client.enrol(enrolment(owner="customer:zoe"))
                soon = replace(proposal(), account="customer:zoe", expiry=int(time.time()) + 3600)
                with pytest.raises(Unavailable, match="price"):  # no feeder has spoken: unknown is no price
                    client.propose(soon, ONE, ed25519("backend"), "k")
            assert parts.kernel().assets.get("BTC").chain == BITCOIN

    def test_the_deriver_is_down(self, folder: Path) -> None:
        """Nothing that needs an address is answered, and nothing is guessed."""
        home_of(folder)
        with serving(self._app(folder)[1]) as url, pytest.raises(Unavailable):
            self._client(url).wallets()

    def test_no_bundle_in_force(self, folder: Path) -> None:
        """Owners did not sign the bundle on disk: closed."""
        settings = home_of(folder, activated=False)
        with self._beside(settings), serving(self._app(folder)[1]) as url, pytest.raises(Unavailable):
            self._client(url).wallets()

    def test_another_genesis(self, folder: Path) -> None:
        """The mirror's roster is not the one this home was born with: nobody is authenticated by it."""
        home_of(folder)
        (folder / "genesis").write_text("11" * 32, encoding="ascii")
        with serving(self._app(folder)[1]) as url, pytest.raises(Unavailable):
            self._client(url).wallets()

    def test_a_false_attestor(self, folder: Path) -> None:
        """A statement and a binding under another key are shown to nobody."""
        settings = home_of(folder)
        forged, refused = statement(attestor="settler"), pytest.raises(Unavailable, match="signature_invalid")
        with self._beside(settings, forged), serving(self._app(folder)[1]) as url, refused:
            self._client(url).coverage()

    def test_the_attestors_clock(self, folder: Path) -> None:
        """Its time as it says it, and Unavailable for anything else."""
        path = folder / "s" / "attestor.sock"
        with answering(path, {"status": lambda _: {"time": "12"}}):
            assert SocketAttestor(path).time() == 12
        with answering(path, {"status": lambda _: {"time": "soon"}}), pytest.raises(Unavailable):
            SocketAttestor(path).time()
