# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a bench asks of another policy engine: the same bundle in its own words, the same facts, an answer that can be compared.

Each engine has the bundle parsed once, and gets facts that were brought into its own form beforehand, which is not counted. Its record
is canonical JSON under SHA-256, as ours, of less: nobody but us says of each other rule what was not met.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from itertools import cycle
from typing import Any, Final, Protocol

from custody.rules.facts import Facts
from custody.rules.ledger import canonical
from custody.rules.requirement import Decision, Outcome
from policies.rules_model import Comparator, PolicyRule
from tests.bench.harness import Side

AXIOM: Final = "axiom-"
"""Before the number of an axiom, where an engine names it as the reason of a no."""
BY_ITSELF: Final = "automatic-"
"""Before the id of a permit, where its `automatic_when` holds too."""
SIGNS: Final = {
    Comparator.AT_MOST: "<=",
    Comparator.LESS_THAN: "<",
    Comparator.AT_LEAST: ">=",
    Comparator.MORE_THAN: ">",
}
WORD_MOST: Final = 2**63 - 1
"""The largest number of 64 bits."""
Form = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer as it is compared: the outcome, whether the facts cannot be, the rules that say so, and who is asked.

    `rules` are all that matched, and of a transfer that is denied the denies alone, which is all that Cedar tells.
    """

    outcome: Outcome
    impossible: bool
    rules: frozenset[str]
    approvals: frozenset[tuple[str, int]] = frozenset()
    delay: int = 0
    displaying: int = 0

    @classmethod
    def of(cls, decision: Decision) -> "Told":
        """Our own."""
        asked = decision.requirement
        if asked is None:
            return cls(Outcome.DENY, bool(decision.faults), frozenset(decision.denied_by))
        groups, matched = frozenset(asked.approvals), frozenset(decision.matched)
        return cls(decision.outcome, False, matched, groups, asked.delay, asked.displaying)


def asked_by(rules: Iterable[PolicyRule]) -> tuple[frozenset[tuple[str, int]], int, int]:
    """The most that any of these rules asks of each group, the longest delay, and the most keys that display."""
    groups: dict[str, int] = {}
    delay = displaying = 0
    for rule in rules:
        delay, displaying = max(delay, rule.delay), max(displaying, rule.displaying)
        for group, needed in rule.approvals:
            groups[group] = max(needed, groups.get(group, 0))
    return frozenset(groups.items()), delay, displaying


class Engine(Protocol):
    """Another policy engine with a bundle in it."""

    def form(self, facts: Facts) -> Form | None:
        """The facts as this engine takes them; None where one of its numbers cannot hold them."""
        ...

    def ask(self, form: Form) -> Any:
        """Its answer, as JSON. Raises RuntimeError where it made an error of it."""
        ...

    def told(self, answer: Any) -> Told:
        """What the answer says."""
        ...


def plain(facts: Facts) -> Form:
    """Facts as plain words, numbers and truth values; a destination that is no wallet of ours is in the tier `none`."""
    row: Form = {name: getattr(facts, name) for name in Facts.__dataclass_fields__}
    return {name: "none" if v is None else str(v) if isinstance(v, StrEnum) else v for name, v in row.items()}


def fits(form: Mapping[str, Any]) -> bool:
    """Whether every number has at most 64 bits."""
    return all(type(value) is not int or value <= WORD_MOST for value in form.values())


def side(ask: Callable[[Form], Any], forms: Sequence[Form], bundle: str, at: int, many: int) -> Side:
    """A side of a comparison: so many transfers a slice, each answered and its record hashed."""
    turns = cycle(forms)

    def slice_() -> int:
        for _, form in zip(range(many), turns, strict=False):
            answer = ask(form)
            sha256(
                canonical({"answer": answer, "facts": form, "bundle": bundle, "at": at, "what": "proposed"})
            ).digest()
        return many

    return slice_
