# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every attack shares: by which rule it was refused and by whom, what seats were asked, and that no seat's journal moved."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from custody.flows import worker as flow
from custody.flows.authorization import SigningPermit, Withheld, authorize
from custody.flows.carrying import to_carry
from custody.flows.ports import PayoutChain, SeatPort
from custody.rules.errors import CustodyError, InvalidInput
from custody.rules.intents import Anchor
from custody.rules.refusals import Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.transfers import Permit, SubStatus, Transfer
from custody.rules.wallets import Chain
from devnet.scenes.desk import Desk
from devnet.story import Story


def rules_of(attempt: Callable[[], object]) -> set[str]:
    """The rules by which an attempt was refused; empty where it was taken, which is what an attacker hopes for."""
    try:
        attempt()
    except Refused as refused:
        return {str(refusal.rule) for refusal in refused.refusals}
    except InvalidInput as error:
        return {str(error.rule)}
    except CustodyError as error:  # nobody answered: that is no refusal, and no rule's name
        return {type(error).__name__}
    return set()


def refused(story: Story, who: str, what: str, rule: Rule, attempt: Callable[[], object]) -> None:
    """Claim that this one refuses it, and by this rule among its reasons; all of them are told."""
    rules = rules_of(attempt)
    told = ", ".join([rule, *sorted(rules - {rule})]) if rule in rules else f"{sorted(rules) or 'taken'}, not {rule}"
    story.claim(f"{what}: refused by {who}", rule in rules, told)


def claim_seats(story: Story, what: str, transfer: Transfer, rule: Rule) -> None:
    """Claim that the worker asked every seat, and each refused by this rule."""
    told = dict(re.findall(r"seat (\S+) refused: (.*?)(?=; seat |$)", transfer.waiting_for))
    refusing = sorted(seat for seat, why in told.items() if rule in why)
    held = transfer.sub_status is SubStatus.SIGNER_REFUSED and len(refusing) == 4
    seats = ", ".join(refusing) or "nobody"
    story.claim(
        f"{what}: refused by seats {seats}", held, rule if held else f"{transfer.status} {transfer.waiting_for}"[:300]
    )


@dataclass
class Attacker:
    """Somebody who owns worker and database: asks the attestor, and goes straight to seats' own processes."""

    desk: Desk

    @property
    def seats(self) -> dict[str, SeatPort]:
        """The online seats, by name."""
        return {seat.name: seat for seat in self.desk.worker.seats if seat.name.startswith("hot")}

    def positions(self) -> dict[str, int]:
        """How far each online seat's journal is: a signature always leaves a line there first."""
        return {name: seat.head().message.position for name, seat in self.seats.items()}

    def permit(self, transfer: Transfer) -> Permit:
        """The permit that carries a transfer."""
        found = self.desk.stage.deployment.store.read(lambda work: work.transfers.permit_of(transfer.digest))
        if found is None:
            raise LookupError(f"{transfer.proposal.message.reference} has no permit")
        return found

    def asked(self, anchor: Anchor) -> Request:
        """What seats were, or would be, asked about an anchor."""
        found = to_carry(self.desk.stage.deployment.store, anchor)
        if found is None:
            raise LookupError(f"no seat was asked about {anchor.reference}")
        return found

    def signing(self, permit: Permit, request: Request) -> SigningPermit:
        """The worker's own leave to sign what it was permitted already."""
        kernel, chain = self.desk.worker.kernel(), self.chain(permit.reservation.anchor)
        store = self.desk.stage.deployment.store
        found = authorize(store, kernel, permit.intents, request.statement, chain, self.desk.clock())
        if isinstance(found, Withheld):
            raise Refused(refusal for refusals in found.refusals.values() for refusal in refusals)
        return found

    def step(self, seats: Iterable[str]) -> None:
        """The worker's step in which only these seats can be reached."""
        reached = [self.seats[name] for name in seats]
        flow.step(replace(self.desk.worker, seats=reached))

    def next_nonce(self, permit: Permit, ahead: int = 1) -> Anchor:
        """Another nonce of the same Safe."""
        anchor = permit.reservation.anchor
        return replace(anchor, reference=str(int(anchor.reference) + ahead))

    def chain(self, anchor: Anchor) -> PayoutChain:
        """The builder's side of an anchor's chain."""
        return self.desk.worker.chains[Chain(anchor.chain)]
