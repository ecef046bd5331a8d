# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every error as `application/problem+json` (RFC 9457), with the rule's name in `rule` and its numbers in `operands` (TERMS.md).

A rule has one status wherever it is broken; a request that names nobody, or not truly, is 401 by any rule.
"""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from custody.rules.errors import CustodyError, InvalidInput, Unavailable
from custody.rules.provenance import refusal_of
from custody.rules.refusals import Refusal, Refused, Rule

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 2
"""When to try again after 503."""
BUSY_SECONDS: Final = 1
"""When to try again after 429."""
_LOG: Final = logging.getLogger("bulkhead.api")
_TOLD: Final = 300
_MANY: Final = 20

_STATUS: Final[Mapping[Rule, HTTPStatus]] = {
    Rule.MALFORMED: HTTPStatus.BAD_REQUEST,
    Rule.IDEMPOTENCY_MISSING: HTTPStatus.BAD_REQUEST,
    **dict.fromkeys(
        (
            Rule.SCOPE_MISSING,
            Rule.SIGNATURE_INVALID,
            Rule.SIGNATURE_MISSING,
            Rule.SIGNER_UNKNOWN,
            Rule.SIGNER_EXPIRED,
            Rule.INITIATOR_APPROVES,
            Rule.AUTHORITY_PROPOSES,
            Rule.FROZEN,
        ),
        HTTPStatus.FORBIDDEN,
    ),
    **dict.fromkeys((Rule.NO_ROUTE, Rule.UNKNOWN_TRANSFER), HTTPStatus.NOT_FOUND),
    Rule.METHOD: HTTPStatus.METHOD_NOT_ALLOWED,
    **dict.fromkeys(
        (
            Rule.ALREADY_EXISTS,
            Rule.ALREADY_RECORDED,
            Rule.ALREADY_ACCEPTED,
            Rule.IDEMPOTENCY_IN_FLIGHT,
            Rule.PROPOSAL_BOUND,
            Rule.INTENT_BOUND,
            Rule.INDEX_BOUND,
            Rule.INSUFFICIENT_BALANCE,
            Rule.ILLEGAL_MOVE,
            Rule.SIGNATURE_ASKED,
            Rule.SIGNER_TWICE,
        ),
        HTTPStatus.CONFLICT,
    ),
    Rule.BODY_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Rule.MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    **dict.fromkeys((Rule.ROW_DAMAGED, Rule.INTERNAL), HTTPStatus.INTERNAL_SERVER_ERROR),
    Rule.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Rule.BUSY: HTTPStatus.TOO_MANY_REQUESTS,
}
"""Every other rule is 422: it was understood, and refused."""
_GRAVEST: Final = (
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.CONFLICT,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)


class Unauthenticated(Refused):
    """The request names nobody, or not truly: always 401."""


class Absent(Refused):
    """What the path names does not exist: always 404."""


class Busy(Refused):
    """More writes wait than are taken in: always 429, and nothing of this one was looked at or recorded."""


class Unproven(Refused):
    """Evidence that does not hold, or that the attestor refuses to give: always 503, with the rules, for it is not the caller's fault."""


def status_of(refusals: Iterable[Refusal]) -> HTTPStatus:
    """The gravest status among these reasons."""
    found = {_STATUS.get(refusal.rule, HTTPStatus.UNPROCESSABLE_ENTITY) for refusal in refusals}
    return next(status for status in _GRAVEST if status in found)


def problem(error: CustodyError) -> Response:
    """The answer to an error that this code base raises on purpose."""
    match error:
        case Unauthenticated():
            return _answer(HTTPStatus.UNAUTHORIZED, error.refusals, {"WWW-Authenticate": "Signature"})
        case Absent():
            return _answer(HTTPStatus.NOT_FOUND, error.refusals)
        case Busy():
            return _answer(HTTPStatus.TOO_MANY_REQUESTS, error.refusals, {"Retry-After": str(BUSY_SECONDS)})
        case Unproven():
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, error.refusals, {"Retry-After": str(RETRY_SECONDS)})
        case Refused():
            return _answer(status_of(error.refusals), error.refusals)
        case InvalidInput():
            return _answer(status_of([refusal_of(error)]), [refusal_of(error)])
        case Unavailable():
            reason = Refusal(Rule.UNAVAILABLE, what=error.what, why=error.why)
            return _answer(status_of([reason]), [reason], {"Retry-After": str(RETRY_SECONDS)})
        case _:
            _LOG.error("a fault of ours: %s", error)
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, [Refusal(Rule.INTERNAL)])


def install(app: FastAPI) -> None:
    """Answer everything that FastAPI and Starlette raise as a problem too."""
    app.add_exception_handler(CustodyError, _custody)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def plain(value: object) -> object:
    """An operand as JSON: integers as decimal strings, which no reader rounds; bytes as 0x hex; anything unknown as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _answer(status: HTTPStatus, refusals: Iterable[Refusal], headers: Mapping[str, str] | None = None) -> Response:
    told = [{"rule": r.rule.value, "operands": plain(r.operands)} for r in refusals]
    body = {
        "type": "about:blank",  # the status is the kind of problem, the rule the reason: there is no page to point at
        "title": status.phrase,
        "status": status.value,
        "detail": "; ".join(str(refusal) for refusal in refusals),
        **told[0],
        "refusals": told,
    }
    return JSONResponse(body, status.value, headers=headers, media_type=MEDIA_TYPE)


def _custody(_request: Request, error: Exception) -> Response:
    return problem(error) if isinstance(error, CustodyError) else _unexpected(_request, error)


def _validation(_request: Request, error: Exception) -> Response:
    """What pydantic found, without echoing what was sent."""
    found = error.errors()[:_MANY] if isinstance(error, RequestValidationError) else ()
    reasons = [
        Refusal(Rule.MALFORMED, field=".".join(str(part) for part in e["loc"])[:_TOLD], want=str(e["msg"])[:_TOLD])
        for e in found
    ]
    return _answer(HTTPStatus.BAD_REQUEST, reasons or [Refusal(Rule.MALFORMED, field="request")])


def _http(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route, no such method, and whatever else it may raise."""
    status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    headers = error.headers if isinstance(error, HTTPException) else None
    if status is HTTPStatus.NOT_FOUND:
        return _answer(status, [Refusal(Rule.NO_ROUTE, path=request.url.path[:_TOLD])], headers)
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return _answer(status, [Refusal(Rule.METHOD, method=request.method, path=request.url.path[:_TOLD])], headers)
    rule = Rule.MALFORMED if status < HTTPStatus.INTERNAL_SERVER_ERROR else Rule.INTERNAL
    return _answer(status, [Refusal(rule, field="request")], headers)


def _unexpected(_request: Request, error: Exception) -> Response:
    """A bug: logged whole by the server, told without a word of it."""
    _LOG.error("unexpected %s", type(error).__name__)
    return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, [Refusal(Rule.INTERNAL)])
