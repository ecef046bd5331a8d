# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routes of API v1 over a furnished treasury: scopes, idempotency, amounts, cursors, documents that people signed, problems."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from api import cursors
from custody.flows import proposals
from custody.rules.errors import Unavailable
from custody.rules.governance import Freeze
from custody.rules.intents import Proposal, Rejection, TransferIntent
from custody.rules.refusals import Rule
from custody.rules.requirement import Outcome
from custody.rules.settlements import FeeLeg, Leg, Settlement, Trade
from tests.fakes.api import Answer, Api
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519, secp256k1, signed_by
from tests.fakes.treasury import AVAILABLE, HELD, FakePrices, Treasury, enrolment, kernel, proposal, signed
from tests.fakes.trust import GROUPS, STRANGER, answers, world

ONE: Final = 10**18
Json = dict[str, Any]


def body_of(message: Proposal, by: str = "backend", **changes: Any) -> Json:
    """A proposal as it travels; `changes` come after signing."""
    signer = secp256k1(by) if by in GROUPS else ed25519(by)
    signature = signer.sign(world().domain.digest(message)).to_json()
    decimal = f"{message.amount // ONE}.{message.amount % ONE:018d}".rstrip("0").rstrip(".")
    return {**message.to_json(), "amount": decimal, "expiry": message.expiry, "signatures": [signature], **changes}


def propose(api: Api, key: str | None = "k1", by: str = "backend", **changes: Any) -> Answer:
    """Propose one ETH of ada's."""
    return api.ask("POST", "/v1/transfers", body_of(proposal(), **changes), by=by, key=key)


def approval(transfer: Json, person: str, key: str = "") -> Json:
    """A person's yes over the digest of the intent's own fields."""
    digest = world().domain.digest(TransferIntent.from_json(transfer["intent"]))
    return {
        "intent": transfer["digest"],
        "person": person,
        "signature": secp256k1(key or person).sign(digest).to_json(),
    }


def rejection(transfer: Json, by: str) -> Json:
    """Somebody's no."""
    return signed(Rejection(bytes.fromhex(transfer["digest"][2:]), "no"), by).to_json()


def settlement(number: int = 1, by: str = "settler", **changes: Any) -> Json:
    """ada sells one ETH for bo's bitcoin, paid by nobody else."""
    legs = (Leg("ada", "ETH", -ONE), Leg("bo", "ETH", ONE))
    fees = (FeeLeg("ada", "ETH", 10**12),)
    schedule = kernel().policies.newest.fees.bundle
    message = Settlement(f"s{number}", by, schedule, NOW, (Trade(f"t{number}", legs, fees if number < 0 else ()),))
    return signed_by(replace(message, **changes), world().domain, [ed25519(by)]).to_json()


class TestScopes:
    """Read, propose and settle are apart: each route asks for its own."""

    @pytest.mark.parametrize(
        ("method", "path", "body", "by"),
        [
            pytest.param("GET", "/v1/customers", None, "desk", id="reading with a proposing key"),
            pytest.param("GET", "/v1/transfers", None, "desk", id="listing transfers"),
            pytest.param("GET", "/v1/coverage", None, "desk", id="coverage"),
            pytest.param("GET", "/v1/wallets", None, "finance", id="wallets"),
            pytest.param("GET", "/v1/statements/latest", None, "finance", id="statements"),
            pytest.param("GET", "/v1/enrolments?owner=company", None, "finance", id="enrolments"),
            pytest.param("POST", "/v1/customers", {"id": "zoe"}, "settler", id="adding a customer with a settling key"),
            pytest.param(
                "POST", "/v1/customers/ada/addresses", {"chain": EVM.name}, "settler", id="issuing an address"
            ),
            pytest.param("POST", "/v1/transfers", body_of(proposal()), "settler", id="proposing with a settling key"),
            pytest.param("POST", "/v1/transfers/dry-run", body_of(proposal()), "settler", id="a dry run"),
            pytest.param("POST", "/v1/settlements", settlement(), "backend", id="settling with a proposing key"),
            pytest.param("POST", "/v1/settlements", settlement(), "desk", id="settling with another proposing key"),
        ],
    )
    def test_refused(self, method: str, path: str, body: Json | None, by: str) -> None:
        """403 by scope_missing, and nothing happened."""
        answer = Api().ask(method, path, body, by=by, key="k" if body else None)
        assert (answer.status, answer.rule) == (403, "scope_missing")

    def test_a_settlement_in_a_proposers_name(self) -> None:
        """The settle key carries what a proposing key signed: the document's own signature is refused."""
        answer = Api().ask("POST", "/v1/settlements", settlement(by="backend"), by="settler", key="k")
        assert (answer.status, answer.rule) == (403, "scope_missing")

    def test_a_proposal_in_a_settlers_name(self) -> None:
        """A client with the propose scope carries what a settling key signed."""
        answer = Api().ask("POST", "/v1/transfers", body_of(proposal(), "settler"), key="k")
        assert (answer.status, answer.rule) == (403, "scope_missing")


class TestPropose:
    """A proposal becomes one intent, held for."""

    def test_accepted(self) -> None:
        """Both forms of the amount, the digest that people sign, and where it waits."""
        api = Api()
        made = propose(api)
        told = made.json
        assert (made.status, made.headers["location"]) == (201, f"/v1/transfers/{told['id']}")
        assert (told["amount"], told["base_units"], told["status"]) == ("1", str(ONE), "PENDING_AUTHORIZATION")
        assert told["digest"] == "0x" + world().domain.digest(TransferIntent.from_json(told["intent"])).hex()
        assert (api.treasury.balance(AVAILABLE), api.treasury.balance(HELD)) == (146 * ONE, ONE)
        assert api.ask("GET", "/v1/customers/ada").json["balances"][0]["held"]["base_units"] == str(ONE)

    @pytest.mark.parametrize(
        ("changes", "status", "rule"),
        [
            pytest.param({"amount": "2"}, 403, "signature_invalid", id="another amount than was signed"),
            pytest.param({"destination": STRANGER}, 403, "signature_invalid", id="another destination"),
            pytest.param({"amount": "0"}, 422, "amount_not_positive", id="nothing"),
            pytest.param({"amount": "-1"}, 422, "amount_negative", id="less than nothing"),
            pytest.param({"amount": "1e3"}, 400, "malformed", id="an exponent"),
            pytest.param({"amount": "01"}, 400, "malformed", id="a leading zero"),
            pytest.param({"amount": "1."}, 400, "malformed", id="a point without places"),
            pytest.param({"amount": ".5"}, 400, "malformed", id="a point without whole"),
            pytest.param({"amount": "+1"}, 400, "malformed", id="a sign"),
            pytest.param({"amount": " 1"}, 400, "malformed", id="a space"),
            pytest.param({"amount": "١"}, 400, "malformed", id="another script's digit"),
            pytest.param({"amount": 1}, 400, "malformed", id="a number"),
            pytest.param({"amount": "0." + "0" * 18 + "1"}, 422, "too_many_decimal_places", id="nineteen places"),
            pytest.param({"amount": "0." + "0" * 17 + "1"}, 422, "dust", id="dust"),
            pytest.param({"amount": "9" * 80}, 422, "amount_exceeds_uint256", id="beyond uint256"),
            pytest.param({"asset": "DOGE"}, 422, "unknown_asset", id="unknown asset"),
            pytest.param({"expiry": -1}, 400, "malformed", id="before 1970"),
            pytest.param({"expiry": 2**64}, 400, "malformed", id="beyond uint64"),
            pytest.param({"expiry": True}, 400, "malformed", id="a boolean for a time"),
            pytest.param({"expiry": str(NOW + 9)}, 400, "malformed", id="a text for a time"),
            pytest.param({"signatures": []}, 400, "malformed", id="no signature"),
            pytest.param({"status": "COMPLETED"}, 400, "malformed", id="a field that is not the sender's"),
        ],
    )
    def test_refused(self, changes: Json, status: int, rule: str) -> None:
        """Each by its rule; nothing is held."""
        api = Api()
        answer = propose(api, **changes)
        assert (answer.status, answer.rule) == (status, rule)
        assert api.treasury.balance(HELD) == 0

    @pytest.mark.parametrize(
        ("message", "status", "rule"),
        [
            pytest.param(proposal(expiry=NOW), 422, "expired", id="expired"),
            pytest.param(proposal(destination=STRANGER), 422, "destination_not_enrolled", id="unenrolled"),
            pytest.param(proposal(account="customer:nobody"), 422, "unknown_customer", id="unknown customer"),
            pytest.param(proposal(amount=148 * ONE), 409, "insufficient_balance", id="more than there is"),
            pytest.param(proposal(purpose="gift"), 400, "malformed", id="unknown purpose"),
        ],
    )
    def test_refused_by_the_flow(self, message: Proposal, status: int, rule: str) -> None:
        """What is well signed and not allowed; a dry run says the same of everything but balances, which it lists."""
        api = Api()
        answer = api.ask("POST", "/v1/transfers", body_of(message), key="k")
        assert (answer.status, answer.rule) == (status, rule)
        dry = api.ask("POST", "/v1/transfers/dry-run", body_of(message))
        rules = [r["rule"] for r in dry.json["refusals"]]
        assert rule in rules

    def test_unknown_prices(self) -> None:
        """Unknown is no value: 503, and when to try again."""
        api = Api(treasury=Treasury(kernel=kernel(prices=FakePrices(down=True))))
        answer = propose(api)
        assert (answer.status, answer.rule, answer.headers["retry-after"]) == (503, "unavailable", "2")

    def test_dry_run(self) -> None:
        """Policy's answer in full; nothing is recorded."""
        api = Api()
        told = api.ask("POST", "/v1/transfers/dry-run", body_of(proposal()))
        assert told.status == 200
        assert (told.json["decision"]["outcome"], told.json["asks"]) == ("REQUIRE", "1 of operations, 1 of risk")
        assert api.ask("GET", "/v1/transfers").json == {"items": [], "next_cursor": None}

    def test_dry_run_automatic(self) -> None:
        """Nobody is asked, though its decision names who would be beyond the seats' caps."""
        api = Api(treasury=Treasury(kernel=kernel(answers(Outcome.AUTOMATIC))))
        told = api.ask("POST", "/v1/transfers/dry-run", body_of(proposal())).json
        assert (told["decision"]["outcome"], told["asks"]) == ("AUTOMATIC", "nobody")

    def test_dry_run_frozen(self) -> None:
        """What it would wait for is among the refusals."""
        freeze = Freeze("customer:ada", "odd", NOW - 1, NOW + 60)
        api = Api(treasury=Treasury(kernel=kernel(freezes=(freeze,))))
        told = api.ask("POST", "/v1/transfers/dry-run", body_of(proposal())).json
        assert [refusal["rule"] for refusal in told["refusals"]] == ["frozen"]

    def test_dry_run_denied(self) -> None:
        """What denies is named."""
        api = Api(treasury=Treasury(kernel=kernel(answers(Outcome.DENY))))
        told = api.ask("POST", "/v1/transfers/dry-run", body_of(proposal())).json
        assert told["decision"]["outcome"] == "DENY"
        assert told["refusals"]


class TestIdempotency:
    """Every POST that moves money is asked for once."""

    @pytest.mark.parametrize("path", ["/v1/transfers", "/v1/settlements"])
    def test_missing(self, path: str) -> None:
        """400 before anything happens."""
        by, body = ("backend", body_of(proposal())) if path == "/v1/transfers" else ("settler", settlement())
        answer = Api().ask("POST", path, body, by=by)
        assert (answer.status, answer.rule) == (400, "idempotency_key_missing")

    @pytest.mark.parametrize("key", ["", "k" * 201])
    def test_malformed(self, key: str) -> None:
        """Empty, or endless."""
        assert propose(Api(), key).rule == "malformed"

    def test_a_proposal_again(self) -> None:
        """One intent, one hold, the transfer as it stands now; also after a restart, because the store knows."""
        api = Api()
        first = propose(api).json
        assert propose(api).json["id"] == first["id"]
        assert propose(Api(treasury=_same(api), clock=api.clock)).json["id"] == first["id"]
        assert api.treasury.balance(HELD) == ONE

    def test_a_proposal_with_another_body(self) -> None:
        """422; also after a restart."""
        api = Api()
        assert propose(api).status == 201
        other = body_of(proposal(2))
        for again in (api, Api(treasury=_same(api), clock=api.clock)):
            answer = again.ask("POST", "/v1/transfers", other, key="k1")
            assert (answer.status, answer.rule) == (422, "idempotency_key_with_another_body")

    def test_a_proposal_under_another_key(self) -> None:
        """The same proposal is not two intents."""
        api = Api()
        assert propose(api).status == 201
        assert propose(api, "k2").status in {409, 422}
        assert api.treasury.balance(HELD) == ONE

    def test_a_settlement_again(self) -> None:
        """The same answer, and one entry; after a restart the store refuses the second."""
        api = Api()
        first = api.ask("POST", "/v1/settlements", settlement(), by="settler", key="k")
        assert (first.status, api.ask("POST", "/v1/settlements", settlement(), by="settler", key="k").json) == (
            201,
            first.json,
        )
        again = Api(treasury=_same(api)).ask("POST", "/v1/settlements", settlement(), by="settler", key="k")
        assert (again.status, again.rule) == (409, "already_recorded")

    def test_a_settlement_with_another_body(self) -> None:
        """422."""
        api = Api()
        assert api.ask("POST", "/v1/settlements", settlement(), by="settler", key="k").status == 201
        answer = api.ask("POST", "/v1/settlements", settlement(2), by="settler", key="k")
        assert (answer.status, answer.rule) == (422, "idempotency_key_with_another_body")

    def test_a_refusal_is_not_remembered(self) -> None:
        """What was refused for a reason that is gone goes through."""
        api = Api(treasury=Treasury(kernel=kernel(prices=FakePrices(down=True))))
        assert propose(api).status == 503
        api.treasury.kernel = kernel()
        assert propose(api).status == 201

    def test_in_flight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """409 while the first is still working; another body is 422 then too."""
        begun, go = threading.Event(), threading.Event()
        original = proposals.propose

        def slow(*given: Any) -> Any:
            begun.set()
            go.wait(10)
            return original(*given)

        monkeypatch.setattr(proposals, "propose", slow)
        api, found = Api(), []
        thread = threading.Thread(target=lambda: found.append(propose(api)))
        thread.start()
        assert begun.wait(10)
        busy, other = propose(api), api.ask("POST", "/v1/transfers", body_of(proposal(2)), key="k1")
        go.set()
        thread.join()
        assert (busy.status, busy.rule) == (409, "idempotency_key_in_flight")
        assert (other.status, other.rule) == (422, "idempotency_key_with_another_body")
        assert found[0].status == 201


def _same(api: Api) -> Treasury:
    """The treasury of another api, not furnished a second time."""
    return api.treasury


def test_a_damaged_row_hides_no_other() -> None:
    """It is listed as its digest and what is wrong with it, pages go on behind it, and it alone cannot be shown."""
    api = Api()
    asked = (api.ask("POST", "/v1/transfers", body_of(proposal(n)), key=f"k{n}") for n in (1, 2, 3))
    made = [answer.json for answer in asked]
    rows: Any = api.treasury.store.run(lambda work: work.transfers)
    rows._state.damaged.add(bytes.fromhex(made[1]["digest"][2:]))
    first = api.ask("GET", "/v1/transfers?limit=2")
    assert (first.status, first.json["items"][0]) == (200, made[0])
    told = first.json["items"][1]
    assert (told["digest"], told["damaged"]["rule"]) == (made[1]["digest"], "row_damaged")
    assert set(told) == {"digest", "damaged"}
    rest = api.ask("GET", f"/v1/transfers?limit=2&cursor={first.json['next_cursor']}")
    assert rest.json["items"] == made[2:]
    assert api.ask("GET", f"/v1/transfers/{made[1]['id']}").rule == "row_damaged"


class TestPeople:
    """People's own signatures, whoever carries them."""

    def test_approved(self) -> None:
        """Two groups say yes; the history tells it."""
        api = Api()
        made = propose(api).json
        path = f"/v1/transfers/{made['id']}"
        first = api.ask("POST", f"{path}/approvals", approval(made, "ana"), by="settler")
        assert (first.status, first.json["waiting_for"]) == (200, "1 of risk")
        assert api.ask("POST", f"{path}/approvals", approval(made, "bo")).json["status"] == "QUEUED"
        told = api.ask("GET", path).json
        assert [a["person"] for a in told["approvals"]] == ["ana", "bo"]
        assert [m["status"] for m in told["history"]][-1] == "QUEUED"
        assert api.ask("GET", f"{path}/approvals").json["rejections"] == []

    @pytest.mark.parametrize(
        ("make", "status", "rule"),
        [
            pytest.param(lambda m: approval(m, "ana", "bo"), 403, "signer_not_in_roster", id="under another's key"),
            pytest.param(lambda m: approval(m, "mallory"), 403, "signer_not_in_roster", id="a stranger"),
            pytest.param(
                lambda m: {**approval(m, "ana"), "intent": "0x" + "00" * 32},
                422,
                "approves_another_digest",
                id="another intent",
            ),
            pytest.param(lambda m: {**approval(m, "ana"), "intent": "0x00"}, 400, "malformed", id="no digest"),
        ],
    )
    def test_approval_refused(self, make: Callable[[Json], Json], status: int, rule: str) -> None:
        """By its rule, and nobody is counted."""
        api = Api()
        made = propose(api).json
        answer = api.ask("POST", f"/v1/transfers/{made['id']}/approvals", make(made))
        assert (answer.status, answer.rule) == (status, rule)
        assert api.ask("GET", f"/v1/transfers/{made['id']}").json["approvals"] == []

    def test_the_initiator(self) -> None:
        """Whoever proposed does not approve."""
        api = Api()
        made = api.ask("POST", "/v1/transfers", body_of(proposal(), "ana"), key="k").json
        answer = api.ask("POST", f"/v1/transfers/{made['id']}/approvals", approval(made, "ana"))
        assert (answer.status, answer.rule) == (403, "initiator_approves_own_transfer")

    def test_rejected(self) -> None:
        """One no ends it and frees the hold; nothing follows."""
        api = Api()
        made = propose(api).json
        path = f"/v1/transfers/{made['id']}"
        assert api.ask("POST", f"{path}/rejections", rejection(made, "bo")).json["status"] == "REJECTED"
        assert api.treasury.balance(HELD) == 0
        late = api.ask("POST", f"{path}/approvals", approval(made, "ana"))
        assert (late.status, late.rule) == (409, "status_move_not_allowed")

    def test_cancelled(self) -> None:
        """By the initiator alone."""
        api = Api()
        made = propose(api).json
        path = f"/v1/transfers/{made['id']}/cancel"
        assert api.ask("POST", path, rejection(made, "bo")).status == 403
        assert api.ask("POST", path, rejection(made, "backend"), by="settler").rule == "scope_missing"
        assert api.ask("POST", path, rejection(made, "backend")).json["status"] == "CANCELLED"

    def test_enrolments(self) -> None:
        """Recorded with the first sight, which stays; an authority's signature is what counts."""
        api = Api()
        document = enrolment(address=STRANGER)
        made = api.ask("POST", "/v1/enrolments", document.to_json(), by="settler")
        assert (made.status, made.json["first_seen"]) == (201, NOW)
        api.clock.now += 10
        assert api.ask("POST", "/v1/enrolments", document.to_json()).json["first_seen"] == NOW
        assert api.ask("GET", f"/v1/enrolments/{made.json['digest']}").json == made.json
        assert len(api.ask("GET", "/v1/enrolments?owner=customer:ada").json["items"]) == 3
        forged = enrolment(address=STRANGER, authority="ana", evidence=b"\1" * 32).to_json()
        answer = api.ask("POST", "/v1/enrolments", forged)
        assert (answer.status, answer.rule) == (403, "signature_invalid")
        assert api.ask("GET", "/v1/enrolments/0x" + "11" * 32).status == 404


class TestReading:
    """What is there, page by page."""

    def test_customers_and_addresses(self) -> None:
        """A new customer owns nothing; its address is the attestor's word, the same each time."""
        api = Api()
        assert api.ask("POST", "/v1/customers", {"id": "zoe"}).status == 201
        assert (api.ask("POST", "/v1/customers", {"id": "zoe"}).status) == 409
        first = api.ask("POST", "/v1/customers/zoe/addresses", {"chain": BITCOIN.name})
        assert (first.status, api.ask("POST", "/v1/customers/zoe/addresses", {"chain": BITCOIN.name}).json) == (
            201,
            first.json,
        )
        assert api.ask("GET", "/v1/customers/zoe/addresses").json["items"] == [first.json]
        assert {b["available"]["amount"] for b in api.ask("GET", "/v1/customers/zoe").json["balances"]} == {"0"}
        for path in ("/v1/customers/nobody", "/v1/customers/nobody/addresses"):
            assert (api.ask("GET", path).status, api.ask("GET", path).rule) == (404, "unknown_customer")
        assert api.ask("POST", "/v1/customers/nobody/addresses", {"chain": EVM.name}).status == 404
        assert api.ask("POST", "/v1/customers/ada/addresses", {"chain": "eip155:1"}).rule == "unknown_wallet"

    def test_pages(self) -> None:
        """Each row once, in order, whatever was added meanwhile."""
        api = Api()
        for number in range(5):
            assert api.ask("POST", "/v1/transfers", body_of(proposal(number)), key=f"k{number}").status == 201
        page = api.ask("GET", "/v1/transfers?limit=2").json
        found = [row["reference"] for row in page["items"]]
        while page["next_cursor"]:
            page = api.ask("GET", f"/v1/transfers?limit=2&cursor={page['next_cursor']}").json
            found += [row["reference"] for row in page["items"]]
        assert found == [f"order {number}" for number in range(5)]
        assert len(api.ask("GET", "/v1/transfers?account=customer:bo").json["items"]) == 0
        assert len(api.ask("GET", "/v1/transfers?status=PENDING_AUTHORIZATION&status=QUEUED").json["items"]) == 5
        ids = api.ask("GET", "/v1/customers?limit=1").json
        assert [row["id"] for row in api.ask("GET", f"/v1/customers?cursor={ids['next_cursor']}").json["items"]] == [
            "bo"
        ]

    @pytest.mark.parametrize(
        "query",
        [
            pytest.param("cursor=x", id="no cursor"),
            pytest.param("cursor=" + cursors.make("customers", "ada"), id="another list's"),
            pytest.param("cursor=" + cursors.make("transfers", "-1"), id="below the first"),
            pytest.param("cursor=" + cursors.make("transfers", "9" * 19), id="beyond all"),
            pytest.param("cursor=" + cursors.make("transfers", "1") + "%3D", id="another spelling"),
            pytest.param("limit=0", id="no rows"),
            pytest.param("limit=201", id="too many rows"),
            pytest.param("limit=1.5", id="a fraction of rows"),
            pytest.param("status=DONE", id="unknown status"),
            pytest.param("wallet=0x12", id="no wallet's name"),
        ],
    )
    def test_bad_queries(self, query: str) -> None:
        """400, as a problem."""
        answer = Api().ask("GET", f"/v1/transfers?{query}")
        assert (answer.status, answer.rule) == (400, "malformed")

    def test_evidence(self) -> None:
        """Wallets by certificate, coverage with surplus, statements as signed."""
        api = Api()
        wallets = api.ask("GET", "/v1/wallets").json["items"]
        tiers = ("customer_hot", "customer_cold", "operational")
        assert {(w["tier"], w["chain"]) for w in wallets} == {(t, c.name) for t in tiers for c in (EVM, BITCOIN)}
        row = api.ask("GET", "/v1/coverage").json["items"][0]
        assert (row["asset"], row["liabilities"]["amount"], row["surplus"]["base_units"]) == (
            "ETH",
            "100",
            str(10**30 - 10**20),
        )
        latest = api.ask("GET", "/v1/statements/latest").json
        assert api.ask("GET", "/v1/statements/5").json == latest
        assert (api.ask("GET", "/v1/statements/6").status, api.ask("GET", "/v1/statements/x").status) == (404, 400)


class TestProblems:
    """Every error is a problem, ours and the framework's."""

    @pytest.mark.parametrize(
        ("method", "path", "status", "rule"),
        [
            pytest.param("GET", "/v1/nothing", 404, "no_such_route", id="no such route"),
            pytest.param("GET", "/v1/customers/", 404, "no_such_route", id="no redirect to another target"),
            pytest.param("DELETE", "/v1/customers", 405, "method_not_allowed", id="no such method"),
            pytest.param("GET", "/v1/transfers/nobody", 404, "unknown_transfer", id="no such transfer"),
        ],
    )
    def test_by_rule(self, method: str, path: str, status: int, rule: str) -> None:
        """With its status."""
        answer = Api().ask(method, path)
        assert (answer.status, answer.rule) == (status, rule)

    def test_a_bug_tells_nothing(self) -> None:
        """500 without a word of what happened; the server's log has it."""

        def broken() -> Any:
            raise RuntimeError("secret of the house")

        api = Api(changes={"kernel": broken})
        with pytest.raises(RuntimeError):  # Starlette answers first, then lets the server log it
            api.ask("GET", "/v1/wallets")

    def test_the_mirror_cannot_be_read(self) -> None:
        """No roster, no request: closed."""

        def unreadable() -> Any:
            raise Unavailable("the roster", "somebody changed a row")

        answer = Api(changes={"roster": unreadable}).ask("GET", "/v1/wallets")
        assert (answer.status, answer.rule) == (503, "unavailable")


def test_no_route_without_the_gate() -> None:
    """A route that is mounted without the gate in front still answers nobody."""
    api = Api()
    api.app.user_middleware.clear()
    answer = api.ask("GET", "/v1/wallets")
    assert (answer.status, answer.rule) == (401, "signature_missing")


def test_every_route_asks_for_a_caller() -> None:
    """Whatever is added later: no path but health works without a scope or a caller."""
    schema = Api().ask("GET", "/v1/openapi.json").json
    api = Api()
    api.app.user_middleware.clear()
    for path, methods in schema["paths"].items():
        for method in methods:
            answer = api.send(method.upper(), path, b"{}", {"Host": "x", "Content-Type": "application/json"})
            assert answer.status == (200 if path == "/v1/health" else 401), (method, path, answer.raw)


DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "api.md"
_SCOPES: Final = {"none": None, "any": (), "read": ("read",), "propose": ("propose",), "settle": ("settle",)}
Routes = dict[tuple[str, str], tuple[str, ...] | None]


def plain(path: str) -> str:
    """A path without its parameters' names."""
    return re.sub(r"{[^}]*}", "{}", path)


def documented() -> Routes:
    """Each method and path of the table in docs/api.md with its scope."""
    rows = [line.strip("|").split("|") for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if "/v1/" in line]
    found: Routes = {}
    for cells in (cells for cells in rows if len(cells) == 3):
        for method, path in re.findall(r"`(GET|POST) (/v1/[^`?]*)", cells[0]):
            found[method, plain(path)] = _SCOPES[cells[1].strip()]
    return found


def test_the_document_is_true_to_each_route() -> None:
    """docs/api.md names each route that is served with the scope that it asks for, and no other."""
    api = Api()
    schema = api.ask("GET", "/v1/openapi.json").json
    served: Routes = {
        (method.upper(), plain(path)): tuple(operation["security"][0]["signature"]) if operation["security"] else None
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }
    assert documented() == {**served, ("GET", "/v1/openapi.json"): ()}


def test_the_description_is_true() -> None:
    """Problems instead of the framework's own errors, the idempotency header where it is asked for, and who signs."""
    schema = Api().ask("GET", "/v1/openapi.json").json
    keyed = set()
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert "422" not in operation["responses"], path
            if path != "/v1/health":
                told = operation["responses"]["default"]["content"]
                assert told == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
            if any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", ())):
                keyed.add((method, path))
    assert keyed == {("post", "/v1/transfers"), ("post", "/v1/settlements")}
    assert set(schema["components"]["schemas"]["Reason"]["properties"]["rule"]["enum"]) == set(Rule)
    assert "HTTPValidationError" not in json.dumps(schema)
    assert list(schema["components"]["securitySchemes"]) == ["signature"]
