# SPDX-License-Identifier: AGPL-3.0-or-later
"""Approvals that are none: one's own proposal, one person under two keys, a stranger's key, another deployment, another verb."""

import json
import sqlite3
from contextlib import closing
from typing import Final

from eth_account import Account

from custody.flows.proposals import approve
from custody.keyfiles import Secp256k1Signer
from custody.rules.approvals import Approval
from custody.rules.intents import Rejection
from custody.rules.refusals import Rule
from custody.rules.transfers import Status, Transfer
from custody.rules.typed import Domain
from devnet.scenes.attacks import refused
from devnet.scenes.desk import Desk, find
from devnet.scenes.stage import Stage
from devnet.story import Story

LARGE, SMALL, COINS = "guarded-usdx", "guarded-eth", "guarded-btc"
"""References of the transfers that the next scene tampers with once people have approved them."""

PAID: Final = "small-eth"
"""Alice's automatic withdrawal of an earlier scene: its documents are there to copy, and its destination is known for a day."""
STAFF_WITHDRAWS: Final = ("ana", "cleo", "hana")
"""Who lets a withdrawal go that staff asked for in a customer's name: operations, risk and compliance."""


def approvals(stage: Stage, story: Story) -> None:
    """Three withdrawals wait for people; every yes that is not an eligible person's own, to exactly this, counts for nothing."""
    story.chapter("Refused: approvals that are nobody's, or the same person's again")
    desk, cast = Desk(stage), stage.world.cast
    bitcoin, ether = (find(stage, f"batch-bob-{asset}").intent.destination for asset in ("BTC", "ETH"))
    desk.quote()
    large = desk.propose(LARGE, "bob", "USDX", 105_000 * 10**6, ether)
    small = desk.propose(SMALL, "bob", "ETH", 2 * 10**16, ether, "bo")
    coins = desk.propose(COINS, "bob", "BTC", 2_000_000, bitcoin, "bo")
    story.tell(f"{LARGE} waits for {large.waiting_for}")
    mallory = Secp256k1Signer(bytes(Account.create().key))
    domain, own = stage.deployment.roster.domain, cast.people
    digest = domain.digest(large.intent)
    elsewhere = Domain(bytes(31) + b"\x07").digest(large.intent)
    no = domain.digest(Rejection(digest, "no"))
    refused(
        story,
        "proposals.approve",
        "bo approves what bo proposed",
        Rule.INITIATOR_APPROVES,
        lambda: _yes(desk, small, "bo"),
    )
    story.claim("ana of operations and treasury approves with her first key", not desk.approve(large, "ana"))
    second = cast.spare["ana"]
    for what, rule, signer, person, over in (
        ("ana again, with her second key", Rule.SIGNER_TWICE, second, "ana", digest),
        ("a key that no roster has, in cleo's name", Rule.SIGNER_UNKNOWN, mallory, "cleo", digest),
        ("ana's second key in cleo's name", Rule.SIGNER_UNKNOWN, second, "cleo", digest),
        ("somebody whom no roster names", Rule.SIGNER_UNKNOWN, mallory, "mallory", digest),
        ("cleo's yes to the same words in another deployment", Rule.SIGNATURE_INVALID, own["cleo"], "cleo", elsewhere),
        ("cleo's yes to another transfer", Rule.SIGNATURE_INVALID, own["cleo"], "cleo", domain.digest(small.intent)),
        ("cleo's no, shown as a yes", Rule.SIGNATURE_INVALID, own["cleo"], "cleo", no),
    ):
        given = Approval(digest, person, signer.sign(over))
        refused(story, "proposals.approve", what, rule, lambda given=given: _give(desk, given))  # type: ignore[misc]
    twice = Approval(digest, "ana", second.sign(digest))
    told = _insert(stage, twice)
    story.claim("ana's second key put into the table by hand: refused by UNIQUE(transfer, person)", bool(told), told)
    story.claim("cleo of risk approves", not desk.approve(large, "cleo"))
    waits = desk.now(large)
    held = waits.status is Status.PENDING_AUTHORIZATION
    story.claim("ana stands for operations or for treasury, not for both", held, waits.waiting_for)
    story.claim("dan of treasury makes three people", not desk.approve(large, "dan"), desk.now(large).waiting_for)
    for transfer in (small, coins):
        against = set().union(*(desk.approve(transfer, person) for person in STAFF_WITHDRAWS))
        story.claim(f"{', '.join(STAFF_WITHDRAWS)} approve {transfer.proposal.message.reference}", not against)


def _yes(desk: Desk, transfer: Transfer, person: str) -> None:
    _give(desk, Approval(transfer.digest, person, desk.stage.world.cast.people[person].sign(transfer.digest)))


def _give(desk: Desk, given: Approval) -> None:
    approve(desk.stage.deployment.store, desk.worker.kernel(), given, desk.clock())


def _insert(stage: Stage, given: Approval) -> str:
    """What the database says to a row that is put in by hand; empty where it took it (and it is taken out again)."""
    row = (given.intent, given.person, 1, json.dumps(given.to_json()))
    with closing(sqlite3.connect(stage.world.net.home / "ledger.db")) as database:
        try:
            database.execute("INSERT INTO approvals (transfer, person, at, body) VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            return str(error)
        finally:
            database.rollback()
    return ""
