# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pure heart of every signer: whether this seat signs this payload now, by everything it can find out by itself.

Assume that the api host, the database and the worker are an attacker's (TRUST.md, "A seat decides by itself"). The host decodes the
payload, hands in the journal and the bundles it read, and, on a yes, writes the plan's records before it signs. A process hosts this
first, the secrets engine later, unchanged.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from custody.rules import seat_checks_anchor as anchor
from custody.rules import seat_checks_intents as intents
from custody.rules import seat_checks_quorum as quorum
from custody.rules import seat_checks_statement as statement
from custody.rules.facts import Purpose
from custody.rules.payouts import Decoded, DecodedPayload
from custody.rules.refusals import Refusal, Rule
from custody.rules.seat_case import Case
from custody.rules.seat_journal import SeatJournal, SigningRecord, Spent, anchor_key
from custody.rules.seat_request import INTENTS_MOST, Kind, Plan, Policies, Request

Check = Callable[[Case], Iterator[Refusal]]

_STATEMENT: Final[tuple[Check, ...]] = (
    statement.check_signature,
    statement.check_fresh,
    statement.check_sequence,
    statement.check_versions,
    statement.check_anchor_named,
    statement.check_nonce,
    anchor.check_nonce_near,
)
_MOVES: Final[tuple[Check, ...]] = (
    anchor.check_payload_wallet,
    anchor.check_newest,
    anchor.check_change,
    anchor.check_anchor,
    anchor.check_freeze,
    *_STATEMENT,
    statement.check_intents_named,
    statement.check_safe,
    statement.check_head,
)
"""Asked of everything that moves coins."""

CHECKS: Final[Mapping[Kind, tuple[Check, ...]]] = {
    Kind.PAYOUT: (
        *_MOVES,
        anchor.check_owners_untouched,
        anchor.check_not_void,
        anchor.check_intents_unbound,
        anchor.check_proposals_unbound,
        intents.check_proposals,
        intents.check_initiator_then,
        intents.check_binding,
        intents.check_once,
        intents.check_lifetime,
        intents.check_wallet,
        intents.check_asset,
        intents.check_destination,
        intents.check_own_address,
        intents.check_enrolment_signature,
        intents.check_enrolment_age,
        intents.check_owner,
        intents.check_walls,
        intents.check_fee_sweeps,
        intents.check_one_to_one,
        intents.check_maximum_fee,
        statement.check_holds,
        statement.check_balances,
        statement.check_coverage,
        statement.check_reserves,
        quorum.check_policy,
        quorum.check_approvals,
        quorum.check_automatic,
        quorum.check_floors,
        quorum.check_delay,
    ),
    Kind.SWEEP: (
        *_MOVES,
        anchor.check_stays_inside,
        anchor.check_sweep_older,
        quorum.check_sweep_fee,
    ),
    Kind.VOID: (
        anchor.check_payload_wallet,
        *_STATEMENT,
        statement.check_head,
        quorum.check_void_quorum,
        quorum.check_void_payload,
        quorum.check_void_intents,
    ),
    Kind.ROTATION: (
        anchor.check_payload_wallet,
        anchor.check_anchor,
        *_STATEMENT,
        statement.check_safe,
        quorum.check_rotation_quorum,
        quorum.check_rotation_payload,
    ),
}
"""What each kind of request has to pass; all of it is asked, so that every reason shows at once."""


def decide(
    request: Request, decoded: Decoded, journal: SeatJournal, policy: Policies, now: int
) -> tuple[Refusal, ...] | Plan:
    """Every reason against signing, or the plan: what to write first, then what to sign. `now` in seconds since 1970.

    Pure. A request that was answered before gets the same answer, unless the anchor was voided or something is frozen since.
    """
    if isinstance(decoded, tuple):
        return decoded or (Refusal(Rule.MALFORMED, field="decoded", got="no leaf and no reason", want="one of them"),)
    roster, kind = journal.roster, request.kind
    if roster is None:
        return (Refusal(Rule.NOT_PINNED, seat=journal.state.seat, want="genesis pinned first"),)
    if kind is None or len(request.transfers) > INTENTS_MOST:
        return (
            Refusal(
                Rule.MALFORMED, field="request", got=f"{len(request.transfers)} transfers", want="one thing at a time"
            ),
        )
    case = Case(request, decoded, journal, policy, now, roster)
    if _answered(case, decoded):
        refused = tuple(anchor.check_freeze(case)) if kind in {Kind.PAYOUT, Kind.SWEEP} else ()
        return refused or Plan((), decoded.to_sign)
    refusals = tuple(refusal for check in CHECKS[kind] for refusal in check(case))
    return refusals or Plan((_record(case),), decoded.to_sign)


def _answered(case: Case, decoded: DecodedPayload) -> bool:
    """Whether this very request was signed before, and may be again: the worker lost the answer, not the right to it."""
    bound = case.journal.anchors.get(anchor_key(decoded.anchor))
    if bound is None or case.request.hash not in bound.requests:
        return False
    return set(decoded.digests) <= set(bound.digests) and bound.voided == (case.kind is Kind.VOID)


def _record(case: Case) -> SigningRecord:
    items, fresh = case.items, [item for item in case.items if case.is_new(item)]
    burned = case.request.void.message.intents if case.request.void is not None else ()
    automatic = [Spent(i.intent.asset, i.most) for i in fresh if quorum.goes_by_itself(case, i)]
    if case.kind is Kind.SWEEP and case.decoded.fee:
        automatic.append(Spent(case.decoded.native, case.decoded.fee))
    swept = [Spent(i.intent.asset, i.intent.amount) for i in fresh if i.purpose is Purpose.FEE_SWEEP]
    return SigningRecord(
        request=case.request.hash,
        anchor=case.decoded.anchor,
        meaning=case.decoded.meaning,
        digests=case.decoded.digests,
        intents=burned or tuple(item.digest for item in items),
        proposals=tuple(item.proposal for item in items),
        void=case.kind is Kind.VOID,
        automatic=tuple(automatic),
        swept=tuple(swept),
        sequence=case.statement.sequence,
        time=min(case.time, max(case.statement.time + statement.AHEAD_MOST, case.journal.state.time)),
    )
