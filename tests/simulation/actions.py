# SPDX-License-Identifier: AGPL-3.0-or-later
"""How often each thing happens in a run."""

from typing import Final

from tests.simulation import governing, mischief
from tests.simulation.hands import Action, Hands

ACTIONS: Final[tuple[tuple[int, Action], ...]] = (
    (8, Hands.deposit),
    (12, Hands.withdraw),
    (3, Hands.ask_again),
    (4, Hands.trade),
    (4, Hands.rebalance),
    (4, Hands.approve),
    (6, Hands.approve_all),
    (3, Hands.refuse),
    (3, Hands.void),
    (2, Hands.find_owner),
    (1, Hands.make_good),
    (22, Hands.work),
    (20, Hands.watch),
    (8, Hands.side_by_side),
    (3, Hands.balance),
    (2, Hands.restart),
    (20, Hands.mine),
    (4, Hands.pass_time),
    (4, Hands.reorg),
    (3, Hands.forget),
    (4, Hands.lose_answers),
    (1, Hands.slow_finality),
    (1, Hands.refuse_coins),
    (3, Hands.seat_turns),
    (4, Hands.replay),
    (2, Hands.double_spend),
    (1, Hands.drain),
    (3, mischief.jump_clock),
    (3, mischief.lag),
    (1, mischief.lie),
    (2, mischief.damage),
    (2, mischief.back_up),
    (2, mischief.lose_database),
    (1, mischief.roll_seat_back),
    (1, governing.freeze),
    (1, governing.unfreeze),
    (1, governing.next_roster),
    (1, governing.push_policy),
)
"""How often each happens, against the others."""
