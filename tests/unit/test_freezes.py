# SPDX-License-Identifier: AGPL-3.0-or-later
"""Freezes: one person stops a scope everywhere, a quorum starts it again; rows that nobody signed do neither."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from typer.testing import CliRunner

from custody import bootstrap, parts, working
from custody.commands.freeze import app, unfreeze_app
from custody.commands.sign import app as sign_app
from custody.flows import freezes, proposals
from custody.flows.authorization import SigningPermit, Withheld
from custody.flows.kernel import Kernel
from custody.rules.errors import Unavailable
from custody.rules.freezes import FREEZE_MOST
from custody.rules.governance import Freeze, Unfreeze
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, SubStatus
from custody.rules.wallets import Tier
from tests.fakes import treasury
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519, rules_of, secp256k1, signed_by
from tests.fakes.seated import LATER, Seated, seated
from tests.fakes.treasury import Treasury, proposal, signed
from tests.fakes.trust import world

LAPSES = NOW + 4 * 3600


def frozen(who: str = "bo", scope: str = "customer:ada", start: int = NOW, lapses: int = LAPSES) -> Signed[Freeze]:
    """Somebody's freeze; `backend` and `attestor` are machines."""
    key = ed25519(who) if who in ("backend", "attestor") else secp256k1(who)
    return signed_by(Freeze(scope, "phone stolen", start, lapses), world().domain, [key])


def thaw(of: Signed[Freeze], *who: str, at: int = NOW) -> Signed[Unfreeze]:
    """The end of a freeze, signed by these."""
    message = Unfreeze(of.message.struct_hash, "found", at)
    return signed_by(message, world().domain, [secp256k1(name) for name in who])


def delayed(seconds: int) -> Kernel:
    """A kernel whose roster makes people wait before what loosens."""
    roster = treasury.roster()
    signed = replace(roster.signed, message=replace(roster.version, delay=seconds))
    return treasury.kernel(rosters=(Roster(signed, roster.domain.genesis),))


@dataclass
class Mirror:
    """A treasury whose kernel has the freezes that its own store mirrors, read as a process reads them."""

    shop: Treasury = field(default_factory=Treasury)
    reader: freezes.FreezeReader = field(default_factory=freezes.FreezeReader)

    def kernel(self) -> Kernel:
        """As of now."""
        kernel = self.shop.kernel
        found = self.shop.store.read(lambda work: self.reader.read(work, kernel.roster, self.shop.now))
        return replace(kernel, freezes=found, frozen_by=self.reader.people)

    def freeze(self, signed: Signed[Freeze]) -> None:
        """Record one."""
        freezes.freeze(self.shop.store, self.shop.kernel, signed, self.shop.now)

    def unfreeze(self, signed: Signed[Unfreeze]) -> None:
        """Record the end of one."""
        freezes.unfreeze(self.shop.store, self.shop.kernel, signed, self.shop.now)

    def plant(self, kind: str, signed: Signed[Any], key: str = "x") -> None:
        """A row that somebody wrote into the database."""
        self.shop.store.run(lambda work: work.documents.put(kind, key, signed.to_json()))

    def delete(self, kind: str) -> None:
        """Rows that somebody deleted."""
        state: Any = self.shop.store
        state._state.documents = {k: v for k, v in state._state.documents.items() if k[0] != kind}

    def restarted(self) -> "Mirror":
        """Another process over the same database."""
        return Mirror(self.shop)

    @property
    def scopes(self) -> list[str]:
        """What is frozen."""
        return [f.scope for f in self.kernel().freezes]


@pytest.mark.parametrize(
    ("signed", "rule"),
    [
        pytest.param(frozen(), None, id="one person"),
        pytest.param(frozen(scope="all"), None, id="everything"),
        pytest.param(frozen(scope=f"chain:{EVM.name}"), None, id="a chain"),
        pytest.param(frozen(scope="wallet:0x" + "ab" * 32), None, id="a wallet"),
        pytest.param(frozen(scope="company"), None, id="the company's own account"),
        pytest.param(frozen(lapses=NOW + FREEZE_MOST), None, id="a whole day"),
        pytest.param(frozen("mallory"), Rule.QUORUM_NOT_REACHED, id="an unknown person"),
        pytest.param(frozen("backend"), Rule.QUORUM_NOT_REACHED, id="an API client"),
        pytest.param(frozen("attestor"), Rule.QUORUM_NOT_REACHED, id="the attestor"),
        pytest.param(replace(frozen(), signatures=()), Rule.QUORUM_NOT_REACHED, id="nobody"),
        pytest.param(
            replace(frozen(scope="all"), signatures=frozen().signatures),
            Rule.QUORUM_NOT_REACHED,
            id="a signature over another scope",
        ),
        pytest.param(frozen(lapses=NOW + FREEZE_MOST + 1), Rule.FREEZE_TOO_LONG, id="over a day"),
        pytest.param(frozen(start=NOW - 100, lapses=NOW), Rule.FREEZE_TOO_LONG, id="lapsed"),
        pytest.param(frozen(start=NOW + 10, lapses=NOW + 10), Rule.FREEZE_TOO_LONG, id="no time at all"),
        pytest.param(
            frozen(start=NOW + FREEZE_MOST, lapses=NOW + FREEZE_MOST + 9), Rule.FREEZE_TOO_LONG, id="kept in store"
        ),
        pytest.param(frozen(scope="customr:ada"), Rule.MALFORMED, id="a typing error"),
        pytest.param(frozen(scope="wallet:0x" + "AB" * 32), Rule.MALFORMED, id="hex that never matches"),
        pytest.param(frozen(scope=""), Rule.MALFORMED, id="no scope"),
    ],
)
def test_who_may_freeze_what(signed: Signed[Freeze], rule: Rule | None) -> None:
    """Taken into the mirror and into the kernel, or refused by rule and not there; a row put past the flow is no better."""
    mirror = Mirror()
    if rule is None:
        mirror.freeze(signed)
        mirror.freeze(signed)
        assert mirror.scopes == [signed.message.scope]
        return
    with pytest.raises(Refused) as caught:
        mirror.freeze(signed)
    assert rules_of(caught.value) == {rule}
    if rule is not Rule.FREEZE_TOO_LONG or signed.message.lapses > NOW + 2 * FREEZE_MOST:
        mirror.plant(freezes.FREEZE, signed)
    assert mirror.scopes == []


def test_it_stops_authorization_and_lapses() -> None:
    """A transfer of the account waits, blocked by FROZEN; when the freeze lapses it goes."""
    mirror = Mirror()
    shop = mirror.shop
    transfer = shop.approve(shop.propose(), "ana", "bo")
    mirror.freeze(frozen(lapses=NOW + 10))
    shop.kernel = mirror.kernel()
    withheld = shop.authorize(transfer)
    assert isinstance(withheld, Withheld)
    assert {r.rule for r in withheld.refusals[transfer.digest]} == {Rule.FROZEN}
    shop.now = NOW + 10
    shop.kernel = mirror.kernel()
    assert shop.kernel.freezes == ()
    assert isinstance(shop.authorize(transfer), SigningPermit)


def test_a_freeze_from_a_clock_that_is_ahead_stops_at_once() -> None:
    """Who signed it may be seconds ahead of the worker: coins of theirs do not leave in between, nor does their wallet wait for them."""
    mirror = Mirror()
    shop = mirror.shop
    transfer = shop.approve(shop.propose(), "ana", "bo")
    mirror.freeze(frozen(start=NOW + 5, lapses=NOW + 600))
    shop.kernel = mirror.kernel()
    withheld = shop.authorize(transfer)
    assert isinstance(withheld, Withheld)
    assert {r.rule for r in withheld.refusals[transfer.digest]} == {Rule.FROZEN}


def test_a_proposal_under_a_freeze_is_parked() -> None:
    """Taken and held for, BLOCKED until when and by whom; a yes is kept; after the freeze it stands with the people who are missing."""
    mirror = Mirror()
    shop = mirror.shop
    mirror.freeze(frozen("bo", lapses=NOW + 10))
    shop.kernel = mirror.kernel()
    transfer = shop.propose()
    assert (transfer.status, transfer.sub_status, transfer.live) == (Status.BLOCKED, SubStatus.FROZEN, True)
    assert transfer.waiting_for == (
        "the freeze of customer:ada by bo, until 2027-01-15 08:00:10 UTC (frozen): phone stolen"
    )
    assert transfer.hold is not None
    draft = proposals.dry_run(shop.store, shop.kernel, signed(proposal(2)), shop.now)
    assert {refusal.rule for refusal in draft.frozen} == {Rule.FROZEN}
    shop.approve(transfer, "ana")
    assert shop.get(transfer).sub_status is SubStatus.FROZEN
    assert isinstance(shop.authorize(transfer), Withheld)
    assert shop.get(transfer).sub_status is SubStatus.FROZEN
    shop.now = NOW + 10
    shop.kernel = mirror.kernel()
    shop.authorize(transfer)
    found = shop.get(transfer)
    assert (found.status, found.sub_status) == (Status.PENDING_AUTHORIZATION, None)
    assert "1 of risk" in found.waiting_for
    shop.approve(transfer, "bo")
    assert isinstance(shop.authorize(transfer), SigningPermit)


@pytest.mark.parametrize("scope", ["customer:bo", "company", f"chain:{BITCOIN.name}"])
def test_a_freeze_of_others_parks_nothing(scope: str) -> None:
    """What it does not cover is proposed as always."""
    mirror = Mirror()
    mirror.freeze(frozen("bo", scope))
    mirror.shop.kernel = mirror.kernel()
    assert mirror.shop.propose().status is Status.PENDING_AUTHORIZATION


def test_the_group_that_froze_cannot_extend() -> None:
    """Another group can: else one person stops a deployment for ever, a day at a time."""
    mirror = Mirror()
    mirror.freeze(frozen("bo"))
    mirror.shop.now = LAPSES + 10
    again: dict[str, Any] = {"start": LAPSES, "lapses": LAPSES + 100}
    with pytest.raises(Refused) as caught:
        mirror.freeze(frozen("bo", **again))
    assert rules_of(caught.value) == {Rule.FREEZE_TOO_LONG}
    mirror.freeze(frozen("dee", **again))
    assert mirror.scopes == ["customer:ada"]


@pytest.mark.parametrize(
    ("who", "at", "delay", "now", "rule"),
    [
        pytest.param(("ana", "dee"), NOW, 0, NOW, None, id="a quorum"),
        pytest.param(("ana",), NOW, 0, NOW, Rule.QUORUM_NOT_REACHED, id="one person"),
        pytest.param(("ana", "ana"), NOW, 0, NOW, Rule.QUORUM_NOT_REACHED, id="one person twice"),
        pytest.param(("ana", "mallory"), NOW, 0, NOW, Rule.QUORUM_NOT_REACHED, id="an outsider ignored"),
        pytest.param(("ana", "dee"), NOW + 5, 0, NOW + 4, Rule.TOO_EARLY, id="before its own time"),
        pytest.param(("ana", "dee"), NOW, 60, NOW + 59, Rule.TOO_EARLY, id="before the roster's delay"),
        pytest.param(("ana", "dee"), NOW, 60, NOW + 60, None, id="after the roster's delay"),
    ],
)
def test_unfreezing(who: tuple[str, ...], at: int, delay: int, now: int, rule: Rule | None) -> None:
    """Quorum and delay, at the flow and again whenever the mirror is read."""
    mirror = Mirror(Treasury(kernel=delayed(delay)))
    freeze, end = frozen(), thaw(frozen(), *who, at=at)
    mirror.freeze(freeze)
    mirror.shop.now = now
    if rule is None:
        mirror.unfreeze(end)
        assert mirror.scopes == []
        return
    with pytest.raises(Refused) as caught:
        mirror.unfreeze(end)
    assert rule in rules_of(caught.value)
    mirror.plant(freezes.UNFREEZE, end)
    assert mirror.scopes == ["customer:ada"]


class TestRows:
    """Whoever owns the database."""

    def test_an_unfreeze_of_another_freeze(self) -> None:
        """Ends nothing else, and of a freeze that is not there it is refused."""
        mirror = Mirror()
        mirror.freeze(frozen())
        mirror.plant(freezes.UNFREEZE, thaw(frozen(scope="all"), "ana", "dee"))
        assert mirror.scopes == ["customer:ada"]
        with pytest.raises(Refused) as caught:
            mirror.unfreeze(thaw(frozen(scope="all"), "ana", "dee"))
        assert rules_of(caught.value) == {Rule.NOT_SUCCESSOR}

    def test_a_forged_row_takes_no_place(self) -> None:
        """Forged first, under any key: the true one is recorded beside it, and one counts."""
        mirror = Mirror()
        forged = replace(frozen(), signatures=frozen("mallory").signatures)
        mirror.plant(freezes.FREEZE, forged, frozen().message.struct_hash.hex())
        mirror.plant("freeze", replace(frozen(), signatures=()), "y")
        assert mirror.scopes == []
        mirror.freeze(frozen())
        assert mirror.scopes == ["customer:ada"]

    def test_another_document_in_its_place(self) -> None:
        """Is nobody's word."""
        mirror = Mirror()
        mirror.plant(freezes.FREEZE, thaw(frozen(), "ana"))
        mirror.plant(freezes.UNFREEZE, frozen())
        assert mirror.scopes == []

    def test_a_deleted_row_thaws_no_running_process(self) -> None:
        """What was verified once stands until it lapses; a process that starts later has only the seats behind it."""
        mirror = Mirror()
        mirror.freeze(frozen())
        assert mirror.scopes == ["customer:ada"]
        mirror.delete(freezes.FREEZE)
        assert mirror.scopes == ["customer:ada"]
        assert mirror.restarted().scopes == []
        mirror.shop.now = LAPSES
        assert mirror.scopes == []

    def test_a_deleted_unfreeze_freezes_again(self) -> None:
        """Stricter only."""
        mirror = Mirror()
        mirror.freeze(frozen())
        mirror.unfreeze(thaw(frozen(), "ana", "dee"))
        assert mirror.scopes == []
        mirror.delete(freezes.UNFREEZE)
        assert mirror.scopes == ["customer:ada"]


def test_scopes_that_name_nothing_known() -> None:
    """A person is told before signing."""
    shop = Treasury()
    hot = world().certificate(Tier.CUSTOMER_HOT, EVM).struct_hash.hex()
    for scope, known in (
        ("all", True),
        ("customer:ada", True),
        ("customer:adda", False),
        (f"chain:{EVM.name}", True),
        ("chain:eip155:1", False),
        (f"wallet:0x{hot}", True),
        (f"wallet:{'00' * 32}", False),
        ("nonsense", False),
    ):
        odd = shop.store.read(lambda work, scope=scope: freezes.strange(shop.kernel, work, scope))  # type: ignore[misc]
        assert (odd is None) == known, scope


# the command, on seats


@pytest.fixture
def house() -> Iterator[Seated]:
    """Eight seats in memory, born and with the shipped bundle."""
    with seated({}) as made:
        yield made


@dataclass
class Desk:
    """The commands over a treasury in memory and true seats; `silent` ones do not answer, `broken` is a mirror that cannot be read."""

    shop: Treasury
    folder: Path
    reader: freezes.FreezeReader = field(default_factory=freezes.FreezeReader)
    silent: set[str] = field(default_factory=set)
    broken: bool = False

    def run(self, which: Any, *words: str, who: str = "", answer: str = "y\n") -> tuple[int, str, BaseException | None]:
        """Run a command, with a person's key where one is named; exit code, output, exception."""
        key = []
        if who:
            path = self.folder / f"{who}.json"
            body = Account.encrypt(sha256(who.encode()).digest(), "pw", iterations=4096)
            path.write_text(json.dumps(body, default=str))
            (self.folder / "password").write_text("pw\n")
            key = ["--key", str(path), "--password-file", str(self.folder / "password")]
        result = CliRunner().invoke(which, [*words, *key, "--home", str(self.folder)], input=answer)
        return result.exit_code, result.output, result.exception

    def freeze(self, scope: str, who: str = "bo", **more: Any) -> tuple[int, str, BaseException | None]:
        """Freeze a scope."""
        return self.run(app, scope, "--reason", "phone stolen", who=who, **more)


@pytest.fixture
def desk(house: Seated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose kernel speaks of the house's deployment."""
    roster = Roster(house.world.deployment.genesis(), house.world.domain.genesis)
    kernel = replace(treasury.kernel(), rosters=(roster,))
    made = Desk(Treasury(kernel=kernel, now=LATER), tmp_path)
    (tmp_path / "genesis").write_text("0x" + house.world.domain.genesis.hex())

    class Reader:
        """The mirror, unless it is broken."""

        def __init__(self, _: object) -> None:
            self.clock = lambda: made.shop.now

        def __call__(self) -> Kernel:
            if made.broken:
                raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="PolicyActivation")])
            kernel = made.shop.kernel
            found = made.shop.store.read(lambda work: made.reader.read(work, kernel.roster, made.shop.now))
            return replace(kernel, freezes=found)

    class Silent:
        """A seat that is not there."""

        def freeze(self, _: object) -> object:
            raise Unavailable("seat", "no answer")

        unfreeze = freeze

    class Opened:
        """What the commands use of a deployment."""

        store, settings = made.shop.store, None

    seats = lambda _: {n: Silent() if n in made.silent else host for n, host in house.hosts.items()}  # noqa: E731
    monkeypatch.setattr(bootstrap, "open_deployment", lambda *_, **__: Opened)
    monkeypatch.setattr(bootstrap, "wall_clock", lambda: made.shop.now)
    monkeypatch.setattr(working, "KernelReader", Reader)
    monkeypatch.setattr(parts, "seats", seats)
    return made


def rules_at(house: Seated) -> set[Rule]:
    """What hot-1 refuses a withdrawal of ada's with; nothing where it signs."""
    try:
        house.hosts["hot-1"].sign(house.ask())
    except Refused as error:
        return set(rules_of(error))
    return set()


def test_a_seat_holds_to_a_freeze_from_when_it_has_it(house: Seated) -> None:
    """Signed by a clock that is seconds ahead of the seat's: refused from now on, not from then on."""
    domain, later = house.world.domain, LATER + 30
    message = Freeze("customer:ada", "phone stolen", later, later + 600)
    house.hosts["hot-1"].freeze(signed_by(message, domain, [secp256k1("bo")]))
    assert rules_at(house) == {Rule.FROZEN}


def test_freezing_from_the_console(house: Seated, desk: Desk) -> None:
    """Shown, asked, signed, handed to every seat and recorded. Whoever deletes its row, and every row, thaws no seat."""
    assert rules_at(house) == set()
    desk.silent = {"cold-1"}
    code, told, _ = desk.freeze("customer:ada")
    assert code == 0, told
    for wanted in ("scope: customer:ada", "for 4 hours", "Freeze exactly this?", "seat hot-1 has it", "frozen: 0x"):
        assert wanted in told
    assert "seat cold-1 is silent: bulkhead seat freeze cold-1 " in told
    assert rules_at(house) == {Rule.FROZEN}
    _, told, _ = desk.run(unfreeze_app, "list")
    assert "customer:ada: phone stolen" in told
    assert "1 freezes" in told
    rows: Any = desk.shop.store
    rows._state.documents.clear()
    desk.reader = freezes.FreezeReader()
    assert "0 freezes" in desk.run(unfreeze_app, "list")[1]
    assert rules_at(house) == {Rule.FROZEN}
    for name, host in house.hosts.items():
        assert host.status()["frozen"] == ([] if name == "cold-1" else ["customer:ada"])
    house.clock.now = LATER + 4 * 3600 + 1
    assert Rule.FROZEN not in rules_at(house)


def test_unfreezing_from_the_console(house: Seated, desk: Desk) -> None:
    """Drafted, signed by two, carried; one is refused, and every seat stays frozen until then."""
    desk.freeze("all")
    digest = desk.run(unfreeze_app, "list")[1].split()[0]
    file = str(desk.folder / "unfreeze.json")
    code, told, _ = desk.run(unfreeze_app, "draft", digest, file, "--reason", "found")
    assert code == 0, told
    assert "2 people sign it" in told
    for who, rules in (("ana", {Rule.QUORUM_NOT_REACHED}), ("dee", set())):
        assert desk.run(sign_app, file, who=who)[0] == 0
        code, told, error = desk.run(unfreeze_app, "carry", file)
        assert (rules_of(error) if isinstance(error, Refused) else set()) == rules, told
        assert (rules_at(house) == set()) == (not rules)
    assert "0 freezes" in desk.run(unfreeze_app, "list")[1]


def test_a_broken_mirror_stops_no_freeze(house: Seated, desk: Desk) -> None:
    """Every seat has it before the command ends with what is wrong."""
    desk.broken = True
    code, told, error = desk.freeze("all")
    assert code != 0
    assert isinstance(error, Refused)
    assert rules_of(error) == {Rule.SIGNATURE_MISSING}
    assert "WARNING  the mirror cannot be read" in told
    assert rules_at(house) == {Rule.FROZEN}


@pytest.mark.parametrize(
    ("scope", "who", "answer", "wanted"),
    [
        pytest.param("custmer:ada", "bo", "y\n", "", id="no scope at all"),
        pytest.param("customer:adda", "bo", "n\n", "adda is no customer that is known here", id="nobody known, and no"),
        pytest.param("all", "mallory", "y\n", "seat hot-1 refuses: quorum_not_reached", id="a key of nobody"),
    ],
)
def test_what_the_console_refuses(house: Seated, desk: Desk, scope: str, who: str, answer: str, wanted: str) -> None:
    """Nothing is frozen anywhere."""
    code, told, _ = desk.freeze(scope, who, answer=answer)
    assert code != 0
    assert wanted in told
    assert desk.shop.store.read(lambda work: work.documents.all(freezes.FREEZE)) == []
    assert all(host.status()["frozen"] == [] for host in house.hosts.values())


@pytest.mark.parametrize(
    ("clock", "refusing"), [("statement", nullcontext()), ("wall", pytest.raises(Refused, match="freeze_too_long"))]
)
def test_a_devnet_that_passed_a_day(clock: str, refusing: AbstractContextManager[object]) -> None:
    """Where time is the statements', a seat that signed nothing since takes a freeze of that time; on the wall clock it does not."""
    with seated({}, policy=False, clock=clock) as house, refusing:
        start = house.clock.now + 2 * FREEZE_MOST
        message = Freeze("all", "drill", start, start + 3600)
        house.hosts["cold-1"].freeze(signed_by(message, house.world.domain, [secp256k1("bo")]))
