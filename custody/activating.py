# SPDX-License-Identifier: AGPL-3.0-or-later
"""Putting a signed bundle in force: checked, stored so that every part sees it, handed to every seat (docs/decisions/0011).

The one who runs this decides nothing. Service, attestor and seats judge the same documents each by themselves, and each counts the
delay from when it first saw them.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from custody.bootstrap import Deployment
from custody.flows.handing import Activated, Handed, hand_over
from custody.governing import check_activation, store_activation, stored_bundle
from custody.parts import attestor, seats
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.succession import Terms
from custody.rules.typed import ZERO32
from policies.bundle import Bundle

_AGAIN: Final = 10.0
"""Seconds until a seat that refused or was silent is handed a bundle once more."""


@dataclass(frozen=True, slots=True)
class Done:
    """What came of an activation: its terms, from when it is in force by this deployment's sight, and what each seat made of it."""

    terms: Terms
    since: int
    in_force: bool
    handed: tuple[Handed, ...]


def activate_policy(deployment: Deployment, signed: Signed[PolicyActivation], given: Bundle | None) -> Done:
    """Check, store and hand over. May be repeated: once its time has come, every seat takes it.

    `given` is the bundle where the deployment has not got it yet. Raises Refused with everything that is against it, InvalidInput
    where no bundle is at hand that it names.
    """
    lineage, digest = deployment.lineage(), signed.message.struct_hash
    if digest not in {known.signed.message.struct_hash for known in (*lineage.steps, *lineage.waiting)}:
        bundle, now = _bundle(deployment, signed.message, given), deployment.clock()
        raise_if(check_activation(lineage, deployment.roster, signed, bundle, now))
        deployment.store.run(lambda work: store_activation(work, signed, bundle, now))
    statement = None if signed.message.previous == ZERO32 else _statement(deployment)
    lineage = deployment.lineage()
    mine = [known for known in (*lineage.steps, *lineage.waiting) if known.signed.message.struct_hash == digest]
    if not mine:
        told = [refusal for against, refusals in lineage.against if against == digest for refusal in refusals]
        raise Refused(told or [Refusal(Rule.NOT_SUCCESSOR, activation=digest.hex())])
    line = [step for step in lineage.steps if step.since <= mine[0].since and step != mine[0]]
    sent = [Activated(each.signed, each.bundle.to_json()) for each in (*line, mine[0])]
    handed = hand_over(seats(deployment.settings).values(), sent, statement)
    return Done(mine[0].terms, mine[0].since, mine[0] in lineage.steps, tuple(handed))


def _bundle(deployment: Deployment, activation: PolicyActivation, given: Bundle | None) -> Bundle:
    """The bundle that it names: given, known to the mirror, or the settings' own, which serves the first."""
    known = deployment.store.read(lambda work: stored_bundle(work, activation.bundle))
    for found in (given, known, deployment.first_bundle if activation.previous == ZERO32 else None):
        if found is not None and found.hash == activation.bundle:
            return found
    got = "none" if given is None else "0x" + given.hash.hex()
    raise InvalidInput("bundle", Rule.NOT_SUCCESSOR, got, "0x" + activation.bundle.hex())


def _statement(deployment: Deployment) -> Signed[Statement] | None:
    """One statement: with it the attestor notes what is new, and a devnet's seats hear the time. None where it makes none now."""
    try:
        return attestor(deployment.settings).statement()
    except (Unavailable, Refused):
        return None


class Carrier:
    """Hands the newest bundle to seats that lack it, so that nobody has to be there when its time comes."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._done = b""
        self._told: frozenset[str] = frozenset()
        self._again = 0.0

    def __call__(self) -> Iterator[str]:
        """Each seat that took it or refuses it, as a line of JSON, once; nothing where all have what is in force."""
        lineage = self._deployment.lineage()
        if len(lineage.steps) < 2 or time.monotonic() < self._again or lineage.newest.bundle.hash == self._done:
            return
        self._again = time.monotonic() + _AGAIN
        sent = [Activated(step.signed, step.bundle.to_json()) for step in lineage.steps]
        handed = hand_over(seats(self._deployment.settings).values(), sent, _statement(self._deployment))
        said = [
            json.dumps({"event": "policy", "seat": h.seat, "why": h.why or "has it"}) for h in handed if not h.silent
        ]
        yield from (line for line in said if line not in self._told)
        self._told = frozenset(said)
        if all(each.has_it or each.silent for each in handed):  # a silent one is cold: a ceremony brings it there
            self._done = lineage.newest.bundle.hash
