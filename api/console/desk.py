# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a page is given: the parts, who sits there, and a way to answer. Nobody gets one without a session."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final

from fastapi import Depends, Form, Request
from starlette.responses import HTMLResponse, Response

from api.console import formats
from api.console.parts import ConsoleParts
from api.console.registry import Page, all_pages, decides
from api.console.rendering import environment
from api.console.sessions import Session, cookie_name, is_token_of, session_of
from custody.flows.kernel import Kernel
from custody.flows.ports import Store
from custody.rules.errors import CustodyError
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.roster import Person, Roster

TOKEN: Final = "token"  # noqa: S105  # the name of a form's field
_FRAGMENT: Final = "hx-request"


class LoggedOut(CustodyError):
    """Nobody is logged in at this browser, or not any more."""


@dataclass(frozen=True)
class Desk:
    """One request of somebody who is logged in. `page` is what the route belongs to."""

    request: Request
    parts: ConsoleParts
    session: Session
    page: Page

    @property
    def person(self) -> Person:
        """Who sits there, as the newest roster names them."""
        return self.session.person

    @property
    def store(self) -> Store:
        """The store."""
        return self.parts.api.store

    @cached_property
    def roster(self) -> Roster:
        """The newest roster."""
        return self.parts.api.roster()

    @cached_property
    def kernel(self) -> Kernel:
        """What transfers are judged by; the same through one request. Raises Unavailable."""
        return self.parts.api.kernel()

    @cached_property
    def now(self) -> int:
        """Seconds since 1970 as documents are judged: the statement's time on a devnet."""
        return self.parts.api.clock()

    def show(self, template: str, status: int = 200, **context: Any) -> Response:  # noqa: ANN401  # whatever its template names
        """A page from a template; `desk`, `person`, `now` and `quantity(units, symbol)` are there in every one."""
        body = self.words(template, **context)
        return HTMLResponse(body, status)

    def words(self, template: str, **context: Any) -> str:  # noqa: ANN401  # whatever its template names
        """The same as text: for a part of a page that is asked for again."""
        return (
            environment()
            .get_template(template)
            .render(**{**signed_out_context(self.parts), **self._context(), **context})
        )

    @property
    def decides(self) -> bool:
        """Whether this person may ask for anything but a page: not an auditor, and not a viewer."""
        return decides(self.person, self.roster)

    def check_decides(self) -> None:
        """Raises Refused(scope_missing) for whoever only looks."""
        if not self.decides:
            raise Refused([Refusal(Rule.SCOPE_MISSING, person=self.person.id, want="somebody of a group that decides")])

    @property
    def is_fragment(self) -> bool:
        """Whether a page asks for a part of itself again."""
        return self.request.headers.get(_FRAGMENT) == "true"

    def _context(self) -> dict[str, Any]:
        shown = [page for page in all_pages() if page.label and page.sees(self.person, self.roster)]
        context = {"desk": self, "person": self.person, "now": self.now, "page": self.page, "pages": shown}
        return {**context, "token": self.session.token, "quantity": _quantity(self)}


def signed_out_context(parts: ConsoleParts) -> dict[str, Any]:
    """What every template has, those before a login too."""
    return {"desk": None, "person": None, "page": None, "pages": (), "token": "", "origin": parts.origin}


def _quantity(desk: Desk) -> Any:  # noqa: ANN401  # a function of templates
    def quantity(units: int, symbol: str) -> object:
        return formats.quantity(units, symbol, desk.kernel.assets)

    return quantity


def parts_of(request: Request) -> ConsoleParts:
    """The console's parts."""
    parts = request.app.state.parts
    assert isinstance(parts, ConsoleParts)  # noqa: S101  # create_console put it there
    return parts


def secret_of(request: Request) -> str:
    """The secret in this browser's cookie; empty where there is none, or two."""
    name = cookie_name(parts_of(request))
    given = [value for line in request.headers.getlist("cookie") for value in _cookies(line, name)]
    return (
        given[0] if len(given) == 1 else ""
    )  # a sibling host may add a second cookie of the name: neither counts then


def _cookies(line: str, name: str) -> list[str]:
    pairs = (part.strip().partition("=") for part in line.split(";"))
    return [value for found, _, value in pairs if found == name]


def seated(page: Page, request: Request) -> Desk:
    """The desk of whoever is logged in and may see this page. Raises LoggedOut, and Refused(scope_missing)."""
    parts = parts_of(request)
    session = session_of(parts, secret_of(request))
    if session is None:
        raise LoggedOut
    desk = Desk(request, parts, session, page)
    if not page.sees(session.person, desk.roster):
        raise Refused([Refusal(Rule.SCOPE_MISSING, person=session.person.id, want=f"somebody who may see {page.name}")])
    return desk


def _desk(request: Request) -> Desk:
    desk = getattr(request.state, "desk", None)
    if not isinstance(desk, Desk):  # a route that somebody mounts outside the registry stays closed
        raise LoggedOut
    return desk


def _posting(
    request: Request, desk: Annotated[Desk, Depends(_desk)], token: Annotated[str, Form(alias=TOKEN)] = ""
) -> Desk:
    """Only a form of this very session asks for anything: another page, and another session's form, do not have the token."""
    if not is_token_of(secret_of(request), token):
        want = "a form of this session: open the page again"
        raise Refused([Refusal(Rule.SIGNATURE_MISSING, document="form", want=want)])
    return desk


def guard(page: Page) -> Any:  # noqa: ANN401  # FastAPI's Depends
    """What every route of a page waits for first."""

    def check(request: Request) -> None:
        request.state.desk = seated(page, request)

    return Depends(check)


At = Annotated[Desk, Depends(_desk)]
"""A look at a page."""
Posted = Annotated[Desk, Depends(_posting)]
"""Something asked for by a form: `Posted` is in the signature of every route that is not GET."""
