# SPDX-License-Identifier: AGPL-3.0-or-later
"""How long a seat takes to decide a batch of 100 withdrawals that it never saw, under the shipped bundle.

One process, one thread, as a seat has. Every struct hash that is remembered is forgotten before each time, because a seat
hashes what a request carries for the first time; the payload is decoded already.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from custody.rules.seat import decide
from custody.rules.seat_request import BundleInForce, Plan, Policies, Request
from custody.rules.wallets import Chain
from tests.bench.harness import Figure, figure
from tests.fakes.seat import BITCOIN, EVM
from tests.fakes.trust import Ask, Built, build
from tests.unit.shipped import open_shipped

INTENTS: Final = 100
TIMES: Final = 15
NAMES: Final = {EVM: "EVM", BITCOIN: "Bitcoin"}


@dataclass
class Batch:
    """A true request of many withdrawals, each with its proposal, enrolment and two approvals, and what a seat holds against it."""

    built: Built
    policies: Policies
    request: Request

    @classmethod
    def of(cls, chain: Chain, intents: int = INTENTS) -> "Batch":
        """Withdrawals on one chain."""
        with tempfile.TemporaryDirectory() as folder:
            shipped = open_shipped(Path(folder))
        ask = Ask(
            chain=chain,
            payments=intents,
            intent={"policy": shipped.hash},
            statement={"policy": shipped.hash},
            journal=lambda journal: replace(journal, policies=(shipped.hash,)),
        )
        built = build(ask)
        bundle = BundleInForce(shipped.policy, shipped.assets, shipped.fees)
        return cls(built, Policies(bundle, {}), built.request)

    def arrive(self) -> None:
        """The request as it comes over the wire, to a process that hashed none of it."""
        self.request = Request.from_json(self.built.request.to_json())

    def decide(self) -> None:
        """One decision. It has to be a yes: a refusal would be quicker."""
        b = self.built
        answer = decide(self.request, b.decoded, b.journal, self.policies, b.now)
        if not isinstance(answer, Plan):
            raise TypeError([str(refusal) for refusal in answer])


def benches() -> Iterator[Figure]:
    """One figure for each kind of chain."""
    for chain, name in NAMES.items():
        batch = Batch.of(chain)
        yield figure(f"seat.decide, batch of {INTENTS}, {name}", batch.decide, before=batch.arrive, times=TIMES)
