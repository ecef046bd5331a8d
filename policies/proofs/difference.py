# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a change of a bundle means: every way in which it asks less, or more, each with a transfer that shows it.

The report is a document: canonical JSON whose hash policy owners sign. Anybody who computes it again gets the same bytes, so an
owner's own tool is what they trust, and not whoever sent the report.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Final

import z3  # type: ignore[import-untyped]

from custody.rules.errors import Unavailable
from custody.rules.facts import Facts
from custody.rules.ledger import canonical
from custody.rules.requirement import Decision, Outcome
from policies.bundle import Bundle
from policies.proofs.documents import Change, Direction, changes, reworded
from policies.proofs.examples import Questions, Space
from policies.proofs.losses import Loss, Lost, losses
from policies.proofs.symbols import Answer, Transfer
from policies.vocabulary import ATTRIBUTE

_ROUTE: Final = ("from", "to", "to_tier", "purpose")
_DOMAIN: Final = b"bulkhead policy diff v1\x00"


@dataclass(frozen=True, slots=True)
class Shift:
    """On one route the new bundle asks less or more in one way; `facts` is a transfer that shows it, and both answers to it."""

    direction: Direction
    lost: Lost
    facts: Facts
    old: Decision
    new: Decision

    def to_json(self) -> dict[str, object]:
        """For the report: words, the facts by the vocabulary's names, both answers in a line, and the rules that made them."""
        return {
            "direction": str(self.direction),
            "loss": str(self.lost.loss),
            "what": self.lost.what,
            "facts": self.facts.to_json(),
            "old": answer_text(self.old),
            "new": answer_text(self.new),
            "only_old_rules": sorted({*self.old.matched} - {*self.new.matched}),
            "only_new_rules": sorted({*self.new.matched} - {*self.old.matched}),
        }


@dataclass(frozen=True)
class Difference:
    """Everything that two bundles answer or say differently. `unknown` is what the solver could not tell; it counts as weaker."""

    old: bytes
    new: bytes
    shifts: tuple[Shift, ...]
    changes: tuple[Change, ...]
    reworded: tuple[str, ...]
    claims_change: bool
    unknown: tuple[str, ...] = ()

    @property
    def is_weaker(self) -> bool:
        """Whether anything was loosened, or it is not known that nothing was."""
        found = {shift.direction for shift in self.shifts} | {change.direction for change in self.changes}
        return Direction.WEAKER in found or bool(self.unknown)

    def to_json(self) -> dict[str, object]:
        """The report as a document: the same for everybody who asks."""
        return {
            "old": "0x" + self.old.hex(),
            "new": "0x" + self.new.hex(),
            "verdict": "weaker" if self.is_weaker else "stricter" if self.shifts or self.changes else "same",
            "claims_change": "true" if self.claims_change else "false",
            "shifts": [shift.to_json() for shift in self.shifts],
            "changes": [{**asdict(change), "direction": str(change.direction)} for change in self.changes],
            "reworded": list(self.reworded),
            "unknown": list(self.unknown),
        }

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the canonical JSON; what `PolicyActivation.diff_report` names."""
        return hashlib.sha256(_DOMAIN + canonical(self.to_json())).digest()


def difference(old: Bundle, new: Bundle) -> Difference:
    """Compare two bundles in meaning, both ways. Never raises for what the solver does not know: that is in `unknown`."""
    governed = any(old.documents[name] != new.documents[name] for name in ("claims", "governance"))
    documents, words = changes(old, new), reworded(old, new)
    symbols = {asset.symbol for asset in old.assets} & {asset.symbol for asset in new.assets}
    if not symbols:
        told = ("no asset is in both bundles",)
        return Difference(old.hash, new.hash, (), documents, words, governed, told)
    walk = _Walk(old, new, Transfer(symbols))
    shifts = tuple(walk.shifts())
    return Difference(old.hash, new.hash, shifts, documents, words, governed, tuple(walk.unknown))


def loosens(old: Bundle, new: Bundle) -> bool:
    """Whether anything is loosened, or it is not known that nothing is: the verdict of `difference` without its examples."""
    symbols = {asset.symbol for asset in old.assets} & {asset.symbol for asset in new.assets}
    if not symbols or any(change.direction is Direction.WEAKER for change in changes(old, new)):
        return True
    transfer = Transfer(symbols)
    lost = losses(Answer(old, transfer), Answer(new, transfer))
    try:
        return Questions(Space((old, new), transfer)).is_possible(z3.Or(*lost.values()))
    except Unavailable:
        return True


class _Walk:
    """Both bundles over one symbolic transfer."""

    def __init__(self, old: Bundle, new: Bundle, transfer: Transfer) -> None:
        self._old, self._new, self._transfer = old, new, transfer
        self._questions = Questions(Space((old, new), transfer))
        self.unknown: list[str] = []

    def shifts(self) -> Iterator[Shift]:
        """Weaker before stricter, the worst kind of loss first, then by route."""
        was, now = Answer(self._old, self._transfer), Answer(self._new, self._transfer)
        for direction, lost_of in (
            (Direction.WEAKER, losses(was, now)),
            (Direction.STRICTER, losses(now, was)),
        ):
            for lost in sorted(lost_of, key=lambda lost: (list(Loss).index(lost.loss), lost.what)):
                try:
                    yield from self._by_route(direction, lost, lost_of[lost])
                except Unavailable as error:
                    self.unknown.append(f"{direction}: {lost}: {error.why}")

    def _by_route(self, direction: Direction, lost: Lost, formula: z3.BoolRef) -> Iterator[Shift]:
        """An example for each route on which this is lost; a route that was shown is left out of the next question."""
        shown: list[z3.BoolRef] = []
        while (facts := self._questions.example(formula, *shown)) is not None:
            route = {name: getattr(facts, ATTRIBUTE[name]) for name in _ROUTE}
            shown.append(z3.Not(z3.And(*(self._transfer.among(name, (word,)) for name, word in route.items()))))
            old, new = _answer(self._old, facts), _answer(self._new, facts)
            strict, loose = (old, new) if direction is Direction.WEAKER else (new, old)
            if not _confirmed(lost, strict, loose):  # solver and evaluator have parted: nothing here may be relied on
                self.unknown.append(f"{direction}: {lost}: the evaluator does not confirm {facts.to_json()}")
            yield Shift(direction, lost, facts, old, new)


def _answer(bundle: Bundle, facts: Facts) -> Decision:
    """The evaluator's answer, with the seats' floor in what people are asked for."""
    told = bundle.policy.evaluate(facts)
    if facts.from_tier is None or facts.asset is None or facts.amount is None or told.outcome is Outcome.AUTOMATIC:
        return told
    return told.with_people(bundle.floors.people_for(facts.from_tier, facts.asset, facts.amount))


def _confirmed(lost: Lost, strict: Decision, loose: Decision) -> bool:
    """Whether the evaluator's own answers differ in this way."""
    if loose.requirement is None:
        return False
    if strict.requirement is None:
        return lost.loss is Loss.DENIAL
    was, now = strict.requirement, loose.requirement
    match lost.loss:
        case Loss.DENIAL:
            return False
        case Loss.PEOPLE:
            return strict.outcome is not Outcome.AUTOMATIC and loose.outcome is Outcome.AUTOMATIC
        case Loss.APPROVALS:
            return dict(was.approvals).get(lost.what, 0) > dict(now.approvals).get(lost.what, 0)
        case Loss.DISPLAYING:
            return was.displaying > now.displaying
        case Loss.DELAY:
            return was.delay > now.delay
        case Loss.FLOOR:
            return True  # compared by the floors themselves; the groups' sum may hide it


def answer_text(decision: Decision) -> str:
    """An answer in a line."""
    if decision.outcome is Outcome.DENY:
        by = ", ".join(decision.denied_by) or "nothing permits it"
        return f"denied: {by}"
    if decision.outcome is Outcome.AUTOMATIC:
        return "goes by itself"
    return f"asks {decision.requirement}"
