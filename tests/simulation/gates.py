# SPDX-License-Identifier: AGPL-3.0-or-later
"""Where a process may die, fail, lose an answer or be paused: every method of every port, and every commit, by reflection.

Nothing is listed here: a method that a port gains is a gate from then on. A gate's kind is `role/Port.method`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any, Final, TypeVar, cast, get_type_hints

from custody.chains.evm.relay import RelaySigner
from custody.flows import ports
from custody.flows.ports import Store, UnitOfWork
from custody.rules.errors import Unavailable
from custody.vault.storage import Vault
from tests.simulation.baton import Baton, Crash, Life
from tests.simulation.turns import Turns

T = TypeVar("T")

COMMIT: Final = "Store.commit"
"""The moment between a transaction's last statement and its commit; what follows it is `Store.run`, after."""
PAST_THE_LEASE: Final = 150
"""Seconds of an answer that takes too long: a turn has 30."""


class Fault(Enum):
    """What happens at a call: the process dies, the call or only its answer is lost, or it takes longer than a lease."""

    DIES_BEFORE = "dies before"
    DIES_AFTER = "dies after"
    LOST = "call lost"
    ANSWER_LOST = "answer lost"
    SLOW = "slow"

    @property
    def kills(self) -> bool:
        """Whether the process is gone."""
        return self in {Fault.DIES_BEFORE, Fault.DIES_AFTER}


@cache
def methods_of(port: type) -> tuple[str, ...]:
    """The calls of a port; what is only a value, like its name, is none."""
    return tuple(
        name
        for name in dir(port)
        if not name.startswith("_") and callable(getattr(port, name)) and not isinstance(getattr(port, name), property)
    )


@cache
def every_port() -> tuple[type, ...]:
    """Every port that the flows, a key-holder and the EVM payouts have; a unit of work is none by itself, its parts are."""
    found = [each for each in vars(ports).values() if isinstance(each, type) and getattr(each, "_is_protocol", False)]
    return (*(each for each in found if each is not UnitOfWork), Vault, RelaySigner)


def every_method() -> frozenset[str]:
    """`Port.method` of every port, and the commit; of what one port has from another, each is counted once."""
    found = {f"{_owner(port, name).__name__}.{name}" for port in every_port() for name in methods_of(port)}
    return frozenset(found | {COMMIT})


def _owner(port: type, name: str) -> type:
    return next(each for each in port.__mro__ if name in vars(each))


@dataclass
class Plan:
    """A fault to come: at the `left`-th call of a kind, or of any where there is none."""

    left: int
    fault: Fault
    kind: str = ""


@dataclass
class Gate:
    """Counts calls; where a plan is due its fault strikes, once."""

    baton: Baton
    jump: Callable[[int], None]
    """Moves the run's clock forward."""
    turns: Turns = field(default_factory=Turns)
    """Told of what every transaction does."""
    plans: list[Plan] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)
    """Where faults struck since somebody asked."""
    points: Counter[str] = field(default_factory=Counter)
    """How often a fault struck, by kind and fault."""
    calls: Counter[str] = field(default_factory=Counter)
    seen: dict[str, dict[str, None]] = field(default_factory=dict)
    """By the role of who acts, the kinds of calls on its way, its neighbours' included."""

    def told(self) -> str:
        """Where faults struck since this was asked last."""
        struck, self.struck = self.struck, []
        return "; ".join(struck)

    def __call__(self, life: Life, kind: str, do: Callable[[], T]) -> T:
        """Do it, unless it is time. Raises Crash or Unavailable."""
        if life.dead:
            raise Crash(life, f"{life.name}, dead")
        self.calls[kind] += 1
        acting = self.baton.current
        self.seen.setdefault(acting.life.role if acting else "", {})[kind] = None
        self.baton.point()
        fault = self._due(kind)
        if fault is not None:
            self._strike(life, kind, fault, do)
        if life.dead:
            raise Crash(life, f"{life.name}, dead")
        found = do()
        if self.baton.writing:
            self.turns.call(kind, found)
        if life.dead:  # killed while others did what it had asked
            raise Crash(life, f"{life.name}, dead")
        return found

    def _due(self, kind: str) -> Fault | None:
        for plan in self.plans:
            if plan.kind in {"", kind}:
                plan.left -= 1
                if plan.left <= 0:
                    self.plans.remove(plan)
                    return plan.fault
        return None

    def _strike(self, life: Life, kind: str, fault: Fault, do: Callable[[], object]) -> None:
        at = f"{kind}, {fault.value}"
        self.points[at] += 1
        self.struck.append(f"{life.name}: {at}")
        if fault is Fault.SLOW:
            if self.baton.writing or self.baton.current is None:
                self.jump(PAST_THE_LEASE)
            else:
                self.baton.park(PAST_THE_LEASE)
            return
        if fault in {Fault.DIES_AFTER, Fault.ANSWER_LOST}:
            do()
        if fault.kills:
            life.dead = True
            self.plans.clear()
            raise Crash(life, f"{life.name}: {at}")
        raise Unavailable(kind, fault.value)


@cache
def _gated_class(target: type, port_types: tuple[type, ...]) -> type:
    made: dict[str, Any] = {}
    for name in (each for each in dir(target) if not each.startswith("_")):
        port = next((port for port in port_types if name in methods_of(port)), None)
        found = getattr(target, name)
        if port is None or isinstance(found, property):
            made[name] = _value(name)
        else:
            made[name] = _method(name, f"{_owner(port, name).__name__}.{name}")
    return type(f"Gated{target.__name__}", (_Gated,), made)


class _Gated:
    """A port with each of its calls behind a gate."""

    def __init__(self, target: object, gate: Gate, life: Life) -> None:
        self.__dict__.update(_target=target, _gate=gate, _life=life)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _method(name: str, kind: str) -> Callable[..., Any]:
    def call(self: _Gated, *given: Any, **named: Any) -> Any:
        return self._gate(self._life, f"{self._life.role}/{kind}", lambda: getattr(self._target, name)(*given, **named))

    return call


def _value(name: str) -> property:
    return property(lambda self: getattr(self._target, name))


def gated(target: T, gate: Gate, life: Life, *port_types: type) -> T:
    """The same port with each call that one of these ports names behind a gate; everything else passes as it is."""
    return cast("T", _gated_class(cast("type", type(target)), port_types)(target, gate, life))


@cache
def _parts() -> dict[str, type]:
    """The ports of a unit of work, by its properties."""
    found = {name: each for name, each in vars(UnitOfWork).items() if isinstance(each, property)}
    return {name: get_type_hints(each.fget)["return"] for name, each in found.items()}


class GatedUnit:
    """A unit of work whose every part is behind a gate."""

    def __init__(self, unit: UnitOfWork, gate: Gate, life: Life) -> None:
        for name, port in _parts().items():
            part = _LazyPart(unit, name, gate, life, port)
            self.__dict__[f"_{name}"] = part

    def __getattr__(self, name: str) -> Any:
        if name not in _parts():
            raise AttributeError(name)
        part = self.__dict__[f"_{name}"].open()
        self.__dict__[name] = part
        return part


@dataclass
class _LazyPart:
    unit: UnitOfWork
    name: str
    gate: Gate
    life: Life
    port: type

    def open(self) -> object:
        return gated(getattr(self.unit, self.name), self.gate, self.life, self.port)


class GatedStore:
    """A `Store` of one process: each transaction, each call inside it, and its commit."""

    def __init__(self, store: Store, gate: Gate, life: Life) -> None:
        self._store, self._gate, self._life = store, gate, life

    def run(self, work: Callable[[UnitOfWork], T]) -> T:
        """See `Store`."""
        gate, life, baton = self._gate, self._life, self._gate.baton

        def inside(unit: UnitOfWork) -> T:
            found = work(cast("UnitOfWork", GatedUnit(unit, gate, life)))
            return gate(life, f"{life.role}/{COMMIT}", lambda: found)

        def committed() -> T:
            gate.turns.begin()
            result = self._store.run(inside)
            gate.turns.commit(life)
            return result

        def whole() -> T:
            baton.writing += 1
            try:
                return committed()
            finally:
                baton.writing -= 1

        return gate(life, f"{life.role}/Store.run", whole)

    def read(self, work: Callable[[UnitOfWork], T]) -> T:
        """See `Store`."""
        gate, life = self._gate, self._life

        def inside(unit: UnitOfWork) -> T:
            return work(cast("UnitOfWork", GatedUnit(unit, gate, life)))

        return gate(life, f"{life.role}/Store.read", lambda: self._store.read(inside))
