# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was approved at a page makes seats sign: the worker's own walk over seats that decide by the real rules, and a ceremony by file.

The console stands here as behind a proxy that ends TLS, under the origin that genesis names everybody's passkeys for.
"""

import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from playwright.sync_api import sync_playwright

from api.console.app import create_console
from api.console.parts import ConsoleParts
from api.parts import ApiParts
from custody.rules.intents import TransferIntent
from custody.rules.passkeys import PASSKEY, Passkey
from custody.rules.seat_request import Request
from custody.rules.signatures import Scheme
from custody.rules.transfers import Status, Transfer
from devnet.chromium import find_chromium
from tests.console.browsing import Seat
from tests.console.calling import Caller, answer_of, rule_of
from tests.console.conftest import free_port
from tests.console.world import decode, serving
from tests.fakes.authenticator import ORIGIN, Authenticator
from tests.fakes.payouts import Workshop
from tests.fakes.seat import NOW
from tests.fakes.trust import GROUPS, passkey

REASONABLE: Final = 12
"""Steps of the worker until a transfer has to be signed."""


@dataclass
class Hall:
    """A workshop with the console before it."""

    shop: Workshop = field(default_factory=Workshop)
    port: int = field(default_factory=free_port)
    origin: str = ORIGIN

    def __post_init__(self) -> None:
        shop, store = self.shop, self.shop.treasury.store
        parts = ApiParts(
            store,
            lambda: shop.treasury.kernel.roster,
            lambda: shop.treasury.kernel,
            self,  # type: ignore[arg-type]  # no page issues addresses
            self,  # type: ignore[arg-type]
            lambda: shop.now,
            lambda: shop.now,
            secrets.token_bytes,
            NOW,
        )
        self.app = create_console(ConsoleParts(parts, self.origin, decode))
        for name, held in self.passkeys.items():
            row = Passkey(name, held.key, held.credential_id, ("internal",))
            store.run(lambda work, row=row: work.documents.put(PASSKEY, str(row.key), row.to_json()))

    def latest(self) -> object:
        """The attestor's word."""
        return self.shop.attestor.statement()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def passkeys(self) -> Mapping[str, Authenticator]:
        """Those of genesis."""
        return {name: passkey(name) for name in GROUPS}

    def approve(self, transfer: Transfer, *people: str) -> None:
        """These people approve at the page."""
        for person in people:
            answer = Caller(self, person).log_in().approve(transfer, answer_of(passkey(person), transfer.digest))
            assert answer.status_code == 303, rule_of(answer)


@pytest.fixture
def hall() -> Iterator[Hall]:
    """One of a test's own."""
    with serving(Hall()) as made:
        yield made


def test_a_pages_approvals_make_seats_sign(hall: Hall) -> None:
    """Two passkeys at the page, and nothing else that people did: the seats verify them again and sign; the draft is shown decoded."""
    transfer = hall.shop.treasury.propose()
    hall.shop.step()
    assert hall.shop.get(transfer).status is Status.PENDING_AUTHORIZATION
    hall.approve(transfer, "ana", "bo")
    hall.shop.step()
    assert hall.shop.get(transfer).status is Status.CONFIRMING
    kept = hall.shop.treasury.store.read(lambda work: work.transfers.approvals(transfer.digest))
    assert {each.signature.key.scheme for each in kept} == {Scheme.WEBAUTHN_ES256.value}
    page = Caller(hall, "cy").log_in().get(f"/transfers/{transfer.intent.id}").text
    assert "Decoded here for you to compare" in page
    assert "It does not pay this intent" not in page


def test_an_amount_changed_in_the_database_is_said_and_signed_by_nobody(hall: Hall) -> None:
    """Whoever owns the console's host and database changes the amount after people approved: the page, worker and seats refuse."""
    transfer = hall.shop.treasury.propose()
    hall.approve(transfer, "ana")
    forged = TransferIntent.from_json({**transfer.intent.to_json(), "amount": str(5 * 10**18)})
    rows = hall.shop.treasury.store._state.rows.transfers  # type: ignore[attr-defined]  # the fake's insides
    rows[transfer.digest] = replace(rows[transfer.digest], intent=forged)
    bo = Caller(hall, "bo").log_in()
    page = bo.get(f"/transfers/{transfer.intent.id}").text
    assert "This must not be approved" in page
    assert "Approve with my passkey" not in page
    assert rule_of(bo.approve(transfer, answer_of(passkey("bo"), transfer.digest))) == "approves_another_digest"
    for _ in range(REASONABLE):
        hall.shop.step()
    assert all(seat.asked == [] for seat in hall.shop.seats)


def test_a_ceremony_by_file(hall: Hall) -> None:
    """The request is downloaded, signed at a silent seat, and its signatures are uploaded; a false file changes nothing."""
    for seat in hall.shop.seats[:2]:
        seat.silent = True
    transfer = hall.shop.treasury.propose()
    hall.approve(transfer, "ana", "bo")
    hall.shop.step()
    assert hall.shop.get(transfer).status is Status.PENDING_SIGNATURE
    cy = Caller(hall, "cy").log_in()
    page = cy.get("/ceremonies").text
    assert "2 of 3 signatures are here" in page
    file = cy.get(f"/ceremonies/{transfer.intent.id}/request.json")
    assert file.headers["content-disposition"].startswith("attachment")
    request = Request.from_json(json.loads(file.text))
    hall.shop.seats[0].silent = False
    made = hall.shop.seats[0].sign(request)
    hall.shop.seats[0].silent = True
    where = f"/ceremonies/{transfer.intent.id}"
    assert rule_of(cy.upload(where, b"no json")) == "malformed"
    assert rule_of(cy.upload(where, b"[" * 100_000)) == "malformed"
    assert rule_of(cy.upload(where, json.dumps({**made.to_json(), "seat": "nobody"}).encode())) == "seat_not_in_roster"
    assert cy.upload(where, json.dumps(made.to_json()).encode()).status_code == 303
    hall.shop.step()
    assert hall.shop.get(transfer).status is Status.CONFIRMING
    assert "No seat is asked for anything now" in cy.get("/ceremonies").text
    assert rule_of(cy.get("/ceremonies/nope/request.json")) == "unknown_transfer"


def test_a_ceremony_in_a_browser(hall: Hall, tmp_path: Path) -> None:
    """Over TLS and under the origin of genesis: logged in by passkey, the request downloaded, signed at a silent seat, brought back."""
    for seat in hall.shop.seats[:2]:
        seat.silent = True
    transfer = hall.shop.treasury.propose()
    hall.approve(transfer, "ana", "bo")
    hall.shop.step()
    with over_tls(hall, tmp_path) as cy:
        cy.log_in()
        cy.goto("/ceremonies")
        with cy.page.expect_download() as started:
            cy.page.get_by_role("link", name="Download the request").click()
        started.value.save_as(tmp_path / "request.json")
        request = Request.from_json(json.loads((tmp_path / "request.json").read_text()))
        hall.shop.seats[0].silent = False
        (tmp_path / "signatures.json").write_text(json.dumps(hall.shop.seats[0].sign(request).to_json()))
        hall.shop.seats[0].silent = True
        cy.page.get_by_label("Signatures").set_input_files(tmp_path / "signatures.json")
        cy.press("Bring them in", lambda url: "done=brought" in url)
        hall.shop.step()
        assert hall.shop.get(transfer).status is Status.CONFIRMING
        cy.goto("/ceremonies")
        assert "No seat is asked for anything now" in cy.text()
        assert cy.faults == []


@contextmanager
def over_tls(hall: Hall, folder: Path) -> Iterator[Seat]:
    """Cy at a browser that finds the origin's host on this machine."""
    key, now, name = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), urlsplit(ORIGIN).hostname or ""
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder().subject_name(named).issuer_name(named).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    signed = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False).sign(key, SHA256())
    files = [folder / "tls.pem", folder / "tls.key"]
    files[0].write_bytes(signed.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port = free_port()
    config = uvicorn.Config(
        hall.app, port=port, ssl_certfile=files[0], ssl_keyfile=str(files[1]), log_level="critical", ws="none"
    )
    server, found = uvicorn.Server(config), find_chromium()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    there = [f"--host-resolver-rules=MAP {name}:443 127.0.0.1:{port}", "--ignore-certificate-errors"]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=found.program,
                args=[*found.flags, *there],
                env={**os.environ, **found.environment},
            )
            yield Seat(browser, hall, "cy")
            browser.close()
    finally:
        server.should_exit = True
        thread.join(60)


def test_the_cookie_over_tls_is_bound_to_its_host(hall: Hall) -> None:
    """__Host-, Secure, no domain; and HSTS."""
    answer = Caller(hall).get("/login")
    said = answer.headers["set-cookie"]
    assert said.startswith("__Host-bulkhead=")
    assert "Secure" in said
    assert "Domain" not in said
    assert "max-age" in answer.headers["strict-transport-security"]
