# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which pages there are, and who sees them. A module of `pages/` has a `PAGE`; nothing is listed twice.

A page is `pages/NAME.py` with `router = APIRouter()`, `PAGE = Page(...)` and routes that take `desk: At` (or `desk: Posted`, where a form
asks for something) and answer `desk.show("NAME.html", …)`; its template extends `base.html` and imports `macros.html`. Numbers go
through `quantity(units, symbol)` and `| dollars`, times through `| when`, hashes and addresses through `| full`; None and float raise.

What a page may be seen by is checked here, once, for every route of its router: a route cannot forget it.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from fastapi import APIRouter

from api.console import pages
from custody.rules.roster import Person, Roster

Sees = Callable[[Person, Roster], bool]
"""Whether a person of the newest roster may see a page, and ask for what its routes do."""


def everybody(_person: Person, _roster: Roster) -> bool:
    """Whoever the newest roster names: an auditor and a viewer too."""
    return True


def decides(person: Person, roster: Roster) -> bool:
    """Whoever is in a group, owns policies or has authority over addresses; an auditor or a viewer, in none, only looks."""
    version = roster.version
    silent = {"auditor", "viewer"}
    return bool(set(person.groups) - silent) or person.id in (*version.policy_owners, *version.address_authorities)


@dataclass(frozen=True)
class Page:
    """One page: its routes, and its place in the navigation (none without a label). `path` is where the navigation leads."""

    name: str
    path: str
    label: str
    router: APIRouter
    order: int
    sees: Sees = everybody


@cache
def all_pages() -> tuple[Page, ...]:
    """Every page, in the order of the navigation. Looked for when a console is made: the pages import this module."""
    names = (f"{pages.__name__}.{found.name}" for found in pkgutil.iter_modules(pages.__path__))
    return tuple(sorted((importlib.import_module(name).PAGE for name in names), key=lambda page: page.order))
