# SPDX-License-Identifier: AGPL-3.0-or-later
"""Freezes: one person stops a scope for hours with one key; a quorum starts it again, signature by signature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form
from starlette.responses import RedirectResponse, Response

from api.console.asking import ask_for, signed_by
from api.console.desk import At, Desk, Posted
from api.console.drafts import ask_about, find_draft, sign_draft
from api.console.registry import Page, decides
from api.console.transfer_view import rows
from custody.flows import freezes, gathering
from custody.flows.gathering import Gathering
from custody.rules.errors import InvalidInput
from custody.rules.freezes import earliest_end, is_scope
from custody.rules.governance import Freeze, Unfreeze
from custody.rules.refusals import Rule

router = APIRouter()
PAGE = Page("freezes", "/freeze", "Freeze", router, 80, decides)
_SEE_OTHER: Final = 303
_HOUR: Final = 3600
_HOURS_MOST: Final = 24
_REASON_MOST: Final = 400
_Text = Annotated[str, Form(max_length=_REASON_MOST)]
DONE: Final = {
    "frozen": "It is frozen. The worker brings it to every seat that answers; each seat keeps it by itself.",
    "drafted": "The unfreeze is drafted. It needs its quorum's signatures, one by one.",
    "signed": "Your signature is recorded.",
    "ended": "The freeze is ended. The worker brings that to every seat that answers.",
}


@dataclass(frozen=True)
class Standing:
    """A freeze that holds: who signed it, from when a quorum may end it, and the drafts to end it."""

    freeze: Freeze
    by: str
    earliest: int
    drafts: Sequence[Gathering[Unfreeze]]


@router.get("/freeze")
def get_freezes(desk: At, done: str = "") -> Response:
    """What is frozen, and the form that freezes."""
    kernel, now = desk.kernel, desk.now
    drafts = desk.store.read(lambda work: [*gathering.drafts(work, desk.roster, Unfreeze, now)])
    standing = [
        Standing(
            found,
            kernel.frozen_by.get(found.struct_hash, ""),
            earliest_end(found, desk.roster),
            [each for each in drafts if each.signed.message.freeze == found.struct_hash],
        )
        for found in kernel.freezes
    ]
    wallets = [(f"wallet:0x{wallet.name.hex()}", wallet.certificate.label) for wallet in kernel.inventory]
    scopes = [("all", "everything"), ("company", "the company's own transfers")]
    scopes += [(f"chain:{chain.name}", f"chain {chain.name}") for chain in kernel.assets.chains]
    return desk.show(
        "freezes.html",
        standing=standing,
        scopes=[*scopes, *((scope, f"wallet {label}") for scope, label in wallets)],
        needed=desk.roster.version.thresholds.unfreeze,
        hours=_HOURS_MOST,
        done=DONE.get(done, ""),
    )


@router.post("/freeze")
def post_freeze(
    desk: Posted,
    reason: _Text,
    hours: Annotated[int, Form(ge=1, le=_HOURS_MOST)],
    scope: _Text = "",
    customer: _Text = "",
) -> Response:
    """Show the freeze with its digest, to be signed."""
    named = f"customer:{customer}" if customer else scope
    if not is_scope(named):
        raise InvalidInput("scope", Rule.MALFORMED, named[:80], "one of the list, or a customer's id")
    message = Freeze(named, reason, desk.now, desk.now + hours * _HOUR)
    odd = desk.store.read(lambda work: freezes.strange(desk.kernel, work, named))
    meaning = f"Nothing in this scope is signed for {hours} hours. It takes one key, and a quorum to end it early."
    return desk.show(
        "sign.html",
        title="Freeze",
        meaning=meaning if odd is None else f"Careful: {odd}; this would stop nothing that is known. {meaning}",
        ask=ask_for(desk, message),
        fields=rows(message),
        action="/freeze/signed",
        hidden={},
        back="/freeze",
        danger=True,
    )


@router.post("/freeze/signed")
def post_frozen(
    desk: Posted, message: Annotated[str, Form()], digest: Annotated[str, Form()], answer: Annotated[str, Form()]
) -> Response:
    """Record the signed freeze."""
    signed = signed_by(desk, Freeze, message, digest, answer)
    freezes.freeze(desk.store, desk.kernel, signed, desk.now)
    return RedirectResponse("/freeze?done=frozen", _SEE_OTHER)


@router.post("/unfreeze")
def post_draft(desk: Posted, freeze: Annotated[str, Form(pattern="^[0-9a-f]{64}$")], reason: _Text) -> Response:
    """Draft the end of a freeze, for people to sign."""
    named = bytes.fromhex(freeze)
    message = desk.store.read(lambda work: freezes.draft_unfreeze(work, desk.roster, named, reason))
    digest = gathering.draft(desk.store, desk.roster, message, desk.person.id, desk.now)
    return RedirectResponse(f"/unfreeze/{digest.hex()}?done=drafted", _SEE_OTHER)


@router.get("/unfreeze/{digest}")
def get_draft(desk: At, digest: str, done: str = "") -> Response:
    """One draft: what it ends, who signed it, who is still needed, and one's own signature."""
    found, frozen = _found(desk, digest)
    needed = desk.roster.version.thresholds.unfreeze
    return desk.show(
        "unfreeze.html",
        found=found,
        frozen=frozen,
        fields=rows(found.signed.message),
        missing=max(0, needed - len(found.people)),
        earliest=max(found.signed.message.not_before, earliest_end(frozen, desk.roster)),
        ended=frozen.struct_hash not in {f.struct_hash for f in desk.kernel.freezes},
        ask=ask_about(desk, found),
        done=DONE.get(done, ""),
    )


@router.post("/unfreeze/{digest}/sign")
def post_signature(
    desk: Posted, digest: str, shown: Annotated[str, Form(alias="digest")], answer: Annotated[str, Form()]
) -> Response:
    """Add one's signature to a draft."""
    found, _ = _found(desk, digest)
    sign_draft(desk, Unfreeze, found, shown, answer)
    return RedirectResponse(f"/unfreeze/{digest}?done=signed", _SEE_OTHER)


@router.post("/unfreeze/{digest}/carry")
def post_carry(desk: Posted, digest: str) -> Response:
    """Hand in a draft whose quorum signed: what people signed is judged, whoever presses the button."""
    found, _ = _found(desk, digest)
    freezes.unfreeze(desk.store, desk.kernel, found.signed, desk.now)
    return RedirectResponse("/freeze?done=ended", _SEE_OTHER)


def _found(desk: Desk, digest: str) -> tuple[Gathering[Unfreeze], Freeze]:
    found = find_draft(desk, Unfreeze, digest)
    freeze = found.signed.message.freeze
    return found, desk.store.read(lambda work: freezes.find(work, desk.roster, freeze))
