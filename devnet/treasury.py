# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the devnet's people do, each with a key of their own, over the same flows that API and commands run: nothing goes round a rule."""

import os
from abc import ABC, abstractmethod
from typing import Final

from custody.bootstrap import Deployment
from custody.flows import freezes, proposals
from custody.flows.kernel import Kernel
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.facts import Purpose
from custody.rules.governance import Freeze
from custody.rules.intents import Proposal, Rejection
from custody.rules.refusals import Refused
from custody.rules.signatures import Signed
from custody.rules.transfers import Transfer
from custody.rules.wallets import Chain
from devnet.people import Cast

DAY: Final = 86_400


class Treasury(ABC):
    """People at work on one deployment, by the statement's time."""

    @property
    @abstractmethod
    def deployment(self) -> Deployment:
        """The deployment."""

    @property
    @abstractmethod
    def cast(self) -> Cast:
        """Everybody's keys."""

    @abstractmethod
    def kernel(self) -> Kernel:
        """What is judged by, as it is now. Raises Unavailable."""

    @abstractmethod
    def clock(self) -> int:
        """Seconds since 1970 by the statement's clock. Raises Unavailable."""

    def enrol(self, customer: str, chain: Chain, address: str) -> None:
        """An address authority signs that this address is the customer's."""
        deployment, owner = self.deployment, f"customer:{customer}"
        until = self.clock() + 900 * DAY
        message = Enrolment(chain.name, address, owner, "customer_withdrawal", bytes(32), until)
        signed = self.cast.sign(deployment.roster.domain, Signed(message, ()), ["hana"])
        proposals.enrol(deployment.store, self.kernel(), signed, self.clock())

    def ask(
        self, reference: str, account: str, asset: str, units: int, destination: str, signer: str, purpose: Purpose
    ) -> Transfer:
        """A signed proposal of any purpose."""
        deployment = self.deployment
        chain = deployment.bundle.assets.get(asset).chain
        until = self.clock() + 7 * DAY
        message = Proposal(reference, account, chain.name, asset, units, destination, purpose.value, until)
        signed = self.cast.sign(deployment.roster.domain, Signed(message, ()), [signer])
        return proposals.propose(deployment.store, self.kernel(), signed, reference, self.clock(), os.urandom(10))

    def approve(self, transfer: Transfer, person: str) -> set[str]:
        """A person's own signature over the intent's digest; the rules that refuse it, where they do."""
        deployment = self.deployment
        digest = deployment.roster.domain.digest(transfer.intent)
        try:
            signature = self.cast.people[person].sign(digest)
            proposals.approve(deployment.store, self.kernel(), Approval(digest, person, signature), self.clock())
        except Refused as refused:
            return {str(refusal.rule) for refusal in refused.refusals}
        return set()

    def reject(self, transfer: Transfer, person: str, reason: str) -> Transfer:
        """A person's no, which ends it. Raises Refused."""
        deployment = self.deployment
        message = Rejection(deployment.roster.domain.digest(transfer.intent), reason)
        signed = self.cast.sign(deployment.roster.domain, Signed(message, ()), [person])
        return proposals.reject(deployment.store, self.kernel(), signed, self.clock())

    def freeze(self, scope: str, person: str, reason: str, hours: int = 6) -> Signed[Freeze]:
        """One person's freeze; the worker brings it to the seats. Raises Refused."""
        deployment, now = self.deployment, self.clock()
        message = Freeze(scope, reason, now, now + hours * 3600)
        signed = self.cast.sign(deployment.roster.domain, Signed(message, ()), [person])
        freezes.freeze(deployment.store, self.kernel(), signed, now)
        return signed

    def now(self, transfer: Transfer) -> Transfer:
        """The transfer as it stands."""
        found = self.deployment.store.read(lambda work: work.transfers.get(transfer.digest))
        if found is None:
            raise LookupError(transfer.intent.id)
        return found
