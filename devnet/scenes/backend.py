# SPDX-License-Identifier: AGPL-3.0-or-later
"""The trading backend over HTTP, as it would do it anywhere: the typed client, signed requests, a process that can sign nothing."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from eth_account import Account

from api.client import ApiClient, RequestSigner
from custody.attestor import verify_signature
from custody.bootstrap import wall_clock
from custody.chains.evm.transactions import send
from custody.keyfiles import Ed25519Signer, open_pem
from custody.rules.amounts import Amount
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.errors import Unavailable
from custody.rules.facts import Destination, Purpose
from custody.rules.intents import Proposal, TransferIntent
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import FeeLeg, Settlement, Trade
from custody.rules.signatures import Signed
from devnet.birth import EVM
from devnet.people import PASSWORD
from devnet.scenes.attacks import refused
from devnet.scenes.desk import Desk, find
from devnet.scenes.stage import Stage
from devnet.story import Story
from devnet.treasury import DAY

CUSTOMER: Final = "dora"
ETHER: Final = 10**18
_PATIENCE: Final = 10.0
"""Seconds in which the API, which keeps the statement's time for two, notices that a day went by."""


@dataclass(frozen=True)
class Office:
    """The backend's side of a stage: one client for each key file, and what it asks for."""

    stage: Stage

    @property
    def url(self) -> str:
        """Where the API's process listens."""
        return self.stage.world.services.web.url

    def key(self, name: str) -> Ed25519PrivateKey:
        """A program's key, out of its file."""
        return open_pem(self.stage.world.net.home / "people" / f"{name}.pem", PASSWORD)

    def signer(self, name: str) -> Ed25519Signer:
        """Signs this program's documents."""
        return Ed25519Signer(self.key(name))

    def client(self, name: str) -> ApiClient:
        """The typed client of one program; genesis is told to it, never asked of the server."""
        return ApiClient(self.url, name, self.key(name), self.stage.deployment.roster.domain)

    def amount(self, proposal: Proposal) -> Amount:
        """What a proposal moves."""
        return Amount(self.stage.deployment.bundle.assets.get(proposal.asset), proposal.amount)

    def propose(self, proposal: Proposal, key: str, by: str = "backend") -> str:
        """Sign and send it; the transfer's id."""
        return str(self.client(by).propose(proposal, self.amount(proposal), self.signer(by), key)["id"])

    def ask(
        self, method: str, path: str, body: bytes = b"", *, ago: int | None = 0, sent: bytes | None = None
    ) -> Callable[[], None]:
        """One request of the backend's, ready to be sent any number of times; signed `ago` seconds ago, None for not at all.

        `sent` is the body that travels where it is not the one that was signed. Raises Refused as the server does.
        """
        headers: Mapping[str, str] = {"Content-Type": "application/json"} if body else {}
        if ago is not None:
            genesis = self.stage.deployment.roster.domain.genesis
            signer = RequestSigner("backend", self.key("backend"), genesis, lambda: wall_clock() - ago)
            headers = signer.sign(method, self.url + path, body, headers)

        def send_it() -> None:
            answer = requests.request(
                method, self.url + path, data=body if sent is None else sent, headers=dict(headers), timeout=60
            )
            if not answer.ok:
                raise Refused([Refusal(Rule(told["rule"]), **told["operands"]) for told in answer.json()["refusals"]])

        return send_it


def over_the_api(stage: Stage, story: Story) -> None:
    """A customer, an address, a withdrawal that goes out by itself, one that is stopped, and every request that is refused."""
    story.chapter("The backend over HTTP: signed requests to a process that holds nothing that can sign")
    desk, office, to = Desk(stage), Office(stage), Account.create().address
    backend = office.client("backend")
    _arrive(stage, story, backend)
    _enrol(desk, backend, to)
    desk.pass_a_day()
    _refuse_requests(story, office)
    until = desk.clock() + 7 * DAY
    small = _proposal("api-small", ETHER // 2, to, until)
    _try(story, office, backend, small)
    _propose(story, office, small)
    desk.work(story, find(stage, small.reference))
    paid = int(str(stage.world.net.anvil.rpc("eth_getBalance", to, "latest")), 16)
    ended = backend.transfer(find(stage, small.reference).intent.id)["status"]
    story.claim(
        "proposed over HTTP, paid without a person", (ended, paid) == ("COMPLETED", ETHER // 2), f"{ended}, {paid} wei"
    )
    _stop(stage, story, office, _proposal("api-large", 6 * ETHER, to, until))
    _refuse_scopes(stage, story, office, _proposal("api-wrong", ETHER // 2, to, until))
    _look(stage, story, backend)


def _proposal(reference: str, units: int, to: str, until: int) -> Proposal:
    """A withdrawal of our customer's ether."""
    return Proposal(reference, f"customer:{CUSTOMER}", EVM.name, "ETH", units, to, Purpose.WITHDRAWAL.value, until)


def _arrive(stage: Stage, story: Story, backend: ApiClient) -> None:
    """A customer and a deposit address, asked for over the API; a stranger pays it; the balance is read back."""
    backend.add_customer(CUSTOMER)
    bound = backend.issue_address(CUSTOMER, EVM.name)
    again = backend.addresses(CUSTOMER)
    story.claim("an address over HTTP, signed by the attestor", again == [bound], bound.message.address)
    send(stage.evm, stage.stranger(), bound.message.address, value=10 * ETHER)
    stage.mine()
    stage.watch()
    rows = {row["asset"]: row for row in backend.customer(CUSTOMER)["balances"]}
    has = rows["ETH"]["available"]
    story.claim("what arrived there is theirs", has["base_units"] == str(10 * ETHER), f"{has['amount']} ETH")


def _enrol(desk: Desk, backend: ApiClient, to: str) -> None:
    """The backend carries what an address authority signed; carrying it decides nothing."""
    kind, until = Destination.CUSTOMER_WITHDRAWAL.value, desk.clock() + 900 * DAY
    message = Enrolment(EVM.name, to, f"customer:{CUSTOMER}", kind, bytes(32), until)
    world, domain = desk.stage.world, desk.stage.deployment.roster.domain
    backend.enrol(world.cast.sign(domain, Signed(message, ()), ["hana"]))


def _try(story: Story, office: Office, backend: ApiClient, small: Proposal) -> None:
    """Dry runs, which record nothing: what would go by itself, and what stands between the rest and that."""
    signer, amount = office.signer("backend"), office.amount(small)
    deadline = time.monotonic() + _PATIENCE
    while True:  # until the API's clock, too, is a day later: prices of now are from the future before
        try:
            told = backend.dry_run(small, amount, signer)
        except Unavailable:
            told = {}
        if (told and told["decision"]["outcome"] == "AUTOMATIC") or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    outcome = told["decision"]["outcome"] if told else "unavailable"
    story.claim("a dry run: it would go out by itself", outcome == "AUTOMATIC", outcome)
    large = replace(small, amount=6 * ETHER)
    told = backend.dry_run(large, office.amount(large), signer)
    unmet = {line["rule"]: line for line in told["decision"]["unmet"]}
    asked = unmet.get("P01-customer-withdrawal", {})
    held = told["decision"]["outcome"] == "REQUIRE" and asked.get("part") == "automatic_when"
    story.claim("a dry run of more: each rule's first unmet condition", held and len(unmet) > 3, asked.get("condition"))
    story.tell(f"it asks for {told['asks']}; {len(unmet)} rules did not match")


def _propose(story: Story, office: Office, small: Proposal) -> None:
    """Once for each Idempotency-Key, however often it is sent; never anything else under the same one."""
    first, second = office.propose(small, "key-1"), office.propose(small, "key-1")
    story.claim("the same Idempotency-Key again: the same transfer", first == second, first)
    other = replace(small, amount=small.amount + 1)
    refused(
        story, "proposals", "another body under it", Rule.IDEMPOTENCY_MISMATCH, lambda: office.propose(other, "key-1")
    )


def _stop(stage: Stage, story: Story, office: Office, large: Proposal) -> None:
    """One that people have to approve: a yes travels over the API, a forged one does not count, the initiator's no ends it."""
    backend, people = office.client("backend"), stage.world.cast.people
    made = office.propose(large, "key-2")
    digest = stage.deployment.roster.domain.digest(TransferIntent.from_json(backend.transfer(made)["intent"]))
    yes = office.ask("POST", f"/v1/transfers/{made}/approve", json.dumps({"person": "ana"}).encode())
    refused(story, "the API", "a person's yes without their key", Rule.NO_ROUTE, yes)
    forged = Approval(digest, "ana", office.signer("backend").sign(digest))
    refused(
        story,
        "approvals",
        "the backend's signature as ana's",
        Rule.SIGNER_UNKNOWN,
        lambda: backend.send_approval(made, forged),
    )
    after = backend.approve(made, "ana", people["ana"])
    story.claim(
        "ana's own yes, carried by the backend, counts", after["waiting_for"] == "1 of risk", after["waiting_for"]
    )
    gone = backend.cancel(made, "the customer changed their mind", office.signer("backend"))["status"]
    held = next(row for row in backend.customer(CUSTOMER)["balances"] if row["asset"] == "ETH")["held"]["base_units"]
    story.claim(
        "the backend cancels it, and its hold is freed", (gone, held) == ("CANCELLED", "0"), f"{gone}, {held} held"
    )


def _refuse_requests(story: Story, office: Office) -> None:
    """Requests that name nobody, or not truly, or not now: refused before any route is looked for."""
    at, mallory = "/v1/customers", b'{"id":"mallory"}'
    refused(
        story,
        "the gate",
        "a request without a signature",
        Rule.SIGNATURE_MISSING,
        office.ask("POST", at, mallory, ago=None),
    )
    once = office.ask("GET", at)
    once()
    refused(story, "the gate", "the same signed request again", Rule.REPLAYED, once)
    refused(story, "the gate", "a request signed ten minutes ago", Rule.STALE, office.ask("GET", at, ago=600))
    refused(story, "the gate", "one signed ten minutes ahead", Rule.TOO_EARLY, office.ask("GET", at, ago=-600))
    tampered = office.ask("POST", at, b'{"id":"erin"}', sent=mallory)
    refused(story, "the gate", "a body that changed under way", Rule.CONTENT_DIGEST, tampered)


def _refuse_scopes(stage: Stage, story: Story, office: Office, wrong: Proposal) -> None:
    """True signatures of keys whose scope is another."""
    scope = Rule.SCOPE_MISSING
    refused(
        story, "the API", "a key of scope read that proposes", scope, lambda: office.propose(wrong, "key-3", "auditor")
    )
    refused(
        story,
        "the API",
        "a key of scope settle that proposes",
        scope,
        lambda: office.propose(wrong, "key-4", "matching"),
    )
    deployment = stage.deployment
    trade = Trade("t-api", (), (FeeLeg(CUSTOMER, "ETH", 1),))
    message = Settlement("api-settlement", "backend", deployment.bundle.hash, wall_clock(), (trade,))
    signed = stage.world.cast.sign(deployment.roster.domain, Signed(message, ()), ["backend"])
    refused(
        story,
        "the API",
        "a key of scope propose that settles",
        scope,
        lambda: office.client("backend").settle(signed, "key-5"),
    )
    refused(story, "the API", "a key of scope settle that reads", scope, office.client("matching").wallets)


def _look(stage: Stage, story: Story, backend: ApiClient) -> None:
    """What anybody with `read` sees: transfers, wallets, coverage, the attestor's own signature, health."""
    mine = {found["reference"]: found["status"] for found in backend.transfers(account=f"customer:{CUSTOMER}")}
    told = ", ".join(f"{name} {status}" for name, status in mine.items())
    story.claim("their transfers, listed", mine == {"api-small": "COMPLETED", "api-large": "CANCELLED"}, told)
    labels = sorted(wallet["label"] for wallet in backend.wallets())
    story.claim("every wallet of the inventory", len(labels) == len(stage.deployment.wallets()), f"{len(labels)}")
    short = [row["asset"] for row in backend.coverage()["items"] if int(row["surplus"]["base_units"]) < 0]
    story.claim("coverage: no asset is below zero", not short, ", ".join(short))
    faults = list(verify_signature(backend.statement(), stage.deployment.roster))
    story.claim("the statement verifies by the attestor's own key", not faults, faults or "")
    health = backend.health()
    story.claim("health tells a stranger that it answers, and nothing else", set(health) == {"status", "ready"}, health)
