# SPDX-License-Identifier: AGPL-3.0-or-later
"""Hands what policy owners signed to seats: each judges it by itself, notes it, and takes it once its delay is over there too."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from custody.flows.ports import SeatPort
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refused, Rule
from custody.rules.signatures import Signed
from custody.rules.statements import Statement


@dataclass(frozen=True, slots=True)
class Activated:
    """An activation and the documents of its bundle, oldest first in a sequence of them."""

    signed: Signed[PolicyActivation]
    documents: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Handed:
    """What one seat made of it. `why` says what it waits for, or why it refused or was silent; empty where it has it."""

    seat: str
    why: str = ""
    waits_until: int = 0
    silent: bool = False

    @property
    def has_it(self) -> bool:
        """Whether the bundle is in force there."""
        return not self.why


def hand_over(
    seats: Iterable[SeatPort], line: Sequence[Activated], statement: Signed[Statement] | None
) -> list[Handed]:
    """Every seat gets the last of these; one that lacks an earlier bundle gets those first. `statement` tells a devnet's time.

    Never raises for one seat: what refuses or is silent is told, and the others are asked all the same.
    """
    return [_hand(seat, line, statement) for seat in seats]


def _hand(seat: SeatPort, line: Sequence[Activated], statement: Signed[Statement] | None) -> Handed:
    try:
        for missing in reversed(range(len(line))):  # one after the other backwards, until it follows what the seat has
            try:
                seat.admit_policy(line[missing].signed, line[missing].documents, statement)
            except Refused as refused:
                if missing == 0 or Rule.NOT_SUCCESSOR not in {refusal.rule for refusal in refused.refusals}:
                    raise
            else:
                for later in line[missing + 1 :]:
                    seat.admit_policy(later.signed, later.documents, statement)
                return Handed(seat.name)
    except Refused as refused:
        early = [r.operands.get("not_before") for r in refused.refusals if r.rule is Rule.TOO_EARLY]
        return Handed(seat.name, str(refused), early[0] if early and isinstance(early[0], int) else 0)
    except InvalidInput as error:
        return Handed(seat.name, str(error))
    except Unavailable as error:
        return Handed(seat.name, str(error), silent=True)
    return Handed(seat.name, "nothing was handed over")
