# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rows of a waiting transfer changed in the database: what it is, where it stands, who said yes, what is owed, whose wallet it is.

Triggers refuse a change first. Then they are dropped, as an owner of the database can, each row is changed in the live file, and
whoever reads it next is asked to go on; the file is put back whole after each.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from eth_account import Account

from custody.flows import worker as flow
from custody.flows.authorization import Withheld, authorize
from custody.keyfiles import Secp256k1Signer
from custody.rules.approvals import Approval
from custody.rules.ledger import canonical
from custody.rules.payments import Reservation
from custody.rules.refusals import Refused, Rule
from custody.rules.transfers import Status, Transfer
from devnet.birth import EVM
from devnet.scenes.attacks import Attacker, claim_seats, refused
from devnet.scenes.attacks_people import PAID, STAFF_WITHDRAWS
from devnet.scenes.desk import Desk, find, outcome
from devnet.scenes.handed import next_anchor
from devnet.scenes.stage import Stage
from devnet.story import Story
from devnet.treasury import DAY

Change = Callable[[sqlite3.Connection], None]

BY_HAND: Final = {
    "a transfer's amount": "UPDATE transfers SET units = replace(units, '0', '9')",
    "a transfer's destination": "UPDATE transfers SET destination = account",
    "an approval, taken away": "DELETE FROM approvals",
    "an enrolment's first sight": "UPDATE enrolments SET seen_at = 0",
    "a wallet's certificate": "UPDATE documents SET body = '{}' WHERE kind = 'certificate'",
    "an entry of the journal": "UPDATE journal SET body = '{}'",
}


def rows(stage: Stage, story: Story) -> None:
    """One transfer waits for its last approval; every row that could send it on without that one is changed, one after the other."""
    story.chapter("Refused: a waiting transfer's rows changed in the database")
    desk, ether = Desk(stage), find(stage, PAID).intent.destination
    attacker = Attacker(desk)
    desk.quote()
    waiting = desk.propose("rows-eth", "alice", "ETH", 2 * 10**16, ether, "bo")
    for person in STAFF_WITHDRAWS[:2]:
        desk.approve(waiting, person)
    _triggers(stage, story)
    before = attacker.positions()
    _refused_by_authorize(stage, story, attacker, waiting)
    _forged_permit(stage, story, attacker, waiting)
    story.claim(
        f"with the truth put back, {STAFF_WITHDRAWS[2]} approves", not desk.approve(waiting, STAFF_WITHDRAWS[2])
    )
    _refused_by_attestor(stage, story, desk, waiting)
    story.claim("nothing was signed: no seat's journal moved", attacker.positions() == before)
    desk.work(story, waiting)
    story.claim(
        "with the truth put back it is paid", desk.now(waiting).status is Status.COMPLETED, desk.now(waiting).status
    )


def backdated(stage: Stage, story: Story) -> None:
    """An address enrolled a minute ago is made to look old: policy here believes the row, seats believe the attestor."""
    story.chapter("Refused: an enrolment backdated in the database")
    desk, ether = Desk(stage), Account.create().address
    attacker = Attacker(desk)
    desk.enrol("alice", EVM, ether)
    fresh = outcome(lambda: desk.propose("fresh-eth", "alice", "ETH", 10**16, ether))
    story.claim("a fresh address: refused by policy", bool(fresh), ", ".join(fresh))
    before = attacker.positions()
    with _older(stage.world.net.home / "ledger.db", ether, 2 * DAY):
        sent = desk.propose("backdated-eth", "alice", "ETH", 10**16, ether)
        story.tell(f"with its row two days older: {sent.status}, waits for {sent.waiting_for}")
        flow.step(desk.worker)
    claim_seats(story, "the same with its first sight backdated", desk.now(sent), Rule.POLICY_DENIES)
    story.claim("nothing was signed: no seat's journal moved", attacker.positions() == before)
    desk.pass_a_day()
    desk.work(story, sent)
    story.claim("once it is old in truth it is paid", desk.now(sent).status is Status.COMPLETED, desk.now(sent).status)


def _triggers(stage: Stage, story: Story) -> None:
    """What the database itself says to each change while its triggers stand."""
    for what, statement in BY_HAND.items():
        told = ""
        with closing(sqlite3.connect(stage.world.net.home / "ledger.db")) as database:
            try:
                database.execute(statement)
            except sqlite3.IntegrityError as error:
                told = str(error)
            database.rollback()
        story.claim(f"{what}: refused by a trigger of the database", bool(told), told or "it was taken")


def _refused_by_authorize(stage: Stage, story: Story, attacker: Attacker, waiting: Transfer) -> None:
    """Changes that authorize finds when it reads or verifies the transfer again."""
    desk, deployment = attacker.desk, stage.deployment
    statement = stage.attestor.statement()
    forged, stranger = _rewritten(stage, waiting), Account.create().address
    other = next(w for w in deployment.inventory().on(EVM) if w.name != waiting.intent.wallet)
    row, mallory = waiting.digest, Secp256k1Signer(bytes(Account.create().key))
    lie = Approval(row, STAFF_WITHDRAWS[2], mallory.sign(row))

    def set_to(column: str, value: object) -> Change:
        return lambda db: _one(db, f"UPDATE transfers SET {column} = ? WHERE digest = ?", value, row)  # noqa: S608

    def insert(person: str, approval: Approval) -> Change:
        values = row, person, desk.clock(), canonical(approval.to_json()).decode()
        return lambda db: _one(db, "INSERT INTO approvals (transfer, person, at, body) VALUES (?, ?, ?, ?)", *values)

    def authorized(digest: bytes) -> None:
        chain = desk.worker.chains[EVM]
        found = authorize(deployment.store, desk.worker.kernel(), [digest], statement, chain, desk.clock())
        if isinstance(found, Withheld):
            raise Refused(found.refusals[digest])

    attacks: tuple[tuple[str, Rule, Change, bytes], ...] = (
        ("ten times the amount", Rule.ROW_DAMAGED, set_to("units", f"{2 * 10**17:078d}"), row),
        ("another destination", Rule.ROW_DAMAGED, set_to("destination", stranger), row),
        ("another wallet", Rule.ROW_DAMAGED, set_to("wallet", other.name), row),
        (
            "amount and address in proposal, intent and digest",
            Rule.SIGNER_UNKNOWN,
            _rewrite(waiting, forged),
            forged.digest,
        ),
        ("status set to approved", Rule.QUORUM_NOT_REACHED, set_to("status", Status.QUEUED.value), row),
        ("status set to authorized", Rule.ILLEGAL_MOVE, set_to("status", Status.PENDING_SIGNATURE.value), row),
        ("a stranger's yes in a person's name", Rule.SIGNER_UNKNOWN, insert(lie.person, lie), row),
        ("a yes by nobody", Rule.QUORUM_NOT_REACHED, insert("mallory", replace(lie, person="mallory")), row),
    )
    for what, rule, change, digest in attacks:
        with altered(stage.world.net.home / "ledger.db", change):
            refused(story, "authorize", what, rule, lambda digest=digest: authorized(digest))  # type: ignore[misc]


def _forged_permit(stage: Stage, story: Story, attacker: Attacker, waiting: Transfer) -> None:
    """The strongest row: a permit that authorize never made. The worker believes it; nobody who signs does."""
    desk = attacker.desk
    with altered(stage.world.net.home / "ledger.db", _permit(waiting, next_anchor(desk, waiting))):
        flow.step(desk.worker)
        claim_seats(story, "a permit put into the tables", desk.now(waiting), Rule.QUORUM_NOT_REACHED)


def _refused_by_attestor(stage: Stage, story: Story, desk: Desk, waiting: Transfer) -> None:
    """Everybody approved, so it would go out now: but what is owed, or whose wallet it is, is changed under it."""
    path = stage.world.net.home / "ledger.db"
    for what, rule, change in (
        ("what is owed to customers lowered", Rule.BALANCE_MISMATCH, _lower_liability),
        ("the hot wallet's certificate retagged as the company's", Rule.QUORUM_NOT_REACHED, _retag),
    ):
        with altered(path, change):
            refused(story, "the attestor", what, rule, stage.attestor.statement)
            told = _worker_says(desk)
            story.claim(f"{what}: the worker stands still", rule in told, told[:120])
    standing = desk.now(waiting).status
    story.claim("meanwhile it did not move", standing is Status.QUEUED, standing)


def _worker_says(desk: Desk) -> str:
    """What kept a worker's step from going on."""
    try:
        return "; ".join(flow.step(desk.worker).faults)
    except Refused as stopped:
        return str(stopped)


def _rewritten(stage: Stage, waiting: Transfer) -> Transfer:
    """The transfer as an attacker would have it, everything consistent but the signatures that nobody can make."""
    stranger = Account.create().address
    message = replace(waiting.proposal.message, amount=2 * 10**17, destination=stranger)
    intent = replace(waiting.intent, amount=2 * 10**17, destination=stranger, proposal=message.struct_hash)
    digest = stage.deployment.roster.domain.digest(intent)
    return replace(waiting, digest=digest, proposal=replace(waiting.proposal, message=message), intent=intent)


def _rewrite(waiting: Transfer, forged: Transfer) -> Change:
    body = canonical({"proposal": forged.proposal.to_json(), "intent": forged.intent.to_json()}).decode()
    intent = forged.intent
    values = forged.digest, intent.proposal, f"{intent.amount:078d}", intent.destination, body, waiting.digest
    told = "digest = ?, proposal = ?, units = ?, destination = ?, body = ?"

    def change(database: sqlite3.Connection) -> None:
        _one(database, f"UPDATE transfers SET {told} WHERE digest = ?", *values)  # noqa: S608  # names are ours
        database.execute("UPDATE approvals SET transfer = ? WHERE transfer = ?", (forged.digest, waiting.digest))

    return change


def _permit(waiting: Transfer, reservation: Reservation) -> Change:
    anchor, body = reservation.anchor, canonical(reservation.to_json()).decode()

    def change(database: sqlite3.Connection) -> None:
        stands = "UPDATE transfers SET status = 'PENDING_SIGNATURE' WHERE digest = ?"
        _one(database, stands, waiting.digest)
        (number,) = database.execute("SELECT coalesce(max(number), 0) + 1 FROM permits").fetchone()
        pinned = (number, anchor.chain, anchor.wallet, anchor.reference, 1, waiting.created_at, body)
        database.execute("INSERT INTO permits VALUES (?, ?, ?, ?, ?, ?, ?)", pinned)
        references = anchor.chain, anchor.wallet, anchor.reference, number, 0
        database.execute("INSERT INTO permit_references VALUES (?, ?, ?, ?, ?)", references)
        database.execute("INSERT INTO permit_intents VALUES (?, ?, ?)", (waiting.digest, number, 0))

    return change


def _lower_liability(database: sqlite3.Connection) -> None:
    lower = "UPDATE totals SET units = ? WHERE kind = 'customer_available' AND asset = 'ETH'"
    _one(database, lower, f"{1:078d}")


def _retag(database: sqlite3.Connection) -> None:
    hot = "kind = 'certificate' AND body LIKE '%\"tier\":\"customer_hot\"%' AND body LIKE '%eip155:%'"
    found = database.execute(f"SELECT number, body FROM documents WHERE {hot}").fetchone()  # noqa: S608  # ours
    number, body = found
    data = json.loads(body)
    data["message"]["tier"] = "operational"
    _one(database, "UPDATE documents SET body = ? WHERE number = ?", canonical(data).decode(), number)


def _one(database: sqlite3.Connection, statement: str, *values: object) -> None:
    """Run a statement that has to change one row: an attack that changes nothing proves nothing."""
    if database.execute(statement, values).rowcount != 1:
        raise AssertionError(f"the attack changed nothing: {statement}")


@contextmanager
def altered(path: Path, change: Change) -> Iterator[None]:
    """The live database with its guards dropped and a change in it, for the length of a block; then put back whole.

    Nothing may be entered into the journal meanwhile: the attestor would have vouched for what is taken back.
    """
    with closing(sqlite3.connect(":memory:")) as kept:
        with closing(sqlite3.connect(path)) as database:
            database.backup(kept)
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")
            database.execute("PRAGMA ignore_check_constraints=ON")
            change(database)
            database.commit()
        try:
            yield
        finally:
            with closing(sqlite3.connect(path)) as database:
                head = "SELECT max(position) FROM journal"
                if database.execute(head).fetchone() != kept.execute(head).fetchone():
                    raise AssertionError("an entry was made while rows were changed")
                kept.backup(database)


@contextmanager
def _older(path: Path, address: str, seconds: int) -> Iterator[None]:
    """One enrolment's first sight moved back, its guards dropped and put back at once; moved forth at the end."""

    def shift(by: int) -> None:
        with closing(sqlite3.connect(path)) as database:
            guards = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'enrolments'"
            standing = database.execute(guards).fetchall()
            for name, _ in standing:
                database.execute(f"DROP TRIGGER {name}")
            _one(database, "UPDATE enrolments SET seen_at = seen_at + ? WHERE address = ?", by, address)
            for _, guard in standing:
                database.execute(guard)
            database.commit()

    shift(-seconds)
    try:
        yield
    finally:
        shift(seconds)
