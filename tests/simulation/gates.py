# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a process may die or lose an answer: every call that leaves it, before and after. One gate counts them all."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar, cast

from custody.rules.errors import Unavailable

T = TypeVar("T")


class Crash(BaseException):
    """A process is gone: no handler of the code under test may see it, so it is no `Exception`. `owner` is whose."""

    def __init__(self, at: str) -> None:
        super().__init__(at)
        self.owner = at.partition("/")[0]


class Fault(Enum):
    """What happens at a call: the process dies before or after it, or only the call or its answer is lost."""

    DIES_BEFORE = "dies before"
    DIES_AFTER = "dies after"
    LOST = "call lost"
    ANSWER_LOST = "answer lost"

    @property
    def kills(self) -> bool:
        """Whether the process is gone."""
        return self in {Fault.DIES_BEFORE, Fault.DIES_AFTER}


@dataclass
class Gate:
    """Counts calls; at the armed one its fault strikes, once. Unarmed it lets everything pass."""

    left: int = 0
    fault: Fault = Fault.DIES_BEFORE
    struck: str = ""
    """The call at which it struck since it was armed."""
    points: Counter[str] = field(default_factory=Counter)
    """How often a fault struck, by call and fault, in all."""
    calls: Counter[str] = field(default_factory=Counter)

    def arm(self, left: int, fault: Fault) -> None:
        """The `left`-th call from now."""
        self.left, self.fault, self.struck = left, fault, ""

    def disarm(self) -> None:
        """Nothing strikes any more."""
        self.left = 0

    def __call__(self, name: str, do: Callable[[], T]) -> T:
        """Do it, unless it is time. Raises Crash or Unavailable."""
        self.calls[name] += 1
        if self.left == 0:
            return do()
        self.left -= 1
        if self.left:
            return do()
        self.struck = f"{name}, {self.fault.value}"
        self.points[self.struck] += 1
        if self.fault in {Fault.DIES_AFTER, Fault.ANSWER_LOST}:
            do()
        raise Crash(self.struck) if self.fault.kills else Unavailable(name, self.fault.value)


def gated(target: T, gate: Gate, label: str) -> T:
    """The same port with each of its calls behind a gate; what is no call passes as it is. `label` is `owner/port`."""

    def method(name: str) -> Callable[..., Any]:
        return lambda _, *given, **named: gate(f"{label}.{name}", lambda: getattr(target, name)(*given, **named))

    def value(name: str) -> property:
        return property(lambda _: getattr(target, name))

    made: dict[str, Any] = {name: value(name) for name in getattr(target, "__dict__", {}) if not name.startswith("_")}
    for name in (each for each in dir(type(target)) if not each.startswith("_")):
        found = getattr(type(target), name)
        made[name] = value(name) if isinstance(found, property) else method(name)
    return cast("T", type(f"Gated{type(target).__name__}", (), made)())
