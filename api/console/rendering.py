# SPDX-License-Identifier: AGPL-3.0-or-later
"""Templates: escaped always, and an unknown name is an error instead of an empty place where a person would read nothing."""

from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.console import assets, formats
from custody.rules import words

TEMPLATES: Final = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """The one environment; templates are compiled once a process."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=formats.shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        full=formats.full,
        when=formats.when,
        span=words.span,
        dollars=formats.dollars,
        tone=formats.status_class,
        clean=words.clean,
    )
    made.globals.update(asset=_asset)
    return made


def _asset(name: str) -> assets.Asset:
    return assets.assets()[name]
