# SPDX-License-Identifier: AGPL-3.0-or-later
"""Transfers: propose, look, approve, reject, cancel. Every one is a signed document; the caller only carries it."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api import cursors
from api.documents import (
    approval_of,
    digest_of,
    draft_out,
    listed_out,
    people_out,
    proposal_of,
    rejection_of,
    transfer_out,
)
from api.routes.common import Anybody, Json, Parts, Proposer, Reader, Remembered
from api.schemas import ApprovalIn, ProposalIn, RejectionIn
from custody.flows import proposals
from custody.flows.ports import UnitOfWork
from custody.rules.errors import InvalidInput
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.transfers import Status, Transfer

router = APIRouter(prefix="/v1/transfers", tags=["transfers"])
_ENTROPY = 10


@router.post("", status_code=201)
def post_transfer(body: ProposalIn, parts: Parts, caller: Proposer, answers: Remembered, response: Response) -> Json:
    """Hold what the proposal moves and record its intent, once for each Idempotency-Key and signer."""
    kernel = parts.kernel()
    signed = proposal_of(body, kernel.assets)

    def work(key: str) -> Json:
        entropy = parts.entropy(_ENTROPY)
        transfer = proposals.propose(parts.store, kernel, signed, key, parts.clock(), entropy)
        return transfer_out(transfer, kernel.assets)

    answer = answers.once(caller, "transfers", signed.message.struct_hash, work, remember=False)
    response.headers["Location"] = f"/v1/transfers/{answer['id']}"
    return answer


@router.post("/dry-run")
def post_dry_run(body: ProposalIn, parts: Parts, _caller: Proposer) -> Json:
    """What proposing this would do now: policy's decision with each rule's first unmet condition. Nothing is recorded."""
    kernel = parts.kernel()
    draft = proposals.dry_run(parts.store, kernel, proposal_of(body, kernel.assets), parts.clock())
    return draft_out(draft, kernel.assets)


@router.get("")
def get_transfers(
    parts: Parts,
    _caller: Reader,
    account: Annotated[str | None, Query(max_length=100, description="`customer:ID` or `company`.")] = None,
    wallet: Annotated[str | None, Query(max_length=66, description="A wallet's name, 0x and 64 hex digits.")] = None,
    status: Annotated[list[Status] | None, Query(max_length=20)] = None,
    limit: cursors.Limit = cursors.PAGE,
    cursor: cursors.Cursor = None,
) -> Json:
    """Transfers, oldest first. A damaged row hides no other: it is listed as its digest and what is wrong with it."""
    after, assets = cursors.read_number("transfers", cursor), parts.kernel().assets
    name = None if wallet is None else digest_of(wallet, "wallet")
    rows = parts.store.read(
        lambda work: work.transfers.examine(after, limit + 1, account=account, wallet=name, statuses=status or ())
    )
    page = rows[:limit]
    following = cursors.make("transfers", str(page[-1][0])) if len(rows) > limit else None
    return {"items": [listed_out(found, assets) for _, found in page], "next_cursor": following}


@router.get("/{transfer_id}")
def get_transfer(transfer_id: str, parts: Parts, _caller: Reader) -> Json:
    """One transfer, with every status it had and what people added."""
    assets = parts.kernel().assets

    def read(work: UnitOfWork) -> Json:
        transfer = _find(work, transfer_id)
        digest = transfer.digest
        people = people_out(
            work.transfers.history(digest), work.transfers.approvals(digest), work.transfers.rejections(digest)
        )
        return {**transfer_out(transfer, assets), **people}

    return parts.store.read(read)


@router.get("/{transfer_id}/approvals")
def get_approvals(transfer_id: str, parts: Parts, _caller: Reader) -> Json:
    """Every yes and every no, as they were signed."""

    def read(work: UnitOfWork) -> Json:
        digest = _find(work, transfer_id).digest
        people = people_out((), work.transfers.approvals(digest), work.transfers.rejections(digest))
        return {"approvals": people["approvals"], "rejections": people["rejections"]}

    return parts.store.read(read)


@router.post("/{transfer_id}/approvals")
def post_approval(transfer_id: str, body: ApprovalIn, parts: Parts, _caller: Anybody) -> Json:
    """Append one person's yes; their signature over the intent's digest is what counts, whoever carries it."""
    kernel, approval = parts.kernel(), approval_of(body)
    _check_path(parts, transfer_id, approval.intent)
    return transfer_out(proposals.approve(parts.store, kernel, approval, parts.clock()), kernel.assets)


@router.post("/{transfer_id}/rejections")
def post_rejection(transfer_id: str, body: RejectionIn, parts: Parts, _caller: Anybody) -> Json:
    """One person's no ends a transfer for which no signature was asked yet."""
    kernel, signed = parts.kernel(), rejection_of(body)
    _check_path(parts, transfer_id, signed.message.intent)
    return transfer_out(proposals.reject(parts.store, kernel, signed, parts.clock()), kernel.assets)


@router.post("/{transfer_id}/cancel")
def post_cancel(transfer_id: str, body: RejectionIn, parts: Parts, _caller: Proposer) -> Json:
    """The initiator's own no."""
    kernel, signed = parts.kernel(), rejection_of(body)
    _check_path(parts, transfer_id, signed.message.intent)
    return transfer_out(proposals.cancel(parts.store, kernel, signed, parts.clock()), kernel.assets)


def _find(work: UnitOfWork, transfer_id: str) -> Transfer:
    found = work.transfers.find(transfer_id)
    if found is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, transfer=transfer_id[:80])])
    return found


def _check_path(parts: Parts, transfer_id: str, intent: bytes) -> None:
    """The document in the body is of the transfer in the path: a person sees one id and signs one digest."""
    transfer = parts.store.read(lambda work: _find(work, transfer_id))
    if transfer.digest != intent:
        raise InvalidInput("intent", Rule.WRONG_DIGEST, intent.hex(), transfer.digest.hex())
