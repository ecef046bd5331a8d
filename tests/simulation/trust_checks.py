# SPDX-License-Identifier: AGPL-3.0-or-later
"""Invariants about who may be believed: seats, their journals, the attestor's word, leases, and what stands behind each payment."""

from collections.abc import Iterator
from typing import Final

from custody.rules.governance import Freeze
from custody.rules.ledger import entry_hash
from custody.rules.seat_request import Kind
from custody.rules.transfers import MOVES, REOPENS
from custody.rules.wallets import Address, Chain, Tier
from custody.vault.seat_memory import anchor_path
from tests.fakes.seat import BITCOIN, COLD, EVM
from tests.simulation.books import on_chain
from tests.simulation.processes import Witnessed
from tests.simulation.scene import Scene, anchor_of

FRESH: Final = 600
"""Seconds that a statement may be old where an online seat signs, as TRUST.md's "minutes"; twelve hours for a cold one."""
FRESH_COLD: Final = 12 * 3600
M: Final = 3
CAP: Final = {"BTC": 100 * 10**8, "ETH": 2_500 * 10**18, "USDX": 10**13, "USDN": 10**13}
"""Base units that a hot wallet may hold after a payment into it, as the shipped limits say; not read from the bundle."""


# at a signature


def nothing_frozen_is_signed(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """A seat that was handed a freeze signs no payout that it covers, until it lapses or a quorum ends it."""
    request = witnessed.request
    if request.kind is not Kind.PAYOUT:
        return
    for each in request.transfers:
        wallet = each.intent.wallet.hex()
        scopes = {"all", each.intent.account, f"chain:{each.intent.chain}", f"wallet:{wallet}", f"wallet:0x{wallet}"}
        for freeze in scene.frozen.get(witnessed.seat, {}).values():
            if freeze.scope in scopes and _in_force(freeze, witnessed):
                yield f"{witnessed.seat} signed {each.intent.id} under a freeze of {freeze.scope}"


def _in_force(freeze: Freeze, witnessed: Witnessed) -> bool:
    """By the run's clock and by the seat's own, which may be wrong: it counts while both say so."""
    return freeze.from_time <= witnessed.at < freeze.lapses and freeze.from_time <= witnessed.told < freeze.lapses


def no_seat_signs_behind_its_head(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """Stale backup restored: a seat whose journal is behind what the attestor saw of it signs nothing but a rotation."""
    for told in witnessed.request.statement.message.seats:
        if told.seat == witnessed.seat and witnessed.position < told.position:
            yield f"{witnessed.seat} signed at position {witnessed.position}; the attestor saw {told.position}"


def a_statement_is_fresh(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """Unknown means no: what a seat signs for the first time rests on a statement of the last minutes, by its own clock."""
    age = witnessed.told - witnessed.request.statement.message.time
    oldest = FRESH_COLD if witnessed.seat in COLD else FRESH
    if age > oldest:
        yield f"{witnessed.seat} signed on a statement {age} seconds old"


def nothing_signed_fills_hot_above_its_cap(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """Coincheck: nothing that is signed leaves a hot wallet above its cap, whoever approved it."""
    world = scene.world
    for each in witnessed.request.transfers:
        to = world.inventory.wallet_of(Address(Chain(each.intent.chain), each.intent.destination))
        if to is None or to.tier is not Tier.CUSTOMER_HOT or to.name == each.intent.wallet:
            continue
        chain = EVM if to.chain.is_evm else BITCOIN
        node = world.evm if to.chain.is_evm else world.bitcoin
        there = on_chain(world, frozenset({Tier.CUSTOMER_HOT}), chain, each.intent.asset, node.final_height)
        if there + each.intent.amount > CAP[each.intent.asset]:
            yield f"{witnessed.seat} signed {each.intent.amount} {each.intent.asset} into hot, which has {there}"


# after each step


def the_hash_chain_holds(scene: Scene) -> Iterator[str]:
    """Every entry's hash covers the one before it: an edited row shows."""
    for recorded in scene.fresh:
        before = scene.books.entries[recorded.position - 2].hash if recorded.position > 1 else bytes(32)
        wanted = entry_hash(recorded.position, recorded.recorded_at, before, recorded.entry)
        if (recorded.previous, recorded.hash) != (before, wanted):
            yield f"entry {recorded.position} does not follow from the one before it"


def holds_are_unfinished_transfers(scene: Scene) -> Iterator[str]:
    """What is held for customers is exactly what transfers that have not ended hold."""
    readable = {transfer.digest: transfer for transfer in scene.transfers}
    for name in scene.books.held.keys() - scene.books.freed.keys():
        transfer = readable.get(name)
        if transfer is not None and transfer.status.is_final:
            yield f"{transfer.intent.id} is {transfer.status}, and its hold stands"
    for transfer in scene.transfers:
        held = transfer.digest in scene.books.held and transfer.digest not in scene.books.freed
        if transfer.hold is not None and not transfer.status.is_final and not held:
            yield f"{transfer.intent.id} is {transfer.status}, and its hold is gone"


def a_payment_has_its_permit_and_its_quorum(scene: Scene) -> Iterator[str]:
    """Nothing left a wallet without a permit, nor without M seats' signatures given over its intent."""
    digest = scene.world.born.domain.digest
    for payment in scene.paid:
        transfer = scene.by_paid.get(payment.paid)
        if transfer is None:
            continue
        permit = scene.world.read(lambda work, d=transfer.digest: work.transfers.permit_of(d))  # type: ignore[misc]
        if permit is None:
            yield f"{transfer.intent.id} was paid without a permit"
        seats = scene.signers.get(digest(transfer.intent), set())
        if len(seats) < M:
            yield f"{transfer.intent.id} was paid, and {sorted(seats)} signed"


def what_was_acknowledged_is_there(scene: Scene) -> Iterator[str]:
    """Acknowledged writes survive any single fault: what a client was told is recorded, is."""
    there = {transfer.digest for transfer in scene.transfers} | {
        bytes.fromhex(damaged.name) for damaged in scene.world.damaged()
    }
    for lost in scene.acknowledged - there:
        yield f"{lost.hex()} was acknowledged and is not there"


def a_late_worker_writes_nothing(scene: Scene) -> Iterator[str]:
    """Leases with fencing: what a worker writes after somebody else had its turn leaves nothing."""
    late, scene.world.turns.late = scene.world.turns.late, []
    yield from late


def moves_were_legal(scene: Scene) -> Iterator[str]:
    """Every status follows the one before it by the table."""
    for transfer in scene.transfers:
        history = scene.world.read(lambda work, d=transfer.digest: work.transfers.history(d))  # type: ignore[misc]
        known = scene.told.get(transfer.digest, 0)
        for before, after in zip(history[max(0, known - 1) :], history[max(1, known) :], strict=False):
            if after.status not in MOVES[before.status] and after.status is not REOPENS.get(before.status):
                yield f"{transfer.intent.id} went from {before.status} to {after.status}"
        scene.told[transfer.digest] = len(history)


# at rest


def seats_remember_what_the_chain_shows(scene: Scene) -> Iterator[str]:
    """Whoever signed what was paid has its anchor in its own vault: asked again for another payload it would refuse."""
    vaults = {seat.name: seat.vault.documents for seat in scene.world.seats}
    for payment in scene.paid:
        transfer = scene.by_paid.get(payment.paid)
        if transfer is None:
            continue
        name = scene.world.born.domain.digest(transfer.intent)
        for seat in scene.signers.get(name, set()) - scene.rolled_back:
            if scene.signed[name] is not None and anchor_path(scene.signed[name]) not in vaults[seat]:
                yield f"{seat} signed {transfer.intent.id} and has forgotten it"


def requests_name_their_anchor(scene: Scene, witnessed: Witnessed) -> Iterator[str]:
    """The attestor's word is about one anchor: the one that the seat's own decoder found."""
    if len(witnessed.request.statement.message.anchor) != 1:
        yield f"{witnessed.seat} signed on a statement about no anchor"
    elif anchor_of(witnessed.request).wallet != witnessed.request.wallet:
        yield f"{witnessed.seat} signed for another wallet's anchor"
