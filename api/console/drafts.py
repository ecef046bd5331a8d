# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every page does with a draft that people sign one by one: find it by its address, ask for one's signature, and keep it.

A session keeps nothing and books nothing: `flows.gathering` verifies each signature, and the page's own flow judges the whole.
"""

from typing import TypeVar

from api.console.asking import Ask, answered, ask_for, check_shown
from api.console.desk import Desk
from custody.flows import gathering
from custody.flows.gathering import Gathering
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.typed import Struct

M = TypeVar("M", bound=Struct)


def find_draft(desk: Desk, kind: type[M], named: str) -> Gathering[M]:
    """The draft that a path names by its digest. Raises Refused: no_such_route (no digest), not_the_successor (no such draft)."""
    try:
        digest = bytes.fromhex(named)
    except ValueError as error:
        raise Refused([Refusal(Rule.NO_ROUTE, path=named[:80])]) from error
    return desk.store.read(lambda work: gathering.find(work, desk.roster, kind, digest, desk.now))


def ask_about(desk: Desk, found: Gathering[M]) -> Ask | None:
    """What this person's passkey is asked; None where they signed already."""
    return None if desk.person.id in found.people else ask_for(desk, found.signed.message)


def sign_draft(desk: Desk, kind: type[M], found: Gathering[M], shown: str, answer: str) -> None:
    """Add the signature of a form. `shown` is the digest that the page showed. Raises as `asking.answered` and `gathering.add`."""
    check_shown(shown, found.digest)
    signature = answered(desk, found.digest, answer)
    gathering.add(desk.store, desk.roster, kind, found.digest, signature, desk.now)
