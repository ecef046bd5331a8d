# SPDX-License-Identifier: AGPL-3.0-or-later
"""Settlements of trades: only a client with the `settle` scope, which no proposing key holds (TRUST.md, "Provenance")."""

from fastapi import APIRouter

from api.documents import hexed, typed_signed
from api.routes.common import Json, Parts, Remembered, Settler
from api.schemas import SettlementIn
from custody.flows.bookkeeping import record_settlement
from custody.rules.settlements import Settlement

router = APIRouter(prefix="/v1/settlements", tags=["settlements"])


@router.post("", status_code=201)
def post_settlement(body: SettlementIn, parts: Parts, caller: Settler, answers: Remembered) -> Json:
    """Record a settlement: all of it or nothing, once for ever by its id and by each of its trades."""
    kernel, signed = parts.kernel(), typed_signed(Settlement, body)

    def work(_key: str) -> Json:
        newest = kernel.policies.newest
        recorded = record_settlement(parts.store, kernel.roster, signed, newest.fees, newest.assets, parts.clock())
        return {
            "id": signed.message.id,
            "position": str(recorded.position),
            "hash": hexed(recorded.hash),
            "recorded_at": recorded.recorded_at,
        }

    return answers.once(caller, "settlements", signed.message.struct_hash, work)
