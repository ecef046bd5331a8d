# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whether a bundle is in force: the owners' signatures over its activation (TRUST.md)."""

from collections.abc import Iterator

from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Rule
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from policies.bundle import Bundle


def check(
    signed: Signed[PolicyActivation], bundle: Bundle, previous: bytes, roster: Roster, now: int
) -> Iterator[Refusal]:
    """The activation names this bundle, succeeds the one in force, is mature, and owners other than the author signed it."""
    activation = signed.message
    if activation.bundle != bundle.hash:
        yield Refusal(Rule.NOT_SUCCESSOR, field="bundle", got=activation.bundle.hex(), want=bundle.hash.hex())
    if activation.previous != previous:
        yield Refusal(Rule.NOT_SUCCESSOR, field="previous", got=activation.previous.hex(), want=previous.hex())
    if now < activation.not_before:
        yield Refusal(Rule.TOO_EARLY, not_before=activation.not_before, now=now)
    owners = frozenset(roster.version.policy_owners) - {activation.author}
    yield from roster.check_quorum(signed, roster.version.thresholds.policy, owners, now)
