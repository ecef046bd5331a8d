# SPDX-License-Identifier: AGPL-3.0-or-later
"""Making a passkey: a page makes a credential and hands out a file. Nobody is enrolled by it; a roster under its quorum does that.

It stands before the login, because whoever has no passkey yet cannot log in. It writes nothing, and tells nothing of this deployment.
"""

import json
import re
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, Response

from api.console.desk import parts_of, signed_out_context
from api.console.login import read_answer
from api.console.parts import ConsoleParts
from api.console.rendering import environment
from custody.rules import passkeys
from custody.rules.errors import InvalidInput
from custody.rules.json_text import read_json
from custody.rules.refusals import Rule

router = APIRouter()
_PERSON: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FILE_MOST: Final = 32_768


@router.get("/enrol")
def get_enrol(request: Request, person: str = "") -> Response:
    """Ask whose passkey it will be; then offer to make one."""
    parts = parts_of(request)
    if not person:
        return _page(parts, "enrol.html", options="", whose="", challenge="")
    _check_person(person)
    challenge = parts.api.entropy(32)
    options = passkeys.creation_options(person, person, parts.origin, challenge)
    return _page(parts, "enrol.html", options=json.dumps(options), whose=person, challenge="0x" + challenge.hex())


@router.post("/enrol")
def post_enrol(
    request: Request, person: Annotated[str, Form()], challenge: Annotated[str, Form()], answer: Annotated[str, Form()]
) -> Response:
    """Verify what the authenticator answered, whole, and show the file that is to be carried to the roster."""
    parts = parts_of(request)
    _check_person(person)
    file = {
        "type": "PasskeyEnrolment",
        "person": person,
        "origin": parts.origin,
        "challenge": challenge,
        "response": read_answer(answer),
    }
    found = passkeys.enrolled(file)
    return _page(parts, "enrolled.html", found=found, file=json.dumps(file), name=f"passkey-{person}.json")


@router.post("/enrol/file")
def post_file(file: Annotated[str, Form()]) -> Response:
    """The file to keep, verified once more."""
    if len(file) > _FILE_MOST:
        raise InvalidInput("file", Rule.MALFORMED, f"{len(file)} characters", f"at most {_FILE_MOST}")
    data = read_json(file, "file")
    found = passkeys.enrolled(data)
    _check_person(found.person)
    headers = {"content-disposition": f'attachment; filename="passkey-{found.person}.json"'}
    return Response(json.dumps(data, indent=1) + "\n", media_type="application/json", headers=headers)


def _check_person(person: str) -> None:
    if _PERSON.fullmatch(person) is None:
        raise InvalidInput(
            "person", Rule.MALFORMED, repr(person[:80]), "your id in the roster: a-z, 0-9, dot, dash, underscore"
        )


def _page(parts: ConsoleParts, template: str, **context: object) -> Response:
    return HTMLResponse(environment().get_template(template).render(**{**signed_out_context(parts), **context}))
