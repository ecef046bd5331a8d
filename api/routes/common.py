# SPDX-License-Identifier: AGPL-3.0-or-later
"""What every route is given: the parts, and a caller whose scope was checked."""

from typing import Annotated, Final

from fastapi import Depends, Request

from api.gate import CALLER
from api.idempotency import Answers
from api.identity import Caller
from api.parts import ApiParts
from api.problems import Unauthenticated
from custody.rules.refusals import Refusal, Rule

Json = dict[str, object]


def _parts(request: Request) -> ApiParts:
    parts = request.app.state.parts
    assert isinstance(parts, ApiParts)  # noqa: S101  # create_app put it there
    return parts


def _answers(request: Request) -> Answers:
    answers = request.app.state.answers
    assert isinstance(answers, Answers)  # noqa: S101  # create_app put it there
    return answers


def _caller(request: Request) -> Caller:
    caller = request.scope.get(CALLER)
    if not isinstance(caller, Caller):  # a route that somebody mounts before the gate stays closed
        raise Unauthenticated([Refusal(Rule.SIGNATURE_MISSING, want="RFC 9421, Ed25519")])
    return caller


def _scoped(request: Request, scope: str) -> Caller:
    caller = _caller(request)
    caller.check_scope(scope)
    return caller


def _reading(request: Request) -> Caller:
    return _scoped(request, "read")


def _proposing(request: Request) -> Caller:
    return _scoped(request, "propose")


def _settling(request: Request) -> Caller:
    return _scoped(request, "settle")


Parts = Annotated[ApiParts, Depends(_parts)]
Remembered = Annotated[Answers, Depends(_answers)]
Reader = Annotated[Caller, Depends(_reading)]
Proposer = Annotated[Caller, Depends(_proposing)]
Settler = Annotated[Caller, Depends(_settling)]
Anybody = Annotated[Caller, Depends(_caller)]
"""Any client in force: it carries a document whose own signature is what counts."""
SCOPES: Final = {_reading: ("read",), _proposing: ("propose",), _settling: ("settle",), _caller: ()}
"""What each kind of caller is asked for, for the API's own description."""
KEYED: Final = _answers
"""What only routes take that ask for an Idempotency-Key."""
