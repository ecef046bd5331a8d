# SPDX-License-Identifier: AGPL-3.0-or-later
"""What "less strict" means, once: by which ways an answer can ask for less than another one."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import z3  # type: ignore[import-untyped]

from custody.rules.requirement import exact_span
from policies.proofs.symbols import Answer


class Loss(StrEnum):
    """What was lost, the worst first."""

    DENIAL = "a denial"
    PEOPLE = "people: it goes by itself"
    APPROVALS = "approvals"
    DISPLAYING = "keys that display"
    FLOOR = "a seat's floor"
    DELAY = "a delay"


@dataclass(frozen=True, slots=True, order=True)
class Lost:
    """One way to ask for less: its kind, and of which group, or how long a delay."""

    loss: Loss
    what: str = ""

    def __str__(self) -> str:
        return f"{self.loss} ({self.what})" if self.what else str(self.loss)


def losses(strict: Answer, loose: Answer) -> Mapping[Lost, z3.BoolRef]:
    """Each way in which the second answer may ask for less than the first, and where it does.

    Approvals and delay are compared wherever neither denies, automatic or not: they are what people are asked for once a seat's
    counter is full. Nothing where all of these are impossible: then the second is at least as strict, whatever the transfer.
    """
    both = z3.And(z3.Not(strict.denied), z3.Not(loose.denied))
    found = {
        Lost(Loss.DENIAL): z3.And(strict.denied, z3.Not(loose.denied)),
        Lost(Loss.PEOPLE): z3.And(both, z3.Not(strict.automatic), loose.automatic),
        Lost(Loss.FLOOR): z3.And(both, strict.floor > loose.floor),
    }
    for group, thresholds in strict.groups.items():
        fewer = [z3.And(strict.asks(group, needed), z3.Not(loose.asks(group, needed))) for needed in thresholds]
        found[Lost(Loss.APPROVALS, group)] = z3.And(both, z3.Or(*fewer))
    for needed in strict.displayings:
        fewer_shown = z3.And(strict.shows(needed), z3.Not(loose.shows(needed)))
        found[Lost(Loss.DISPLAYING, str(needed))] = z3.And(both, fewer_shown)
    for seconds in strict.delays:
        shorter = z3.And(strict.waits(seconds), z3.Not(loose.waits(seconds)))
        found[Lost(Loss.DELAY, exact_span(seconds))] = z3.And(both, shorter)
    return found
