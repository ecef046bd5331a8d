# SPDX-License-Identifier: AGPL-3.0-or-later
"""Accidents and hostile hands that change what lies under everybody: clocks, nodes, rows, databases, a seat's memory.

What has to be refused then is looked for here, at once: a finding is noted with the scene, as any invariant's.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from custody.rules.wallets import Chain
from tests.fakes.seat import BITCOIN, EVM, YEAR
from tests.simulation import birth
from tests.simulation.blocks import Chainlike
from tests.simulation.books import Books
from tests.simulation.hands import Hands
from tests.simulation.processes import Seat
from tests.simulation.scene import Broken

HOUR: Final = 3_600
FOUND_HERE: Final = frozenset(
    {
        "a_damaged_ledger_is_told",
        "a_damaged_row_is_told",
        "a_damaged_row_moves_nothing",
        "a_damaged_row_stays_as_it_is",
        "nobody_vouches_for_a_rolled_back_database",
        "nothing_is_signed_on_a_rolled_back_database",
        "the_attestor_vouches_for_no_lie",
    }
)
"""What is looked for at the moment of an accident, beside the invariants of every step."""

# clocks


def jump_clock(hands: Hands) -> str:
    """One part's clock is an hour off, or a year; or it is set right. Of the seats only a hostile one's is a year off."""
    world, rng = hands.world, hands.rng
    process = rng.choice([*world.mortals, world.attestor, *world.seats])
    patient = process is world.attestor or (isinstance(process, Seat) and process is not hands.hostile)
    process.skew = rng.choice([0, HOUR, -HOUR] if patient else [0, HOUR, -HOUR, YEAR, -YEAR])
    hands.later = hands.later or isinstance(process, Seat)
    hands.tally["clock jumps"] += bool(process.skew)
    return f"the clock of {process.name} is {process.skew} seconds off"


# nodes


def lag(hands: Hands) -> str:
    """One part's node is some blocks behind, or catches up."""
    world, rng = hands.world, hands.rng
    process, chain = rng.choice([*world.workers, *world.watchers[EVM], *world.watchers[BITCOIN], world.attestor]), EVM
    chain = rng.choice([EVM, BITCOIN])
    eyes = process.eyes(chain)
    if process is world.attestor and rng.random() < 0.5:
        eyes = world.attestor.second_evm if chain.is_evm else world.attestor.second_bitcoin
    eyes.lag = rng.choice([0, 1, 2, 4])
    hands.tally["stale nodes"] += bool(eyes.lag)
    return f"a node of {process.name} is {eyes.lag} blocks of {chain} behind"


def lie(hands: Hands) -> str:
    """A node tells one part of final blocks that never were, with a deposit in them; then it comes to light."""
    world, rng = hands.world, hands.rng
    chain, customer = rng.choice([EVM, BITCOIN]), rng.choice(birth.CUSTOMERS)
    process: Any = rng.choice([world.watchers[chain][0], world.watchers[chain][0], world.attestor])
    return lie_to(hands, process, chain, customer)


def lie_to(hands: Hands, process: Any, chain: Chain, customer: str) -> str:
    """The same to a part of one's choice, about one customer."""
    world = hands.world
    node, symbol = hands.node_of(chain), "ETH" if chain.is_evm else "BTC"
    to, number = world.born.address(customer, chain), hands.next()
    units = 7 * 10**18 if chain.is_evm else 7 * 10**7

    def make(fork: Any) -> None:
        fork.pool = {}
        if chain.is_evm:
            fork.pay(symbol, to.text, units, number)
        else:
            fork.pay(to, units, number)
        for _ in range(fork.confirmations + fork.slow + 2):
            fork.mine()

    true = node.final_height
    fork = process.eyes(chain).lie(0, make)
    hands.scene.early |= {block.ref.hash for block in fork.blocks[true + 1 :]}
    hands.scene.lied |= {block.ref.hash for block in fork.blocks if node.at(block.ref) is None}
    hands.tally["lies"] += 1
    told = "" if process is world.attestor else hands.act(process, process.step)
    hands.then = [
        *([] if process is world.attestor else [lambda hands: _vouches_for_no_lie(hands)]),
        Hands.withdraw,
        Hands.work,
        lambda hands: _comes_to_light(hands, process, chain),
        lambda hands: hands.follow(chain),
    ]
    return f"{process.name} is told that {customer} paid in {units} {symbol}: {told}"


def _vouches_for_no_lie(hands: Hands) -> str:
    """Whatever a watcher was told and booked, the attestor asks its own nodes."""
    scene, world = hands.scene, hands.world
    for _ in range(8):  # so that nothing but the lie itself stands against it: both chains are as high as what was told
        world.pass_time(30)
        for node in hands.nodes():
            node.mine()
    scene.unlooked += scene.books.update(world)
    standing = [name for name, times in scene.books.standing.items() if times]
    false = [name for name in standing if scene.books.proofs[name].block in scene.lied]
    return _must_refuse(hands, "the_attestor_vouches_for_no_lie") if false else "nothing was booked of it"


def _comes_to_light(hands: Hands, process: Any, chain: Chain) -> str:
    process.eyes(chain).tell_truth()
    node: Chainlike[Any, Any] = hands.node_of(chain)
    while node.height <= max(hands.world.read(lambda work: work.deposits.newest(chain)) or 0, 0):
        hands.world.pass_time(30)
        node.mine()
    return f"the node of {process.name} tells the truth"


def _must_refuse(hands: Hands, invariant: str) -> str:
    """Nobody speaks for books that are not true: without a statement no seat signs a payout."""
    try:
        hands.world.attestor.statement()
    except (Refused, Unavailable, InvalidInput) as error:
        return f"the attestor: {str(error)[:120]}"
    hands.scene.broken.append(Broken(invariant, "the attestor made a statement"))
    return "the attestor made a statement"


# rows

DAMAGES: Final = (
    ("transfers", "units", "units"),
    ("transfers", "destination", "text"),
    ("transfers", "account", "text"),
    ("transfers", "body", "text"),
    ("permits", "body", "text"),
    ("journal", "body", "text"),
    ("postings", "units", "units"),
    ("balances", "units", "units"),
    ("totals", "units", "units"),
)
"""Table, column, and how it is changed. What is not here is a row that nobody would notice, or that authorises nothing."""

MOVING: Final = frozenset({"balances", "totals"})
"""What every entry writes: a watcher that has not asked the attestor yet goes on, which is why these are put right only by hand."""


def damage(hands: Hands) -> str:
    """Somebody with the database's password changes a row: it is told, nothing is done by it, and it is found as he left it."""
    return damage_in(hands, *hands.rng.choice(DAMAGES))


def damage_in(hands: Hands, table: str, column: str, kind: str) -> str:
    """The same in a table and column of one's choice."""
    world = hands.world
    path = world.folder / "ledger.db"
    with sqlite3.connect(path) as raw:
        keys = ", ".join(name for _, name, _, _, _, key in raw.execute(f"PRAGMA table_info({table})") if key)
        rows = raw.execute(f"SELECT {column}, {keys} FROM {table} ORDER BY {keys}").fetchall()  # noqa: S608  # our own names
        if not rows:
            return f"no row of {table} to damage"
        was, *row = hands.rng.choice(rows)
        where = " AND ".join(f"{key} = ?" for key in keys.split(", "))
        made = _changed(was, kind)
        _write(raw, f"{table} SET {column} = ? WHERE {where}", table, (made, *row))
    raw.close()
    hands.tally["damaged rows"] += 1
    signed, sent = len(world.witnessed), len(world.sent)
    moving = _carried(path, table, where, row)
    told = _looked_at(hands, table, moving)
    with sqlite3.connect(path) as raw:
        (found,) = raw.execute(f"SELECT {column} FROM {table} WHERE {where}", row).fetchone()  # noqa: S608
        if found != made and table not in MOVING:
            what = f"{table}.{column} of row {row} was written"
            hands.scene.broken.append(Broken("a_damaged_row_stays_as_it_is", what))
        _write(raw, f"{table} SET {column} = ? WHERE {where}", table, (was, *row))
    raw.close()
    digest = world.born.domain.digest
    named = {digest(t.intent) for each in world.witnessed[signed:] for t in each.request.transfers}
    for name in named & moving:
        told_of = f"{name.hex()} was signed for, with its row of {table} damaged"
        hands.scene.broken.append(Broken("a_damaged_row_moves_nothing", told_of))
    world.kill(*world.mortals, world.attestor)
    return f"{table}.{column} of row {row} changed behind everybody's back: {told}; {len(world.sent) - sent} sent"


_OPEN: Final = "status NOT IN ('COMPLETED', 'CANCELLED', 'REJECTED', 'FAILED', 'EXPIRED')"


def _carried(path: Path, table: str, where: str, row: Sequence[Any]) -> set[bytes]:
    """The unfinished transfers that a row of transfers or permits is about, by what else stands in the database."""
    asks = {
        "transfers": f"SELECT digest FROM transfers WHERE {where} AND {_OPEN}",  # noqa: S608  # our own names
        "permits": f"SELECT digest FROM transfers WHERE {_OPEN} AND digest IN "  # noqa: S608
        f"(SELECT transfer FROM permit_intents WHERE permit IN (SELECT number FROM permits WHERE {where}))",
    }
    if table not in asks:
        return set()
    with sqlite3.connect(path) as raw:
        found = {digest for (digest,) in raw.execute(asks[table], row)}
    raw.close()
    return found


def _looked_at(hands: Hands, table: str, moving: set[bytes]) -> str:
    """Who reads this row says so: the worker names a damaged transfer or permit, the attestor refuses books that differ."""
    world = hands.world
    faulty, hands.faulty = hands.faulty, 0
    world.attestor.begin_again()
    idle = [worker for worker in world.workers if not world.baton.sleeps(worker.name)]
    told = hands.act(idle[0], lambda: hands.told(idle[0].step())) if idle else ""
    if table not in {"transfers", "permits"}:
        told += _must_refuse(hands, "a_damaged_ledger_is_told")
    elif moving and "faults: [" in told and not ("row_damaged" in told or "malformed" in told):
        hands.scene.broken.append(Broken("a_damaged_row_is_told", f"{table}: {told}"))
    hands.faulty = faulty
    return told


def _changed(was: Any, kind: str) -> Any:
    if kind == "units":
        text = str(was)
        return type(was)(text[:-1] + str((int(text[-1]) + 1) % 10)) if was else was
    return was[:-2] + ("x" if was[-2:-1] != "x" else "y") + was[-1:]


def _write(raw: sqlite3.Connection, change: str, table: str, values: Sequence[Any]) -> None:
    """Past the triggers: who may drop one may change every row."""
    triggers = raw.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,)
    ).fetchall()
    for name, _ in triggers:
        raw.execute(f"DROP TRIGGER {name}")
    raw.execute("PRAGMA ignore_check_constraints=ON")
    raw.execute(f"UPDATE {change}", values)
    for _, sql in triggers:
        raw.execute(sql)


# copies


def back_up(hands: Hands) -> str:
    """Somebody makes a copy of the database and of one seat's vault."""
    world = hands.world
    hands.copy = world.keep_copy("older.db")
    hands.copied = world.read(lambda work: work.journal.head().position)
    hands.vault_copy = {path: [*versions] for path, versions in hands.hostile.vault.documents.items()}
    return f"copies made at position {hands.copied}"


def lose_database(hands: Hands) -> str:
    """The database is lost and an older copy put in its place: nobody speaks for it and nothing is signed; then the newest is found."""
    world = hands.world
    if hands.copy is None or world.vouched <= hands.copied:
        return "no copy that is older than what was vouched for"
    world.kill(*world.mortals)
    newest, signed = world.keep_copy("newest.db"), len(world.witnessed)
    books, hands.scene.books = hands.scene.books, Books()
    acknowledged = {*hands.scene.acknowledged}
    world.put_back(hands.copy)
    hands.tally["databases rolled back"] += 1
    faulty, hands.faulty = hands.faulty, 0
    told = [_must_refuse(hands, "nobody_vouches_for_a_rolled_back_database")]
    told += [hands.withdraw(), hands.work(), hands.watch(), hands.work()]
    for each in world.witnessed[signed:]:
        if each.request.transfers:
            hands.scene.broken.append(Broken("nothing_is_signed_on_a_rolled_back_database", each.seat))
    hands.faulty = faulty
    world.put_back(newest)
    hands.scene.books, hands.scene.acknowledged = books, acknowledged
    return f"database rolled back to {hands.copied}, {world.vouched} vouched for: {'; '.join(told)}"


def roll_seat_back(hands: Hands) -> str:
    """One seat's vault is what it was before; behind its attested head it signs nothing. Later its true vault is found."""
    seat = hands.hostile
    if hands.vault_copy is None:
        return "no copy of a vault"
    newest = {path: [*versions] for path, versions in seat.vault.documents.items()}
    seat.vault.documents = {path: [*versions] for path, versions in hands.vault_copy.items()}
    hands.world.kill(seat)
    hands.tally["seats rolled back"] += 1
    hands.scene.rolled_back.add(seat.name)

    def found(hands: Hands) -> str:
        seat.vault.documents = newest
        hands.world.kill(seat)
        return f"the true vault of {seat.name} is found"

    hands.then = [Hands.withdraw, Hands.work, Hands.work, found]
    return f"{seat.name} is rolled back to position {seat.position}"


def repair(hands: Hands) -> None:
    """Everything as it should be: clocks right, nodes honest, seats willing, blocks cheap; nothing follows any more."""
    world = hands.world
    while hands.then:
        hands.then.pop(0)(hands)
    for process in world.everybody:
        process.skew = 0
        process.evm.tell_truth()
        process.bitcoin.tell_truth()
    world.attestor.second_evm.tell_truth()
    world.attestor.second_bitcoin.tell_truth()
    for seat in world.seats:
        seat.mood = ""
    world.evm.slow, world.evm.refusing, world.evm.price, world.bitcoin.rate = 0, set(), 1, 2
    world.evm.lossy = world.bitcoin.lossy = ""
