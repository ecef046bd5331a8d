# SPDX-License-Identifier: AGPL-3.0-or-later
"""A typed client of the API: signs every request (RFC 9421, Ed25519) and, where asked to, the documents in it.

Raises `Refused` with the rules that the server names, and `Unavailable` for 5xx and silence: a caller reads rules, not status codes.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver, algorithms

from api.signing import CONTENT_DIGEST, IDEMPOTENCY_KEY, METHOD, TARGET_PARTS, HeaderLines, Message, tag
from custody.flows.ports import Clock
from custody.keyfiles import Signer
from custody.rules.amounts import Amount
from custody.rules.approvals import Approval
from custody.rules.certificates import DepositAddress, Enrolment
from custody.rules.errors import Unavailable
from custody.rules.intents import Proposal, Rejection, TransferIntent
from custody.rules.refusals import Refusal, Refused, Rule
from custody.rules.settlements import Settlement
from custody.rules.signatures import Signed
from custody.rules.statements import Statement
from custody.rules.typed import Domain

EXPIRES: Final = 60
_SECONDS: Final = 330.0
"""How long an answer may take: the attestor's first statement reads the whole journal."""
Json = dict[str, Any]


def wall_clock() -> int:
    """Seconds since 1970 by this machine."""
    return int(time.time())


class RequestSigner:
    """Signs requests as one API client of one deployment."""

    def __init__(self, client: str, key: Ed25519PrivateKey, genesis: bytes, clock: Clock = wall_clock) -> None:
        self._client, self._tag, self._clock = client, tag(genesis), clock
        keys = MappingKeyResolver(public_keys={}, private_keys={client: key})
        self._signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=keys)

    def sign(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The headers to send: those given, the digest of the body where there is one, and the signature over all of it."""
        message = Message(method, url, HeaderLines((headers or {}).items()))
        covered = [METHOD, *TARGET_PARTS]
        covered += [IDEMPOTENCY_KEY] * (IDEMPOTENCY_KEY in message.headers)
        covered += [CONTENT_DIGEST] * (CONTENT_DIGEST in message.headers)
        now = self._clock()
        self._signer.sign(
            message,
            key_id=self._client,
            created=datetime.fromtimestamp(now, UTC),
            expires=datetime.fromtimestamp(now + EXPIRES, UTC),
            nonce=secrets.token_urlsafe(24),
            label="bulkhead",
            tag=self._tag,
            covered_component_ids=covered,
            body=body or None,
        )
        return dict(message.headers.items())


class ApiClient:
    """One connection to one server as one client. `domain` is the deployment's, learnt from genesis, never from the server."""

    def __init__(
        self, url: str, client: str, key: Ed25519PrivateKey, domain: Domain, clock: Clock = wall_clock
    ) -> None:
        self._url, self._domain = url.rstrip("/"), domain
        self._signer = RequestSigner(client, key, domain.genesis, clock)
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment would see, and could hold, every request

    def health(self) -> Json:
        """Whether the server answers and is ready; the one request that is not signed."""
        return self._read(self._send("GET", "/v1/health", signed=False))

    def add_customer(self, customer: str) -> Json:
        """Record a customer."""
        return self._post("/v1/customers", {"id": customer})

    def customers(self) -> Iterator[Json]:
        """Every customer with balances, page by page."""
        return self._pages("/v1/customers")

    def customer(self, customer: str) -> Json:
        """One customer with balances."""
        return self._get(f"/v1/customers/{_part(customer)}")

    def addresses(self, customer: str) -> list[Signed[DepositAddress]]:
        """The deposit addresses that were issued to a customer, as the attestor signed them."""
        found = self._get(f"/v1/customers/{_part(customer)}/addresses")["items"]
        return [Signed.from_json(DepositAddress, item["document"]) for item in found]

    def issue_address(self, customer: str, chain: str) -> Signed[DepositAddress]:
        """The customer's deposit address on a chain: the one there is, or a new one."""
        found = self._post(f"/v1/customers/{_part(customer)}/addresses", {"chain": chain})
        return Signed.from_json(DepositAddress, found["document"])

    def enrol(self, signed: Signed[Enrolment]) -> Json:
        """Carry an enrolment that an address authority signed."""
        return self._post("/v1/enrolments", signed.to_json())

    def enrolments(self, owner: str) -> list[Json]:
        """Every enrolment of an owner (`customer:ID` or `company`), the newest first."""
        items: list[Json] = self._get("/v1/enrolments", {"owner": owner})["items"]
        return items

    def settle(self, signed: Signed[Settlement], key: str) -> Json:
        """Record a settlement of trades."""
        return self._post("/v1/settlements", signed.to_json(), key)

    def propose(self, proposal: Proposal, amount: Amount, signer: Signer, key: str) -> Json:
        """Sign a proposal and send it. `amount` is what the proposal moves, for its decimal form; `key` makes repeating harmless."""
        return self._post("/v1/transfers", self._proposal(proposal, amount, signer), key)

    def dry_run(self, proposal: Proposal, amount: Amount, signer: Signer) -> Json:
        """What `propose` would do now; nothing is recorded."""
        return self._post("/v1/transfers/dry-run", self._proposal(proposal, amount, signer))

    def transfer(self, transfer: str) -> Json:
        """One transfer with its history and approvals."""
        return self._get(f"/v1/transfers/{_part(transfer)}")

    def transfers(self, **filters: str) -> Iterator[Json]:
        """Transfers, oldest first, page by page; filters are `account`, `wallet` and `status`."""
        return self._pages("/v1/transfers", filters)

    def approve(self, transfer: str, person: str, signer: Signer) -> Json:
        """Sign a yes over the digest that is computed here from the intent's own fields, and send it."""
        intent = TransferIntent.from_json(self.transfer(transfer)["intent"])
        digest = self._domain.digest(intent)
        return self.send_approval(transfer, Approval(digest, person, signer.sign(digest)))

    def send_approval(self, transfer: str, approval: Approval) -> Json:
        """Carry an approval that somebody signed elsewhere."""
        return self._post(f"/v1/transfers/{_part(transfer)}/approvals", approval.to_json())

    def reject(self, transfer: str, reason: str, signer: Signer) -> Json:
        """Sign a no and send it."""
        return self._post(f"/v1/transfers/{_part(transfer)}/rejections", self._rejection(transfer, reason, signer))

    def cancel(self, transfer: str, reason: str, signer: Signer) -> Json:
        """Sign the initiator's own no and send it."""
        return self._post(f"/v1/transfers/{_part(transfer)}/cancel", self._rejection(transfer, reason, signer))

    def wallets(self) -> list[Json]:
        """The inventory."""
        items: list[Json] = self._get("/v1/wallets")["items"]
        return items

    def coverage(self) -> Json:
        """The latest statement's rows, each with its surplus."""
        return self._get("/v1/coverage")

    def statement(self, sequence: int | None = None) -> Signed[Statement]:
        """The latest statement, or one by its sequence."""
        named = "latest" if sequence is None else str(sequence)
        return Signed.from_json(Statement, self._get(f"/v1/statements/{named}"))

    def _proposal(self, proposal: Proposal, amount: Amount, signer: Signer) -> Json:
        signature = signer.sign(self._domain.digest(proposal))
        told = {**proposal.to_json(), "amount": amount.decimal, "expiry": proposal.expiry}
        return {**told, "signatures": [signature.to_json()]}

    def _rejection(self, transfer: str, reason: str, signer: Signer) -> Json:
        intent = TransferIntent.from_json(self.transfer(transfer)["intent"])
        no = Rejection(self._domain.digest(intent), reason)
        return Signed(no, (signer.sign(self._domain.digest(no)),)).to_json()

    def _pages(self, path: str, filters: Mapping[str, str] | None = None) -> Iterator[Json]:
        asked = dict(filters or {})
        while True:
            page = self._get(path, asked)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            asked["cursor"] = page["next_cursor"]

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        return self._read(self._send("GET", path + (f"?{urlencode(query)}" if query else "")))

    def _post(self, path: str, body: Json, key: str | None = None) -> Json:
        raw = json.dumps(body, separators=(",", ":")).encode()
        return self._read(self._send("POST", path, raw, key))

    def _send(
        self, method: str, path: str, body: bytes = b"", key: str | None = None, *, signed: bool = True
    ) -> requests.Response:
        headers = {"Content-Type": "application/json"} if body else {}
        headers |= {"Idempotency-Key": key} if key is not None else {}
        url = self._url + path
        if signed:
            headers = self._signer.sign(method, url, body, headers)
        try:
            return self._session.request(
                method, url, data=body or None, headers=headers, timeout=_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            raise Unavailable(self._url, type(error).__name__) from error

    def _read(self, answer: requests.Response) -> Json:
        try:
            body = answer.json()
        except requests.JSONDecodeError as error:
            raise Unavailable(self._url, f"{answer.status_code} without JSON") from error
        if not isinstance(body, dict):
            raise Unavailable(self._url, "answered in another shape")
        if answer.ok:
            return body
        try:
            refusals = [Refusal(Rule(told["rule"]), **told["operands"]) for told in body["refusals"]]
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(self._url, f"{answer.status_code} in another shape") from error
        if answer.status_code >= requests.codes.server_error:
            raise Unavailable(self._url, str(body.get("detail", "")))
        raise Refused(refusals)


def _part(name: str) -> str:
    return quote(name, safe="")
