# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the web process is composed of: ports and verified values, handed in. It holds no key and reaches no chain (DESIGN.md)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from custody.flows.kernel import Kernel
from custody.flows.ports import AddressBinder, Clock, Store
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.statements import Statement


class StatementDesk(Protocol):
    """The attestor's word as this process may show it: its signature verified, and mirrored."""

    def latest(self) -> Signed[Statement]:
        """One that is a minute old at most; a new one is asked for where there is none.

        Raises Unavailable, and Refused where the attestor refuses or what it signed does not hold.
        """
        ...

    def numbered(self, sequence: int) -> Signed[Statement] | None:
        """A mirrored one by its sequence, verified again; None where it was not mirrored."""
        ...


@dataclass(frozen=True)
class ApiParts:
    """Everything routes use. Callables give what may have changed since: a client that was revoked is refused within seconds.

    `wall` times requests, `clock` judges documents (the statement's time on a devnet, TRUST.md); seconds since 1970. `entropy`
    gives so many random bytes. `begun` is when this process began to remember requests: signatures made before are refused.
    """

    store: Store
    roster: Callable[[], Roster]
    kernel: Callable[[], Kernel]
    attestor: AddressBinder
    statements: StatementDesk
    wall: Clock
    clock: Clock
    entropy: Callable[[int], bytes]
    begun: int
