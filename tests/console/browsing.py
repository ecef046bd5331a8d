# SPDX-License-Identifier: AGPL-3.0-or-later
"""A browser of a person's own, with their passkey in a virtual authenticator that verifies its user (WebAuthn over CDP)."""

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from playwright.sync_api import Browser, BrowserContext, Page

from tests.fakes.authenticator import Authenticator

AUTHENTICATOR: Final = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class Place(Protocol):
    """A console, and whose passkeys there are."""

    @property
    def origin(self) -> str:
        """What browsers call it."""
        ...

    @property
    def passkeys(self) -> Mapping[str, Authenticator]:
        """Everybody's passkey."""
        ...


class Seat:
    """A person at a browser: a context of its own, so that no cookie is shared."""

    def __init__(self, browser: Browser, world: Place, person: str = "", **options: Any) -> None:
        self.world, self.person = world, person
        self.context: BrowserContext = browser.new_context(base_url=world.origin, **options)
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self._cdp = self.context.new_cdp_session(self.page)
        self._cdp.send("WebAuthn.enable")
        self.authenticator = self._cdp.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})[
            "authenticatorId"
        ]
        if person:
            self.hold(world.passkeys[person])

    def hold(self, held: Authenticator) -> None:
        """Put a passkey into this browser's authenticator."""
        private = held._private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        credential = {
            "credentialId": base64.b64encode(held.credential_id).decode(),
            "isResidentCredential": True,
            "rpId": held.rp_id,
            "privateKey": base64.b64encode(private).decode(),
            "userHandle": base64.b64encode(held.word.encode()).decode(),
            "signCount": 1,
        }
        self._cdp.send("WebAuthn.addCredential", {"authenticatorId": self.authenticator, "credential": credential})

    def forget(self) -> None:
        """Take every passkey out."""
        self._cdp.send("WebAuthn.clearCredentials", {"authenticatorId": self.authenticator})

    def verified(self, *, yes: bool) -> None:
        """Whether the authenticator recognises its user (a finger, a PIN)."""
        told = {"authenticatorId": self.authenticator, "isUserVerified": yes}
        self._cdp.send("WebAuthn.setUserVerified", told)

    def log_in(self, onward: str = "") -> "Seat":
        """Through the login page, with the passkey."""
        self.page.goto(f"/login?next={onward}" if onward else "/login")
        self.page.get_by_role("button", name="Log in with a passkey").click()
        self.page.wait_for_url(lambda url: "/login" not in url)
        return self

    def goto(self, path: str) -> Page:
        """A page."""
        self.page.goto(path)
        return self.page

    def text(self) -> str:
        """What stands in the page's own part."""
        return self.page.locator("main").inner_text()

    def press(self, name: str, until: Callable[[str], bool] | str) -> None:
        """Press a button, and wait for the address to be another."""
        self.page.get_by_role("button", name=name).click()
        self.page.wait_for_url(until)

    def post(self, path: str, form: dict[str, str], *, token: str | None = None, **headers: str) -> tuple[int, str]:
        """What the console answers to a form that no page of ours made: the status, and the first rule that refused."""
        own = self.page.locator("input[name=token]").first.get_attribute("value") or ""
        told = {
            "Origin": self.world.origin,
            "Sec-Fetch-Site": "same-origin",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        answer = self.context.request.post(
            self.world.origin + path,
            form={"token": own if token is None else token, **form},
            headers=told,
            max_redirects=0,
        )
        found = re.search(r'<code class="rule">([^<]+)</code>', answer.text())
        return answer.status, found[1] if found else ""

    def close(self) -> None:
        """Leave."""
        self.context.close()

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" and "the server responded with a status of" not in text:
            self.faults.append(text)
