# SPDX-License-Identifier: AGPL-3.0-or-later
"""The failpoints themselves: what is wrapped, what a point is called, who is killed, and that nothing is quietly left out."""

import inspect
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from custody.flows.leases import Fenced
from custody.flows.ports import Lease, Store
from custody.store import SqlStore
from custody.vault.storage import Vault
from tests.crash.launch import PARTS, Wanted
from tests.crash.outcome import Outcome
from tests.crash.points import Desk, Points
from tests.crash.runs import changing, sample, table
from tests.crash.wrapping import STORE_LEFT, WAYS, Way, hear, is_read, route_of, server_of, wrap_store, wrap_way

ROOT = Path(__file__).resolve().parents[2]


def points_of(desk: Desk, part: str = "worker") -> tuple[Points, list[str]]:
    """Points whose kills are noted instead of done."""
    deaths: list[str] = []
    return Points(desk.folder, part, lambda: deaths.append(part)), deaths


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A folder of failpoints that records."""
    made = Desk(tmp_path)
    made.record(on=True)
    return made


def names(desk: Desk) -> list[str]:
    """What was passed, in order."""
    return [passed.name for passed in desk.passed()]


# arming


@pytest.mark.parametrize(
    ("armed", "passes", "died"),
    [
        pytest.param({}, 3, 0, id="nothing armed"),
        pytest.param({"worker.ask.before:seat.sign": 1}, 3, 1, id="the first time, and never again"),
        pytest.param({"worker.ask.before:seat.sign": 3}, 3, 1, id="the third time"),
        pytest.param({"worker.ask.before:seat.sign": 4}, 3, 0, id="a fourth time that does not come"),
        pytest.param({"api.ask.before:seat.sign": 1}, 3, 0, id="another part's point"),
        pytest.param({"worker.ask.after:seat.sign": 1}, 3, 0, id="another point"),
    ],
)
def test_armed(desk: Desk, armed: dict[str, int], passes: int, died: int) -> None:
    """A point kills at its count, once; every pass is noted."""
    points, deaths = points_of(desk)
    desk.arm(armed)
    for _ in range(passes):
        points.reach("ask.before", "seat.sign")
    assert len(deaths) == died
    assert len(desk.fired()) == died
    assert names(desk) == ["worker.ask.before:seat.sign"] * passes


def test_one_of_four_seats_dies(desk: Desk) -> None:
    """Processes of one part share its points: the first there is killed, the others pass."""
    seats = [points_of(desk, "seat") for _ in range(4)]
    desk.arm(["seat.memory.before:write.state"])
    for points, _ in seats:
        points.reach("memory.before", "write.state")
    assert [len(deaths) for _, deaths in seats] == [1, 0, 0, 0]


def test_forgotten_and_armed_again(desk: Desk) -> None:
    """For the next run a point can kill again, in a process that has passed it before."""
    points, deaths = points_of(desk)
    for _ in range(2):
        desk.forget()
        desk.arm({"worker.ask.before:seat.sign": 2})
        points.reach("ask.before", "seat.sign")
        points.reach("ask.before", "seat.sign")
    assert len(deaths) == 2


def test_killed_for_real(desk: Desk) -> None:
    """SIGKILL, and not an exception; whoever is started again goes on."""
    desk.arm(["worker.ask.before:seat.sign"])
    told = "from pathlib import Path; from tests.crash.points import Points; "
    told += f"Points(Path({str(desk.folder)!r}), 'worker').reach('ask.before', 'seat.sign'); print('lives')"
    ended = [subprocess.run([sys.executable, "-c", told], cwd=ROOT, capture_output=True, check=False) for _ in range(2)]
    assert [(done.returncode, done.stdout) for done in ended] == [(-signal.SIGKILL, b""), (0, b"lives\n")]


# what is wrapped


def public(cls: type) -> set[str]:
    """Every public callable, told by the standard library and not by what is tested."""
    return {name for name, _ in inspect.getmembers(cls, inspect.isroutine) if not name.startswith("_")}


@pytest.mark.parametrize("way", [pytest.param(way, id=way.name) for way in WAYS])
def test_every_public_method_is_wrapped(way: Way, desk: Desk) -> None:
    """Found by reflection: one that is new is wrapped too, and one that is left out by name is still there to be left out."""
    copy = type("Copy", (way.cls,), {"brand_new": lambda _self, what: f"did {what}"})
    wrap_way(way, copy, points_of(desk)[0])
    bare = {name for name in public(copy) if not hasattr(getattr(copy, name), "__failpoint__")}
    assert bare == way.left
    assert "brand_new" in public(copy) - bare


def test_every_transaction_is_wrapped(desk: Desk) -> None:
    """The store likewise; what is left out only reads, or ends."""
    copy = type("Copy", (SqlStore,), {"run_brand_new": lambda _self, work: work(None)})
    wrap_store(copy, points_of(desk)[0])
    bare = {name for name in public(copy) if not hasattr(getattr(copy, name), "__failpoint__")}
    assert bare == STORE_LEFT


@pytest.mark.parametrize(
    ("port", "adapter"),
    [
        pytest.param(Store, SqlStore, id="store"),
        pytest.param(Vault, next(way.cls for way in WAYS if way.kind == "memory"), id="vault"),
    ],
)
def test_ports_have_no_method_beside(port: type, adapter: type) -> None:
    """What a port asks of the world is a public method of the class that is wrapped."""
    assert public(port) <= public(adapter)


def test_a_way_out_that_nobody_watches_shows(desk: Desk) -> None:
    """A connection outside every wrapped method is noted under its own kind; one inside is not."""
    points, _ = points_of(desk)
    hear(points, "socket.connect")
    hear(points, "open")
    way, copy = WAYS[0], type("Copy", (WAYS[0].cls,), {"call": lambda _self, _verb: hear(points, "socket.connect")})
    wrap_way(way, copy, points)
    copy(Path("/x/attestor.d/s")).call("statement")
    told = "worker.unwatched:test_points.test_a_way_out_that_nobody_watches_shows"
    assert names(desk) == [told, "worker.ask.before:attestor.statement", "worker.ask.after:attestor.statement"]


@pytest.mark.parametrize(
    ("way", "given", "called"),
    [
        pytest.param("EvmClient", ("call", "eth_sendRawTransaction"), "eth_sendRawTransaction", id="a node's method"),
        pytest.param(
            "EvmClient", ("batch", [("eth_call", ()), ("eth_getCode", ())]), "eth_call+eth_getCode", id="a batch"
        ),
        pytest.param("EvmClient", ("header", "latest"), "header", id="a method of the client's own"),
        pytest.param("BitcoinRpc", ("call", "sendrawtransaction", "00"), "sendrawtransaction", id="bitcoind's method"),
        pytest.param("OpenBaoClient", ("write", "journal/7", {}, 0), "write.journal", id="a kind of document"),
        pytest.param("OpenBaoClient", ("identity_sign", b""), "identity_sign", id="a signature"),
    ],
)
def test_named_by_what_is_called(way: str, given: tuple[Any, ...], called: str) -> None:
    """A point's name says which method or document; never which block, payout or customer."""
    found = next(one for one in WAYS if one.name == way)
    assert found.label(None, given[0], given[1:]) == called


@pytest.mark.parametrize(
    ("what", "reads"),
    [
        pytest.param("eth_getBalance", True, id="a balance"),
        pytest.param("eth_call+eth_getCode", True, id="a batch that reads"),
        pytest.param("eth_call+eth_sendRawTransaction", False, id="a batch that sends among others"),
        pytest.param("sendrawtransaction", False, id="bitcoind sends"),
        pytest.param("getnewaddress", False, id="what is called get, and moves the wallet"),
        pytest.param("importdescriptors", False, id="the wallet learns"),
        pytest.param("read.state", True, id="a document is read"),
        pytest.param("write.state", False, id="a document is written"),
        pytest.param("identity_sign", False, id="the identity signs"),
        pytest.param("anything_new", False, id="nobody has heard of it"),
    ],
)
def test_what_only_reads(what: str, *, reads: bool) -> None:
    """What reads has one point, and what nobody has heard of has two."""
    assert is_read(what) is reads


# what transactions are called


class Plain:
    """A store without a database."""

    def run(self, work: Callable[[Any], Any]) -> Any:
        """The work, on nothing."""
        return work(self)

    def read(self, work: Callable[[Any], Any]) -> Any:
        """The same."""
        return work(self)

    leases = property(lambda self: self)

    def check(self, _lease: Lease) -> None:
        """Any turn holds."""


def put_signed(_work: object, _made: object = None) -> None:
    """What a transaction does."""


@pytest.mark.parametrize(
    ("work", "does"),
    [
        pytest.param(put_signed, "(put_signed)", id="a function"),
        pytest.param(partial(put_signed, _made=1), "(put_signed)", id="a partial of one"),
        pytest.param(lambda work: work.transfers.keep(1), "(transfers.keep)", id="a lambda, by what it calls first"),
    ],
)
@pytest.mark.parametrize("fenced", [False, True], ids=["bare", "inside a turn"])
def test_transactions_by_caller_and_work(desk: Desk, work: Callable[[Any], Any], does: str, *, fenced: bool) -> None:
    """Both points of a transaction name who asked for it and what it does, seen through the fence of a turn."""
    copy = type("Copy", (Plain,), {"transfers": property(lambda self: self), "keep": lambda _self, what: what})
    wrap_store(copy, points_of(desk)[0])
    store = Fenced(copy(), Lease("chain", "worker", 1, 10**9), lambda: 0) if fenced else copy()
    store.run(work)
    caller = "test_points.test_transactions_by_caller_and_work"
    assert names(desk) == [f"worker.commit.{when}:{caller}{does}" for when in ("before", "after")]


def test_work_that_fails_commits_nothing(desk: Desk) -> None:
    """A transaction that raises passes neither of its points, and neither does one that only reads."""
    copy = type("Copy", (Plain,), {})
    wrap_store(copy, points_of(desk)[0])
    copy().read(put_signed)
    with pytest.raises(ZeroDivisionError):
        copy().run(lambda _work: 1 / 0)
    assert names(desk) == []


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/transfers", "/v1/transfers"),
        ("/v1/transfers/dry-run", "/v1/transfers/dry-run"),
        ("/v1/transfers/01JD/approvals", "/v1/transfers/{}/approvals"),
        ("/v1/customers/alice/addresses", "/v1/customers/{}/addresses"),
        ("/v1/statements/latest", "/v1/statements/latest"),
    ],
)
def test_routes(path: str, route: str) -> None:
    """A request's point names the route, whoever it is about."""
    assert route_of("POST", path) == f"POST {route}"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("hot-1.d/s", "seat"),
        ("cold-4.d/s", "seat"),
        ("attestor.d/s", "attestor"),
        ("attestor.d/deriver.sock", "deriver"),
    ],
)
def test_servers(path: str, part: str) -> None:
    """Whoever listens on a socket of the devnet is known by its path, and is one of the parts."""
    assert server_of(Path("/home") / path) == part
    assert part in PARTS


# what is counted

PASSED = (
    "worker.commit.before:signing._seal",
    "worker.commit.after:signing._seal",
    "seat.memory.before:write.state",
    "seat.memory.after:write.state",
    "seat.memory.after:read.state",
    "watcher.rpc.after:eth_getLogs",
    "api.request.before:POST /v1/transfers",
    "api.request.after:POST /v1/transfers",
)


def test_a_renamed_point_is_uncovered() -> None:
    """Covered counts only what the twin passed: a name that is no more covers nothing, and a new one shows as missing."""
    assert table(PASSED, PASSED)[-1] == "covered 8 of 8 points"
    old = [name.replace("_seal", "_sealed") for name in PASSED]
    rows = table(PASSED, old)
    assert rows[-1] == "covered 6 of 8 points"
    assert "  worker       0 of    2" in rows


def test_the_walk_takes_from_every_pair() -> None:
    """Where a part changes something itself one of the two points is walked, in turn before and after; of the API none but its commits."""
    assert changing(PASSED) == [*PASSED[:4], *PASSED[6:]]
    assert sample(PASSED) == ["seat.memory.after:write.state", "worker.commit.before:signing._seal"]


TWIN = Outcome({"satoshi to bitcoin's destination": 30}, {"entries of kind Hold": 1})


@pytest.mark.parametrize(
    ("run", "found"),
    [
        pytest.param(TWIN, [], id="the same"),
        pytest.param(
            Outcome({"satoshi to bitcoin's destination": 60}, TWIN.ledger),
            ["chain: satoshi to bitcoin's destination: 60, the twin's 30"],
            id="paid twice",
        ),
        pytest.param(
            Outcome({**TWIN.chain, "token from customer_hot on EVM to 0xdead": 1}, TWIN.ledger),
            ["chain: token from customer_hot on EVM to 0xdead: 1, the twin's None"],
            id="something else went out",
        ),
        pytest.param(
            Outcome(TWIN.chain, {}), ["ledger: entries of kind Hold: None, the twin's 1"], id="nothing was written"
        ),
        pytest.param(
            Outcome(TWIN.chain, TWIN.ledger, ("1 permits still open",)),
            ["1 permits still open"],
            id="something is left",
        ),
    ],
)
def test_a_difference_is_told(run: Outcome, found: list[str]) -> None:
    """Line by line, to the base unit; what must not be in any run is told whatever the twin did."""
    assert run.differences(TWIN) == found


def test_wanted_travels() -> None:
    """What is asked of the launcher arrives as it was sent."""
    wanted = Wanted("/p", "seat", ("seat", "serve", "hot-1"), {"HOME": "/h"}, "/l")
    assert Wanted.from_bytes(wanted.to_bytes()) == wanted
