# SPDX-License-Identifier: AGPL-3.0-or-later
"""A person's passkey, from the enrolment page's file to a withdrawal that seats sign; on real seats, by the commands people use."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Final

from eth_account import Account

from custody.chains.evm.transactions import send
from custody.flows import proposals
from custody.rules.approvals import Approval
from custody.rules.passkeys import PASSKEY, Passkey
from custody.rules.refusals import Refused
from custody.rules.roster import RosterVersion
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, Transfer
from devnet.birth import EVM
from devnet.network import HOT_SEATS
from devnet.scenes.desk import Desk
from devnet.story import Story
from tests.fakes.authenticator import ORIGIN, Authenticator

PEOPLE: Final = ("ana", "cleo")
PASSKEYS: Final = {name: Authenticator(f"{name}'s laptop") for name in PEOPLE}
ABOVE: Final = 21 * 10**18
"""Wei: above what passkeys alone may approve at any price."""
SOME: Final = 6 * 10**18
"""Wei: people are asked for it, and no key that displays."""
Run = Callable[..., "CompletedProcess[str]"]


def enrolment(folder: Path, name: str) -> Path:
    """The file that the enrolment page offers."""
    challenge = bytes(range(32))
    body = {
        "type": "PasskeyEnrolment",
        "person": name,
        "origin": ORIGIN,
        "challenge": "0x" + challenge.hex(),
        "response": PASSKEYS[name].registration(challenge),
    }
    path = folder / f"{name}.enrolment.json"
    path.write_text(json.dumps(body))
    return path


def ran(done: "CompletedProcess[str]", code: int = 0) -> str:
    """What a command printed, where it ended as it should."""
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def drafted(desk: Desk, run: Run, folder: Path) -> Path:
    """Both passkeys in one next version; nothing is kept for pages before it is in force."""
    first, second = (enrolment(folder, name) for name in PEOPLE)
    assert PASSKEYS["ana"].key.public.hex() in ran(run("passkey", "show", str(first)))
    assert "signer_not_in_roster" in ran(run("passkey", "keep", str(first)), 1)
    target = folder / "roster.json"
    ran(run("passkey", "add", str(first), str(target)))
    ran(run("passkey", "add", str(second), str(target), "--draft", str(target)))
    version = Signed.from_json(RosterVersion, json.loads(target.read_text())).message
    assert version.version == desk.worker.kernel().roster.version.version + 1
    assert {p.id: p.displays[-1] for p in version.people if p.id in PEOPLE} == dict.fromkeys(PEOPLE, False)
    return target


def put_in_force(desk: Desk, run: Run, target: Path) -> None:
    """Signed by four, one of them by the command; too few are refused; seats note it, and take it after the delay."""
    early, people = withdrawal(desk, "early", SOME), desk.stage.world.net.home / "people"
    before = desk.worker.kernel().roster.version.version
    key = ("--key", str(people / "bo.json"), "--password-file", str(people / "password"), "--yes")
    assert "webauthn-es256" in ran(run("sign", str(target), *key))
    by(desk, target, ("dan", "eve"))
    assert "quorum_not_reached" in ran(run("roster", "carry", str(target)), 1)
    by(desk, target, ("fay",))
    assert [name for name in HOT_SEATS if f"{name}: noted" in ran(run("roster", "carry", str(target)))] == [*HOT_SEATS]
    assert "signer_not_in_roster" in approve(desk, early, "ana")
    desk.pass_time(86_400 + 3_600)
    told = ran(run("roster", "carry", str(target)))
    assert [name for name in HOT_SEATS if f"{name}: in force" in told] == [*HOT_SEATS], told
    assert desk.worker.kernel().roster.version.version == before + 1


def by(desk: Desk, target: Path, names: tuple[str, ...]) -> None:
    """These people's signatures beside those that are there."""
    signed = Signed.from_json(RosterVersion, json.loads(target.read_text()))
    domain = desk.stage.deployment.roster.domain
    target.write_text(json.dumps(desk.stage.world.cast.sign(domain, signed, names).to_json()))


def withdrawal(desk: Desk, reference: str, units: int) -> Transfer:
    """Alice's, to an address of hers that is a day old."""
    address = Account.create().address
    desk.enrol("alice", EVM, address)
    desk.pass_a_day()
    return desk.propose(f"passkey-{reference}", "alice", "ETH", units, address)


def approve(desk: Desk, transfer: Transfer, person: str) -> set[str]:
    """A person's own assertion over the intent's digest; the rules that refuse it, where they do."""
    kernel = desk.worker.kernel()
    digest = kernel.roster.domain.digest(transfer.intent)
    approval = Approval(digest, person, PASSKEYS[person].over(digest))
    try:
        proposals.approve(desk.stage.deployment.store, kernel, approval, desk.clock())
    except Refused as refused:
        return {str(refusal.rule) for refusal in refused.refusals}
    return set()


def walk(desk: Desk, story: Story, run: Run, folder: Path) -> None:
    """The whole of it."""
    sender = desk.stage.stranger()
    send(desk.stage.evm, sender, desk.stage.addresses["alice", EVM], value=40 * 10**18)
    desk.stage.mine()
    desk.stage.watch()
    put_in_force(desk, run, drafted(desk, run, folder))
    for name in PEOPLE:
        ran(run("passkey", "keep", str(enrolment(folder, name))))
    rows: list[Any] = desk.stage.deployment.store.read(lambda work: work.documents.all(PASSKEY))  # type: ignore[assignment]
    kept = {Passkey.from_json(row).credential_id for row in rows}
    assert {PASSKEYS[n].credential_id for n in PEOPLE} <= kept, kept

    small = withdrawal(desk, "small", SOME)
    assert {n: approve(desk, small, n) for n in PEOPLE} == {n: set() for n in PEOPLE}
    desk.work(story, small)
    assert desk.now(small).status is Status.COMPLETED, desk.now(small).waiting_for

    large = withdrawal(desk, "large", ABOVE)
    assert {n: approve(desk, large, n) for n in PEOPLE} == {n: set() for n in PEOPLE}
    desk.turn(story)
    waiting = desk.now(large)
    assert waiting.status is Status.PENDING_AUTHORIZATION
    assert "by a key that displays" in waiting.waiting_for
    assert "by a key that displays" in ran(run("transfers", "show", large.intent.id))
    assert desk.approve(large, "bo") == set()  # of operations too, with a device that shows it
    desk.work(story, large)
    assert desk.now(large).status is Status.COMPLETED, desk.now(large).waiting_for
