# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pages over what is recorded: suspense that two people resolve, statements, exports, the trail; and a bundle's activation."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from api.console.sheets import cells
from custody.flows import gathering
from custody.governing import stored_activations
from custody.rules.governance import PolicyActivation
from custody.rules.ledger import Account, AccountKind
from custody.rules.signatures import Signed
from tests.console.browsing import Seat
from tests.console.calling import Caller, answer_of, found_in, rule_of
from tests.console.conftest import free_port
from tests.console.furnishing import draft_bundle, draft_out_of_suspense, furnish
from tests.console.world import NASTY, World, serving
from tests.fakes.governed import activation, after, rule
from tests.fakes.seated import shipped

Seats = Callable[[str], Seat]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A console of this file's own, with something on every page."""
    with serving(World(tmp_path_factory.mktemp("books"), free_port())) as made:
        furnish(made)
        yield made


def _suspense(world: World) -> tuple[str, str]:
    (account, asset, units) = world.store.read(lambda work: work.listing.balances(AccountKind.SUSPENSE, 1))[0]
    return str(account), f"{units / 10**asset.decimals}"


def _balance(world: World, customer: str) -> int:
    account = Account(AccountKind.CUSTOMER_AVAILABLE, customer)
    return world.store.read(lambda work: work.journal.balance(account, world.asset("ETH")))


def test_suspense_leaves_by_two_signatures(world: World, seats: Seats) -> None:
    """Drafted by Gil in the browser, signed by two, booked by anybody; once."""
    draft_out_of_suspense(world)  # something stands there
    gil, before = seats("gil"), _balance(world, "bo")
    gil.goto("/ledger/suspense")
    gil.page.get_by_text("It belongs to a customer").first.click()
    gil.page.get_by_label("Customer").first.fill("bo")
    gil.page.get_by_label("Amount").first.fill("0.1")
    gil.page.get_by_label("Reason").first.fill("Bo sent the transaction's id from their verified address")
    gil.page.get_by_role("button", name="Draft the entry…").first.click()
    gil.page.wait_for_url(lambda url: "done=drafted" in url)
    where = gil.page.url.partition("?")[0].removeprefix(world.origin)
    assert "2 more people" in gil.text()
    assert gil.page.get_by_role("button", name="Book it").is_disabled()
    assert gil.post(where + "/carry", {}) == (422, "quorum_not_reached")
    for person in ("gil", "cleo"):
        seats(person).goto(where)
        seats(person).press("Sign with my passkey", lambda url: "done=signed" in url)
    assert _balance(world, "bo") == before
    gil.goto(where)
    gil.press("Book it", lambda url: "done=booked" in url)
    assert _balance(world, "bo") == before + 10**17
    assert "Bo sent the transaction" in gil.text()
    gil.goto(where)
    assert "cannot be booked again" in gil.text()
    assert gil.post(where + "/carry", {}) == (409, "already_recorded")
    assert [seats(p).faults for p in ("gil", "cleo")] == [[], []]


@pytest.mark.parametrize(
    ("change", "rule_"),
    [
        pytest.param({"event": "customer_available:ada"}, "malformed", id="a customer's coins"),
        pytest.param({"event": "suspense"}, "malformed", id="no event"),
        pytest.param({"event": "suspense:no such event"}, "", id="an event that was not"),
        pytest.param({"customer": "nobody"}, "unknown_customer", id="an unknown customer"),
        pytest.param({"amount": "0"}, "", id="nothing"),
        pytest.param({"amount": "-1"}, "amount_negative", id="less than nothing"),
        pytest.param({"amount": "999999"}, "", id="more than there is"),
        pytest.param({"amount": "1e3"}, "malformed", id="an exponent"),
        pytest.param({"asset": "XYZ"}, "unknown_asset", id="an unknown asset"),
        pytest.param({"reason": "  "}, "malformed", id="no reason"),
    ],
)
def test_no_draft_books_what_the_rules_refuse(own: World, change: dict[str, str], rule_: str) -> None:
    """Refused at once, or a draft that two true signatures do not carry either; no balance moves."""
    gil, event = Caller(own, "gil").log_in(), _suspense(own)[0]
    before = own.store.read(lambda work: work.journal.head())
    gil.get("/ledger/suspense")
    form = {"event": event, "asset": "ETH", "amount": "0.1", "customer": "ada", "reason": "theirs", **change}
    answer = gil.post("/ledger/suspense", form)
    if answer.status_code == 303:
        assert rule_ == ""
        where = answer.headers["location"].partition("?")[0]
        for person in ("gil", "cleo"):
            assert _sign(own, where, person).status_code == 303
        answer = gil.post(where + "/carry", {})
    assert answer.status_code in {400, 409, 422}, answer.text
    assert rule_ in {"", rule_of(answer)}
    assert own.store.read(lambda work: work.journal.head()) == before


def _sign(world: World, where: str, person: str, by: str = "") -> requests.Response:
    who = Caller(world, person).log_in()
    digest = bytes.fromhex(found_in(who.get(where).text, r'data-digest="0x([0-9a-f]{64})"'))
    return who.post(
        where + "/sign", {"digest": "0x" + digest.hex(), "answer": answer_of(world.passkeys[by or person], digest)}
    )


def test_whoever_only_looks_drafts_and_signs_nothing(own: World) -> None:
    """A viewer sees the pages without their forms, and is refused with true signatures."""
    vic = Caller(own, "vic").log_in()
    manual, coming = "/ledger/manual/" + draft_out_of_suspense(own).hex(), "/policies/" + draft_bundle(own).hex()
    event = _suspense(own)[0]
    told = {"event": event, "asset": "ETH", "amount": "0.1", "customer": "ada", "reason": "mine"}
    assert rule_of(vic.post("/ledger/suspense", told)) == "scope_missing"
    for where in (manual, coming):
        page = vic.get(where).text
        assert "Sign with my passkey" not in page
        digest = bytes.fromhex(where.rpartition("/")[2])
        form = {"digest": "0x" + digest.hex(), "answer": answer_of(own.passkeys["vic"], digest)}
        assert rule_of(vic.post(where + "/sign", form)) == "scope_missing"
        assert rule_of(vic.post(where + "/carry", {})) == "scope_missing"
    assert "It belongs to a customer" not in vic.get("/ledger/suspense").text
    assert 'name="bundle"' not in vic.get("/policies").text


def test_another_persons_passkey_signs_no_draft(own: World) -> None:
    """Cleo's session with Dan's passkey, and a signature over another digest than the page shows."""
    where = "/ledger/manual/" + draft_out_of_suspense(own).hex()
    assert rule_of(_sign(own, where, "cleo", by="dan")) == "signer_not_in_roster"
    cleo = Caller(own, "cleo").log_in()
    other = bytes(32)
    told = {"digest": "0x" + other.hex(), "answer": answer_of(own.passkeys["cleo"], other)}
    assert cleo.post(where + "/sign", told).status_code in {409, 422}


def test_passkeys_alone_put_no_bundle_in_force(own: World, tmp_path: Path) -> None:
    """Every owner by passkey: refused, by name. One of them with a keystore beside them: mirrored, and waiting for its time."""
    coming = after(shipped(), rule("R01", delay="3h"))
    draft = activation(coming, shipped(), (), author="bo")
    files = {"activation": json.dumps(draft.to_json()).encode(), "bundle": json.dumps(coming.to_json()).encode()}
    bo, ana = Caller(own, "bo").log_in(), Caller(own, "ana").log_in()
    for who in (bo, ana):
        who.get("/policies")
    assert rule_of(bo.upload("/policies/drafts", files=files)) == "scope_missing"
    answer = ana.upload("/policies/drafts", files=files)
    assert answer.status_code == 303, rule_of(answer)
    where = answer.headers["location"].partition("?")[0]
    for person in ("ana", "cleo", "dan", "eve"):
        assert _sign(own, where, person).status_code == 303
    assert rule_of(ana.post(where + "/carry", {})) == "no_key_that_displays_signed"
    assert "no_key_that_displays_signed" in ana.get(where).text
    signed = activation(coming, shipped(), ("dan",), author="bo")
    files["activation"] = json.dumps(signed.to_json()).encode()
    ana.get("/policies")
    assert ana.upload("/policies/drafts", files=files).status_code == 303
    assert rule_of(_add(own, draft, "dan")) == "one_signer_twice"
    assert ana.post(where + "/carry", {}).status_code == 303
    kept = own.store.read(stored_activations)
    assert kept[-1].message == draft.message
    assert len(kept[-1].signatures) == 5
    page = ana.get("/policies").text
    assert "Waits for its time" in page


def _add(world: World, draft: Signed[PolicyActivation], person: str) -> requests.Response:
    return _sign(world, "/policies/" + world.roster.domain.digest(draft.message).hex(), person)


@pytest.mark.parametrize(
    ("name", "body", "told"),
    [
        pytest.param("activation", b"no json", "malformed", id="no JSON"),
        pytest.param("activation", b"[" * 10_000, "malformed", id="deep"),
        pytest.param("activation", b"\xff\xfe", "malformed", id="no UTF-8"),
        pytest.param("bundle", b"[]", "malformed", id="no object"),
        pytest.param("bundle", b"{}", "malformed", id="no documents"),
        pytest.param("bundle", b" " * (121 * 1024), "body_too_large", id="a large file"),
        pytest.param("bundle", b" " * (257 * 1024), "body_too_large", id="a large form"),
        pytest.param("bundle", json.dumps(shipped().to_json()).encode(), "not_the_successor", id="another bundle"),
    ],
)
def test_a_file_that_is_none(own: World, name: str, body: bytes, told: str) -> None:
    """Refused with what was wrong; no draft is kept."""
    coming = after(shipped(), rule("R01", delay="4h"))
    draft = activation(coming, shipped(), (), author="bo")
    files = {"activation": json.dumps(draft.to_json()).encode(), "bundle": json.dumps(coming.to_json()).encode()}
    ana = Caller(own, "ana").log_in()
    ana.get("/policies")
    before = own.store.read(lambda work: len([*gathering.drafts(work, own.roster, PolicyActivation, own.clock())]))
    assert rule_of(ana.upload("/policies/drafts", files={**files, name: body})) == told
    after_it = own.store.read(lambda work: len([*gathering.drafts(work, own.roster, PolicyActivation, own.clock())]))
    assert after_it == before


def test_a_cell_is_no_formula() -> None:
    """What a spreadsheet would run begins with an apostrophe; numbers do not."""
    assert cells("=1+1", "+a", "-b", "@c", "\td", "-1.5", "2", 'e"f') == "'=1+1,'+a,'-b,'@c,'\td,-1.5,2,\"e\"\"f\"\r\n"


def test_exports_say_what_stands_there(own: World) -> None:
    """A customer's statement sums to their balance; the ledger's lines chain; the trail's rows are the page's."""
    max_, total = Caller(own, "max").log_in(), 0
    answer = max_.get("/ledger/customers/ada/statement.csv")
    assert answer.headers["content-disposition"].startswith("attachment")
    for row in csv.DictReader(io.StringIO(answer.text)):
        if row["asset"] == "ETH" and row["account"] == "customer_available:ada":
            whole, _, part = row["change"].partition(".")
            total += int(whole + part.ljust(18, "0"))
    assert total == _balance(own, "ada")
    lines = [json.loads(line) for line in max_.get("/ledger/export").text.splitlines()]
    assert [line["position"] for line in lines] == [*range(1, len(lines) + 1)]
    assert all(line["previous"] == before["hash"] for before, line in itertools.pairwise(lines))
    own.propose("3", reference='=HYPERLINK("x")')
    for kind in ("moved", "approved", "rejected", "enrolled", "document"):
        told = [json.loads(line) for line in max_.get(f"/audit/export.jsonl?kind={kind}").text.splitlines()]
        rows = [*csv.DictReader(io.StringIO(max_.get(f"/audit/export.csv?kind={kind}").text))]
        assert len(told) == len(rows) > 0, kind
        assert not [cell for row in rows for cell in row.values() if cell[:1] in ("=", "+", "@")]
        page = max_.get(f"/audit?kind={kind}").text
        assert f"row {told[0]['number']}" in page


def test_the_trail_is_filtered(own: World) -> None:
    """By what it is about and by person; an unknown kind is the first one, and what nobody did is said."""
    cleo = Caller(own, "cleo").log_in()
    only = [json.loads(x) for x in cleo.get("/audit/export.jsonl?kind=rejected&person=cleo").text.splitlines()]
    assert {row["person"] for row in only} == {"cleo"}
    assert "Nothing of this kind was recorded." in cleo.get("/audit?kind=rejected&person=vic").text
    assert cleo.get("/audit?kind=nonsense").status_code == 200
    assert cleo.get("/audit?before=0").status_code in {400, 422}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/ledger/999999", "no_such_route"),
        ("/ledger/customers/nobody", "unknown_customer"),
        ("/ledger/customers/nobody/statement.csv", "unknown_customer"),
        ("/ledger?account=nonsense", "malformed"),
        ("/ledger/manual/" + "ab" * 32, "not_the_successor"),
        ("/ledger/manual/xyz", "no_such_route"),
        ("/policies/" + "ab" * 32, "not_the_successor"),
        ("/policies/xyz", "no_such_route"),
    ],
)
def test_what_is_not_there_is_said(own: World, path: str, told: str) -> None:
    """By a page with the rule's name, not by an error of the server."""
    answer = Caller(own, "max").log_in().get(path)
    assert answer.status_code in {400, 404, 422}
    assert rule_of(answer) == told


def test_names_stay_text_on_the_books(own: World) -> None:
    """Markup in a manual entry's reason, a customer's id, a filter: shown as it is written."""
    gil = Caller(own, "gil").log_in()
    gil.get("/ledger/suspense")
    form = {"event": _suspense(own)[0], "asset": "ETH", "amount": "0.01", "customer": "ada", "reason": NASTY}
    answer = gil.post("/ledger/suspense", form)
    assert answer.status_code == 303, rule_of(answer)
    pages = [answer.headers["location"], "/ledger/suspense", "/audit?about=<script>x</script>&person=<b>"]
    for path in (*pages, "/ledger?account=<script>x</script>", "/ledger/customers/<img src=x>"):
        text = gil.get(path).text
        assert "<script>x" not in text
        assert "<img src=x" not in text
        assert "<script>document" not in text
