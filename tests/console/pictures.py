# SPDX-License-Identifier: AGPL-3.0-or-later
"""Pictures of every page, at both widths, into docs/console: `python -m tests.console.pictures` (`make pictures`).

Every page of the registry is taken, so that a new one is pictured without being named here. The deployment is that of the console's
tests: signed roster, certificates and rules, the real pages, and made-up chains.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

from api.console.registry import all_pages
from devnet.chromium import find_chromium
from tests.console.browsing import Seat
from tests.console.conftest import free_port
from tests.console.furnishing import furnish
from tests.console.world import World, serving

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "docs" / "console"
SIZES: Final = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
TALL: Final = 2200
"""Pixels of a page that a picture shows at the most."""


def names(world: World) -> Iterator[tuple[str, str]]:
    """Each picture's name and path."""
    found = furnish(world)
    ana = next(person for person in world.roster.version.people if person.id == "ana")
    for page in all_pages():
        if page.label and page.sees(ana, world.roster):
            yield page.name, page.path
    yield from (("me", "/me"), ("enrol", "/enrol"))
    yield from ((name, path) for name, path in found.items())
    yield "refused", "/nope"


def picture(seat: Seat, path: str, size: str, target: Path) -> None:
    """One page, whole as far as TALL."""
    seat.page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
    seat.goto(path)
    seat.page.wait_for_timeout(150)
    height = min(TALL, int(seat.page.evaluate("document.documentElement.scrollHeight")))
    clip = {"x": 0, "y": 0, "width": SIZES[size]["width"], "height": height}
    seat.page.screenshot(path=target, full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]


def take(browser: Browser, world: World, folder: Path) -> None:
    """All of them, and a few in the dark."""
    folder.mkdir(parents=True, exist_ok=True)
    stranger = Seat(browser, world)
    for size in SIZES:
        picture(stranger, "/login", size, folder / f"login-{size}.png")
    stranger.close()
    seat = Seat(browser, world, "ana").log_in()
    pages = list(names(world))
    for name, path in pages:
        for size in SIZES:
            picture(seat, path, size, folder / f"{name}-{size}.png")
        sys.stderr.write(f"{name}: {path}\n")
    seat.close()
    dark = Seat(browser, world, "ana", color_scheme="dark").log_in()
    for name, path in pages:
        if name in ("queue", "wallets", "transfer"):
            picture(dark, path, "wide", folder / f"{name}-dark.png")
    dark.close()


def main() -> None:
    """Into docs/console, or the folder that is named."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    found = find_chromium()
    with tempfile.TemporaryDirectory(prefix="pictures-") as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.program, args=list(found.flags), env={**os.environ, **found.environment}
        )
        with serving(World(Path(home), free_port())) as world:
            take(browser, world, folder)
        browser.close()


if __name__ == "__main__":
    main()
