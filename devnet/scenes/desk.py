# SPDX-License-Identifier: AGPL-3.0-or-later
"""The backend's and the treasury's side of a stage: enrol, propose, approve, pass a day, let worker and watcher run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from custody import parts
from custody.attestor import RemoteAttestor
from custody.bootstrap import Deployment
from custody.flows.kernel import Kernel
from custody.flows.ports import UnitOfWork
from custody.flows.worker import Parts
from custody.rules.errors import CustodyError
from custody.rules.facts import Purpose
from custody.rules.refusals import Refused
from custody.rules.transfers import Status, Transfer
from custody.working import open_worker, work_once
from devnet.people import Cast
from devnet.prices import put_prices
from devnet.scenes.stage import Stage
from devnet.story import Story
from devnet.treasury import DAY, Treasury

_ROUNDS: Final = 6


@dataclass
class Desk(Treasury):
    """The backend's and the treasury's side of one stage, over the same flows that API and worker run."""

    stage: Stage

    @property
    def worker(self) -> Parts:
        """The worker's parts, on real seats, attestor, relayer and nodes; the same for every scene."""
        if self.stage.worker is None:
            self.stage.worker = open_worker(self.stage.deployment)
        return self.stage.worker

    @property
    def deployment(self) -> Deployment:
        """The stage's."""
        return self.stage.deployment

    @property
    def cast(self) -> Cast:
        """The stage's people."""
        return self.stage.world.cast

    def kernel(self) -> Kernel:
        """As the worker reads it."""
        return self.worker.kernel()

    def clock(self) -> int:
        """The statement's time."""
        return self.worker.clock()

    def attestor(self) -> RemoteAttestor:
        """The attestor with its clock."""
        told = parts.attestor(self.stage.deployment.settings)
        if not isinstance(told, RemoteAttestor):
            raise TypeError(type(told).__name__)
        return told

    def pass_a_day(self) -> None:
        """What was enrolled has been seen; the statement clock moves on, and feeders quote again."""
        self.pass_time(DAY + 3_600)

    def pass_time(self, seconds: int) -> None:
        """What is new has been seen, so that its time runs; then the statement clock moves on, and feeders quote again."""
        self.attestor().statement()
        self.attestor().advance(seconds)
        self.quote()

    def quote(self) -> None:
        """Two feeders sign prices of now."""
        deployment = self.stage.deployment
        put_prices(deployment.store, self.stage.world.cast, deployment.roster, self.clock())

    def propose(
        self, reference: str, customer: str, asset: str, units: int, destination: str, signer: str = "backend"
    ) -> Transfer:
        """A signed proposal of a customer's withdrawal."""
        return self.ask(reference, f"customer:{customer}", asset, units, destination, signer, Purpose.WITHDRAWAL)

    def work(self, story: Story, *transfers: Transfer) -> None:
        """Worker and watcher, with blocks between, until these transfers end or nothing moves."""
        for _ in range(_ROUNDS):
            self.turn(story)
            if all(self.now(transfer).status.is_final for transfer in transfers):
                return
            self.stage.mine(4)
            self.stage.watch()

    def turn(self, story: Story, *, quiet: bool = False) -> None:
        """The worker alone, until nothing moves; what does not answer is told and no end. Quiet where the claims tell it all."""
        try:
            told = list(work_once(self.worker))
        except CustodyError as error:
            told = [f"worker: {error}"]
        for line in () if quiet else told:
            _tell(story, line)


def _tell(story: Story, line: str) -> None:
    """What the worker moved, in a line a person reads; what waits is told by the claims."""
    if not line.startswith("{"):
        story.tell(line)
        return
    told = json.loads(line)
    if told["event"] == "moved":
        story.tell(f"{told['transfer']}: {told['status']} {told.get('waiting_for', '')}".rstrip())
    elif told["event"] == "fault":
        story.tell(f"worker: {told['why']}")


def outcome(attempt: Callable[[], Transfer]) -> set[str]:
    """The rules that refused, or the policy's denial as recorded; empty where it was taken."""
    try:
        transfer = attempt()
    except Refused as refused:
        return {str(refusal.rule) for refusal in refused.refusals}
    return {str(transfer.sub_status)} if transfer.status is Status.BLOCKED else set()


def all_transfers(work: UnitOfWork) -> list[Transfer]:
    """Every transfer of a demonstration, oldest first."""
    return [found for _, found in work.transfers.examine(0, 500) if isinstance(found, Transfer)]


def find(stage: Stage, reference: str) -> Transfer:
    """The transfer of a reference, as it stands. Raises LookupError where an earlier scene made none."""
    found = [t for t in stage.deployment.store.read(all_transfers) if t.proposal.message.reference == reference]
    if len(found) != 1:
        raise LookupError(f"{len(found)} transfers with the reference {reference}")
    return found[0]
