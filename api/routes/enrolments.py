# SPDX-License-Identifier: AGPL-3.0-or-later
"""Enrolments of outside addresses, signed by an address authority, which never proposes; whoever carries one decides nothing."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.documents import digest_of, enrolment_out, typed_signed
from api.problems import Absent
from api.routes.common import Anybody, Json, Parts, Reader
from api.schemas import EnrolmentIn
from custody.flows import proposals
from custody.rules.certificates import Enrolment
from custody.rules.refusals import Refusal, Rule

router = APIRouter(prefix="/v1/enrolments", tags=["enrolments"])


@router.post("", status_code=201)
def post_enrolment(body: EnrolmentIn, parts: Parts, _caller: Anybody) -> Json:
    """Record one; the same again keeps its first sight, which cooling-off counts from outside a seat."""
    signed = typed_signed(Enrolment, body)
    proposals.enrol(parts.store, parts.kernel(), signed, parts.clock())
    return _read(parts, signed.message.struct_hash)


@router.get("")
def get_enrolments(
    parts: Parts,
    _caller: Reader,
    owner: Annotated[str, Query(max_length=100, description="`customer:ID` or `company`.")],
) -> Json:
    """Every enrolment of one owner, the newest first, as mirrored: whoever relies on one verifies its signature."""
    found = parts.store.read(lambda work: work.enrolments.of(owner))
    return {"items": [enrolment_out(enrolled) for enrolled in found]}


@router.get("/{digest}")
def get_enrolment(digest: str, parts: Parts, _caller: Reader) -> Json:
    """One by its struct hash."""
    return _read(parts, digest_of(digest, "digest"))


def _read(parts: Parts, digest: bytes) -> Json:
    found = parts.store.read(lambda work: work.enrolments.get(digest))
    if found is None:
        raise Absent([Refusal(Rule.ENROLMENT, digest=digest.hex())])
    return enrolment_out(found)
