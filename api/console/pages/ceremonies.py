# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ceremonies: what cold seats are asked to sign, as a file to carry there, and their signatures to bring back (DESIGN.md, "Cold")."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, File, UploadFile
from starlette.responses import RedirectResponse, Response

from api.console.desk import At, Desk, Posted
from api.console.payload_view import DraftView, draft_of
from api.console.registry import Page, decides
from api.console.uploads import read_upload
from custody.flows import carrying, reviewing
from custody.flows import payout_records as records
from custody.flows.ports import UnitOfWork
from custody.rules.payments import SeatSignatures
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.seat_request import Request
from custody.rules.transfers import Permit, Status, Transfer

router = APIRouter()
PAGE = Page("ceremonies", "/ceremonies", "Ceremonies", router, 90, decides)
_SEE_OTHER: Final = 303
_WAITING: Final = (Status.PENDING_SIGNATURE, Status.CANCELLING)


@dataclass(frozen=True)
class Ceremony:
    """One payout that seats were asked about: its draft, the request as recorded, and which seats' signatures are here.

    `signed` are seats whose answer came, `cold` those that somebody has to walk to; `needed` of all have to sign.
    """

    transfer: Transfer
    draft: DraftView | None
    request: Request | None
    signed: Sequence[str]
    cold: Sequence[str]
    needed: int

    @property
    def missing(self) -> int:
        """How many more seats have to sign."""
        return max(0, self.needed - len(self.signed))


@router.get("/ceremonies")
def get_ceremonies(desk: At, done: str = "") -> Response:
    """Everything that waits for a seat's signature."""
    told = "The signatures are in. The worker checks each before it uses any." if done == "brought" else ""
    return desk.show("ceremonies.html", ceremonies=[*_ceremonies(desk)], done=told)


@router.get("/ceremonies/{transfer_id}/request.json")
def get_request(desk: At, transfer_id: str) -> Response:
    """What seats are asked about a payout, as the file that is carried to a cold one."""
    permit = _permit(desk, transfer_id)
    request = carrying.to_carry(desk.store, permit.reservation.anchor)
    if request is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, transfer=transfer_id, want="one that seats were asked about")])
    name = f"payout-{transfer_id}-{request.statement.message.sequence}.json"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(json.dumps(request.to_json(), indent=1) + "\n", media_type="application/json", headers=headers)


@router.post("/ceremonies/{transfer_id}")
def post_signatures(desk: Posted, transfer_id: str, file: Annotated[UploadFile, File()]) -> Response:
    """Take a cold seat's signatures in; whoever carries them decides nothing."""
    permit = _permit(desk, transfer_id)
    made = SeatSignatures.from_json(read_upload(file, "file", "bulkhead seat sign"), "file")
    wallet = desk.kernel.inventory.wallets.get(permit.reservation.anchor.wallet)
    names = [] if wallet is None else [key.key.seat for signed in wallet.certificates for key in signed.message.seats]
    if made.seat not in names:
        raise Refused([Refusal(Rule.SEAT_UNKNOWN, seat=made.seat, want="a seat of the wallet that pays")])
    carrying.bring_back(desk.store, permit.reservation.anchor, made)
    return RedirectResponse(f"/ceremonies?done=brought#{transfer_id}", _SEE_OTHER)


def _ceremonies(desk: Desk) -> Iterator[Ceremony]:
    cold = {seat.id for seat in desk.roster.version.seats if seat.cold}

    def read(work: UnitOfWork) -> list[Transfer]:
        found = work.transfers.examine(0, 500, statuses=_WAITING)
        return [transfer for _, transfer in found if isinstance(transfer, Transfer)]

    for transfer in desk.store.read(read):
        wallet = desk.kernel.inventory.wallets.get(transfer.intent.wallet)
        draft = draft_of(desk, transfer)
        if wallet is None or draft is None:
            continue
        anchor, unsigned = draft.permit.reservation.anchor, draft.unsigned
        names = [key.key.seat for key in wallet.certificate.seats]
        signed = desk.store.read(lambda work, u=unsigned, n=names: [*records.signatures(work, u, n)])  # type: ignore[misc]
        request = carrying.to_carry(desk.store, anchor)
        here = [name for name in names if name in cold]
        yield Ceremony(transfer, draft, request, signed, here, wallet.certificate.m)


def _permit(desk: Desk, transfer_id: str) -> Permit:
    transfer = reviewing.find(desk.store, transfer_id)
    found = desk.store.read(lambda work: work.transfers.permit_of(transfer.digest))
    if found is None:
        raise Refused([Refusal(Rule.UNKNOWN_TRANSFER, transfer=transfer_id, want="one that has its permit")])
    return found
