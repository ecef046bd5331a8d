# SPDX-License-Identifier: AGPL-3.0-or-later
"""More bugs to plant: one for each kind of fault that only a run with clocks, nodes, copies and several processes can show."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from custody.flows import authorization, leases, payout_records, payouts, proposals, reorgs
from custody.flows.attestation import Attestor
from custody.rules import approvals, holds, seat, seat_case, seat_checks_anchor, seat_checks_statement, transfers
from custody.rules.origins import Release
from custody.rules.payments import Mined
from custody.rules.transfers import Status
from custody.store import transfers_mapping
from custody.vault.attestor_memory import VaultMemory
from tests.simulation import governing, mischief
from tests.simulation.hands import Action, Hands
from tests.simulation.openings import (
    asks,
    asks_seats_again,
    damages_an_amount,
    dee_and_bo_approve,
    freezes_all,
    leaves_nonce,
    lied_to,
    loses_answer,
    mines_one,
    paused_in_its_turn,
    waits,
    works,
)
from tests.simulation.plants import Patch, Plant


def fence_dropped(patch: Patch) -> None:
    """A worker that was paused past its lease writes on: nobody compares its turn with the newest."""

    def run(self: Any, work: Any) -> Any:
        return self._store.run(work)

    patch.setattr(leases.Fenced, "run", run)


def _without(patch: Patch, dropped: Any) -> None:
    """A seat that asks everything but this."""
    checks = {kind: tuple(check for check in asked if check is not dropped) for kind, asked in seat.CHECKS.items()}
    patch.setattr(seat, "CHECKS", checks)


def stale_statement_accepted(patch: Patch) -> None:
    """A seat takes a statement however old it is."""
    _without(patch, seat_checks_statement.check_fresh)


def rolled_back_seat_signs(patch: Patch) -> None:
    """A seat that was restored from an old copy signs as if it remembered."""
    _without(patch, seat_checks_statement.check_head)


def frozen_seat_signs(patch: Patch) -> None:
    """A seat takes a freeze and signs all the same."""

    def nothing(_: Any) -> Iterator[Any]:
        return iter(())

    _without(patch, seat_checks_anchor.check_freeze)
    patch.setattr(seat_checks_anchor, "check_freeze", nothing)


def lost_answer_is_failure(patch: Patch) -> None:
    """The node does not answer a broadcast: the transfer is FAILED, and its customer has the balance back."""
    send = payouts._send
    moves = {
        status: frozenset({*after, Status.FAILED}) if after else after for status, after in transfers.MOVES.items()
    }

    def hasty(post: Any, permit: Any, kept: Any) -> None:
        send(post, permit, kept)

        def fail(work: Any) -> None:
            for transfer in payout_records.carried(work, permit):
                if transfer.status is Status.BROADCAST_UNKNOWN:
                    work.transfers.update(transfers.move(transfer, Status.FAILED, post.now, None), transfer)
                    _release(work, transfer, post)

        post.store.run(fail)

    patch.setattr(transfers, "MOVES", moves)
    patch.setattr(payouts, "_send", hasty)


def _release(work: Any, transfer: Any, post: Any) -> None:
    if transfer.hold is None:
        return
    entry = holds.release(Release(transfer.hold, transfer.digest, (), ()), transfer.intent, post.kernel.assets)
    if entry is not None:
        work.journal.append(entry, post.now)


def hold_freed_at_first_confirmation(patch: Patch) -> None:
    """The hold of a void is free as soon as a block has it, whatever happens to that block."""
    follow = payouts._follow

    def hasty(post: Any, permit: Any, carried: Any, kept: Any) -> None:
        wallet = payouts._wallet(post.kernel, permit.reservation.anchor)
        found = post.chain.follow(payouts._certificate(post, permit, wallet).message, kept)
        if isinstance(found, Mined):

            def free(work: Any) -> None:
                for transfer in payout_records.carried(work, permit):
                    freed = [r.entry.origin for r in work.journal.read(0, 100_000)]
                    if transfer.digest not in [o.intent for o in freed if isinstance(o, Release)]:
                        _release(work, transfer, post)

            post.store.run(free)
        follow(post, permit, carried, kept)

    patch.setattr(payouts, "_follow", hasty)


def second_credit_after_reorg(patch: Patch) -> None:
    """A reorg takes what was booked: it is seen again and booked again, and the first entry is left standing."""
    patch.setattr(reorgs, "_reverse", lambda *_: None)


def lost_payout_not_sent_again(patch: Patch) -> None:
    """What a reorg or a mempool loses is not sent again: it waits for a block for ever."""
    patch.setattr(payouts, "_send_again", lambda *_: None)


def rolled_back_database_vouched_for(patch: Patch) -> None:
    """The attestor begins anew wherever the books end, and forgets what it vouched for."""
    patch.setattr(VaultMemory, "attested", lambda _: None)
    patch.setattr(VaultMemory, "extend", lambda *_: None)
    final = Attestor._final

    def lenient(self: Any, panels: Any, chain: Any, history: Any) -> Any:
        self._heights = {}
        return final(self, panels, chain, history)

    patch.setattr(Attestor, "_final", lenient)


def damaged_row_believed(patch: Patch) -> None:
    """Nobody compares a transfer's row with the documents in it."""
    patch.setattr(transfers_mapping, "_SAME", {})


def leaver_counts(patch: Patch) -> None:
    """Whoever stood in the roster that an intent pins may approve it for ever, gone or not (Ronin: an expired grant is used)."""

    def pinned_alone(given: Any, intent: Any, digest: bytes, pinned: Any, newest: Any, now: int) -> Any:
        del newest
        return count(given, intent, digest, pinned, pinned, now)

    count = approvals.count
    for room in (seat_case, authorization, proposals):
        if hasattr(room, "count"):
            patch.setattr(room, "count", pinned_alone)


def phantom_vouched_for(patch: Patch) -> None:
    """The attestor takes the ledger's word for what arrived."""
    patch.setattr(Attestor, "_audit", lambda *_: None)


_PAYS: Final[Mapping[Action, int]] = {Hands.withdraw: 60, Hands.work: 90, Hands.mine: 40}

PLANTS_OF_FAULTS: Final = (
    Plant(
        "fence dropped",
        fence_dropped,
        frozenset({"a_late_worker_writes_nothing"}),
        {**_PAYS, Hands.side_by_side: 60, Hands.pass_time: 20},
        0.9,
        opening=(asks("ETH", 1), paused_in_its_turn, waits(60), works(1), waits(200)),
    ),
    Plant(
        "stale statement accepted",
        stale_statement_accepted,
        frozenset({"a_statement_is_fresh"}),
        {**_PAYS, Hands.replay: 60, mischief.jump_clock: 30, Hands.pass_time: 20},
        0.1,
        opening=(asks("ETH", 60), dee_and_bo_approve, works(0), works(0), waits(1_200), asks_seats_again),
    ),
    Plant(
        "rolled-back seat signs",
        rolled_back_seat_signs,
        frozenset({"no_seat_signs_behind_its_head"}),
        {**_PAYS, mischief.back_up: 10, mischief.roll_seat_back: 30},
        0.1,
        opening=(
            mischief.back_up,
            asks("ETH", 1),
            works(0),
            asks("ETH", 2),
            works(1),
            mischief.roll_seat_back,
            asks("ETH", 3),
            works(0),
            asks_seats_again,
        ),
    ),
    Plant(
        "frozen seat signs",
        frozen_seat_signs,
        frozenset({"nothing_frozen_is_signed"}),
        {**_PAYS, governing.freeze: 30, Hands.replay: 40},
        0.1,
        opening=(asks("ETH", 1), works(0), freezes_all, asks_seats_again),
    ),
    Plant(
        "lost answer counted as failure",
        lost_answer_is_failure,
        frozenset({"a_transfer_ended_as_it_says", "a_hold_is_freed_by_final_consumption"}),
        {**_PAYS, Hands.lose_answers: 40},
        0.1,
        opening=(asks("ETH", 1), loses_answer, works(0)),
    ),
    Plant(
        "hold freed at first confirmation",
        hold_freed_at_first_confirmation,
        frozenset({"a_hold_is_freed_by_final_consumption", "holds_are_unfinished_transfers"}),
        _PAYS,
        0.1,
        opening=(asks("ETH", 1), works(0), mines_one, works(0)),
    ),
    Plant(
        "second credit after a reorg",
        second_credit_after_reorg,
        frozenset({"an_orphaned_deposit_nets_to_zero", "a_deposit_credits_once"}),
        {Hands.double_spend: 30, Hands.reorg: 30, Hands.deposit: 20, Hands.watch: 30},
        0.1,
    ),
    Plant(
        "lost payout not sent again",
        lost_payout_not_sent_again,
        frozenset({"everything_ends_or_waits_for_people"}),
        {**_PAYS, Hands.forget: 40, Hands.reorg: 20},
        0.1,
        steps=6,
        rest=True,
        opening=(asks("ETH", 1), works(0), leaves_nonce),
    ),
    Plant(
        "rolled-back database vouched for",
        rolled_back_database_vouched_for,
        frozenset({"nobody_vouches_for_a_rolled_back_database", "nothing_is_signed_on_a_rolled_back_database"}),
        {**_PAYS, mischief.back_up: 20, mischief.lose_database: 40},
        0.1,
        opening=(mischief.back_up, asks("ETH", 1), works(0), mischief.lose_database),
    ),
    Plant(
        "damaged row believed",
        damaged_row_believed,
        frozenset({"a_damaged_row_is_told", "a_damaged_row_moves_nothing", "nothing_else_is_raised"}),
        {**_PAYS, mischief.damage: 60},
        0.1,
        opening=(asks("ETH", 1), damages_an_amount),
    ),
    Plant(
        "who left the roster counts",
        leaver_counts,
        frozenset({"people_or_caps"}),
        {Hands.withdraw: 30, Hands.work: 40, Hands.approve_all: 40, governing.next_roster: 30, Hands.pass_time: 20},
        0.1,
        opening=(
            asks("ETH", 60),
            dee_and_bo_approve,
            governing.next_roster,
            waits(3_700),
            governing.next_roster,
            works(0),
            works(1),
        ),
    ),
    Plant(
        "phantom deposit vouched for",
        phantom_vouched_for,
        frozenset({"the_attestor_vouches_for_no_lie"}),
        {mischief.lie: 60},
        0.1,
        opening=(lied_to,),
    ),
)
