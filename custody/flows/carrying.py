# SPDX-License-Identifier: AGPL-3.0-or-later
"""What people carry to cold seats and back (DESIGN.md, "Cold"): the request as it was recorded, and each seat's answer.

No key and no chain is here, so that a web process may hand the file out and take the answer in; whether a signature holds is for
whoever puts the payout together.
"""

from custody.flows import payout_records as records
from custody.flows.ports import Store
from custody.rules.intents import Anchor
from custody.rules.payments import SeatSignatures
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.seat_request import Request


def to_carry(store: Store, anchor: Anchor) -> Request | None:
    """What seats were asked last about an anchor, for a file that is carried to cold ones (DESIGN.md, "Cold"); None before."""
    void = store.read(lambda work: records.void_of(work, anchor)) is not None
    return store.read(lambda work: records.newest_request(work, anchor, void=void))


def bring_back(store: Store, anchor: Anchor, made: SeatSignatures) -> None:
    """Take in a cold seat's answer; the next `sign` puts it in place, or says that it is false, and then a better one may be brought.

    Raises Refused(unknown_transfer).
    """
    asked = to_carry(store, anchor)
    known = store.read(lambda work: records.variants(work, anchor))
    variant = next((v for v in known if asked is not None and v.unsigned.payload == asked.payload), None)
    if variant is None:
        raise Refused(
            [Refusal(Rule.UNKNOWN_TRANSFER, anchor=anchor.reference, want="an anchor that seats were asked about")]
        )
    store.run(lambda work: records.bring_signatures(work, variant.unsigned, made))
