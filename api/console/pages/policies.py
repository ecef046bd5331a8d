# SPDX-License-Identifier: AGPL-3.0-or-later
"""The rules in force as a matrix, what waits to follow them, and a bundle's activation to sign.

A bundle is in force by its owners' signatures and by time, for each part by its own sight of them. This page gathers signatures and
mirrors what enough owners signed; the worker hands it to the seats, which judge it by themselves. A passkey shows nothing, so one
owner at least signs with a key that displays, on a machine that computes the difference again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from typing import Annotated, Final

from fastapi import APIRouter, File, Form, UploadFile
from starlette.responses import RedirectResponse, Response

from api.console.desk import At, Desk, Posted
from api.console.drafts import ask_about, find_draft, sign_draft
from api.console.registry import Page
from api.console.transfer_view import rows
from api.console.uploads import read_upload
from custody.flows import gathering
from custody.flows.gathering import Gathering
from custody.flows.mirror import BUNDLE
from custody.flows.ports import UnitOfWork
from custody.governing import BundleReader, bundle_of, check_activation, check_follows, store_activation, stored_bundle
from custody.rules.errors import InvalidInput, Unavailable
from custody.rules.governance import PolicyActivation
from custody.rules.refusals import Refusal, Refused, Rule, raise_if
from custody.rules.signatures import Signed
from custody.rules.succession import Terms
from policies.bundle import Bundle
from policies.matrix import Route, matrix
from policies.succession import Lineage, Step, terms

router = APIRouter()
PAGE = Page("policies", "/policies", "Policies", router, 60)
_SEE_OTHER: Final = 303
_LINES_MOST: Final = 2000
DONE: Final = {
    "drafted": "Kept. It is in force nowhere before enough owners signed it and its delay is over.",
    "signed": "Your signature is kept beside the draft.",
    "stored": "Mirrored. The worker hands it to the seats; each part counts the delay from when it first saw it.",
}
_READER: Final = BundleReader()
_MATRICES: Final[dict[bytes, Sequence[Route]]] = {}
_File = Annotated[UploadFile, File()]


@dataclass(frozen=True)
class StepRow:
    """One bundle of the lineage, and who signed it."""

    step: Step
    signers: Sequence[str]


@dataclass(frozen=True)
class DraftRow:
    """One activation that owners are signing: what its predecessor asks of it, and everything that is against it now."""

    found: Gathering[PolicyActivation]
    bundle: Bundle
    asked: Terms | None
    against: Sequence[Refusal]


@router.get("/policies")
def get_policies(desk: At, done: str = "") -> Response:
    """The bundle in force, what waits, and what is being signed."""
    lineage = _lineage(desk)
    newest = lineage.steps[-1] if lineage.steps else None
    drafts = desk.store.read(lambda work: [*_drafts(desk, work, lineage)])
    return desk.show(
        "policies.html",
        newest=None if newest is None else _row(desk, newest),
        earlier=[_row(desk, step) for step in reversed(lineage.steps[:-1])],
        waiting=[_row(desk, step) for step in lineage.waiting],
        routes=[] if newest is None else _matrix(newest.bundle),
        denied=[] if newest is None else [rule for rule in newest.bundle.rules if rule.kind == "deny"],
        drafts=drafts,
        owners=desk.roster.version.policy_owners,
        needed=desk.roster.version.thresholds.policy,
        done=DONE.get(done, ""),
    )


@router.post("/policies/drafts")
def post_draft(desk: Posted, activation: _File, bundle: _File) -> Response:
    """Take an activation and its bundle in, as `bulkhead policy draft` and `policy bundle` wrote them, with whatever signatures it has."""
    if desk.person.id not in desk.roster.version.policy_owners:
        raise Refused([Refusal(Rule.SCOPE_MISSING, person=desk.person.id, want="an owner of policies")])
    signed = Signed.from_json(PolicyActivation, read_upload(activation, "activation", "bulkhead policy draft"))
    documents = read_upload(bundle, "bundle", "bulkhead policy bundle")
    if not isinstance(documents, dict):
        want = "the file that bulkhead policy bundle wrote"
        raise InvalidInput("bundle", Rule.MALFORMED, type(documents).__name__, want)
    coming = bundle_of(documents)
    raise_if(check_follows(_lineage(desk), signed.message, coming))
    digest = gathering.draft(desk.store, desk.roster, signed.message, desk.person.id, desk.now)
    desk.store.run(lambda work: work.documents.put(BUNDLE, coming.hash.hex(), coming.to_json()))
    known = desk.roster.people_by_key
    for signature in signed.signatures:
        if signature.key in known:
            gathering.add(desk.store, desk.roster, PolicyActivation, digest, signature, desk.now)
    return RedirectResponse(f"/policies/{digest.hex()}?done=drafted", _SEE_OTHER)


@router.get("/policies/{digest}")
def get_draft(desk: At, digest: str, done: str = "") -> Response:
    """One draft: what changes, by which path, who signed, who is still needed, and one's own signature."""
    lineage, row = _draft(desk, digest)
    old = lineage.steps[-1].bundle if lineage.steps else None
    return desk.show(
        "activation.html",
        row=row,
        found=row.found,
        changes=[] if old is None else _changes(old, row.bundle),
        fields=rows(row.found.signed.message),
        owners=sorted({*desk.roster.version.policy_owners} - {row.found.signed.message.author}),
        ask=ask_about(desk, row.found),
        done=DONE.get(done, ""),
    )


@router.post("/policies/{digest}/sign")
def post_signature(
    desk: Posted, digest: str, shown: Annotated[str, Form(alias="digest")], answer: Annotated[str, Form()]
) -> Response:
    """Add one's signature to a draft."""
    desk.check_decides()
    _, row = _draft(desk, digest)
    sign_draft(desk, PolicyActivation, row.found, shown, answer)
    return RedirectResponse(f"/policies/{digest}?done=signed", _SEE_OTHER)


@router.post("/policies/{digest}/carry")
def post_carry(desk: Posted, digest: str) -> Response:
    """Mirror what enough owners signed: the same check as everywhere, whoever presses the button."""
    desk.check_decides()
    _, row = _draft(desk, digest)
    raise_if(row.against)
    desk.store.run(lambda work: store_activation(work, row.found.signed, row.bundle, desk.now))
    return RedirectResponse("/policies?done=stored", _SEE_OTHER)


def _lineage(desk: Desk) -> Lineage:
    rosters = desk.kernel.rosters
    return desk.store.read(lambda work: _READER.read(work, rosters, desk.now))


def _row(desk: Desk, step: Step) -> StepRow:
    in_time = [roster for roster in desk.kernel.rosters if roster.version.not_before <= step.since]
    roster = (in_time or [desk.kernel.rosters[0]])[-1]
    return StepRow(step, sorted(roster.people_who_signed(step.signed, step.since)))


def _matrix(bundle: Bundle) -> Sequence[Route]:
    """Read off the evaluator once for each bundle: it takes some hundred decisions."""
    if bundle.hash not in _MATRICES:
        if len(_MATRICES) > 8:
            _MATRICES.clear()
        _MATRICES[bundle.hash] = list(matrix(bundle))
    return _MATRICES[bundle.hash]


def _drafts(desk: Desk, work: UnitOfWork, lineage: Lineage) -> Iterator[DraftRow]:
    stored = {step.signed.message.struct_hash for step in (*lineage.steps, *lineage.waiting)}
    newest = lineage.steps[-1].bundle.hash if lineage.steps else b""
    for found in gathering.drafts(work, desk.roster, PolicyActivation, desk.now):
        message = found.signed.message
        if message.struct_hash not in stored and message.previous == newest:
            bundle = stored_bundle(work, message.bundle)
            if bundle is not None:
                yield _judged(desk, lineage, found, bundle)


def _judged(desk: Desk, lineage: Lineage, found: Gathering[PolicyActivation], bundle: Bundle) -> DraftRow:
    try:
        asked = terms(lineage.steps[-1].bundle if lineage.steps else None, bundle)
        against = tuple(check_activation(lineage, desk.roster, found.signed, bundle, desk.now))
    except Refused as error:  # it may follow under no terms at all
        return DraftRow(found, bundle, None, error.refusals)
    return DraftRow(found, bundle, asked, against)


def _draft(desk: Desk, digest: str) -> tuple[Lineage, DraftRow]:
    lineage, found = _lineage(desk), find_draft(desk, PolicyActivation, digest)
    bundle = desk.store.read(lambda work: stored_bundle(work, found.signed.message.bundle))
    if bundle is None:
        raise Unavailable("bundle", "the mirror has lost the bundle that this draft names; bring it in again")
    return lineage, _judged(desk, lineage, found, bundle)


def _changes(old: Bundle, new: Bundle) -> Sequence[tuple[str, Sequence[str]]]:
    """What differs, document by document, as lines with + and −."""
    before, after = old.to_json(), new.to_json()
    found = []
    for name in sorted({*before, *after}):
        told = [*unified_diff(_lines(before.get(name)), _lines(after.get(name)), lineterm="", n=2)][2:_LINES_MOST]
        if told:
            found.append((name, told))
    return found


def _lines(document: object) -> list[str]:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
