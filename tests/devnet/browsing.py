# SPDX-License-Identifier: AGPL-3.0-or-later
"""The console of a born devnet in a real browser: passkeys stand in genesis, and what is approved at the page is paid on chain."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from playwright.sync_api import sync_playwright

from api.compose import open_parts
from api.console.app import create_console
from api.console.parts import ConsoleParts
from api.deriving import RemoteDeriver
from custody.rules.passkeys import PASSKEY, enrolled
from custody.rules.signatures import Scheme
from custody.rules.transfers import Status
from custody.settings import Settings
from devnet.birth import BITCOIN
from devnet.chromium import find_chromium
from devnet.scenes.desk import Desk
from devnet.scenes.stage import Stage
from devnet.story import Story
from tests.console.browsing import Seat
from tests.console.conftest import free_port
from tests.console.world import serving
from tests.fakes.authenticator import Authenticator

APPROVERS: Final = ("ana", "cleo")
"""Of operations and of risk."""


@dataclass
class RealConsole:
    """The console over a deployment's own processes, on the port that its passkeys are named for."""

    app: FastAPI
    port: int
    origin: str
    passkeys: Mapping[str, Authenticator]


@cache
def port() -> int:
    """The console's, settled before genesis, because genesis names it."""
    return free_port()


def passkeys() -> Mapping[str, Authenticator]:
    """Theirs."""
    return {name: Authenticator(f"{name}'s passkey", f"http://localhost:{port()}") for name in APPROVERS}


def leave_passkeys(folder: Path) -> None:
    """As the page's enrolment files, among the key files of people, before there is a genesis."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, held in passkeys().items():
        challenge = os.urandom(32)
        file = {
            "type": "PasskeyEnrolment",
            "person": name,
            "origin": held.origin,
            "challenge": "0x" + challenge.hex(),
            "response": held.registration(challenge),
        }
        (folder / f"passkey-{name}.json").write_text(json.dumps(file))


def approve_in_browser(stage: Stage, story: Story) -> None:
    """Propose, approve at the page as two people, work, and look at the chain."""
    home, desk = stage.world.net.home, Desk(stage)
    deployment = stage.deployment
    for name in APPROVERS:
        found = enrolled(json.loads((home / "people" / f"passkey-{name}.json").read_text()))
        deployment.store.run(lambda work, row=found: work.documents.put(PASSKEY, str(row.key), row.to_json()))  # type: ignore[misc]
    address = str(stage.world.net.bitcoind.rpc("getnewaddress", wallet="miner"))
    desk.quote()
    desk.enrol("bob", BITCOIN, address)
    desk.pass_a_day()
    transfer = desk.propose("at-the-page", "bob", "BTC", 60_000_000, address)
    assert transfer.status is Status.PENDING_AUTHORIZATION, transfer.waiting_for
    deriver = RemoteDeriver(Path(Settings.load(home).deriver_socket))
    origin = f"http://localhost:{port()}"
    app = create_console(ConsoleParts(open_parts(home), origin, deriver.decode))
    found_browser = find_chromium()
    with serving(RealConsole(app, port(), origin, passkeys())) as console, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found_browser.program,
            args=list(found_browser.flags),
            env={**os.environ, **found_browser.environment},
        )
        for name in APPROVERS:
            seat = Seat(browser, console, name).log_in()
            seat.goto(f"/transfers/{transfer.intent.id}")
            assert address in seat.text().replace("\n", "")
            seat.press("Approve with my passkey", lambda url: "done=approved" in url)
            assert seat.faults == []
            seat.close()
        desk.work(story, transfer)
        after = desk.now(transfer)
        assert after.status is Status.COMPLETED, after.waiting_for
        seat = Seat(browser, console, "ana").log_in()
        seat.goto(f"/transfers/{transfer.intent.id}")
        draft = seat.page.locator("section[aria-labelledby=draft]").inner_text()
        assert "0.6 BTC" in draft
        assert "It does not pay this intent" not in draft
        assert seat.faults == []
        browser.close()
    kept = deployment.store.read(lambda work: work.transfers.approvals(transfer.digest))
    assert {each.signature.key.scheme for each in kept} == {Scheme.WEBAUTHN_ES256.value}
    paid = stage.world.net.bitcoind.rpc("getreceivedbyaddress", address, 1, wallet="miner")
    assert float(str(paid)) == 0.6
