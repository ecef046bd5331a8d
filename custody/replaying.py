# SPDX-License-Identifier: AGPL-3.0-or-later
"""Recorded decisions answered again: under their own bundles, where every answer has to be the same, and under others that might come."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from custody.bootstrap import Deployment
from custody.flows.decision_log import Recorded, recorded
from custody.rules.decisions import What, bundles_of, decided, is_whole
from custody.rules.errors import InvalidInput
from custody.rules.facts import Facts
from custody.rules.refusals import Refusal, Rule
from custody.rules.requirement import Decision, stricter
from custody.rules.typed import ZERO32
from policies.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many records were answered again, and everything that came out otherwise, a line each."""

    records: int
    findings: tuple[str, ...]


def replay(deployment: Deployment) -> Replayed:
    """Answer every recorded decision again by the bundles and the facts that it names. Raises Refused, Unavailable."""
    bundles = {step.bundle.hash: step.bundle for step in deployment.lineage().steps}
    count, findings = 0, []
    chain: dict[bytes, str] = {}
    for found in deployment.store.read(lambda work: list(recorded(work))):
        if isinstance(found, Refusal):
            findings.append(str(found))
            continue
        count += 1
        findings += [f"{found.id or found.digest.hex()}: {why}" for why in _against(found, bundles, chain)]
    return Replayed(count, tuple(findings))


def _against(found: Recorded, bundles: Mapping[bytes, Bundle], chain: dict[bytes, str]) -> Iterator[str]:
    body = found.body
    if not is_whole(body):
        yield "the record is not what its hash says"
    expected = chain.get(found.digest, "0x" + ZERO32.hex())
    if body.get("previous") != expected:
        yield f"the record names {body.get('previous')} before it; {expected} is there"
    chain[found.digest] = str(body.get("record"))
    try:
        facts, named = facts_of(body), bundles_of(body)
        missing = [digest.hex() for digest in named if digest not in bundles]
        if missing:
            yield f"bundle {', '.join(missing)} was never in force"
            return
        again = decided([bundles[digest].policy for digest in named], facts).to_json()
    except (InvalidInput, ValueError) as error:
        yield f"the record cannot be answered again: {error}"
        return
    yield from (f"{name} was {body.get(name)}, is {again[name]}" for name in again if body.get(name) != again[name])


def facts_of(body: Mapping[str, object]) -> Facts:
    """The facts of a record. Raises InvalidInput."""
    told = body.get("facts")
    return Facts.from_json(told if isinstance(told, Mapping) else {})


@dataclass(frozen=True, slots=True)
class Flip:
    """One past transfer that two bundles answer differently."""

    id: str
    facts: Facts
    old: Decision
    new: Decision

    @property
    def is_looser(self) -> bool:
        """Whether the new one asks for anything less: joined with the old one it is another answer."""
        return _asked(self.new) != _asked(stricter(self.old, self.new))


def simulate(deployment: Deployment, old: Bundle, new: Bundle) -> tuple[int, tuple[Flip, ...]]:
    """How many transfers were proposed, and those of them that the two bundles answer differently, by the facts of that time.

    Raises InvalidInput on a record that is not whole: a history with holes says nothing about what would have been.
    """
    proposed, flips = 0, []
    for found in deployment.store.read(lambda work: list(recorded(work))):
        if isinstance(found, Refusal) or not is_whole(found.body):
            raise InvalidInput(
                "history", Rule.ROW_DAMAGED, str(found)[:200], "whole records (bulkhead policy log replay)"
            )
        if found.body.get("what") != What.PROPOSED:
            continue
        proposed += 1
        facts = facts_of(found.body)
        was, now = (decided([bundle.policy], facts) for bundle in (old, new))
        if _asked(was) != _asked(now):
            flips.append(Flip(found.id or found.digest.hex(), facts, was, now))
    return proposed, tuple(flips)


def _asked(decision: Decision) -> object:
    return decision.outcome, decision.requirement
