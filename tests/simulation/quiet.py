# SPDX-License-Identifier: AGPL-3.0-or-later
"""The end of a run: no faults any more, everybody honest and awake, until nothing changes. Then everything has ended, or says why not."""

import re
from typing import Final

from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.refusals import Refused
from tests.fakes.seat import BITCOIN, EVM
from tests.simulation.governing import carry_roster
from tests.simulation.hands import Hands
from tests.simulation.mischief import repair

QUIET: Final = 40
"""Rounds at the most until a run is at rest."""
STILL: Final = 6
"""Rounds without a change that count as rest: more than finality takes."""
LONG: Final = re.compile(r"\d{5,}")
"""Numbers like a time, which changes from round to round."""
LATER: Final = 7_200
"""Seconds first of all: a seat whose clock was ahead waits for the others, and freezes of a run lapse."""


def quieten(hands: Hands) -> str:
    """No faults, every block mined, everything followed, until nothing changes.

    What is stuck then people void, once, since nobody else may; and again until nothing changes.
    """
    world = hands.world
    repair(hands)
    hands.faulty = 0
    world.kill(*world.everybody)
    hands.bury()
    if hands.later or hands.frozen or len(world.rosters) > 1:
        world.pass_time(LATER)
    for _ in range(2):  # the first time each seat only notes it
        carry_roster(hands, world.rosters[-1])
    rounds = _until_still(hands, 0)
    voided = hands.void_stuck()
    if voided:
        rounds = _until_still(hands, rounds)
    return f"quiet after {rounds} rounds; people voided {voided or 'nothing'}"


def _until_still(hands: Hands, rounds: int) -> int:
    world = hands.world
    before: object = None
    same = 0
    for _ in range(QUIET):
        rounds += 1
        world.pass_time(60)
        for node in (world.evm, world.bitcoin):
            node.mine()
        try:
            for chain in (EVM, BITCOIN):
                while world.watchers[chain][0].step().behind:
                    pass
            hands.told(world.workers[rounds % 2].step())
        except (Unavailable, Refused, InvalidInput) as error:
            after: object = str(error)
        else:
            after = [(t.status, LONG.sub("#", t.waiting_for)) for t in world.transfers()]
        same = same + 1 if after == before else 0
        if same >= STILL:
            break
        before = after
    return rounds
