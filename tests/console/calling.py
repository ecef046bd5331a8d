# SPDX-License-Identifier: AGPL-3.0-or-later
"""A person at the console without a browser: real HTTP, real forms, and a passkey in software that signs whatever a test wants."""

import html
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

import requests

from tests.fakes.authenticator import Authenticator, base64url


class Place(Protocol):
    """A console: where it listens, what browsers call it, and whose passkeys there are."""

    @property
    def url(self) -> str:
        """Where it listens."""
        ...

    @property
    def origin(self) -> str:
        """What browsers call it."""
        ...

    @property
    def passkeys(self) -> Mapping[str, Authenticator]:
        """Everybody's passkey."""
        ...


class Caller:
    """One cookie jar. It follows no redirect by itself."""

    def __init__(self, world: Place, person: str = "") -> None:
        self.world, self.person = world, person
        self.http = requests.Session()
        self.token = ""

    @property
    def cookie(self) -> str:
        """The console's cookie."""
        return self.http.cookies.get("bulkhead") or self.http.cookies.get("__Host-bulkhead") or ""

    @property
    def _host(self) -> str:
        return self.world.origin.partition("://")[2]

    @property
    def _secret(self) -> dict[str, str]:
        """A cookie of TLS, which the jar would not send to a loopback port; a proxy would have ended TLS here."""
        held = self.http.cookies.get("__Host-bulkhead")
        return {} if held is None else {"Cookie": f"__Host-bulkhead={held}"}

    def get(self, path: str) -> requests.Response:
        """A page; whatever form token it has is kept."""
        told = {"Host": self._host, **self._secret}
        answer = self.http.get(self.world.url + path, headers=told, allow_redirects=False, timeout=30)
        found = re.search(r'name="token" value="([0-9a-f]+)"', answer.text)
        self.token = found[1] if found else self.token
        return answer

    def post(self, path: str, form: dict[str, str], **headers: str) -> requests.Response:
        """A form as a browser sends it from a page of the console; headers may be changed."""
        told = {"Origin": self.world.origin, "Sec-Fetch-Site": "same-origin", "Host": self._host, **self._secret}
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"token": self.token, **form}
        return self.http.post(self.world.url + path, data=body, headers=told, allow_redirects=False, timeout=30)

    def log_in(self, by: Authenticator | None = None) -> "Caller":
        """Through the login page."""
        answer = self.answer_login(by)
        assert answer.status_code == 303, answer.text
        self.get("/me")
        return self

    def answer_login(self, by: Authenticator | None = None, digest: bytes | None = None) -> requests.Response:
        """The answer to the login that this jar is asked for, over another digest where told."""
        page = self.get("/login").text
        asked = bytes.fromhex(found_in(page, r'data-digest="0x([0-9a-f]{64})"'))
        held = by or self.world.passkeys[self.person]
        return self.post("/login", {"answer": answer_of(held, digest or asked), "next": "/queue"})

    def upload(self, path: str, body: bytes = b"", files: Mapping[str, bytes] | None = None) -> requests.Response:
        """A file, or several by the names of their fields, as a form sends them."""
        told = {"Origin": self.world.origin, "Sec-Fetch-Site": "same-origin", "Host": self._host, **self._secret}
        given = {"file": body} if files is None else files
        sent = {name: ("file.json", content, "application/json") for name, content in given.items()}
        form = {"token": self.token}
        return self.http.post(
            self.world.url + path, data=form, files=sent, headers=told, allow_redirects=False, timeout=30
        )

    def approve(self, transfer: Any, answer: str, **form: str) -> requests.Response:
        """An approval with this answer of a passkey."""
        said = {"digest": "0x" + transfer.digest.hex(), "stood": "PENDING_AUTHORIZATION/", "answer": answer, **form}
        return self.post(f"/transfers/{transfer.intent.id}/approve", said)


def answer_of(held: Authenticator, digest: bytes) -> str:
    """What a browser would send for a passkey's assertion."""
    made = held.assertion(digest)
    response = {
        "authenticatorData": base64url(made.authenticator_data),
        "clientDataJSON": base64url(made.client_data),
        "signature": base64url(made.signature),
    }
    named = base64url(held.credential_id)
    return json.dumps({"id": named, "rawId": named, "type": "public-key", "response": response})


def found_in(page: str, pattern: str) -> str:
    """The one group of a pattern in a page."""
    found = re.search(pattern, page)
    assert found is not None, page[:2000]
    return html.unescape(found[1])


def rule_of(answer: requests.Response) -> str:
    """The first rule that a page of refusal names."""
    found = re.search(r'<code class="rule">([^<]+)</code>', answer.text)
    return found[1] if found else answer.text[:200]
