# SPDX-License-Identifier: AGPL-3.0-or-later
"""One transfer, and what a person may do about it: approve it, reject it, or cancel one's own."""

import json
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from api.console.asking import answered, ask_for, check_shown, passkeys_of, signed_by, typed_form
from api.console.desk import At, Desk, Posted
from api.console.payload_view import draft_of
from api.console.registry import Page
from api.console.transfer_view import agreed_on, look, rows
from api.console.walls import picture
from custody.flows import proposals, reviewing
from custody.rules.approvals import Approval
from custody.rules.intents import Rejection
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.transfers import Transfer

router = APIRouter()
PAGE = Page("transfer", "/queue", "", router, 11)
_SEE_OTHER = 303
_UNCHANGED = 204
_REASON = Form(max_length=400)


@router.get("/transfers/{transfer_id}")
def get_transfer(desk: At, transfer_id: str, done: str = "") -> Response:
    """Everything about one transfer."""
    return show(desk, transfer_id, _DONE.get(done, ""))


@router.get("/transfers/{transfer_id}/standing")
def get_standing(desk: At, transfer_id: str, seen: str = "") -> Response:
    """Where it stands, for a page that asks again: nothing where it stands as the page says."""
    transfer = reviewing.find(desk.store, transfer_id)
    if _told(transfer) == seen:
        return Response(status_code=_UNCHANGED)
    return desk.show("standing.html", transfer=transfer, intent=transfer.intent, told=_told(transfer), moved=True)


@router.get("/transfers/{transfer_id}/intent.json")
def get_intent(desk: At, transfer_id: str) -> Response:
    """The typed message as a file, for a second screen that computes the digest by itself."""
    transfer = reviewing.find(desk.store, transfer_id)
    body = typed_form(transfer.intent)
    headers = {"content-disposition": f'attachment; filename="intent-{transfer.digest.hex()[:16]}.json"'}
    return Response(json.dumps(body, indent=1) + "\n", media_type="application/json", headers=headers)


@router.post("/transfers/{transfer_id}/approve")
def post_approve(
    desk: Posted,
    transfer_id: str,
    digest: Annotated[str, Form()],
    stood: Annotated[str, Form()],
    answer: Annotated[str, Form()],
) -> Response:
    """Append this person's yes: their passkey's signature over the digest that was shown, and over nothing else."""
    transfer = reviewing.find(desk.store, transfer_id)
    computed = desk.roster.domain.digest(transfer.intent)  # from the fields, whatever the row says
    check_shown(digest, computed)
    check_stands(transfer, stood)
    seen = reviewing.review(desk.store, desk.kernel, transfer, None, desk.now)
    raise_if((*seen.late, *seen.against))
    agreed = agreed_on(desk, seen)
    if agreed is None or not agreed.mine:
        told = {"person": desk.person.id, "want": "somebody whose approval is still asked for"}
        raise Refused([Refusal(Rule.SCOPE_MISSING, **told)])
    if agreed.only_displaying:
        want = "bulkhead approve, with a key that displays"
        raise Refused([Refusal(Rule.DISPLAYING_MISSING, missing=agreed.displaying, want=want)])
    approval = Approval(computed, desk.person.id, answered(desk, computed, answer))
    proposals.approve(desk.store, desk.kernel, approval, desk.now)
    return _back(transfer, "approved")


@router.post("/transfers/{transfer_id}/reject")
def post_reject(
    desk: Posted, transfer_id: str, stood: Annotated[str, Form()], reason: Annotated[str, _REASON]
) -> Response:
    """Show the no with its reason and its digest, to be signed."""
    desk.check_decides()
    transfer = reviewing.find(desk.store, transfer_id)
    check_stands(transfer, stood)
    cancels = transfer.intent.initiator == desk.person.id
    message = Rejection(desk.roster.domain.digest(transfer.intent), reason)
    return desk.show(
        "sign.html",
        title="Cancel it" if cancels else "Reject it",
        meaning="A no ends this transfer for good and frees what it holds. Your reason is signed and kept.",
        ask=ask_for(desk, message),
        fields=rows(message),
        action=f"/transfers/{transfer.intent.id}/rejected",
        hidden={"stood": stood},
        back=f"/transfers/{transfer.intent.id}",
        danger=True,
    )


@router.post("/transfers/{transfer_id}/rejected")
def post_rejected(
    desk: Posted,
    transfer_id: str,
    message: Annotated[str, Form()],
    digest: Annotated[str, Form()],
    stood: Annotated[str, Form()],
    answer: Annotated[str, Form()],
) -> Response:
    """Take the signed no: the initiator's own cancels, anybody else's rejects."""
    desk.check_decides()
    transfer = reviewing.find(desk.store, transfer_id)
    check_stands(transfer, stood)
    signed = signed_by(desk, Rejection, message, digest, answer)
    if signed.message.intent != desk.roster.domain.digest(transfer.intent):
        raise Refused([Refusal(Rule.WRONG_DIGEST, got=signed.message.intent.hex(), want=transfer.digest.hex())])
    cancels = transfer.intent.initiator == desk.person.id
    (proposals.cancel if cancels else proposals.reject)(desk.store, desk.kernel, signed, desk.now)
    return _back(transfer, "cancelled" if cancels else "rejected")


_DONE = {
    "approved": "Your approval is recorded. It is one person's yes to exactly this digest.",
    "rejected": "Your rejection is recorded. What it held is free again.",
    "cancelled": "It is cancelled. What it held is free again.",
}


def show(desk: Desk, transfer_id: str, done: str = "") -> Response:
    """The page."""
    view = look(desk, transfer_id)
    transfer = view.transfer
    return desk.show(
        "transfer.html",
        view=view,
        transfer=transfer,
        intent=transfer.intent,
        fields=rows(transfer.intent),
        picture=picture(desk.kernel, view),
        draft=draft_of(desk, transfer),
        ask=ask_for(desk, transfer.intent, desk.kernel.roster_of(transfer.intent.roster)) if view.may_approve else None,
        has_passkey=bool(passkeys_of(desk)),
        stood=stands(transfer),
        told=_told(transfer),
        decides=desk.decides,
        moved=False,
        done=done,
        genesis=desk.roster.domain.genesis,
        command=_second_screen(transfer, view.seen.digest, desk.roster.domain.genesis),
    )


def _second_screen(transfer: Transfer, digest: bytes, genesis: bytes) -> str:
    file = f"intent-{transfer.digest.hex()[:16]}.json"
    return f"bulkhead verify-intent {file} --genesis 0x{genesis.hex()} --digest 0x{digest.hex()}"


def stands(transfer: Transfer) -> str:
    """How a transfer stands, for a form: what a person saw when they decided."""
    return f"{transfer.status.value}/{transfer.sub_status.value if transfer.sub_status else ''}"


def _told(transfer: Transfer) -> str:
    """Everything that the line about its standing says, as one short word."""
    return sha256(f"{stands(transfer)}/{transfer.moved_at}/{transfer.waiting_for}".encode()).hexdigest()[:16]


def check_stands(transfer: Transfer, stood: str) -> None:
    """It stands as it did when the page was opened, else a person decided about something that is no longer so. Raises Refused."""
    if stands(transfer) != stood:
        told = {"intent": transfer.digest.hex(), "you_saw": stood[:80], "now": stands(transfer)}
        raise Refused([Refusal(Rule.ILLEGAL_MOVE, **told, want="open the page again and decide on what it says now")])


def _back(transfer: Transfer, done: str) -> Response:
    return RedirectResponse(f"/transfers/{transfer.intent.id}?done={done}", _SEE_OTHER)
