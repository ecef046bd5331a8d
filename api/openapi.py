# SPDX-License-Identifier: AGPL-3.0-or-later
"""The description of the API (OpenAPI 3.1), true to what is served: signed requests, scopes, the idempotency header, problems.

FastAPI would describe its own validation errors, which nobody here ever gets.
"""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from api.gate import HEALTH
from api.routes import common, customers, enrolments, evidence, settlements, transfers
from custody.rules.refusals import Rule

Json = dict[str, Any]
SCHEME: Final = "signature"
ROUTERS: Final = tuple(routes.router for routes in (customers, transfers, settlements, enrolments, evidence))
ROUTES: Final = tuple(route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute))
_PROBLEM: Final = {"$ref": "#/components/schemas/Problem"}
_REASON: Final[Json] = {
    "type": "object",
    "required": ["rule", "operands"],
    "properties": {
        "rule": {"type": "string", "enum": sorted(Rule)},
        "operands": {"type": "object", "description": "The rule's numbers, as text."},
    },
}
_SCHEMAS: Final[Json] = {
    "Reason": _REASON,
    "Problem": {
        "type": "object",
        "description": "RFC 9457; `rule` and `operands` are of the first reason.",
        "required": ["type", "title", "status", "detail", "rule", "operands", "refusals"],
        "properties": {
            "type": {"const": "about:blank"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            **_REASON["properties"],
            "refusals": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}, "minItems": 1},
        },
    },
}
_KEY: Final[Json] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "1 to 200 printable characters, covered by the signature.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200},
}


class Described(FastAPI):
    """FastAPI with the description that is true here."""

    def openapi(self) -> Json:
        """The document, made once."""
        if self.openapi_schema is None:
            described = super().openapi()
            schemas = described["components"]["schemas"]
            for ours in ("HTTPValidationError", "ValidationError"):
                schemas.pop(ours, None)
            schemas |= _SCHEMAS
            described["components"]["securitySchemes"] = {SCHEME: _scheme()}
            for route in ROUTES:
                for method in route.methods or ():
                    _describe(route, described["paths"][route.path_format][method.lower()])
            described["paths"][HEALTH]["get"]["security"] = []
            self.openapi_schema = described
        return self.openapi_schema


def _scheme() -> Json:
    told = "RFC 9421, Ed25519, by an API client of the newest roster; docs/api.md says what it covers. Scopes are the client's."
    return {"type": "http", "scheme": "signature", "description": told}


def _describe(route: APIRoute, operation: Json) -> None:
    calls = {dependency.call for dependency in route.dependant.dependencies}
    # A route that asks for no caller breaks here, and with it every test of the description.
    asked = next(scopes for caller, scopes in common.SCOPES.items() if caller in calls)
    operation["security"] = [{SCHEME: list(asked)}]
    operation["responses"].pop("422", None)
    told = {"application/problem+json": {"schema": _PROBLEM}}
    operation["responses"]["default"] = {"description": "Refused, with its rule.", "content": told}
    if common.KEYED in calls:
        operation.setdefault("parameters", []).append(_KEY)
