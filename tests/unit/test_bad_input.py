# SPDX-License-Identifier: AGPL-3.0-or-later
"""Bad input of every kind, through the flow and through the API: one rule each, that names the field, and nothing half done.

What the command line refuses is in `test_approve_command`; what a request itself gets wrong in `test_api_gate`.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from custody.flows import proposals
from custody.rules.approvals import Approval
from custody.rules.certificates import Enrolment
from custody.rules.errors import InvalidInput
from custody.rules.intents import EXPIRY_MOST, Proposal, Rejection
from custody.rules.refusals import Refused, Rule
from custody.rules.requirement import Outcome
from custody.rules.roster import Roster
from custody.rules.signatures import Signed
from custody.rules.transfers import Status, SubStatus, Transfer
from custody.rules.typed import Domain
from custody.rules.wallets import Tier
from custody.store import migrate, open_store
from tests.fakes.api import Api
from tests.fakes.seat import BITCOIN, EVM, NOW, ed25519, secp256k1, signed_by
from tests.fakes.treasury import (
    AVAILABLE,
    DAY,
    HELD,
    FakePrices,
    Treasury,
    approval,
    enrolment,
    inside,
    kernel,
    no,
    proposal,
    roster,
    signed,
)
from tests.fakes.trust import ASSETS, PAYEE, STRANGER, answers, internal_address, world
from tests.unit.shipped import open_shipped

ONE: Final = 10**18
ELSEWHERE: Final = Domain(b"\x07" * 32)
"""Another deployment."""


def refused(act: Callable[[], object]) -> set[Rule]:
    """The rules by which something is refused; every refusal names what it is about."""
    with pytest.raises((Refused, InvalidInput)) as caught:
        act()
    if isinstance(caught.value, InvalidInput):
        return {Rule(caught.value.rule)}
    assert isinstance(caught.value, Refused)
    assert all(refusal.operands for refusal in caught.value.refusals)
    return {refusal.rule for refusal in caught.value.refusals}


def body(signed_proposal: Signed[Proposal]) -> dict[str, Any]:
    """A proposal as it travels."""
    message = signed_proposal.message
    places = ASSETS.get(message.asset).decimals if message.asset in {a.symbol for a in ASSETS} else 18
    whole, rest = divmod(message.amount, 10**places)
    decimal = f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".")
    signatures = [signature.to_json() for signature in signed_proposal.signatures]
    return {**message.to_json(), "amount": decimal, "expiry": message.expiry, "signatures": signatures}


def untouched(t: Treasury) -> bool:
    """No transfer, no hold."""
    return t.store.read(lambda w: not w.transfers.examine()) and (t.balance(AVAILABLE), t.balance(HELD)) == (
        147 * ONE,
        0,
    )


class TestProposals:
    """What nobody may ask for."""

    @pytest.mark.parametrize(
        ("message", "by", "rule", "status"),
        [
            pytest.param(proposal(expiry=NOW), "backend", Rule.EXPIRED, 422, id="expired this second"),
            pytest.param(
                proposal(expiry=NOW + EXPIRY_MOST + 1),
                "backend",
                Rule.EXPIRY_TOO_FAR,
                422,
                id="expires a second too late",
            ),
            pytest.param(proposal(expiry=2**64 - 1), "backend", Rule.EXPIRY_TOO_FAR, 422, id="never expires"),
            pytest.param(proposal(amount=999), "backend", Rule.DUST, 422, id="dust"),
            pytest.param(proposal(destination=STRANGER), "backend", Rule.ENROLMENT, 422, id="unenrolled"),
            pytest.param(
                proposal(destination=internal_address(Tier.CUSTOMER_HOT, EVM)),
                "backend",
                Rule.OWN_ADDRESS,
                422,
                id="own address",
            ),
            pytest.param(
                proposal(destination=internal_address(Tier.CUSTOMER_COLD, EVM)),
                "backend",
                Rule.OWN_ADDRESS,
                422,
                id="own address in cold",
            ),
            pytest.param(
                proposal(destination=internal_address(Tier.OPERATIONAL, EVM)),
                "backend",
                Rule.WALL,
                422,
                id="the company's",
            ),
            pytest.param(proposal(asset="BTC"), "backend", Rule.WRONG_NETWORK, 422, id="another chain's asset"),
            pytest.param(
                proposal(chain=BITCOIN.name, asset="BTC", amount=10**6),
                "backend",
                Rule.WRONG_CHECKSUM,
                422,
                id="EVM on BTC",
            ),
            pytest.param(proposal(asset="eth"), "backend", Rule.UNKNOWN_ASSET, 422, id="a symbol in other letters"),
            pytest.param(proposal(amount=2**256 - 1), "backend", Rule.TOO_LARGE, 422, id="all there can be"),
            pytest.param(proposal(account="customer:"), "backend", Rule.UNKNOWN_CUSTOMER, 422, id="nobody's"),
            pytest.param(proposal(account="customer:ADA"), "backend", Rule.UNKNOWN_CUSTOMER, 422, id="in capitals"),
            pytest.param(
                proposal(account="customer:аda"), "backend", Rule.UNKNOWN_CUSTOMER, 422, id="a Cyrillic letter"
            ),
            pytest.param(
                proposal(account="customer:ada\u200b"), "backend", Rule.UNKNOWN_CUSTOMER, 422, id="no-width space"
            ),
            pytest.param(proposal(account="ada"), "backend", Rule.UNKNOWN_CUSTOMER, 422, id="without its kind"),
            pytest.param(proposal(account="company "), "backend", Rule.UNKNOWN_CUSTOMER, 422, id="almost the company"),
            pytest.param(proposal(purpose="withdrawal\u200b"), "backend", Rule.MALFORMED, 400, id="almost a purpose"),
            pytest.param(
                proposal(destination=PAYEE[EVM.name] + " "), "backend", Rule.WRONG_NETWORK, 422, id="a space behind"
            ),
            pytest.param(proposal(reference=""), "backend", Rule.MALFORMED, 400, id="no reference"),
            pytest.param(proposal(reference="\x1b[2J"), "backend", Rule.MALFORMED, 400, id="a reference that paints"),
            pytest.param(proposal(reference="a\x00b"), "backend", Rule.MALFORMED, 400, id="a NUL"),
            pytest.param(proposal(reference="\u202egnp"), "backend", Rule.MALFORMED, 400, id="turned around"),
            pytest.param(proposal(), "settler", Rule.SCOPE_MISSING, 403, id="signed by a settling key"),
            pytest.param(proposal(), "authority", Rule.AUTHORITY_PROPOSES, 403, id="signed by an address authority"),
            pytest.param(proposal(), "nobody", Rule.SIGNER_UNKNOWN, 403, id="signed by a stranger"),
        ],
    )
    def test_refused(self, message: Proposal, by: str, rule: Rule, status: int) -> None:
        """By the flow, by a dry run and over HTTP alike; nothing is recorded and nothing held."""
        api = Api()
        t, document = api.treasury, signed(message, by)
        assert rule in refused(lambda: proposals.propose(t.store, t.kernel, document, "k", NOW, bytes(10)))
        assert rule in refused(lambda: proposals.dry_run(t.store, t.kernel, document, NOW))
        for path in ("/v1/transfers", "/v1/transfers/dry-run"):
            answer = api.ask("POST", path, body(document), key="k")
            assert rule in {found["rule"] for found in answer.json["refusals"]}, answer.json
            assert (answer.status, bool(answer.rule)) == (status, True)
            assert answer.json["operands"]
        assert untouched(t)

    @pytest.mark.parametrize("amount", [-1, 2**256, True, 1.0, "1"], ids=str)
    def test_no_amount(self, amount: Any) -> None:
        """What is no uint256 cannot even be said."""
        with pytest.raises(InvalidInput):
            proposal(amount=amount)

    def test_another_deployments(self) -> None:
        """The same keys under another genesis propose nothing here."""
        api = Api()
        t, document = api.treasury, signed_by(proposal(), ELSEWHERE, [ed25519("backend")])
        assert refused(lambda: proposals.propose(t.store, t.kernel, document, "k", NOW, bytes(10))) == {
            Rule.SIGNATURE_INVALID
        }
        answer = api.ask("POST", "/v1/transfers", body(document), key="k")
        assert (answer.status, answer.rule) == (403, "signature_invalid")
        assert untouched(t)

    def test_two_proposers(self) -> None:
        """Whoever carries two signatures could drop one, choose the initiator, and let the other approve."""
        api = Api()
        document = signed_by(proposal(), world().domain, [secp256k1("ana"), secp256k1("dee")])
        t = api.treasury
        assert refused(lambda: proposals.propose(t.store, t.kernel, document, "k", NOW, bytes(10))) == {Rule.MALFORMED}
        answer = api.ask("POST", "/v1/transfers", body(document), key="k")
        assert (answer.status, answer.json["operands"]["field"]) == (400, "signatures")
        assert untouched(t)

    def test_furthest_expiry(self) -> None:
        """The last second that is taken."""
        assert Treasury().propose(proposal(expiry=NOW + EXPIRY_MOST)).live

    def test_a_price_of_one_feeder(self) -> None:
        """Unknown is no price: 503, and nothing held."""
        api = Api(treasury=Treasury(kernel=kernel(prices=FakePrices({}))))
        answer = api.ask("POST", "/v1/transfers", body(signed(proposal())), key="k")
        assert (answer.status, answer.rule, answer.headers["retry-after"]) == (503, "unavailable", "2")
        assert untouched(api.treasury)


def _changed(**changes: Any) -> Roster:
    """Version 2, where bo is another."""
    version = roster().version
    people = tuple(replace(p, **changes) if p.id == "bo" else p for p in version.people if changes or p.id != "bo")
    return Roster(Signed(replace(version, version=2, people=people), ()), world().domain.genesis)


def _elsewhere(transfer: Transfer) -> Approval:
    return Approval(transfer.digest, "bo", secp256k1("bo").sign(ELSEWHERE.digest(transfer.intent)))


class TestApprovals:
    """Whose yes is none."""

    @pytest.mark.parametrize(
        ("make", "newest", "rule", "status"),
        [
            pytest.param(lambda m: approval(m, "mallory"), None, Rule.SIGNER_UNKNOWN, 403, id="unknown approver"),
            pytest.param(lambda m: approval(m, "bo"), _changed(), Rule.SIGNER_UNKNOWN, 403, id="who left since"),
            pytest.param(
                lambda m: approval(m, "bo"),
                _changed(keys=(secp256k1("bo's new key").key,)),
                Rule.SIGNER_UNKNOWN,
                403,
                id="revoked key",
            ),
            pytest.param(
                lambda m: approval(m, "bo", key="bo's new key"),
                _changed(keys=(secp256k1("bo's new key").key,)),
                Rule.SIGNER_UNKNOWN,
                403,
                id="a key that the pinned version does not know",
            ),
            pytest.param(
                lambda m: approval(m, "bo"), _changed(expires=NOW), Rule.SIGNER_EXPIRED, 403, id="an entry that expired"
            ),
            pytest.param(_elsewhere, None, Rule.SIGNATURE_INVALID, 403, id="another deployment's signature"),
            pytest.param(
                lambda m: approval(m, "bo", over=m.proposal.message),
                None,
                Rule.SIGNATURE_INVALID,
                403,
                id="over the proposal",
            ),
            pytest.param(
                lambda m: approval(m, "bo", over=Rejection(m.digest, "x")),
                None,
                Rule.SIGNATURE_INVALID,
                403,
                id="a no as a yes",
            ),
            pytest.param(
                lambda m: Approval(m.digest, "bo", ed25519("backend").sign(m.digest)),
                None,
                Rule.SIGNER_UNKNOWN,
                403,
                id="a program's key",
            ),
        ],
    )
    def test_refused(
        self, make: Callable[[Transfer], Approval], newest: Roster | None, rule: Rule, status: int
    ) -> None:
        """By the flow and over HTTP; nobody is counted and nothing moves."""
        api = Api()
        t = api.treasury
        made = t.propose()
        if newest is not None:
            t.kernel = replace(t.kernel, rosters=(*t.kernel.rosters, newest))
        assert refused(lambda: proposals.approve(t.store, t.kernel, make(made), NOW)) == {rule}
        answer = api.ask("POST", f"/v1/transfers/{made.intent.id}/approvals", make(made).to_json())
        assert (answer.status, answer.rule) == (status, rule.value)
        assert answer.json["operands"]["person"]
        assert t.store.read(lambda w: w.transfers.approvals(made.digest)) == []
        assert t.get(made) == made

    def test_twice_under_two_keys(self) -> None:
        """One person fills one slot, whatever keys they have: the second is refused, or not counted."""
        laptop = secp256k1("bo's laptop").key
        version = roster().version
        people = tuple(
            replace(p, keys=(*p.keys, laptop), displays=(*p.displays, True)) if p.id == "bo" else p
            for p in version.people
        )
        both = Roster(Signed(replace(version, people=people), ()), world().domain.genesis)
        api = Api(treasury=Treasury(kernel=kernel(rosters=(both,))))
        made = api.treasury.propose()
        api.treasury.approve(made, "bo")
        second = approval(made, "bo", key="bo's laptop")
        assert refused(lambda: proposals.approve(api.treasury.store, api.treasury.kernel, second, NOW)) == {
            Rule.SIGNER_TWICE
        }
        answer = api.ask("POST", f"/v1/transfers/{made.intent.id}/approvals", second.to_json())
        assert (answer.status, answer.rule) == (409, "one_signer_twice")
        assert api.treasury.get(made).waiting_for == "1 of operations"

    def test_what_policy_denied(self) -> None:
        """Nobody can approve it, and no approval is kept for later."""
        api = Api(treasury=Treasury(kernel=kernel(answers(Outcome.DENY))))
        made = api.treasury.propose()
        assert (made.status, made.live) == (Status.BLOCKED, False)
        assert refused(lambda: api.treasury.approve(made, "ana")) == {Rule.ILLEGAL_MOVE}
        path = f"/v1/transfers/{made.intent.id}/approvals"
        answer = api.ask("POST", path, approval(made, "ana").to_json())
        assert (answer.status, answer.rule) == (409, "status_move_not_allowed")
        assert api.ask("GET", path).json["approvals"] == []

    @pytest.mark.parametrize(
        "reason", ["", "\x1b[2J", "a\x00b", "two\nlines"], ids=["none", "paints", "NUL", "two lines"]
    )
    def test_reasons(self, reason: str) -> None:
        """A reason is kept and shown: printable, or the no is not taken."""
        api = Api()
        made = api.treasury.propose()
        document = no(made, "bo", reason)
        assert refused(lambda: proposals.reject(api.treasury.store, api.treasury.kernel, document, NOW)) == {
            Rule.MALFORMED
        }
        answer = api.ask("POST", f"/v1/transfers/{made.intent.id}/rejections", document.to_json())
        assert (answer.status, answer.json["operands"]["field"]) == (400, "reason")
        assert api.treasury.get(made) == made


class TestEnrolments:
    """An authority hears at once what could never be paid."""

    @pytest.mark.parametrize(
        ("document", "rule", "status"),
        [
            pytest.param(
                enrolment(authority="ana", evidence=b"\1" * 32), Rule.SIGNATURE_INVALID, 403, id="no authority's"
            ),
            pytest.param(
                signed_by(enrolment(address=STRANGER).message, ELSEWHERE, [secp256k1("authority")]),
                Rule.SIGNATURE_INVALID,
                403,
                id="another deployment's",
            ),
            pytest.param(enrolment(address=STRANGER, expiry=NOW), Rule.EXPIRED, 422, id="lapsed"),
            pytest.param(enrolment(chain=EVM, address=STRANGER.lower()), Rule.WRONG_CHECKSUM, 422, id="checksum"),
            pytest.param(enrolment(address="0x" + "00" * 20), Rule.MALFORMED, 400, id="the zero address"),
            pytest.param(enrolment(address=PAYEE[BITCOIN.name]), Rule.WRONG_NETWORK, 422, id="another network's"),
            pytest.param(
                enrolment(chain=BITCOIN, address=PAYEE[BITCOIN.name].upper()),
                Rule.MALFORMED,
                400,
                id="another spelling",
            ),
            pytest.param(
                enrolment(address=internal_address(Tier.CUSTOMER_HOT, EVM)), Rule.OWN_ADDRESS, 422, id="own address"
            ),
            pytest.param(
                enrolment(address=internal_address(Tier.OPERATIONAL, EVM)),
                Rule.OWN_ADDRESS,
                422,
                id="the company's wallet",
            ),
            pytest.param(enrolment(address=STRANGER, kind="internal_wallet"), Rule.MALFORMED, 400, id="another kind"),
            pytest.param(enrolment(address=STRANGER, owner="customer:eve"), Rule.UNKNOWN_CUSTOMER, 422, id="nobody's"),
            pytest.param(enrolment(address=STRANGER, owner="customer:"), Rule.UNKNOWN_CUSTOMER, 422, id="empty owner"),
            pytest.param(
                enrolment(address=STRANGER, owner="company"), Rule.OWNER_MISMATCH, 422, id="the company withdraws"
            ),
            pytest.param(
                enrolment(address=STRANGER, kind="allow_listed"), Rule.OWNER_MISMATCH, 422, id="a customer pays vendors"
            ),
        ],
    )
    def test_refused(self, document: Signed[Enrolment], rule: Rule, status: int) -> None:
        """By the flow and over HTTP, and nothing is recorded."""
        api = Api()
        t, digest = api.treasury, document.message.struct_hash
        assert rule in refused(lambda: proposals.enrol(t.store, t.kernel, document, NOW))
        answer = api.ask("POST", "/v1/enrolments", document.to_json())
        assert (answer.status, answer.rule) == (status, rule.value)
        assert t.store.read(lambda w: w.enrolments.get(digest)) is None

    def test_unknown_chain(self) -> None:
        """A chain that the roster does not name."""
        t = Treasury()
        elsewhere = enrolment(chain=EVM).message
        document = signed_by(replace(elsewhere, chain="eip155:1"), world().domain, [secp256k1("authority")])
        assert refused(lambda: proposals.enrol(t.store, t.kernel, document, NOW)) == {Rule.UNKNOWN_CHAIN}


class TestTargets:
    """Paths and queries that no eye can read reach no database."""

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/transfers/a%00b",
            "/v1/customers/%1b%5b2J",
            "/v1/enrolments?owner=customer:%00",
            "/v1/transfers?account=%e2%80%ae",
            "/v1/customers/%ff",
        ],
    )
    def test_refused(self, path: str) -> None:
        """400, whatever the route."""
        answer = Api().ask("GET", path)
        assert (answer.status, answer.rule) == (400, "malformed")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The rules that are shipped, over the tests' registry."""
    return open_shipped(tmp_path_factory.mktemp("shipped")).policy


class TestShippedPolicy:
    """Ways round the shipped rules, tried through the true flow."""

    def _many(self, t: Treasury, number: int, amount: int = 5 * ONE) -> list[Transfer]:
        """So many withdrawals of 5 ETH, worth 10,000 USD each."""
        return [t.propose(proposal(n, amount=amount), key=f"k{n}", number=n) for n in range(number)]

    def test_splitting_gains_nothing(self, shipped: Any) -> None:
        """50,000 USD of one customer go by themselves in a day, whatever the parts; the next asks for people."""
        made = self._many(Treasury(kernel=kernel(shipped)), 6)
        assert [m.status for m in made] == [Status.QUEUED] * 5 + [Status.PENDING_AUTHORIZATION]

    def test_splitting_at_once_gains_nothing(self, shipped: Any, tmp_path: Path) -> None:
        """Six that arrive together, in one commit: each sees the others' holds."""
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        migrate(url)
        store = open_store(url, ASSETS)
        t = Treasury(store=store, kernel=kernel(shipped))
        asked = [signed(proposal(n, amount=5 * ONE)) for n in range(12)]

        def one(n: int) -> Status:
            return proposals.propose(store, t.kernel, asked[n], f"k{n}", NOW, n.to_bytes(10)).status

        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(one, range(12)))
        store.close()
        assert found.count(Status.QUEUED) == 5
        assert found.count(Status.PENDING_AUTHORIZATION) == 7

    def test_what_is_pending_counts_whatever_its_age(self, shipped: Any) -> None:
        """Windows are not waited out while the coins are still on their way."""
        t = Treasury(kernel=kernel(shipped))
        t.propose(proposal(99, amount=25 * ONE, expiry=NOW + 5 * DAY), key="k99", number=99)
        t.now = NOW + 2 * DAY
        later = t.propose(proposal(1, amount=5 * ONE, expiry=t.now + DAY), key="k1", number=1)
        assert later.status is Status.PENDING_AUTHORIZATION

    def test_a_no_gives_the_window_back(self, shipped: Any) -> None:
        """What was cancelled moves nothing, and takes nothing up."""
        t = Treasury(kernel=kernel(shipped))
        made = self._many(t, 5)
        proposals.cancel(t.store, t.kernel, no(made[0], "backend"), NOW)
        assert t.propose(proposal(9, amount=5 * ONE), key="k9", number=9).status is Status.QUEUED

    @pytest.mark.parametrize(
        ("age", "status"),
        [
            pytest.param(DAY - 1, Status.BLOCKED, id="a second before cooling-off ends"),
            pytest.param(DAY, Status.QUEUED, id="when it ends"),
            pytest.param(-5, Status.BLOCKED, id="first seen in the future"),
        ],
    )
    def test_cooling_off(self, shipped: Any, age: int, status: Status) -> None:
        """Counted from the first sight, to the second; the document's own dates do not matter."""
        t = Treasury(kernel=kernel(shipped))
        document = enrolment(address=STRANGER)
        t.store.run(lambda w: w.enrolments.add(document, NOW - age))
        made = t.propose(proposal(amount=ONE, destination=STRANGER))
        assert made.status is status
        if status is Status.BLOCKED:
            assert (made.sub_status, made.live, t.balance(HELD)) == (SubStatus.BLOCKED_BY_POLICY, False, 0)
            assert made.decision is not None
            assert made.decision["denied_by"] == ["D06-cooling-off"]

    def test_enrolled_anew_cools_off_anew(self, shipped: Any) -> None:
        """A newer enrolment of the same address is another document, with an age of its own: the newest counts."""
        t = Treasury(kernel=kernel(shipped))
        newer = enrolment(evidence=b"\1" * 32)
        proposals.enrol(t.store, t.kernel, newer, NOW)
        made = t.propose(proposal(amount=ONE))
        assert (made.status, made.intent.enrolment) == (Status.BLOCKED, newer.message.struct_hash)

    @pytest.mark.parametrize(
        ("message", "by", "found"),
        [
            pytest.param(proposal(amount=5 * ONE), "backend", Status.QUEUED, id="the native cap"),
            pytest.param(proposal(amount=5 * ONE + 1), "backend", Status.PENDING_AUTHORIZATION, id="the cap and a wei"),
            pytest.param(proposal(amount=ONE), "desk", Status.PENDING_AUTHORIZATION, id="asked for by operations"),
            pytest.param(proposal(amount=ONE), "finance", Status.BLOCKED, id="asked for by finance"),
            pytest.param(inside(Tier.CUSTOMER_COLD), "backend", Status.BLOCKED, id="customers' key moves treasury"),
            pytest.param(inside(Tier.CUSTOMER_HOT), "desk", Status.PENDING_AUTHORIZATION, id="out of cold by people"),
            pytest.param(
                inside(Tier.CUSTOMER_HOT), "finance", Status.BLOCKED, id="out of cold, asked for by the wrong desk"
            ),
            pytest.param(
                inside(Tier.OPERATIONAL, purpose="fee_sweep"),
                "desk",
                Status.BLOCKED,
                id="fees, asked for by operations",
            ),
        ],
    )
    def test_decided(self, shipped: Any, message: Proposal, by: str, found: Status) -> None:
        """Deny by default: who asks, from where, for what."""
        assert Treasury(kernel=kernel(shipped)).propose(message, by).status is found

    def test_a_price_that_lies(self, shipped: Any) -> None:
        """An ETH for a dollar: the native cap holds."""
        t = Treasury(kernel=kernel(shipped, prices=FakePrices({"ETH": 10**6})))
        assert t.propose(proposal(amount=6 * ONE)).status is Status.PENDING_AUTHORIZATION

    def test_dry_run_says_each_first_unmet_condition(self, shipped: Any) -> None:
        """Over HTTP: outcome, who is asked, and for every rule that did not match, why."""
        api = Api(treasury=Treasury(kernel=kernel(shipped)))
        told = api.ask("POST", "/v1/transfers/dry-run", body(signed(proposal(amount=6 * ONE)))).json
        assert (told["decision"]["outcome"], told["asks"]) == ("REQUIRE", "1 of operations, 1 of risk")
        unmet = {row["rule"]: (row["part"], row["condition"]) for row in told["decision"]["unmet"]}
        assert unmet["P01-customer-withdrawal"] == ("automatic_when", "amount: at most limit auto_withdrawal")
        assert unmet["D06-cooling-off"] == ("when", "dest_age: less than 24h")
        assert set(unmet) == {rule.id for rule in shipped.rules}
        assert untouched(api.treasury)


class TestStored:
    """What fits a document fits the database too."""

    def test_furthest_times(self, tmp_path: Path) -> None:
        """A uint64 is no signed 64-bit column's: the last second there is, in a document that may name it."""
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        migrate(url)
        store = open_store(url, ASSETS)
        t = Treasury(store=store)
        document = enrolment(address=STRANGER, expiry=2**64 - 1)
        proposals.enrol(store, t.kernel, document, NOW)
        assert store.read(lambda w: w.enrolments.get(document.message.struct_hash)) is not None
        api = Api(treasury=t)
        assert api.ask("POST", "/v1/transfers", body(signed(proposal(expiry=2**64 - 1))), key="k").status == 422
        store.close()
