# SPDX-License-Identifier: AGPL-3.0-or-later
"""One console for all of these tests and one browser a file: each test brings transfers and people of its own."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from devnet.chromium import find_chromium
from tests.console.browsing import Seat
from tests.console.world import World, serving


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The deployment with its console."""
    with serving(World(tmp_path_factory.mktemp("console"), free_port())) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a display; ended after each file, since its event loop would stand in the way of other tests' own."""
    found = find_chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=found.program, args=list(found.flags), env={**os.environ, **found.environment}
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def seats(browser: Browser, world: World) -> Iterator[Callable[[str], Seat]]:
    """People at their browsers, logged in once a file: pages that are left open ask on, and hold up what another file measures."""
    known: dict[str, Seat] = {}

    def seat(person: str) -> Seat:
        if person not in known:
            known[person] = Seat(browser, world, person).log_in()
        return known[person]

    yield seat
    for each in known.values():
        each.close()


@pytest.fixture
def stranger(browser: Browser, world: World) -> Iterator[Seat]:
    """A browser that nobody is logged in at, and that has no passkey."""
    made = Seat(browser, world)
    yield made
    made.close()


@pytest.fixture
def fresh(browser: Browser, world: World) -> Iterator[Callable[[str], Seat]]:
    """A person at another browser, not logged in yet."""
    made: list[Seat] = []

    def seat(person: str, **options: object) -> Seat:
        made.append(Seat(browser, world, person, **options))
        return made[-1]

    yield seat
    for each in made:
        each.close()
